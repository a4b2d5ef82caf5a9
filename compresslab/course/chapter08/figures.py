"""The figures of the first half of chapter 08. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from compresslab.course import plots
from compresslab.course.chapter08.ordering import by_setting

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#7A7A7A"
MODELS = {  # panel: how the model of a row begins; the data set
    "AlexNet, ImageNet": (("AlexNet", "vs AlexNet"), "ImageNet"), "VGG-16, ImageNet": (("VGG-16", "vs VGG-16", "VGG (whole"), "ImageNet"),
    "ResNet-50, ImageNet": (("ResNet-50",), "ImageNet"), "ResNet-56, CIFAR": (("ResNet-56", "resnet56"), "CIFAR"),
}


def _markers(figure: Figure, families: Iterable[str]) -> None:
    """A legend of families below the figure."""
    present = set(families)
    handles = [Line2D([], [], label=name, **{**plots.family(name), "linestyle": "none"}) for name in plots.FAMILIES if name in present]
    if handles:
        figure.legend(handles=handles, fontsize=8, ncol=len(handles), loc="outside lower center")


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Increasing values, moved apart until neighbours differ by at least `gap`, within 0 to 1 where they fit.

    Example:
        >>> [round(value, 2) for value in spread([0.0, 0.5, 0.5, 1.0], 0.2)]
        [0.0, 0.5, 0.7, 1.0]
    """
    moved: list[float] = []
    for value in values:
        moved.append(max(value, moved[-1] + gap) if moved else value)
    ceiling = max(1.0, gap * (len(moved) - 1))
    for i in range(len(moved) - 1, -1, -1):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - gap
    return moved


def _names_beside(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """The points' names in a column on the right, a thin line from each to its point. Set the limits of the axes first."""
    bottom, top = ax.get_ylim()
    ordered = sorted(points, key=lambda point: (point[1], -point[0]))
    places = spread([(y - bottom) / (top - bottom) for _, y, _ in ordered], min(0.05, 1 / max(len(ordered) - 1, 1)))
    for (x, y, name), place in zip(ordered, places):
        ax.annotate(name, (x, y), xytext=(1.03, place), textcoords="axes fraction", fontsize=7, va="center", annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "color": "#AAAAAA", "linewidth": 0.5})


# -- the table ---------------------------------------------------------------------------------------

def one_network(rows: Iterable[Mapping[str, Any]], network: str, depth: float = 16.0) -> Figure:
    """Accuracy against file bytes of every setting: a symbol for the mean, short marks for seeds, a line for the front of dots.

    Args:
        rows: of the comparison. depth: how many points below the best the axis ends; what lies deeper has an arrow and a line of text.
    """
    lines = by_setting(rows, network)
    figure, ax = plt.subplots(figsize=(9.6, 4.4))
    floor = 100 * max((line["accuracy"] for line in lines), default=1.0) - depth
    below: dict[int, list[str]] = {}  # at about the same size one arrow names all that lie below
    for line in lines:
        look, x, y = {**plots.family(line["family"]), "linestyle": "none"}, line["file_bytes"], 100 * line["accuracy"]
        if y < floor:
            near = next((size for size in below if abs(size / x - 1) < 0.05), x)
            below.setdefault(near, []).append(f"{line['method']} {line['setting']}: {y:.0f} %")
            continue
        ax.plot(x, y, markersize=8, **look)
        ax.plot([x] * len(line["accuracies"]), [100 * value for value in line["accuracies"]], marker="_", markersize=6, linestyle="none", color=look["color"])
    for x in below:
        ax.annotate("", (x, floor), xytext=(0, 12), textcoords="offset points", arrowprops={"arrowstyle": "->", "color": GREY})
    if below:
        lines_below = [f"{x / 1000:,.0f} kB: {', '.join(names)}" for x, names in sorted(below.items())]
        ax.text(0.985, 0.02, "below the axis\n" + "\n".join(lines_below), transform=ax.transAxes, fontsize=7, ha="right", va="bottom",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})
    front = plots.pareto_front([(line["file_bytes"], 100 * line["accuracy"]) for line in lines])
    best = [(lines[i]["file_bytes"], 100 * lines[i]["accuracy"], f"{lines[i]['method']} {lines[i]['setting']}") for i in front]
    ax.step([x for x, _, _ in best], [y for _, y, _ in best], where="post", color=GREY, linewidth=1.0, zorder=0)
    ax.set(xscale="log", xlabel="file (kB)", ylabel="accuracy (%)", title=network, ylim=(floor, None))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}")
    ax.xaxis.set_minor_formatter(lambda x, _: f"{x / 1000:g}" if f"{x:.0e}"[0] in "235" else "")
    _names_beside(ax, [point for point in best if point[1] >= floor])
    _markers(figure, (line["family"] for line in lines))
    return figure


# -- the record --------------------------------------------------------------------------------------

def published_record(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """Published compression against the published change of accuracy, one panel for each of four famous networks.

    Filled symbols are the size, hollow ones the operations where no size was stated; a change of top-5 accuracy is marked with 5. A row without a number for
    the change stands in the grey strip above: "no loss" in words is not a number.

    Args:
        rows: as in `record.plain_rows`.
    """
    rows = list(rows)
    figure, grid = plt.subplots(2, 2, figsize=(12, 8.4))
    for ax, (name, (starts, dataset)) in zip(grid.flat, MODELS.items()):
        here = [row for row in rows if str(row["model"]).startswith(starts) and str(row["dataset"]).startswith(dataset) and "only" not in row["model"]
                and (row["compression"] or row["speedup"])]
        _published_panel(ax, here)
        ax.set_title(f"{name}: {len(here)} rows")
    _markers(figure, (row["family"] for row in rows if row["family"] in plots.FAMILIES))
    return figure


def _published_panel(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    changes = [row["change"] if row["change"] is not None else row["change_top5"] for row in rows]
    stated = [change for change in changes if change is not None]
    bottom, strip = min([*stated, 0.0]), max([*stated, 0.0])
    strip += 0.12 * (strip - bottom + 1)
    named = []
    for row, change in zip(rows, changes):
        x, y = row["compression"] or row["speedup"], strip if change is None else change
        five = " (5)" if row["change"] is None and change is not None else ""
        ax.plot(x, y, markersize=7, fillstyle="full" if row["compression"] else "none", **{**plots.family(row["family"]), "linestyle": "none"})
        named.append((x, y, f"{_short(row['method'])} '{str(row['year'])[2:]}{five}"))
    thick = 0.04 * (strip - bottom + 1)
    ax.axhspan(strip - thick, strip + thick, color="#E4E4E4", zorder=0)
    ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set(xscale="log", xlabel="times smaller (hollow: times fewer operations)", ylabel="change of accuracy (points)",
           ylim=(bottom - 2 * thick, strip + 2 * thick))
    ax.margins(x=0.1)
    low, high = ax.get_xlim()
    ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000) if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    _names_beside(ax, named)


def _short(method: str, most: int = 24) -> str:
    """The method without what stands in brackets."""
    name = method.split(" (")[0]
    return name if len(name) <= most else name[: most - 1] + "."


# -- how sure ----------------------------------------------------------------------------------------

def intervals(cases: Mapping[str, tuple[float, float, float]], xlabel: str = "accuracy (%)") -> Axes:
    """One bar for each case, with its middle.

    Args:
        cases: {label: (value, low, high)}, fractions.
    """
    _, ax = plt.subplots(figsize=(6.8, 0.6 + 0.33 * len(cases)))
    for row, (value, low, high) in enumerate(cases.values()):
        ax.plot([100 * low, 100 * high], [row, row], color=BLUE, linewidth=4, solid_capstyle="butt", alpha=0.6)
        ax.plot(100 * value, row, "o", color="black", markersize=4)
    ax.set_yticks(range(len(cases)), list(cases), fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel=xlabel)
    return ax


def small_front(points: Sequence[tuple[float, float]], front: Sequence[int], intervals: Sequence[tuple[float, float]] | None = None,
                band: Sequence[int] = ()) -> Axes:
    """A few numbered points, those on the front filled, those in the band ringed."""
    _, ax = plt.subplots(figsize=(5.2, 2.7))
    for i, (x, y) in enumerate(points):
        if intervals is not None:
            ax.plot([x, x], intervals[i], color=GREY, linewidth=1.2)
        ax.plot(x, y, "o", color=BLUE, fillstyle="full" if i in front else "none", markersize=7)
        if i in band:
            ax.plot(x, y, "o", color=ORANGE, fillstyle="none", markersize=13)
        ax.annotate(str(i), (x, y), xytext=(8, 4), textcoords="offset points", fontsize=9)
    best = sorted(points[i] for i in front)
    ax.step([x for x, _ in best], [y for _, y in best], where="post", color="black", linewidth=1.0)
    ax.set(xlabel="bytes", ylabel="accuracy")
    return ax


# -- ratios ------------------------------------------------------------------------------------------

def family_ratios(measured: Mapping[str, Mapping[tuple[str, int], float]], printed: Mapping[str, Sequence[float]],
                  mean_ratio: Callable[[Sequence[float]], tuple[float, float, float]]) -> Axes:
    """Each family twice: our ratios with their mean, and above it, hollow, what is printed.

    Args:
        measured: {family: {(network, seed): ratio}}. printed: {family: ratios}.
        mean_ratio: ratios -> (mean, low, high), the learner's (exercise 8.5).
    """
    _, ax = plt.subplots(figsize=(8.4, 4.6))
    networks = list(dict.fromkeys(network for places in measured.values() for network, _ in places))
    for row, (family, places) in enumerate(measured.items()):
        look = {**plots.family(family), "linestyle": "none"}
        for (network, _), ratio in places.items():
            ax.plot(ratio, row + 0.08 * (networks.index(network) - len(networks) / 2), marker="|", color=look["color"], markersize=6)
        _mean_and_interval(ax, list(places.values()), row + 0.3, mean_ratio, look, "full")
        _mean_and_interval(ax, list(printed.get(family, ())), row - 0.34, mean_ratio, look, "none")
    ax.set_yticks(range(len(measured)), list(measured))
    ax.set(xscale="log", xlabel="times smaller at a loss of at most 1 point (filled: measured here; hollow: printed)")
    return ax


def _mean_and_interval(ax: Axes, ratios: Sequence[float], y: float, mean_ratio: Callable, look: Mapping[str, Any], fill: str) -> None:
    if len(ratios) >= 2:
        middle, low, high = mean_ratio(ratios)
        ax.errorbar(middle, y, xerr=[[middle - low], [high - middle]], capsize=3, fillstyle=fill, markersize=7, **look)
    elif ratios:
        ax.plot(ratios[0], y, fillstyle=fill, markersize=7, **look)


def side_by_side(compared: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Axes:
    """For each claim one interval per network: right of 0 the expected method is ahead.

    Args:
        compared: {claim: {network: {"difference", "low", "high"}}}, points.
    """
    networks = list(dict.fromkeys(network for lines in compared.values() for network in lines))
    _, ax = plt.subplots(figsize=(9.0, 0.9 + 0.62 * len(compared)))
    for row, lines in enumerate(compared.values()):
        for network, line in lines.items():
            place, sure = networks.index(network), line["low"] > 0 or line["high"] < 0
            ax.errorbar(line["difference"], row + 0.16 * (place - (len(networks) - 1) / 2), capsize=2, color="#000000 #0072B2 #D55E00 #009E73".split()[place % 4],
                        xerr=[[line["difference"] - line["low"]], [line["high"] - line["difference"]]], marker="os^D"[place % 4], markersize=5,
                        fillstyle="full" if sure else "none", label=network if row == 0 else None)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xscale("symlog", linthresh=1.0)
    low, high = ax.get_xlim()
    ticks = [tick for tick in (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100) if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks])
    ax.set_yticks(range(len(compared)), list(compared), fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="difference of accuracies (points, paired by seed; linear up to 1, then logarithmic)")
    if compared:
        ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax
