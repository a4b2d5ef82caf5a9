"""PACT: value by rounding by hand, gradients by definition, ReLUs found wherever they hide."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compresslab.core.modules import named_layers
from compresslab.core.train import train
from compresslab.core.uniform import dequantize, quantize
from compresslab.data import Split
from compresslab.models import MobileNetLike, ResNet, VGGLike, build_model
from compresslab.quantization.pact import PACT, SMALLEST_ALPHA, pact_quantize, replace_relu


def sample(n=2000):
    return 3 * torch.randn(n, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("alpha", [0.3, 2.0, 50.0])
def test_value(bits, alpha):
    x, n = sample().double(), 2**bits - 1
    clipped = (x.abs() - (x - alpha).abs() + alpha) / 2
    expected = torch.round(clipped * n / alpha) * alpha / n
    y = pact_quantize(x.float(), torch.tensor(alpha), bits).double()
    near_tie = ((clipped * n / alpha) % 1 - 0.5).abs() < 1e-2
    torch.testing.assert_close(y[~near_tie], expected[~near_tie], rtol=1e-5, atol=1e-6)
    assert len(y.unique()) <= 2**bits and y.min() == 0 and y.max() <= alpha * (1 + 1e-6)


@pytest.mark.parametrize("bits", [1, 4])
def test_gradients_are_those_of_the_clip(bits):
    x, upstream = sample(), sample().flip(0)
    x[:3] = torch.tensor([0.0, 1.5, -0.0])  # x = alpha counts as clipped
    x.requires_grad_()
    alpha = torch.tensor(1.5, requires_grad=True)
    pact_quantize(x, alpha, bits).backward(upstream)
    assert alpha.grad.item() == pytest.approx(upstream[x >= 1.5].sum().item(), rel=1e-4)
    assert torch.equal(x.grad, upstream * ((x >= 0) & (x < 1.5)))

    x2, alpha2 = x.detach()[3:].clone().requires_grad_(), alpha.detach().clone().requires_grad_()
    ((x2.abs() - (x2 - alpha2).abs() + alpha2) / 2).backward(upstream[3:])  # autograd on the paper's formula
    torch.testing.assert_close(x.grad[3:], x2.grad)
    torch.testing.assert_close(alpha.grad - upstream[1], alpha2.grad)


def test_grid_gives_the_integers_of_the_output():
    pact, x = PACT(bits=3, alpha=2.5), sample()
    assert torch.equal(pact(x), dequantize(quantize(x, pact.grid()), pact.grid()))
    assert (pact.grid().qmin, pact.grid().qmax) == (0, 7)


def test_alpha_below_zero_clips_everything_and_still_learns():
    pact = PACT(bits=4)
    with torch.no_grad():
        pact.alpha.fill_(-1.0)
    y = pact(sample())
    assert y.abs().max() <= SMALLEST_ALPHA * (1 + 1e-6)
    y.sum().backward()
    assert pact.alpha.grad == (sample() >= -1).sum()
    assert pact(torch.zeros(0, 3)).shape == (0, 3)


def test_alpha_moves_to_where_the_numbers_are():
    x = sample().clamp(-4, 4)
    for start in (0.5, 30.0):
        pact = PACT(bits=4, alpha=start)
        optimizer = torch.optim.SGD(pact.parameters(), 0.5, weight_decay=0.02)
        for _ in range(150):
            optimizer.zero_grad()
            (pact(x) - x.relu()).square().mean().backward()
            optimizer.step()
        assert 2 < pact.alpha.item() < 12


class Hidden(nn.Module):
    """ReLUs as a function, a method, a module used twice, and ReLU6."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.relu, self.six = nn.ReLU(inplace=True), nn.ReLU6()

    def forward(self, x):
        x = self.relu(self.first(x)) - 0.5
        x = self.relu(F.relu(x - 0.1) + torch.relu(x))
        x = F.relu(input=x + 0.1) + x.relu()
        return self.last(self.six(x))


class TestReplace:
    def test_finds_every_form(self):
        model, made = Hidden().eval(), []

        def make():
            made.append(PACT(bits=16, alpha=5.0))
            return made[-1]

        x = torch.rand(7, 4, generator=torch.Generator().manual_seed(0))
        before = copy.deepcopy(model.state_dict())
        quantized = replace_relu(model, make)
        assert len(made) == 7 and [f"activation{k}" for k in range(7)] == [
            name for name, module in quantized.named_modules() if isinstance(module, PACT)
        ]
        assert not any(isinstance(m, (nn.ReLU, nn.ReLU6)) for m in quantized.modules())
        assert not any(n.target in (F.relu, torch.relu, "relu") for n in quantized.graph.nodes)
        torch.testing.assert_close(quantized(x), model(x), atol=1e-3, rtol=0)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert {"first.weight", "last.bias"} <= set(quantized.state_dict())

    @pytest.mark.parametrize(
        "make, shape, relus",
        [
            (lambda: build_model("lenet300"), (1, 28, 28), 2),
            (lambda: build_model("lenet5"), (1, 28, 28), 3),
            (lambda: ResNet(8, width=4), (3, 32, 32), 7),
            (lambda: VGGLike(width=4), (3, 32, 32), 8),
            (lambda: MobileNetLike(width_mult=0.25), (3, 32, 32), None),
        ],
    )
    def test_the_courses_networks(self, make, shape, relus):
        torch.manual_seed(0)
        model = make().eval()
        x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
        quantized = replace_relu(model, partial(PACT, bits=16, alpha=20.0))
        count = sum(isinstance(m, PACT) for m in quantized.modules())
        assert count == relus or (relus is None and count > 5)
        assert list(named_layers(quantized)) == list(named_layers(model))
        assert not quantized.training and not any(m.training for m in quantized.modules())
        with torch.no_grad():
            torch.testing.assert_close(quantized(x), model(x), atol=0.05, rtol=0.01)
            twin = copy.deepcopy(quantized)
            assert torch.equal(twin(x), quantized(x))

    def test_trains(self):
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randint(0, 256, (64, 1, 4, 4), generator=generator).to(torch.uint8)
        data = Split(pictures, (pictures[:, 0, 1, 1] > 127).long(), mean=(0.5,), std=(0.3,))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 2))
        history = []
        trained = train(replace_relu(model, partial(PACT, bits=2, alpha=2.0)), data, epochs=20, batch_size=16,
                        progress=False, history=history)  # fmt: skip
        assert history[-1]["loss"] < 0.5 * history[0]["loss"] and trained.activation0.alpha.item() != 2.0

    def test_refusals(self):
        with pytest.raises(ValueError, match="has no ReLU"):
            replace_relu(nn.Sequential(nn.Linear(2, 2)))

        class Branches(nn.Module):
            def forward(self, x):
                return F.relu(x) if x.sum() > 0 else x

        with pytest.raises(ValueError, match="cannot be traced"):
            replace_relu(Branches())


def test_refusals():
    for bad in (0, 33):
        with pytest.raises(ValueError, match="bits must be"):
            PACT(bits=bad)
        with pytest.raises(ValueError, match="bits must be"):
            pact_quantize(torch.ones(1), torch.tensor(1.0), bad)
    with pytest.raises(TypeError, match="bits must be"):
        PACT(bits=2.5)
    for bad in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="alpha must be positive"):
            PACT(alpha=bad)
    with pytest.raises(ValueError, match="alpha must be a single number"):
        pact_quantize(torch.ones(2), torch.ones(2), 4)
