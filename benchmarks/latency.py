"""Real latency through ONNX Runtime, beside torch eager, torch.compile and ONNX Runtime's own quantize_static.

    python -m benchmarks latency

resnet18 at 224 with random weights (a clock does not see accuracy), and the course's trained networks. "Half" has at
most half the MACs, by channels in multiples of eight, and was trained again for a moment (chapter 11 trains such
networks properly: its record holds the accuracy that they keep). "ours int8" has the course's own calibration;
"quantize_static" is ONNX Runtime's tool on the same calibration images. Eager PyTorch runs in channels_last.
torch.compile needs a C++ compiler and takes its time, so only some networks get it.

Budget: 150 seconds.
"""

from __future__ import annotations

import copy
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import compresslab  # noqa: F401  (makes torchvision importable)

import torchvision
from benchmarks.report import Table, show_ratio, show_time, threads_note, time_within
from compresslab.core import accuracy, count_macs, speedup
from compresslab.core.timing import Timing
from compresslab.core.train import train
from compresslab.data import Data, load_data
from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.export import export_onnx
from compresslab.deploy.qdq import export_int8
from compresslab.models import load_baseline
from compresslab.pruning import prune_channels_to_macs

BUDGET = 150  # seconds
ROUNDS_SECONDS = 7.0  # for each network and batch size
GOAL = 5.0  # times as fast as eager: resnet18, half and int8
EAGER = "torch eager"
CALIBRATION = 256  # images; 8 where they are large
FILES = ("ORT float", "ORT half", "quantize_static", "ours int8", "ours half int8")


class Network(NamedTuple):
    """What is measured on one network: its data (None: random), batch sizes, epochs after pruning, torch.compile."""

    data: str | None
    shape: tuple[int, int, int]
    batches: tuple[int, ...] = (1, 32)
    epochs: int = 1
    compiled: bool = False


NETWORKS = {
    "resnet18": Network(None, (3, 224, 224), (1, 8), compiled=True),
    "resnet8": Network("street_digits", (3, 32, 32), epochs=2, compiled=True),
    "vgg": Network("street_digits", (3, 32, 32)),
    "mobilenet": Network("street_digits", (3, 32, 32)),
    "lenet5": Network("ink_digits", (1, 28, 28)),
}


def run(names: Sequence[str] = tuple(NETWORKS), tested: int = 2000, trained: int = 8000) -> list[Table]:
    """One table per network; accuracy on ``tested`` images, training after pruning on ``trained`` images."""
    logging.getLogger().setLevel(logging.ERROR)  # quantize_static recommends itself a preprocessing
    return [network_table(name, tested, trained) for name in names]


def network_table(name: str, tested: int, trained: int) -> Table:
    """All forms of one network, in turn at each batch size."""
    network = NETWORKS[name]
    data = load_data(network.data, train=trained, test=tested) if network.data else None
    with tempfile.TemporaryDirectory() as folder:
        forms, bytes_of = make_forms(name, network, data, Path(folder))
        cells = {form: [bytes_of.get(form, ""), scored(model, data)] for form, model in forms.items()}
        late = {}
        for batch in network.batches:
            x = images(network, data, batch)
            timings, ratios = timed(forms, x, network.compiled)
            for form in timings:
                late.setdefault(form, []).extend([show_time(timings[form]), show_ratio(ratios[form])])
    columns = ["form", "file bytes", "accuracy"]
    columns += [head for batch in network.batches for head in (f"batch {batch} (ms)", "times as fast as eager")]
    rows = [[form, *cells.get(form, ["", ""]), *shown] for form, shown in late.items()]
    return Table(f"{name}, {'x'.join(map(str, network.shape))}", note_of(name, forms, network, data), columns, rows)


def make_forms(name: str, network: Network, data: Data | None, folder: Path) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The network in all its forms, and the bytes of the files among them."""
    model = load_baseline(name) if data else _random_resnet()
    half = prune_channels_to_macs(model, torch.zeros(1, *network.shape), 0.5, round_to=8)
    if data and network.epochs:
        half = train(half, data.train, epochs=network.epochs, lr=0.02, progress=False)
    calibration = images(network, data, CALIBRATION if data else 8, part="train")
    files = {form: folder / f"{form}.onnx" for form in FILES}
    export_onnx(model, files["ORT float"], network.shape)
    export_onnx(half, files["ORT half"], network.shape)
    quantize_static(files["ORT float"], files["quantize_static"], calibration)
    export_int8(model, files["ours int8"], network.shape, [calibration])
    export_int8(half, files["ours half int8"], network.shape, [calibration])
    forms = {EAGER: model, "torch eager, half": half} | {form: OnnxModel(file) for form, file in files.items()}
    return forms, {form: f"{file.stat().st_size:,}" for form, file in files.items()}


def timed(forms: dict[str, nn.Module], x: Tensor, compiled: bool) -> tuple[dict[str, Timing], dict]:
    """Interleaved times of all forms on one input, and how many times as fast as eager each is."""
    calls = {form: forward(model, x) for form, model in forms.items()}
    if compiled and shutil.which("g++"):
        calls["torch.compile"] = forward(torch.compile(copy.deepcopy(forms[EAGER])), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        timings = time_within(calls, ROUNDS_SECONDS, settle=1)
    return timings, {form: speedup(timings[EAGER], timing) for form, timing in timings.items()}


def forward(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """One run without gradients: of a file in the engine, or of a module in channels_last."""
    if isinstance(model, OnnxModel):
        array = x.numpy()
        return lambda: model.run_numpy(array)
    model, x = model.to(memory_format=torch.channels_last).train(False), x.contiguous(memory_format=torch.channels_last)

    def call() -> None:
        with torch.no_grad():
            model(x)

    return call


def images(network: Network, data: Data | None, count: int, part: str = "test") -> Tensor:
    """The first images of a split, or random ones."""
    if data is None:
        return torch.randn(count, *network.shape, generator=torch.Generator().manual_seed(0))
    return getattr(data, part).x(slice(count))


def scored(model: nn.Module, data: Data | None) -> str:
    """Accuracy on the test images, where there are any."""
    return f"{accuracy(model, data.test):.4f}" if data else ""


def note_of(name: str, forms: dict[str, nn.Module], network: Network, data: Data | None) -> str:
    """What was done, and what could not be."""
    macs = [count_macs(forms[form], network.shape).total / 1e6 for form in (EAGER, "torch eager, half")]
    words = [f"{macs[0]:.1f} million MACs, half: {macs[1]:.1f}.", f"{threads_note()}, ONNX Runtime as many."]
    words.append(f"Accuracy on {len(data.test):,} test images; half: {network.epochs} epoch(s) on {len(data.train):,} images; chapter 11 says what it keeps after proper training."
                 if data else "Random weights.")  # fmt: skip
    if name == "resnet18":
        words.append(f"Goal: ours half int8 at least {GOAL:g} times as fast as eager.")
    if network.compiled and not shutil.which("g++"):
        words.append("No C++ compiler here, so no torch.compile.")
    return " ".join(words)


def quantize_static(source: Path, target: Path, calibration: Tensor) -> None:
    """ONNX Runtime's own static int8: unsigned activations, signed weights per output channel, min-max ranges."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize_file

    class Reader(CalibrationDataReader):
        """Gives the calibration images to the tool, eight at a time."""

        def __init__(self) -> None:
            self.parts = iter(calibration.split(8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {input_name: part.numpy()}

    input_name = OnnxModel(source, threads=1).input_name
    quantize_file(source, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                  activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)  # fmt: skip


def _random_resnet() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.resnet18(weights=None).eval()


if __name__ == "__main__":
    for table in run():
        print(table)
