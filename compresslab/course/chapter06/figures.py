"""The figures of the first half of chapter 06. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from compresslab.core.statistics import mean_interval
from compresslab.course.chapter01.figures import curves

__all__ = ["against_control", "curves", "gains", "lengths", "map_of_sharing", "sharers", "table"]

BLUE, ORANGE, GREEN, GREY, PINK = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#CC79A7"
LOOKS = {  # method: (colour, marker)
    "dense": ("#000000", "o"), "small dense": ("#000000", "s"), "low rank": ("#E69F00", "P"), "hashed": (ORANGE, "X"), "k-means": (PINK, "v"),
    "product": (PINK, "D"), "circulant": (BLUE, "o"), "block-circulant": (BLUE, "s"), "toeplitz": (GREEN, "^"), "displacement": (GREEN, "p"),
    "fastfood": (GREEN, "*"),
}
CONTROL = "small dense"


def _by_size(rows: Iterable[Mapping[str, Any]], method: str, size: str = "unique") -> dict[int, dict[int, float]]:
    """{size: {seed: accuracy in percent}} of one method, smallest first."""
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        if row["method"] == method:
            found.setdefault(row[size], {})[row["seed"]] = 100 * row["accuracy"]
    return dict(sorted(found.items()))


def sharers(rows: Iterable[Mapping[str, Any]], title: str = "") -> Figure:
    """Accuracy against the stored numbers (left) and the bytes of the file (right); the small dense networks are a black line.

    Args:
        rows: dicts with the keys `method`, `seed`, `unique` (stored numbers of the whole network), `file_bytes`, and `accuracy` (a fraction).
    """
    rows = list(rows)
    figure, axes = plt.subplots(1, 2, figsize=(11.6, 4.2), sharey=True)
    known = [method for method in LOOKS if any(row["method"] == method for row in rows)]
    for method in known + sorted({row["method"] for row in rows} - set(LOOKS)):
        color, marker = LOOKS.get(method, (GREY, "x"))
        control = method == CONTROL
        for ax, size in zip(axes, ("unique", "file_bytes")):
            sizes = _by_size(rows, method, size)
            ax.plot(list(sizes), [mean(runs.values()) for runs in sizes.values()], color=color, marker=marker, markersize=6 if control else 8,
                    linestyle="-" if control else (0, (2, 2)), linewidth=2.2 if control else 1.0,
                    fillstyle="none" if method in (CONTROL, "product", "block-circulant") else "full", label=method)
            for place, runs in sizes.items():
                ax.plot([place] * len(runs), list(runs.values()), linestyle="", marker="_", color=color, markersize=5, alpha=0.7)
    axes[0].set(xscale="log", xlabel="stored numbers in the whole network", ylabel="accuracy (%)", title=title)
    axes[1].set(xscale="log", xlabel="file (bytes)")
    controls = [value for runs in _by_size(rows, CONTROL).values() for value in runs.values()]
    if controls:
        _cut_below(axes, rows, min(controls) - 2)
    if rows:
        axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _cut_below(axes: Sequence[Axes], rows: Sequence[Mapping[str, Any]], floor: float) -> None:
    """End the axes a little under the weakest control; an arrow says in words what lies below."""
    axes[0].set_ylim(bottom=floor)
    for ax, size in zip(axes, ("unique", "file_bytes")):
        for method in sorted({row["method"] for row in rows}):
            for place, runs in _by_size(rows, method, size).items():
                if (value := mean(runs.values())) < floor:
                    ax.annotate(f"{method}: {value:.0f} %", (place, floor), xytext=(12, 12), textcoords="offset points", fontsize=8,
                                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, zorder=5,
                                arrowprops={"arrowstyle": "->", "color": LOOKS.get(method, (GREY,))[0]})


def against_control(rows: Iterable[Mapping[str, Any]], method: str = "hashed", control: str = CONTROL,
                    tolerance: float = 0.1) -> list[dict[str, float]]:
    """Each size of a method minus the control that stores as much, paired by seed, with 95 % t intervals in points.

    Args:
        rows: as in `sharers`. tolerance: how far, as a fraction, the two may differ in stored numbers; others are left out.
    Returns:
        dicts with `unique`, `control` (stored numbers of both), `gain`, `low`, `high` (points) and `seeds`, smallest first.
    """
    rows = list(rows)
    dense = _by_size(rows, control)
    found = []
    for unique, runs in _by_size(rows, method).items():
        near = min(dense, key=lambda size: abs(size - unique), default=None)
        if near is None or abs(near - unique) > tolerance * unique:
            continue
        paired = [value - dense[near][seed] for seed, value in runs.items() if seed in dense[near]]
        if len(paired) >= 2:
            gain, low, high = mean_interval(paired)
            found.append({"unique": unique, "control": near, "gain": gain, "low": low, "high": high, "seeds": len(paired)})
    return found


def gains(compared: Sequence[Mapping[str, float]], label: str = "gain (points)") -> Axes:
    """What `against_control` found: one interval for each size, and a line at 0.

    Args:
        compared: dicts with `unique`, `gain`, `low` and `high`.
    """
    _, ax = plt.subplots(figsize=(6.4, 2.8))
    for row in compared:
        ax.errorbar(row["unique"], row["gain"], yerr=[[row["gain"] - row["low"]], [row["high"] - row["gain"]]], color=ORANGE, marker="X",
                    markersize=8, capsize=4)
        ax.annotate(f"{row['gain']:+.1f}", (row["unique"], row["gain"]), xytext=(7, 3), textcoords="offset points", fontsize=9)
    ax.axhline(0, color="black", linewidth=1.0, linestyle=":")
    ax.set(xscale="log", xlabel="stored numbers in the whole network", ylabel=label)
    ax.margins(x=0.1)
    return ax


# -- who shares with whom ----------------------------------------------------------------------------

def table(ax: Axes, indices: Tensor, signs: Tensor | None = None, title: str = "") -> None:
    """A matrix in which equal colours are one stored number; a bar in the cell is a minus.

    Args:
        indices: (m, n), which number each place uses. signs: (m, n) or None.
    """
    rows, columns = indices.shape
    ax.imshow(indices.tolist(), cmap="cividis", aspect="equal", interpolation="nearest")
    if rows * columns <= 400:
        bright = indices.double() > (indices.max() + indices.min()) / 2
        for i in range(rows):
            for j in range(columns):
                if signs is not None and signs[i, j] < 0:
                    ax.plot([j - 0.25, j + 0.25], [i, i], color="black" if bright[i, j] else "white", linewidth=1.2)
    ax.set(xticks=[], yticks=[], title=title)
    ax.grid(visible=False)


def _convolution(side: int = 4) -> Tensor:
    """A 3x3 convolution of a side x side image with zero padding, as a matrix: which of the nine weights; -1 where there is none."""
    places = torch.full((side * side, side * side), -1)
    for row in range(side * side):
        for column in range(side * side):
            down, right = column // side - row // side, column % side - row % side
            if max(abs(down), abs(right)) <= 1:
                places[row, column] = 3 * (down + 1) + right + 1
    return places


def map_of_sharing() -> Figure:
    """The sub-families as small matrices: equal colours are one stored number."""
    n, generator = 8, torch.Generator().manual_seed(2)
    rows, columns = torch.arange(n)[:, None], torch.arange(n)[None, :]
    hashed = torch.randint(0, n, (n, n), generator=generator)
    weight = torch.randn(n, n, generator=generator)
    clusters = torch.bucketize(weight, torch.tensor([-1.0, -0.3, 0.3, 1.0]))
    product = torch.stack([torch.randint(0, 3, (n,), generator=generator) for _ in range(4)], 1)
    product = (product + 3 * torch.arange(4)).repeat_interleave(2, 1) * 2 + columns % 2
    product = torch.randperm(24, generator=generator)[product]                  # neighbours in number are no neighbours in colour
    block = torch.randint(0, 30, (n // 2, n), generator=generator)
    drawn = {"convolution:\neach place of the image": _convolution(), "circulant, Toeplitz:\na rule of i - j": (rows - columns) % n,
             "hashing:\na random rule": hashed, "clusters: what\nis nearly equal": clusters, "product quantization:\npieces of rows": product,
             "across layers:\nwhole blocks": torch.cat([block, block])}
    figure, axes = plt.subplots(1, len(drawn), figsize=(11.6, 2.5))
    for ax, (name, indices) in zip(axes, drawn.items()):
        table(ax, indices, title=name)
        ax.title.set_fontsize(9)
        if "convolution" in name:
            ax.imshow([[1.0 if k < 0 else float("nan") for k in row] for row in indices.tolist()], cmap="gray", vmin=0, vmax=1)
    return figure


def lengths(loads: Mapping[str, Sequence[int]], xlabel: str = "weights in a bucket", ylabel: str = "buckets") -> Axes:
    """Histograms of whole numbers, one line each.

    Args:
        loads: {name: one whole number for each bucket}.
    """
    _, ax = plt.subplots(figsize=(6.4, 2.5))
    for (name, numbers), color, style in zip(loads.items(), (ORANGE, BLUE, GREY, GREEN), ("-", "--", ":", "-.")):
        counts = torch.bincount(torch.as_tensor(numbers))
        ax.step(range(len(counts)), counts.tolist(), where="mid", color=color, linestyle=style, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(fontsize=8)
    return ax
