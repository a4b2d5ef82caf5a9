"""The figures of the first half of chapter 03. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
BLOCKS = {  # name: (colour, marker)
    "plain": ("#000000", "o"),
    "residual": ("#7A7A7A", "s"),
    "fire": ("#D55E00", "^"),
    "separable": ("#009E73", "D"),
    "inverted": ("#0072B2", "v"),
    "shuffle_v1": ("#CC79A7", "P"),
    "shuffle_v2": ("#E69F00", "X"),
    "ghost": ("#56B4E9", "*"),
}
PRICES = ("parameters", "multiply-accumulates", "numbers moved")


def blocks_compared(rows: Iterable[Mapping[str, Any]], batch: int = 64) -> Figure:
    """Accuracy against parameters, MACs and latency, side by side: one symbol for each block, a short mark for each seed.

    Args:
        rows: the evidence of chapter 03. {"experiment": "blocks", "block", "seed", "parameters", "macs", "accuracy"} and
            {"experiment": "latency", "batch", "rows": [{"block", "milliseconds", "q1", "q3"}]}; others are passed over.
        batch: which latency is shown.
    """
    rows = list(rows)
    trained = [row for row in rows if row.get("experiment") == "blocks"]
    times = {row["block"]: row for entry in rows if entry.get("experiment") == "latency" and entry["batch"] == batch
             for row in entry["rows"]}
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.6), sharey=True)
    for block, (color, marker) in BLOCKS.items():
        own = [row for row in trained if row["block"] == block]
        if not own:
            continue
        right = [100 * row["accuracy"] for row in own]
        prices = [own[0]["parameters"] / 1e3, own[0]["macs"] / 1e6, times[block]["milliseconds"] if block in times else None]
        for ax, price in zip(axes, prices):
            if price is not None:
                ax.plot([price] * len(right), right, linestyle="", marker="_", color=color, markersize=9)
                ax.plot(price, mean(right), linestyle="", marker=marker, color=color, markersize=8, label=block)
        if block in times:
            axes[2].hlines(mean(right), times[block]["q1"], times[block]["q3"], color=color, linewidth=1.2)
    labels = ("parameters (thousands)", "MACs per image (millions)", f"time per image (ms), batches of {batch}")
    for ax, label in zip(axes, labels):
        highest = max((float(max(line.get_xdata())) for line in ax.get_lines()), default=1.0)
        ax.set(xlabel=label, xlim=(0, 1.1 * highest))
    axes[0].margins(y=0.1)
    axes[0].set_ylabel("accuracy (%)")
    if trained:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(BLOCKS), fontsize=8,
                      handletextpad=0.2, columnspacing=1.0)
    return figure


# -- the map -----------------------------------------------------------------------------------------

def _connections(kind: str) -> Tensor:
    """Which of 8 inputs reach which of 8 outputs in one layer: (8, 8), 1 for a full kernel, less for a smaller one."""
    group = torch.arange(8) // 4
    grouped = (group[:, None] == group).float()
    if kind == "smaller kernels":
        return torch.full((8, 8), 0.35)
    if kind == "groups":
        return grouped
    if kind == "depthwise":
        return torch.eye(8)
    return torch.ones(8, 8)


MAP = (
    ("dense", "every input channel,\na 3x3 kernel for each", "8 x 8 kernels"),
    ("smaller kernels", "1x1 where that will do;\nFire, bottlenecks", "sections 2, 5"),
    ("depthwise", "one kernel per channel,\nthen a 1x1 mixture", "section 3"),
    ("groups", "no kernels between\ngroups; then a shuffle", "section 4"),
)
LEVELS = (
    ("kernel level", "fewer numbers in a layer: 1x1 kernels, depthwise, groups (sections 1 to 4)"),
    ("block level", "layers that save together: bottlenecks, gates, shortcuts, cheap ghosts (5 to 7)"),
    ("network level", "width, depth, resolution: scaled, dropped, left early, searched (8, 9)"),
)


def map_of_compact() -> Figure:
    """Above: which kernels a layer has, inputs against outputs. Below: the three levels of design."""
    figure, grid = plt.subplots(2, 4, figsize=(10.0, 4.1), height_ratios=(2.3, 1))
    for ax, (kind, words, where) in zip(grid[0], MAP):
        for o, row in enumerate(_connections(kind).tolist()):
            for i, size in enumerate(row):
                ax.add_patch(Rectangle((i, o), 1, 1, facecolor="white", edgecolor="#CCCCCC", linewidth=0.5))
                inset = (1 - 0.86 * size) / 2
                if size:
                    ax.add_patch(Rectangle((i + inset, o + inset), 1 - 2 * inset, 1 - 2 * inset, facecolor=GREEN, edgecolor="black",
                                           linewidth=0.4))
        ax.set(xlim=(-0.1, 8.1), ylim=(8.1, -0.1), aspect="equal")
        ax.set_title(f"{kind}\n", fontsize=10, fontweight="bold")
        ax.text(4, -0.5, where, ha="center", fontsize=9, style="italic")
        ax.text(4, 8.5, words, ha="center", va="top", fontsize=8.5)
        ax.axis("off")
    for ax in grid[1]:
        ax.remove()
    below = figure.add_subplot(grid[1, 0].get_gridspec()[1, :])
    below.axis("off")
    for line, (level, words) in enumerate(LEVELS):
        below.text(0.04, 0.75 - 0.3 * line, level, fontweight="bold", va="top", fontsize=9.5, transform=below.transAxes)
        below.text(0.20, 0.75 - 0.3 * line, words, va="top", fontsize=9.5, transform=below.transAxes)
    return figure


# -- costs -------------------------------------------------------------------------------------------

def cost_by_layer(costs: Mapping[str, Sequence[float]]) -> Figure:
    """Each layer's share of the three prices, side by side.

    Args:
        costs: {layer: (parameters, MACs, numbers moved)}.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 0.9 + 0.27 * len(costs)), sharey=True)
    for ax, price, color, hatch, amounts in zip(axes, PRICES, (BLUE, ORANGE, GREEN), ("", "//", ".."), zip(*costs.values())):
        shares = [100 * amount / sum(amounts) for amount in amounts]
        bars = ax.barh(range(len(costs)), shares, color=color, edgecolor="black", hatch=hatch)
        ax.bar_label(bars, [f" {share:.1f}" if share < 10 else f" {share:.0f}" for share in shares], fontsize=8)
        ax.set(xlabel=f"{price} (%)", xlim=(0, 1.18 * max(shares)))
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(costs)), list(costs))
    axes[0].set_ylim(len(costs) - 0.4, -0.6)
    return figure


def three_prices(costs: Mapping[str, Sequence[float]]) -> Axes:
    """Several layers or blocks, their three prices as shares of the first one's.

    Args:
        costs: {name: (parameters, MACs, numbers moved)}, the one to compare with first.
    """
    _, ax = plt.subplots(figsize=(7.6, 2.9))
    first = next(iter(costs.values()))
    width = 0.8 / len(PRICES)
    looks = zip(PRICES, (BLUE, ORANGE, GREEN), ("", "//", ".."))
    for place, (price, color, hatch) in enumerate(looks):
        shares = [100 * cost[place] / first[place] for cost in costs.values()]
        bars = ax.bar([k + (place - 1) * width for k in range(len(costs))], shares, width, color=color, edgecolor="black", hatch=hatch,
                      label=price)
        ax.bar_label(bars, [f"{share:.3g}" for share in shares], fontsize=8)
    ax.set_xticks(range(len(costs)), list(costs))
    ax.set(ylabel=f"% of {next(iter(costs))}")
    ax.margins(y=0.15)
    ax.grid(axis="x", visible=False)
    ax.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return ax


# -- kernels and connections -------------------------------------------------------------------------

def kernels(before: Tensor, after: Tensor, titles: Sequence[str] = ("trained", "nearest separable")) -> Figure:
    """The kernels of one input channel for several outputs, above as they are, below as multiples of one.

    Args:
        before, after: (n, k, k) each, on one scale of grey values.
    """
    figure, grid = plt.subplots(2, len(before), figsize=(0.85 * len(before) + 1.2, 1.9), squeeze=False)
    peak = float(before.abs().max())
    for axes, rows, title in zip(grid, (before, after), titles):
        for place, (ax, kernel) in enumerate(zip(axes, rows)):
            image = ax.imshow(kernel.numpy(), cmap="RdBu", vmin=-peak, vmax=peak)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            if not place:
                ax.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
    figure.colorbar(image, ax=grid, shrink=0.8, label="weight")
    return figure


def connections(tables: Mapping[str, Tensor]) -> Figure:
    """Which inputs reach which outputs: one panel for each table, with the number of inputs that an output sees.

    Args:
        tables: {title: bool (outputs, inputs)}.
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(min(2.5 * len(tables), 10.4), 0.8 + min(2.1, 9.6 / len(tables))), squeeze=False)
    for ax, (title, table) in zip(axes[0], tables.items()):
        outputs, inputs = table.shape
        for o, row in enumerate(table.tolist()):
            for i, reached in enumerate(row):
                ax.add_patch(Rectangle((i, o), 1, 1, facecolor=BLUE if reached else "white", edgecolor="#AAAAAA", linewidth=0.4))
        seen = sorted({int(count) for count in table.sum(1)})
        ax.set(xlim=(0, inputs), ylim=(outputs, 0), aspect="equal", xlabel="input channel", xticks=[], yticks=[])
        ax.set_title(f"{title}\nan output sees {' or '.join(map(str, seen))} of {inputs}", fontsize=9)
        ax.grid(visible=False)
    axes[0][0].set_ylabel("output channel")
    return figure
