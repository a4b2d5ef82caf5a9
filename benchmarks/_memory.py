"""What a process occupies: resident bytes now, their high-water mark, and what is still free.

Linux says all of it in /proc. Elsewhere the high-water mark comes from `resource`, which counts bytes on macOS
and kilobytes on other systems, and the mark stands in for the bytes of the moment as well.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
MEMINFO = Path("/proc/meminfo")


def resident_bytes() -> int:
    """The bytes of this process that are in memory now."""
    return _kilobytes(STATUS, "VmRSS") or high_water_bytes()


def high_water_bytes() -> int:
    """The most bytes that this process has had in memory since it began.

    Not `ru_maxrss` where /proc is there: on Linux that number starts at what the parent occupied.
    """
    if found := _kilobytes(STATUS, "VmHWM"):
        return found
    import resource  # not on Windows, which has no such number in its standard library

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_high_water() -> None:
    """Let the high-water mark begin again at what is resident now, where the system can do that (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        pass  # elsewhere the mark keeps what came before, and the caller subtracts what it can


def available_bytes() -> float:
    """The bytes that a new process could have without swapping; infinity where the system does not say."""
    return _kilobytes(MEMINFO, "MemAvailable") or math.inf


def _kilobytes(file: Path, field: str) -> int:
    """A field such as ``VmRSS:  1234 kB`` in bytes; 0 where the file or the field is missing."""
    if not file.exists():
        return 0
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
