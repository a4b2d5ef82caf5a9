"""The published record as plain rows for the audit of exercise 8.1, with the traps that are planted in it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from compresslab.compare.published import TOP1, Published

Row = dict[str, Any]
BITS = ((r"W(\d+)A\d", None), (r"(\d+)[- ]bit\b", None), (r"INT(\d+)", None), (r"NF(\d+)", None), (r"\bTTQ\b", 2))


def stated_bits(method: str) -> int | None:
    """The bits of a weight that a method's name states; three values (TTQ) take 2.

    Example:
        >>> [stated_bits(name) for name in ("INT8 affine", "BWN (W1A32)", "INQ 5-bit", "TTQ", "ThiNet")]
        [8, 1, 5, 2, None]
    """
    for pattern, bits in BITS:
        if match := re.search(pattern, method):
            return bits or int(match[1])
    return None


def plain_rows(published: Iterable[Published]) -> list[Row]:
    """The verified record as dicts; None where a number was not stated.

    Args:
        published: the rows of `compare.published.published()`.
    Returns:
        dicts with the texts `family`, `method`, `paper`, `model`, `dataset`, `source`, `notes`, the `year`, `core`, and the numbers `bits` (of a weight),
        `compression` and `speedup` (factors), `before`, `after` (accuracies in percent), `change`, `change_top5` (points).
    """
    rows = []
    for row in published:
        percent = row.metric == TOP1
        rows.append({
            "family": row.family, "method": row.method, "paper": row.paper, "year": row.year, "model": row.model, "dataset": row.dataset,
            "bits": stated_bits(row.method), "compression": row.compression, "speedup": row.speedup, "before": row.baseline if percent else None,
            "after": row.compressed if percent else None, "change": row.delta if percent else None, "change_top5": row.delta_top5 if percent else None,
            "notes": row.notes, "source": row.source, "core": row.core})  # fmt: skip
    return rows


def planted_rows() -> list[Row]:
    """Three rows that do not belong: two were really printed somewhere, the third is made up."""
    nothing = dict.fromkeys(("bits", "compression", "speedup", "before", "after", "change", "change_top5"))
    whole = 156.90 / (1 - 0.379)  # million multiplications of ResNet-110, from what its authors' README says
    return [
        {**nothing, "family": "distillation", "method": "FSP", "paper": "Yim et al. (CVPR)", "year": 2017, "model": "wrn-40-2 -> wrn-40-1",
         "dataset": "CIFAR-100", "after": 0.0, "notes": "as printed in a table of twelve methods", "source": "GitHub HobbitLong/RepDistiller README",
         "core": False},
        {**nothing, "family": "pruning", "method": "HRank", "paper": "Lin et al. HRank (CVPR)", "year": 2020, "model": "ResNet-110", "dataset": "CIFAR-10",
         "compression": 1.63, "speedup": round(whole / 148.70, 2), "notes": "148.70M operations, as printed in the paper",
         "source": "GitHub lmbxmu/HRank README (which corrects it)", "core": False},
        {**nothing, "family": "distillation", "method": "made up", "paper": "this course", "year": 2025, "model": "nobody's network", "dataset": "-",
         "compression": 3.1, "before": 72.34, "after": 70.66, "change": 1.68, "notes": "a loss printed as a gain", "source": "invented", "core": False},
    ]  # fmt: skip


def describe(row: Row) -> str:
    """One line: who, when, on what, and what was stated."""
    stated = [f"{row['bits']} bit{'s' * (row['bits'] > 1)}" if row["bits"] else "", f"{row['compression']:g}x smaller" if row["compression"] else "",
              f"{row['speedup']:g}x fewer operations" if row["speedup"] else ""]
    if row["before"] is not None or row["after"] is not None:
        stated.append(" -> ".join("?" if x is None else f"{x:.2f} %" for x in (row["before"], row["after"])))
    if row["change"] is not None:
        stated.append(f"{row['change']:+.2f} points")
    return f"{row['method']}, {row['year']}, {row['model']}: " + ", ".join(filter(None, stated))


def audit_report(rows: Sequence[Row], broken: Sequence[Iterable[str]]) -> str:
    """The rows that break a rule, the rule in front and the source behind.

    Args:
        rows: as in `plain_rows`. broken: for each the names of its rules (exercise 8.1).
    """
    lines = []
    for row, rules in zip(rows, broken):
        if rules:
            why = f"({row['notes'] or row['paper']}; source: {row['source']})"
            lines += [f"{' and '.join(sorted(rules)):>10}: {describe(row)}", textwrap.fill(why, 115, initial_indent=" " * 12, subsequent_indent=" " * 12)]
    return "\n".join(lines) or "nothing found"


def published_ratios(rows: Iterable[Row], family: str, loss: float = 1.0) -> list[float]:
    """How many times smaller the rows of a family say to be, where they also say to lose at most `loss` points of top-1 (else top-5) accuracy.

    Args:
        rows: as in `plain_rows`. loss: in points.
    """
    found = []
    for row in rows:
        change = row["change"] if row["change"] is not None else row["change_top5"]
        if row["family"] == family and row["compression"] and change is not None and change >= -loss:
            found.append(row["compression"])
    return found
