"""Magnitude masks beside torch.nn.utils.prune: one tensor, and one threshold for a whole network.

    python -m benchmarks magnitude_masks

Both drop the same share of the weights, 90 %. torch drops the weights of smallest magnitude by `topk`; among equal
ones it is free to choose. Quality: how many weights are kept (the share asked for), and whether both keep the same.

Budget: 15 seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import prune

import compresslab  # noqa: F401  (makes torchvision importable)

import torchvision
from benchmarks.report import PEER, Table, against, threads_note, time_within
from compresslab.pruning.magnitude import magnitude_mask, prune_magnitude

BUDGET = 15  # seconds
ROUNDS_SECONDS = 1.5  # for each row
SIZES = (10_000, 1_000_000, 10_000_000)
SPARSITY = 0.9


def run(sizes: Sequence[int] = SIZES, network: str = "mobilenet_v2") -> list[Table]:
    """Masks of single tensors, and a network pruned by one global threshold."""
    rows = [tensor_row(n) for n in sizes] + [network_row(network)]
    note = (
        f"{SPARSITY:.0%} of the weights dropped; {threads_note()}. A network is copied on both sides, as our functions "
        "return a new one."
    )
    columns = ["weights", *PEER, "ours keeps", "peer keeps", "same mask"]
    return [Table("Magnitude masks, against torch.nn.utils.prune", note, columns, rows)]


def tensor_row(n: int) -> list[str]:
    """The mask of one tensor of ``n`` normal weights."""
    weight = torch.randn(n, generator=torch.Generator().manual_seed(0))
    method = prune.L1Unstructured(amount=SPARSITY)
    calls = {
        "ours": lambda: magnitude_mask(weight, SPARSITY),
        "theirs": lambda: method.compute_mask(weight, torch.ones_like(weight)),
    }
    masks = [call().bool() for call in calls.values()]
    times = time_within(calls, ROUNDS_SECONDS)
    kept = [f"{int(mask.sum()):,}" for mask in masks]
    return [f"tensor of {n:,}", *against(times["theirs"], times["ours"]), *kept, _yes(torch.equal(*masks))]


def network_row(name: str) -> list[str]:
    """Linear and convolutional weights of a network, compared across layers."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)

    def theirs() -> nn.Module:
        copied = copy.deepcopy(model)
        layers = [(module, "weight") for module in copied.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=SPARSITY)
        return copied

    calls = {"ours": lambda: prune_magnitude(model, SPARSITY, scope="global"), "theirs": theirs}
    ours, other = ([m.weight != 0 for m in call().modules() if isinstance(m, nn.Linear | nn.Conv2d)] for call in calls.values())
    times = time_within(calls, ROUNDS_SECONDS, least=3)
    kept = [f"{sum(int(mask.sum()) for mask in masks):,}" for masks in (ours, other)]
    same = all(torch.equal(a, b) for a, b in zip(ours, other, strict=True))
    return [f"{name}, global", *against(times["theirs"], times["ours"]), *kept, _yes(same)]


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


if __name__ == "__main__":
    for table in run():
        print(table)
