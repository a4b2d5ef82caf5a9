"""The figures and tables of the second half of chapter 06. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from compresslab.course.chapter06.figures import BLUE, GREEN, GREY, ORANGE

LOOKS = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"), (GREY, ":", "D"))


def crossover(rows: Iterable[Mapping[str, Any]]) -> Axes:
    """How many times faster the transform is than the matrix, against n; a line for each batch size.

    Args:
        rows: dicts with the keys `n`, `batch`, `ratio` (dense time / transform time), `low` and `high` (its interval).
    """
    _, ax = plt.subplots(figsize=(7.6, 3.8))
    by_batch: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_batch.setdefault(row["batch"], []).append(row)
    for (batch, group), (color, line, marker) in zip(sorted(by_batch.items()), LOOKS):
        group = sorted(group, key=lambda row: row["n"])
        n, ratio = [row["n"] for row in group], [row["ratio"] for row in group]
        errors = [[max(0.0, row["ratio"] - row["low"]) for row in group], [max(0.0, row["high"] - row["ratio"]) for row in group]]
        ax.errorbar(n, ratio, yerr=errors, color=color, linestyle=line, marker=marker, capsize=3, label=f"batch {batch}")
    ax.axhline(1, color="black", linewidth=1.0, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel="n, inputs = outputs", ylabel="dense time / transform time")
    ax.set_xticks(sizes := sorted({row["n"] for group in by_batch.values() for row in group}), [str(n) for n in sizes])
    ax.minorticks_off()
    ax.text(0.99, 1.06, "transform faster", transform=ax.get_yaxis_transform(), fontsize=8, ha="right", va="bottom")
    ax.text(0.99, 0.94, "matrix faster", transform=ax.get_yaxis_transform(), fontsize=8, ha="right", va="top")
    ax.legend(loc="upper left")
    return ax


def faster_from(rows: Iterable[Mapping[str, Any]], batch: int) -> int | None:
    """The smallest n of a batch size from which on the transform is faster, at this n and every larger one; None: never."""
    own = sorted((row for row in rows if row["batch"] == batch), key=lambda row: -row["n"])
    found = None
    for row in own:
        if row["ratio"] <= 1:
            break
        found = row["n"]
    return found


def crossover_table(rows: Iterable[Mapping[str, Any]], macs_ratio: Mapping[int, float]) -> str:
    """One line for each n and batch: both times, their ratio with its interval, and the ratio of the multiplications."""
    lines = [f"{'n':>6}{'batch':>7}{'dense':>12}{'transform':>12}{'ratio':>8}{'95 % interval':>18}{'multiplications':>17}"]
    for row in sorted(rows, key=lambda row: (row["batch"], row["n"])):
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        count = f"{macs_ratio[row['n']]:.0f} x fewer" if row["n"] in macs_ratio else ""
        lines.append(f"{row['n']:6}{row['batch']:7}{row['dense_ms']:9.3f} ms{row['fft_ms']:9.3f} ms{row['ratio']:8.2f}{interval:>18}{count:>17}")
    return "\n".join(lines)


STRUCTURES = ("dense", "small dense", "low rank", "circulant", "block-circulant", "toeplitz", "displacement", "fastfood")


def structures_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """One line for each structured sharer and size: stored numbers of the whole network, and the mean accuracy over its seeds.

    Args:
        rows: as in `figures.sharers`: dicts with the keys `method`, `seed`, `unique` and `accuracy` (a fraction).
    """
    found: dict[tuple[int, int, str], list[float]] = {}
    for row in rows:
        if row["method"] in STRUCTURES:
            found.setdefault((row["unique"], STRUCTURES.index(row["method"]), row["method"]), []).append(100 * row["accuracy"])
    lines = [f"{'':18}{'numbers in the network':>24}{'right':>10}{'seeds':>7}"]
    for (unique, _, method), values in sorted(found.items()):
        lines.append(f"{method:18}{unique:24,}{sum(values) / len(values):9.2f} %{len(values):6}")
    return "\n".join(lines)


def matrices(shown: Mapping[str, Tensor]) -> Figure:
    """Weights side by side as pictures, each on a scale of its own; blue is negative, red is positive."""
    figure, axes = plt.subplots(1, len(shown), figsize=(2.3 * len(shown), 2.7), squeeze=False)
    for ax, (name, weight) in zip(axes[0], shown.items()):
        limit = weight.abs().max().item() or 1.0
        ax.imshow(weight.detach().numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_title(name, fontsize=9)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
    return figure


def mixture(weights: Tensor, levels: Sequence[float], title: str = "") -> Axes:
    """A histogram of weights, and dashed lines at the levels that they share."""
    _, ax = plt.subplots(figsize=(7.6, 2.8))
    ax.hist(weights.flatten().tolist(), bins=200, color="#BBBBBB")
    for number, level in enumerate(levels):
        ax.axvline(level, color=ORANGE, linestyle="--", linewidth=1.0, label="levels" if number == 0 else None)
    ax.set(xlabel="weight", ylabel="weights in a bin (log)", yscale="log", title=title)
    ax.legend()
    return ax


def losses(series: Mapping[str, Sequence[float]]) -> Axes:
    """The loss of every step, a line for each loop."""
    _, ax = plt.subplots(figsize=(7.0, 3.0))
    for (name, values), (color, line, marker) in zip(series.items(), LOOKS):
        ax.plot(range(1, len(values) + 1), values, color=color, linestyle=line, marker=marker, markersize=3, label=name)
    ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
    ax.legend()
    return ax
