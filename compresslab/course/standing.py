"""Where the learner stands, and what next: read from the event log and the ledger, nothing is stored.

    python -m compresslab progress      the table
    progress.page()                     the same, drawn, in a notebook
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from compresslab.course import chapters, ledger, mode, progress
from compresslab.course.exercise import Chapter, Exercise
from compresslab.course.hints import RUNGS
from compresslab.course.predictions import ALPHA, outcomes
from compresslab.course.questions import first_answers

CLEAR = 0.05  # a calibration that chance makes more rarely than this is named


@dataclass(frozen=True)
class Standing:
    """One chapter. `right` counts first answers, `inside` those of the `revealed` intervals that held the number."""

    chapter: Chapter
    passed: int
    points: int
    hints: int
    right: int
    inside: int
    revealed: int


def standings() -> list[Standing]:
    """Every chapter, in order. Hints count once each, however often they were read again."""
    state, first, known = progress.states(), first_answers(), outcomes()
    climbed = Counter(event["id"] for event in progress.events("hint"))
    found = []
    for chapter in _chapters():
        passed = [e for e in chapter.exercises if state.get(e.id) == "passed"]
        ids = {p.id for p in chapter.predictions}
        mine = [o for o in known if o.id in ids]
        found.append(
            Standing(
                chapter,
                passed=len(passed),
                points=sum(e.points for e in passed),
                hints=sum(min(climbed[e.id], len(RUNGS)) for e in chapter.exercises),
                right=sum(first.get(q.id) is True for q in chapter.questions),
                inside=sum(o.inside for o in mine),
                revealed=len(mine),
            )
        )
    return found


def _chapters() -> list[Chapter]:
    found = []
    for number in sorted(chapters.CHAPTERS):
        try:
            found.append(chapters.load_chapter(number))
        except ModuleNotFoundError:  # a chapter that is not written yet
            continue
    return found


def next_exercise() -> Exercise | None:
    """The first open core exercise of the chapter last worked on, then of all chapters; None if all are done."""
    state = progress.states()
    written = _chapters()
    last = next((e["id"] for e in reversed(progress.events("check")) if e.get("state") != "to do"), "")
    written.sort(key=lambda chapter: all(e.id != last for e in chapter.exercises))  # stable: the last one first
    open_ones = (e for c in written for e in c.exercises if e.track == "core" and state.get(e.id) != "passed")
    return next(open_ones, None)


def repeated_mistakes() -> list[tuple[Exercise, str, int]]:
    """(exercise, known mistake, how often it was met), those met more than once, the most frequent first."""
    exercises = {e.id: e for chapter in _chapters() for e in chapter.exercises}
    wrong = (e for e in progress.events("check") if e.get("state") == "wrong" and isinstance(e.get("mistake"), str))
    met = Counter((event["id"], event["mistake"]) for event in wrong if event["id"] in exercises)
    return [(exercises[id], mistake, times) for (id, mistake), times in met.most_common() if times > 1]


def calibration_sentence(inside: int, revealed: int) -> str:
    """How many of the 80 % intervals held the number, and whether that is more than chance.

    Example:
        >>> calibration_sentence(2, 10)
        '2 of 10 intervals held the number; with 80 % each it would be 8.0. Your intervals are too narrow.'
        >>> calibration_sentence(3, 4)
        '3 of 4 intervals held the number; with 80 % each it would be 3.2. So far chance explains the difference.'
    """
    if not revealed:
        return "No prediction was compared with its number yet."
    p = 1 - ALPHA
    chance = [math.comb(revealed, k) * p**k * ALPHA ** (revealed - k) for k in range(revealed + 1)]
    verdict = "So far chance explains the difference."
    if sum(chance[: inside + 1]) < CLEAR:
        verdict = "Your intervals are too narrow."
    elif sum(chance[inside:]) < CLEAR:
        verdict = "Your intervals are wider than they need be."
    plural = "s" if revealed > 1 else ""
    return f"{inside} of {revealed} interval{plural} held the number; with {p:.0%} each it would be {p * revealed:.1f}. {verdict}".replace("80%", "80 %")


# -- the learner's networks beside the course's ----------------------------------------------------------------


def own_rows() -> list[dict[str, Any]]:
    """The ledger's rows that have both a file size and an accuracy, from all chapters."""
    return [row for row in ledger.rows() if _positive(row.get("file_bytes")) and _positive(row.get("accuracy"))]


def course_rows() -> list[dict[str, Any]]:
    """The course's own comparison: the means over the seeds; empty where none is shipped."""
    from compresslab.compare import shipped_results, summarize

    try:
        rows = summarize(shipped_results())
    except FileNotFoundError:
        return []
    return [row for row in rows if _positive(row.get("file_bytes")) and _positive(row.get("accuracy"))]


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that no other beats in file size and accuracy, the smallest file first."""
    from compresslab.course.plots import pareto_front

    return [rows[i] for i in pareto_front([(row["file_bytes"], row["accuracy"]) for row in rows])]


def front_lines() -> list[str]:
    """The learner's Pareto front as text, each row beside the course's smallest file that is as accurate."""
    best, course = front(own_rows()), course_rows()
    if not best:
        return []
    lines = [f"Your Pareto front, {len(best)} of {len(own_rows())} rows of your ledger:"]
    for row in best:
        rivals = [r for r in course if r["accuracy"] >= row["accuracy"]]
        line = f"  {row.get('chapter') or '':3}{row['name'][:33]:34}{row['file_bytes']:>11,.0f} bytes{row['accuracy']:>9.2%}"
        if rivals:
            rival = min(rivals, key=lambda r: r["file_bytes"])
            line += f"   course: {rival['file_bytes']:,.0f} ({rival['network']}, {rival['method']})"
        lines.append(line)
    return [*lines, "  course: the smallest file of its comparison that is at least as accurate, on whatever data"]


# -- as text ---------------------------------------------------------------------------------------------------


def summary() -> str:
    """All chapters as a table, the calibration, the Pareto front, and what next."""
    rows = standings()
    width = max(len(_label(row)) for row in rows) + 2 if rows else 24
    cells = [("exercises", 11), ("points", 10), ("hints", 7), ("questions*", 12), ("intervals*", 12)]
    lines = [f"{'chapter':{width}}" + "".join(f"{title:>{size}}" for title, size in cells)]
    for row in rows:
        chapter = row.chapter
        values = (
            f"{row.passed}/{len(chapter.exercises)}",
            f"{row.points}/{sum(e.points for e in chapter.exercises)}",
            row.hints,
            f"{row.right}/{len(chapter.questions)}",
            f"{row.inside}/{row.revealed}",
        )
        lines.append(f"{_label(row):{width}}" + "".join(f"{v:>{size}}" for v, (_, size) in zip(values, cells, strict=True)))
    lines += ["* questions right at the first answer; of the intervals compared, those that held the number", ""]
    lines.append(calibration_sentence(sum(row.inside for row in rows), sum(row.revealed for row in rows)))
    return "\n".join([*lines, *front_lines(), *what_next()])


def what_next() -> list[str]:
    """Which exercise comes next, and which misconceptions came back."""
    exercise = next_exercise()
    lines = ["All core exercises are done."]
    if exercise is not None:
        lines = [f"Next: {exercise.id} {exercise.title}, about {exercise.minutes} minutes (chapter {exercise.id.split('.')[0].zfill(2)})."]
    for again, mistake, times in repeated_mistakes()[:3]:
        lines.append(f'Met {times} times in {again.id} {again.name}: "{mistake}". The belief behind it: {again.misconception}.')
    return lines


def _label(row: Standing) -> str:
    return f"{row.chapter.number} {row.chapter.title.partition(':')[0]}"


# -- as figures ------------------------------------------------------------------------------------------------


def page() -> Any:
    """Draw where the learner stands: a bar for every chapter, the intervals, the Pareto front; print what next.

    Returns:
        a matplotlib Figure; None while nothing was done (said in a sentence, unless widgets are static).
    """
    if not progress.events() and not ledger.rows():
        if not mode.static():
            print("Nothing to show yet: your first check, prediction or measurement appears here.")
        return None
    import matplotlib.pyplot as plt

    figure, (bars, held, fronts) = plt.subplots(1, 3, figsize=(12, 4.2), width_ratios=(1.1, 0.8, 1.6))
    rows = standings()
    _draw_chapters(bars, rows)
    _draw_intervals(held, rows)
    _draw_fronts(fronts)
    print("\n".join(what_next()))
    return figure


def _draw_chapters(ax: Any, rows: list[Standing]) -> None:
    for place, row in enumerate(rows):
        total = len(row.chapter.exercises)
        ax.barh(place, 1, color="white", edgecolor="#7A7A7A", height=0.7)
        ax.barh(place, row.passed / total, color="#0072B2", height=0.7)
        ax.text(1.03, place, f"{row.passed}/{total}", va="center", fontsize=8)
    ax.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    ax.set(xlim=(0, 1.2), xlabel="exercises passed (fraction)", title="Chapters")
    ax.set_xticks([0, 0.5, 1])
    ax.invert_yaxis()
    ax.grid(False)


def _draw_intervals(ax: Any, rows: list[Standing]) -> None:
    """One dot per chapter, the whole in black; the line is what 80 % intervals promise."""
    inside, revealed = sum(row.inside for row in rows), sum(row.revealed for row in rows)
    for place, row in enumerate(rows):
        if row.revealed:
            ax.plot(row.inside / row.revealed, place, "o", color="#D55E00")
            ax.annotate(f"{row.inside}/{row.revealed}", (row.inside / row.revealed, place), xytext=(0, 6), textcoords="offset points", fontsize=7, ha="center")
    ax.axvline(1 - ALPHA, color="#7A7A7A", linestyle="--")
    ax.set_yticks(range(len(rows)), [row.chapter.number for row in rows], fontsize=8)
    title = f"All: {inside} of {revealed}" if revealed else "No prediction yet"
    ax.set(xlim=(-0.08, 1.08), ylim=(len(rows) - 0.4, -0.8), xlabel="held the number (fraction)", title=title)


def _draw_fronts(ax: Any) -> None:
    """The learner's front over the fronts that the course's comparison has for each network."""
    from compresslab.course import plots

    course, own = course_rows(), own_rows()
    for network in dict.fromkeys(row["network"] for row in course):
        line = front([row for row in course if row["network"] == network])
        x, y = [row["file_bytes"] for row in line], [row["accuracy"] for row in line]
        ax.step(x, y, where="post", color="#BBBBBB", linewidth=1)
        ax.annotate(network, (x[0], y[0]), xytext=(0, 3), textcoords="offset points", fontsize=7, color="#7A7A7A")
    best = front(own)
    beaten = [row for row in own if row not in best]
    ax.plot([row["file_bytes"] for row in beaten], [row["accuracy"] for row in beaten], "x", color="#7A7A7A", markersize=5)
    if best:
        plots.pareto(best, ax)
    ax.set(xscale="log", xlabel=plots.AXIS_LABELS["file_bytes"], ylabel=plots.AXIS_LABELS["accuracy"], title="Your Pareto front; grey: the course's, by network")
