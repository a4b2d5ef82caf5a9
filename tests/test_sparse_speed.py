"""The sparse product: equal to the dense one, exact densities, and a break-even that can be worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compresslab.core import count_macs
from compresslab.deploy import sparse_speed as sparse


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), density=st.floats(0, 1), bias=st.booleans(), seed=st.integers(0, 99))
def test_sparse_layer_computes_the_same(rows, columns, density, bias, seed):
    layer = nn.Linear(columns, rows, bias=bias)
    layer.weight = nn.Parameter(sparse.random_sparse(rows, columns, density, seed))
    before = layer.weight.detach().clone()
    x = torch.randn(2, 3, columns, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        torch.testing.assert_close(sparse.SparseLinear(layer)(x), layer(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(sparse.to_scipy(before) @ x[0].T.numpy()), before @ x[0].T, rtol=1e-5, atol=1e-5)
    assert torch.equal(sparse.to_csr(before).to_dense(), before) and torch.equal(layer.weight, before)


def test_compressed_rows_by_hand():
    weight = sparse.to_csr(torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, 7.0]]))
    assert weight.values().tolist() == [3.0, 2.0, 7.0]
    assert weight.col_indices().tolist() == [1, 0, 2]
    assert weight.crow_indices().tolist() == [0, 1, 1, 3]


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_density_is_exact_and_seeded(density):
    state = torch.random.get_rng_state()
    weight = sparse.random_sparse(30, 7, density)
    assert int((weight != 0).sum()) == round(density * 210)
    assert torch.equal(weight, sparse.random_sparse(30, 7, density))
    assert density in (0.0,) or not torch.equal(weight, sparse.random_sparse(30, 7, density, seed=1))
    assert torch.equal(state, torch.random.get_rng_state())


def test_only_stored_numbers_are_counted():
    layer = nn.Linear(10, 4, bias=False)
    layer.weight = nn.Parameter(sparse.random_sparse(4, 10, 0.25))
    assert sparse.SparseLinear(layer).count_macs((torch.zeros(3, 10),), torch.zeros(3, 4)) == 30
    assert count_macs(layer, (10,)).total == 40


def test_rows_of_the_measurement():
    rows = sparse.time_sparse(16, 8, densities=(0.5, 0.1), batch=2, repeats=3, threads=1)
    assert [(row.density, row.kernel) for row in rows] == [(0.5, "torch"), (0.5, "scipy"), (0.1, "torch"), (0.1, "scipy")]
    for row in rows:
        assert row.speedup.low <= row.speedup.high and len(row.sparse.samples) == len(row.dense.samples) == 3
        assert row.speedup.ratio == pytest.approx(np.median(row.dense.samples) / np.median(row.sparse.samples))


@pytest.mark.parametrize(("densities", "ratios", "wanted"), [
    ([0.1, 0.4], [2.0, 0.5], 0.2),               # a slope of -1 in logarithms: ratio = 0.2 / density
    ([0.4, 0.1], [0.5, 2.0], 0.2),               # in any order
    ([0.01, 0.1, 0.5], [50, 5, 1], 0.5),         # wins everywhere that was measured
    ([0.1, 0.5], [0.9, 0.2], None),              # wins nowhere
    ([0.01, 0.1, 0.5], [4, 0.25, 1.5], 0.031623),  # the first crossing from below: a later win may be noise
    ([0.1], [1.0], 0.1),
])  # fmt: skip
def test_break_even_by_hand(densities, ratios, wanted):
    assert sparse.break_even_density(densities, ratios) == (None if wanted is None else pytest.approx(wanted, rel=1e-4))


@settings(max_examples=30, deadline=None)
@given(limit=st.floats(0.02, 0.9), power=st.floats(0.3, 2))
def test_break_even_finds_the_limit_of_a_power_law(limit, power):
    densities = [0.01, 0.05, 0.2, 0.5, 0.95]
    assert sparse.break_even_density(densities, [(limit / d) ** power for d in densities]) == pytest.approx(limit, abs=2e-6)


def test_refusals():
    with pytest.raises(TypeError, match=r"layer must be an nn.Linear, got Conv2d"):
        sparse.SparseLinear(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match=r"weight must be a matrix, got shape \(2, 2, 2\)"):
        sparse.to_csr(torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match=r"density must be in \[0, 1\], got 50; did you mean 0.5"):
        sparse.random_sparse(2, 2, 50)
    with pytest.raises(ValueError, match="columns must be a whole number of at least 1"):
        sparse.random_sparse(2, 0, 0.5)
    with pytest.raises(ValueError, match="kernels must be of torch, scipy, got cusparse"):
        sparse.time_sparse(2, 2, kernels=("cusparse",))
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1"):
        sparse.time_sparse(2, 2, batch=0)
    with pytest.raises(ValueError, match="got 2 densities and 1 ratios"):
        sparse.break_even_density([0.1, 0.2], [1.0])
    with pytest.raises(ValueError, match="one ratio per density"):
        sparse.break_even_density([], [])
    with pytest.raises(ValueError, match="must be above 0"):
        sparse.break_even_density([0.1, 0.0], [1.0, 1.0])
