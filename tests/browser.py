"""A course notebook in a real browser: the server, the page of one notebook in JupyterLab, its cells and controls.

JupyterLab draws only the cells near the window, so cells are read from the notebook's model and scrolled to before
they are looked at. Whatever takes time is waited for by its condition, never by the clock.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

ROOT = Path(__file__).parents[1]
TOKEN = "test-token"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 180  # for the server to answer or to end, for one cell or one picture: a busy machine may need many of them
CHAPTER_SECONDS = 900  # for all cells of a chapter
FLAGS = ["--no-browser", "--allow-root", f"--IdentityProvider.token={TOKEN}",
         "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]

# -- the server ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(url: str, log: Path) -> int:
    """The status of the first answer under ``url``."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                return answer.status
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer within {SECONDS} s:\n{log.read_text()}")


def stop(server: subprocess.Popen) -> None:
    """End the server and everything it started in its process group, politely first."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, kind)
            server.wait(timeout=SECONDS / 6)
            return
        except ProcessLookupError:  # the whole group has ended already
            server.wait()
            return
        except subprocess.TimeoutExpired:
            continue


@contextmanager
def serve(folder: Path, command: list[str], port: int, path: str, cwd: Path, **environment: str) -> Iterator[int]:
    """Run a JupyterLab server until the block ends; gives the status of its first answer under ``path``.

    Args:
        folder: for its log and for all its settings: none of the user's are read or written.
    """
    log = folder / "log"
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "RUNTIME")} | {"IPYTHONDIR": str(folder / "ipython")}
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                                  env=os.environ | own | environment)
    try:
        yield wait_for(f"http://127.0.0.1:{port}{path}?token={TOKEN}", log)
    finally:
        stop(server)


@contextmanager
def course(folder: Path) -> Iterator[str]:
    """A server on ``folder / "notebooks"``, with small budgets, for a learner whose own folder is ``folder / "home"``."""
    (folder / "notebooks").mkdir()
    news = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')  # nobody is asked about news in the corner of the window
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", "--LabApp.expose_app_in_browser=True", *FLAGS]
    live = dict.fromkeys(("CI", "COMPRESSLAB_STATIC", "COMPRESSLAB_STRICT", "NBGRADER_EXECUTION"), "")
    with serve(folder, command, port, "/lab", folder / "notebooks", COMPRESSLAB_HOME=str(folder / "home"), COMPRESSLAB_QUICK="1",
               OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), **live):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's browser, which is the machine's own Chromium: nothing is downloaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


# -- one notebook ---------------------------------------------------------------------------------

CELL = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell[data-windowed-list-index='{}']"
PICTURES = ".jp-RenderedImage img, .jp-RenderedSVG img, .jp-RenderedSVG svg"
CONTROLS = ".jupyter-widgets .noUi-handle, .jupyter-widgets select, .jupyter-widgets input[type=checkbox]"
SCREEN = ".jupyter-widgets.widget-output img"
IDLE = "() => window.notebook.sessionContext.session?.kernel?.status === 'idle'"
WAY = """control => {  // there and back: keys, or the numbers of a list's lines
    if (control.type === 'checkbox') return ['Space', 'Space'];
    if (control.tagName === 'SELECT') {
        const here = control.selectedIndex;
        return [here + 1 < control.options.length ? here + 1 : here - 1, here];
    }
    return Number(control.ariaValueNow) < Number(control.ariaValueMax) ? ['ArrowRight', 'ArrowLeft'] : ['ArrowLeft', 'ArrowRight'];
}"""
SHOWN = "([screen, before, same]) => { const src = document.querySelector(screen)?.src; return src && (src === before) === same; }"
POSITIONS = 8  # a tree of six leaves may be the tree of five: a slider is moved until the picture changes
CELLS = """() => window.notebook.content.widgets.map(cell => ({
    kind: cell.model.type, source: cell.model.sharedModel.getSource(),
    count: cell.model.executionCount ?? null, outputs: cell.model.outputs?.toJSON() ?? []}))"""


def text_of(outputs: list[dict[str, Any]]) -> str:
    """Everything that a cell printed, and its error."""
    return "".join(f"{output['ename']}: {output['evalue']}" if output["output_type"] == "error" else "".join(output.get("text", ""))
                   for output in outputs)


class NotebookPage:
    """One notebook, open in a window of its own.

    Args:
        browser: of `chromium`. server: of `course`. name: "00_start_here".
    """

    def __init__(self, browser: Any, server: str, name: str) -> None:
        self.page = browser.new_page(viewport={"width": 1400, "height": 1600})
        self.page.set_default_timeout(SECONDS * 1000)
        self.page.goto(f"{server}/lab/workspaces/{uuid4().hex}/tree/{name}.ipynb?token={TOKEN}")
        self._wait("""name => {
            const open = window.jupyterapp?.shell.currentWidget;
            if (open?.context?.path !== name || !open.context.isReady || !open.sessionContext?.isReady) return false;
            window.notebook = open;
            return open.sessionContext.session?.kernel?.status === 'idle';
        }""", f"{name}.ipynb")

    def _wait(self, condition: str, argument: Any = None, seconds: float = SECONDS) -> None:
        self.page.wait_for_function(condition, arg=argument, timeout=seconds * 1000)

    def command(self, name: str, seconds: float = SECONDS) -> None:
        """Run a command of JupyterLab's menus, and wait until it has ended and the kernel is idle."""
        self.page.evaluate("name => { window.started = window.jupyterapp.commands.execute(name); }", name)
        self._finish(name, seconds)

    def _finish(self, name: str, seconds: float = SECONDS) -> None:
        self.page.evaluate("""([name, seconds]) => Promise.race([
            window.started,
            new Promise((_, no) => setTimeout(() => no(new Error(`${name}: not done after ${seconds} s`)), 1000 * seconds))])""", [name, seconds])
        self._wait(IDLE)

    def run_all(self) -> None:
        """Run > Run All Cells."""
        self.command("notebook:run-all-cells", CHAPTER_SECONDS)

    def restart(self) -> None:
        """Kernel > Restart Kernel, and yes to the question."""
        self.page.evaluate("() => { window.started = window.jupyterapp.commands.execute('kernelmenu:restart'); }")
        self.page.get_by_role("dialog").get_by_role("button", name="Confirm Kernel Restart").click()
        self._finish("restart")

    def cells(self) -> list[dict[str, Any]]:
        """All cells: kind, source, count (None: not run), outputs as in the file."""
        return self.page.evaluate(CELLS)

    def find(self, text: str) -> int:
        """The number of the one code cell that holds ``text``."""
        found = [i for i, cell in enumerate(self.cells()) if cell["kind"] == "code" and text in cell["source"]]
        if len(found) != 1:
            raise LookupError(f"{text!r} should stand in one code cell, stands in {found}")
        return found[0]

    def cell(self, index: int) -> Any:
        """The cell as drawn, scrolled into the window."""
        self.page.evaluate("""async index => {
            const notebook = window.notebook.content;
            notebook.activeCellIndex = index;
            await notebook.scrollToItem(index, 'center');
        }""", index)
        drawn = self.page.locator(CELL.format(index))
        drawn.wait_for()
        return drawn

    def start(self, index: int) -> None:
        """Begin to run one cell, and wait for nothing."""
        self.cell(index)
        self.page.evaluate("() => { window.started = window.jupyterapp.commands.execute('notebook:run-cell'); }")

    def run(self, index: int) -> str:
        """Run one cell; what it printed, and the text of its error if it failed."""
        self.start(index)
        return self.result(index)

    def result(self, index: int) -> str:
        """Wait until the cell that `start` began has ended; as `run`."""
        self._finish(f"cell {index}")
        return text_of(self.cells()[index]["outputs"])

    def type_last_line(self, index: int, text: str) -> None:
        """Type over the last line of a cell, as fingers do."""
        self.cell(index).locator(".cm-content").click()
        for key in ("Control+End", "Shift+Home"):
            self.page.keyboard.press(key)
        self.page.keyboard.type(text)
        self._wait("""([index, text]) => window.notebook.content.widgets[index].model.sharedModel.getSource().endsWith(text)""", [index, text])

    def new_cell(self, text: str) -> int:
        """Type a new last cell; its number."""
        last = len(self.cells()) - 1
        self.cell(last)
        self.command("notebook:insert-cell-below")
        self.type_last_line(last + 1, text)
        return last + 1

    def figures(self, index: int) -> list[tuple[int, int]]:
        """Width and height in pixels of the pictures of a cell, once all of them are drawn."""
        drawn = self.cell(index)
        drawn.locator(PICTURES).first.wait_for()
        pictures = drawn.locator(PICTURES)
        self._wait("pictures => pictures.every(p => p.tagName !== 'IMG' || (p.complete && p.naturalWidth > 0))",
                   pictures.element_handles())
        return [tuple(size) for size in pictures.evaluate_all("""all => all.map(p => {
            const { width, height } = p.getBoundingClientRect();
            return [Math.round(width), Math.round(height)];
        })""")]

    def output(self, index: int) -> Any:
        """All that a cell shows below itself, as drawn."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def controls(self, index: int) -> int:
        """How many sliders, lists and boxes stand in a cell's output."""
        return self.cell(index).locator(CONTROLS).count()

    def tracks(self, index: int) -> list[float]:
        """The lengths in pixels of the ways that the sliders of a cell can go."""
        return self.cell(index).locator(".jupyter-widgets .slider-container").evaluate_all("all => all.map(s => s.getBoundingClientRect().width)")

    def move_there_and_back(self, index: int, control: int) -> tuple[str, str, str]:
        """Move one control until the picture is another one, and back: the pictures before, there, and back again.

        Sliders and boxes are moved with the keyboard; a list is picked from, since JupyterLab takes its arrow keys.
        """
        handle = self.cell(index).locator(CONTROLS).nth(control)
        there, back = handle.evaluate(WAY)
        before, moves = self.picture(index), 0
        while True:
            self._move(handle, there)
            moves += 1
            last = not str(there).startswith("Arrow") or moves == POSITIONS or handle.evaluate(WAY)[0] != there
            if self._shown(index, before, same=False, seconds=SECONDS if last else 5) or last:  # one position too many does no harm
                break
        pictures = before, self.picture(index)
        for _ in range(moves):
            self._move(handle, back)
        self._shown(index, before, same=True, seconds=SECONDS)
        return *pictures, self.picture(index)

    def _move(self, handle: Any, step: str | int) -> None:
        if isinstance(step, int):
            handle.select_option(index=step)
        else:
            handle.press(step)
        self.page.evaluate("() => window.notebook.sessionContext.session.kernel.requestKernelInfo()")  # it answers in order
        self._wait(IDLE)

    def _shown(self, index: int, before: str, same: bool, seconds: float) -> bool:
        """Wait until the picture is, or is not, the one before; False if it does not come to that."""
        from playwright.sync_api import TimeoutError as Late

        try:
            self._wait(SHOWN, [f"{CELL.format(index)} {SCREEN}", before, same], seconds)
        except Late:
            return False
        return True

    def picture(self, index: int) -> str:
        """What the controls of a cell show now, as the data of its image."""
        return self.cell(index).locator(SCREEN).get_attribute("src")

    def close(self) -> None:
        """End the kernel and close the window."""
        self.page.evaluate("() => window.notebook.sessionContext.shutdown()")
        self.page.close()
