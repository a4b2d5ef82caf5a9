"""K-means on the real line, which sorting makes fast and exact to follow: clusters are intervals."""

import numpy as np
import torch
from torch import Tensor

from compresslab.core.errors import check_int

_AT_ONCE = 2**18  # numbers whose clusters are looked up together


def kmeans_1d(
    values: Tensor, k: int, *, weights: Tensor | None = None, iterations: int = 300
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
    numbers = values.detach().flatten()
    numbers = numbers if numbers.dtype in (torch.float32, torch.float64) else numbers.double()
    v, h = _sorted(numbers.cpu().numpy(), None if h is None else h.cpu().numpy())
    masses = None if h is None else _prefix_sums(h)
    firsts = _prefix_sums(v if h is None else h * v)
    centres = np.linspace(v[0], v[-1], k)
    cuts = _cut(v, centres)
    for _ in range(iterations):
        mass = np.diff(cuts if masses is None else masses[cuts])  # (k,): the denominators of c_j
        centres = np.divide(np.diff(firsts[cuts]), mass, out=centres.copy(), where=mass > 0)
        if not mass.all():
            _fill_empty(centres, mass, v, h, cuts)
        centres.sort()
        previous, cuts = cuts, _cut(v, centres)
        if np.array_equal(previous, cuts):
            break
    codebook = torch.from_numpy(centres).float().to(numbers.device)
    return codebook, _assigned(numbers, _middles(codebook.double()))


def _sorted(v: np.ndarray, h: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Both in the order of the values, float64. Equal weights need no order: numpy sorts bare numbers fastest."""
    if h is None or (h == h[0]).all():
        return np.sort(v).astype(np.float64, copy=False), h
    order = np.argsort(v)
    return v[order].astype(np.float64, copy=False), h[order]


def _prefix_sums(numbers: np.ndarray) -> np.ndarray:
    """0 and the sums of the first 1, 2, ..., n numbers, (n + 1,)."""
    sums = np.zeros(len(numbers) + 1)
    np.cumsum(numbers, out=sums[1:])
    return sums


def _assigned(numbers: Tensor, middles: Tensor) -> Tensor:
    """The cluster of each number, (n,), int64; a part at a time, as float64 is needed only to compare."""
    indices = torch.empty(len(numbers), dtype=torch.int64, device=numbers.device)
    for part, out in zip(numbers.split(_AT_ONCE), indices.split(_AT_ONCE), strict=True):
        torch.bucketize(part.double(), middles, out=out)
    return indices


def _cut(v: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Where the clusters begin and end, (k + 1,): cluster j is ``v[cuts[j]:cuts[j + 1]]``."""
    inner = np.searchsorted(v, _middles(centres), side="right")
    return np.concatenate([[0], inner, [len(v)]])


def _middles(centres: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """The borders between neighbouring clusters, (k - 1,); a value on the border belongs to the lower one."""
    return (centres[1:] + centres[:-1]) / 2


def _fill_empty(
    centres: np.ndarray, mass: np.ndarray, v: np.ndarray, h: np.ndarray | None, cuts: np.ndarray
) -> None:
    """Move centres without values to the values that cost most, in place."""
    empty = np.flatnonzero(mass == 0)
    cost = (v - np.repeat(centres, np.diff(cuts))) ** 2 * (1.0 if h is None else h)
    count = min(len(empty), len(v))
    centres[empty[:count]] = v[np.argpartition(cost, -count)[-count:]]


def _checked_weights(values: Tensor, weights: Tensor | None) -> Tensor | None:
    """The weights as (n,) float64, or None for all ones, after values and weights have been checked."""
    if values.numel() == 0 or not torch.isfinite(values).all():
        raise ValueError(
            "values must be finite and at least one, got " + ("nan or inf" if values.numel() else "none")
        )
    if weights is None:
        return None
    if weights.shape != values.shape:
        raise ValueError(
            f"weights must have the values' shape {tuple(values.shape)}, got {tuple(weights.shape)}"
        )
    if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("weights must be finite, not negative, and have a positive sum")
    return weights.detach().flatten().double()
