"""What gives speed where, the six cases and the sparse product, measured on a quiet machine; and a GPU, where there is one.

``python -m compresslab evidence 11`` measures it. Nothing is trained: the table is about time only, what each method
does to the accuracy is the matter of its own chapter.
"""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.compact.separable import separate_conv
from compresslab.core.layers import decompress
from compresslab.core.macs import count_macs
from compresslab.core.modules import bake, map_layers, named_layers
from compresslab.core.timing import Timing, speedup, time_calls, torch_threads
from compresslab.course.chapter11.cases import examine, patients
from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.machine import describe_machine
from compresslab.deploy.sparse_speed import time_sparse
from compresslab.lowrank.decompose import decompose
from compresslab.models import load_baseline
from compresslab.pruning.channels import prune_channels
from compresslab.pruning.magnitude import prune_magnitude
from compresslab.pruning.nm import prune_nm

Row = dict[str, Any]
SHAPE, NETWORKS, BATCHES, REPEATS = (3, 32, 32), ("resnet8", "vgg"), (1, 32), 40


def variants(net: nn.Module, images: Tensor) -> dict[str, nn.Module]:
    """The network under every method of the table, in float32; "int8" is made from two of them."""
    convs = {name: layer for name, layer in named_layers(net).items() if isinstance(layer, nn.Conv2d) and layer.in_channels > 3 and layer.kernel_size == (3, 3)}
    return {
        "dense": net,
        "90 % zeros": bake(decompress(prune_magnitude(net, 0.9))),
        "2:4 zeros": bake(decompress(prune_nm(net, 2, 4))),
        "low rank": decompose(net, {name: max(1, layer.out_channels // 4) for name, layer in convs.items()}),
        "half the channels": prune_channels(net, images[:1], 0.5),
        "compact": map_layers(net, (nn.Conv2d,), lambda name, layer: separate_conv(layer) if name in convs else None),
    }


def speed() -> dict[str, Any]:
    """Every method on two networks, in PyTorch and in ONNX Runtime, at batch 1 and 32: ratio to dense in PyTorch."""
    from compresslab.data import load_data

    digits, rows = load_data("street_digits"), []
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            nets = {method: net.eval() for method, net in variants(load_baseline(name), digits.train.x(slice(256))).items()}
            engines = _engines(nets, Path(folder), digits.train.x(slice(256)))
            for batch in BATCHES:
                rows += _timed_rows(name, nets, engines, digits.test.x(slice(batch)))
    return {"machine": describe_machine(), "threads": 1, "rows": rows}


def _engines(nets: dict[str, nn.Module], folder: Path, images: Tensor) -> dict[str, OnnxModel]:
    from compresslab.deploy.export import export_onnx
    from compresslab.deploy.qdq import export_int8

    path, engines = folder / "network.onnx", {}
    for method, net in nets.items():
        export_onnx(net, path, SHAPE)
        engines[method] = OnnxModel(path.read_bytes(), threads=1)
    for method, base in (("int8", "dense"), ("half the channels, int8", "half the channels")):
        export_int8(nets[base], path, SHAPE, [images])
        engines[method] = OnnxModel(path.read_bytes(), threads=1)
    return engines


def _timed_rows(network: str, nets: dict[str, nn.Module], engines: dict[str, OnnxModel], x: Tensor) -> list[Row]:
    """All of them in the same rounds. PyTorch with the channels last in memory, which is its fastest."""
    last, array = x.contiguous(memory_format=torch.channels_last), x.numpy()
    eager = {method: copy.deepcopy(net).to(memory_format=torch.channels_last) for method, net in nets.items()}
    calls = {("torch", method): partial(net, last) for method, net in eager.items()}
    calls |= {("onnxruntime", method): partial(engine.run_numpy, array) for method, engine in engines.items()}
    with torch_threads(1), torch.inference_mode():
        times = time_calls(calls, repeats=REPEATS, settle=1)
    macs = {method: count_macs(net, SHAPE).total for method, net in nets.items()}
    macs |= {"int8": macs["dense"], "half the channels, int8": macs["half the channels"]}
    return [
        {"network": network, "engine": engine, "method": method, "batch": len(x), "threads": 1, "work": macs["dense"] / macs[method],
         **_row(times["torch", "dense"], times[engine, method]), **_within(times[engine, "dense"], times[engine, method])}
        for engine, method in calls
    ]  # fmt: skip


def _row(slow: Timing, fast: Timing) -> Row:
    gain = speedup(slow, fast)
    return {"median": fast.median, "iqr": fast.iqr, "ratio": gain.ratio, "low": gain.low, "high": gain.high}


def _within(slow: Timing, fast: Timing) -> Row:
    gain = speedup(slow, fast)
    return {"engine_ratio": gain.ratio, "engine_low": gain.low, "engine_high": gain.high}


def six_cases() -> dict[str, Any]:
    """The cases of exercise 11.9 on eight images, with the ridge of this machine."""
    from compresslab.data import load_data
    from compresslab.deploy.roofline import measure_bandwidth, measure_peak

    images = load_data("street_digits").test.x(slice(8))
    ridge = measure_peak("float32", threads=1, repeats=10) / measure_bandwidth(256, threads=1, repeats=10)
    rows = [examine(patient, ridge, repeats=40) for patient in patients(images)]
    return {"machine": describe_machine(), "threads": 1, "rows": rows}


def sparse() -> dict[str, Any]:
    """A 1024 x 1024 product at seven densities, one column and 32."""
    rows = []
    for batch in BATCHES:
        for row in time_sparse(densities=(0.7, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01), batch=batch, repeats=40, threads=1):
            rows.append({"batch": batch, "threads": 1, "density": row.density, "kernel": row.kernel, **_row(row.dense, row.sparse)})
    return {"machine": describe_machine(), "rows": rows}


def gpu() -> dict[str, Any]:
    """The forms of a transformer block on a GPU. Only where there is one: it is no part of ENTRIES."""
    from compresslab.deploy.gpu import as_json, gpu_block_table

    return as_json(gpu_block_table(4096))


ENTRIES = {"speed": speed, "six_cases": six_cases, "sparse": sparse}
TIMED = ("speed", "six_cases", "sparse")
