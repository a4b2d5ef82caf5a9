r"""Layers in integers alone: 8-bit inputs and weights, 32-bit sums, a fixed-point factor, 8-bit outputs.

A real number is :math:`r = S(q - Z)`. Put that into a product of matrices, and the scales leave the sum:

.. math:: q_3 = Z_3 + M \sum_j (q_1^{(j)} - Z_1)(q_2^{(j)} - Z_2), \qquad M = \frac{S_1 S_2}{S_3}

All that is real is ``M``, which is known beforehand and becomes an integer and a shift
(:mod:`compresslab.quantization.fixed_point`). Here :math:`q_1` are inputs, uint8 or int8; :math:`q_2` are
weights, int8 and symmetric (:math:`Z_2 = 0`); the sums are int32.

The processor's fast products are those of floats, so that is how the sums are formed here, on the CPU:
exactly, because every partial sum is a whole number that a float32 (up to 2^24) or a float64 (up to 2^53) can
hold. What comes out is what 32-bit integer hardware gives, bit for bit; the tests hold it against Python's
own integers.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from compresslab.core.uniform import Grid
from compresslab.quantization.fixed_point import fixed_point_multiplier, rounding_multiply, rounding_shift

LARGEST_BIAS = 2**30  # half the range of an int32; the other half is for the sum of products


class Rescale(NamedTuple):
    r"""How a 32-bit sum becomes an 8-bit output: :math:`q_3 = \mathrm{clamp}(Z_3 + M \cdot acc)`.

    Args:
        M0: int32, the factor's digits, () or (O,) with one factor per output channel.
        shift: int64, the factor's places, of the shape of ``M0``.
        zero_point: :math:`Z_3`.
        low, high: the outputs allowed; a fused ReLU is ``low = zero_point``.
    """

    M0: Tensor
    shift: Tensor
    zero_point: int
    low: int
    high: int


def make_rescale(scale: Tensor, grid: Grid, low: int | None = None, high: int | None = None) -> Rescale:
    """From sums that are whole multiples of ``scale`` to the integers of ``grid``.

    Args:
        scale: real value of 1 in the sum, () or (O,); :math:`S_1 S_2` in a layer.
        grid: of the outputs; one scale and zero point.
        low, high: narrower bounds than the grid's, for a fused ReLU.

    Example:
        >>> from compresslab.core.uniform import choose_scale
        >>> make_rescale(torch.tensor(0.25), choose_scale(-1.0, 2.0, bits=2))  # 0.25 = 2^-1 * 2^30 / 2^31
        Rescale(M0=tensor(1073741824, dtype=torch.int32), shift=tensor(1), zero_point=1, low=0, high=3)
    """
    M0, shift = fixed_point_multiplier(scale.double() / grid.scale.double())
    bounds = grid.qmin if low is None else low, grid.qmax if high is None else high
    return Rescale(M0, shift, int(grid.zero_point), *bounds)


def requantize(acc: Tensor, rescale: Rescale, axis: int = -1) -> Tensor:
    """Multiply, add the zero point, clamp, and only then cast: the other way round, 256 would become 0.

    Args:
        acc: int32, any shape.
        rescale: its ``M0`` has one entry, or one per index of ``axis``.
        axis: of the output channels in ``acc``.

    Returns:
        uint8, or int8 if ``low`` is negative.
    """
    shape = [1] * acc.ndim
    if rescale.M0.ndim:
        shape[axis] = -1
    q = rounding_multiply(acc, rescale.M0.view(shape), rescale.shift.view(shape))
    return _narrow(q, rescale.zero_point, rescale.low, rescale.high)


def integer_matmul(q1: Tensor, q2: Tensor, z1: int = 0, z2: Tensor | int = 0) -> Tensor:
    r"""The sums of :math:`(q_1 - Z_1)(q_2 - Z_2)`, from the product of the raw integers.

    .. math:: \sum_j q_1 q_2 - Z_2 \sum_j q_1 - Z_1 \sum_j q_2 + J Z_1 Z_2

    Only the first term is a matrix product. The second is one sum per row of :math:`q_1`, and gone if
    :math:`Z_2 = 0`; the last two are known before inference and go into the bias.

    Args:
        q1: (N, J), integers.
        q2: (J, O), integers.
        z1: the zero point of ``q1``.
        z2: of ``q2``; a number, or (O,) with one per column.

    Returns:
        (N, O) int32.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, section 2.3.

    Example:
        >>> integer_matmul(torch.tensor([[1, 2]]), torch.tensor([[3], [4]]), z1=1, z2=2)  # 0 * 1 + 1 * 2
        tensor([[2]], dtype=torch.int32)
    """
    q1, q2 = q1.int(), q2.int()
    rows = q1.sum(1, keepdim=True, dtype=torch.int32)
    columns = q2.sum(0, keepdim=True, dtype=torch.int32)
    return q1 @ q2 - z2 * rows - z1 * columns + q1.shape[1] * z1 * z2


def integer_bias(weight: Tensor, bias: Tensor | None, scale: Tensor, zero_point: int) -> Tensor:
    r"""The bias as int32 at scale :math:`S_1 S_2`, with the input's zero point worked in.

    .. math:: \mathrm{round}(b / (S_1 S_2)) - Z_1 \sum_j q_2^{(j)}

    Args:
        weight: int8, (O, ...).
        bias: :math:`b`, real, (O,), or None.
        scale: :math:`S_1 S_2`, (O,).
        zero_point: :math:`Z_1`.

    Returns:
        (O,) int32.

    Raises:
        ValueError: the bias, or a sum of products and bias, might not fit into an int32; the bias is nan.
    """
    rows = weight.long().flatten(1)
    whole = torch.zeros_like(scale, dtype=torch.float64) if bias is None else bias.double() / scale.double()
    largest = 255 * int(rows.abs().sum(1).max()) if rows.numel() else 0
    if torch.isnan(whole).any():
        raise ValueError("the bias must be finite, got nan in it, or in its scale")
    if largest >= LARGEST_BIAS or (whole.abs() > LARGEST_BIAS).any():
        raise ValueError("sums of products and bias might not fit into 32 bits: the scale is too small")
    return (torch.round(whole).long() - zero_point * rows.sum(1)).int()


def integer_linear(x: Tensor, weight: Tensor, bias: Tensor, rescale: Rescale) -> Tensor:
    """A linear layer in integers.

    Args:
        x: uint8 or int8, (..., I).
        weight: int8, (O, I).
        bias: int32, (O,), from :func:`integer_bias`.
        rescale: from :func:`make_rescale`.

    Returns:
        uint8 or int8, (..., O).

    Raises:
        TypeError: an array of another type.

    Source: Jacob et al., CVPR 2018, section 2.4.
    """
    _check_types(x, weight, bias)
    exact = _exact(weight)
    return requantize((x.to(exact) @ weight.to(exact).T).int() + bias, rescale)


def integer_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    rescale: Rescale,
    *,
    zero_point: int = 0,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """A convolution in integers. What is padded is real zero, so the border is filled with the zero point.

    Args:
        x: uint8 or int8, (N, C, H, W).
        weight: int8, (O, C / groups, kh, kw).
        bias: int32, (O,), from :func:`integer_bias`.
        rescale: from :func:`make_rescale`.
        zero_point: of ``x``.
        stride, padding, dilation, groups: as in ``nn.Conv2d``.

    Returns:
        uint8 or int8, (N, O, H', W').

    Raises:
        TypeError: an array of another type.

    Source: Jacob et al., CVPR 2018, section 2.4.
    """
    _check_types(x, weight, bias)
    exact = _exact(weight)
    x = _pad(x, padding, zero_point).to(exact)
    with torch.backends.nnpack.flags(enabled=False):  # its fast transforms would round; plain sums do not
        acc = F.conv2d(x, weight.to(exact), stride=stride, dilation=dilation, groups=groups)
    return requantize(acc.int().add_(bias.view(-1, 1, 1)), rescale, axis=1)


class AddConstants(NamedTuple):
    """What :func:`integer_add` knows beforehand; see :func:`make_add`."""

    zero_points: tuple[int, int]  # of the two summands
    M0: Tensor  # (2,) int32
    shift: Tensor  # (2,) int64
    left: int  # extra binary places while adding
    zero_point: int  # of the sum
    low: int
    high: int


def make_add(
    first: Grid, second: Grid, out: Grid, low: int | None = None, high: int | None = None
) -> AddConstants:
    r"""The constants of a sum: :math:`q_3 = Z_3 + \frac{S_1}{S_3}(q_1 - Z_1) + \frac{S_2}{S_3}(q_2 - Z_2)`.

    ``left`` is as large as int32 allows, 20 at most: to round each summand to a whole step of the sum would
    lose half a step twice.
    """
    factors = torch.stack([first.scale, second.scale]).double() / out.scale.double()
    left = int(torch.floor(21 - torch.log2(factors.max())).clamp(0, 20))  # 2 * 2^8 * 2^left * factor < 2^31
    M0, shift = fixed_point_multiplier(factors)
    zero_points = int(first.zero_point), int(second.zero_point)
    bounds = out.qmin if low is None else low, out.qmax if high is None else high
    return AddConstants(zero_points, M0, shift, left, int(out.zero_point), *bounds)


def integer_add(x: Tensor, y: Tensor, constants: AddConstants) -> Tensor:
    """The sum of two tensors on different grids, on a third; uint8 or int8, of their shape.

    Source: Jacob et al., CVPR 2018, appendix A.2.
    Differs: the paper rescales one summand to the other's grid; here both go to a finer common one.
    """
    total = torch.zeros((), dtype=torch.int64)
    for index, summand in enumerate((x, y)):
        _check_types(summand)
        fine = (summand.int() - constants.zero_points[index]) << constants.left
        total = total + rounding_multiply(fine, constants.M0[index], constants.shift[index]).long()
    q = rounding_shift(total, constants.left) if constants.left else total
    return _narrow(q, constants.zero_point, constants.low, constants.high)


def integer_average_pool(
    x: Tensor,
    kernel: tuple[int, int],
    rescale: Rescale,
    *,
    zero_point: int = 0,
    stride: tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    r"""The mean over windows: a sum, and a division that hides in the factor :math:`M = S_1 / (n S_3)`.

    Args:
        x: uint8 or int8, (N, C, H, W).
        kernel: (kh, kw), the window.
        rescale: ``make_rescale(in_grid.scale / (kh * kw), out_grid)``.
        zero_point: of ``x``.
        stride: (sh, sw); the window if None.
        padding: as in ``nn.AvgPool2d``; padded zeros count.

    Returns:
        uint8 or int8, (N, C, H', W').

    Source: Jacob et al., CVPR 2018, section 2, which keeps the grid of the input.
    Differs: means spread less than what they are taken of, so the output has a grid of its own.
    """
    _check_types(x)
    x = _pad(x, padding, zero_point).int() - zero_point
    (kh, kw), (sh, sw) = kernel, stride or kernel
    windows = x.unfold(2, kh, sh).unfold(3, kw, sw)  # (N, C, H', W', kh, kw), a view
    return requantize(windows.sum((-1, -2), dtype=torch.int32), rescale)


def _exact(weight: Tensor) -> torch.dtype:
    """The float type that holds every partial sum of this weight and 8-bit inputs exactly."""
    largest = 255 * int(weight.int().abs().flatten(1).sum(1).max()) if weight.numel() else 0
    return torch.float32 if largest < 2**24 else torch.float64


def _pad(x: Tensor, padding: int | tuple[int, int], value: int) -> Tensor:
    ph, pw = (padding, padding) if isinstance(padding, int) else padding
    return F.pad(x, (pw, pw, ph, ph), value=value) if ph or pw else x


def _narrow(q: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    """Clamp and add the zero point (in this order, for a saturated int32 has no room above it), then cast."""
    q = q.clamp(low - zero_point, high - zero_point).add_(zero_point)
    return q.to(torch.uint8 if low >= 0 else torch.int8)


def _check_types(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
    """Raise unless the arrays are of the types that the arithmetic needs."""
    if x.dtype not in (torch.uint8, torch.int8):
        raise TypeError(f"x must be uint8 or int8, got {x.dtype}; quantize it first")
    if weight is not None and weight.dtype != torch.int8:
        raise TypeError(f"weight must be int8, got {weight.dtype}")
    if bias is not None and bias.dtype != torch.int32:
        raise TypeError(f"bias must be int32, got {bias.dtype}")
