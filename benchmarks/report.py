"""The form in which every benchmark reports: tables of rows side by side, for the terminal and for the page.

A module of this folder has a docstring that says what it compares and how long that may take, a number
``BUDGET`` (seconds), and ``run() -> list[Table]``. `python -m benchmarks` does the rest. Wherever two programs do
the same work, the ratio reads "times as fast as the peer": above 1 we are faster, below 1 the peer is.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from compresslab.core.timing import Speedup, Timing, speedup, time_calls

RATIO = "ratio to the peer"
VERDICT = "verdict"
PEER = ["ours (ms)", "peer (ms)", RATIO, VERDICT]  # columns of the cells that `against` makes
NUMBER = re.compile(r"^[-+]?[\d.]")


@dataclass(frozen=True)
class Table:
    """One table of results: what it shows, how it was measured, and its cells as text.

    Args:
        title: a line.
        note: sentences below the title: sizes, rounds, what the columns mean, and why we lose where we do.
        columns: heads; the first column names the row.
        rows: as many cells per row as there are columns; anything, shown by ``str``.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: {len(self.columns)} columns, but the row {list(row)} has {len(row)} cells")

    @property
    def cells(self) -> list[list[str]]:
        """All rows as text."""
        return [[str(cell) for cell in row] for row in self.rows]

    def __str__(self) -> str:
        """The table for a terminal, in columns."""
        lines = [list(self.columns), *self.cells]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        right = self._numeric()
        shown = ["  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
                 for line in lines]  # fmt: skip
        return "\n".join([self.title, *([self.note] if self.note else []), *shown, ""])

    def markdown(self) -> str:
        """The table for a page."""
        rules = ["---:" if right else "---" for right in self._numeric()]
        lines = [_markdown_row(line) for line in (self.columns, rules, *self.cells)]
        return "\n".join([f"### {self.title}", "", *([self.note, ""] if self.note else []), *lines, ""])

    def slower(self) -> list[str]:
        """The rows whose verdict is that the peer is faster: first cell and ratio."""
        if VERDICT not in self.columns or RATIO not in self.columns:
            return []
        verdict, ratio = self.columns.index(VERDICT), self.columns.index(RATIO)
        return [f"{row[0]}, {row[ratio]}" for row in self.cells if row[verdict] == "slower"]

    def _numeric(self) -> list[bool]:
        """Whether most filled cells of a column begin like a number; never the first column."""
        filled = [[cell for cell in column if cell] for column in zip(*self.cells, strict=True)] or [[]] * len(self.columns)
        return [i > 0 and 2 * sum(map(bool, map(NUMBER.match, column))) > len(column) for i, column in enumerate(filled)]


class Benchmark(Protocol):
    """A module of this folder."""

    BUDGET: float

    def run(self) -> list[Table]:
        """Measure, and return the tables."""


@dataclass(frozen=True)
class Result:
    """What became of one module: its tables, or the reason why there are none; the seconds it took, and the day."""

    name: str
    headline: str
    budget: float
    seconds: float
    day: str
    tables: Sequence[Table] = ()
    failure: str = ""
    picture: str = ""  # a file beside the page, if the module draws one

    def markdown(self) -> str:
        """Its part of the page."""
        body = [f"**Failed:** {self.failure}\n"] if self.failure else [table.markdown() for table in self.tables]
        shown = [f"![{self.headline}]({self.picture})", ""] if self.picture else []
        return "\n".join([f"## {self.name}", "", f"{self.headline} ({self.seconds:.0f} s, {self.day}.)", "", *shown, *body])


def page(results: Sequence[Result], machine: Mapping[str, Any], command: str) -> str:
    """The page of results, in Markdown.

    Args:
        results: of all modules, in the order of the page.
        machine: what `deploy.machine.describe_machine` says.
        command: how the page was made.
    """
    total = sum(result.seconds for result in results)
    head = [
        "# Results of the benchmarks",
        "",
        f"Made by `{command}` in {total / 60:.1f} minutes; edit nothing here, run it again.",
        "Everything within a table was measured in turn in the same minutes; times differ from machine to machine, "
        "ratios much less. A ratio to a peer above 1 means that we are faster; brackets hold its 95 % interval.",
        "",
        *(f"- {name}: {_shown(value)}" for name, value in machine.items() if value is not None),
        "",
        "## In short",
        "",
        *summary(results),
        "",
    ]
    return "\n".join(head) + "\n" + "\n".join(result.markdown() for result in results)


def summary(results: Sequence[Result]) -> list[str]:
    """What failed, where a peer is faster, and the seconds of each module beside its budget."""
    failed = [f"- failed: {result.name}" for result in results if result.failure]
    slower = [f"- slower than the peer: {result.name}, {table.title}: {row}"
              for result in results for table in result.tables for row in table.slower()]  # fmt: skip
    seconds = ", ".join(f"{result.name} {result.seconds:.0f} ({result.budget:.0f})" for result in results)
    return [*failed, *(slower or ["- slower than the peer: nowhere"]), f"- seconds (and budget): {seconds}"]


def results_to_json(results: Sequence[Result], machine: Mapping[str, Any]) -> dict[str, Any]:
    """All that the page shows, as plain data."""
    return {"machine": dict(machine), "results": [asdict(result) | {"tables": tables_to_json(result.tables)} for result in results]}


def results_from_json(data: Mapping[str, Any]) -> list[Result]:
    """The results in what `results_to_json` gave."""
    return [Result(**(result | {"tables": tables_from_json(result["tables"])})) for result in data["results"]]


def tables_to_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Tables as plain data, cells as text."""
    return [asdict(table) | {"columns": list(table.columns), "rows": table.cells} for table in tables]


def tables_from_json(data: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The inverse of `tables_to_json`."""
    return [Table(**table) for table in data]


def time_within(
    calls: Mapping[str, Callable[[], object]], seconds: float, *, most: int = 30, least: int = 5, settle: int = 0
) -> dict[str, Timing]:
    """`core.time_calls` with as many rounds as fit into ``seconds``, judged by one call of each.

    Args:
        calls: functions by name, run in turn.
        seconds: for all rounds together.
        most, least: rounds.
        settle: uncounted calls before each sample, for calls that go to different engines.
    """
    start = time.perf_counter()
    for call in calls.values():
        call()
    once = max(time.perf_counter() - start, len(calls) * 1e-3)  # a sample takes a millisecond at least
    rounds = math.floor(seconds / (once * (1 + settle)))
    return time_calls(calls, repeats=min(most, max(least, rounds - 1)), warmup=1, settle=settle)


def summarize(samples: Sequence[float]) -> Timing:
    """A `Timing` of milliseconds that were taken elsewhere, one per round."""
    q1, median, q3 = np.quantile(samples, [0.25, 0.5, 0.75]).tolist()
    return Timing(median, q1, q3, tuple(samples))


def against(peer: Timing, ours: Timing) -> list[str]:
    """The cells of the columns `PEER`: both times, the ratio with its interval, the verdict."""
    gain = speedup(peer, ours)
    return [show_time(ours), show_time(peer), show_ratio(gain), gain.verdict]


def show_time(timing: Timing) -> str:
    """The median in milliseconds, and in parentheses the interquartile range.

    Example:
        >>> show_time(Timing(12.34, 12.0, 12.5, (12.0, 12.34, 12.5)))
        '12.3 (0.5)'
    """
    spread = f"{timing.iqr:.0f}" if timing.iqr >= 9.5 else f"{timing.iqr:.1g}"
    return f"{_digits(timing.median)} ({spread})"


def show_ratio(gain: Speedup) -> str:
    """A ratio and its interval.

    Example:
        >>> show_ratio(Speedup(2.046, 1.9, 13.2))
        '2.05 [1.90, 13.2]'
    """
    return f"{_digits(gain.ratio)} [{_digits(gain.low)}, {_digits(gain.high)}]"


def threads_note() -> str:
    """How many threads torch uses, of how many the machine has."""
    import torch

    return f"torch {torch.get_num_threads()} of {os.cpu_count()} threads"


def _digits(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(max(value, 1e-4))))}f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _shown(value: object) -> str:
    """A value of the machine's description in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
