"""Ten public networks, without their weights: what they weigh, compute and hold, dense and compressed.

Size, operations, latency and memory of a network do not depend on what it has learned, so random weights will
do and nothing has to be downloaded. Every network of the table stands there in five forms:

    dense            as it is, timed against itself: how far from 1 a speed-up has to be to mean something
    pruned by half   half of the channels of every group removed, by L1 norm: a quarter of most layers stays
    decomposed       every layer that allows it split in two, at the rank that halves its weights and MACs
    8 bits, 4 bits   stored as integers with a scale per output channel; it runs decoded, as fast as dense

Nothing is retrained. With `weights=True` the published weights are downloaded, and with a folder of labelled
images each form gets an accuracy, too.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compresslab import __version__
from compresslab.compare.memory import peak_activation_bytes
from compresslab.compare.results import Row, append_result, read_results
from compresslab.core.codes import UniformCode
from compresslab.core.layers import decompress, encode
from compresslab.core.macs import count_macs
from compresslab.core.modules import map_layers, named_layers
from compresslab.core.progress import progress_bar
from compresslab.core.store import load, save
from compresslab.core.timing import speedup, time_models
from compresslab.core.train import evaluating
from compresslab.lowrank.convolution import conv_pair, kernel_matrix
from compresslab.lowrank.decompose import bound_layers, can_decompose
from compresslab.lowrank.svd import linear_pair
from compresslab.pruning import prune_channels

SHIPPED = Path(__file__).resolve().parent / "public.jsonl"
NETWORKS = (
    "alexnet", "vgg16", "resnet18", "resnet50", "densenet121", "squeezenet1_0", "mobilenet_v2",
    "shufflenet_v2_x1_0", "efficientnet_b0", "vit_b_16",
)  # fmt: skip
INPUT = (3, 224, 224)
MEASURED = (
    "parameters", "file_bytes", "macs", "latency_ms", "dense_latency_ms", "speedup", "speedup_low",
    "speedup_high", "peak_activation_bytes", "accuracy", "n",
)  # fmt: skip


def prune_by_half(model: nn.Module) -> tuple[nn.Module, str]:
    """Half of the channels of every group removed; the input and the classes stay."""
    small = prune_channels(model, torch.zeros(1, *INPUT), 0.5)
    before, after = (sum(p.numel() for p in network.parameters()) for network in (model, small))
    if after == before:
        raise ValueError("no channel of this network can be removed")
    return small, "half of the channels of every group; not retrained"


def halve_by_rank(model: nn.Module) -> tuple[nn.Module, str]:
    """Every layer that allows it as two, of rank k = floor(mn / 2(m + n)): half of its weights and MACs."""
    bound, count = bound_layers(model), 0

    def replace(name: str, layer: nn.Module) -> nn.Module | None:
        nonlocal count
        if not can_decompose(layer) or id(original[name]) in bound:
            return None
        weight = layer.weight.detach()
        matrix = weight if isinstance(layer, nn.Linear) else kernel_matrix(weight)
        rank = matrix.numel() // (2 * sum(matrix.shape))
        if rank < 1:
            return None
        count += 1
        pair = linear_pair if isinstance(layer, nn.Linear) else conv_pair
        return pair(layer, *nearest_factors(matrix, rank))

    original = named_layers(model)
    small = map_layers(model, (nn.Linear, nn.Conv2d), replace)
    if not count:
        raise ValueError("no layer of this network can be decomposed")
    return small, f"{count} of {len(original)} layers decomposed{_left_whole(original, bound)}; not retrained"


def _left_whole(layers: dict[str, nn.Module], bound: dict[int, str]) -> str:
    """Which layers a chain cannot stand for, in words."""
    grouped = sum(getattr(layer, "groups", 1) > 1 for layer in layers.values())
    read = sum(id(layer) in bound for layer in layers.values())
    reasons = [f"{grouped} grouped convolutions have no matrix of their own"] if grouped else []
    reasons += [f"{read} layers are read by attention itself"] if read else []
    return f" ({', '.join(reasons)})" if reasons else ""


def nearest_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest matrix of a rank as a product BA, by the eigenvectors U of the smaller Gram matrix.

        W W^T = U diag(sigma^2) U^T,    B = U_k,    A = U_k^T W          (of W^T W if W is tall)

    The product is that of `lowrank.truncated_svd`, but the work goes with the short side: for VGG-16's first
    linear layer, 4096 x 25088, that is the difference between half a minute and many.

    Args:
        matrix: (m, n), finite.
        rank: k, 1 to min(m, n).
    Returns:
        B (m, k) and A (k, n).
    Differs: small singular values are squared before they are found and lose digits: here they are those left
        out.
    Example:
        >>> B, A = nearest_factors(torch.diag(torch.tensor([9.0, 4.0])), 1)
        >>> B @ A
        tensor([[9., 0.],
                [0., 0.]])
    """
    if matrix.shape[0] > matrix.shape[1]:
        B, A = nearest_factors(matrix.T, rank)
        return A.T.contiguous(), B.T.contiguous()
    gram = sum(part @ part.T for part in (columns.double() for columns in matrix.split(4096, dim=1)))
    vectors = torch.linalg.eigh(gram).eigenvectors[:, -rank:].to(matrix.dtype)
    return vectors.contiguous(), vectors.T @ matrix


def store_in_bits(model: nn.Module, bits: int) -> tuple[nn.Module, str]:
    """Every weight as an integer with a scale per output channel; biases and normalisation stay floats."""
    coded = encode(model, partial(UniformCode.from_dense, bits=bits, axis=0))
    return coded, "runs decoded: the file is smaller, the network is the dense one"


FORMS: dict[str, Callable[[nn.Module], tuple[nn.Module, str]]] = {
    "dense": lambda model: (model, "timed against itself"),
    "pruned by half": prune_by_half,
    "decomposed": halve_by_rank,
    "8 bits": partial(store_in_bits, bits=8),
    "4 bits": partial(store_in_bits, bits=4),
}


def measure_public(
    name: str,
    form: str,
    *,
    repeats: int = 20,
    threads: int = 2,
    weights: bool = False,
    images: str | os.PathLike[str] | None = None,
    limit: int = 1000,
) -> Row:
    """One row of the table: build, compress, write the file, read it back, measure what came back.

    Args:
        name: a network of `NETWORKS`.
        form: a key of `FORMS`.
        repeats: rounds of the clock, >= 1, batch 1, interleaved with the dense network.
        threads: of torch while the clock runs.
        weights: download the published weights instead of drawing random ones.
        images: a folder with one folder of images per class, in the order of ImageNet's 1000; needs
            `weights`.
        limit: of images that are judged, spread evenly over the folder.
    Returns:
        a row with a "key"; where the form is not possible for the network its numbers are None and the "note"
        says why. Bytes are those of the file, header included.
    Raises:
        ValueError: an unknown name or form, images without weights, or a folder that is not ImageNet's.
        OSError: the weights cannot be downloaded.
    """
    _check(name, form, weights, images)
    start = time.perf_counter()
    row: Row = {"key": f"{name}/{form}", "network": name, "form": form, **dict.fromkeys(MEASURED)}
    try:
        row["note"], row["file_bytes"], model = _through_a_file(name, form, weights)
    except (TypeError, ValueError) as error:
        row["note"] = f"not possible: {error}"
    else:
        row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        row["macs"] = count_macs(model, INPUT).total
        row["peak_activation_bytes"] = peak_activation_bytes(model, INPUT)
        row |= _clock(build_public(name, weights=weights), model, repeats, threads)
        if images is not None:
            row["accuracy"], row["n"] = folder_accuracy(model, name, images, limit)
    return row | {
        "weights": "published" if weights else "random",
        "versions": {"compresslab": __version__, "torch": torch.__version__.split("+")[0]},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": threads,
        "seconds": round(time.perf_counter() - start, 1),
    }


def public_table(
    path: str | os.PathLike[str],
    *,
    networks: Sequence[str] = NETWORKS,
    forms: Sequence[str] = tuple(FORMS),
    progress: bool = True,
    **options: Any,
) -> list[Row]:
    """Measure all networks in all forms, a row appended to a file as soon as it is there.

    Args:
        path: a file of `results`; rows that are in it are not measured again.
        networks, forms: what to measure.
        progress: show a bar.
        options: of `measure_public`.
    Returns:
        all rows of the file.
    """
    for name in networks:
        for form in forms:
            _check(name, form, options.get("weights", False), options.get("images"))
    done = {row["key"] for row in read_results(path)}
    left = [(name, form) for name in networks for form in forms if f"{name}/{form}" not in done]
    with progress_bar(left, "public networks", unit="row", show=progress) as bar:
        for name, form in bar:
            append_result(path, measure_public(name, form, **options))
    return read_results(path)


def shipped_public() -> list[Row]:
    """The table that ships with the course.

    Raises:
        FileNotFoundError: it is not there; says which command computes it.
    """
    if not SHIPPED.exists():
        raise FileNotFoundError("no table is shipped: run `python -m compresslab compare --public`")
    return read_results(SHIPPED)


def build_public(name: str, *, weights: bool = False) -> nn.Module:
    """A network of torchvision in eval mode, with random weights from seed 0 or with the published ones.

    Raises:
        OSError: the weights cannot be downloaded.
    """
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return models.get_model(name, weights="DEFAULT" if weights else None).eval()
        except OSError as error:
            what = f"the weights of {name} cannot be downloaded ({error})"
            raise OSError(f"{what}; without weights the table needs no network") from error


def folder_accuracy(
    model: nn.Module, name: str, folder: str | os.PathLike[str], limit: int
) -> tuple[float, int]:
    """The accuracy of a network on images of a folder, prepared as its weights expect, and their number.

    Raises:
        ValueError: the folder is not there, or has not the 1000 class folders of ImageNet.
    """
    from torchvision import datasets, models

    classes = sum(entry.is_dir() for entry in Path(folder).glob("*"))
    if classes != 1000:
        raise ValueError(f"images must be in ImageNet's 1000 class folders, got {classes} in {folder}")
    transform = models.get_model_weights(name).DEFAULT.transforms()
    images = datasets.ImageFolder(os.fspath(folder), transform, allow_empty=True)
    if not len(images):
        raise ValueError(f"there is no image in the class folders of {folder}")
    chosen = torch.linspace(0, len(images) - 1, min(limit, len(images))).round().long().tolist()
    right = 0
    with evaluating(model):
        for index in chosen:
            x, label = images[index]
            right += int(model(x[None]).argmax() == label)
    return right / len(chosen), len(chosen)


def _through_a_file(name: str, form: str, weights: bool) -> tuple[str, int, nn.Module]:
    """The note of a form, the size of its file, and the network that the file gives back, in plain layers.

    Nothing else of what was built is left when this returns: VGG-16 would not fit into 4 GB twice more.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        stored, note = FORMS[form](build_public(name, weights=weights))
        size = save(stored, path)
        del stored
        with torch.device("meta"):
            skeleton = build_public(name)
        return note, size, decompress(load(path, skeleton))


def _clock(dense: nn.Module, model: nn.Module, repeats: int, threads: int) -> Row:
    x = torch.randn(1, *INPUT, generator=torch.Generator().manual_seed(0))
    times = time_models({"dense": dense, "model": model}, x, repeats=repeats, warmup=2, threads=threads)
    faster = speedup(times["dense"], times["model"])
    return {
        "latency_ms": round(times["model"].median, 3),
        "dense_latency_ms": round(times["dense"].median, 3),
        "speedup": round(faster.ratio, 4),
        "speedup_low": round(faster.low, 4),
        "speedup_high": round(faster.high, 4),
    }


def _check(name: str, form: str, weights: bool, images: object) -> None:
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r} in the table; choose one of {', '.join(NETWORKS)}")
    if form not in FORMS:
        raise ValueError(f"there is no form {form!r}; choose one of {', '.join(FORMS)}")
    if images is not None and not weights:
        raise ValueError("images need weights=True: a network of random weights has no accuracy to measure")
