"""Codes for weights that are mostly zero: where the others stand, and what they are.

Where: one bit per weight (``SparseCode``), or the gaps between stored weights (``GapSparseCode``), which wins
when few are left. What: any code of shape (nnz,).
"""

from functools import partial

import torch
from torch import Tensor

from compresslab.core.bits import check_packed, pack_bits, packed_size, unpack_bits
from compresslab.core.codes import CodebookCode, DenseCode, MakeCode, WeightCode, check_weight
from compresslab.core.errors import check_int


class SparseCode(WeightCode):
    """One bit per weight says whether it is stored; the stored ones are a code of shape (nnz,).

    Args:
        mask: uint8, ``pack_bits`` of the nonzero pattern at 1 bit, row-major.
        values: any code of shape (nnz,): the nonzero weights in order.
        shape: shape of the weight.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size, or the mask has not nnz ones.

    Example:
        >>> code = SparseCode.from_dense(torch.tensor([0.0, 2.0, 0.0, 3.0]))
        >>> code.mask, code.values.value  # 0b1010
        (tensor([10], dtype=torch.uint8), tensor([2., 3.]))
    """

    roles = {"mask": "mask"}

    def __init__(self, mask: Tensor, values: WeightCode, shape: tuple[int, ...]):
        super().__init__(shape)
        check_packed(mask, 1, self.numel)
        ones = int(unpack_bits(mask, 1, self.numel).sum())
        if values.shape != (ones,):
            raise ValueError(
                f"the mask has {ones} ones, so values must have shape ({ones},), got {values.shape}"
            )
        self.register_buffer("mask", mask)
        self.values = values

    @classmethod
    def from_dense(cls, weight: Tensor, values: MakeCode = DenseCode.from_dense) -> "SparseCode":
        """Store the weights that are not 0; ``values`` turns them, (nnz,), into a code."""
        weight = check_weight(weight)
        flat = weight.flatten()
        return cls(pack_bits(flat != 0, 1), values(flat[flat != 0]), weight.shape)

    def decode(self) -> Tensor:
        stored = unpack_bits(self.mask, 1, self.numel)
        return _place(self.values.decode(), stored).view(self.shape)


class GapSparseCode(WeightCode):
    r"""How many zeros to skip before each stored weight, in ``index_bits`` bits: a relative index.

    The position of entry k is :math:`p_k = \sum_{j \le k} (g_j + 1) - 1`. The largest code, :math:`G = 2^b -
    1`, is an entry without a weight, which only skips G zeros: a gap of g zeros takes :math:`\lfloor g / G
    \rfloor` of them before its own entry. So n weights at density d cost about :math:`b\,n d\,(1 + (1 - d)^G
    / (1 - (1 - d)^G))` bits of index, against n bits for a mask.

    Args:
        gaps: uint8, ``pack_bits`` of :math:`g_j` in [0, G].
        values: any code of shape (nnz,): the nonzero weights in order.
        shape: shape of the weight.
        entries: number of codes in ``gaps``: nnz and the skips.
        index_bits: b, 2 to 8.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size, or the gaps lead outside the weight.

    Source:
        S. Han, H. Mao, W. Dally, "Deep Compression", ICLR 2016, section 2 and figure 2.
    Differs:
        The paper stores a zero weight with every padding entry. Here the largest code says that there is
        none, so padding costs no value, and a codebook needs no exact zero.

    Example:
        >>> code = GapSparseCode.from_dense(torch.tensor([0, 5.0, 0, 0, 0, 0, 7.0]), index_bits=2)
        >>> unpack_bits(code.gaps, 2, code.entries)  # 1 zero, 5; skip 3, 1 zero, 7
        tensor([1, 3, 1], dtype=torch.int32)
    """

    meta = ("shape", "entries", "index_bits")
    roles = {"gaps": "positions"}

    def __init__(
        self, gaps: Tensor, values: WeightCode, shape: tuple[int, ...], entries: int, index_bits: int
    ):
        super().__init__(shape)
        self.index_bits = check_int("index_bits", index_bits, 2, 8)
        self.entries = check_int("entries", entries, 0, self.numel)
        check_packed(gaps, index_bits, entries)
        self.register_buffer("gaps", gaps)
        positions, stored = self._walk()
        if values.shape != (int(stored.sum()),):
            raise ValueError(
                f"the gaps lead to {int(stored.sum())} weights, but values have shape {values.shape}"
            )
        if entries and int(positions[-1]) >= self.numel:
            raise ValueError(f"the gaps lead to position {int(positions[-1])} of {self.numel} weights")
        self.values = values

    @classmethod
    def from_dense(
        cls, weight: Tensor, values: MakeCode = DenseCode.from_dense, *, index_bits: int | None = None
    ) -> "GapSparseCode":
        """Store the weights that are not 0; ``values`` turns them, (nnz,), into a code.

        Args:
            weight: any shape of at least one dimension.
            values: makes the code of the nonzero weights.
            index_bits: 2 to 8; None takes the width that makes ``gaps`` smallest.
        """
        weight = check_weight(weight)
        flat = weight.flatten()
        zeros = flat.nonzero().flatten().diff(prepend=torch.full((1,), -1, device=flat.device)) - 1  # (nnz,)
        if index_bits is None:
            index_bits = min(range(2, 9), key=lambda bits: packed_size(_count_entries(zeros, bits), bits))
        check_int("index_bits", index_bits, 2, 8)
        skip = 2**index_bits - 1  # G
        gaps = torch.full((_count_entries(zeros, index_bits),), skip, device=flat.device)
        gaps[torch.cumsum(zeros // skip + 1, 0) - 1] = zeros % skip
        return cls(pack_bits(gaps, index_bits), values(flat[flat != 0]), weight.shape, len(gaps), index_bits)

    def _walk(self) -> tuple[Tensor, Tensor]:
        """The position of each entry, and 1 for an entry with a weight, 0 for a skip; int64 (entries,)."""
        gaps = unpack_bits(self.gaps, self.index_bits, self.entries).long()
        stored = (gaps < 2**self.index_bits - 1).long()
        return torch.cumsum(gaps + stored, 0) - 1, stored

    def decode(self) -> Tensor:
        positions, stored = self._walk()
        weight = torch.zeros(self.numel, device=self.gaps.device)
        return weight.scatter(0, positions, _place(self.values.decode(), stored)).view(self.shape)


def _count_entries(zeros: Tensor, index_bits: int) -> int:
    """How many codes the gaps take: one for each weight and one for each skip before it."""
    return len(zeros) + int((zeros // (2**index_bits - 1)).sum())


def _place(values: Tensor, stored: Tensor) -> Tensor:
    """Spread ``values`` over the entries where ``stored`` is 1, in order; 0 elsewhere.

    Entry i reads the value number ``cumsum(stored)[i]``, where number 0 is a zero put in front: a gather,
    which exports.
    """
    table = torch.cat([values.new_zeros(1), values])
    return table.index_select(0, torch.cumsum(stored, 0) * stored)


def sparse_codebook(bits: int = 4, *, iterations: int = 300) -> MakeCode:
    """``make_code`` for pruned weights: a 1-bit mask, the nonzero weights clustered to ``2**bits`` values."""
    return partial(
        SparseCode.from_dense, values=partial(CodebookCode.from_dense, bits=bits, iterations=iterations)
    )


def gap_codebook(bits: int = 4, *, index_bits: int | None = None, iterations: int = 300) -> MakeCode:
    """``make_code`` of Deep Compression: gaps, and the nonzero weights clustered to ``2**bits`` values."""
    values = partial(CodebookCode.from_dense, bits=bits, iterations=iterations)
    return partial(GapSparseCode.from_dense, values=values, index_bits=index_bits)
