"""What a right answer to exercises 9.4 to 9.6 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compresslab.course.trial import Trial

Quantize = Callable[[Tensor], Tensor]


def correlated(t: Trial, n: int, *, rows: int = 60, loud: bool = False) -> Tensor:
    """H (n, n) of correlated inputs, positive definite; with `loud`, of very different sizes."""
    X = t.randn(n, n, dtype=torch.float64) @ t.randn(n, rows, dtype=torch.float64)
    if loud:
        X = X * torch.linspace(0.3, 4.0, n).double()[torch.randperm(n, generator=t.rng)][:, None]
    H = X @ X.T
    return H + 0.02 * H.diagonal().mean() * torch.eye(n).double()


def named(name: str, quantize: Quantize) -> Quantize:
    """A quantizer that an error message can name."""
    quantize.__name__ = name
    return quantize


def multiples(step: float) -> Quantize:
    return named(f"nearest_multiple_of_{step:g}", lambda column: torch.round(column / step) * step)


def four_bits(weight: Tensor, levels: int = 7) -> Quantize:
    """Integers from -levels to levels, a scale for each row."""
    scale = weight.double().abs().amax(1) / levels
    return named(f"one_scale_per_row_{levels}_levels_up", lambda w: torch.round(w / scale).clamp(-levels, levels) * scale)


# -- 9.4 obs_round -----------------------------------------------------------------------------------


def rounded_by_obs(weight: Tensor, H: Tensor, quantize: Quantize) -> tuple[Tensor, bool]:
    """The columns one after the other, each with the inverse of what is left of H; and whether no weight was near a tie."""
    W, sure = weight.double().clone(), True
    for j in range(W.shape[1]):
        C = torch.linalg.inv(H[j:, j:])
        rounded = quantize(W[:, j])
        sure &= torch.equal(quantize(W[:, j] + 1e-4), rounded) and torch.equal(quantize(W[:, j] - 1e-4), rounded)
        W[:, j:] -= torch.outer((W[:, j] - rounded) / C[0, 0], C[0])
        W[:, j] = rounded
    return W, sure


def verify_obs_round(t: Trial) -> str:
    equal = torch.tensor([[1.02, 1.0], [1.0, 1.02]], dtype=torch.float64)
    cases = [(torch.tensor([[0.4, 0.4]]), equal, multiples(1.0)), (torch.tensor([[0.3, 0.3]]), torch.eye(2).double(), multiples(1.0)),
             (torch.tensor([[1.3, -0.2, 0.45]]), torch.diag(torch.tensor([1.0, 4.0, 9.0])).double(), multiples(0.5)), (torch.tensor([[0.7]]), equal[:1, :1], multiples(1.0))]
    sizes = [(1, 3), (2, 3), (3, 5), (5, 8), (8, 10), (3, 12)]
    for number, (rows, columns) in enumerate(sizes):
        for kind in range(2):
            case = None
            while case is None or not rounded_by_obs(*case)[1]:                # a weight near a tie may go either way: draw again
                weight, H = t.randn(rows, columns), correlated(t, columns, loud=bool(number % 2))
                case = weight, H, multiples(0.5) if kind else four_bits(weight, (3, 7)[number % 2])
            cases.append(case)
    better = 0.0
    for weight, H, quantize in cases:
        got = t.tensor(t.call(weight, H, quantize), shape=weight.shape).detach().double()
        t.close(torch.stack([quantize(c) for c in got.T], 1), got, "some weights are no grid points: quantize gives other numbers for them", rtol=1e-4, atol=1e-5)
        t.close(got[:, 0], quantize(weight[:, 0].double()), "the first column has nothing owed to it: it goes to its nearest grid point", rtol=1e-4, atol=1e-5)
        nearest = torch.stack([quantize(column) for column in weight.double().T], 1)
        if torch.equal(H, torch.diag(H.diagonal())):
            t.close(got, nearest, "with a diagonal H nothing can make up for anything: round to the nearest", rtol=1e-4, atol=1e-5)
        t.close(got, rounded_by_obs(weight, H, quantize)[0], "that is not what Optimal Brain Surgeon does in this order", rtol=1e-4, atol=1e-5)
        off, plain = got - weight.double(), nearest - weight.double()
        better += float((((plain @ H) * plain).sum() - ((off @ H) * off).sum()) / H.diagonal().mean())
    t.expect(better > 0, "all cases together, rounding to the nearest makes the smaller error of the output")
    return f"{len(cases)} layers: on the grid, equal to Optimal Brain Surgeon in this order, to the nearest where H is diagonal"


# -- 9.5 obs_prune -----------------------------------------------------------------------------------


def pruned_by_obs(weight: Tensor, H: Tensor, n: int, m: int) -> tuple[Tensor, bool]:
    """As `rounded_by_obs`, with n of m columns kept by the least saliency; and whether no choice was near a tie."""
    W, sure = weight.double().clone(), True
    for start in range(0, W.shape[1], m):
        diagonal = torch.stack([torch.linalg.inv(H[j:, j:])[0, 0] for j in range(start, start + m)])
        saliency = W[:, start : start + m].square() / diagonal
        order = saliency.sort(1)
        if 0 < n < m:
            sure &= bool((order.values[:, m - n] > 1.001 * order.values[:, m - n - 1]).all())
        drop = torch.zeros_like(saliency).scatter(1, order.indices[:, : m - n], 1.0)
        for j in range(start, start + m):
            C = torch.linalg.inv(H[j:, j:])
            W[:, j:] -= torch.outer(W[:, j] * drop[:, j - start] / C[0, 0], C[0])
            W[:, j] *= 1 - drop[:, j - start]
    return W, sure


def verify_obs_prune(t: Trial) -> str:
    two = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    cases = [(torch.tensor([[1.0, 2.0]]), two, 1, 2), (torch.tensor([[2.0, 1.0]]), torch.diag(torch.tensor([1.0, 9.0])).double(), 1, 2),
             (torch.tensor([[0.5, -3.0], [1.0, 0.2]]), two, 2, 2)]
    for number, (rows, columns, n, m) in enumerate([(1, 4, 2, 4), (2, 4, 1, 2), (3, 6, 1, 3), (3, 6, 2, 3), (4, 8, 2, 4), (5, 12, 3, 4), (6, 16, 2, 4), (4, 16, 1, 4), (4, 16, 4, 8)]):
        case = None
        while case is None or not pruned_by_obs(*case)[1]:
            case = t.randn(rows, columns), correlated(t, columns, loud=bool(number % 2)), n, m
        cases.append(case)
    cases.append((t.randn(4, 8), torch.diag(torch.rand(8, generator=t.rng) * 5 + 0.1).double(), 2, 4))
    for weight, H, n, m in cases:
        got = t.tensor(t.call(weight, H, n, m), shape=weight.shape).detach().double()
        left = (got != 0).view(len(weight), -1, m).sum(2)
        t.expect(left == n, f"{n} of every {m} weights of a row stay; yours keeps {int(left.min())} to {int(left.max())}")
        wanted = pruned_by_obs(weight, H, n, m)[0]
        if torch.equal(H, torch.diag(H.diagonal())):
            t.close(got[got != 0], weight.double()[got != 0], "with a diagonal H nothing can make up for anything: what stays is not moved", rtol=1e-4, atol=1e-5)
        t.expect((got != 0) == (wanted != 0), "other weights are dropped than those of least saliency when their group begins")
        t.close(got, wanted, "the weights that stay have not moved as Optimal Brain Surgeon moves them", rtol=1e-4, atol=1e-5)
    return f"{len(cases)} layers, 1:2 to 4:8: exact counts, least saliency in each group, compensation to the right"


# -- 9.6 smooth --------------------------------------------------------------------------------------


def scale_of(x: float, columns: list[Tensor], alpha: float) -> float:
    w = max(float(column.abs().max()) for column in columns)
    return x**alpha * w ** (alpha - 1) if x > 0 and w > 0 else 1.0


def smoothing_cases(t: Trial) -> list[tuple[Tensor, list[Tensor], Tensor, float]]:
    """Small ones first; one and several readers, loud and silent channels."""
    cases = [(torch.tensor([2.0, 1.0]), [torch.tensor([[1.0, -1.0]])], torch.tensor([64.0, 1.0]), 0.5),
             (torch.tensor([1.0, 3.0]), [torch.tensor([[0.5, 2.0]]), torch.tensor([[-4.0, 0.25]])], torch.tensor([16.0, 1.0]), 0.5)]
    for readers, outputs, inputs in [(1, 3, 3), (3, 4, 4), (2, 6, 5), (3, 2, 8), (1, 7, 12), (2, 12, 12)]:
        for alpha in (0.5, t.uniform(0.05, 0.95), 1.0 if outputs % 2 else 0.0):
            weights = [t.randn(outputs + (k if inputs % 2 else 0), inputs) * (0.3 + k) for k in range(readers)]
            x = t.randn(inputs).abs() + 0.1
            x[t.integer(0, inputs - 1)] *= 50
            cases.append((t.randn(inputs).abs() + 0.5, weights, x, alpha))
    gamma, (first, second), x = torch.ones(4), (t.randn(3, 4), t.randn(3, 4)), t.randn(4).abs() + 1
    x[1], first[:, 2], second[:, 2] = 0.0, 0.0, 0.0                             # no input, and no weight
    cases += [(gamma, [first, second], x, alpha) for alpha in (0.5, 0.8)]
    return cases


def verify_smooth(t: Trial) -> str:
    cases = smoothing_cases(t)
    for gamma, readers, x, alpha in cases:
        output = t.call(gamma, readers, x, alpha)
        t.expect(isinstance(output, tuple | list) and len(output) == 2, "return two things: the new gamma and the list of new weights")
        new_gamma, weights = t.tensor(output[0], shape=gamma.shape), output[1]
        t.expect(isinstance(weights, tuple | list) and len(weights) == len(readers), f"there are {len(readers)} readers, so a list of as many new weights")
        weights = [t.tensor(W, shape=old.shape).double() for W, old in zip(weights, readers)]
        t.expect(torch.isfinite(new_gamma).all() and all(torch.isfinite(W).all() for W in weights),
                 "something is infinite or nan: a channel without input, or whose weights are all zero, keeps the scale 1")
        normed = t.randn(5, len(gamma), dtype=torch.float64)
        for old, new in zip(readers, weights):
            t.close((normed * new_gamma.double()) @ new.T, (normed * gamma.double()) @ old.double().T,
                    "the function has changed: gamma is divided by what every reader's columns are multiplied by", rtol=1e-4, atol=1e-4)
        s = torch.tensor([scale_of(float(x[j]), [W[:, j] for W in readers], alpha) for j in range(len(x))]).double()
        t.close(gamma.double() / new_gamma.double(), s, "the function is the same, but these are not the scales asked for", rtol=1e-3, atol=1e-6)
        if alpha == 0.5:
            live = (x > 0) & (torch.cat(readers).abs().amax(0) > 0)
            t.close((x / s)[live], torch.cat(weights).abs().amax(0)[live], "at alpha = 1/2 input and weights of a channel have the same range", rtol=1e-3)
    return f"{len(cases)} norms with 1 to 3 readers: function unchanged, one scale for all readers, equal ranges at 1/2, silent channels left alone"
