"""The long runs behind chapter 03: the same small budget, spent on different blocks.

``python -m compresslab evidence 03`` measures everything below. A network of each block fills 20,000 parameters as
far as its width allows, is trained alike, and is judged on freshly drawn images; an entry is one block and one seed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from compresslab.compact import CompactNet, separation_error, width_for
from compresslab.compact.small import BLOCKS
from compresslab.core import count_macs, named_layers, train
from compresslab.core.measure import file_size
from compresslab.core.timing import speedup, time_models
from compresslab.course.fresh import judge_fresh
from compresslab.data import load_data
from compresslab.models import load_baseline

SEEDS = (0, 1)
BUDGET = 20_000  # parameters
TRAINING = {"epochs": 6, "lr": 0.05}
JUDGES = 20_000
IMAGE = (3, 32, 32)
BATCHES = (1, 64)


def network(block: str, seed: int = 0) -> CompactNet:
    """The widest network of this block that keeps the budget, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CompactNet(block, width_for(block, BUDGET))


def _size(model: CompactNet) -> dict[str, Any]:
    return {"block": model.spec["block"], "width": model.spec["width"],
            "parameters": sum(p.numel() for p in model.parameters()), "macs": count_macs(model, IMAGE).total}  # fmt: skip


def trained(block: str, seed: int) -> dict[str, Any]:
    """One block's network, trained on all 20,000 images: what it costs, and what it gets right."""
    model = train(network(block, seed), load_data("street_digits").train, seed=seed, progress=False, **TRAINING)
    judged = judge_fresh(model, "mobilenet", JUDGES)
    return {"experiment": "blocks", "seed": seed, **_size(model), "file_bytes": file_size(model),
            "accuracy": judged["accuracy"]}  # fmt: skip


def timed(batch: int) -> dict[str, Any]:
    """Milliseconds per image of all blocks, interleaved in one run, eager, one thread; and against the plain one."""
    x = torch.randn(batch, *IMAGE, generator=torch.Generator().manual_seed(0))
    times = time_models({block: network(block).eval() for block in BLOCKS}, x, repeats=40, threads=1)
    rows = []
    for block, timing in times.items():
        ratio = speedup(times["plain"], timing)
        rows.append({**_size(network(block)), "milliseconds": round(timing.median / batch, 5),
                     "q1": round(timing.q1 / batch, 5), "q3": round(timing.q3 / batch, 5),
                     "speedup": round(ratio.ratio, 3), "low": round(ratio.low, 3), "high": round(ratio.high, 3)})  # fmt: skip
    return {"experiment": "latency", "batch": batch, "threads": 1, "rows": rows}


def separability(name: str) -> dict[str, Any]:
    """How much of each trained 3x3 layer the nearest separable convolution keeps, as a share of the squared weights."""
    layers = {path: layer for path, layer in named_layers(load_baseline(name)).items()
              if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.groups == 1}  # fmt: skip
    kept = {path: 1 - separation_error(layer) ** 2 for path, layer in layers.items()}
    return {"experiment": "separability", "network": name, "kept": {path: round(share, 4) for path, share in kept.items()}}


ENTRIES: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"separability of {name}": partial(separability, name) for name in ("resnet8", "vgg")},
    **{f"{block}, seed {seed}": partial(trained, block, seed) for seed in SEEDS for block in BLOCKS},
    **{f"latency, batch {batch}": partial(timed, batch) for batch in BATCHES},
}
TIMED = tuple(f"latency, batch {batch}" for batch in BATCHES)
