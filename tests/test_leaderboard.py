"""The local leader board: who may enter, in which order, and what survives a crash."""

import json
from dataclasses import replace

import pytest
import torch

from compresslab.core import save
from compresslab.course import budget, leaderboard, progress
from compresslab.course.budget import BudgetTask, Report

TASK = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), max_bytes=100, max_loss=0.01, baseline="lenet300", images=100)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSLAB_HOME", str(tmp_path / "home"))
    return tmp_path


def a_file(folder, size, name="network"):
    path = folder / f"{name}.safetensors"
    path.write_bytes(bytes([len(name)]) * size)
    return path


def judging(monkeypatch, **known):
    """Stand in for the fresh process; a file larger than the task's limit is not run there."""
    asked = []

    def judge(request, size):
        asked.append(request)
        if request["max_bytes"] is not None and size > request["max_bytes"]:
            return Report(size, macs=1)
        return replace(Report(size, macs=1, accuracy=0.975, images=100, loss=0.004, loss_low=-0.001), **known)

    monkeypatch.setattr(budget, "_known", {})
    monkeypatch.setattr(budget, "_measure_elsewhere", judge)
    return asked


def test_a_file_that_keeps_its_loss_is_entered_with_bytes_accuracy_name_and_date(home, monkeypatch):
    judging(monkeypatch)
    row = leaderboard.enter(a_file(home, 90), "  Ada ", task=TASK)
    assert (row["name"], row["bytes"], row["accuracy"], row["loss"]) == ("Ada", 90, 0.975, 0.004)
    assert len(row["date"]) == 10 and leaderboard.entries() == [row]


def test_a_file_too_large_for_the_exercise_is_judged_without_the_limit(home, monkeypatch):
    asked = judging(monkeypatch)
    assert leaderboard.enter(a_file(home, 5000), "Ada", task=TASK)["bytes"] == 5000
    assert [request["max_bytes"] for request in asked] == [100, None]


def test_a_file_judged_by_the_exercise_is_not_judged_again(home, monkeypatch):
    asked = judging(monkeypatch)
    file = a_file(home, 90)
    TASK.report(file)
    leaderboard.enter(file, "Ada", task=TASK)
    assert len(asked) == 1


@pytest.mark.parametrize("known, reason", [({"accuracy": 0.9, "loss": 0.08, "loss_low": 0.05}, "8.00 points"),
                                           ({"problem": "the file cannot be loaded: no", "images": 0}, "cannot be loaded")])
def test_what_loses_too_much_or_cannot_be_loaded_is_not_entered_and_the_reason_is_printed(home, monkeypatch, capsys, known, reason):
    judging(monkeypatch, **known)
    assert leaderboard.enter(a_file(home, 90), "Ada", task=TASK) is None
    assert leaderboard.entries() == []
    said = capsys.readouterr().out
    assert said.startswith("Ada: not entered") and reason in said


def test_names_and_paths_are_checked(home, monkeypatch):
    judging(monkeypatch)
    file = a_file(home, 90)
    for name in ("", "   ", "x" * 31, "two\nlines"):
        with pytest.raises(ValueError, match="a name has 1 to 30 characters"):
            leaderboard.enter(file, name, task=TASK)
    with pytest.raises(TypeError, match="a name is a text, got int"):
        leaderboard.enter(file, 7, task=TASK)
    with pytest.raises(FileNotFoundError, match="no file 'gone.safetensors'"):
        leaderboard.enter(home / "gone.safetensors", "Ada", task=TASK)


def test_the_smallest_file_comes_first_and_of_equals_the_more_accurate(home, monkeypatch):
    for name, size, accuracy in (("large", 95, 0.99), ("small", 40, 0.972), ("small too", 40, 0.973)):
        judging(monkeypatch, accuracy=accuracy)
        leaderboard.enter(a_file(home, size, name), name, task=TASK)
    assert [row["name"] for row in leaderboard.entries()] == ["small too", "small", "large"]


def test_the_same_file_counts_once_for_each_name(home, monkeypatch):
    judging(monkeypatch)
    file = a_file(home, 90)
    for name in ("Ada", "Ada", "Grace"):
        leaderboard.enter(file, name, task=TASK)
    assert [row["name"] for row in leaderboard.entries()] == ["Ada", "Grace"]


def test_a_line_cut_in_the_middle_loses_that_line_only(home, monkeypatch):
    judging(monkeypatch)
    leaderboard.enter(a_file(home, 90, "one"), "one", task=TASK)
    with leaderboard.path().open("a") as file:
        file.write('{"name": "half", "bytes"')
    with leaderboard.path().open("a") as file:
        file.write("\n" + json.dumps({"name": "no bytes"}) + "\n")
    leaderboard.enter(a_file(home, 80, "two"), "two", task=TASK)
    assert [row["name"] for row in leaderboard.entries()] == ["two", "one"]


def test_a_folder_that_cannot_be_written_is_said_and_nothing_raised(home, monkeypatch, capsys):
    judging(monkeypatch)

    def refuse(path, row):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(progress, "append_line", refuse)
    assert leaderboard.enter(a_file(home, 90), "Ada", task=TASK)["bytes"] == 90
    assert "not saved: Permission denied" in capsys.readouterr().out


def test_the_courses_own_entries_are_means_over_seeds_and_marked(home, monkeypatch, capsys):
    rows = {f"{kind} {network} {stage} {seed}": {"experiment": kind, "network": network, "stage": stage, "seed": seed, "file_bytes": size + seed, "accuracy": 0.98, "loss": 0.001}
            for kind, network, stage, size in (("deep compression", "lenet300", "coded", 20_000), ("deep compression", "lenet300", "pruned", 90_000),
                                               ("deep compression", "lenet5", "coded", 30_000), ("moonshot", "lenet300", "coded", 10_000))
            for seed in (0, 2)}
    monkeypatch.setattr(leaderboard, "load_evidence", lambda number: {"one run": list(rows.values())[:1], **dict(list(rows.items())[1:])})
    assert {row["name"]: row["bytes"] for row in leaderboard.course_entries()} == {"Deep Compression": 20_001, "the moonshot": 10_001}
    judging(monkeypatch)
    leaderboard.enter(a_file(home, 15_000), "Ada", task=TASK)
    leaderboard.show(dense_bytes=1_000_000)
    lines = capsys.readouterr().out.splitlines()
    assert [line[4:24].split("  ")[0] for line in lines[1:4]] == ["the moonshot *", "Ada", "Deep Compression *"]
    assert "100.0 x" in lines[1] and "66.7 x" in lines[2] and "0.40" in lines[2]


def test_without_evidence_or_entries_the_board_says_how_to_begin(home, monkeypatch):
    def missing(number):
        raise FileNotFoundError("there is no evidence")

    monkeypatch.setattr(leaderboard, "load_evidence", missing)
    assert leaderboard.course_entries() == [] and "nobody yet" in leaderboard.table()


def test_a_real_file_goes_through_the_fresh_process(home):
    from compresslab.models import load_baseline

    path = home / "real.safetensors"
    save(load_baseline("lenet300"), path)
    assert leaderboard.enter(path, "dense", task=TASK)["loss"] == 0.0
    broken = load_baseline("lenet300")
    with torch.no_grad():
        broken.fc3.weight.zero_()
    save(broken, path)
    assert leaderboard.enter(path, "broken", task=TASK) is None
    assert [row["name"] for row in leaderboard.entries()] == ["dense"]
