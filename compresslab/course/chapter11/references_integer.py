"""The answers to exercises 11.5 and 11.6, as the solved notebook has them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[float, int]  # scale, zero point


def numbers_in_the_file(low: float, high: float, weight: Tensor, bias: Tensor) -> tuple:
    """What an int8 file stores for a layer whose inputs were seen between `low` and `high`."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    weight_scale = weight.abs().flatten(1).amax(1) / 127
    q_weight = (weight / weight_scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8)
    q_bias = (bias / (scale * weight_scale)).round().to(torch.int32)
    return scale, zero_point, weight_scale, q_weight, q_bias


def integer_block(q: Tensor, x: Grid, mid: Grid, out: Grid, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    """relu(conv(x)) + x on integers: uint8 in, uint8 out; grids are (scale, zero point)."""
    (s1, z1), (s2, z2), (s3, z3) = x, mid, out
    centred = F.pad(q.float() - z1, (1, 1, 1, 1))
    sums = F.conv2d(centred, weight.float()) + bias.view(-1, 1, 1)
    factor = s1 * weight_scale / s2
    h = (sums * factor.view(-1, 1, 1)).round() + z2
    h = h.clamp(z2, 255).to(torch.uint8)
    total = s2 * (h.float() - z2) + s1 * (q.float() - z1)
    return ((total / s3).round() + z3).clamp(0, 255).to(torch.uint8)
