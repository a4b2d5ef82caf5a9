"""Codebooks: the exact optimum on the line, clusters weighted by curvature, and centres that are trained."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from compresslab.core.codes import CodebookCode
from compresslab.core.kmeans import kmeans_1d
from compresslab.core.modules import bake
from compresslab.core.prepare import convert, prepare
from compresslab.quantization.codebook import TrainedCodebook, encode_hessian_weighted, exact_kmeans_1d


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def inertia(values, codebook, indices, h=None):
    h = torch.ones_like(values) if h is None else h
    return float((h.double() * (values.double() - codebook.double()[indices]) ** 2).sum())


def best_partition(values: torch.Tensor, k: int, h: torch.Tensor) -> float:
    """The least cost over all assignments of the values to k clusters, intervals or not."""
    v, h = values.double().numpy(), h.double().numpy()
    best = math.inf
    for labels in itertools.product(range(k), repeat=len(v)):
        labels, cost = np.array(labels), 0.0
        for j in range(k):
            mass = h[labels == j].sum()
            if mass > 0:
                mean = (h * v)[labels == j].sum() / mass
                cost += (h * (v - mean) ** 2)[labels == j].sum()
        best = min(best, cost)
    return best


@pytest.mark.parametrize("n, k", [(1, 1), (4, 1), (7, 2), (6, 3), (4, 4)])
@pytest.mark.parametrize("seed", range(2))
def test_exact_is_the_best_of_all_partitions(n, k, seed):
    values = randn(n, seed=seed)
    for h in (torch.ones(n), rand(n, seed=seed) + 0.01):
        assert inertia(values, *exact_kmeans_1d(values, k, weights=h), h) == pytest.approx(
            best_partition(values, k, h), abs=1e-6
        )


def quadratic(values: torch.Tensor, k: int, h: torch.Tensor) -> float:
    """The optimum by the plain recursion, every t for every i: no halving of the search."""
    order = values.argsort()
    v, h = values[order].double().numpy(), h[order].double().numpy()
    n = len(v)
    cost = np.zeros((n + 1, n + 1))
    for t, i in itertools.combinations(range(n + 1), 2):
        mean = np.average(v[t:i], weights=h[t:i])
        cost[t, i] = (h[t:i] * (v[t:i] - mean) ** 2).sum()
    best = cost[0]
    for _ in range(k - 1):
        best = np.array([min(best[: i + 1] + cost[: i + 1, i]) for i in range(n + 1)])
    return float(best[n])


@pytest.mark.parametrize("k", [2, 5, 16])
def test_halving_the_search_loses_nothing(k):
    for values in (randn(60, seed=k), randn(60, seed=k) ** 3, randn(60, seed=k).round(decimals=1) + 100):
        h = rand(60, seed=k) + 0.01
        assert inertia(values, *exact_kmeans_1d(values, k, weights=h), h) == pytest.approx(
            quadratic(values, k, h), rel=1e-5, abs=1e-6
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_lloyd_and_scikit_learn_never_get_below(weighted):
    values, h = randn(400), rand(400, seed=1) + 0.05 if weighted else None
    best = inertia(values, *exact_kmeans_1d(values, 8, weights=h), h)
    lloyd = inertia(values, *kmeans_1d(values, 8, weights=h, iterations=500), h)
    many = KMeans(8, n_init=30, tol=0, random_state=0).fit(
        values.double().numpy()[:, None], sample_weight=None if h is None else h.double().numpy()
    )
    assert best <= lloyd * (1 + 1e-6) and best <= many.inertia_ * (1 + 1e-6)
    assert many.inertia_ <= 1.02 * best  # thirty starts come close


def test_more_centres_never_cost_more():
    values = randn(25)
    costs = [inertia(values, *exact_kmeans_1d(values, k)) for k in range(1, 26)]
    assert all(after <= before + 1e-9 for before, after in zip(costs, costs[1:]))
    assert costs[-1] == 0 and costs[-2] > 0


def test_centres_are_weighted_means_and_indices_the_nearest():
    values, h = randn(5, 20), rand(5, 20, seed=1)
    codebook, indices = exact_kmeans_1d(values, 6, weights=h)
    assert codebook.shape == (6,) and indices.shape == (100,) and torch.equal(codebook, codebook.sort().values)
    flat, mass = values.flatten(), h.flatten()
    assert torch.equal(indices, (flat[:, None] - codebook).abs().argmin(1))
    for j in range(6):
        members = indices == j
        assert codebook[j] == pytest.approx(float((mass * flat)[members].sum() / mass[members].sum()), abs=1e-5)


def test_repeats_constants_and_values_without_weight():
    values = torch.tensor([2.0, 2.0, 2.0])
    codebook, indices = exact_kmeans_1d(values, 4)
    assert codebook.tolist() == [2.0] * 4 and indices.tolist() == [0, 0, 0]
    repeated = torch.tensor([0.0, 0.0, 0.0, 1.0, 5.0])
    merged = exact_kmeans_1d(torch.tensor([0.0, 1.0, 5.0]), 2, weights=torch.tensor([3.0, 1.0, 1.0]))
    assert torch.equal(exact_kmeans_1d(repeated, 2)[0], merged[0])
    codebook, indices = exact_kmeans_1d(torch.tensor([1.0, 9.0, 4.0]), 2, weights=torch.tensor([1.0, 0.0, 1.0]))
    assert codebook.tolist() == [1.0, 4.0] and indices.tolist() == [0, 1, 1]


def test_exact_refuses_what_lloyd_refuses():
    for values in ([], [math.nan], [math.inf, 1.0]):
        with pytest.raises(ValueError, match="values must be finite and at least one"):
            exact_kmeans_1d(torch.tensor(values), 2)
    for bad in ([1.0, -1.0], [0.0, 0.0], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="weights must be finite, not negative"):
            exact_kmeans_1d(torch.ones(2), 2, weights=torch.tensor(bad))
    with pytest.raises(ValueError, match="weights must have the values' shape"):
        exact_kmeans_1d(torch.ones(2), 2, weights=torch.ones(3))
    with pytest.raises(ValueError, match="k must be"):
        exact_kmeans_1d(torch.ones(2), 0)
    with pytest.raises(TypeError, match="k must be"):
        exact_kmeans_1d(torch.ones(2), 2.5)


# ---- weighted by the curvature -----------------------------------------------------------------------------


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))


def test_hessian_weights_lower_the_weighted_error():
    model = net()
    h = {"0": rand(16, 20) ** 6, "2": torch.ones(4, 16)}
    coded = encode_hessian_weighted(model, h, bits=3)
    for name in h:
        weight = model.get_submodule(name).weight.detach()
        codebook, indices = kmeans_1d(weight, 8, weights=h[name], iterations=100)
        assert torch.equal(coded.get_submodule(name).coded.decode(), codebook[indices].view_as(weight))
    plain = encode_hessian_weighted(model, {"0": torch.ones(16, 20)}, bits=3)
    cost = lambda coded: (h["0"] * (coded[0].weight - model[0].weight) ** 2).sum()  # noqa: E731
    assert cost(coded) < 0.8 * cost(plain)
    assert isinstance(plain[2], nn.Linear)  # no curvature, not coded


def test_layers_without_any_curvature_are_clustered_plainly():
    model = net()
    zero = encode_hessian_weighted(model, {"0": torch.zeros(16, 20), "2": torch.ones(4, 16)}, bits=2, only=["0"])
    ones = encode_hessian_weighted(model, {"0": torch.ones(16, 20)}, bits=2)
    assert torch.equal(zero[0].weight, ones[0].weight) and isinstance(zero[2], nn.Linear)


def test_bad_curvature_is_refused_with_the_layers_name():
    model, h = net(), {"0": torch.ones(16, 20)}
    with pytest.raises(ValueError, match="weights must be finite, not negative.* in layer '0'"):
        encode_hessian_weighted(model, {"0": -h["0"]})
    with pytest.raises(ValueError, match="weights must have the values' shape.* in layer '0'"):
        encode_hessian_weighted(model, {"0": torch.ones(20, 16)})
    with pytest.raises(ValueError, match="there is no curvature in layer '2'"):
        encode_hessian_weighted(model, h, only=["2"])
    with pytest.raises(ValueError, match="no such layer"):
        encode_hessian_weighted(model, {"7": h["0"]})
    for bits in (0, 9, 33):
        with pytest.raises(ValueError, match="bits must be a whole number from 1 to 8"):
            encode_hessian_weighted(model, h, bits)
    with pytest.raises(TypeError, match="bits must be"):
        encode_hessian_weighted(model, h, 2.5)


# ---- centres that are trained ------------------------------------------------------------------------------


def test_gradient_of_a_centre_is_the_sum_over_its_members():
    weight, g = randn(6, 7), randn(6, 7, seed=1)
    latent, shared = weight.clone().requires_grad_(), TrainedCodebook(weight, bits=2)
    shared(latent).backward(g)
    for j in range(4):
        assert shared.codebook.grad[j] == pytest.approx(float(g[shared.indices == j].sum()), abs=1e-5)
    assert latent.grad is None


def test_training_moves_the_centres_and_keeps_the_clusters():
    model, x, target = net(), randn(32, 20), torch.arange(32) % 4
    prepared = prepare(model, partial(TrainedCodebook, bits=2))
    before, latent = convert(prepared), prepared[0].parametrizations.weight.original.detach().clone()
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(prepared(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    after = convert(prepared)
    assert losses[-1] < losses[0]
    assert torch.equal(before[0].coded.packed, after[0].coded.packed)
    assert not torch.equal(before[0].coded.codebook, after[0].coded.codebook)
    assert torch.equal(prepared[0].parametrizations.weight.original, latent)
    assert torch.equal(bake(prepared)[0].weight, after[0].coded.decode())


@pytest.mark.parametrize("weight", [torch.zeros(2, 3), torch.full((2, 3), -0.3), torch.zeros(0, 3), torch.ones(1)])
def test_degenerate_weights_are_exact(weight):
    shared = TrainedCodebook(weight, bits=3)
    assert torch.equal(shared(weight), weight) and torch.equal(shared.to_code(weight).decode(), weight)


def test_trained_codebook_starts_from_the_weighted_clusters_and_refuses_bad_input():
    weight, h = randn(5, 6), rand(5, 6, seed=2)
    shared = TrainedCodebook(weight, bits=2, weights=h)
    assert torch.equal(shared(weight), CodebookCode.from_dense(weight, 2, weights=h).decode())
    with pytest.raises(ValueError, match=r"for a weight of shape \(5, 6\), got \(6, 5\)"):
        shared(weight.T)
    with pytest.raises(ValueError, match="bits must be"):
        TrainedCodebook(weight, bits=9)
    with pytest.raises(ValueError, match="finite"):
        TrainedCodebook(torch.tensor([math.nan]))


def test_curvature_of_another_shape_is_refused_even_if_it_is_zero():
    with pytest.raises(ValueError, match=r"weights must have the values' shape \(2, 4\), got \(7,\) in layer '0'"):
        encode_hessian_weighted(nn.Sequential(nn.Linear(4, 2)), {"0": torch.zeros(7)})
