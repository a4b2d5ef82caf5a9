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
    r"""Whole multiples of a scale, symmetric around zero.

    .. math:: q = \mathrm{clamp}(\mathrm{round}(w / s), -q_{max}, q_{max}), \qquad \hat w = s\,q,
              \qquad q_{max} = 2^{\mathrm{bits} - 1} - 1

    Rows that share a scale are consecutive in ``packed``: with ``axis`` moved to the front, row-major, the
    weights are cut into as many equal rows as there are scales.

    Args:
        packed: uint8, ``pack_bits`` of :math:`q + q_{max}`.
        scale: :math:`s`, floating-point, (rows,); at least one.
        shape: shape of the weight.
        bits: 2 to 8.
        axis: the axis that was moved to the front; 0 for a scale per output channel or per tensor.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size.

    Example:
        >>> code = UniformCode.from_dense(torch.tensor([-7.0, 0.4, 3.0]), bits=4)
        >>> code.scale, code.decode()
        (tensor([1.]), tensor([-7.,  0.,  3.]))
    """

    meta = ("shape", "bits", "axis")
    roles = {"packed": "values", "scale": "scales"}

    def __init__(self, packed: Tensor, scale: Tensor, shape: tuple[int, ...], bits: int, axis: int = 0):
        super().__init__(shape)
        self.bits = check_int("bits", bits, 2, 8)
        self.axis = check_int("axis", axis, 0, len(self.shape) - 1)
        check_packed(packed, bits, self.numel)
        if scale.ndim != 1 or len(scale) == 0 or self.numel % len(scale):
            raise ValueError(
                f"{self.numel} weights cannot share scales of shape {tuple(scale.shape)} equally"
            )
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)

    @classmethod
    def from_dense(
        cls, weight: Tensor, bits: int = 4, *, axis: int | None = None, group_size: int | None = None
    ) -> "UniformCode":
        """Round to the nearest multiple (ties to even) of ``scale = absmax / qmax``; zeros have scale 0.

        Args:
            weight: any shape of at least one dimension.
            bits: 2 to 8.
            axis: keep one scale per index of this axis (0 = output channel). None: one for the tensor.
            group_size: keep one scale per ``group_size`` consecutive weights of each index of ``axis`` (then
                0 if None).

        Raises:
            ValueError: ``bits`` or ``axis`` is out of range; ``group_size`` does not divide the weights of
                one index.
        """
        check_int("bits", bits, 2, 8)
        weight = check_weight(weight)
        kept = 0 if axis is None else check_int("axis", axis, -weight.ndim, weight.ndim - 1) % weight.ndim
        n_rows = _count_rows(weight, axis, kept, group_size)
        rows = weight.movedim(kept, 0).reshape(n_rows, -1)  # (rows, weights that share a scale)
        qmax = 2 ** (bits - 1) - 1
        absmax = rows.abs().amax(1) if rows.numel() else rows.new_zeros(len(rows))
        scale = absmax / qmax
        step = torch.where(scale > 0, scale, 1.0).unsqueeze(1)
        q = torch.clamp(torch.round(rows / step), -qmax, qmax)
        return cls(pack_bits((q + qmax).to(torch.uint8), bits), scale, weight.shape, bits, kept)

    def decode(self) -> Tensor:
        q = unpack_bits(self.packed, self.bits, self.numel) - (2 ** (self.bits - 1) - 1)
        rows = q.float().view(len(self.scale), -1 if self.numel else 0) * self.scale.float().unsqueeze(1)
        moved = (self.shape[self.axis], *self.shape[: self.axis], *self.shape[self.axis + 1 :])
        return rows.view(moved).movedim(0, self.axis)


def _count_rows(weight: Tensor, axis: int | None, kept: int, group_size: int | None) -> int:
    """How many scales ``UniformCode`` keeps for the weight."""
    if group_size is None:
        return 1 if axis is None or weight.numel() == 0 else weight.shape[kept]
    inputs = math.prod(weight.shape) // max(weight.shape[kept], 1)
    if inputs % check_int("group_size", group_size, 1):
        raise ValueError(
            f"group_size {group_size} does not divide the {inputs} weights of each index of axis {kept}"
        )
    return max(weight.numel() // group_size, 1)


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
        cls, weight: Tensor, bits: int = 4, *, weights: Tensor | None = None, iterations: int = 25
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
