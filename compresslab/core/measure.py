"""The ruler: one frozen row per network, the same for every method of the course.

Three rules keep it honest.

- The size is that of a real file, written by `save` and measured on the disk. A network whose compression is
  only simulated (masks, fake quantization) is baked first and so has the size of the dense network that it
  is.
- A coded network is small and not fast: its weights would be decoded at every call. Its accuracy, MACs and
  latency are those of `decompress(model)`, and the row says "packed".
- Latency is measured interleaved with the baseline's, and the row names threads, batch and memory format.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from compresslab.core.layers import CodedLayer
from compresslab.core.macs import MacReport, count_macs, plain
from compresslab.core.modules import bake
from compresslab.core.size import storage_report
from compresslab.core.timing import Speedup, Timing, speedup, time_calls, time_models
from compresslab.core.train import accuracy, device_of

if TYPE_CHECKING:
    from compresslab.data import Split

__all__ = [
    "MacReport", "Measurement", "Speedup", "Timing", "count_macs", "file_size", "form_of", "format_rows",
    "measure", "speedup", "time_calls", "time_models",
]  # fmt: skip

NOT_WEIGHTS = ("bias", "norm")  # roles of `storage_report`


@dataclass(frozen=True)
class Measurement:
    """One measured row. Sizes are in bits or bytes as named, times in milliseconds.

    `weight_bits` counts the weights with everything that their codes need (indices, scales, codebooks),
    `total_bits` biases and normalisation too, `file_bytes` the file with its header. `form` is "plain",
    "simulated" (masks or fake quantization, stored dense) or "packed" (coded; accuracy, MACs and latency of
    the decompressed network). Latencies are None where none was asked for.
    """

    name: str
    accuracy: float
    n: int
    weight_bits: int
    total_bits: int
    file_bytes: int
    macs: int
    latency_ms: float | None
    latency_iqr: float | None
    baseline_latency_ms: float | None
    threads: int
    batch: int
    memory_format: str
    seed: int
    form: str

    @property
    def speedup(self) -> float | None:
        """Baseline latency over latency; above 1 is faster."""
        return None if self.latency_ms is None else self.baseline_latency_ms / self.latency_ms


def measure(
    model: nn.Module,
    split: Split,
    *,
    baseline: nn.Module | None = None,
    name: str = "",
    batch: int = 1,
    repeats: int = 30,
    threads: int | None = None,
    memory_format: str = "channels_last",
    entropy: bool = False,
    seed: int = 0,
) -> Measurement:
    """Measure a network: accuracy, size, MACs and latency.

    Args:
        model: plain, masked, simulated or coded; it is not changed.
        split: the images to be judged on; the first `batch` of them are the input of the clock.
        baseline: the network whose latency is taken in the same rounds; the model itself where None.
        name: of the row.
        batch: images per timed call, 1 up to the size of the split.
        repeats: rounds of the clock; 0 measures no latency.
        threads: of torch while the clock runs; None leaves the number as it is.
        memory_format: "channels_last" or "contiguous".
        entropy: save with Huffman codes.
        seed: the seed of the experiment, for the record.
    Raises:
        ValueError: a batch or a number of repeats out of range.
    """
    if not 1 <= batch <= len(split):
        raise ValueError(f"batch must be from 1 to the {len(split)} images of the split, got {batch}")
    if repeats < 0:
        raise ValueError(f"repeats must be 0 or more, got {repeats}")
    form, dense, stored = form_of(model), plain(model), storage_report(bake(model))
    row = {"latency_ms": None, "latency_iqr": None, "baseline_latency_ms": None}
    if repeats:
        nets = {"model": dense} if baseline is None else {"baseline": plain(baseline), "model": dense}
        x = split.x(slice(batch)).to(device_of(dense))
        times = time_models(nets, x, repeats=repeats, threads=threads, memory_format=memory_format)
        row = {
            "latency_ms": times["model"].median,
            "latency_iqr": times["model"].iqr,
            "baseline_latency_ms": times.get("baseline", times["model"]).median,
        }
    return Measurement(
        name=name,
        accuracy=accuracy(dense, split),
        n=len(split),
        weight_bits=sum(bits for role, bits in stored.by_role.items() if role not in NOT_WEIGHTS),
        total_bits=stored.total_bits,
        file_bytes=file_size(model, entropy=entropy),
        macs=count_macs(dense, split.shape).total,
        **row,
        threads=threads or torch.get_num_threads(),
        batch=batch,
        memory_format=memory_format,
        seed=seed,
        form=form,
    )


def form_of(model: nn.Module) -> str:
    """How a network holds its weights.

    Returns:
        "packed" where a layer is coded, "simulated" where a weight is computed (masks, fake quantization), else
        "plain".
    """
    modules = list(model.modules())
    if any(isinstance(module, CodedLayer) for module in modules):
        return "packed"
    return "simulated" if any(parametrize.is_parametrized(module) for module in modules) else "plain"


def file_size(model: nn.Module, *, entropy: bool = False) -> int:
    """The bytes of the file that `save` writes for a model, parametrizations baked in."""
    from compresslab.core.store import save

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(bake(model), path, entropy=entropy)
        return path.stat().st_size


def format_rows(rows: list[Measurement]) -> str:
    """The rows as a table of plain text; ratios are against the first row.

    Args:
        rows: at least one; the first is the baseline.
    """
    lines = [("", "accuracy", "file", "smaller", "MACs", "latency", "faster", "form")]
    for row in rows:
        latency = "-" if row.latency_ms is None else f"{row.latency_ms:.2f} ms"
        faster = "-" if row.speedup is None else f"{row.speedup:.2f}x"
        lines.append((
            row.name, f"{row.accuracy:.2%}",
            f"{row.file_bytes / 1e3:,.1f} kB", f"{rows[0].file_bytes / row.file_bytes:.1f}x",
            f"{row.macs / 1e6:,.2f} M", latency, faster, row.form,
        ))  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = ["  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in
             enumerate(zip(line, widths, strict=True))) for line in lines]  # fmt: skip
    row = rows[0]
    conditions = f"{row.n:,} images; latency: batch {row.batch}, {row.threads} threads, {row.memory_format}"
    return "\n".join((*table, conditions))
