"""A matrix product that skips zeros, and the density below which skipping them is worth its price.

A dense kernel multiplies blocks of numbers that lie side by side, many per instruction. A sparse one reads
for each number where it belongs, and fetches its partner from there: fewer multiplications, each far
dearer. So there is a break-even density d*, the share of numbers not zero at which both are equally fast:

    t_sparse(d) ~ d * t_1        t_dense = const        d* = t_dense / t_1

It is a property of a machine, a library and a batch size, so it is measured here, not computed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.errors import check_fraction, check_int
from compresslab.core.timing import Speedup, Timing, speedup, time_calls, torch_threads

if TYPE_CHECKING:
    from scipy.sparse import csr_array


KERNELS = ("torch", "scipy")


@dataclass(frozen=True)
class SparseRow:
    """One density and one kernel against the dense product: `speedup` above 1 means that sparse is faster."""

    density: float
    kernel: str
    dense: Timing
    sparse: Timing
    speedup: Speedup


class SparseLinear(nn.Module):
    r"""A linear layer that stores and multiplies only the numbers that are not zero (compressed sparse rows).

    .. math:: y = W x + b, \qquad W \text{ as } (\text{values},\ \text{columns},\ \text{row starts})

    Args:
        layer: an ``nn.Linear`` with zeros in its weight; not changed.
    Source: the format: Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd edition, 2003, section 3.4.
    Example:
        >>> layer = nn.Linear(3, 2, bias=False)
        >>> layer.weight = nn.Parameter(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
        >>> SparseLinear(layer)(torch.tensor([[5.0, 7.0, 9.0]]))
        tensor([[14.,  5.]])
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"layer must be an nn.Linear, got {type(layer).__name__}")
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = to_csr(layer.weight.detach())
        self.bias = None if layer.bias is None else layer.bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        rows = F.linear(x.reshape(-1, self.in_features), self.weight)
        y = rows.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def count_macs(self, inputs: tuple[Tensor, ...], output: Tensor) -> int:
        """Only stored numbers are multiplied: their count times the rows of the input."""
        return self.weight.values().numel() * (inputs[0].numel() // self.in_features)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.weight.values().numel()} numbers"


def to_csr(weight: Tensor) -> Tensor:
    """A matrix in torch's compressed sparse rows, with indices of 32 bits.

    Raises:
        ValueError: weight has not two axes.
    """
    if weight.ndim != 2:
        raise ValueError(f"weight must be a matrix, got shape {tuple(weight.shape)}")
    place = weight.nonzero()
    starts = torch.zeros(len(weight) + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(place[:, 0], minlength=len(weight)).cumsum(0)
    values = weight[place[:, 0], place[:, 1]]
    with warnings.catch_warnings():  # torch says once that the format is in beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        columns, shape = place[:, 1].int(), tuple(weight.shape)
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=True)


def to_scipy(weight: Tensor) -> csr_array:
    """The same matrix for scipy, whose kernel is plain compiled loops on one core."""
    from scipy.sparse import csr_array

    return csr_array(weight.numpy())


def random_sparse(rows: int, columns: int, density: float, seed: int = 0) -> Tensor:
    """A normal (rows, columns) matrix of which exactly round(density * n) numbers, anywhere, are not zero.

    Raises:
        ValueError: density outside [0, 1], or an axis below 1.
    """
    check_int("rows", rows, 1), check_int("columns", columns, 1), check_fraction("density", density)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows * columns, generator=generator)
    weight = torch.where(weight == 0, 1.0, weight)
    zeros = torch.randperm(weight.numel(), generator=generator)[round(density * weight.numel()) :]
    weight[zeros] = 0
    return weight.view(rows, columns)


def time_sparse(
    rows: int = 1024, columns: int = 1024, *, densities: Sequence[float] = (0.5, 0.1, 0.01), batch: int = 1,
    kernels: Sequence[str] = KERNELS, repeats: int = 30, threads: int | None = None, seed: int = 0,
) -> list[SparseRow]:  # fmt: skip
    """Time the sparse product W x against the dense one, for several densities, all in one interleaved run.

    Args:
        rows, columns: of W, each at least 1.
        densities: shares of numbers that are not zero, in [0, 1].
        batch: columns of x.
        kernels: "torch" (CSR), "scipy" (one thread).
        repeats: rounds.
        threads: of torch; None leaves them. Compare scipy with one thread.
        seed: of the weights and of x.
    Returns:
        a row per density and kernel, in this order.
    Raises:
        ValueError: an unknown kernel, or an argument out of range.
    """
    if unknown := set(kernels) - set(KERNELS):
        got = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"kernels must be of {', '.join(KERNELS)}, got {got}")
    x = torch.randn(columns, check_int("batch", batch, 1), generator=torch.Generator().manual_seed(seed + 1))
    calls: dict[tuple[float, str], Callable[[], object]] = {}
    for density in densities:
        weight = random_sparse(rows, columns, density, seed)
        calls[density, "dense"] = _product(weight, x)
        for kernel in kernels:
            operands = (to_csr(weight), x) if kernel == "torch" else (to_scipy(weight), x.numpy())
            calls[density, kernel] = _product(*operands)
    with torch_threads(threads), torch.no_grad():
        times = time_calls({f"{d} {name}": call for (d, name), call in calls.items()}, repeats=repeats)
    rows = []
    for d, kernel in product(densities, kernels):
        dense, sparse = times[f"{d} dense"], times[f"{d} {kernel}"]
        rows.append(SparseRow(d, kernel, dense, sparse, speedup(dense, sparse)))
    return rows


def _product(weight: object, x: object) -> Callable[[], object]:
    return lambda: weight @ x


def break_even_density(densities: Sequence[float], ratios: Sequence[float]) -> float | None:
    """The density at which the sparse product is as fast as the dense one, between measured points.

    The speed-up is close to a power of the density, so the line is drawn through the logarithms.

    Args:
        densities: where it was measured, each above 0, in any order.
        ratios: how many times faster sparse was there, each above 0.
    Returns:
        the largest density from which on, downwards, sparse wins; None where it does not win even at the
        smallest one, and the largest measured density where it wins everywhere.
    Raises:
        ValueError: not as many ratios as densities, none at all, or a number that is not above 0.
    Example:
        >>> break_even_density([0.5, 0.1, 0.001], [0.25, 0.5, 50.0])
        0.05
    """
    if len(densities) != len(ratios) or not densities:
        got = f"{len(densities)} densities and {len(ratios)} ratios"
        raise ValueError(f"one ratio per density is needed, got {got}")
    if min(*densities, *ratios, math.inf) <= 0:
        raise ValueError("densities and ratios must be above 0: both are put on logarithmic axes")
    points = sorted(zip(densities, ratios, strict=True))
    below = None
    for density, ratio in points:
        if ratio < 1:
            return below and round(_crossing(below, (density, ratio)), 6)
        below = (density, ratio)
    return points[-1][0]


def _crossing(left: tuple[float, float], right: tuple[float, float]) -> float:
    """Where the line through two points, in logarithms, meets a ratio of 1."""
    (x0, y0), (x1, y1) = ((math.log(x), math.log(y)) for x, y in (left, right))
    return math.exp(x0 + (x1 - x0) * y0 / (y0 - y1))
