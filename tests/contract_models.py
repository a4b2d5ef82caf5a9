"""Small networks with one awkward thing each, by name, so that a fresh process can build the same skeleton."""

import torch
from torch import Tensor, nn


class Tied(nn.Module):
    """An embedding whose table is also the output layer's weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6, padding_idx=0)
        self.hidden = nn.Linear(6, 6)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(self.embedding(tokens))))


class Shared(nn.Module):
    """One block that is applied twice, and is also reached by a second name."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
        self.again = self.block
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.again(self.block(x)))


class Attention(nn.Module):
    """Self-attention with a residual connection and layer norm."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x + self.attention(x, x, x, need_weights=False)[0]))


class Recurrent(nn.Module):
    """Two layers of LSTM, the last step classified."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 7, num_layers=2, batch_first=True)
        self.out = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def convolutional() -> nn.Module:
    """Plain, grouped, depthwise and 1x1 convolutions with batch norm, some without bias."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=8), nn.ReLU(),
        nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Flatten(), nn.Linear(54, 5),
    )  # fmt: skip


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(13, 7), nn.ReLU(), nn.Linear(7, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)),
            lambda: torch.randn(4, 13)),
    "convolutional": (convolutional, lambda: torch.randn(2, 3, 8, 8)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(35, 2)),
               lambda: torch.randn(2, 3, 9)),
    "tied": (Tied, lambda: torch.randint(0, 11, (2, 4))),
    "shared": (Shared, lambda: torch.randn(4, 5)),
    "attention": (Attention, lambda: torch.randn(2, 4, 8)),
    "recurrent": (Recurrent, lambda: torch.randn(2, 4, 5)),
}  # fmt: skip


def build(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """The network, in eval mode, with random batch-norm statistics, and an input for it; the same for the same seed."""
    make_model, make_input = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.running_var, module.weight.data):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.running_mean, module.bias.data):
                    tensor.normal_(0, 0.1)
        return model.eval(), make_input()
