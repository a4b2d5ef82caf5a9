"""The figures of the first half of chapter 05. They only draw; every number comes in as an argument."""

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

from compresslab.course.chapter01.figures import curves
from compresslab.course.chapter05.widgets import COLORS, STYLES, mosaic

__all__ = ["arrows", "chains", "curves", "four_spectra", "methods", "pictures", "rank_sweep", "spectra", "two_errors"]

BLUE, ORANGE, GREEN, GREY, PINK, YELLOW = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#CC79A7", "#E69F00"
LOOKS = {"SVD": (BLUE, "s"), "spatial": (ORANGE, "^"), "response-aware": (GREEN, "D"), "Tucker": (PINK, "v"), "CP": (YELLOW, "P")}
CONTROLS = {"dense, trained as long": ("#000000", "*"), "small dense network": (GREY, "o")}


# -- the promise -------------------------------------------------------------------------------------

def methods(rows: Iterable[Mapping[str, Any]], title: str = "") -> Figure:
    """Accuracy against MACs: a panel before fine-tuning (dashed) and one after it (solid), the mean over the seeds of each setting.

    Args:
        rows: dicts with the keys `method`, `fraction`, `tuned`, `macs` and `accuracy` (a fraction).
    """
    rows = list(rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 3.6))
    for name, (color, marker) in (LOOKS | CONTROLS).items():
        for ax, tuned in ((left, False), (right, True)):
            mine = [row for row in rows if row["method"] == name and (row["tuned"] == tuned or name == "dense, trained as long")]
            found = {setting: [row for row in mine if row["fraction"] == setting] for setting in sorted({row["fraction"] for row in mine})}
            if not found:
                continue
            x = [mean(row["macs"] for row in runs) / 1e6 for runs in found.values()]
            y = [100 * mean(row["accuracy"] for row in runs) for runs in found.values()]
            ax.plot(x, y, color=color, marker=marker, markersize=9 if marker == "*" else 6, label=name,
                    linestyle=":" if name in CONTROLS else "-" if tuned else "--")
            ax.plot([row["macs"] / 1e6 for row in mine], [100 * row["accuracy"] for row in mine], linestyle="", marker="_", color=color)
    left.set(xlabel="million MACs per image", ylabel="accuracy (%)", title=f"{title}: decomposed" if title else "decomposed")
    right.set(xlabel="million MACs per image", title="decomposed, then fine-tuned")
    if rows:
        (right if right.get_legend_handles_labels()[1] else left).legend(fontsize=8)
    return figure


# -- the map -----------------------------------------------------------------------------------------

CHAINS = {  # method: (sections, the small layers that take one layer's place)
    "SVD of a matrix": ("1", ("n to k", "k to m")),
    "channels": ("2, 4, 5", ("k×k, C to R", "1×1, R to N")),
    "separable": ("2, 3", ("k×1, C to R", "1×k, R to N")),
    "Tucker-2": ("6", ("1×1, C to R", "k×k, R to Q", "1×1, Q to N")),
    "CP": ("7", ("1×1, C to R", "k×1 each", "1×k each", "1×1, R to N")),
    "tensor train": ("7", ("core 1", "core 2", "core 3", "...", "core d")),
}


def chains() -> Figure:
    """What takes the place of one layer, method by method: two, three, four or many small ones."""
    figure, ax = plt.subplots(figsize=(8.8, 3.3))
    shades = ("#CFE3F1", "#F3D9E6", "#D5EFE4", "#FBE6C2", "#EEEEEE")
    for row, (name, (sections, parts)) in enumerate(CHAINS.items()):
        for column, part in enumerate(parts):
            ax.add_patch(Rectangle((1.55 * column, row + 0.14), 1.35, 0.72, facecolor=shades[column], edgecolor="black", linewidth=0.8))
            ax.text(1.55 * column + 0.675, row + 0.5, part, ha="center", va="center", fontsize=8)
            if column:
                ax.annotate("", (1.55 * column, row + 0.5), xytext=(1.55 * column - 0.2, row + 0.5), arrowprops={"arrowstyle": "->", "linewidth": 0.8})
        ax.text(7.8, row + 0.5, f"section{'s' * (len(sections) > 1)} {sections}", va="center", fontsize=8)
    ax.set_yticks([row + 0.5 for row in range(len(CHAINS))], list(CHAINS))
    ax.set(xlim=(-0.1, 9.0), ylim=(len(CHAINS), 0), xticks=[])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    return figure


# -- spectra -----------------------------------------------------------------------------------------

def spectra(values: Mapping[str, Sequence[float]], title: str = "") -> Axes:
    """Singular values in order, each matrix in a line of its own.

    Args:
        values: {name: singular values, from the largest on}.
    """
    ax = curves({name: (range(1, len(list(v)) + 1), list(v)) for name, v in values.items()}, "number", "singular value")
    for line in ax.get_lines():
        line.set_marker("")
    ax.set(title=title, ylim=(0, None))
    return ax


def four_spectra(values: Mapping[str, Sequence[float]], sides: Mapping[str, tuple[int, int]], numel: int) -> Figure:
    """Left the singular values of four flattenings; right the error that a rank leaves, against what it costs.

    Args:
        values: {flattening: singular values}. sides: {flattening: (rows, columns)}. numel: numbers of the kernel.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.3))
    for name, S in values.items():
        S, total = list(S), sum(s * s for s in S)
        lost = [max(0.0, 1 - sum(s * s for s in S[:k]) / total) ** 0.5 for k in range(len(S) + 1)]
        look = {"color": COLORS[name], "linestyle": STYLES[name]}
        left.plot(range(1, len(S) + 1), S, label=f"{name}, {sides[name][0]} x {sides[name][1]}", **look)
        right.plot([100 * k * sum(sides[name]) / numel for k in range(len(S) + 1)], lost, label=name, **look)
    right.axvline(100, color="black", linewidth=0.8, linestyle=":")
    left.set(xlabel="number", ylabel="singular value", ylim=(0, None), title="four spectra of one kernel")
    right.set(xlabel="numbers to store (% of the kernel)", ylabel="relative error", xlim=(0, 130), ylim=(0, 1), title="what a rank leaves, and its price")
    left.legend(fontsize=8)
    return figure


# -- filters and answers -----------------------------------------------------------------------------

def pictures(rows: Mapping[str, Tensor]) -> Figure:
    """Rows of a weight matrix as pictures, each kind in a row of its own.

    Args:
        rows: {name: (pictures, height, width)}, the same pictures in each.
    """
    figure, grid = plt.subplots(len(rows), 1, figsize=(8.6, 1.25 * len(rows)), squeeze=False)
    top = max(float(p.abs().max()) for p in rows.values())
    for ax, (name, filters) in zip(grid[:, 0], rows.items()):
        ax.imshow(mosaic(filters.double()[None]).numpy(), cmap="cividis", vmin=-top, vmax=top)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        ax.grid(visible=False)
    return figure


def rank_sweep(ranks: Sequence[int], accuracy: Sequence[float], energy: Sequence[float], dense: float, break_even: int) -> Axes:
    """Accuracy and kept energy, both in percent, against the rank, with the break-even rank as a vertical line."""
    ax = curves({"accuracy": (list(ranks), [100 * a for a in accuracy]), "energy kept": (list(ranks), [100 * e for e in energy])}, "rank", "%")
    ax.axhline(100 * dense, color="black", linewidth=0.8, linestyle=":")
    ax.annotate("the whole matrix", (ranks[0], 100 * dense), xytext=(0, 3), textcoords="offset points", fontsize=8)
    ax.axvline(break_even, color=GREY, linewidth=1.2, linestyle="--")
    ax.annotate("break-even", (break_even, 5), xytext=(-4, 0), textcoords="offset points", ha="right", fontsize=8)
    ax.set(ylim=(0, 106))
    return ax


def two_errors(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """For each layer the error of the weights, of the output, and the accuracy, by plain and by response-aware SVD.

    Args:
        rows: dicts with the keys `layer`, and `weights`, `output`, `accuracy`: a pair (closest weights, closest output) of fractions each.
    """
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 0.9 + 0.45 * len(rows)), sharey=True)
    for ax, (key, label) in zip(axes, {"weights": "error of the weights", "output": "error of the output", "accuracy": "accuracy (%)"}.items()):
        for which, (shift, color, hatch, name) in enumerate(((-0.2, BLUE, "", "closest weights"), (0.2, ORANGE, "///", "closest output"))):
            factor = 100 if key == "accuracy" else 1
            ax.barh([place + shift for place in range(len(rows))], [factor * row[key][which] for row in rows], 0.38, color=color, hatch=hatch,
                    edgecolor="black", linewidth=0.5, label=name)
        ax.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5))
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), [row["layer"] for row in rows])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    return figure


def arrows(weight: Tensor, cut: Mapping[str, Tensor], moments: Tensor) -> Figure:
    """The rows of a weight with two inputs as arrows (grey), and what they become at rank one; the inputs as an ellipse.

    Args:
        weight: (m, 2). cut: {name: (m, 2), of rank one}. moments: (2, 2), of the inputs.
    """
    figure, axes = plt.subplots(1, len(cut), figsize=(4.2 * len(cut), 3.5), sharex=True, sharey=True, squeeze=False)
    values, vectors = torch.linalg.eigh(moments.double())
    angle = torch.linspace(0, 2 * torch.pi, 100, dtype=torch.float64)
    ring = vectors * values.clamp(min=0).sqrt() @ torch.stack([angle.cos(), angle.sin()])
    reach = 1.15 * max(float(weight.abs().max()), float(ring.abs().max()))
    for ax, (name, rows), color in zip(axes[0], cut.items(), (BLUE, ORANGE)):
        ax.fill(*ring.tolist(), color="#EEEEEE", hatch="...", edgecolor="#AAAAAA", linewidth=0.5, label="the inputs")
        line = rows[rows.norm(dim=1).argmax()] / rows.norm(dim=1).max() * 2 * reach
        ax.plot([-line[0].item(), line[0].item()], [-line[1].item(), line[1].item()], color=color, linewidth=0.8, linestyle="--")
        for old, new in zip(weight.tolist(), rows.tolist()):
            ax.annotate("", old, xytext=(0, 0), arrowprops={"arrowstyle": "->", "color": "black", "linewidth": 1.0})
            ax.annotate("", new, xytext=(0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 2.2})
            ax.plot([old[0], new[0]], [old[1], new[1]], color=GREY, linewidth=0.8, linestyle=":")
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="weight of input 1", title=name)
    axes[0][0].set_ylabel("weight of input 2")
    axes[0][0].legend(fontsize=8, loc="upper right")
    return figure
