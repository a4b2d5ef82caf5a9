"""The network of the section on order: three branches that get wide and small again, written side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Branches(nn.Module):
    """A detector for 64 x 64 pixels: its branches look at 24, 20 and 16 channels, and each hands on a few.

    The code runs every operation of all branches before the next one, as one would write it down.
    """

    INPUT = (3, 64, 64)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide1 = nn.Conv2d(8, 24, 1)
        self.wide2 = nn.Conv2d(8, 20, 3, padding=1)
        self.wide3 = nn.Conv2d(8, 16, 5, padding=2)
        self.narrow1 = nn.Conv2d(24, 8, 3, stride=2, padding=1)
        self.narrow2 = nn.Conv2d(20, 8, 3, stride=2, padding=1)
        self.narrow3 = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.head = nn.Conv2d(32, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        a, b, c = F.relu(self.wide1(x)), F.relu(self.wide2(x)), F.relu(self.wide3(x))
        a, b, c = F.relu(self.narrow1(a)), F.relu(self.narrow2(b)), F.relu(self.narrow3(c))
        return self.head(torch.cat([a, b, c], dim=1)).mean(dim=(2, 3))
