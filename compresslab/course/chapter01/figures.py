"""The figures of chapter 01. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from compresslab.course import plots

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
HATCHES = ("", "///", "...", "xx", "\\\\", "++")


def _bars(ax: Axes, values: Mapping[str, float], labels: Sequence[str], xlabel: str, title: str) -> None:
    """Horizontal bars, the first one dark, each with its value written beside it."""
    names = list(values)
    for place, name in enumerate(names):
        ax.barh(place, values[name], color="#BBBBBB" if place == 0 else BLUE, edgecolor="black", hatch=HATCHES[place % len(HATCHES)])
        ax.text(values[name], place, f" {labels[place]}", va="center", fontsize=9)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel=xlabel, title=title, ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.3 * max(values.values())))
    ax.grid(axis="y", visible=False)


def smaller_faster(sizes: Mapping[str, float], speeds: Mapping[str, float]) -> Figure:
    """Left the bytes of files, right the latency; the chapter's promise, and its result.

    Args:
        sizes: {name: bytes}, the dense file first. speeds: {name: milliseconds}, the dense network first.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 2.9))
    dense, slow = next(iter(sizes.values())), next(iter(speeds.values()))
    _bars(left, {name: size / 1e3 for name, size in sizes.items()}, [f"{dense / size:.1f}x smaller" if size < dense else
          f"{size / dense:.2f}x" for size in sizes.values()], "file (kB)", "LeNet-300-100, 95 % of the weights pruned")
    _bars(right, dict(speeds), [f"{slow / ms:.2f}x" + " faster" * (slow / ms > 1.2) for ms in speeds.values()],
          "latency of 16 images (ms)", "VGG-like network")
    return figure


# -- the map -----------------------------------------------------------------------------------------

def _pattern(kind: str) -> Tensor:
    """An 8x8 mask of one sub-family; False is pruned."""
    generator = torch.Generator().manual_seed(3)
    scores, mask = torch.rand(8, 8, generator=generator), torch.ones(8, 8, dtype=torch.bool)
    if kind == "single weights":
        mask = scores > scores.flatten().sort().values[31]
    elif kind == "2 of 4 (N:M)":
        blocks = scores.view(-1, 4)
        mask = torch.zeros(16, 4, dtype=torch.bool).scatter(1, blocks.topk(2, 1).indices, True).view(8, 8)
    elif kind == "blocks":
        coarse = scores[:4, :4] > scores[:4, :4].flatten().sort().values[7]
        mask = coarse.repeat_interleave(2, 0).repeat_interleave(2, 1)
    elif kind == "filters (rows)":
        mask[[1, 2, 5, 7]] = False
    elif kind == "channels (columns)":
        mask[:, [0, 3, 4, 6]] = False
    elif kind == "whole layers":
        mask[:] = False
    return mask


MAP = (
    ("single weights", "unstructured", "a smaller file; hardly\never faster"),
    ("2 of 4 (N:M)", "group level", "some GPUs run 2:4\nfaster"),
    ("blocks", "group level", "needs kernels that\nskip blocks"),
    ("filters (rows)", "filter level", "a smaller layer:\nfast everywhere"),
    ("channels (columns)", "channel level", "the same cut, seen\nfrom the next layer"),
    ("whole layers", "layer level", "a shallower network"),
)
CRITERIA = (
    ("norm", "1.1, 1.9"), ("batch-norm scale", "section 7"), ("activation (share of zeros)", "library"),
    ("reconstruction of the next layer", "library"), ("loss: first order (Taylor)", "1.11"),
    ("loss: second order (OBD, OBS)", "1.8"), ("redundancy (geometric median)", "library"), ("a learned policy", "reading"),
)


def map_of_pruning() -> Figure:
    """Rows: what is removed, from single weights to layers. Below: how the victims are chosen."""
    figure, grid = plt.subplots(2, 6, figsize=(10.4, 4.3), height_ratios=(2.1, 1))
    for ax, (kind, level, runs) in zip(grid[0], MAP, strict=True):
        for i, row in enumerate(_pattern(kind).tolist()):
            for j, kept in enumerate(row):
                ax.add_patch(Rectangle((j, i), 1, 1, facecolor=BLUE if kept else "white", edgecolor="#999999", linewidth=0.5,
                                       hatch=None if kept else "////"))
        ax.set(xlim=(-0.1, 8.1), ylim=(8.1, -0.1), aspect="equal")
        ax.set_title(f"{kind}\n", fontsize=10, fontweight="bold")
        ax.text(4, -0.5, level, ha="center", fontsize=9, style="italic")
        ax.text(4, 8.5, runs, ha="center", va="top", fontsize=8.5)
        ax.axis("off")
    for ax in grid[1]:
        ax.remove()
    below = figure.add_subplot(grid[1, 0].get_gridspec()[1, :])
    below.axis("off")
    below.text(0, 0.95, "How the victims are chosen, and where you meet it", fontweight="bold", va="top", transform=below.transAxes)
    for place, (criterion, where) in enumerate(CRITERIA):
        column, line = divmod(place, 4)
        below.text(0.02 + 0.5 * column, 0.68 - 0.22 * line, f"{criterion}  ({where})", va="top", fontsize=9.5, transform=below.transAxes)
    return figure


# -- single weights ----------------------------------------------------------------------------------

def layer_histograms(weights: Mapping[str, Tensor]) -> Figure:
    """One histogram of the weights per layer, on a common scale."""
    figure, axes = plt.subplots(1, len(weights), figsize=(3.1 * len(weights), 2.5), sharex=True)
    for ax, (name, weight) in zip(axes, weights.items(), strict=True):
        ax.hist(weight.flatten().numpy(), bins=80, color=BLUE, range=(-0.4, 0.4))
        ax.set(xlabel="weight", title=f"{name}: {weight.numel():,} weights")
    axes[0].set_ylabel("number of weights")
    return figure


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str, title: str = "") -> Axes:
    """Several curves that read in grey: each has its own marker and line."""
    looks = (("o", "-", BLUE), ("s", "--", ORANGE), ("^", "-.", GREEN), ("D", ":", "black"), ("v", "-", GREY))
    _, ax = plt.subplots(figsize=(6.4, 3.3))
    for (name, (x, y)), (marker, line, color) in zip(series.items(), looks):
        ax.plot(x, y, marker=marker, linestyle=line, color=color, label=name, markersize=5)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.legend()
    return ax


CONTROL_NAMES = {"magnitude": "magnitude, inherited weights", "random mask": "random mask, same layer ratios",
                 "same mask, new weights": "same mask, trained from scratch", "small dense network": "dense network, file of the same bytes"}


def controls(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """Accuracy of pruning and its three controls: all seeds as points, their mean as a line.

    Args:
        rows: the evidence of this chapter; those with experiment "lenet300" are drawn.
    """
    rows = [row for row in rows if row.get("experiment") == "lenet300"]
    dense = [100 * row["accuracy"] for row in rows if row["method"] == "dense, retrained"]
    rows = [row for row in rows if row["method"] in CONTROL_NAMES]
    figure, ax = plt.subplots(figsize=(7.6, 4.0))
    places = {s: place for place, s in enumerate(sorted({row["sparsity"] for row in rows}))}
    looks = (("o", "-", BLUE), ("s", "--", ORANGE), ("^", "-.", GREEN), ("D", ":", "black"))
    for (method, label), (marker, line, color) in zip(CONTROL_NAMES.items(), looks, strict=True):
        means = {}
        for sparsity, place in places.items():
            found = [100 * row["accuracy"] for row in rows if row["method"] == method and row["sparsity"] == sparsity]
            ax.plot([place] * len(found), found, marker=marker, linestyle="none", color=color, alpha=0.35, markersize=5)
            if found:
                means[place] = mean(found)
        ax.plot(list(means), list(means.values()), marker=marker, linestyle=line, color=color, label=label, markersize=6)
    if dense:
        ax.axhline(mean(dense), color=GREY, linewidth=1.2, label="dense, retrained as long")
    ax.set_xticks(list(places.values()), [f"{100 * s:g}" for s in places])
    ax.set(xlabel="sparsity (%)", ylabel="accuracy on 50,000 fresh images (%)", title="LeNet-300-100, retrained: what is pruning's own share?")
    ax.legend(loc="lower left")
    return figure


# -- channels ----------------------------------------------------------------------------------------

def where_a_channel_lives() -> Axes:
    """A convolution, its batch norm and its readers, as a block diagram."""
    boxes = [plots.Block("conv", 32, 32), plots.Block("batch norm, relu", 32, 32, color="#E69F00"), plots.Block("next conv", 32, 32)]
    return plots.blocks(plt.subplots(figsize=(5.6, 2.4))[1], boxes, "a channel: one filter, one entry in batch norm, one input of the next layer")


def leaks(values: Tensor) -> Axes:
    """How loudly each channel still speaks when its filter is zero."""
    _, ax = plt.subplots(figsize=(7.2, 2.4))
    ax.bar(range(len(values)), values.tolist(), color=BLUE, edgecolor="black", linewidth=0.4)
    ax.set(xlabel="channel whose filter is zero", ylabel="value after relu")
    return ax


def patterns(accuracies: Mapping[str, Mapping[str, float]]) -> Figure:
    """Accuracy by pattern: {pattern: {strength: percent}}, one bar for each strength."""
    figure, ax = plt.subplots(figsize=(7.6, 2.9))
    strengths = list(next(iter(accuracies.values())))
    for offset, (strength, color, hatch) in enumerate(zip(strengths, ("#56B4E9", "#E69F00"), ("", "///"), strict=True)):
        heights = [by_strength[strength] for by_strength in accuracies.values()]
        bars = ax.bar([place + 0.4 * offset for place in range(len(heights))], heights, 0.38, color=color, hatch=hatch,
                      edgecolor="black", label=strength)
        ax.bar_label(bars, fmt="%.0f", fontsize=8)
    ax.set_xticks([place + 0.2 for place in range(len(accuracies))], list(accuracies))
    ax.set(ylabel="accuracy (%)", ylim=(0, 125), title="not retrained")
    ax.legend(ncols=2, loc="upper right", fontsize=8)
    return figure
