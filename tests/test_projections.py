"""Projections: nothing in the set is nearer, by enumeration; projecting twice changes nothing."""

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from compresslab.hybrid.projections import (
    project_codebook,
    project_levels,
    project_low_rank,
    project_nm,
    project_ternary,
    project_top_k,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(one, other):
    return (one.double() - other.double()).square().sum().item()


ALL = {
    "top-k": partial(project_top_k, k=7),
    "2:4": project_nm,
    "ternary": project_ternary,
    "ternary rows": partial(project_ternary, axis=0),
    "levels": partial(project_levels, levels=[1.0, -0.5, 0.0]),
    "codebook": partial(project_codebook, k=3),
    "low rank": partial(project_low_rank, rank=2),
}


@pytest.mark.parametrize("project", ALL.values(), ids=ALL)
@pytest.mark.parametrize("shape", [(4, 8), (4, 4, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projecting_twice_changes_nothing_and_the_input_stays(project, shape, dtype):
    weight = randn(*shape, seed=1).to(dtype).requires_grad_()
    before = weight.detach().clone()
    once = project(weight)
    assert once.shape == weight.shape and once.dtype == dtype and not once.requires_grad
    torch.testing.assert_close(project(once), once, rtol=1e-6, atol=1e-6)
    assert torch.equal(weight, before) and 0 < distance(once, weight) < distance(weight * 0, weight)


@pytest.mark.parametrize("project", ALL.values(), ids=ALL)
def test_nothing_else_in_the_set_is_nearer(project):
    """Projections of other weights are members of the set; so are steps from one along it."""
    weight = randn(4, 8, seed=2)
    nearest = distance(project(weight), weight)
    for seed in range(60):
        near = weight + 10.0 ** (-(seed % 4)) * randn(4, 8, seed=100 + seed)
        assert distance(project(near), weight) >= nearest * (1 - 1e-6)


@pytest.mark.parametrize("k", range(7))
def test_top_k_against_every_support(k):
    weight = randn(6, seed=k)
    best = min(
        distance(weight.clone().index_fill(0, torch.tensor(out, dtype=torch.long), 0.0), weight)
        for out in itertools.combinations(range(6), 6 - k)
    )
    found = project_top_k(weight, k)
    assert int((found != 0).sum()) == k and distance(found, weight) == pytest.approx(best, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1), st.booleans())
def test_top_k_keeps_exactly_k_also_among_ties(n, share, ties):
    k = round(share * n)
    weight = torch.ones(n) if ties else torch.randn(n, generator=torch.Generator().manual_seed(n))
    found = project_top_k(weight, k)
    assert int((found != 0).sum()) == k and torch.equal(found[found != 0], weight[found != 0])
    assert k in (0, n) or found[found != 0].abs().min() >= weight[found == 0].abs().max()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 3), (3, 3)])
def test_nm_against_every_pattern(n, m):
    weight = randn(3, 2 * m, seed=n)
    found = project_nm(weight, n, m)
    for row, kept in zip(weight.view(-1, m), found.view(-1, m), strict=True):
        best = min(sum(row[i] ** 2 for i in out) for out in itertools.combinations(range(m), m - n))
        assert int((kept != 0).sum()) == n and distance(kept, row) == pytest.approx(float(best), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ternary_against_every_assignment_with_its_best_scale(seed):
    weight = randn(6, seed=seed) ** (1 + 2 * (seed % 2))
    best = weight.square().sum().item()
    for signs in itertools.product((-1.0, 0.0, 1.0), repeat=6):
        t = torch.tensor(signs, dtype=torch.float64)
        if t.any():
            best = min(best, distance((weight @ t) / (t @ t) * t, weight))
    found = project_ternary(weight)
    assert distance(found, weight) == pytest.approx(best, rel=1e-5)
    assert len(found[found != 0].abs().unique()) <= 1


def test_ternary_rows_have_scales_of_their_own():
    weight = torch.tensor([[4.0, -3.0, 0.5, 0.1], [0.04, -0.03, 0.005, 0.001]])
    torch.testing.assert_close(project_ternary(weight, axis=0)[1], project_ternary(weight)[0] / 100)
    assert not project_ternary(weight)[1].any()
    assert not project_ternary(torch.zeros(2, 3)).any()


def test_levels_against_every_level():
    weight, levels = randn(50), [0.3, -1.0, 0.9]
    found = project_levels(weight, levels)
    every = torch.stack([(weight - level).square() for level in levels])
    assert distance(found, weight) == pytest.approx(every.min(0).values.sum().item())
    assert set(found.unique().tolist()) == set(levels)
    assert project_levels(torch.tensor([0.5, -7.0]), torch.tensor([1.0, 0.0])).tolist() == [0.0, 0.0]  # a tie: the lower


@pytest.mark.parametrize(("n", "k"), [(6, 1), (6, 2), (6, 3), (4, 6)])
def test_codebook_against_every_partition(n, k):
    weight = randn(n, seed=k)
    best = float("inf")
    for labels in itertools.product(range(k), repeat=n) if n == 6 else [range(n)]:
        labels = torch.tensor(list(labels))
        groups = [weight[labels == label] for label in labels.unique()]
        best = min(best, sum(distance(group, group.mean()) for group in groups))
    found = project_codebook(weight, k)
    assert distance(found, weight) == pytest.approx(best, rel=1e-4, abs=1e-10) and len(found.unique()) <= k


def test_codebook_is_at_least_as_good_as_sklearn():
    weight = randn(300)
    other = KMeans(8, n_init=5, random_state=0).fit(weight.numpy()[:, None])
    assert distance(project_codebook(weight, 8), weight) <= other.inertia_ * (1 + 1e-6)


@pytest.mark.parametrize("rank", range(5))
def test_low_rank_error_is_the_singular_values_left_out(rank):
    weight = randn(4, 3, 2, seed=rank)
    found = project_low_rank(weight, rank)
    values = torch.linalg.svdvals(weight.flatten(1))
    assert distance(found, weight) == pytest.approx(values[rank:].square().sum().item(), abs=1e-12)
    assert torch.linalg.matrix_rank(found.flatten(1)) == rank


@pytest.mark.parametrize("project", ALL.values(), ids=ALL)
def test_what_is_no_weight_is_refused(project):
    with pytest.raises(ValueError, match="finite"):
        project(torch.full((4, 8), torch.nan))
    with pytest.raises(TypeError, match="floating-point"):
        project(torch.ones(4, 8, dtype=torch.int64))


@pytest.mark.parametrize(
    ("project", "error", "message"),
    [
        (lambda w: project_top_k(w, 33), ValueError, "k must be a whole number from 0 to 32, got 33"),
        (lambda w: project_top_k(w, 0.5), TypeError, "k must be a whole number"),
        (lambda w: project_nm(w, 5, 4), ValueError, "n must be a whole number from 1 to 4"),
        (lambda w: project_nm(w[0]), ValueError, "at least two axes"),
        (lambda w: project_levels(w, []), ValueError, "levels must be one or more finite numbers"),
        (lambda w: project_levels(w, [0.0, float("inf")]), ValueError, "levels must be"),
        (lambda w: project_codebook(w, 0), ValueError, "k must be a whole number of at least 1"),
        (lambda w: project_low_rank(w, 5), ValueError, "rank must be a whole number from 0 to 4"),
        (lambda w: project_low_rank(w[0], 1), ValueError, "at least two axes"),
        (lambda w: project_ternary(w, axis=2), ValueError, "axis"),
    ],
)
def test_refusals(project, error, message):
    with pytest.raises(error, match=message):
        project(torch.ones(4, 8))
