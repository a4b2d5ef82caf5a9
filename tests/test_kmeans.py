"""K-means on the line."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from compresslab.core import kmeans_1d


def inertia(values, codebook, indices, weights=None):
    h = torch.ones_like(values) if weights is None else weights
    return float((h.double() * (values.double() - codebook.double()[indices]) ** 2).sum())


def best_inertia(values: np.ndarray, h: np.ndarray, k: int) -> float:
    """The optimum by dynamic programming over sorted values: clusters are intervals."""
    order = np.argsort(values)
    v, h = values[order], h[order]
    n = len(v)

    def cost(i: int, j: int) -> float:
        mean = np.average(v[i:j], weights=h[i:j])
        return float((h[i:j] * (v[i:j] - mean) ** 2).sum())

    best = [cost(0, j) if j else 0.0 for j in range(n + 1)]
    for _ in range(k - 1):
        best = [0.0] + [
            min(best[i] + (cost(i, j) if i < j else 0.0) for i in range(j + 1)) for j in range(1, n + 1)
        ]
    return best[n]


def normal(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_scikit_learn_from_the_same_start(weighted):
    values = torch.rand(400, generator=torch.Generator().manual_seed(3))  # uniform: no cluster runs empty
    h = torch.rand(400, generator=torch.Generator().manual_seed(4)) + 0.1 if weighted else None
    codebook, indices = kmeans_1d(values, 6, weights=h, iterations=300)
    start = np.linspace(values.min().item(), values.max().item(), 6).reshape(-1, 1)
    theirs = KMeans(6, init=start, n_init=1, tol=0, max_iter=300).fit(
        values.double().numpy().reshape(-1, 1), sample_weight=None if h is None else h.double().numpy()
    )
    assert np.allclose(codebook, theirs.cluster_centers_[:, 0], rtol=1e-6)
    assert indices.tolist() == theirs.labels_.tolist()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_never_below_the_exact_optimum_and_near_it(k, weighted):
    values = normal(24, seed=k)
    h = torch.rand(24, generator=torch.Generator().manual_seed(9)) if weighted else None
    found = inertia(values, *kmeans_1d(values, k, weights=h, iterations=100), h)
    best = best_inertia(values.double().numpy(), (torch.ones(24) if h is None else h).double().numpy(), k)
    assert best - 1e-9 <= found <= 2.5 * best + 1e-9
    assert k > 1 or found == pytest.approx(best, rel=1e-5)


def test_reaches_the_optimum_on_separated_clusters():
    centres = torch.tensor([-3.0, -1.0, 2.0, 7.0])
    values = (centres[:, None] + 0.05 * normal(40).view(1, 40)).flatten()
    codebook, indices = kmeans_1d(values, 4)
    assert torch.allclose(codebook, values.view(4, 40).mean(1), atol=1e-6)
    assert indices.tolist() == [0] * 40 + [1] * 40 + [2] * 40 + [3] * 40


@pytest.mark.parametrize("seed", range(5))
def test_inertia_never_rises_with_more_iterations(seed):
    values = normal(300, seed) ** 3  # heavy tails: clusters run empty and are moved
    h = torch.rand(300, generator=torch.Generator().manual_seed(seed))
    steps = [inertia(values, *kmeans_1d(values, 12, weights=h, iterations=i), h) for i in range(15)]
    assert all(after <= before * (1 + 1e-6) for before, after in zip(steps, steps[1:]))
    assert steps[-1] < steps[0]


def test_a_converged_centre_is_the_weighted_mean_of_its_values():
    values, h = normal(500), torch.rand(500, generator=torch.Generator().manual_seed(1))
    codebook, indices = kmeans_1d(values, 8, weights=h, iterations=500)
    for j in range(8):
        members = indices == j
        assert codebook[j] == pytest.approx(float((h * values)[members].sum() / h[members].sum()), abs=1e-5)


def test_indices_name_the_nearest_centre():
    values = normal(200)
    codebook, indices = kmeans_1d(values, 5, iterations=2)
    assert torch.equal(indices, (values[:, None] - codebook).abs().argmin(1))
    assert torch.equal(codebook, codebook.sort().values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_of_one_change_nothing_and_neither_do_parts(dtype, monkeypatch):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    codebook, indices = kmeans_1d(values, 16)
    for weights in (torch.ones(1000), torch.full((1000,), 0.25)):
        weighted = kmeans_1d(values, 16, weights=weights)
        assert torch.equal(weighted[0], codebook) and torch.equal(weighted[1], indices)
    monkeypatch.setattr("compresslab.core.kmeans._AT_ONCE", 7)
    assert torch.equal(kmeans_1d(values, 16)[1], indices)


def test_no_centre_stays_without_values():
    values = torch.cat([torch.linspace(-1, -0.9, 50), torch.linspace(5, 5.1, 50)])  # nothing in between
    codebook, indices = kmeans_1d(values, 8)
    assert len(indices.unique()) == 8


@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0, 2.0], [1.0, 3.0]])
def test_more_centres_than_values_store_them_exactly(values):
    values = torch.tensor(values)
    codebook, indices = kmeans_1d(values, 4)
    assert len(codebook) == 4 and torch.equal(codebook[indices], values)


def test_same_values_same_result_and_input_unchanged():
    values = normal(1000)
    before = values.clone()
    first, second = kmeans_1d(values, 16), kmeans_1d(values, 16)
    assert (
        torch.equal(first[0], second[0]) and torch.equal(first[1], second[1]) and torch.equal(values, before)
    )


@pytest.mark.parametrize("values", [[], [float("nan"), 1.0], [float("inf")]])
def test_values_that_cannot_be_clustered_are_refused(values):
    with pytest.raises(ValueError, match="values must be finite and at least one"):
        kmeans_1d(torch.tensor(values), 2)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be finite, not negative, and have a positive sum"):
        kmeans_1d(torch.tensor([1.0, 2.0]), 2, weights=torch.tensor(weights))


def test_weights_of_another_shape_and_bad_k_are_refused():
    with pytest.raises(ValueError, match=r"weights must have the values' shape \(2,\), got \(3,\)"):
        kmeans_1d(torch.zeros(2), 2, weights=torch.ones(3))
    with pytest.raises(ValueError, match="k must be"):
        kmeans_1d(torch.zeros(2), 0)
    with pytest.raises(TypeError, match="k must be"):
        kmeans_1d(torch.zeros(2), 2.0)
