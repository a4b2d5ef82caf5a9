"""The figures of the first half of chapter 04. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from compresslab.core.statistics import mean_interval
from compresslab.course.chapter01.figures import curves

__all__ = ["curves", "gradient_lengths", "map_of_distillation", "gains", "softened_digits", "transfer", "who_resembles_whom"]

BLUE, ORANGE, GREEN, GREY, PINK = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#CC79A7"
OFF_SCALE = 12  # points below the labels: such a method is named, not drawn
KINDS = {  # kind: (colour, marker, methods in the order of the figure)
    "no teacher": ("#000000", "o", ("labels",)),
    "outputs": (ORANGE, "s", ("soft targets", "decoupled")),
    "features": (BLUE, "^", ("hint", "attention", "flow", "relations", "similarity", "contrastive")),
    "controls": (GREY, "X", ("label smoothing", "one softness for all", "shuffled non-targets", "wrong teacher")),
}


def _kind(method: str) -> tuple[str, str, str]:
    """(kind, colour, marker) of a method; unknown ones count as features."""
    for kind, (color, marker, methods) in KINDS.items():
        if method in methods:
            return kind, color, marker
    return "features", *KINDS["features"][:2]


def _by_method(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """{method: {seed: accuracy in percent}}, in the order of `KINDS`."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row["method"], {})[row["seed"]] = 100 * row["accuracy"]
    order = [method for _, _, methods in KINDS.values() for method in methods]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def gains(rows: Iterable[Mapping[str, Any]], base: str = "labels") -> dict[str, tuple[float, float, float, int]]:
    """{method: (mean gain, low, high, seeds)} in points over the runs of `base` with the same seeds, 95 % t intervals.

    Args:
        rows: dicts with the keys `method`, `seed` and `accuracy` (a fraction).
    """
    found = _by_method(rows)
    result = {}
    for method, runs in found.items():
        paired = [value - found[base][seed] for seed, value in runs.items() if seed in found.get(base, {})]
        if method == base or len(paired) < 2:
            continue
        result[method] = (*mean_interval(paired), len(paired))
    return result


def transfer(rows: Iterable[Mapping[str, Any]], title: str = "") -> Figure:
    """Left the accuracy of every student, by what was transferred; right the gain over labels, paired by seed, with its interval.

    Args:
        rows: dicts with the keys `method`, `seed` and `accuracy` (a fraction).
    """
    rows = list(rows)
    found, gained = _by_method(rows), gains(rows)
    least = min((mean(runs.values()) for runs in found.values()), default=0.0)
    if "labels" in found and least < (shown := mean(found["labels"].values()) - OFF_SCALE):
        least = shown
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 0.9 + 0.34 * max(len(found), 3)), sharey=True, width_ratios=(1, 1.1))
    for place, (method, runs) in enumerate(found.items()):
        _, color, marker = _kind(method)
        if mean(runs.values()) < least:
            left.annotate(f"◄ {mean(runs.values()):.0f} %: off the scale", (0.02, place), xycoords=("axes fraction", "data"), va="center", color=color)
            continue
        left.plot(list(runs.values()), [place] * len(runs), linestyle="", marker=marker, color=color, fillstyle="none", markersize=6)
        left.plot([mean(runs.values())] * 2, [place - 0.3, place + 0.3], color=color, linewidth=2.2)
        if method in gained:
            middle, low, high, _ = gained[method]
            right.errorbar(middle, place, xerr=[[middle - low], [high - middle]], color=color, marker=marker, capsize=4)
            right.annotate(f"{middle:+.1f}", (middle, place), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8)
    if "labels" in found:
        for ax, zero in ((left, mean(found["labels"].values())), (right, 0.0)):
            ax.axvline(zero, color="black", linewidth=1.0, linestyle=":")
    left.set_yticks(range(len(found)), list(found))
    left.set(ylim=(len(found) - 0.4, -0.6), xlabel="accuracy (%); a bar for the mean", title=title)
    right.set(xlabel="gain over labels, same seeds (points, 95 % interval)")
    for kind, (color, marker, methods) in KINDS.items():
        if any(_kind(method)[0] == kind for method in found):
            right.plot([], [], linestyle="", marker=marker, color=color, label=kind)
    if found:
        right.legend(fontsize=8, loc="best")
    return figure


# -- the map -----------------------------------------------------------------------------------------

def map_of_distillation() -> Figure:
    """What is transferred (rows) and who teaches (columns), with the methods of the chapter in the cells."""
    columns = ("a trained teacher,\nfrozen", "peers that learn\nat the same time", "the student's\nformer self", "a teacher without\nits data")
    rows = ("outputs", "features", "relations")
    cells = {(0, 0): "soft targets,\ndecoupled", (0, 1): "mutual\nlearning", (0, 2): "born-again\nnetworks", (0, 3): "images made from\nbatch statistics",
             (1, 0): "hints, attention,\nselectivity", (2, 0): "flow, distances, angles,\nsimilarity, contrast"}
    figure, ax = plt.subplots(figsize=(8.6, 2.6))
    for row in range(len(rows)):
        for column in range(len(columns)):
            text = cells.get((row, column), "")
            ax.add_patch(Rectangle((column, row), 1, 1, facecolor=("#F3D9E6" if text else "white"), edgecolor="black", linewidth=0.8,
                                   hatch="" if text else "..", alpha=1.0 if text else 0.25))
            ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9)
    ax.set_xticks([k + 0.5 for k in range(len(columns))], columns)
    ax.set_yticks([k + 0.5 for k in range(len(rows))], rows)
    ax.xaxis.tick_top()
    ax.set(xlim=(0, len(columns)), ylim=(len(rows), 0), xlabel="who teaches", ylabel="what is transferred")
    ax.xaxis.set_label_position("bottom")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    return figure


# -- what a teacher says -----------------------------------------------------------------------------

def softened_digits(pictures: Tensor, labels: Sequence[int], softened: Mapping[float, Tensor]) -> Figure:
    """Some digits, and under each what the teacher says at every temperature.

    Args:
        pictures: (N, C, H, W), whole numbers 0 ... 255. labels: N class numbers.
        softened: {temperature: (N, K) probabilities}.
    """
    figure, grid = plt.subplots(1 + len(softened), len(labels), figsize=(1.75 * len(labels), 1.5 * (1 + len(softened))), sharey="row", squeeze=False)
    for column, label in enumerate(labels):
        picture = pictures[column].permute(1, 2, 0).squeeze(-1)
        grid[0][column].imshow(picture.numpy(), cmap="gray" if picture.ndim == 2 else None)
        grid[0][column].set(xticks=[], yticks=[], title=f"a {label}")
        grid[0][column].grid(visible=False)
        for ax, (temperature, p) in zip(grid[1:, column], softened.items()):
            row = p[column].tolist()
            bars = ax.bar(range(len(row)), row, color=[ORANGE if k == label else BLUE for k in range(len(row))], edgecolor="black", linewidth=0.4)
            bars[label].set_hatch("///")
            ax.set(xticks=range(len(row)), ylim=(0, 1.05))
            ax.tick_params(labelsize=7)
            if column == 0:
                ax.set_ylabel(f"T = {temperature:g}")
    figure.supxlabel("class", fontsize=9)
    return figure


def gradient_lengths(temperatures: Sequence[float], lengths: Mapping[str, Sequence[float]], limit: float) -> Axes:
    """Lengths of the gradient against the temperature, both on logarithmic axes, and a dashed line for the limit.

    Args:
        temperatures: T. lengths: {what: one length for each T}. limit: the length that T^2 KL tends to.
    """
    series = {name: (list(temperatures), list(values)) for name, values in lengths.items()}
    first = next(iter(lengths.values()))[0] * temperatures[0] ** 2
    series["falling like 1 / T²"] = (list(temperatures), [first / t**2 for t in temperatures])
    ax = curves(series, "temperature T", "length of the gradient")
    ax.axhline(limit, color="black", linestyle=(0, (1, 3)), linewidth=1.2)
    ax.annotate("logit matching", (temperatures[-1], limit), xytext=(0, -11), textcoords="offset points", ha="right", fontsize=8)
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(list(temperatures), [f"{t:g}" for t in temperatures], minor=False)
    ax.minorticks_off()
    return ax


def who_resembles_whom(tables: Mapping[str, Tensor]) -> Figure:
    """The mean probability of each wrong class, for the images of each class: a table for each kind of teacher.

    Args:
        tables: {name: (K, K)}; row: the label, column: the class; the diagonal is left out.
    """
    figure, grid = plt.subplots(1, len(tables), figsize=(3.5 * len(tables), 3.5), squeeze=False)
    top = max(float((table - table.diag().diag()).max()) for table in tables.values())
    for ax, (name, table) in zip(grid[0], tables.items()):
        k = len(table)
        off = (table - table.diag().diag()).tolist()
        image = ax.imshow(off, cmap="cividis", vmin=0, vmax=top)
        for i in range(k):
            ax.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, facecolor="white", edgecolor=GREY, hatch="////", linewidth=0))
            best = max(range(k), key=lambda j: off[i][j])
            ax.plot(best, i, marker=".", color=ORANGE, markersize=5)
        ax.set(xticks=range(k), yticks=range(k), xlabel="class", ylabel="label", title=name)
        ax.tick_params(labelsize=8)
        ax.grid(visible=False)
    figure.colorbar(image, ax=list(grid[0]), shrink=0.75, label="mean probability")
    return figure
