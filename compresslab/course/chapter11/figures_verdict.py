"""Figures of the last diagnosis: work against rate of the six cases, and the break-even of the sparse product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from compresslab.course import plots

LINES = {("torch", 1): ("pruning", "-"), ("torch", 32): ("pruning", "--"), ("scipy", 1): ("quantization", "-"), ("scipy", 32): ("quantization", "--")}


def work_and_rate(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """One line per case: a white bar for the work saved, a filled one for the speed-up that came of it, a tick for the hope."""
    figure, ax = plt.subplots(figsize=(9, 0.5 * len(rows) + 1.2))
    for place, row in enumerate(reversed(rows)):
        ratio, low, high = row["speedup"]
        ax.barh(place + 0.2, row["work"] - 1, left=1, height=0.34, color="white", edgecolor="black", hatch="//", linewidth=1)
        ax.barh(place - 0.2, ratio - 1, left=1, height=0.34, color="#0072B2" if ratio >= 1 else "#D55E00", edgecolor="black", linewidth=0.6)
        ax.plot([low, high], [place - 0.2] * 2, color="black", linewidth=1.4)
        ax.plot([row["hoped"]] * 2, [place - 0.42, place + 0.42], color="black", linestyle=":", linewidth=1.6)
    ax.axvline(1, color="black", linewidth=1)
    ax.set_xscale("log")
    ax.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    ax.set_xlabel("hatched: times fewer MACs; filled: times faster, with its interval; dotted: hoped for")
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    ax.xaxis.set_minor_formatter(lambda v, _: f"{v:g}" if f"{v:.0e}"[0] in "25" else "")
    ax.grid(axis="y", visible=False)
    return figure


def break_even(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Speed-up of the sparse product against density, and what the count of MACs promises."""
    figure, ax = plt.subplots(figsize=(7, 3.6))
    densities = sorted({row["density"] for row in rows})
    ax.plot(densities, [1 / d for d in densities], color="black", linestyle=":", label="promised: 1 / density")
    for (kernel, batch), (family, line) in LINES.items():
        here = sorted((row for row in rows if (row["kernel"], row["batch"]) == (kernel, batch)), key=lambda row: row["density"])
        if here:
            look = plots.family(family)
            ax.plot([row["density"] for row in here], [row["ratio"] for row in here], color=look["color"], marker=look["marker"], linestyle=line,
                    label=f"{kernel}, {batch} column{'s' * (batch > 1)}", markerfacecolor="white" if batch > 1 else look["color"])
    ax.axhline(1, color="black", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="density (share of numbers that are not zero)", ylabel="times faster than dense")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda v, _: f"{v:g}")
    ax.legend(fontsize=8)
    return figure
