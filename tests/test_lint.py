"""The linter finds nothing: `make lint`, in a second."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def ruff(*words, **options):
    pytest.importorskip("ruff", reason="ruff comes with the extra `dev`")
    return subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", *words], cwd=ROOT, capture_output=True, text=True, **options)


def test_the_linter_finds_nothing():
    done = ruff("--output-format", "concise")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_would_find_something():
    done = ruff("--stdin-filename", "compresslab/core/new.py", "--output-format", "concise", "-", input="import os\n")
    assert done.returncode == 1 and "F401" in done.stdout
