"""The course itself: seconds and memory of every solved chapter.

    python -m benchmarks chapters [chapters 01 10]

Each chapter of `solutions/` runs from its first cell to its last in a fresh process with an empty progress file,
as a learner's finished notebook would: no browser, no kernel, figures drawn and closed. What it takes to import
the libraries is told apart. The drawn images are in the cache before the clock starts; installing is not counted.

Budget: 450 seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import Table, threads_note

BUDGET = 450  # seconds
LONGEST = 150  # seconds after which a chapter is stopped
GOAL = 60  # seconds that the cells of a chapter may take on two cores
ROOT = Path(__file__).resolve().parents[1]
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


class Run(NamedTuple):
    """A chapter that ran: seconds of the imports and of the cells, of the slowest cell, and the most memory."""

    chapter: str
    import_seconds: float
    cell_seconds: float
    cpu_seconds: float
    slowest_line: int
    slowest_seconds: float
    peak_bytes: int


class Cell(NamedTuple):
    """A code cell: the line of the file it begins at, counted from 1, and its text."""

    line: int
    source: str


def code_cells(text: str) -> list[Cell]:
    """The code cells of a chapter in jupytext's percent format; text cells and the header are left out.

    Example:
        >>> code_cells("# %% [markdown]\\n# Words\\n\\n# %%\\nx = 1\\ny = 2\\n")
        [Cell(line=5, source='x = 1\\ny = 2\\n')]
    """
    marks = list(CELL.finditer(text))
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    cells = []
    for mark, end in zip(marks, ends, strict=True):
        if not mark[1].strip().startswith("[markdown]"):
            cells.append(Cell(text.count("\n", 0, mark.end()) + 2, text[mark.end() + 1 : end]))
    return cells


def run_here(path: Path) -> Run:
    """Run one chapter in this process, which should be fresh."""
    from benchmarks._memory import high_water_bytes

    start = time.perf_counter()
    import matplotlib.pyplot as plt

    import compresslab.course  # noqa: F401

    imported = time.perf_counter() - start
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    sys.modules["__main__"] = module  # where the classes of a notebook live
    seconds: list[tuple[float, int]] = []
    cpu = time.process_time()
    for cell in code_cells(path.read_text(encoding="utf-8")):
        code = compile("\n" * (cell.line - 1) + cell.source, str(path), "exec")
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, module.__dict__)
        plt.close("all")  # as a notebook does behind each cell
        seconds.append((time.perf_counter() - start, cell.line))
    slowest, line = max(seconds)
    total = sum(took for took, _ in seconds)
    return Run(path.stem, imported, total, time.process_time() - cpu, line, slowest, high_water_bytes())


def run_apart(path: Path, limit: float) -> Run | str:
    """`run_here` in a fresh process with a progress folder of its own; a sentence where that failed."""
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"COMPRESSLAB_STATIC": "1", "COMPRESSLAB_STRICT": "1", "COMPRESSLAB_HOME": home, "MPLBACKEND": "Agg"}
        command = [sys.executable, "-m", "benchmarks.chapters", str(path)]
        try:
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit:.0f} s"
    if done.returncode:
        return "failed: " + (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1][:120]
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def run(numbers: Sequence[str] = ()) -> list[Table]:
    """Run the chapters with these numbers, or all, and return the table."""
    from compresslab.data import load_data

    for name in ("ink_digits", "street_digits"):
        load_data(name)
    end = time.monotonic() + BUDGET
    results: dict[str, Run | str] = {}
    for path in sorted((ROOT / "solutions").glob("[0-9][0-9]_*.py")):
        if not numbers or path.stem[:2] in numbers:
            left = end - time.monotonic()
            results[path.stem] = run_apart(path, min(LONGEST, left)) if left > 5 else "left out: the budget is used up"
    return [table(results)]


def table(results: dict[str, Run | str]) -> Table:
    """One row per chapter, and their sum."""
    rows = [row(name, result) for name, result in results.items()]
    ran = [result for result in results.values() if isinstance(result, Run)]
    if ran:
        whole = [sum(column) for column in zip(*((r.import_seconds, r.cell_seconds, r.cpu_seconds) for r in ran), strict=True)]
        peak = max(r.peak_bytes for r in ran)
        rows.append([f"all {len(ran)}", *(f"{value:.1f}" for value in whole), "", f"{peak / 1e6:.0f}", ""])
    note = (
        f"Solved chapters as scripts, each in a fresh process; {threads_note()}. Goal: at most {GOAL} s of cells. "
        "Memory: high-water mark of the process, libraries included."
    )
    return Table(
        "The course: seconds and memory per chapter",
        note,
        ["chapter", "import (s)", "cells (s)", "CPU (s)", "slowest cell", "peak (MB)", "goal"],
        rows,
    )


def row(name: str, result: Run | str) -> list[str]:
    """The row of a chapter, or of the reason why there is none."""
    if isinstance(result, str):
        return [name, "", "", "", "", "", result]
    slowest = f"{result.slowest_seconds:.1f} s, line {result.slowest_line}"
    seconds = (f"{value:.1f}" for value in (result.import_seconds, result.cell_seconds, result.cpu_seconds))
    return [name, *seconds, slowest, f"{result.peak_bytes / 1e6:.0f}", "met" if result.cell_seconds <= GOAL else "missed"]


if __name__ == "__main__":
    print(json.dumps(run_here(Path(sys.argv[1]))._asdict()))
