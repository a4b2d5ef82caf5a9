"""`python -m compresslab doctor`: is this machine ready, and what exactly repairs it if not.

Nothing here needs a network, and nothing is changed.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compresslab.course import progress

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "safetensors",
    "jupyterlab",
    "ipywidgets",
    "nbval",
)
INSTALL = f"{Path(sys.executable).name} -m pip install -e . -c constraints.txt"
MEMORY_GB = 3.0
DISK_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `repair` is the exact line that mends it, empty if nothing is wrong."""

    name: str
    found: str
    repair: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing needs repair."""
        return not self.repair


def python_version() -> Finding:
    """Python 3.11 or later."""
    found = platform.python_version()
    repair = (
        ""
        if sys.version_info >= (3, 11)
        else "conda env create -f environment.yml && conda activate compresslab"
    )
    return Finding("Python", found, repair)


def packages() -> list[Finding]:
    """The installed version of every package that a learner needs."""
    findings = []
    for name in PACKAGES:
        try:
            findings.append(Finding(name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, "missing", INSTALL))
    return findings


def torchvision_operators() -> Finding:
    """torchvision's models import; its compiled operators may be absent, the course does not need them."""
    try:
        import torch
        import torchvision.models  # noqa: F401
        from torchvision.extension import _has_ops

        import compresslab  # noqa: F401  (makes a mismatched torchvision importable)
    except Exception as error:
        return Finding("torchvision operators", f"{type(error).__name__}: {error}".splitlines()[0], INSTALL)
    device = f"torch built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPU'}"
    return Finding(
        "torchvision operators", f"{'present' if _has_ops() else 'absent, not needed here'}; {device}"
    )


def threads() -> Finding:
    """How many threads PyTorch uses, and how many processors there are."""
    import torch

    return Finding("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors")


def memory() -> Finding:
    """Free memory; a chapter needs at most 3 GB. Silent where the system does not say."""
    available = _available_memory()
    if available is None:
        return Finding("memory", "not known on this system")
    found = f"{available / 1e9:.1f} GB available"
    repair = (
        "" if available >= MEMORY_GB * 1e9 else "close other notebooks (menu Kernel, Shut Down All Kernels)"
    )
    return Finding("memory", found, repair)


def _available_memory() -> int | None:
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except ImportError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def cache() -> Finding:
    """The folder of generated and downloaded data sets."""
    from compresslab.data.cache import cache_folder

    return writable("cache (data sets)", cache_folder(), "COMPRESSLAB_CACHE")


def home() -> Finding:
    """The folder of the learner's progress and files."""
    return writable("home (progress)", progress.home(), "COMPRESSLAB_HOME")


def writable(name: str, folder: Path, variable: str) -> Finding:
    """Whether files can be made in this folder (or where it would be made), with room to spare."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    repair = f'export {variable}="$HOME/{variable.lower()}"   # any folder that you may write to'
    try:
        with tempfile.NamedTemporaryFile(dir=existing) as probe:
            probe.write(b"x")
    except OSError as error:
        return Finding(name, f"{folder}: {error.strerror}", repair)
    free = shutil.disk_usage(existing).free / 1e9
    return Finding(name, f"{folder}, {free:.0f} GB free", "" if free >= DISK_GB else repair)


def fonts() -> Finding:
    """The fonts with which the data sets are drawn come with matplotlib."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    count = (
        len(list(folder.glob("DejaVu*.ttf")))
        + len(list(folder.glob("STIX*.ttf")))
        + len(list(folder.glob("cm*.ttf")))
    )
    repair = "" if count >= 15 else f"{Path(sys.executable).name} -m pip install --force-reinstall matplotlib"
    return Finding("fonts", f"{count} in matplotlib", repair)


def examine() -> list[Finding]:
    """Look at everything; an examination that fails is a finding, too."""
    looks: list[Callable[[], Finding | list[Finding]]] = [
        python_version,
        packages,
        torchvision_operators,
        threads,
        memory,
        fonts,
        cache,
        home,
    ]
    findings: list[Finding] = []
    for look in looks:
        try:
            result = look()
        except Exception as error:
            result = Finding(getattr(look, "__name__", "look"), f"{type(error).__name__}: {error}", INSTALL)
        findings += result if isinstance(result, list) else [result]
    return findings


def report() -> bool:
    """Print what was found and how to repair what is wrong; returns whether all is well."""
    findings = examine()
    for finding in findings:
        print(f"{'ok ' if finding.ok else 'NO '} {finding.name:32} {finding.found}")
        if not finding.ok:
            print(f"    repair: {finding.repair}")
    wrong = sum(not finding.ok for finding in findings)
    print(
        "All is well. No network is needed." if not wrong else f"{wrong} to repair; then restart the kernel."
    )
    return not wrong
