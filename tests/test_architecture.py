"""The imports point one way, and the drawing in CONTRIBUTING.md shows which."""

import architecture
import pytest
from architecture import FAMILIES, MAY_IMPORT, ROOT, ROWS, arrows, drawing, drawn, imported_names, imported_packages, package_of

FILES = sorted((ROOT / "compresslab").rglob("*.py"))
IN_THE_PACKAGE = {"__version__"}  # names of compresslab itself, for everybody


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_those_of_the_table(path):
    package = package_of(path)
    used = imported_packages(path) - {package} - IN_THE_PACKAGE
    assert used <= MAY_IMPORT[package], f"{package} may not import {', '.join(sorted(used - MAY_IMPORT[package]))}"


def test_the_table_has_every_package_and_nothing_else():
    assert set(MAY_IMPORT) == {package_of(path) for path in FILES}
    assert set().union(*MAY_IMPORT.values()) <= set(MAY_IMPORT)


def test_families_do_not_know_each_other_nor_the_course():
    for family in FAMILIES:
        assert not MAY_IMPORT[family] & (FAMILIES | {"course"})
    assert [name for name, may in MAY_IMPORT.items() if "course" in may] == ["__main__"]


def test_the_drawing_is_that_of_the_table():
    text = architecture.CONTRIBUTING.read_text(encoding="utf-8")
    assert drawing() in text, "run: python tests/architecture.py"
    assert drawn(text) == text


def test_the_arrows_say_all_that_the_table_says():
    """Following the arrows from a box reaches what its packages may import, no less and no more."""
    edges, boxes = arrows(), {name: packages for name, _, packages in ROWS}

    def below(name):
        return {name}.union(*(below(other) for source, other in edges if source == name))

    for name, packages in boxes.items():
        reached = set().union(*(boxes[other] for other in below(name)))
        for package in packages - architecture.GROUND:  # core, data and models know each other, in one box
            assert reached - packages == MAY_IMPORT[package] - packages, name


def test_imports_are_found_wherever_they_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(architecture, "ROOT", tmp_path)
    path = tmp_path / "compresslab" / "core" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text("import compresslab.data.cache\ndef f():\n    from ..pruning import g\n    from . import codes\n    from compresslab import models\n")
    assert imported_names(path) == {"compresslab.data.cache", "compresslab.pruning.g", "compresslab.core.codes", "compresslab.models"}
    assert imported_packages(path) == {"data", "pruning", "core", "models"}
