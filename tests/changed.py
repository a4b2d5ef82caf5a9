"""Which tests the changed files concern: `make test-changed` runs those, and no others.

    python tests/changed.py [BASE]

Compared is the working tree, with what is not yet committed, and the commit at which this branch left BASE (default:
origin/main, or main). The rules, in the order in which they are tried:

1. A chapter's package, evidence, text or notebook: that chapter's exercises and notebooks, and the test files that import its package.
2. A test file: itself. Another Python file of tests/ or benchmarks/: the test files that import it.
3. `core`, `data`, `models`, the course's machinery, and whatever configures the tests: everything.
4. Another package of the library: the test files that import it or a package built on it, and the chapters whose sources do.
5. Any other file (a text, a picture): the test files that mention its name.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from architecture import GROUND, MAY_IMPORT, imported_names

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = re.compile(r"compresslab/course/chapter(\d\d)/|compresslab/evidence/(\d\d)\.json$|(?:solutions|notebooks)/(\d\d)_")
MACHINERY = ("compresslab/course/", "compresslab/checkpoints/", "compresslab/__", "compresslab/_")
CENTRAL = {"pyproject.toml", "constraints.txt", "Makefile", "tests/toy_chapter.py", "tests/changed.py", "tests/architecture.py", "tests/conftest.py"}


@dataclass(frozen=True)
class Selection:
    """The test files and the chapters ("00", ...) to be tried; with `everything` both are beside the point."""

    tests: frozenset[str] = frozenset()
    chapters: frozenset[str] = frozenset()
    everything: bool = False

    def __or__(self, other: Selection) -> Selection:
        return Selection(self.tests | other.tests, self.chapters | other.chapters, self.everything or other.everything)


def changed_files(base: str | None = None, root: Path = ROOT) -> set[str]:
    """The files that differ from where this branch left `base`: committed, staged, neither, new, deleted.

    Raises:
        ValueError: git does not know `base`.
    """
    names = [base] if base else ["origin/main", "main"]
    known = [name for name in names if _git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)]
    if base and not known:
        raise ValueError(f"git knows no commit {base!r}; give a branch, such as origin/main, or a commit")
    start = _git(root, "merge-base", known[0], "HEAD")[0] if known else "HEAD"
    changed = _git(root, "diff", "--name-only", "--no-renames", start)
    return {*changed, *_git(root, "ls-files", "--others", "--exclude-standard")}


def _git(root: Path, *words: str, check: bool = True) -> list[str]:
    done = subprocess.run(["git", "-c", "core.quotePath=false", *words], cwd=root, capture_output=True, text=True, check=check)
    return done.stdout.splitlines()


def select(changed: set[str], root: Path = ROOT) -> Selection:
    """What these files concern; see the rules above."""
    selection = Selection()
    for path in sorted(changed):
        selection |= _concerned(path, root)
    return selection


def _concerned(path: str, root: Path) -> Selection:
    chapter = CHAPTER.match(path)
    if chapter:
        number = next(filter(None, chapter.groups()))
        return Selection(_importers(root, {f"compresslab.course.chapter{number}"}), frozenset({number}))
    if re.fullmatch(r"tests/test_\w+\.py", path):
        return Selection(frozenset({path} if (root / path).exists() else ()))
    if path in CENTRAL or path.startswith(MACHINERY):
        return Selection(everything=True)
    if path.startswith("tests/") and path.endswith(".py"):
        return Selection(_importers(root, {Path(path).stem}))
    if path.startswith("benchmarks/") and path.endswith(".py"):
        return Selection(_importers(root, {"benchmarks"}))
    if path.startswith("compresslab/"):
        package = path.split("/")[1].removesuffix(".py")
        if package in GROUND or package not in MAY_IMPORT:
            return Selection(everything=True)
        above = {package} | {name for name, may in MAY_IMPORT.items() if package in may and name not in ("course", "__main__")}
        packages = {f"compresslab.{name}" for name in above}
        return Selection(_importers(root, packages), _chapters(root, {f"compresslab.{package}"}))
    name = Path(path).name
    return Selection(frozenset(test for test in _tests(root) if name in (root / test).read_text(encoding="utf-8")))


def _tests(root: Path) -> list[str]:
    return sorted(f"tests/{path.name}" for path in (root / "tests").glob("test_*.py"))


def _importers(root: Path, modules: set[str]) -> frozenset[str]:
    """The test files that import one of these modules, or something out of it."""
    return frozenset(test for test in _tests(root) if _imports(root, root / test, modules))


def _imports(root: Path, path: Path, modules: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for name in imported_names(path, root) for module in modules)


def _chapters(root: Path, modules: set[str]) -> frozenset[str]:
    """The chapters whose text or tables import one of these modules."""
    found = set()
    for folder in sorted((root / "compresslab/course").glob("chapter[0-9][0-9]")):
        number = folder.name[-2:]
        texts = sorted((root / "solutions").glob(f"{number}_*.py"))
        if any(_imports(root, path, modules) for path in (*folder.glob("*.py"), *texts)):
            found.add(number)
    return frozenset(found)


def commands(selection: Selection, root: Path = ROOT) -> list[list[str]]:
    """The command lines, one after the other; none if nothing is concerned."""
    if selection.everything:
        return [["make", "test"]]
    pytest, lines = [sys.executable, "-m", "pytest"], []
    if selection.tests:
        lines.append([*pytest, *sorted(selection.tests)])
    if selection.chapters:
        rows = " or ".join(f"[{int(number)}. or [{number}]" for number in sorted(selection.chapters))  # "[1.2 name]", "[01]"
        lines.append([*pytest, "tests/test_exercises.py", "tests/test_notebooks.py", "-k", rows])
        books = [path.stem for number in sorted(selection.chapters) for path in sorted((root / "solutions").glob(f"{number}_*.py"))]
        lines += [["make", target, f"NOTEBOOKS={' '.join(books)}"] for target in ("test-solved", "test-untouched") if books]
    return lines


def main(arguments: list[str]) -> int:
    """Run what the changes concern; the first failure ends it."""
    try:
        changed = changed_files(*arguments[:1])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    lines = commands(select(changed))
    print(f"{len(changed)} changed files" + ("" if lines else ": no test is concerned"))
    for line in lines:
        print("+", *line, flush=True)
        code = subprocess.run(line, cwd=ROOT).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
