"""The long runs behind chapter 05: what decomposition costs in accuracy, and what it buys in time.

``python -m compresslab evidence 05`` measures everything below; an entry is one network, or one comparison of
times. Everything is judged on freshly drawn images, paired with the baseline.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from compresslab.core import count_macs, named_layers, train
from compresslab.core.measure import file_size
from compresslab.core.timing import speedup, time_models
from compresslab.course.fresh import judge_fresh
from compresslab.data import Split, load_data
from compresslab.lowrank import break_even_rank, decompose, decompose_responding, factor_conv, ranks_for_budget
from compresslab.models import build_model, load_baseline

IMAGE = (3, 32, 32)
SEEDS = (0, 1, 2)

# -- one network, many decompositions ------------------------------------------------------------------------
SMALL = "resnet8"
FRACTIONS = (0.75, 0.5, 0.25)  # of the parameters of every 3x3 layer but the first
METHODS = {"SVD": "svd", "spatial": "spatial", "response-aware": "svd", "Tucker": "tucker", "CP": "cp"}
TUNING = {"epochs": 1, "lr": 0.01}  # on TUNING_IMAGES
WIDTHS = (8, 12)  # of the dense control; 16 is the baseline
FROM_SCRATCH = {"epochs": 6, "lr": 0.05}  # as the baseline, on all images
JUDGES = 10_000
TUNING_IMAGES = 10_000

# -- half the operations, and the clock ----------------------------------------------------------------------
LARGE = "vgg"
HALF = {"fraction": 0.5, "scheme": "spatial", "multiple_of": 8}
LONGER_TUNING = {"epochs": 3, "lr": 0.01}
BATCHES = (1, 16, 64)
SHARES = (1.0, 0.75, 0.5, 0.25, 0.1)  # of the break-even rank


@cache
def _images() -> Split:
    return load_data("street_digits").train


def _inner_convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """The 3x3 convolutions that read feature maps, not images."""
    layers = named_layers(model, nn.Conv2d)
    return {name: conv for name, conv in layers.items() if conv.kernel_size == (3, 3) and conv.in_channels > 3}


def rank_for(method: str, conv: nn.Conv2d, fraction: float) -> int | tuple[int, int]:
    """The largest rank at which the chain has at most this fraction of the layer's weights.

    For Tucker the same share t of the channels on both sides: t^2 N C k^2 + t (N^2 + C^2) weights.
    """
    n, c, (kh, kw) = conv.out_channels, conv.in_channels, conv.kernel_size
    weights = fraction * conv.weight.numel()
    if method == "Tucker":
        square, linear = conv.weight.numel(), n**2 + c**2
        share = ((linear**2 + 4 * square * weights) ** 0.5 - linear) / (2 * square)
        return max(1, int(share * n)), max(1, int(share * c))
    sides = {"spatial": c * kh + n * kw, "CP": c + kh + kw + n}.get(method, c * kh * kw + n)
    return max(1, int(weights / sides))


def decomposed(method: str, fraction: float) -> nn.Module:
    """The small baseline with its inner 3x3 layers decomposed, each to the same fraction of its weights."""
    model = load_baseline(SMALL)
    ranks = {name: rank_for(method, conv, fraction) for name, conv in _inner_convolutions(model).items()}
    if method == "response-aware":
        return decompose_responding(model, ranks, _images().take(1_000).batches(100))
    return decompose(model, ranks, method=METHODS[method])


def _sizes(model: nn.Module) -> dict[str, int]:
    return {"parameters": sum(p.numel() for p in model.parameters()), "macs": count_macs(model, IMAGE).total,
            "file_bytes": file_size(model)}  # fmt: skip


def method(name: str, fraction: float, seed: int | None) -> dict[str, Any]:
    """One decomposition of the small baseline; with a seed also fine-tuned."""
    model = decomposed(name, fraction)
    if seed is not None:
        model = train(model, _images().take(TUNING_IMAGES), seed=seed, progress=False, **TUNING)
    return {"experiment": "methods", "network": SMALL, "method": name, "fraction": fraction, "tuned": seed is not None,
            "seed": seed, **_sizes(model), **judge_fresh(model, SMALL, JUDGES)}  # fmt: skip


def control(name: str, width: int, seed: int) -> dict[str, Any]:
    """A dense network: the baseline trained on for as long as the others, or a narrower one from scratch."""
    if name == "dense, trained as long":
        model, images, training = load_baseline(SMALL), _images().take(TUNING_IMAGES), TUNING
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model("resnet", depth=8, width=width)
        images, training = _images(), FROM_SCRATCH
    model = train(model, images, seed=seed, progress=False, **training)
    sizes = _sizes(model)
    share = round(sizes["parameters"] / _sizes(load_baseline(SMALL))["parameters"], 2)
    return {"experiment": "methods", "network": SMALL, "method": name, "fraction": share, "tuned": True,
            "seed": seed, **sizes, **judge_fresh(model, SMALL, JUDGES)}  # fmt: skip


def halved() -> nn.Module:
    """The large baseline at half its MACs: k x 1 and 1 x k chains, the ranks chosen over all layers."""
    model = load_baseline(LARGE)
    return decompose(model, ranks_for_budget(model, IMAGE, **HALF), method=HALF["scheme"])


def half(seed: int | None) -> dict[str, Any]:
    """The large baseline at half its MACs, fine-tuned; judged on 50,000 images. No seed: as decomposed."""
    model = halved()
    if seed is not None:
        model = train(model, _images(), seed=seed, progress=False, **LONGER_TUNING)
    return {"experiment": "half", "network": LARGE, "tuned": seed is not None, "seed": seed, **_sizes(model),
            "macs_ratio": round(_sizes(model)["macs"] / count_macs(load_baseline(LARGE), IMAGE).total, 4),
            **judge_fresh(model, LARGE)}  # fmt: skip


def dense_as_long(seed: int) -> dict[str, Any]:
    """The control of ``half``: the large baseline itself, trained on for as long."""
    model = train(load_baseline(LARGE), _images(), seed=seed, progress=False, **LONGER_TUNING)
    return {"experiment": "half", "network": LARGE, "control": "dense, trained as long", "seed": seed,
            **_sizes(model), "macs_ratio": 1.0, **judge_fresh(model, LARGE)}  # fmt: skip


def _ratio(models: dict[str, nn.Module], x: torch.Tensor, repeats: int = 40) -> dict[str, dict[str, float]]:
    """How many times as fast as "dense" every other model is: interleaved in one run, one thread."""
    times = time_models(models, x, repeats=repeats, threads=1)
    gains = {name: speedup(times["dense"], timing) for name, timing in times.items() if name != "dense"}
    return {name: {"speedup": round(gain.ratio, 3), "low": round(gain.low, 3), "high": round(gain.high, 3)}
            for name, gain in gains.items()}  # fmt: skip


def speed(batch: int) -> dict[str, Any]:
    """The large baseline beside itself at half its MACs."""
    x = torch.randn(batch, *IMAGE, generator=torch.Generator().manual_seed(0))
    found = _ratio({"dense": load_baseline(LARGE), "half": halved()}, x)["half"]
    return {"experiment": "speed", "network": LARGE, "batch": batch, "threads": 1, **found}


def layer_speed(channels: int, side: int, batch: int) -> dict[str, Any]:
    """One 3x3 layer beside its k x 1, 1 x k chains at shares of the break-even rank."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    even = break_even_rank(3 * channels, 3 * channels)
    ranks = [max(1, round(share * even)) for share in SHARES]
    models = {"dense": conv} | {str(rank): factor_conv(conv, rank, "spatial") for rank in ranks}
    x = torch.randn(batch, channels, side, side, generator=generator)
    found = _ratio(models, x)
    rows = [{"rank": rank, "macs_ratio": round(count_macs(models[str(rank)], x.shape[1:]).total
             / count_macs(conv, x.shape[1:]).total, 4), **found[str(rank)]} for rank in ranks]  # fmt: skip
    return {"experiment": "break-even", "channels": channels, "side": side, "batch": batch, "threads": 1, "rows": rows}


def _methods() -> Iterable[tuple[str, Callable[[], dict[str, Any]]]]:
    for name in METHODS:
        for fraction in FRACTIONS:
            yield f"{name} at {fraction}", partial(method, name, fraction, None)
            for seed in SEEDS[:2]:
                yield f"{name} at {fraction}, tuned, seed {seed}", partial(method, name, fraction, seed)
    for seed in SEEDS[:2]:
        yield f"dense, trained as long, seed {seed}", partial(control, "dense, trained as long", 16, seed)
    for seed in SEEDS[:1]:
        for width in WIDTHS:
            yield f"small dense network, width {width}, seed {seed}", partial(control, "small dense network", width, seed)


LAYERS = ((64, 16, 16), (64, 16, 1), (256, 4, 16), (16, 32, 16))  # channels, side of the image, batch

ENTRIES: dict[str, Callable[[], dict[str, Any]]] = {
    "half": partial(half, None),
    **{f"half, tuned, seed {seed}": partial(half, seed) for seed in SEEDS},
    **{f"half, dense as long, seed {seed}": partial(dense_as_long, seed) for seed in SEEDS[:1]},
    **dict(_methods()),
    **{f"speed, batch {batch}": partial(speed, batch) for batch in BATCHES},
    **{f"break-even, {c} channels, {s}x{s}, batch {b}": partial(layer_speed, c, s, b) for c, s, b in LAYERS},
}
TIMED = tuple(name for name in ENTRIES if name.startswith(("speed", "break-even")))
