r"""Multiplying an integer by a real number with integers alone.

The sum of products in a layer stands at scale :math:`S_1 S_2`, its output at scale :math:`S_3`. Between them
is the real factor :math:`M = S_1 S_2 / S_3`. It is known before inference starts, so it can be written as a
32-bit integer and a number of places to shift: what floating point does, done by hand.
"""

import torch
from torch import Tensor

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
LEAST_SHIFT, MOST_SHIFT = -30, 31


def fixed_point_multiplier(M: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""Write positive factors as 31-bit fractions and shifts.

    .. math:: M \approx 2^{-n}\,\frac{M_0}{2^{31}}, \qquad 2^{30} \le M_0 < 2^{31}

    so that :math:`M_0` has 31 significant bits whatever the size of ``M``: the relative error is at most
    :math:`2^{-31}`. Below :math:`2^{-32}` the shift stays at 31 and :math:`M_0` gets smaller, down to 0; an
    int32 times such a factor rounds to 0 anyway.

    Args:
        M: in [0, 2**30), any shape, or a number.

    Returns:
        :math:`M_0`, int32, and ``shift``, :math:`n`, int64, both of the shape of ``M``. A negative shift is
        one to the left, for ``M`` >= 1.

    Raises:
        ValueError: ``M`` is negative, nan, or too large.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, section 2.2.
    Differs: the paper has M in (0, 1) as an observation; sums of residual branches need larger ones.

    Example:
        >>> fixed_point_multiplier(0.25)  # a half, shifted by one
        (tensor(1073741824, dtype=torch.int32), tensor(1))
    """
    M = torch.as_tensor(M, dtype=torch.float64)
    if not ((M >= 0) & (M < 2.0**-LEAST_SHIFT)).all():
        raise ValueError(f"M must be in [0, 2**{-LEAST_SHIFT}), got {M[~((M >= 0) & (M < 2.0**30))][0]:g}")
    _, exponent = torch.frexp(M)  # M = mantissa * 2**exponent, mantissa in [0.5, 1)
    shift = (-exponent.long()).clamp(LEAST_SHIFT, MOST_SHIFT)
    M0 = torch.round(torch.ldexp(M, shift + 31)).long()
    carried = M0 == 2**31  # a mantissa that rounded up to 1
    lowest = shift == LEAST_SHIFT
    M0 = torch.where(carried, torch.where(lowest, 2**31 - 1, 2**30), M0)
    return M0.int(), torch.where(carried & ~lowest, shift - 1, shift)


def rounding_multiply(acc: Tensor | int, M0: Tensor | int, shift: Tensor | int) -> Tensor:
    r"""Multiply integers by fixed-point factors and round to the nearest integer, halves away from zero.

    .. math:: \mathrm{round}\!\left(\mathrm{acc} \cdot M_0 / 2^{31 + n}\right)

    With :math:`M_0, n` from :func:`fixed_point_multiplier` the result is within
    :math:`\frac12 + 2^{-31}\,|\mathrm{acc} \cdot M|` of the real product.

    Args:
        acc: int32 (or int64 with values of int32), any shape.
        M0: int32, >= 0, of a shape that broadcasts.
        shift: :math:`n`, -30 to 31, of a shape that broadcasts.

    Returns:
        int32, of the broadcast shape; what does not fit saturates.

    Raises:
        TypeError: an argument is not whole numbers.
        ValueError: ``acc`` is outside int32, or ``shift`` out of range.

    Source: Jacob et al., CVPR 2018, section 2.2 and appendix B.
    Differs: the paper's library (gemmlowp) rounds twice, once to 32 bits after the multiplication and once in
        the shift; here the 64-bit product is rounded once. The two differ by at most one, and rarely.

    Example:
        >>> M0, shift = fixed_point_multiplier(0.25)
        >>> rounding_multiply(torch.tensor([-6, -5, 5, 6]), M0, shift)  # -1.5, -1.25, 1.25, 1.5
        tensor([-2, -1, 1, 2], dtype=torch.int32)
    """
    acc, M0, shift = (_whole(name, x) for name, x in (("acc", acc), ("M0", M0), ("shift", shift)))
    if not ((shift >= LEAST_SHIFT) & (shift <= MOST_SHIFT)).all():
        raise ValueError(f"shift must be from {LEAST_SHIFT} to {MOST_SHIFT}, got {shift.tolist()}")
    if acc.dtype == torch.int64 and acc.numel() and (acc.min() < INT32_MIN or acc.max() > INT32_MAX):
        raise ValueError(f"acc must fit into int32, got {acc.min().item()} to {acc.max().item()}")
    product = acc.long() * M0.long()  # |acc M0| < 2**62
    return rounding_shift(product, 31 + shift.long()).clamp_(INT32_MIN, INT32_MAX).int()


def rounding_shift(x: Tensor, places: Tensor | int) -> Tensor:
    r"""Divide int64 by :math:`2^{places}`, ``places`` >= 1, rounding halves away from zero.

    A right shift alone rounds down. Adding a half first makes that the nearest, with halves upward; for a
    negative number it is a half less one (``x >> 63`` is -1 there), which sends halves downward.

    Example:
        >>> rounding_shift(torch.tensor([-3, 3, 5]), 1)
        tensor([-2,  2,  3])
    """
    places = torch.as_tensor(places)
    half = torch.bitwise_left_shift(torch.ones_like(places), places - 1)
    nudged = (x >> 63) + half
    nudged += x
    nudged >>= places
    return nudged


def _whole(name: str, value: Tensor | int) -> Tensor:
    """The value as a tensor of integers."""
    value = torch.as_tensor(value)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must be whole numbers, got {value.dtype}")
    return value
