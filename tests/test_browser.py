"""The course as a learner meets it: chapters run, sliders moved and exercises typed in JupyterLab, in Chromium.

The suite runs the first chapter; `make browser` runs them all, one after the other, and writes `tests/BROWSER.md`
(`make browser ONLY="-k 08"`: one chapter); `COMPRESSLAB_BROWSER_RECORD` is the file of that record.
`COMPRESSLAB_SCREENSHOTS` names a folder for the pictures.
"""

import json
import os
import shutil
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import browser as lab
import pytest

from compresslab.course.chapters import load_chapter

pytestmark = [
    pytest.mark.skipif(lab.CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="no Playwright in this environment"),
]
NAMES = sorted(path.stem for path in (lab.ROOT / "notebooks").glob("*.ipynb"))
RECORD = os.environ.get("COMPRESSLAB_BROWSER_RECORD")
CHAPTERS = NAMES if RECORD else NAMES[:1]


@pytest.fixture(scope="module")
def chromium():
    with lab.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    with lab.course(folder) as url:
        yield folder, url


@pytest.fixture
def home(course):
    """The folder of a learner who has done nothing yet."""
    shutil.rmtree(course[0] / "home", ignore_errors=True)
    return course[0] / "home"


@pytest.fixture
def open_notebook(chromium, course, home):
    """Opens a fresh copy of a chapter in a window of its own."""
    folder, url = course
    pages = []

    def open_(name):
        shutil.copy(lab.ROOT / "notebooks" / f"{name}.ipynb", folder / "notebooks")
        pages.append(lab.NotebookPage(chromium, url, name))
        return pages[-1]

    yield open_
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def record():
    """{chapter: what was counted in it}, written where `make browser` wants it; chapters that are not run keep their rows."""
    file = Path(RECORD or os.devnull)
    lines = [line.strip("| ").split(" | ") for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    rows = {name: row for name, *row in lines if name in NAMES}
    yield rows
    if RECORD:
        file.write_text(as_markdown(rows), encoding="utf-8")
        print("\n" + as_markdown(rows))


def as_markdown(rows):
    columns = ("chapter", "cells run", "figures", "controls moved", "seconds to run all")
    lines = [" | ".join([name, *map(str, rows[name])]) for name in NAMES if name in rows]
    return f"""# Every chapter in a browser

Made by `make browser`: each untouched notebook is opened in JupyterLab {version("jupyterlab")} in Chromium, on {os.cpu_count()} cores, with
`COMPRESSLAB_QUICK=1` and `OMP_NUM_THREADS=1`. All its cells are run, none may fail, and its figures are those of the solved
chapter; each slider, list and box is moved until its figure changes, and back, and the figure has to come back. The seconds are
those of a machine that may have had other work, too.

| {" | ".join(columns)} |
|---|{"---:|" * (len(columns) - 1)}
""" + "".join(f"| {line} |\n" for line in lines)


def progress_lines(home, kind="check"):
    """What was recorded; a damaged line is an error. Two writers at once may leave an empty line between theirs."""
    events = [json.loads(line) for line in (home / "progress.jsonl").read_text(encoding="utf-8").splitlines() if line]
    return [event for event in events if event["kind"] == kind]


def with_figures(cells):
    """The numbers of the cells that show a picture."""
    return [i for i, cell in enumerate(cells)
            if any({"image/png", "image/svg+xml"} & set(output.get("data", {})) for output in cell.get("outputs", []))]


def with_controls(cells):
    return [i for i, cell in enumerate(cells)
            if any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in cell["outputs"])]


@pytest.mark.parametrize("name", CHAPTERS)
def test_an_untouched_chapter_runs_and_its_controls_move(name, open_notebook, home, tmp_path, record):
    pictures = Path(os.environ.get("COMPRESSLAB_SCREENSHOTS") or tmp_path / "screenshots") / name
    pictures.mkdir(parents=True, exist_ok=True)
    solved = json.loads((lab.ROOT / "solutions" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]

    record[name] = ["did not pass"] * 4
    notebook = open_notebook(name)
    start = time.monotonic()
    notebook.run_all()
    seconds = time.monotonic() - start
    cells = notebook.cells()
    code = [cell for cell in cells if cell["kind"] == "code" and cell["source"].strip()]
    errors = [lab.text_of(cell["outputs"]) for cell in code if any(output["output_type"] == "error" for output in cell["outputs"])]
    assert not errors
    assert all(cell["count"] for cell in code)
    assert with_figures(cells) == [i for i in with_figures(solved) if "calibration()" not in "".join(solved[i]["source"])]  # no prediction yet

    drawn = 0
    for index in with_figures(cells):
        sizes = notebook.figures(index)
        assert all(width > 50 and height > 30 for width, height in sizes), f"cell {index}: {sizes}"
        drawn += len(sizes)
        notebook.output(index).screenshot(path=pictures / f"{index:03}.png")

    moved = 0
    assert with_figures(cells) and with_controls(cells)
    for index in with_controls(cells):
        assert notebook.controls(index)
        assert all(pixels > 100 for pixels in notebook.tracks(index))  # a handle that fingers can place
        for control in range(notebook.controls(index)):
            before, there, back = notebook.move_there_and_back(index, control)
            assert there != before
            assert back == before, f"cell {index}: a name that its function uses is another one by the end of the notebook"
            moved += 1
        notebook.output(index).screenshot(path=pictures / f"{index:03}-back.png")

    chapter = load_chapter(name[:2])
    checked = progress_lines(home)
    assert sorted(event["id"] for event in checked) == sorted(exercise.id for exercise in chapter.exercises)
    assert {event["state"] for event in checked} == {"to do"}
    record[name] = [len(code), drawn, moved, round(seconds)]


STUB = "def compression_ratio("
CHECK = 'check("0.1", compression_ratio)'
SHOW = "from compresslab.course import progress; progress.show()"


def row_of(chapter, table):
    """"1/9" of a chapter's line in the table that `progress.show()` prints."""
    return next(line.split()[len(chapter.split())] for line in table.splitlines() if line.startswith(chapter))


def test_an_exercise_typed_wrongly_then_rightly_moves_the_progress_which_outlives_the_kernel(open_notebook, home):
    chapter = load_chapter("00")
    exercise = chapter.exercises[0]
    mistake = next(mistake for mistake in exercise.mistakes if mistake.name == "mean over layers")
    total = len(chapter.exercises)

    notebook = open_notebook("00_start_here")
    stub, check = notebook.find(STUB), notebook.find(CHECK)
    table = notebook.new_cell(SHOW)
    notebook.run(notebook.find("import torch\n\nfrom compresslab.course import"))
    notebook.run(stub)
    assert "0.1 compression_ratio is still to do" in notebook.run(check)
    assert row_of("00 Start here", notebook.run(table)) == f"0/{total}"

    notebook.type_last_line(stub, "return (dense_bits / compressed_bits).mean()")
    notebook.run(stub)
    said = notebook.run(check)
    assert "0.1 compression_ratio: " + mistake.diagnosis in said and "Smallest failing input" in said
    assert row_of("00 Start here", notebook.run(table)) == f"0/{total}"

    notebook.type_last_line(stub, "return dense_bits.sum() / compressed_bits.sum()")
    notebook.run(stub)
    assert "\N{CHECK MARK} 0.1 compression_ratio passed" in notebook.run(check)
    assert row_of("00 Start here", notebook.run(table)) == f"1/{total}"
    assert [(event["state"], event["mistake"]) for event in progress_lines(home)] == [
        ("to do", None), ("wrong", mistake.name), ("passed", None)]

    notebook.restart()
    assert "NameError" in notebook.run(stub + 1)  # a new kernel: it does not know `check` any more
    assert row_of("00 Start here", notebook.run(table)) == f"1/{total}"


MANY = 200
TOGETHER = """import time
from compresslab.course import check, progress
from compresslab.course.chapters import load_chapter
progress.record("ready", "{id}")
while len(progress.events("ready")) < 2: time.sleep(0.01)

for _ in range({many}): check("{id}", load_chapter("{id}"[0].zfill(2)).exercises[0].answer)"""


def test_two_open_notebooks_lose_no_line_of_progress(open_notebook, home):
    both = {"0.1": open_notebook("00_start_here"), "1.1": open_notebook("01_pruning")}
    cells = {id: notebook.new_cell(TOGETHER.format(id=id, many=MANY)) for id, notebook in both.items()}
    for id, notebook in both.items():
        notebook.start(cells[id])
    for id, notebook in both.items():
        assert notebook.result(cells[id]).count("still to do") == MANY
    ids = [event["id"] for event in progress_lines(home)]
    assert ids.count("0.1") == ids.count("1.1") == MANY and len(ids) == 2 * MANY
