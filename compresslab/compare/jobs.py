"""One job of the comparison: compress one network by one method at one setting with one seed, and measure it.

What is measured is the file. The compressed network is saved, entropy-coded, and read back, and everything
in the row but the seconds is measured on what came back: a code that loses something on its way to the disk
cannot look better than it is. All rows of a network are judged on the same test images against the same dense
original, so that any two of them can be compared image by image (`results.unpack_correct`).

    ratio              bytes of the dense file / bytes of this file                      > 1 is smaller
    flips              images whose answer is not the original's / n
    kl                 mean over the images of KL(original || compressed), in nats
    worst_class_change min over the classes of (hits of compressed - hits of original) / images of the class

Jobs share nothing but the shipped baselines, so they run in any order, in any process, on any machine.
"""

from __future__ import annotations

import copy
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import torch
from torch import Tensor, nn

from compresslab import __version__
from compresslab.compare import beyond
from compresslab.compare.results import pack_correct
from compresslab.core.errors import check_int
from compresslab.core.macs import count_macs, plain
from compresslab.core.measure import NOT_WEIGHTS, file_size, form_of
from compresslab.core.modules import bake
from compresslab.core.progress import SILENCING_VARIABLES
from compresslab.core.size import storage_report
from compresslab.core.store import load, save
from compresslab.core.timing import torch_threads
from compresslab.core.train import predict_logits
from compresslab.data import Data, load_data
from compresslab.models import baseline_info, load_baseline

if TYPE_CHECKING:
    from compresslab.compare.methods import Method

DENSE, DENSE_SETTING = "dense", "float32"
BINS = 15  # of the calibration error
CORRUPTED_IMAGES = 1_000  # the first test images; every kind of corruption is another run over them

Methods = Mapping[str, "Method"]
LoadNetwork = Callable[[], tuple[nn.Module, Data]]
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is to be compressed and how: names as they stand in the rows, and the seed, 0 or more.

    Raises:
        ValueError: a name that is empty, "." or "..", or a negative seed.
    Example:
        >>> Job("resnet8", "prune-magnitude", "0.9", 0).key
        'resnet8/prune-magnitude/0.9/0'
        >>> Job("lenet5", "order", "prune > quantize", 2).key
        'lenet5/order/prune%20%3E%20quantize/2'
    """

    network: str
    method: str
    setting: str
    seed: int

    def __post_init__(self) -> None:
        for field in ("network", "method", "setting"):
            value = getattr(self, field)
            if not isinstance(value, str) or value in ("", ".", ".."):
                raise ValueError(f"{field} of a job must be a name, got {value!r}")
        check_int("seed", self.seed, 0)

    @property
    def key(self) -> str:
        """The job's one name, also the path of its file; signs that a path cannot hold are %-quoted."""
        parts = (self.network, self.method, self.setting, str(self.seed))
        return "/".join(quote(part, safe="") for part in parts)

    def file_in(self, folder: Path) -> Path:
        """Where the compressed network is stored below the folder of a comparison."""
        return folder / "files" / f"{self.key}.safetensors"


def plan(networks: Iterable[str], methods: Methods, seeds: int | Iterable[int]) -> list[Job]:
    """All jobs of a comparison, in the order in which they should run.

    Seeds are outermost: a run that is stopped has every method once before it has any method twice. The dense
    originals come first of all, once each: no seed changes them.

    Args:
        networks: names of networks.
        methods: methods by name; each brings its settings, and says by `suits` which networks it is for.
        seeds: how many, from 0 on, or which.
    Returns:
        the jobs, no two alike.
    Raises:
        ValueError: a name or a setting that comes twice, no seeds, or a negative seed.
    """
    networks = list(networks)
    seeds = list(range(check_int("seeds", seeds, 1))) if isinstance(seeds, int) else list(seeds)
    if not seeds:
        raise ValueError("a comparison needs at least one seed, got none")
    jobs = [Job(network, DENSE, DENSE_SETTING, seeds[0]) for network in networks]
    for seed in seeds:
        for network in networks:
            for name, method in methods.items():
                if name != DENSE and method.suits(network):
                    jobs += [Job(network, name, setting, seed) for setting in method.settings]
    twice = sorted({job.key for job in jobs if jobs.count(job) > 1}) if len(set(jobs)) < len(jobs) else []
    if twice:
        raise ValueError(f"the job {twice[0]!r} is planned twice: name every network, setting and seed once")
    return jobs


@dataclass(frozen=True)
class Original:
    """A dense network, and what every row of it is compared with: its logits (n, classes), its file's bytes."""

    model: nn.Module
    data: Data
    logits: Tensor
    file_bytes: int


def run_job(
    job: Job,
    folder: str | os.PathLike[str],
    *,
    methods: Methods | None = None,
    networks: Mapping[str, LoadNetwork] | None = None,
    threads: int | None = None,
) -> Row:
    """Compress, save, load and measure.

    Args:
        job: what to do.
        folder: of the comparison; the file goes to `job.file_in(folder)`.
        methods: methods by name; None are those of `compare.methods`.
        networks: functions by name, each giving (trained network, data); None are the shipped baselines.
        threads: of torch while the job runs; None leaves the number as it is.
    Returns:
        the row: numbers, text and short lists, ready for JSON; latencies are None until `time_results` adds them.
    Raises:
        ValueError: an unknown network or method; and whatever the method raises.
    """
    with torch_threads(threads), _quiet():
        original = load_original(job.network, networks)
        family, compress = _method(job, methods)
        with torch.random.fork_rng(devices=[]):  # a method that draws from torch itself repeats it, too
            torch.manual_seed(job.seed)
            start = time.perf_counter()
            model = copy.deepcopy(original.model)
            model = compress(job.network, model, data=original.data, setting=job.setting, seed=job.seed)
            seconds = time.perf_counter() - start
        path = job.file_in(Path(folder))
        path.parent.mkdir(parents=True, exist_ok=True)
        save(bake(model), path, entropy=True)
        about = {"key": job.key, "network": job.network, "family": family, "method": job.method,
                 "setting": job.setting, "seed": job.seed}  # fmt: skip
        row = about | measure_file(path, original) | {"form": form_of(model), "seconds": round(seconds, 2)}
        return row | _circumstances(job)


def load_original(network: str, networks: Mapping[str, LoadNetwork] | None = None) -> Original:
    """The dense network of a name, its data, and its answers; the last two asked for are kept.

    Raises:
        ValueError: the network is not known.
    """
    if networks is None:
        return _original(network, None)
    if network not in networks:
        raise ValueError(f"there is no network {network!r}; choose one of {', '.join(networks)}")
    return _original(network, networks[network])


@lru_cache(maxsize=2)
def _original(network: str, make: LoadNetwork | None) -> Original:
    if make is None:
        model, data = load_baseline(network), load_data(baseline_info(network)["dataset"])
    else:
        model, data = make()
    return Original(model, data, predict_logits(model, data.test), file_size(model, entropy=True))


def _method(job: Job, methods: Methods | None) -> tuple[str, Callable[..., nn.Module]]:
    """The family of the job's method and the function that compresses."""
    if job.method == DENSE:
        return DENSE, lambda network, model, **_: model
    if methods is None:
        from compresslab.compare.methods import METHODS as methods
    if job.method not in methods:
        raise ValueError(f"there is no method {job.method!r}; choose one of {', '.join([DENSE, *methods])}")
    method = methods[job.method]
    if job.setting not in method.settings:
        allowed = ", ".join(method.settings)
        raise ValueError(f"{job.method} has no setting {job.setting!r}; choose one of {allowed}")
    return method.family, method.run


def measure_file(path: Path, original: Original) -> Row:
    """Everything that the row says about a stored network, measured on what the file gives back.

    Args:
        path: a file that `save` wrote.
        original: the dense network it was made from; its test images are the judges.
    Returns:
        sizes in bytes or bits as named, accuracies and rates as fractions, hits per class as lists.
        `parameters` counts those of the network that runs, decompressed; `nonzeros` those of them that are
        not 0, which is what papers on pruning count.
    """
    coded = load(path)
    dense, test, size = plain(coded), original.data.test, path.stat().st_size
    stored = storage_report(coded).by_role.items()
    values = [parameter.detach() for parameter in dense.parameters()]
    return {
        **_answers(predict_logits(dense, test), original.logits, test.y, original.data.num_classes),
        "corrupted_accuracy": round(_corrupted(dense, original.data), 6),
        "file_bytes": size,
        "ratio": round(original.file_bytes / size, 5),
        "weight_bits": sum(bits for role, bits in stored if role not in NOT_WEIGHTS),
        "macs": count_macs(dense, test.shape).total,
        "parameters": sum(value.numel() for value in values),
        "nonzeros": sum(int(value.count_nonzero()) for value in values),
    }


def _answers(logits: Tensor, before: Tensor, labels: Tensor, classes: int) -> Row:
    """What a network answers on the test images, and how that differs from what the original answered."""
    answers, originally = logits.argmax(1), before.argmax(1)
    images, hits, hits_before = (
        torch.bincount(labels[chosen], minlength=classes)
        for chosen in (slice(None), answers == labels, originally == labels)
    )
    change = (hits - hits_before)[images > 0] / images[images > 0]
    ece = beyond.calibration_error(logits.softmax(1), labels, bins=BINS)
    return {
        "accuracy": int(hits.sum()) / len(labels),
        "n": len(labels),
        "correct": hits.tolist(),
        "class_images": images.tolist(),
        "answers": pack_correct(answers == labels),
        "flips": round(beyond.flips(originally, answers), 6),
        "kl": float(f"{beyond.kl_to_original(before, logits):.6g}"),
        "worst_class_change": round(change.min().item(), 6),
        "ece": round(float(ece), 6),
    }


def _corrupted(model: nn.Module, data: Data) -> float:
    return beyond.corrupted_accuracy(model, data.test.take(min(CORRUPTED_IMAGES, len(data.test))))


def _circumstances(job: Job) -> Row:
    """Where and with what the row was computed, and the command that computes it again."""
    again = "" if job.method == DENSE else f" --methods {job.method}"
    return {
        "latency_ms": None, "dense_latency_ms": None,
        "speedup": None, "speedup_low": None, "speedup_high": None,
        "versions": {"compresslab": __version__, "torch": torch.__version__.split("+")[0]},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "command": f"python -m compresslab compare --networks {job.network}{again} --seeds {job.seed + 1}",
    }  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars inside a job: several jobs at once would write over each other's."""
    name = SILENCING_VARIABLES[-1]
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
