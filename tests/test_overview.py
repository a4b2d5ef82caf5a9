"""The README's picture is what `make picture` draws from the shipped measurements."""

import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_picture_is_drawn_from_the_shipped_measurements(tmp_path):
    shipped = (ROOT / "assets" / "overview.svg").read_text(encoding="utf-8")
    if f"Matplotlib v{matplotlib.__version__}" not in shipped:
        pytest.skip("drawn with another version of matplotlib")
    command = [sys.executable, "-m", "compresslab.course.overview", str(tmp_path / "again.svg")]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert (tmp_path / "again.svg").read_text(encoding="utf-8") == shipped, "run: make picture"
