"""The figures of sections 3 to 5 of chapter 09. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

BLUE, ORANGE, GREEN, GREY, PINK = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#CC79A7"
METHODS = {  # method: (label, colour, marker, line)
    "rtn": ("to the nearest", GREY, "o", "-"), "awq": ("AWQ", PINK, "^", "-."), "gptq": ("GPTQ", BLUE, "s", "--"), "nf4": ("NF4", GREEN, "D", ":"),
    "magnitude": ("magnitude", GREY, "o", "-"), "wanda": ("Wanda", ORANGE, "^", "-."), "sparsegpt": ("SparseGPT", BLUE, "s", "--"),
}  # fmt: skip


def rows_of(evidence: Mapping[str, list[dict[str, Any]]], *names: str) -> list[dict[str, Any]]:
    """The rows of all entries whose name begins with one of these."""
    return [row for entry, rows in evidence.items() for row in rows if entry.split()[0] in names]


def rise(rows: Iterable[Mapping[str, Any]], **where: Any) -> float:
    """The mean of `relative` over the rows that agree with all of `where`."""
    found = [row["relative"] for row in rows if all(row[key] == value for key, value in where.items())]
    if not found:
        raise ValueError(f"no row has {where}")
    return mean(found)


def input_correlation(H: Tensor, title: str) -> Figure:
    """Correlation between the input channels of a layer, from its second moments (n, n)."""
    spread = H.diagonal().clamp(min=1e-30).sqrt()
    figure, ax = plt.subplots(figsize=(4.4, 3.6))
    image = ax.imshow((H / spread / spread[:, None]).abs(), cmap="Greys", vmin=0, vmax=0.5)
    ax.set(xlabel="input channel", ylabel="input channel", title=title)
    figure.colorbar(image, ax=ax, extend="max", label="|correlation|")
    return figure


def row_errors(panels: Mapping[str, Sequence[Tensor]]) -> Figure:
    """The output error of every row, to the nearest and with compensation, (rows,) each: one panel for each pair."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.7 * len(panels), 3.5), squeeze=False)
    for ax, (title, (before, after)) in zip(axes[0], panels.items()):
        worse = after > before
        ax.scatter(before[~worse], after[~worse], s=10, color=BLUE, marker="o", label=f"better: {int((~worse).sum())} rows")
        ax.scatter(before[worse], after[worse], s=22, color=ORANGE, marker="x", label=f"worse: {int(worse.sum())} rows")
        low, high = min(before.min(), after.min()).item(), max(before.max(), after.max()).item()
        ax.plot([low, high], [low, high], color="black", linewidth=1)
        ax.set(xscale="log", yscale="log", xlabel="squared error, to the nearest", ylabel="with compensation", title=title)
        ax.legend(fontsize=8, loc="lower right")
    return figure


def rounding_rises(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """What rounding costs, in percent more bits per character: one panel for each number of bits, a symbol for each network and draw."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2))
    for ax, bits in zip(axes, (4, 3)):
        here = [row for row in rows if row["bits"] == bits]
        names = [name for name in ("rtn", "awq", "gptq", "nf4") if any(row["method"] == name for row in here)]
        for place, name in enumerate(names):
            label, color, marker, _ = METHODS[name]
            values = [100 * row["relative"] for row in here if row["method"] == name]
            ax.plot([place] * len(values), values, linestyle="", marker=marker, color=color, alpha=0.6)
            ax.plot([place - 0.25, place + 0.25], [mean(values)] * 2, color=color, linewidth=2.5)
        ax.set_xticks(range(len(names)), [METHODS[name][0] for name in names], fontsize=8)
        ax.set(title=f"{bits} bits, groups of 32", ylabel="more bits per character (%)")
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        ax.margins(x=0.15)
    return figure


def pruning_rises(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """What pruning costs by sparsity, and at 2:4; a line for each method, short marks for single networks and draws."""
    figure, ax = plt.subplots(figsize=(5.6, 3.6))
    places = {"0.50": 0, "0.60": 1, "0.70": 2, "2:4": 3.3}
    for name in ("magnitude", "wanda", "sparsegpt"):
        label, color, marker, line = METHODS[name]
        cost = {p: [100 * row["relative"] for row in rows if row["method"] == name and row["pattern"] == p] for p in places}
        free = [p for p in places if p != "2:4"]
        ax.plot([places[p] for p in free], [mean(cost[p]) for p in free], color=color, marker=marker, linestyle=line, label=label)
        ax.plot(places["2:4"], mean(cost["2:4"]), color=color, marker=marker, linestyle="")
        for p, values in cost.items():
            ax.plot([places[p]] * len(values), values, linestyle="", marker="_", color=color, markersize=10)
    ax.set_xticks(list(places.values()), ["0.5", "0.6", "0.7", "2:4"])
    ax.set(yscale="log", xlabel="sparsity, or pattern", ylabel="more bits per character (%)")
    ax.set_yticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="upper left")
    return figure


def channel_ranges(panels: Mapping[str, Tensor]) -> Figure:
    """The largest magnitude of each input channel, a panel for each network; the dotted line is one step of the 8-bit grid."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.6 * len(panels), 2.8), sharey=True)
    for ax, (title, absmax) in zip(axes, panels.items()):
        ax.bar(range(len(absmax)), absmax, width=1.0, color=BLUE)
        ax.axhline(absmax.max() / 127, color="black", linestyle=":", linewidth=1.5)
        ax.set(title=title, xlabel="input channel", yscale="log")
        ax.title.set_fontsize(9)
    axes[0].set_ylabel("largest magnitude")
    return figure


def level_sets(weights: Tensor, levels: Mapping[str, Tensor]) -> Figure:
    """Where the levels of number formats lie under the histogram of weights, each divided by the largest of its group."""
    figure, ax = plt.subplots(figsize=(6.2, 3.0))
    ax.hist(weights.flatten().tolist(), bins=80, density=True, color=GREY, alpha=0.5)
    top = ax.get_ylim()[1]
    for place, (name, color, marker) in enumerate(zip(levels, (ORANGE, BLUE), ("v", "|"))):
        at = -0.12 * top * (place + 1)
        ax.plot(levels[name], torch.full_like(levels[name], at), linestyle="", marker=marker, color=color, markersize=9, markeredgewidth=2, label=name)
    ax.set(ylim=(-0.12 * top * (len(levels) + 0.7), top), xlabel="weight / largest of its group", ylabel="density")
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])
    ax.legend(fontsize=8, loc="upper right")
    return figure


def smoothing(ax: tuple, data: Mapping[str, Any]) -> None:
    """For the slider: ranges of input and weight channels at one alpha, and the error at all of them with this one marked."""
    left, right = ax
    order = data["x"].argsort(descending=True)
    left.plot(data["x"][order], color=BLUE, label="input")
    left.plot(data["w"][order], color=ORANGE, linestyle="--", label="weight")
    left.set(yscale="log", xlabel="channel, loudest input first", ylabel="largest magnitude")
    left.legend(fontsize=8)
    right.plot(data["alphas"], data["errors"], color=GREY)
    right.plot(data["alpha"], data["error"], marker="o", markersize=9, color=BLUE)
    right.set(yscale="log", xlabel="alpha", ylabel="relative output error")
