"""Which package may import which: the one table behind the drawing in CONTRIBUTING.md and the test of the imports.

After a change of the table, `python tests/architecture.py` draws it again.
"""

import ast
from functools import cache
from pathlib import Path

from marked import replace_between

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- drawn by tests/architecture.py -->", "<!-- end of the drawing -->"

GROUND = {"core", "data", "models"}
FAMILIES = {"pruning", "quantization", "compact", "distillation", "lowrank", "sharing", "classical"}
MAY_IMPORT = {
    "core": {"data"},
    "data": {"core"},
    "models": {"core"},
    **dict.fromkeys(sorted(FAMILIES), GROUND),
    "hybrid": GROUND | FAMILIES,
    "sequence": GROUND | FAMILIES | {"hybrid"},
    "compare": GROUND | FAMILIES | {"hybrid"},
    "deploy": GROUND | FAMILIES | {"hybrid", "sequence", "compare"},
    "baselines": GROUND | FAMILIES | {"sequence"},
    "course": GROUND | FAMILIES | {"hybrid", "sequence", "compare", "deploy"},
    "__main__": GROUND | {"baselines", "compare", "course"},
    "__init__": {"_torchvision_guard"},
    "_torchvision_guard": set(),
}
ROWS = [  # from the bottom up: (name in the drawing, what stands in the box, the packages)
    ("ground", "core, data, models", GROUND),
    ("families", "the families<br>" + "<br>".join(sorted(FAMILIES)), FAMILIES),
    ("hybrid", "hybrid", {"hybrid"}),
    ("sequence", "sequence", {"sequence"}),
    ("compare", "compare", {"compare"}),
    ("deploy", "deploy", {"deploy"}),
    ("course", "course", {"course"}),
]


def package_of(path: Path) -> str:
    """The package (or module) of the library that a file belongs to: "core", "pruning", "baselines"."""
    return path.relative_to(ROOT / "compresslab").parts[0].removesuffix(".py")


def imported_names(path: Path, root: Path | None = None) -> frozenset[str]:
    """Every dotted name that a file imports, wherever the import stands: "compresslab.core.files.write_atomic"."""
    return _names(path.read_text(encoding="utf-8"), path.relative_to(root or ROOT).parent.parts)


@cache
def _names(source: str, package: tuple[str, ...]) -> frozenset[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def imported_packages(path: Path) -> set[str]:
    """The second part of every `compresslab.x` that a file imports."""
    return {name.split(".")[1] for name in imported_names(path) if name.startswith("compresslab.")}


def arrows() -> list[tuple[str, str]]:
    """(from, to) of the drawing: who may import whom, without what follows from two arrows."""
    may = {
        name: {other for other, _, theirs in ROWS if other != name and all(theirs <= MAY_IMPORT[p] for p in packages)}
        for name, _, packages in ROWS
    }
    return [
        (name, other)
        for name, _, _ in ROWS
        for other, _, _ in ROWS
        if other in may[name] and not any(other in may[between] for between in may[name])
    ]


def drawing() -> str:
    """The table as a mermaid diagram; an arrow points at what is imported."""
    boxes = [f'    {name}["{text}"]' for name, text, _ in reversed(ROWS)]
    lines = [f"    {name} --> {other}" for name, other in reversed(arrows())]
    return "\n".join([BEGIN, "```mermaid", "flowchart TD", *boxes, *lines, "```", END])


def drawn(text: str) -> str:
    """A text with the drawing in it brought up to date."""
    return replace_between(text, BEGIN, END, drawing())


if __name__ == "__main__":
    CONTRIBUTING.write_text(drawn(CONTRIBUTING.read_text(encoding="utf-8")), encoding="utf-8")
