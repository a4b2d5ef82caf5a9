"""What the section on the engine shows without measuring it again: small files, and how fast they run.

``python -m compresslab evidence 11`` measures it on one thread: two convolutional networks, and two of linear layers.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.core.codes import UniformCode
from compresslab.core.layers import decompress, encode
from compresslab.core.timing import Timing, speedup, time_calls
from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.export import agreement, export_onnx
from compresslab.deploy.machine import describe_machine
from compresslab.deploy.stored import export_stored

Row = dict[str, Any]
WIDTHS, BATCHES, REPEATS, THREADS = (1024, 4096), (1, 32), 60, 1
LOADING = {"float": "rounded", "int8": "rounded", "int4": "rounded", "int4, exact": "exact", "int4, unpacked": "unpacked"}


def wide(width: int) -> nn.Module:
    """Two linear layers of one width, with random weights: only time and rounding are asked."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)).eval()


def coded(model: nn.Module, bits: int) -> nn.Module:
    """Scales per output channel before convolutions, per 32 weights in linear layers where 32 divide them."""

    def code(weight: Tensor) -> UniformCode:
        group = 32 if weight.ndim == 2 and weight.shape[1] % 32 == 0 else None
        return UniformCode.from_dense(weight, bits, axis=0, group_size=group)

    return encode(model, code)


def stored() -> dict[str, Any]:
    """File bytes, times and errors of every form of every network."""
    from compresslab.data import load_data
    from compresslab.models import load_baseline

    images = load_data("street_digits").test.x(slice(max(BATCHES)))
    inputs = dict.fromkeys(("resnet8", "vgg"), images)
    inputs |= {f"mlp{width}": torch.randn(max(BATCHES), width, generator=torch.Generator().manual_seed(0)) for width in WIDTHS}
    rows: list[Row] = []
    for name, x in inputs.items():
        model = load_baseline(name) if name in ("resnet8", "vgg") else wide(int(name[3:]))
        rows += _rows(name, model.eval(), x)
    return {"machine": describe_machine(), "rows": rows}


def _rows(name: str, model: nn.Module, x: Tensor) -> list[Row]:
    """One network: write its files, run them side by side, compare each with its own decoded weights."""
    shape, rows = tuple(x.shape[1:]), []
    with tempfile.TemporaryDirectory() as folder:
        files = {bits: Path(folder) / f"{bits}.onnx" for bits in (32, 8, 4)}
        export_onnx(model, files[32], shape)
        decoded = {32: model}
        for bits in (8, 4):
            code = coded(model, bits)
            export_stored(code, files[bits], shape)
            decoded[bits] = decompress(code)
        bits_of = {form: int(form[3]) if form != "float" else 32 for form in LOADING}
        engines = {form: OnnxModel(files[bits_of[form]], THREADS, weights=how) for form, how in LOADING.items()}
        for batch in BATCHES:
            part = x[:batch]
            times = time_calls({form: partial(engine.run_numpy, part.numpy()) for form, engine in engines.items()}, repeats=REPEATS, warmup=5)
            for form, engine in engines.items():
                found = agreement(decoded[bits_of[form]], engine, x)
                rows.append({"network": name, "form": form, "batch": batch, "threads": THREADS, "file_bytes": engine.path_bytes,
                             **_timed(times["float"], times[form]), "largest_difference": found.largest, "equal_labels": found.equal_labels})
    return rows


def _timed(slow: Timing, fast: Timing) -> Row:
    """Median and quartile range in ms, and how many times faster than the baseline, with an interval."""
    ratio = speedup(slow, fast)
    return {"median_ms": fast.median, "iqr_ms": fast.iqr, "ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}


ENTRIES = {"stored": stored}
TIMED = ("stored",)  # milliseconds: no other machine would give them
