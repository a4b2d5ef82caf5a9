"""The figures and tables of the second half of chapter 07. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
SHORT = {"prune": "P", "quantize": "Q", "decompose": "D", "distil": "K"}  # K, for knowledge
LEFT = {"sparse codebook": (BLUE, "o"), "codebook": (GREEN, "s"), "sparse floats": (ORANGE, "^"), "floats": (GREY, "D")}
SEARCHES = {"uniform": (GREY, ":", "s"), "integer program": (BLUE, "--", "o"), "evolution": (ORANGE, "-", "^")}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def rows_of(evidence: Mapping[str, Any], *experiments: str) -> list[Mapping[str, Any]]:
    """The rows of these experiments; an entry of the evidence is a row or a list of rows."""
    entries = [entry if isinstance(entry, list) else [entry] for entry in evidence.values()]
    return [row for rows in entries for row in rows if row["experiment"] in experiments]


def _by_order(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row["order"]), []).append(row)
    return groups


def orders(rows: Iterable[Mapping[str, Any]]) -> Axes:
    """Accuracy against file bytes, one symbol for each order (its mean over the seeds), short marks for single seeds.

    Args:
        rows: dicts with the keys `order` (a sequence of operations), `seed`, `file_bytes`, `accuracy` (a fraction) and
            `left` (the structure that the file stores).
    """
    _, ax = plt.subplots(figsize=(8.4, 4.8))
    named, points = set(), []
    for order, group in _by_order(rows).items():
        color, marker = LEFT.get(group[0]["left"], (GREY, "x"))
        size, right = _mean([row["file_bytes"] for row in group]), 100 * _mean([row["accuracy"] for row in group])
        ax.plot([row["file_bytes"] for row in group], [100 * row["accuracy"] for row in group], "_", color=color, markersize=5, alpha=0.7)
        ax.plot(size, right, marker, color=color, markersize=6, label=None if group[0]["left"] in named else f"left: {group[0]['left']}")
        points.append((group[0]["left"], right, size, "".join(SHORT.get(name, name[0]) for name in order)))
        named.add(group[0]["left"])
    for right, size, names in _clusters(points):
        ax.annotate(names, (size, right), xytext=(8, 0), textcoords="offset points", fontsize=7, va="center")
    ax.set(xscale="log", xlabel="file size (bytes)", ylabel="right (%)")
    ax.set_xticks(ticks := (30_000, 50_000, 100_000, 200_000, 500_000), [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="P prune, Q quantize,\nD decompose, K distil", fontsize=8, title_fontsize=8)
    return ax


def _clusters(points: Iterable[tuple[str, float, float, str]], apart: float = 1.5) -> list[tuple[float, float, str]]:
    """Neighbours in the figure, named together from the best down: (height, size, names in lines) of each group.

    Args:
        points: (structure left, accuracy in percent, bytes, name). apart: points of accuracy that part two groups.
    """
    groups: list[list[tuple[str, float, float, str]]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        last = groups[-1][-1] if groups else None
        if last is None or last[0] != point[0] or last[1] - point[1] > apart:
            groups.append([])
        groups[-1].append(point)
    return [(_mean([right for _, right, _, _ in group]), max(size for _, _, size, _ in group), "\n".join(name for *_, name in group)) for group in groups]


def orders_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """One line for each order, the smallest file first: bytes, accuracy and its range over the seeds, what the file stores."""
    lines = [f"{'order':42}{'bytes':>9}{'right':>9}{'seeds from .. to':>20}  stored"]
    groups = _by_order(rows)
    for order in sorted(groups, key=lambda order: _mean([row["file_bytes"] for row in groups[order]])):
        group = groups[order]
        values = [100 * row["accuracy"] for row in group]
        spread = f"{min(values):.2f} .. {max(values):.2f}"
        lines.append(f"{' > '.join(order):42}{_mean([row['file_bytes'] for row in group]):9,.0f}{_mean(values):7.2f} %{spread:>20}  {group[0]['left']}")
    return "\n".join(lines)


def size_spread(rows: Iterable[Mapping[str, Any]]) -> float:
    """How many times larger the largest order's file is than the smallest's (means over the seeds)."""
    sizes = [_mean([row["file_bytes"] for row in group]) for group in _by_order(rows).values()]
    return max(sizes) / min(sizes)


def effects(names: Sequence[str], found: Mapping[tuple[str, str], tuple[float, float, float]]) -> Axes:
    """What it gains to do the row's operation directly before the column's, in points; pairs whose interval holds 0 are hatched.

    Args:
        names: of the operations.
        found: {(first, second): (mean, low, high)}, fractions, for both directions of every pair.
    """
    n = len(names)
    values = torch.tensor([[100 * found[a, b][0] if a != b else float("nan") for b in names] for a in names])
    limit = values.nan_to_num().abs().max().item() or 1.0
    _, ax = plt.subplots(figsize=(1.3 * n + 1.4, 0.85 * n + 0.8))
    ax.imshow(values.numpy(), cmap="RdBu", vmin=-2 * limit, vmax=2 * limit, aspect="auto")
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            if i != j:
                mean, low, high = (100 * value for value in found[first, second])
                ax.text(j, i, f"{mean:+.2f}\n[{low:+.2f}, {high:+.2f}]", ha="center", va="center", fontsize=8)
                if low <= 0 <= high:
                    ax.add_patch(plt.Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="//", edgecolor="#BBBBBB", linewidth=0))
    ax.set_xticks(range(n), [f"before {name}" for name in names], fontsize=8)
    ax.set_yticks(range(n), names)
    ax.grid(visible=False)
    ax.set_title("gain in points; hatched: not distinguishable from 0", fontsize=9)
    return ax


def effects_table(found: Mapping[tuple[str, str], tuple[float, float, float]]) -> str:
    """One line for each pair, in the direction that gains."""
    lines = [f"{'first':>10} before {'second':10}{'gain':>8}  95 % interval (points)"]
    for (first, second), effect in found.items():
        mean, low, high = (100 * value for value in effect)
        if mean >= 0 and ((second, first) not in found or mean > 0 or first < second):
            verdict = "order matters" if low > 0 or high < 0 else "not distinguishable"
            lines.append(f"{first:>10} before {second:10}{mean:+8.2f}  [{low:+.2f}, {high:+.2f}]  {verdict}")
    return "\n".join(lines)


def search(rows: Iterable[Mapping[str, Any]]) -> Axes:
    """Accuracy against the byte budget, a line for each way to spend it; short marks for single seeds.

    Args:
        rows: dicts with the keys `method` ("uniform", "integer program", "evolution"), `budget_bytes`, `seed`, `accuracy`.
    """
    _, ax = plt.subplots(figsize=(7.0, 3.8))
    rows = list(rows)
    for method in dict.fromkeys(row["method"] for row in rows):
        color, line, marker = SEARCHES.get(method, (GREEN, "-.", "D"))
        points = search_means(rows, method)
        ax.plot(points.keys(), [100 * value for value in points.values()], color=color, linestyle=line, marker=marker, label=method)
        own = [row for row in rows if row["method"] == method]
        ax.plot([row["budget_bytes"] for row in own], [100 * row["accuracy"] for row in own], "_", color=color, markersize=8)
    ax.set(xscale="log", xlabel="budget for the whole file (bytes)", ylabel="right (%)")
    ticks = sorted({row["budget_bytes"] for row in rows})
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.legend(loc="lower right")
    return ax


def search_means(rows: Iterable[Mapping[str, Any]], method: str) -> dict[int, float]:
    """{budget: mean accuracy over the seeds} of one method, the smallest budget first."""
    groups: dict[int, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            groups.setdefault(row["budget_bytes"], []).append(row["accuracy"])
    return {budget: _mean(groups[budget]) for budget in sorted(groups)}


def best_gain(rows: Iterable[Mapping[str, Any]]) -> float:
    """Points that the best search gains over the best uniform setting, at the smallest budget."""
    rows = list(rows)
    uniform = search_means(rows, "uniform")
    smallest = min(uniform)
    others = [search_means(rows, method) for method in dict.fromkeys(row["method"] for row in rows) if method != "uniform"]
    return 100 * (max(means[smallest] for means in others if smallest in means) - uniform[smallest])


def paths(A: Tensor, b: Tensor, shown: Mapping[str, Sequence[Sequence[float]]], radius: float = 1.0) -> Axes:
    """Which points are visited, step by step, on the contours of a bowl in the plane; the allowed set is a disc, seen near its edge.

    Args:
        A, b: the bowl w'Aw/2 - b'w, (2, 2) and (2,).
        shown: {name: the points that were visited}.
        radius: of the disc.
    """
    _, ax = plt.subplots(figsize=(6.0, 4.2))
    x, y = torch.meshgrid(torch.linspace(0.65, 1.25, 120), torch.linspace(-0.05, 0.6, 120), indexing="xy")
    grid = torch.stack([x, y], dim=-1).double()
    height = 0.5 * torch.einsum("...i,ij,...j->...", grid, A, grid) - grid @ b
    ax.contour(x.numpy(), y.numpy(), height.numpy(), levels=18, colors="#BBBBBB", linewidths=0.8)
    ax.add_patch(plt.Circle((0, 0), radius, color=GREY, alpha=0.15))
    for (name, points), (color, marker) in zip(shown.items(), ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"))):
        ax.plot([p[0] for p in points], [p[1] for p in points], color=color, marker=marker, markersize=4, linewidth=1.2, label=name)
    ax.set(xlabel="$z_1$", ylabel="$z_2$", xlim=(0.65, 1.25), ylim=(-0.05, 0.6), title="inside the disc the points are allowed; the bowl falls to the right")
    ax.legend(loc="upper right", fontsize=8)
    return ax


def matrices(shown: Mapping[str, Tensor]) -> Figure:
    """Matrices side by side on one scale; blue is negative, red is positive."""
    limit = max(matrix.abs().max().item() for matrix in shown.values()) or 1.0
    figure, axes = plt.subplots(1, len(shown), figsize=(2.5 * len(shown), 2.6), squeeze=False)
    for ax, (name, matrix) in zip(axes[0], shown.items()):
        ax.imshow(matrix.detach().numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
        ax.set_title(name, fontsize=9)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
    return figure


def lines(series: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, *, x: Sequence[float] | None = None, logx: bool = False, logy: bool = False) -> Axes:
    """Several short series, each with a look of its own."""
    _, ax = plt.subplots(figsize=(7.0, 3.0))
    looks = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"), (GREY, ":", "D"))
    for (name, values), (color, line, marker) in zip(series.items(), looks):
        ax.plot(x or range(1, len(values) + 1), values, color=color, linestyle=line, marker=marker, markersize=3, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if logx else "linear", yscale="log" if logy else "linear")
    if x and logx:
        ax.set_xticks(list(x), [f"{place:g}" for place in x])
        ax.minorticks_off()
    ax.legend()
    return ax
