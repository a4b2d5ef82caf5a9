"""What the section on memory shows of processes: high-water marks of fresh ones.

``python -m compresslab evidence 11 memory`` measures it: about 20 short processes.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from compresslab.deploy.machine import describe_machine
from compresslab.deploy.memory import peak_memory

NETWORKS = {"resnet8": (3, 32, 32), "vgg": (3, 32, 32)}
PROCESSES = 3  # per row; the median counts


def memory() -> dict[str, Any]:
    """Rows: network, form, engine, batch, the three marks in bytes (medians), peak_low and peak_high of the processes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for network, shape in NETWORKS.items():
            for form, path in _files(network, shape, Path(folder)).items():
                for batch in (1, 32):
                    rows.append({"network": network, "form": form} | row(path, shape, batch))
    return {"machine": describe_machine(), "threads": 1, "processes": PROCESSES, "rows": rows}


def row(path: Path, shape: tuple[int, ...], batch: int) -> dict[str, Any]:
    """The process with the median peak."""
    reports = sorted((peak_memory(path, shape, batch=batch) for _ in range(PROCESSES)), key=lambda report: report.peak_bytes)
    return reports[PROCESSES // 2]._asdict() | {"peak_low": reports[0].peak_bytes, "peak_high": reports[-1].peak_bytes}


def _files(network: str, shape: tuple[int, ...], folder: Path) -> dict[str, Path]:
    """The same network for two engines, in floats and in few bits."""
    from compresslab.core import UniformCode, encode, save
    from compresslab.data import load_data
    from compresslab.deploy.export import export_onnx
    from compresslab.deploy.qdq import export_int8
    from compresslab.models import load_baseline

    model = load_baseline(network)
    paths = {form: folder / f"{network}-{i}{'.onnx' if 'ONNX' in form else '.safetensors'}"
             for i, form in enumerate(("ONNX Runtime float", "ONNX Runtime int8", "PyTorch float", "PyTorch, 8-bit codes"))}
    export_onnx(model, paths["ONNX Runtime float"], shape)
    images = load_data("street_digits").train.take(256)
    export_int8(model, paths["ONNX Runtime int8"], shape, list(images.batches(64, labels=False)))
    save(model, paths["PyTorch float"])
    save(encode(model, partial(UniformCode.from_dense, bits=8, axis=0)), paths["PyTorch, 8-bit codes"])
    return paths


ENTRIES = {"memory": memory}
TIMED = ("memory",)  # bytes of processes: no other machine would give the same
