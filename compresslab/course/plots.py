"""One figure style for the whole course, and the few drawings that every chapter needs.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; each family of methods also has
a marker and a line style of its own, so that every figure reads in grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

FAMILIES: dict[str, tuple[str, str, str]] = {
    "dense": ("#000000", "o", "-"),
    "pruning": ("#0072B2", "s", "--"),
    "quantization": ("#D55E00", "^", "-."),
    "compact": ("#009E73", "D", ":"),
    "distillation": ("#CC79A7", "v", (0, (5, 1))),
    "lowrank": ("#E69F00", "P", (0, (3, 1, 1, 1))),
    "sharing": ("#56B4E9", "X", (0, (1, 1))),
    "hybrid": ("#7A7A7A", "*", (0, (5, 1, 1, 1, 1, 1))),
}

AXIS_LABELS = {
    "file_bytes": "file size (bytes)",
    "total_bits": "stored size (bits)",
    "weight_bits": "stored weights (bits)",
    "macs": "multiply-accumulates per image",
    "latency_ms": "latency (ms)",
    "accuracy": "accuracy (fraction)",
}


def style() -> None:
    """Set the course's figure style for this session."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6),
            "figure.dpi": 90,
            "savefig.dpi": 90,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "image.cmap": "cividis",
            "axes.prop_cycle": plt.cycler(color=[color for color, _, _ in FAMILIES.values()]),
        }
    )


def family(name: str) -> dict[str, Any]:
    """The fixed look of a family, for `axes.plot(x, y, **family("pruning"))`.

    Raises:
        ValueError: there is no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f"there is no family {name!r}; there are {', '.join(FAMILIES)}")
    color, marker, linestyle = FAMILIES[name]
    return {"color": color, "marker": marker, "linestyle": linestyle}


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the points that no other beats: smaller x is better, larger y is better.

    Of equal points the first one stays. Sorted by x.
    Example:
        >>> pareto_front([(3, 0.9), (1, 0.8), (2, 0.7), (4, 0.9)])
        [1, 0]
    """
    front, best = [], -math.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front


def pareto(
    rows: Iterable[Mapping[str, Any] | Any],
    ax: Axes | None = None,
    *,
    x: str = "file_bytes",
    y: str = "accuracy",
) -> Axes:
    """Cost against accuracy, with 95 % intervals where `n` is known, and the Pareto front.

    Args:
        rows: measurements, or the ledger's rows.
        x: the cost, smaller is better. y: larger is better.
    """
    rows = [row if isinstance(row, Mapping) else vars(row) for row in rows]
    ax = ax or plt.subplots()[1]
    for row in rows:
        name = row.get("family") or "dense"
        look = family(name) if name in FAMILIES else family("dense")
        value, n = row[y], row.get("n") if y == "accuracy" else None
        half = 1.96 * math.sqrt(max(value * (1 - value), 1e-9) / n) if n else None
        ax.errorbar(row[x], value, yerr=half, capsize=2, markersize=7, **{**look, "linestyle": "none"})
        ax.annotate(
            row.get("name", ""), (row[x], value), xytext=(6, -10), textcoords="offset points", fontsize=8
        )
    points = [(row[x], row[y]) for row in rows]
    front = pareto_front(points)
    ax.step(
        [points[i][0] for i in front],
        [points[i][1] for i in front],
        where="post",
        color="#7A7A7A",
        linewidth=1,
    )
    ax.set(xscale="log", xlabel=AXIS_LABELS.get(x, x), ylabel=AXIS_LABELS.get(y, y))
    return ax


@dataclass(frozen=True)
class Block:
    """One box of a block diagram: a label, and the channels and height of the tensor that it makes."""

    label: str
    channels: int
    size: int = 1
    color: str = "#56B4E9"


def blocks(ax: Axes, boxes: Sequence[Block], title: str = "") -> Axes:
    """A chain of layers: width shows the channels, height the spatial size (square roots of both)."""
    widest, highest = max(box.channels for box in boxes), max(box.size for box in boxes)
    left = 0.0
    for index, box in enumerate(boxes):
        width, height = 0.25 + math.sqrt(box.channels / widest), 0.3 + 0.7 * math.sqrt(box.size / highest)
        ax.add_patch(
            Rectangle((left, -height / 2), width, height, facecolor=box.color, edgecolor="black", alpha=0.75)
        )
        size = f"{box.channels}" + (f"\u00d7{box.size}\u00d7{box.size}" if box.size > 1 else "")
        ax.text(
            left + width / 2, -height / 2 - 0.06, f"{box.label}\n{size}", ha="center", va="top", fontsize=8
        )
        if index:
            ax.annotate("", (left, 0), (left - 0.3, 0), arrowprops={"arrowstyle": "->"})
        left += width + 0.3
    ax.set(xlim=(-0.1, left - 0.2), ylim=(-0.95, 0.6), title=title)
    ax.axis("off")
    return ax


def flow(ax: Axes, boxes: Sequence[tuple[str, str]], wires: Sequence[str] = (), title: str = "") -> Axes:
    """Steps from left to right, with what runs between them.

    Args:
        boxes: (label, colour) of each step; an empty colour is white.
        wires: what enters the first box, runs between two, and leaves the last one: one more than boxes, or none.
    Raises:
        ValueError: there are wires, but not one more than boxes.
    """
    if wires and len(wires) != len(boxes) + 1:
        raise ValueError(f"{len(boxes)} boxes have {len(boxes) + 1} wires, got {len(wires)}")
    width, gap = 1.0, 0.75 if wires else 0.35
    for place, (label, color) in enumerate(boxes):
        left = place * (width + gap)
        ax.add_patch(Rectangle((left, -0.35), width, 0.7, facecolor=color or "white", edgecolor="black", alpha=0.75))
        ax.text(left + width / 2, 0, label, ha="center", va="center", fontsize=9)
    for place in range(0 if wires else 1, len(boxes) + (1 if wires else 0)):
        head = place * (width + gap)
        ax.annotate("", (head, 0), (head - gap, 0), arrowprops={"arrowstyle": "->"})
        if wires:
            ax.text(head - gap / 2, 0.06, wires[place], ha="center", va="bottom", fontsize=8)
    end = len(boxes) * (width + gap)
    ax.set(xlim=(-gap - 0.05 if wires else -0.05, end + 0.05 if wires else end - gap + 0.05), ylim=(-0.5, 0.5), title=title)
    ax.axis("off")
    return ax


def tensor(ax: Axes, values: Any, title: str = "", digits: int = 2) -> Axes:
    """A small matrix as annotated cells; zeros are hatched, so that what was removed is seen in grey too."""
    matrix = [[float(v) for v in row] for row in (values if _is_matrix(values) else [values])]
    largest = max((abs(v) for row in matrix for v in row if math.isfinite(v)), default=1.0) or 1.0
    cold, warm = plt.get_cmap("Blues"), plt.get_cmap("Oranges")
    for i, row in enumerate(matrix):
        for j, v in enumerate(row):
            color = (
                "white"
                if v == 0 or not math.isfinite(v)
                else (warm if v > 0 else cold)(0.6 * abs(v) / largest)
            )
            ax.add_patch(
                Rectangle((j, i), 1, 1, facecolor=color, edgecolor="#555555", hatch="///" if v == 0 else None)
            )
            ax.text(
                j + 0.5,
                i + 0.5,
                "0" if v == 0 else f"{v:.{digits}g}",
                ha="center",
                va="center",
                fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if v == 0 else None,
            )
    ax.set(xlim=(0, max(map(len, matrix))), ylim=(len(matrix), 0), aspect="equal", title=title)
    ax.axis("off")
    return ax


def _is_matrix(values: Any) -> bool:
    return getattr(values, "ndim", None) == 2 or (
        isinstance(values, list | tuple) and isinstance(values[0], list | tuple)
    )


def calibration(positions: Sequence[tuple[str, float]]) -> Figure:
    """Where measured values fell in the predicted intervals: (id, position), inside if |position| <= 1."""
    figure, ax = plt.subplots(figsize=(6, 0.9 + 0.28 * len(positions)))
    ax.axvspan(-1, 1, color="#DDDDDD", label="your 80 % interval")
    for row, (_, position) in enumerate(positions):
        inside = abs(position) <= 1
        ax.plot(
            max(-3.0, min(3.0, position)),
            row,
            "o" if inside else "X",
            color="#0072B2" if inside else "#D55E00",
        )
    ax.set_yticks(range(len(positions)), [id for id, _ in positions])
    hits = sum(abs(position) <= 1 for _, position in positions)
    ax.set(
        xlim=(-3.2, 3.2),
        ylim=(len(positions) - 0.4, -0.6),
        xlabel="measured value, in half widths of your interval",
        title=f"{hits} of {len(positions)} inside; 80 % would be {0.8 * len(positions):.1f}",
    )
    return figure
