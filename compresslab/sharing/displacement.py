r"""Low displacement rank: matrices that hardly change when they are shifted.

A Toeplitz matrix is constant along its diagonals: shifted down and to the right it is the same, but for a row
and a column. What the shift leaves of a matrix,

.. math:: \nabla(W) = Z_1 W - W Z_{-1},

is its *displacement*. Z shifts down by one; what falls out comes back on top, with the sign that Z bears. W
follows from it, so a displacement of rank r, 2 n r numbers, stands for the whole matrix. Circulant matrices
have r = 1, Toeplitz matrices and their inverses at most 2, products of two of them at most 4; r is a dial
from the strictest structure to none.
"""

import torch
from torch import Tensor

from compresslab.core.codes import WeightCode, check_weight
from compresslab.core.errors import check_int
from compresslab.core.modules import as_parameter
from compresslab.sharing.circulant import circulant, circulant_product, fft_product
from compresslab.sharing.tables import keep_scale_, to_keep


def f_circulant(v: Tensor, f: float) -> Tensor:
    r""":math:`Z_f(v)`: first column v, each next one shifted down, and multiplied by f where it wraps around.

    Args:
        v: (..., n).
        f: 1 for circulant, -1 for skew-circulant, 0 for lower triangular Toeplitz.

    Returns:
        (..., n, n).

    Example:
        >>> f_circulant(torch.tensor([1.0, 2.0, 3.0]), -1)
        tensor([[ 1., -3., -2.],
                [ 2.,  1., -3.],
                [ 3.,  2.,  1.]])
    """
    matrix = circulant(v)
    return matrix.tril() + f * matrix.triu(1)


def f_circulant_product(v: Tensor, x: Tensor, f: float) -> Tensor:
    r"""Multiply :math:`Z_f(v)` by vectors: a convolution, its second half wrapped and multiplied by f.

    Args:
        v, x: (..., n), real; leading axes are broadcast.
        f: any number.

    Returns:
        (..., n).

    Raises:
        ValueError: v and x end in different sizes.

    Example:
        >>> f_circulant_product(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([7.0, 8.0, 9.0]), -1)
        tensor([-9.,  7.,  8.])
    """
    n = x.shape[-1] if x.ndim else 0
    if v.ndim == 0 or v.shape[-1] != n:
        raise ValueError(f"v and x must end in the same size, got {tuple(v.shape)} and {tuple(x.shape)}")
    whole = fft_product(v, x, 2 * n)
    return whole[..., :n] + f * whole[..., n:]


def displacement(matrix: Tensor) -> Tensor:
    r"""What a shift leaves of a square matrix: :math:`\nabla(W) = Z_1 W - W Z_{-1}`.

    Args:
        matrix: W, (n, n).

    Returns:
        (n, n). Its rank is the displacement rank of W.

    Raises:
        ValueError: the matrix is not square, or empty.

    Example:
        >>> displacement(torch.tensor([[1.0, 8.0], [2.0, 1.0]]))  # Toeplitz: first row, last column
        tensor([[-6.,  2.],
                [ 0., 10.]])
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.numel() == 0:
        raise ValueError(f"a matrix must be square and not empty, got shape {tuple(matrix.shape)}")
    left = matrix.roll(-1, 1)
    return matrix.roll(1, 0) - torch.cat([left[:, :-1], -left[:, -1:]], dim=1)


def displacement_product(g: Tensor, h: Tensor, x: Tensor) -> Tensor:
    r"""Multiply :math:`W = \sum_i Z_1(g_i)\, Z_{-1}(h_i)` by vectors, without ever building it.

    Args:
        g, h: (r, n).
        x: (..., n), real.

    Returns:
        (..., n), in :math:`O(r\,n \log n)` operations each.

    Raises:
        ValueError: the sizes do not fit.

    Example:
        >>> shift = torch.tensor([[0.0, 1.0, 0.0]])
        >>> displacement_product(shift, shift, torch.tensor([7.0, 8.0, 9.0])).round()  # 7 8 9, -9 7 8, 8 -9 7
        tensor([ 8., -9.,  7.])
    """
    _check_generators(g, h)
    return circulant_product(g, f_circulant_product(h, x.unsqueeze(-2), -1)).sum(-2)


class DisplacementCode(WeightCode):
    r"""A square weight of displacement rank r: 2 r n numbers for :math:`n^2`.

    .. math:: \hat W = \sum_{i=1}^r Z_1(g_i)\, Z_{-1}(h_i), \qquad
              \nabla(\hat W) = 2 \sum_{i=1}^r g_i\, (J h_i)^\top, \quad J \text{ reverses a vector}

    ``decode`` forms the displacement, a product of two thin matrices, and inverts it: one step down a wrapped
    diagonal changes W by an entry of the displacement, so sums along the diagonals give the whole matrix.

    Args:
        g, h: the generators, floating-point, (r, n) each, r at least 1.
        shape: of the weight, (n, n).

    Raises:
        TypeError: a generator is not floating-point.
        ValueError: the generators do not fit each other or the shape, or the weight is not square.

    Source: V. Sindhwani, T. N. Sainath, S. Kumar, "Structured Transforms for Small-Footprint Deep Learning",
    NeurIPS 2015; after V. Y. Pan, "Structured Matrices and Polynomials", 2001.
    Differs: the factor 1/2 and the reversal of the paper's formula are inside h.

    Example:
        >>> shift = torch.tensor([[0.0, 1.0, 0.0]])  # down by one, the sign changed: then down by one
        >>> DisplacementCode(shift, shift, (3, 3)).decode().detach()
        tensor([[ 0.,  1.,  0.],
                [ 0.,  0., -1.],
                [ 1.,  0.,  0.]])
    """

    roles = {"g": "values", "h": "values"}

    def __init__(self, g: Tensor, h: Tensor, shape: tuple[int, ...]):
        super().__init__(shape)
        for name, array in (("g", g), ("h", h)):
            if not array.is_floating_point():
                raise TypeError(f"{name} must be floating-point, got {array.dtype}")
        _check_generators(g, h)
        n = _size(self.shape)
        if g.shape[1] != n:
            raise ValueError(
                f"a weight of shape {self.shape} needs generators (r, {n}), got {tuple(g.shape)}"
            )
        self.g, self.h = as_parameter(g), as_parameter(h)
        self._tables = to_keep(lambda: _diagonal_tables(n, g.device))  # no buffers: the shape tells

    @classmethod
    def from_dense(cls, weight: Tensor, rank: int, *, keep_scale: bool = False) -> "DisplacementCode":
        """The best rank-r approximation of the displacement, by SVD, and a factor by least squares.

        Exact for a weight of displacement rank r or less. For others the displacement is as near as it can
        be, not the weight itself.

        Args:
            weight: (n, n).
            rank: r, 1 to n.
            keep_scale: then scale until the decoded weight has the root mean square of ``weight``; for
                weights to be trained from random ones.

        Raises:
            TypeError, ValueError: no square weight, or ``rank`` out of range.
        """
        weight = check_weight(weight)
        rank = check_int("rank", rank, 1, _size(tuple(weight.shape)))
        u, s, vh = torch.linalg.svd(displacement(weight.double()))
        root = (s[:rank] / 2).sqrt().unsqueeze(1)
        g, h = root * u.T[:rank], root * vh[:rank].flip(1)
        code = cls(g.float().contiguous(), h.float().contiguous(), weight.shape)
        if keep_scale:
            keep_scale_(code, weight)
            return code
        with torch.no_grad():
            near, wanted = code.decode().double().flatten(), weight.double().flatten()
            code.g.mul_(float(near @ wanted / (near @ near).clamp(min=torch.finfo(torch.float64).tiny)))
        return code

    def decode(self) -> Tensor:
        if self._tables[0].device != self.g.device:
            self._tables = to_keep(lambda: _diagonal_tables(self.shape[0], self.g.device))
        to_diagonals, to_matrix = self._tables
        half = self.g.float().T @ self.h.float().flip(1)  # of the displacement
        steps = half.flatten().index_select(0, to_diagonals.flatten()).view(self.shape)
        sums = steps.cumsum(1)
        diagonals = sums[:, -1:] - 2 * (sums - steps)
        return diagonals.flatten().index_select(0, to_matrix.flatten()).view(self.shape)


def _check_generators(g: Tensor, h: Tensor) -> None:
    if g.ndim != 2 or g.shape != h.shape or 0 in g.shape:
        raise ValueError(
            f"g and h must have one shape (r, n), not empty, got {tuple(g.shape)} and {tuple(h.shape)}"
        )


def _size(shape: tuple[int, ...]) -> int:
    """n of a square weight."""
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"a weight of low displacement rank must be square, (n, n), got {shape}")
    return shape[0]


def _diagonal_tables(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where to read, to have the wrapped diagonals of a matrix as rows, and to have the matrix again.

    Row k of the diagonals goes from W[k, 0] down: its entry j is W[k + j, j], modulo n. The step from there
    to entry j + 1 is the displacement's entry [k + j + 1, j].
    """
    i, j = torch.arange(n, device=device).unsqueeze(1), torch.arange(n, device=device)
    return (i + j + 1) % n * n + j, (i - j) % n * n + j
