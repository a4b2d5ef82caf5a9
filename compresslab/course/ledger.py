"""The learner's own results: one row per measured model, kept across chapters in `results.jsonl`.

ledger.add(measure(model, data.test, name="magnitude 90 %"), chapter="01")
ledger.pareto()
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from compresslab.course import progress


def path() -> Path:
    """Where the rows are."""
    return progress.home() / "results.jsonl"


def add(measurement: Any, *, chapter: str = "", family: str = "", note: str = "") -> dict[str, Any]:
    """Append one row; a row with the same chapter and name replaces the earlier one when read.

    Args:
        measurement: a `core.measure.Measurement`, any dataclass, or a dict with at least a name.
        chapter: "01". family: the marker in the figure ("pruning"). note: one line of your own.
    Returns:
        the row as stored.
    Raises:
        TypeError: `measurement` is none of these.
        ValueError: it has no name.
    """
    if dataclasses.is_dataclass(measurement) and not isinstance(measurement, type):
        row = dataclasses.asdict(measurement)
    elif isinstance(measurement, dict):
        row = dict(measurement)
    else:
        raise TypeError(f"the ledger takes a Measurement or a dict, got {type(measurement).__name__}")
    if not row.get("name"):
        raise ValueError("a row of the ledger needs a name: measure(..., name='magnitude 90 %')")
    row = {"chapter": chapter, "family": family, **{key: _plain(item) for key, item in row.items()}}
    row |= {"note": note} if note else {}
    try:
        progress.append_line(path(), row)
    except OSError as error:
        print(
            f"The row is not saved: {error.strerror}. Set COMPRESSLAB_HOME to a folder that you may write to."
        )
    return row


def _plain(value: Any) -> Any:
    """JSON data: numbers stay numbers, nan and infinity become None, anything odd becomes text."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return _plain(value.item())
    return str(value)


def rows(chapter: str | None = None) -> list[dict[str, Any]]:
    """The rows, oldest first, the latest of each (chapter, name) only."""
    latest: dict[tuple, dict[str, Any]] = {}
    for row in progress.read_lines(path()):
        if not isinstance(row.get("name"), str):  # not a row of ours
            continue
        key = (str(row.get("chapter")), row["name"])
        latest.pop(key, None)
        latest[key] = row
    return [row for row in latest.values() if chapter is None or row.get("chapter") == chapter]


def show(chapter: str | None = None) -> None:
    """Print the rows as a table."""
    print(f"{'chapter':8}{'name':34}{'accuracy':>9}{'bytes':>12}{'MACs':>14}{'ms':>9}")
    for row in rows(chapter):
        print(
            f"{row.get('chapter') or '':8}{row['name'][:33]:34}{_cell(row.get('accuracy'), '.2%'):>9}"
            f"{_cell(row.get('file_bytes'), ',d'):>12}{_cell(row.get('macs'), ',d'):>14}"
            f"{_cell(row.get('latency_ms'), '.2f'):>9}"
        )


def _cell(value: Any, form: str) -> str:
    return "" if not isinstance(value, int | float) else format(int(value) if form == ",d" else value, form)


def pareto(x: str = "file_bytes", y: str = "accuracy") -> Any:
    """The figure of all your rows so far, with the Pareto front; None while there is no row."""
    from compresslab.course import plots

    known = [row for row in rows() if row.get(x) and row.get(y) is not None]
    if not known:
        print("Your ledger is empty: ledger.add(measure(...)) writes the first row.")
        return None
    return plots.pareto(known, x=x, y=y).figure
