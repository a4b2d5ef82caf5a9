"""What the learner did, one JSON line per event, in the learner's own data folder.

Nothing is ever written into the course's checkout. Events are appended under a lock, by one write each, so
two open notebooks do not mix their lines; a line that a crash left half-written is skipped, and the next
event starts on a line of its own.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs

from compresslab.course import mode

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_warned = False
_PATIENCE = 2.0  # seconds for a lock; an append holds it for less than a millisecond


def home() -> Path:
    """The learner's folder: `COMPRESSLAB_HOME`, or the user's data folder; under nbgrader, a folder of this process."""
    if mode.graded():
        return _graded_home()
    return Path(
        os.environ.get("COMPRESSLAB_HOME") or platformdirs.user_data_dir("compresslab", appauthor=False)
    )


@cache
def _graded_home() -> Path:
    """A grader's own progress is not a student's: every graded kernel gets an empty folder, gone at its end."""
    folder = tempfile.mkdtemp(prefix="compresslab-graded-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def record(kind: str, id: str, **data: Any) -> None:
    """Append one event. Learning goes on if the folder cannot be written; that is said once."""
    global _warned
    event = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "kind": kind, "id": id, **data}
    try:
        append_line(home() / "progress.jsonl", event)
    except OSError as error:
        if not _warned:
            print(
                f"Your progress is not being saved: {error.strerror}. Set COMPRESSLAB_HOME to a folder "
                "that you may write to; the exercises work all the same."
            )
        _warned = True


def events(kind: str | None = None, id: str | None = None) -> list[dict[str, Any]]:
    """All events, oldest first; of one kind ("check", "answer", "predict", "reveal", "hint"), of one id."""
    found = read_lines(home() / "progress.jsonl")
    return [
        event
        for event in found
        if isinstance(event.get("id"), str)
        and (kind is None or event.get("kind") == kind)
        and (id is None or event.get("id") == id)
    ]


def append_line(path: Path, data: dict[str, Any]) -> None:
    """Append one JSON object as a line of its own, in a single write, while no other process appends.

    Raises:
        OSError: the file or its folder cannot be written, or the disk is full.
        ValueError: `data` is not plain JSON (nan and infinity are not).
    """
    line = json.dumps(data, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o644)
    try:
        _lock(descriptor)
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":  # a crash cut the last line short
                line = b"\n" + line
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)  # gives the lock back


def _lock(descriptor: int) -> None:
    """Wait until no other process appends. Where files cannot be locked, one write each has to do."""
    deadline = time.monotonic() + _PATIENCE
    while fcntl is not None:
        try:
            return fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # held by another process
            if time.monotonic() > deadline:
                return None
            time.sleep(0.002)
        except OSError:
            return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole JSON objects of a JSONL file; a missing file is empty, damaged lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = []
    for line in text.split("\n"):  # not splitlines: a text may hold U+2028, which JSON leaves as it is
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def states() -> dict[str, str]:
    """{exercise id: state}: passed once is passed; otherwise the latest state."""
    result: dict[str, str] = {}
    for event in events("check"):
        if result.get(event["id"]) != "passed":
            result[event["id"]] = event.get("state", "to do")
    return result


def summary() -> str:
    """All chapters as a table, and what next; see `standing`."""
    from compresslab.course import standing

    return standing.summary()


def show() -> None:
    """Print the table of all chapters (in a notebook: `progress.show()`)."""
    print(summary())


def page() -> Any:
    """Draw where you stand: every chapter, your intervals, your Pareto front; see `standing.page`."""
    from compresslab.course import standing

    return standing.page()
