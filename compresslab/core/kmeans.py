"""K-means on the real line, which sorting makes fast and exact to follow: clusters are intervals."""

import torch
from torch import Tensor

from compresslab.core.errors import check_int


def kmeans_1d(
    values: Tensor, k: int, *, weights: Tensor | None = None, iterations: int = 25
) -> tuple[Tensor, Tensor]:
    r"""Cluster numbers by Lloyd's algorithm, started from k evenly spaced centres.

    .. math:: \min_c \sum_i h_i\,(v_i - c_{a(i)})^2, \qquad a(i) = \arg\min_j |v_i - c_j|, \qquad
              c_j = \frac{\sum_{a(i)=j} h_i v_i}{\sum_{a(i)=j} h_i}

    On the line the cluster of a centre is the interval between two midpoints, so with sorted values and
    prefix sums of :math:`h` and :math:`hv` a step costs k binary searches instead of n k distances. A centre
    that loses all its values moves to the value with the largest cost :math:`h_i (v_i - c_{a(i)})^2`; no step
    ever raises the objective.

    Args:
        values: (n,) or any shape (flattened), finite, not empty.
        k: number of centres, at least 1; more than there are values is allowed.
        weights: :math:`h`, the shape of ``values``, not negative, not all zero; for instance the diagonal of
            a Hessian. None means all ones.
        iterations: most steps; it stops before when no value changes its cluster.

    Returns:
        ``codebook`` (k,), float32, ascending, and ``indices`` (n,), int64, the nearest centre of each value
        (the lower one of two that are equally near).

    Raises:
        ValueError: no values, nan or inf among them, or weights of another shape, negative, or without a
            positive sum.

    Source:
        S. Han, H. Mao, W. Dally, "Deep Compression", ICLR 2016, section 3 (linear initialisation); Y. Choi et
        al., "Towards the Limit of Network Quantization", ICLR 2017, section 3 (weights from the Hessian).

    Example:
        >>> kmeans_1d(torch.tensor([0.0, 0.2, 1.0, 1.2]), k=2)
        (tensor([0.1000, 1.1000]), tensor([0, 0, 1, 1]))
    """
    check_int("k", k, 1)
    check_int("iterations", iterations, 0)
    h = _checked_weights(values, weights)
    values, order = values.flatten().double().sort(stable=True)
    h = h[order]
    start = h.new_zeros(1)
    h_sums, hv_sums = (
        torch.cat([start, h.cumsum(0)]),
        torch.cat([start, (h * values).cumsum(0)]),
    )  # (n + 1,) each
    centres = torch.linspace(
        values[0].item(), values[-1].item(), k, dtype=torch.float64, device=values.device
    )
    cuts = _cut(values, centres)
    for _ in range(iterations):
        mass = h_sums[cuts].diff()  # (k,): the denominators of c_j
        centres = torch.where(mass > 0, hv_sums[cuts].diff() / mass, centres)
        centres = _fill_empty(centres, mass, values, h, cuts)
        previous, cuts = cuts, _cut(values, centres)
        if torch.equal(previous, cuts):
            break
    codebook = centres.float()
    indices = torch.empty_like(order)
    indices[order] = _labels(_cut(values, codebook.double()))
    return codebook, indices


def _cut(values: Tensor, centres: Tensor) -> Tensor:
    """Where the clusters begin and end, (k + 1,): cluster j is ``values[cuts[j]:cuts[j + 1]]``."""
    middles = (centres[1:] + centres[:-1]) / 2
    inner = torch.searchsorted(values, middles, right=True)
    return torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), len(values))])


def _labels(cuts: Tensor) -> Tensor:
    """The cluster of each sorted value, (n,)."""
    sizes = cuts.diff()
    return torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)


def _fill_empty(centres: Tensor, mass: Tensor, values: Tensor, h: Tensor, cuts: Tensor) -> Tensor:
    """Move centres without values to the values that cost most; return all centres in ascending order."""
    empty = (mass == 0).nonzero().flatten()
    if len(empty):
        cost = h * (values - centres[_labels(cuts)]) ** 2
        worst = cost.topk(min(len(empty), len(values))).indices
        centres[empty[: len(worst)]] = values[worst]
    return centres.sort().values


def _checked_weights(values: Tensor, weights: Tensor | None) -> Tensor:
    """The weights as (n,) float64, after values and weights have been checked."""
    if values.numel() == 0 or not torch.isfinite(values).all():
        raise ValueError(
            "values must be finite and at least one, got " + ("nan or inf" if values.numel() else "none")
        )
    if weights is None:
        return torch.ones(values.numel(), dtype=torch.float64, device=values.device)
    if weights.shape != values.shape:
        raise ValueError(
            f"weights must have the values' shape {tuple(values.shape)}, got {tuple(weights.shape)}"
        )
    if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("weights must be finite, not negative, and have a positive sum")
    return weights.flatten().double()
