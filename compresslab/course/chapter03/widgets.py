"""The widget of chapter 03: width, kernel and groups against the three prices of a layer. Plain functions, tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compresslab.course.chapter03.figures import BLUE, GREEN, ORANGE

CHANNELS, KERNEL, SIDE = 64, 3, 16


@dataclass(frozen=True)
class Priced:
    """One position of the controls: the layer in words, its three prices, and those of the layer at the start."""

    layer: str
    cost: tuple[int, int, int]
    start: tuple[int, int, int]


class CostLook:
    """`look(width_mult, kernel_size, log_groups)`: the prices of one layer of a network whose width is multiplied.

    Args:
        conv_cost: the learner's own function (exercise 3.1).
    """

    def __init__(self, conv_cost: Callable[..., Any]) -> None:
        self.conv_cost = conv_cost
        self.start = self._cost(1.0, KERNEL, 1)

    def _cost(self, width_mult: float, kernel_size: int, groups: int) -> tuple[int, int, int]:
        channels = round(width_mult * CHANNELS)
        parameters, macs, moved = self.conv_cost(channels, channels, kernel_size, SIDE, SIDE, 1, groups)
        return int(parameters), int(macs), int(moved)

    def __call__(self, width_mult: float, kernel_size: int, log_groups: int) -> Priced:
        """Price one layer.

        Args:
            width_mult: of the 64 channels, 0.25 to 2 in quarters. kernel_size: odd. log_groups: 0 to 4, for 1 to 16 groups.
        """
        groups, channels = 2**log_groups, round(width_mult * CHANNELS)
        layer = f"{channels} to {channels}, {kernel_size}x{kernel_size}" + (f", {groups} groups" if groups > 1 else "")
        return Priced(layer, self._cost(width_mult, kernel_size, groups), self.start)


def draw_cost(ax: Any, data: Priced) -> None:
    """The three prices as factors of those at the start, on a log axis."""
    factors = [now / before for now, before in zip(data.cost, data.start)]
    bars = ax.barh(("parameters", "MACs", "moved"), [factor - 1 for factor in factors], left=1, height=0.6,
                   color=[BLUE, ORANGE, GREEN], edgecolor="black")
    for bar, hatch in zip(bars, ("", "//", "..")):
        bar.set_hatch(hatch)
    for place, (factor, amount) in enumerate(zip(factors, data.cost)):
        ax.text(0.0075, place - 0.42, f"{factor:.3g}x: {amount:,}", va="bottom", ha="left", fontsize=8)
    ax.axvline(1, color="black", linewidth=1)
    ax.set(xscale="log", xlim=(0.007, 30), ylim=(2.5, -0.75), xlabel=f"times {CHANNELS} to {CHANNELS}, {KERNEL}x{KERNEL}")
    ax.set_title(data.layer, fontsize=9)
