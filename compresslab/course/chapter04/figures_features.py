"""The figures and tables of the second half of chapter 04. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from compresslab.course.chapter04.figures import BLUE, GREEN, GREY, ORANGE, gains

LOOKS = ((BLUE, "-", "o"), (ORANGE, "--", "^"), (GREEN, "-.", "s"), (GREY, ":", "D"))


def two_directions(x: Tensor, teacher: Tensor, fits: Mapping[str, Tensor]) -> Axes:
    """The teacher's distribution as a grey area, and the best student in each direction as a line.

    Args:
        x: the outcomes, (K,). teacher: their probabilities, (K,). fits: {name: (K,) probabilities}.
    """
    _, ax = plt.subplots(figsize=(7.6, 3.2))
    ax.fill_between(x.tolist(), teacher.tolist(), color="#CCCCCC", label="teacher")
    for (name, student), (color, line, _) in zip(fits.items(), LOOKS):
        ax.plot(x.tolist(), student.tolist(), color=color, linestyle=line, label=name)
    ax.set(xlabel="outcome", ylabel="probability", ylim=(0, None))
    ax.legend()
    return ax


def attention(pictures: Tensor, maps: Mapping[str, Tensor]) -> Figure:
    """Some images in the first row, and below them where each layer looks.

    Args:
        pictures: (N, C, H, W), whole numbers 0 ... 255. maps: {layer: (N, H, W)}, each image scaled on its own.
    """
    n = len(pictures)
    figure, axes = plt.subplots(1 + len(maps), n, figsize=(1.15 * n + 1.4, 1.2 * (1 + len(maps))), squeeze=False)
    for column in range(n):
        picture = pictures[column].movedim(0, -1).squeeze(-1)
        axes[0, column].imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255)
        for row, layer in enumerate(maps.values(), 1):
            axes[row, column].imshow(layer[column].numpy(), cmap="cividis")
    for ax, name in zip(axes[:, 0], ("image", *maps)):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
    return figure


def shares(groups: Sequence[str], series: Mapping[str, Sequence[float]], ylabel: str) -> Axes:
    """Bars side by side: a group of bars for each entry of `groups`, one bar in it for each of `series`."""
    _, ax = plt.subplots(figsize=(7.6, 3.0))
    width = 0.8 / max(len(series), 1)
    for number, ((name, values), color, hatch) in enumerate(zip(series.items(), (BLUE, ORANGE, GREEN, GREY), ("", "///", "...", "xx"))):
        places = [group - 0.4 + (number + 0.5) * width for group in range(len(groups))]
        bars = ax.bar(places, values, width, color=color, hatch=hatch, edgecolor="black", linewidth=0.6, label=name)
        ax.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=8)
    ax.set_xticks(range(len(groups)), groups)
    ax.set_ylabel(ylabel)
    ax.legend(fontsize=8)
    ax.grid(axis="x", visible=False)
    return ax


def losses(series: Mapping[str, Sequence[float]]) -> Axes:
    """The loss of every step in percent of the first, a line for each loop."""
    _, ax = plt.subplots(figsize=(7.0, 3.0))
    for (name, values), (color, line, marker) in zip(series.items(), LOOKS):
        ax.plot(range(1, len(values) + 1), values, color=color, linestyle=line, marker=marker, markersize=4, label=name)
    ax.set(xlabel="step", ylabel="loss (% of the first step)", ylim=(0, None))
    ax.legend()
    return ax


# -- evidence ----------------------------------------------------------------------------------------

def _regimes(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    """{(images, epochs): the rows of labels and soft targets}, little effort first; runs of all experiments that have both."""
    found: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("experiment") in ("transfer", "regime") and row.get("method") in ("labels", "soft targets"):
            found.setdefault((row["images"], row["epochs"]), []).append(row)
    return dict(sorted(found.items(), key=lambda item: item[0][0] * item[0][1]))


def regimes(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """Soft targets against labels with more and more images and epochs: left the accuracies, right the paired gain.

    Args:
        rows: the evidence's rows; those of the experiments "transfer" and "regime" are drawn.
    """
    found = _regimes(rows)
    names = [f"{images:,} images,\n{epochs} epochs" for images, epochs in found]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 1.4 + 0.6 * max(len(found), 2)), sharey=True)
    for method, (color, _, marker), shift in (("labels", ("black", "", "o"), -0.12), ("soft targets", LOOKS[1], 0.12)):
        points = [(100 * row["accuracy"], place + shift) for place, group in enumerate(found.values()) for row in group if row["method"] == method]
        left.plot(*zip(*points) if points else ([], []), linestyle="", marker=marker, color=color, fillstyle="none", label=method)
    for place, group in enumerate(found.values()):
        if "soft targets" in (gained := gains(group)):
            middle, low, high, _ = gained["soft targets"]
            right.errorbar(middle, place, xerr=[[middle - low], [high - middle]], color=ORANGE, marker="^", capsize=4)
    right.axvline(0, color="black", linewidth=1.0, linestyle=":")
    left.set_yticks(range(len(names)), names)
    left.set(ylim=(len(names) - 0.4, -0.6), xlabel="accuracy (%), a symbol for each seed")
    right.set(xlabel="gain of soft targets, same seeds (points, 95 % interval)")
    left.legend(fontsize=8)
    return figure


def regime_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """One line for each regime: the mean accuracies, the paired gain, its interval and the verdict."""
    lines = [f"{'images':>8}{'epochs':>8}{'labels':>9}{'soft':>8}{'gain':>7}{'95 % interval':>18}   verdict"]
    for (images, epochs), group in _regimes(rows).items():
        means = []
        for method in ("labels", "soft targets"):
            values = [100 * row["accuracy"] for row in group if row["method"] == method]
            means.append(sum(values) / len(values) if values else float("nan"))
        if "soft targets" not in (gained := gains(group)):
            continue
        gain, low, high, _ = gained["soft targets"]
        verdict = "soft targets win" if low > 0 else "soft targets lose" if high < 0 else "not distinguishable"
        lines.append(f"{images:8,}{epochs:8}{means[0]:9.2f}{means[1]:8.2f}{gain:+7.2f}{f'{low:+.2f} to {high:+.2f}':>18}   {verdict}")
    return "\n".join(lines)


def published_table(published: Mapping[str, Sequence[float | None]], pairs: Sequence[str], teachers: Sequence[float], alone: Sequence[float]) -> str:
    """Published accuracies: {method: one for each pair of teacher and student, None where none is quoted}."""
    lines = [f"{'':28}" + "".join(f"{pair:>26}" for pair in pairs)]
    for name, values in {"teacher": teachers, "student alone": alone, **published}.items():
        cells = []
        for value, plain in zip(values, alone):
            gain = f" ({value - plain:+.2f})" if value is not None and name in published else ""
            cells.append(f"{value:.2f}{gain:9}" if value is not None else f"-{'':9}")
        lines.append(f"{name:28}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)
