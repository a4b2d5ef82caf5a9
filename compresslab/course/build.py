"""Build a chapter from `solutions/NN_name.py`: the executed solution and the learner's notebook.

The learner's notebook differs from the solved one in its solution regions and outputs only. One that was
edited is never overwritten without being asked, and then a backup stays beside it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from compresslab.core.files import write_atomic
from compresslab.course.chapters import load_chapter
from compresslab.course.exercise import Chapter
from compresslab.course.source import BEGIN, course_root, read_source

CELL_SECONDS = 120


def build(
    number: str,
    *,
    root: Path | None = None,
    execute: bool = True,
    force: bool = False,
    workshop: bool = False,
    ask: Callable[[str], bool] | None = None,
) -> list[Path]:
    """Build the notebooks of one chapter.

    Args:
        root: the folder with `solutions/` and `notebooks/`.
        execute: run the solved notebook, strict; a cell that fails stops the build.
        force: overwrite a learner's notebook that was edited (a backup is kept).
        workshop: build `workshop/NN_name.ipynb` instead, where only workshop exercises and design tasks are open.
        ask: how to ask whether an edited notebook may go (default: the terminal, if there is one).
    Returns:
        the files written.
    Raises:
        FileExistsError: the learner's notebook was edited, and nobody agreed to replace it.
    """
    chapter, root = load_chapter(number), root or course_root()
    source = root / "solutions" / f"{chapter.name}.py"
    solved = read_source(source, chapter)
    open_cells = learner_notebook(solved, chapter, workshop_only=workshop)
    target = root / ("workshop" if workshop else "notebooks") / f"{chapter.name}.ipynb"
    backup = make_way(target, open_cells, force=force, ask=ask or _ask_terminal)
    written = [backup] if backup else []
    if execute and not workshop:
        run(solved, source.parent, {str(root): "."})
        written.append(write(solved, source.with_suffix(".ipynb")))
    return [*written, write(open_cells, target)]


# -- the learner's notebook --------------------------------------------------------------------------


def learner_notebook(solved: NotebookNode, chapter: Chapter, *, workshop_only: bool = False) -> NotebookNode:
    """The same notebook with stubs instead of solutions, and its own digest in its metadata."""
    from compresslab.course.clearing import ClearCourseSolutions

    # a design task is nobody's to solve but the learner's, and COMPRESSLAB_QUICK makes its trainings too short
    design_tasks = {f"solution-check-{exercise.id.replace('.', '-')}" for exercise in chapter.exercises if exercise.value}
    notebook = copy.deepcopy(solved)
    clear = ClearCourseSolutions()
    for index, cell in enumerate(notebook.cells):
        if BEGIN not in cell.source:
            continue
        if workshop_only and "workshop" not in cell.metadata.get("tags", ()) and cell.metadata.nbgrader.grade_id not in design_tasks:
            continue
        clear.preprocess_cell(cell, {"language": "python"}, index)
    notebook.metadata["compresslab"]["digest"] = digest(notebook)
    return notebook


def digest(notebook: NotebookNode) -> str:
    """A hash of what a person can edit: the cells' kinds and sources, not their outputs."""
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def was_edited(path: Path, fresh: NotebookNode) -> bool:
    """Whether somebody worked in this notebook since it was built."""
    try:
        present = nbformat.read(path, as_version=4)
    except Exception:  # not a notebook any more: somebody's file, so keep it safe
        return True
    now = digest(present)
    return now not in (present.metadata.get("compresslab", {}).get("digest"), digest(fresh))


def make_way(path: Path, fresh: NotebookNode, *, force: bool, ask: Callable[[str], bool]) -> Path | None:
    """Make sure that `path` may be overwritten; returns the backup if one was needed."""
    if not path.exists() or not was_edited(path, fresh):
        return None
    if not force and not ask(f"{path.name} holds your work. Replace it? A backup is kept."):
        raise FileExistsError(
            f"{path.name} holds your work and stays as it is; --force replaces it and keeps a backup"
        )
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    backup = path.with_name(f"{path.stem}.backup-{stamp}.ipynb")
    shutil.copy2(path, backup)
    return backup


def _ask_terminal(question: str) -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and input(f"{question} [y/N] ").strip().lower() == "y"


# -- executing ---------------------------------------------------------------------------------------


def run(notebook: NotebookNode, folder: Path, hide: dict[str, str]) -> None:
    """Execute in place, strict and static, with a learner's folder of its own, and clean the outputs.

    Args:
        folder: where the kernel runs.
        hide: absolute paths that must not appear in outputs, and what stands there instead.
    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    from nbclient import NotebookClient

    metadata = copy.deepcopy(notebook.metadata)
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "COMPRESSLAB_STRICT": "1", "COMPRESSLAB_STATIC": "1", "COMPRESSLAB_HOME": home}
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env=env)
    notebook.metadata = metadata  # the kernel adds the versions of this machine
    clean_outputs(notebook, {home: "~/compresslab", **hide, str(Path.home()): "~"})


def clean_outputs(notebook: NotebookNode, hide: dict[str, str]) -> None:
    """Remove stderr, timings and absolute paths, so that outputs say nothing about the machine."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                output["text"] = _hidden(output["text"], hide)
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/") and isinstance(data, str):
                    output["data"][kind] = _hidden(data, hide)


def _hidden(text: str, hide: dict[str, str]) -> str:
    for path in sorted(hide, key=len, reverse=True):
        if len(path) > 1:  # a home of "/" would hide every slash
            text = text.replace(path, hide[path])
    return text


def write(notebook: NotebookNode, path: Path) -> Path:
    """Write a notebook in one step: a crash leaves the old file or the new one, never half of one."""
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (nbformat.writes(notebook) + "\n").encode("utf-8"))
    return path
