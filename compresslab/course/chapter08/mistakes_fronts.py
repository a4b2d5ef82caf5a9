"""Typical wrong answers to exercises 8.3 to 8.5. They diagnose a learner's mistake, and they test the checks."""

from __future__ import annotations

import math
import statistics

from scipy.stats import norm
from scipy.stats import t as student

# -- 8.3 pareto_front --------------------------------------------------------------------------------

def _unbeaten(points, beats):
    """The indices of the points that no other point beats."""
    return [i for i, a in enumerate(points) if not any(beats(b, a) for j, b in enumerate(points) if j != i)]


def strictly_in_both(points):
    return _unbeaten(points, lambda b, a: b[0] < a[0] and b[1] > a[1])


def equal_points_kill(points):
    return _unbeaten(points, lambda b, a: b[0] <= a[0] and b[1] >= a[1])


def equal_sizes_stay(points):
    return _unbeaten(points, lambda b, a: b[0] < a[0] and b[1] >= a[1])


def equal_accuracies_stay(points):
    return _unbeaten(points, lambda b, a: b[0] <= a[0] and b[1] > a[1])


def larger_files_win(points):
    return _unbeaten(points, lambda b, a: b[0] >= a[0] and b[1] >= a[1] and tuple(b) != tuple(a))


def lower_accuracy_wins(points):
    return _unbeaten(points, lambda b, a: b[0] <= a[0] and b[1] <= a[1] and tuple(b) != tuple(a))


def all_turned(points):
    return _unbeaten(points, lambda b, a: b[0] >= a[0] and b[1] <= a[1] and tuple(b) != tuple(a))


def better_in_one(points):
    return _unbeaten(points, lambda b, a: b[0] < a[0] or b[1] > a[1])


def _front(points):
    return _unbeaten(points, lambda b, a: b[0] <= a[0] and b[1] >= a[1] and tuple(b) != tuple(a))


def first_of_equals(points):
    return [i for i in _front(points) if tuple(points[i]) not in [tuple(point) for point in points[:i]]]


def the_points(points):
    return [points[i] for i in _front(points)]


def a_mask(points):
    return [i in _front(points) for i in range(len(points))]


def sorted_by_size(points):
    return sorted(_front(points), key=lambda i: points[i][0])


def neighbours_only(points):
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    keep = [i for before, i in zip([None, *order], order) if before is None or points[i][1] > points[before][1]]
    return sorted(keep)


def best_of_each_size(points):
    return [i for i, (size, accuracy) in enumerate(points) if accuracy == max(y for x, y in points if x == size)]


def dominated(points):
    front = _front(points)
    return [i for i in range(len(points)) if i not in front]


def most_accurate(points):
    return [i for i, point in enumerate(points) if point[1] == max(y for _, y in points)]


def best_ratio(points):
    return [i for i, (x, y) in enumerate(points) if y / x == max(b / a for a, b in points)]


def extremes(points):
    if not points:
        return []
    smallest, best = min(points, key=lambda p: (p[0], -p[1])), max(points, key=lambda p: (p[1], -p[0]))
    return [i for i, point in enumerate(points) if tuple(point) in (tuple(smallest), tuple(best))]


def hull(points):
    """Only the corners of the upper left convex hull."""
    front = sorted((i for i in _front(points)), key=lambda i: tuple(points[i]))
    kept = []
    for i in front:
        while len(kept) >= 2 and _turn(points[kept[-2]], points[kept[-1]], points[i]) > 0:
            kept.pop()
        kept.append(i)
    return sorted(kept)


def _turn(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


# -- 8.4 possible_front ------------------------------------------------------------------------------

def middles(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[1] + b[2] > a[1] + a[2])


def lows(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[1] > a[1])


def highs(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[2] > a[2])


def both_ends(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[1] >= a[1] and b[2] >= a[2] and tuple(b) != tuple(a))


def all_ends(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[1] > a[1] and b[2] > a[2])


def touching_is_sure(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[1] >= a[2])


def overlap_beats(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[2] > a[1])


def smaller_only(rows):
    return _unbeaten(rows, lambda b, a: b[0] < a[0] and b[1] > a[2])


def size_ignored(rows):
    return _unbeaten(rows, lambda b, a: b[1] > a[2])


def larger_beats(rows):
    return _unbeaten(rows, lambda b, a: b[0] >= a[0] and b[1] > a[2])


def worse_beats(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[2] < a[1])


def surely_beaten(rows):
    kept = _possible(rows)
    return [i for i in range(len(rows)) if i not in kept]


def surely_best(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[2] >= a[1] and tuple(b) != tuple(a))


def _possible(rows):
    return _unbeaten(rows, lambda b, a: b[0] <= a[0] and b[1] > a[2])


def rows_themselves(rows):
    return [rows[i] for i in _possible(rows)]


def neighbour_in_size(rows):
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])
    return sorted(i for before, i in zip([None, *order], order) if before is None or not rows[before][1] > rows[i][2])


def in_one_pass(rows):
    best, keep = -math.inf, []
    for i in sorted(range(len(rows)), key=lambda i: rows[i][0]):
        if rows[i][2] >= best:
            keep.append(i)
        best = max(best, rows[i][1])
    return sorted(keep)


def one_of_equals(rows):
    return [i for i in _possible(rows) if tuple(rows[i]) not in [tuple(row) for row in rows[:i]]]


# -- 8.5 mean_ratio ----------------------------------------------------------------------------------

def _refused(ratios):
    if len(ratios) < 2 or min(ratios) <= 0:
        raise ValueError


def _interval(values, confidence):
    middle = statistics.fmean(values)
    half = student.ppf((1 + confidence) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return middle, half


def _from_logs(ratios, quantile, spread=statistics.stdev, divisor=math.sqrt):
    _refused(ratios)
    logs = [math.log(ratio) for ratio in ratios]
    middle, half = statistics.fmean(logs), quantile * spread(logs) / divisor(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def arithmetic(ratios, confidence=0.95):
    _refused(ratios)
    middle, half = _interval(ratios, confidence)
    return middle, middle - half, middle + half


def arithmetic_middle(ratios, confidence=0.95):
    _, low, high = _from_logs(ratios, student.ppf((1 + confidence) / 2, max(len(ratios) - 1, 1)))
    return statistics.fmean(ratios), low, high


def harmonic(ratios, confidence=0.95):
    _refused(ratios)
    middle, half = _interval([1 / ratio for ratio in ratios], confidence)
    return 1 / middle, 1 / (middle + half), 1 / (middle - half)


def middle_one(ratios, confidence=0.95):
    _refused(ratios)
    return statistics.median(ratios), min(ratios), max(ratios)


def from_end_to_end(ratios, confidence=0.95):
    _refused(ratios)
    return statistics.geometric_mean(ratios), min(ratios), max(ratios)


def plus_and_minus(ratios, confidence=0.95):
    _refused(ratios)
    middle, (_, half) = statistics.geometric_mean(ratios), _interval(ratios, confidence)
    return middle, middle - half, middle + half


def margin_of_logs_added(ratios, confidence=0.95):
    _refused(ratios)
    middle, (_, half) = statistics.geometric_mean(ratios), _interval([math.log(ratio) for ratio in ratios], confidence)
    return middle, middle - half, middle + half


def left_in_logs(ratios, confidence=0.95):
    _refused(ratios)
    middle, half = _interval([math.log(ratio) for ratio in ratios], confidence)
    return middle, middle - half, middle + half


def mixed_bases(ratios, confidence=0.95):
    _refused(ratios)
    middle, half = _interval([math.log2(ratio) for ratio in ratios], confidence)
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def normal_quantile(ratios, confidence=0.95):
    return _from_logs(ratios, norm.ppf((1 + confidence) / 2))


def always_196(ratios, confidence=0.95):
    return _from_logs(ratios, 1.96)


def one_sided_t(ratios, confidence=0.95):
    return _from_logs(ratios, student.ppf(confidence, max(len(ratios) - 1, 1)))


def one_degree_too_many(ratios, confidence=0.95):
    return _from_logs(ratios, student.ppf((1 + confidence) / 2, max(len(ratios), 1)))


def population_spread(ratios, confidence=0.95):
    return _from_logs(ratios, student.ppf((1 + confidence) / 2, max(len(ratios) - 1, 1)), spread=statistics.pstdev)


def spread_of_one(ratios, confidence=0.95):
    return _from_logs(ratios, student.ppf((1 + confidence) / 2, max(len(ratios) - 1, 1)), divisor=lambda n: 1)


def divided_by_n(ratios, confidence=0.95):
    return _from_logs(ratios, student.ppf((1 + confidence) / 2, max(len(ratios) - 1, 1)), divisor=lambda n: n)


def always_95(ratios, confidence=0.95):
    return _from_logs(ratios, student.ppf(0.975, max(len(ratios) - 1, 1)))


def one_is_enough(ratios, confidence=0.95):
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    return _from_logs(ratios, student.ppf((1 + confidence) / 2, max(len(ratios) - 1, 1)))


def zeros_dropped(ratios, confidence=0.95):
    return _from_logs([ratio for ratio in ratios if ratio > 0] if len(ratios) > 2 else ratios, student.ppf((1 + confidence) / 2, max(len(ratios) - 1, 1)))


def signs_dropped(ratios, confidence=0.95):
    return _from_logs([abs(ratio) for ratio in ratios], student.ppf((1 + confidence) / 2, max(len(ratios) - 1, 1)))
