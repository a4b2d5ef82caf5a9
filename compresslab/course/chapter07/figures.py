"""The figures of the first half of chapter 07. They only draw; every number comes in as an argument."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from compresslab.course.chapter01.figures import curves

__all__ = ["cost_of_a_weight", "curves", "deep_compression", "ledger_bar", "level_sets", "map_of_hybrids", "returned", "word_lengths"]

BLUE, ORANGE, GREEN, GREY, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#CC79A7", "#56B4E9"
STAGES = {"dense": ("#000000", "o"), "pruned": (BLUE, "s"), "shared": (SKY, "X"), "coded": (GREY, "*")}
TITLES = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5", "vgg": "VGG-like", "resnet8": "ResNet-8"}
PARTS = {  # part of a file: (colour, hatch)
    "values": (ORANGE, ""), "index": (BLUE, "//"), "codebooks": (GREEN, ".."), "biases": (SKY, "xx"), "norm": (PINK, "++"),
    "other": ("#F0E442", "--"), "header": (GREY, "\\\\"),
}


def _means(rows: Iterable[Mapping[str, Any]]) -> tuple[float, float, list[float]]:
    """(mean bytes, mean accuracy in %, the accuracies of the seeds in %)."""
    rows = list(rows)
    accuracies = [100 * row["accuracy"] for row in rows]
    return mean(row["file_bytes"] for row in rows), mean(accuracies), accuracies


def deep_compression(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """Accuracy against file bytes after each stage, one panel for each network; small dense networks are open squares.

    Args:
        rows: dicts with `experiment` ("deep compression", "small dense" or "moonshot"; others are left out), `network`, `seed`,
            `file_bytes`, `accuracy` (a fraction) and, for "deep compression", `stage` (one of `STAGES`).
    """
    rows = [row for row in rows if row.get("experiment") in ("deep compression", "small dense", "moonshot")]
    networks = [name for name in TITLES if any(row["network"] == name for row in rows)]
    figure, grid = plt.subplots(1, max(len(networks), 1), figsize=(3.3 * max(len(networks), 2), 3.3), squeeze=False)
    for ax, network in zip(grid[0], networks):
        _stages(ax, [row for row in rows if row["network"] == network])
        ax.set(xscale="log", xlabel="file (kB)", title=TITLES[network])
        ax.margins(0.12)
        low, high = ax.get_xlim()
        ticks = [tick for tick in (10e3, 30e3, 100e3, 300e3, 1e6, 3e6) if low <= tick <= high]
        ticks = ticks if len(ticks) < 5 else ticks[::2]
        ax.set_xticks(ticks, [f"{tick / 1000:,.0f}" for tick in ticks])
        ax.minorticks_off()
    grid[0][0].set_ylabel("accuracy (%)")
    found = [ax.get_legend_handles_labels() for ax in grid[0]]
    named = {label: handle for handles, labels in found for handle, label in zip(handles, labels)}
    if networks:
        grid[0][-1].legend(named.values(), named, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _stages(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """One network: its stages, joined by a dashed line; the moonshot; the small dense networks."""
    stages = {stage: [row for row in rows if row["experiment"] == "deep compression" and row.get("stage") == stage] for stage in STAGES}
    path = [_means(own)[:2] for own in stages.values() if own]
    ax.plot([x for x, _ in path], [y for _, y in path], color=GREY, linestyle="--", linewidth=1.0)
    drawn = [(stage, *STAGES[stage], own) for stage, own in stages.items()]
    drawn.append(("moonshot", GREEN, "P", [row for row in rows if row["experiment"] == "moonshot"]))
    for label, color, marker, own in drawn:
        if own:
            x, y, seeds = _means(own)
            ax.plot(x, y, color=color, marker=marker, markersize=11 if marker in "*X" else 7, linestyle="", label=label, zorder=3)
            ax.plot([x] * len(seeds), seeds, linestyle="", marker="_", color=color, markersize=7)
    small: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["experiment"] == "small dense":
            small.setdefault(row["file_bytes"], []).append(row)
    points = [_means(own)[:2] for _, own in sorted(small.items())]
    line = "-" if len(points) > 1 else ""
    if points:
        ax.plot([x for x, _ in points], [y for _, y in points], color="black", marker="s", fillstyle="none", markersize=6, linewidth=1.6, linestyle=line,
                label="small dense network")


# -- the map -----------------------------------------------------------------------------------------

def map_of_hybrids() -> Figure:
    """The sub-families: which techniques meet, and what they meet in."""
    pairs = [("prune + share + code", "Deep Compression,\nCLIP-Q"), ("quantize + distil", "quantized distillation,\nlevels that learn"),
             ("project + train", "ADMM, LC: any of\nthe families as a set"), ("low rank + sparse", "what is common,\nand the exceptions"),
             ("compact + distil", "a small network\nwith a large teacher"), ("joint search", "sparsity and bits for\neach layer, one budget")]
    colors = (BLUE, ORANGE, GREY, "#E69F00", GREEN, PINK)
    figure, axes = plt.subplots(1, len(pairs), figsize=(11.6, 1.7))
    for ax, (name, what), color in zip(axes, pairs, colors):
        ax.add_patch(FancyBboxPatch((0.04, 0.1), 0.92, 0.8, boxstyle="round,pad=0.02", facecolor="white", edgecolor=color, linewidth=2.5))
        ax.text(0.5, 0.68, name, ha="center", va="center", fontsize=8.5, weight="bold")
        ax.text(0.5, 0.34, what, ha="center", va="center", fontsize=8.5)
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.axis("off")
    return figure


# -- where the bytes are -----------------------------------------------------------------------------

def ledger_bar(ledgers: Mapping[str, Mapping[str, int]]) -> Axes:
    """One stacked bar for each file: the bytes of its parts.

    Args:
        ledgers: {name of the file: {part: bytes}}, as `hybrid.file_ledger` gives them ("total" is left out).
    """
    _, ax = plt.subplots(figsize=(9.6, 0.9 + 0.55 * len(ledgers)))
    used = [part for part in PARTS if any(ledger.get(part, 0) for ledger in ledgers.values())]
    left = [0.0] * len(ledgers)
    for part in used:
        sizes = [ledger.get(part, 0) / 1000 for ledger in ledgers.values()]
        color, hatch = PARTS[part]
        ax.barh(list(ledgers), sizes, left=left, color=color, hatch=hatch, edgecolor="white", label=part, height=0.6)
        for row, (start, size) in enumerate(zip(left, sizes)):
            if size > 0.09 * max(sum(ledger.get(p, 0) for p in PARTS) / 1000 for ledger in ledgers.values()):
                ax.text(start + size / 2, row, f"{size:.1f}", ha="center", va="center", fontsize=9,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        left = [start + size for start, size in zip(left, sizes)]
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="file (kB)")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def cost_of_a_weight(densities: Sequence[float], place: Sequence[float], value: float, bound: Sequence[float]) -> Axes:
    """Bits for each weight that is left, against the density: its place, its value, and the least that a place can cost."""
    ax = curves({"its place, in gap codes": (densities, place), "its value": (densities, [value] * len(densities)),
                 "bound for the place, H(d) / d": (densities, bound)}, "density (weights left)", "bits for each weight that is left")
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    return ax


# -- codes and levels --------------------------------------------------------------------------------

def word_lengths(codes: Mapping[str, tuple[Sequence[float], Sequence[int]]]) -> Figure:
    """Length of each symbol's word against its share; the grey line is the ideal, -log2 of the share.

    Args:
        codes: {name: (shares, lengths)}; symbols with share 0 are left out.
    """
    figure, axes = plt.subplots(1, len(codes), figsize=(4.3 * len(codes), 2.8), squeeze=False)
    for ax, (name, (shares, lengths)) in zip(axes[0], codes.items()):
        points = sorted((p, length) for p, length in zip(shares, lengths) if p > 0)
        ax.plot([p for p, _ in points], [-math.log2(p) for p, _ in points], color=GREY, linestyle="--", label="$-\\log_2 p$")
        ax.plot([p for p, _ in points], [length for _, length in points], color=ORANGE, marker="o", linestyle="", markersize=4, label="word")
        ax.set(xscale="log", xlabel="share p of the symbol", ylabel="bits", title=name)
        ax.legend(fontsize=8)
    return figure


def level_sets(weights: Tensor, levels: Mapping[str, Sequence[float]]) -> Axes:
    """The histogram of the weights (log), and below it each set of levels as ticks."""
    _, ax = plt.subplots(figsize=(9.2, 3.0))
    ax.hist(weights.flatten().tolist(), bins=120, color=SKY)
    ax.set_yscale("log")
    top = ax.get_ylim()[1]
    for row, ((name, values), color) in enumerate(zip(levels.items(), (ORANGE, BLUE, GREEN))):
        height = 10 ** (-0.45 - 0.5 * row)
        ax.plot(list(values), [height] * len(values), linestyle="", marker="|", markersize=11, markeredgewidth=1.6, color=color)
        ax.text(float(weights.max()) * 1.04, height, f"{name}: {len(values)}", va="center", fontsize=9, color=color)
    ax.set_ylim(10 ** (-0.75 - 0.5 * len(levels)), top)
    ax.set(xlabel="weight", ylabel="weights in a bin")
    return ax


def returned(before: Tensor, after: Tensor, title: str = "") -> Axes:
    """Which weights of a matrix are shown at two times: + came back, x went, a square stayed, a dot is zero at both.

    Args:
        before, after: bool, (m, n), True where the weight is not zero.
    """
    rows, columns = before.shape
    _, ax = plt.subplots(figsize=(0.24 * columns + 2.4, 0.24 * rows + 0.7))
    kinds = {"stayed": (before & after, "s", GREY), "came back": (~before & after, "P", GREEN), "went": (before & ~after, "x", ORANGE),
             "zero": (~before & ~after, ".", "#BBBBBB")}
    for name, (mask, marker, color) in kinds.items():
        y, x = torch.nonzero(mask, as_tuple=True)
        ax.plot(x.tolist(), y.tolist(), linestyle="", marker=marker, color=color, markersize=3 if marker == "." else 7, label=f"{name}: {len(x)}")
    ax.set(xlim=(-0.7, columns - 0.3), ylim=(rows - 0.3, -0.7), xticks=[], yticks=[], title=title)
    ax.grid(visible=False)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax
