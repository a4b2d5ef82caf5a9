"""Popcount products: equal to the float products, whatever the length and however the zeros fall."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from compresslab.quantization.binary import BinaryCode, sign
from compresslab.quantization.xnor import (
    input_scale,
    pack_signs,
    xnor_conv2d,
    xnor_dot,
    xnor_linear,
    xnor_matmul,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 1000])
def test_dot_and_matmul_equal_the_float_products(n):
    a, b = randn(5, n), randn(3, n, seed=1)
    a[0] = 0.0  # zeros are +1
    packed_a, packed_b = pack_signs(a), pack_signs(b)
    exact = (sign(a) @ sign(b).T).numpy()
    found = xnor_matmul(packed_a, packed_b, n)
    assert found.dtype == np.int32 and np.array_equal(found, exact)
    assert xnor_dot(packed_a[1], packed_b[2], n) == exact[1, 2]
    assert xnor_dot(packed_a[1], packed_a[1], n) == n == -xnor_dot(packed_a[1], pack_signs(-a[1]), n)


def test_popcount_identity_by_enumeration():
    for i in range(2**4):
        for j in range(2**4):
            a, b = (np.array([1 if number >> k & 1 else -1 for k in range(4)]) for number in (i, j))
            assert xnor_dot(pack_signs(a), pack_signs(b), 4) == a @ b == 4 - 2 * (i ^ j).bit_count()


@pytest.mark.parametrize("n", [1, 64, 70])
def test_bit_i_of_the_row_is_the_sign_of_element_i(n):
    x = randn(2, 3, n)
    words = pack_signs(x)
    assert words.shape == (2, 3, -(-n // 64)) and words.dtype == np.uint64
    for i in range(64 * words.shape[-1]):
        bit = (words[..., i // 64] >> np.uint64(i % 64)) & np.uint64(1)
        assert np.array_equal(bit, (x[..., i] >= 0).numpy() if i < n else np.zeros((2, 3)))


def test_blocks_of_rows_do_not_change_the_product(monkeypatch):
    a, b = pack_signs(randn(37, 100)), pack_signs(randn(11, 100, seed=1))
    whole = xnor_matmul(a, b, 100)
    monkeypatch.setattr("compresslab.quantization.xnor.PAIRS", 40)  # three rows at a time, and a rest
    assert np.array_equal(xnor_matmul(a, b, 100), whole)


def test_no_rows_and_strided_input():
    a, b = pack_signs(randn(0, 10)), pack_signs(randn(3, 10))
    assert xnor_matmul(a, b, 10).shape == (0, 3) and xnor_matmul(b, a, 10).shape == (3, 0)
    x = randn(70, 4).T
    assert np.array_equal(pack_signs(x), pack_signs(x.contiguous()))
    wide = pack_signs(randn(4, 200))
    assert np.array_equal(xnor_matmul(wide[::2], wide, 200), xnor_matmul(wide, wide, 200)[::2])


@pytest.mark.parametrize("axis", [0, None])
def test_linear_layer_equals_its_simulation(axis):
    x, weight, bias = randn(6, 70), randn(5, 70, seed=1), randn(5, seed=2)
    code = BinaryCode.from_dense(weight, axis=axis)
    expected = F.linear(sign(x), code.decode()) * x.abs().mean(1, keepdim=True) + bias
    torch.testing.assert_close(xnor_linear(x, code, bias), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(xnor_linear(x, code), expected - bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride, padding", [(1, 0), (2, 1)])
def test_input_scale_is_the_mean_magnitude_of_the_patch(stride, padding):
    x = randn(2, 3, 6, 7)
    patches = F.unfold(x, (3, 2), stride=stride, padding=padding)  # (N, C * kh * kw, positions)
    scale = input_scale(x, (3, 2), stride, padding)
    assert torch.allclose(scale.flatten(1), patches.abs().mean(1), atol=1e-6)


def test_convolution_without_padding_is_popcount_on_patches():
    x, weight = randn(2, 3, 6, 6), randn(4, 3, 3, 3, seed=1)
    patches = F.unfold(x, 3).transpose(1, 2).reshape(-1, 27)
    counts = torch.from_numpy(xnor_matmul(pack_signs(patches), pack_signs(weight.flatten(1)), 27)).float()
    y = counts * patches.abs().mean(1, keepdim=True) * weight.abs().flatten(1).mean(1)
    expected = y.view(2, 16, 4).transpose(1, 2).reshape(2, 4, 4, 4)
    torch.testing.assert_close(xnor_conv2d(x, weight), expected, rtol=1e-4, atol=1e-5)


def test_convolution_is_exact_for_scaled_signs_and_trains():
    x, weight = 3 * sign(randn(1, 2, 5, 5)), 0.5 * sign(randn(3, 2, 3, 3, seed=1))
    torch.testing.assert_close(xnor_conv2d(x, weight, stride=2), F.conv2d(x, weight, stride=2))
    x, weight, bias = randn(1, 2, 5, 5).requires_grad_(), randn(3, 2, 3, 3, seed=1).requires_grad_(), torch.ones(3)
    xnor_conv2d(x, weight, bias, padding=1).square().sum().backward()
    assert weight.grad.abs().sum() > 0 and x.grad.abs().sum() > 0


def test_bad_input_is_refused():
    a = pack_signs(randn(2, 70))
    with pytest.raises(ValueError, match=r"a must have shape \(rows, 1\) for 64 signs, got \(2, 2\)"):
        xnor_matmul(a, a, 64)
    with pytest.raises(ValueError, match=r"b must have shape \(2,\) for 70 signs"):
        xnor_dot(a[0], a, 70)
    with pytest.raises(TypeError, match="b must be a uint64 array, got float32"):
        xnor_matmul(a, np.ones((2, 2), np.float32), 70)
    with pytest.raises(TypeError, match="a must be a uint64 array, got Tensor|torch"):
        xnor_matmul(randn(2, 2), a, 70)
    with pytest.raises(ValueError, match="n must be"):
        xnor_dot(a[0], a[0], 0)
    with pytest.raises(ValueError, match="nan has no sign"):
        pack_signs(torch.tensor([1.0, float("nan")]))
    for bad in (torch.tensor(1.0), torch.zeros(3, 0)):
        with pytest.raises(ValueError, match="along its last axis"):
            pack_signs(bad)
    code = BinaryCode.from_dense(randn(4, 6))
    with pytest.raises(ValueError, match=r"x must have shape \(N, 6\), got \(2, 5\)"):
        xnor_linear(randn(2, 5), code)
    for wrong in (BinaryCode.from_dense(randn(4, 6), group_size=3), BinaryCode.from_dense(randn(4, 6), axis=1)):
        with pytest.raises(ValueError, match="a scale per row"):
            xnor_linear(randn(2, 6), wrong)
    with pytest.raises(ValueError, match="x must be"):
        xnor_conv2d(randn(1, 2, 4, 4), randn(3, 1, 3, 3))
