"""Toeplitz matrices: constant along their diagonals, m + n - 1 numbers for m n.

They are circulant matrices that do not wrap around: every diagonal has a number of its own, the two corners
no longer agree, and the matrix need not be square. They are what a one-dimensional convolution does, written
as a matrix, and corners of larger circulant matrices, which is how the product by FFT reaches them.
"""

import torch
from torch import Tensor, nn

from compresslab.core.codes import check_weight
from compresslab.sharing.circulant import circulant, circulant_product
from compresslab.sharing.tables import TableCode, matrix_shape


def toeplitz(column: Tensor, row: Tensor) -> Tensor:
    r"""The matrix that is constant along its diagonals: :math:`T_{ij} = c_{i-j}`, or :math:`r_{j-i}` above.

    Args:
        column: c, (m,), the first column.
        row: r, (n,), the first row; its first entry is not read, the corner is c's.

    Returns:
        (m, n). Differentiable.

    Raises:
        ValueError: no two vectors with at least one entry each.

    Example:
        >>> toeplitz(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 8.0, 9.0]))
        tensor([[1., 8., 9.],
                [2., 1., 8.]])
    """
    return circulant(_around(column, row))[: len(column), : len(row)]


def toeplitz_product(column: Tensor, row: Tensor, x: Tensor) -> Tensor:
    """Multiply a Toeplitz matrix by vectors: it is a corner of a circulant matrix of size m + n.

    Args:
        column, row: as in ``toeplitz``, (m,) and (n,).
        x: (..., n), real.

    Returns:
        (..., m): the first m entries of the circulant product with x and m zeros.

    Raises:
        ValueError: the sizes do not fit.

    Example:
        >>> toeplitz_product(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 8.0]), torch.tensor([1.0, 1.0]))
        tensor([9., 3.])
    """
    around = _around(column, row)
    if x.ndim == 0 or x.shape[-1] != len(row):
        raise ValueError(f"x must end in the {len(row)} entries of a row, got shape {tuple(x.shape)}")
    padded = nn.functional.pad(x, (0, len(column)))
    return circulant_product(around, padded)[..., : len(column)]


def _around(column: Tensor, row: Tensor) -> Tensor:
    """The first column of the circulant matrix of size m + n whose upper left corner is a Toeplitz matrix."""
    if column.ndim != 1 or row.ndim != 1 or 0 in (len(column), len(row)):
        raise ValueError(
            f"column and row must be vectors with at least one entry, "
            f"got shapes {tuple(column.shape)} and {tuple(row.shape)}"
        )
    return torch.cat([column, column.new_zeros(1), row[1:].flip(0)])


def nearest_toeplitz(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The Toeplitz matrix nearest to a matrix in the Frobenius norm: the means of its diagonals.

    Args:
        matrix: (m, n), not empty.

    Returns:
        column, (m,), and row, (n,), in the type of the matrix; they have their first entry in common.

    Raises:
        ValueError: no matrix, or an empty one.

    Example:
        >>> nearest_toeplitz(torch.tensor([[1.0, 5.0], [4.0, 2.0]]))
        (tensor([1.5000, 4.0000]), tensor([1.5000, 5.0000]))
    """
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(f"a matrix must have shape (m, n), not empty, got {tuple(matrix.shape)}")
    m, n = matrix.shape
    means = torch.stack([matrix.diagonal(k).mean() for k in range(1 - m, n)])
    return means[:m].flip(0), means[m - 1 :]


class ToeplitzCode(TableCode):
    r"""A weight that is constant along the diagonals of its matrix: m + n - 1 numbers for m n.

    .. math:: \hat W_{ij} = v_{i - j + n - 1}

    Args:
        values: v, floating-point, (m + n - 1,): from the upper right corner to the lower left one.
        shape: of the weight, with at least two axes; the matrix is ``weight.flatten(1)``, (m, n).

    Raises:
        TypeError: ``values`` is not floating-point.
        ValueError: ``values`` has another size, or the weight no matrix.

    Source: V. Sindhwani, T. N. Sainath, S. Kumar, "Structured Transforms for Small-Footprint Deep Learning",
    NeurIPS 2015.

    Example:
        >>> ToeplitzCode(torch.tensor([9.0, 8.0, 1.0, 2.0]), (2, 3)).decode().detach()
        tensor([[1., 8., 9.],
                [2., 1., 8.]])
    """

    def __init__(self, values: Tensor, shape: tuple[int, ...]):
        super().__init__(values, shape)
        m, n = matrix_shape(self.shape, axes=2)
        if tuple(values.shape) != (m + n - 1,):
            raise ValueError(
                f"a weight of shape {self.shape} needs values of shape ({m + n - 1},), "
                f"got {tuple(values.shape)}"
            )
        self._make_table_()

    @classmethod
    def from_dense(cls, weight: Tensor, *, keep_scale: bool = False) -> "ToeplitzCode":
        """The nearest Toeplitz weight: the means of the diagonals.

        Args:
            weight: at least two axes.
            keep_scale: for weights to be trained from random ones; see ``TableCode.fit_``.

        Raises:
            ValueError: the weight has a single axis, or no entry.
        """
        weight = check_weight(weight)
        m, n = matrix_shape(tuple(weight.shape), axes=2)
        code = cls(weight.new_zeros(m + n - 1), weight.shape)
        code.fit_(weight, keep_scale)
        return code

    def make_table(self) -> Tensor:
        m, n = matrix_shape(self.shape, axes=2)
        return (torch.arange(m).unsqueeze(1) - torch.arange(n) + n - 1).flatten()
