"""What a right answer to exercises 7.7 to 7.9 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from compresslab.course.trial import Trial

# -- 7.7 two constraints, one projection --------------------------------------------------------------

def least_distance(weight: Tensor, levels: Tensor, k: int) -> float:
    """The squared distance to the nearest allowed weight, by trying every one."""
    w, values = weight.flatten().double(), [0.0, *levels.tolist()]
    points = torch.tensor(list(itertools.product(values, repeat=len(w))), dtype=torch.float64)
    points = points[(points != 0).sum(1) <= k]
    return float((points - w).square().sum(1).min())


def _allowed(t: Trial, z: Tensor, levels: Tensor, k: int) -> None:
    t.expect(not z.isnan().any(), "there is a nan in your result")
    t.expect(int((z != 0).sum()) <= k, f"{int((z != 0).sum())} weights are not 0, {k} are allowed")
    off = (z[z != 0].flatten()[:, None] - levels).abs().min(1).values if (z != 0).any() else torch.zeros(1)
    t.expect(off.max() < 1e-6, "a weight that is not 0 must be one of the levels")


def verify_project_sparse_levels(t: Trial) -> str:
    two = torch.tensor([-1.0, 1.0])
    cases = [(torch.tensor([0.9, -1.2, 0.1]), two, 2), (torch.tensor([0.9, -1.2, 0.1]), two, 3), (torch.tensor([3.0, -2.0]), torch.tensor([-2.0, 1.0]), 1),
             (torch.tensor([1.4, -1.5, 0.7]), torch.tensor([-0.5, 1.5]), 1), (torch.tensor([-3.0, 1.0]), torch.tensor([1.0]), 1),
             (torch.tensor([[2.0, 2.2], [-0.9, 0.2]]), torch.tensor([-1.0, 2.5, 4.0]), 2), (torch.tensor([0.3, -0.4]), two, 2), (torch.tensor([1.0, 2.0]), two, 0),
             (torch.tensor([2.6, 2.4, -2.0]), torch.tensor([3.0, -2.0, 1.0]), 2)]
    cases += [(2 * t.randn(*shape), 2 * t.randn(count), k) for shape, count, k in (((5,), 2, 2), ((2, 3), 3, 3), ((6,), 1, 4), ((3, 2), 3, 2), ((6,), 2, 1), ((2, 2), 4, 3))]
    for weight, levels, k in cases:
        z = t.tensor(t.call(weight, levels, k), shape=weight.shape).double()
        _allowed(t, z, levels.double(), k)
        off, least = float((z - weight.double()).square().sum()), least_distance(weight, levels, k)
        t.expect(off <= least * (1 + 1e-4) + 1e-6, f"your weight is {off:.4g} away (sum of squares), another one with {k} nonzeros at most only {least:.4g}")
    weight, levels = t.randn(30, 20), torch.tensor([-2.0, -0.7, 0.4, 1.1])
    z = t.tensor(t.call(weight, levels, 150), shape=weight.shape)
    _allowed(t, z, levels, 150)
    off, least = ((found - weight).square().sum() for found in (z, t.reference(weight, levels, 150)))
    t.expect(off <= least * (1 + 1e-5), f"on a layer of 30 x 20 yours is {float(off):.4g} away, the nearest one {float(least):.4g}")
    t.close(t.call(z, levels, 150), z, "what is in the set already must come back as it is")
    return f"the nearest of all allowed weights, by trying every one, for {len(cases)} settings; a projection of a projection is itself"


# -- 7.8 ADMM ----------------------------------------------------------------------------------------

def box(w: Tensor) -> Tensor:
    """The nearest point whose entries are between -1 and 1."""
    return w.clamp(-1, 1)


def nonnegative(w: Tensor) -> Tensor:
    """The nearest point without a negative entry."""
    return w.clamp(min=0)


def ball(w: Tensor) -> Tensor:
    """The nearest point of length 1 at most."""
    return w / w.norm().clamp(min=1)


def plane(w: Tensor) -> Tensor:
    """The nearest point whose entries add up to 1."""
    return w + (1 - w.sum()) / len(w)


def two_left(w: Tensor) -> Tensor:
    """The nearest point with two entries that are not 0."""
    kept = w.abs().argsort(descending=True, stable=True)[:2]
    return torch.zeros_like(w).index_copy(0, kept, w[kept])


def quadratic(t: Trial, n: int) -> tuple[Tensor, Tensor]:
    """(A, b): a bowl that is not round, its least point away from zero."""
    X = t.randn(2 * n, n, dtype=torch.float64)
    A = X.T @ X / (2 * n) + 0.1 * torch.eye(n, dtype=torch.float64)
    return A, A @ (2 * t.randn(n, dtype=torch.float64))


def verify_admm(t: Trial) -> str:
    A = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([4.0, 0.5], dtype=torch.float64)
    sets: list[Callable[[Tensor], Tensor]] = [box, nonnegative, ball, plane, two_left]
    cases = [(A, b, box, 1.0, 1), (A, b, box, 1.0, 2), (A, b, ball, 0.5, 3), (A, b, plane, 2.0, 4)]
    cases += [(*quadratic(t, n), project, rho, steps) for n, project, rho, steps in
              zip((3, 4, 3, 5, 6), sets, (0.5, 2.0, 0.7, 3.0, 0.4), (2, 3, 5, 4, 6))]
    for case in cases:
        output = t.call(*case)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 2, "return (z, the list of gaps)")
        z, gaps = output
        z = t.tensor(z, shape=case[1].shape)
        gaps = gaps.tolist() if isinstance(gaps, Tensor) and gaps.ndim == 1 else gaps
        t.expect(isinstance(gaps, (tuple, list)) and len(gaps) == case[4], f"return one gap |w - z| for each of the {case[4]} steps, as a list")
        wanted, right = t.reference(*case)
        t.close(z.double(), wanted, f"z after {case[4]} step{'s' * (case[4] > 1)}, from z = u = 0", rtol=1e-4, atol=1e-6)
        t.close([t.number(gap) for gap in gaps], right, "the gaps |w - z|, each after its z step", rtol=1e-4, atol=1e-6)
    for project in (box, nonnegative, ball, plane):
        A, b = quadratic(t, 4)
        z, gaps = t.call(A, b, project, 1.0, 400)
        t.expect(t.number(gaps[-1]) < 1e-4, "on a convex set the gap must go to 0")
        t.close(z, project(z - 0.1 * (A @ z - b)), "on a convex set z must end where no step downhill stays in the set", rtol=1e-3, atol=1e-4)
    return f"z and the gaps of {len(cases)} short runs, and the known end of 4 long ones"


# -- 7.9 a sum of two --------------------------------------------------------------------------------

def planted(t: Trial, rows: int, columns: int, rank: int, nonzeros: int) -> Tensor:
    """A matrix of low rank whose entries are all alike, with a few entries added that stand out, of both signs."""
    low = sum((2.0 * t.integers(0, 1, (rows, 1)) - 1) * (2.0 * t.integers(0, 1, (1, columns)) - 1) for _ in range(rank))
    sparse = torch.zeros(rows * columns)
    sparse[torch.randperm(rows * columns, generator=t.rng)[:nonzeros]] = 3.0 * (2.0 * t.integers(0, 1, (nonzeros,)) - 1)
    return low + sparse.view(rows, columns)


def _parts(t: Trial, matrix: Tensor, rank: int, nonzeros: int, steps: int) -> tuple[Tensor, Tensor]:
    output = t.call(matrix, rank, nonzeros, steps)
    t.expect(isinstance(output, (tuple, list)) and len(output) == 2 and all(isinstance(part, Tensor) for part in output), "return the two parts, (L, S)")
    return tuple(t.tensor(part, shape=matrix.shape) for part in output)


def verify_low_rank_plus_sparse(t: Trial) -> str:
    small = torch.tensor([[2.0, 0.0], [0.0, -1.0]])
    cases = [(small, 1, 0, 1), (small, 1, 1, 1), (small, 0, 1, 1), (torch.tensor([[1.0, 2.0, -3.0], [2.0, 4.0, 6.5]]), 1, 1, 1),
             (torch.tensor([[1.0, 2.0, -3.0], [2.0, 4.0, 6.5]]), 1, 1, 3)]
    cases += [(t.randn(m, n), rank, nonzeros, steps) for m, n, rank, nonzeros, steps in
              ((4, 3, 1, 2, 1), (5, 5, 2, 4, 2), (6, 4, 2, 5, 4), (4, 8, 1, 7, 5), (5, 4, 0, 6, 2), (6, 6, 3, 0, 3), (7, 7, 2, 10, 6))]
    for matrix, rank, nonzeros, steps in cases:
        low, sparse = _parts(t, matrix, rank, nonzeros, steps)
        t.expect(torch.linalg.matrix_rank(low.double(), rtol=1e-4) <= rank, f"the rank of L must be at most {rank}")
        t.expect(int((sparse != 0).sum()) <= nonzeros, f"S has {int((sparse != 0).sum())} nonzeros, {nonzeros} are allowed")
        left = (matrix - low).abs().flatten().sort().values[:matrix.numel() - nonzeros].square().sum()
        off = (matrix - low - sparse).square().sum()
        t.expect(off <= left * (1 + 1e-3) + 1e-5, f"with this L another S leaves less: {float(left):.4g}, yours {float(off):.4g}")
        wanted_low, wanted_sparse = t.reference(matrix, rank, nonzeros, steps)
        t.close(low, wanted_low, f"L after {steps} step{'s' * (steps > 1)} from S = 0", rtol=1e-2, atol=1e-3)
        t.close(sparse, wanted_sparse, f"S after {steps} step{'s' * (steps > 1)} from S = 0", rtol=1e-2, atol=1e-3)
    matrix, before = t.randn(8, 6), float("inf")
    for steps in (1, 2, 4, 8):
        off = float((matrix - sum(_parts(t, matrix, 2, 6, steps))).norm())
        t.expect(off <= before * (1 + 1e-4), "more steps must never leave more")
        before = off
    matrix = planted(t, 20, 16, 2, 6)
    off = float((matrix - sum(_parts(t, matrix, 2, 6, 40))).norm() / matrix.norm())
    t.expect(off < 1e-2, f"this matrix is of rank 2 with 6 entries added that stand out: 40 steps must find that, yours leave {off:.1%}")
    return f"both parts of {len(cases)} matrices; the error never rises; a planted sum is found"
