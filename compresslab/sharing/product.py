r"""Product quantization: sub-vectors share, and a product with the weight becomes sums of table entries.

The m x n matrix is cut into s strips of n/s columns. In each strip the m rows, short vectors, are clustered
to k centroids. So k numbers per strip and column stand for m, yet the strips combine freely: there are
:math:`k^s` possible rows. A matrix product needs every centroid's inner product with its piece of x once, and
from then on only look-ups and additions.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.bits import check_packed, pack_bits, unpack_bits
from compresslab.core.codes import WeightCode, check_weight
from compresslab.core.errors import check_int
from compresslab.core.linalg import damped_cholesky
from compresslab.core.modules import as_parameter
from compresslab.sharing.clusters import UnpackedIndices
from compresslab.sharing.tables import keep_frozen_, keep_scale_, matrix_shape
from compresslab.sharing.vector_kmeans import kmeans


class ProductCode(WeightCode):
    r"""An index per row and strip into the strip's code book of trainable sub-vectors.

    .. math:: \hat W_{i,\,\text{strip } j} = c_{j,\,a(i, j)}, \qquad
              \mathrm{bits} = m\,s\,\lceil\log_2 k\rceil + 32\,k\,n

    One code book that all strips share makes the second term :math:`32\,k\,n/s`; with strips of one column
    that is the codebook of scalar k-means. A convolution kernel counts as the matrix ``weight.flatten(1)``.

    Args:
        codebooks: :math:`c`, floating-point, (s, k, d), or (1, k, d) for one that all strips share; d divides
            n, k is at most 256.
        packed: uint8, ``pack_bits`` of the indices (m, s), row by row, at :math:`\lceil\log_2 k\rceil` bits
            (1 bit for k = 1).
        shape: shape of the weight; the first axis is m, the others together are n.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or shape.

    Source:
        Y. Gong, L. Liu, M. Yang, L. Bourdev, "Compressing Deep Convolutional Networks using Vector
        Quantization", 2014; H. Jégou, M. Douze, C. Schmid, "Product Quantization for Nearest Neighbor
        Search", IEEE TPAMI, 2011.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0, 0.0, 3.0], [1.0, 2.0, 5.0, 5.0], [7.0, 7.0, 0.0, 3.0]])
        >>> code = ProductCode.from_dense(weight, subspaces=2, k=2)  # two different rows in each strip
        >>> code.codebooks.shape, torch.equal(code.decode(), weight)
        (torch.Size([2, 2, 2]), True)
    """

    roles = {"packed": "indices", "codebooks": "codebook"}

    def __init__(self, codebooks: Tensor, packed: Tensor, shape: tuple[int, ...]):
        super().__init__(shape)
        if not codebooks.is_floating_point():
            raise TypeError(f"codebooks must be floating-point, got {codebooks.dtype}")
        self.rows, self.columns = matrix_shape(self.shape)
        books, k, width = _checked_codebooks(codebooks, self.columns)
        self.subspaces, self.bits = self.columns // width, max(1, (k - 1).bit_length())
        check_packed(packed, self.bits, self.rows * self.subspaces)
        self.register_buffer("packed", packed)
        self.codebooks = as_parameter(codebooks)
        self._table_rows, self._elements = UnpackedIndices(), UnpackedIndices()

    @classmethod
    def from_dense(
        cls,
        weight: Tensor,
        subspaces: int,
        k: int,
        *,
        shared: bool = False,
        moments: Tensor | None = None,
        sweeps: int = 3,
        keep_scale: bool = False,
        seed: int = 0,
        iterations: int = 25,
    ) -> "ProductCode":
        """Cluster the rows of every strip by k-means.

        Args:
            weight: (m, ...), at least one element.
            subspaces: s, the number of strips; divides n.
            k: centroids of a code book, 1 to 256; no more are stored than there are sub-vectors.
            shared: one code book for all strips.
            moments: (n, n), the second moments of the layer's inputs (``core.calibrate.input_moments``): keep
                the responses, not the weight; see ``response_codebooks``.
            sweeps: over the strips, with moments.
            keep_scale: multiply the centroids until the decoded weight has the root mean square of
                ``weight``. Means of independent numbers are small: a random weight to be trained needs this.
            seed, iterations: of k-means.

        Raises:
            TypeError, ValueError: s does not divide n, k is out of range, moments of another shape or with
                ``shared``.
        """
        weight = check_weight(weight)
        matrix = weight.reshape(matrix_shape(tuple(weight.shape)))
        _check_divides(subspaces, matrix.shape[1])
        check_int("k", k, 1, 256)
        if moments is not None:
            if shared:
                raise ValueError("with moments every strip needs its own code book, got shared=True")
            k, options = min(k, len(matrix)), dict(sweeps=sweeps, seed=seed, iterations=iterations)
            codebooks, indices = response_codebooks(matrix, moments, subspaces, k, **options)
        else:
            codebooks, indices = _cluster(matrix, subspaces, k, shared, seed, iterations)
        code = cls(codebooks, pack_bits(indices, max(1, (codebooks.shape[1] - 1).bit_length())), weight.shape)
        if keep_scale:
            keep_scale_(code, weight)
        return code

    @property
    def indices(self) -> Tensor:
        """The centroid of each row in each strip, int64, (m, s)."""
        return unpack_bits(self.packed, self.bits, self.rows * self.subspaces).long().view(self.rows, -1)

    @property
    def table_rows(self) -> Tensor:
        """Where to find the inner products of row i in a table (s k, ...), int32, (m, s)."""
        return self._table_rows.get(self.packed, partial(self._find_rows, books=self.subspaces))

    def decode(self) -> Tensor:
        elements = self._elements.get(self.packed, self._find_elements)
        return self.codebooks.float().flatten().index_select(0, elements).view(self.shape)

    def _find_rows(self, packed: Tensor, books: int) -> Tensor:
        """The indices, with k more for every further strip where there is a code book for each."""
        indices = unpack_bits(packed, self.bits, self.rows * self.subspaces).view(self.rows, -1)
        first = self.codebooks.shape[1] * torch.arange(books, dtype=torch.int32, device=packed.device)
        return indices + first

    def _find_elements(self, packed: Tensor) -> Tensor:
        """Where each weight stands in the flat code books, int32, (m n,): number by number, the gradient adds
        up ten times as fast as vector by vector."""
        width = self.codebooks.shape[2]
        rows = self._find_rows(packed, len(self.codebooks)).unsqueeze(2)
        return (rows * width + torch.arange(width, dtype=torch.int32, device=packed.device)).flatten()


def response_codebooks(
    matrix: Tensor,
    moments: Tensor,
    subspaces: int,
    k: int,
    *,
    sweeps: int = 3,
    damp: float = 0.01,
    seed: int = 0,
    iterations: int = 25,
) -> tuple[Tensor, Tensor]:
    r"""Code books that keep a layer's responses: each strip makes good the errors of the others.

    .. math:: \min \|(W - \hat W) X\|_F^2 = \operatorname{tr}\,E H E^\top, \qquad
              E = W - \hat W,\; H = XX^\top

    With the other strips fixed, the best value for row i in strip j, were it free, is
    :math:`t_{ij} = w_{ij} + \sum_{l \ne j} E_{il} H_{lj} H_{jj}^{-1}`, and any other value c costs
    :math:`(t_{ij} - c)\,H_{jj}\,(t_{ij} - c)^\top` more. So the strip is a k-means problem again, for the
    points :math:`t_{ij} L` with :math:`H_{jj} = L L^\top`, continued from the code book it has.

    Args:
        matrix: :math:`W`, (m, n).
        moments: :math:`H`, (n, n), symmetric, positive semi-definite.
        subspaces, k: as in ``ProductCode.from_dense``.
        sweeps: how often all strips are visited; 0 starts every strip by itself and stops.
        damp: share of the mean diagonal of H that is added to its diagonal.
        seed, iterations: of k-means.

    Returns:
        codebooks (s, k, n/s), of the matrix's dtype, and indices (m, s), int64. No visit of a strip raises
        the (damped) error.

    Raises:
        ValueError: moments of another shape, not finite, negative, or not positive definite with this
            damping; or s does not divide n.

    Source: J. Wu, C. Leng, Y. Wang, Q. Hu, J. Cheng, "Quantized Convolutional Neural Networks for Mobile
        Devices", CVPR 2016, section 3 (error correction).
    Differs: k-means in the metric of the inputs, from their moments, in the place of the data themselves; for
        linear layers and, through ``input_moments``, convolutions alike.
    """
    _check_divides(subspaces, matrix.shape[1])
    H = _checked_moments(moments, matrix.shape[1], damp)
    W = matrix.double().cpu()
    width = W.shape[1] // subspaces
    strips = [slice(j * width, (j + 1) * width) for j in range(subspaces)]
    factors = [damped_cholesky(H[strip, strip]) for strip in strips]
    approximation = W.clone()
    codebooks, indices = [None] * subspaces, [None] * subspaces
    for _ in range(1 + sweeps):
        for j, (strip, L) in enumerate(zip(strips, factors, strict=True)):
            error = W - approximation
            error[:, strip] = 0
            target = W[:, strip] + torch.cholesky_solve((error @ H[:, strip]).T, L).T
            start = None if codebooks[j] is None else codebooks[j] @ L
            found, indices[j] = kmeans(target @ L, k, seed=seed + j, iterations=iterations, start=start)
            codebooks[j] = torch.linalg.solve_triangular(L, found, upper=False, left=False)
            approximation[:, strip] = codebooks[j][indices[j]]
    return torch.stack(codebooks).to(matrix.dtype).to(matrix.device), torch.stack(indices, 1)


class LookupLinear(nn.Module):
    r"""A linear layer that never builds its weight: inner products with the centroids, then look-ups.

    .. math:: y_i = b_i + \sum_{j=1}^{s} T_{j,\,a(i,j)}, \qquad T_{j,l} = \langle x_j, c_{j,l} \rangle

    The table T takes k n multiplications, whatever m is; each of the m outputs then adds up s entries of it.
    Against the m n of a matrix product this pays where k is well below m. The counter takes k n + m s, as if
    each look-up cost a multiply-accumulate, since reading from a table is not free.

    Args:
        code: of a matrix, (m, n).
        bias: (m,), or None.

    Raises:
        TypeError, ValueError: the code is no ``ProductCode`` of a matrix, or the bias has another shape.

    Source: J. Wu et al., "Quantized Convolutional Neural Networks for Mobile Devices", CVPR 2016.

    Example:
        >>> layer = LookupLinear.from_dense(nn.Linear(4, 3), subspaces=2, k=3)  # as many centroids as rows
        >>> layer(torch.ones(5, 4)).shape, layer.count_macs((torch.ones(5, 4),), None)
        (torch.Size([5, 3]), 90)
    """

    meta = ()

    def __init__(self, code: ProductCode, bias: Tensor | None = None):
        super().__init__()
        if not isinstance(code, ProductCode):
            raise TypeError(f"code must be a ProductCode, got {type(code).__name__}")
        if len(code.shape) != 2:
            raise ValueError(f"code must be of a matrix, got the shape {code.shape}")
        if bias is not None and tuple(bias.shape) != (code.rows,):
            raise ValueError(f"bias must have shape ({code.rows},), got {tuple(bias.shape)}")
        self.out_features, self.in_features = code.shape
        self.code = code
        self.register_parameter("bias", as_parameter(bias))

    @classmethod
    def from_dense(cls, layer: nn.Linear, subspaces: int, k: int, **options: Any) -> "LookupLinear":
        """From a linear layer, frozen where it is; the arguments are those of ``ProductCode.from_dense``."""
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"layer must be an nn.Linear, got {type(layer).__name__}")
        bias = None if layer.bias is None else layer.bias.detach().clone()
        made = cls(ProductCode.from_dense(layer.weight, subspaces, k, **options), bias)
        keep_frozen_(made.code.codebooks, layer.weight)
        keep_frozen_(made.bias, layer.bias)
        return made.to(layer.weight.dtype).train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., n) -> (..., m)."""
        if x.shape[-1] != self.in_features:
            raise ValueError(f"x must have {self.in_features} features, got shape {tuple(x.shape)}")
        table = self.table(x).flatten(0, 1)  # (s k, rows)
        y = F.embedding_bag(self.code.table_rows, table, mode="sum").T  # (rows, m)
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)

    def table(self, x: Tensor) -> Tensor:
        """The inner products of every piece of every input with all centroids, (s, k, rows)."""
        pieces = x.reshape(-1, self.code.subspaces, self.code.codebooks.shape[2])
        return self.code.codebooks @ pieces.permute(1, 2, 0)

    def to_dense(self) -> nn.Linear:
        """The plain layer with the decoded weight, and the same outputs."""
        layer = nn.utils.skip_init(
            nn.Linear, self.in_features, self.out_features, self.bias is not None,
            device=self.code.codebooks.device, dtype=self.code.codebooks.dtype,
        )  # fmt: skip
        with torch.no_grad():
            layer.weight.copy_(self.code.decode())
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer.train(self.training)

    def count_macs(self, inputs: tuple, output: Any) -> int:
        """k n products for the table and m s look-ups, for each row of the batch."""
        k, rows = self.code.codebooks.shape[1], inputs[0].numel() // self.in_features
        return rows * (k * self.in_features + self.out_features * self.code.subspaces)


def _cluster(
    matrix: Tensor, subspaces: int, k: int, shared: bool, seed: int, iterations: int
) -> tuple[Tensor, Tensor]:
    """Code books (s or 1, k, d) and indices (m, s) by k-means on the sub-vectors."""
    strips = matrix.view(len(matrix), subspaces, -1)
    points = strips.flatten(0, 1).unsqueeze(0) if shared else strips.transpose(0, 1).contiguous()
    codebooks, indices = kmeans(points, min(k, points.shape[1]), seed=seed, iterations=iterations)
    return codebooks, indices.view(len(matrix), subspaces) if shared else indices.T


def _check_divides(subspaces: int, columns: int) -> None:
    check_int("subspaces", subspaces, 1)
    if columns % subspaces:
        allowed = [s for s in range(1, columns + 1) if columns % s == 0]
        raise ValueError(f"subspaces must divide the {columns} columns, got {subspaces}; these do: {allowed}")


def _checked_codebooks(codebooks: Tensor, columns: int) -> tuple[int, int, int]:
    """The shape (s or 1, k, d), after a check against the n columns."""
    shape = tuple(codebooks.shape)
    fits = len(shape) == 3 and min(shape) > 0 and columns % shape[2] == 0 and shape[1] <= 256
    if not fits or shape[0] not in (1, columns // shape[2]):
        raise ValueError(
            f"codebooks for {columns} columns must have shape (s, k, d) with s d = {columns}, or (1, k, d), "
            f"k from 1 to 256, got {shape}"
        )
    return shape


def _checked_moments(moments: Tensor, columns: int, damp: float) -> Tensor:
    """H with its damping, float64; the identity if there is no input at all."""
    if tuple(moments.shape) != (columns, columns) or not torch.isfinite(moments).all():
        raise ValueError(
            f"moments must be finite, of shape ({columns}, {columns}), got {tuple(moments.shape)}"
            + ("" if torch.isfinite(moments).all() else " with nan or inf")
        )
    H = moments.detach().double().cpu()
    identity = torch.eye(columns, dtype=torch.float64)
    if not H.any():
        return identity
    least, size = float(H.diagonal().min()), float(H.diagonal().mean())
    if least < 0 or size == 0:
        raise ValueError(f"moments must be sums of squares on the diagonal, not negative; got {least:g}")
    return H + damp * size * identity
