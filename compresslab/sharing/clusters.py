r"""K-means seen as sharing: which weights share a value is learned from them; then the values are trained.

A hash decides blindly who shares a number. Clustering decides by looking: weights that are equal already, or
nearly, become one. It needs a trained weight to look at, and it must store the table of who belongs where,
:math:`\log_2 K` bits a weight, which a hash computes anew. That is the trade: a better partition for more
bits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compresslab.core.bits import unpack_bits
from compresslab.core.codes import CodebookCode, check_weight
from compresslab.core.modules import as_parameter
from compresslab.sharing.tables import keep_scale_, to_keep


class UnpackedIndices:
    """The indices of a code as whole numbers, unpacked once, kept beside its state and not in it.

    Unpacking 614,656 indices takes longer than looking them up, and a training step would repeat it. They
    are made anew when the packed tensor is another one or was written to. A copy of the code starts without
    them, and nothing is kept while torch traces a graph.
    """

    def __init__(self) -> None:
        self._packed: Tensor | None = None
        self._version: int | None = None
        self._indices: Tensor | None = None

    def get(self, packed: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``unpack(packed)`` gives, from memory where it is there."""
        if torch.compiler.is_compiling() or packed.is_inference():
            return unpack(packed)
        if packed is not self._packed or packed._version != self._version:
            self._indices = to_keep(lambda: unpack(packed))
            self._packed, self._version = packed, packed._version
        return self._indices

    def __deepcopy__(self, memo: dict[int, Any]) -> "UnpackedIndices":
        return UnpackedIndices()

    def __reduce__(self) -> tuple[type, tuple]:
        return UnpackedIndices, ()


class ClusterCode(CodebookCode):
    r"""A codebook whose values are parameters: the clusters stay, what they stand for learns.

    .. math:: \hat w_i = c_{a(i)}, \qquad
              \frac{\partial L}{\partial c_j} = \sum_{i : a(i) = j} \frac{\partial L}{\partial \hat w_i}

    The same arrays as ``CodebookCode``, so the same :math:`n \log_2 K + 32 K` bits in a file.

    Args:
        packed: uint8, ``pack_bits`` of the indices :math:`a(i)`.
        codebook: :math:`c`, floating-point, (K,), at most ``2**bits`` long; becomes a parameter.
        shape: shape of the weight.
        bits: 1 to 8.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size.

    Source: S. Han, H. Mao, W. J. Dally, "Deep Compression", ICLR 2016, section 3.

    Example:
        >>> code = ClusterCode.from_dense(torch.tensor([0.0, 0.2, 1.0, 1.2]), bits=1)
        >>> code.decode().backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> code.codebook.grad  # the gradients of the members, summed
        tensor([3., 7.])
    """

    def __init__(self, packed: Tensor, codebook: Tensor, shape: tuple[int, ...], bits: int):
        super().__init__(packed, codebook, shape, bits)
        if not codebook.is_floating_point():
            raise TypeError(f"codebook must be floating-point, got {codebook.dtype}")
        del self.codebook  # the buffer of the parent class
        self.codebook = as_parameter(codebook)
        self._unpacked = UnpackedIndices()

    @classmethod
    def from_dense(
        cls,
        weight: Tensor,
        bits: int = 4,
        *,
        weights: Tensor | None = None,
        iterations: int = 300,
        keep_scale: bool = False,
    ) -> "ClusterCode":
        """Cluster by ``kmeans_1d``: the nearest weight with ``2**bits`` values, or as near as Lloyd comes.

        Args:
            weight: any shape of at least one dimension.
            bits: 1 to 8.
            weights: importance of each weight, of its shape, not negative; None means all ones.
            iterations: most steps of Lloyd's algorithm.
            keep_scale: multiply the values until the decoded weight has the root mean square of ``weight``.

        Raises:
            TypeError, ValueError: bad ``bits``, or weights that ``kmeans_1d`` refuses.
        """
        code = super().from_dense(weight, bits, weights=weights, iterations=iterations)
        if keep_scale:
            keep_scale_(code, check_weight(weight))
        return code

    @property
    def indices(self) -> Tensor:
        """The cluster of each weight, int64, of ``shape``."""
        return self._flat_indices().long().view(self.shape)

    def decode(self) -> Tensor:
        return self.codebook.float().index_select(0, self._flat_indices()).view(self.shape)

    def _flat_indices(self) -> Tensor:
        """int32, (n,): narrow indices are looked up, and their gradients added up, twice as fast."""
        return self._unpacked.get(self.packed, lambda packed: unpack_bits(packed, self.bits, self.numel))
