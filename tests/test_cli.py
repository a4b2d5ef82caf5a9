"""The command line, and `check NN` on a learner's own notebook, run by nbval in a fresh kernel."""

import os
import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from toy_chapter import CHAPTER, toy, toy_root  # noqa: F401

from compresslab.__main__ import main, parser
from compresslab.course import classroom, evidence, progress
from compresslab.course.build import build, learner_notebook
from compresslab.course.source import read_source

TESTS = Path(__file__).parent


@pytest.fixture
def here(toy_root, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    monkeypatch.chdir(toy_root)
    return toy_root


def test_check_shows_every_state_and_never_touches_the_notebook(here, capsys, toy):
    """Exercises passed, wrong and to do, a wrong answer, and a cell of the learner's own that fails."""
    solved = read_source(here / "solutions" / "90_toy.py", CHAPTER)
    notebook = learner_notebook(solved, CHAPTER)
    cells = {c["id"]: c for c in notebook.cells}
    cells["solution-check-90-1"].source = next(
        c.source for c in solved.cells if c["id"] == "solution-check-90-1"
    )
    cells[
        "solution-check-90-2"
    ].source = "def prune(values, k):\n    values *= keep_largest(values, k)\n    return values"
    wrong = next(letter for letter in "abc" if letter != CHAPTER.questions[0].letter)
    cells["solution-answer-90-q1"].source = f"q1 = '{wrong}'"
    notebook.cells.append(nbformat.v4.new_code_cell("mine = 1 / 0"))
    path = here / "notebooks" / "90_toy.ipynb"
    nbformat.write(notebook, path)
    before = path.read_bytes()
    progress.record("check", "90.3", state="wrong", message="an older event")

    assert main(["check", "90"]) == 1
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("90.")}
    assert " passed " in rows["90.1"] and "3/3" in rows["90.1"]
    assert (
        " wrong " in rows["90.2"]
        and "0/2" in rows["90.2"]
        and "you changed the values that were given to you" in rows["90.2"]
    )
    assert " to do " in rows["90.3"] and " wrong " in rows["90.q1"]
    assert "1 of 4 passed, 3/8 points" in out and "another cell failed" in out and "ZeroDivisionError" in out
    assert path.read_bytes() == before and sorted(p.name for p in path.parent.iterdir()) == ["90_toy.ipynb"]
    assert progress.states() == {"90.1": "passed", "90.3": "wrong"} and not progress.events("answer")


def test_check_is_zero_only_if_everything_passed(here, capsys, monkeypatch):
    build("90", root=here, execute=False)
    events = [{"kind": "check", "id": exercise.id, "state": "passed"} for exercise in CHAPTER.exercises]
    events.append({"kind": "answer", "id": "90.q1", "correct": True})
    runs = [(events, [], 0), (events, ["Cell 9: boom"], 1), (events[:-1], [], 1), (events[1:], [], 1)]
    for known, failures, code in runs:
        monkeypatch.setattr(classroom, "run_notebook", lambda path: (known, failures))  # noqa: B023
        assert main(["check", "90"]) == code
    assert "4 of 4 passed, 8/8 points" in capsys.readouterr().out


def test_a_kernel_that_dies_is_reported(here, monkeypatch, capsys):
    monkeypatch.setattr(classroom, "run_notebook", lambda path: ([], ["Cell 3: Kernel died"]))
    build("90", root=here, execute=False)
    assert main(["check", "90"]) == 1
    out = capsys.readouterr().out
    assert "0 of 4 passed" in out and "another cell failed: Cell 3: Kernel died" in out


def test_missing_things_give_one_line(here, capsys):
    assert main(["check", "90"]) == 1
    assert "`python -m compresslab build 90` makes it" in capsys.readouterr().err
    assert main(["check", "77"]) == 1
    assert "there is no chapter '77'" in capsys.readouterr().err
    assert main(["evidence", "90"]) == 1
    assert "chapter 90 has no evidence" in capsys.readouterr().err


def test_build_and_refusal(here, capsys, monkeypatch):
    assert main(["build", "90", "--stubs-only"]) == 0
    assert capsys.readouterr().out == "notebooks/90_toy.ipynb\n"
    path = here / "notebooks" / "90_toy.ipynb"
    path.write_text("my own notes")
    monkeypatch.setattr("sys.stdin", None)
    assert main(["build", "90", "--stubs-only"]) == 1
    assert "holds your work" in capsys.readouterr().err and path.read_text() == "my own notes"
    assert main(["build", "90", "--stubs-only", "--force"]) == 0
    assert main(["build", "90", "--workshop"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "workshop/90_toy.ipynb"


def test_kill_table(here, capsys):
    assert main(["kill-table", "90"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == [
        "exercise",
        "mistakes",
        "killed",
        "cheats",
        "killed",
        "right",
        "passed",
    ]
    total = next(line for line in out.splitlines() if line.startswith("chapter 90: 3 exercises")).split()[-6:]
    assert total[0] == total[1] == "10" and total[2] == total[3] and total[4] == total[5]


def test_progress(here, capsys):
    assert main(["progress"]) == 0
    assert "90 Toy" in capsys.readouterr().out


def test_every_command_has_help(capsys):
    commands = parser()._subparsers._group_actions[0].choices
    assert {"doctor", "check", "progress", "build", "evidence", "baselines", "compare", "kill-table", "grade"} == set(commands)
    with pytest.raises(SystemExit) as stop:
        main(["frobnicate"])
    assert stop.value.code == 2


def test_the_module_runs(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "compresslab.__main__")
    monkeypatch.setattr(sys, "argv", ["compresslab", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("compresslab", run_name="__main__")
    assert stop.value.code == 0 and "python -m compresslab" in capsys.readouterr().out


# -- evidence ------------------------------------------------------------------------------------------


@pytest.fixture
def experiments(monkeypatch, tmp_path):
    monkeypatch.setattr(evidence, "FOLDER", tmp_path / "evidence")
    functions = {"a": lambda: {"x": [1, 2]}, "b": lambda: 3}
    monkeypatch.setattr(evidence, "entries", lambda number: functions)
    return functions


def test_evidence_is_written_entry_by_entry(experiments, capsys):
    evidence.write_evidence("90", ["b"])
    experiments["b"] = lambda: 4
    evidence.write_evidence("90", ["a"])
    assert evidence.load_evidence("90") == {"a": {"x": [1, 2]}, "b": 3}
    evidence.write_evidence("90")
    assert list(evidence.load_evidence(90)) == ["a", "b"] and evidence.load_evidence("90")["b"] == 4
    with pytest.raises(ValueError, match="has no evidence z; it has a, b"):
        evidence.write_evidence("90", ["z"])


def test_a_crash_in_one_entry_keeps_the_others(experiments):
    evidence.write_evidence("90", ["a"])
    experiments["b"] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        evidence.write_evidence("90")
    assert evidence.load_evidence("90") == {"a": {"x": [1, 2]}}


def test_missing_evidence_says_which_command_writes_it(experiments):
    with pytest.raises(FileNotFoundError, match="python -m compresslab evidence 90"):
        evidence.load_evidence("90")
