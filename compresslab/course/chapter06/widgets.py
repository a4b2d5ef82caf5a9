"""The widget of chapter 06: the number of buckets against collisions and accuracy. Tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compresslab.course.chapter06.figures import table

BLUE, ORANGE = "#0072B2", "#D55E00"
LOOKS = ((ORANGE, "X", "-"), (BLUE, "o", "--"))


@dataclass(frozen=True)
class Buckets:
    """One position of the control: a corner of the table, who shares, and what it cost."""

    buckets: int
    corner: Tensor
    signs: Tensor
    sharing: float
    empty: float
    accuracies: Mapping[str, Mapping[int, float]]


class BucketLook:
    """`look(power)`: a weight hashed into 2^power buckets.

    Args:
        hash_indices: the learner's own function (exercise 6.3).
        shape: of the weight.
        accuracies: {name: {buckets: accuracy, a fraction}}, measured before.
        seed: of the hash. side: rows and columns of the corner that is drawn.
    """

    def __init__(self, hash_indices: Callable[..., tuple[Tensor, Tensor]], shape: tuple[int, int],
                 accuracies: Mapping[str, Mapping[int, float]], seed: int = 0, side: int = 12) -> None:
        self.hash_indices, self.shape, self.accuracies, self.seed, self.side = hash_indices, shape, accuracies, seed, side

    def __call__(self, power: int) -> Buckets:
        """The table for 2^power buckets.

        Args:
            power: a whole number, at least 0.
        """
        buckets = 2 ** int(power)
        indices, signs = self.hash_indices(self.shape, buckets, self.seed)
        loads = torch.bincount(indices.flatten(), minlength=buckets)
        sharing = float(loads[loads > 1].sum()) / indices.numel()
        side = self.side
        return Buckets(buckets, indices[:side, :side], signs[:side, :side], sharing, float((loads == 0).double().mean()), self.accuracies)


def draw_buckets(axes: Sequence[Any], data: Buckets) -> None:
    """Left a corner of the weight, equal colours one number, bars for minus; right the accuracies, a line at the control's position."""
    left, right = axes
    table(left, data.corner, data.signs)
    left.set_title(f"{data.buckets} bucket{'s' * (data.buckets > 1)}, {data.empty:.0%} empty;\n{data.sharing:.0%} of the weights share", fontsize=9)
    for (name, points), (color, marker, style) in zip(data.accuracies.items(), LOOKS):
        right.plot(list(points), [100 * value for value in points.values()], color=color, marker=marker, linestyle=style, label=name)
    right.axvline(data.buckets, color="black", linewidth=1.0, linestyle=":")
    right.set(xscale="log", xlabel="buckets", ylabel="accuracy (%)")
    right.legend(fontsize=8, loc="lower right")
