"""nbgrader from end to end on a real chapter: released, solved, submitted, graded; exact points in the gradebook.

`COMPRESSLAB_CLASSROOM=07` takes another chapter than 00.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from compresslab.course.chapters import load_chapter
from compresslab.course.source import BEGIN

ROOT = Path(__file__).parents[1]
CHAPTER = load_chapter(os.environ.get("COMPRESSLAB_CLASSROOM", "00"))
FILE = f"{CHAPTER.name}.ipynb"
EXERCISES = [f"check-{e.id.replace('.', '-')}" for e in CHAPTER.exercises]
POINTS = dict(zip(EXERCISES, (e.points for e in CHAPTER.exercises), strict=True)) | {
    f"answer-{q.id.replace('.', '-')}": q.points for q in CHAPTER.questions
}
# what the third student submits: every second one solved (not the design task at the end, which may use the others),
# the first one wrong, one question wrong, one check edited
SOLVED = set(list(POINTS)[1::2]) - {EXERCISES[-1]}
WRONG, EDITED = EXERCISES[0], EXERCISES[4]
UNSOLVED_QUESTION = next(q for q in CHAPTER.questions if f"answer-{q.id.replace('.', '-')}" not in SOLVED)
HIDDEN, WRONG_CODE = "", "def {name}(*arguments, **named):\n    return None"
if CHAPTER.number == "00":
    HIDDEN = """### BEGIN HIDDEN TESTS
import torch
assert {name}(torch.tensor([8.0, 24.0]), torch.tensor([4.0, 4.0])) == 4
### END HIDDEN TESTS"""
    WRONG_CODE = "def {name}(dense_bits, compressed_bits):\n    return compressed_bits.sum() / dense_bits.sum()"
HIDDEN_POINTS = {"hidden": 1} if HIDDEN else {}


def nbgrader(folder, *arguments):
    """Run one nbgrader command; it looks for its `alembic` on the path."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COMPRESSLAB_", "NBGRADER_"))} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COMPRESSLAB_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def solutions_into(notebook, solved, which):
    for cell in notebook.cells:
        if cell["id"].removeprefix("solution-") in which and cell["id"].startswith("solution-"):
            cell.source = solved[cell["id"]]
    return notebook


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder in which three students were graded."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    (folder / "home").mkdir()
    (folder / "home" / "progress.jsonl").write_text('{"kind": "check", "id": "0.1", "state": "wrong"}\n')
    source = nbformat.read(ROOT / "solutions" / FILE, as_version=4)
    solved = {cell["id"]: cell.source for cell in source.cells}
    place = next(i for i, cell in enumerate(source.cells) if cell["id"] == WRONG)
    name = re.search(r'check\("[\d.]+", (\w+)', solved[WRONG])[1]
    if HIDDEN:
        hidden = new_code_cell(HIDDEN.format(name=name), id="hidden")
        hidden.metadata["nbgrader"] = dict(
            grade=True, grade_id="hidden", locked=True, points=1, schema_version=3, solution=False, task=False
        )
        source.cells.insert(place + 1, hidden)
    (folder / "source" / "ps").mkdir(parents=True)
    nbformat.write(source, folder / "source" / "ps" / FILE)
    nbgrader(folder, "generate_assignment", "ps")

    def released():
        return nbformat.read(folder / "release" / "ps" / FILE, as_version=4)

    half = solutions_into(released(), solved, SOLVED)
    question = UNSOLVED_QUESTION.id.replace(".", "-")
    for cell in half.cells:
        if cell["id"] == f"solution-{WRONG}":
            cell.source = WRONG_CODE.format(name=name)
        if cell["id"] == f"solution-answer-{question}":
            wrong = next(letter for letter in "abc" if letter != UNSOLVED_QUESTION.letter)
            cell.source = solved[cell["id"]].replace(f'"{UNSOLVED_QUESTION.letter}"', f'"{wrong}"')
            assert cell.source != solved[cell["id"]]
        if cell["id"] == EDITED:
            cell.source = "print('I edited a locked check')"
    everything = {id.removeprefix("solution-") for id in solved if id.startswith("solution-")}
    submissions = {"perfect": solutions_into(released(), solved, everything), "untouched": released(), "half": half}
    for student, notebook in submissions.items():
        (folder / "submitted" / student / "ps").mkdir(parents=True)
        nbformat.write(notebook, folder / "submitted" / student / "ps" / FILE)
    nbgrader(folder, "autograde", "ps")
    return folder


def scores(course, student):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        graded = gradebook.find_submission_notebook(CHAPTER.name, "ps", student).grades
        return {grade.name: grade.auto_score for grade in graded}


def test_the_release_holds_no_solution_and_its_checks_are_locked(course):
    notebook = nbformat.read(course / "release" / "ps" / FILE, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert BEGIN not in text and "HIDDEN" not in text
    assert not HIDDEN or "torch.tensor([8.0, 24.0])" not in text
    solved = nbformat.read(ROOT / "solutions" / FILE, as_version=4)
    for cell in solved.cells:
        if BEGIN in cell.source:
            body = cell.source.split(BEGIN)[1].split("### END SOLUTION")[0].strip()
            assert body and body not in text
    cells = {cell["id"]: cell for cell in notebook.cells}
    for name, points in POINTS.items():
        mark = cells[name].metadata.nbgrader
        assert mark.locked and mark.grade and mark.points == points


def test_every_point_of_three_students(course):
    everything = POINTS | HIDDEN_POINTS
    nothing = dict.fromkeys(everything, 0)
    assert scores(course, "perfect") == everything
    assert scores(course, "untouched") == nothing
    assert scores(course, "half") == nothing | {name: POINTS[name] for name in SOLVED}


def test_autograded_notebooks_are_quiet_and_restore_the_locked_check(course):
    for student in ("perfect", "untouched", "half"):
        notebook = nbformat.read(course / "autograded" / student / "ps" / FILE, as_version=4)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        assert not [output for output in outputs if output.get("name") == "stderr"]
        kinds = {kind for output in outputs for kind in output.get("data", {})}
        assert "application/vnd.jupyter.widget-view+json" not in kinds
        if student == "half":
            cells = {cell["id"]: cell for cell in notebook.cells}
            assert cells[EDITED].source.strip() == next(
                cell.source.strip() for cell in nbformat.read(ROOT / "solutions" / FILE, as_version=4).cells if cell["id"] == EDITED
            )


def test_the_graders_own_progress_is_left_alone(course):
    assert [path.name for path in (course / "home").iterdir()] == ["progress.jsonl"]
    assert (course / "home" / "progress.jsonl").read_text().count("\n") == 1
