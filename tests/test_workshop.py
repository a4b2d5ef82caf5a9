"""The workshop's notebooks run from top to bottom as a host sets them up: quick, with only the tagged exercises open."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from compresslab.course import progress
from compresslab.course.build import learner_notebook
from compresslab.course.chapters import CHAPTERS, load_chapter
from compresslab.course.source import read_source

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = [number for number in sorted(CHAPTERS) if any(exercise.workshop for exercise in load_chapter(number).exercises)]


@pytest.mark.parametrize("number", NUMBERS)
def test_nothing_fails_and_what_is_tagged_is_to_do(number, tmp_path, monkeypatch):
    chapter = load_chapter(number)
    for name, value in {"HOME": str(tmp_path), "QUICK": "1", "STATIC": "1", "STRICT": ""}.items():
        monkeypatch.setenv(f"COMPRESSLAB_{name}", value)
    solved = read_source(ROOT / "solutions" / f"{chapter.name}.py", chapter)
    notebook = nbformat.from_dict(learner_notebook(solved, chapter, workshop_only=True))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    still = {exercise.id for exercise in chapter.exercises if exercise.workshop or exercise.value}
    assert {exercise.id: progress.states().get(exercise.id) for exercise in chapter.exercises} == {
        exercise.id: "to do" if exercise.id in still else "passed" for exercise in chapter.exercises
    }
