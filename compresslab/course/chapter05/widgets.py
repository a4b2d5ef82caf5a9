"""The widget of chapter 05: a rank, and a way to flatten, against the rebuilt filters and what they cost. Tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

COLORS = {"output": "#0072B2", "input": "#009E73", "spatial": "#D55E00", "pixel": "#CC79A7"}
STYLES = {"output": "-", "input": "--", "spatial": "-.", "pixel": ":"}
AXES = {"output": (0, 1, 2, 3), "input": (1, 0, 2, 3), "spatial": (1, 2, 0, 3), "pixel": (2, 3, 0, 1)}


@dataclass(frozen=True)
class Rebuilt:
    """One position of the controls: some filters before and after, and the whole curve of error against cost.

    Attributes:
        name: the flattening. rank: what is kept of it, never more than there is.
        before, after: (rows, columns, kh, kw), the same filters of the kernel.
        shares: {flattening: share of the kernel's numbers at each rank from 1}.
        errors: {flattening: relative error at each rank from 1}.
    """

    name: str
    rank: int
    before: Tensor
    after: Tensor
    shares: Mapping[str, Sequence[float]]
    errors: Mapping[str, Sequence[float]]


class RankLook:
    """`look(rank, flattening)`: the kernel with one of its four matrices cut to a rank.

    Args:
        kernel: (N, C, kh, kw).
        flattenings: the learner's own function (exercise 5.3).
        shown: (outputs, inputs): how many filters are shown.
    """

    def __init__(self, kernel: Tensor, flattenings: Callable[[Tensor], Mapping[str, Tensor]], shown: tuple[int, int] = (5, 8)) -> None:
        self.kernel, self.shown = kernel.detach().double(), shown
        matrices = {name: flattenings(self.kernel)[name] for name in AXES}
        self.parts = {name: torch.linalg.svd(matrix, full_matrices=False) for name, matrix in matrices.items()}
        self.shares, self.errors = {}, {}
        for name, (U, S, Vh) in self.parts.items():
            left = 1 - S.square().cumsum(0) / S.square().sum()
            self.errors[name] = left.clamp(min=0).sqrt().tolist()
            self.shares[name] = [k * (len(U) + Vh.shape[1]) / kernel.numel() for k in range(1, len(S) + 1)]

    def __call__(self, rank: int, flattening: int) -> Rebuilt:
        """Cut one matrix to a rank, and bring it back to the shape of the kernel.

        Args:
            rank: at least 1; more than there is counts as all.
            flattening: 0 output, 1 input, 2 spatial, 3 pixel.
        """
        name = list(AXES)[int(flattening)]
        U, S, Vh = self.parts[name]
        k, order = min(int(rank), len(S)), AXES[name]
        shape = [self.kernel.shape[axis] for axis in order]
        rebuilt = ((U[:, :k] * S[:k]) @ Vh[:k]).reshape(shape).permute([order.index(axis) for axis in range(4)])
        n, c = self.shown
        return Rebuilt(name, k, self.kernel[:n, :c], rebuilt[:n, :c], self.shares, self.errors)


def mosaic(filters: Tensor, gap: float = float("nan")) -> Tensor:
    """(rows, columns, kh, kw) side by side in one picture, with a line of `gap` between them."""
    rows, columns, kh, kw = filters.shape
    padded = torch.full((rows, columns, kh + 1, kw + 1), gap, dtype=filters.dtype)
    padded[:, :, :kh, :kw] = filters
    return padded.permute(0, 2, 1, 3).reshape(rows * (kh + 1), columns * (kw + 1))[:-1, :-1]


def draw_ranks(axes: Sequence[Any], data: Rebuilt) -> None:
    """Left some filters; in the middle the same, rebuilt; right the error against the cost, for all four flattenings."""
    left, middle, right = axes
    top = data.before.abs().max().item()
    for ax, filters, title in ((left, data.before, "the filters"), (middle, data.after, f"'{data.name}' at rank {data.rank}")):
        ax.imshow(mosaic(filters).numpy(), cmap="cividis", vmin=-top, vmax=top)
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        old = ax.get_title()
        ax.set_title(f"{old}\n{title}" if old else title, fontsize=9)
    for name in COLORS:
        chosen = name == data.name
        right.plot([100 * share for share in data.shares[name]], data.errors[name], color=COLORS[name], linestyle=STYLES[name],
                   linewidth=2.4 if chosen else 1.0, label=name)
    share, error = data.shares[data.name][data.rank - 1], data.errors[data.name][data.rank - 1]
    right.plot(100 * share, error, "o", color=COLORS[data.name], markersize=8)
    right.axvline(100, color="black", linewidth=0.8, linestyle=":")
    right.set(xlabel="numbers to store (% of the kernel)", ylabel="relative error", xlim=(0, 150), ylim=(0, 1))
    right.set_title(f"{share:.0%} of the numbers, error {error:.2f}", fontsize=9)
    right.legend(fontsize=7, loc="upper right")
