"""How much memory a process takes to run a network: the high-water mark of a fresh one.

The number that counts on a shared machine is neither the size of the file nor the sum of the tensors: it is
what the operating system had to give. That holds the interpreter, the engine's code, the weights as the engine
keeps them, its activations, and its scratch buffers. What was once given stays in the high-water mark, so a
notebook that has trained networks all day can tell nothing: every measurement starts a process of its own.

    started = an interpreter that has imported the engine
    loaded  = the same, and the file is in memory
    peak    = the same, and some batches have run
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from compresslab.core.errors import check_int
from compresslab.deploy import memory_process

SECONDS = 120
START = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"  # without the package, which imports torch


class MemoryReport(NamedTuple):
    """High-water marks of one process, in bytes, one after the other; none is below the one before.

    Attributes:
        engine: "torch" or "onnxruntime".
        file_bytes: of the file.
        started_bytes: when the engine is imported.
        loaded_bytes: when the network is loaded.
        peak_bytes: when the batches have run.
        batch: images at once.
    """

    engine: str
    file_bytes: int
    started_bytes: int
    loaded_bytes: int
    peak_bytes: int
    batch: int

    @property
    def loading_bytes(self) -> int:
        """What loading the file added to the mark."""
        return self.loaded_bytes - self.started_bytes

    @property
    def running_bytes(self) -> int:
        """What running added to it."""
        return self.peak_bytes - self.loaded_bytes


def peak_memory(
    path: str | Path, input_shape: Sequence[int], *, engine: Literal["torch", "onnxruntime"] | None = None,
    batch: int = 1, runs: int = 3, threads: int = 1,
) -> MemoryReport:  # fmt: skip
    """Load a file in a fresh process, run it on random inputs, and read off the process's largest memory.

    Args:
        path: of a file of `core.save` that names its network (engine "torch"), or of an .onnx file.
        input_shape: of one image, such as (3, 32, 32); float32.
        engine: None: "onnxruntime" for files that end in .onnx, else "torch".
        batch: images at once, >= 1.
        runs: how often, >= 0; an engine may take memory only at its second run. 0 only loads.
        threads: inside an operation, >= 1; each may have buffers of its own.
    Returns:
        the marks. The engine's own code is in all three, so compare differences, or the peaks of one engine.
    Raises:
        FileNotFoundError: there is no file at the path.
        ValueError: the engine is unknown, or a number is out of range.
        RuntimeError: the system has no high-water mark (Windows), or the process failed; the message says why.
    Differs: pages that two processes share, such as the engine's code, count as if this one had them alone; and
        a mark moves by some hundred kilobytes from process to process.
    """
    path = Path(path)
    engine = engine or ("onnxruntime" if path.suffix == ".onnx" else "torch")
    if engine not in ("torch", "onnxruntime"):
        raise ValueError(f"engine must be 'torch' or 'onnxruntime', got {engine!r}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.name!r}")
    request = {
        "path": str(path.resolve()), "engine": engine, "shape": [check_int("batch", batch, 1), *input_shape],
        "runs": check_int("runs", runs, 0), "threads": check_int("threads", threads, 1),
    }  # fmt: skip
    marks = _elsewhere(request)
    return MemoryReport(engine, path.stat().st_size, *marks, batch)


def _elsewhere(request: dict[str, Any]) -> list[int]:
    """The marks that a fresh process prints."""
    command = [sys.executable, "-c", START, str(Path(memory_process.__file__).resolve())]
    try:
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the process took more than {SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise RuntimeError(f"the process failed: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
