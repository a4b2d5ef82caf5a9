"""Trace and prune a network by half: compresslab beside torch-pruning.

    python -m benchmarks prune_graph

Both get a fresh copy of the same torchvision network, find the coupled channels, and remove half of every group
by L1 norm. Copying the network is part of our time (we return a new one) and not of theirs (they edit the copy
that was made before the clock started).

Budget: 30 seconds.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from torch import nn

import compresslab  # noqa: F401  (makes torchvision importable)

import torchvision
from benchmarks.report import PEER, Table, against, summarize, threads_note
from compresslab.core.timing import Timing
from compresslab.pruning.channels import prune_channels

BUDGET = 30  # seconds
MODELS = ("resnet18", "resnet50", "mobilenet_v2")


def run(models: Sequence[str] = MODELS, size: int = 224, rounds: int = 5) -> list[Table]:
    """Prune each network by half with both, in turn."""
    rows = []
    for name in models:
        model = getattr(torchvision.models, name)(weights=None).eval()
        x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        times, left = measure(model, x, rounds)
        kept = [f"{left[who]:,}" for who in ("ours", "theirs")]
        rows.append([name, *against(times["theirs"], times["ours"]), *kept])
    note = f"torchvision networks at {size}x{size}, {rounds} rounds; {threads_note()}."
    columns = ["network", *PEER, "our parameters", "peer's parameters"]
    return [Table("Channel pruning by half, against torch-pruning", note, columns, rows)]


def measure(model: nn.Module, x: torch.Tensor, rounds: int) -> tuple[dict[str, Timing], dict[str, int]]:
    """Times of both in alternating rounds (each needs a fresh copy, made off the clock), and parameters left."""
    samples: dict[str, list[float]] = {"ours": [], "theirs": []}
    left: dict[str, int] = {}
    for round_number in range(rounds + 1):  # the first warms up
        order = list(samples)[:: 1 if round_number % 2 else -1]
        for who in order:
            fresh = copy.deepcopy(model)
            start = time.perf_counter()
            small = with_compresslab(fresh, x) if who == "ours" else with_torch_pruning(fresh, x)
            samples[who].append((time.perf_counter() - start) * 1e3)
            left[who] = sum(parameter.numel() for parameter in small.parameters())
    return {who: summarize(values[1:]) for who, values in samples.items()}, left


def with_compresslab(model: nn.Module, x: torch.Tensor) -> nn.Module:
    return prune_channels(model, x, 0.5)


def with_torch_pruning(model: nn.Module, x: torch.Tensor) -> nn.Module:
    import torch_pruning

    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    importance = torch_pruning.importance.MagnitudeImportance(p=1)
    pruner = torch_pruning.pruner.MagnitudePruner(model, x, importance=importance, pruning_ratio=0.5, ignored_layers=[last])
    pruner.step()
    return model


if __name__ == "__main__":
    for table in run():
        print(table)
