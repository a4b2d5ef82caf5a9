"""`python -m compresslab grade FOLDER`: run many submissions, each in a process of its own with limits.

FOLDER holds `student/NN_name.ipynb`, or notebooks side by side (then the file's name is the student). A submission
runs in a copy, in a temporary folder, strictly. Its result is one JSON file, written when it is complete; a
second run grades only what is new or has changed: another submission, another version of the course, other limits
where a limit was met, a result that cannot be read. The limits stop accidents. They are not a sandbox.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from compresslab import __version__
from compresslab.core.files import write_atomic
from compresslab.course import progress
from compresslab.course.chapters import load_chapter
from compresslab.course.classroom import run_notebook, table

COLUMNS = ("student", "chapter", "exercise", "title", "state", "points", "possible", "mistake", "diagnosis", "problem")
ROW = set(COLUMNS) - {"student", "chapter", "problem"}


class Stopped(Exception):
    """The command was interrupted while a submission ran."""


def grade(folder: Path, *, out: Path | None = None, jobs: int = 1, seconds: float = 600, gigabytes: float = 8) -> Path:
    """Grade every notebook below a folder; returns the CSV, with one line per submission and exercise.

    Args:
        folder: the submissions; nothing in it is written.
        out: where results go (default: `FOLDER-grades`, beside it).
        jobs: how many submissions run at a time.
        seconds: wall-clock time of one submission; what it passed before that counts.
        gigabytes: private memory (RLIMIT_DATA, 10^9 bytes) of each process of a submission; Linux only.
    Raises:
        ValueError: a limit is not positive, or there is no notebook.
    """
    for name, value in (("jobs", jobs), ("seconds", seconds), ("gigabytes", gigabytes)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    folder = folder.resolve()
    out = (out or folder.with_name(folder.name + "-grades")).resolve()
    found = [path for path in sorted(folder.rglob("*.ipynb"))
             if out not in path.parents and not any(part.startswith(".") for part in path.relative_to(folder).parts)]  # fmt: skip
    if not found:
        raise ValueError(f"there is no .ipynb in {folder.name}/; a submission is student/NN_name.ipynb")
    out.mkdir(parents=True, exist_ok=True)
    limits = [seconds, gigabytes]
    stop = threading.Event()

    def one(path: Path) -> dict[str, Any]:
        key = str(path.relative_to(folder).with_suffix(""))
        target = out / f"{key.replace(os.sep, '__')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.json"
        what = {"student": key.split(os.sep)[0], "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "version": __version__}
        old = read_result(target)
        if old and what.items() <= old.items() and (old["limits"] == limits or not old["problem"]):
            return old
        result = {**what, "limits": limits, **run_limited(path, seconds, gigabytes, stop)}
        write_atomic(target, json.dumps(result, indent=1, ensure_ascii=False).encode())
        points = sum(row["points"] for row in result["rows"])
        print(f"{key}: {points} points{'; ' + result['problem'] if result['problem'] else ''}", flush=True)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        try:
            results = list(pool.map(one, found))
        except BaseException:
            stop.set()
            raise
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for result in results:
        common = {key: result[key] for key in ("student", "chapter", "problem")}
        writer.writerows({**common, **row} for row in result["rows"] or [{}])
    write_atomic(out / "grades.csv", text.getvalue().encode())
    print(summary(results))
    return out / "grades.csv"


def read_result(path: Path) -> dict[str, Any] | None:
    """An earlier result, or None where there is none or it is damaged."""
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        whole = {"student", "sha256", "version", "limits", "chapter", "problem"} <= set(old)
        return old if whole and all(set(row) == ROW for row in old["rows"]) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def run_limited(path: Path, seconds: float, gigabytes: float, stop: threading.Event | None = None) -> dict[str, Any]:
    """Run a copy of one notebook; {"chapter", "problem", "rows"}, whatever the notebook does to its own process.

    Raises:
        Stopped: `stop` was set before the notebook had ended.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        chapter = load_chapter(notebook["metadata"]["compresslab"]["chapter"])
    except (ValueError, KeyError, TypeError) as error:
        return {"chapter": "", "problem": f"not a notebook of this course ({type(error).__name__})", "rows": []}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as room:
        work, home = Path(room, "work"), Path(room, "home")
        work.mkdir()
        home.mkdir()
        copy = Path(shutil.copy(path, work))
        environment = {**os.environ, "COMPRESSLAB_HOME": str(home), "TMPDIR": room}
        command = [sys.executable, "-m", "compresslab.course.grading", str(copy), str(gigabytes), f"{room}/result"]
        stop, end = stop or threading.Event(), time.monotonic() + seconds
        # in a session of its own: Ctrl-C ends this command, which ends the submission and keeps no result of it
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        try:
            while process.poll() is None and time.monotonic() < end and not stop.wait(0.05):
                pass
            code = process.poll()
        finally:
            kill_tree(process.pid)
            process.wait()
        if stop.is_set():
            raise Stopped
        problem = f"the process ended with {code}" if code else f"stopped after {seconds:g} seconds" if code is None else ""
        try:
            outcome = json.loads(Path(room, "result").read_text(encoding="utf-8"))
            events, failures = outcome["events"], outcome["failures"]
        except (OSError, ValueError):
            logs = [log for log in Path(room).rglob("progress.jsonl") if log.parent != home]
            events, failures = [event for log in logs for event in progress.read_lines(log)], []
            problem = problem or "no result was written"
        rows = table(chapter, events)
        known = {event.get("id"): event.get("mistake") for event in events if event.get("kind") == "check"}
        others = [line for line in failures if "ToDo" not in line and not any(r.diagnosis and r.diagnosis in line for r in rows)]
        return {
            "chapter": chapter.number,
            "problem": problem or (others[0].splitlines()[0][:300] if others else ""),
            "rows": [{"exercise": row.id, "title": row.title, "state": row.state, "points": row.points, "possible": row.possible,
                      "mistake": (known.get(row.id) or "") if row.state == "wrong" else "", "diagnosis": row.diagnosis}
                     for row in rows],
        }  # fmt: skip


def kill_tree(pid: int) -> None:
    """End a process and everything it started; a kernel is in a session of its own, so the group is not enough."""
    import psutil

    try:
        family = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            pass


def summary(results: list[dict[str, Any]], most: int = 10) -> str:
    """The most frequent known mistakes of the class, as text."""
    rows = [row for result in results for row in result["rows"] if row["mistake"]]
    counts = Counter((row["exercise"], row["mistake"]) for row in rows)
    lines = [f"{number:4} x {id}: {mistake}" for (id, mistake), number in counts.most_common(most)]
    stopped = sum(bool(result["problem"]) for result in results)
    return "\n".join([f"{len(results)} submissions, {stopped} with a problem of their own", *lines])


def _end_with(parent: int) -> None:
    """End this process and its kernel when the command that started it is gone, however it went."""
    import psutil

    try:
        psutil.Process(parent).wait()
    except psutil.NoSuchProcess:
        pass
    kill_tree(os.getpid())


def _main(notebook: str, gigabytes: str, result: str) -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if sys.platform == "linux":
        import resource

        limit = int(float(gigabytes) * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    events, failures = run_notebook(Path(notebook))
    Path(result).write_text(json.dumps({"events": events, "failures": failures}), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
