"""Decoupled distillation: the identity, what each half sees, and the student it trains."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.data import Split
from compresslab.distillation.decoupled import (
    Decoupled, binary_log_probabilities, check_labels, decoupled_loss, nckd, non_target_mass, non_targets, tckd,
)  # fmt: skip
from compresslab.distillation.distill import Seen, distill
from compresslab.distillation.soft_targets import soft_target_loss


def logits(*shape, seed=0, size=3.0):
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_labels(n, classes):
    return torch.arange(n) * 7 % classes


def kl_by_hand(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_kd_is_tckd_plus_the_non_target_mass_times_nckd(temperature, classes):
    student, teacher, labels = logits(40, classes), logits(40, classes, seed=1), some_labels(40, classes)
    kd = F.kl_div(
        F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1), reduction="none"
    ).sum(1)
    p_t = F.softmax(teacher / temperature, 1).gather(1, labels[:, None])[:, 0]
    parts = tckd(student, teacher, labels, temperature) + (1 - p_t) * nckd(student, teacher, labels, temperature)
    torch.testing.assert_close(parts, kd, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_beta_equal_to_the_non_target_mass_reproduces_plain_distillation(temperature):
    student, teacher, labels = logits(40, 10), logits(40, 10, seed=1), some_labels(40, 10)
    student.requires_grad_()
    beta = non_target_mass(teacher, labels, temperature)
    loss = decoupled_loss(student, teacher, labels, alpha=1.0, beta=beta, temperature=temperature)
    plain = soft_target_loss(student, teacher, temperature)
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(value, student)[0] for value in (loss, plain))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_both_parts_by_hand():
    """Probabilities 0.7, 0.2, 0.1 taught to a student that says 0.5, 0.1, 0.4; class 0 is right."""
    p, q, label = [0.7, 0.2, 0.1], [0.5, 0.1, 0.4], torch.tensor([0])
    teacher, student = torch.tensor([p]).double().log(), torch.tensor([q]).double().log()
    target, others = kl_by_hand([0.7, 0.3], [0.5, 0.5]), kl_by_hand([2 / 3, 1 / 3], [0.2, 0.8])
    assert tckd(student, teacher, label, 1.0).item() == pytest.approx(target, abs=1e-6)
    assert nckd(student, teacher, label, 1.0).item() == pytest.approx(others, abs=1e-6)
    loss = decoupled_loss(3 * student, 3 * teacher, label, alpha=2.0, beta=5.0, temperature=3.0)
    assert loss.item() == pytest.approx(9 * (2 * target + 5 * others), abs=1e-5)
    assert target + 0.3 * others == pytest.approx(kl_by_hand(p, q))


def test_the_target_part_sees_only_the_target_and_the_other_part_all_else():
    student, teacher, labels = logits(8, 5), logits(8, 5, seed=1), some_labels(8, 5)
    louder = student + 4 * F.one_hot(labels, 5)
    torch.testing.assert_close(nckd(louder, teacher, labels, 2.0), nckd(student, teacher, labels, 2.0))
    assert not tckd(louder, teacher, labels, 2.0).isclose(tckd(student, teacher, labels, 2.0)).any()
    # two classes: the one wrong class has all that is left, so there is nothing to compare
    assert nckd(student[:, :2], teacher[:, :2], labels % 2, 2.0).eq(0).all()


def test_equal_logits_cost_nothing_and_a_shift_of_a_row_changes_nothing():
    student, teacher, labels = logits(8, 5), logits(8, 5, seed=1), some_labels(8, 5)
    shift = logits(8, 1, seed=2)
    for part in (tckd, nckd):
        torch.testing.assert_close(part(teacher + shift, teacher, labels, 3.0), torch.zeros(8).double())
        torch.testing.assert_close(
            part(student + shift, teacher - shift, labels, 3.0), part(student, teacher, labels, 3.0)
        )
        assert (part(student, teacher, labels, 3.0) > 0).all()


def test_a_sure_teacher_still_teaches_about_the_other_classes():
    """Plain distillation multiplies NCKD by 1 - p_t, so its gradient among the wrong classes vanishes; DKD's does not."""
    label = torch.tensor([0])
    teacher = torch.tensor([[30.0, 2.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[30.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    plain = torch.autograd.grad(soft_target_loss(student, teacher, 1.0), student)[0]
    apart = torch.autograd.grad(decoupled_loss(student, teacher, label, 1.0, 1.0, 1.0), student)[0]
    assert plain.abs().max() < 1e-10 and apart[0, 2] > 0.5 and apart[0, 1] < -0.5


def test_large_logits_stay_finite_in_float32():
    teacher = torch.tensor([[300.0, 0.0, -300.0], [-300.0, 0.0, 300.0]])
    student = (-teacher).requires_grad_()
    loss = decoupled_loss(student, teacher, torch.tensor([0, 0]), temperature=1.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all() and loss > 0


def test_the_teacher_gets_no_gradient():
    student, teacher = logits(4, 5).requires_grad_(), logits(4, 5, seed=1).requires_grad_()
    decoupled_loss(student, teacher, some_labels(4, 5)).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_non_targets_and_the_pair_of_probabilities():
    z, labels = logits(6, 4), some_labels(6, 4)
    for row, label, others in zip(z, labels, non_targets(z, labels), strict=True):
        assert others.tolist() == [value for k, value in enumerate(row.tolist()) if k != label]
    pair, p = binary_log_probabilities(z, labels, 2.0).exp(), F.softmax(z / 2, 1)
    torch.testing.assert_close(pair[:, 0], p.gather(1, labels[:, None])[:, 0])
    torch.testing.assert_close(pair.sum(1), torch.ones(6).double())
    torch.testing.assert_close(non_target_mass(z, labels, 2.0), pair[:, 1])


def test_the_term_is_the_function_and_a_student_learns_through_it():
    student, teacher, labels = logits(6, 4), logits(6, 4, seed=1), some_labels(6, 4)
    seen = Seen(torch.zeros(6, 1, 1, 1), labels, torch.arange(6), student, teacher)
    assert Decoupled(0.5, 2.0, 3.0)(seen).equal(decoupled_loss(student, teacher, labels, 0.5, 2.0, 3.0))
    images = torch.randint(0, 256, (64, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    torch.manual_seed(0)
    teacher, student = (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2))
    split = Split(images, teacher(images.float() / 255).argmax(1), (0.0,), (1.0,))
    history = []
    distill(student, teacher, split, [(1.0, Decoupled(beta=1.0))], epochs=30, lr=0.1, history=history, progress=False)
    assert history[-1]["loss"] < 0.05 * history[0]["loss"]


def test_bad_input_is_refused():
    z, labels = logits(4, 5), some_labels(4, 5)
    for temperature in (0, -1.0, math.nan):
        for call in (tckd, nckd):
            with pytest.raises(ValueError, match="temperature"):
                call(z, z, labels, temperature)
        with pytest.raises(ValueError, match="temperature"):
            non_target_mass(z, labels, temperature)
        with pytest.raises(ValueError, match="temperature"):
            Decoupled(temperature=temperature)
    with pytest.raises(ValueError, match=r"\(4, 5\) and \(4, 6\)"):
        tckd(z, logits(4, 6), labels, 1.0)
    with pytest.raises(ValueError, match=r"beta must be a number or \(4,\)"):
        decoupled_loss(z, z, labels, beta=torch.ones(4, 1))
    for weights in ({"alpha": -1.0}, {"beta": -0.5}, {"beta": torch.tensor([0.0, 1.0, -0.5, 2.0])}, {"alpha": math.inf}):
        with pytest.raises(ValueError, match=f"{next(iter(weights))} must be finite and not negative, got (-1|-0.5|inf)"):
            decoupled_loss(z, z, labels, **weights)
    with pytest.raises(ValueError, match="beta must be finite and not negative, got nan"):
        Decoupled(beta=math.nan)


def test_bad_labels_are_refused():
    z = logits(4, 5)
    with pytest.raises(TypeError, match="int64"):
        nckd(z, z, torch.zeros(4), 1.0)
    with pytest.raises(ValueError, match=r"must be \(4,\), one per row of logits, got shape \(3,\)"):
        nckd(z, z, torch.zeros(3, dtype=torch.int64), 1.0)
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match=f"from 0 to 4, got {wrong}"):
            check_labels(torch.tensor([0, 1, wrong, 2]), z)
    with pytest.raises(ValueError, match="2 classes or more, got logits of 1"):
        check_labels(torch.zeros(4, dtype=torch.int64), z[:, :1])
