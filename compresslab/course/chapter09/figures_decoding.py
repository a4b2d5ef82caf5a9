"""The figures of sections 6 and 7 of chapter 09. They only draw; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

BLUE, ORANGE, GREEN, GREY, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A", "#CC79A7", "#56B4E9"
LOOKS = ((BLUE, "s", "--"), (ORANGE, "^", "-."), (GREEN, "D", ":"), (PINK, "v", "-"), (GREY, "o", "-"))


def products(batches: Sequence[int], seconds: Sequence[float]) -> Figure:
    """How long a matrix takes for several vectors at once, and how many vectors a second that makes."""
    figure, axes = plt.subplots(1, 2, figsize=(7.0, 2.8))
    axes[0].plot(batches, [1000 * s for s in seconds], color=BLUE, marker="s")
    axes[0].axhline(1000 * seconds[0], color="black", linestyle=":", linewidth=1.2)
    axes[0].set(xscale="log", xlabel="vectors at once", ylabel="time (ms)", ylim=(0, None), title="one product")
    axes[1].plot(batches, [b / s for b, s in zip(batches, seconds)], color=ORANGE, marker="^")
    axes[1].plot(batches, [b / seconds[0] for b in batches], color="black", linestyle=":", linewidth=1.2, label="if the time never grew")
    axes[1].set(xscale="log", yscale="log", xlabel="vectors at once", ylabel="vectors per second", title="what it makes")
    axes[1].legend(fontsize=8)
    for ax in axes:
        ax.set_xticks(batches, [str(b) for b in batches])
        ax.minorticks_off()
    return figure


def step_bytes(ax: Axes, data: Mapping[str, Any]) -> None:
    """For the slider: what one step reads, weights and caches, in two number formats, and the speed of each."""
    names = list(data["formats"])
    for place, name in enumerate(names):
        weights, caches, _ = data["formats"][name]
        ax.barh(place, weights / 1e9, color=BLUE, edgecolor="black", label="weights" if place == 0 else None)
        ax.barh(place, caches / 1e9, left=weights / 1e9, color=ORANGE, edgecolor="black", hatch="//", label="caches" if place == 0 else None)
    ax.set_yticks(range(len(names)), [f"{name}\n{data['formats'][name][2]:,.0f} tokens/s" for name in names])
    ax.set(ylim=(-0.6, len(names) + 0.1), xlim=(0, 1.05 * max(w + c for w, c, _ in data["formats"].values()) / 1e9),
           xlabel="read per step (GB)")
    ax.legend(fontsize=7, loc="upper right", ncols=2)


def held(keys: Tensor, values: Tensor) -> Figure:
    """Keys and values of one head (tokens, channels) as they lie in the cache."""
    figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.2))
    top = max(keys.abs().max().item(), values.abs().max().item())
    for ax, matrix, name in zip(axes, (keys, values), ("keys", "values")):
        image = ax.imshow(matrix.abs().numpy(), cmap="Greys", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
        ax.set(xlabel="channel", ylabel="token", title=name)
        ax.grid(False)
    figure.colorbar(image, ax=axes, label="size")
    return figure


def cache_cost(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """What a rounded cache costs: bits per key and value against more bits per character, with intervals."""
    figure, ax = plt.subplots(figsize=(5.4, 3.2))
    for shift, (keys, label) in enumerate({"channel": "keys by channel", "token": "keys by token"}.items()):
        color, marker, line = LOOKS[shift]
        here = sorted((row for row in rows if row["keys"] == keys), key=lambda row: row["bits"])
        x = [row["bits"] + 0.06 * (2 * shift - 1) for row in here]
        y = [100 * row["relative"] for row in here]
        error = [[100 * (row["relative"] - row["low"]) for row in here], [100 * (row["high"] - row["relative"]) for row in here]]
        ax.errorbar(x, y, yerr=error, color=color, marker=marker, linestyle=line, capsize=3, label=label)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel="bits per key and value", ylabel="more bits per character (%)", xticks=sorted({row["bits"] for row in rows}))
    ax.legend(fontsize=8)
    return figure


def chances(p: Sequence[float], q: Sequence[float], out: Sequence[float], names: Sequence[str]) -> Figure:
    """Target, draft and what comes out, side by side, for a vocabulary of a few tokens."""
    figure, ax = plt.subplots(figsize=(6.4, 2.9))
    parts = (("target p", p, BLUE, None), ("draft q", q, ORANGE, "//"), ("what comes out", out, GREY, ".."))
    for shift, (label, values, color, hatch) in enumerate(parts):
        ax.bar([place + 0.27 * (shift - 1) for place in range(len(p))], values, width=0.25, color=color, hatch=hatch, edgecolor="black", label=label)
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="token", ylabel="probability")
    ax.legend(fontsize=8)
    return figure


def written(text: str, drafted: Sequence[bool], width: int = 56) -> Figure:
    """A text with the draft's characters on white and the target's own framed and shaded."""
    rows = -(-len(text) // width)
    figure, ax = plt.subplots(figsize=(0.135 * width, 0.27 * rows))
    for place, (character, own) in enumerate(zip(text, (not d for d in drafted))):
        row, column = divmod(place, width)
        if own:
            ax.add_patch(Rectangle((column, row), 1, 1, facecolor="#F6C9A8", edgecolor=ORANGE, linewidth=0.8))
        ax.text(column + 0.5, row + 0.5, {"\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", "$": r"\$"}.get(character, character),
                ha="center", va="center", fontsize=8, family="monospace")
    ax.set(xlim=(0, width), ylim=(rows, 0))
    ax.axis("off")
    return figure


def per_call(rows: Sequence[Mapping[str, Any]], expected: Callable[[float, int], float]) -> Figure:
    """Tokens per call of the target by k, a line for each draft; thin lines are the formula. Right: fewer bytes per token."""
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.3))
    for (color, marker, line), name in zip(LOOKS, dict.fromkeys(row["draft"] for row in rows)):
        here = sorted((row for row in rows if row["draft"] == name), key=lambda row: row["k"])
        k = [row["k"] for row in here]
        axes[0].plot(k, [row["tokens_per_call"] for row in here], color=color, marker=marker, linestyle="", label=name)
        axes[0].plot(range(1, 9), [expected(here[-1]["acceptance"], each) for each in range(1, 9)], color=color, linewidth=1)
        axes[1].plot(k, [fewer_bytes(row) for row in here], color=color, marker=marker, linestyle=line, label=name)
    axes[0].set(xlabel="tokens drafted at a time, k", ylabel="tokens per call of the GPT", ylim=(1, None))
    axes[1].axhline(1, color="black", linestyle=":", linewidth=1.2)
    axes[1].set(xlabel="tokens drafted at a time, k", ylabel="times fewer bytes per token", ylim=(0, None))
    axes[0].legend(fontsize=8)
    return figure


def fewer_bytes(row: Mapping[str, Any]) -> float:
    """Bytes per token of the target alone, divided by those with the draft: calls of both, over what they write."""
    together = row["target_bytes"] + row["drafted_per_call"] * row["draft_bytes"]
    return row["tokens_per_call"] * row["target_bytes"] / together
