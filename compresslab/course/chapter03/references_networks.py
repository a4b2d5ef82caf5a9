"""The reference answers to exercises 3.7 to 3.12: what the solution regions of the notebook hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1 without an activation; add the input where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, expansion: int = 6) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


def squeeze_excite(x: Tensor, down: nn.Linear, up: nn.Linear) -> Tensor:
    """x with every channel of every image multiplied by its gate."""
    squeezed = x.mean((2, 3))
    gate = F.relu6(up(F.relu(down(squeezed))) + 3) / 6
    return x * gate[:, :, None, None]


class GhostModule(nn.Module):
    """out_channels / ratio real maps by a convolution, then ratio - 1 ghosts of each by cheap depthwise 3x3 filters."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, ratio: int = 2) -> None:
        super().__init__()
        if out_channels % ratio:
            raise ValueError(f"ratio {ratio} does not divide {out_channels} channels")
        real = out_channels // ratio
        self.primary = nn.Conv2d(in_channels, real, kernel_size, padding=kernel_size // 2, bias=False)
        self.cheap = nn.Conv2d(real, (ratio - 1) * real, 3, padding=1, groups=real, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], dim=1)


def stochastic_depth(x: Tensor, branches: list, last: float, training: bool) -> Tensor:
    """A row of residual blocks; in training each branch is skipped by chance, at test all are used, scaled."""
    for number, branch in enumerate(branches, 1):
        p = 1 - number / len(branches) * (1 - last)
        if not training:
            x = F.relu(p * branch(x) + x)
        elif torch.rand(()) < p:
            x = F.relu(branch(x) + x)
    return x


def evolve(choices: list, score, cost, budget: float, rounds: int = 20, children: int = 20, keep: int = 5) -> tuple:
    """The best candidate found, a tuple with one of choices[i] at place i, whose cost is at most budget."""
    def pick(options):
        return options[int(torch.randint(len(options), ()))]

    parents = [tuple(options[0] for options in choices)]
    for _ in range(rounds):
        family = list(parents)
        for _ in range(children):
            child, place = list(pick(parents)), pick(range(len(choices)))
            child[place] = pick(choices[place])
            if cost(tuple(child)) <= budget and tuple(child) not in family:
                family.append(tuple(child))
        parents = sorted(family, key=score, reverse=True)[:keep]
    return parents[0]


class Stage(nn.Module):
    """`blocks` inverted residuals in a row: the first has the stride and changes the channels, the others keep the shape."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, stride: int = 1, expansion: int = 4) -> None:
        super().__init__()
        first = self.branch(in_channels, out_channels, stride, expansion)
        others = [self.branch(out_channels, out_channels, 1, expansion) for _ in range(blocks - 1)]
        self.branches = nn.ModuleList([first] + others)

    def branch(self, in_channels, out_channels, stride, expansion):
        hidden = expansion * in_channels
        return nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, x):
        for branch in self.branches:
            y = branch(x)
            if y.shape == x.shape:
                y = y + x
            x = y
        return x
