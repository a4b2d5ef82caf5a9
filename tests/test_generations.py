"""Chains of distillation: every student is taught by the one before it, and by nobody else."""

import copy

import pytest
import torch
from torch import nn

from compresslab.data import Split
from compresslab.distillation.distill import TeacherOutputs, Term, distill, teacher_outputs
from compresslab.distillation.generations import average_teachers, distill_generations, distill_through
from compresslab.distillation.soft_targets import Labels, SoftTargets

OPTIONS = {"epochs": 2, "lr": 0.02, "batch_size": 16, "progress": False}
TERMS = [(0.5, Labels()), (0.5, SoftTargets(2.0))]


def states_equal(a, b):
    one, two = a.state_dict(), b.state_dict()
    return list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


def network(hidden, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, 2))


@pytest.fixture(scope="module")
def split():
    images = torch.randint(0, 256, (48, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, (images.float().mean((1, 2, 3)) > 127).long(), (0.5,), (0.25,))


def test_a_chain_is_distill_step_by_step(split):
    teacher, assistant, student = network(12), network(6, seed=1), network(2, seed=2)
    chain = distill_through(teacher, [assistant, student], split, TERMS, seed=5, **OPTIONS)
    first = distill(assistant, teacher, split, TERMS, seed=5, **OPTIONS)
    second = distill(student, first, split, TERMS, seed=6, **OPTIONS)
    assert states_equal(chain[0], first) and states_equal(chain[1], second)
    straight = distill(student, teacher, split, TERMS, seed=6, **OPTIONS)
    assert not states_equal(chain[1], straight)


def test_nothing_given_is_changed_and_outputs_will_do_for_the_first_teacher(split):
    teacher, students = network(12), [network(6, seed=1), network(2, seed=2)]
    before = copy.deepcopy([teacher, *students])
    by_network = distill_through(teacher, students, split, TERMS, **OPTIONS)
    by_outputs = distill_through(teacher_outputs(teacher, split), students, split, TERMS, **OPTIONS)
    assert all(states_equal(a, b) for a, b in zip([teacher, *students], before, strict=True))
    assert all(states_equal(a, b) for a, b in zip(by_network, by_outputs, strict=True))


def test_a_generation_begins_anew_and_learns_from_the_one_before(split):
    seeds = []

    def make_student(seed):
        seeds.append(seed)
        return network(4, seed)

    teacher = network(4, seed=99)
    first, second, third = distill_generations(
        teacher, make_student, split, TERMS, generations=3, seed=7, **OPTIONS
    )
    assert seeds == [7, 8, 9]
    assert states_equal(first, distill(network(4, 7), teacher, split, TERMS, seed=7, **OPTIONS))
    assert states_equal(second, distill(network(4, 8), first, split, TERMS, seed=8, **OPTIONS))
    assert states_equal(third, distill(network(4, 9), second, split, TERMS, seed=9, **OPTIONS))
    again = distill_generations(teacher, make_student, split, TERMS, generations=3, seed=7, **OPTIONS)
    assert states_equal(again[2], third) and not any(model.training for model in again)


def test_only_the_generation_before_is_asked(split):
    """A term that records what the teacher said: it is what the previous network says, and never generation 0 again."""
    said = []

    class Listen(Term):
        def forward(self, seen):
            if len(said) == 0 or not said[-1].equal(seen.teacher_logits):
                said.append(seen.teacher_logits)
            return seen.student_logits.square().mean()

    options = OPTIONS | {"batch_size": 48, "epochs": 1}
    teacher = network(4, seed=99)
    chain = distill_generations(teacher, lambda seed: network(4, seed), split, [(1.0, Listen())], generations=3, **options)
    for seed, (heard, before) in enumerate(zip(said, [teacher, *chain[:-1]], strict=True)):
        order = torch.randperm(48, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(heard, teacher_outputs(before, split).logits[order])


def test_the_average_of_teachers_is_the_mean_of_their_probabilities():
    generator = torch.Generator().manual_seed(0)
    zs = [3 * torch.randn(20, 5, generator=generator) for _ in range(3)]
    mean = average_teachers([TeacherOutputs(z, {"layer": z}) for z in zs])
    torch.testing.assert_close(mean.logits.softmax(1), sum(z.softmax(1) for z in zs) / 3)
    torch.testing.assert_close(mean.logits.exp(), mean.logits.softmax(1))
    assert mean.features == {} and len(mean) == 20
    alone = average_teachers([TeacherOutputs(zs[0])])
    torch.testing.assert_close(alone.logits, zs[0].log_softmax(1))
    shifted = average_teachers([TeacherOutputs(z + 7) for z in zs])  # probabilities, not logits, are averaged
    torch.testing.assert_close(shifted.logits, mean.logits)


def test_bad_input_is_refused(split):
    teacher, student = network(4), network(4, seed=1)
    with pytest.raises(ValueError, match="one student or more, got none"):
        distill_through(teacher, [], split, TERMS, **OPTIONS)
    with pytest.raises(TypeError, match=r"got one Sequential; write \[student\]"):
        distill_through(teacher, student, split, TERMS, **OPTIONS)
    with pytest.raises(TypeError, match="a student is a network, got str"):
        distill_through(teacher, [student, "small"], split, TERMS, **OPTIONS)
    with pytest.raises(TypeError, match="a student is a network, got NoneType"):
        distill_generations(teacher, lambda seed: None, split, TERMS, generations=1, **OPTIONS)
    with pytest.raises(ValueError, match="generations must be a whole number of at least 1, got 0"):
        distill_generations(teacher, lambda seed: student, split, TERMS, generations=0, **OPTIONS)
    with pytest.raises(TypeError, match="generations"):
        distill_generations(teacher, lambda seed: student, split, TERMS, generations=2.0, **OPTIONS)
    with pytest.raises(ValueError, match="one teacher or more, got none"):
        average_teachers([])
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(3, 4\)"):
        average_teachers([TeacherOutputs(torch.zeros(3, 2)), TeacherOutputs(torch.zeros(3, 4))])
