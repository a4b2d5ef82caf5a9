"""Does pruning make a network faster? Removed channels, and zeros in a dense kernel, beside the network as it was.

    python benchmarks/pruned_latency.py
"""

import torch

from compresslab.core import bake, count_macs, speedup, time_models
from compresslab.models import load_baseline
from compresslab.pruning import prune_channels_to_macs, prune_magnitude

SHAPE = (3, 32, 32)


def main() -> None:
    dense = load_baseline("vgg")
    nets = {
        "dense": dense,
        "half the MACs": prune_channels_to_macs(dense, torch.zeros(1, *SHAPE), 0.5, round_to=8),
        "90 % zeros": bake(prune_magnitude(dense, 0.9, scope="global")),
    }
    for batch in (1, 32):
        times = time_models(nets, torch.randn(batch, *SHAPE), repeats=40)
        print(f"batch {batch}, {torch.get_num_threads()} threads, channels_last")
        for name, net in nets.items():
            gain = speedup(times["dense"], times[name])
            print(f"  {name:14} {count_macs(net, SHAPE).total / 1e6:6.1f} M MACs {times[name].median:7.2f} ms   "
                  f"{gain.ratio:.2f} times as fast  [{gain.low:.2f}, {gain.high:.2f}]")


if __name__ == "__main__":
    main()
