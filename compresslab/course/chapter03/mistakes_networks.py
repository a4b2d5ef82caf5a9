"""Typical wrong answers to exercises 3.7 to 3.12: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_networks`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


# -- 3.7 InvertedResidual ----------------------------------------------------------------------------

def _wide(inputs, outputs, hidden, stride=1, act=nn.ReLU6, groups=None, tail=(), strides=None, bias=False):
    first, second = strides or (1, stride)
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 1, first, bias=bias), nn.BatchNorm2d(hidden), act(),
        nn.Conv2d(hidden, hidden, 3, second, padding=1, groups=groups or hidden, bias=bias), nn.BatchNorm2d(hidden), act(),
        nn.Conv2d(hidden, outputs, 1, bias=bias), nn.BatchNorm2d(outputs), *tail)


class _Inverted(nn.Module):
    """The right block; each mistake below changes one thing."""

    def __init__(self, in_channels, out_channels, stride=1, expansion=6):
        super().__init__()
        self.layers = self.build(in_channels, out_channels, stride, expansion)
        self.residual = stride == 1 and in_channels == out_channels

    def build(self, inputs, outputs, stride, expansion):
        return _wide(inputs, outputs, expansion * inputs, stride)

    def forward(self, x):
        y = self.layers(x)
        return x + y if self.residual else y


class BentBottleneck(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        return _wide(inputs, outputs, expansion * inputs, stride, tail=[nn.ReLU6()])


class BentByRelu(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        return _wide(inputs, outputs, expansion * inputs, stride, tail=[nn.ReLU()])


class BentSum(_Inverted):
    def forward(self, x):
        return F.relu6(super().forward(x))


class PlainRelu(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        return _wide(inputs, outputs, expansion * inputs, stride, act=nn.ReLU)


class NotDepthwise(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        return _wide(inputs, outputs, expansion * inputs, stride, groups=1)


class NotInverted(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        return _wide(inputs, outputs, max(1, inputs // expansion), stride)


class ExpandsOutputs(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        return _wide(inputs, outputs, expansion * outputs, stride)


class StrideFirst(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        return _wide(inputs, outputs, expansion * inputs, strides=(stride, 1))


class Biased(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        return _wide(inputs, outputs, expansion * inputs, stride, bias=True)


class NoPadding(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        layers = _wide(inputs, outputs, expansion * inputs, stride)
        layers[3].padding = (0, 0)
        return layers


class NoDepthwise(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        hidden = expansion * inputs
        return nn.Sequential(nn.Conv2d(inputs, hidden, 1, stride, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
                             nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class NoPointwise(_Inverted):
    """Narrowed by a grouped convolution, or not at all: here the depthwise one is the last."""

    def build(self, inputs, outputs, stride, expansion):
        hidden = expansion * inputs
        return nn.Sequential(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
                             nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden))


class Cropped(_Inverted):
    def forward(self, x):
        y = self.layers(x)
        return y + x[:, :, :y.shape[2], :y.shape[3]] if x.shape[1] == y.shape[1] else y


class Subsampled(_Inverted):
    def forward(self, x):
        y = self.layers(x)
        step = x.shape[2] // y.shape[2] if y.shape[2] < x.shape[2] else 1
        return y + x[:, :, ::step, ::step][:, :, :y.shape[2], :y.shape[3]] if x.shape[1] == y.shape[1] else y


class StrideForgotten(_Inverted):
    def __init__(self, in_channels, out_channels, stride=1, expansion=6):
        super().__init__(in_channels, out_channels, stride, expansion)
        self.residual = in_channels == out_channels


class ChannelsForgotten(_Inverted):
    def __init__(self, in_channels, out_channels, stride=1, expansion=6):
        super().__init__(in_channels, out_channels, stride, expansion)
        self.residual = stride == 1


class NoShortcut(_Inverted):
    def forward(self, x):
        return self.layers(x)


class SharedNorm(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        layers = _wide(inputs, outputs, expansion * inputs, stride)
        layers[4] = layers[1]
        return layers


class NormAfter(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        layers = _wide(inputs, outputs, expansion * inputs, stride)
        return nn.Sequential(*(layers[place] for place in (0, 2, 1, 3, 5, 4, 6, 7)))


class StrideLast(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        layers = _wide(inputs, outputs, expansion * inputs)
        layers[6].stride = (stride, stride)
        return layers


class NotWidened(_Inverted):
    def build(self, inputs, outputs, stride, expansion):
        layers = _wide(inputs, outputs, expansion * inputs, stride)
        return layers[3:] if expansion == 1 else layers


# -- 3.8 squeeze_excite ------------------------------------------------------------------------------

def _gates(squeezed, down, up):
    return F.hardsigmoid(up(F.relu(down(squeezed))))


def soft_gate(x, down, up):
    return x * torch.sigmoid(up(F.relu(down(x.mean((2, 3))))))[:, :, None, None]


def gate_not_divided(x, down, up):
    return x * F.relu6(up(F.relu(down(x.mean((2, 3))))) + 3)[:, :, None, None]


def gate_not_shifted(x, down, up):
    return x * (F.relu6(up(F.relu(down(x.mean((2, 3)))))) / 6)[:, :, None, None]


def no_relu_between(x, down, up):
    return x * F.hardsigmoid(up(down(x.mean((2, 3)))))[:, :, None, None]


def largest_pixel(x, down, up):
    return x * _gates(x.amax((2, 3)), down, up)[:, :, None, None]


def summed_pixels(x, down, up):
    return x * _gates(x.sum((2, 3)), down, up)[:, :, None, None]


def one_gate_for_the_batch(x, down, up):
    return x * _gates(x.mean((0, 2, 3)), down, up)[None, :, None, None]


def gate_for_each_pixel(x, down, up):
    return x * _gates(x.permute(0, 2, 3, 1), down, up).permute(0, 3, 1, 2)


def gates_only(x, down, up):
    return _gates(x.mean((2, 3)), down, up)[:, :, None, None].expand(x.shape)


def gate_added(x, down, up):
    return x + _gates(x.mean((2, 3)), down, up)[:, :, None, None]


def not_broadcast(x, down, up):
    return x * _gates(x.mean((2, 3)), down, up)


def added_to_input(x, down, up):
    return x + x * _gates(x.mean((2, 3)), down, up)[:, :, None, None]


# -- 3.9 GhostModule ---------------------------------------------------------------------------------

class _Ghosts(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size=1, ratio=2):
        super().__init__()
        if out_channels % ratio:
            raise ValueError("ratio")
        self.real = out_channels // ratio
        self.build(in_channels, out_channels, kernel_size, ratio)

    def build(self, inputs, outputs, k, ratio):
        self.primary = nn.Conv2d(inputs, self.real, k, padding=k // 2, bias=False)
        self.cheap = nn.Conv2d(self.real, outputs - self.real, 3, padding=1, groups=self.real, bias=False)

    def forward(self, x):
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)


class DenseGhosts(_Ghosts):
    def build(self, inputs, outputs, k, ratio):
        super().build(inputs, outputs, k, ratio)
        self.cheap = nn.Conv2d(self.real, outputs - self.real, 3, padding=1, bias=False)


class NoRealMaps(_Ghosts):
    def build(self, inputs, outputs, k, ratio):
        super().build(inputs, outputs, k, ratio)
        self.cheap = nn.Conv2d(self.real, outputs, 3, padding=1, groups=self.real, bias=False)

    def forward(self, x):
        return self.cheap(self.primary(x))


class GhostsFirst(_Ghosts):
    def forward(self, x):
        y = self.primary(x)
        return torch.cat([self.cheap(y), y], 1)


class BentMaps(_Ghosts):
    def forward(self, x):
        y = F.relu(self.primary(x))
        return torch.cat([y, self.cheap(y)], 1)


class TooManyReal(_Ghosts):
    def build(self, inputs, outputs, k, ratio):
        self.primary = nn.Conv2d(inputs, outputs, k, padding=k // 2, bias=False)
        self.cheap = nn.Conv2d(outputs, (ratio - 1) * outputs, 3, padding=1, groups=outputs, bias=False)


class PointwiseGhosts(_Ghosts):
    def build(self, inputs, outputs, k, ratio):
        super().build(inputs, outputs, k, ratio)
        self.cheap = nn.Conv2d(self.real, outputs - self.real, 1, groups=self.real, bias=False)


class BiasedGhosts(_Ghosts):
    def build(self, inputs, outputs, k, ratio):
        self.primary = nn.Conv2d(inputs, self.real, k, padding=k // 2)
        self.cheap = nn.Conv2d(self.real, outputs - self.real, 3, padding=1, groups=self.real)


class GhostsNotPadded(_Ghosts):
    def build(self, inputs, outputs, k, ratio):
        super().build(inputs, outputs, k, ratio)
        self.primary = nn.Conv2d(inputs, self.real, k, bias=False)


class RatioTruncated(_Ghosts):
    def __init__(self, in_channels, out_channels, kernel_size=1, ratio=2):
        super().__init__(in_channels, out_channels // ratio * ratio, kernel_size, ratio)


class PaddedByOne(_Ghosts):
    def build(self, inputs, outputs, k, ratio):
        super().build(inputs, outputs, k, ratio)
        self.primary = nn.Conv2d(inputs, self.real, k, padding=1 if k > 1 else 0, bias=False)
