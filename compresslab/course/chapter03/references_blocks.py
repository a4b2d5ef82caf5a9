"""The right answers to exercises 3.1 to 3.6. Each body is also the solution region of `solutions/03_compact_networks.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_cost(
    in_channels: int, out_channels: int, kernel_size: int, height: int, width: int,
    stride: int = 1, groups: int = 1, bias: bool = False,
) -> tuple[int, int, int]:  # fmt: skip
    """(parameters, macs, moved) of a convolution with "same" padding, for one image; no layer needs to exist.

    Raises:
        ValueError: the groups do not divide both numbers of channels.
    """
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"{groups} groups must divide {in_channels} inputs and {out_channels} outputs")
    weights = out_channels * (in_channels // groups) * kernel_size**2
    positions = -(-height // stride) * -(-width // stride)
    parameters = weights + (out_channels if bias else 0)
    moved = in_channels * height * width + parameters + out_channels * positions
    return parameters, weights * positions, moved


class Fire(nn.Module):
    """Squeeze to few channels by 1x1, then expand by 1x1 and by 3x3 side by side: (N, e1 + e3, H, W)."""

    def __init__(self, in_channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


def separable_conv(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Module:
    """A depthwise convolution and a pointwise one, nothing between them, no biases."""
    padding = kernel_size // 2
    depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(depthwise, pointwise)


def project_separable(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(depthwise (C, 1, k, k), pointwise (N, C, 1, 1)): the separable convolution nearest to weight (N, C, k, k)."""
    outputs, inputs, height, width = weight.shape
    matrices = weight.transpose(0, 1).reshape(inputs, outputs, height * width)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    pointwise = u[:, :, 0] * s[:, :1]
    return vh[:, 0].reshape(inputs, 1, height, width), pointwise.T.reshape(outputs, inputs, 1, 1)


def reaches(block: nn.Module, x: Tensor) -> Tensor:
    """Bool (outputs, inputs): whether output channel o of the block depends on input channel i at x (1, C, H, W)."""
    x = x.clone().requires_grad_()
    rows = []
    for channel in block(x)[0]:
        weighted = (channel * torch.randn_like(channel)).sum()
        gradient, = torch.autograd.grad(weighted, x, retain_graph=True)
        rows.append(gradient[0].abs().sum(dim=(1, 2)) > 0)
    return torch.stack(rows)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels out like cards: (groups, n) written in rows, read in columns."""
    batch, channels, height, width = x.shape
    if channels % groups:
        raise ValueError(f"{groups} groups do not divide {channels} channels")
    x = x.reshape(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)
