"""The figures of the first half of chapter 02. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from compresslab.course import plots
from compresslab.course.chapter01.figures import curves

__all__ = ["accuracy_bits", "curves", "integer_layer", "map_of_quantization", "range_errors", "step_sizes"]

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
METHODS = {  # name: (colour, marker, line)
    "per tensor": ("#000000", "o", ":"),
    "percentile": ("#E69F00", "D", (0, (3, 1, 1, 1))),
    "per channel": ("#0072B2", "s", "--"),
    "AdaRound": ("#009E73", "^", "-."),
    "QAT": ("#D55E00", "v", "-"),
}


def accuracy_bits(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """Accuracy against the bits of a weight: a line through each method's means, a small point for each seed.

    Args:
        rows: dicts with the keys `method` (one of `METHODS`, or "float"), `bits`, `seed` and `accuracy` (a fraction).
    """
    rows = list(rows)
    figure, ax = plt.subplots(figsize=(7.6, 4.0))
    for method, (color, marker, line) in METHODS.items():
        own = [row for row in rows if row["method"] == method]
        points = {bits: [100 * row["accuracy"] for row in own if row["bits"] == bits] for bits in sorted({row["bits"] for row in own})}
        if not points:
            continue
        means = [sum(seeds) / len(seeds) for seeds in points.values()]
        ax.plot(list(points), means, color=color, marker=marker, linestyle=line, markersize=6, label=method)
        for bits, seeds in points.items():
            if len(seeds) > 1:
                ax.plot([bits] * len(seeds), seeds, linestyle="", marker="_", color=color, markersize=9)
    dense = [100 * row["accuracy"] for row in rows if row["method"] == "float"]
    if dense:
        ax.axhline(sum(dense) / len(dense), color=GREY, linewidth=1.2, label="float, 32 bits")
    ax.set_xticks(sorted({row["bits"] for row in rows if row["method"] != "float"}))
    ax.set(xlabel="bits per weight", ylabel="accuracy (%)", title="ResNet-8, all layers quantized", ylim=(0, 103))
    if rows:
        ax.legend(loc="lower right")
    return figure


# -- the map -----------------------------------------------------------------------------------------

def _levels() -> dict[str, list[float]]:
    """The levels of each sub-family for weights spread like a normal distribution, from -1 to 1."""
    normal = torch.special.ndtri(torch.linspace(0.002, 0.998, 999))
    spread = normal / normal.max()
    codebook = spread[torch.linspace(30, 968, 16).round().long()]
    for _ in range(60):                                        # Lloyd's algorithm: each level the mean of its cell
        nearest = (spread[:, None] - codebook).abs().argmin(1)
        codebook = torch.stack([spread[nearest == k].mean() for k in range(16)])
    sizes = spread.abs()
    kept = sizes > 0.7 * sizes.mean()
    alpha = float(sizes[kept].mean())
    return {"uniform, 4 bits": [k / 7 for k in range(-7, 8)],
            "codebook, 4 bits": codebook.tolist(),
            "powers of two": [0.0] + [sign * 2.0**-k for k in range(7) for sign in (-1, 1)],
            "ternary": [-alpha, 0.0, alpha],
            "binary": [-float(sizes.mean()), float(sizes.mean())]}


def map_of_quantization() -> Figure:
    """A bell of weights, and below it the levels that each sub-family allows."""
    levels = _levels()
    figure, (top, lines) = plt.subplots(2, 1, figsize=(7.6, 3.8), sharex=True, height_ratios=(1, 1.7))
    x = torch.linspace(-1.05, 1.05, 200)
    top.fill_between(x.tolist(), torch.exp(-(2.88 * x) ** 2 / 2).tolist(), color="#BBBBBB")
    top.set(yticks=[], ylabel="weights")
    looks = zip(levels.items(), (BLUE, ORANGE, GREEN, "#CC79A7", "black"), ("o", "D", "^", "s", "v"))
    for place, ((name, values), color, marker) in enumerate(looks):
        lines.axhline(place, color="#CCCCCC", linewidth=0.8)
        lines.plot(values, [place] * len(values), linestyle="", marker=marker, color=color, markersize=6)
    lines.set_yticks(range(len(levels)), [f"{name}: {len(values)} levels" for name, values in levels.items()])
    lines.set(ylim=(len(levels) - 0.5, -0.5), xlabel="value, in units of the largest weight")
    lines.grid(visible=False)
    return figure


# -- outliers, ranges, integers ----------------------------------------------------------------------

def step_sizes(row: Tensor, steps: Mapping[str, Tensor]) -> Axes:
    """Magnitudes of neighbouring weights, and half of the step that each scheme gives each of them.

    Args:
        row: (n,). steps: {scheme: (n,) step sizes}.
    """
    _, ax = plt.subplots(figsize=(7.6, 3.4))
    place = range(len(row))
    ax.plot(place, row.abs().clamp(min=1e-6).tolist(), linestyle="", marker=".", color=GREY, label="|weight|", markersize=3)
    for (name, step), color, line in zip(steps.items(), ("black", BLUE, ORANGE), (":", "--", "-")):
        ax.step(place, (step / 2).tolist(), where="mid", color=color, linestyle=line, label=f"half a step, {name}")
    ax.set(yscale="log", xlabel="place in the row", ylabel="size",
           title="a weight below half a step becomes 0")
    ax.set_ylim(top=30 * float(row.abs().max()))
    ax.legend(fontsize=8, loc="upper right", ncols=2)
    return ax


def range_errors(shares: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Axes:
    """Mean squared error against the share of the range that the grid covers, the best share marked.

    Args:
        shares: fractions. errors: {name of the grid: mean squared error for each share}.
    """
    percent = [100 * share for share in shares]
    ax = curves({name: (percent, list(error)) for name, error in errors.items()}, "range of the grid (% of min ... max)",
                "mean squared error", "a ring marks the best range")
    for line in ax.get_lines():
        line.set_markevery(3)
    for error in errors.values():
        best = min(range(len(shares)), key=lambda k: error[k])
        ax.plot(percent[best], error[best], "o", markersize=13, markerfacecolor="none", markeredgecolor="black")
    ax.set_yscale("log")
    return ax


def integer_layer() -> Figure:
    """The steps of a layer in integers, and the numbers that run between them."""
    boxes = [("$(q_x - Z_x)\\,q_w$", ""), ("$\\Sigma + b_q$", ""), ("$\\times M_0$, half,\n$\\gg 31 + n$", ""), ("$+ Z_y$, clamp\n0 ... 255", "")]
    figure, ax = plt.subplots(figsize=(9.0, 1.5))
    plots.flow(ax, boxes, ["$q_x$: uint8", "17 bits", "int32", "int64,\nthen int32", "$q_y$: uint8"])
    return figure
