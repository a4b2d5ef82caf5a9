"""Soft targets: the loss against torch's divergence, its gradient at every temperature, and its limit."""

import math

import pytest
import torch
from torch.nn import functional as F

from compresslab.distillation.distill import Seen
from compresslab.distillation.soft_targets import (
    Labels, SoftTargets, check_logits, check_temperature, reverse_kl_loss, soft_target_loss, soften,
)  # fmt: skip


def logits(*shape, seed=0, size=3.0):
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(student, teacher, labels):
    rows = torch.arange(len(labels))
    return Seen(torch.zeros(len(labels), 1, 1, 1), labels, rows, student, teacher)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 30.0])
def test_the_loss_is_torchs_divergence_times_t_squared(temperature):
    student, teacher = logits(16, 10), logits(16, 10, seed=1)
    theirs = temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1), reduction="batchmean"
    )
    torch.testing.assert_close(soft_target_loss(student, teacher, temperature), theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(reverse_kl_loss(teacher, student, temperature), theirs, rtol=0, atol=1e-12)
    assert not reverse_kl_loss(student, teacher, temperature).isclose(theirs, rtol=1e-3)


def test_by_hand():
    """Odds 3 to 1 taught to a student that sees none: 0.75 log 1.5 + 0.25 log 0.5; at T = 2 the logits double."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert soft_target_loss(student, teacher, 1.0).item() == pytest.approx(expected, abs=1e-6)
    assert soft_target_loss(student, 2 * teacher, 2.0).item() == pytest.approx(4 * expected, abs=1e-6)
    backward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert reverse_kl_loss(student, teacher, 1.0).item() == pytest.approx(backward, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 30.0])
def test_the_gradient_is_t_times_the_difference_of_the_softened_outputs(temperature):
    student, teacher = logits(16, 10).requires_grad_(), logits(16, 10, seed=1)
    (gradient,) = torch.autograd.grad(soft_target_loss(student, teacher, temperature), student)
    closed = temperature * (soften(student.detach(), temperature) - soften(teacher, temperature)) / 16
    torch.testing.assert_close(gradient, closed, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1e3, 1e4, 1e5])
def test_a_high_temperature_matches_centred_logits(temperature):
    """With the factor T^2 the gradient tends to ((z_s - mean) - (z_t - mean)) / N for N classes, at the rate 1 / T."""
    student, teacher = logits(1, 10).requires_grad_(), logits(1, 10, seed=1)
    (gradient,) = torch.autograd.grad(soft_target_loss(student, teacher, temperature), student)
    z_s, z_t = student.detach(), teacher
    limit = ((z_s - z_s.mean()) - (z_t - z_t.mean())) / 10
    assert (gradient - limit).abs().max() < 10 / temperature
    assert limit.abs().max() > 0.1


def test_a_low_temperature_is_the_first_choice_and_one_is_plain_softmax():
    z = logits(16, 10)
    torch.testing.assert_close(soften(z, 0.001), F.one_hot(z.argmax(1), 10).double())
    assert soften(z, 1.0).equal(F.softmax(z, 1)) and soften(z, 1).equal(soften(z, 1.0))
    torch.testing.assert_close(soften(z, 1e9), torch.full((16, 10), 0.1).double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(soften(z[0], 3.0), soften(z, 3.0)[0])  # any leading shape


@pytest.mark.parametrize("loss", [soft_target_loss, reverse_kl_loss])
def test_equal_logits_cost_nothing_and_a_shift_changes_nothing(loss):
    student, teacher, shift = logits(16, 10), logits(16, 10, seed=1), logits(16, 1, seed=2)
    copy = (teacher + shift).requires_grad_()
    value = loss(copy, teacher, 4.0)
    (gradient,) = torch.autograd.grad(value, copy)
    assert abs(value.item()) < 1e-12 and gradient.abs().max() < 1e-12
    torch.testing.assert_close(loss(student + shift, teacher, 4.0), loss(student, teacher, 4.0))
    assert loss(student, teacher, 4.0) > 0


@pytest.mark.parametrize("loss", [soft_target_loss, reverse_kl_loss])
def test_the_teacher_gets_no_gradient_and_huge_logits_stay_finite(loss):
    student, teacher = logits(4, 5).float().requires_grad_(), logits(4, 5, seed=1).float().requires_grad_()
    loss(student, teacher, 2.0).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    huge = (1e4 * student.detach()).requires_grad_()
    value = loss(huge, 1e4 * teacher, 1.0)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(huge.grad).all()


def test_a_batch_is_the_mean_of_its_rows():
    student, teacher = logits(16, 10), logits(16, 10, seed=1)
    rows = [soft_target_loss(s[None], t[None], 4.0) for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(soft_target_loss(student, teacher, 4.0), torch.stack(rows).mean())


def test_forward_kl_covers_two_peaks_and_reverse_kl_takes_one():
    """Students of one peak, a discretised Gaussian, under a teacher of two: the classic picture, by search on a grid."""
    places = torch.arange(21).double()

    def bell(mean, width):
        return -((places - mean) ** 2) / (2 * width**2)

    teacher = torch.logaddexp(bell(4, 1), bell(16, 1))[None]
    grid = [(mean, width) for mean in range(21) for width in (1.0, 1.5, 2, 3, 4, 5, 6, 7, 8)]

    def best(loss):
        return min(grid, key=lambda pair: loss(bell(*pair)[None], teacher, 1.0).item())

    covering, choosing = best(soft_target_loss), best(reverse_kl_loss)
    assert covering[0] == 10 and covering[1] >= 5
    assert choosing[0] in (4, 16) and choosing[1] == 1.0


def test_the_terms_are_the_functions():
    student, teacher, labels = logits(8, 5), logits(8, 5, seed=1), torch.arange(8) % 5
    step = seen(student, teacher, labels)
    assert SoftTargets(3.0)(step).equal(soft_target_loss(student, teacher, 3.0))
    assert SoftTargets()(step).equal(soft_target_loss(student, teacher, 4.0))
    assert Labels()(step).equal(F.cross_entropy(student, labels))
    assert Labels(smoothing=0.1)(step).equal(F.cross_entropy(student, labels, label_smoothing=0.1))
    for term in (SoftTargets(), Labels()):
        assert term.student_layers == term.teacher_layers == () and not list(term.parameters())


@pytest.mark.parametrize("temperature", [0, 0.0, -1, -0.5, math.nan, math.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    z = logits(2, 3)
    for call in (
        lambda: check_temperature(temperature), lambda: soften(z, temperature), lambda: SoftTargets(temperature),
        lambda: soft_target_loss(z, z, temperature), lambda: reverse_kl_loss(z, z, temperature),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"temperature must be positive and finite, got {temperature}"):
            call()


def test_other_bad_input_is_refused():
    for wrong in ("4", None, True):
        with pytest.raises(TypeError, match=f"temperature must be a number, got {wrong!r}"):
            check_temperature(wrong)
    z = logits(4, 3)
    for other in (logits(4, 5), logits(3, 3), logits(4, 3, 1), logits(3)):
        for loss in (soft_target_loss, reverse_kl_loss):
            with pytest.raises(ValueError, match=r"one shape, \(N, classes\), got \(4, 3\) and"):
                loss(z, other, 1.0)
    with pytest.raises(ValueError, match=r"got \(3,\) and \(3,\)"):
        check_logits(z[0, :3], z[0, :3])
    for smoothing in (-0.1, 1.1, 10, math.nan):
        with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\]"):
            Labels(smoothing)
