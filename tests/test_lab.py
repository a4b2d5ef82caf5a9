"""`make lab` as a learner meets it: the server answers, and the first chapter is drawn in a real browser."""

import shutil

import pytest
from browser import CHROMIUM, FLAGS, ROOT, SECONDS, TOKEN, chromium, free_port, serve

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv" / ".ready").exists() or shutil.which("make") is None,
    reason="needs make and the .venv that `make` creates",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    port, path = free_port(), "/lab/tree/00_start_here.ipynb"
    command = ["make", "lab", f"PORT={port}", f"LAB_FLAGS={' '.join(FLAGS)}"]
    with serve(tmp_path_factory.mktemp("lab"), command, port, path, ROOT) as status:
        yield f"http://127.0.0.1:{port}{path}?token={TOKEN}", status


def test_server_answers(lab):
    assert lab[1] == 200


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_first_chapter_is_drawn(lab, tmp_path):
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(lab[0], timeout=SECONDS * 1000)
        heading = page.locator(".jp-Notebook h1").first
        heading.wait_for(timeout=SECONDS * 1000)
        assert "Start here" in heading.inner_text()
        page.screenshot(path=tmp_path / "lab.png")
