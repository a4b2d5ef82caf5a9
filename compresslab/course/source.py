"""From a chapter's text (jupytext percent) to a notebook with everything nbgrader and Jupyter need.

An author writes prose and code; this module adds, from the chapter's table, what would otherwise be
repeated by hand: nbgrader's cell metadata, stable cell ids, points, the heading of every exercise, the
options of every question.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from compresslab.course.exercise import Chapter, Exercise, Prediction, Question

KINDS = {"check": Exercise, "answer": Question, "predict": Prediction}
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_PLACEHOLDER = re.compile(r"^\{\{(exercise|question|prediction) ([^}]+)\}\}$", re.MULTILINE)


@dataclass(frozen=True)
class Asks:
    """What a check cell asks: `name = function("id", ...)`."""

    function: str
    id: str
    name: str

    @property
    def grade_id(self) -> str:
        """nbgrader's name of the cell; it allows letters, digits, _ and - only."""
        return f"{self.function}-{self.id.replace('.', '-')}"


def course_root() -> Path:
    """The folder that holds `solutions/` and `notebooks/`: here, or beside the installed package."""
    here = Path.cwd()
    return here if (here / "notebooks").is_dir() else Path(__file__).resolve().parents[2]


def asks(source: str) -> Asks | None:
    """What a code cell asks, if its last statement is `name = check("id", ...)`, `answer` or `predict`.

    Example:
        >>> asks('magnitude_mask = check("1.2", magnitude_mask)').grade_id
        'check-1-2'
    """
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS
    ]
    if not calls:
        return None
    match ast.parse(source).body[-1]:
        case ast.Assign(
            targets=[ast.Name(name)], value=ast.Call(ast.Name(function), [ast.Constant(str(id)), *_])
        ) if function in KINDS and len(calls) == 1:
            return Asks(function, id, name)
    raise ValueError(f'a check cell ends in one `name = check("id", name)`, and holds no other: {source!r}')


def read_source(path: Path, chapter: Chapter) -> NotebookNode:
    """The complete notebook, with solutions and without outputs, that a chapter's text describes.

    Raises:
        ValueError: a cell breaks a rule of check or solution cells, or a placeholder names nothing.
        KeyError: an id is not in the chapter's table.
    """
    import jupytext

    text = path.read_text(encoding="utf-8")
    raw = jupytext.reads(text, fmt="py:percent")
    notebook = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "compresslab": {"chapter": chapter.number},
        }
    )
    for cell in raw.cells:
        make = nbformat.v4.new_markdown_cell if cell.cell_type == "markdown" else nbformat.v4.new_code_cell
        tags = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        source = expand(cell.source, chapter) if cell.cell_type == "markdown" else cell.source
        notebook.cells.append(make(source, metadata=tags))
    _mark_cells(notebook, chapter)
    _name_cells(notebook)
    return notebook


def _mark_cells(notebook: NotebookNode, chapter: Chapter) -> None:
    """Give check cells and the solution cells before them nbgrader's metadata."""
    waiting: NotebookNode | None = None
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        asked = asks(cell.source)
        if BEGIN in cell.source:
            if waiting is not None or asked is not None:
                raise ValueError(f"a solution cell is followed by its own check cell: {cell.source[:200]!r}")
            waiting = cell
        elif asked is not None:
            if waiting is None:
                raise ValueError(f"{asked.id} has no solution cell before its check cell")
            item = chapter.find(asked.id, KINDS[asked.function])
            if isinstance(item, Exercise) and asked.name != item.name:
                raise ValueError(f"exercise {item.id} is called {item.name}, the notebook binds {asked.name}")
            _mark(waiting, f"solution-{asked.grade_id}", solution=True)
            _mark(cell, asked.grade_id, points=getattr(item, "points", None))
            if item.workshop:
                waiting.metadata["tags"] = cell.metadata["tags"] = ["workshop"]
            waiting = None
    if waiting is not None:
        raise ValueError(f"no check cell follows the solution cell {waiting.source[:200]!r}")


def _mark(cell: NotebookNode, grade_id: str, *, solution: bool = False, points: int | None = None) -> None:
    cell.metadata["nbgrader"] = {
        "grade": points is not None,
        "grade_id": grade_id,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    if points is not None:
        cell.metadata["nbgrader"]["points"] = points


def _name_cells(notebook: NotebookNode) -> None:
    """Stable cell ids: the grade_id, or a hash of the source, so that a rebuild is no difference."""
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        stem = cell.metadata.get("nbgrader", {}).get("grade_id")
        if stem is None:
            stem = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[stem] += 1
        cell["id"] = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"


def expand(markdown: str, chapter: Chapter) -> str:
    """Replace `{{exercise 1.2}}`, `{{question 1.q1}}` and `{{prediction 1.p1}}` by their text."""

    def text(match: re.Match[str]) -> str:
        kind, id = match.groups()
        return {"exercise": _exercise_text, "question": _question_text, "prediction": _prediction_text}[kind](
            chapter.find(id, {"exercise": Exercise, "question": Question, "prediction": Prediction}[kind])
        )

    result = _PLACEHOLDER.sub(text, markdown)
    if "{{" in result and re.search(r"\{\{(exercise|question|prediction)\b", result):
        raise ValueError(f"a placeholder stands alone on its line: {markdown[:200]!r}")
    return result


def _exercise_text(exercise: Exercise) -> str:
    dots = "\N{BLACK CIRCLE}" * exercise.dots + "\N{WHITE CIRCLE}" * (5 - exercise.dots)
    workshop = " · workshop" if exercise.workshop else ""
    return (
        f"**Exercise {exercise.id} · {exercise.title}** &nbsp; {dots} · {exercise.minutes} min · "
        f"{exercise.track}{workshop} · {exercise.points} points  \n*Cures:* “{exercise.misconception}”"
    )


def _question_text(question: Question) -> str:
    options = "\n".join(f"- **{letter})** {option.text}" for letter, option in question.shuffled.items())
    return f"**Question {question.id}** &nbsp; {question.prompt}\n\n{options}"


def _prediction_text(prediction: Prediction) -> str:
    unit = f" (in {prediction.unit})" if prediction.unit else ""
    return (
        f"**Prediction {prediction.id}** &nbsp; {prediction.prompt}{unit}  \n"
        "Give an interval `(low, high)` that you believe holds the number with 80 %." + (" It is scored on a log scale." if prediction.log else "")
    )
