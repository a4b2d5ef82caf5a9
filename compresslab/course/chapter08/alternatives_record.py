"""Right answers to exercises 8.1 to 8.5 that look different from the references: every check must let them pass."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations

import numpy as np
import torch
from scipy import optimize, stats

# -- 8.1 impossible_rows -----------------------------------------------------------------------------

def audit_by_groups(rows):
    """Each rule in a loop of its own; twins are gathered in groups first. Frozen sets in a tuple."""
    found = defaultdict(set)
    groups = defaultdict(list)
    for i, row in enumerate(rows):
        if row["bits"] and row["compression"] and row["bits"] * row["compression"] > 32 * 1.01:
            found[i] |= {"bits"}
        accuracies = [row[key] for key in ("before", "after") if row[key] is not None]
        if any(x <= 0 or x > 100 for x in accuracies):
            found[i] |= {"range"}
        if len(accuracies) == 2 and row["change"] is not None and round(abs(accuracies[1] - accuracies[0] - row["change"]), 3) > 0.015:
            found[i] |= {"sum"}
        groups[row["method"], row["model"], row["dataset"], row["compression"]].append(i)
    for members in groups.values():
        for i, j in combinations(members, 2):
            for key in ("change", "speedup"):
                a, b = rows[i][key], rows[j][key]
                if a is not None and b is not None and abs(a - b) > 0.015:
                    found[i] |= {"conflict"}
                    found[j] |= {"conflict"}
    return tuple(frozenset(found[i]) for i in range(len(rows)))


def audit_with_nan(rows):
    """Comparisons with nan are false, so what is not stated breaks no rule. Lists of names."""
    def number(row, key):
        return math.nan if row[key] is None else row[key]

    result = []
    for row in rows:
        broken = []
        if number(row, "compression") > 1.01 * 32 / number(row, "bits"):
            broken.append("bits")
        if abs(number(row, "before") + number(row, "change") - number(row, "after")) > 0.015:
            broken.append("sum")
        for key in ("before", "after"):
            if (number(row, key) <= 0 or number(row, key) > 100) and "range" not in broken:
                broken.append("range")
        for other in rows:
            if any(row[key] != other[key] for key in ("method", "model", "dataset", "compression")):
                continue
            if abs(number(row, "change") - number(other, "change")) > 0.015 or abs(number(row, "speedup") - number(other, "speedup")) > 0.015:
                broken.append("conflict")
                break
        result.append(broken)
    return result


# -- 8.2 accuracy_interval ---------------------------------------------------------------------------

def interval_by_scipy(correct, n, confidence=0.95):
    found = stats.binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return found.low, found.high


def interval_by_solving(correct, n, confidence=0.95):
    """The roots of |p - q| = z sqrt(q (1 - q) / n) in q."""
    z, p = stats.norm.ppf(0.5 + confidence / 2), correct / n

    def excess(q):
        return (p - q) ** 2 - z**2 * q * (1 - q) / n

    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    return [optimize.brentq(excess, -1e-9, middle), optimize.brentq(excess, middle, 1 + 1e-9)]


def interval_of_quadratic(correct, n, confidence=0.95):
    """The same roots by the quadratic formula, with numpy."""
    z = stats.norm.isf((1 - confidence) / 2)
    low, high = sorted(np.roots([n + z**2, -(2 * correct + z**2), correct**2 / n]).real)
    return np.float64(low), np.float64(high)


# -- 8.3 pareto_front --------------------------------------------------------------------------------

def front_by_sorting(points):
    """From the smallest file on, whoever raises the best accuracy; equal points come along."""
    front, best = set(), -math.inf
    for size, accuracy in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if accuracy > best:
            front.add((size, accuracy))
            best = accuracy
    return [i for i, point in enumerate(points) if tuple(point) in front]


def front_by_broadcasting(points):
    if not points:
        return []
    size, accuracy = np.array(points, dtype=float).T
    smaller, better = size[:, None] <= size, accuracy[:, None] >= accuracy
    equal = (size[:, None] == size) & (accuracy[:, None] == accuracy)
    return np.flatnonzero(~(smaller & better & ~equal).any(axis=0)).tolist()


def front_by_torch(points):
    table = torch.tensor(points, dtype=torch.float64).reshape(-1, 2)
    keep = []
    for i, (size, accuracy) in enumerate(table):
        rivals = table[(table[:, 0] <= size) & (table[:, 1] >= accuracy)]
        if (rivals == table[i]).all():
            keep.append(i)
    return tuple(keep)


# -- 8.4 possible_front ------------------------------------------------------------------------------

def band_by_sorting(rows):
    """The best lower end of all files that are no larger."""
    sizes = sorted({row[0] for row in rows})
    best, reached = {}, -math.inf
    for size in sizes:
        reached = max([reached] + [low for x, low, _ in rows if x == size])
        best[size] = reached
    return [i for i, (size, _, high) in enumerate(rows) if high >= best[size]]


def band_by_broadcasting(rows):
    if len(rows) == 0:
        return []
    size, low, high = np.array(rows, dtype=float).T
    beaten = ((size[:, None] <= size) & (low[:, None] > high)).any(axis=0)
    return list(np.where(~beaten)[0])


# -- 8.5 mean_ratio ----------------------------------------------------------------------------------

def ratio_by_scipy(ratios, confidence=0.95):
    if len(ratios) < 2 or any(ratio <= 0 for ratio in ratios):
        raise ValueError("at least two positive ratios")
    logs = np.log(ratios)
    error = stats.sem(logs)
    low, high = stats.t.interval(confidence, len(logs) - 1, loc=logs.mean(), scale=error) if error > 0 else (logs.mean(), logs.mean())
    return stats.gmean(ratios), np.exp(low), np.exp(high)


def ratio_by_product(ratios, confidence=0.95):
    """The root of the product, and a factor up and down; in doublings."""
    n = len(ratios)
    if n < 2 or min(ratios) <= 0:
        raise ValueError(f"at least two positive ratios, got {ratios}")
    logs = torch.tensor(ratios, dtype=torch.float64).log2()
    factor = 2 ** (stats.t.isf((1 - confidence) / 2, df=n - 1) * logs.std() / n**0.5)
    middle = math.prod(ratios) ** (1 / n)
    return middle, middle / factor, middle * factor
