"""What a right answer to exercises 8.1 to 8.5 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scipy.stats import t as student

from compresslab.core.statistics import proportion_interval
from compresslab.course.trial import Trial

# -- 8.1 the record ----------------------------------------------------------------------------------

RULES = ("bits", "sum", "range", "conflict")
FIELDS = ("method", "model", "dataset", "bits", "compression", "speedup", "before", "after", "change")


def published_row(**known: Any) -> dict[str, Any]:
    """One row of a table of results; what is not named was not stated."""
    return {**dict.fromkeys(FIELDS), "method": "M", "model": "A", "dataset": "D", **known}


SINGLE = (  # (what is stated, the rules that it breaks)
    ({}, set()),
    ({"bits": 8, "compression": 4.5}, {"bits"}), ({"bits": 8, "compression": 4.0}, set()), ({"bits": 8, "compression": 3.5}, set()),
    ({"bits": 5, "compression": 6.44}, set()), ({"bits": 1, "compression": 32.0}, set()), ({"bits": 32, "compression": 1.1}, {"bits"}),
    ({"compression": 200_000.0}, set()), ({"bits": 3}, set()),
    ({"before": 70.0, "after": 69.0, "change": -1.0}, set()), ({"before": 70.0, "after": 69.0, "change": 1.0}, {"sum"}),
    ({"before": 69.76, "after": 69.49, "change": -0.26}, set()), ({"before": 69.76, "after": 69.49, "change": -0.29}, {"sum"}),
    ({"before": 50.0, "after": 49.0, "change": -2.0}, {"sum"}), ({"before": 70.0, "after": 69.0, "change": 0}, {"sum"}),
    ({"before": 70.0, "change": -1.0}, set()), ({"before": 70.0, "after": 71.5, "change": 1.5}, set()),
    ({"before": 98.5, "after": 0.0}, {"range"}), ({"before": 98.5, "after": 100.0, "change": 1.5}, set()),
    ({"before": 98.5, "after": 100.5}, {"range"}), ({"before": 0.0, "after": 50.0}, {"range"}),
    ({"before": 72.34, "after": 0.0, "change": -2.39}, {"sum", "range"}), ({"after": -1.0}, {"range"}),
    ({"before": 110.0, "after": 90.0, "change": -2.0, "bits": 4, "compression": 9.0}, {"bits", "sum", "range"}),
)
PAIRS = (  # (one row, another of the same method, model and data set, the rules that both break)
    ({"compression": 32.0, "change": -2.9}, {"compression": 32.0, "change": 0}, {"conflict"}),
    ({"compression": 32.0, "change": -2.9}, {"compression": 16.0, "change": 0}, set()),
    ({"compression": 32.0, "change": -2.9}, {"compression": 32.0}, set()),
    ({"compression": 2.0, "speedup": 1.61}, {"compression": 2.0, "speedup": 1.7}, {"conflict"}),
    ({"speedup": 1.61}, {"speedup": 1.7}, {"conflict"}),
    ({"speedup": 1.61, "change": 0.5}, {"speedup": 1.61, "change": 0.5}, set()),
    ({"compression": 2.0, "change": -1.0}, {"compression": 2.0, "change": -1.0, "speedup": 3.0}, set()),
    ({"compression": 2.0, "change": 0.3}, {"compression": 2.0, "change": 0.3, "model": "B"}, set()),
    ({"compression": 2.0, "change": 0.3}, {"compression": 2.0, "change": -0.9, "model": "B"}, set()),
    ({"compression": 2.0, "change": 0.3}, {"compression": 2.0, "change": -0.9, "dataset": "E"}, set()),
    ({"compression": 2.0, "change": 0.3}, {"compression": 2.0, "change": -0.9, "method": "N"}, set()),
    ({"before": 70.0}, {"before": 60.0}, set()),
)


def rules_broken(rows: Sequence[dict[str, Any]]) -> list[set[str]]:
    """The four rules in hundredths, so that nothing is lost to rounding."""
    def cents(x: float | None) -> int | None:
        return None if x is None else round(100 * x)

    found: list[set[str]] = []
    for row in rows:
        before, after, change = (cents(row[key]) for key in ("before", "after", "change"))
        broken = set()
        if row["bits"] and row["compression"] and row["compression"] * row["bits"] > 32.32:
            broken.add("bits")
        if before is not None and after is not None and change is not None and abs(after - before - change) >= 2:
            broken.add("sum")
        if any(x is not None and (x <= 0 or x > 10_000) for x in (before, after)):
            broken.add("range")
        same = [other for other in rows if all(other[key] == row[key] for key in ("method", "model", "dataset", "compression"))]
        for key in ("change", "speedup"):
            stated = {cents(other[key]) for other in same} - {None}
            if row[key] is not None and any(abs(x - cents(row[key])) >= 2 for x in stated):
                broken.add("conflict")
        found.append(broken)
    return found


def random_row(t: Trial) -> dict[str, Any]:
    """A row drawn from few values, so that twins and broken rules are common."""
    def maybe(*values: Any) -> Any:
        return (None, *values)[t.integer(0, len(values))]

    before, after = maybe(0.0, 70.0, 93.26, 100.0), maybe(0.0, 69.4, 93.17, 100.25)
    right = None if None in (before, after) else round(after - before, 2)
    return published_row(method="MN"[t.integer(0, 1)], model="AB"[t.integer(0, 1)], dataset="DE"[t.integer(0, 3) == 3], before=before, after=after,
                         bits=maybe(1, 2, 8), compression=maybe(4.0, 16.0, 4.49), speedup=maybe(1.5, 2.0), change=maybe(right, 0, -0.6))


def verify_impossible_rows(t: Trial) -> str:
    tables = [([published_row(**stated)], [broken]) for stated, broken in SINGLE]
    for one, other, broken in PAIRS:
        tables.append(([published_row(**one), published_row(**other)], [broken, broken]))
    twin = {"compression": 4.0, "change": -1.0}
    tables.append(([published_row(**twin), published_row(**twin), published_row(compression=4.0, change=-2.0), published_row(method="N", **twin)],
                   [{"conflict"}] * 3 + [set()]))
    tables.append(([], []))
    for size in (3, 6, 10, 14):
        rows = [random_row(t) for _ in range(size)]
        tables.append((rows, rules_broken(rows)))
    for rows, wanted in tables:
        got = t.call(rows)
        t.expect(isinstance(got, list | tuple) and len(got) == len(rows), f"return one set for each of the {len(rows)} rows, also an empty one")
        for number, (mine, right) in enumerate(zip(got, wanted)):
            t.expect(isinstance(mine, set | frozenset | list | tuple) and all(name in RULES for name in mine),
                     "each row gets a set of names out of 'bits', 'sum', 'range' and 'conflict'")
            missed, invented = right - set(mine), set(mine) - right
            t.expect(not missed, f"row {number} breaks the rule {_names(missed)}, and you did not find it")
            t.expect(not invented, f"row {number} does not break the rule {_names(invented)}")
    return f"{len(tables)} tables: each rule alone, at its limit, and together; what was not stated accuses nobody"


def _names(rules: set[str]) -> str:
    return " and ".join(sorted(map(repr, rules)))


# -- 8.2 how sure ------------------------------------------------------------------------------------

def verify_accuracy_interval(t: Trial) -> str:
    cases = [(1, 2, 0.95), (0, 3, 0.95), (3, 3, 0.95), (9, 10, 0.95), (9, 10, 0.5), (0, 1, 0.99), (98, 100, 0.9), (9_800, 10_000, 0.95)]
    for _ in range(8):
        n = t.integer(1, 400)
        cases.append((t.integer(0, n), n, t.uniform(0.5, 0.999)))
    for correct, n, confidence in cases:
        low, high = _ends(t, t.call(correct, n, confidence))
        wanted = proportion_interval(correct, n, confidence)
        t.close((low, high), wanted, "that is not Wilson's interval", rtol=0, atol=1e-4)
    low, high = _ends(t, t.call(45, 50))
    t.close((low, high), proportion_interval(45, 50, 0.95), "without a third argument the confidence is 0.95", rtol=0, atol=1e-4)
    return f"Wilson's interval in {len(cases)} cases, all or none right among them"


def _ends(t: Trial, output: Any) -> tuple[float, float]:
    t.expect(isinstance(output, tuple | list) and len(output) == 2, "return two numbers: low and high")
    return t.number(output[0]), t.number(output[1])


# -- 8.3 and 8.4 the front ---------------------------------------------------------------------------

def _indices(t: Trial, output: Any, n: int) -> list[int]:
    """A list of increasing indices below n."""
    t.expect(isinstance(output, list | tuple), "return a list of indices")
    t.expect(all(not isinstance(i, tuple | list | bool) and float(i) == int(i) and 0 <= i < n for i in output),
             f"return indices: whole numbers from 0 to {n - 1}" if n else "there is no point, so there is no index")
    found = [int(i) for i in output]
    t.expect(found == sorted(set(found)), "each index once, in increasing order")
    return found


def verify_pareto_front(t: Trial) -> str:
    cases = [[(10, 0.9)], [(10, 0.9), (20, 0.8)], [(10, 0.8), (20, 0.9)], [(20, 0.9), (10, 0.8)], [(10, 0.9), (10, 0.8)], [(10, 0.9), (20, 0.9)],
             [(10, 0.9), (10, 0.9)], [(10, 0.9), (10, 0.9), (9, 0.95)], [(10, 0.2), (20, 0.6), (30, 0.7), (40, 0.95)],
             [(30, 0.95), (10, 0.8), (20, 0.85), (40, 0.94)], [(10, 0.5), (20, 0.55), (30, 0.95)], [(10, 0.5), (20, 0.9), (30, 0.6), (40, 0.7)], []]
    for size in (4, 7, 12, 16):
        levels = t.integer(3, 8)
        cases.append([(int(x), float(y) / 10) for x, y in t.integers(1, levels, (size, 2)).tolist()])
    for points in cases:
        found = _indices(t, t.call(points), len(points))
        for i, (size, accuracy) in enumerate(points):
            better = [j for j, (x, y) in enumerate(points) if x <= size and y >= accuracy and (x, y) != (size, accuracy)]
            t.expect(i not in found or not better, f"point {i} is on your front, but point {(better or [0])[0]} beats it")
            t.expect(i in found or better, f"point {i} is missing on your front, and no other point beats it")
    return f"{len(cases)} sets of points, with equal sizes, equal accuracies and equal points"


def verify_possible_front(t: Trial) -> str:
    cases = [[(10, 0.8, 0.9)], [(10, 0.8, 0.9), (20, 0.7, 0.75)], [(10, 0.8, 0.9), (20, 0.75, 0.85)], [(20, 0.8, 0.9), (10, 0.6, 0.7)],
             [(10, 0.8, 0.9), (10, 0.6, 0.7)], [(10, 0.6, 0.7), (10, 0.8, 0.9)], [(10, 0.8, 0.9), (20, 0.7, 0.8)], [(10, 0.8, 0.9), (10, 0.8, 0.9)],
             [(10, 0.8, 0.95), (20, 0.85, 0.9), (30, 0.7, 0.84)], [(20, 0.5, 0.9), (30, 0.4, 0.8), (10, 0.45, 0.6)],
             [(10, 0.8, 0.8), (20, 0.8, 0.8), (30, 0.7, 0.7)], []]
    for size in (4, 7, 12, 16):
        draws = t.integers(1, 9, (size, 3)).tolist()
        cases.append([(int(x), min(y, z) / 10, max(y, z) / 10) for x, y, z in draws])
    for rows in cases:
        found = _indices(t, t.call(rows), len(rows))
        for i, (size, _, high) in enumerate(rows):
            better = [j for j, (x, low, _) in enumerate(rows) if x <= size and low > high]
            t.expect(i not in found or not better, f"row {i} is on your front, but row {(better or [0])[0]} surely beats it")
            t.expect(i in found or better, f"row {i} is missing on your front, and no other row surely beats it")
    return f"{len(cases)} sets of intervals, touching and equal ones among them"


# -- 8.5 ratios --------------------------------------------------------------------------------------

def log_interval(ratios: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """The geometric mean and its interval, from the sums of the logarithms and of their squares."""
    logs = [math.log2(ratio) for ratio in ratios]
    n, mean = len(logs), math.fsum(logs) / len(logs)
    variance = math.fsum((x - mean) ** 2 for x in logs) / (n - 1)
    half = float(student.isf((1 - confidence) / 2, n - 1)) * math.sqrt(variance / n)
    return 2**mean, 2 ** (mean - half), 2 ** (mean + half)


def verify_mean_ratio(t: Trial) -> str:
    cases = [([2.0, 0.5], 0.95), ([3.0, 3.0, 3.0], 0.95), ([1.0, 4.0], 0.5), ([2.0, 3.0, 8.0], 0.95), ([0.1, 0.2, 0.4, 0.3], 0.9)]
    for size in (2, 3, 5, 12, 40):
        cases.append(([2 ** t.uniform(-3, 5) for _ in range(size)], t.uniform(0.5, 0.99)))
    for ratios, confidence in cases:
        middle, low, high = _three(t, t.call(ratios, confidence))
        wanted = log_interval(ratios, confidence)
        t.close(middle, wanted[0], "that is not the geometric mean", rtol=1e-4)
        t.close((low, high), wanted[1:], "the mean is right; its interval is not Student's, computed on logarithms", rtol=1e-3)
        upside = _three(t, t.call([1 / ratio for ratio in ratios], confidence))
        t.close(upside, (1 / middle, 1 / high, 1 / low), "turned upside down, the ratios must give the same answer upside down", rtol=1e-3)
    t.close(_three(t, t.call([1.0, 2.0, 3.0])), log_interval([1.0, 2.0, 3.0], 0.95), "without a second argument the confidence is 0.95", rtol=1e-3)
    for ratios in ([], [2.0], [2.0, 0.0], [2.0, -1.0, 3.0]):
        t.raises(ValueError, ratios)
    return f"{len(cases)} sets of ratios, and the same upside down; one ratio, or one that is not positive, is refused"


def _three(t: Trial, output: Any) -> tuple[float, float, float]:
    t.expect(isinstance(output, tuple | list) and len(output) == 3, "return three numbers: the mean, low and high")
    middle, low, high = (t.number(value) for value in output)
    return middle, low, high
