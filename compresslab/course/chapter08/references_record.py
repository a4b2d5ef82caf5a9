"""The reference answers of exercises 8.1 to 8.5.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from scipy.stats import t as student

# -- what is printed ---------------------------------------------------------------------------------

def impossible_rows(rows: Sequence[Mapping[str, Any]]) -> list[set[str]]:
    """8.1: for each row the names of the rules that it breaks: "bits", "sum", "range", "conflict"."""
    broken = [set() for _ in rows]
    for row, found in zip(rows, broken):
        if None not in (row["bits"], row["compression"]) and row["compression"] > 1.01 * 32 / row["bits"]:
            found.add("bits")
        if None not in (row["before"], row["after"], row["change"]) and abs(row["after"] - row["before"] - row["change"]) > 0.015:
            found.add("sum")
        if any(row[key] is not None and not 0 < row[key] <= 100 for key in ("before", "after")):
            found.add("range")
        for other in rows:
            twins = all(row[key] == other[key] for key in ("method", "model", "dataset", "compression"))
            if twins and any(None not in (row[key], other[key]) and abs(row[key] - other[key]) > 0.015 for key in ("change", "speedup")):
                found.add("conflict")
    return broken


# -- how sure ----------------------------------------------------------------------------------------

def accuracy_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """8.2: Wilson's interval (low, high) of an accuracy, fractions."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return centre - half, centre + half


# -- the front ---------------------------------------------------------------------------------------

def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """8.3: the indices, in order, of the points (bytes, accuracy) that no other point beats."""
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and (a[0] < b[0] or a[1] > b[1])
    return [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]


def possible_front(rows: Sequence[tuple[float, float, float]]) -> list[int]:
    """8.4: the indices, in order, of the rows (bytes, low, high) that no other row surely beats."""
    def surely_beats(a, b):
        return a[0] <= b[0] and a[1] > b[2]
    return [i for i, row in enumerate(rows) if not any(surely_beats(other, row) for other in rows)]


# -- ratios ------------------------------------------------------------------------------------------

def mean_ratio(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """8.5: the geometric mean of positive ratios with Student's interval, computed on their logarithms."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.fmean(logs)
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    margin = student.ppf((1 + confidence) / 2, len(logs) - 1) * error
    return math.exp(middle), math.exp(middle - margin), math.exp(middle + margin)
