"""The figures of sections 8 to 10 of chapter 09. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#000000"
KINDS = {"start": ("before", "o", GREY), "text": ("the text alone", "s", BLACK), "forward": ("forward", "^", BLUE), "reverse": ("reverse", "v", ORANGE),
         "sequence": ("teacher writes", "D", GREEN), "on_policy": ("student writes, reverse", "P", "#CC79A7")}


def rows_of(evidence: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The rows of all entries whose name begins so; an entry is a row or a list of rows."""
    entries = [entry for key, entry in evidence.items() if key == name or key.startswith(f"{name} ")]
    return [row for entry in entries for row in (entry if isinstance(entry, list) else [entry])]


def head_map(scores: Mapping[int, Tensor], influence: Tensor) -> Figure:
    """The score of every head as a table of tiles, and beside it how much each block turns the stream."""
    table = torch.stack([scores[block] for block in sorted(scores)])
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.0), width_ratios=(1.5, 1))
    left.imshow(table, cmap="cividis", aspect="auto")
    for block, row in enumerate(table.tolist()):
        for head, value in enumerate(row):
            light = value > table.min() + 0.55 * (table.max() - table.min())
            left.text(head, block, f"{1000 * value:.0f}", ha="center", va="center", color="black" if light else "white")
    left.set(xticks=range(table.shape[1]), yticks=range(len(table)), xlabel="head", ylabel="block", title="score of each head, in thousandths")
    left.grid(False)
    right.barh(range(len(influence)), influence, color=BLUE)
    right.set(yticks=range(len(influence)), xlabel="1 - cosine of in and out", title="block influence")
    right.invert_yaxis()
    return figure


def heads_removed(rows: Sequence[Mapping[str, Any]]) -> Axes:
    """More bits per character against the number of heads removed: by score with its interval, at random each seed."""
    _, ax = plt.subplots(figsize=(7.0, 3.4))
    chosen = sorted((row for row in rows if row["rule"] == "score"), key=lambda row: row["removed"])
    x, y = [row["removed"] for row in chosen], [100 * row["relative"] for row in chosen]
    bars = [[100 * (row["relative"] - row["low"]) for row in chosen], [100 * (row["high"] - row["relative"]) for row in chosen]]
    ax.errorbar(x, y, yerr=bars, color=BLUE, marker="o", capsize=3, label="the lowest scores")
    drawn = [row for row in rows if row["rule"] == "random"]
    ax.plot([row["removed"] for row in drawn], [100 * row["relative"] for row in drawn], color=ORANGE, marker="x", linestyle="none", label="at random, three draws")
    ax.set(yscale="symlog", xlabel="heads removed, of 16", ylabel="more bits per character (%)", xticks=range(0, 13, 2))
    ax.set_yticks([0, 1, 3, 10, 30, 100, 300], labels=["0", "1", "3", "10", "30", "100", "300"])
    ax.legend()
    return ax


def bells(p: Tensor, fitted: Mapping[str, Tensor]) -> Axes:
    """A teacher's distribution as bars, and what students made of it as lines."""
    _, ax = plt.subplots(figsize=(7.5, 3.6))
    ax.bar(range(len(p)), p, width=0.9, color="#C8C8C8", label="teacher p")
    for (name, q), color, style in zip(fitted.items(), (BLUE, ORANGE, GREEN), ("-", "--", ":")):
        ax.plot(range(len(q)), q, color=color, linestyle=style, label=name)
    ax.set(xlabel="token", ylabel="probability")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def students(rows: Sequence[Mapping[str, Any]]) -> Axes:
    """Bits of the real text in the student's eyes, against bits of the student's text in the teacher's eyes."""
    _, ax = plt.subplots(figsize=(6.5, 3.6))
    for row in rows:
        label, marker, color = KINDS[row["kind"]]
        ax.plot(row["bits"], row["said"], marker=marker, color=color, linestyle="none", markersize=9, label=label)
    ax.set(xlabel="student's bits per character, test text", ylabel="teacher's bits per character,\nstudent's own text")
    ax.margins(0.12)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def shared(rows: Sequence[Mapping[str, Any]]) -> Axes:
    """Bits per character against file bytes: blocks shared, and blocks left out."""
    _, ax = plt.subplots(figsize=(7.5, 3.6))
    for row in rows:
        once, whole = row["shape"].endswith("once"), row["shape"] == "four blocks"
        color, marker = (BLACK, "o") if whole else (ORANGE, "s") if once else (BLUE, "X")
        hollow = {"markerfacecolor": "none", "markeredgewidth": 1.5, "markersize": 12} if once else {"markersize": 8}
        ax.plot(row["file_bytes"] / 1e6, row["bits"], color=color, marker=marker, linestyle="none", **hollow)
        left = once or whole
        ax.annotate(row["shape"], (row["file_bytes"] / 1e6, row["bits"]), xytext=(-9 if left else 9, 9 if whole else -3), textcoords="offset points",
                    fontsize=9, ha="right" if left else "left")
    ax.set_xlim(0, 3.6)
    ax.set(xlabel="file (MB, float32)", ylabel="bits per character, test text")
    ax.margins(0.15)
    return ax
