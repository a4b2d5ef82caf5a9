"""The long runs behind chapter 02: rounding with and without training, from eight bits down to ternary.

``python -m compresslab evidence 02`` measures everything below; an entry is one setting and one seed. Every
layer is quantized, the first and the last too, with a scale per output channel where nothing else is said.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from compresslab.core import UniformCode, bake, convert, decompress, encode, prepare, train
from compresslab.core.measure import file_size
from compresslab.core.prepare import Simulated
from compresslab.course.fresh import judge_fresh
from compresslab.data import Split, load_data
from compresslab.models import baseline_info, load_baseline
from compresslab.quantization import FakeQuantize, Ternary, calibrate, encode_adaround, percentile_range
from compresslab.quantization import simulate_activations

SEEDS = (0, 1, 2)
BITS = (8, 6, 5, 4, 3, 2)
LOW_BITS = (4, 3, 2)  # where training and learned rounding matter
NETWORKS = ("lenet300", "lenet5", "resnet8_narrow", "resnet8", "mobilenet", "vgg")
SLOW = ("mobilenet", "vgg")
CONTROL = "float, trained as long as ternary"  # what more training alone brings to the least trained baselines
CALIBRATION = 512  # training images that a range or a rounding is fitted to
TRAINING = {  # chosen on validation images; the two slow networks train less, the VGG-like one at a smaller rate
    ("4 bits, QAT", "mobilenet"): {"epochs": 1, "lr": 0.02},
    ("ternary, trained", "mobilenet"): {"epochs": 3, "lr": 0.05},
    ("4 bits, QAT", "resnet8_narrow"): {"epochs": 4, "lr": 0.02},
    ("4 bits, QAT", "vgg"): {"epochs": 1, "lr": 0.003, "batch_size": 32, "warmup": 0.0, "images": 8_000},
    ("ternary, trained", "vgg"): {"epochs": 1, "lr": 0.01},
    "4 bits, QAT": {"epochs": 2, "lr": 0.02},
    "ternary, trained": {"epochs": 4, "lr": 0.05},
}


@cache
def _data(network: str) -> Split:
    return load_data(baseline_info(network)["dataset"]).train


def _calibration(network: str, seed: int) -> list[Tensor]:
    """Training images, others for every seed, in batches."""
    images = _data(network)
    chosen = images.select(list(range(seed * CALIBRATION, (seed + 1) * CALIBRATION)))
    return list(chosen.batches(128, labels=False))


def _train(model: nn.Module, network: str, method: str, seed: int) -> nn.Module:
    """The model, trained as a method trains what becomes of this baseline."""
    settings = dict(TRAINING.get((method, network), TRAINING[method]))
    images = _data(network).take(settings.pop("images", len(_data(network))))
    return train(model, images, seed=seed, progress=False, **settings)


def _trained(network: str, method: str, make: Callable[[Tensor], Simulated], seed: int) -> nn.Module:
    """The baseline, trained with simulated weights: the coded network."""
    return convert(_train(prepare(load_baseline(network), make), network, method, seed))


def _with_activations(coded: nn.Module, network: str, seed: int) -> nn.Module:
    """The decoded network, its activations rounded to 8 bits too, in ranges seen on training images."""
    return simulate_activations(decompress(coded), calibrate(load_baseline(network), _calibration(network, seed)))


def claim(network: str, method: str, seed: int) -> dict[str, Any]:
    """One network as a row: what its file takes, and what it loses on 50,000 fresh images."""
    dense = load_baseline(network)
    if method.startswith("8 bits"):
        coded = encode(dense, partial(UniformCode.from_dense, bits=8, axis=0))
        runs = _with_activations(coded, network, seed) if "activations" in method else decompress(coded)
    elif method == "4 bits, QAT":
        coded = _trained(network, method, lambda weight: FakeQuantize(bits=4), seed)
        runs = decompress(coded)
    elif method == CONTROL:
        coded = runs = _train(dense, network, "ternary, trained", seed)
    else:
        coded = _trained(network, method, lambda weight: Ternary(axis=0), seed)
        runs = decompress(coded)
    return {
        "experiment": "claims", "network": network, "method": method, "seed": seed,
        "file_bytes": file_size(coded), "file_ratio": round(file_size(dense) / file_size(coded), 3),
        **judge_fresh(runs, network),
    }  # fmt: skip


def resnet8(method: str, bits: int, seed: int) -> dict[str, Any]:
    """One point of the opening figure: ResNet-8 with weights of so many bits, judged on 10,000 fresh images."""
    dense = load_baseline("resnet8")
    codes = {
        "per tensor": partial(UniformCode.from_dense, bits=bits),
        "percentile": partial(UniformCode.from_dense, bits=bits, find_range=partial(percentile_range, fraction=0.999)),
        "per channel": partial(UniformCode.from_dense, bits=bits, axis=0),
    }
    if method == "float":
        model = dense
    elif method in codes:
        model = decompress(encode(dense, codes[method]))
    elif method == "AdaRound":
        model = decompress(encode_adaround(dense, _calibration("resnet8", seed), bits=bits))
    else:
        prepared = prepare(dense, lambda weight: FakeQuantize(bits=bits))
        model = bake(_train(prepared, "resnet8", "4 bits, QAT", seed))
    return {"experiment": "resnet8", "method": method, "bits": bits, "seed": seed,
            **judge_fresh(model, "resnet8", 10_000)}  # fmt: skip


ENTRIES: dict[str, Callable[[], dict[str, Any]]] = {
    "resnet8, float": partial(resnet8, "float", 32, 0),
    **{f"resnet8, {method}, {bits} bits": partial(resnet8, method, bits, 0)
       for method in ("per tensor", "percentile", "per channel") for bits in BITS},
    **{f"resnet8, {method}, {bits} bits, seed {seed}": partial(resnet8, method, bits, seed)
       for method in ("AdaRound", "QAT") for bits in LOW_BITS for seed in SEEDS},
    **{f"{network}, 8 bits": partial(claim, network, "8 bits", 0) for network in NETWORKS},  # nothing in it is random
    **{f"{network}, {method}, seed {seed}": partial(claim, network, method, seed)
       for method in ("8 bits, activations too", "4 bits, QAT", "ternary, trained") for network in NETWORKS for seed in SEEDS
       if not (method.startswith("8") and network in SLOW and seed)},
    **{f"{network}, {CONTROL}": partial(claim, network, CONTROL, 0) for network in ("resnet8_narrow", "resnet8")},
}  # fmt: skip
