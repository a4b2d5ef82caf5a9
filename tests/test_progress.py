"""The event log: atomic, tolerant of damage, never in the way."""

import json
from pathlib import Path

import pytest
from toy_chapter import CHAPTER, toy  # noqa: F401

from compresslab.course import check, predict, progress, reveal
from compresslab.course.chapters import CHAPTERS


def test_events_are_lines_of_json_under_the_learners_home(toy):
    progress.record("check", "90.1", state="passed", message="gut – 好")
    (line,) = (toy / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    event = json.loads(line)
    assert event["state"] == "passed" and event["message"] == "gut – 好" and event["time"].endswith("+00:00")
    assert progress.events("check", "90.1") == [event] and progress.events("answer") == []


def test_a_half_written_last_line_costs_that_line_only(toy):
    progress.record("check", "90.1", state="passed")
    path = toy / "progress.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind": "check", "id": "90.2", "sta')
    progress.record("check", "90.3", state="passed")
    assert progress.states() == {"90.1": "passed", "90.3": "passed"}


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe\n", b"null\n", b"[1]\n", b"\n\n", b'{"kind": "check"}\n', b'{"id": [], "kind": "check"}\n'],
)
def test_damaged_lines_are_skipped(toy, damage):
    toy.mkdir()
    (toy / "progress.jsonl").write_bytes(damage)
    progress.record("check", "90.1", state="wrong")
    assert progress.states() == {"90.1": "wrong"}


def test_passed_once_is_passed():
    for state in ("to do", "wrong", "passed", "wrong", "to do"):
        progress.record("check", "90.1", state=state)
    assert progress.states() == {"90.1": "passed"}


def test_a_home_that_cannot_be_written_is_said_once_and_does_not_stop(toy, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_warned", False)
    toy.write_text("a file where the folder should be")
    assert check("90.3", 8) == 8
    check("90.3", 8)
    out = capsys.readouterr().out
    assert out.count("Set COMPRESSLAB_HOME") == 1 and out.count("passed") == 2
    assert progress.events() == []


def test_home_follows_the_environment_or_the_platform(monkeypatch, toy):
    assert progress.home() == toy
    monkeypatch.delenv("COMPRESSLAB_HOME")
    assert progress.home().is_absolute() and progress.home().name == "compresslab"
    assert Path(__file__).resolve().parents[1] not in progress.home().parents


def test_not_json_is_refused_before_anything_is_written(toy):
    with pytest.raises(ValueError):
        progress.append_line(toy / "a.jsonl", {"x": float("nan")})
    assert not (toy / "a.jsonl").exists()


def test_summary_counts(monkeypatch, capsys):
    monkeypatch.setattr(
        "compresslab.course.chapters.CHAPTERS", {"90": CHAPTERS["90"], "91": "no_such_module:CHAPTER"}
    )
    check("90.3", 8)
    predict("90.p1", 4, 10)
    reveal("90.p1", 8)
    capsys.readouterr()
    progress.show()
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("90 Toy"))
    points = sum(e.points for e in CHAPTER.exercises)
    assert row.split() == ["90", "Toy", "1/3", f"2/{points}", "0", "0/1", "1/1"]
