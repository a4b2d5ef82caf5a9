"""Figures of the sections on timing: where speed comes from, intervals of A/A tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from compresslab.course import plots

METHODS = {  # how each method is drawn, and what it is called under the axis
    "dense": ("dense", "dense"),
    "90 % zeros": ("90 % zeros\n(mask)", "pruning"),
    "2:4 zeros": ("2:4 zeros\n(mask)", "pruning"),
    "low rank": ("low rank", "lowrank"),
    "half the channels": ("half the\nchannels", "pruning"),
    "compact": ("separable\n(compact)", "compact"),
    "int8": ("int8", "quantization"),
    "half the channels, int8": ("half the\nchannels,\nint8", "hybrid"),
}


def speed_table(rows: Sequence[Mapping[str, Any]], network: str, axes: Sequence[Any] | None = None) -> Figure:
    """How many times faster than the dense network in PyTorch: one panel per batch, open PyTorch, filled ONNX Runtime."""
    batches = sorted({row["batch"] for row in rows})
    figure, axes = plt.subplots(1, len(batches), figsize=(11, 3.4), sharey=True, squeeze=False) if axes is None else (axes[0].figure, [axes])
    names = [name for name in METHODS if any(row["method"] == name for row in rows)]
    for ax, batch in zip(axes[0], batches, strict=True):
        for row in rows:
            if (row["network"], row["batch"]) != (network, batch):
                continue
            inside = row["engine"] == "onnxruntime"
            place, look = names.index(row["method"]) + (0.14 if inside else -0.14), plots.family(METHODS[row["method"]][1])
            ends = [[row["ratio"] - row["low"]], [row["high"] - row["ratio"]]]
            ax.errorbar(place, row["ratio"], yerr=ends, color=look["color"], marker=look["marker"], linestyle="none", capsize=3,
                        markersize=7, markerfacecolor=look["color"] if inside else "white")
        ax.axhline(1, color="black", linestyle=":", linewidth=1.2)
        ax.set(title=f"{network}, batch {batch}", yscale="log", xlim=(-0.5, len(names) - 0.5))
        ax.set_xticks(range(len(names)), [METHODS[name][0] for name in names], fontsize=8)
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
        ax.yaxis.set_minor_formatter(lambda v, _: f"{v:g}" if f"{v:.0e}"[0] in "235" else "")
        ax.tick_params(axis="y", which="minor", labelsize=8)
    axes[0][0].set_ylabel("times faster than dense in PyTorch")
    return figure


def interval_ladder(intervals: Mapping[str, Sequence[tuple[float, float]]], truth: float = 1.0) -> Figure:
    """Many intervals, sorted by their middle; those that miss the truth are drawn in another colour and broken."""
    figure, axes = plt.subplots(1, len(intervals), figsize=(10, 3.2), sharex=True, squeeze=False)
    for ax, (name, ends) in zip(axes[0], intervals.items(), strict=True):
        for place, (low, high) in enumerate(sorted(ends, key=sum)):
            holds = low <= truth <= high
            ax.plot([low, high], [place, place], color="#7A7A7A" if holds else "#D55E00", linestyle="-" if holds else (0, (2, 1)), linewidth=1.6)
        misses = sum(not low <= truth <= high for low, high in ends)
        ax.axvline(truth, color="black", linestyle=":", linewidth=1.2)
        ax.set(title=f"{name}: {misses} of {len(ends)} miss {truth:g}", xlabel="ratio of two equal networks", yticks=[])
    return figure


def columns(samples: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Milliseconds of every run in the order in which they were made: {panel: {name: samples}}."""
    figure, axes = plt.subplots(1, len(samples), figsize=(10, 2.8), sharey=True, squeeze=False)
    for ax, (title, runs) in zip(axes[0], samples.items(), strict=True):
        for (name, values), look in zip(runs.items(), (plots.family("pruning"), plots.family("quantization")), strict=False):
            ax.plot([1e3 * v for v in values], linestyle="none", color=look["color"], marker=look["marker"], markersize=4, label=name)
        ax.set(title=title, xlabel="round")
        ax.legend(fontsize=8)
    axes[0][0].set_ylabel("milliseconds")
    return figure
