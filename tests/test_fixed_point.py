"""Fixed-point factors against Python's integers and exact fractions."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compresslab.quantization.fixed_point import fixed_point_multiplier, rounding_multiply, rounding_shift

INT32 = st.integers(-(2**31), 2**31 - 1)
FACTORS = st.floats(2.0**-32, 2.0**30, exclude_max=True)


def golden(acc: int, M0: int, shift: int) -> int:
    """round(acc * M0 / 2^(31 + shift)), halves away from zero, saturated to int32, in Python's own integers."""
    product, divisor = abs(acc * M0), 2 ** (31 + shift)
    rounded = (2 * product + divisor) // (2 * divisor)
    return max(-(2**31), min(2**31 - 1, rounded if acc * M0 >= 0 else -rounded))


@given(M=FACTORS)
def test_31_significant_bits(M):
    M0, shift = fixed_point_multiplier(M)
    assert M0.dtype == torch.int32 and shift.dtype == torch.int64
    assert 2**30 <= int(M0) < 2**31 and -30 <= int(shift) <= 31
    error = abs(Fraction(int(M0), 1) / Fraction(2) ** (31 + int(shift)) - Fraction(M))
    assert error <= Fraction(M) / 2**30  # half a unit of M0 is 2^-31; at the very top M0 cannot round up
    if M < 2.0**29:
        assert error <= Fraction(M) / 2**31


@given(acc=INT32, M=FACTORS)
def test_equals_python_integers_and_the_error_bound(acc, M):
    M0, shift = fixed_point_multiplier(M)
    got = rounding_multiply(acc, M0, shift)
    assert got.dtype == torch.int32 and int(got) == golden(acc, int(M0), int(shift))
    exact = acc * Fraction(M)
    if abs(exact) < 2**31 - 1 and M < 2.0**29:
        assert abs(int(got) - exact) <= Fraction(1, 2) + abs(exact) / 2**31


@given(x=st.integers(-(2**62), 2**62), places=st.integers(1, 61))
def test_rounding_shift(x, places):
    sign = -1 if x < 0 else 1
    assert int(rounding_shift(torch.tensor(x), places)) == sign * ((2 * abs(x) + 2**places) // 2 ** (places + 1))


def test_hand_worked_and_edges():
    assert [int(v) for v in fixed_point_multiplier(1.0)] == [2**30, -1]
    assert int(fixed_point_multiplier(0.0)[0]) == 0
    assert [int(v) for v in fixed_point_multiplier(1 - 2.0**-40)] == [2**30, -1]  # the mantissa rounds up to 1
    M0, shift = fixed_point_multiplier(2.0**-40)
    assert 0 <= int(M0) < 2**30 and int(rounding_multiply(2**31 - 1, M0, shift)) == 0
    halves = rounding_multiply(torch.tensor([-3, -1, 1, 3]), *fixed_point_multiplier(0.5))
    assert halves.tolist() == [-2, -1, 1, 2]
    assert int(rounding_multiply(2**20, *fixed_point_multiplier(2.0**29))) == 2**31 - 1
    assert int(rounding_multiply(-(2**20), *fixed_point_multiplier(2.0**29))) == -(2**31)
    assert rounding_multiply(torch.zeros(0, 3, dtype=torch.int32), M0, shift).shape == (0, 3)


def test_factors_per_channel_broadcast():
    M = torch.tensor([0.001, 0.3, 7.0], dtype=torch.float64)
    acc = torch.arange(-30, 30, dtype=torch.int32).view(-1, 1)
    M0, shift = fixed_point_multiplier(M)
    got = rounding_multiply(acc, M0, shift)
    assert got.shape == (60, 3)
    for i in range(3):
        assert got[:, i].tolist() == [golden(a, int(M0[i]), int(shift[i])) for a in range(-30, 30)]


def test_errors():
    for bad in (-0.1, float("nan"), float("inf"), 2.0**30):
        with pytest.raises(ValueError, match="M must be in"):
            fixed_point_multiplier(bad)
    with pytest.raises(TypeError, match="acc must be whole numbers"):
        rounding_multiply(1.5, 2**30, 0)
    with pytest.raises(ValueError, match="acc must fit into int32"):
        rounding_multiply(2**31, 2**30, 0)
    for bad in (-31, 32):
        with pytest.raises(ValueError, match="shift must be from -30 to 31"):
            rounding_multiply(1, 2**30, bad)
