"""Latency: medians of interleaved runs, so that a busy machine slows all networks alike.

Each round runs every network once, in an order that rotates; a pause of the machine then falls on one sample
of one network, and the median leaves it out. The quartiles say how steady the clock was. Times differ from
machine to machine and from hour to hour; the ratio of two medians of the same rounds differs much less.
"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
SHORTEST_SAMPLE = 1e-3  # seconds; faster networks are called several times per sample


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call: the median, the quartiles, and all samples in the order of the rounds."""

    median: float
    q1: float
    q3: float
    samples: tuple[float, ...]

    @property
    def iqr(self) -> float:
        """The interquartile range, q3 - q1, in milliseconds."""
        return self.q3 - self.q1


@dataclass(frozen=True)
class Speedup:
    """How many times faster the second network is, with the ends of its interval."""

    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """The interval in words."""
        if self.low <= 1 <= self.high:
            return "not distinguishable"
        return "faster" if self.ratio > 1 else "slower"


def time_models(
    models: dict[str, nn.Module],
    x: Tensor,
    *,
    repeats: int = 30,
    warmup: int = 3,
    threads: int | None = None,
    memory_format: str = "channels_last",
) -> dict[str, Timing]:
    """Time the forward pass of several networks on one input, interleaved.

    Args:
        models: networks by name; they run in eval mode without gradients.
        x: the input, batch first.
        repeats: rounds, >= 1; each gives one sample per network.
        warmup: calls before the first round, >= 1.
        threads: of torch, for the time of the measurement; None leaves the number as it is.
        memory_format: "channels_last" or "contiguous", for 4-d weights and inputs.
    Returns:
        a `Timing` by name.
    Raises:
        ValueError: repeats, warmup or threads below 1, or an unknown memory format.
    """
    if memory_format not in MEMORY_FORMATS:
        raise ValueError(f"memory_format must be one of {', '.join(MEMORY_FORMATS)}, got {memory_format!r}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    with torch_threads(threads):
        calls = {name: _forward(model, x, MEMORY_FORMATS[memory_format]) for name, model in models.items()}
        return time_calls(calls, repeats=repeats, warmup=warmup)


def time_calls(
    calls: Mapping[str, Callable[[], object]], *, repeats: int = 30, warmup: int = 3, settle: int = 0
) -> dict[str, Timing]:
    """Time several functions without arguments, interleaved: the harness under `time_models`.

    Args:
        calls: functions by name; one that returns before its work is done (on a GPU) must wait itself.
        repeats: rounds, >= 1; each gives one sample per function.
        warmup: calls before the first round, >= 1. A function that is too fast for the clock is called
            several times per sample.
        settle: calls right before each sample that are not counted, >= 0. Where two engines with threads of their
            own take turns, the first call behind a change pays for waking one's threads; with 1 it is left out.
    Returns:
        a `Timing` by name, in milliseconds per call.
    Raises:
        ValueError: repeats or warmup below 1, settle below 0.
    """
    for name, value, least in (("repeats", repeats, 1), ("warmup", warmup, 1), ("settle", settle, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with _no_garbage_collection():
        runs = {name: _Run(call, warmup, settle) for name, call in calls.items()}
        order = list(calls)
        for _ in range(repeats):
            for name in order:
                samples[name].append(runs[name].sample())
            order.append(order.pop(0))
    return {name: _summarize(values) for name, values in samples.items()}


def speedup(slow: Timing, fast: Timing, *, confidence: float = 0.95, resamples: int = 2000) -> Speedup:
    """How many times faster `fast` is than `slow`: a ratio of medians, with a bootstrap interval.

    Args:
        slow, fast: two timings of the same `time_models` call; their rounds are resampled together.
        confidence: of the interval, in (0, 1).
        resamples: bootstrap samples.
    Raises:
        ValueError: timings with different numbers of rounds, or a confidence out of range.
    Source: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).
    Example:
        >>> speedup(Timing(2.0, 2.0, 2.0, (2.0, 2.0)), Timing(1.0, 1.0, 1.0, (1.0, 1.0)))
        Speedup(ratio=2.0, low=2.0, high=2.0)
    """
    if len(slow.samples) != len(fast.samples):
        raise ValueError(f"the timings have {len(slow.samples)} and {len(fast.samples)} rounds, not as many")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    rounds = np.random.default_rng(0).integers(len(slow.samples), size=(resamples, len(slow.samples)))
    ratios = np.median(np.array(slow.samples)[rounds], 1) / np.median(np.array(fast.samples)[rounds], 1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Speedup(slow.median / fast.median, float(low), float(high))


class _Run:
    """One function, warmed up, and the number of calls that make a sample long enough for the clock."""

    def __init__(self, call: Callable[[], object], warmup: int, settle: int) -> None:
        self.call, self.calls, self.settle = call, 1, settle
        fastest = min(self.sample() for _ in range(warmup)) / 1e3
        self.calls = max(1, round(SHORTEST_SAMPLE / max(fastest, 1e-7)))

    def sample(self) -> float:
        """Milliseconds per call."""
        for _ in range(self.settle):
            self.call()
        start = time.perf_counter()
        for _ in range(self.calls):
            self.call()
        return (time.perf_counter() - start) * 1e3 / self.calls


def _forward(model: nn.Module, x: Tensor, memory_format: torch.memory_format) -> Callable[[], None]:
    """A function that runs a copy of the network on x, and waits until it is done."""
    model = copy.deepcopy(model).to(memory_format=memory_format).eval()
    x = x.contiguous(memory_format=memory_format) if x.ndim == 4 else x

    def forward() -> None:
        with torch.no_grad():
            model(x)
        _wait(x.device)

    return forward


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summarize(samples: list[float]) -> Timing:
    q1, median, q3 = np.quantile(samples, [0.25, 0.5, 0.75]).tolist()
    return Timing(median, q1, q3, tuple(samples))


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """As many threads of torch inside; None leaves the number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
