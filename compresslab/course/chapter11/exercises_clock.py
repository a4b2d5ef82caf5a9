"""Exercises 11.1 and 11.2: a fair harness, and the interval of a ratio."""

from __future__ import annotations

from compresslab.course.chapter11 import alternatives_clock as right
from compresslab.course.chapter11 import checks_clock as checks
from compresslab.course.chapter11 import mistakes_clock as wrong
from compresslab.course.chapter11 import references_clock as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="11.1", name="time_interleaved", title="A harness for every engine", dots=2, minutes=15, points=2, track="core",
        misconception="I timed it",
        reference=references.time_interleaved, verify=checks.verify_time_interleaved,
        alternatives=(right.by_index, right.from_the_table),
        mistakes=(
            Mistake("one after the other", wrong.one_after_the_other, "you time one function after the other: what the machine does meanwhile hits only one of them"),
            Mistake("same order", wrong.same_order, "every round has the same order, so a function always has the same place in it: rotate the order"),
            Mistake("back and forth", wrong.back_and_forth, "you turn the order round in every other round: of three functions the middle one stays in the middle"),
            Mistake("at random", wrong.at_random, "a random order gives every place equally often only in the long run: rotate, and a few rounds do"),
            Mistake("never warm", wrong.never_warm, "nothing is warmed up: the first calls allocate memory and fill caches"),
            Mistake("warm once", wrong.warm_once, "you call each function once before the first round; asked for are `warmup` calls"),
            Mistake("only one warmed up", wrong.warm_one_only, "you warm up the first function only; each has caches and memory of its own"),
            Mistake("warm in every round", wrong.warm_every_round, "you make all warm-up calls before every sample; they belong before the first round, and one call before each sample"),
            Mistake("not settled", wrong.not_settled, "right before your sample another function ran and filled the caches: call the function once, uncounted, before you read the clock"),
            Mistake("settling counted", wrong.settling_counted, "the uncounted call before a sample is in the sample: read the clock after it"),
            Mistake("settling averaged", wrong.settling_averaged, "you time calls + 1 calls; the first one of a sample must be over when the clock is read"),
            Mistake("warm-up counted", wrong.warm_up_counted, "the warm-up calls are among your samples"),
            Mistake("one call", wrong.one_call, "you call a function once per sample; `calls` times makes a sample long enough for the clock"),
            Mistake("not divided", wrong.not_divided, "your samples are the time of all calls together; divide by `calls`"),
            Mistake("clock inside", wrong.clock_inside, "you read the clock at every call: its coarse ticks then spoil each of them; read it around all `calls`"),
            Mistake("its own clock", wrong.own_clock, "you do not read the clock that was given: use `clock()`"),
            Mistake("over the round", wrong.clock_over_the_round, "your clock starts once a round, so a sample holds the time of those before it"),
            Mistake("labels rotate", wrong.labels_rotate, "the names rotate but the functions do not: the samples stand under wrong names"),
            Mistake("sorted", wrong.sorted_samples, "you sorted the samples: keep the order of the rounds, they will be compared round by round"),
            Mistake("medians only", wrong.medians_only, "you return one number per function; return all samples, one for each round"),
            Mistake("milliseconds", wrong.milliseconds, "your numbers are a thousand times too large: seconds, as the clock shows")),
        hints=("Three loops: rounds, functions in this round's order, calls. The clock is read around the innermost one; one more call comes before it.",
               "sample = (clock() after - clock() before) / calls; after each round the first name goes to the end: names.append(names.pop(0)).",
               "for function in functions.values():\n    ...  # warm up\nnames = list(functions)\nsamples = {name: [] for name in names}\nfor _ in range(rounds):\n    for name in names:\n"
               "        ...  # one call that does not count\n        start = clock()\n        ...\n        samples[name].append(...)\n    names.append(...)\nreturn samples")),
    Exercise(
        id="11.2", name="ratio_interval", title="How sure is a speed-up?", dots=3, minutes=15, points=3, track="core",
        misconception="1.08 times faster is faster",
        reference=references.ratio_interval, verify=checks.verify_ratio_interval,
        alternatives=(right.with_numpy, right.with_pairs),
        mistakes=(
            Mistake("drawn apart", wrong.apart, "you draw other rounds for the two functions: a slow minute of the machine then hits only one; draw the rounds once, for both"),
            Mistake("upside down", wrong.upside_down, "your ratio is upside down: how many times faster is slow / fast"),
            Mistake("means", wrong.with_means, "you compare means: one pause of the machine decides; take medians"),
            Mistake("minima", wrong.with_minima, "you compare the fastest rounds; the best of many says little about the next one, take medians"),
            Mistake("lower middle", wrong.lower_middle, "with an even number of rounds torch's median is the lower of the two in the middle; quantile(0.5) is the median"),
            Mistake("ratios of rounds", wrong.ratios_of_rounds, "you take the median of the rounds' ratios; asked for is the ratio of the two medians"),
            Mistake("spread of rounds", wrong.spread_of_rounds, "your ends hold single rounds, not medians of many: resample, take the ratio of each draw, then its quantiles"),
            Mistake("extremes", wrong.extremes, "your ends are the smallest and the largest draw: cut off (1 - confidence) / 2 on each side"),
            Mistake("one tail", wrong.one_tail, "you cut off 1 - confidence on each side; it is shared by the two sides"),
            Mistake("always 95 %", wrong.always_95, "your interval does not depend on the confidence"),
            Mistake("no replacement", wrong.shuffled, "every draw holds every round once, so all draws give the same medians: draw with replacement"),
            Mistake("too few", wrong.few_rounds, "your draws are smaller than the data: draw as many rounds as there are"),
            Mistake("own seed", wrong.own_seed, "you draw with a seed of your own; use `generator`"),
            Mistake("swapped", wrong.ends_swapped, "you return the high end before the low one"),
            Mistake("centre", wrong.centre_of_draws, "your ratio is the middle of the interval; asked for is that of the medians as measured")),
        hints=("Pretend that the rounds you have are all there are, and draw as many again, with replacement; how much does the ratio change from draw to draw?",
               "rounds = torch.randint(n, (resamples, n), generator=generator); ratios = median of slow[rounds] / median of fast[rounds]; ends: quantiles (1 - c) / 2 and (1 + c) / 2.",
               "slow, fast = torch.tensor(slow), torch.tensor(fast)\nrounds = torch.randint(...)\nratios = slow[rounds].quantile(0.5, dim=1) / ...\ntail = (1 - confidence) / 2\n"
               "return ..., float(ratios.quantile(tail)), ...")),
)  # fmt: skip
