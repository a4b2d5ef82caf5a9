"""`grade`: a class with one right, one wrong and three hostile submissions; limits, resuming, one table."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from toy_chapter import CHAPTER, toy, toy_root  # noqa: F401

from compresslab.__main__ import main
from compresslab.course import grading
from compresslab.course.source import read_source

TESTS = Path(__file__).parent
IN_PLACE = "def prune(values, k):\n    values *= keep_largest(values, k)\n    return values"
HOSTILE = {
    "deleter": "import os, shutil\nfor path in os.listdir('.'):\n    os.remove(path)\nshutil.rmtree(os.getcwd())",
    "eater": "eaten = [bytearray(3_000_000_000)]\nprint(len(eaten))",
    "looper": "while True:\n    pass",
}


@pytest.fixture
def submit(toy_root, tmp_path, monkeypatch):
    """submit(student, code): the solved toy chapter, with one more cell, or with exercise 90.2 replaced."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))

    def submit(student, extra="", prune=""):
        notebook = read_source(toy_root / "solutions" / "90_toy.py", CHAPTER)
        for cell in notebook.cells:
            if prune and cell["id"] == "solution-check-90-2":
                cell.source = prune
        place = next(i for i, c in enumerate(notebook.cells) if c["id"] == "check-90-1") + 1
        if extra:
            notebook.cells.insert(place, nbformat.v4.new_code_cell(extra))
        path = tmp_path / "class" / student / "90_toy.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
        return path

    return submit


def test_a_class_is_graded_and_a_second_run_does_only_what_is_new(submit, tmp_path, capsys, monkeypatch):
    for student, arguments in {"ada": {}, "bob": {"prune": IN_PLACE}, "deleter": {"extra": HOSTILE["deleter"]}}.items():
        submit(student, **arguments)
    (tmp_path / "class" / "broken.ipynb").write_text("not json")
    before = {path: path.read_bytes() for path in (tmp_path / "class").rglob("*.ipynb")}
    assert main(["grade", str(tmp_path / "class"), "--jobs", "2"]) == 0
    assert "1 x 90.2: in place" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "class-grades" / "grades.csv").read_text().splitlines()))
    points = {s: sum(int(r["points"] or 0) for r in rows if r["student"] == s) for s in ("ada", "bob", "deleter", "broken")}
    assert points == {"ada": 8, "bob": 6, "deleter": 8, "broken": 0}
    (wrong,) = [row for row in rows if row["state"] == "wrong"]
    assert (wrong["student"], wrong["exercise"], wrong["mistake"]) == ("bob", "90.2", "in place")
    assert "you changed the values that were given to you" in wrong["diagnosis"]
    assert {path: path.read_bytes() for path in before} == before


@pytest.fixture
def graded_before(tmp_path, monkeypatch):
    """A class of three that was graded; with a function that grades it again and returns whose work was run."""
    ran = []

    def run_limited(path, *limits):
        ran.append(path.parent.name)
        problem = "stopped after 600 seconds" if path.parent.name == "looper" else ""
        return {"chapter": "90", "problem": problem, "rows": []}

    monkeypatch.setattr(grading, "run_limited", run_limited)
    folder = tmp_path / "class"
    for student in ("ada", "bob", "looper"):
        (folder / student).mkdir(parents=True)
        (folder / student / "90_toy.ipynb").write_text("{}")

    def again(**limits):
        ran.clear()
        grading.grade(folder, **limits)
        return sorted(ran)

    assert again() == ["ada", "bob", "looper"] and again() == []
    return again


def test_only_what_changed_is_graded_again(graded_before, tmp_path, monkeypatch):
    (tmp_path / "class" / "bob" / "90_toy.ipynb").write_text("{} ")
    assert graded_before() == ["bob"] and graded_before() == []
    assert graded_before(seconds=900) == ["looper"], "under other limits only what met one"
    assert graded_before(seconds=900) == []
    monkeypatch.setattr(grading, "__version__", "99.0")
    assert graded_before(seconds=900) == ["ada", "bob", "looper"]


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b"[]", b'{"sha256": 1}', b"\xff\xfe", "rows", "row", "half"])
def test_a_damaged_result_is_graded_again_and_stops_nothing(graded_before, tmp_path, damage):
    (target,) = (tmp_path / "class-grades").glob("ada*.json")
    whole = json.loads(target.read_text())
    if damage == "rows":
        damage = json.dumps(whole | {"rows": None}).encode()
    if damage == "row":
        damage = json.dumps(whole | {"rows": [{"exercise": "90.1"}]}).encode()
    if damage == "half":
        damage = target.read_bytes()[: target.stat().st_size // 2]
    target.write_bytes(damage)
    assert graded_before() == ["ada"] and json.loads(target.read_text()) == whole


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to another process")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGKILL"])
def test_an_ended_command_leaves_no_process_and_no_half_result(submit, tmp_path, sent):
    import psutil

    submit("ada")
    submit("looper", HOSTILE["looper"])
    code = "import toy_chapter, sys; toy_chapter.register(); from compresslab.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = subprocess.Popen(
        [sys.executable, "-c", code, "grade", str(tmp_path / "class")], stdout=subprocess.PIPE, text=True
    )
    assert command.stdout.readline() == "ada/90_toy: 8 points\n"
    started: list[psutil.Process] = []
    until = time.monotonic() + 60
    while len(started) < 2 and time.monotonic() < until:
        started = psutil.Process(command.pid).children(recursive=True)
        time.sleep(0.1)
    assert len(started) >= 2, "the looper has a process and a kernel"
    command.send_signal(getattr(signal, sent))
    assert command.wait(60) != 0
    command.stdout.close()
    gone, alive = psutil.wait_procs(started, 60)
    assert not alive and len(list((tmp_path / "class-grades").iterdir())) == 1


def test_a_submission_that_eats_memory_fails_and_the_rest_counts(submit):
    result = grading.run_limited(submit("eater", HOSTILE["eater"]), 300, 2.5)
    assert "MemoryError" in result["problem"] and sum(row["points"] for row in result["rows"]) == 8


def test_a_submission_that_loops_is_stopped_with_all_its_processes(submit):
    import psutil

    before = set(psutil.Process().children(recursive=True))
    result = grading.run_limited(submit("looper", HOSTILE["looper"]), 20, 4)
    assert result["problem"] == "stopped after 20 seconds" and len(result["rows"]) == 4
    assert set(psutil.Process().children(recursive=True)) <= before


def test_bad_arguments_are_named(tmp_path, capsys):
    assert main(["grade", str(tmp_path)]) == 1 and "no .ipynb" in capsys.readouterr().err
    assert main(["grade", str(tmp_path), "--jobs", "0"]) == 1 and "jobs must be above 0, got 0" in capsys.readouterr().err
