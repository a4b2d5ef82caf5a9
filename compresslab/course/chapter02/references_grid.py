"""The reference answers of exercises 2.1 to 2.9: the grid, its error, and integers only.

The body of each function is the notebook's solution region.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def choose_scale(low: float, high: float, bits: int) -> tuple[float, int]:
    """(scale, zero_point) of the grid scale * (q - zero_point), q = 0 ... 2^bits - 1, that covers low ... high and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 1.0, 0
    top = 2**bits - 1
    scale = (high - low) / top
    return scale, min(max(round(-low / scale), 0), top)


def quantize(x: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    """uint8: the number q of the grid point nearest to each x; ties go to the even x / scale."""
    q = torch.round(x / scale) + zero_point
    return q.clamp(0, 2**bits - 1).to(torch.uint8)


def snr_db(x: Tensor, x_hat: Tensor) -> float:
    """Signal-to-noise ratio in decibels."""
    signal, noise = x.square().sum(), (x - x_hat).square().sum()
    return float(10 * torch.log10(signal / noise))


def quantize_per_channel(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(q int8 like the weight, scale (O,)): symmetric, one scale for each output channel (axis 0)."""
    qmax = 2 ** (bits - 1) - 1
    peak = weight.flatten(1).abs().amax(dim=1)
    scale = torch.where(peak > 0, peak / qmax, 1.0)
    q = torch.round(weight / scale.view(-1, *[1] * (weight.dim() - 1)))
    return q.clamp(-qmax, qmax).to(torch.int8), scale


def quantize_blocks(row: Tensor, block: int, bits: int) -> tuple[Tensor, Tensor]:
    """(q int8 (n,), exponent int8 (n / block,)): neighbours share the scale 2^exponent."""
    if len(row) % block:
        raise ValueError(f"blocks of {block} do not fit into {len(row)} numbers")
    qmax = 2 ** (bits - 1) - 1
    blocks = row.reshape(-1, block)
    peak = blocks.abs().amax(dim=1)
    exponent = torch.where(peak > 0, torch.ceil(torch.log2(peak / qmax)), 0.0)
    q = torch.round(blocks / 2.0 ** exponent[:, None])
    return q.clamp(-qmax, qmax).flatten().to(torch.int8), exponent.to(torch.int8)


def best_clip(x: Tensor, bits: int) -> tuple[float, float]:
    """(low, high): of the ranges k/100 of min ... max, k = 1 ... 100, the one with the smallest mean squared error."""
    low, high = x.min().item(), x.max().item()

    def error(share):
        scale, zero_point = choose_scale(share * low, share * high, bits)
        q = quantize(x, scale, zero_point, bits)
        return (x - scale * (q.float() - zero_point)).square().mean().item()

    share = min([k / 100 for k in range(1, 101)], key=error)
    return share * low, share * high


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(weight, bias) of one convolution or linear layer that does what layer and batch norm did."""
    factor = gamma / torch.sqrt(var + eps)
    if bias is None:
        bias = torch.zeros_like(mean)
    return weight * factor.view(-1, *[1] * (weight.dim() - 1)), (bias - mean) * factor + beta


def fixed_point(multiplier: float) -> tuple[int, int]:
    """(m0, shift): multiplier = m0 * 2^-(31 + shift) to within half a unit of m0, with 2^30 <= m0 < 2^31."""
    mantissa, exponent = math.frexp(multiplier)
    m0 = round(mantissa * 2**31)
    if m0 == 2**31:
        m0, exponent = 2**30, exponent + 1
    return m0, -exponent


def integer_linear(
    q_x: Tensor, z_x: int, q_w: Tensor, bias_q: Tensor, m0: int, shift: int, z_y: int
) -> Tensor:
    """uint8 (N, O) from uint8 (N, I), int8 (O, I) and int32 (O,), without one float."""
    accumulator = (q_x.to(torch.int64) - z_x) @ q_w.to(torch.int64).T + bias_q
    half = 1 << (30 + shift)
    rescaled = (accumulator * m0 + half) >> (31 + shift)
    return (rescaled + z_y).clamp(0, 255).to(torch.uint8)
