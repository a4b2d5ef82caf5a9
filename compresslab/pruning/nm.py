r"""Patterns that hardware can use: N of every M weights, and whole blocks.

Single zeros at random places save nothing in a matrix product: finding them costs more than multiplying by
them. In a pattern, where the zeros can be is known beforehand. Two of four (2:4) is what NVIDIA's sparse
tensor cores take; blocks suit any processor with vector instructions. The freedom lost costs accuracy:
compare the three at equal sparsity.

A weight is seen as the matrix of the product that computes the layer: one row per output, and in a
convolution the columns run over the kernel's positions with the input channels innermost.
"""

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compresslab.core.bits import check_packed, pack_bits, unpack_bits
from compresslab.core.codes import DenseCode, MakeCode, WeightCode, check_weight
from compresslab.core.errors import check_fraction, check_int
from compresslab.pruning.masks import keep_mask, mask_layers, weight_layers


def to_matrix(weight: Tensor) -> Tensor:
    """(O, I, ...) to (O, kernel positions * I), the input channels innermost; a matrix stays as it is."""
    if weight.ndim < 2:
        raise ValueError(f"weight must have at least two axes, got shape {tuple(weight.shape)}")
    return weight.movedim(1, -1).flatten(1)


def from_matrix(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Inverse of :func:`to_matrix`: (O, positions * I) back to ``shape``."""
    outputs, inputs, *kernel = shape
    return matrix.reshape(outputs, *kernel, inputs).movedim(-1, 1).contiguous()


def check_nm(n: int, m: int) -> None:
    """Raise unless 1 <= n <= m."""
    check_int("m", m, 1)
    check_int("n", n, 1, m)


def keep_n_of_m(scores: Tensor, n: int, m: int) -> Tensor:
    """Mask of the ``n`` highest scores in every ``m`` consecutive ones of a row; see :func:`nm_mask`."""
    check_nm(n, m)
    groups = _pad_columns(to_matrix(scores), m, -torch.inf)  # padding loses against any score
    keep = keep_mask(groups.view(-1, m), (m - n) / m, per_row=True).view_as(groups)
    return from_matrix(keep[:, : math.prod(scores.shape[1:])], scores.shape)


def nm_mask(weight: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """Mask of the ``n`` largest of every ``m`` consecutive weights in a row.

    Args:
        weight: (O, I) or (O, I, ...).
        n: how many to keep, 1 to ``m``.
        m: size of a group. A last, shorter group keeps at most ``n``.

    Returns:
        bool, the weight's shape; every full group has exactly ``n`` True. Of equal weights the first are
        dropped.

    Raises:
        ValueError: ``n`` or ``m`` out of range, fewer than two axes, or a weight is nan.

    Source: A. Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378, 2021.
    Differs: the paper may permute input channels first to lose less.

    Example:
        >>> nm_mask(torch.tensor([[0.1, -3.0, 2.0, 0.5]]))
        tensor([[False,  True,  True, False]])
    """
    return keep_n_of_m(weight.detach().abs(), n, m)


def block_mask(weight: Tensor, block: tuple[int, int], sparsity: float) -> Tensor:
    r"""Mask that keeps or drops whole blocks of the weight matrix, by their mean square.

    Args:
        weight: (O, I) or (O, I, ...).
        block: (rows, columns) of a block. Blocks at the edges may be cut off; the mean makes them comparable.
        sparsity: fraction in [0, 1] of the blocks to drop, exactly ``round(sparsity * blocks)``.

    Returns:
        bool, the weight's shape; True keeps.

    Raises:
        ValueError: a block size below 1, a bad sparsity, fewer than two axes, or a weight is nan.

    Source: S. Narang, E. Undersander, G. Diamos, "Block-Sparse Recurrent Neural Networks", arXiv:1711.02782,
    2017.
    Differs: the paper takes the block's maximum, and a threshold that rises while training.

    Example:
        >>> block_mask(torch.tensor([[1.0, 1.0, 1.5, 0.0], [1.0, 1.0, 0.0, 0.0]]), (2, 2), 0.5)
        tensor([[ True,  True, False, False],
                [ True,  True, False, False]])
    """
    check_fraction("sparsity", sparsity)
    matrix = to_matrix(weight.detach())
    squares = _to_blocks(matrix.square(), block).sum(-1)
    sizes = _to_blocks(torch.ones_like(matrix), block).sum(-1)
    keep = keep_mask(squares / sizes, sparsity)  # (block rows, block columns)
    full = keep.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return from_matrix(full[: matrix.shape[0], : matrix.shape[1]], weight.shape)


def prune_nm(
    model: nn.Module,
    n: int = 2,
    m: int = 4,
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` that keeps the ``n`` largest of every ``m`` consecutive weights.

    Args:
        model: the network.
        n, m: as in :func:`nm_mask`.
        only, skip: names of layers to prune, or to leave dense.

    Raises:
        ValueError: ``n`` or ``m`` out of range, an unknown layer name, no layer left.

    Source: Mishra et al., 2021.
    """
    layers = weight_layers(model, only, skip)
    return mask_layers(model, {name: nm_mask(layer.weight, n, m) for name, layer in layers.items()})


def prune_blocks(
    model: nn.Module,
    sparsity: float,
    block: tuple[int, int] = (4, 4),
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` with the given fraction of blocks masked in every layer.

    Args:
        model: the network.
        sparsity: fraction in [0, 1] of the blocks to drop.
        block: (rows, columns).
        only, skip: names of layers to prune, or to leave dense.

    Raises:
        ValueError: a bad sparsity or block size, an unknown layer name, no layer left.

    Source: Narang, Undersander, Diamos, 2017.
    """
    layers = weight_layers(model, only, skip)
    return mask_layers(
        model, {name: block_mask(layer.weight, block, sparsity) for name, layer in layers.items()}
    )


class NMCode(WeightCode):
    r"""N values and N positions for every group of M weights.

    With ``b`` bits per value the weight takes :math:`\frac NM (b + \lceil \log_2 M \rceil)` bits per entry:
    2:4 of 16-bit values is 9 bits, a ratio of 1.78 and not 2.

    Args:
        positions: uint8, ``pack_bits`` of the place of each value in its group, rising within a group.
        values: any code of shape (groups * n,).
        shape: shape of the weight, (O, I) or (O, I, ...).
        n: values per group, 1 to ``m``.
        m: size of a group, 2 to 256; a row's last group is filled up with zeros.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size, or the positions do not rise within [0,
            m).

    Source: Mishra et al., 2021 (two bits of metadata per value).

    Example:
        >>> code = NMCode.from_dense(torch.tensor([[0.0, -3.0, 2.0, 0.0]]))
        >>> code.positions, code.values.value  # 1 + 4 * 2
        (tensor([9], dtype=torch.uint8), tensor([-3.,  2.]))
    """

    meta = ("shape", "n", "m")
    roles = {"positions": "positions"}

    def __init__(self, positions: Tensor, values: WeightCode, shape: tuple[int, ...], n: int, m: int):
        super().__init__(shape)
        self.m = check_int("m", m, 2, 256)
        self.n = check_int("n", n, 1, m)
        self.row = math.prod(self.shape[1:])
        self.groups = self.shape[0] * -(-self.row // m)
        check_packed(positions, self.position_bits, self.groups * n)
        self.register_buffer("positions", positions)
        places = self._places()
        if (places.diff(dim=1) <= 0).any() or (places >= m).any():
            raise ValueError(f"positions must rise within [0, {m}) in every group")
        if values.shape != (self.groups * n,):
            raise ValueError(
                f"values must have shape ({self.groups * n},), {n} for each group, got {values.shape}"
            )
        self.values = values

    @property
    def position_bits(self) -> int:
        """Bits of one position: 2 for M = 4."""
        return (self.m - 1).bit_length()

    @classmethod
    def from_dense(
        cls, weight: Tensor, n: int = 2, m: int = 4, values: MakeCode = DenseCode.from_dense
    ) -> "NMCode":
        """Store a weight that keeps to the pattern; a group with fewer nonzeros stores zeros as well.

        Raises:
            ValueError: a group has more than ``n`` nonzeros: prune first.
        """
        check_int("m", m, 2, 256)
        weight = check_weight(weight)
        groups = _pad_columns(to_matrix(weight), m, 0.0).view(-1, m)
        most = int((groups != 0).sum(1).max()) if len(groups) else 0
        if most > n:
            raise ValueError(
                f"weight is not {n}:{m} sparse, a group has {most} nonzeros; apply prune_nm first"
            )
        keep = nm_mask(groups, n, m)
        return cls(
            pack_bits(keep.nonzero()[:, 1], (m - 1).bit_length()), values(groups[keep]), weight.shape, n, m
        )

    def _places(self) -> Tensor:
        """(groups, n) int32."""
        return unpack_bits(self.positions, self.position_bits, self.groups * self.n).view(self.groups, self.n)

    def decode(self) -> Tensor:
        values = self.values.decode().view(self.groups, self.n, 1)
        place = torch.arange(self.m, device=self.positions.device)
        here = self._places().unsqueeze(2) == place  # (groups, n, m)
        groups = torch.where(here, values, 0.0).sum(1)  # (groups, m); at most one term of each sum is not 0
        matrix = groups.view(self.shape[0], -1)
        return from_matrix(matrix[:, : self.row], self.shape)


class BlockCode(WeightCode):
    """One bit per block says whether it is stored; the stored ones are dense.

    Args:
        mask: uint8, ``pack_bits`` at 1 bit of the grid of blocks, row by row.
        values: any code of shape (stored blocks * height * width,), block after block, each row by row.
        shape: shape of the weight, (O, I) or (O, I, ...).
        block: (height, width). Blocks at the edges are filled up with zeros.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size.

    Example:
        >>> code = BlockCode.from_dense(torch.tensor([[0.0, 0.0, 1.0, 2.0]]), block=(1, 2))
        >>> code.mask, code.values.value
        (tensor([2], dtype=torch.uint8), tensor([1., 2.]))
    """

    meta = ("shape", "block")
    roles = {"mask": "mask"}

    def __init__(self, mask: Tensor, values: WeightCode, shape: tuple[int, ...], block: tuple[int, int]):
        super().__init__(shape)
        self.block = _check_block(block)
        height, width = self.block
        self.row = math.prod(self.shape[1:])
        self.grid = (-(-self.shape[0] // height), -(-self.row // width))
        check_packed(mask, 1, math.prod(self.grid))
        size = int(unpack_bits(mask, 1, math.prod(self.grid)).sum()) * height * width
        if values.shape != (size,):
            raise ValueError(
                f"the stored blocks have {size} entries: values must have shape ({size},), got {values.shape}"
            )
        self.register_buffer("mask", mask)
        self.values = values

    @classmethod
    def from_dense(
        cls, weight: Tensor, block: tuple[int, int] = (4, 4), values: MakeCode = DenseCode.from_dense
    ) -> "BlockCode":
        """Store the blocks that are not all zero; ``values`` turns their entries into a code."""
        weight = check_weight(weight)
        blocks = _to_blocks(to_matrix(weight), block).flatten(0, 1)
        stored = (blocks != 0).any(1)
        return cls(pack_bits(stored, 1), values(blocks[stored].flatten()), weight.shape, block)

    def decode(self) -> Tensor:
        (rows, columns), (height, width) = self.grid, self.block
        stored = unpack_bits(self.mask, 1, rows * columns)
        values = self.values.decode()
        table = torch.cat([values.new_zeros(height * width), values])  # block number 0 is all zero
        blocks = table.view(-1, height * width).index_select(0, torch.cumsum(stored, 0) * stored)
        grid = blocks.view(rows, columns, height, width).transpose(1, 2)
        matrix = grid.reshape(rows * height, columns * width)
        return from_matrix(matrix[: self.shape[0], : self.row], self.shape)


def _pad_columns(matrix: Tensor, m: int, value: float) -> Tensor:
    """Append columns of ``value`` until ``m`` divides their number."""
    return F.pad(matrix, (0, -matrix.shape[1] % m), value=value)


def _check_block(block: tuple[int, int]) -> tuple[int, int]:
    """(height, width) as two whole numbers of at least 1."""
    if len(block) != 2:
        raise ValueError(f"block must be (height, width), got {block!r}")
    return check_int("block height", block[0], 1), check_int("block width", block[1], 1)


def _to_blocks(matrix: Tensor, block: tuple[int, int]) -> Tensor:
    """(O, K) to (block rows, block columns, entries of a block), zero-padded at the edges."""
    height, width = _check_block(block)
    matrix = F.pad(matrix, (0, -matrix.shape[1] % width, 0, -matrix.shape[0] % height))
    rows, columns = matrix.shape[0] // height, matrix.shape[1] // width
    return matrix.view(rows, height, columns, width).transpose(1, 2).reshape(rows, columns, height * width)
