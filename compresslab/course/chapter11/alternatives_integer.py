"""Right answers to exercises 11.5 and 11.6 that are written differently."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.core import choose_scale, min_max, quantize
from compresslab.course.chapter11.references_integer import Grid


def with_the_library(low: float, high: float, weight: Tensor, bias: Tensor) -> tuple:
    grid = choose_scale(torch.tensor(low), torch.tensor(high), 8)
    rows = weight.flatten(1)
    weights = choose_scale(*min_max(rows), 8, symmetric=True)
    q_weight = quantize(rows, weights).view(weight.shape).to(torch.int8)
    weight_scale = weights.scale.flatten()
    q_bias = torch.round(bias.double() / (grid.scale.double() * weight_scale.double())).int()
    return grid.scale.item(), int(grid.zero_point), weight_scale, q_weight, q_bias


def channel_by_channel(low: float, high: float, weight: Tensor, bias: Tensor) -> tuple:
    low, high = min(0.0, low), max(0.0, high)
    step = high / 255 - low / 255
    scales, weights, biases = [], [], []
    for channel, b in zip(weight, bias, strict=True):
        scales.append(channel.abs().max().item() / 127)
        weights.append(torch.round(channel / scales[-1]).clamp(-127, 127).to(torch.int8))
        biases.append(round(b.item() / (step * scales[-1])))
    return step, int(round(-low / step)), torch.tensor(scales), torch.stack(weights), torch.tensor(biases, dtype=torch.int32)


def pad_with_the_zero_point(q: Tensor, x: Grid, mid: Grid, out: Grid, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    (s1, z1), (s2, z2), (s3, z3) = x, mid, out
    padded = F.pad(q.double(), (1, 1, 1, 1), value=float(z1))
    sums = F.conv2d(padded - z1, weight.double(), bias.double())
    h = torch.round(sums * (s1 * weight_scale.double() / s2).view(1, -1, 1, 1))
    h = torch.relu(h).clamp(max=255 - z2)
    y = torch.round((s2 * h + s1 * (q.double() - z1)) / s3) + z3
    return y.clamp(0, 255).to(torch.uint8)


def through_real_numbers(q: Tensor, x: Grid, mid: Grid, out: Grid, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    """Dequantize, compute, quantize: what the file says, node by node."""
    real = x[0] * (q.double() - x[1])
    kernel = weight.double() * weight_scale.double().view(-1, 1, 1, 1)
    y = F.conv2d(real, kernel, bias.double() * x[0] * weight_scale.double(), padding=1)
    y = mid[0] * ((torch.round(y / mid[0]) + mid[1]).clamp(0, 255) - mid[1])
    y = torch.relu(y) + real
    return (torch.round(y / out[0]) + out[1]).clamp(0, 255).to(torch.uint8)
