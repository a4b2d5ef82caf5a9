"""OBD and OBS against autograd Hessians, exact quadratics, least squares and enumeration."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from compresslab.core.modules import get_mask
from compresslab.pruning.curvature import EXACT_LIMIT, hessian_diagonal
from compresslab.pruning.masks import layer_sparsity, sparsity_of
from compresslab.pruning.second_order import (
    obd_saliency,
    obs_prune,
    obs_remove,
    obs_saliency,
    prune_obd,
    prune_obs,
)


def half_square(z, y):
    return 0.5 * (z - y).square().flatten(1).sum(1).mean()


def spd(n: int, seed: int = 0) -> torch.Tensor:
    X = torch.randn(n, 2 * n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return X @ X.T


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
    return nn.Sequential(*layers).double()


def batch(n: int = 20):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 2, 4, 4, generator=g, dtype=torch.float64), torch.randint(0, 3, (n,), generator=g)


def full_hessian(model, name, x, y, loss=F.cross_entropy):
    model, weight = copy.deepcopy(model).eval(), model.get_submodule(name).weight.detach()
    of_weight = lambda w: loss(functional_call(model, {f"{name}.weight": w}, (x,)), y)  # noqa: E731
    return torch.autograd.functional.hessian(of_weight, weight).view(weight.numel(), -1)


class TestDiagonal:
    def test_exact_equals_autograd(self):
        model, (x, y) = net(), batch()
        for name, h in hessian_diagonal(model, x, y, curvature="exact").items():
            torch.testing.assert_close(
                h.flatten(), full_hessian(model, name, x, y).diagonal(), rtol=1e-9, atol=1e-12
            )

    def test_gauss_newton_is_exact_where_the_network_is_linear_in_the_weights(self):
        model, (x, y) = net(), batch(37)
        last = hessian_diagonal(model, x, y, only=["4"])["4"]
        torch.testing.assert_close(
            last.flatten(), full_hessian(model, "4", x, y).diagonal(), rtol=1e-9, atol=1e-12
        )

    def test_gauss_newton_by_hand(self):
        """Mean over the batch of J^T (diag p - p p^T) J, with the Jacobian written out."""
        model, (x, y) = net().eval(), batch(5)
        weight = model[0].weight.detach()
        of_weight = lambda w: functional_call(model, {"0.weight": w}, (x,))  # noqa: E731
        J = torch.autograd.functional.jacobian(of_weight, weight).view(5, 3, -1)
        p = model(x).softmax(1).detach()
        B = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
        expected = torch.einsum("nck,ncd,ndk->k", J, B, J) / 5
        ours = hessian_diagonal(model, x, y, only=["0"])["0"]
        torch.testing.assert_close(ours.flatten(), expected, rtol=1e-8, atol=1e-14)
        assert (ours >= 0).all()

    def test_fisher_is_the_mean_squared_gradient(self):
        model, (x, y) = net().eval(), batch(18)
        expected = torch.zeros_like(model[0].weight)
        for i in range(18):
            loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
            expected += torch.autograd.grad(loss, model[0].weight)[0].square() / 18
        torch.testing.assert_close(
            hessian_diagonal(model, x, y, curvature="fisher")["0"], expected, rtol=1e-9, atol=1e-15
        )

    def test_mean_square_error_targets(self):
        layer, x = (
            nn.Linear(3, 2).double(),
            torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double(),
        )
        for curvature in ("exact", "gauss_newton"):
            h = hessian_diagonal(layer, x, torch.zeros(9, 2).double(), curvature=curvature, loss=half_square)[
                ""
            ]
            torch.testing.assert_close(h, x.square().mean(0).expand(2, 3))

    def test_model_is_left_as_it_was(self):
        model, (x, y) = net().train(), batch()
        before = copy.deepcopy(model.state_dict())
        for curvature in ("exact", "gauss_newton", "fisher"):
            hessian_diagonal(model, x, y, curvature=curvature)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and model.training
        assert all(p.grad is None for p in model.parameters())

    def test_errors(self):
        model, (x, y) = net(), batch()
        with pytest.raises(ValueError, match="curvature must be one of 'exact'"):
            hessian_diagonal(model, x, y, curvature="hessian")
        with pytest.raises(ValueError, match="no such layer"):
            hessian_diagonal(model, x, y, only=["fc"])
        wide = nn.Linear(EXACT_LIMIT + 1, 1)
        with pytest.raises(ValueError, match="at most 4096 weights, got 4097"):
            hessian_diagonal(
                wide, torch.zeros(1, EXACT_LIMIT + 1), torch.zeros(1, 1), curvature="exact", loss=half_square
            )


class TestOBD:
    def test_loss_rise_on_a_diagonal_quadratic_is_the_sum_of_saliencies(self):
        g = torch.Generator().manual_seed(0)
        w, h = torch.randn(8, generator=g).double(), torch.rand(8, generator=g).double()
        for k in range(9):
            for removed in itertools.combinations(range(8), k):
                dw = torch.zeros(8).double()
                dw[list(removed)] = -w[list(removed)]
                rise = 0.5 * dw @ torch.diag(h) @ dw
                torch.testing.assert_close(rise, obd_saliency(w, h)[list(removed)].sum())

    def test_prune_obd_keeps_the_salient_weights(self):
        model, (x, y) = net(), batch()
        for curvature, scope in [("exact", "global"), ("gauss_newton", "layer"), ("fisher", "global")]:
            pruned = prune_obd(model, 0.5, x, y, curvature=curvature, scope=scope)
            assert sparsity_of(pruned) == 0.5
        scores = {
            n: obd_saliency(model.get_submodule(n).weight, h)
            for n, h in hessian_diagonal(model, x, y).items()
        }
        pruned = prune_obd(model, 0.5, x, y)
        kept = torch.cat([scores[n][get_mask(pruned.get_submodule(n))] for n in scores])
        lost = torch.cat([scores[n][~get_mask(pruned.get_submodule(n))] for n in scores])
        assert lost.max() <= kept.min()

    def test_prunes_on_and_refuses_bad_sparsity(self):
        model, (x, y) = net(), batch()
        twice = prune_obd(prune_obd(model, 0.5, x, y), 0.75, x, y)
        assert sparsity_of(twice) == 0.75
        for sparsity in (80, -0.1, math.nan):
            with pytest.raises(ValueError, match="sparsity must be in"):
                prune_obd(model, sparsity, x, y)


class TestOBS:
    def test_saliency_and_step_equal_the_constrained_minimum(self):
        n = 7
        H, w = spd(n), torch.randn(n, generator=torch.Generator().manual_seed(3)).double()
        H_inv = torch.linalg.inv(H)
        for q in range(n):
            kept = [i for i in range(n) if i != q]
            v = torch.zeros(n).double()  # stationary in the kept weights: H_KK (v - w)_K = H_Kq w_q
            v[kept] = w[kept] + torch.linalg.solve(H[kept][:, kept], H[kept, q] * w[q])
            new, new_inv = obs_remove(w, H_inv, q)
            torch.testing.assert_close(new, v, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(0.5 * (v - w) @ H @ (v - w), obs_saliency(w, H_inv)[q])
            torch.testing.assert_close(
                new_inv[kept][:, kept], torch.linalg.inv(H[kept][:, kept]), rtol=1e-8, atol=1e-10
            )
            assert new[q] == 0 and not new_inv[q].any() and not new_inv[:, q].any()

    def test_diagonal_hessian_reduces_to_obd(self):
        g = torch.Generator().manual_seed(0)
        w, h = torch.randn(9, generator=g).double(), torch.rand(9, generator=g).double() + 0.1
        torch.testing.assert_close(obs_saliency(w, torch.diag(1 / h)), obd_saliency(w, h))
        pruned = obs_prune(w, torch.diag(h), 4)
        drop = obd_saliency(w, h).argsort()[:4]
        expected = w.clone()
        expected[drop] = 0
        torch.testing.assert_close(pruned, expected)

    def test_obs_saliency_is_at_most_obds(self):
        H, w = spd(12, 5), torch.randn(12, generator=torch.Generator().manual_seed(1)).double()
        assert (obs_saliency(w, torch.linalg.inv(H)) <= obd_saliency(w, H.diagonal()) * (1 + 1e-9)).all()

    @pytest.mark.parametrize("count", range(8))
    def test_result_is_the_least_squares_solution_on_its_support(self, count):
        g = torch.Generator().manual_seed(count)
        X = torch.randn(7, 30, generator=g).double()
        w = torch.randn(7, generator=g).double()
        v = obs_prune(w, X @ X.T, count)
        kept = (v != 0).nonzero().flatten()
        assert len(kept) == 7 - count
        best = torch.linalg.lstsq(X[kept].T, (w @ X).unsqueeze(1), driver="gelsd").solution.flatten()
        torch.testing.assert_close(v[kept], best, rtol=1e-8, atol=1e-10)

    def test_greedy_set_against_enumeration(self):
        """One removal is optimal over all; more are bounded by the best set, and beat plain magnitude
        here.
        """
        H, w = spd(8, 2), torch.randn(8, generator=torch.Generator().manual_seed(2)).double()
        cost = lambda v: (0.5 * (v - w) @ H @ (v - w)).item()  # noqa: E731

        def best(count):
            costs = []
            for removed in itertools.combinations(range(8), count):
                v, H_inv = w, torch.linalg.inv(H)
                for q in removed:
                    v, H_inv = obs_remove(v, H_inv, q)
                costs.append(cost(v))
            return min(costs)

        assert cost(obs_prune(w, H, 1)) == pytest.approx(best(1))
        for count in (2, 4, 6):
            magnitude = w.clone()
            magnitude[w.abs().argsort()[:count]] = 0
            assert best(count) * (1 - 1e-9) <= cost(obs_prune(w, H, count)) < cost(magnitude)

    def test_order_of_removal_does_not_matter(self):
        H, w = spd(6, 4), torch.randn(6, generator=torch.Generator().manual_seed(4)).double()
        results = []
        for order in itertools.permutations((0, 2, 5)):
            v, H_inv = w, torch.linalg.inv(H)
            for q in order:
                v, H_inv = obs_remove(v, H_inv, q)
            results.append(v)
        assert all(torch.allclose(results[0], v, rtol=1e-9) for v in results)

    def test_errors(self):
        H, w = spd(3), torch.ones(3)
        assert obs_prune(w, H, 1).dtype == torch.float32
        for count in (-1, 4):
            with pytest.raises(ValueError, match="count"):
                obs_prune(w, H, count)
        with pytest.raises(ValueError, match="positive definite"):
            obs_prune(w, torch.zeros(3, 3), 1)


class TestPruneOBS:
    def test_rows_are_least_squares_solutions_and_beat_magnitude(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(9, 5)).double()
        X = torch.randn(60, 9).double() @ torch.randn(9, 9).double()
        pruned = prune_obs(model, 0.6, [X[:30], X[30:]], damp=0.0)
        assert layer_sparsity(pruned)["0"] == pytest.approx(5 / 9)  # round(5.4) of 9 in each row
        W, V = model[0].weight, pruned[0].weight
        for w, v in zip(W.detach(), V.detach(), strict=True):
            kept = (v != 0).nonzero().flatten()
            assert len(kept) == 4
            best = torch.linalg.lstsq(X[:, kept], (X @ w).unsqueeze(1)).solution.flatten()
            torch.testing.assert_close(v[kept], best, rtol=1e-7, atol=1e-9)
        assert layer_sparsity(model)["0"] == 0

    def test_convolution_and_pairs_and_masks(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(75, 2))
        x = torch.randn(8, 2, 4, 4)
        pruned = prune_obs(model, 0.5, [(x, torch.zeros(8))], only=["0"])
        assert layer_sparsity(pruned) == {"0": 0.5, "3": 0.0}
        assert int(get_mask(pruned[0]).sum()) == 12
        error = (pruned[0](x) - model[0](x)).square().sum()
        plain = copy.deepcopy(model[0])
        for row in plain.weight.data.flatten(1):
            row[row.abs().argsort()[:4]] = 0
        assert error < (plain(x) - model[0](x)).square().sum()
        again = prune_obs(pruned, 0.75, [x], only=["0"])
        assert layer_sparsity(again)["0"] == 0.75

    def test_errors(self):
        model = nn.Sequential(nn.Conv2d(2, 2, 1, groups=2))
        with pytest.raises(ValueError, match="grouped convolution"):
            prune_obs(model, 0.5, [torch.ones(1, 2, 1, 1)])
        layer = nn.Sequential(nn.Linear(2, 2))
        with pytest.raises(ValueError, match="did you mean 0.8"):
            prune_obs(layer, 80, [torch.ones(1, 2)])
        with pytest.raises(ValueError, match="no calibration data"):
            prune_obs(layer, 0.5, [])
