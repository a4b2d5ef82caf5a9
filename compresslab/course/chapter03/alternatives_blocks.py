"""Right answers to exercises 3.1 to 3.6 that look different from the references: every check must let them pass."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def cost_of_a_layer(in_channels, out_channels, kernel_size, height, width, stride=1, groups=1, bias=False):
    """PyTorch refuses bad groups with a ValueError itself."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=bias, device="meta")
    x = torch.zeros(1, in_channels, height, width, device="meta")
    y = layer(x)
    parameters = sum(p.numel() for p in layer.parameters())
    return parameters, y.numel() * layer.weight[0].numel(), x.numel() + parameters + y.numel()


def cost_group_by_group(in_channels, out_channels, kernel_size, height, width, stride=1, groups=1, bias=False):
    if math.gcd(in_channels, out_channels) % groups:
        raise ValueError("groups")
    rows, columns = ((side + 2 * (kernel_size // 2) - kernel_size) // stride + 1 for side in (height, width))
    parameters = macs = 0
    for _ in range(groups):
        weights = (in_channels // groups) * (out_channels // groups) * kernel_size * kernel_size
        parameters, macs = parameters + weights, macs + weights * rows * columns
    parameters += bias * out_channels
    return [parameters, macs, parameters + in_channels * height * width + out_channels * rows * columns]


class FireInSequence(nn.Module):
    def __init__(self, c, s, e1, e3):
        super().__init__()
        self.three = nn.Sequential(nn.Conv2d(s, e3, 3, padding="same"), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(s, e1, 1), nn.ReLU())
        self.thin = nn.Sequential(nn.Conv2d(c, s, kernel_size=1), nn.ReLU(inplace=True))

    def forward(self, x):
        x = self.thin(x)
        return torch.cat((self.one(x), self.three(x)), 1)


class FireByHand(nn.Module):
    def __init__(self, in_channels, squeeze, expand1x1, expand3x3):
        super().__init__()
        self.w = nn.ParameterList([torch.randn(squeeze, in_channels, 1, 1), torch.randn(expand1x1, squeeze, 1, 1),
                                   torch.randn(expand3x3, squeeze, 3, 3)])
        self.b = nn.ParameterList([torch.zeros(n) for n in (squeeze, expand1x1, expand3x3)])

    def forward(self, x):
        x = F.conv2d(x, self.w[0], self.b[0]).clamp(min=0)
        y = x.new_zeros(len(x), len(self.b[1]) + len(self.b[2]), *x.shape[2:])
        y[:, : len(self.b[1])] = F.conv2d(x, self.w[1], self.b[1])
        y[:, len(self.b[1]) :] = F.conv2d(x, self.w[2], self.b[2], padding=1)
        return y.relu()


class SeparableModule(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size=3, stride=1):
        super().__init__()
        self.mix = nn.Conv2d(in_channels, out_channels, (1, 1), bias=False)
        self.filter = nn.Conv2d(in_channels, in_channels, kernel_size, stride=stride, padding=(kernel_size - 1) // 2,
                                groups=in_channels, bias=False)

    def forward(self, x):
        return self.mix(self.filter(x))


def separable_with_identity(i, o, k=3, s=1):
    pad = nn.ZeroPad2d(k // 2)
    return nn.Sequential(pad, nn.Conv2d(i, i, k, s, groups=i, bias=False), nn.Identity(), nn.Conv2d(i, o, 1, bias=False))


def project_in_a_loop(weight):
    depthwise, pointwise = [], []
    for channel in range(weight.shape[1]):
        u, s, v = torch.svd(weight[:, channel].flatten(1))
        depthwise.append((-v[:, 0] * s[0].sqrt()).reshape(1, *weight.shape[2:]))
        pointwise.append(-u[:, 0] * s[0].sqrt())
    return torch.stack(depthwise), torch.stack(pointwise, 1)[..., None, None]


def project_by_eigenvectors(weight):
    """The best kernel is the first eigenvector of the k^2 x k^2 Gram matrix; the mixture is the projection onto it."""
    n, c, h, w = weight.shape
    matrices = weight.double().permute(1, 0, 2, 3).reshape(c, n, h * w)
    _, vectors = torch.linalg.eigh(matrices.mT @ matrices)
    kernel = vectors[:, :, -1:]
    mix = (matrices @ kernel)[..., 0]
    return kernel.reshape(c, 1, h, w).to(weight.dtype), mix.T.reshape(n, c, 1, 1).to(weight.dtype)


def reaches_by_jacobian(block, x):
    """Every output position by every input position: nothing can cancel."""
    jacobian = torch.autograd.functional.jacobian(lambda image: block(image)[0], x, vectorize=True)
    return jacobian[:, :, :, 0].ne(0).any(5).any(4).any(2).any(1)


def reaches_by_changing(block, x):
    """Change one input channel and see which outputs move."""
    columns = []
    with torch.no_grad():
        before = block(x)
        for i in range(x.shape[1]):
            changed = x.clone()
            changed[:, i] += 10 * torch.randn_like(changed[:, i])
            columns.append((block(changed) != before)[0].flatten(1).any(1))
    return torch.stack(columns, dim=1)


def reaches_backward(block, x):
    x = x.detach().clone().requires_grad_(True)
    y = block(x)
    table = torch.zeros(y.shape[1], x.shape[1], dtype=torch.bool)
    for o in range(y.shape[1]):
        x.grad = None
        y[:, o].backward(torch.rand_like(y[:, o]), retain_graph=True, inputs=[x])
        table[o] = x.grad.abs().amax(dim=(0, 2, 3)) != 0
    return table


def shuffle_by_index(x, groups):
    channels = x.shape[1]
    if channels % groups != 0:
        raise ValueError("groups")
    return x[:, torch.arange(channels).view(groups, -1).T.flatten()]


def shuffle_by_chunks(x, groups):
    if x.shape[1] % groups:
        raise ValueError("groups")
    return torch.stack(x.chunk(groups, dim=1), dim=2).flatten(1, 2)
