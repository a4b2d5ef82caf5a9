r"""The uniform grid: real numbers written as whole multiples of a scale.

Every uniform quantizer of the course, simulated or stored, rounds here, so that they agree bit for bit:
find a range, ``choose_scale``, ``quantize``, ``dequantize``. Weights that share a scale stand in one row
(``to_rows``): a row is the whole tensor, a channel, or a group of consecutive weights.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.core.errors import check_int

FindRange = Callable[[Tensor], tuple[Tensor, Tensor]]  # rows (R, m) -> low (R, 1), high (R, 1)


class Grid(NamedTuple):
    r"""The real numbers :math:`S\,(q - Z)` for whole :math:`q` from ``qmin`` to ``qmax``.

    Args:
        scale: :math:`S`, the real value of one integer step, float32, positive; of any shape that broadcasts
            against the numbers to be quantized.
        zero_point: :math:`Z`, the integer that stands for zero, int32, of the shape of ``scale``.
        qmin, qmax: the least and the largest integer.
    """

    scale: Tensor
    zero_point: Tensor
    qmin: int
    qmax: int


def choose_scale(
    low: Tensor | float, high: Tensor | float, bits: int = 8, *, symmetric: bool = False
) -> Grid:
    r"""Lay a grid of ``bits`` bits over a range, with zero on it.

    Affine: :math:`S = (r_{max} - r_{min}) / (2^b - 1)`, :math:`Z = \mathrm{round}(-r_{min} / S)`, with
    integers from 0 to :math:`2^b - 1`, after the range has been widened to hold zero. Symmetric:
    :math:`S = \max|r| / q_{max}`, :math:`Z = 0`, with integers from :math:`-q_{max}` to
    :math:`q_{max} = 2^{b-1} - 1`. A range of nothing but zero gets scale 1.

    Args:
        low, high: :math:`r_{min}, r_{max}`, numbers or tensors of the same shape, finite, low <= high.
        bits: :math:`b`, 1 to 16; at least 2 if symmetric.
        symmetric: as many steps below zero as above it.

    Returns:
        the grid; ``scale`` and ``zero_point`` have the shape of ``low``.

    Raises:
        TypeError: ``bits`` is no whole number.
        ValueError: ``bits`` is out of range; a bound is nan or infinite, or ``low`` is above ``high``.

    Source:
        B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, sections 2.1 and 3.

    Example:
        >>> choose_scale(-1.0, 2.0, bits=2)
        Grid(scale=tensor(1.), zero_point=tensor(1, dtype=torch.int32), qmin=0, qmax=3)
        >>> choose_scale(-1.0, 14.0, bits=4, symmetric=True).scale
        tensor(2.)
    """
    check_int("bits", bits, 2 if symmetric else 1, 16)
    low, high = torch.as_tensor(low).detach().double(), torch.as_tensor(high).detach().double()
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("a range must be finite, got nan or inf in it")
    if (low > high).any():
        row = int((low > high).flatten().nonzero()[0])
        raise ValueError(
            f"a range goes from low to high, got {low.flatten()[row]:g} to {high.flatten()[row]:g}"
        )
    if symmetric:
        qmax = 2 ** (bits - 1) - 1
        scale = _float_scale(torch.maximum(-low, high).clamp(min=0) / qmax, qmax)
        return Grid(scale, torch.zeros_like(scale, dtype=torch.int32), -qmax, qmax)
    low, high = low.clamp(max=0), high.clamp(min=0)
    qmax = 2**bits - 1
    scale = _float_scale((high - low) / qmax, 1)
    zero_point = torch.round(-low / scale.double()).clamp(0, qmax).int()
    return Grid(scale, zero_point, 0, qmax)


def _float_scale(scale: Tensor, steps: int) -> Tensor:
    """The scale as float32, of which ``steps`` together stay finite; 1 where it is zero or too small for a
    float32: what stands there is rounded to zero.
    """
    largest = torch.finfo(torch.float32).max / steps * (1 - 2**-23)
    scale = scale.clamp(max=largest).float()
    return torch.where(scale > 0, scale, 1.0)


def quantize(x: Tensor, grid: Grid) -> Tensor:
    r"""Round to the grid: :math:`q = \mathrm{clamp}(\mathrm{round}(x / S) + Z, q_{min}, q_{max})`.

    Ties go to the even integer. Numbers beyond the grid saturate, before they become integers.

    Args:
        x: floating-point, any shape that ``grid.scale`` broadcasts against; inf saturates.

    Returns:
        int32, the shape of ``x``.

    Raises:
        ValueError: there is a nan in ``x``, which no integer stands for.

    Example:
        >>> quantize(torch.tensor([-9.0, 0.5, 1.5, 300.0]), choose_scale(-1.0, 2.0, bits=2))
        tensor([0, 1, 3, 3], dtype=torch.int32)
    """
    if torch.isnan(x.sum()) and torch.isnan(x).any():  # the sum is quick to look at; inf - inf is nan as well
        raise ValueError("nan cannot be quantized, got it in x")
    return _round(x, grid).int()


def dequantize(q: Tensor, grid: Grid) -> Tensor:
    r"""The real numbers of integers: :math:`\hat x = S\,(q - Z)`, float32, the shape of ``q``.

    Example:
        >>> dequantize(torch.tensor([0, 1, 3]), choose_scale(-1.0, 2.0, bits=2))
        tensor([-1.,  0.,  2.])
    """
    return (q.int() - grid.zero_point).float().mul_(grid.scale)  # int: uint8 would wrap below the zero point


def fake_quantize(x: Tensor, grid: Grid) -> Tensor:
    """``dequantize(quantize(x, grid), grid)`` in the dtype of ``x``: the same values; nan stays nan.

    In float32 they are the same bit for bit. Its gradient is that of rounding: zero. ``quantization.fake``
    trains through it.

    Example:
        >>> fake_quantize(torch.tensor([-0.4, 0.6, 7.0]), choose_scale(-1.0, 2.0, bits=2))
        tensor([0., 1., 2.])
    """
    value = (_round(x, grid) - grid.zero_point) * grid.scale
    return value.to(x.dtype) if x.is_floating_point() else value


def _round(x: Tensor, grid: Grid) -> Tensor:
    """The integers of the grid, still as floats: float32, which holds 16 bits exactly, whatever ``x`` is."""
    value = x.float() / grid.scale  # new memory, so that what follows can work in place
    return value.round_().add_(grid.zero_point).clamp_(grid.qmin, grid.qmax)


def min_max(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The range of each row, (R, m) -> (R, 1) and (R, 1); of an empty row, 0 to 0.

    Example:
        >>> min_max(torch.tensor([[1.0, -2.0, 3.0]]))
        (tensor([[-2.]]), tensor([[3.]]))
    """
    if rows.shape[-1] == 0:
        nothing = rows.new_zeros(*rows.shape[:-1], 1)
        return nothing, nothing
    return rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)


def to_rows(weight: Tensor, axis: int | None = None, group_size: int | None = None) -> Tensor:
    """Bring the weights that share a scale into rows.

    Args:
        weight: any shape of at least one dimension.
        axis: the axis that is kept: one row per index of it (0 = output channel). None: one row in all.
        group_size: one row per ``group_size`` consecutive weights of each index of ``axis`` (then 0 if None).

    Returns:
        (R, m), with ``axis`` moved to the front and then row-major; (1, 0) or (R, 0) for an empty weight.

    Raises:
        TypeError: ``axis`` or ``group_size`` is no whole number.
        ValueError: ``axis`` is out of range, or ``group_size`` does not divide the weights of one index.

    Example:
        >>> to_rows(torch.arange(6.0).view(2, 3), axis=1)
        tensor([[0., 3.],
                [1., 4.],
                [2., 5.]])
    """
    kept = kept_axis(weight.shape, axis)
    moved = weight.movedim(kept, 0)
    if group_size is None:
        return moved.reshape(1 if axis is None or weight.numel() == 0 else weight.shape[kept], -1)
    inputs = math.prod(moved.shape[1:])
    if inputs % check_int("group_size", group_size, 1):
        raise ValueError(
            f"group_size {group_size} does not divide the {inputs} weights of each index of axis {kept}"
        )
    return moved.reshape(max(weight.numel() // group_size, 1), -1)


def from_rows(rows: Tensor, shape: tuple[int, ...], axis: int | None = None) -> Tensor:
    """Undo ``to_rows``: (R, m) back to the weight's ``shape``.

    Example:
        >>> from_rows(to_rows(torch.arange(6.0).view(2, 3), axis=1), (2, 3), axis=1)
        tensor([[0., 1., 2.],
                [3., 4., 5.]])
    """
    kept = kept_axis(shape, axis)
    return rows.reshape(shape[kept], *shape[:kept], *shape[kept + 1 :]).movedim(0, kept)


def kept_axis(shape: tuple[int, ...], axis: int | None) -> int:
    """``axis`` counted from the front; 0 where it is None.

    Raises:
        TypeError, ValueError: it is no axis of the shape.
    """
    return 0 if axis is None else check_int("axis", axis, -len(shape), len(shape) - 1) % len(shape)
