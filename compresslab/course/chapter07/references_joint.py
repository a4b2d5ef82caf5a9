"""The reference answers of exercises 7.7 to 7.12.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core import kmeans_1d
from compresslab.core.statistics import mean_interval

# -- project, then pull ------------------------------------------------------------------------------

def project_sparse_levels(weight: Tensor, levels: Tensor, k: int) -> Tensor:
    """7.7: the nearest weight with at most k nonzeros, each of them one of the levels."""
    flat = weight.flatten()
    nearest = levels[(flat[:, None] - levels).abs().argmin(1)]
    gain = flat.square() - (flat - nearest).square()
    kept = gain.argsort(descending=True)[:k]
    kept = kept[gain[kept] > 0]
    return torch.zeros_like(flat).index_copy(0, kept, nearest[kept]).view_as(weight)


def admm(A: Tensor, b: Tensor, project: Callable[[Tensor], Tensor], rho: float, steps: int) -> tuple[Tensor, list[float]]:
    """7.8: (z, the gaps |w - z| of every step) for the least of w'Aw/2 - b'w among the points that `project` gives."""
    z = u = torch.zeros_like(b)
    gaps = []
    for _ in range(steps):
        w = torch.linalg.solve(A + rho * torch.eye(len(b), dtype=A.dtype), b + rho * (z - u))
        z = project(w + u)
        u = u + w - z
        gaps.append((w - z).norm().item())
    return z, gaps


# -- a sum of two ------------------------------------------------------------------------------------

def low_rank_plus_sparse(matrix: Tensor, rank: int, nonzeros: int, steps: int) -> tuple[Tensor, Tensor]:
    """7.9: (L, S), of this rank and with so many nonzeros at most, whose sum comes near the matrix."""
    sparse = torch.zeros_like(matrix)
    for _ in range(steps):
        U, s, Vh = torch.linalg.svd(matrix - sparse, full_matrices=False)
        low = (U[:, :rank] * s[:rank]) @ Vh[:rank]
        rest = (matrix - low).flatten()
        kept = rest.abs().argsort(descending=True)[:nonzeros]
        sparse = torch.zeros_like(rest).index_copy(0, kept, rest[kept]).view_as(matrix)
    return low, sparse


# -- order -------------------------------------------------------------------------------------------

def order_effect(rows: Sequence[Mapping[str, Any]], first: str, second: str) -> tuple[float, float, float]:
    """7.10: (mean, low, high) of what it gains to do `first` directly before `second`, not directly after it."""
    accuracy = {(tuple(row["order"]), row["seed"]): row["accuracy"] for row in rows}
    by_seed = {}
    for (order, seed), value in accuracy.items():
        for i in range(len(order) - 1):
            if order[i:i + 2] == (first, second):
                swapped = (*order[:i], second, first, *order[i + 2:])
                by_seed.setdefault(seed, []).append(value - accuracy[swapped, seed])
    return mean_interval([sum(gains) / len(gains) for gains in by_seed.values()])


# -- one budget for everything -----------------------------------------------------------------------

def clip_action(layer: int, action: int, costs: Sequence[Sequence[int]], spent: int, budget: int) -> int:
    """7.11: the action itself if the budget can still be met after it, else the dearest one after which it can."""
    later = sum(min(row) for row in costs[layer + 1:])
    room = budget - spent - later
    fits = [a for a, cost in enumerate(costs[layer]) if cost <= room]
    if not fits:
        raise ValueError(f"{budget} bytes are too few: the smallest budget that can be met is {spent + min(costs[layer]) + later}")
    return action if action in fits else max(fits, key=lambda a: costs[layer][a])


# -- a hybrid, repaired ------------------------------------------------------------------------------

def compress(weight: Tensor, teacher: nn.Module, images: Tensor, validation: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor],
             sparsity: float, k: int, steps: int, lr: float) -> tuple[Tensor, float]:
    """7.12: (the weight as it is stored, its accuracy on the test images)."""
    def right(weight, x, y):
        return ((x @ weight.T).argmax(1) == y).double().mean().item()

    kept = weight.abs().flatten().argsort(stable=True)[round(sparsity * weight.numel()):]
    values, labels = kmeans_1d(weight.flatten()[kept], k)
    with torch.no_grad():
        targets = copy.deepcopy(teacher).eval()(images).softmax(1)
    best, found = -1.0, None
    for _ in range(steps + 1):
        decoded = torch.zeros(weight.numel()).index_copy(0, kept, values[labels]).view_as(weight).requires_grad_()
        if right(decoded, *validation) > best:
            best, found = right(decoded, *validation), decoded.detach()
        gradient, = torch.autograd.grad(F.cross_entropy(images @ decoded.T, targets), decoded)
        values = values.index_add(0, labels, gradient.flatten()[kept], alpha=-lr)
    return found, right(found, *test)
