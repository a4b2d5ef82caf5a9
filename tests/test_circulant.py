"""Circulant layers: against scipy's matrices, the gradient a correlation, the projection a mean of diagonals."""

import copy
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from compresslab.core import count_macs, decompress, encode, load, save, storage_bits
from compresslab.sharing.circulant import (
    BlockCirculantCode,
    CirculantLinear,
    circulant,
    circulant_product,
    nearest_circulant,
)
from compresslab.sharing.displacement import f_circulant_product
from compresslab.sharing.hashing import hash_indices


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


SIZES = [1, 2, 3, 8, 15]


@pytest.mark.parametrize("n", SIZES)
def test_equals_scipys_matrix(n):
    r, x = randn(2, n), randn(4, 2, n, seed=1)
    expected = np.stack([scipy.linalg.circulant(column.numpy()) for column in r])
    assert np.array_equal(circulant(r).numpy(), expected)
    product = np.einsum("sij,bsj->bsi", expected, x.numpy())
    np.testing.assert_allclose(circulant_product(r, x).numpy(), product, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_the_gradient_is_a_correlation(n):
    """dL/dr_k = sum_i delta_{i+k} x_i, where delta = dL/dy; and dL/dx is the product with the transposed."""
    r, x, delta = randn(n).requires_grad_(), randn(n, seed=1).requires_grad_(), randn(n, seed=2)
    circulant_product(r, x).backward(delta)
    expected = [sum(delta[(i + k) % n] * x[i].detach() for i in range(n)) for k in range(n)]
    torch.testing.assert_close(r.grad, torch.stack(expected))
    torch.testing.assert_close(x.grad, circulant(r.detach()).T @ delta)
    assert torch.autograd.gradcheck(circulant_product, (r, x))
    assert torch.autograd.gradcheck(circulant, (r,))


@pytest.mark.parametrize("n", SIZES)
def test_the_nearest_one_is_the_mean_over_wrapped_diagonals(n):
    M = randn(n, n)
    means = [np.mean([M[(j + k) % n, j] for j in range(n)]) for k in range(n)]
    np.testing.assert_allclose(nearest_circulant(M).numpy(), means)
    basis = np.stack([scipy.linalg.circulant(np.eye(n)[k]).flatten() for k in range(n)], axis=1)
    best = np.linalg.lstsq(basis, M.numpy().flatten(), rcond=None)[0]
    np.testing.assert_allclose(nearest_circulant(M).numpy(), best, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(nearest_circulant(circulant(M[0])), M[0])


def block_matrix(values):
    """The oracle: blocks of scipy's matrices."""
    return np.block([[scipy.linalg.circulant(r) for r in row] for row in values.detach().double().numpy()])


@pytest.mark.parametrize("p, q, b", [(1, 1, 6), (2, 3, 4), (3, 1, 5), (2, 2, 1), (1, 4, 2)])
def test_blocks(p, q, b):
    values = randn(p, q, b, dtype=torch.float32)
    code = BlockCirculantCode(values, (p * b, q * b))
    assert np.array_equal(code.decode().detach().double().numpy(), block_matrix(values))
    weight = randn(p * b, q * b, seed=3, dtype=torch.float32)
    near = BlockCirculantCode.from_dense(weight, b)
    blocks = weight.view(p, b, q, b).transpose(1, 2)
    torch.testing.assert_close(near.values.detach(), nearest_circulant(blocks))
    torch.testing.assert_close(BlockCirculantCode.from_dense(code.decode(), b).values, code.values)
    if b == 1:
        assert torch.equal(near.decode(), weight)


def test_the_gradient_of_a_value_is_the_sum_over_its_uses():
    code = BlockCirculantCode(randn(2, 3, 4, dtype=torch.float32), (8, 12))
    delta = randn(8, 12, seed=1, dtype=torch.float32)
    code.decode().backward(delta)
    blocks = delta.view(2, 4, 3, 4).transpose(1, 2)
    torch.testing.assert_close(code.values.grad, 4 * nearest_circulant(blocks))  # each is used four times


def test_a_convolution_has_circulant_blocks_at_every_place_of_its_kernel():
    weight = randn(8, 4, 3, 2, dtype=torch.float32)
    code = BlockCirculantCode.from_dense(weight, 4)
    assert code.values.shape == (2, 6, 4) and code.decode().shape == weight.shape
    for y in range(3):
        for x in range(2):
            alone = BlockCirculantCode.from_dense(weight[:, :, y, x], 4)
            torch.testing.assert_close(code.decode()[:, :, y, x], alone.decode())


def test_keep_scale():
    weight = randn(96, 96, dtype=torch.float32)
    plain, kept = (BlockCirculantCode.from_dense(weight, 96, keep_scale=keep).decode() for keep in (False, True))
    assert plain.norm() < 0.2 * weight.norm()
    torch.testing.assert_close(kept.norm(), weight.norm(), rtol=1e-5, atol=0)
    torch.testing.assert_close(kept / kept.norm(), plain / plain.norm())


@pytest.mark.parametrize("p, q, b", [(1, 1, 7), (2, 3, 4), (3, 2, 1), (1, 3, 6)])
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_equals_its_matrix(p, q, b, seed, bias):
    values, c = randn(p, q, b), randn(p * b, seed=1) if bias else None
    layer = CirculantLinear(values, c, seed)
    D = np.ones(q * b) if seed is None else hash_indices((q * b,), 1, seed)[1].numpy()
    matrix = torch.tensor(block_matrix(values) * D)
    for x in (randn(q * b, seed=2), randn(5, q * b, seed=2), randn(2, 3, q * b, seed=2)):
        expected = x @ matrix.T + (0 if c is None else c)
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer.to_dense()(x), expected)
    x = randn(3, q * b, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, v: torch.func.functional_call(layer, {"values": v}, x), (x, layer.values))


@pytest.mark.parametrize("seed", [None, 3])
def test_from_dense_projects_and_is_exact_for_a_layer_of_this_form(seed):
    form = CirculantLinear(randn(2, 3, 4), randn(8, seed=1), seed)
    again = CirculantLinear.from_dense(form.to_dense(), 4, seed=seed)
    torch.testing.assert_close(again.values, form.values, rtol=1e-6, atol=1e-6)  # found in float32
    torch.testing.assert_close(again.bias, form.bias)
    torch.testing.assert_close(again(torch.eye(12).double()), form(torch.eye(12).double()), rtol=1e-5, atol=1e-5)
    dense = nn.Linear(12, 8)
    near = CirculantLinear.from_dense(dense, 4, seed=seed)
    error = (near.to_dense().weight - dense.weight).detach()
    for draw in range(5):  # least squares: the error is orthogonal to every matrix of the form
        other = CirculantLinear(randn(2, 3, 4, seed=draw, dtype=torch.float32), seed=seed).to_dense().weight
        assert abs((error * other.detach()).sum()) < 1e-5
    assert near.bias is not dense.bias and torch.equal(near.bias, dense.bias)


def test_from_code_is_the_same_function():
    coded = encode(nn.Linear(12, 8), partial(BlockCirculantCode.from_dense, block=4))
    fast = CirculantLinear.from_code(coded.coded, coded.bias)
    x = randn(3, 12, dtype=torch.float32)
    torch.testing.assert_close(fast(x), coded(x))
    assert storage_bits(fast) == storage_bits(coded) == 32 * (2 * 3 * 4 + 8)
    with torch.no_grad():
        fast.values.zero_()
    assert coded.coded.values.any()
    conv = BlockCirculantCode.from_dense(randn(4, 4, 3, 3, dtype=torch.float32), 2)
    with pytest.raises(ValueError, match="only the code of a linear layer"):
        CirculantLinear.from_code(conv)


def test_files_and_copies(tmp_path):
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(32, 16), nn.Linear(16, 2)).eval()
    coded = encode(model, partial(BlockCirculantCode.from_dense, block=2))
    coded[2] = CirculantLinear.from_dense(model[2], 16, seed=5).eval()
    x = randn(3, 4, 4, 4, dtype=torch.float32)
    assert storage_bits(coded) == 32 * (8 * 4 * 9 // 2 + 8 + 32 + 16 + 16 + 2)
    save(coded, tmp_path / "circulant.cl")
    loaded = load(tmp_path / "circulant.cl", model)
    assert isinstance(loaded[2], CirculantLinear) and loaded[2].seed == 5
    for other in (loaded, copy.deepcopy(coded), decompress(coded)):
        torch.testing.assert_close(other(x), coded(x), rtol=0, atol=0)


def test_it_trains():
    torch.manual_seed(0)
    target = CirculantLinear(randn(2, 2, 8, dtype=torch.float32), seed=1)
    layer = CirculantLinear.from_dense(nn.Linear(16, 16), 8, seed=1, keep_scale=True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(150):
        x = torch.randn(32, 16)
        loss = (layer(x) - target(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3
    torch.testing.assert_close(layer.values, target.values, rtol=0.05, atol=0.05)


def test_macs():
    layer = CirculantLinear(randn(2, 3, 8, dtype=torch.float32))
    transforms, products = (2 + 3) * 8 * 3, 4 * 2 * 3 * 5
    assert count_macs(layer, (24,)).total == transforms + products
    assert count_macs(layer, torch.zeros(4, 24)).total == transforms + products
    assert count_macs(layer, torch.zeros(4, 7, 24)).total == 7 * (transforms + products)
    big = CirculantLinear(randn(1, 1, 1024, dtype=torch.float32))
    assert count_macs(big, (1024,)).total == 2 * 1024 * 10 + 4 * 513 < 1024**2 / 40


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: circulant(torch.tensor(1.0)), ValueError, "at least one entry"),
        (lambda: circulant(torch.zeros(2, 0)), ValueError, "at least one entry"),
        (lambda: circulant_product(torch.ones(3), torch.ones(4)), ValueError, r"same size, got \(3,\) and \(4,\)"),
        (lambda: nearest_circulant(torch.ones(3, 4)), ValueError, "square"),
        (lambda: BlockCirculantCode.from_dense(torch.ones(8, 6), 4), ValueError,
         "block must divide both sizes, 8 outputs and 6 inputs, got 4"),
        (lambda: BlockCirculantCode.from_dense(torch.ones(6, 8), 4), ValueError, "block must divide"),
        (lambda: BlockCirculantCode.from_dense(torch.ones(4, 2, 2), 4), ValueError, "2 inputs, got 4"),
        (lambda: BlockCirculantCode.from_dense(torch.ones(4, 4), 0), ValueError, "of at least 1, got 0"),
        (lambda: BlockCirculantCode.from_dense(torch.ones(4, 4), 2.0), TypeError, "whole number"),
        (lambda: BlockCirculantCode.from_dense(torch.ones(4), 2), ValueError, r"shape \(O, I, ...\)"),
        (lambda: BlockCirculantCode(torch.ones(2, 2), (2, 2)), ValueError, r"shape \(p, q, b\)"),
        (lambda: BlockCirculantCode(torch.ones(1, 1, 2), (4, 2)), ValueError, r"values of shape \(2, 1, 2\)"),
        (lambda: BlockCirculantCode(torch.ones(1, 1, 2).int(), (2, 2)), TypeError, "floating-point"),
        (lambda: CirculantLinear(torch.ones(1, 1, 2).int()), TypeError, "floating-point"),
        (lambda: CirculantLinear(torch.ones(2, 2)), ValueError, r"shape \(p, q, b\)"),
        (lambda: CirculantLinear(torch.ones(1, 1, 2), torch.ones(3)), ValueError, r"bias must have shape \(2,\)"),
        (lambda: CirculantLinear(torch.ones(1, 1, 2), seed=-1), ValueError, "seed must be"),
        (lambda: CirculantLinear(torch.ones(1, 1, 2))(torch.ones(3)), ValueError, r"end in 2 features, got \(3,\)"),
        (lambda: CirculantLinear.from_dense(nn.Linear(6, 4), 4), ValueError, "block must divide"),
        (lambda: CirculantLinear.from_dense(nn.ReLU(), 4), TypeError, "must be a Linear, got ReLU"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_error_names_the_layer():
    with pytest.raises(ValueError, match="got 4 in layer '1'"):
        encode(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), partial(BlockCirculantCode.from_dense, block=4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n", [6, 8])
def test_half_precision_is_computed_in_float32(n, dtype):
    layer = CirculantLinear.from_dense(nn.Linear(n, n), n // 2, seed=3).to(dtype)
    x, single = randn(4, n).to(dtype), copy.deepcopy(layer).float()
    assert layer(x).dtype == dtype
    torch.testing.assert_close(layer(x), single(x.float()).to(dtype), rtol=0.02, atol=0.02)
    r = randn(n, seed=1).to(dtype)
    for product in (circulant_product, partial(f_circulant_product, f=-1)):
        assert product(r, x).dtype == dtype
        torch.testing.assert_close(product(r, x), product(r.float(), x.float()).to(dtype), rtol=0.02, atol=0.02)


def test_a_frozen_layer_stays_frozen():
    dense = nn.Linear(6, 6)
    dense.weight.requires_grad_(False)
    layer = CirculantLinear.from_dense(dense, 3)
    assert not layer.values.requires_grad and layer.bias.requires_grad
    assert not CirculantLinear.from_dense(dense.requires_grad_(False), 3).bias.requires_grad
