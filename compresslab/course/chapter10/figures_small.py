"""The figures of the second half of chapter 10."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn.neighbors import KNeighborsClassifier

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart by colour-blind readers
MARKERS = ("o", "s", "^", "D", "v", "P")


def condensed_plane(X: np.ndarray, y: np.ndarray, store: Any) -> Figure:
    """Points of a plane, those in the store filled, and the border before and after."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, sharey=True, layout="constrained")
    low, high = X.min(0) - 0.5, X.max(0) + 0.5
    grid = np.stack(np.meshgrid(*(np.linspace(a, b, 150) for a, b in zip(low, high))), -1)
    for ax, kept, title in zip(axes, (np.arange(len(X)), np.asarray(store)), ("the training set", "Hart's store")):
        label = KNeighborsClassifier(1).fit(X[kept], y[kept]).predict(grid.reshape(-1, 2)).reshape(grid.shape[:2])
        ax.contour(grid[..., 0], grid[..., 1], label, levels=np.unique(y)[:-1] + 0.5, colors="black", linewidths=1)
        for c in np.unique(y):
            inside = kept[y[kept] == c]
            ax.scatter(*X[y == c].T, s=12, color=COLOURS[c], alpha=0.15)
            ax.scatter(*X[inside].T, s=26, color=COLOURS[c], marker=MARKERS[c], label=f"class {c}")
        ax.set(title=f"{title}: {len(kept)} points", xlabel="feature 1")
    axes[0].set_ylabel("feature 2")
    axes[0].legend(fontsize=8)
    return figure


def moving_prototypes(before: np.ndarray, after: np.ndarray, losses: Any) -> Figure:
    """Prototypes as images, before and after learning, and the loss on the way."""
    figure = plt.figure(figsize=(9, 3), layout="constrained")
    grid = figure.add_gridspec(2, len(before) + 4)
    for row, (what, images) in enumerate((("start", before), ("learned", after))):
        for column, image in enumerate(images):
            ax = figure.add_subplot(grid[row, column])
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=-0.5, vmax=1.5)
            ax.set(xticks=[], yticks=[])
            if not column:
                ax.set_ylabel(what)
    ax = figure.add_subplot(grid[:, len(before) :])
    ax.plot(losses, color=COLOURS[0])
    ax.set(xlabel="steps", ylabel="squared loss", ylim=(0, None))
    return figure


def bytes_and_loss(rows: list[dict[str, Any]], factor: float = 20) -> Figure:
    """Loss against bytes with 95 % intervals, and the corner that is asked for: so many times smaller, one point."""
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    goal = rows[0]["bytes"] / factor
    ax.axhspan(-3, 1, xmax=1, color="0.93", zorder=0)
    ax.axvline(goal, color="0.4", linestyle=":")
    ax.axhline(1, color="0.4", linestyle=":")
    ax.text(goal * 1.08, -0.9, f"1/{factor:g} of the bytes", fontsize=8)
    for i, row in enumerate(rows):
        bars = [[100 * (row["loss"] - row["low"])], [100 * (row["high"] - row["loss"])]]
        ax.errorbar(row["bytes"], 100 * row["loss"], yerr=bars, fmt=MARKERS[i], color=COLOURS[i], capsize=3, label=f"{row['name']}: {row['bytes']:,} bytes")
    ax.set(xscale="log", xlabel="bytes of the file", ylabel="points lost, 95 % interval")
    ax.set_ylim(-1.2, max(2.2, 110 * max(row["high"] for row in rows)))
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def tables_of_distances(tables: np.ndarray, code: np.ndarray) -> Figure:
    """The table of a query; the entries that one stored point picks are framed."""
    figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    shown = ax.imshow(tables, cmap="viridis", aspect="auto")
    for m, v in enumerate(code):
        ax.add_patch(plt.Rectangle((v - 0.5, m - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=2))
    figure.colorbar(shown, ax=ax, label="squared distance")
    ax.set(xlabel="code word", ylabel="piece of the image", title=f"one stored image: {len(code)} entries, {tables[np.arange(len(code)), code].sum():.2f} in all")
    ax.grid(False)
    return figure


def groups(rows: list[dict[str, Any]], names: dict[str, str], line: float | None = None, words: str = "") -> Figure:
    """Accuracy against bytes, a line for every group; names: {beginning of a row's name: label}."""
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for i, (start, label) in enumerate(names.items()):
        own = sorted((row for row in rows if row["name"].startswith(start)), key=lambda row: row["bytes"])
        style = {"linestyle": "-" if len(own) > 1 else "none", "marker": MARKERS[i], "color": COLOURS[i]}
        ax.plot([row["bytes"] for row in own], [100 * row["accuracy"] for row in own], label=label, **style)
    if line is not None:
        ax.axvline(line, color="0.4", linestyle=":")
        ax.text(line * 1.05, ax.get_ylim()[0] + 0.5, words, fontsize=8)
    ax.set(xscale="log", xlabel="bytes of the file", ylabel="accuracy, %")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def kernel_errors(counts: Any, errors: dict[str, Any]) -> Figure:
    """Mean absolute error of an approximated kernel against the number of features, both logarithmic."""
    figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for i, (name, values) in enumerate(errors.items()):
        ax.plot(counts, values, marker=MARKERS[i], color=COLOURS[i], label=name, linestyle=("-", "--", ":")[i % 3])
    ax.set(xscale="log", yscale="log", xlabel="features m", ylabel="mean |error| of a kernel value")
    ax.legend(fontsize=8)
    return figure


def sizes(bars: dict[str, int]) -> Figure:
    """Named byte counts as bars, on one linear scale."""
    figure, ax = plt.subplots(figsize=(7, 0.45 * len(bars) + 0.9), layout="constrained")
    places = np.arange(len(bars))[::-1]
    ax.barh(places, list(bars.values()), color=COLOURS[0])
    for place, size in zip(places, bars.values()):
        ax.text(size, place, f" {size:,}", va="center", fontsize=9)
    ax.set_yticks(places, list(bars))
    ax.set(xlabel="bytes", xlim=(0, 1.18 * max(bars.values())))
    ax.grid(axis="y", visible=False)
    return figure
