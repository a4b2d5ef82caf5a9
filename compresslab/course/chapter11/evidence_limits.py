"""What the section on limits shows without measuring it again: predicted and measured gains on a quiet machine.

``python -m compresslab evidence 11`` measures it: the shipped networks, without retraining, since only time is asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compresslab.core.macs import count_macs
from compresslab.core.timing import Timing, speedup, time_calls
from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.machine import describe_machine
from compresslab.deploy.profile import profile_onnx
from compresslab.deploy.roofline import LayerCost, Roofline, layer_costs, measure_bandwidth, measure_peak, predict_milliseconds

Row = dict[str, Any]
NETWORKS, BATCHES, REPEATS = ("resnet8", "vgg"), (1, 32), 60
MULTIPLES = {"resnet8": (1, 4, 8), "mobilenet": (1, 4, 8, 16)}  # the resnet8 in multiples of 16 keeps more than half
SHAPE, VECTOR = (3, 32, 32), 16  # floats in a vector of 512 bits: the engine stores channels in blocks of as many


def roofline() -> dict[str, Any]:
    """The roof of this machine, one thread; predicted and measured gains; the operations of resnet8 one by one."""
    from compresslab.data import load_data

    digits = load_data("street_digits")
    bandwidth = measure_bandwidth(256, threads=1, repeats=10)
    roofs = {bits: Roofline(measure_peak(kind, threads=1, repeats=10), bandwidth) for bits, kind in ((32, "float32"), (8, "int8"))}
    out: dict[str, Any] = {"machine": describe_machine(), "roof": {
        "threads": 1, "float32_peak": roofs[32].peak, "int8_peak": roofs[8].peak, "bandwidth": bandwidth,
        "cache_bandwidth": measure_bandwidth(1, threads=1, repeats=10),
    }, "rows": [], "nodes": []}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            networks, files = _forms(name, Path(folder), digits.train.x(slice(256)))
            for batch in BATCHES:
                x = digits.test.x(slice(batch))
                out["rows"] += _gains(name, networks, files, x, roofs)
                if name == "resnet8":
                    out["nodes"] += _nodes(files, x)
    return out


def _forms(name: str, folder: Path, images: Tensor) -> tuple[dict[str, nn.Module], dict[str, Path]]:
    """The network before and after each change, and the files that run; in blocks only where that makes a difference."""
    from compresslab.deploy.export import export_onnx
    from compresslab.deploy.qdq import export_int8
    from compresslab.models import load_baseline
    from compresslab.pruning import prune_channels

    net = load_baseline(name)
    half = prune_channels(net, images[:1], 0.5)
    blocks = prune_channels(net, images[:1], 0.5, round_to=VECTOR)
    networks = {"float32": net, "int8": net, "half the channels": half, "half, int8": half}
    if count_macs(blocks, SHAPE) != count_macs(half, SHAPE):
        networks[f"half, by {VECTOR}"] = blocks
    files = {form: folder / f"{name}_{index}.onnx" for index, form in enumerate(networks)}
    for form, path in files.items():
        if "int8" in form:
            export_int8(networks[form], path, SHAPE, list(images.split(64)))
        else:
            export_onnx(networks[form], path, SHAPE)
    return networks, files


def _gains(name: str, networks: dict[str, nn.Module], files: dict[str, Path], x: Tensor, roofs: dict[int, Roofline]) -> list[Row]:
    """One row per change at one batch size, and one for float32 itself."""
    engines, array = {form: OnnxModel(path, threads=1) for form, path in files.items()}, x.numpy()
    calls = {form: (lambda engine=engine: engine.run_numpy(array)) for form, engine in engines.items()}
    timings = time_calls(calls, repeats=REPEATS, warmup=5, settle=1)
    ideal = {form: predict_milliseconds(_costs(networks[form], form, len(x)), roofs[8 if "int8" in form else 32]) for form in networks}
    rest = max(0.0, timings["float32"].median - ideal["float32"])
    return [
        {"network": name, "batch": len(x), "threads": 1, "change": form, "ideal_ms": ideal[form], "rest_ms": rest}
        | _measured(timings["float32"], timings[form])
        | {"careful": (ideal["float32"] + rest) / (ideal[form] + rest), "bold": ideal["float32"] / ideal[form]}
        for form in networks
    ]


def _costs(model: nn.Module, form: str, batch: int) -> Sequence[LayerCost]:
    bits = 8 if "int8" in form else 32
    return layer_costs(model, SHAPE, batch=batch, weight_bits=bits, activation_bits=bits)


def _measured(base: Timing, timing: Timing) -> Row:
    """Median, spread, and how many times faster than float32, with its interval."""
    gain = speedup(base, timing)
    return {"median_ms": timing.median, "iqr_ms": timing.iqr, "gain": gain.ratio, "gain_low": gain.low, "gain_high": gain.high}


def _nodes(files: dict[str, Path], x: Tensor) -> list[Row]:
    """The engine's own profile of every file."""
    return [
        {"form": form, "batch": len(x), "operation": row.operation, "name": row.name, "milliseconds": row.milliseconds, "share": row.share}
        for form in files
        for row in profile_onnx(files[form], x, rounds=50, warmup=5)
    ]


def multiples() -> dict[str, Any]:
    """At most half of the MACs, the channels left in multiples of 1, 4, 8, 16: how many times faster than the whole, float32."""
    from compresslab.data import load_data
    from compresslab.deploy.export import export_onnx
    from compresslab.models import load_baseline
    from compresslab.pruning import prune_channels_to_macs

    x, rows = load_data("street_digits").test.x(slice(1)), []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("resnet8", "mobilenet"):
            networks = {0: load_baseline(name)}
            for multiple in MULTIPLES[name]:
                networks[multiple] = prune_channels_to_macs(networks[0], x, 0.5, round_to=multiple)
            files = {multiple: Path(folder) / f"{name}_{multiple}.onnx" for multiple in networks}
            for multiple, path in files.items():
                export_onnx(networks[multiple], path, SHAPE)
            engines = {multiple: OnnxModel(path, threads=1) for multiple, path in files.items()}
            timings = time_calls({multiple: partial(engine.run_numpy, x.numpy()) for multiple, engine in engines.items()}, repeats=REPEATS, warmup=5, settle=1)
            whole = count_macs(networks[0], SHAPE).total
            rows += [
                {"network": name, "multiple": multiple, "macs": count_macs(networks[multiple], SHAPE).total / whole} | _measured(timings[0], timings[multiple])
                for multiple in MULTIPLES[name]
            ]
    return {"machine": describe_machine(), "threads": 1, "rows": rows}


ENTRIES = {"roofline": roofline, "multiples": multiples}
TIMED = ("roofline", "multiples")  # milliseconds: no other machine would give the same
