r"""Codebooks beyond plain k-means: the exact optimum, clusters weighted by curvature, tuned centres.

A codebook stores a weight as the index of a shared value. ``core.kmeans.kmeans_1d`` finds one by Lloyd's
algorithm, which stops in a local optimum. On the line the clusters of an optimum are intervals of the sorted
values, so dynamic programming finds the global one; it is the measure of how much Lloyd leaves on the table.
"""

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.core.bits import unpack_bits
from compresslab.core.codes import CodebookCode, check_weight
from compresslab.core.errors import check_int, where
from compresslab.core.layers import encode
from compresslab.core.modules import named_layers
from compresslab.core.prepare import Simulated


def exact_kmeans_1d(values: Tensor, k: int, *, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""The best k centres for numbers on the line, not just good ones.

    .. math:: D_j(i) = \min_{t \le i}\; D_{j-1}(t) + \mathrm{cost}(t, i), \qquad
              \mathrm{cost}(t, i) = \sum_{t \le l < i} h_l\,(v_l - \bar v)^2

    :math:`D_j(i)` is the least cost of the first i sorted values in j intervals. The best t never falls as i
    grows, so its place for the middle i halves the search on both sides: :math:`O(k\,n \log n)` for n
    different values. Meant for some ten thousand; ``kmeans_1d`` takes millions.

    Args:
        values: any shape (flattened), finite, not empty.
        k: number of centres, at least 1; beyond the number of different values the last one repeats.
        weights: :math:`h`, the shape of ``values``, not negative, not all zero; None means all ones.

    Returns:
        ``codebook`` (k,), float32, ascending, and ``indices`` (n,), int64, the nearest centre of each value
        (the lower one of two that are equally near): the form of ``kmeans_1d``.

    Raises:
        TypeError: ``k`` is no whole number.
        ValueError: no values, nan or inf among them, or bad weights.

    Source:
        H. Wang, M. Song, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming",
        The R Journal, 2011.
    Differs: the search is halved recursively; the paper's takes :math:`O(k\,n^2)`.

    Example:
        >>> exact_kmeans_1d(torch.tensor([0.0, 0.2, 1.0, 1.2]), k=2)
        (tensor([0.1000, 1.1000]), tensor([0, 0, 1, 1]))
    """
    check_int("k", k, 1)
    v, h = _merged(values, weights)
    cuts = _best_cuts(v, h, min(k, len(v)))
    centres = [np.average(v[a:b], weights=h[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    centres += centres[-1:] * (k - len(centres))
    codebook = torch.tensor(centres, dtype=torch.float32, device=values.device)
    middles = (codebook[1:].double() + codebook[:-1].double()) / 2
    return codebook, torch.searchsorted(middles, values.detach().flatten().double())


def _merged(values: Tensor, weights: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """The different values that have weight, ascending, and their weights: float64."""
    if values.numel() == 0 or not torch.isfinite(values).all():
        raise ValueError(
            "values must be finite and at least one, got " + ("nan or inf" if values.numel() else "none")
        )
    h = torch.ones_like(values) if weights is None else weights
    if h.shape != values.shape:
        raise ValueError(f"weights must have the values' shape {tuple(values.shape)}, got {tuple(h.shape)}")
    if not (torch.isfinite(h).all() and (h >= 0).all() and h.sum() > 0):
        raise ValueError("weights must be finite, not negative, and have a positive sum")
    v, where_to = np.unique(values.detach().double().flatten().cpu().numpy(), return_inverse=True)
    total = np.bincount(where_to, weights=h.detach().double().flatten().cpu().numpy())
    return v[total > 0], total[total > 0]


def _best_cuts(v: np.ndarray, h: np.ndarray, k: int) -> list[int]:
    """The k + 1 borders of the best intervals: cluster j is ``v[cuts[j]:cuts[j + 1]]``."""
    n, centred = len(v), v - np.average(v, weights=h)  # centred: the sums below cancel less
    sums = [np.concatenate([[0.0], np.cumsum(h * centred**power)]) for power in (0, 1, 2)]  # (n + 1,) each

    def cost(starts: np.ndarray | int, end: np.ndarray | int) -> np.ndarray:
        mass, first, second = (s[end] - s[starts] for s in sums)
        return np.maximum(second - first**2 / mass, 0.0)

    best = np.concatenate([[0.0], cost(0, np.arange(1, n + 1))])  # one interval
    chosen = []
    for j in range(2, k + 1):  # D_j from D_{j-1}; at least j values are in j intervals
        new, start = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=int)
        todo = [(j, n, j - 1, n - 1)]  # ends, and where the last interval may begin
        while todo:
            low, high, first, last = todo.pop()
            end = (low + high) // 2
            starts = np.arange(first, min(last, end - 1) + 1)
            totals = best[starts] + cost(starts, end)
            place = int(totals.argmin())
            new[end], start[end] = totals[place], starts[place]
            if low < end:
                todo.append((low, end - 1, first, start[end]))
            if end < high:
                todo.append((end + 1, high, start[end], last))
        best = new
        chosen.append(start)
    cuts = [n]
    for start in reversed(chosen):
        cuts.append(int(start[cuts[-1]]))
    return [*cuts, 0][::-1]


def encode_hessian_weighted(
    model: nn.Module,
    curvature: Mapping[str, Tensor],
    bits: int = 4,
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
    iterations: int = 100,
) -> nn.Module:
    r"""Codebooks that are precise where the loss is sharp: k-means weighted by the Hessian's diagonal.

    .. math:: \min \sum_i h_i\,(w_i - c_{a(i)})^2, \qquad
              c_j = \frac{\sum_{i \in C_j} h_i w_i}{\sum_{i \in C_j} h_i}

    Near a minimum :math:`\frac12 \sum_i h_i\,\delta w_i^2` is the rise of the loss, if the Hessian is
    diagonal.

    Args:
        model: the trained network; it is not changed.
        curvature: layer name -> :math:`h` in the weight's shape, not negative: a Gauss-Newton diagonal,
            squared gradients, Adam's second moments. A layer whose h is all zero is clustered without
            weights.
        bits: 1 to 8; each layer has its own codebook of up to ``2**bits`` values.
        only, skip: names of layers, as in ``named_layers``; None means those in ``curvature``.
        iterations: most steps of Lloyd's algorithm.

    Raises:
        TypeError: ``bits`` is no whole number.
        ValueError: bits out of range, an unknown layer, a layer without curvature, or curvature that is
            negative, not finite, or of another shape; the message names the layer.

    Source:
        Y. Choi, M. El-Khamy, J. Lee, "Towards the Limit of Network Quantization", ICLR 2017, section 3.
    Differs: a codebook per layer, where the paper clusters all layers together.
    """
    check_int("bits", bits, 1, 8)
    layers = named_layers(model, only=list(curvature) if only is None else only, skip=skip)
    make_code = {}
    for name in layers:
        if name not in curvature:
            raise ValueError(f"there is no curvature{where(name)}")
        h, shape = curvature[name].detach(), tuple(layers[name].weight.shape)
        if tuple(h.shape) != shape:
            got = tuple(h.shape)
            raise ValueError(f"weights must have the values' shape {shape}, got {got}{where(name)}")
        cluster = partial(CodebookCode.from_dense, bits=bits, iterations=iterations)
        make_code[name] = partial(cluster, weights=h) if (h != 0).any() else cluster
    return encode(model, make_code)


class TrainedCodebook(Simulated):
    r"""Clusters that stay, centres that learn: fine-tuning of a codebook.

    .. math:: \hat w_i = c_{a(i)}, \qquad
              \frac{\partial L}{\partial c_j} = \sum_{i : a(i) = j} \frac{\partial L}{\partial \hat w_i}

    The latent weight is only what the clusters were made of; it takes no part and gets no gradient.

    Args:
        weight: the weight to cluster.
        bits: 1 to 8; the codebook has ``2**bits`` values, or as many as there are weights.
        weights: :math:`h` of the clustering, the shape of ``weight``; None means all ones.

    Raises:
        TypeError, ValueError: no finite floating-point weight, or bad ``bits`` or ``weights``; in
            ``forward``: a weight of another shape.

    Source:
        S. Han, H. Mao, W. J. Dally, "Deep Compression", ICLR 2016, section 3.

    Example:
        >>> shared = TrainedCodebook(torch.tensor([0.0, 0.2, 1.0, 1.2]), bits=1)
        >>> shared(torch.zeros(4)).backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> shared.codebook.grad  # the gradients of the members, summed
        tensor([3., 7.])
    """

    def __init__(self, weight: Tensor, bits: int = 4, *, weights: Tensor | None = None):
        super().__init__()
        code = CodebookCode.from_dense(weight, bits, weights=weights)
        self.bits, self.shape = code.bits, code.shape
        self.register_buffer("packed", code.packed)
        self.codebook = nn.Parameter(code.codebook)

    @property
    def indices(self) -> Tensor:
        """The cluster of each weight, int64, in the weight's shape."""
        numel = int(np.prod(self.shape))
        return unpack_bits(self.packed, self.bits, numel).long().view(self.shape)

    def forward(self, weight: Tensor) -> Tensor:
        self._check(weight)
        values = self.codebook.index_select(0, self.indices.flatten()).view(self.shape)
        return values.to(weight.dtype)

    def to_code(self, weight: Tensor) -> CodebookCode:
        self._check(check_weight(weight))
        return CodebookCode(
            self.packed.clone(), self.codebook.detach().float().clone(), self.shape, self.bits
        )

    def _check(self, weight: Tensor) -> None:
        if tuple(weight.shape) != self.shape:
            raise ValueError(
                f"this codebook is for a weight of shape {self.shape}, got {tuple(weight.shape)}"
            )

    def extra_repr(self) -> str:
        return f"shape={self.shape}, bits={self.bits}"
