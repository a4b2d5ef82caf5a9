"""Typical wrong answers to exercises 8.1 and 8.2. They diagnose a learner's mistake, and they test the checks."""

from __future__ import annotations

import math
from statistics import NormalDist

from scipy.stats import beta

# -- 8.1 impossible_rows -----------------------------------------------------------------------------

SAME = ("method", "model", "dataset", "compression")


def _stated(row, *keys):
    return all(row[key] is not None for key in keys)


def _bits(row):
    return _stated(row, "bits", "compression") and row["compression"] > 1.01 * 32 / row["bits"]


def _sum(row):
    return _stated(row, "before", "after", "change") and abs(row["after"] - row["before"] - row["change"]) > 0.015


def _range(row):
    return any(_stated(row, key) and not 0 < row[key] <= 100 for key in ("before", "after"))


def _differ(a, b, keys=("change", "speedup")):
    return any(None not in (a[key], b[key]) and abs(a[key] - b[key]) > 0.015 for key in keys)


def _conflict(row, rows, same=SAME, keys=("change", "speedup")):
    return any(all(row[key] == other[key] for key in same) and _differ(row, other, keys) for other in rows)


def _audit(rows, bits=_bits, sums=_sum, ranges=_range, conflict=_conflict):
    """The right audit, in which one rule may be another."""
    tests = {"bits": bits, "sum": sums, "range": ranges, "conflict": lambda row: conflict(row, rows)}
    return [{name for name, test in tests.items() if test(row)} for row in rows]


def zero_is_nothing(rows):
    rows = [{key: value or None for key, value in row.items()} for row in rows]
    return _audit(rows)


def none_is_zero(rows):
    rows = [{key: 0.0 if value is None and key in ("before", "after", "change") else value for key, value in row.items()} for row in rows]
    return _audit(rows)


def bits_without_rounding(rows):
    return _audit(rows, bits=lambda row: _stated(row, "bits", "compression") and row["compression"] > 32 / row["bits"])


def bits_at_the_limit(rows):
    return _audit(rows, bits=lambda row: _stated(row, "bits", "compression") and row["compression"] >= 32 / row["bits"])


def bits_upside_down(rows):
    return _audit(rows, bits=lambda row: _stated(row, "bits", "compression") and row["compression"] > row["bits"])


def bits_too_little(rows):
    return _audit(rows, bits=lambda row: _stated(row, "bits", "compression") and abs(row["compression"] * row["bits"] / 32 - 1) > 0.01)


def any_large_ratio(rows):
    return _audit(rows, bits=lambda row: _stated(row, "compression") and row["compression"] > 1.01 * 32 / (row["bits"] or 1))


def sum_turned(rows):
    return _audit(rows, sums=lambda row: _stated(row, "before", "after", "change") and abs(row["before"] - row["after"] - row["change"]) > 0.015)


def sum_to_the_last_digit(rows):
    return _audit(rows, sums=lambda row: _stated(row, "before", "after", "change") and row["after"] - row["before"] != row["change"])


def sum_rounded_hard(rows):
    return _audit(rows, sums=lambda row: _stated(row, "before", "after", "change")
                  and round(row["after"] - row["before"], 2) != round(row["change"], 2))


def sum_without_sign(rows):
    return _audit(rows, sums=lambda row: _stated(row, "before", "after", "change")
                  and abs(abs(row["after"] - row["before"]) - abs(row["change"])) > 0.015)


def sum_relative(rows):
    return _audit(rows, sums=lambda row: _stated(row, "before", "after", "change")
                  and abs(100 * (row["after"] - row["before"]) / (row["before"] or 1) - row["change"]) > 0.015)


def zero_allowed(rows):
    return _audit(rows, ranges=lambda row: any(_stated(row, key) and not 0 <= row[key] <= 100 for key in ("before", "after")))


def hundred_forbidden(rows):
    return _audit(rows, ranges=lambda row: any(_stated(row, key) and not 0 < row[key] < 100 for key in ("before", "after")))


def fractions(rows):
    return _audit(rows, ranges=lambda row: any(_stated(row, key) and not 0 < row[key] <= 1 for key in ("before", "after")))


def only_after(rows):
    return _audit(rows, ranges=lambda row: _stated(row, "after") and not 0 < row["after"] <= 100)


def later_row_only(rows):
    seen, found = [], _audit(rows, conflict=lambda row, rows: False)
    for row, broken in zip(rows, found):
        if _conflict(row, seen):
            broken.add("conflict")
        seen.append(row)
    return found


def earlier_row_only(rows):
    return later_row_only(rows[::-1])[::-1]


def other_settings(rows):
    return _audit(rows, conflict=lambda row, rows: _conflict(row, rows, same=("method", "model", "dataset")))


def other_models(rows):
    return _audit(rows, conflict=lambda row, rows: _conflict(row, rows, same=("method", "dataset", "compression")))


def other_data(rows):
    return _audit(rows, conflict=lambda row, rows: _conflict(row, rows, same=("method", "model", "compression")))


def other_methods(rows):
    return _audit(rows, conflict=lambda row, rows: _conflict(row, rows, same=("model", "dataset", "compression")))


def change_only(rows):
    return _audit(rows, conflict=lambda row, rows: _conflict(row, rows, keys=("change",)))


def baselines_too(rows):
    return _audit(rows, conflict=lambda row, rows: _conflict(row, rows, keys=("change", "speedup", "before")))


def unstated_differs(rows):
    def conflict(row, rows):
        return any(all(row[key] == other[key] for key in SAME) and any(row[key] != other[key] for key in ("change", "speedup")) for other in rows)
    return _audit(rows, conflict=conflict)


def unstated_never_equal(rows):
    return _audit(rows, conflict=lambda row, rows: row["compression"] is not None and _conflict(row, rows))


def one_rule_a_row(rows):
    order = ("bits", "sum", "range", "conflict")
    return [set(sorted(broken, key=order.index)[:1]) for broken in _audit(rows)]


def indices_only(rows):
    return [i for i, broken in enumerate(_audit(rows)) if broken]


# -- 8.2 accuracy_interval ---------------------------------------------------------------------------

def _z(confidence):
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _wilson(p, n, z):
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return centre, half


def wald(correct, n, confidence=0.95):
    p = correct / n
    half = _z(confidence) * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def wald_clipped(correct, n, confidence=0.95):
    low, high = wald(correct, n, confidence)
    return max(low, 0.0), min(high, 1.0)


def around_p(correct, n, confidence=0.95):
    _, half = _wilson(correct / n, n, _z(confidence))
    return correct / n - half, correct / n + half


def one_sided(correct, n, confidence=0.95):
    centre, half = _wilson(correct / n, n, NormalDist().inv_cdf(confidence))
    return centre - half, centre + half


def always_95(correct, n, confidence=0.95):
    centre, half = _wilson(correct / n, n, 1.96)
    return centre - half, centre + half


def confidence_as_z(correct, n, confidence=0.95):
    centre, half = _wilson(correct / n, n, confidence)
    return centre - half, centre + half


def not_divided(correct, n, confidence=0.95):
    z, p = _z(confidence), correct / n
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def half_not_divided(correct, n, confidence=0.95):
    z, p = _z(confidence), correct / n
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    centre = _wilson(p, n, z)[0]
    return centre - half, centre + half


def second_term_forgotten(correct, n, confidence=0.95):
    z, p = _z(confidence), correct / n
    centre, half = _wilson(p, n, z)[0], z * math.sqrt(p * (1 - p) / n) / (1 + z**2 / n)
    return centre - half, centre + half


def root_of_n_forgotten(correct, n, confidence=0.95):
    p = correct / n
    half = _z(confidence) * math.sqrt(p * (1 - p))
    return p - half, p + half


def root_forgotten(correct, n, confidence=0.95):
    z, p = _z(confidence), correct / n
    centre, half = _wilson(p, n, z)[0], z * (p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return centre - half, centre + half


def in_percent(correct, n, confidence=0.95):
    centre, half = _wilson(correct / n, n, _z(confidence))
    return 100 * (centre - half), 100 * (centre + half)


def centre_and_half(correct, n, confidence=0.95):
    return _wilson(correct / n, n, _z(confidence))


def turned(correct, n, confidence=0.95):
    centre, half = _wilson(correct / n, n, _z(confidence))
    return centre + half, centre - half


def clopper_pearson(correct, n, confidence=0.95):
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, correct, n - correct + 1) if correct else 0.0
    high = beta.ppf(1 - tail, correct + 1, n - correct) if correct < n else 1.0
    return float(low), float(high)


def agresti_coull(correct, n, confidence=0.95):
    z = _z(confidence)
    p = (correct + z**2 / 2) / (n + z**2)
    half = z * math.sqrt(p * (1 - p) / (n + z**2))
    return p - half, p + half
