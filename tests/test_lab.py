"""`make lab` as a learner meets it: the server answers, and the first chapter is drawn in a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOKEN = "test-token"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv" / ".ready").exists() or shutil.which("make") is None,
    reason="needs make and the .venv that `make` creates",
)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


SECONDS = 180  # for the server to answer or to end: a busy machine may need many of them


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


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    port, log = free_port(), tmp_path_factory.mktemp("lab") / "log"
    flags = f"--no-browser --allow-root --IdentityProvider.token={TOKEN} --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"
    with log.open("w") as out:
        server = subprocess.Popen(["make", "lab", f"PORT={port}", f"LAB_FLAGS={flags}"], cwd=ROOT, stdout=out,
                                  stderr=subprocess.STDOUT, start_new_session=True,
                                  env=os.environ | {"JUPYTER_CONFIG_DIR": str(log.parent / "config")})
    url = f"http://127.0.0.1:{port}/lab/tree/00_start_here.ipynb?token={TOKEN}"
    try:
        yield url, wait_for(url, log)
    finally:
        stop(server)


def test_server_answers(lab):
    assert lab[1] == 200


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_first_chapter_is_drawn(lab, tmp_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(lab[0], timeout=SECONDS * 1000)
        heading = page.locator(".jp-Notebook h1").first
        heading.wait_for(timeout=SECONDS * 1000)
        assert "Start here" in heading.inner_text()
        page.screenshot(path=tmp_path / "lab.png")
        browser.close()
