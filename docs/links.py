"""What Sphinx does not do by itself: links from the chapters into the reference, and the form of our docstrings."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

from docs import methods

_CALL = re.compile(r"([A-Za-z_][\w.]*)(?:\(.*\))?")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both with Sphinx."""
    app.connect("autodoc-process-docstring", format_docstring, priority=400)  # before napoleon, at 500
    app.connect("autodoc-process-docstring", escape_text, priority=600)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# -- links ---------------------------------------------------------------------------------------------------


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Make inline code that names something public a link to its entry, and in chapters bold terms one to the glossary."""
    folder, _, page = docname.partition("/")
    if folder == "chapters":
        number = page[:2]
        exercises = {item.name for item in methods.load_chapter(number).exercises}  # these mean the learner's own
        imported = methods.imports(ast.parse(methods.chapter_source(number)))
        short = {name: dotted for name, dotted in imported.items() if name not in exercises}
    elif page in methods.PACKAGES:  # a plain word, such as `scale`, is rather an argument
        short = {name: f"{page}.{name}" for name in methods.public(page) if "_" in name or not name.islower()}
    else:
        return
    for node in [*doctree.findall(nodes.literal)]:
        _link(app, node, docname, "py", _target(node.astext(), short))
    for node in [*doctree.findall(nodes.strong)] if folder == "chapters" else ():
        term = " ".join(node.astext().lower().split()).rstrip(".")
        _link(app, node, docname, "std", term)


def _target(text: str, imported: dict[str, str]) -> str | None:
    """`core.save`, `save` where the chapter imports it, or either with its brackets -> the full name of the entry."""
    match = _CALL.fullmatch(text)
    if not match:
        return None
    first, dot, rest = match[1].partition(".")
    name = methods.find(match[1]) or methods.find(imported.get(first, "") + dot + rest)
    return f"compresslab.{name[0]}.{name[1]}" if name else None


def _link(app: Sphinx, node: nodes.Element, docname: str, domain: str, target: str | None) -> None:
    if target is None or isinstance(node.parent, nodes.reference | nodes.title) or _inside(node, nodes.title):
        return
    if domain == "py":
        entry = app.env.domains["py"].objects.get(target)
        place = (entry.docname, entry.node_id) if entry else None
    else:
        place = _terms(app).get(target)
    if place:
        new = make_refnode(app.builder, docname, place[0], place[1], [node.deepcopy()], target)
        new["classes"].append("term" if domain == "std" else "entry")
        node.replace_self(new)


def _terms(app: Sphinx) -> dict[str, tuple[str, str]]:
    objects = app.env.domains["std"].objects
    return {name.lower(): place for (kind, name), place in objects.items() if kind == "term"}


def _inside(node: nodes.Node, kind: type) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kind):
            return True
    return False


# -- docstrings ----------------------------------------------------------------------------------------------

_PARAGRAPH = re.compile(r"(Source|Differs|Shape|Weight|Backward|Raises|Args|Returns|Args, [\w, ]+):\s*(.*)")
_HEADING = re.compile(r"[A-Z][A-Za-z, ]*:")
_TIMED = re.compile(r"(Examples?) \([^)]*\):$")
_DRAWN = re.compile(r"\||[ ]{4}|-{4}")
_INITIAL = re.compile(r"^(\s*:[^:`]+:\s+)(?=\w+[.)](?:\s|$))")  # ":param k: K." is no list of which K is the first entry
_LITERAL = re.compile(r"(``.*?``|:\w+:`[^`]*`|`[^`]*`)")


def format_docstring(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Before napoleon: headings that it does not know become paragraphs, what a module draws in text stays as drawn."""
    if what == "module":
        lines[:] = _as_drawn(lines)
    lines[:] = _with_sections(lines)


def _as_drawn(lines: list[str]) -> Iterator[str]:
    """Blocks that are a table or a drawing become literal blocks."""
    for empty, block in itertools.groupby(lines, key=lambda line: not line.strip()):
        block = list(block)
        drawn = not empty and all(_DRAWN.match(line) for line in block) or any("---|" in line for line in block)
        yield from ["::", "", *("    " + line for line in block)] if drawn else block


def _with_sections(lines: list[str]) -> Iterator[str]:
    inside = False  # a paragraph of ours, whose lines lose their indentation
    for line in lines:
        match = _PARAGRAPH.match(line)
        if match and (match[2] or match[1] not in ("Raises", "Args", "Returns")):
            inside = True
            yield from ("", f"*{match[1]}:* {match[2]}".rstrip())
        elif _TIMED.match(line) or _HEADING.fullmatch(line):
            inside = False
            yield from ("", _TIMED.sub(r"\1:", line))
        elif inside and line.strip():
            yield line.strip()
        else:
            inside = False
            yield line


def escape_text(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """After napoleon: |x| and classes_ are text, not marks of reStructuredText."""
    literal_below = -1  # the indentation of a directive or of a "::", whose block is left as it is
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal_below >= 0 and line.strip() and indent <= literal_below:
            literal_below = -1
        if line.strip().startswith(".. math::") or line.rstrip().endswith("::"):
            literal_below = indent
        elif literal_below < 0 and ">>>" not in line:
            parts = _LITERAL.split(line)
            parts[::2] = [re.sub(r"(?<!\\)\||(?<=\w)_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = _INITIAL.sub(r"\1\\ ", "".join(parts))


def skip_fields(app: Sphinx, what: str, name: str, value: object, skip: bool, options: object) -> bool | None:
    """The fields of a named tuple say nothing but their number: the class says what they are."""
    return True if (getattr(value, "__doc__", None) or "").startswith("Alias for field number") else None
