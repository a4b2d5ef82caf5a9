"""Neuron selectivity transfer: the kernel, the discrepancy as a distance of means, and the loss."""

import math

import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel as sklearn_kernel
from torch.nn import functional as F

from compresslab.distillation.distill import Seen
from compresslab.distillation.selectivity import (
    NeuronSelectivity,
    mmd_squared,
    polynomial_kernel,
    selectivity_loss,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("constant", [0.0, 1.5])
def test_kernel_against_sklearn(degree, constant):
    x, y = randn(4, 5), randn(3, 5, seed=1)
    expected = sklearn_kernel(x.numpy(), y.numpy(), degree=degree, gamma=1, coef0=constant)
    torch.testing.assert_close(polynomial_kernel(x, y, degree, constant), torch.from_numpy(expected))


class TestDiscrepancy:
    x, y = randn(6, 4), randn(9, 4, seed=1) + 0.3

    def test_degree_one_is_the_distance_of_the_means(self):
        expected = (self.x.mean(0) - self.y.mean(0)).square().sum()
        torch.testing.assert_close(mmd_squared(self.x, self.y, degree=1), expected)
        torch.testing.assert_close(mmd_squared(self.x, self.y, degree=1, constant=5.0), expected)  # it cancels

    def test_degree_two_is_the_distance_of_the_second_moments(self):
        moments = [sample.T @ sample / len(sample) for sample in (self.x, self.y)]
        expected = (moments[0] - moments[1]).square().sum()
        torch.testing.assert_close(mmd_squared(self.x, self.y), expected)
        means = 2 * 0.7 * mmd_squared(self.x, self.y, degree=1)  # (x y + c)^2 = (x y)^2 + 2 c x y + c^2
        torch.testing.assert_close(mmd_squared(self.x, self.y, constant=0.7), expected + means)

    def test_by_loops(self):
        total = 0.0
        for a, b, sign in ((self.x, self.x, 1), (self.y, self.y, 1), (self.x, self.y, -2)):
            total += sign * sum((p @ q).item() ** 3 for p in a for q in b) / (len(a) * len(b))
        assert mmd_squared(self.x, self.y, degree=3).item() == pytest.approx(total)

    def test_symmetric_and_zero_for_equal_samples(self):
        torch.testing.assert_close(mmd_squared(self.x, self.y), mmd_squared(self.y, self.x))
        assert mmd_squared(self.x, self.x.flip(0)).abs() < 1e-12
        assert mmd_squared(self.x, self.x.repeat(2, 1)).abs() < 1e-12  # a distribution, not a list

    def test_in_batches(self):
        x, y = randn(5, 6, 4), randn(5, 2, 4, seed=1)
        one_by_one = [mmd_squared(a, b) for a, b in zip(x, y, strict=True)]
        torch.testing.assert_close(mmd_squared(x, y), torch.stack(one_by_one))


class TestLoss:
    def test_it_is_the_discrepancy_of_unit_maps(self):
        student, teacher = randn(3, 2, 4, 4), randn(3, 5, 4, 4, seed=1)
        patterns = [F.normalize(maps.flatten(2), dim=2) for maps in (student, teacher)]
        grams = [torch.einsum("ncp,ncq->npq", f, f) / f.shape[1] for f in patterns]
        expected = (grams[0] - grams[1]).square().sum((1, 2)).mean()
        torch.testing.assert_close(selectivity_loss(student, teacher), expected)

    def test_order_scale_and_number_of_channels_do_not_matter(self):
        maps = randn(2, 4, 3, 3)
        same = torch.cat([maps[:, [2, 0, 3, 1]] * torch.tensor([1.0, 5.0, 0.1, 9.0]).view(4, 1, 1), maps], dim=1)
        assert selectivity_loss(maps, same).abs() < 1e-12
        assert selectivity_loss(maps, same.flip(3)) > 1e-3

    def test_sizes_are_made_alike(self):
        student, teacher = randn(2, 3, 8, 8), randn(2, 5, 4, 4, seed=1)
        torch.testing.assert_close(
            selectivity_loss(student, teacher, degree=1), selectivity_loss(F.avg_pool2d(student, 2), teacher, degree=1)
        )

    def test_gradient_and_dead_channels(self):
        teacher = randn(2, 5, 3, 3, seed=1).requires_grad_()
        fixed = teacher.detach()
        assert torch.autograd.gradcheck(lambda s: selectivity_loss(s, fixed), (randn(2, 3, 3, 3).requires_grad_(),))
        student = randn(2, 3, 3, 3)
        student[:, 1] = 0
        student.requires_grad_()
        for settings in ({}, {"degree": 1}, {"constant": 1.0}):
            student.grad = None
            loss = selectivity_loss(student, teacher, **settings)
            loss.backward()
            assert loss.isfinite() and student.grad.any() and student.grad.abs().max() < 10 and teacher.grad is None

    def test_term(self):
        student, teacher = randn(2, 3, 4, 4), randn(2, 5, 4, 4, seed=1)
        nothing = torch.empty(0)
        term = NeuronSelectivity("s", "t", degree=3, constant=0.5)
        value = term(Seen(nothing, nothing, nothing, nothing, nothing, {"s": student}, {"t": teacher}))
        torch.testing.assert_close(value, selectivity_loss(student, teacher, degree=3, constant=0.5))
        assert term.student_layers == ("s",) and term.teacher_layers == ("t",)


def test_refusals():
    x = randn(3, 4)
    for make in (lambda **k: mmd_squared(x, x, **k), lambda **k: NeuronSelectivity("s", "t", **k)):
        with pytest.raises(ValueError, match="degree must be a whole number of at least 1, got 0"):
            make(degree=0)
        with pytest.raises(TypeError, match="degree must be"):
            make(degree=1.5)
        for bad in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="constant must be finite and not negative"):
                make(constant=bad)
    with pytest.raises(ValueError, match=r"samples must be .* got \(3, 4\) and \(3, 5\)"):
        mmd_squared(x, randn(3, 5))
    with pytest.raises(ValueError, match="a sample is empty"):
        mmd_squared(x, randn(0, 4))
    with pytest.raises(ValueError, match="feature maps must be"):
        selectivity_loss(randn(2, 3), randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match="got 2 and 3 rows"):
        selectivity_loss(randn(2, 3, 4, 4), randn(3, 3, 4, 4))
