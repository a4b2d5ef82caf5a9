"""Small networks that the tests of files save and load."""

import torch
from torch import nn

images = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
tokens = torch.tensor([[1, 0, 5], [2, 2, 6]])


class Net(nn.Module):
    """Convolutions (one depthwise), batch norm, a layer used twice."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.conv = nn.Conv2d(2, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.depth = nn.Conv2d(width, width, 3, groups=width, padding=1)
        self.twice = self.again = nn.Linear(width, width)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = torch.relu(self.depth(torch.relu(self.norm(self.conv(x))))).mean((2, 3))
        return self.head(self.again(self.twice(x)))


class Tied(nn.Module):
    """Attention and a recurrent layer between an embedding and an output layer with one weight."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 8, padding_idx=0), nn.Linear(8, 7)
        self.head.weight = self.embed.weight
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm = nn.LSTM(8, 8, batch_first=True, bias=False)
        self.position = nn.Parameter(torch.zeros(3, 8))

    def forward(self, x):
        h = self.embed(x) + self.position
        return self.head(self.lstm(h + self.attention(h, h, h)[0])[0])


def build(make, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def pruned(model: nn.Module, density: float = 0.2) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= torch.rand(parameter.shape, generator=generator) < density
    return model
