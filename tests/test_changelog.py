"""One version, and a changelog that has it."""

import re
import tomllib
from pathlib import Path

import compresslab

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_version_stands_in_one_place():
    """setuptools reads `__version__` from the package; pyproject.toml has no number of its own."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in pyproject["project"] and pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "compresslab.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", compresslab.__version__)


def test_the_newest_entry_is_this_version():
    versions = re.findall(r"^## \[(.+?)\]", CHANGELOG, re.MULTILINE)
    assert versions[:2] == ["Unreleased", compresslab.__version__]
    numbers = [tuple(map(int, version.split("."))) for version in versions[1:]]
    assert numbers == sorted(numbers, reverse=True)


def test_every_section_is_one_of_keep_a_changelog():
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)) <= KINDS


def test_every_command_that_it_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)`", CHANGELOG):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
