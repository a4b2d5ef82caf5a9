"""The figures of the first half of chapter 10. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

BLUE, ORANGE, GREEN, GREY, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#CC79A7", "#E69F00", "#56B4E9"


def map_of_families() -> Figure:
    """Which classical method belongs to which of the families of this course."""
    boxes = [("pruning", "cost-complexity,\nleaves of a forest,\ncondensed neighbours", BLUE), ("quantization", "thresholds and leaves\nin a few bits", ORANGE),
             ("compact", "Bonsai, ProtoNN:\nsmall by design", GREEN), ("distillation", "a forest into one tree,\nor into a network", PINK),
             ("low rank", "Nystrom features,\nreduced sets", YELLOW), ("sharing", "product quantization:\none book of vectors", SKY)]
    figure, axes = plt.subplots(1, len(boxes), figsize=(11.6, 1.8))
    for ax, (family, what, color) in zip(axes, boxes):
        ax.add_patch(FancyBboxPatch((0.04, 0.08), 0.92, 0.84, boxstyle="round,pad=0.02", facecolor="white", edgecolor=color, linewidth=2.5))
        ax.text(0.5, 0.78, family, ha="center", va="center", fontsize=9.5, weight="bold")
        ax.text(0.5, 0.40, what, ha="center", va="center", fontsize=8.5)
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.axis("off")
    return figure


def goal(rows: Sequence[Mapping[str, Any]], factor: float = 20) -> Figure:
    """Points lost against bytes, with 95 % intervals, and the corner that is asked for.

    Args:
        rows: dicts with name, bytes, loss, low, high (fractions); the first one is what the others are measured against.
    """
    figure, ax = plt.subplots(figsize=(7.6, 3.4))
    limit = rows[0]["bytes"] / factor
    least = min(row["bytes"] for row in rows)
    ax.fill_between([least / 2, limit], -2, 1, color="#EEEEEE", zorder=0)
    ax.text(least / 1.9, 1.06, f"1/{factor:g} of the bytes, 1 point", fontsize=8.5, va="bottom")
    for row, color, marker in zip(rows, ("black", BLUE, PINK, ORANGE), "osvD"):
        low, middle, high = (100 * row[key] for key in ("low", "loss", "high"))
        ax.errorbar(row["bytes"], middle, yerr=[[middle - low], [high - middle]], color=color, marker=marker, markersize=8, capsize=4, linestyle="none", label=row["name"])
        if middle < 4:
            ax.annotate(row["name"], (row["bytes"], middle), xytext=(8, -14), textcoords="offset points", fontsize=9, ha="right" if row is rows[0] else "left")
    ax.set(xscale="log", xlabel="bytes of what a prediction reads", ylabel="points lost\nagainst the forest", xlim=(least / 2, 2 * rows[0]["bytes"]))
    ax.set_ylim(-1.2, max(2.0, min(4.0, max(100 * row["high"] for row in rows[1:3]) + 1)))
    return figure


# -- trees -------------------------------------------------------------------------------------------

def draw_tree(left: np.ndarray, right: np.ndarray, labels: Mapping[int, str], gone: Any = (), classes: Mapping[int, int] | None = None, ax: Axes | None = None, title: str = "") -> Axes:
    """A tree from the root down; what is below the nodes in `gone` is drawn in grey, dashed.

    Args:
        left, right: children of each node, -1 in leaves. labels: {node: text beside it}.
        gone: nodes that collapsed. classes: {leaf: class}, for its colour and marker.
    """
    ax = ax or plt.subplots(figsize=(9.5, 4.2))[1]
    place, next_leaf = {}, [0]

    def put(node: int, depth: int) -> float:
        if left[node] < 0:
            x = float(next_leaf[0])
            next_leaf[0] += 1
        else:
            x = (put(left[node], depth + 1) + put(right[node], depth + 1)) / 2
        place[node] = (x, -depth)
        return x

    put(0, 0)
    stack = [(0, False)]
    while stack:
        node, dead = stack.pop()
        x, y = place[node]
        cut = dead or node in gone
        for child in (left[node], right[node]) if left[node] >= 0 else ():
            ax.plot([x, place[child][0]], [y, place[child][1]], color="#BBBBBB" if cut else "black", linestyle="--" if cut else "-", linewidth=1.2, zorder=1)
            stack.append((child, cut))
        ends = left[node] < 0 or node in gone
        look = {"color": "#DDDDDD", "marker": "o"} if dead or not ends else {"color": (BLUE, ORANGE, GREEN)[(classes or {}).get(node, 0)], "marker": "so^"[(classes or {}).get(node, 0)]}
        ax.scatter([x], [y], s=90 if ends else 60, edgecolor="black", linewidth=0.6, zorder=2, **look)
        if node in labels and not dead:
            ax.text(x, y + 0.16, labels[node], ha="center", va="bottom", fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}, zorder=3)
    ax.set(xlim=(-0.8, next_leaf[0] - 0.2), ylim=(min(y for _, y in place.values()) - 0.4, 0.8), title=title)
    ax.axis("off")
    return ax


def pruned_against_limit(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Accuracy against leaves, for a depth limit and for the weakest links, one panel for each data set."""
    figure, axes = plt.subplots(1, len(rows), figsize=(9.6, 3.2), squeeze=False)
    for ax, (name, points) in zip(axes[0], rows.items()):
        for key, label, look in (("limited", "depth limit", {"color": GREY, "marker": "o", "linestyle": "--"}), ("pruned", "weakest links", {"color": BLUE, "marker": "s"})):
            ax.plot([p[f"{key}_leaves"] for p in points], [100 * p[f"{key}_accuracy"] for p in points], label=label, **look)
        ax.set(xscale="log", xlabel="leaves", title=name)
        ticks = [tick for tick in (2, 5, 10, 20, 50, 100) if tick <= 1.3 * max(p["limited_leaves"] for p in points)]
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
    axes[0][0].set_ylabel("accuracy (%)")
    axes[0][-1].legend(fontsize=9, loc="lower right")
    return figure


# -- forests -----------------------------------------------------------------------------------------

def indicator_rows(phi: np.ndarray, borders: Sequence[int]) -> Figure:
    """A few rows of the indicators as cells, black for a 1; lines between the trees."""
    figure, ax = plt.subplots(figsize=(9.6, 0.9 + 0.22 * len(phi)))
    ax.imshow(phi, cmap="gray_r", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    for border in borders:
        ax.axvline(border - 0.5, color=ORANGE, linewidth=1)
    ax.set(xlabel="node (a line between two trees)", ylabel="point")
    ax.grid(False)
    return figure


def leaves_and_accuracy(curves: Mapping[str, Sequence[tuple[int, float]]], reference: float) -> Figure:
    """Accuracy against the leaves of the whole forest; a dotted line for the large forest."""
    figure, ax = plt.subplots(figsize=(7, 3.2))
    for (name, points), color, marker, line in zip(curves.items(), (BLUE, GREY, ORANGE), "sov", ("-", "--", "-.")):
        ax.plot([count for count, _ in points], [100 * accuracy for _, accuracy in points], color=color, marker=marker, linestyle=line, label=name)
    ax.axhline(100 * reference, color="black", linestyle=":", linewidth=1.2, label="forest of 100 full trees")
    ax.set(xscale="log", xlabel="leaves of all trees together", ylabel="accuracy (%)")
    ticks = [tick for tick in (100, 200, 500, 1000, 2000) if tick <= 1.2 * max(count for points in curves.values() for count, _ in points)]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=9, loc="lower right")
    return figure


def queries_row(points: np.ndarray, neighbours: np.ndarray, queries: np.ndarray, shares: np.ndarray) -> Figure:
    """A point, its neighbour and a query made of both, as images, and what the forest says of the query."""
    columns = len(points)
    figure, grid = plt.subplots(4, columns, figsize=(1.15 * columns + 0.6, 4.6), gridspec_kw={"height_ratios": (1, 1, 1, 0.8)})
    for row, (name, images) in enumerate((("point", points), ("neighbour", neighbours), ("query", queries))):
        for column in range(columns):
            ax = grid[row][column]
            ax.imshow(images[column].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            if not column:
                ax.set_ylabel(name)
    for column in range(columns):
        ax = grid[3][column]
        ax.bar(range(10), shares[column], color=PINK, edgecolor="black", linewidth=0.4)
        ax.set(ylim=(0, 1), xticks=(0, 5, 9), yticks=(0, 1) if not column else ())
        ax.tick_params(labelsize=7)
    grid[3][0].set_ylabel("soft label")
    return figure


def fidelity_by_queries(rows: Sequence[Mapping[str, Any]], live: Sequence[tuple[int, float]] = ()) -> Figure:
    """Agreement with the forest, and accuracy, against the number of queries, for soft and for hard labels; `live` points as stars."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.2), sharey=True)
    for ax, key, title in zip(axes, ("fidelity", "accuracy"), ("agrees with the forest", "is right")):
        for labels, look in (("soft", {"color": PINK, "marker": "v"}), ("hard", {"color": GREY, "marker": "o", "linestyle": "--"})):
            own = [row for row in rows if row["labels"] == labels]
            ax.plot([max(row["queries"], 100) for row in own], [100 * row[key] for row in own], label=f"{labels} labels", **look)
        if key == "fidelity" and live:
            ax.plot([max(count, 100) for count, _ in live], [100 * value for _, value in live], color="black", marker="*", markersize=11, linestyle="none", label="yours, this split")
        ax.set(xscale="log", xlabel="queries", title=title)
        ax.set_xticks((100, 250, 1000, 4000, 16000), ("none", "250", "1,000", "4,000", "16,000"))
        ax.minorticks_off()
    axes[0].set_ylabel("of the test points (%)")
    axes[0].legend(fontsize=9)
    return figure


def size_bars(sizes: Mapping[str, int]) -> Axes:
    """Bytes of one forest, stored in several ways, largest first."""
    _, ax = plt.subplots(figsize=(8.6, 0.7 + 0.5 * len(sizes)))
    names = list(sizes)[::-1]
    ax.barh(names, [sizes[name] / 1000 for name in names], color=[ORANGE if "bits" in name else GREY for name in names], edgecolor="black", height=0.6)
    for row, name in enumerate(names):
        ax.text(sizes[name] / 1000 * 1.08, row, f"{sizes[name] / 1000:,.0f} kB", va="center", fontsize=9)
    ax.set(xscale="log", xlabel="kB", xlim=(min(sizes.values()) / 2000, 3 * max(sizes.values()) / 1000))
    return ax
