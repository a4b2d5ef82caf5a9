"""The figures and tables of the second half of chapter 02. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
CLAIMS = {"8 bits": 0.1, "4 bits, QAT": 0.5, "ternary, trained": 2.0}      # the loss in points that each is allowed


def rounded_row(v: Tensor, choices: Mapping[str, Tensor]) -> Axes:
    """One row of weights in units of the scale, and what each choice rounds it to.

    Args:
        v: (n,), w / scale. choices: {name: integers (n,)}.
    """
    _, ax = plt.subplots(figsize=(7.2, 2.9))
    places = range(len(v))
    ax.plot(places, v.tolist(), "x", color="black", markersize=8, label="w / scale")
    looks = (("o", BLUE, -0.12), ("s", ORANGE, 0.12))
    for (name, q), (marker, color, shift) in zip(choices.items(), looks):
        ax.plot([i + shift for i in places], q.tolist(), marker, color=color, fillstyle="none", markersize=9, markeredgewidth=1.8, label=name)
    low, high = int(v.floor().min()), int(v.ceil().max())
    ax.set(xlabel="weight", ylabel="grid point", yticks=range(low, high + 1), xticks=places)
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def staircase(w: Tensor, value: Tensor, gradient: Tensor) -> Figure:
    """Left the value, right the gradient that the estimator hands back, both against the weight."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.7))
    left.plot(w, value, color=BLUE)
    left.plot(w, w, color=GREY, linestyle=":", label="the weight itself")
    left.set(xlabel="weight", ylabel="value")
    left.legend()
    right.plot(w, gradient, color=ORANGE)
    right.set(xlabel="weight", ylabel="gradient", ylim=(-0.1, 1.2))
    return figure


def levels(weight: Tensor, series: Mapping[str, Tensor]) -> Figure:
    """The histogram of a layer's weights, and below it where each method puts its levels."""
    figure, (top, below) = plt.subplots(2, 1, figsize=(7.2, 3.6), sharex=True, height_ratios=(3, 1 + 0.3 * len(series)))
    top.hist(weight.flatten().numpy(), bins=150, color="#BBBBBB")
    top.set_ylabel("number of weights")
    looks = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"))
    for place, ((_, points), (color, marker)) in enumerate(zip(series.items(), looks)):
        below.plot(points.tolist(), [place] * len(points), marker, color=color, markersize=7)
    below.set_yticks(range(len(series)), list(series))
    below.set(xlabel="weight", ylim=(len(series) - 0.4, -0.6))
    return figure


def bits_by_layer(sizes: Mapping[str, int], chosen: Mapping[str, int]) -> Axes:
    """How many bits each layer got, and how many weights it has."""
    _, ax = plt.subplots(figsize=(8.0, 2.9))
    names = list(sizes)
    bars = ax.bar(range(len(names)), [chosen[name] for name in names], color=BLUE, edgecolor="black")
    ax.bar_label(bars, [f"{sizes[name]:,}" for name in names], fontsize=8)
    ax.set_xticks(range(len(names)), [name.replace(".0.", ".\n").replace("shortcut.0", "shortcut") for name in names], fontsize=8)
    ax.set(ylabel="bits per weight", title="above each bar: the weights of the layer")
    return ax


def where_the_bytes_are(parts: Mapping[str, Mapping[str, int]]) -> Axes:
    """A stacked bar for each file: {file: {part: bytes}}."""
    _, ax = plt.subplots(figsize=(8.0, 0.9 + 0.5 * len(parts)))
    kinds = list(dict.fromkeys(kind for file in parts.values() for kind in file))
    colors = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#BBBBBB")
    for kind, color, hatch in zip(kinds, colors, ("", "///", "...", "xx", "\\\\")):
        left = [sum(file.get(k, 0) for k in kinds[:kinds.index(kind)]) / 1e3 for file in parts.values()]
        width = [file.get(kind, 0) / 1e3 for file in parts.values()]
        ax.barh(range(len(parts)), width, left=left, color=color, hatch=hatch, edgecolor="black", linewidth=0.6, label=kind)
    ax.set_yticks(range(len(parts)), list(parts))
    ax.set(xlabel="file (kB)", ylim=(len(parts) - 0.4, -0.6))
    ax.legend(ncols=len(kinds), loc="lower center", bbox_to_anchor=(0.45, 1.0), fontsize=8)
    ax.grid(axis="y", visible=False)
    return ax


# -- evidence ----------------------------------------------------------------------------------------

def _claims(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The rows of experiment "claims" by (network, method), all seeds of one together."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("experiment") == "claims":
            found.setdefault((row["network"], row["method"]), []).append(row)
    return found


def _interval(group: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """The mean loss of all seeds and the outermost ends of their intervals, in points."""
    return tuple(100 * pick(row[key] for row in group) for key, pick in (("loss", mean), ("loss_low", min), ("loss_high", max)))


def claims_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """One line for each method and network: file, ratio, the loss and the ends of all its seeds' intervals, in points."""
    lines = [f"{'network':16}{'method':36}{'file':>10}{'smaller':>9}{'loss':>8}{'95 % interval':>18}{'allowed':>9}"]
    for (network, method), group in _claims(rows).items():
        loss, low, high = _interval(group)
        file, ratio = group[0]["file_bytes"], mean(row["file_ratio"] for row in group)
        allowed = f"{CLAIMS[method]:9.1f}" if method in CLAIMS else ""
        lines.append(f"{network:16}{method:36}{file / 1e3:7.1f} kB{ratio:8.1f}x{loss:+8.2f}{f'{low:+.2f} to {high:+.2f}':>18}{allowed}")
    return "\n".join(lines)


def everything(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """What each method costs, a panel each: the loss of every network with its interval, beside it how much smaller the file is."""
    claims = _claims(rows)
    networks = list(dict.fromkeys(network for network, _ in claims))
    figure, panels = plt.subplots(1, len(CLAIMS), figsize=(9.6, 1.2 + 0.32 * len(networks)), sharey=True)
    looks = (("o", BLUE), ("s", ORANGE), ("^", GREEN))
    for ax, (method, allowed), (marker, color) in zip(panels, CLAIMS.items(), looks, strict=True):
        for place, network in enumerate(networks):
            group = claims.get((network, method), [])
            if group:
                loss, low, high = _interval(group)
                ax.errorbar(loss, place, xerr=[[loss - low], [high - loss]], marker=marker, color=color, capsize=3, linestyle="none")
                ax.text(1.01, place, f"{mean(row['file_ratio'] for row in group):.1f}x", va="center", fontsize=9, transform=ax.get_yaxis_transform())
        ax.axvline(0, color=GREY, linewidth=1)
        ax.axvline(allowed, color="black", linewidth=1.2, linestyle="--")
        ax.set(title=method, xlabel="accuracy lost (points)", ylim=(len(networks) - 0.4, -0.6))
        ax.set_yticks(range(len(networks)), networks)
    return figure


def methods_table(rows: Iterable[Mapping[str, Any]], methods: Sequence[str], bits: Sequence[int]) -> str:
    """Accuracy of resnet8 by method and bits, the mean of the seeds, in percent."""
    rows = [row for row in rows if row.get("experiment") == "resnet8"]
    lines = [f"{'accuracy (%)':16}" + "".join(f"{b:>7} bits" for b in bits)]
    for method in methods:
        cells = []
        for b in bits:
            found = [row["accuracy"] for row in rows if row["method"] == method and row["bits"] == b]
            cells.append(f"{100 * mean(found):12.2f}" if found else f"{'-':>12}")
        lines.append(f"{method:16}" + "".join(cells))
    return "\n".join(lines)
