"""The wheel: installed alone, outside the checkout, it has all its data and says that all is well."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import compresslab

ROOT = Path(__file__).resolve().parents[1]
DATA = {"checkpoints": ".safetensors", "evidence": ".json", "compare": ".csv"}

INSTALLED = {distribution.name.lower() for distribution in importlib.metadata.distributions()}  # looking for the modules would import some

pytestmark = pytest.mark.skipif(
    not {"setuptools", "pip"} <= INSTALLED,
    reason="building a wheel without a network needs setuptools and pip here",
)


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the checkout and no older build is taken."""
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "compresslab", copy / "compresslab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", copy / "dist", copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "compresslab").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in inside if ".dist-info/" not in name} == wanted
    for folder, ending in DATA.items():
        assert any(name.startswith(f"compresslab/{folder}/") and name.endswith(ending) for name in inside)


def test_the_wheel_works_in_an_environment_of_its_own(wheel, tmp_path):
    """The dependencies are those already installed here, reached by a path file: nothing is downloaded."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    (tmp_path / "elsewhere").mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COMPRESSLAB"))}
    clean |= {"COMPRESSLAB_HOME": str(tmp_path / "home"), "COMPRESSLAB_CACHE": str(tmp_path / "cache")}
    code = (
        "import importlib.metadata, compresslab\n"
        "from compresslab.compare import shipped_results\n"
        "from compresslab.course import load_evidence\n"
        "from compresslab.models import load_baseline\n"
        "from compresslab.__main__ import main\n"
        "assert load_baseline('lenet300') and load_evidence('00') and shipped_results()\n"
        "print(compresslab.__file__, compresslab.__version__, importlib.metadata.version('compresslab'))\n"
        "raise SystemExit(main(['doctor']))"
    )
    out = run(python, "-c", code, cwd=tmp_path / "elsewhere", env=clean)
    place, version, installed = out.splitlines()[0].rsplit(" ", 2)
    assert Path(place).is_relative_to(site) and version == installed == compresslab.__version__
    assert "All is well" in out
    assert wheel.name.startswith(f"compresslab-{version}-")
