"""Typical wrong answers to exercises 3.1 to 3.3: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_blocks.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.course.chapter03 import references_blocks as right

# -- 3.1 conv_cost -----------------------------------------------------------------------------------


def _cost(i, o, k, h, w, s=1, g=1, bias=False, *, weights=None, out=None, parameters=None, moved=None, macs=None):
    """The right answer with one part exchanged: each part is a function of what is known before it."""
    if i % g or o % g:
        raise ValueError("groups")
    weights = o * (i // g) * k**2 if weights is None else weights
    out = -(-h // s) * -(-w // s) if out is None else out
    parameters = weights + (o if bias else 0) if parameters is None else parameters
    macs = weights * out if macs is None else macs(weights, out)
    return parameters, macs, i * h * w + parameters + o * out if moved is None else moved(parameters, out)


def cost_without_groups(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, weights=o * i * k**2)


def cost_groups_twice(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, weights=(o // g) * (i // g) * k**2)


def cost_without_square(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, weights=o * (i // g) * k)


def cost_without_stride(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, out=h * w)


def cost_stride_once(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, out=-(-h * w // s))


def cost_rounded_down(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, out=(h // s) * (w // s))


def cost_without_padding(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, out=((h - k) // s + 1) * ((w - k) // s + 1))


def cost_bias_as_mac(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, macs=lambda weights, out: (weights + (o if bias else 0)) * out)


def cost_in_flops(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, macs=lambda weights, out: 2 * weights * out)


def cost_bias_forgotten(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, False)


def cost_always_bias(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, True)


def moved_without_weights(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, moved=lambda parameters, out: i * h * w + o * out)


def moved_without_bias(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, moved=lambda parameters, out: i * h * w + parameters - (o if bias else 0) + o * out)


def moved_at_output_size(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, moved=lambda parameters, out: i * out + parameters + o * out)


def moved_at_input_size(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, moved=lambda parameters, out: i * h * w + parameters + o * h * w)


def moved_in_bytes(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, moved=lambda parameters, out: 4 * (i * h * w + parameters + o * out))


def moved_grouped_input(i, o, k, h, w, s=1, g=1, bias=False):
    return _cost(i, o, k, h, w, s, g, bias, moved=lambda parameters, out: i // g * h * w + parameters + o * out)


def cost_not_refused(i, o, k, h, w, s=1, g=1, bias=False):
    weights, out = o * (i // g) * k**2, -(-h // s) * -(-w // s)
    parameters = weights + (o if bias else 0)
    return parameters, weights * out, i * h * w + parameters + o * out


def cost_refused_by_inputs_only(i, o, k, h, w, s=1, g=1, bias=False):
    if i % g:
        raise ValueError("groups")
    return cost_not_refused(i, o, k, h, w, s, g, bias)


def cost_in_floats(i, o, k, h, w, s=1, g=1, bias=False):
    return tuple(float(n) for n in _cost(i, o, k, h, w, s, g, bias))


# -- 3.2 Fire ----------------------------------------------------------------------------------------


class FireWithoutPadding(right.Fire):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.expand3x3.padding = (0, 0)


class FireInARow(nn.Module):
    def __init__(self, in_channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, 1)
        self.expand3x3 = nn.Conv2d(expand1x1, expand3x3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.expand3x3(F.relu(self.expand1x1(F.relu(self.squeeze(x))))))


class FireAround(nn.Module):
    """The 3x3 part reads the input and goes around the squeeze."""

    def __init__(self, in_channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, 1)
        self.expand3x3 = nn.Conv2d(in_channels, expand3x3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([self.expand1x1(F.relu(self.squeeze(x))), self.expand3x3(x)], dim=1))


class FireAdded(right.Fire):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(self.expand1x1(x) + self.expand3x3(x))


class FireSwapped(right.Fire):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand3x3(x), self.expand1x1(x)], dim=1))


class FireLinearSqueeze(right.Fire):
    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class FireLinearExpand(right.Fire):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1)


class FireWithoutRelu(right.Fire):
    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1)


class FireWithoutBias(right.Fire):
    def __init__(self, in_channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
        super().__init__(in_channels, squeeze, expand1x1, expand3x3)
        self.squeeze.bias = self.expand1x1.bias = self.expand3x3.bias = None


class FireWideSqueeze(right.Fire):
    def __init__(self, in_channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
        super().__init__(in_channels, squeeze, expand1x1, expand3x3)
        self.squeeze = nn.Conv2d(in_channels, squeeze, 3, padding=1)


class FireOnRows(right.Fire):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)]))


class FireClipped(right.Fire):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.squeeze(x))
        return F.relu6(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class FireReplicated(right.Fire):
    def __init__(self, in_channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
        super().__init__(in_channels, squeeze, expand1x1, expand3x3)
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, 3, padding=1, padding_mode="replicate")


class FireUnregistered(right.Fire):
    """Layers in a plain list: they compute, but nobody counts, trains or saves them."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.parts = [self.squeeze, self.expand1x1, self.expand3x3]
        del self.squeeze, self.expand1x1, self.expand3x3

    def forward(self, x: Tensor) -> Tensor:
        squeeze, one, three = self.parts
        x = F.relu(squeeze(x))
        return F.relu(torch.cat([one(x), three(x)], dim=1))


# -- 3.3 separable_conv ------------------------------------------------------------------------------


def depthwise_only(i, o, k=3, s=1):
    return nn.Conv2d(i, i, k, s, k // 2, groups=i, bias=False)


def depthwise_widened(i, o, k=3, s=1):
    return nn.Conv2d(i, o, k, s, k // 2, groups=i, bias=False)


def groups_forgotten(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, s, k // 2, bias=False), nn.Conv2d(i, o, 1, bias=False))


def pointwise_first(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, o, 1, bias=False), nn.Conv2d(o, o, k, s, k // 2, groups=o, bias=False))


def with_biases(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, s, k // 2, groups=i), nn.Conv2d(i, o, 1))


def with_a_relu(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, s, k // 2, groups=i, bias=False), nn.ReLU(), nn.Conv2d(i, o, 1, bias=False))


def with_a_norm(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, s, k // 2, groups=i, bias=False), nn.BatchNorm2d(i), nn.ReLU(),
                         nn.Conv2d(i, o, 1, bias=False))


def stride_late(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, 1, k // 2, groups=i, bias=False), nn.Conv2d(i, o, 1, s, bias=False))


def stride_twice(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, s, k // 2, groups=i, bias=False), nn.Conv2d(i, o, 1, s, bias=False))


def stride_forgotten(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, 1, k // 2, groups=i, bias=False), nn.Conv2d(i, o, 1, bias=False))


def without_padding(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, s, groups=i, bias=False), nn.Conv2d(i, o, 1, bias=False))


def padding_of_three(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, s, 1, groups=i, bias=False), nn.Conv2d(i, o, 1, bias=False))


def wide_pointwise(i, o, k=3, s=1):
    return nn.Sequential(nn.Conv2d(i, i, k, s, k // 2, groups=i, bias=False), nn.Conv2d(i, o, k, padding=k // 2, bias=False))
