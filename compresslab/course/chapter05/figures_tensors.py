"""The figures and tables of the second half of chapter 05. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from compresslab.course import plots

BLUE, ORANGE, GREEN, GREY, PINK, YELLOW = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#CC79A7", "#E69F00"
LOOKS = ((BLUE, "-", "s"), (ORANGE, "--", "^"), (GREEN, "-.", "D"), (PINK, ":", "v"), (YELLOW, "-", "P"), (GREY, "--", "o"))


def parts(matrices: Mapping[str, Tensor]) -> Figure:
    """Small matrices side by side, each as annotated cells."""
    widths = [matrix.shape[1] + 0.6 for matrix in matrices.values()]
    figure, axes = plt.subplots(1, len(matrices), figsize=(0.55 * sum(widths) + 1.2, 2.9), width_ratios=widths)
    for ax, (name, matrix) in zip(axes, matrices.items()):
        plots.tensor(ax, (10 * matrix).round() / 10 + 0.0, name, digits=2)      # no -0, and no 1e-7 where nothing is
    return figure


def trade(series: Mapping[str, Sequence[tuple[float, float]]], title: str = "") -> Axes:
    """The relative error of one layer's kernel against the share of its MACs, a line for each way of taking it apart."""
    _, ax = plt.subplots(figsize=(7.0, 3.4))
    for (name, points), (color, line, marker) in zip(series.items(), LOOKS):
        ax.plot(*zip(*points), color=color, linestyle=line, marker=marker, markersize=5, label=name)
    ax.axvline(1, color="black", linestyle=":", linewidth=1.0)
    ax.set(xlabel="MACs, as a share of the dense layer's", ylabel="relative error of the kernel", xlim=(0, None), ylim=(0, 1), title=title)
    ax.legend(fontsize=8)
    return ax


def runaway(errors: Sequence[float], sizes: Sequence[float], calm: float | None = None) -> Figure:
    """Left the relative error after every sweep, right the size of the largest component, in units of the tensor's."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.0))
    for ax, values, label in ((left, errors, "relative error"), (right, sizes, "largest component / tensor")):
        ax.plot(range(1, len(values) + 1), values, color=BLUE)
        ax.set(xscale="log", yscale="log", xlabel="sweep", ylabel=label)
    if calm is not None:
        right.axhline(calm, color=ORANGE, linestyle="--", label="with a ridge")
        right.legend(fontsize=8)
    return figure


def rank_shares(layers: Sequence[str], choices: Mapping[str, Sequence[float]]) -> Axes:
    """For each layer the share of its energy that each choice of ranks loses: a group of bars for each layer."""
    _, ax = plt.subplots(figsize=(8.6, 3.1))
    width = 0.8 / max(len(choices), 1)
    for number, ((name, lost), (color, _, _), hatch) in enumerate(zip(choices.items(), LOOKS, ("", "///", "...", "xx"))):
        places = [group - 0.4 + (number + 0.5) * width for group in range(len(layers))]
        ax.bar(places, [100 * value for value in lost], width, color=color, hatch=hatch, edgecolor="black", linewidth=0.6, label=name)
    ax.set_xticks(range(len(layers)), layers, rotation=15, ha="right")
    ax.set_ylabel("energy lost (%)")
    ax.legend(fontsize=8)
    ax.grid(axis="x", visible=False)
    return ax


def _time(row: Mapping[str, Any], key: str) -> float:
    """A row's time as a share of the dense layer's, or an end of its interval; rows may hold speed-ups instead."""
    if "time_ratio" in row:
        return row[key]
    return 1 / row[{"time_ratio": "speedup", "low": "high", "high": "low"}[key]]


def times(series: Mapping[str, Sequence[Mapping[str, Any]]], title: str = "") -> Axes:
    """Time against MACs, both as a share of the dense layer's; on the diagonal time would follow the MACs.

    Args:
        series: {name: rows}, each row with `macs_ratio`, and `time_ratio` (or `speedup`), `low`, `high`.
    """
    _, ax = plt.subplots(figsize=(6.6, 3.8))
    most = 1.2
    for (name, rows), (color, line, marker) in zip(series.items(), LOOKS):
        rows = sorted(rows, key=lambda row: row["macs_ratio"])
        y = [_time(row, "time_ratio") for row in rows]
        ends = [[max(0.0, v - _time(row, "low")) for v, row in zip(y, rows)], [max(0.0, _time(row, "high") - v) for v, row in zip(y, rows)]]
        ax.errorbar([row["macs_ratio"] for row in rows], y, yerr=ends if rows else None, color=color, linestyle=line, marker=marker, capsize=3, label=name)
        most = max([most, *(min(_time(row, "high"), 3.0) for row in rows)])
    ax.plot([0, 1.1], [0, 1.1], color="black", linestyle=":", linewidth=1.0, label="time = MACs")
    ax.axhline(1, color=GREY, linewidth=0.8)
    ax.set(xlabel="MACs, as a share of the dense layer's", ylabel="time, as a share", xlim=(0, 1.1), ylim=(0, 1.05 * most), title=title)
    ax.legend(fontsize=8)
    return ax


# -- evidence ----------------------------------------------------------------------------------------

def half_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The VGG-like network at half its MACs: accuracy and paired loss of each run, then its speed at each batch size."""
    rows = list(rows)
    lines = [f"{'VGG-like, 50,000 fresh images':34}{'MACs':>7}{'accuracy':>10}{'points lost, 95 % interval':>30}"]
    for row in rows:
        if row.get("experiment") == "half":
            name = row.get("control") or ("decomposed" if row.get("seed") is None else "decomposed, fine-tuned")
            name += "" if row.get("seed") is None else f", seed {row['seed']}"
            interval = f"{100 * row['loss']:.2f}, {100 * row['loss_low']:.2f} to {100 * row['loss_high']:.2f}"
            lines.append(f"{name:34}{row['macs_ratio']:7.0%}{row['accuracy']:10.2%}{interval:>30}")
    for row in rows:
        if row.get("experiment") == "speed" and "speedup" in row:
            lines.append(f"batch of {row.get('batch', 1):3}: {row['speedup']:.2f} times as fast as the dense network ({row['low']:.2f} to {row['high']:.2f})")
    return "\n".join(lines)


def method_table(rows: Iterable[Mapping[str, Any]], fraction: float) -> str:
    """One line for each method at one fraction, means over the seeds, before and after fine-tuning; then the dense controls."""
    found: dict[str, dict[bool, list[float]]] = {}
    for row in rows:
        control = "dense" in row.get("method", "")
        if row.get("experiment") == "methods" and (control or row["fraction"] == fraction):
            name = f"{row['method']}, {row['fraction']:.0%} of the weights" if control else row["method"]
            found.setdefault(name, {True: [], False: []})[bool(row["tuned"])].append(row["accuracy"])
    lines = [f"{'ResNet-8':46}{'decomposed':>12}{'trained':>10}"]
    for name, values in found.items():
        cells = [f"{mean(values[tuned]):.2%}" if values[tuned] else "-" for tuned in (False, True)]
        lines.append(f"{name:46}{cells[0]:>12}{cells[1]:>10}")
    return "\n".join(lines)
