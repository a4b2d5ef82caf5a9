"""The figures of the section on the engine. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {
    "Conv": ("#0072B2", ""), "BatchNormalization": ("#D55E00", "//"), "Relu": ("#009E73", ".."), "Add": ("#CC79A7", "xx"), "other": ("#BBBBBB", ""),
}  # fmt: skip
NAMES = {"FusedConv": "Conv"}
FORMS = {
    "int8": ("#0072B2", "", "8 bits"), "int4": ("#D55E00", "//", "4 bits"), "int4, exact": ("#CC79A7", "xx", "4 bits, float inputs"),
    "int4, unpacked": ("#009E73", "..", "4 bits, decoded while loading"),
}  # fmt: skip


def operations(graphs: Mapping[str, Mapping[str, int]]) -> Figure:
    """How many operations of each kind stand in each form of a network: a bar per form."""
    figure, ax = plt.subplots(figsize=(7.0, 0.55 * len(graphs) + 1.3))
    for place, counts in enumerate(graphs.values()):
        left = 0
        for kind, (color, hatch) in COLORS.items():
            number = sum(n for op, n in counts.items() if NAMES.get(op, op) == kind or (kind == "other" and NAMES.get(op, op) not in COLORS))
            if number:
                ax.barh(place, number, left=left, color=color, hatch=hatch, edgecolor="white", linewidth=0.5, label=kind)
                ax.text(left + number / 2, place, str(number), ha="center", va="center", fontsize=8,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85})
            left += number
    ax.set_yticks(range(len(graphs)), list(graphs))
    ax.invert_yaxis()
    ax.set(xlabel="operations in the graph")
    ax.grid(False, axis="y")
    shown = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend([shown[kind] for kind in COLORS if kind in shown], [kind for kind in COLORS if kind in shown],
              ncols=len(shown), fontsize=8, loc="lower center", bbox_to_anchor=(0.45, 1.0), frameon=False)
    return figure


def stored(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Figure:
    """How many times faster than float each stored form is, with intervals; a panel per network, batches side by side."""
    figure, axes = plt.subplots(1, len(titles), figsize=(2.5 * len(titles) + 0.6, 3.3), sharey=True, squeeze=False)
    for ax, (network, title) in zip(axes[0], titles.items(), strict=True):
        here = [row for row in rows if row["network"] == network]
        batches = sorted({row["batch"] for row in here})
        for shift, (form, (color, hatch, label)) in enumerate(FORMS.items()):
            found = {row["batch"]: row for row in here if row["form"] == form}
            x = [place + 0.2 * (shift - 1.5) for place, batch in enumerate(batches) if batch in found]
            ordered = [found[batch] for batch in batches if batch in found]
            y = [row["ratio"] for row in ordered]
            error = [[max(row["ratio"] - row["low"], 0) for row in ordered], [max(row["high"] - row["ratio"], 0) for row in ordered]]
            ax.bar(x, [ratio - 1 for ratio in y], width=0.18, bottom=1, color=color, hatch=hatch, edgecolor="white", linewidth=0.5, yerr=error, ecolor="black", capsize=2, label=label)
        _finish(ax, title, batches)
    axes[0][0].set_ylabel("times faster than float weights")
    figure.legend(*axes[0][0].get_legend_handles_labels(), ncols=2, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 0.98), frameon=False)
    return figure


def _finish(ax: Axes, title: str, batches: Sequence[int]) -> None:
    ax.axhline(1, color="black", linewidth=1.0)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    ax.set_title(title, fontsize=9)
    ax.grid(False, axis="x")
