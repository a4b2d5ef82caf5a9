"""Wrong answers to exercises 11.1 and 11.2, each of a kind of its own."""

from __future__ import annotations

import time

import torch

from compresslab.course.chapter11.references_clock import ratio_interval as right_interval
from compresslab.course.chapter11.references_clock import time_interleaved as right_harness

# -- 11.1 --------------------------------------------------------------------------------------------


def _warm(functions, warmup):
    for function in functions.values():
        for _ in range(warmup):
            function()


def _sample(function, calls, clock, settle=1):
    for _ in range(settle):
        function()
    start = clock()
    for _ in range(calls):
        function()
    return (clock() - start) / calls


def one_after_the_other(functions, rounds, warmup, calls, clock=time.perf_counter):
    samples = {}
    for name, function in functions.items():
        _warm({name: function}, warmup)
        samples[name] = [_sample(function, calls, clock) for _ in range(rounds)]
    return samples


def same_order(functions, rounds, warmup, calls, clock=time.perf_counter):
    _warm(functions, warmup)
    samples = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            samples[name].append(_sample(function, calls, clock))
    return samples


def back_and_forth(functions, rounds, warmup, calls, clock=time.perf_counter):
    _warm(functions, warmup)
    samples, names = {name: [] for name in functions}, list(functions)
    for _ in range(rounds):
        for name in names:
            samples[name].append(_sample(functions[name], calls, clock))
        names.reverse()
    return samples


def at_random(functions, rounds, warmup, calls, clock=time.perf_counter):
    _warm(functions, warmup)
    samples, names = {name: [] for name in functions}, list(functions)
    for _ in range(rounds):
        for i in torch.randperm(len(names)).tolist():
            samples[names[i]].append(_sample(functions[names[i]], calls, clock))
    return samples


def never_warm(functions, rounds, warmup, calls, clock=time.perf_counter):
    return right_harness(functions, rounds, 0, calls, clock)


def warm_once(functions, rounds, warmup, calls, clock=time.perf_counter):
    return right_harness(functions, rounds, min(warmup, 1), calls, clock)


def warm_one_only(functions, rounds, warmup, calls, clock=time.perf_counter):
    for function in list(functions.values())[:1]:
        _warm({"first": function}, warmup)
    return right_harness(functions, rounds, 0, calls, clock)


def _rotated(functions, rounds, warmup, sample):
    _warm(functions, warmup)
    samples, names = {name: [] for name in functions}, list(functions)
    for _ in range(rounds):
        for name in names:
            samples[name].append(sample(functions[name]))
        names.append(names.pop(0))
    return samples


def warm_every_round(functions, rounds, warmup, calls, clock=time.perf_counter):
    return _rotated(functions, rounds, 0, lambda function: _sample(function, calls, clock, settle=warmup))


def not_settled(functions, rounds, warmup, calls, clock=time.perf_counter):
    return _rotated(functions, rounds, warmup, lambda function: _sample(function, calls, clock, settle=0))


def settling_counted(functions, rounds, warmup, calls, clock=time.perf_counter):
    return _rotated(functions, rounds, warmup, lambda function: _sample(function, calls + 1, clock, settle=0) * (calls + 1) / calls)


def settling_averaged(functions, rounds, warmup, calls, clock=time.perf_counter):
    return _rotated(functions, rounds, warmup, lambda function: _sample(function, calls + 1, clock, settle=0))


def warm_up_counted(functions, rounds, warmup, calls, clock=time.perf_counter):
    return right_harness(functions, rounds + warmup, 0, calls, clock)


def one_call(functions, rounds, warmup, calls, clock=time.perf_counter):
    return right_harness(functions, rounds, warmup, 1, clock)


def not_divided(functions, rounds, warmup, calls, clock=time.perf_counter):
    samples = right_harness(functions, rounds, warmup, calls, clock)
    return {name: [calls * t for t in values] for name, values in samples.items()}


def clock_inside(functions, rounds, warmup, calls, clock=time.perf_counter):
    def sample(function):
        function()
        return sum(_sample(function, 1, clock, settle=0) for _ in range(calls)) / calls
    return _rotated(functions, rounds, warmup, sample)


def own_clock(functions, rounds, warmup, calls, clock=time.perf_counter):
    return right_harness(functions, rounds, warmup, calls)


def clock_over_the_round(functions, rounds, warmup, calls, clock=time.perf_counter):
    _warm(functions, warmup)
    samples, names = {name: [] for name in functions}, list(functions)
    for _ in range(rounds):
        start = clock()
        for name in names:
            for _ in range(calls + 1):
                functions[name]()
            samples[name].append((clock() - start) / calls)
        names.append(names.pop(0))
    return samples


def labels_rotate(functions, rounds, warmup, calls, clock=time.perf_counter):
    _warm(functions, warmup)
    samples, names = {name: [] for name in functions}, list(functions)
    for _ in range(rounds):
        for name, function in zip(names, functions.values(), strict=True):
            samples[name].append(_sample(function, calls, clock))
        names.append(names.pop(0))
    return samples


def sorted_samples(functions, rounds, warmup, calls, clock=time.perf_counter):
    return {name: sorted(values) for name, values in right_harness(functions, rounds, warmup, calls, clock).items()}


def medians_only(functions, rounds, warmup, calls, clock=time.perf_counter):
    samples = right_harness(functions, rounds, warmup, calls, clock)
    return {name: float(torch.tensor(values, dtype=torch.float64).quantile(0.5)) for name, values in samples.items()}


def milliseconds(functions, rounds, warmup, calls, clock=time.perf_counter):
    samples = right_harness(functions, rounds, warmup, calls, clock)
    return {name: [1000 * t for t in values] for name, values in samples.items()}


# -- 11.2 --------------------------------------------------------------------------------------------


def _both(slow, fast):
    return torch.tensor(slow, dtype=torch.float64), torch.tensor(fast, dtype=torch.float64)


def _interval(slow, fast, confidence, resamples, generator, middle=None, size=None, fast_generator=None):
    slow, fast = _both(slow, fast)
    middle = middle or (lambda x: x.quantile(0.5, dim=-1))
    rounds = torch.randint(len(slow), (resamples, size or len(slow)), generator=generator)
    others = rounds if fast_generator is None else torch.randint(len(fast), rounds.shape, generator=fast_generator)
    ratios = middle(slow[rounds]) / middle(fast[others])
    tail = (1 - confidence) / 2
    return float(middle(slow) / middle(fast)), float(ratios.quantile(tail)), float(ratios.quantile(1 - tail))


def apart(slow, fast, confidence, resamples, generator):
    return _interval(slow, fast, confidence, resamples, generator, fast_generator=generator)


def upside_down(slow, fast, confidence, resamples, generator):
    return right_interval(fast, slow, confidence, resamples, generator)


def with_means(slow, fast, confidence, resamples, generator):
    return _interval(slow, fast, confidence, resamples, generator, middle=lambda x: x.mean(-1))


def with_minima(slow, fast, confidence, resamples, generator):
    return _interval(slow, fast, confidence, resamples, generator, middle=lambda x: x.amin(-1))


def lower_middle(slow, fast, confidence, resamples, generator):
    return _interval(slow, fast, confidence, resamples, generator, middle=lambda x: x.median(-1).values)


def ratios_of_rounds(slow, fast, confidence, resamples, generator):
    slow, fast = _both(slow, fast)
    rounds = torch.randint(len(slow), (resamples, len(slow)), generator=generator)
    ratios = (slow / fast)[rounds].quantile(0.5, dim=1)
    tail = (1 - confidence) / 2
    return float((slow / fast).quantile(0.5)), float(ratios.quantile(tail)), float(ratios.quantile(1 - tail))


def spread_of_rounds(slow, fast, confidence, resamples, generator):
    slow, fast = _both(slow, fast)
    ratios, tail = slow / fast, (1 - confidence) / 2
    return float(slow.quantile(0.5) / fast.quantile(0.5)), float(ratios.quantile(tail)), float(ratios.quantile(1 - tail))


def extremes(slow, fast, confidence, resamples, generator):
    return right_interval(slow, fast, 1.0, resamples, generator)


def one_tail(slow, fast, confidence, resamples, generator):
    return right_interval(slow, fast, 2 * confidence - 1, resamples, generator)


def always_95(slow, fast, confidence, resamples, generator):
    return right_interval(slow, fast, 0.95, resamples, generator)


def shuffled(slow, fast, confidence, resamples, generator):
    ratio, _, _ = right_interval(slow, fast, confidence, 1, generator)
    return ratio, ratio, ratio


def few_rounds(slow, fast, confidence, resamples, generator):
    return _interval(slow, fast, confidence, resamples, generator, size=max(1, len(slow) // 2))


def own_seed(slow, fast, confidence, resamples, generator):
    return right_interval(slow, fast, confidence, resamples, torch.Generator().manual_seed(0))


def ends_swapped(slow, fast, confidence, resamples, generator):
    ratio, low, high = right_interval(slow, fast, confidence, resamples, generator)
    return ratio, high, low


def centre_of_draws(slow, fast, confidence, resamples, generator):
    _, low, high = right_interval(slow, fast, confidence, resamples, generator)
    return (low + high) / 2, low, high
