"""Right answers to exercises 3.7 to 3.12 that look different from the reference: the checks must let them pass."""

from __future__ import annotations

import functools
import random

import torch
from torch import nn
from torch.nn import functional as F


class InvertedByHand(nn.Module):
    """Layers with names, activations as functions."""

    def __init__(self, in_channels, out_channels, stride=1, expansion=6):
        super().__init__()
        hidden = in_channels * expansion
        self.project = nn.Conv2d(hidden, out_channels, (1, 1), bias=False)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(hidden), nn.BatchNorm2d(hidden), nn.BatchNorm2d(out_channels)

    def forward(self, x):
        y = F.relu6(self.bn1(self.expand(x)))
        y = self.bn2(self.depthwise(y)).clamp(0, 6)
        y = self.bn3(self.project(y))
        return y + x if y.shape == x.shape else y


class InvertedInParts(nn.Module):
    """Three little sequences and a shortcut that may be None."""

    def __init__(self, in_channels, out_channels, stride=1, expansion=6):
        super().__init__()
        hidden = in_channels * expansion

        def part(inputs, outputs, kernel_size, stride=1, groups=1):
            return [nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]

        self.widen = nn.Sequential(*part(in_channels, hidden, 1), nn.ReLU6(inplace=True))
        self.filter = nn.Sequential(*part(hidden, hidden, 3, stride, hidden), nn.ReLU6(inplace=True))
        self.narrow = nn.Sequential(*part(hidden, out_channels, 1))
        self.shortcut = nn.Identity() if stride == 1 and in_channels == out_channels else None

    def forward(self, x):
        y = self.narrow(self.filter(self.widen(x)))
        return y if self.shortcut is None else y + self.shortcut(x)


def excite_with_modules(x, down, up):
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), down, nn.ReLU(), up, nn.Hardsigmoid())
    return torch.einsum("nchw,nc->nchw", x, gate(x))


def excite_as_convolutions(x, down, up):
    z = F.conv2d(x.mean((2, 3), keepdim=True), down.weight[:, :, None, None], down.bias).clamp(min=0)
    z = F.conv2d(z, up.weight[:, :, None, None], up.bias)
    return x * ((z + 3) / 6).clamp(0, 1)


class GhostsSideBySide(nn.Module):
    """Writes both halves into one tensor."""

    def __init__(self, in_channels, out_channels, kernel_size=1, ratio=2):
        super().__init__()
        if out_channels % ratio != 0:
            raise ValueError("ratio must divide out_channels")
        self.maps = out_channels // ratio
        self.ghost = nn.Conv2d(self.maps, out_channels - self.maps, 3, 1, "same", groups=self.maps, bias=False)
        self.real = nn.Conv2d(in_channels, self.maps, kernel_size, padding="same", bias=False)

    def forward(self, x):
        y = self.real(x)
        output = y.new_empty(len(y), self.maps + self.ghost.out_channels, *y.shape[2:])
        output[:, :self.maps], output[:, self.maps:] = y, self.ghost(y)
        return output


class GhostsWithParameters(nn.Module):
    """No layers: two parameters and F.conv2d."""

    def __init__(self, in_channels, out_channels, kernel_size=1, ratio=2):
        super().__init__()
        real, rest = divmod(out_channels, ratio)
        if rest:
            raise ValueError("ratio must divide out_channels")
        self.w = nn.Parameter(torch.randn(real, in_channels, kernel_size, kernel_size))
        self.v = nn.Parameter(torch.randn(out_channels - real, 1, 3, 3))

    def forward(self, x):
        y = F.conv2d(x, self.w, padding=(self.w.shape[-1] - 1) // 2)
        return torch.cat((y, F.conv2d(y, self.v, padding=1, groups=y.shape[1])), 1)


def depth_by_bernoulli(x, branches, last, training):
    survive = torch.linspace(1, last, len(branches) + 1)[1:]
    for branch, p in zip(branches, survive):
        if training:
            x = torch.relu(x + branch(x)) if torch.bernoulli(p).bool() else torch.relu(x)
        else:
            x = torch.relu(x + p * branch(x))
    return x


def depth_by_random_module(x, branches, last, training):
    count = len(branches)
    coins = random.Random(int(torch.randint(2**31, ())))
    for l in range(count):
        p = (count - l - 1) / count + (l + 1) / count * last
        if not training:
            x = (x + branches[l](x) * p).clamp(min=0)
        elif coins.random() < p:
            x = (x + branches[l](x)).clamp(min=0)
    return x


def evolve_with_memory(choices, score, cost, budget, rounds=20, children=20, keep=5):
    """Scores are remembered; a child changes two places now and then; Python's own dice."""
    score, dice = functools.cache(score), random.Random(int(torch.randint(2**31, ())))
    parents = {tuple(options[0] for options in choices)}
    for _ in range(rounds):
        family = set(parents)
        for _ in range(children):
            child = list(dice.choice(sorted(parents)))
            for _ in range(dice.choice((1, 1, 2))):
                place = dice.randrange(len(choices))
                child[place] = dice.choice(choices[place])
            if cost(child) <= budget:
                family.add(tuple(child))
        parents = set(sorted(family, key=score, reverse=True)[:keep])
    return max(parents, key=score)


def evolve_one_by_one(choices, score, cost, budget, rounds=20, children=20, keep=5):
    """No rounds: each child replaces the worst of the family at once."""
    start = tuple(options[0] for options in choices)
    family = {start: score(start)}
    for _ in range(rounds * children):
        parents = sorted(family, key=family.get, reverse=True)[:keep]
        child = list(parents[int(torch.randint(len(parents), ()))])
        place = int(torch.randint(len(choices), ()))
        child[place] = choices[place][int(torch.randint(len(choices[place]), ()))]
        child = tuple(child)
        if child not in family and cost(child) <= budget:
            family[child] = score(child)
            family = {c: family[c] for c in sorted(family, key=family.get, reverse=True)[:keep]}
    return max(family, key=family.get)


class StageOfBlocks(nn.Sequential):
    """Built from the block of exercise 3.7, in its other forms."""

    def __init__(self, in_channels, out_channels, blocks, stride=1, expansion=4):
        first = InvertedByHand(in_channels, out_channels, stride, expansion)
        super().__init__(first, *(InvertedByHand(out_channels, out_channels, 1, expansion) for _ in range(blocks - 1)))


class StageWithFlags(nn.Module):
    """The shortcut is decided once, in __init__."""

    def __init__(self, in_channels, out_channels, blocks, stride=1, expansion=4):
        super().__init__()
        self.branches, self.joined = nn.ModuleList(), []
        for number in range(blocks):
            inputs, step = (in_channels, stride) if number == 0 else (out_channels, 1)
            hidden = expansion * inputs
            self.branches.append(nn.Sequential(
                nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
                nn.Conv2d(hidden, hidden, 3, step, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
                nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)))
            self.joined.append(step == 1 and inputs == out_channels)

    def forward(self, x):
        for branch, joined in zip(self.branches, self.joined):
            x = branch(x) + x if joined else branch(x)
        return x
