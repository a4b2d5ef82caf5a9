"""The set-up holds together: one set of versions, an importable torchvision, and no pickles."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
EXTRAS = {r.name: r.specifier for extra in PROJECT["optional-dependencies"].values() for r in map(Requirement, extra)}
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


def test_every_requirement_is_pinned_inside_its_range():
    for name, allowed in (NEEDED | EXTRAS).items():
        assert name in PINS, f"{name} has no pin in constraints.txt"
        assert Version(PINS[name]) in allowed, f"{name}=={PINS[name]} is outside {allowed}"


def test_environment_yml_names_the_same_ranges():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    listed = {r.name: r.specifier for r in map(Requirement, (e for e in entries if isinstance(e, str) and e != "pip"))}
    assert str(listed.pop("python")) == PROJECT["requires-python"]
    listed["torch"] = listed.pop("pytorch")
    assert listed == NEEDED


def test_no_package_is_named_twice_with_different_words():
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(len(line) == 2 for line in lines) and len({name.lower() for name, _ in lines}) == len(lines)
    extras = [Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra]
    for requirement in [*extras, *map(Requirement, PROJECT["dependencies"])]:
        assert requirement.specifier == (NEEDED | EXTRAS)[requirement.name], requirement.name


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_imports_after_compresslab():
    code = "import compresslab, torchvision; print(len(torchvision.models.list_models()) > 50)"
    assert run_python(code) == "True"


@pytest.mark.parametrize("loads, declared", [("True", "False"), ("False", "True")])
def test_guard_declares_operators_only_where_the_compiled_ones_do_not_load(loads, declared):
    code = f"""
import importlib.util, sys, types, torch
package = types.ModuleType("compresslab"); package.__path__ = ["compresslab"]; sys.modules["compresslab"] = package
from compresslab import _torchvision_guard as guard
guard._compiled_operators_load = lambda: {loads}
print(guard.make_torchvision_importable(), guard.make_torchvision_importable(), hasattr(torch.ops.torchvision, "nms"))
"""
    assert run_python(code) == f"{declared} False {declared}"


def test_nothing_in_the_library_loads_pickles():
    pattern = re.compile(r"(?<!safetensors\.)torch\.load\(|pickle\.loads?\(|joblib\.load\(|\beval\(|\bexec\(")
    for path in (ROOT / "compresslab").rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not pattern.search(line.replace(".eval()", "")), f"{path.name}:{number}: {line.strip()}"
