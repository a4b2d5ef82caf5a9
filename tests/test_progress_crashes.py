"""The event log with real processes: many writers, a kill in the middle of a write, a full disk."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from toy_chapter import toy  # noqa: F401

from compresslab.course import ledger, predictions, progress

MODULE = f"import runpy; record = runpy.run_path({progress.__file__!r})['record']\n"  # without PyTorch: fast to start


def start(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", MODULE + code], stdout=subprocess.PIPE, text=True)


def finish(*writers: subprocess.Popen) -> list[int]:
    codes = [writer.wait(timeout=60) for writer in writers]
    for writer in writers:
        writer.stdout.close()
    return codes


def records(who: int, count: int) -> str:
    return f"for i in range({count}): record('check', '90.1', who={who}, i=i, pad='x' * 300)"


def test_four_processes_at_once_lose_nothing(toy):
    assert finish(*(start(records(who, 200)) for who in range(4))) == [0] * 4
    lines = (toy / "progress.jsonl").read_text().splitlines()
    found = [(event["who"], event["i"]) for event in map(json.loads, lines)]
    assert len(found) == 800 and set(found) == {(who, i) for who in range(4) for i in range(200)}
    for who in range(4):
        assert [i for w, i in found if w == who] == list(range(200)), "each process's own order stays"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_killed_in_the_middle_of_a_write(toy):
    """The dead process held the lock and left half a line: the lock is free, the half is skipped, nothing else is lost."""
    half = (
        "import os, signal\n"
        "write = os.write\n"
        "def dies(descriptor, line):\n"
        "    write(descriptor, line[: len(line) // 2])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "record('check', '90.1', state='passed')\n"
        "os.write = dies\n"
        "record('check', '90.2', state='passed')"
    )
    assert finish(start(half)) == [-signal.SIGKILL]
    assert not (toy / "progress.jsonl").read_bytes().endswith(b"\n")
    progress.record("check", "90.3", state="passed")
    assert progress.states() == {"90.1": "passed", "90.3": "passed"}
    whole, cut, after = (toy / "progress.jsonl").read_text().splitlines()
    assert json.loads(whole)["id"] == "90.1" and json.loads(after)["id"] == "90.3"
    with pytest.raises(ValueError):
        json.loads(cut)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_killing_one_of_two_costs_the_other_nothing(toy):
    doomed = start("print('on', flush=True)\n" + records(0, 10**6))
    assert doomed.stdout.readline() == "on\n"
    other = start(records(1, 200))
    assert finish(other) == [0]
    os.kill(doomed.pid, signal.SIGKILL)
    assert finish(doomed) == [-signal.SIGKILL]
    assert [event["i"] for event in progress.events() if event["who"] == 1] == list(range(200))
    mine = [event["i"] for event in progress.events() if event["who"] == 0]
    assert mine == list(range(len(mine)))


@pytest.mark.parametrize("cut", [1, 7, -2])
def test_a_line_cut_anywhere_is_skipped_and_the_next_starts_afresh(toy, cut):
    progress.record("check", "90.1", state="passed", message="gut – 好")
    path = toy / "progress.jsonl"
    path.write_bytes(path.read_bytes() * 2)
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2 + cut if cut > 0 else cut])
    progress.record("check", "90.3", state="wrong")
    assert progress.states() == {"90.1": "passed", "90.3": "wrong"}


def test_a_lock_that_is_never_given_back_does_not_stop_the_learner(toy, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="this system has no file locks")
    monkeypatch.setattr(progress, "_PATIENCE", 0.05)
    progress.record("check", "90.1", state="passed")
    holder = start(
        "import fcntl, sys\n"
        f"file = open({str(toy / 'progress.jsonl')!r}, 'ab')\n"
        f"fcntl.lockf(file, {fcntl.LOCK_EX})\n"
        "print('held', flush=True)\n"
        "__import__('time').sleep(600)"
    )
    assert holder.stdout.readline() == "held\n"
    progress.record("check", "90.2", state="passed")
    assert set(progress.states()) == {"90.1", "90.2"}
    holder.kill()
    finish(holder)


def test_a_full_disk_is_said(toy, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_warned", False)
    write = os.write
    monkeypatch.setattr(progress.os, "write", lambda descriptor, line: write(descriptor, line[:10]))
    progress.record("check", "90.1", state="passed")
    assert os.strerror(errno.ENOSPC) in capsys.readouterr().out
    monkeypatch.undo()


def test_a_restarted_kernel_reads_what_the_last_one_wrote(toy):
    assert finish(start("record('predict', '90.p1', low=1, high=4)")) == [0]
    assert finish(start("record('reveal', '90.p1', value=2.0, log=True)")) == [0]
    (outcome,) = predictions.outcomes()
    assert outcome.inside and outcome.position == 0


def test_texts_may_hold_every_line_separator_of_unicode(toy):
    progress.record("check", "90.1", state="wrong", message="a\u2028b\u0085c\x0bd")
    assert progress.events()[0]["message"] == "a\u2028b\u0085c\x0bd"


def test_damaged_predictions_and_rows_are_skipped(toy):
    for event in ({"low": 1}, {"low": "a", "high": 3}, {"low": 1, "high": 4}):
        progress.record("predict", "90.p1", **event)
    progress.record("reveal", "90.p1")
    progress.record("reveal", "90.p1", value=2)
    assert [(o.low, o.high, o.value) for o in predictions.outcomes()] == [(1, 4, 2)]
    progress.append_line(ledger.path(), {"chapter": [1], "file_bytes": 3})
    progress.append_line(ledger.path(), {"chapter": [1], "name": "a"})
    assert [row["name"] for row in ledger.rows()] == ["a"]
