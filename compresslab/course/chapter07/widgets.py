"""The widget of chapter 07: sparsity and bits against the bytes of a file, split into its parts. Tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compresslab.course.chapter07.figures import PARTS

CodedBits = Callable[[Tensor, int, int], tuple[int, int, int]]


@dataclass(frozen=True)
class Sizes:
    """One position of the controls: the bytes of each part, and what the two ratios promise together."""

    sparsity: float
    bits: int
    parts: dict[str, float]
    dense: int
    promised: float
    curve: tuple[tuple[float, float, float], ...]

    @property
    def ratio(self) -> float:
        """How many times smaller than the dense file."""
        return self.dense / sum(self.parts.values())


class SizeLook:
    """`look(sparsity, bits)`: a network pruned by magnitude and clustered, counted array by array.

    Args:
        coded_bits: the learner's own function (exercise 7.1).
        weights: one for each layer.
        rest: bytes of biases and header.
        dense: bytes of the dense file.
        index_bits: the widths of a gap that are tried for each layer.
    """

    def __init__(self, coded_bits: CodedBits, weights: Sequence[Tensor], rest: dict[str, int], dense: int,
                 index_bits: Sequence[int] = (2, 3, 4, 5, 6, 7, 8)) -> None:
        self.coded_bits, self.rest, self.dense, self.index_bits = coded_bits, dict(rest), dense, tuple(index_bits)
        self.weights = [weight.detach().flatten() for weight in weights]
        self.orders = [weight.abs().argsort(stable=True) for weight in self.weights]
        self.grid = {sparsity: self._places(sparsity) for sparsity in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)}

    def _pruned(self, sparsity: float) -> list[Tensor]:
        found = []
        for weight, order in zip(self.weights, self.orders):
            left = weight.clone()
            left[order[: round(sparsity * len(order))]] = 0
            found.append(left)
        return found

    def _places(self, sparsity: float) -> tuple[float, int]:
        """(bytes of the gaps, weights left) at a sparsity."""
        pruned = self._pruned(sparsity)
        gaps = sum(min(self.coded_bits(weight, width, 1)[0] for width in self.index_bits) for weight in pruned)
        return gaps / 8, sum(int((weight != 0).sum()) for weight in pruned)

    def __call__(self, sparsity: float, bits: int) -> Sizes:
        """The parts at this sparsity (a fraction) and this number of bits of a value index."""
        bits = int(bits)
        pruned = self._pruned(sparsity)
        found = [min((self.coded_bits(weight, width, bits) for width in self.index_bits), key=sum) for weight in pruned]
        gaps, indices, books = (sum(sizes) / 8 for sizes in zip(*found))
        parts = {"values": indices, "index": gaps, "codebooks": books, **self.rest}
        fixed = books + sum(self.rest.values())
        curve = [(s, 32 / bits / (1 - s), self.dense / (places + left * bits / 8 + fixed)) for s, (places, left) in self.grid.items()]
        left = sum(int((weight != 0).sum()) for weight in pruned)
        promised = 32 / bits * sum(map(len, self.weights)) / max(left, 1)
        return Sizes(float(sparsity), bits, parts, self.dense, promised, tuple(curve))


def draw_sizes(axes: Sequence[Any], data: Sizes) -> None:
    """Left the parts of the file as a bar; right the promised and the real ratio against the sparsity."""
    left, right = axes
    for row, (part, size) in enumerate(data.parts.items()):
        color, hatch = PARTS[part]
        left.barh(row, size / 1000, color=color, hatch=hatch, edgecolor="white")
        left.text(size / 1000, row, f" {size / 1000:.1f}", va="center", fontsize=8)
    left.set_yticks(range(len(data.parts)), list(data.parts))
    left.invert_yaxis()
    left.grid(axis="y", visible=False)
    left.margins(x=0.2)
    left.set(xlabel="kB", title=f"promised {data.promised:.0f} x, in fact {data.ratio:.0f} x")
    places = [1 - sparsity for sparsity, _, _ in data.curve]
    right.plot(places, [promised for _, promised, _ in data.curve], color="#7A7A7A", marker="^", linestyle="--", markersize=5, label="promised")
    right.plot(places, [real for _, _, real in data.curve], color="#D55E00", marker="o", markersize=5, label="counted")
    right.plot(max(1 - data.sparsity, 1e-3), data.ratio, color="#0072B2", marker="X", markersize=9, linestyle="")
    right.set(xscale="log", yscale="log", xlabel="density (weights left)", ylabel="times smaller")
    right.legend(fontsize=8)
