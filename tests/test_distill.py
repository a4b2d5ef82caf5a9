"""The loop of distillation: what it trains, what it leaves alone, what it sees, and what it refuses."""

import copy
import math

import pytest
import torch
from torch import nn

from compresslab.core.calibrate import watch
from compresslab.core.train import train
from compresslab.data import Split
from compresslab.distillation.distill import Seen, TeacherOutputs, Term, adamw, distill, teacher_outputs
from compresslab.distillation.soft_targets import Labels, SoftTargets

OPTIONS = {"epochs": 2, "lr": 0.01, "batch_size": 20, "progress": False}
SOFT = [(0.3, Labels()), (0.7, SoftTargets(2.0))]


def convolutional(channels, seed, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(),
            nn.Linear(channels * 4, 3),
        )  # fmt: skip


def states_equal(a, b):
    one, two = a.state_dict(), b.state_dict()
    return list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


def snapshot(model):
    """All that a training could leave behind: the tensors, the modes, the gradients, the hooks, the names."""
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        [(name, module.training) for name, module in model.named_modules()],
        [parameter.grad is None and parameter.requires_grad for parameter in model.parameters()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    )


def same(one, two):
    return one[1:] == two[1:] and all(one[0][key].equal(two[0][key]) for key in one[0] | two[0])


@pytest.fixture(scope="module")
def split():
    images = torch.randint(0, 256, (50, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, (images.float().mean((1, 2, 3)) / 20).long() % 3, (0.5,), (0.25,))


@pytest.fixture(scope="module")
def teacher(split):
    return train(convolutional(8, seed=1), split, epochs=2, progress=False)


@pytest.fixture
def student():
    return convolutional(4, seed=2)


class Feature(Term):
    """A hint with a regressor of its own, small enough for this file."""

    def __init__(self, student_layer="0", teacher_layer="0"):
        super().__init__()
        self.student_layers, self.teacher_layers = (student_layer,), (teacher_layer,)
        self.regressor = nn.Conv2d(4, 8, 1)

    def forward(self, seen):
        guess = self.regressor(seen.student[self.student_layers[0]])
        return (guess - seen.teacher[self.teacher_layers[0]]).square().mean()


class Spy(Term):
    """Keeps what every step saw. Terms are copied for training, so the list is shared by all copies."""

    def __init__(self, log, student_layers=(), teacher_layers=()):
        super().__init__()
        self.log, self.student_layers, self.teacher_layers = _Shared(log), student_layers, teacher_layers

    def forward(self, seen):
        self.log.rows.append(seen)
        return 0 * seen.student_logits.sum()


class _Shared:
    def __init__(self, rows):
        self.rows = rows

    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_labels_alone_are_plain_training_bit_for_bit(split, teacher, dropout):
    network = convolutional(4, seed=2, dropout=dropout)
    ours, theirs = [], []
    distilled = distill(network, teacher, split, [(1.0, Labels())], seed=4, history=ours, **OPTIONS)
    trained = train(network, split, optimizer=adamw, seed=4, history=theirs, **OPTIONS)
    assert states_equal(distilled, trained) and ours == theirs
    sgd = {"optimizer": lambda parameters, lr: torch.optim.SGD(parameters, lr, 0.9, weight_decay=5e-4)}
    distilled = distill(network, teacher, split, [(1.0, Labels())], seed=4, **OPTIONS, **sgd)
    assert states_equal(distilled, train(network, split, seed=4, **OPTIONS))


def test_the_student_given_and_the_teacher_stay_as_they_were(split, teacher, student):
    teacher = copy.deepcopy(teacher).train()  # with a mixture of modes, which must come back
    teacher[1].eval()
    before = snapshot(student), snapshot(teacher)
    for augment in (None, lambda x, generator: x + 0.1):
        trained = distill(student, teacher, split, [*SOFT, (1.0, Feature())], augment=augment, **OPTIONS)
        assert same(snapshot(student), before[0]) and same(snapshot(teacher), before[1])
        assert not states_equal(trained, student)


def test_what_comes_back_is_the_student_alone(split, teacher, student):
    trained = distill(student, teacher, split, [*SOFT, (1.0, Feature())], **OPTIONS)
    assert str(trained) == str(student) and list(trained.state_dict()) == list(student.state_dict())
    assert snapshot(trained)[3] == [0] * len(list(trained.modules()))
    assert not any(module.training for module in trained.modules())
    copy.deepcopy(trained)


def test_the_terms_are_left_as_they_were_and_their_parts_are_trained(split, teacher, student):
    term, losses = Feature(), []
    before = copy.deepcopy(term)
    distill(student, teacher, split, [(1.0, term)], history=losses, **OPTIONS | {"epochs": 12})
    assert states_equal(term, before) and all(parameter.grad is None for parameter in term.parameters())
    frozen, fixed = copy.deepcopy(term).requires_grad_(False), []
    distill(student, teacher, split, [(1.0, frozen)], history=fixed, **OPTIONS | {"epochs": 12})
    assert losses[-1]["loss"] < 0.9 * fixed[-1]["loss"]  # the regressor learnt too


def test_cached_and_uncached_give_the_same_student(split, teacher, student):
    terms, options = [*SOFT, (0.5, Feature())], OPTIONS | {"optimizer": torch.optim.SGD}
    cached = distill(student, teacher_outputs(teacher, split, ["0"]), split, terms, **options)
    from_network = distill(student, teacher, split, terms, **options)
    running_along = distill(student, teacher, split, terms, augment=lambda x, generator: x, **options)
    assert states_equal(cached, from_network)
    for ours, theirs in zip(cached.state_dict().values(), running_along.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_same_seed_gives_the_same_student(split, teacher):
    network = convolutional(4, seed=2, dropout=0.5)
    state = torch.get_rng_state()
    first, again, other = (distill(network, teacher, split, SOFT, seed=seed, **OPTIONS) for seed in (1, 1, 2))
    assert states_equal(first, again) and not states_equal(first, other)
    assert torch.get_rng_state().equal(state)


def test_a_student_comes_to_agree_with_its_teacher(split, teacher, student):
    losses = []
    distill(student, teacher, split, [(1.0, SoftTargets(2.0))], history=losses, **OPTIONS | {"epochs": 20, "lr": 0.03})
    assert losses[-1]["loss"] < 0.2 * losses[0]["loss"]


@pytest.mark.parametrize("running_along", [False, True])
def test_every_step_sees_the_rows_that_belong_together(split, teacher, student, running_along):
    log = []
    spy = Spy(log, student_layers=("0", "5"), teacher_layers=("2",))
    augment = (lambda x, generator: x + 1) if running_along else None
    distill(student, teacher, split, [(1.0, spy), (1.0, Labels())], augment=augment, **OPTIONS)
    assert [len(seen.y) for seen in log] == [20, 20, 10] * 2
    for epoch in (log[:3], log[3:]):
        assert torch.cat([seen.indices for seen in epoch]).sort().values.equal(torch.arange(50))
    for seen in log:
        assert isinstance(seen, Seen) and seen.y.equal(split.y[seen.indices])
        x = split.x(seen.indices) + 1 if running_along else split.x(seen.indices)
        torch.testing.assert_close(seen.x, x)
        with torch.no_grad(), watch(teacher, ["2"]) as expected:
            torch.testing.assert_close(seen.teacher_logits, teacher(x))
        torch.testing.assert_close(seen.teacher["2"], expected["2"])
        assert not seen.teacher_logits.requires_grad and not seen.teacher["2"].requires_grad
        assert list(seen.student) == ["0", "5"] and seen.student["0"].requires_grad
        assert seen.student["5"].equal(seen.student_logits)


def test_the_weights_of_the_terms_count(split, teacher, student):
    one = distill(student, teacher, split, [(0.5, Labels()), (0.5, Labels())], **OPTIONS)
    torch.testing.assert_close(one[0].weight, distill(student, teacher, split, [(1.0, Labels())], **OPTIONS)[0].weight)
    silent = distill(student, teacher, split, [(1.0, Labels()), (0.0, SoftTargets())], **OPTIONS)
    assert states_equal(silent, distill(student, teacher, split, [(1.0, Labels())], **OPTIONS))
    history = []
    distill(student, teacher, split, SOFT, history=history, **OPTIONS | {"epochs": 1, "batch_size": 50})
    logits = copy.deepcopy(student).train()(split.x())
    seen = Seen(split.x(), split.y, torch.arange(50), logits, teacher_outputs(teacher, split).logits)
    expected = sum(weight * term(seen) for weight, term in SOFT)
    assert history[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_no_epochs_give_a_copy(split, teacher, student):
    same_network = distill(student, teacher, split, SOFT, **OPTIONS | {"epochs": 0})
    assert states_equal(same_network, student) and same_network is not student


def test_teacher_outputs_are_in_the_order_of_the_split_and_in_eval_mode(split):
    teacher = convolutional(8, seed=1, dropout=0.5).train()
    before = snapshot(teacher)
    outputs = teacher_outputs(teacher, split, ["0", "2"], batch_size=7)
    assert same(snapshot(teacher), before)
    reference = copy.deepcopy(teacher).eval()
    with torch.no_grad(), watch(reference, ["0", "2"]) as features:
        torch.testing.assert_close(outputs.logits, reference(split.x()))
    for name in ("0", "2"):
        torch.testing.assert_close(outputs.features[name], features[name])
    assert len(outputs) == 50 and not outputs.logits.requires_grad
    some = torch.tensor([3, 3, 0])
    assert outputs.rows(some).logits.equal(outputs.logits[some])
    assert outputs.rows(some).features["2"].equal(outputs.features["2"][some])


def test_one_set_of_outputs_serves_many_students(split, teacher):
    outputs = teacher_outputs(teacher, split)
    before = outputs.logits.clone()
    students = [distill(convolutional(4, seed), outputs, split, SOFT, **OPTIONS) for seed in (2, 3)]
    assert outputs.logits.equal(before) and not states_equal(*students)


def test_adamw_steps_do_not_grow_with_the_loss():
    steps = []
    for factor in (1.0, 100.0):
        weight = nn.Parameter(torch.tensor([1.0]))
        updates = adamw([weight], 0.1)
        (factor * weight.sum()).backward()
        updates.step()
        steps.append(1 - weight.item())
        assert updates.param_groups[0]["weight_decay"] == 0.01
    assert steps[0] == pytest.approx(steps[1], rel=1e-4)


def test_terms_that_cannot_be_are_refused(split, teacher, student):
    def run(terms, **options):
        return distill(student, teacher, split, terms, **OPTIONS | options)

    with pytest.raises(ValueError, match="at least one term"):
        run([])
    for wrong in ([Labels()], [(Labels(), 1.0)], [(1.0, nn.Linear(2, 2))], [(1.0, Labels(), 2)]):
        with pytest.raises(TypeError, match=r"terms are pairs \(weight, Term\)"):
            run(wrong)
    for weight in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="the weight of Labels must be finite and not negative"):
            run([(weight, Labels())])
    with pytest.raises(TypeError, match="Term defines no forward"):
        run([(1.0, Term())])
    with pytest.raises(ValueError, match="epochs must be 0 or more"):
        run(SOFT, epochs=-1)
    with pytest.raises(ValueError, match="lr must be positive"):
        run(SOFT, lr=0)


def test_layers_that_do_not_exist_are_refused_with_those_that_do(split, teacher, student):
    for augment in (None, lambda x, generator: x):
        with pytest.raises(ValueError, match="the model has no layer 'conv1'; it has 0, 1, 2, 3, 4, 5"):
            distill(student, teacher, split, [(1.0, Feature(student_layer="conv1"))], augment=augment, **OPTIONS)
        with pytest.raises(ValueError, match="the model has no layer 'conv1'; it has 0, 1, 2, 3, 4, 5"):
            distill(student, teacher, split, [(1.0, Feature(teacher_layer="conv1"))], augment=augment, **OPTIONS)
    with pytest.raises(ValueError, match="the teacher's outputs lack layer '0'; they have 2: name it in teacher_outputs"):
        distill(student, teacher_outputs(teacher, split, ["2"]), split, [(1.0, Feature())], **OPTIONS)
    with pytest.raises(ValueError, match="no layer 'conv1'"):
        teacher_outputs(teacher, split, ["conv1"])
    assert snapshot(teacher)[3] == snapshot(student)[3] == [0] * 7  # no hook stayed behind


def test_a_layer_that_never_runs_is_named(split, student, teacher):
    class Idle(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network, self.spare = network, nn.Linear(1, 1)

        def forward(self, x):
            return self.network(x)

    with pytest.raises(ValueError, match="the teacher never ran its layer 'spare'"):
        teacher_outputs(Idle(teacher), split, ["spare"])
    with pytest.raises(ValueError, match="the student never ran its layer 'spare'"):
        distill(Idle(student), teacher, split, [(1.0, Feature(student_layer="spare"))], **OPTIONS)


def test_outputs_and_logits_that_do_not_fit_are_refused(split, teacher, student):
    outputs = teacher_outputs(teacher, split)
    with pytest.raises(ValueError, match="the teacher's outputs are of 50 images, the split has 40"):
        distill(student, outputs, split.take(40), SOFT, **OPTIONS)
    with pytest.raises(ValueError, match="with augment the teacher must see the changed images"):
        distill(student, outputs, split, SOFT, augment=lambda x, generator: x, **OPTIONS)
    with pytest.raises(ValueError, match=r"one shape, \(N, classes\), got \(20, 3\) and \(20, 10\)"):
        distill(student, TeacherOutputs(torch.zeros(50, 10)), split, SOFT, **OPTIONS)
    with pytest.raises(ValueError, match="the split is empty"):
        teacher_outputs(teacher, split.take(0))
    with pytest.raises(ValueError, match="the split is empty"):
        distill(student, teacher, split.take(0), SOFT, **OPTIONS)
