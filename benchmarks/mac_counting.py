"""Counting multiply-accumulates beside fvcore and torch's FlopCounterMode: time, and whether the numbers agree.

    python -m benchmarks mac_counting

All three run the network once (fvcore traces it, torch intercepts every operation, ours hooks the layers). torch
counts a multiplication and an addition as two; its number is halved here. fvcore counts batch norms, pooling and
the like as well unless told otherwise; it is asked for its convolutions and matrix products only.

Budget: 15 seconds.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import compresslab  # noqa: F401  (makes torchvision importable)

import torchvision
from benchmarks.report import PEER, Table, against, threads_note, time_within
from compresslab.core import count_macs

BUDGET = 15  # seconds
ROUNDS_SECONDS = 1.5  # for each network
MODELS = ("resnet18", "resnet50", "mobilenet_v2")
PRODUCTS = ("conv", "linear", "addmm", "matmul", "bmm", "einsum")  # what fvcore counts as a MAC each


def run(models: Sequence[str] = MODELS, size: int = 224) -> list[Table]:
    """One row per network and peer."""
    rows = []
    for name in models:
        torch.manual_seed(0)
        model = getattr(torchvision.models, name)(weights=None).eval()
        x = torch.randn(1, 3, size, size)
        calls = {"ours": lambda m=model, x=x: count_macs(m, x).total, **peers(model, x)}
        counts = {who: call() for who, call in calls.items()}
        times = time_within(calls, ROUNDS_SECONDS)
        for who in list(calls)[1:]:
            equal = "yes" if counts[who] == counts["ours"] else f"no, {counts[who]:,}"
            rows.append([f"{name}, {who}", *against(times[who], times["ours"]), f"{counts['ours']:,}", equal])
    note = f"torchvision networks at {size}x{size}, batch 1; {threads_note()}. Every count includes one run of the network."
    return [Table("MAC counting, against fvcore and torch", note, ["network, peer", *PEER, "our MACs", "equal"], rows)]


def peers(model: nn.Module, x: Tensor) -> dict[str, Callable[[], int]]:
    """The peers as functions that return MACs."""
    return {"fvcore": lambda: fvcore_macs(model, x), "FlopCounterMode": lambda: torch_macs(model, x)}


def fvcore_macs(model: nn.Module, x: Tensor) -> int:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own
        by_operator = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return int(sum(by_operator[name] for name in PRODUCTS))


def torch_macs(model: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() // 2


if __name__ == "__main__":
    for table in run():
        print(table)
