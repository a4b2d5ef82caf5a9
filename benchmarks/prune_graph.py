"""Trace and prune a network by half: compresslab against torch-pruning, on this machine.

    python benchmarks/prune_graph.py [--model resnet50] [--size 224] [--repeats 9]

Both get a fresh copy of the same torchvision network, find the coupled channels, and remove half of
every group by L1 norm. The runs are interleaved, so that whatever else the machine does hits both.
Copying the network is part of our time (we return a new one) and not of theirs (they edit in place).
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import compresslab  # noqa: F401  (makes torchvision importable)

import torch_pruning
import torchvision
from compresslab.pruning.channels import prune_channels


def with_compresslab(model: nn.Module, x: torch.Tensor) -> nn.Module:
    return prune_channels(model, x, 0.5)


def with_torch_pruning(model: nn.Module, x: torch.Tensor) -> nn.Module:
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        x,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=[last],
    )
    pruner.step()
    return model


def seconds(
    run: Callable[[nn.Module, torch.Tensor], nn.Module], model: nn.Module, x: torch.Tensor
) -> tuple[float, float, int]:
    """Wall time, CPU time of this process, and the parameters that are left."""
    model = copy.deepcopy(model)
    wall, cpu = time.perf_counter(), time.process_time()
    small = run(model, x)
    return time.perf_counter() - wall, time.process_time() - cpu, sum(p.numel() for p in small.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    model = getattr(torchvision.models, options.model)(weights=None).eval()
    x = torch.randn(1, 3, options.size, options.size)
    seconds(with_compresslab, model, x), seconds(with_torch_pruning, model, x)  # warm up
    ours, theirs = [], []
    for _ in range(options.repeats):
        ours.append(seconds(with_compresslab, model, x))
        theirs.append(seconds(with_torch_pruning, model, x))
    for name, runs in (("compresslab", ours), ("torch-pruning", theirs)):
        times = [wall for wall, _, _ in runs]
        spread = f"{min(times):.3f}-{max(times):.3f}"
        print(
            f"{name:14} median {statistics.median(times):.3f} s ({spread} s), {runs[0][2]:,} parameters left"
        )
    for clock, name in enumerate(("wall time", "CPU time")):
        ratios = sorted(a[clock] / b[clock] for a, b in zip(ours, theirs, strict=True))
        spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
        print(
            f"ratio          median {statistics.median(ratios):.2f} ({spread}) of {name}, below 1 is faster"
        )
    threads = torch.get_num_threads()
    print(f"{options.model}, {options.size}x{options.size}, {options.repeats} repeats, {threads} threads")


if __name__ == "__main__":
    main()
