"""Other right answers to exercises 11.1 and 11.2: they must pass."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

# -- 11.1 --------------------------------------------------------------------------------------------


def by_index(functions, rounds, warmup, calls, clock=time.perf_counter):
    """Places by arithmetic, warm-up in turns as well, columns that are filled in."""
    names = list(functions)
    samples = {name: [0.0] * rounds for name in names}
    for turn in range(warmup * len(names)):
        functions[names[turn % len(names)]]()
    for turn in range(rounds):
        for place in range(len(names)):
            name = names[(place - turn) % len(names)]
            for call in range(calls + 1):
                if call == 1:
                    before = clock()
                functions[name]()
            after = clock()
            samples[name][turn] = (after - before) / calls
    return samples


def from_the_table(functions, rounds, warmup, calls, clock=time.perf_counter):
    """One list of (name, seconds), sorted into columns at the end; tensors as answers."""
    items, rows = list(functions.items()), []
    for _, function in items:
        [function() for _ in range(warmup)]
    for turn in range(rounds):
        k = turn % max(len(items), 1)
        for name, function in items[k:] + items[:k]:
            function()
            start = clock()
            [function() for _ in range(calls)]
            rows.append((name, (clock() - start) / calls))
    return {name: torch.tensor([t for other, t in rows if other == name], dtype=torch.float64) for name in functions}


# -- 11.2 --------------------------------------------------------------------------------------------


def with_numpy(slow, fast, confidence, resamples, generator):
    """The same in numpy, its generator seeded from the given one."""
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    both = np.stack([np.asarray(slow, dtype=float), np.asarray(fast, dtype=float)])
    drawn = both[:, rng.integers(both.shape[1], size=(resamples, both.shape[1]))]
    medians = np.median(drawn, axis=2)
    low, high = np.percentile(medians[0] / medians[1], [50 * (1 - confidence), 50 * (1 + confidence)])
    return np.median(both[0]) / np.median(both[1]), low, high


def with_pairs(slow, fast, confidence, resamples, generator):
    """Resample the list of pairs, round by round."""
    pairs = list(zip(slow, fast, strict=True))

    def ratio(chosen):
        return statistics.median(a for a, _ in chosen) / statistics.median(b for _, b in chosen)

    draws = torch.randint(len(pairs), (resamples, len(pairs)), generator=generator).tolist()
    ratios = sorted(ratio([pairs[i] for i in rounds]) for rounds in draws)
    cut = (1 - confidence) / 2 * (resamples - 1)
    return ratio(pairs), ratios[round(cut)], ratios[round(resamples - 1 - cut)]
