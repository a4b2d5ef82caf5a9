"""The slider of chapter 01: sparsity against the histogram of the weights and the accuracy. Plain functions, tested."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.core.modules import named_layers
from compresslab.course import plots

BINS = 61
CURVE = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Pruned:
    """What one position of the slider shows: a histogram split in two, and a point on a curve."""

    sparsity: float
    edges: Sequence[float]
    kept: Sequence[float]
    gone: Sequence[float]
    accuracy: float
    curve: Sequence[tuple[float, float]]


class PruneLook:
    """`look(sparsity)`: prune every layer of a copy to this sparsity, without training, and look at it.

    Args:
        model: the dense network. mask: `magnitude_mask`, the learner's own.
        x, y: a thousand images and their labels, so that a position takes a few milliseconds.
    """

    def __init__(self, model: nn.Module, mask: Callable[[Tensor, float], Tensor], x: Tensor, y: Tensor) -> None:
        self.model, self.x, self.y = copy.deepcopy(model), x, y
        self.mask = mask
        self.dense = {name: layer.weight.detach().clone() for name, layer in named_layers(self.model).items()}
        self.everything = torch.cat([weight.flatten() for weight in self.dense.values()])
        self.limit = float(self.everything.abs().quantile(0.999)) if len(self.everything) < 2**24 else 1.0
        self.curve = tuple((sparsity, self._accuracy(sparsity)[0]) for sparsity in CURVE)

    @torch.no_grad()
    def _accuracy(self, sparsity: float) -> tuple[float, Tensor]:
        masks = {name: self.mask(weight, sparsity) for name, weight in self.dense.items()}
        for name, layer in named_layers(self.model).items():
            layer.weight.copy_(self.dense[name] * masks[name])
        right = (self.model(self.x).argmax(1) == self.y).double().mean().item()
        return right, torch.cat([mask.flatten() for mask in masks.values()])

    def __call__(self, sparsity: float) -> Pruned:
        accuracy, keep = self._accuracy(sparsity)
        kept, gone = (torch.histc(self.everything[chosen], BINS, -self.limit, self.limit).tolist() for chosen in (keep, ~keep))
        edges = torch.linspace(-self.limit, self.limit, BINS + 1).tolist()
        return Pruned(sparsity, edges, kept, gone, accuracy, self.curve)


def draw_pruned(axes: Sequence[Any], data: Pruned) -> None:
    """Left the weights, those that go hatched; right the accuracy without training, with your position on it."""
    left, right = axes
    width = data.edges[1] - data.edges[0]
    left.bar(data.edges[:-1], data.kept, width, align="edge", color="#0072B2", label="kept")
    left.bar(data.edges[:-1], data.gone, width, align="edge", bottom=data.kept, color="#DDDDDD", edgecolor="#777777",
             linewidth=0.3, hatch="////", label="pruned")
    left.set(xlabel="weight", ylabel="number of weights", yscale="symlog", ylim=(0, 5e4))
    left.legend(loc="upper left", fontsize=7)
    x, y = zip(*data.curve)
    right.plot([100 * s for s in x], [100 * a for a in y], **(plots.family("pruning") | {"markersize": 3}))
    right.plot(100 * data.sparsity, 100 * data.accuracy, "o", color="#D55E00", markersize=10)
    right.set(xlabel="sparsity (%)", ylabel="accuracy (%)", ylim=(0, 102))
    right.set_title(f"{100 * data.accuracy:.1f} % right, not retrained", fontsize=9)
