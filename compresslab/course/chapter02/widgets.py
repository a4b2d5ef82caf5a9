"""The widget of chapter 02: bits, range and symmetry against the grid and its two kinds of error. Tested."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BINS = 81
MOST = 20_000  # numbers looked at, so that a position takes a few milliseconds


@dataclass(frozen=True)
class OnTheGrid:
    """One position of the controls: the numbers as a histogram, the levels, and the mean squared error in two parts."""

    edges: Sequence[float]
    counts: Sequence[float]
    levels: Sequence[float]
    scale: float
    rounding: float
    clipping: float
    clipped: float
    snr: float


class GridLook:
    """`look(bits, share, symmetric)`: lay a grid over these numbers and split the error that it makes.

    Args:
        x: the numbers, any shape, not all zero; at most 20,000 of them, evenly spaced, are looked at.
        choose_scale, quantize: the learner's own functions (exercises 2.1 and 2.2).
    """

    def __init__(self, x: Tensor, choose_scale: Callable[..., Any], quantize: Callable[..., Tensor]) -> None:
        self.x = x.detach().flatten()[:: -(-x.numel() // MOST)].float()
        self.choose_scale, self.quantize = choose_scale, quantize
        self.low, self.high = self.x.min().item(), self.x.max().item()
        self.peak = max(-self.low, self.high)
        room = 1.05 * self.peak
        self.edges = torch.linspace(-room, room, BINS + 1).tolist()
        self.counts = torch.histc(self.x, BINS, -room, room).tolist()

    def __call__(self, bits: int, share: float, symmetric: bool) -> OnTheGrid:
        """The grid over a share of the range.

        Args:
            bits: 2 to 8. share: of the range, above 0, at most 1.
            symmetric: as many levels on each side of 0, one fewer in all, over -share max|x| ... share max|x|;
                if not, all 2^bits over share min(x) ... share max(x).
        """
        x = self.x
        if symmetric:
            scale, zero_point = share * self.peak / (2 ** (bits - 1) - 1), 2 ** (bits - 1)
            x = x.clamp(-share * self.peak, share * self.peak)  # so that q = 0, the level without a partner, stays unused
        else:
            scale, zero_point = self.choose_scale(share * self.low, share * self.high, bits)
            scale, zero_point = float(scale), int(zero_point)
        levels = [scale * (q - zero_point) for q in range(int(symmetric), 2**bits)]
        squares = (self.x - scale * (self.quantize(x, scale, zero_point, bits).float() - zero_point)).square()
        outside = (self.x < levels[0] - scale / 2) | (self.x > levels[-1] + scale / 2)
        rounding, clipping = (float(squares[chosen].sum()) / len(x) for chosen in (~outside, outside))
        signal, noise = float(self.x.square().mean()), rounding + clipping
        return OnTheGrid(self.edges, self.counts, levels, scale, rounding, clipping, outside.double().mean().item(),
                         10 * math.log10(signal / noise) if noise else math.inf)


def draw_grid(axes: Sequence[Any], data: OnTheGrid) -> None:
    """Left the histogram with the levels under it and what is clipped hatched; right the two parts of the error."""
    left, right = axes
    width, half = data.edges[1] - data.edges[0], data.scale / 2
    for edge, count in zip(data.edges, data.counts):
        inside = data.levels[0] - half <= edge + width / 2 <= data.levels[-1] + half
        left.bar(edge, count, width, align="edge", color="#56B4E9" if inside else "#EEEEEE", edgecolor="#555555",
                 linewidth=0.3, hatch="" if inside else "/////")
    left.vlines(data.levels, 0.25, 0.7, color="#D55E00", linewidth=min(1.4, 60 / len(data.levels)))
    left.set(xlabel="value (ticks below: the levels)", ylabel="how many", yscale="log", ylim=(0.2, 2 * max(data.counts)))
    left.set_title(f"{len(data.levels)} levels, {data.clipped:.2%} clipped", fontsize=9)
    parts = {"rounding": data.rounding, "clipping": data.clipping}
    floor = 1e-9 * max(edge * edge for edge in data.edges)
    bars = right.bar(list(parts), [max(part, floor) for part in parts.values()], color=["#0072B2", "#E69F00"],
                     edgecolor="black", width=0.6)
    bars[1].set_hatch("///")
    right.bar_label(bars, [f"{part:.2g}" if part else "none" for part in parts.values()], fontsize=8)
    right.set(ylabel="mean squared error", yscale="log", ylim=(floor, 2e7 * floor * 60))
    right.set_title(f"signal to noise: {data.snr:.1f} dB", fontsize=9)
