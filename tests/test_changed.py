"""The fast path: which tests a change concerns, on a small course of its own and on this one."""

import re
import subprocess
import sys
from pathlib import Path

import changed
import pytest
from changed import ROOT, Selection, changed_files, commands, select

FILES = {
    "compresslab/core/bits.py": "",
    "compresslab/pruning/magnitude.py": "",
    "compresslab/hybrid/admm.py": "from compresslab.pruning import magnitude",
    "compresslab/course/checking.py": "",
    "compresslab/course/chapter01/checks.py": "from compresslab.pruning.magnitude import prune",
    "compresslab/course/chapter02/checks.py": "from compresslab import sharing",
    "solutions/01_pruning.py": "",
    "solutions/02_quantization.py": "from compresslab import hybrid",
    "tests/test_prune.py": "from compresslab import pruning",
    "tests/test_admm.py": "import compresslab.hybrid.admm",
    "tests/test_chapter01.py": "def f():\n    from compresslab.course.chapter01 import checks",
    "tests/test_words.py": "import words\nREADME = 'README.md'",
    "tests/words.py": "",
    "README.md": "",
}


def git(root, *words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=root, check=True, capture_output=True)


@pytest.fixture
def small(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def repository(small):
    git(small, "init", "-q", "-b", "main")
    git(small, "add", ".")
    git(small, "commit", "-q", "-m", "all")
    return small


@pytest.mark.parametrize(
    "path, tests, chapters",
    [
        ("compresslab/course/chapter01/checks.py", {"chapter01"}, {"01"}),
        ("compresslab/evidence/02.json", set(), {"02"}),
        ("solutions/01_pruning.py", {"chapter01"}, {"01"}),
        ("notebooks/02_quantization.ipynb", set(), {"02"}),
        ("tests/test_prune.py", {"prune"}, set()),
        ("tests/test_deleted.py", set(), set()),
        ("tests/words.py", {"words"}, set()),
        ("compresslab/pruning/magnitude.py", {"prune", "admm"}, {"01"}),
        ("compresslab/hybrid/admm.py", {"admm"}, {"02"}),
        ("README.md", {"words"}, set()),
        ("assets/never_mentioned.svg", set(), set()),
    ],
)
def test_what_a_file_concerns(small, path, tests, chapters):
    assert select({path}, small) == Selection(frozenset(f"tests/test_{name}.py" for name in tests), frozenset(chapters))


@pytest.mark.parametrize(
    "path",
    ["compresslab/core/bits.py", "compresslab/course/checking.py", "compresslab/__init__.py", "compresslab/new/a.py", "pyproject.toml", "tests/toy_chapter.py"],
)
def test_what_is_central_concerns_everything(small, path):
    selection = select({path, "tests/test_prune.py"}, small)
    assert selection.everything and commands(selection, small) == [["make", "test"]]


def test_commands_take_the_chapters_rows_and_notebooks_only(small):
    lines = commands(Selection(frozenset({"tests/test_a.py"}), frozenset({"01"})), small)
    assert [line[-1] for line in lines] == ["tests/test_a.py", "[1. or [01]", "NOTEBOOKS=01_pruning", "NOTEBOOKS=01_pruning"]
    assert commands(Selection(), small) == []


def test_pytest_understands_the_rows():
    """Chapter 01 only: not 0.1, not 10.1, not 11.1."""
    (line, *_) = commands(Selection(chapters=frozenset({"01"})))
    done = subprocess.run([*line, "--collect-only", "-q", "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True)
    ids = re.findall(r"\[(\S+?)[\s\]]", "\n".join(name for name in done.stdout.splitlines() if "::" in name))
    assert {"01", "1.1", "1.10"} <= set(ids)
    assert all(id == "01" or id.startswith("1.") for id in ids)


def test_changes_are_those_since_the_branch_and_in_the_working_tree(repository):
    assert changed_files(root=repository) == set()
    git(repository, "switch", "-q", "-c", "mine")
    (repository / "README.md").write_text("committed")
    git(repository, "commit", "-q", "-a", "-m", "mine")
    git(repository, "switch", "-q", "main")
    (repository / "tests/words.py").write_text("x = 1")
    git(repository, "commit", "-q", "-a", "-m", "not mine")
    git(repository, "switch", "-q", "mine")
    (repository / "tests/test_words.py").unlink()
    (repository / "tests/test_new – ü.py").write_text("")
    (repository / "solutions/01_pruning.py").write_text("staged = 1")
    git(repository, "add", "solutions")
    mine = {"README.md", "tests/test_words.py", "tests/test_new – ü.py", "solutions/01_pruning.py"}
    assert changed_files(root=repository) == mine == changed_files("main", repository)
    assert changed_files("HEAD", repository) == mine - {"README.md"}


def test_an_unknown_base_is_one_sentence(repository):
    with pytest.raises(ValueError, match="git knows no commit 'nonsense'"):
        changed_files("nonsense", repository)


def test_every_file_of_the_library_is_tested_by_something():
    packages = {path.relative_to(ROOT).parent for path in (ROOT / "compresslab").rglob("*.py")}
    for package in packages:  # the rules look no further than the package
        selection = select({(package / "any.py").as_posix()})
        assert selection.everything or selection.tests or selection.chapters, package


def test_the_command_runs_what_it_prints_and_stops_at_a_failure(monkeypatch, capfd):
    monkeypatch.setattr(changed, "changed_files", lambda base=None: {"x"})
    monkeypatch.setattr(changed, "select", lambda files: None)
    runs = [[sys.executable, "-c", f"print('ran', {i}); raise SystemExit({i})"] for i in range(3)]
    monkeypatch.setattr(changed, "commands", lambda selection: runs)
    assert changed.main([]) == 1
    out = capfd.readouterr().out
    assert "1 changed files" in out and "ran 0" in out and "ran 1" in out and "ran 2" not in out.replace("print('ran', 2)", "")
    assert Path(changed.__file__).parent.name == "tests"
