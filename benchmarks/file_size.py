"""File size against what users would reach for: how many bytes the same network takes, at which accuracy.

    python -m benchmarks file_size [NETWORK ...]

The trained networks of the course are written with torch.save, safetensors, both compressed by a general
program, as ONNX in float and in int8, and in the forms of this package. Forms that give every weight back keep
the accuracy by definition, and it is checked that they do; the others are judged on the same test images as the
network they came from, so that the difference has an interval. "Kept" means that a loss of more than a point is
out of the question (95 %). Deep Compression here trains for seconds; what a long training makes of the same
steps, the record of chapter 07, stands below it.

Budget: 145 seconds.
"""

from __future__ import annotations

import gzip
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.report import Table
from compresslab.core import PairedDifference, UniformCode, correct_answers, encode, load, paired_difference, save
from compresslab.data import Data, Split, load_data
from compresslab.models import baseline_info, load_baseline

BUDGET = 145  # seconds
POINT = 0.01  # accuracy that a form may lose
CALIBRATION = 256  # training images, for the ranges of activations and the moments of GPTQ
TEST_IMAGES = {"lenet300": 10_000, "lenet5": 10_000, "resnet8": 5_000, "vgg": 2_000}

# Deep Compression in seconds: what is asked of the layers, and how long they learn it from the dense network.
RECIPES: dict[str, dict[str, Any]] = {
    "lenet300": {"sparsity": {"fc1": 0.95, "fc2": 0.87, "fc3": 0.5}, "images": 12_000, "prune_epochs": 5, "tune_epochs": 1},
    "lenet5": {
        "sparsity": {"conv1": 0.3, "conv2": 0.7, "fc1": 0.95, "fc2": 0.7},
        "images": 6_000, "prune_epochs": 3, "tune_epochs": 1, "lr": 0.001,
    },
    "resnet8": {"sparsity": 0.6, "images": 4_000, "prune_epochs": 3, "tune_epochs": 1, "skip": ("conv1", "fc")},
    "vgg": {
        "sparsity": 0.6, "images": 2_000, "prune_epochs": 1, "tune_epochs": 1, "lr": 0.0007,
        "skip": ("features.0", "classifier"),
    },
}  # fmt: skip


class Form(NamedTuple):
    """A network in a file: its bytes, the seconds to make it, and what to judge, or the reason why there is none."""

    name: str
    content_bytes: int
    seconds: float
    network: nn.Module | None = None  # None: every weight comes back as it was
    accuracy: float | None = None  # where it was recorded, not measured here
    failure: str = ""


def torch_saved(model: nn.Module) -> bytes:
    """What `torch.save` writes of the weights."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getvalue()


def safetensors_saved(model: nn.Module) -> bytes:
    """The same arrays in the format that holds nothing but arrays."""
    import safetensors.torch

    return safetensors.torch.save(model.state_dict())


def zstandard_of(content: bytes) -> bytes:
    """Compressed by zstd, at the highest of its ordinary levels."""
    import zstandard

    return zstandard.ZstdCompressor(level=19).compress(content)


def lossless_forms(model: nn.Module) -> Iterator[Form]:
    """Files from which every weight comes back; `zstd` is undone again to see that it does."""
    import zstandard

    state, plain = torch_saved(model), safetensors_saved(model)
    packed, seconds = _timed(lambda: zstandard_of(plain))
    if zstandard.ZstdDecompressor().decompress(packed) != plain:
        raise RuntimeError("zstd did not give the file back")
    yield Form("torch.save", len(state), _timed(lambda: torch_saved(model))[1])
    zipped, zip_seconds = _timed(lambda: gzip.compress(state, 9))
    yield Form("torch.save + gzip", len(zipped), zip_seconds)
    yield Form("safetensors", len(plain), _timed(lambda: safetensors_saved(model))[1])
    yield Form("safetensors + zstd", len(packed), seconds)


def onnx_forms(model: nn.Module, calibration: Split, folder: Path) -> Iterator[Form]:
    """ONNX in float; int8 by ONNX Runtime's own tool; int8 by this course's calibration."""
    from compresslab.deploy.engine import OnnxModel
    from compresslab.deploy.export import export_onnx

    plain, theirs, ours = (folder / f"{name}.onnx" for name in ("float", "theirs", "ours"))
    shape = calibration.shape
    writers = {
        "ONNX float32": (plain, lambda: export_onnx(model, plain, shape)),
        "ONNX int8, ONNX Runtime's quantize_static": (theirs, lambda: quantize_static(plain, theirs, calibration)),
        "ONNX int8, ours": (ours, lambda: our_int8(model, ours, calibration)),
    }
    for name, (path, write) in writers.items():
        try:
            seconds = _timed(write)[1]
        except (ImportError, ValueError, RuntimeError) as error:
            yield Form(name, 0, 0.0, failure=f"{type(error).__name__}: {error}"[:100])
        else:
            yield Form(name, path.stat().st_size, seconds, OnnxModel(path))


def our_int8(model: nn.Module, target: Path, calibration: Split) -> None:
    """Int8 with the scales of the course's own calibration."""
    from compresslab.deploy.qdq import export_int8

    export_int8(model, target, calibration.shape, [calibration.x()])


def quantize_static(source: Path, target: Path, calibration: Split) -> None:
    """The peer's static quantization: int8 weights per channel, uint8 activations, its own ranges."""
    import logging

    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    name = InferenceSession(source, providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        """The calibration images, 32 at a time."""

        def __init__(self) -> None:
            self.parts = iter(calibration.x().split(32))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.parts, None)
            return None if part is None else {name: part.numpy()}

    logging.getLogger().setLevel(logging.ERROR)  # it advises to run another of its tools first
    quantize_static(
        source, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def our_forms(model: nn.Module, calibration: Split, train: Split, recipe: dict[str, Any], folder: Path) -> Iterator[Form]:
    """Files of this package: 8 bits rounded to the nearest, 4 bits by GPTQ, and Deep Compression."""
    from compresslab.quantization import encode_gptq

    makers: dict[str, Callable[[], nn.Module]] = {
        "compresslab, 8 bits": lambda: encode(model, partial(UniformCode.from_dense, bits=8, axis=0)),
        "compresslab, 4 bits (GPTQ)": lambda: encode_gptq(model, [calibration.x()], bits=4),
        "compresslab, Deep Compression": lambda: deep_compression(model, train, **recipe),
    }
    path = folder / "network.safetensors"
    for name, make in makers.items():
        coded, seconds = _timed(make)
        size = save(coded, path, entropy=True)
        yield Form(name, size, seconds, load(path, model))


def deep_compression(model: nn.Module, train: Split, *, images: int, **recipe: Any) -> nn.Module:
    """Pruned while it trains, shared, tuned, coded: the steps of Han et al., taught by the dense network."""
    from compresslab.distillation import teacher_outputs
    from compresslab.hybrid import deep_compression_steps

    few = train.take(images)
    for step in deep_compression_steps(few, teacher=teacher_outputs(model, few), **recipe):
        model = step(model)
    return model


def recorded(network: str) -> Iterator[Form]:
    """The row of chapter 07's record for this network, trained for minutes and judged on 50,000 fresh images."""
    from compresslab.course.evidence import load_evidence

    for row in load_evidence("07").get(f"{network} 0", ()):
        if row["stage"] == "coded":
            yield Form("... trained longer (record of chapter 07)", row["file_bytes"], 0.0, accuracy=row["accuracy"])


def run(networks: Sequence[str] = ()) -> list[Table]:
    """One table per network."""
    return [measure(name) for name in networks or RECIPES]


def measure(network: str) -> Table:
    """All forms of one trained network."""
    model = load_baseline(network)
    data: Data = load_data(baseline_info(network)["dataset"], test=TEST_IMAGES[network])
    calibration = data.train.take(CALIBRATION)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters, about themselves
        forms = [
            *lossless_forms(model),
            *onnx_forms(model, calibration, Path(folder)),
            *our_forms(model, calibration, data.train, RECIPES[network], Path(folder)),
            *recorded(network),
        ]
        return table(network, forms, correct_answers(model, data.test), data.test)


def table(network: str, forms: Sequence[Form], dense: Tensor, test: Split) -> Table:
    """The forms of a network, each beside `torch.save`.

    Args:
        network: its name.
        forms: the first is what the others are compared with.
        dense: which of the test images the network had right, bool, (N,).
        test: the images, for forms that are judged.
    """
    rows = [row(form, forms[0].content_bytes, dense, test) for form in forms]
    note = (
        f"{len(dense):,} test images; times smaller than torch.save; the limit of what keeps every weight is float32, "
        "4 bytes a weight. Seconds: to make the file, training included."
    )
    columns = ["form", "bytes", "times smaller", "accuracy", "loss in points [95 %]", "kept", "seconds"]
    return Table(f"{network}: bytes of a file", note, columns, rows)


def row(form: Form, reference: int, dense: Tensor, test: Split) -> list[str]:
    """The cells of one form."""
    if form.failure:
        return [form.name, "", "", "", "", form.failure, ""]
    size = [form.name, f"{form.content_bytes:,}", f"{reference / form.content_bytes:.2f}"]
    if form.accuracy is not None:
        return [*size, f"{form.accuracy:.4f}", "", "recorded", ""]
    correct = dense if form.network is None else correct_answers(form.network, test)
    loss = paired_difference(dense, correct)
    interval = f"{100 * loss.difference:+.2f} [{100 * loss.low:+.2f}, {100 * loss.high:+.2f}]"
    return [*size, f"{correct.double().mean():.4f}", interval, kept(loss), f"{form.seconds:.1f}"]


def kept(loss: PairedDifference) -> str:
    """Whether the accuracy was kept to a point: "yes" or "no" where the interval says so, else "open"."""
    if loss.high < POINT:
        return "yes"
    return "no" if loss.low > POINT else "open"


def _timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the seconds that it took."""
    start = time.perf_counter()
    result = make()
    return result, time.perf_counter() - start
