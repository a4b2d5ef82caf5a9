"""`python -m compresslab check 01`: run the learner's own notebook from a fresh kernel, strict, and judge it.

The notebook is run by nbval and never written. The run records its events in a folder of its own; the
table is made from these events, and what passed is then copied into the learner's progress.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compresslab.course import progress
from compresslab.course.chapters import load_chapter
from compresslab.course.exercise import Chapter
from compresslab.course.source import course_root

CELL_SECONDS = 60


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    id: str
    title: str
    state: str
    points: int
    possible: int
    diagnosis: str


def check_notebook(number: str, notebook: Path | None = None) -> bool:
    """Run and print the table; returns whether every exercise and question passed and no cell failed.

    Raises:
        FileNotFoundError: there is no notebook of this chapter.
    """
    chapter = load_chapter(number)
    notebook = notebook or course_root() / "notebooks" / f"{chapter.name}.ipynb"
    if not notebook.exists():
        raise FileNotFoundError(
            f"there is no {notebook.name} in {notebook.parent.name}/; `python -m compresslab build "
            f"{chapter.number}` makes it"
        )
    events, failures = run_notebook(notebook)
    rows = table(chapter, events)
    print(render(chapter, rows))
    others = [line for line in failures if not any(row.diagnosis and row.diagnosis in line for row in rows)]
    for line in others:
        print(f"another cell failed: {line.splitlines()[0]}")
    for event in events:
        if event.get("kind") == "check" and event.get("state") == "passed":
            progress.record("check", event["id"], state="passed", message=event.get("message", ""))
    return not failures and all(row.state == "passed" for row in rows)


def run_notebook(notebook: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Run strictly in a fresh kernel: (the events of this run, the error messages of failed cells)."""
    with tempfile.TemporaryDirectory() as home:
        for name in ("progress.jsonl", "results.jsonl"):
            if (progress.home() / name).exists():
                shutil.copy(progress.home() / name, home)
        before = len(progress.read_lines(Path(home) / "progress.jsonl"))
        result = Path(home) / "nbval.xml"
        environment = {
            **os.environ,
            "COMPRESSLAB_STRICT": "1",
            "COMPRESSLAB_STATIC": "1",
            "COMPRESSLAB_HOME": home,
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            os.devnull,
            "--rootdir",
            str(notebook.resolve().parent),
            "-q",
            "-p",
            "no:cacheprovider",
            "--nbval-lax",
            "--nbval-current-env",
            f"--nbval-cell-timeout={CELL_SECONDS}",
            f"--junitxml={result}",
            str(notebook.resolve()),
        ]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True)
        events = progress.read_lines(Path(home) / "progress.jsonl")[before:]
        if not result.exists():
            return events, [(finished.stderr or finished.stdout).strip()[-500:] or "nbval did not start"]
        return events, _failures(result)


def _failures(result: Path) -> list[str]:
    """The messages of the failed cells in a JUnit report."""
    found = ElementTree.parse(result).getroot().iter("testcase")
    messages = [
        (case.get("name", ""), problem)
        for case in found
        for problem in (case.find("failure"), case.find("error"))
        if problem is not None
    ]
    return [
        _short(name, problem.get("message", "") + "\n" + (problem.text or "")) for name, problem in messages
    ]


def _short(name: str, text: str) -> str:
    """nbval quotes the whole cell; keep what follows its word "Traceback", or the last line."""
    lines = [line for line in text.split("Traceback:")[-1].splitlines() if line.strip().strip("-")]
    return f"{name}: " + " ".join(line.strip() for line in lines[-3:])


def table(chapter: Chapter, events: list[dict[str, Any]]) -> list[Row]:
    """One row for each exercise and question, from the events of one run."""
    rows = []
    for item in (*chapter.exercises, *chapter.questions):
        own = [
            event
            for event in events
            if event.get("id") == item.id and event.get("kind") in ("check", "answer")
        ]
        last = own[-1] if own else {}
        state = last.get("state", {True: "passed", False: "wrong"}.get(last.get("correct"), "to do"))
        title = getattr(item, "title", "question")
        diagnosis = last.get("message", "") if state == "wrong" else ""
        rows.append(
            Row(item.id, title, state, item.points if state == "passed" else 0, item.points, diagnosis)
        )
    return rows


def render(chapter: Chapter, rows: list[Row]) -> str:
    """The table as text."""
    lines = [f"{chapter.number} {chapter.title}", f"{'exercise':42}{'state':9}{'points':>7}  diagnosis"]
    for row in rows:
        points = f"{row.points}/{row.possible}"
        lines.append(
            f"{(row.id + ' ' + row.title)[:41]:42}{row.state:9}{points:>7}  {row.diagnosis}".rstrip()
        )
    passed = sum(row.state == "passed" for row in rows)
    total = f"{sum(row.points for row in rows)}/{sum(row.possible for row in rows)}"
    return "\n".join([*lines, f"{passed} of {len(rows)} passed, {total} points"])
