"""Toeplitz and low displacement rank: against scipy, exact for what has the structure, projections elsewhere."""

import copy
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from compresslab.core import decompress, encode, load, save, storage_bits
from compresslab.sharing.displacement import (
    DisplacementCode,
    displacement,
    displacement_product,
    f_circulant,
    f_circulant_product,
)
from compresslab.sharing.toeplitz import ToeplitzCode, nearest_toeplitz, toeplitz, toeplitz_product


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- Toeplitz ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m, n", [(1, 1), (1, 4), (5, 1), (4, 4), (3, 7), (8, 5)])
def test_toeplitz_equals_scipys(m, n):
    column, row = randn(m), randn(n, seed=1)
    expected = scipy.linalg.toeplitz(column.numpy(), row.numpy())
    assert np.array_equal(toeplitz(column, row).numpy(), expected)
    x = randn(6, 2, n, seed=2)
    np.testing.assert_allclose(toeplitz_product(column, row, x).numpy(), x.numpy() @ expected.T, atol=1e-12)
    scipys = scipy.linalg.matmul_toeplitz((column.numpy(), row.numpy()), x[:, 0].numpy().T).T
    np.testing.assert_allclose(toeplitz_product(column, row, x[:, 0]).numpy(), scipys, atol=1e-12)


def test_the_product_is_differentiable():
    arguments = [randn(*shape, seed=i).requires_grad_() for i, shape in enumerate([(3,), (4,), (2, 4)])]
    assert torch.autograd.gradcheck(toeplitz_product, arguments)


@pytest.mark.parametrize("m, n", [(1, 4), (4, 4), (3, 7), (8, 5)])
def test_nearest_toeplitz_is_the_least_squares_solution(m, n):
    M = randn(m, n)
    column, row = nearest_toeplitz(M)
    basis = np.stack([np.eye(m, n, k).flatten() for k in range(1 - m, n)], axis=1)
    best = (basis @ np.linalg.lstsq(basis, M.numpy().flatten(), rcond=None)[0]).reshape(m, n)
    np.testing.assert_allclose(toeplitz(column, row).numpy(), best, atol=1e-12)
    assert column[0] == row[0]
    code = ToeplitzCode.from_dense(M)
    np.testing.assert_allclose(code.decode().detach().numpy(), best, atol=1e-6)
    torch.testing.assert_close(code.values.detach().double(), torch.cat([row.flip(0), column[1:]]), atol=1e-6, rtol=0)


def test_toeplitz_code():
    weight = randn(4, 2, 3, 3, dtype=torch.float32)
    code = ToeplitzCode.from_dense(weight)
    assert code.values.shape == (4 + 18 - 1,) and code.decode().shape == weight.shape
    matrix = code.decode().flatten(1).detach()
    assert torch.equal(matrix[1:, 1:], matrix[:-1, :-1])
    delta = randn(4, 2, 3, 3, seed=1, dtype=torch.float32)
    code.decode().backward(delta)
    sums = [delta.flatten(1).diagonal(k).sum() for k in range(17, -4, -1)]
    torch.testing.assert_close(code.values.grad, torch.stack(sums))
    kept = ToeplitzCode.from_dense(weight, keep_scale=True).decode()
    torch.testing.assert_close(kept.norm(), weight.norm())


# -- displacement --------------------------------------------------------------------------------------------


def shift(n, f):
    """Z_f, written out."""
    Z = torch.diag(torch.ones(n - 1), -1).double()
    Z[0, -1] += f
    return Z


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("f", [1, -1, 0, 0.5])
def test_f_circulant_is_a_polynomial_of_the_shift(n, f):
    v, x = randn(n), randn(3, n, seed=1)
    expected = sum(v[k] * torch.linalg.matrix_power(shift(n, f), k) for k in range(n))
    torch.testing.assert_close(f_circulant(v, f), expected)
    torch.testing.assert_close(f_circulant_product(v, x, f), x @ expected.T)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_displacement_is_what_the_shifts_leave(n):
    W = randn(n, n)
    torch.testing.assert_close(displacement(W), shift(n, 1) @ W - W @ shift(n, -1))


def structured(n=12):
    """Matrices, and the displacement ranks that they must not exceed."""
    random = np.random.default_rng(0)
    T = scipy.linalg.toeplitz(random.normal(size=n) + 4 * np.eye(n)[0], random.normal(size=n))
    U = scipy.linalg.toeplitz(random.normal(size=n), random.normal(size=n))
    x = random.uniform(size=n)
    matrices = {
        "circulant": (scipy.linalg.circulant(x), 1),
        "Toeplitz": (T, 2),
        "inverse of Toeplitz": (np.linalg.inv(T), 2),
        "product": (T @ U, 4),
        "Toeplitz and rank 1": (T + np.outer(x, x), 4),
    }
    return {name: (torch.tensor(matrix), rank) for name, (matrix, rank) in matrices.items()}


@pytest.mark.parametrize("name", structured())
def test_exact_for_what_has_the_structure(name):
    W, rank = structured()[name]
    assert torch.linalg.matrix_rank(displacement(W), atol=1e-10) <= rank
    code = DisplacementCode.from_dense(W, rank)
    torch.testing.assert_close(code.decode().double(), W, rtol=1e-4, atol=2e-6 * float(W.norm()))
    x = randn(5, 12)
    product = displacement_product(code.g.double(), code.h.double(), x)
    torch.testing.assert_close(product, x @ W.T, rtol=1e-4, atol=2e-5 * float(W.norm()))
    if rank > 1:  # one less does not do
        assert (DisplacementCode.from_dense(W, rank - 1).decode() - W).norm() > 1e-3 * W.norm()


@pytest.mark.parametrize("n, r", [(1, 1), (2, 1), (5, 2), (16, 3), (9, 9)])
def test_decode_is_the_sum_of_products(n, r):
    g, h = randn(r, n), randn(r, n, seed=1)
    W = sum(f_circulant(g[i], 1) @ f_circulant(h[i], -1) for i in range(r))
    code = DisplacementCode(g.float(), h.float(), (n, n))
    torch.testing.assert_close(code.decode().double(), W, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(displacement(W), 2 * g.T @ h.flip(1))
    x = randn(3, 2, n, seed=2)
    torch.testing.assert_close(displacement_product(g, h, x), x @ W.T)


def test_the_gradients_are_those_of_the_sum_of_products():
    g, h, delta = randn(2, 6), randn(2, 6, seed=1), randn(6, 6, seed=2)
    code = DisplacementCode(g.float(), h.float(), (6, 6))
    code.decode().backward(delta.float())
    g, h = g.requires_grad_(), h.requires_grad_()
    (f_circulant(g, 1) @ f_circulant(h, -1)).sum(0).backward(delta)
    torch.testing.assert_close(code.g.grad.double(), g.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(code.h.grad.double(), h.grad, rtol=1e-4, atol=1e-5)


def test_more_rank_is_nearer_and_full_rank_is_exact():
    W = randn(16, 16)
    errors = [float((DisplacementCode.from_dense(W, r).decode() - W).detach().norm()) for r in (1, 4, 8, 12, 16)]
    assert errors == sorted(errors, reverse=True) and errors[0] < W.norm() and errors[-1] < 1e-5
    best = torch.linalg.svdvals(displacement(W))[4:].norm()  # Eckart-Young, for the displacement before scaling
    code = DisplacementCode.from_dense(W, 4)
    D = displacement(code.decode().detach().double())
    factor = (D * displacement(W)).sum() / D.square().sum()
    torch.testing.assert_close((factor * D - displacement(W)).norm(), best, rtol=1e-4, atol=0)
    left = W - code.decode().double()  # and that factor is the best for the weight
    assert abs((left * code.decode()).sum()) < 1e-4


def test_keep_scale_spreads_over_both_generators():
    W = randn(40, 40)
    plain, kept = DisplacementCode.from_dense(W, 2), DisplacementCode.from_dense(W, 2, keep_scale=True)
    assert plain.decode().norm() < 0.9 * W.norm()
    torch.testing.assert_close(kept.decode().double().norm(), W.norm(), rtol=1e-5, atol=0)
    torch.testing.assert_close(kept.g.norm(), kept.h.norm())


# -- stored, refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_code, numbers", [
    (ToeplitzCode.from_dense, 2 * 10 - 1),
    (partial(DisplacementCode.from_dense, rank=3), 2 * 3 * 10),
])  # fmt: skip
def test_files_and_copies(make_code, numbers, tmp_path):
    model = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 2)).eval()
    coded, x = encode(model, make_code, only=["0"]), randn(3, 10, dtype=torch.float32)
    assert storage_bits(coded) == 32 * (numbers + 10 + 22)
    save(coded, tmp_path / "structured.cl")
    for other in (load(tmp_path / "structured.cl", model), copy.deepcopy(coded)):
        assert torch.equal(other(x), coded(x))
    torch.testing.assert_close(decompress(coded)(x), coded(x))
    coded(x).sum().backward()
    assert all(parameter.grad is not None for parameter in coded[0].parameters())


V, G = torch.ones(3), torch.ones(2, 3)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: toeplitz(torch.ones(2, 2), V), ValueError, "must be vectors"),
        (lambda: toeplitz(V, torch.ones(0)), ValueError, "at least one entry"),
        (lambda: toeplitz_product(V, V, torch.ones(4)), ValueError, "x must end in the 3 entries"),
        (lambda: nearest_toeplitz(V), ValueError, r"shape \(m, n\)"),
        (lambda: nearest_toeplitz(torch.ones(0, 3)), ValueError, "not empty"),
        (lambda: ToeplitzCode(V, (2, 3)), ValueError, r"values of shape \(4,\), got \(3,\)"),
        (lambda: ToeplitzCode(V.int(), (2, 2)), TypeError, "floating-point"),
        (lambda: ToeplitzCode.from_dense(V), ValueError, "at least two axes"),
        (lambda: ToeplitzCode.from_dense(torch.ones(0, 3)), ValueError, "one element, got shape"),
        (lambda: f_circulant_product(V, torch.ones(4), 1), ValueError, "same size"),
        (lambda: displacement(torch.ones(2, 3)), ValueError, "square"),
        (lambda: displacement_product(G, torch.ones(3, 3), V), ValueError, r"one shape \(r, n\)"),
        (lambda: displacement_product(G, G, torch.ones(4)), ValueError, "same size"),
        (lambda: DisplacementCode(G.int(), G, (3, 3)), TypeError, "g must be floating-point"),
        (lambda: DisplacementCode(G, G[:1], (3, 3)), ValueError, "one shape"),
        (lambda: DisplacementCode(G, G, (4, 4)), ValueError, r"generators \(r, 4\)"),
        (lambda: DisplacementCode(G, G, (3, 4)), ValueError, "must be square"),
        (lambda: DisplacementCode.from_dense(torch.ones(3, 4), 1), ValueError, r"square, \(n, n\), got \(3, 4\)"),
        (lambda: DisplacementCode.from_dense(torch.ones(3, 3), 0), ValueError, "from 1 to 3, got 0"),
        (lambda: DisplacementCode.from_dense(torch.ones(3, 3), 4), ValueError, "from 1 to 3, got 4"),
        (lambda: DisplacementCode.from_dense(torch.ones(3, 3), 1.5), TypeError, "whole number"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
