"""Does pruning make a network faster? Removed channels, and zeros in a dense kernel, beside the network as it was.

    python -m benchmarks pruned_latency

Budget: 10 seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.report import Table, show_ratio, show_time, threads_note
from compresslab.core import bake, count_macs, speedup, time_models
from compresslab.models import load_baseline
from compresslab.pruning import prune_channels_to_macs, prune_magnitude

BUDGET = 10  # seconds
SHAPE = (3, 32, 32)


def run(network: str = "vgg", batches: Sequence[int] = (1, 32), rounds: int = 40) -> list[Table]:
    """Time the three networks in eager PyTorch."""
    dense = load_baseline(network)
    nets = {
        "dense": dense,
        "half the MACs": prune_channels_to_macs(dense, torch.zeros(1, *SHAPE), 0.5, round_to=8),
        "90 % zeros": bake(prune_magnitude(dense, 0.9, scope="global")),
    }
    rows = []
    for batch in batches:
        x = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
        times = time_models(nets, x, repeats=rounds)
        for name, net in nets.items():
            gain = speedup(times["dense"], times[name])
            macs = f"{count_macs(net, SHAPE).total / 1e6:.1f}"
            rows.append([f"batch {batch}, {name}", macs, show_time(times[name]), show_ratio(gain), gain.verdict])
    note = f"{network} in eager PyTorch, channels_last; {threads_note()}."
    columns = ["network", "MACs (millions)", "latency (ms)", "times as fast as dense", "verdict"]
    return [Table("Pruned networks", note, columns, rows)]


if __name__ == "__main__":
    for table in run():
        print(table)
