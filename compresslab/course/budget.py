"""The open task of a chapter: a file that keeps a budget, judged where nothing can hide.

The learner's answer is the path of a file written by `compresslab.core.store.save`. A fresh process builds
the network from its specification (the one in the file, or the task's), fills every weight with NaN, loads
the file into it, counts every byte of the file and the multiply-accumulates, and measures the accuracy on
freshly drawn images. Their seed follows from the file's content: the same file gets the same verdict, and no
notebook can tune on these images. A language model is measured in bits per character, on the test text: that
one cannot be drawn anew; which windows of it are read follows from the file's content.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from compresslab.course import progress
from compresslab.course.trial import Trial, Wrong

Limit = Literal["file", "bytes", "parameters", "ram", "macs", "accuracy", "bits"]
ORDERS = 100  # how many ways the search for an order of operations keeps, where the memory is limited
SECONDS = 180
TEXT = "python_reference"  # the data set of the language models


@dataclass(frozen=True)
class Report:
    """What a file is. `problem` is set if it could not be loaded; then nothing was measured but its bytes.

    A file that is too large is not run: `images` is 0.
    """

    bytes: int
    macs: int = 0
    accuracy: float = 0.0
    images: int = 0
    problem: str = ""
    loss: float = 0.0  # against the baseline on the same images, where the task names one
    loss_low: float = 0.0  # the lower end of its 95 % interval
    parameters: int = 0  # of the network that runs: a coded weight counts with all its numbers
    bits: float = 0.0  # per character, of a language model; then `images` are windows of text, `loss` is the fraction more
    ram: int = 0  # bytes of activations at the peak of the best order, where the task limits them


_known: dict[tuple[str, str], Report] = {}


@dataclass(frozen=True)
class BudgetTask:
    """A budget: every limit that is not None must be kept.

    Args:
        dataset: "ink_digits", "street_digits", or "python_reference" for a language model.
        input_shape: of one image, (C, H, W); of a text, (tokens,).
        max_bytes: of the whole file, its metadata included. max_parameters: of the decoded network.
        max_macs: per image.
        max_ram: bytes of the activations that live at once while one image runs, at 8 bits each, in the best order
            of the operations that is found (see `deploy.schedule`).
        min_accuracy: fraction, on `images` fresh images.
        max_loss: fraction lost against the shipped network `baseline` on the same images. Broken only if the 95 %
            interval of the paired difference lies above it: where so many images cannot tell, the file has it.
        max_more_bits: of a language model, fraction more bits per character than `baseline` on `images` windows of
            the test text; broken in the same way.
        spec: the network (see `models.from_spec`) of files that do not name one.
    """

    writer: ClassVar[str] = "save"  # the function that writes such files

    dataset: str
    input_shape: tuple[int, ...]
    max_bytes: int | None = None
    max_parameters: int | None = None
    max_macs: int | None = None
    max_ram: int | None = None
    min_accuracy: float | None = None
    max_loss: float | None = None
    max_more_bits: float | None = None
    baseline: str | None = None
    spec: dict[str, Any] | None = field(default=None, hash=False)
    images: int = 2000

    def report(self, path: str | Path) -> Report:
        """Measure a file in a fresh process; a file that was measured before is not measured again."""
        content = Path(path).read_bytes()
        request = {**asdict(self), "path": str(Path(path).resolve()), "seed": hidden_seed(content)}
        key = (hashlib.sha256(content).hexdigest(), json.dumps(asdict(self), sort_keys=True))
        if key not in _known:
            _known[key] = _measure_elsewhere(request, len(content))
        return _known[key]

    def broken(self, report: Report) -> dict[Limit, str]:
        """{limit: one sentence} for every limit that the file breaks, the gravest first."""
        if report.problem:
            return {"file": report.problem}
        found: dict[Limit, str] = {}
        if self.max_bytes is not None and report.bytes > self.max_bytes:
            found["bytes"] = f"the file takes {report.bytes:,} bytes, {self.max_bytes:,} are allowed"
        if self.max_parameters is not None and report.parameters > self.max_parameters:
            found["parameters"] = (
                f"the network has {report.parameters:,} parameters, {self.max_parameters:,} are allowed"
            )
        if self.max_ram is not None and report.ram > self.max_ram:
            found["ram"] = (
                f"the activations take {report.ram:,} bytes of RAM at their peak, {self.max_ram:,} are allowed"
            )
        if self.max_macs is not None and report.macs > self.max_macs:
            found["macs"] = f"the network needs {report.macs:,} MACs per {self.unit}, {self.max_macs:,} are allowed"
        if not report.images:
            return found
        if self.min_accuracy is not None and not report.accuracy >= self.min_accuracy:
            found["accuracy"] = (
                f"the accuracy is {report.accuracy:.2%} on {report.images:,} fresh images, "
                f"{self.min_accuracy:.2%} are asked for"
            )
        if self.max_loss is not None and not report.loss_low <= self.max_loss:
            found["accuracy"] = (
                f"the network has {report.accuracy:.2%} of {report.images:,} fresh images right and lost "
                f"{100 * report.loss:.2f} points, at least {100 * report.loss_low:.2f} with 95 % confidence; "
                f"{100 * self.max_loss:g} are allowed"
            )
        if self.max_more_bits is not None and not report.loss_low <= self.max_more_bits:
            found["bits"] = (
                f"the model needs {report.bits:.3f} bits per character, {report.loss:.2%} more than {self.baseline!r}, at least "
                f"{report.loss_low:.2%} with 95 % confidence; {self.max_more_bits:.2%} more are allowed"
            )
        return found

    @property
    def unit(self) -> str:
        """What one input is called."""
        return "window of text" if self.dataset == TEXT else "image"

    def verify(self, t: Trial) -> str:
        """The `verify` of the exercise: t.value is the file's path."""
        if not isinstance(t.value, str | Path) or not str(t.value):
            raise Wrong(f"give the path of the file that `{self.writer}` wrote")
        if not Path(t.value).is_file():
            raise Wrong(f"there is no file {Path(t.value).name!r} at this path")
        report = self.report(t.value)
        if broken := self.broken(report):
            raise Wrong("; ".join(broken.values()))
        return self.summary(report)

    def summary(self, report: Report) -> str:
        """What a file that keeps the budget is."""
        size = f"{report.bytes:,} bytes, {report.parameters:,} parameters, {report.macs:,} MACs per {self.unit}, "
        if self.max_ram is not None:
            size += f"{report.ram:,} bytes of RAM for activations, "
        if self.dataset == TEXT:
            more = "" if self.baseline is None else f", {report.loss:+.2%} more than {self.baseline!r}"
            return size + f"{report.bits:.3f} bits per character{more}"
        lost = f", {100 * report.loss:.2f} points lost" if self.max_loss is not None else ""
        return size + f"{report.accuracy:.2%} on {report.images:,} fresh images" + lost

    def breaks(self, limit: Limit, low: float = -math.inf, high: float = math.inf) -> Callable[[Any], bool]:
        """A `when` for known mistakes: recognises files whose first broken limit is this one.

        Args:
            limit: which.
            low, high: only files whose own number there is at least `low` and below `high` (not for "file").
        """

        def when(path: Any) -> bool:
            report = self.report(path)
            if next(iter(self.broken(report)), None) != limit:
                return False
            return limit == "file" or low <= getattr(report, limit) < high

        return when


def hidden_seed(content: bytes) -> int:
    """The seed of the images on which a file is judged."""
    return int.from_bytes(hashlib.sha256(b"judged on images nobody has seen" + content).digest()[:4], "big")


def submission_path(id: str) -> Path:
    """Where a learner saves the answer to a budget task; the folder is made."""
    path = progress.home() / "files" / f"{id.replace('.', '-')}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def saved_beside(id: str, model: Any, name: str, *, entropy: bool = False) -> str:
    """The path of a network saved beside the learner's own answer: a reference, or what a known mistake leaves."""
    from compresslab.core import save

    path = submission_path(id)
    path = path.with_name(f"{path.stem}-{name}.safetensors")
    save(model, path, entropy=entropy)
    return str(path)


def pickled_beside(id: str) -> str:
    """The path of a small network as `torch.save` writes it, a known mistake of every budget task."""
    import torch

    path = submission_path(id)
    path = path.with_name(f"{path.stem}-pickle.pt")
    torch.save(torch.nn.Linear(4, 2).state_dict(), path)
    return str(path)


def _measure_elsewhere(request: dict[str, Any], size: int) -> Report:
    command = [sys.executable, "-m", "compresslab.course.budget"]
    try:
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return Report(size, problem=f"judging the file took more than {SECONDS} s")
    if done.returncode:
        return Report(
            size,
            problem="the file cannot be judged: "
            + (done.stderr.strip().splitlines() or ["no reason given"])[-1],
        )
    return Report(**json.loads(done.stdout.splitlines()[-1]))


# -- in the fresh process --------------------------------------------------------------------------------


def measure_file(request: dict[str, Any]) -> Report:
    """Build, fill with NaN, load, count: runs in the fresh process."""
    if "pooling" in request:  # a classical model: see budget_arrays
        from compresslab.course.budget_arrays import measure_arrays

        return measure_arrays(request)
    import torch

    from compresslab.core.layers import decompress
    from compresslab.core.macs import count_macs
    from compresslab.core.store import load

    path = Path(request["path"])
    size = path.stat().st_size
    try:
        spec = file_spec(path) or request["spec"]
        if spec is None:
            return Report(size, problem="the file does not say which network it holds")
        model = load(path, nan_skeleton(spec)).eval()
        if missing := unfilled(model):
            return Report(size, problem=f"the file does not hold all weights: {missing} is not filled")
        is_text, shape = request["dataset"] == TEXT, tuple(request["input_shape"])
        macs = count_macs(model, torch.zeros(1, *shape, dtype=torch.int64) if is_text else shape).total
        parameters = sum(p.numel() for p in decompress(model).parameters())
        ram = 0 if request.get("max_ram") is None else least_ram(model, shape)
    except Exception as error:
        return Report(size, problem=f"the file cannot be loaded: {error}")
    counted = {"max_bytes": size, "max_parameters": parameters, "max_ram": ram, "max_macs": macs}
    report = Report(size, macs, parameters=parameters, ram=ram)
    if any(request.get(limit) is not None and number > request[limit] for limit, number in counted.items()):
        return report  # too large, however good
    return (_judge_text if is_text else _judge_images)(model, request, report)


def least_ram(model: Any, shape: tuple[int, ...]) -> int:
    """The peak of a network's activations at 8 bits, in bytes: in its own order, or in a better one if one is found."""
    from compresslab.deploy.schedule import best_order, graph_of, peak_bytes

    graph = graph_of(model, shape)
    return min(peak_bytes(graph), peak_bytes(graph, best_order(graph, width=ORDERS)))


def _judge_images(model: Any, request: dict[str, Any], report: Report) -> Report:
    """The report with the accuracy on fresh images, and what is lost against a baseline if one is named."""
    from compresslab.core.statistics import paired_difference
    from compresslab.core.train import correct_answers
    from compresslab.data import fresh_data
    from compresslab.models import load_baseline

    data = fresh_data(request["dataset"], request["images"], seed=request["seed"])
    correct = correct_answers(model, data)
    report = replace(report, accuracy=correct.double().mean().item(), images=request["images"])
    if request["baseline"] is None:
        return report
    lost = paired_difference(correct_answers(load_baseline(request["baseline"]), data), correct)
    return replace(report, loss=lost.difference, loss_low=lost.low)


def _judge_text(model: Any, request: dict[str, Any], report: Report) -> Report:
    """The report with bits per character on the test text, and how many more than a baseline's if one is named."""
    from compresslab.core.macs import plain
    from compresslab.models import load_baseline
    from compresslab.sequence.language import relative_bits, window_bits
    from compresslab.sequence.text import load_text

    test = load_text(*request["input_shape"]).test
    split = test.drawn(min(request["images"], len(test)), seed=request["seed"])
    bits = window_bits(plain(model), split)
    if not bits.isfinite().all():
        return replace(report, problem="the model gives probabilities that are no numbers, or 0 to what came next")
    report = replace(report, bits=bits.mean().item(), images=len(split))
    if request["baseline"] is None:
        return report
    more, low, _ = relative_bits(window_bits(load_baseline(request["baseline"]), split), bits)
    return replace(report, loss=more, loss_low=low)


def nan_skeleton(spec: dict[str, Any]) -> Any:
    """The network with NaN in every weight and running statistic, so that only the file can fill it."""
    import torch

    from compresslab.models import from_spec

    model = from_spec(spec)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)
    return model


def unfilled(model: Any) -> str:
    """The name of a tensor that still holds NaN, or an empty text."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            return name
    return ""


def file_spec(path: Path) -> dict[str, Any] | None:
    """The network's specification in the file's metadata, if it has one."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    for text in metadata.values():
        try:
            data = json.loads(text)
        except ValueError:
            continue
        if isinstance(data, dict) and data.get("spec"):
            return data["spec"]
    return None


if __name__ == "__main__":
    print(json.dumps(asdict(measure_file(json.load(sys.stdin)))))
