"""What right answers to exercises 11.5 and 11.6 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.course.chapter11 import references_integer as right
from compresslab.course.trial import Trial

# -- 11.5 the numbers in the file ---------------------------------------------------------------------


def _layers(t: Trial) -> list[tuple[float, float, Tensor, Tensor]]:
    """Ranges and layers: one-sided and two-sided, linear, convolution, depthwise; channels of unlike size and sign."""
    ranges = [(0.0, 6.0), (-1.0, 2.0), (0.5, 3.1), (-4.2, -1.0), (-1.0, 1.3)]
    ranges += [(-t.uniform(0.1, 3), t.uniform(0.1, 3)) for _ in range(3)]
    shapes = [(2, 2), (3, 2), (4, 3), (3, 2, 2, 2), (2, 3, 1, 1), (5, 1, 3, 3), (6, 4), (4, 2, 3, 3)]
    layers = []
    for (low, high), shape in zip(ranges, shapes, strict=True):
        size = 10.0 ** torch.linspace(-1, 1, shape[0])
        weight = t.randn(*shape) * size.view(-1, *[1] * (len(shape) - 1))
        weight[0] = weight[0].abs().neg()  # a channel without a positive weight
        layers.append((low, high, weight, 3 * t.randn(shape[0])))
    return layers


def verify_numbers(t: Trial) -> str:
    layers = _layers(t)
    for low, high, weight, bias in layers:
        answer = t.call(low, high, weight, bias)
        t.expect(isinstance(answer, tuple | list) and len(answer) == 5, "return five things: scale, zero_point, weight_scale, q_weight, q_bias")
        scale, zero_point = t.number(answer[0]), t.number(answer[1])
        wanted = right.numbers_in_the_file(low, high, weight, bias)
        t.expect(abs(scale - wanted[0]) <= 1e-5 * wanted[0], f"inputs from {low:.4g} to {high:.4g} have steps of {wanted[0]:.5g}, you return {scale:.5g}")
        t.expect(zero_point == wanted[1], f"real 0 must be the integer {wanted[1]} for inputs from {low:.4g} to {high:.4g}, you return {zero_point:g}")
        weight_scale = t.tensor(answer[2], shape=(len(weight),))
        t.close(weight_scale, wanted[2], "the largest weight of each output channel is not 127 steps", rtol=1e-4, atol=0)
        q_weight = t.tensor(answer[3], shape=weight.shape, dtype=torch.int8)
        t.expect((q_weight.int() - wanted[3].int()).abs().max() <= 0, "a weight is not rounded to the nearest step")
        q_bias = t.tensor(answer[4], shape=bias.shape, dtype=torch.int32)
        far = (q_bias.double() - bias.double() / (wanted[0] * wanted[2].double())).abs().max()
        t.expect(far <= 0.51, f"a bias is {far:.3g} steps of scale * weight_scale away from its integer")
    return f"{len(layers)} layers, linear, convolution and depthwise, with one-sided and two-sided ranges"


# -- 11.6 a block in integers -------------------------------------------------------------------------


def _blocks(t: Trial) -> list[tuple]:
    """Blocks whose convolution has results below zero and above the range, with a border that counts."""
    blocks = []
    for channels, side in [(1, 2), (1, 1), (2, 3), (3, 4), (2, 5)]:
        q = t.integers(0, 255, (2, channels, side, side)).to(torch.uint8)
        weight = t.integers(-127, 127, (channels, channels, 3, 3)).to(torch.int8)
        weight_scale = torch.linspace(0.004, 0.012, channels + 1)[1:]
        bias = t.integers(-3000, 3000, (channels,)).to(torch.int32)
        x = (0.02, t.integer(90, 150))
        spread = 0.02 * 60 * 127 * float(weight_scale.mean()) * (9 * channels) ** 0.5
        mid = (spread / 110, t.integer(60, 110))
        out = (t.uniform(0.7, 0.9) * mid[0], t.integer(40, 90))
        blocks.append((q, x, mid, out, weight, weight_scale, bias))
    return blocks


def verify_block(t: Trial) -> str:
    count = 0
    for _ in range(3):
        for block in _blocks(t):
            answer = t.tensor(t.call(*block), shape=block[0].shape, dtype=torch.uint8)
            wanted = right.integer_block(*block)
            far = (answer.int() - wanted.int()).abs()
            t.expect(far.max() <= 1, f"an output is {int(far.max())} steps away from relu(conv(x)) + x on the output's grid")
            t.expect((far > 0).float().mean() <= 0.2, "many outputs are off by one step: round once, to the nearest, at each grid")
            count += len(answer)
    return f"{count} images in 15 blocks of 1 to 3 channels and 1 to 25 pixels; every output within one step"
