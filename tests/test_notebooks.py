"""The shipped notebooks: what is generated matches its source, and nothing of our machines is in it."""

import ast
import inspect
import json
import os
import re
import textwrap
from datetime import date
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from compresslab.course.build import digest, learner_notebook
from compresslab.course.chapters import CHAPTERS, load_chapter
from compresslab.course.source import BEGIN, KINDS, asks, read_source

ROOT = Path(__file__).parents[1]
NUMBERS = sorted(CHAPTERS)
PRIVATE = re.compile(r"(?<![\w.~])/(home|root|work|tmp|Users|mnt|var|opt)/|[A-Z]:\\\\|\.venv|site-packages")
LARGEST = 1_500_000
WIDEST = 120  # characters that a notebook shows on a laptop without wrapping

pytestmark = pytest.mark.parametrize("number", NUMBERS)


def source(number):
    chapter = load_chapter(number)
    return read_source(ROOT / "solutions" / f"{chapter.name}.py", chapter)


def shipped(number, folder):
    return nbformat.read(ROOT / folder / f"{load_chapter(number).name}.ipynb", as_version=4)


def plain(notebook):
    """Everything but outputs and counters."""
    cells = [
        {"id": c["id"], "type": c.cell_type, "source": c.source, "metadata": dict(c.metadata)}
        for c in notebook.cells
    ]
    return cells, notebook.metadata


# -- generated = source --------------------------------------------------------------------------------------


def test_the_learners_notebook_is_what_the_source_says(number):
    assert plain(shipped(number, "notebooks")) == plain(
        learner_notebook(source(number), load_chapter(number))
    )


def test_the_solved_notebook_is_what_the_source_says(number):
    assert plain(shipped(number, "solutions")) == plain(source(number))


def test_only_solution_regions_differ(number):
    learner, solved = shipped(number, "notebooks"), shipped(number, "solutions")
    for mine, theirs in zip(learner.cells, solved.cells, strict=True):
        assert mine["id"] == theirs["id"]
        if BEGIN in theirs.source:
            kept = theirs.source.split(BEGIN)[0].rstrip()
            assert mine.source.startswith(kept) and mine.source != theirs.source and BEGIN not in mine.source
        else:
            assert mine.source == theirs.source
    assert learner.metadata.compresslab.digest == digest(learner)


def test_every_exercise_question_and_prediction_stands_once_in_the_notebook(number):
    chapter, found = load_chapter(number), []
    for cell in shipped(number, "notebooks").cells:
        asked = asks(cell.source) if cell.cell_type == "code" else None
        if asked:
            item = chapter.find(asked.id, KINDS[asked.function])
            assert cell.metadata.nbgrader.get("points") == getattr(item, "points", None)
            assert re.fullmatch(r"[a-zA-Z0-9_-]+", cell.metadata.nbgrader.grade_id)
            found.append(asked.id)
    assert sorted(found) == sorted(
        item.id for item in (*chapter.exercises, *chapter.questions, *chapter.predictions)
    )
    text = "\n".join(
        cell.source for cell in shipped(number, "notebooks").cells if cell.cell_type == "markdown"
    )
    for id in found:
        assert re.search(rf"\*\*(Exercise|Question|Prediction) {re.escape(id)}\b", text), (
            f"{id} has no heading"
        )


def body(code, name):
    """The body of one function or class without docstrings and annotations, as a canonical text."""
    (node,) = [n for n in ast.parse(textwrap.dedent(code)).body if getattr(n, "name", None) == name]
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(part) is not None:
            part.body = part.body[1:]
        if isinstance(part, ast.FunctionDef):
            part.returns = None
        if isinstance(part, ast.arg):
            part.annotation = None
    arguments = [] if isinstance(node, ast.ClassDef) else [ast.dump(node.args)]
    return arguments + [ast.unparse(part) for part in node.body]


def test_the_solution_is_the_reference(number):
    cells = {cell["id"]: cell for cell in shipped(number, "solutions").cells}
    for exercise in load_chapter(number).exercises:
        if not exercise.value:
            solution = cells[f"solution-check-{exercise.id.replace('.', '-')}"].source
            reference = inspect.getsource(exercise.reference)
            assert body(solution, exercise.name) == body(reference, exercise.reference.__name__), exercise.id


# -- hygiene -------------------------------------------------------------------------------------------------


def test_learners_notebooks_have_no_outputs(number):
    for cell in shipped(number, "notebooks").cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_solved_notebooks_ran_to_the_end_and_wrote_nothing_to_stderr(number):
    counts = []
    for cell in shipped(number, "solutions").cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error" and output.get("name") != "stderr"
        if cell.cell_type == "code" and cell.source.strip():
            counts.append(cell.execution_count)
    assert counts == list(range(1, len(counts) + 1))


def test_no_printed_table_is_wider_than_a_page(number):
    for cell in shipped(number, "solutions").cells:
        for output in cell.get("outputs", ()):
            lines = [line for line in output.get("text", "").splitlines() if not line.startswith("✓")]
            wide = [line for line in lines if len(line) > WIDEST]
            assert len(wide) < 2, f"{cell['id']}: columns fall apart where lines of {len(wide[0])} characters wrap"


def strings(value):
    """All texts in a notebook, pictures left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if not str(key).startswith("image/"):
                yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
def test_no_machine_is_in_it(number, folder):
    path = ROOT / folder / f"{load_chapter(number).name}.ipynb"
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert [text for text in strings(raw) if PRIVATE.search(text)] == []
    assert (
        raw["metadata"]["kernelspec"]["name"] == "python3"
        and "jupytext" not in raw["metadata"]
        and "widgets" not in raw["metadata"]
    )
    assert path.stat().st_size <= LARGEST


def test_no_cell_starts_with_a_magic_or_a_shell_command(number):
    for cell in shipped(number, "notebooks").cells:
        if cell.cell_type == "code":
            assert not any(line.lstrip().startswith(("%", "!")) for line in cell.source.splitlines())
            assert "https://" not in cell.source and "http://" not in cell.source


# -- one wrong answer in an untouched notebook ------------------------------------------------------------


def test_a_mistake_fails_its_own_check_and_no_other(number, tmp_path):
    """Up to that check; one chapter, another one every day, to its end: they all take ten minutes of two cores."""
    exercise = next(e for e in load_chapter(number).exercises if not e.value)
    notebook = shipped(number, "notebooks")
    own = f"check-{exercise.id.replace('.', '-')}"
    cell = next(c for c in notebook.cells if c["id"] == f"solution-{own}")
    cell.source = (
        "from compresslab.course.selftest import mistake_for_notebook\n"
        f"{exercise.name} = mistake_for_notebook({exercise.id!r}, 0)"
    )
    if number != NUMBERS[date.today().toordinal() % len(NUMBERS)]:
        notebook.cells = notebook.cells[: [c["id"] for c in notebook.cells].index(own) + 1]
    env = {
        **os.environ,
        "COMPRESSLAB_HOME": str(tmp_path / "home"),
        "COMPRESSLAB_QUICK": "1",
        "COMPRESSLAB_STATIC": "1",
        "COMPRESSLAB_STRICT": "0",
    }
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute(env=env)
    failed = {
        c["id"]: o
        for c in notebook.cells
        for o in c.get("outputs", ())
        if o.output_type == "error" and c["id"].startswith(("check-", "answer-", "predict-"))
    }
    assert list(failed) == [own] and failed[own].ename == "Wrong"
    assert exercise.mistakes[0].diagnosis in failed[own].evalue
