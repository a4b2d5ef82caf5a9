"""The reference functions of exercises 11.1 and 11.2: a fair harness, and the interval of a ratio."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch


def time_interleaved(
    functions: dict[str, Callable[[], object]], rounds: int, warmup: int, calls: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """{name: seconds per call, one number for each round}, warmed up, in turns, each after a call of its own."""
    for function in functions.values():
        for _ in range(warmup):
            function()
    names = list(functions)
    samples = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            functions[name]()
            start = clock()
            for _ in range(calls):
                functions[name]()
            samples[name].append((clock() - start) / calls)
        names.append(names.pop(0))
    return samples


def ratio_interval(
    slow: Sequence[float], fast: Sequence[float], confidence: float, resamples: int, generator: torch.Generator
) -> tuple[float, float, float]:
    """(ratio of the medians, low, high): how many times faster `fast` is, rounds resampled together."""
    slow, fast = torch.tensor(slow, dtype=torch.float64), torch.tensor(fast, dtype=torch.float64)
    rounds = torch.randint(len(slow), (resamples, len(slow)), generator=generator)
    ratios = slow[rounds].quantile(0.5, dim=1) / fast[rounds].quantile(0.5, dim=1)
    tail = (1 - confidence) / 2
    ratio = slow.quantile(0.5) / fast.quantile(0.5)
    return float(ratio), float(ratios.quantile(tail)), float(ratios.quantile(1 - tail))
