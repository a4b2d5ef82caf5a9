r"""Projections: the nearest weight of a wanted form, each of them exactly optimal.

A constraint on a weight (few nonzeros, few values, low rank) is a set :math:`S`; the projection

.. math:: \Pi_S(w) = \arg\min_{z \in S} \|z - w\|^2

is the best single-shot compression in the sense of least squares. The sets here are not convex, and still
each projection is found exactly: by sorting, by dynamic programming, or by a singular value decomposition.
``admm`` and the learning-compression algorithm need nothing else of a method.

Every function takes a floating-point tensor and returns a new one of the same shape and dtype; projecting
twice changes nothing more.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compresslab.core.codes import check_weight
from compresslab.core.errors import check_int
from compresslab.lowrank.svd import truncated_svd
from compresslab.pruning.masks import keep_mask
from compresslab.pruning.nm import nm_mask
from compresslab.quantization.codebook import exact_kmeans_1d
from compresslab.quantization.ternary import ternary_code

Projection = Callable[[Tensor], Tensor]


def project_top_k(weight: Tensor, k: int) -> Tensor:
    r"""The nearest weight with at most k nonzeros: the k largest magnitudes stay.

    .. math:: \|w - z\|^2 = \sum_{i \notin I} w_i^2, \qquad I \text{ the places of the largest } |w_i|

    Args:
        weight: any shape.
        k: from 0 to the number of weights. Of equal magnitudes the last ones stay.

    Returns:
        z, the shape of ``weight``.

    Raises:
        TypeError, ValueError: ``k`` out of range, or no finite floating-point weight.

    Example:
        >>> project_top_k(torch.tensor([0.5, -3.0, 2.0]), 2)
        tensor([ 0., -3.,  2.])
    """
    check_weight(weight)
    check_int("k", k, 0, weight.numel())
    size = max(weight.numel(), 1)
    return torch.where(keep_mask(weight.detach().abs(), (size - k) / size), weight.detach(), 0.0)


def project_nm(weight: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """The nearest weight with at most n nonzeros in every m consecutive weights of a row.

    The groups do not share weights, so each is projected by itself.

    Args:
        weight: (O, I) or (O, I, ...), grouped as in ``pruning.nm_mask``.
        n, m: 1 <= n <= m.

    Raises:
        TypeError, ValueError: ``n`` or ``m`` out of range, fewer than two axes, or no finite weight.

    Source:
        A. Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021.

    Example:
        >>> project_nm(torch.tensor([[0.1, -3.0, 2.0, 0.5]]))
        tensor([[ 0., -3.,  2.,  0.]])
    """
    check_weight(weight)
    return torch.where(nm_mask(weight, n, m), weight.detach(), 0.0)


def project_ternary(weight: Tensor, axis: int | None = None) -> Tensor:
    r"""The nearest :math:`\alpha\,t` with :math:`t \in \{-1, 0, 1\}^n`, over scale and support at once.

    .. math:: \min_{\alpha, t} \|w - \alpha t\|^2 =
              \|w\|^2 - \max_k \frac{1}{k}\Big(\sum_{i \le k} |w|_{(i)}\Big)^2

    With the k largest magnitudes kept, their mean is the best scale; sorting once tries every k.

    Args:
        weight: any shape.
        axis: which weights share a scale: None for all, 0 for those of one output channel.

    Raises:
        TypeError, ValueError: no such axis, or no finite floating-point weight.

    Source:
        F. Li, B. Zhang, B. Liu, "Ternary Weight Networks", 2016.
    Differs: exact, where the paper takes a rule of thumb for the threshold.

    Example:
        >>> project_ternary(torch.tensor([4.0, -3.0, 0.5, 0.1]))  # k = 1, 2, 3, 4: 16, 24.5, 18.75, 14.44
        tensor([ 3.5000, -3.5000,  0.0000,  0.0000])
    """
    return ternary_code(weight, axis).decode().to(weight.dtype)


def project_levels(weight: Tensor, levels: Tensor | Sequence[float]) -> Tensor:
    r"""The nearest weight whose values are all among given levels: each goes to its nearest level.

    Args:
        weight: any shape.
        levels: one or more finite numbers, in any order. Between two that are equally near the lower wins.

    Raises:
        TypeError, ValueError: no finite floating-point weight, or levels that are none, not finite, not 1-d.

    Example:
        >>> project_levels(torch.tensor([0.2, -0.9, 0.5]), [-1.0, 0.0, 1.0])
        tensor([ 0., -1.,  0.])
    """
    check_weight(weight)
    levels = torch.as_tensor(levels, dtype=weight.dtype, device=weight.device)
    if levels.ndim != 1 or len(levels) == 0 or not torch.isfinite(levels).all():
        raise ValueError(f"levels must be one or more finite numbers, got {levels.tolist()}")
    levels = levels.sort().values
    middles = (levels[1:].double() + levels[:-1].double()) / 2
    return levels[torch.searchsorted(middles, weight.detach().double().contiguous())]


def project_codebook(weight: Tensor, k: int) -> Tensor:
    r"""The nearest weight with at most k different values: k-means on the line, solved exactly.

    .. math:: \min_{c, a} \sum_i (w_i - c_{a(i)})^2

    Args:
        weight: any shape. :math:`O(k\,n \log n)`: meant for some ten thousand different values.
        k: number of values, at least 1.

    Raises:
        TypeError, ValueError: ``k`` below 1, or no finite floating-point weight.

    Source:
        H. Wang, M. Song, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming",
        The R Journal, 2011.

    Example:
        >>> project_codebook(torch.tensor([0.0, 0.2, 1.0, 1.2]), 2)
        tensor([0.1000, 0.1000, 1.1000, 1.1000])
    """
    check_weight(weight)
    check_int("k", k, 1)
    if weight.numel() == 0:
        return weight.detach().clone()
    codebook, indices = exact_kmeans_1d(weight, k)
    return codebook[indices].view(weight.shape).to(weight.dtype)


def project_low_rank(weight: Tensor, rank: int) -> Tensor:
    r"""The nearest weight of rank at most k: the k largest singular values stay.

    .. math:: W = U \Sigma V^\top \;\mapsto\; U_k \Sigma_k V_k^\top

    Args:
        weight: (O, I) or (O, I, ...); the axes behind the first are one.
        rank: k, 0 to the smaller side of that matrix.

    Raises:
        TypeError, ValueError: ``rank`` out of range, fewer than two axes, or no finite floating-point weight.

    Source:
        C. Eckart, G. Young, "The Approximation of One Matrix by Another of Lower Rank", 1936.

    Example:
        >>> project_low_rank(torch.diag(torch.tensor([3.0, 1.0])), 1)
        tensor([[3., 0.],
                [0., 0.]])
    """
    check_weight(weight)
    if weight.ndim < 2:
        raise ValueError(f"weight must have at least two axes, got shape {tuple(weight.shape)}")
    matrix = weight.detach().flatten(1).double()
    check_int("rank", rank, 0, min(matrix.shape))
    if rank == 0:
        return torch.zeros_like(weight)
    B, A = truncated_svd(matrix, rank)
    return (B @ A).to(weight.dtype).view(weight.shape)
