"""The smallest files that keep their accuracy: a leader board on this machine, for the open task of chapter 07.

A file gets on it only through the same judge as in the exercise, a fresh process and images that nobody has
seen. The rows are in `leaderboard.jsonl` beside the learner's progress; a class may collect the files themselves
and enter them one after the other.

    leaderboard.enter(my_file, "Ada")
    leaderboard.show()
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compresslab.course import progress
from compresslab.course.budget import BudgetTask, Report
from compresslab.course.evidence import load_evidence

LONGEST_NAME = 30
COURSE = {"coded": "Deep Compression", "moonshot": "the moonshot"}  # entries of the evidence, and what the board calls them


def path() -> Path:
    """Where the entries are."""
    return progress.home() / "leaderboard.jsonl"


def enter(file: str | os.PathLike[str], name: str, *, task: BudgetTask | None = None) -> dict[str, Any] | None:
    """Judge a file, and record it if its network has not lost more than the task allows.

    Args:
        file: written by `save`; of any size, for the board has no byte limit.
        name: who sends it, 1 to 30 characters on one line.
        task: whose loss is to be kept; the open task of chapter 07 where None.
    Returns:
        the row as stored; None, and one printed line that says why, if the file is no entry.
    Raises:
        FileNotFoundError: there is no such file.
        TypeError, ValueError: no proper name.
    """
    if not isinstance(name, str):
        raise TypeError(f"a name is a text, got {type(name).__name__}")
    if not (name := name.strip()) or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a name has 1 to {LONGEST_NAME} characters on one line, got {name!r}")
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file.name!r} at this path")
    report, reason = judged(file, task or _task())
    if reason:
        print(f"{name}: not entered, {reason}")
        return None
    row = {"name": name, "bytes": report.bytes, "accuracy": round(report.accuracy, 6), "loss": round(report.loss, 6), "images": report.images,
           "date": datetime.now(UTC).date().isoformat(), "file": hashlib.sha256(file.read_bytes()).hexdigest()[:16]}
    try:
        progress.append_line(path(), row)
    except OSError as error:
        print(f"The entry is not saved: {error.strerror}. Set COMPRESSLAB_HOME to a folder that you may write to.")
    return row


def judged(file: Path, task: BudgetTask) -> tuple[Report, str]:
    """What the task's fresh process says of a file, and why it is no entry (an empty text if it is one).

    A file that is too large for the task is judged without its limit. One that the exercise has judged already is
    not judged again.
    """
    report = task.report(file)
    if not report.images and not report.problem:
        task = replace(task, max_bytes=None, max_macs=None, max_parameters=None)
        report = task.report(file)
    broken = task.broken(report)
    return report, broken.get("file") or broken.get("accuracy", "")


def entries() -> list[dict[str, Any]]:
    """The learner's entries, the smallest file first; of equal sizes the more accurate. A file entered twice by one name counts once."""
    own: dict[tuple[Any, Any], dict[str, Any]] = {}
    for row in progress.read_lines(path()):
        if isinstance(row.get("name"), str) and isinstance(row.get("bytes"), int) and isinstance(row.get("accuracy"), int | float):
            own[row["name"], row.get("file")] = row
    return _ranked(own.values())


def course_entries(network: str = "lenet300") -> list[dict[str, Any]]:
    """The course's own, from its evidence: the mean over the seeds of each. Empty where there is no evidence yet."""
    try:
        measured = load_evidence("07").values()
    except FileNotFoundError:
        return []
    found: dict[str, list[dict[str, Any]]] = {}
    for row in (row for entry in measured for row in (entry if isinstance(entry, list) else [entry])):
        kind = "moonshot" if row.get("experiment") == "moonshot" else row.get("stage")
        if row.get("network") == network and kind in COURSE:
            found.setdefault(COURSE[kind], []).append(row)
    return [{"name": name, "bytes": round(_mean(group, "file_bytes")), "accuracy": _mean(group, "accuracy"), "loss": _mean(group, "loss"), "course": True}
            for name, group in found.items()]


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def _ranked(rows: Any) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["bytes"], -row["accuracy"]))


def table(dense_bytes: int | None = None) -> str:
    """The board as text: rank, name, bytes, accuracy, points lost, date; the course's own entries marked with a star.

    Args:
        dense_bytes: of the file that all this began with; given, a column says how many times smaller each is.
    """
    rows = _ranked([*entries(), *course_entries()])
    lines = [f"{'':4}{'name':{LONGEST_NAME + 2}}{'bytes':>9}{'smaller':>9}{'accuracy':>10}{'lost':>7}  date"]
    for rank, row in enumerate(rows, 1):
        name = row["name"] + (" *" if row.get("course") else "")
        smaller = f"{dense_bytes / row['bytes']:.1f} x" if dense_bytes else ""
        lost = f"{100 * row['loss']:.2f}" if isinstance(row.get("loss"), int | float) else ""
        lines.append(f"{rank:2}. {name:{LONGEST_NAME + 2}}{row['bytes']:9,}{smaller:>9}{row['accuracy']:>10.2%}{lost:>7}  {row.get('date', '')}".rstrip())
    if not rows:
        lines.append("nobody yet: leaderboard.enter(my_file, your_name)")
    return "\n".join([*lines, "* by the course; lost: points, against the dense network on the same images"])


def show(dense_bytes: int | None = None) -> None:
    """Print the board."""
    print(table(dense_bytes))


def _task() -> BudgetTask:
    from compresslab.course.chapter07.budget_task import TASK

    return TASK
