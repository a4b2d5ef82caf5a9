"""Known wrong answers to exercises 11.5 and 11.6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.course.chapter11.references_integer import Grid

# -- 11.5 ---------------------------------------------------------------------------------------------


def _numbers(
    *,
    zero: bool = True,
    levels: int = 255,
    zero_point: Callable[[float, float, float], float] = lambda low, high, scale: -low / scale,
    whole: Callable[[float], Any] = round,
    channel_scale: Callable[[Tensor], Tensor] = lambda w: w.abs().flatten(1).amax(1) / 127,
    to_whole: Callable[[Tensor], Tensor] = torch.round,
    bias_scale: Callable[[float, Tensor], Any] = lambda scale, weight_scale: scale * weight_scale,
    bias_whole: Callable[[Tensor], Tensor] = torch.round,
    correct: bool = False,
    symmetric: bool = False,
    order: tuple[int, ...] = (0, 1, 2, 3, 4),
) -> Callable[..., tuple]:
    """The right answer with one thing changed."""

    def answer(low: float, high: float, weight: Tensor, bias: Tensor) -> tuple:
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        scale = max(abs(low), abs(high)) / 127 if symmetric else (high - low) / levels
        z = 0 if symmetric else whole(zero_point(low, high, scale))
        steps = channel_scale(weight)
        q = to_whole(weight / steps.view(-1, *[1] * (weight.ndim - 1))).clamp(-128, 127)
        b = bias_whole(bias / bias_scale(scale, steps))
        if correct:
            b = b - z * q.flatten(1).sum(1)
        found = (scale, z, steps, q.to(torch.int8), b.to(torch.int32))
        return tuple(found[i] for i in order)

    return answer


zero_left_out = _numbers(zero=False)
steps_256 = _numbers(levels=256)
wrong_sign = _numbers(zero_point=lambda low, high, scale: low / scale)
from_the_top = _numbers(zero_point=lambda low, high, scale: high / scale)
zero_point_down = _numbers(whole=lambda z: int(z))
one_weight_scale = _numbers(channel_scale=lambda w: (w.abs().max() / 127).expand(len(w)).clone())
by_128 = _numbers(channel_scale=lambda w: w.abs().flatten(1).amax(1) / 128)
by_255 = _numbers(channel_scale=lambda w: (w.flatten(1).amax(1) - w.flatten(1).amin(1)) / 255)
largest_without_sign = _numbers(channel_scale=lambda w: w.flatten(1).amax(1).clamp(min=1e-6) / 127)
weights_cut = _numbers(to_whole=torch.trunc)
bias_in_input_steps = _numbers(bias_scale=lambda scale, steps: scale)
bias_in_weight_steps = _numbers(bias_scale=lambda scale, steps: steps)
bias_over = _numbers(bias_scale=lambda scale, steps: steps / scale)
bias_cut = _numbers(bias_whole=torch.trunc)
zero_point_in_bias = _numbers(correct=True)
symmetric_inputs = _numbers(symmetric=True)
zero_point_first = _numbers(order=(1, 0, 2, 3, 4))


def input_channels(low: float, high: float, weight: Tensor, bias: Tensor) -> tuple:
    scale, z, _, _, _ = _numbers()(low, high, weight, bias)
    steps = weight.abs().transpose(0, 1).flatten(1).amax(1) / 127
    q = (weight / steps.view(1, -1, *[1] * (weight.ndim - 2))).round().clamp(-128, 127)
    return scale, z, steps, q.to(torch.int8), (bias / (scale * steps.mean())).round().int()


def small_bias(low: float, high: float, weight: Tensor, bias: Tensor) -> tuple:
    scale, z, steps, q, _ = _numbers()(low, high, weight, bias)
    largest = bias.abs().max().clamp(min=1e-9)
    return scale, z, steps, q, (bias / (largest / 127)).round().to(torch.int8)


def other_dtypes(low: float, high: float, weight: Tensor, bias: Tensor) -> tuple:
    scale, z, steps, q, b = _numbers()(low, high, weight, bias)
    return scale, z, steps, q.int(), b.long()


def real_bias(low: float, high: float, weight: Tensor, bias: Tensor) -> tuple:
    return (*_numbers()(low, high, weight, bias)[:4], bias)


# -- 11.6 ---------------------------------------------------------------------------------------------

BUGS = ("border", "scale", "wrap", "relu", "sum")


def block_with(*bugs: str) -> Callable[..., Tensor]:
    """The block with some of its five bugs left in."""

    def block(q: Tensor, x: Grid, mid: Grid, out: Grid, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
        (s1, z1), (s2, z2), (s3, z3) = x, mid, out
        centred = F.pad(q.float(), (1, 1, 1, 1)) - z1 if "border" in bugs else F.pad(q.float() - z1, (1, 1, 1, 1))
        sums = F.conv2d(centred, weight.float()) + bias.view(-1, 1, 1)
        factor = s1 * weight_scale / (s3 if "scale" in bugs else s2)
        h = (sums * factor.view(-1, 1, 1)).round() + z2
        if "wrap" in bugs:
            h = h.int().to(torch.uint8).float()
        h = h.clamp(0 if "relu" in bugs else z2, 255).to(torch.uint8)
        if "sum" in bugs:
            total = s1 * (h.float() - z2 + q.float() - z1)
        else:
            total = s2 * (h.float() - z2) + s1 * (q.float() - z1)
        return ((total / s3).round() + z3).clamp(0, 255).to(torch.uint8)

    return block


def not_uint8(q: Tensor, x: Grid, mid: Grid, out: Grid, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    return block_with()(q, x, mid, out, weight, weight_scale, bias).int()


def no_clamp_at_the_end(q: Tensor, x: Grid, mid: Grid, out: Grid, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    (s1, z1), (s2, z2), (s3, z3) = x, mid, out
    sums = F.conv2d(F.pad(q.float() - z1, (1, 1, 1, 1)), weight.float()) + bias.view(-1, 1, 1)
    h = ((sums * (s1 * weight_scale / s2).view(-1, 1, 1)).round() + z2).clamp(z2, 255)
    total = s2 * (h - z2) + s1 * (q.float() - z1)
    return ((total / s3).round() + z3).int().to(torch.uint8)


def one_weight_step(q: Tensor, x: Grid, mid: Grid, out: Grid, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    return block_with()(q, x, mid, out, weight, weight_scale.mean().expand(len(weight_scale)), bias)


def without_shortcut(q: Tensor, x: Grid, mid: Grid, out: Grid, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    (s1, z1), (s2, z2), (s3, z3) = x, mid, out
    sums = F.conv2d(F.pad(q.float() - z1, (1, 1, 1, 1)), weight.float()) + bias.view(-1, 1, 1)
    h = ((sums * (s1 * weight_scale / s2).view(-1, 1, 1)).round() + z2).clamp(z2, 255)
    return ((s2 * (h - z2) / s3).round() + z3).clamp(0, 255).to(torch.uint8)


def relu_of_the_sum(q: Tensor, x: Grid, mid: Grid, out: Grid, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    (s1, z1), (s2, z2), (s3, z3) = x, mid, out
    sums = F.conv2d(F.pad(q.float() - z1, (1, 1, 1, 1)), weight.float()) + bias.view(-1, 1, 1)
    h = ((sums * (s1 * weight_scale / s2).view(-1, 1, 1)).round() + z2).clamp(0, 255)
    total = torch.relu(s2 * (h - z2) + s1 * (q.float() - z1))
    return ((total / s3).round() + z3).clamp(0, 255).to(torch.uint8)
