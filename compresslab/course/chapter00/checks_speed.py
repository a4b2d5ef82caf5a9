"""Chapter 00: what is verified of 0.7 to 0.9, operations and seconds. Properties, the smallest inputs first."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from compresslab.course.trial import Trial

# -- 0.7 ---------------------------------------------------------------------------------------------


def verify_conv_macs(t: Trial) -> str:
    layers = [(nn.Conv2d(1, 1, 1), 2, 2), (nn.Conv2d(2, 3, 3, padding=1), 4, 5), (nn.Conv2d(2, 4, 3), 6, 5),
              (nn.Conv2d(3, 4, 3, stride=2, padding=1), 8, 8), (nn.Conv2d(4, 6, 3, padding=1, groups=2), 5, 5),
              (nn.Conv2d(6, 6, 3, padding=1, groups=6), 7, 4), (nn.Conv2d(2, 2, 3, padding=2, dilation=2), 6, 6),
              (nn.Conv2d(4, 8, (1, 5), stride=(1, 2), padding=(0, 2), groups=4, bias=False), 9, 12)]
    for _ in range(6):
        groups = t.integer(1, 3)
        layers.append((nn.Conv2d(groups * t.integer(1, 4), groups * t.integer(1, 4), t.integer(1, 4),
                                 stride=t.integer(1, 3), padding=t.integer(0, 2), groups=groups), t.integer(6, 15), 11))
    for layer, height, width in layers:
        with torch.no_grad():
            outputs = layer(torch.zeros(1, layer.in_channels, height, width)).numel()
        per_output = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        got = t.number(t.call(layer, height, width))
        t.expect(got == outputs * per_output, f"{outputs} outputs take {per_output} multiply-accumulates "
                                              f"each, "
                                              f"{outputs * per_output} in all; you count {got:g}")
    return (f"{len(layers)} convolutions: strides, paddings, dilation, groups, depthwise, kernels that are "
            "not square")


# -- 0.8 ---------------------------------------------------------------------------------------------


class _Machine:
    """A machine made of numbers: it slows down with every call, first calls are slow, and its clock is exact."""

    def __init__(self, base: dict[str, float], drift: float, cold: float) -> None:
        self.base, self.drift, self.cold = base, drift, cold
        self.now, self.log = 0.0, []

    def clock(self) -> float:
        return self.now

    def functions(self) -> dict[str, Callable[[], None]]:
        def call(name: str) -> None:
            warm = name in self.log
            self.now += self.base[name] * (1 + self.drift * len(self.log)) * (1 if warm else self.cold)
            self.log.append(name)

        return {name: lambda name=name: call(name) for name in self.base}


class _Race:
    """What is to be timed, on which machine; a new machine for each use."""

    def __init__(self, base: dict[str, float], repeats: int, drift: float, cold: float) -> None:
        self.base, self.repeats, self.drift, self.cold = base, repeats, drift, cold
        takes = ", ".join(f"{name} takes {seconds:g} s" for name, seconds in base.items())
        slower = f", first calls {cold:g} times as long" if cold > 1 else ""
        slower += f", every call {drift:.0%} slower than the one before" if drift else ""
        self.__name__ = f"repeats={repeats} where {takes}{slower}"  # what a learner reads

    def __call__(self) -> _Machine:
        return _Machine(self.base, self.drift, self.cold)


def _on_machine(function: Callable, race: _Race) -> tuple[Any, tuple[str, ...]]:
    machine = race()
    samples = function(machine.functions(), race.repeats, clock=machine.clock)
    return samples, tuple(machine.log)


def _run_race(t: Trial, race: _Race) -> dict[str, list[float]]:
    """The learner's samples, each of them the time of one warm call."""
    samples, log = t.use(_on_machine, race)
    named = isinstance(samples, dict) and set(samples) == set(race.base)
    t.expect(named, "return {name: [seconds, ...]}, one list for each name")
    for name, seconds in race.base.items():
        t.expect(isinstance(samples[name], list) and len(samples[name]) == race.repeats,
                 f"return {race.repeats} samples of each function")
        t.expect(log.count(name) > race.repeats, "each function needs one call before the others that is not measured")
        values = [t.number(value) for value in samples[name]]
        t.expect(all(0.999 * seconds <= value for value in values),
                 "some samples are shorter than the call took: read the clock you were given, before and after")
        slowest = 1.001 * seconds * (1 + race.drift * len(log))
        t.expect(all(value <= slowest for value in values),
                 "a sample holds more than one warm call: a cold first call, or another function's time")
    return {name: [float(value) for value in values] for name, values in samples.items()}


def verify_time_fairly(t: Trial) -> str:
    _run_race(t, _Race({"a": 1.0}, 2, 0.0, 1.0))
    _run_race(t, _Race({"a": 1.0, "b": 5.0}, 2, 0.0, 1.0))
    _run_race(t, _Race({"a": 1.0, "b": 1.0}, 3, 0.0, 10.0))
    for repeats in (5, 9):
        drift = t.uniform(0.05, 0.1)
        values = _run_race(t, _Race({"a": 2.0, "b": 2.0, "c": 2.0}, repeats, drift, 20.0))
        t.expect(len(set(values["a"])) > 1, "return what each call took, not their average: the spread matters")
        medians = [statistics.median(values[name]) for name in values]
        apart = max(medians) / min(medians)
        t.expect(apart < 1 + 3.5 * drift, "on a machine that slows down, three equal functions must come out equal; "
                                          f"your medians differ {apart:.2f} times")
        values = _run_race(t, _Race({"slow": 4.0, "fast": 1.0}, repeats, drift, 20.0))
        ratio = statistics.median(values["slow"]) / statistics.median(values["fast"])
        t.expect(abs(ratio / 4 - 1) < 2 * drift,
                 f"a function that takes 4 times as long comes out {ratio:.2f} times as long")
    return "equal functions come out equal on a machine that slows down, and no cold call is counted"


# -- 0.9 ---------------------------------------------------------------------------------------------


def verify_roofline(t: Trial) -> str:
    cases = [(1, 2, 3, 100.0, 10.0), (1, 2, 3, 1.0, 1000.0), (8, 64, 32, 1e3, 1e3)]
    for batch in (1, 4, 256):
        cases.append((batch, t.integer(50, 900), t.integer(50, 900), t.uniform(1e9, 1e12), t.uniform(1e9, 1e11)))
    for batch, inputs, outputs, peak, bandwidth in cases:
        result = t.call(batch, inputs, outputs, peak, bandwidth)
        t.expect(isinstance(result, tuple | list) and len(result) == 2, "return two numbers: intensity, "
                                                                        "seconds")
        intensity, seconds = (t.number(value) for value in result)
        flops, numbers = 2 * batch * inputs * outputs, batch * inputs + inputs * outputs + batch * outputs
        t.close(intensity, flops / (4 * numbers), "the intensity is 2 operations per weight and image over "
                                                  "4 bytes per number")
        t.close(seconds, max(flops / peak, 4 * numbers / bandwidth), "the time is that of the slower of the "
                                                                     "two",
                rtol=1e-4, atol=0.0)
        twice = t.number(t.call(batch, inputs, outputs, 2 * peak, 2 * bandwidth)[1])
        t.close(2 * twice, seconds, "a machine twice as good in both takes half the time", rtol=1e-4, atol=0.0)
        ridge = t.number(t.call(batch, inputs, outputs, intensity * bandwidth, bandwidth)[1])
        t.close(ridge, 4 * numbers / bandwidth, "at the ridge both take equally long", rtol=1e-4, atol=0.0)
    return f"{len(cases)} matmuls on {len(cases)} machines, on both sides of the ridge and on it"
