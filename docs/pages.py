"""The pages that come from the code and the data: chapters, reference, methods, glossary, the published record."""

from __future__ import annotations

import csv
import importlib
import inspect
import re
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat

from compresslab.compare.published import TOP1, published
from compresslab.course.chapters import CHAPTERS, load_chapter
from compresslab.course.source import BEGIN, END
from docs import methods
from docs.methods import FAMILIES, PACKAGES, ROOT

HERE = Path(__file__).resolve().parent
_EXERCISE = re.compile(r"^\*\*Exercise (\d+\.\d+) ·", re.MULTILINE)
_REGION = re.compile(rf"^[ \t]*(?:{BEGIN}|{END})[ \t]*\n?", re.MULTILINE)


def executed() -> tuple[str, ...]:
    """The chapters whose solved notebook is there."""
    return tuple(number for number in CHAPTERS if notebook(number).exists())


def notebook(number: str) -> Path:
    """The solved notebook of a chapter."""
    return ROOT / "solutions" / f"{load_chapter(number).name}.ipynb"


def write_pages(folder: Path, chapters: Collection[str], packages: Collection[str] = PACKAGES) -> None:
    """Write all pages into a folder, for Sphinx to read.

    Args:
        folder: created, if need be.
        chapters: numbers of the chapters to build; links to others become plain text.
        packages: of the library, to document.
    Raises:
        ValueError: a chapter that does not exist, or that has no executed notebook.
    """
    for number in chapters:
        load_chapter(number)
        if number not in executed():
            raise ValueError(f"chapter {number} has no executed notebook: run `python -m compresslab build {number}` first")
    here = [number for number in executed() if number in chapters]
    pages = {"index.md": index_page(here), "reference/library.rst": library_page(packages)}
    pages |= {f"reference/{package}.rst": package_page(package) for package in packages}
    pages["reference/methods.rst"] = methods_page(here, [family for family in FAMILIES if family in packages])
    pages["reference/glossary.rst"] = glossary_page(glossary(), here)
    pages["reference/published.rst"] = published_page(here)
    pages |= {f"chapters/{load_chapter(number).name}.ipynb": chapter_page(number) for number in here}
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "assets" / "overview.svg", folder)


# -- chapters ------------------------------------------------------------------------------------------------


def index_page(chapters: Iterable[str]) -> str:
    """The first page, with the chapters in order."""
    lines = [f"{number} {short_title(number)} <chapters/{load_chapter(number).name}>" for number in chapters]
    tree = "\n".join(["```{toctree}", ":caption: Chapters", ":maxdepth: 1", "", *lines, "```"])
    return (HERE / "index.md").read_text(encoding="utf-8").replace("@CHAPTERS@", tree)


def short_title(number: str) -> str:
    """"Deployment: where compression becomes speed" is "Deployment" in the sidebar."""
    return load_chapter(number).title.split(":")[0]


def chapter_page(number: str) -> str:
    """A solved notebook, with a target at each exercise and each solution folded away until it is asked for."""
    book = nbformat.read(notebook(number), as_version=4)
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = _EXERCISE.sub(lambda match: f"({exercise_label(match[1])})=\n{match[0]}", cell.source)
        elif BEGIN in cell.source:
            cell.source = _REGION.sub("", cell.source).rstrip("\n")
            cell.metadata["tags"] = [*cell.metadata.get("tags", ()), "hide-input"]
            cell.metadata["mystnb"] = {"code_prompt_show": "Show one solution", "code_prompt_hide": "Hide it"}
    return nbformat.writes(book)


def exercise_label(id: str) -> str:
    """The target of an exercise: "exercise-5-1" for 5.1."""
    return f"exercise-{id.replace('.', '-')}"


# -- the library ---------------------------------------------------------------------------------------------


def library_page(packages: Iterable[str]) -> str:
    """The list of packages."""
    rows = [[f":doc:`{package} <{package}>`", escape(first_line(f"compresslab.{package}")), str(len(at_home(package)))]
            for package in packages]  # fmt: skip
    tree = ["", ".. toctree::", "   :hidden:", "", *(f"   {package}" for package in packages)]
    return title("The library") + table(("Package", "What it holds", "Names"), rows, (15, 75, 10)) + "\n".join(tree) + "\n"


def first_line(module: str) -> str:
    """The first line of a module's docstring."""
    return methods.summary(inspect.getdoc(importlib.import_module(module)))


def at_home(package: str) -> list[str]:
    """The public names that are documented with this package."""
    return [name for name in methods.public(package) if methods.home(package, name)[0] == package]


def package_page(package: str) -> str:
    """The reference of one package: its files, each with its idea and then its public names."""
    files: dict[str, list[str]] = {}
    for name in at_home(package):
        files.setdefault(defining_file(package, name), []).append(name)
    lines = [title(package), f".. automodule:: compresslab.{package}\n   :no-members:\n"]
    guests = [methods.home(package, name) for name in methods.public(package) if methods.home(package, name)[0] != package]
    if guests:
        links = ", ".join(f":py:obj:`~compresslab.{home}.{name}`" for home, name in guests)
        lines.append(f"Also here, from elsewhere in the library: {links}.\n")
    for file, names in files.items():
        if file != f"compresslab.{package}":
            lines.append(title(file.split(".")[-1], "-") + f".. automodule:: {file}\n   :no-members:\n   :no-index:\n")
        lines += [f".. currentmodule:: compresslab.{package}\n", *(entry(package, name) for name in names)]
    return "\n".join(lines)


def defining_file(package: str, name: str) -> str:
    """The module that defines a public name: "compresslab.pruning.magnitude" for ``prune_magnitude``."""
    module = getattr(getattr(importlib.import_module(f"compresslab.{package}"), name), "__module__", None) or ""
    if module.startswith("compresslab."):
        return module
    pattern = re.compile(rf"^{name}\b[^=\n]*=", re.MULTILINE)  # a constant does not know where it comes from
    return next(m for m in _files(package) if pattern.search(inspect.getsource(importlib.import_module(m))))


@cache
def _files(package: str) -> tuple[str, ...]:
    folder = ROOT / "compresslab" / package
    return tuple(f"compresslab.{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")


def entry(package: str, name: str) -> str:
    """The directive that documents one name."""
    value = getattr(importlib.import_module(f"compresslab.{package}"), name)
    if inspect.isclass(value):
        bases = "   :show-inheritance:\n" if value.__bases__ != (object,) else ""
        return f".. autoclass:: {name}\n   :members:\n{bases}"
    if inspect.isfunction(value):
        return f".. autofunction:: {name}\n"
    return f".. py:data:: {name}\n\n   {escape(type(value).__name__)}\n"


# -- the methods ---------------------------------------------------------------------------------------------

INTRODUCTION = """Every public name of the families. **Paper** is the ``Source`` in its documentation, or in that of
its file; **chapters** use
it in their text or code, those in brackets in their figures, tasks or recorded experiments. In the **exercises** with a
\N{PENCIL} you write it yourself, or a hint names it; the others stand in the part of a chapter that uses it. **Tests** are files of
``tests/`` that use it. The table is read from the code when this page is built, and a dash is a dash: nothing was found.

Click on a heading to sort; type below it to filter.
"""


def methods_page(chapters: Collection[str], families: Iterable[str] = FAMILIES) -> str:
    """The table of methods, a section for each family."""
    parts = [title("The methods"), INTRODUCTION]
    for family in families:
        found = methods.methods(family)
        with_paper = sum(m.source is not None for m in found)
        parts += [title(family, "-"), f"Chapter {chapter_link(FAMILIES[family], chapters)}. {len(found)} names, {with_paper} with a paper.\n"]
        parts.append(table(("Method", "Paper", "Chapters", "Exercises", "Tests"), [method_row(m, chapters) for m in found],
                           (24, 40, 10, 10, 16), "sortable"))  # fmt: skip
    return "\n".join(parts)


def method_row(method: methods.Method, chapters: Collection[str]) -> list[str]:
    """One line of the table, in reStructuredText."""
    numbers = [chapter_link(number, chapters) for number in method.chapters]
    numbers += [f"({chapter_link(number, chapters)})" for number in method.evidence]
    ids = [f"{exercise_link(id, chapters)} \N{PENCIL}" for id in method.written]
    ids += [exercise_link(id, chapters) for id in method.applied]
    tests = [name.removeprefix("test_") for name in method.tests]
    return [
        f":py:obj:`~compresslab.{method.family}.{method.name}`",
        paper(method),
        ", ".join(numbers) or "--",
        ", ".join(ids) or "--",
        ", ".join(f"``{name}``" for name in tests) or "--",
    ]


def paper(method: methods.Method) -> str:
    """The paper of a method; or that of its whole file, and said so."""
    if method.source:
        return escape(plain(method.source))
    return f"*its file:* {escape(plain(method.file_source))}" if method.file_source else "--"


def chapter_link(number: str, chapters: Collection[str]) -> str:
    """A link to a chapter, or its number alone where the chapter is not built."""
    return f":doc:`{number} </chapters/{load_chapter(number).name}>`" if number in chapters else number


def exercise_link(id: str, chapters: Collection[str]) -> str:
    """A link to an exercise, or its id alone where the chapter is not built."""
    return f":ref:`{id} <{exercise_label(id)}>`" if id.split(".")[0].zfill(2) in chapters else id


# -- glossary and published record ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """A term of the field, in English and Chinese, what it means, and the chapter that teaches it."""

    english: str
    chinese: str
    definition: str
    chapter: str


def glossary(path: Path = HERE / "glossary.csv") -> list[Term]:
    """The terms, in the order of the file, which is the alphabet's."""
    with open(path, newline="", encoding="utf-8") as file:
        return [Term(**row) for row in csv.DictReader(file)]


def glossary_page(terms: Sequence[Term], chapters: Collection[str]) -> str:
    """The glossary; both names of a term are targets."""
    lines = [title("Glossary English-中文"), f"The terms of the field that the chapters teach, {len(terms)} of them; each with its chapter.\n",
             ".. glossary::\n"]  # fmt: skip
    for term in terms:
        meaning = f"{escape(term.definition)} *Chapter* {chapter_link(term.chapter, chapters)}."
        lines.append(f"   {term.english}\n   {term.chinese}\n      {meaning}\n")
    return "\n".join(lines)


RECORD = """What has been published, with the numbers as they were printed: top-1 accuracies in per cent where the notes name no other unit, ratios above 1 smaller
or faster, changes after minus before. They come from different networks, training recipes and years, some contradict each
other, and none was measured by this course; chapter {chapter} says how to read such a table.

Click on a heading to sort; type below it to filter.
"""


def published_page(chapters: Collection[str]) -> str:
    """The published record as a table."""
    head = ("Family", "Method", "Paper", "Year", "Network", "Data", "Smaller", "Faster", "Before", "After", "Change",
            "Notes", "Source")  # fmt: skip
    rows = [
        [r.family, r.method, r.paper, r.year, r.model, r.dataset, r.compression, r.speedup, r.baseline, r.compressed, r.delta,
         r.notes if r.metric == TOP1 else "; ".join(filter(None, (r.metric, r.notes))), r.source]
        for r in published()
    ]  # fmt: skip
    cells = [["" if cell is None else escape(f"{cell:g}" if isinstance(cell, float) else str(cell)) for cell in row] for row in rows]
    text = RECORD.format(chapter=chapter_link("08", chapters))
    return ":hide-toc:\n\n" + title("The published record") + text + "\n" + table(head, cells, (8, 10, 10, 5, 9, 8, 6, 6, 6, 6, 6, 11, 9), "sortable wide")


# -- reStructuredText ----------------------------------------------------------------------------------------


_SAME = "\\ "  # nothing, but it keeps "S. Han" and "11" from being the start of a numbered list


def title(text: str, line: str = "=") -> str:
    """A heading."""
    return f"{text}\n{line * max(4, 2 * len(text))}\n\n"


def escape(text: str) -> str:
    """Text that reStructuredText leaves as it is."""
    return re.sub(r"([\\*`|_<>:$])", r"\\\1", text)


def plain(text: str) -> str:
    """A docstring's line without its marks: ":func:`~core.save`" is "save"."""
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?([^`]+)`", r"\1", text).replace("`", "")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int], kind: str = "") -> str:
    """A list-table, one line a cell."""
    marks = ("   * - ", "     - ")
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", f"   :class: {kind}" if kind else "", ""]
    for row in (head, *rows):
        lines += [marks[i > 0] + (_SAME + cell if cell else "") for i, cell in enumerate(row)]
    return "\n".join(line for i, line in enumerate(lines) if line or i > 3) + "\n\n"
