"""How one weight tensor is stored: a ``WeightCode`` holds the arrays, ``decode`` gives the weight back.

A code's arrays are buffers, so they live in the model's ``state_dict``: the size of a model is counted from
there, and its file is made of them. ``__init__`` takes what is stored; ``from_dense`` is the method that
computes it. Codes nest: the values of a sparse code are a code again, so Deep Compression is
``GapSparseCode(values=CodebookCode(...))``.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from compresslab.core.bits import check_packed, pack_bits, unpack_bits
from compresslab.core.errors import check_int
from compresslab.core.kmeans import kmeans_1d
from compresslab.core.uniform import (
    FindRange,
    Grid,
    choose_scale,
    from_rows,
    kept_axis,
    min_max,
    quantize,
    to_rows,
)

MakeCode = Callable[[Tensor], "WeightCode"]


class WeightCode(nn.Module):
    """The stored form of one weight tensor.

    A subclass sets ``shape`` (of the decoded tensor), registers its arrays as buffers, and names in ``meta``
    the small values that its ``__init__`` takes beside the arrays. That is all a file needs to bring it back.
    """

    meta: ClassVar[tuple[str, ...]] = ("shape",)
    roles: ClassVar[dict[str, str]] = {}  # what each array is, for ``storage_report``

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = tuple(check_int("a size in shape", size, 0) for size in shape)

    @classmethod
    def from_dense(cls, weight: Tensor) -> "WeightCode":
        """Compute the arrays for ``weight``; methods add their own keyword arguments."""
        raise NotImplementedError

    def decode(self) -> Tensor:
        """The weight, float32, of ``self.shape``, by plain tensor operations."""
        raise NotImplementedError

    @property
    def numel(self) -> int:
        """How many weights the code stands for."""
        return math.prod(self.shape)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.meta)


def check_weight(weight: Tensor) -> Tensor:
    """The weight as a detached float32 tensor.

    Raises:
        TypeError: it is not a floating-point tensor.
        ValueError: it has no dimension, or holds nan or inf.
    """
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise TypeError(
            f"a weight must be a floating-point tensor, got {getattr(weight, 'dtype', type(weight).__name__)}"
        )
    if weight.ndim == 0:
        raise ValueError("a weight must have at least one dimension, got a single number of shape ()")
    if not torch.isfinite(weight).all():
        raise ValueError("a weight must be finite, got nan or inf in it")
    return weight.detach().float()


class DenseCode(WeightCode):
    """The weight as it is: one float each.

    Args:
        value: floating-point, of shape ``shape``.
        shape: shape of the weight.

    Raises:
        ValueError: ``value`` has another shape.

    Example:
        >>> DenseCode.from_dense(torch.tensor([0.5, 3.0]), dtype=torch.float16).decode()
        tensor([0.5000, 3.0000])
    """

    roles = {"value": "values"}

    def __init__(self, value: Tensor, shape: tuple[int, ...]):
        super().__init__(shape)
        if tuple(value.shape) != self.shape:
            raise ValueError(f"value must have shape {self.shape}, got {tuple(value.shape)}")
        self.register_buffer("value", value)

    @classmethod
    def from_dense(cls, weight: Tensor, dtype: torch.dtype = torch.float32) -> "DenseCode":
        """Store the weight in ``dtype``: float32 changes nothing, float16 or bfloat16 halve it."""
        weight = check_weight(weight)
        return cls(weight.to(dtype).clone(memory_format=torch.contiguous_format), weight.shape)

    def decode(self) -> Tensor:
        return self.value.float()


class UniformCode(WeightCode):
    r"""Whole multiples of a scale, counted from a zero point: :math:`\hat w = S\,(q - Z)`.

    A symmetric code has no zero point and stores :math:`q + q_{max}`, :math:`q_{max} = 2^{b-1} - 1`; an
    affine one stores :math:`q` and :math:`Z`. The weights that share a scale are consecutive in ``packed``:
    the rows of ``core.uniform.to_rows``.

    Args:
        packed: uint8, ``pack_bits`` of the integers.
        scale: :math:`S`, floating-point, (R,), one for each row; at least one.
        shape: shape of the weight.
        bits: :math:`b`, 2 to 8.
        axis: the axis that was moved to the front; 0 for a scale per output channel or per tensor.
        zero_point: :math:`Z`, uint8, (R,); None for a symmetric code.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size.

    Example:
        >>> code = UniformCode.from_dense(torch.tensor([-7.0, 0.4, 3.0]), bits=4)
        >>> code.scale, code.decode()
        (tensor([1.]), tensor([-7.,  0.,  3.]))
    """

    meta = ("shape", "bits", "axis")
    roles = {"packed": "values", "scale": "scales", "zero_point": "scales"}

    def __init__(
        self,
        packed: Tensor,
        scale: Tensor,
        shape: tuple[int, ...],
        bits: int,
        axis: int = 0,
        zero_point: Tensor | None = None,
    ):
        super().__init__(shape)
        self.bits = check_int("bits", bits, 2, 8)
        self.axis = check_int("axis", axis, 0, len(self.shape) - 1)
        check_packed(packed, bits, self.numel)
        if scale.ndim != 1 or len(scale) == 0 or self.numel % len(scale):
            raise ValueError(
                f"{self.numel} weights cannot share scales of shape {tuple(scale.shape)} equally"
            )
        if zero_point is not None and (zero_point.dtype != torch.uint8 or zero_point.shape != scale.shape):
            raise ValueError(
                f"zero_point must be uint8 of the scales' shape {tuple(scale.shape)}, "
                f"got {zero_point.dtype} of shape {tuple(zero_point.shape)}"
            )
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    @classmethod
    def from_dense(
        cls,
        weight: Tensor,
        bits: int = 4,
        *,
        axis: int | None = None,
        group_size: int | None = None,
        symmetric: bool = True,
        find_range: FindRange = min_max,
    ) -> "UniformCode":
        """Round to the nearest point of a grid over the range of each row (ties to even).

        Args:
            weight: any shape of at least one dimension.
            bits: 2 to 8.
            axis, group_size: which weights share a scale, as in ``to_rows``; one for the tensor if None.
            symmetric: no zero point; False fits one-sided weights with all the levels.
            find_range: rows (R, m) -> low, high (R, 1) each; what lies beyond is clipped.

        Raises:
            ValueError: ``bits`` or ``axis`` is out of range; ``group_size`` does not divide the weights of
                one index.
        """
        check_int("bits", bits, 2, 8)
        weight = check_weight(weight)
        rows = to_rows(weight, axis, group_size)
        grid = choose_scale(*find_range(rows), bits, symmetric=symmetric)
        return cls.from_rows(quantize(rows, grid), grid, weight.shape, kept_axis(weight.shape, axis))

    @classmethod
    def from_rows(cls, q: Tensor, grid: Grid, shape: tuple[int, ...], axis: int = 0) -> "UniformCode":
        """Store integers that a method has chosen; ``decode`` gives ``dequantize(q, grid)`` bit for bit.

        Args:
            q: integers from ``grid.qmin`` to ``grid.qmax``, (R, m), the rows of ``to_rows``.
            grid: of 2 to 8 bits, as ``choose_scale`` makes it; ``scale`` has R entries, or one for all rows.
            shape, axis: of the weight that the rows come from.

        Raises:
            TypeError: ``q`` is not of an integer dtype.
            ValueError: an integer lies outside the grid, the grid has more than 8 bits, or it is neither
                affine from 0 nor symmetric around a zero point of 0.
        """
        if q.is_floating_point():
            raise TypeError(f"q must hold whole numbers of an integer dtype, got {q.dtype}")
        if q.numel() and not grid.qmin <= q.min() <= q.max() <= grid.qmax:
            raise ValueError(
                f"the integers must lie between {grid.qmin} and {grid.qmax}, got {q.min()} to {q.max()}"
            )
        affine = grid.qmin == 0  # 2^b levels; a symmetric grid has 2^b - 1, and no zero point is stored
        bits = check_int("bits", grid.qmax.bit_length() + (not affine), 2, 8)
        levels = (0, 2**bits - 1) if affine else (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
        if (grid.qmin, grid.qmax) != levels or not (affine or (grid.zero_point == 0).all()):
            raise ValueError(
                f"a grid of {bits} bits goes from {levels[0]} to {levels[1]}, around 0 if symmetric, "
                f"got {grid.qmin} to {grid.qmax}"
            )
        packed = pack_bits((q - grid.qmin).to(torch.uint8), bits)
        scale = grid.scale.detach().flatten().clone()
        zero_point = grid.zero_point.flatten().to(torch.uint8) if affine else None
        return cls(packed, scale, shape, bits, axis, zero_point)

    def decode(self) -> Tensor:
        q = unpack_bits(self.packed, self.bits, self.numel).view(len(self.scale), -1 if self.numel else 0)
        zero = 2 ** (self.bits - 1) - 1 if self.zero_point is None else self.zero_point.int().unsqueeze(1)
        return from_rows((q - zero).float() * self.scale.float().unsqueeze(1), self.shape, self.axis)


class CodebookCode(WeightCode):
    r"""An index into a table of shared weights: :math:`\hat w_i = c_{a(i)}`.

    With K codes for n weights the compression ratio is :math:`32 n / (n \log_2 K + 32 K)`.

    Args:
        packed: uint8, ``pack_bits`` of the indices :math:`a(i)`.
        codebook: :math:`c`, floating-point, (K,), at most ``2**bits`` long.
        shape: shape of the weight.
        bits: 1 to 8.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size.

    Source:
        S. Han, H. Mao, W. Dally, "Deep Compression", ICLR 2016, section 3.

    Example:
        >>> CodebookCode.from_dense(torch.tensor([0.0, 0.2, 1.0, 1.2]), bits=1).decode()
        tensor([0.1000, 0.1000, 1.1000, 1.1000])
    """

    meta = ("shape", "bits")
    roles = {"packed": "indices", "codebook": "codebook"}

    def __init__(self, packed: Tensor, codebook: Tensor, shape: tuple[int, ...], bits: int):
        super().__init__(shape)
        self.bits = check_int("bits", bits, 1, 8)
        check_packed(packed, bits, self.numel)
        if codebook.ndim != 1 or len(codebook) > 2**bits:
            raise ValueError(
                f"codebook must have shape (K,) with K <= {2**bits}, got {tuple(codebook.shape)}"
            )
        self.register_buffer("packed", packed)
        self.register_buffer("codebook", codebook)

    @classmethod
    def from_dense(
        cls, weight: Tensor, bits: int = 4, *, weights: Tensor | None = None, iterations: int = 300
    ) -> "CodebookCode":
        """Cluster by ``kmeans_1d``, which explains ``weights``; K is 2**bits, or n where that is less."""
        check_int("bits", bits, 1, 8)
        weight = check_weight(weight)
        if weight.numel() == 0:
            return cls(weight.new_zeros(0, dtype=torch.uint8), weight.new_zeros(0), weight.shape, bits)
        k = min(2**bits, weight.numel())
        codebook, indices = kmeans_1d(weight, k, weights=weights, iterations=iterations)
        return cls(pack_bits(indices, bits), codebook, weight.shape, bits)

    def decode(self) -> Tensor:
        indices = unpack_bits(self.packed, self.bits, self.numel)
        return self.codebook.float().index_select(0, indices.long()).view(self.shape)
