"""The table of methods, read from the code: each public name with its paper, its chapters, exercises and tests.

Nothing in it is written by hand, so it cannot drift. The paper is the ``Source`` of the docstring. A chapter or a test
uses a name if it imports it, or reads it from an imported package; code is parsed, not searched, so a word in a string
or a learner's function of the same name counts for nothing.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from compresslab.course.chapters import CHAPTERS, load_chapter

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = {
    "pruning": "01", "quantization": "02", "compact": "03", "distillation": "04", "lowrank": "05", "sharing": "06",
    "hybrid": "07", "compare": "08", "sequence": "09", "classical": "10", "deploy": "11",
}  # each with its chapter  # fmt: skip
PACKAGES = ("core", "models", "data", *FAMILIES)
Name = tuple[str, str]  # package, public name: ("pruning", "prune_magnitude")


@dataclass(frozen=True)
class Method:
    """One public name of a family, and where it comes from and is used.

    Args:
        family, name: ``pruning``, ``prune_magnitude``.
        summary: the first line of its docstring.
        source: its paper, or None where the docstring names none.
        file_source: the paper of the whole file it stands in, or None.
        chapters: numbers of the chapters whose text or code uses it.
        evidence: numbers of the other chapters whose figures, tasks or recorded experiments use it.
        written: exercises in which the learner writes it, or whose hints name it.
        applied: exercises in whose part of the chapter it is used.
        tests: the test files that use it, without ``.py``.
    """

    family: str
    name: str
    summary: str
    source: str | None
    file_source: str | None
    chapters: tuple[str, ...]
    evidence: tuple[str, ...]
    written: tuple[str, ...]
    applied: tuple[str, ...]
    tests: tuple[str, ...]


def methods(family: str) -> list[Method]:
    """All public names of a family that are at home there, in the order of its ``__all__``.

    Raises:
        ValueError: there is no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    return [_method(family, name) for name in public(family) if home(family, name)[0] == family]


def _method(family: str, name: str) -> Method:
    key, value = (family, name), _value(family, name)
    doc = inspect.getdoc(value) if callable(value) else None
    chapters = tuple(number for number in CHAPTERS if key in chapter_uses(number))
    behind = tuple(number for number in CHAPTERS if number not in chapters and key in _evidence_uses(number))
    applied = [id for number in chapters for id in _applied(number).get(key, ())]
    written = [id for number in CHAPTERS for id in _written(number, key)]
    return Method(
        family, name, summary(doc), source(doc), source(_file_doc(value)), chapters, behind, tuple(written),
        tuple(id for id in dict.fromkeys(applied) if id not in written),
        tuple(path.stem for path in sorted((ROOT / "tests").glob("*.py")) if key in _file_uses(path)),
    )  # fmt: skip


# -- names ---------------------------------------------------------------------------------------------------


@cache
def public(package: str) -> tuple[str, ...]:
    """The public names of ``compresslab.<package>``."""
    return tuple(importlib.import_module(f"compresslab.{package}").__all__)


def _value(package: str, name: str) -> Any:
    return getattr(importlib.import_module(f"compresslab.{package}"), name)


def _file_doc(value: Any) -> str | None:
    module = getattr(value, "__module__", None) or ""
    return inspect.getdoc(importlib.import_module(module)) if module.startswith("compresslab.") else None


@cache
def home(package: str, name: str) -> Name:
    """Where a public name is documented: the package whose file defines it, if it is public there, too.

    Example:
        >>> home("quantization", "Grid")
        ('core', 'Grid')
    """
    parts = (getattr(_value(package, name), "__module__", None) or "").split(".")
    if parts[0] == "compresslab" and parts[1] in PACKAGES and name in public(parts[1]):
        return parts[1], name
    return package, name


def find(dotted: str) -> Name | None:
    """The public name that ``pruning.prune_magnitude`` or ``compresslab.core.store.save`` means, None if none.

    Example:
        >>> find("core.store.save"), find("pruning.masks"), find("torch.save")
        (('core', 'save'), None, None)
    """
    parts = dotted.removeprefix("compresslab.").split(".")
    package, middle, name = parts[0], parts[1:-1], parts[-1]
    if len(parts) < 2 or package not in PACKAGES or name not in public(package) or len(middle) > 1:
        return None
    if middle and not (ROOT / "compresslab" / package / f"{middle[0]}.py").exists():
        return None
    return home(package, name)


# -- docstrings ----------------------------------------------------------------------------------------------

_HEADING = re.compile(r"(Args|Returns|Raises|Example|Examples|Differs|Note|Source)\b[^.:]{0,20}:")


def summary(doc: str | None) -> str:
    """The first line of a docstring; "" for none."""
    return doc.strip().splitlines()[0] if doc and doc.strip() else ""


def source(doc: str | None) -> str | None:
    """The paper that a docstring names in its ``Source``, on one line, without what ``Differs``.

    Example:
        >>> source("Prune.\\n\\nSource: S. Han et al.,\\n    2015.\\nDiffers: one shot.")
        'S. Han et al., 2015.'
    """
    lines = iter(doc.splitlines() if doc else ())
    for line in lines:
        if line.startswith("Source:"):
            break
    else:
        return None
    found = [line.removeprefix("Source:")]
    for line in lines:
        if not line.strip() or _HEADING.match(line):
            break
        found.append(line)
    return " ".join(" ".join(found).split()).split(" Differs:")[0] or None


# -- who uses what -------------------------------------------------------------------------------------------


@cache
def _file_uses(path: Path) -> frozenset[Name]:
    return frozenset(uses(path.read_text(encoding="utf-8")))


def uses(code: str) -> set[Name]:
    """The public names of the library that a piece of Python uses."""
    tree = ast.parse(code)
    imported = imports(tree)
    return set(_used(tree, imported)) | {name for dotted in imported.values() if (name := find(dotted))}


def imports(tree: ast.AST) -> dict[str, str]:
    """What the names that a file imports from the library stand for: {"prune": "compresslab.pruning"}."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname and a.name.startswith("compresslab.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "compresslab":
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _used(tree: ast.AST, imported: dict[str, str]) -> Iterator[Name]:
    for node in ast.walk(tree):
        rest: list[str] = []
        while isinstance(node, ast.Attribute):
            rest, node = [node.attr, *rest], node.value
        if isinstance(node, ast.Name) and (node.id in imported or node.id == "compresslab"):
            if name := find(".".join([imported.get(node.id, node.id), *rest])):
                yield name


# -- chapters and exercises ----------------------------------------------------------------------------------

_CODE = re.compile(r"`([\w.]+)(?:\([^`]*\))?`")
_EXERCISE = re.compile(r"^# \{\{exercise (\S+)\}\}$|^# (#+) ", re.MULTILINE)


def chapter_source(number: str) -> str:
    """The text of a chapter, `solutions/NN_name.py`."""
    return (ROOT / "solutions" / f"{load_chapter(number).name}.py").read_text(encoding="utf-8")


@cache
def chapter_uses(number: str) -> frozenset[Name]:
    """The public names that a chapter's code uses or that its text names, as ``core.save``."""
    text = chapter_source(number)
    named = {name for match in _CODE.finditer(text) if (name := find(match[1]))}
    return frozenset(uses(text) | named)


@cache
def _evidence_uses(number: str) -> frozenset[Name]:
    folder = ROOT / "compresslab" / "course" / f"chapter{number}"
    return frozenset().union(*(_file_uses(path) for path in sorted(folder.glob("*.py"))))


@cache
def _applied(number: str) -> dict[Name, list[str]]:
    """The exercises in whose part of the chapter a name is used: from an exercise to the next one or to the next heading."""
    text = chapter_source(number)
    imported = imports(ast.parse(text))
    found: dict[Name, list[str]] = {}
    marks = [*_EXERCISE.finditer(text)]
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        if mark[1]:
            part = text[mark.end() : after.start() if after else None]
            for name in dict.fromkeys(_used(ast.parse(part), imported)):
                found.setdefault(name, []).append(mark[1])
    return found


@cache
def _words(number: str) -> dict[str, frozenset[str]]:
    """{exercise id: the names in its title and hints, and its own}."""
    return {
        item.id: frozenset(re.findall(r"\w+", " ".join([item.title, *(h for h in item.hints if isinstance(h, str))]))) | {item.name}
        for item in load_chapter(number).exercises
    }


def _written(number: str, key: Name) -> list[str]:
    # a plain word in a hint ("fold", "fit") is English; with an underscore or a capital it is a name
    name = key[1]
    if "_" not in name and name.islower():
        return [item.id for item in load_chapter(number).exercises if name == item.name and key in chapter_uses(number)]
    return [id for id, words in _words(number).items() if name in words]
