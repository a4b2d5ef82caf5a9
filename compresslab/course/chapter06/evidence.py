"""The long runs behind chapter 06: one square layer, shared in every way, and the small dense networks beside it.

``python -m compresslab evidence 06`` measures everything below; an entry is one training, or the times of one batch
size. The network is 784 - 784 - 10 on ink_digits; only its square layer is shared.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from compresslab.core import count_macs, encode, train
from compresslab.core.measure import file_size
from compresslab.core.timing import speedup, time_models
from compresslab.course.fresh import judge_fresh
from compresslab.data import Split, load_data
from compresslab.distillation import adamw
from compresslab.models import from_spec
from compresslab.sharing import (
    BlockCirculantCode, CirculantLinear, ClusterCode, DisplacementCode, FastfoodLinear, HashedCode, ProductCode,
    ToeplitzCode,
)  # fmt: skip

SIDE = 784  # pixels, and hidden units
SEEDS = (0, 1, 2)
IMAGES = 10_000
JUDGES = 20_000
TRAINING = {"epochs": 10, "lr": 0.01}  # AdamW, whose steps do not grow with the number of uses
SLOWER = {"dense": 0.003, "displacement": 0.002}  # 0.01 is too much for the dense network, and for products of generators
TUNING = {"epochs": 5, "lr": 0.003}  # of what is projected from a trained network

Made = Callable[[nn.Module], nn.Module]


def _coded(make_code: Callable, **options: Any) -> Made:
    return lambda model: encode(model, partial(make_code, **options), only=["1"])


def _fastfood(model: nn.Module) -> nn.Module:
    model[1] = FastfoodLinear.random(SIDE, SIDE, seed=0)
    return model


def _low_rank(model: nn.Module, rank: int) -> nn.Module:
    """Two thin layers, with random weights of their own, not those nearest to a random square layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rank)
        model[1] = nn.Sequential(nn.Linear(SIDE, rank, bias=False), nn.Linear(rank, SIDE))
    return model


# What replaces the square layer, (method, setting) -> model -> model. These are trained from scratch ...
FROM_SCRATCH: dict[tuple[str, str], Made] = {
    **{("hashed", f"{k} buckets" if k > 1 else "1 bucket"): _coded(HashedCode.from_dense, buckets=k, keep_scale=True) for k in (38_416, 9_604, 2_401, 1)},
    **{("block-circulant", f"blocks of {b}"): _coded(BlockCirculantCode.from_dense, block=b, keep_scale=True) for b in (16, 49, 196)},
    ("circulant", "one block"): _coded(BlockCirculantCode.from_dense, block=SIDE, keep_scale=True),
    ("toeplitz", ""): _coded(ToeplitzCode.from_dense, keep_scale=True),
    **{("displacement", f"rank {r}"): _coded(DisplacementCode.from_dense, rank=r, keep_scale=True) for r in (2, 8)},
    ("fastfood", ""): _fastfood,
    **{("low rank", f"rank {r}"): partial(_low_rank, rank=r) for r in (2, 8, 24)},
}  # fmt: skip
# ... and these need a trained network to start from.
PROJECTED: dict[tuple[str, str], Made] = {
    **{("k-means", f"{bits} bits"): _coded(ClusterCode.from_dense, bits=bits) for bits in (1, 2)},
    **{("product", f"{s} parts, {k} words"): _coded(ProductCode.from_dense, subspaces=s, k=k) for s, k in ((196, 16), (49, 16))},
    ("product", "98 parts, 256 words, shared"): _coded(ProductCode.from_dense, subspaces=98, k=256, shared=True),
}  # fmt: skip
WIDTHS = (97, 59, 22, 13, 10)  # hidden units of the small dense control
SIZES = (256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 64)


@cache
def _images() -> Split:
    return load_data("ink_digits").train.take(IMAGES)


def network(hidden: int = SIDE, seed: int = 0) -> nn.Module:
    """784 - hidden - 10 with ReLU, random weights."""
    spec = {"input": [1, 28, 28], "layers": [["flatten"], ["linear", {"out_features": hidden}], ["relu"],
                                             ["linear", {"out_features": 10}]]}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return from_spec(spec)


def _train(model: nn.Module, seed: int, **training: Any) -> nn.Module:
    return train(model, _images(), optimizer=adamw, seed=seed, progress=False, **training)


@cache
def _trained_dense(seed: int) -> nn.Module:
    return _train(network(seed=seed), seed, **{**TRAINING, "lr": SLOWER["dense"]})


def sharer(method: str, setting: str, seed: int) -> dict[str, Any]:
    """One network, trained: how many numbers it stores, what its file weighs, what it gets right."""
    if (method, setting) in FROM_SCRATCH:
        model = _train(FROM_SCRATCH[method, setting](network(seed=seed)), seed,
                       **{**TRAINING, "lr": SLOWER.get(method, TRAINING["lr"])})  # fmt: skip
    elif (method, setting) in PROJECTED:
        model = _train(PROJECTED[method, setting](_trained_dense(seed)), seed, **TUNING)
    elif method == "dense":
        model = _trained_dense(seed)
    else:
        model = _train(network(int(setting.split()[0]), seed), seed, **TRAINING)
    return {"experiment": "sharers", "method": method, "setting": setting, "seed": seed,
            "unique": sum(p.numel() for p in model.parameters()), "file_bytes": file_size(model),
            "macs": count_macs(model, (1, 28, 28)).total,
            "accuracy": judge_fresh(model, "lenet5", JUDGES)["accuracy"]}  # fmt: skip


def crossover(batch: int, sizes: tuple[int, ...] = SIZES, threads: int = 1, repeats: int = 30) -> dict[str, Any]:
    """One circulant layer with FFT beside the dense layer that it equals: milliseconds, interleaved."""
    rows = []
    for n in sizes:
        generator = torch.Generator().manual_seed(n)
        fast = CirculantLinear(torch.randn(1, 1, n, generator=generator))
        x = torch.randn(batch, n, generator=generator)
        times = time_models({"dense": fast.to_dense(), "fft": fast}, x, repeats=repeats, threads=threads)
        gain = speedup(times["dense"], times["fft"])
        rows.append({"n": n, "batch": batch, "dense_ms": round(times["dense"].median, 5), "fft_ms": round(times["fft"].median, 5),
                     "ratio": round(gain.ratio, 3), "low": round(gain.low, 3), "high": round(gain.high, 3)})  # fmt: skip
    return {"experiment": "crossover", "batch": batch, "threads": threads, "rows": rows}


SETTINGS = [("dense", ""), *FROM_SCRATCH, *PROJECTED, *(("small dense", f"{width} hidden units") for width in WIDTHS)]
ENTRIES: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"{method}, {setting or 'as it is'}, seed {seed}": partial(sharer, method, setting, seed)
       for seed in SEEDS for method, setting in SETTINGS},
    **{f"crossover, batch {batch}": partial(crossover, batch) for batch in BATCHES},
}  # fmt: skip
TIMED = tuple(f"crossover, batch {batch}" for batch in BATCHES)
