"""Which compressed network is better? Fronts, fronts with doubt, and averages of ratios.

Two numbers per network, size and accuracy, order some pairs and not others. One point *dominates* another if
it is no worse in everything and better in something; what nothing dominates is the Pareto front:

    accuracy                     a, c, d: the front      b: larger and worse than a
        |            d           d costs much for little, and is on the front all the same
        |     c
        |  a    b
        +------------- bytes

Accuracies are estimates. With intervals some points are *surely* dominated, and the rest is a band of points
that might be on the front: the best dot need not be the best method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compresslab.core.statistics import mean_interval

Point = Sequence[float]


def dominates(a: Point, b: Point, maximize: Sequence[bool]) -> bool:
    """Whether a is no worse than b in every number and better in at least one.

    Args:
        a, b: points with the same number of numbers; nan cannot be compared and is refused.
        maximize: per number, whether more of it is better.
    Returns:
        False for equal points: neither dominates the other.
    Raises:
        ValueError: different lengths, or nan.
    Example:
        >>> small_and_good, large_and_good = (100, 0.9), (200, 0.9)
        >>> dominates(small_and_good, large_and_good, (False, True))
        True
    """
    a, b = _costs([a, b], maximize)
    return bool((a <= b).all() and (a < b).any())


def pareto_front(points: Sequence[Point], maximize: Sequence[bool] = (False, True)) -> list[int]:
    """The points that no other dominates.

    Equal points are all on the front or none is: they do not dominate each other.

    Args:
        points: n points of d numbers each, such as (file bytes, accuracy).
        maximize: per number, whether more of it is better; by default the second.
    Returns:
        indices into `points`, ascending; empty for no points.
    Raises:
        ValueError: points of different lengths, or nan.
    Example:
        >>> pareto_front([(1, 0.8), (2, 0.7), (3, 0.9), (3, 0.9)])
        [0, 2, 3]
    """
    costs = _costs(points, maximize)
    return [
        index
        for index, cost in enumerate(costs)
        if not ((costs <= cost).all(1) & (costs < cost).any(1)).any()
    ]


def surely_dominated(
    cost: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> list[bool]:
    """Which points lie below the front even if every accuracy is at the unlucky end of its interval.

    Point i is surely dominated if some j has cost_j <= cost_i and low_j > high_i. The others form the band of
    points that may be on the front. Touching intervals (low_j = high_i) decide nothing.

    Args:
        cost: what is paid, known exactly: bytes, MACs; less is better; (n,).
        low, high: the ends of the intervals of what is gained, (n,), low <= high.
    Returns:
        n bools. Without intervals (low = high) it leaves the front and the points of its accuracy.
    Raises:
        ValueError: different lengths, nan, or a low end above the high end.
    Differs: intervals one by one, and so careful: a paired comparison on the same images can tell two points
        apart whose intervals overlap.
    Example:
        >>> surely_dominated([1, 2, 2], low=[0.90, 0.85, 0.80], high=[0.92, 0.91, 0.84])
        [False, False, True]
    """
    cost, low, high = (np.asarray(column, dtype=float) for column in (cost, low, high))
    if not cost.shape == low.shape == high.shape or cost.ndim != 1:
        shapes = f"{cost.shape}, {low.shape} and {high.shape}"
        raise ValueError(f"cost, low and high must be as long, got {shapes}")
    if np.isnan([cost, low, high]).any():
        raise ValueError("cost, low and high must be numbers, got nan")
    if (low > high).any():
        index = int(np.argmax(low > high))
        ends = f"{low[index]:g} and {high[index]:g}"
        raise ValueError(f"an interval must have low <= high, got {ends} of point {index}")
    return [bool(((cost <= c) & (low > h)).any()) for c, h in zip(cost, high, strict=True)]


def hypervolume(points: Sequence[Point], reference: Point, maximize: Sequence[bool] = (False, True)) -> float:
    """The area that the points of a front dominate, up to a reference point: one number for a whole front.

    Args:
        points: n points of two numbers.
        reference: the worst corner; points that are no better than it in both numbers add nothing.
        maximize: per number, whether more of it is better.
    Returns:
        an area, >= 0, in the product of the two units; take logarithms of bytes first if a factor is what
        counts.
    Raises:
        ValueError: points or a reference that are not pairs, or nan.
    Source: E. Zitzler, L. Thiele, "Multiobjective Evolutionary Algorithms: A Comparative Case Study and the
        Strength Pareto Approach", IEEE Transactions on Evolutionary Computation, 1999.
    Example:
        >>> hypervolume([(1, 0.5), (2, 1.0)], reference=(3, 0.0))  # 1 * 0.5 to the left of 2, then 1 * 1.0
        1.5
    """
    if len(maximize) != 2:
        raise ValueError(f"the area needs points of two numbers, got maximize with {len(maximize)}")
    *costs, worst = _costs([*points, reference], maximize)
    area, floor = 0.0, worst[1]
    for first, second in sorted(map(tuple, costs)):  # each adds the strip below the floor of the cheaper ones
        if first < worst[0] and second < floor:
            area += (worst[0] - first) * (floor - second)
            floor = second
    return float(area)


def geometric_mean_ratio(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """The average of ratios, with Student's interval on the scale where ratios add: the logarithm.

        ratio = exp(mean(log r)),    ends = exp(mean(log r) +- t_{n-1} s / sqrt(n))

    Twice as small on one network and half as small on another is 1 on average, whichever of the two methods
    stands in the denominator: the average of 1 / r is 1 / the average of r. The arithmetic mean of 2 and 1/2
    is 1.25, in favour of both.

    Args:
        ratios: at least two, positive and finite, such as dense bytes over compressed bytes per network.
        confidence: of the interval, in (0, 1).
    Returns:
        (ratio, low, high).
    Raises:
        ValueError: fewer than two ratios, one that is not positive and finite, or a confidence out of range.
    Source: P. Fleming, J. Wallace, "How Not to Lie With Statistics: The Correct Way to Summarize Benchmark
        Results", Communications of the ACM, 1986.
    Example:
        >>> [round(number, 2) for number in geometric_mean_ratio([1.0, 2.0, 4.0])]
        [2.0, 0.36, 11.19]
    """
    ratios = [float(ratio) for ratio in ratios]
    wrong = [ratio for ratio in ratios if not (math.isfinite(ratio) and ratio > 0)]
    if wrong:
        raise ValueError(f"ratios must be positive and finite, got {wrong[0]:g}")
    mean, low, high = mean_interval([math.log(ratio) for ratio in ratios], confidence)
    return math.exp(mean), math.exp(low), math.exp(high)


def break_even(cost_once: float, saving_per_use: float) -> float:
    """After how many uses a compression has paid for itself: the smallest whole number that saves its cost.

        n = ceil(cost_once / saving_per_use)

    Args:
        cost_once: what compressing cost, >= 0, in any unit: seconds of training, joules.
        saving_per_use: what one use costs less than before, in the same unit; negative if it costs more.
    Returns:
        a whole number as a float; 0 if compressing was free, infinity if nothing is ever saved.
    Raises:
        ValueError: a negative cost, or numbers that are not finite.
    Example:
        >>> break_even(10.0, 0.25), break_even(10.0, 0.0)
        (40.0, inf)
    """
    if not (math.isfinite(cost_once) and math.isfinite(saving_per_use)) or cost_once < 0:
        got = f"{cost_once:g} and {saving_per_use:g}"
        raise ValueError(f"cost_once must be 0 or more and both must be finite, got {got}")
    if cost_once == 0:
        return 0.0
    uses = cost_once / saving_per_use if saving_per_use > 0 else math.inf
    return float(math.ceil(uses)) if math.isfinite(uses) else math.inf


def _costs(points: Sequence[Point], maximize: Sequence[bool]) -> np.ndarray:
    """The points as rows, (n, d), with signs turned so that less is better in every column."""
    lengths = {len(point) for point in points} - {len(maximize)}
    if lengths:
        got = f"a point of {lengths.pop()} for maximize with {len(maximize)}"
        raise ValueError(f"every point needs one number per entry of maximize, got {got}")
    costs = np.array([tuple(point) for point in points], dtype=float).reshape(len(points), len(maximize))
    if np.isnan(costs).any():
        raise ValueError(f"points must be numbers, got nan in point {int(np.isnan(costs).any(1).argmax())}")
    return np.where(np.array(maximize, dtype=bool), -costs, costs)
