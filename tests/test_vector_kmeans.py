"""K-means in space: Lloyd's steps as scikit-learn's, never uphill, no empty centre, every error."""

import math

import pytest
import torch
from sklearn.cluster import KMeans

from compresslab.core.kmeans import kmeans_1d
from compresslab.sharing.vector_kmeans import kmeans, nearest


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cost(points, codebook, indices, weights=None):
    squares = (points.double() - codebook.double()[indices]).square().sum(1)
    return float(squares.sum() if weights is None else (weights.double() * squares).sum())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n, d, k", [(200, 3, 5), (60, 8, 12), (300, 1, 4)])
def test_lloyd_from_the_same_start_is_scikit_learns(n, d, k, weighted):
    points = randn(n, d)
    h = randn(n, seed=1).abs() + 0.1 if weighted else None
    ours = kmeans(points, k, start=points[:k], iterations=300, weights=h)
    peer = KMeans(k, init=points[:k].numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(
        points.numpy(), sample_weight=None if h is None else h.numpy()
    )
    torch.testing.assert_close(ours[0], torch.from_numpy(peer.cluster_centers_))
    assert ours[1].tolist() == peer.labels_.tolist()
    assert cost(points, *ours, h) == pytest.approx(peer.inertia_)


def test_seeded_start_is_about_as_good_as_scikit_learns_best():
    points = randn(400, 4)
    ours = min(cost(points, *kmeans(points, 10, seed=seed, iterations=100)) for seed in range(5))
    assert ours <= 1.02 * KMeans(10, n_init=20, random_state=0).fit(points.numpy()).inertia_


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_no_step_raises_the_objective(seed, weighted):
    points = randn(120, 3, seed=seed)
    h = randn(120, seed=9).abs().clamp(min=0.5) - 0.5 if weighted else None  # some have no weight
    far = torch.cat([points[:5], 50 + points[:4]])  # four centres that no point is near to
    for start in (None, far):
        costs = [cost(points, *kmeans(points, 9, seed=seed, iterations=i, weights=h, start=start), h) for i in range(25)]
        assert all(after <= before * (1 + 1e-12) for before, after in zip(costs, costs[1:]))
        assert costs[-1] < costs[0]


def test_centres_are_means_and_indices_the_nearest():
    points, h = randn(150, 3), randn(150, seed=1).abs()
    codebook, indices = kmeans(points, 6, weights=h, iterations=200)
    assert torch.equal(indices, torch.cdist(points, codebook).argmin(1))
    for j in range(6):
        own = indices == j
        torch.testing.assert_close(codebook[j], (h[own, None] * points[own]).sum(0) / h[own].sum())


def test_on_the_line_it_is_the_kmeans_of_the_core():
    values = randn(300)
    start = torch.linspace(values.min(), values.max(), 7, dtype=torch.float64).unsqueeze(1)
    codebook, indices = kmeans(values.unsqueeze(1), 7, start=start, iterations=300)
    expected = kmeans_1d(values, 7)
    torch.testing.assert_close(codebook.squeeze(1).float(), expected[0])
    assert torch.equal(indices, expected[1])


def test_a_batch_is_as_many_separate_problems():
    points = randn(4, 50, 3)
    h = randn(4, 50, seed=3).abs()
    books, indices = kmeans(points, 5, start=points[:, :5], iterations=100, weights=h)
    assert books.shape == (4, 5, 3) and indices.shape == (4, 50)
    for j in range(4):
        one = kmeans(points[j], 5, start=points[j, :5], iterations=100, weights=h[j])
        torch.testing.assert_close(books[j], one[0])
        assert torch.equal(indices[j], one[1])


def test_planted_clusters_are_found_far_from_the_origin():
    centres = 1e6 + 10 * randn(8, 4)
    points = centres.repeat(20, 1) + 1e-3 * randn(160, 4, seed=1)
    best = min((kmeans(points, 8, seed=seed) for seed in range(5)), key=lambda found: cost(points, *found))
    assert torch.cdist(centres, best[0]).amin(1).max() < 2e-3
    assert best[1].view(20, 8).unique(dim=0).shape[0] == 1  # equal in every round


def test_empty_centres_are_moved():
    points = torch.cat([randn(30, 2), randn(30, 2, seed=1) + 20])
    start = torch.full((4, 2), 1000.0)
    start[0] = 0
    codebook, indices = kmeans(points, 4, start=start)
    assert indices.unique().tolist() == [0, 1, 2, 3] and codebook.abs().max() < 100


def test_first_centres_are_different_points():
    points = randn(12, 2).repeat(5, 1)
    codebook, indices = kmeans(points, 12, iterations=0)
    assert codebook.unique(dim=0).shape[0] == 12 and cost(points, codebook, indices) < 1e-20


def test_degenerate_points():
    for points in (torch.ones(5, 2), torch.ones(1, 2)):
        codebook, indices = kmeans(points, 3)
        assert codebook.shape == (3, 2) and torch.equal(codebook[indices], points)
    three = randn(3, 2).float()
    codebook, indices = kmeans(three, 7)
    assert codebook.dtype == torch.float32
    torch.testing.assert_close(codebook[indices], three)


def test_points_without_weight_have_no_say():
    points = torch.cat([randn(40, 2), 100 + randn(5, 2)])
    h = torch.cat([torch.ones(40), torch.zeros(5)])
    codebook, indices = kmeans(points, 4, weights=h)
    assert codebook.abs().max() < 10 and indices.shape == (45,)
    for points in (points, points.repeat(20, 1)):  # 900 points: more than take part in the draw
        h = (points[:, 0] < 50).double()
        for seed in range(10):
            assert kmeans(points, 4, seed=seed, weights=h, iterations=0)[0].abs().max() < 10


def test_same_seed_same_result_and_the_global_generator_untouched():
    points, state = randn(100, 3), torch.get_rng_state()
    first, second, third = (kmeans(points, 6, seed=seed, iterations=0)[0] for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert torch.equal(state, torch.get_rng_state())


def test_nearest_in_parts_is_nearest():
    points, codebook = randn(2, 5000, 3), randn(2, 40, 3, seed=1)
    assert torch.equal(nearest(points, codebook), torch.cdist(points, codebook).argmin(2))
    assert nearest(torch.zeros(1, 1, 1), torch.tensor([[[1.0], [-1.0]]])).item() == 0  # the first of two


def test_errors():
    points = randn(6, 2)
    for bad in (randn(6), torch.zeros(0, 2), torch.zeros(3, 0)):
        with pytest.raises(ValueError, match="points must have shape"):
            kmeans(bad, 2)
    with pytest.raises(ValueError, match="got nan or inf"):
        kmeans(torch.tensor([[1.0, math.nan]]), 1)
    with pytest.raises(TypeError, match="floating-point"):
        kmeans(torch.ones(3, 2, dtype=torch.long), 1)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        kmeans(points, 0)
    with pytest.raises(TypeError, match="k must be"):
        kmeans(points, 2.0)
    with pytest.raises(ValueError, match="iterations must be"):
        kmeans(points, 2, iterations=-1)
    with pytest.raises(ValueError, match="seed must be"):
        kmeans(points, 2, seed=-1)
    with pytest.raises(ValueError, match=r"weights must have shape \(6,\)"):
        kmeans(points, 2, weights=torch.ones(5))
    for bad in (torch.zeros(6), -torch.ones(6), torch.full((6,), math.inf)):
        with pytest.raises(ValueError, match="weights must be finite, not negative"):
            kmeans(points, 2, weights=bad)
    for bad in (randn(3, 2), randn(2, 3), torch.full((2, 2), math.nan)):
        with pytest.raises(ValueError, match=r"start must be finite, of shape \(2, 2\)"):
            kmeans(points, 2, start=bad)
    with pytest.raises(ValueError, match="must agree in b and d"):
        nearest(randn(1, 4, 2), randn(1, 4, 3))
