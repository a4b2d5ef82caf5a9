"""The machine a time was measured on: without it, a time is a number about nothing.

Latency depends on the processor, its vector instructions, the number of threads and the versions of the
engines. A table of times therefore carries this description once. It holds what explains a time and nothing
that names a person: no host name, no user, no path.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch


CPU_INFO = Path("/proc/cpuinfo")
VECTOR_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",  # x86
    "asimddp", "i8mm", "sve",  # ARM
)  # fmt: skip
ENGINES = ("torch", "onnxruntime", "numpy", "torchao")


def describe_machine() -> dict[str, object]:
    """The processor, its threads and vector instructions, the GPU if there is one, and the versions.

    Returns:
        a dict that can be written as JSON: "cpu" (name), "cores" (that this process may use),
        "torch_threads", "instructions" (the `VECTOR_FLAGS` that the processor reports; empty where the system
        does not tell), "system", "gpu" (name or None), "python" and one version per engine of `ENGINES` (None
        where it is not installed).
    Example:
        >>> sorted(describe_machine())[:5]
        ['cores', 'cpu', 'gpu', 'instructions', 'numpy']
    """
    flags = _cpu_flags()
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "instructions": [flag for flag in VECTOR_FLAGS if flag in flags],
        "system": platform.system(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: _version(name) for name in ENGINES},
    }


def machine_line(machine: dict[str, object]) -> str:
    """One line for under a table of times.

    Args:
        machine: what `describe_machine` returned, here or on the machine of a recorded table.
    Example:
        >>> machine_line({"cpu": "Toy 1", "cores": 2, "torch_threads": 1, "instructions": ["avx2"],
        ...               "gpu": None, "torch": "2.9", "onnxruntime": None})
        'Toy 1, 2 cores (avx2), torch 2.9'
    """
    vectors = ", ".join(map(str, machine["instructions"])) or "no vector instructions reported"
    parts = [f"{machine['cpu']}, {machine['cores']} cores ({vectors})"]
    parts += [str(machine["gpu"])] if machine.get("gpu") else []
    parts += [f"{name} {machine[name]}" for name in ENGINES if machine.get(name)]
    return ", ".join(parts)


def usable_cores() -> int:
    """Logical cores that this process may run on (a container often allows fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    """The name on the box: from the kernel on Linux, from the system on macOS, else what Python knows."""
    if name := _cpu_field("model name"):
        return name
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine() or "unknown processor"


def _cpu_flags() -> set[str]:
    """The feature words of the first core: "flags" on x86, "Features" on ARM; empty without such a file."""
    return set((_cpu_field("flags") or _cpu_field("Features")).lower().split())


def _cpu_field(name: str) -> str:
    if not CPU_INFO.exists():
        return ""
    for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
