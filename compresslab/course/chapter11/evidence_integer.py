"""What the section on int8 shows without measuring it again: five networks in five forms on a quiet machine.

``python -m compresslab evidence 11`` measures it. The shipped networks lose half of their channels (the resnet8 and the
mobilenet, which are narrow already, at least half of their MACs, in multiples of 8 and 16 channels: what is left of a
vector costs as much as a whole one), are trained again under the network they came from, and go into the engine as
floats and as integers. The resnet18 of 224 pixels has random weights: only its time is asked.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.core import accuracy, correct_answers, count_macs, paired_difference, speedup, time_calls
from compresslab.core.timing import Timing, torch_threads
from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.export import agreement, export_onnx
from compresslab.deploy.machine import describe_machine
from compresslab.deploy.qdq import export_int8
from compresslab.pruning import prune_channels, prune_channels_to_macs

Row = dict[str, Any]
THREADS, REPEATS, CALIBRATION = 2, 40, 512
HALF, WIDE = "half of the channels", "half of the MACs, channels in multiples of {}"
NETWORKS = {  # data, how much is pruned, in multiples of how many channels, epochs of training afterwards
    "lenet5": ("ink_digits", HALF, 1, 4),
    "resnet8": ("street_digits", WIDE, 8, 16),
    "mobilenet": ("street_digits", WIDE, 16, 5),
    "vgg": ("street_digits", HALF, 1, 4),
}


def measure_network(name: str) -> dict[str, Any]:
    """Accuracy, bytes and time of one shipped network in all its forms."""
    from compresslab.data import load_data
    from compresslab.models import load_baseline

    dataset, pruning, multiple, epochs = NETWORKS[name]
    digits, net = load_data(dataset), load_baseline(name)
    small = retrain(net, cut(net, digits.train.x(slice(1)), pruning, multiple), digits.train, epochs)
    shape = tuple(digits.train.shape)
    calibration = list(digits.train.x(slice(CALIBRATION)).split(64))
    with tempfile.TemporaryDirectory() as folder:
        engines = make_engines({"": net, "pruned": small}, Path(folder), shape, calibration)
        right = correct_answers(net, digits.test)
        rows = []
        for form, engine in engines.items():
            lost = paired_difference(right, correct_answers(engine, digits.test))
            rows.append({
                "form": form, "bytes": engine.path_bytes, "accuracy": accuracy(engine, digits.test), "n": len(digits.test),
                "lost": lost.difference, "lost_low": lost.low, "lost_high": lost.high,
                "macs": count_macs(small if "pruned" in form else net, shape).total,
            })  # fmt: skip
        far = agreement(net, engines["float32"], digits.test.take(1000))
        times = [row for batch in (1, 32) for row in time_forms(name, net, engines, digits.test.x(slice(batch)))]
    eager = {"accuracy": accuracy(net, digits.test), "macs": count_macs(net, shape).total}
    return {"machine": describe_machine(), "network": name, "pruning": pruning.format(multiple), "eager": eager, "forms": rows, "times": times,
            "float32_difference": far.largest}  # fmt: skip


def measure_resnet18() -> dict[str, Any]:
    """Time alone: the resnet18 of torchvision with random weights, 224 pixels."""
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.resnet18(weights=None).eval()
    shape, generator = (3, 224, 224), torch.Generator().manual_seed(0)
    images = torch.randn(8, *shape, generator=generator)
    half = prune_channels(net, images[:1], 0.5)
    with tempfile.TemporaryDirectory() as folder:
        engines = make_engines({"": net, "pruned": half}, Path(folder), shape, list(images.split(4)))
        times = [row for batch in (1, 8) for row in time_forms("resnet18", net, engines, images[:batch], repeats=30)]
        forms = [{"form": form, "bytes": engine.path_bytes, "macs": count_macs(half if "pruned" in form else net, shape).total} for form, engine in engines.items()]
    return {"machine": describe_machine(), "network": "resnet18", "pruning": HALF, "forms": forms, "times": times}


def cut(net: nn.Module, x: Tensor, pruning: str, multiple: int) -> nn.Module:
    """Half of the channels, or channels until at most half of the MACs are left."""
    return prune_channels(net, x, 0.5) if pruning == HALF else prune_channels_to_macs(net, x, 0.5, round_to=multiple)


def retrain(teacher: nn.Module, small: nn.Module, split: Any, epochs: int) -> nn.Module:
    """Some epochs under the network it came from."""
    from compresslab.distillation import Labels, SoftTargets, distill

    return distill(small, teacher, split, [(0.1, Labels()), (0.9, SoftTargets(4.0))], epochs=epochs, lr=0.004, progress=False)


def make_engines(nets: dict[str, nn.Module], folder: Path, shape: tuple[int, ...], calibration: list[Tensor]) -> dict[str, OnnxModel]:
    """Every network as floats and as integers: "float32", "int8", "pruned", "pruned, int8"."""
    engines = {}
    for prefix, net in nets.items():
        for kind in ("float32", "int8"):
            form = kind if not prefix else prefix if kind == "float32" else f"{prefix}, int8"
            path = folder / f"{form}.onnx"
            if kind == "int8":
                export_int8(net, path, shape, calibration)
            else:
                export_onnx(net, path, shape)
            engines[form] = OnnxModel(path, threads=THREADS)
    return engines


@torch.no_grad()
def time_forms(name: str, net: nn.Module, engines: dict[str, OnnxModel], x: Tensor, repeats: int = REPEATS) -> list[Row]:
    """Eager PyTorch and the engine, all in turn."""
    array = x.numpy()
    last = net.to(memory_format=torch.channels_last)
    image = x.contiguous(memory_format=torch.channels_last)
    calls = {"eager": lambda: last(image)}
    calls |= {form: functools.partial(engine.run_numpy, array) for form, engine in engines.items()}
    with torch_threads(THREADS):
        timings = time_calls(calls, repeats=repeats, warmup=5, settle=1)
    return [{"network": name, "batch": len(x), "threads": THREADS, "form": form} | _summary(timings["eager"], timing) for form, timing in timings.items()]


def _summary(base: Timing, timing: Timing) -> Row:
    gain = speedup(base, timing)
    return {"median_ms": timing.median, "iqr_ms": timing.iqr, "gain": gain.ratio, "gain_low": gain.low, "gain_high": gain.high}


def faithful(name: str) -> Row:
    """What the engine computes beside what it should: the float network, and the integers of chapter 02, on 1,000 images."""
    from compresslab.data import load_data
    from compresslab.models import load_baseline

    digits, net = load_data(NETWORKS[name][0]), load_baseline(name)
    shape, images = tuple(digits.train.shape), digits.test.x(slice(1000))
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(net, f"{folder}/float.onnx", shape)
        integers = export_int8(net, f"{folder}/int8.onnx", shape, list(digits.train.x(slice(CALIBRATION)).split(64)))
        far = agreement(net, OnnxModel(f"{folder}/float.onnx", threads=1), images)
        step = integers.grids[integers.plan[-1][0]].scale.item()
        apart = (integers(images) - OnnxModel(f"{folder}/int8.onnx", threads=1)(images)).abs() / step
    return {"network": name, "n": len(images), "float_difference": far.largest, "steps": apart.max().item(), "other": (apart > 0.5).float().mean().item()}


ENTRIES = {f"int8 {name}": functools.partial(measure_network, name) for name in NETWORKS} | {"int8 resnet18": measure_resnet18}
TIMED = tuple(ENTRIES)
ENTRIES |= {f"faithful {name}": functools.partial(faithful, name) for name in NETWORKS}
