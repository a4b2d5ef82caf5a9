"""Response-aware factors: PCA of outputs, reduced-rank regression, the ReLU's half-step, whole networks."""

import copy

import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from torch import nn
from torch.nn import functional as F

from compresslab.core.calibrate import collect_inputs, input_moments
from compresslab.core.modules import apply_mask_
from compresslab.lowrank.decompose import decompose
from compresslab.lowrank.response import (
    decompose_responding,
    reduced_rank_regression,
    relu_half_step,
    response_svd,
)
from compresslab.lowrank.svd import truncated_svd


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def uneven(features, rows, seed=0):
    """Correlated inputs, most of their energy in few directions, (features, rows)."""
    return randn(features, features, seed=seed + 1) @ (
        torch.logspace(0, -2, features, dtype=torch.float64)[:, None] * randn(features, rows, seed=seed)
    )


class TestResponseSvd:
    @pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
    def test_loses_the_pca_tail_of_the_outputs(self, shape):
        W, X = randn(*shape), uneven(shape[1], 200)
        sigma = torch.linalg.svdvals(W @ X)
        for rank in range(1, 7):
            B, A = response_svd(W, X @ X.T, rank)
            lost = (W @ X - B @ (A @ X)).norm()
            torch.testing.assert_close(lost, sigma[rank:].norm(), rtol=1e-6, atol=1e-8)

    def test_is_the_projection_on_the_principal_components(self):
        W, X = randn(5, 8), uneven(8, 300)
        X -= X.mean(1, keepdim=True)  # scikit-learn subtracts the mean
        pca = PCA(2, svd_solver="full").fit((W @ X).T.numpy())
        U = torch.from_numpy(pca.components_.copy()).T
        B, A = response_svd(W, X @ X.T, 2)
        torch.testing.assert_close(B @ A, U @ U.T @ W)

    def test_beats_the_nearest_weights_and_white_inputs_make_them_equal(self):
        W, X = randn(6, 9), uneven(9, 200)
        lost = []
        for B, A in (response_svd(W, X @ X.T, 2), truncated_svd(W, 2)):
            lost.append(((W - B @ A) @ X).norm() / (W @ X).norm())
        assert lost[0] < 0.7 * lost[1]
        B, A = response_svd(W, 3 * torch.eye(9), 2)
        torch.testing.assert_close(B @ A, torch.matmul(*truncated_svd(W, 2)))

    def test_singular_moments_and_none_at_all(self):
        W, X = randn(6, 9), uneven(9, 4)  # four inputs
        B, A = response_svd(W, X @ X.T, 4)
        torch.testing.assert_close(B @ A @ X, W @ X, rtol=1e-4, atol=1e-5)
        B, A = response_svd(W, torch.zeros(9, 9), 6)
        torch.testing.assert_close(B @ A, W)

    def test_even_factors_in_the_weights_dtype(self):
        B, A = response_svd(randn(6, 9).float(), torch.eye(9), 3)
        assert B.dtype == A.dtype == torch.float32
        torch.testing.assert_close(B.norm(), A.norm())

    def test_errors(self):
        with pytest.raises(ValueError, match=r"moments must be \(9, 9\) for 9 inputs, got \(6, 6\)"):
            response_svd(randn(6, 9), torch.eye(6), 2)
        for rank in (0, 7):
            with pytest.raises(ValueError, match=f"rank must be a whole number from 1 to 6, got {rank}"):
                response_svd(randn(6, 9), torch.eye(9), rank)
        with pytest.raises(ValueError, match="moments must be finite"):
            response_svd(randn(6, 9), torch.full((9, 9), torch.nan), 2)
        with pytest.raises(TypeError, match="weight must be floating-point"):
            response_svd(torch.ones(6, 9, dtype=torch.int32), torch.eye(9), 2)


class TestReducedRankRegression:
    @pytest.mark.parametrize("intercept", [True, False])
    def test_full_rank_is_least_squares(self, intercept):
        X, Y = uneven(6, 100).T + 2, randn(100, 4, seed=5) - 1
        B, A, b = reduced_rank_regression(X, Y, 4, intercept=intercept)
        found = LinearRegression(fit_intercept=intercept).fit(X.numpy(), Y.numpy())
        torch.testing.assert_close(B @ A, torch.from_numpy(found.coef_))
        expected = torch.as_tensor(found.intercept_, dtype=torch.float64) * torch.ones(4, dtype=torch.float64)
        torch.testing.assert_close(b, expected)

    @pytest.mark.parametrize("rank", [1, 2, 3])
    def test_no_alternating_least_squares_finds_better(self, rank):
        X, Y = uneven(6, 80).T, uneven(5, 80, seed=3).T
        B, A, _ = reduced_rank_regression(X, Y, rank, intercept=False)
        least = (Y - X @ (B @ A).T).norm()
        for seed in range(3):
            A = randn(rank, 6, seed=seed)
            for _ in range(200):
                B = torch.linalg.lstsq(X @ A.T, Y).solution.T
                A = torch.linalg.lstsq(X, Y @ torch.linalg.pinv(B).T).solution.T
            assert (Y - X @ (B @ A).T).norm() >= least - 1e-9

    def test_equals_response_svd_where_the_inputs_are_exact(self):
        W, X = randn(5, 8), uneven(8, 200)
        B, A, _ = reduced_rank_regression(X.T, (W @ X).T, 2, intercept=False)
        torch.testing.assert_close(B @ A, torch.matmul(*response_svd(W, X @ X.T, 2)), rtol=1e-5, atol=1e-6)

    def test_few_rows_and_inputs_that_never_vary(self):
        B, A, b = reduced_rank_regression(randn(3, 8), randn(3, 6, seed=1), 6)
        torch.testing.assert_close(randn(3, 8) @ (B @ A).T + b, randn(3, 6, seed=1))
        B, A, b = reduced_rank_regression(torch.ones(5, 3), randn(5, 2), 1)
        assert not (B @ A).any()
        torch.testing.assert_close(b, randn(5, 2).mean(0))

    def test_errors(self):
        with pytest.raises(ValueError, match="as many rows, got 5 and 6"):
            reduced_rank_regression(randn(5, 3), randn(6, 3), 1)
        with pytest.raises(ValueError, match="rank must be a whole number from 1 to 2, got 3"):
            reduced_rank_regression(randn(5, 3), randn(5, 2), 3)
        with pytest.raises(TypeError, match="outputs must be floating-point"):
            reduced_rank_regression(randn(5, 3), torch.ones(5, 2, dtype=torch.int8), 1)


class TestReluHalfStep:
    @pytest.mark.parametrize("weight", [0.01, 0.3, 1.0, 20.0])
    def test_is_the_least_of_its_objective(self, weight):
        """Against a bounded search on either side of 0."""
        for y in (-3.0, -0.4, 0.0, 0.2, 2.5):
            for target in (-2.0, 0.0, 0.1, 3.0):
                z = relu_half_step(torch.tensor(y), torch.tensor(target), weight).item()

                def loss(z, y=y, target=target):
                    return (max(target, 0) - max(z, 0)) ** 2 + weight * (z - y) ** 2

                searched = (minimize_scalar(loss, bounds=b, method="bounded") for b in ((-10, 0), (0, 10)))
                assert loss(z) <= min(found.fun for found in searched) + 1e-9

    def test_by_hand(self):
        y, target = torch.tensor([-1.0, -0.1, 2.0, 2.0]), torch.tensor([-7.0, 3.0, -7.0, 4.0])
        expected = torch.tensor([-1.0, 1.45, 1.0, 3.0])
        torch.testing.assert_close(relu_half_step(y, target, 1.0), expected)
        torch.testing.assert_close(relu_half_step(y, F.relu(target), 1.0), expected)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"one shape, got \(3,\) and \(2,\)"):
            relu_half_step(torch.ones(3), torch.ones(2), 1.0)
        for weight in (0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="weight must be above 0"):
                relu_half_step(torch.ones(3), torch.ones(3), weight)


def network(norm=True):
    """Convolutions with batch norm that has seen something, and linear layers."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=not norm), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12 * 9, 20), nn.ReLU(),
        nn.Linear(20, 6),
    ).double()  # fmt: skip
    if norm:
        nn.init.uniform_(model[1].weight, 0.01, 3.0)
        nn.init.normal_(model[1].bias)
        model.train()(images())
    return model.eval()


def images(n=160, seed=0):
    smooth = F.interpolate(randn(n, 3, 4, 4, seed=seed), size=8, mode="bilinear")
    return smooth + 0.05 * randn(n, 3, 8, 8, seed=seed + 50)


RANKS = {"0": 3, "3": 3, "6": 4, "8": 4}


@pytest.fixture(autouse=True)
def keep_random_state():
    with torch.random.fork_rng(devices=[]):
        yield


class TestDecomposeResponding:
    def test_one_layer_is_the_pca_of_its_outputs(self):
        """No bias: the same product as response_svd gives."""
        model, x = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False)).double(), images()
        pair = decompose_responding(model, {"0": 3}, [x], max_rows=10**6)[0]
        B, A = response_svd(model[0].weight.flatten(1), input_moments(model, ["0"], [x])["0"], 3)
        found = pair.expand.weight.flatten(1) @ pair.reduce.weight.flatten(1)
        torch.testing.assert_close(found, B @ A, rtol=1e-4, atol=1e-6)

    def test_with_a_bias_it_is_the_centred_pca(self):
        model, x = nn.Sequential(nn.Linear(9, 6)).double(), uneven(9, 200).T + 3
        small, y = decompose_responding(model, {"0": 2}, [x]), model(x)
        pca = PCA(2, svd_solver="full").fit(y.detach().numpy())
        expected = torch.from_numpy(pca.inverse_transform(pca.transform(y.detach().numpy())))
        torch.testing.assert_close(small(x), expected)

    @pytest.mark.parametrize("norm", [True, False])
    def test_every_step_of_it_beats_the_one_before_on_new_images(self, norm):
        model, new = network(norm), images(seed=7)
        batches = list(images().split(40))
        networks = [
            decompose(model, RANKS),
            decompose_responding(model, RANKS, batches, asymmetric=False),
            decompose_responding(model, RANKS, batches),
        ]
        with torch.no_grad():
            lost = [((small(new) - model(new)).norm() / model(new).norm()).item() for small in networks]
        assert lost[0] > lost[1] > lost[2], lost

    def test_the_relu_is_taken_account_of_where_one_follows(self):
        model, x = network()[:3], images()
        lost = {}
        for nonlinear in (False, True):
            small = decompose_responding(model, {"0": 2}, [x], nonlinear=nonlinear, max_rows=10**6)
            lost[nonlinear] = (small(x) - model(x)).norm().item()
        assert lost[True] < lost[False]
        model = model[:2]  # no ReLU: no difference
        both = [decompose_responding(model, {"0": 2}, [x], nonlinear=n)(x) for n in (False, True)]
        assert torch.equal(*both)

    def test_outputs_are_compared_behind_the_batch_norm(self):
        model, x = network()[:2], images()
        small = decompose_responding(model, {"0": 3}, [x], max_rows=10**6)
        shift = model[1](torch.zeros(1, 8, 1, 1, dtype=torch.float64))  # of no interest without a bias
        rows = (model(x) - shift).detach().movedim(1, -1).flatten(0, -2)
        lost = (small(x) - model(x)).norm()
        torch.testing.assert_close(lost, torch.linalg.svdvals(rows)[3:].norm(), rtol=1e-4, atol=0)

    def test_full_rank_leaves_the_network_and_only_biased_layers_have_a_bias(self):
        model, x = network(), images()
        full = {"0": 8, "3": 12, "6": 20, "8": 6}
        small = decompose_responding(model, full, list(x.split(40)))
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-6)
        assert small[0].expand.bias is None and small[3].expand.bias is not None
        assert all(small[int(name)].reduce.bias is None for name in full)

    def test_layers_go_in_the_order_of_the_calls_and_shared_ones_once(self):
        class Backwards(nn.Module):
            def __init__(self):
                super().__init__()
                self.last, self.first = nn.Linear(8, 4), nn.Linear(6, 8)
                self.again = self.first

            def forward(self, x):
                return self.last(torch.relu(self.first(x))) + self.last(torch.relu(self.again(-x)))

        model, x = Backwards().double(), uneven(6, 100).T
        small = decompose_responding(model, {"last": 2, "first": 3}, [x])
        assert small.first is small.again and isinstance(small.last, nn.Sequential)
        inputs = collect_inputs(small, ["last.reduce"], [x])["last.reduce"]
        given = F.linear(inputs, model.last.weight, model.last.bias)
        target = F.linear(collect_inputs(model, ["last"], [x])["last"], model.last.weight, model.last.bias)
        B, A, b = reduced_rank_regression(given, target, 2)
        torch.testing.assert_close(small.last(inputs), given @ (B @ A).T + b)

    def test_model_is_not_modified_same_seed_same_result_and_the_mode_is_kept(self):
        model, x = network().train(), images()
        before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        first, second = (decompose_responding(model, RANKS, [(x, None)], max_rows=99) for _ in range(2))
        other = decompose_responding(model, RANKS, [x], max_rows=99, seed=1)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert all(module.training for module in first.modules())
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
        assert not torch.equal(first[0].reduce.weight, other[0].reduce.weight)
        assert not model._forward_hooks and not model[0]._forward_hooks and not first[1]._forward_hooks

    def test_masks_are_seen(self):
        model, x = nn.Sequential(nn.Linear(9, 6)).double(), uneven(9, 200).T
        mask = torch.zeros(6, 9, dtype=torch.bool)
        mask[:2] = True
        apply_mask_(model[0], mask)
        torch.testing.assert_close(decompose_responding(model, {"0": 2}, [x])(x), model(x))

    def test_nothing_named_is_a_copy(self):
        model = network()
        same = decompose_responding(model, {}, [])
        assert same is not model and torch.equal(same(images()), model(images()))

    def test_errors(self):
        model, x = network(), images(20)
        for ranks, error, message in [
            ({"0": 0}, ValueError, "rank must be a whole number from 1 to 8, got 0 in layer '0'"),
            ({"8": 7}, ValueError, "rank must be a whole number from 1 to 6, got 7 in layer '8'"),
            ({"0": (2, 2)}, TypeError, "rank must be a whole number .* in layer '0'"),
            ({"2": 2}, TypeError, "Linear and Conv2d can be decomposed, got ReLU in layer '2'"),
            ({"99": 2}, ValueError, "the model has no layer '99'"),
        ]:
            with pytest.raises(error, match=message):
                decompose_responding(model, ranks, [x])
        with pytest.raises(ValueError, match="groups.* in layer '0'"):
            decompose_responding(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), {"0": 1}, [x])
        with pytest.raises(ValueError, match="no calibration data reaches layer '0'"):
            decompose_responding(model, RANKS, [])


def test_moments_of_a_negative_direction_are_refused():
    with pytest.raises(ValueError, match="moments must be positive semi-definite"):
        response_svd(randn(3, 3), -torch.eye(3), 1)
