"""What a right answer to exercises 9.7 to 9.9 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from compresslab.course.trial import Trial, Wrong

# -- 9.7 tokens per second ---------------------------------------------------------------------------

LIMITED_BY_READING = (
    (1000, 8, 0, 1, 1000.0, 1e9), (1000, 4, 0, 1, 1000.0, 1e9), (1000, 8, 600, 1, 1000.0, 1e9), (1000, 8, 600, 5, 1000.0, 1e9),
    (7e9, 16, 2.0**31, 1, 2e12, 3e14), (7e9, 4.5, 2.0**31, 32, 2e12, 3e14),
)  # fmt: skip
LIMITED_BY_COMPUTING = ((1000, 8, 0, 10, 1e9, 1000.0), (1000, 2, 100, 10, 1e9, 500.0), (7e9, 4.5, 1e6, 512, 2e12, 3e14), (1000, 8, 300, 4, 2000.0, 1500.0))


def limit(weights: float, bits: float, cache_bytes: float, batch: int, bandwidth: float, macs_per_second: float) -> float:
    """Tokens per second, the slower of two rates."""
    read = weights * bits / 8 / batch + cache_bytes                            # bytes per token
    return min(bandwidth / read, macs_per_second / weights)


def verify_tokens_per_second(t: Trial) -> str:
    cases = [*LIMITED_BY_READING, *LIMITED_BY_COMPUTING]
    for _ in range(12):
        cases.append((float(t.integer(1, 90)) * 1e6, float(t.integer(2, 16)), float(t.integer(0, 50)) * 1e5, t.integer(1, 40),
                      t.uniform(1, 9) * 1e9, t.uniform(1, 9) * 1e9))
    for case in cases:
        got, wanted = t.number(t.call(*case)), limit(*case)
        t.expect(math.isfinite(got) and abs(got - wanted) <= 1e-5 * wanted,
                 f"{case[3]} text{'s' * (case[3] > 1)} at a time: {wanted:.5g} tokens per second are possible, you return {got:.5g}")
    return f"{len(cases)} machines and models, some limited by their memory, some by their arithmetic"


# -- 9.8 keys in few bits ----------------------------------------------------------------------------

def key_cases(t: Trial) -> list[tuple[Tensor, int, int]]:
    """Keys (B, H, L, d) with loud channels, a channel that does not change, tokens left over, and fewer than a group."""
    first = torch.tensor([[0.0, 10.0], [1.0, 40.0], [5.0, 25.0], [2.0, 70.0]])[None, None]
    cases = [(first, 1, 4), (first, 1, 2), (first, 2, 3)]
    for shape, bits, group in [((1, 1, 6, 3), 2, 3), ((1, 2, 7, 3), 2, 3), ((2, 1, 8, 4), 3, 4), ((2, 3, 13, 5), 2, 4), ((2, 2, 11, 4), 4, 5), ((1, 2, 3, 2), 2, 8)]:
        loud = torch.linspace(-3, 4, shape[3]).exp()
        cases.append((t.randn(*shape) * loud + 5 * loud, bits, group))
    still = t.randn(1, 2, 6, 3)
    still[..., 1] = 0.7
    return [*cases, (still, 2, 3), (t.randn(2, 2, 24, 3) * 4, 8, 12)]


def verify_quantize_keys(t: Trial) -> str:
    cases = key_cases(t)
    for keys, bits, group in cases:
        out = t.tensor(t.call(keys, bits, group), shape=keys.shape).double()
        t.expect(out.isfinite(), "not all of your numbers are finite: where a channel does not change, its scale is 0")
        whole = keys.shape[2] // group * group
        t.expect((out[:, :, whole:] == keys[:, :, whole:].double()), "the tokens behind the last whole group must stay as they are")
        if not whole:
            continue
        x, y = (part[:, :, :whole].double().unflatten(2, (-1, group)) for part in (keys, out))
        low, high = x.amin(3, keepdim=True), x.amax(3, keepdim=True)
        step = (high - low) / (2**bits - 1)
        worst = ((y - x).abs() / step.clamp(min=1e-9)).max().item() if (step > 0).any() else 0.0
        t.expect(((y - x).abs() <= 0.501 * step + 1e-5 * x.abs() + 1e-6), f"a number moved by {worst:.3g} steps of its channel's grid in its group; half a step is enough")
        rows = y.movedim(3, -1).reshape(-1, group).sort(dim=1).values
        gap = step.movedim(3, -1).reshape(-1, 1)
        levels = int((rows.diff(dim=1) > 0.01 * gap + 1e-6).sum(1).max()) + 1
        t.expect(levels <= 2**bits, f"a channel takes {levels} values in one group; {bits} bits have {2**bits}")
    return f"{len(cases)} sets of keys: every channel of every group on its own grid, nothing moved by more than half a step"


# -- 9.9 accept or draw again ------------------------------------------------------------------------

U, V = 8, 12                                                                   # parts of [0, 1) in which no answer changes
Rule = Callable[[Tensor, Tensor, int, float, float], tuple[int, bool]]


def what_comes_out(rule: Rule, p: Tensor, q: Tensor) -> tuple[list[float], float]:
    """The exact distribution of the token that comes out when tokens are drawn from q, and how often one is accepted."""
    out, accepted = [0.0] * len(p), 0.0
    for token in range(len(q)):
        if q[token] > 0:
            for u, v in product(range(U), range(V)):
                answer = rule(p.clone(), q.clone(), token, (u + 0.5) / U, (v + 0.5) / V)
                if not isinstance(answer, tuple | list) or len(answer) != 2:
                    raise Wrong("return two things: the token, and whether it was accepted")
                new, stays = int(answer[0]), bool(answer[1])
                if not 0 <= new < len(p):
                    raise Wrong(f"you return token {new}, which is not in a vocabulary of {len(p)}")
                out[new] += float(q[token]) / (U * V)
                accepted += float(q[token]) * stays / (U * V)
    return out, accepted


def pairs(t: Trial) -> list[tuple[Tensor, Tensor]]:
    """p and q whose quotients are eighths, and whose (p - q)+ adds up to a divisor of twelve: so a grid of u, v is exact."""
    shapes = ([8, 8], [4, 8, 4], [4, 4, 4, 4], [2, 8, 4, 2], [8, 8, 0, 0], [0, 8, 4, 4])
    out = []
    for weights in shapes:
        q = torch.tensor(weights)
        while True:
            cuts = t.integers(0, 16, (len(q) - 1,)).sort().values
            p = torch.cat([cuts, torch.tensor([16])]) - torch.cat([torch.tensor([0]), cuts])
            if int((p - q).clamp(min=0).sum()) in (1, 2, 3, 4, 6, 12):
                break
        out.append((p / 16, q / 16))
    return out


def verify_accept_or_resample(t: Trial) -> str:
    half = torch.tensor([0.5, 0.5])
    cases = [(torch.tensor([0.25, 0.75]), half), (torch.tensor([0.125, 0.5, 0.25, 0.125]), torch.tensor([0.5, 0.25, 0.125, 0.125])), (half, half), *pairs(t)]
    for p, q in cases:
        out, accepted = t.use(what_comes_out, p, q)
        wanted = float(torch.minimum(p, q).sum())
        difference = max(abs(a - b) for a, b in zip(out, p.tolist(), strict=True))
        t.expect(difference < 1e-4, f"p is {[round(x, 4) for x in p.tolist()]}, but what comes out is distributed as {[round(x, 4) for x in out]}")
        t.expect(abs(accepted - wanted) < 1e-4, f"{accepted:.4g} of the tokens are accepted; {wanted:.4g} can be")
    return f"{len(cases)} pairs of distributions: summed over every token, u and v, exactly p comes out"
