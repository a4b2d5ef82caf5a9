"""The reference answers of exercises 2.10 to 2.17.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.core import named_layers


# -- rounding together -------------------------------------------------------------------------------

def best_rounding(w: Tensor, scale: float, H: Tensor) -> Tensor:
    """2.10: of all 2^n ways to round n weights down or up, the integers with the least output error d'Hd."""
    n = len(w)
    ups = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1
    q = torch.floor(w / scale) + ups
    d = scale * q - w
    errors = ((d @ H) * d).sum(1)
    return q[errors.argmin()].int()


# -- training through a staircase --------------------------------------------------------------------

def fake_quantize(w: Tensor, scale: float | Tensor, qmin: int, qmax: int) -> Tensor:
    """2.11: scale * clamp(round(w / scale)), with gradient 1 inside the range and 0 outside."""
    v = (w / scale).clamp(qmin, qmax)
    rounded = v + (v.round() - v).detach()
    return scale * rounded


def lsq_gradient(w: Tensor, step: float, upstream: Tensor, qn: int, qp: int) -> Tensor:
    """2.12: the gradient of the loss with respect to the step of the grid -qn ... qp, times g."""
    v = w / step
    inside = (v > -qn) & (v < qp)
    slope = torch.where(inside, v.round() - v, v.clamp(-qn, qp))
    return (slope * upstream).sum() / (w.numel() * qp) ** 0.5


# -- two and three values ----------------------------------------------------------------------------

def ternary(w: Tensor) -> tuple[Tensor, float]:
    """2.13: the pattern of -1, 0, 1 and the scale alpha with the least ||w - alpha t||^2."""
    size, order = w.abs().flatten().sort(descending=True)
    sums = size.cumsum(0)
    best = int((sums**2 / torch.arange(1, len(size) + 1)).argmax())
    kept = order[:best + 1]
    t = torch.zeros(len(size))
    t[kept] = w.flatten()[kept].sign()
    return t.view(w.shape), float(sums[best] / (best + 1))


def xnor_dot(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """2.14: dot products of vectors of n signs, packed 64 to a word; bit 1 is +1, bit 0 is -1."""
    different = np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.int64)
    return n - 2 * different


# -- levels of your own ------------------------------------------------------------------------------

def lloyd_step(values: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """2.15: the nearest level of each value, then each level moved to the mean of its values."""
    indices = (values[:, None] - codebook).abs().argmin(1)
    moved = codebook.clone()
    for k in range(len(codebook)):
        members = values[indices == k]
        if len(members) > 0:
            moved[k] = members.mean()
    return indices, moved


def allocate_bits(errors: dict[str, dict[int, float]], sizes: dict[str, int], budget: int) -> dict[str, int]:
    """2.16: bits for each layer with the least total error that keep sum(size * bits) <= budget."""
    best = {0: (0.0, {})}
    for layer, size in sizes.items():
        longer = {}
        for spent, (total, chosen) in best.items():
            for bits, error in errors[layer].items():
                cost = spent + size * bits
                if cost <= budget and (cost not in longer or total + error < longer[cost][0]):
                    longer[cost] = (total + error, {**chosen, layer: bits})
        best = longer
    if not best:
        raise ValueError(f"no choice of bits fits into {budget} bits")
    return min(best.values(), key=lambda found: found[0])[1]


# -- a pipeline, repaired ----------------------------------------------------------------------------

def run_with(model: nn.Module, x: Tensor, at_input: Callable[[str, Tensor], Tensor | None]) -> Tensor:
    """Given in the notebook: model(x), where at_input(name, x) may replace what enters each layer with weights."""
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs, name=name: at_input(name, inputs[0]))
             for name, layer in named_layers(model).items()]
    with torch.no_grad():
        output = model(x)
    for hook in hooks:
        hook.remove()
    return output


def quantize_and_report(model: nn.Module, calibration_x: Tensor, test_x: Tensor, test_y: Tensor,
                        bits: int = 8) -> tuple[float, dict[str, float]]:
    """2.17: (accuracy with the layers' inputs in `bits` bits, {layer: the range found in calibration})."""
    model, qmax, ranges = copy.deepcopy(model).eval(), 2 ** (bits - 1) - 1, {}

    def watch(name, x):
        ranges[name] = x.abs().max().item()

    def to_grid(name, x):
        scale = ranges[name] / qmax
        q = torch.round(x / scale).clamp(-qmax, qmax).to(torch.int8)
        return scale * q

    run_with(model, calibration_x, watch)
    right = run_with(model, test_x, to_grid).argmax(1) == test_y
    return right.double().mean().item(), ranges
