r"""Low rank plus sparse: what a matrix has in common, and the exceptions.

.. math:: W \approx B A + S

A product of two thin factors takes up what rows and columns share; a few large entries that fit no pattern
would need a high rank, and are cheap to store as they are. Each part is found exactly if the other is given,
so the two are found in turns.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from compresslab.core.errors import check_int, naming
from compresslab.core.layers import CodedLinear
from compresslab.core.modules import apply_mask_, bake, map_layers, named_layers
from compresslab.hybrid.projections import project_top_k
from compresslab.lowrank.svd import check_linear, check_matrix, linear_pair, truncated_svd


STARTS = ("low rank", "sparse")


def low_rank_plus_sparse(
    matrix: Tensor,
    rank: int,
    nonzeros: int,
    *,
    iterations: int = 30,
    tolerance: float = 1e-6,
    start: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    r"""Split a matrix into a part of low rank, a sparse part, and as little as possible that is neither.

    .. math:: L \leftarrow \Pi_{\mathrm{rank} \le k}(W - S), \qquad
              S \leftarrow \Pi_{\|\cdot\|_0 \le s}(W - L)

    Both projections are exact, so the error :math:`\|W - L - S\|_F` never rises. It may still end in a local
    minimum, and which one depends on which part is taken out first: small exceptions come out better after
    the low-rank part, large ones before it.

    Args:
        matrix: W (m, n), floating-point, finite.
        rank: k, 0 to min(m, n). 0 leaves a sparse matrix alone.
        nonzeros: s, 0 to m n. 0 leaves the truncated singular value decomposition.
        iterations: the most rounds, at least 1.
        tolerance: it stops when a round lowers the error by less than this fraction of :math:`\|W\|_F`.
        start: "low rank" or "sparse", the part that is found first; None tries both and keeps the better.

    Returns:
        :math:`B` (m, k), :math:`A` (k, n) and :math:`S` (m, n), in the matrix's dtype, and the error after
        every round, relative to :math:`\|W\|_F`. Computed in float64, without randomness.

    Raises:
        TypeError, ValueError: no finite floating-point matrix, a rank, a number or iterations out of range,
            or an unknown ``start``.

    Source:
        T. Zhou, D. Tao, "GoDec: Randomized Low-rank & Sparse Matrix Decomposition in Noisy Case", ICML 2011;
        for networks X. Yu, T. Liu, X. Wang, D. Tao, "On Compressing Deep Models by Low Rank and Sparse
        Decomposition", CVPR 2017.
    Differs: an exact singular value decomposition where GoDec takes a random projection; the weights alone
        are approximated, not the layer's outputs.

    Example:
        >>> W = torch.ones(4, 4) + torch.diag(torch.tensor([9.0, 0.0, 0.0, 0.0]))
        >>> B, A, S, errors = low_rank_plus_sparse(W, rank=1, nonzeros=1)
        >>> errors[-1] < 1e-5, (B @ A - 1).abs().max() < 1e-4, S[0].round()
        (True, tensor(True), tensor([9., 0., 0., 0.]))
    """
    check_matrix(matrix)
    W = matrix.detach().double()
    check_int("rank", rank, 0, min(W.shape))
    check_int("nonzeros", nonzeros, 0, W.numel())
    check_int("iterations", iterations, 1)
    if start is not None and start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)} or None, got {start!r}")
    starts = STARTS if start is None else (start,)
    runs = [_alternate(W, rank, nonzeros, iterations, tolerance, one) for one in starts]
    B, A, S, errors = min(runs, key=lambda run: run[3][-1])
    return B.to(matrix.dtype), A.to(matrix.dtype), S.to(matrix.dtype), errors


def _alternate(
    W: Tensor, rank: int, nonzeros: int, iterations: int, tolerance: float, start: str
) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """The two projections in turns, from one of the two starts."""
    S = project_top_k(W, nonzeros) if start == "sparse" else torch.zeros_like(W)
    size, errors = max(W.norm().item(), 1e-300), []
    for _ in range(iterations):
        B, A = truncated_svd(W - S, rank) if rank else (W[:, :0], W[:0])
        S = project_top_k(W - B @ A, nonzeros)
        errors.append((W - B @ A - S).norm().item() / size)
        if len(errors) > 1 and errors[-2] - errors[-1] < tolerance:
            break
    return B, A, S, errors


class LowRankSparse(nn.Module):
    r"""A linear layer in two branches: :math:`y = B(Ax) + Sx + b`.

    All parts are ordinary layers. S is masked while it is trained; ``encode`` stores it, for example
    ``encode(model, {"fc1.sparse": GapSparseCode.from_dense})``, and codes the factors by their names, too.

    Args:
        reduce: A, in_features to k, without bias.
        expand: B, k to out_features, with the bias if there is one.
        sparse: S, in_features to out_features, without bias: an ``nn.Linear``, masked or not, or a
            ``CodedLinear``.

    Shape: (..., in_features) -> (..., out_features).

    Raises:
        TypeError, ValueError: a part is no linear layer, or their sizes do not match.

    Example:
        >>> layer = LowRankSparse.from_dense(nn.Linear(8, 6), rank=2, nonzeros=5)
        >>> tuple(layer.reduce.weight.shape), tuple(layer.expand.weight.shape), layer.nonzeros
        ((2, 8), (6, 2), 5)
    """

    meta = ()

    def __init__(self, reduce: nn.Module, expand: nn.Module, sparse: nn.Module):
        super().__init__()
        for name, part in (("reduce", reduce), ("expand", expand), ("sparse", sparse)):
            if not isinstance(part, (nn.Linear, CodedLinear)):
                raise TypeError(f"{name} must be an nn.Linear or a CodedLinear, got {type(part).__name__}")
        inner, outer = (reduce.out_features, expand.in_features), (reduce.in_features, expand.out_features)
        if inner[0] != inner[1] or outer != (sparse.in_features, sparse.out_features):
            raise ValueError(
                f"the parts do not match: A goes from {outer[0]} to {inner[0]}, "
                f"B from {inner[1]} to {outer[1]}, S from {sparse.in_features} to {sparse.out_features}"
            )
        self.in_features, self.out_features = outer
        self.reduce, self.expand, self.sparse = reduce, expand, sparse

    @classmethod
    def from_dense(
        cls, layer: nn.Linear, rank: int, nonzeros: int, *, iterations: int = 30, start: str | None = None
    ) -> "LowRankSparse":
        """Split the weight of a layer, which is not changed; arguments as in ``low_rank_plus_sparse``.

        Raises:
            TypeError, ValueError: no ``nn.Linear``, or as there; the rank must be at least 1.
        """
        check_linear(layer)
        check_int("rank", rank, 1, min(layer.weight.shape))
        B, A, S, _ = low_rank_plus_sparse(layer.weight, rank, nonzeros, iterations=iterations, start=start)
        low = linear_pair(layer, B, A)
        like = {"device": S.device, "dtype": S.dtype}
        sparse = skip_init(nn.Linear, layer.in_features, layer.out_features, bias=False, **like)
        with torch.no_grad():
            sparse.weight.copy_(S)
        sparse.weight.requires_grad_(layer.weight.requires_grad)
        apply_mask_(sparse, S != 0)
        return cls(low.reduce, low.expand, sparse).train(layer.training)

    @property
    def weight(self) -> Tensor:
        """The weight that it stands for, B A + S, (out_features, in_features)."""
        return self.expand.weight @ self.reduce.weight + self.sparse.weight

    @property
    def bias(self) -> Tensor | None:
        return self.expand.bias

    @property
    def nonzeros(self) -> int:
        """How many entries of S are not zero."""
        return int((self.sparse.weight != 0).sum())

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.reduce(x)) + self.sparse(x)

    def to_dense(self) -> nn.Linear:
        """One linear layer with the weight B A + S: the same outputs up to rounding, and the fewest MACs
        wherever zeros are multiplied, too."""
        W = self.weight.detach()
        like = {"device": W.device, "dtype": W.dtype}
        dense = skip_init(nn.Linear, self.in_features, self.out_features, bias=self.bias is not None, **like)
        with torch.no_grad():
            dense.weight.copy_(W)
            if self.bias is not None:
                dense.bias.copy_(self.bias)
        return dense.train(self.training)

    def count_macs(self, inputs: tuple, output: Tensor) -> int:
        """0: the three parts are layers and are counted as such, S like a dense one. (A kernel that skips
        zeros would take ``nonzeros`` instead of m n for it; ``to_dense`` takes m n for everything.)"""
        return 0


def split_layers(model: nn.Module, parts: Mapping[str, tuple[int, int]], **options: object) -> nn.Module:
    """A copy whose named linear layers are ``LowRankSparse``; a step of a pipeline.

    Args:
        model: any network; it is not changed. Masks and other parametrizations are baked in.
        parts: layer name -> (rank, nonzeros).
        options: for ``LowRankSparse.from_dense``.

    Raises:
        TypeError, ValueError: no layer is named, an unknown one, or a rank or number out of its range; the
            message names the layer.

    Example:
        >>> model = split_layers(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), {"0": (2, 5)})
        >>> type(model[0]).__name__, type(model[2]).__name__
        ('LowRankSparse', 'Linear')
    """
    if not parts:
        raise ValueError("parts must name at least one layer, got none")
    named_layers(model, nn.Linear, only=list(parts))

    def replace(name: str, layer: nn.Linear) -> nn.Module | None:
        if name not in parts:
            return None
        with naming(name):
            return LowRankSparse.from_dense(layer, *parts[name], **options)

    return map_layers(bake(model), nn.Linear, replace)
