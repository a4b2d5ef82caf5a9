r"""Load-balanced pruning: every processing element of an accelerator gets the same number of weights.

An accelerator deals the rows of a matrix out to n **processing elements**, interleaved: element k has rows k, k +
n, k + 2n, ... One multiplication a cycle each; the next time step begins when the last has finished. So the time
is that of the element with the most weights left:

.. math:: \text{cycles} = \max_k w_k, \qquad \text{utilisation} = \frac{\frac1n \sum_k w_k}{\max_k w_k}

Pruning by magnitude leaves elements with different :math:`w_k`. Pruning each element's rows for themselves makes
all :math:`w_k` equal, and the utilisation 1.

Source: S. Han et al., "ESE: Efficient Speech Recognition Engine with Sparse LSTM on FPGA", FPGA 2017.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from compresslab.core.codes import DenseCode, MakeCode
from compresslab.core.errors import check_int
from compresslab.core.sparse import GapSparseCode
from compresslab.pruning.masks import keep_mask


def to_elements(matrix: Tensor, blocks: int) -> Tensor:
    """Deal the rows of a matrix out to processing elements, each one's share column by column.

    Args:
        matrix: (rows, columns), any dtype.
        blocks: n, the number of elements; it divides the rows.

    Returns:
        (n, columns, rows / n): entry [k, j, i] is matrix[i * n + k, j].

    Raises:
        TypeError, ValueError: no matrix, or a number of elements that does not divide the rows.

    Example:
        >>> to_elements(torch.tensor([[1], [2], [3], [4]]), 2).tolist()
        [[[1, 3]], [[2, 4]]]
    """
    _check(matrix, blocks)
    return matrix.unflatten(0, (-1, blocks)).permute(1, 2, 0).contiguous()


def from_elements(parts: Tensor) -> Tensor:
    """The matrix (rows, columns) of `to_elements`' (n, columns, rows / n): the other way."""
    if parts.ndim != 3:
        raise ValueError(f"parts must be (elements, columns, rows of each), got shape {tuple(parts.shape)}")
    return parts.permute(2, 0, 1).flatten(0, 1).contiguous()


def balanced_mask(weight: Tensor, sparsity: float, blocks: int, *, scores: Tensor | None = None) -> Tensor:
    r"""Mask that prunes each processing element's rows by magnitude, to one and the same number.

    .. math:: w_k = \frac{mn}{blocks} - \mathrm{round}\!\left(s\,\frac{mn}{blocks}\right) \quad \text{for all } k

    Args:
        weight: (m, n).
        sparsity: s, fraction in [0, 1] to drop.
        blocks: the number of processing elements; it divides m. 1 is pruning by magnitude.
        scores: what to compare in place of :math:`|w|`, the weight's shape.

    Returns:
        bool (m, n), True keeps. The masks of growing sparsities are nested.

    Raises:
        TypeError, ValueError: as `to_elements`; a sparsity outside [0, 1].

    Source: Han et al., FPGA 2017 ("load balance-aware pruning").

    Example:
        >>> balanced_mask(torch.tensor([[9.0, 8.0], [2.0, 1.0]]), 0.5, blocks=2).int().tolist()
        [[1, 0], [1, 0]]
    """
    parts = to_elements(weight.detach().abs() if scores is None else scores, blocks)
    return from_elements(keep_mask(parts, sparsity, per_row=True))


def work_per_element(mask: Tensor, blocks: int) -> Tensor:
    """The number of weights left for each processing element: int64, (blocks,).

    Args:
        mask: (rows, columns), nonzero where a weight is left: a mask, or the pruned weight itself.
        blocks: number of elements; it divides the rows.
    """
    return (to_elements(mask, blocks) != 0).flatten(1).sum(1)


def utilisation(mask: Tensor, blocks: int) -> float:
    r"""The fraction of the cycles in which a processing element has work: mean over maximum; 1 if none has any.

    Args:
        mask, blocks: as in `work_per_element`.

    Source: Han et al., FPGA 2017.
    Differs: elements do not wait for one another before the end of a matrix, and no cycle is lost to padding.

    Example:
        >>> utilisation(torch.tensor([[1, 1], [1, 0]]), 2)  # 2 and 1 weights: 1.5 / 2
        0.75
    """
    work = work_per_element(mask, blocks).double()
    return (work.mean() / work.max()).item() if work.max() > 0 else 1.0


def encode_elements(
    weight: Tensor, blocks: int, values: MakeCode = DenseCode.from_dense, *, index_bits: int | None = 4
) -> list[GapSparseCode]:
    """Store each processing element's share for itself: column by column, with relative row indices.

    Args:
        weight: (rows, columns), pruned.
        blocks: number of elements; it divides the rows.
        values: makes the code of an element's nonzero weights.
        index_bits: of a gap, 2 to 8; None takes the width that packs smallest, for each element.

    Returns:
        one code per element; `decode_elements` gives the weight back.

    Source: Han et al., FPGA 2017 (compressed sparse columns with 4-bit relative indices, after S. Han et al.,
        "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016).
    Differs: no column pointers are stored: an element's columns are one sequence. Where a gap is too long, our
        padding holds no zero weight (see `core.GapSparseCode`).
    """
    make = partial(GapSparseCode.from_dense, values=values, index_bits=index_bits)
    return [make(part) for part in to_elements(weight, blocks)]


def decode_elements(codes: list[GapSparseCode]) -> Tensor:
    """The weight (rows, columns) that `encode_elements` has stored."""
    return from_elements(torch.stack([code.decode() for code in codes]))


def _check(matrix: Tensor, blocks: int) -> None:
    check_int("blocks", blocks, 1)
    if matrix.ndim != 2:
        raise ValueError(f"weight must be a matrix (rows, columns), got shape {tuple(matrix.shape)}")
    if len(matrix) % blocks:
        raise ValueError(f"blocks must divide the rows, got {blocks} blocks and {len(matrix)} rows")
