"""Typical wrong answers to exercises 7.7 to 7.9: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_joint`.
"""

from __future__ import annotations

import torch


# -- 7.7 project_sparse_levels -----------------------------------------------------------------------

def _project(weight, levels, k, score, *, harm=False, values=None, nearest=None):
    """The k highest scores; `score(w, its level)`."""
    flat = weight.flatten()
    level = levels[(flat[:, None] - levels).abs().argmin(1)] if nearest is None else nearest(flat, levels)
    kept = score(flat, level).argsort(descending=True, stable=True)[:k]
    if not harm:
        kept = kept[(flat.square() - (flat - level).square())[kept] > 0]
    shown = level if values is None else values(flat, level)
    return torch.zeros_like(flat).index_copy(0, kept, shown[kept]).view_as(weight)


def gain_of(w, level):
    """How much nearer the level is than zero, in squares."""
    return w.square() - (w - level).square()


def largest_weights(weight, levels, k):
    """Prunes by magnitude, then rounds what is left."""
    return _project(weight, levels, k, lambda w, level: w.abs(), harm=True)


def largest_weights_without_harm(weight, levels, k):
    return _project(weight, levels, k, lambda w, level: w.abs())


def largest_levels(weight, levels, k):
    """Rounds, then prunes the rounded weights by magnitude."""
    return _project(weight, levels, k, lambda w, level: level.abs(), harm=True)


def best_rounded(weight, levels, k):
    return _project(weight, levels, k, lambda w, level: -(w - level).abs(), harm=True)


def always_k(weight, levels, k):
    return _project(weight, levels, k, gain_of, harm=True)


def gain_not_squared(weight, levels, k):
    return _project(weight, levels, k, lambda w, level: w.abs() - (w - level).abs())


def rounded_only(weight, levels, k):
    return _project(weight, levels, weight.numel(), gain_of, harm=True)


def rounded_with_zero(weight, levels, k):
    return _project(weight, levels, weight.numel(), gain_of)


def k_dropped(weight, levels, k):
    return _project(weight, levels, max(weight.numel() - k, 0), gain_of)


def values_kept(weight, levels, k):
    return _project(weight, levels, k, gain_of, values=lambda w, level: w)


def signs_lost(weight, levels, k):
    """The nearest level by magnitude."""
    return _project(weight, levels, k, gain_of, nearest=lambda w, levels: levels[(w.abs()[:, None] - levels).abs().argmin(1)])


def level_below(weight, levels, k):
    """Rounds down to a level, not to the nearest."""
    def below(w, levels):
        ordered = levels.sort().values
        return ordered[(torch.searchsorted(ordered, w, right=True) - 1).clamp(min=0)]

    return _project(weight, levels, k, gain_of, nearest=below)


def smallest_gains(weight, levels, k):
    return _project(weight, levels, k, lambda w, level: -gain_of(w, level))


# -- 7.8 admm ----------------------------------------------------------------------------------------

def _admm(A, b, project, rho, steps, *, target=lambda z, u: z - u, dual=lambda u, w, z: u + w - z, shown=lambda w, u: w + u, weight=None, answer="z"):
    """The loop, with one or another part exchanged."""
    z = u = torch.zeros_like(b)
    gaps = []
    inside = rho if weight is None else weight
    for _ in range(steps):
        w = torch.linalg.solve(A + inside * torch.eye(len(b), dtype=A.dtype), b + rho * target(z, u))
        z = project(shown(w, u))
        u = dual(u, w, z)
        gaps.append((w - z).norm().item())
    return {"z": z, "w": w, "u": u}[answer], gaps


def no_dual(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, dual=lambda u, w, z: u)


def dual_backwards(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, dual=lambda u, w, z: u + z - w)


def dual_replaced(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, dual=lambda u, w, z: w - z)


def pulled_the_wrong_way(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, target=lambda z, u: z + u)


def projected_without_dual(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, shown=lambda w, u: w)


def projected_minus_dual(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, shown=lambda w, u: w - u)


def dual_not_in_w(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, target=lambda z, u: z)


def rho_only_right(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, weight=0.0)


def rho_on_one_side(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, target=lambda z, u: (z - u) / rho)


def dual_times_rho(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, dual=lambda u, w, z: u + rho * (w - z))


def returns_w(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, answer="w")


def returns_u(A, b, project, rho, steps):
    return _admm(A, b, project, rho, steps, answer="u")


def dual_before_z(A, b, project, rho, steps):
    """The dual step takes the z of the step before."""
    z = u = torch.zeros_like(b)
    gaps = []
    for _ in range(steps):
        w = torch.linalg.solve(A + rho * torch.eye(len(b), dtype=A.dtype), b + rho * (z - u))
        u = u + w - z
        z = project(w + u)
        gaps.append((w - z).norm().item())
    return z, gaps


def project_once(A, b, project, rho, steps):
    best = torch.linalg.solve(A, b)
    z = project(best)
    return z, [(best - z).norm().item()] * steps


def squared_gaps(A, b, project, rho, steps):
    z, gaps = _admm(A, b, project, rho, steps)
    return z, [gap**2 for gap in gaps]


def last_gap_only(A, b, project, rho, steps):
    z, gaps = _admm(A, b, project, rho, steps)
    return z, gaps[-1]


def starts_at_projection(A, b, project, rho, steps):
    """Starts from the projected minimum, not from zero."""
    z, u = project(torch.linalg.solve(A, b)), torch.zeros_like(b)
    gaps = []
    for _ in range(steps):
        w = torch.linalg.solve(A + rho * torch.eye(len(b), dtype=A.dtype), b + rho * (z - u))
        z = project(w + u)
        u = u + w - z
        gaps.append((w - z).norm().item())
    return z, gaps


# -- 7.9 low_rank_plus_sparse ------------------------------------------------------------------------

def _low(matrix, rank):
    U, s, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vh[:rank]


def _top(matrix, nonzeros):
    flat = matrix.flatten()
    kept = flat.abs().argsort(descending=True)[:nonzeros]
    return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(matrix)


def _alternate(matrix, rank, nonzeros, steps, low=_low, top=_top, rest=lambda m, s: m - s, left=lambda m, lo, s: m - lo):
    sparse = torch.zeros_like(matrix)
    for _ in range(steps):
        lowest = low(rest(matrix, sparse), rank)
        sparse = top(left(matrix, lowest, sparse), nonzeros)
    return lowest, sparse


def once_is_enough(matrix, rank, nonzeros, steps):
    return _alternate(matrix, rank, nonzeros, 1)


def sparse_of_the_matrix(matrix, rank, nonzeros, steps):
    return _alternate(matrix, rank, nonzeros, steps, left=lambda m, lo, s: m)


def added_not_subtracted(matrix, rank, nonzeros, steps):
    return _alternate(matrix, rank, nonzeros, steps, rest=lambda m, s: m + s)


def residual_of_both(matrix, rank, nonzeros, steps):
    """The sparse part is taken from what *both* leave, so it forgets its own entries."""
    return _alternate(matrix, rank, nonzeros, steps, left=lambda m, lo, s: m - lo - s)


def largest_signed(matrix, rank, nonzeros, steps):
    def top(rest, nonzeros):
        flat = rest.flatten()
        kept = flat.argsort(descending=True)[:nonzeros]
        return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(rest)

    return _alternate(matrix, rank, nonzeros, steps, top=top)


def smallest_entries(matrix, rank, nonzeros, steps):
    def top(rest, nonzeros):
        flat = rest.flatten()
        kept = flat.abs().argsort()[:nonzeros]
        return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(rest)

    return _alternate(matrix, rank, nonzeros, steps, top=top)


def per_row(matrix, rank, nonzeros, steps):
    def top(rest, nonzeros):
        kept = rest.abs().topk(min(-(-nonzeros // len(rest)), rest.shape[1]), dim=1).indices
        return torch.zeros_like(rest).scatter(1, kept, rest.gather(1, kept))

    return _alternate(matrix, rank, nonzeros, steps, top=top)


def soft_threshold(matrix, rank, nonzeros, steps):
    def top(rest, nonzeros):
        size = rest.abs().flatten().sort(descending=True).values
        level = size[nonzeros] if nonzeros < len(size) else 0.0
        return rest.sign() * (rest.abs() - level).clamp(min=0)

    return _alternate(matrix, rank, nonzeros, steps, top=top)


def roots_of_singular_values(matrix, rank, nonzeros, steps):
    def low(rest, rank):
        U, s, Vh = torch.linalg.svd(rest, full_matrices=False)
        return (U[:, :rank] * s[:rank].sqrt()) @ Vh[:rank]

    return _alternate(matrix, rank, nonzeros, steps, low=low)


def smallest_singular_values(matrix, rank, nonzeros, steps):
    def low(rest, rank):
        U, s, Vh = torch.linalg.svd(rest, full_matrices=False)
        start = len(s) - rank
        return (U[:, start:] * s[start:]) @ Vh[start:]

    return _alternate(matrix, rank, nonzeros, steps, low=low)


def v_transposed(matrix, rank, nonzeros, steps):
    """`svd` returns V^H; its columns were taken for the vectors."""
    def low(rest, rank):
        U, s, Vh = torch.linalg.svd(rest, full_matrices=False)
        return (U[:, :rank] * s[:rank]) @ Vh[:, :rank].T if Vh.shape[0] == Vh.shape[1] else _low(rest, rank)

    return _alternate(matrix, rank, nonzeros, steps, low=low)


def sum_returned(matrix, rank, nonzeros, steps):
    low, sparse = _alternate(matrix, rank, nonzeros, steps)
    return low + sparse


def sparse_first(matrix, rank, nonzeros, steps):
    low = torch.zeros_like(matrix)
    for _ in range(steps):
        sparse = _top(matrix - low, nonzeros)
        low = _low(matrix - sparse, rank)
    return low, sparse
