"""The figures of the first part of chapter 09. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compresslab.course import plots
from compresslab.course.chapter01.figures import curves

__all__ = ["curves", "draw_work", "gates", "masks", "opening", "positions", "trained"]

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
GATES = ("input i", "forget f", "candidate g", "output o")


FAMILY_NAMES = {"quantization": "fewer bits", "lowrank": "a shorter state", "hybrid": "two methods together"}


def opening(families: Mapping[str, Iterable[Mapping[str, Any]]]) -> Axes:
    """Bits per character against file bytes: the chapter's promise.

    Args:
        families: {name of the network: rows}; a row has `file_bytes` and `bits` (bits per character), and the first row is
            the float32 network. A `label` is written beside its point.
    """
    _, ax = plt.subplots(figsize=(7.6, 3.8))
    for (name, rows), (marker, color) in zip(families.items(), (("o", ORANGE), ("s", BLUE), ("^", GREEN))):
        first, *others = rows
        ax.plot([row["file_bytes"] / 1000 for row in others], [row["bits"] for row in others], marker, color=color, label=f"{name}, compressed")
        ax.plot(first["file_bytes"] / 1000, first["bits"], marker, color=color, fillstyle="none", markersize=10, label=f"{name}, float32")
        ax.axhline(first["bits"], color=color, linewidth=0.8, linestyle=":")
        for row in others:
            if row.get("label"):
                ax.annotate(row["label"], (row["file_bytes"] / 1000, row["bits"]), xytext=(5, 5), textcoords="offset points", fontsize=8)
    ticks = [100, 200, 500, 1000, 2000, 5000]
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="file (kB)", ylabel="bits per character (test text)")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def positions(curves_: Mapping[str, Sequence[float]], guess: float) -> Axes:
    """Bits at each position of a window, averaged over windows, and what guessing costs.

    Args:
        curves_: {network: bits at positions 1, 2, ...}. guess: log2 of the vocabulary.
    """
    _, ax = plt.subplots(figsize=(6.8, 3.2))
    for (name, bits), (color, line) in zip(curves_.items(), ((ORANGE, "-"), (BLUE, "--"), (GREEN, "-."))):
        ax.plot(range(1, len(bits) + 1), bits, color=color, linestyle=line, label=name)
    ax.axhline(guess, color="black", linewidth=0.9, linestyle=":", label="guessing among all characters")
    ax.set_xscale("log", base=2)
    ticks = [1, 2, 4, 8, 16, 32, 64, 128]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.set(xlabel="position in the window (characters)", ylabel="bits", ylim=(0, 1.05 * guess))
    ax.legend(fontsize=8)
    return ax


def gates(kept: Sequence[float]) -> Axes:
    """The share of weights that is left in each gate of a pruned recurrent matrix, in [0, 1]."""
    _, ax = plt.subplots(figsize=(5.4, 2.2))
    ax.barh(GATES, [100 * share for share in kept], color=BLUE, height=0.6)
    for place, share in enumerate(kept):
        ax.text(100 * share, place, f" {100 * share:.0f} %", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="weights left (%)", xlim=(0, 115 * max(kept)))
    return ax


def masks(panels: Mapping[str, Any], blocks: int) -> Figure:
    """Small matrices side by side; the element that has a row is written beside it.

    Args:
        panels: {title: matrix}, all of one shape. blocks: number of elements.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.0))
    for ax, (title, matrix) in zip(axes, panels.items()):
        plots.tensor(ax, matrix, title, digits=1)
        for row in range(len(matrix)):
            ax.text(-0.15, row + 0.5, f"element {row % blocks}", ha="right", va="center", fontsize=8)
    return figure


def draw_work(ax: Axes, data: Mapping[str, Any]) -> None:
    """Bars: the weights left for each element; the line is their mean. For a slider.

    Args:
        data: `sparsity`, `work` (one number per element) and `utilisation`.
    """
    work = list(data["work"])
    mean = sum(work) / len(work)
    ax.bar(range(len(work)), work, color=[ORANGE if w == max(work) else BLUE for w in work], width=0.85)
    ax.axhline(mean, color="black", linestyle="--", linewidth=1.0)
    ax.grid(axis="x", visible=False)
    ax.set(xlabel="processing element", ylabel="weights left (= cycles)",
           title=f"sparsity {data['sparsity']:.2f}: busy {100 * data['utilisation']:.0f} % of the time")


def trained(rows: Iterable[Mapping[str, Any]], largest: float) -> Axes:
    """More bits per character, in %, with intervals, against how many times smaller the file is.

    Args:
        rows: `step`, `file_bytes`, `relative`, `low`, `high` (fractions). largest: bytes of the float32 file.
    """
    _, ax = plt.subplots(figsize=(8.4, 4.0))
    seen = set()
    for row in rows:
        step, x, y = row["step"], largest / row["file_bytes"], 100 * row["relative"]
        name = "hybrid" if "4 bits" in step and "projected" in step or "pruned" in step else "lowrank" if "projected" in step else "quantization"
        color, marker, _ = plots.FAMILIES[name]
        ax.errorbar(x, y, [[y - 100 * row["low"]], [100 * row["high"] - y]], marker=marker, color=color, linestyle="", capsize=3, markersize=8,
                    fillstyle="full" if "trained" in step or "tuned" in step else "none", label=None if name in seen else FAMILY_NAMES[name])
        seen.add(name)
        above, left = "ternary" in step, "rounded" in step or x > 12
        ax.annotate(step, (x, y), xytext=(0, 12) if above else (-8 if left else 8, 0), textcoords="offset points", fontsize=8.5,
                    ha="center" if above else "right" if left else "left", va="bottom" if above else "center")
    ax.axhline(3, color="black", linewidth=0.9, linestyle="--", label="goal: at most 3 %", zorder=0)
    ax.axvline(8, color="black", linewidth=0.9, linestyle=":", label="goal: 8 times smaller", zorder=0)
    ax.set(xlim=(0.5, 17.5), xlabel="times smaller than the float32 file", ylabel="more bits per character (%)")
    ax.legend(fontsize=8.5, loc="upper left")
    return ax
