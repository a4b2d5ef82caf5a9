"""What runs in the fresh process of `memory.peak_memory`: import an engine, load a file, run it, read the marks.

It runs as a script of its own and imports nothing of the package unless the engine needs it: the process of an
.onnx file holds no torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

UNIT = 1 if sys.platform == "darwin" else 1024  # what `ru_maxrss` counts: bytes on macOS, kibibytes elsewhere


def high_water_mark() -> int:
    """The most memory that this process has had so far, in bytes, as the operating system counts it.

    Raises:
        RuntimeError: the system does not say (Windows).
    """
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; there `getrusage` may count what the process was before it became this one
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        raise RuntimeError("this system does not tell a process its largest memory; Linux and macOS do") from None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def measure(request: dict[str, Any]) -> list[int]:
    """Import, load, run, and read the mark behind each: runs in the fresh process."""
    return (_with_torch if request["engine"] == "torch" else _with_onnxruntime)(request)


def _with_torch(request: dict[str, Any]) -> list[int]:
    import torch

    from compresslab.core.store import load

    torch.set_num_threads(request["threads"])
    x = torch.zeros(request["shape"])
    marks = [high_water_mark()]
    model = load(request["path"]).eval()
    marks.append(high_water_mark())
    with torch.no_grad():
        for _ in range(request["runs"]):
            model(x)
    return [*marks, high_water_mark()]


def _with_onnxruntime(request: dict[str, Any]) -> list[int]:
    """Without torch: nothing but numpy and the engine itself is needed to run an .onnx file."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = request["threads"], 1
    options.log_severity_level = 4
    x = np.zeros(request["shape"], dtype=np.float32)
    marks = [high_water_mark()]
    session = ort.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    marks.append(high_water_mark())
    name = session.get_inputs()[0].name
    for _ in range(request["runs"]):
        session.run(None, {name: x})
    return [*marks, high_water_mark()]


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
