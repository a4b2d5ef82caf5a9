"""Chapter 00: its figures. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from torch import Tensor

from compresslab.course import plots

# -- the seven families ------------------------------------------------------------------------------

FRAMES = (
    ("dense", "a trained network", "every weight its own,\n32 bits each"),
    ("pruning", "01 pruning", "remove weights\nor whole channels"),
    ("quantization", "02 quantization", "a few levels,\na few bits each"),
    ("compact", "03 compact networks", "design a layer that\nneeds fewer weights"),
    ("distillation", "04 distillation", "a large network\nteaches a small one"),
    ("lowrank", "05 low rank", "a product of two\nthin matrices"),
    ("sharing", "06 sharing", "few weights,\nused many times"),
    ("hybrid", "07 hybrid", "several of them,\nand a code on top"),
)


def seven_families() -> Figure:
    """One small drawing for each family of methods, all starting from the same weights."""
    figure, grid = plt.subplots(2, 4, figsize=(9.6, 6.0), layout="constrained")
    figure.get_layout_engine().set(hspace=0.12)
    weights = torch.randn(6, 6, generator=torch.Generator().manual_seed(5))
    for ax, (name, title, caption) in zip(grid.flat, FRAMES, strict=True):
        ax.set(xlim=(-0.6, 6.6), ylim=(7.0, -0.6), aspect="equal")
        ax.axis("off")
        look = plots.family(name)
        ax.set_title(title, fontweight="bold", color="black")
        ax.add_patch(Rectangle((-0.55, -0.45), 7.1, 7.3, fill=False, edgecolor=look["color"], linewidth=2.5))
        ax.text(0.5, -0.02, caption, transform=ax.transAxes, ha="center", va="top", fontsize=9.5)
        DRAWINGS[name](ax, weights)
    return figure


def _cells(ax: Axes, values: Tensor, left: float = 0.0, top: float = 0.0, size: float = 1.0) -> None:
    """A matrix in greys; what is zero is white and hatched."""
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            shade = plt.get_cmap("cividis")(min(max(0.5 + value / 4.4, 0.0), 1.0))
            look = {"facecolor": "white", "hatch": "////"} if value == 0 else {"facecolor": shade}
            place = (left + j * size, top + i * size)
            ax.add_patch(Rectangle(place, size, size, edgecolor="#555555", linewidth=0.6, **look))


def _draw_pruning(ax: Axes, weights: Tensor) -> None:
    kept = torch.where(weights.abs() < 0.55, torch.zeros(()), weights)
    kept[:, 4] = 0
    _cells(ax, kept, 0.3, 0.3, 0.9)


def _draw_compact(ax: Axes, weights: Tensor) -> None:
    boxes = (((0.1, 0.4), 2.3, 5.4, "3x3\nall\nchannels"), ((3.7, 0.4), 2.3, 2.3, "3x3\nper\nchannel"),
             ((3.7, 3.5), 2.3, 2.3, "1x1"))
    for (left, top), width, height, label in boxes:
        ax.add_patch(Rectangle((left, top), width, height, facecolor="#DDEEE8", edgecolor="black"))
        ax.text(left + width / 2, top + height / 2, label, ha="center", va="center", fontsize=9)
    _arrow(ax, (2.5, 3.1), (3.6, 3.1))
    _arrow(ax, (4.85, 2.75), (4.85, 3.45))


def _draw_distillation(ax: Axes, weights: Tensor) -> None:
    teacher, student = (1.3, 2.5, 3.7, 4.9), (2.4, 3.8)
    for a in teacher:
        for b in teacher:
            ax.plot((0.5, 1.9), (a, b), color="#888888", linewidth=0.6, zorder=1)
    for a in student:
        for b in student:
            ax.plot((4.8, 5.7), (a, b), color="#888888", linewidth=0.6, zorder=1)
    for x, heights in ((0.5, teacher), (1.9, teacher), (4.8, student), (5.7, student)):
        for y in heights:
            ax.add_patch(Circle((x, y), 0.33, facecolor="#F3E1EC", edgecolor="black", zorder=2))
    _arrow(ax, (2.4, 3.1), (4.4, 3.1))
    ax.text(3.35, 2.85, "answers", ha="center", va="bottom", fontsize=8.5)
    ax.text(1.2, 6.1, "teacher", ha="center", fontsize=9)
    ax.text(5.2, 6.1, "student", ha="center", fontsize=9)


def _draw_low_rank(ax: Axes, weights: Tensor) -> None:
    u, s, v = torch.linalg.svd(weights)
    _cells(ax, u[:, :2] * s[:2].sqrt(), 0.1, 0.7, 0.8)
    _cells(ax, s[:2].sqrt()[:, None] * v[:2], 2.1, 2.3, 0.72)


def _draw_sharing(ax: Axes, weights: Tensor) -> None:
    row = weights[2]
    _cells(ax, torch.stack([row.roll(i) for i in range(6)]), 0.3, 0.3, 0.9)


def _draw_hybrid(ax: Axes, weights: Tensor) -> None:
    kept = torch.where(weights.abs() < 0.55, torch.zeros(()), (weights / 1.2).round() * 1.2)
    _cells(ax, kept[:4], 1.2, 0.2, 0.75)
    _arrow(ax, (3.45, 3.4), (3.45, 4.4))
    ax.text(3.45, 5.3, "0110100101\n1101001…", ha="center", va="center", fontsize=10, family="monospace")


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="black"))


DRAWINGS = {
    "dense": lambda ax, weights: _cells(ax, weights, 0.3, 0.3, 0.9),
    "pruning": _draw_pruning,
    "quantization": lambda ax, weights: _cells(ax, (weights / 1.2).round().clamp(-1, 1) * 1.2 + 1e-3, 0.3, 0.3, 0.9),
    "compact": _draw_compact,
    "distillation": _draw_distillation,
    "lowrank": _draw_low_rank,
    "sharing": _draw_sharing,
    "hybrid": _draw_hybrid,
}

# -- the ruler -----------------------------------------------------------------------------------------


def ruler(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Networks side by side: the size of the file, the change of accuracy, and the speed if it is known.

    Args:
        rows: the first one is the baseline. Each has `name`, `family`, `file_bytes`, and `change`, `low`, `high`: its
            accuracy minus the baseline's with its interval (fractions). Optional: `speedup`, `speedup_low`,
            `speedup_high`, latency of the baseline over its own.
    """
    timed = all("speedup" in row for row in rows)
    figure, axes = plt.subplots(1, 2 + timed, figsize=(9.6, 0.95 + 0.48 * len(rows)), sharey=True)
    places = range(len(rows))
    for place, row in zip(places, rows, strict=True):
        color = plots.family(row["family"])["color"]
        axes[0].barh(place, row["file_bytes"] / 1e3, height=0.6, color=color, alpha=0.8)
        ratio = rows[0]["file_bytes"] / row["file_bytes"]
        label = f" {row['file_bytes'] / 1e3:,.0f} kB ({ratio:.1f}x)"
        axes[0].text(row["file_bytes"] / 1e3, place, label, va="center", fontsize=9)
        _interval(axes[1], place, *(100 * row[key] for key in ("change", "low", "high")), row["family"])
        if timed:
            _interval(axes[2], place, row["speedup"], row["speedup_low"], row["speedup_high"], row["family"])
    axes[0].set(xlabel="file size (kB), smaller is better", xlim=(0, 1.45 * rows[0]["file_bytes"] / 1e3))
    axes[0].set_yticks(list(places), [row["name"] for row in rows])
    axes[0].invert_yaxis()
    axes[1].axvline(0, color="black", linewidth=0.8)
    axes[1].set_xlabel("accuracy against dense (points)")
    if timed:
        axes[2].axvline(1, color="black", linewidth=0.8)
        high = max(max(row["speedup_high"] for row in rows), 1.0)
        axes[2].set(xlabel="speed against dense (times)", xlim=(0, max(2.0, 1.1 * high)))
    return figure


def _interval(ax: Axes, place: float, middle: float, low: float, high: float, family: str) -> None:
    look = plots.family(family)
    ax.errorbar(middle, place, xerr=[[max(middle - low, 0)], [max(high - middle, 0)]], capsize=3, markersize=7,
                color=look["color"], marker=look["marker"])


# -- pictures, codes, races ----------------------------------------------------------------------------


def images(pictures: Tensor, titles: Sequence[str], columns: int = 10) -> Figure:
    """Small images, uint8 (n, C, H, W), in rows of `columns`, each under its title."""
    rows, (height, width) = -(-len(pictures) // columns), pictures.shape[2:]
    tall, wide = height + 10, width + 4  # room for the title, and between two images
    figure, ax = plt.subplots(figsize=(9.6, 9.6 * rows * tall / (columns * wide)))
    ax.axis("off")
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=False)):
        top, left = i // columns * tall, i % columns * wide
        ax.imshow(picture.permute(1, 2, 0).squeeze().numpy(), cmap="gray", vmin=0, vmax=255,
                  extent=(left, left + width, top + height, top))
        ax.text(left + width / 2, top - 1.5, title, ha="center", va="bottom", fontsize=9)
    ax.set(xlim=(-1, columns * wide), ylim=(rows * tall - 9, -9))
    return figure


def bits_in_a_row(codes: Sequence[int], bits: int) -> Figure:
    """How packed codes lie across bytes, lowest bit first; each code has its colour, unused bits are white."""
    size = -(-len(codes) * bits // 8)
    row = [(code >> j) & 1 for code in codes for j in range(bits)]
    row += [0] * (8 * size - len(row))
    figure, ax = plt.subplots(figsize=(9.6, 1.6))
    looks = [plots.family(name)["color"] for name in ("sharing", "lowrank", "compact")]
    for j, bit in enumerate(row):
        color = looks[j // bits % 3] if j < bits * len(codes) else "white"
        ax.add_patch(Rectangle((j, 0), 1, 1, facecolor=color, edgecolor="black", alpha=0.6))
        ax.text(j + 0.5, 0.5, str(bit), ha="center", va="center", fontsize=11)
    for i, code in enumerate(codes):
        ax.text(bits * (i + 0.5), 1.15, f"code {code}", ha="center")
    for i in range(size):
        value = sum(bit << j for j, bit in enumerate(row[8 * i : 8 * i + 8]))
        ax.plot((8 * i + 0.08, 8 * i + 7.92), (-0.15, -0.15), color="black")
        ax.text(8 * i + 4, -0.65, f"byte {i} holds {value}", ha="center")
    ax.set(xlim=(-0.1, 8 * size + 0.1), ylim=(-0.8, 1.7))
    ax.axis("off")
    return figure


def stored_forms(weight: Tensor, mask: Tensor, values: Tensor) -> Figure:
    """One small weight in three forms: dense with zeros, its mask as bits, the values that are left."""
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.3), gridspec_kw={"width_ratios": (8, 8, values.numel() + 2)})
    plots.tensor(axes[0], weight, f"dense: {32 * weight.numel()} bits")
    bits = [[(byte >> j) & 1 for j in range(8)] for byte in mask.tolist()]
    plots.tensor(axes[1], bits, f"mask: {8 * mask.numel()} bits, one row a byte")
    plots.tensor(axes[2], values[None], f"values: {32 * values.numel()} bits")
    axes[2].set(xlim=(-1, values.numel() + 1), ylim=(len(bits), 0))  # cells as large as those of the mask
    return figure


def race(samples: Mapping[str, Sequence[float]], ax: Axes | None = None, title: str = "") -> Axes:
    """Every sample as a dot, the median and the quartiles beside it; in milliseconds."""
    ax = ax or plt.subplots(figsize=(6.4, 0.9 + 0.5 * len(samples)))[1]
    for place, (name, seconds) in enumerate(samples.items()):
        ms = torch.tensor(seconds, dtype=torch.float64) * 1e3
        low, middle, high = ms.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
        ax.plot(ms, [place + 0.18] * len(ms), "o", color="#0072B2", alpha=0.35, markersize=4)
        ax.errorbar(middle, place - 0.12, xerr=[[middle - low], [high - middle]], fmt="s", color="black", capsize=3)
    ax.set_yticks(range(len(samples)), list(samples))
    ax.set(xlabel="time of one call (ms): samples, median, quartiles", title=title, ylim=(len(samples) - 0.5, -0.5))
    return ax
