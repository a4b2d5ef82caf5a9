"""The picture of the README: `python -m compresslab.course.overview PATH` draws it from the evidence of chapter 01."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from compresslab.course import plots
from compresslab.course.evidence import load_evidence

SERIES = {  # method -> (label, marker, line, colour)
    "magnitude": ("pruned by magnitude, retrained", "o", "-", "#0072B2"),
    "random mask": ("pruned at random, retrained", "s", "--", "#E69F00"),
    "small dense network": ("dense network with a file as small", "D", ":", "#000000"),
}


def overview(rows: list[dict[str, Any]]) -> Figure:
    """Accuracy against bytes on the disk, for pruned LeNet-300-100 networks and for small dense ones.

    Args:
        rows: the entries of the evidence; those of the experiment "lenet300" are drawn.
    """
    rows = [row for row in rows if row.get("experiment") == "lenet300"]
    plots.style()
    figure, ax = plt.subplots(figsize=(8, 4))
    for method, (label, marker, line, color) in SERIES.items():
        points = {}
        for row in rows:
            if row["method"] == method:
                points.setdefault(row["sparsity"], []).append(row)
        sizes = [mean(row["file_bytes"] for row in group) / 1e3 for _, group in sorted(points.items())]
        for size, (_, group) in zip(sizes, sorted(points.items()), strict=True):
            ax.plot([size] * len(group), [100 * row["accuracy"] for row in group], marker, color=color, alpha=0.35)
        means = [100 * mean(row["accuracy"] for row in group) for _, group in sorted(points.items())]
        ax.plot(sizes, means, marker + line, color=color, label=label)
    dense = [row for row in rows if row["method"] == "dense, retrained"]
    size, accuracy = dense[0]["file_bytes"] / 1e3, 100 * mean(row["accuracy"] for row in dense)
    ax.plot(size, accuracy, "*", markersize=14, color="#666666", label="the whole network, retrained as long")
    ax.set(xscale="log", xlabel="file on disk (kB)", ylabel="accuracy on 50,000 fresh images (%)",
           title="LeNet-300-100 on ink_digits")
    ax.set_xticks([30, 50, 100, 200, 500, 1000], ["30", "50", "100", "200", "500", "1000"])
    ax.minorticks_off()
    ax.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    plt.switch_backend("svg")
    plt.rcParams["svg.hashsalt"] = "compresslab"
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    overview(list(load_evidence("01").values())).savefig(path, bbox_inches="tight", metadata={"Date": None})
