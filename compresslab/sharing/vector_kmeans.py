r"""K-means for points in space: the code book of product quantization and of filter clustering.

On the line clusters are intervals, and sorting finds them (``core.kmeans``). In d dimensions every step
measures all n k distances. They are one matrix product:
:math:`\|x - c\|^2 = \|x\|^2 - 2\,x^\top c + \|c\|^2`, where the first term is the same for all centres.
Product quantization has many small problems of one size, so a batch of them is solved in one go.
"""

import torch
from torch import Tensor

from compresslab.core.errors import check_int

_ENTRIES = 2**16  # distances held at a time: they stay in the cache
_CANDIDATES = 64  # points per centre among which k-means++ draws


def kmeans(
    points: Tensor,
    k: int,
    *,
    seed: int = 0,
    iterations: int = 50,
    weights: Tensor | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Cluster points by Lloyd's algorithm from k-means++ centres.

    .. math:: \min_c \sum_i h_i\,\|x_i - c_{a(i)}\|^2, \qquad a(i) = \arg\min_j \|x_i - c_j\|, \qquad
              c_j = \frac{\sum_{a(i)=j} h_i x_i}{\sum_{a(i)=j} h_i}

    The first centre is a point drawn at random, each next one a point drawn with a probability proportional
    to its cost so far. Then means and assignment take turns until nothing changes. A centre that loses all
    its points moves to the point that costs most. No step ever raises the objective.

    Args:
        points: :math:`x`, floating-point, (n, d), finite, at least one; or (b, n, d), b separate problems.
        k: number of centres, at least 1; beyond the number of different points some centres repeat.
        seed: of the first centres.
        iterations: most rounds of means and assignment; 0 gives the first centres.
        weights: :math:`h`, (n,) or (b, n), not negative, not all zero; None means all ones.
        start: the first centres, (k, d) or (b, k, d), in the place of k-means++.

    Returns:
        ``codebook`` (k, d), of the points' dtype, and ``indices`` (n,), int64, the nearest centre of each;
        with a b in front where the points have it.

    Raises:
        TypeError: ``k``, ``seed`` or ``iterations`` is no whole number, or points are not floating-point.
        ValueError: points, weights or ``start`` of another shape, not finite, or none; weights negative.

    Source:
        D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007; S. Lloyd,
        "Least Squares Quantization in PCM", IEEE Transactions on Information Theory, 1982.
    Differs: of more than 64 k points, a random 64 k are the candidates for the first centres.

    Example:
        >>> points = torch.tensor([[0.0, 0.0], [0.0, 2.0], [9.0, 5.0]])
        >>> kmeans(points, 2, start=torch.tensor([[0.0, 0.0], [9.0, 9.0]]))
        (tensor([[0., 1.],
                [9., 5.]]), tensor([0, 0, 1]))
    """
    x, h = _checked(points, k, weights)
    check_int("iterations", iterations, 0)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    middle = x.mean(1, keepdim=True)
    x = x - middle  # smaller numbers: the product of the distances cancels less
    if start is None:
        centres = _seed_centres(*_candidates(x, h, k, generator), k, generator)
    else:
        centres = _checked_start(start, (*points.shape[:-2], k, x.shape[2])).view(len(x), k, -1) - middle
    indices = nearest(x, centres)
    for _ in range(iterations):
        centres = _means(x, h, indices, centres)
        previous, indices = indices, nearest(x, centres)
        if torch.equal(previous, indices):
            break
    codebook = (centres + middle).to(points.dtype).to(points.device)
    return codebook.view(*points.shape[:-2], k, -1), indices.to(points.device).view(points.shape[:-1])


def nearest(points: Tensor, codebook: Tensor) -> Tensor:
    """The nearest centre of each point, the first of equally near ones.

    Args:
        points: (b, n, d), float32 or float64.
        codebook: (b, k, d), of the same dtype.

    Returns:
        int64, (b, n).

    Raises:
        ValueError: the two do not agree in b and d.

    Example:
        >>> nearest(torch.tensor([[[0.0, 3.0], [1.0, 0.0]]]), torch.tensor([[[0.0, 0.0], [0.0, 5.0]]]))
        tensor([[1, 0]])
    """
    shapes = tuple(points.shape), tuple(codebook.shape)
    if points.ndim != 3 or codebook.ndim != 3 or shapes[0][::2] != shapes[1][::2]:
        raise ValueError(f"points (b, n, d) and centres (b, k, d) must agree in b and d, got {shapes}")
    half = codebook.square().sum(2).unsqueeze(1) / 2  # (b, 1, k)
    step = max(1, _ENTRIES // (shapes[1][0] * shapes[1][1]))
    parts = []
    for part in points.split(step, 1):
        distances = torch.baddbmm(half, part, codebook.transpose(1, 2), alpha=-1)  # halved, less |x|^2 / 2
        parts.append(torch.from_numpy(distances.detach().cpu().numpy().argmin(2)))  # numpy's is faster
    return torch.cat(parts, 1).to(points.device)


def _candidates(x: Tensor, h: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """At most 64 k points with weight, and their weights."""
    allowed = (h > 0).all(0).nonzero().flatten()
    if len(allowed) <= _CANDIDATES * k:
        return x, h
    drawn = allowed[torch.randperm(len(allowed), generator=generator)[: _CANDIDATES * k]]
    return x[:, drawn], h[:, drawn]


def _seed_centres(x: Tensor, h: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++: points drawn with a probability proportional to their cost, which each draw lowers."""
    problems = torch.arange(len(x))
    chosen, cost = [], torch.ones_like(h)
    for step in range(k):
        odds = h * cost
        odds = torch.where(odds.sum(1, keepdim=True) > 0, odds, h)  # every point is a centre already
        drawn = _draw(odds, generator)
        chosen.append(x[problems, drawn])
        distance = (x - chosen[-1].unsqueeze(1)).square().sum(2)
        cost = distance if step == 0 else torch.minimum(cost, distance)
    return torch.stack(chosen, 1)


def _draw(odds: Tensor, generator: torch.Generator) -> Tensor:
    """An index for each row, with a probability proportional to ``odds`` (b, n); never one of odds 0."""
    steps = odds.cumsum(1)
    place = torch.rand(len(odds), 1, generator=generator, dtype=steps.dtype) * steps[:, -1:]
    last = torch.where(odds > 0, torch.arange(odds.shape[1]), 0).amax(1)
    return torch.minimum(torch.searchsorted(steps, place, right=True).squeeze(1), last)


def _means(x: Tensor, h: Tensor, indices: Tensor, centres: Tensor) -> Tensor:
    """The weighted mean of each cluster; a centre without points goes to one of the points that cost most."""
    b, k, _ = centres.shape
    cluster = (indices + k * torch.arange(b).unsqueeze(1)).flatten()
    mass = torch.bincount(cluster, h.flatten(), minlength=b * k)
    sums = [torch.bincount(cluster, (h * axis).flatten(), minlength=b * k) for axis in x.unbind(2)]
    means = (torch.stack(sums, 1) / mass.where(mass > 0, 1.0).unsqueeze(1)).view(b, k, -1)
    empty = (mass == 0).view(b, k)
    for j in empty.any(1).nonzero().flatten().tolist():
        cost = h[j] * (x[j] - centres[j][indices[j]]).square().sum(1)
        vacant = empty[j].nonzero().flatten()
        means[j, vacant] = centres[j, vacant]
        dearest = cost.topk(min(len(vacant), int((cost > 0).sum()))).indices
        means[j, vacant[: len(dearest)]] = x[j, dearest]
    return means


def _checked(points: Tensor, k: int, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Points (b, n, d) and weights (b, n) in float64 on the CPU, after they have been checked."""
    check_int("k", k, 1)
    if not points.is_floating_point():
        raise TypeError(f"points must be floating-point, got {points.dtype}")
    if points.ndim not in (2, 3) or points.numel() == 0:
        raise ValueError(
            f"points must have shape (n, d) or (b, n, d), at least one, got {tuple(points.shape)}"
        )
    if not torch.isfinite(points).all():
        raise ValueError("points must be finite, got nan or inf among them")
    x = points.detach().double().cpu().reshape(-1, *points.shape[-2:])
    if weights is None:
        return x, torch.ones(x.shape[:2], dtype=torch.float64)
    if tuple(weights.shape) not in (tuple(points.shape[-2:-1]), tuple(points.shape[:-1])):
        raise ValueError(
            f"weights must have shape ({x.shape[1]},), one for each point, got {tuple(weights.shape)}"
        )
    h = weights.detach().double().cpu().expand(x.shape[:2])
    if not (torch.isfinite(h).all() and (h >= 0).all() and (h.sum(1) > 0).all()):
        raise ValueError("weights must be finite, not negative, and have a positive sum")
    return x, h


def _checked_start(start: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(start.shape) != shape or not torch.isfinite(start).all():
        raise ValueError(f"start must be finite, of shape {shape}, got {tuple(start.shape)}")
    return start.detach().double().cpu()
