"""The picture of the README: `python -m compresslab.course.overview PATH` draws it from what chapters 08 and 11 measured."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compresslab.compare.results import shipped_results
from compresslab.course import plots
from compresslab.course.chapter08.ordering import by_setting
from compresslab.course.evidence import load_evidence

FORMS = {"eager": "PyTorch", "float32": "ONNX Runtime", "int8": "int8", "pruned": "half of the channels", "pruned, int8": "half of the channels, int8"}
LOOKS = {"eager": "dense", "float32": "dense", "int8": "quantization", "pruned": "pruning", "pruned, int8": "hybrid"}
DEPTH = 2.2  # points below the best at which the accuracy axis ends


def overview(results: Iterable[Mapping[str, Any]], times: Sequence[Mapping[str, Any]]) -> Figure:
    """Left size and accuracy of every setting of every family on one network, right the speed of another one's forms.

    Args:
        results: rows of the comparison. times: of one evidence entry of chapter 11, with `form`, `batch`, `gain`, `gain_low`, `gain_high`.
    """
    plots.style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2))
    _sizes(left, by_setting(results, "lenet5"))
    _speeds(right, [row for row in times if row["batch"] == 1])
    return figure


def _sizes(ax: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    dense = next(line for line in lines if line["family"] == "dense")
    points = [(dense["file_bytes"] / line["file_bytes"], 100 * line["accuracy"], line) for line in lines]
    floor = max(y for _, y, _ in points) - DEPTH
    shown = [point for point in points if point[1] >= floor]
    for name in plots.FAMILIES:
        here = [(x, y) for x, y, line in shown if line["family"] == name]
        if here:
            ax.plot(*zip(*here), markersize=12 if name == "hybrid" else 8, markeredgecolor="white", markeredgewidth=0.5, label=name, **{**plots.family(name), "linestyle": "none"})
    front = [shown[i] for i in plots.pareto_front([(-x, y) for x, y, _ in shown])]
    ax.step([x for x, _, _ in front], [y for _, y, _ in front], where="pre", color="#777777", linewidth=1.0, zorder=0)
    hidden = len(points) - len(shown)
    ax.set(xscale="log", xlabel="times smaller on disk", ylabel="accuracy (%)", ylim=(floor, None),
           title=f"LeNet-5 by the seven families: {len(shown)} files" + f" ({hidden} more below {floor:.0f} %)" * bool(hidden))
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= 1.1 * max(x for x, _, _ in shown)]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="lower left", ncols=2)


def _speeds(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, row in enumerate(rows):
        error = [[row["gain"] - row["gain_low"]], [row["gain_high"] - row["gain"]]]
        ax.barh(-place, row["gain"], height=0.6, color=plots.family(LOOKS[row["form"]])["color"], xerr=error, capsize=3)
        ax.text(row["gain_high"] + 0.15, -place, f"{row['gain']:.1f}x", va="center", fontsize=9)
    ax.set_yticks([-place for place in range(len(rows))], [FORMS[row["form"]] for row in rows])
    ax.set(xlabel="times as fast", xlim=(0, 1.12 * max(row["gain_high"] for row in rows)), title="ResNet-18, one image of 224 x 224, two CPU cores")
    ax.grid(axis="y", visible=False)


if __name__ == "__main__":
    plt.switch_backend("svg")
    plt.rcParams["svg.hashsalt"] = "compresslab"
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = overview(shipped_results(), load_evidence("11")["int8 resnet18"]["times"])
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
