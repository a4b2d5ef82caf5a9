"""The figures of the section on memory. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#BBBBBB", "#D55E00")
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
KB = 1024


def over_time(runs: Mapping[str, tuple[Sequence[str], Sequence[int]]], limit: int | None = None) -> Figure:
    """For each order: the bytes that live while each operation runs; a line for what there is."""
    figure, axes = plt.subplots(1, len(runs), figsize=(4.1 * len(runs), 3.4), sharey=True, squeeze=False)
    for ax, (title, (names, lives)) in zip(axes[0], runs.items()):
        over = [limit is not None and live > limit for live in lives]
        ax.bar(range(len(names)), [live / KB for live in lives], color=[ORANGE if o else BLUE for o in over],
               hatch=["//" if o else "" for o in over], edgecolor="black", linewidth=0.6)
        if limit is not None:
            ax.axhline(limit / KB, color="black", linestyle="--", linewidth=1.2)
            ax.text(len(names) - 0.5, limit / KB, f"{limit // KB} KiB", va="bottom", ha="right", fontsize=8)
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        ax.set(title=title)
    axes[0][0].set(ylabel="live activations (KiB)")
    return figure


def addresses(spans: Sequence[Any], offsets: Mapping[str, int], steps: Sequence[str], title: str = "") -> Figure:
    """The arena: a block for each tensor, from the step that makes it to its last reader, at its addresses."""
    figure, ax = plt.subplots(figsize=(6.6, 3.6))
    top = max(offsets[span.name] + span.size for span in spans)
    for i, span in enumerate(spans):
        width = span.last - span.first + 1
        ax.add_patch(Rectangle((span.first, offsets[span.name] / KB), width, span.size / KB, facecolor=COLORS[i % len(COLORS)],
                               edgecolor="black", linewidth=0.8))
        if span.size > 0.05 * top:
            ax.text(span.first + width / 2, (offsets[span.name] + span.size / 2) / KB, span.name, ha="center", va="center", fontsize=7.5)
    ax.set(xlim=(0, len(steps)), ylim=(0, 1.05 * top / KB), ylabel="address (KiB)", title=title)
    ax.set_xticks([step + 0.5 for step in range(len(steps))], steps, rotation=60, ha="right", fontsize=8)
    ax.grid(False)
    return figure


def marks(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The high-water mark of each process: what the engine takes, what loading adds, what running adds."""
    figure, ax = plt.subplots(figsize=(7.0, 0.36 * len(rows) + 1.3))
    parts = (("started", BLUE, ""), ("loading", ORANGE, "//"), ("running", GREEN, ".."))
    for place, row in enumerate(rows):
        left = 0.0
        sizes = (row["started_bytes"], row["loaded_bytes"] - row["started_bytes"], row["peak_bytes"] - row["loaded_bytes"])
        for (label, color, hatch), size in zip(parts, sizes):
            ax.barh(place, size / 1e6, left=left, color=color, hatch=hatch, edgecolor="black", linewidth=0.6, label=label if place == 0 else None)
            left += size / 1e6
    ax.set_yticks(range(len(rows)), [f"{row['network']}, {row['form']}, batch {row['batch']}" for row in rows], fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="largest memory of the process (MB)")
    ax.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    ax.grid(axis="y", visible=False)
    return figure
