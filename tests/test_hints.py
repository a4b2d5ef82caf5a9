"""Hints: the loss, the best linear regressor, and maps of other sizes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.data import Split
from compresslab.distillation.distill import Seen, distill
from compresslab.distillation.feature_maps import channel_regressor, to_common_size, to_vectors
from compresslab.distillation.hints import Hint, best_linear_regressor, hint_loss


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seen(student, teacher):
    nothing = torch.empty(0)
    return Seen(nothing, nothing, nothing, nothing, nothing, {"s": student}, {"t": teacher})


def test_loss_is_half_the_mean_square():
    guided, hint = randn(3, 4, 5, 5), randn(3, 4, 5, 5, seed=1)
    torch.testing.assert_close(hint_loss(guided, hint), F.mse_loss(guided, hint) / 2)
    torch.testing.assert_close(hint_loss(guided, hint) * guided.numel(), (guided - hint).norm() ** 2 / 2)
    assert hint_loss(guided, guided) == 0


def test_gradient_goes_to_the_student_only():
    guided, hint = randn(2, 3).requires_grad_(), randn(2, 3, seed=1).requires_grad_()
    hint_loss(guided, hint).backward()
    torch.testing.assert_close(guided.grad, (guided - hint).detach() / 6)
    assert hint.grad is None


class TestBestRegressor:
    def test_a_planted_map_is_found(self):
        student, truth = randn(4, 3, 5, 5), nn.Conv2d(3, 6, 1).double()
        fit = best_linear_regressor(student, truth(student))
        torch.testing.assert_close(fit.weight, truth.weight)
        torch.testing.assert_close(fit.bias, truth.bias)

    def test_it_is_the_bottom_of_the_hint_loss(self):
        """The gradient of the loss vanishes there, and no other regressor is better: the loss is convex in it."""
        student, teacher = randn(4, 3, 5, 5), randn(4, 6, 5, 5, seed=1)
        fit = best_linear_regressor(student, teacher)
        best = hint_loss(fit(student), teacher)
        for gradient in torch.autograd.grad(best, list(fit.parameters())):
            assert gradient.abs().max() < 1e-12
        for seed in range(3):
            other = copy.deepcopy(fit)
            with torch.no_grad():
                other.weight.add_(0.01 * randn(*other.weight.shape, seed=seed))
            assert hint_loss(other(student), teacher) > best

    def test_training_the_term_approaches_it(self):
        student, teacher = randn(8, 2, 4, 4), randn(8, 3, 4, 4, seed=1)
        best = hint_loss(best_linear_regressor(student, teacher)(student), teacher).item()
        term = Hint("s", "t", channel_regressor(2, 3).double())
        optimizer = torch.optim.SGD(term.parameters(), 1.0)
        for _ in range(40):
            optimizer.zero_grad()
            loss = term(seen(student, teacher))
            loss.backward()
            optimizer.step()
        assert loss.item() == pytest.approx(best, rel=1e-9)
        assert Hint("s", "t", channel_regressor(2, 3).double())(seen(student, teacher)) > 1.01 * best

    def test_dead_channels_and_few_positions(self):
        student = randn(2, 4, 2, 2)
        student[:, 1] = 0
        fit = best_linear_regressor(student, student[:, 2:3] * 2 - 1)
        assert fit.weight.isfinite().all() and abs(fit.weight[0, 1].item()) < 1e-9
        torch.testing.assert_close(fit(student), student[:, 2:3] * 2 - 1)
        one = best_linear_regressor(randn(1, 8, 1, 1), randn(1, 2, 1, 1, seed=1))  # 1 position, 8 channels
        torch.testing.assert_close(one(randn(1, 8, 1, 1)), randn(1, 2, 1, 1, seed=1))

    def test_single_precision_and_other_sizes(self):
        student = randn(2, 3, 4, 4, dtype=torch.float32)
        fit = best_linear_regressor(student, F.interpolate(student, scale_factor=2))
        assert fit.weight.dtype == torch.float32
        torch.testing.assert_close(fit.weight[:, :, 0, 0], torch.eye(3), atol=1e-5, rtol=0)

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"student's feature maps must be \(N, C, H, W\), got \(4, 3\)"):
            best_linear_regressor(randn(4, 3), randn(4, 3, 1, 1))
        with pytest.raises(ValueError, match="got 4 and 5 rows"):
            best_linear_regressor(randn(4, 3, 2, 2), randn(5, 3, 2, 2))
        with pytest.raises(ValueError, match="nothing to fit"):
            best_linear_regressor(randn(0, 3, 2, 2), randn(0, 3, 2, 2))


SIZES = [((2, 2), (6, 4)), ((3, 3), (7, 8)), ((1, 5), (5, 1)), ((4, 4), (4, 4))]


class TestSizes:
    @pytest.mark.parametrize(("small", "large"), SIZES)
    def test_both_are_averaged_to_the_smaller_sides(self, small, large):
        student, teacher = randn(2, 3, *small), randn(2, 5, *large, seed=1)
        size = tuple(map(min, small, large))
        for got, maps in zip(to_common_size(student, teacher), (student, teacher), strict=True):
            torch.testing.assert_close(got, F.adaptive_avg_pool2d(maps, size))
        for got, maps in zip(to_common_size(teacher, student), (teacher, student), strict=True):
            assert got.shape == (*maps.shape[:2], *size)

    def test_equal_sizes_are_left_alone(self):
        student, teacher = randn(2, 3, 4, 4), randn(2, 5, 4, 4)
        assert to_common_size(student, teacher)[0] is student and to_common_size(student, teacher)[1] is teacher

    def test_vectors(self):
        assert torch.equal(to_vectors(randn(2, 3)), randn(2, 3))
        maps = randn(2, 3, 4, 4)
        torch.testing.assert_close(to_vectors(maps), F.adaptive_avg_pool2d(maps, 1).flatten(1))
        assert to_vectors(randn(2, 3, 5)).shape == (2, 15)

    def test_the_regressor_leaves_the_global_generator_alone(self):
        before = torch.get_rng_state()
        first, second, third = channel_regressor(2, 3), channel_regressor(2, 3), channel_regressor(2, 3, seed=1)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(first.weight, second.weight) and not torch.equal(first.weight, third.weight)
        with pytest.raises(ValueError, match="in_channels must be a whole number of at least 1, got 0"):
            channel_regressor(0, 3)
        with pytest.raises(TypeError, match="out_channels must be"):
            channel_regressor(2, 1.5)


class TestTerm:
    def test_without_a_regressor(self):
        student, teacher = randn(2, 3, 4, 4), randn(2, 3, 4, 4, seed=1)
        assert Hint("s", "t")(seen(student, teacher)) == hint_loss(student, teacher)
        student, teacher = randn(2, 7), randn(2, 7, seed=1)
        assert Hint("s", "t")(seen(student, teacher)) == hint_loss(student, teacher)

    def test_the_regressor_reads_the_pooled_student(self):
        student, teacher = randn(2, 3, 8, 8), randn(2, 5, 4, 4, seed=1)
        regressor = channel_regressor(3, 5).double()
        expected = hint_loss(regressor(F.avg_pool2d(student, 2)), teacher)
        torch.testing.assert_close(Hint("s", "t", regressor)(seen(student, teacher)), expected)

    def test_the_regressor_is_trained_and_gone_afterwards(self):
        torch.manual_seed(0)
        student = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
        teacher = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
        images = torch.randint(256, (16, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        split = Split(images, torch.arange(16) % 3, (0.5,), (0.25,))
        term, history = Hint("1", "1", channel_regressor(2, 4)), []
        before = copy.deepcopy(term.state_dict())
        options = {"epochs": 30, "lr": 0.02, "batch_size": 16, "progress": False}
        trained = distill(student, teacher, split, [(1.0, term)], history=history, **options)
        assert history[-1]["loss"] < 0.5 * history[0]["loss"]
        assert list(trained.state_dict()) == list(student.state_dict())
        assert [type(m) for m in trained.modules()] == [type(m) for m in student.modules()]
        assert not any(m._forward_hooks for m in (*trained.modules(), *teacher.modules()))
        assert all(torch.equal(before[key], value) for key, value in term.state_dict().items())
        # with a regressor that may not learn, the student alone has to fit the teacher: that works less well
        frozen, weaker = Hint("1", "1", channel_regressor(2, 4).requires_grad_(False)), []
        distill(student, teacher, split, [(1.0, frozen)], history=weaker, **options)
        assert history[-1]["loss"] < weaker[-1]["loss"]

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"has shape \(2, 3, 4, 4\), but the teacher's hint has \(2, 5, 4, 4\)"):
            Hint("s", "t")(seen(randn(2, 3, 4, 4), randn(2, 5, 4, 4)))
        with pytest.raises(ValueError, match="got 2 and 3 rows"):
            Hint("s", "t")(seen(randn(2, 3, 4, 4), randn(3, 3, 4, 4)))
        with pytest.raises(ValueError, match=r"must have shape \(N, \.\.\.\), got \(3,\)"):
            Hint("s", "t")(seen(randn(3), randn(3)))
