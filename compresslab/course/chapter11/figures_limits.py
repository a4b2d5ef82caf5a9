"""The figures of the section on limits. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY, PINK = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#CC79A7"
LOOKS = {"resnet8": (BLUE, "s"), "vgg": (ORANGE, "^"), "mobilenet": (GREEN, "D")}
Point = tuple[str, float, float]  # name, MACs per byte, MACs per second


def roof(ax: Axes, peak: float, bandwidth: float, span: tuple[float, float], **look: Any) -> None:
    """min(peak, bandwidth * intensity), in GMAC per second."""
    x = np.geomspace(*span, 200)
    ax.plot(x, np.minimum(peak, bandwidth * x) / 1e9, **look)


def layers_on_the_roof(panels: Mapping[str, Mapping[str, Sequence[Point]]], peak: float, bandwidth: float, cache: float) -> Figure:
    """What every layer reaches, under the roof of memory and that of the cache; a panel per batch size.

    Args:
        panels: title -> network -> points; a name that is not empty is written beside its point.
        peak: MACs per second. bandwidth, cache: bytes per second.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 3.9), sharey=True, squeeze=False)
    span = _span(panels)
    for ax, (title, networks) in zip(axes[0], panels.items(), strict=True):
        roof(ax, peak, cache, span, color=GREY, linestyle=":", label="roof, bytes from the cache")
        roof(ax, peak, bandwidth, span, color="black", label="roof, bytes from memory")
        for network, points in networks.items():
            color, marker = LOOKS.get(network, (PINK, "o"))
            ax.plot([x for _, x, _ in points], [y / 1e9 for _, _, y in points], linestyle="", marker=marker, color=color, markersize=6,
                    markeredgecolor="black", markeredgewidth=0.4, label=network)
            for name, x, y in points:
                if name:
                    ax.annotate(name, (x, y / 1e9), xytext=(5, -9), textcoords="offset points", fontsize=7.5)
        ax.set(xscale="log", yscale="log", xlim=span, xlabel="MACs per byte", title=title)
    axes[0][0].set_ylabel("GMAC per second")
    axes[0][0].legend(fontsize=7.5, loc="lower right")
    return figure


def _span(panels: Mapping[str, Mapping[str, Sequence[Point]]]) -> tuple[float, float]:
    """From below the smallest intensity to above the largest."""
    values = [x for networks in panels.values() for points in networks.values() for _, x, _ in points]
    return 0.6 * min(values), 2.5 * max(values)


def moving_points(ax: Axes, data: Mapping[str, Any]) -> None:
    """For the slider: the layers of one network in 32 and in 8 bits, each on the roof of its numbers."""
    looks = {32: (BLUE, "s", "-"), 8: (ORANGE, "^", "--")}
    words = []
    for bits, series in data["series"].items():
        color, marker, line = looks.get(bits, (GREY, "o", ":"))
        roof(ax, series["peak"], data["bandwidth"], (0.05, 2000), color=color, linestyle=line, linewidth=1.2)
        ax.plot([x for _, x, _ in series["points"]], [y / 1e9 for _, _, y in series["points"]], linestyle="", marker=marker, color=color,
                markeredgecolor="black", markeredgewidth=0.4, label=f"{bits} bits")
        words.append(f"{bits} bits: {series['waiting']} of {len(series['points'])} layers wait for bytes")
    ceiling = max(series["peak"] for series in data["series"].values()) / 1e9
    ax.set(xscale="log", yscale="log", xlim=(0.05, 2000), ylim=(ceiling / 2000, 20 * ceiling), xlabel="MACs per byte", ylabel="GMAC per second")
    ax.text(0.03, 0.97, "\n".join(words), transform=ax.transAxes, fontsize=7.5, va="top")
    ax.legend(fontsize=8, loc="lower right")


def promises(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Predicted gains as bars from the careful to the bold one, measured gains as dots with intervals.

    Args:
        rows: with network, batch, change, careful, bold, gain, gain_low, gain_high.
    """
    figure, ax = plt.subplots(figsize=(7.2, 0.33 * len(rows) + 1.1))
    for place, row in enumerate(rows):
        left, right = sorted((row["careful"], row["bold"]))
        ax.barh(place, right - left, left=left, height=0.6, color="#CFE3F2", edgecolor=BLUE, label="predicted, careful to bold" if place == 0 else None)
        error = [[max(0.0, row["gain"] - row["gain_low"])], [max(0.0, row["gain_high"] - row["gain"])]]
        ax.errorbar(row["gain"], place, xerr=error, color=ORANGE, marker="o", capsize=3, linestyle="", label="measured" if place == 0 else None)
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_yticks(range(len(rows)), [f"{row['network']}, batch {row['batch']}: {row['change']}" for row in rows])
    ax.set(xlabel="times faster than float32 in the same engine", xscale="log", ylim=(len(rows) - 0.4, -1.9))
    ax.set_xticks(ticks := [1, 2, 4, 8, 16], [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="upper right", ncols=2)
    return figure
