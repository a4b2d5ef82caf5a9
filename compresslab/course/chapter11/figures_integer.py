"""The figures of the section on int8. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from compresslab.course import plots

COLORS = {form: plots.family(name)["color"] for form, name in
          {"float32": "dense", "int8": "quantization", "pruned": "pruning", "pruned, int8": "hybrid"}.items()}  # fmt: skip


def three_grids(low: float, high: float, scale: float, zero_point: int, weight: np.ndarray, weight_scale: np.ndarray) -> Figure:
    """The integers of the inputs on their line, and the channels of a weight, each on its own."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 2.9), width_ratios=(1, 1.25), layout="constrained")
    marks = np.arange(0, 256, 51)
    left.hlines(0, low, high, color="#0072B2", linewidth=5)
    left.plot((marks - zero_point) * scale, np.zeros(len(marks)), "|", color="black", markersize=16)
    for q in marks:
        left.annotate(str(q), ((q - zero_point) * scale, 0), xytext=(0, 12), textcoords="offset points", ha="center", fontsize=8)
    left.plot([0], [0], "o", color="#D55E00", markersize=7)
    left.annotate(f"real 0 = {zero_point}", (0, 0), xytext=(0, -20), textcoords="offset points", ha="center", fontsize=8.5, color="#D55E00")
    left.set(title="inputs: uint8, one scale, a zero point", xlabel="real value", yticks=[], ylim=(-1, 1))
    left.spines["left"].set_visible(False)
    for channel, (row, step) in enumerate(zip(weight.reshape(len(weight), -1), weight_scale, strict=True)):
        right.hlines(channel, -127 * step, 127 * step, color="#0072B2", alpha=0.35, linewidth=5)
        right.plot(row, np.full(row.size, channel), "|", color="black", markersize=6, alpha=0.7)
    right.set(title="weight: int8, a scale per output channel", xlabel="real value; the bar is -127 to 127 steps", ylabel="output channel")
    return figure


def bars(rows: Sequence[dict[str, Any]], batch: int) -> Figure:
    """How many times faster than eager PyTorch each form of each network is, with its interval."""
    rows = [row for row in rows if row["batch"] == batch]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, ax = plt.subplots(figsize=(9.6, 3.4), layout="constrained")
    width = 0.8 / len(COLORS)
    for index, (form, color) in enumerate(COLORS.items()):
        chosen = [(networks.index(row["network"]), row) for row in rows if row["form"] == form]
        places = [place + (index - 1.5) * width for place, _ in chosen]
        heights = np.array([row["gain"] for _, row in chosen])
        errors = np.array([[row["gain"] - row["gain_low"], row["gain_high"] - row["gain"]] for _, row in chosen]).T.clip(0)
        drawn = ax.bar(places, heights, width * 0.92, color=color, yerr=errors, capsize=2, label=f"ONNX Runtime, {form}", error_kw={"linewidth": 0.8})
        ax.bar_label(drawn, fmt="%.1f", fontsize=7.5, padding=2)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set(xticks=range(len(networks)), xticklabels=networks, ylabel="times faster than eager PyTorch", title=f"batch {batch}")
    ax.margins(y=0.14)
    ax.legend(fontsize=8, ncols=4, loc="upper left", frameon=False)
    ax.set_ylim(0, ax.get_ylim()[1] * 1.12)
    return figure
