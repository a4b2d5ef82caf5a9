"""The figures of the second half of chapter 03. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"


def thin_points(clouds: Mapping[str, Tensor]) -> Figure:
    """Curves in the plane, a panel each: {title: (n, 2)}. The colour runs along the curve."""
    figure, panels = plt.subplots(1, len(clouds), figsize=(9.6, 2.2))
    for ax, (title, points) in zip(panels, clouds.items(), strict=True):
        ax.plot(points[:, 0].tolist(), points[:, 1].tolist(), color="#BBBBBB", linewidth=0.8)
        ax.scatter(points[:, 0].tolist(), points[:, 1].tolist(), c=range(len(points)), s=6)
        ax.set(title=title, xticks=[], yticks=[])
    return figure


def gates(z: Tensor, curves: Mapping[str, Tensor]) -> Axes:
    """Gates against what goes into them."""
    _, ax = plt.subplots(figsize=(5.6, 2.4))
    for (name, values), color, line in zip(curves.items(), (BLUE, ORANGE, GREEN), ("-", "--", ":")):
        ax.plot(z.tolist(), values.tolist(), color=color, linestyle=line, label=name)
    ax.set(xlabel="z", ylabel="value")
    ax.legend()
    return ax


def twins(pairs: Sequence[tuple[Tensor, Tensor, float]]) -> Figure:
    """Pairs of feature maps that resemble each other: (map, map, correlation), one above the other."""
    figure, panels = plt.subplots(2, len(pairs), figsize=(1.5 * len(pairs), 3.2))
    for column, (one, other, correlation) in enumerate(pairs):
        for ax, values in zip(panels[:, column], (one, other)):
            ax.imshow(values.numpy())
            ax.axis("off")
        panels[0, column].set_title(f"{correlation:.2f}")
    return figure


def costs_side_by_side(rows: Mapping[str, Mapping[str, float]]) -> Figure:
    """{block: {quantity: value}}: a panel for each quantity, a bar for each block."""
    names, kinds = list(rows), list(next(iter(rows.values())))
    figure, panels = plt.subplots(1, len(kinds), figsize=(9.6, 0.9 + 0.35 * len(names)), sharey=True)
    for ax, kind in zip(panels, kinds, strict=True):
        bars = ax.barh(range(len(names)), [rows[name][kind] for name in names], color=(BLUE, ORANGE, GREEN, GREY)[:len(names)], edgecolor="black")
        for bar, hatch in zip(bars, ("", "///", "...", "xx")):
            bar.set_hatch(hatch)
        ax.bar_label(bars, [f"{rows[name][kind]:,.3g}" for name in names], padding=2, fontsize=8)
        ax.set(xlabel=kind, yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
        ax.margins(x=0.25)
        ax.grid(visible=False)
    return figure


def survival(p: Sequence[float], steps: Tensor) -> Figure:
    """Left the survival of each block, right which blocks took part in some training steps (steps, blocks)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 2.5))
    left.bar(range(1, len(p) + 1), p, color=BLUE)
    left.set(xlabel="block l", ylabel="survival $p_l$", ylim=(0, 1.05))
    right.imshow(steps.T.numpy(), aspect="auto", cmap="Greys", vmin=0, vmax=1.4, extent=(0.5, len(steps) + 0.5, len(p) + 0.5, 0.5))
    right.set(xlabel="training step", ylabel="block l", title="black: computed")
    right.grid(visible=False)
    return figure


def missing_blocks(results: Mapping[str, Mapping[int, Sequence[float]]]) -> Axes:
    """{training: {blocks left: accuracies (fractions) of several networks}}: means, and whiskers from the worst to the best."""
    _, ax = plt.subplots(figsize=(6.4, 2.9))
    for shift, (name, found), color, marker in zip((-0.08, 0, 0.08), results.items(), (GREY, BLUE, ORANGE), ("o", "s", "^")):
        left = list(found)
        means = [100 * sum(values) / len(values) for values in found.values()]
        low = [max(0.0, mean - 100 * min(values)) for mean, values in zip(means, found.values())]
        high = [max(0.0, 100 * max(values) - mean) for mean, values in zip(means, found.values())]
        ax.errorbar([k + shift for k in left], means, yerr=[low, high], color=color, marker=marker, capsize=3, label=name)
    ax.set(xlabel="blocks left of those that were trained", ylabel="accuracy (%)", xticks=left)
    ax.invert_xaxis()
    ax.legend(loc="lower left")
    return ax


def searched(everything: Sequence[tuple[float, float]], seen: Sequence[tuple[float, float]], best: tuple[float, float], budget: float) -> Axes:
    """All candidates, those that the search scored, and the one it chose: (MACs, score)."""
    _, ax = plt.subplots(figsize=(6.4, 3.0))
    for points, look in ((everything, {"marker": ".", "color": "#CCCCCC", "label": "all candidates"}),
                         (seen, {"marker": "o", "color": BLUE, "label": "scored by the search"})):
        ax.plot([x for x, _ in points], [100 * y for _, y in points], linestyle="", markersize=5, **look)
    ax.plot(best[0], 100 * best[1], marker="*", color=ORANGE, markersize=14, linestyle="", label="found")
    ax.axvline(budget, color="black", linestyle="--", linewidth=1.2, label="budget")
    ax.set(xlabel="MACs per image", ylabel="score (% right)")
    ax.legend(fontsize=8)
    return ax


def thresholds(rows: Sequence[tuple[float, float, float]], ends: Mapping[str, tuple[float, float]]) -> Axes:
    """Accuracy against mean MACs for several thresholds: (threshold, MACs, accuracy); `ends` are single networks."""
    _, ax = plt.subplots(figsize=(6.4, 2.9))
    ax.plot([macs / 1e6 for _, macs, _ in rows], [100 * accuracy for *_, accuracy in rows], color=BLUE, marker="o", label="who is sure leaves early")
    for threshold, macs, accuracy in rows:
        ax.annotate(f"{threshold:g}", (macs / 1e6, 100 * accuracy), textcoords="offset points", xytext=(4, -11), fontsize=8)
    for (name, (macs, accuracy)), marker in zip(ends.items(), ("s", "D")):
        ax.plot(macs / 1e6, 100 * accuracy, marker=marker, color=ORANGE, linestyle="", markersize=7, label=name)
    ax.set(xlabel="mean MACs per image (millions)", ylabel="accuracy (%)")
    ax.legend(fontsize=8)
    return ax


def stand_in(scores: Sequence[float], alone: Sequence[float]) -> Axes:
    """The score in a supernet against the accuracy of the same network trained alone, both fractions."""
    _, ax = plt.subplots(figsize=(4.6, 3.0))
    ax.plot([100 * score for score in scores], [100 * accuracy for accuracy in alone], linestyle="", marker="o", color=BLUE)
    ax.set(xlabel="score in the supernet (% right)", ylabel="trained alone (% right)")
    return ax
