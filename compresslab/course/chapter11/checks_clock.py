"""What a right answer to exercises 11.1 and 11.2 must do. No clock of the real world is read.

The harness of exercise 11.1 runs on a machine of our own, whose clock goes in ticks, whose functions are slow
when they are cold or when another one ran before, and whose speed drifts. It notes who was called when, and what each call truly took.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from compresslab.course.trial import Trial, Wrong

# -- 11.1 a fair harness -----------------------------------------------------------------------------


class Machine:
    """A computer that only these checks have: `functions` to be timed, and a `clock` that shows whole ticks."""

    def __init__(self, costs: dict[str, float], tick: float = 0.0, cold: float = 0.0, drift: float = 0.0) -> None:
        self.now, self.tick, self.drift = 100.0, tick, drift                   # the caches hold what ran last
        self.cold = dict.fromkeys(costs, cold)
        self.log: list[tuple[str, float]] = []                                 # (name, what the call took)
        self.readings: list[int] = []                                          # how many calls had been made
        self.functions = {name: self._function(name, cost) for name, cost in costs.items()}

    def clock(self) -> float:
        self.readings.append(len(self.log))
        return math.floor(self.now / self.tick + 1e-9) * self.tick if self.tick else self.now

    def _function(self, name: str, cost: float) -> Callable[[], None]:
        def run() -> None:
            other = bool(self.log) and self.log[-1][0] != name
            took = cost * (1 + self.drift * len(self.log) + other) + self.cold[name]
            self.cold[name] /= 4
            self.now += took
            self.log.append((name, took))
        return run


def run_harness(harness: Callable[..., Any], costs: dict[str, float], rounds: int, warmup: int, calls: int,
                tick: float, cold: float, drift: float) -> tuple[Any, list[tuple[str, float]], list[int]]:
    """What the harness returned, which calls it made, and when it read the clock."""
    machine = Machine(costs, tick, cold, drift)
    samples = harness(machine.functions, rounds, warmup, calls, machine.clock)
    if not isinstance(samples, dict):
        raise Wrong("return a dict: the name of each function and its list of samples")
    if list(samples) and not all(hasattr(values, "__len__") for values in samples.values()):
        raise Wrong("return a list for each function, one number a round: the next exercise compares round with round")
    own = not machine.readings                                                 # real seconds would be others at every call
    return {name: [-1.0 if own else float(t) for t in samples[name]] for name in sorted(samples)}, machine.log, machine.readings


HARNESS_CASES = (
    # costs, rounds, warmup, calls, tick, cold, drift
    ({"a": 1.0}, 1, 0, 1, 0.0, 0.0, 0.0),
    ({"a": 1.0, "b": 2.0}, 2, 1, 1, 0.0, 8.0, 0.0),
    ({"a": 1.0, "b": 1.0}, 4, 3, 1, 0.0, 8.0, 0.5),
    ({"a": 1.0, "b": 4.0, "c": 2.0}, 6, 2, 1, 0.0, 16.0, 0.25),
    ({"a": 0.75, "b": 1.25}, 4, 2, 8, 1.0, 8.0, 0.0),
    ({"c": 0.25, "a": 0.5, "b": 0.125, "d": 1.0}, 8, 3, 16, 1.0, 8.0, 0.015625),
)


def verify_time_interleaved(t: Trial) -> str:
    for costs, rounds, warmup, calls, tick, cold, drift in HARNESS_CASES:
        samples, log, readings = t.use(run_harness, costs, rounds, warmup, calls, tick, cold, drift)
        told = f"{len(costs)} functions, {rounds} rounds, {warmup} warm-up calls, {calls} calls a sample"
        t.expect(list(samples) == sorted(costs), f"the names are {', '.join(sorted(costs))}; you return {', '.join(samples) or 'none'}")
        t.expect(all(len(v) == rounds for v in samples.values()), f"with {rounds} rounds each function needs {rounds} samples, one a round")
        runs = [name for name, _ in log]
        wanted = warmup + rounds * (calls + 1)
        t.expect(all(runs.count(name) == wanted for name in costs),
                 f"{told}: each function must be called {wanted} times in all: {warmup} + {rounds} ({calls} + 1); you call it {', '.join(str(runs.count(name)) for name in costs)} times")
        start = warmup * len(costs)
        t.expect(all(runs[:start].count(name) == warmup for name in costs),
                 f"{told}: the first {start} calls must be the warm-up, {warmup} for each function, before anything is timed")
        expect_turns(t, runs[start:], list(costs), rounds, calls + 1, told)
        t.expect(len(readings) == 2 * rounds * len(costs), f"{told}: read the clock twice per sample, before and after all its calls; you read it {len(readings)} times")
        places = [start + sample * (calls + 1) + offset for sample in range(rounds * len(costs)) for offset in (1, calls + 1)]
        t.expect(readings == places, f"{told}: in each sample one call comes before the first reading of the clock, {calls} between the two")
        expect_values(t, samples, log[start:], rounds, calls, tick, told)
    return f"{len(HARNESS_CASES)} races on a machine with cold starts, a coarse clock and a drift: warm, in turns, each after a call of its own"


def expect_turns(t: Trial, runs: list[str], names: list[str], rounds: int, calls: int, told: str) -> None:
    """Each round every function once, with all its calls in a row; over the rounds each place equally often."""
    n = len(names)
    groups = [runs[i * calls : (i + 1) * calls] for i in range(rounds * n)]
    t.expect(all(len(set(group)) == 1 for group in groups), f"{told}: the calls of one sample must follow one another")
    order = [[group[0] for group in groups[r * n : (r + 1) * n]] for r in range(rounds)]
    t.expect(all(sorted(row) == sorted(names) for row in order), f"{told}: every round must time every function once, in turns")
    if rounds % n == 0:
        for place in range(n):
            column = [row[place] for row in order]
            t.expect(all(column.count(name) == rounds // n for name in names),
                     f"{told}: over the rounds each function must take place {place + 1} {rounds // n} times; you have {', '.join(column)}")


def expect_values(t: Trial, samples: dict[str, list[float]], log: list[tuple[str, float]], rounds: int, calls: int, tick: float, told: str) -> None:
    """Seconds per call, in the order of the rounds, as exact as the clock allows."""
    for name, got in samples.items():
        took = [seconds for other, seconds in log if other == name]
        for r in range(rounds):
            true = sum(took[r * (calls + 1) + 1 : (r + 1) * (calls + 1)]) / calls
            t.expect(abs(got[r] - true) <= tick / calls + 1e-6 * true,
                     f"{told}: in round {r + 1} a call of {name} took {true:.4g} seconds by this clock, you have {got[r]:.4g}")


# -- 11.2 the interval of a ratio --------------------------------------------------------------------


def drawn(function: Callable[..., Any], slow: list[float], fast: list[float], confidence: float, resamples: int, seeds: tuple[int, ...]) -> list[list[float]]:
    """[ratio, low, high] for each seed of the generator."""
    out = []
    for seed in seeds:
        answer = function(list(slow), list(fast), confidence, resamples, torch.Generator().manual_seed(seed))
        if not isinstance(answer, tuple | list | torch.Tensor) or len(answer) != 3:
            raise Wrong("return three numbers: the ratio, and the low and the high end of its interval")
        out.append([float(v) for v in answer])
    return out


def middle(values: torch.Tensor) -> torch.Tensor:
    return values.quantile(0.5, dim=-1)


def noisy_rounds(t: Trial, rounds: int, factor: float) -> tuple[list[float], list[float]]:
    """Two columns of times with a speed of the machine that both share, noise of their own, and a few pauses."""
    shared = 1 + 0.5 * t.randn(rounds).abs()
    a, b = (shared * (1 + 0.1 * t.randn(rounds).abs()) for _ in range(2))
    paused = t.integers(0, rounds - 1, (max(1, rounds // 8),))
    a[paused] *= 6
    return (factor * a).tolist(), b.tolist()


def verify_ratio_interval(t: Trial) -> str:
    easy = ([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]), ([3.0, 9.0, 6.0, 30.0], [2.0, 4.0, 3.0, 8.0])
    columns = [*easy, noisy_rounds(t, 9, 1.0), noisy_rounds(t, 12, 4.0)]
    for slow, fast in columns:
        a, b = torch.tensor(slow).double(), torch.tensor(fast).double()
        ((ratio, low, high),) = t.use(drawn, slow, fast, 0.9, 200, (1,))
        wanted = float(middle(a) / middle(b))
        t.expect(abs(ratio - wanted) <= 1e-5 * wanted, f"the medians are {float(middle(a)):.4g} and {float(middle(b)):.4g}, so the ratio is {wanted:.4g}, not {ratio:.4g}")
        t.expect(low <= high, f"the low end {low:.4g} is above the high end {high:.4g}")
    _, fast = columns[2]
    for factor in (1.0, 3.0):
        ((ratio, low, high),) = t.use(drawn, [factor * v for v in fast], fast, 0.95, 100, (1,))
        t.expect(max(abs(v - factor) for v in (ratio, low, high)) < 1e-4,
                 f"every round of one is exactly {factor:.0f} times as long as that of the other: all three numbers must be {factor:.0f}, you return {ratio:.3g}, {low:.3g}, {high:.3g}")
    expect_tails(t)
    slow, fast = noisy_rounds(t, 40, 1.0)
    few = t.use(drawn, slow, fast, 0.95, 5, (1, 2, 3, 4, 5, 6))
    t.expect(len({tuple(row[1:]) for row in few}) > 1, "another generator must draw other rounds: pass `generator` to what draws")
    return "ratios of medians; rounds drawn together; the ends cut off as many draws as the confidence says"


def expect_tails(t: Trial) -> None:
    """The share of 8,000 draws of our own beyond each end must be what the confidence says."""
    for rounds, confidence in ((15, 0.95), (24, 0.8), (31, 0.95), (30, 0.5)):
        slow, fast = noisy_rounds(t, rounds, 2.0)
        ((_, low, high),) = t.use(drawn, slow, fast, confidence, 800, (3,))
        a, b = torch.tensor(slow).double(), torch.tensor(fast).double()
        draws = torch.randint(rounds, (8000, rounds), generator=t.rng)
        ratios = middle(a[draws]) / middle(b[draws])
        tail = (1 - confidence) / 2
        slack = 4 * math.sqrt(tail * (1 - tail) / 800) + 0.003
        beyond = [((ratios < low - 1e-6).double().mean(), (ratios <= low + 1e-6).double().mean()),
                  ((ratios > high + 1e-6).double().mean(), (ratios >= high - 1e-6).double().mean())]
        for strictly, at_least in beyond:
            t.expect(strictly <= tail + slack and at_least >= tail - slack,
                     f"{rounds} rounds, confidence {confidence}: {tail:.3g} of the resampled ratios should lie beyond each end of ({low:.4g}, {high:.4g}), but {float(strictly):.3g} do")
