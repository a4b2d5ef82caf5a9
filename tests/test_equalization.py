"""Cross-layer equalization: equal ranges, and a function that does not change."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compresslab.models import load_baseline
from compresslab.quantization.equalization import equalizable_pairs, equalize, equalizing_scales


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uneven_(model: nn.Module) -> nn.Module:
    """Channels that differ in range by a thousand."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            factors = torch.logspace(-1.5, 1.5, len(layer.weight))
            layer.weight.data *= factors.view(-1, *[1] * (layer.weight.ndim - 1))
    return model


def columns(layer: nn.Module, channels: int) -> torch.Tensor:
    """Largest absolute weight per input channel."""
    groups = getattr(layer, "groups", 1)
    return layer.weight.reshape(groups, len(layer.weight) // groups, channels // groups, -1).abs().amax((1, 3)).flatten()


def assert_balanced(model: nn.Module, pairs: list[tuple[str, str]]) -> None:
    for first, second in pairs:
        one = model.get_submodule(first)
        r1, r2 = one.weight.abs().flatten(1).amax(1), columns(model.get_submodule(second), len(one.weight))
        torch.testing.assert_close(r1, r2, rtol=1e-3, atol=0)


CHAINS = {
    "linear": (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), (4, 5)),
    "depthwise": (
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1)),
        (2, 3, 6, 6),
    ),
    "groups": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.LeakyReLU(), nn.Conv2d(8, 6, 3, groups=2, bias=False)), (2, 3, 8, 8)),
    "flatten": (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(36, 5)),
        (2, 1, 8, 8),
    ),
    "pooled": (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
        (2, 1, 8, 8),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_same_function_and_equal_ranges(name):
    torch.manual_seed(0)
    model, shape = CHAINS[name]
    model = uneven_(copy.deepcopy(model)).double().eval()
    before = copy.deepcopy(model.state_dict())
    equal = equalize(model, iterations=200, tolerance=1e-6)
    x = randn(*shape).double()
    torch.testing.assert_close(equal(x), model(x), rtol=1e-9, atol=1e-9)
    pairs = equalizable_pairs(model)
    assert len(pairs) == sum(isinstance(m, (nn.Linear, nn.Conv2d)) for m in model) - 1
    assert_balanced(equal, pairs)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_per_tensor_rounding_gains():
    """One layer's channels are a thousand times apart, and the next layer's columns make up for it."""
    from compresslab.core.uniform import choose_scale, fake_quantize

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 6)), randn(32, 6)
    factors = torch.logspace(-1.5, 1.5, 16)
    model[0].weight.data *= factors.view(-1, 1)
    model[0].bias.data *= factors
    model[2].weight.data /= factors

    def error(net):
        rounded = copy.deepcopy(net)
        for layer in (rounded[0], rounded[2]):
            w = layer.weight.data
            layer.weight.data = fake_quantize(w, choose_scale(w.min(), w.max(), 8, symmetric=True))
        return (rounded(x) - model(x)).norm().item()

    assert error(equalize(model)) < 0.1 * error(model)


@pytest.mark.parametrize("name", ["lenet300", "lenet5", "vgg", "mobilenet", "resnet8"])
def test_networks_of_the_course(name):
    model = load_baseline(name)
    x = randn(2, *((1, 28, 28) if name.startswith("lenet") else (3, 32, 32)))
    with torch.no_grad():
        torch.testing.assert_close(equalize(model, iterations=5)(x), model(x), rtol=1e-4, atol=1e-3)


def test_which_pairs():
    assert equalizable_pairs(load_baseline("lenet5")) == [("conv1", "conv2"), ("conv2", "fc1"), ("fc1", "fc2")]

    class Net(nn.Module):
        def __init__(self, run):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.run = run

        def forward(self, x):
            return self.run(self, x)

    for run, pairs in [
        (lambda n, x: n.b(F.relu(n.a(x))), [("a", "b")]),
        (lambda n, x: n.b(n.a(x).relu()), [("a", "b")]),
        (lambda n, x: n.b(F.relu6(n.a(x))), []),
        (lambda n, x: n.b(torch.sigmoid(n.a(x))), []),
        (lambda n, x: n.a(F.relu(n.a(x))), []),
        (lambda n, x: (lambda y: n.b(y) + n.c(y))(F.relu(n.a(x))), []),
        (lambda n, x: n.c(n.a(x) + n.b(x)), []),
    ]:
        assert equalizable_pairs(Net(run)) == pairs
    on_width = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Linear(4, 2))  # the linear layer acts on the width
    assert equalizable_pairs(on_width) == []
    rows = nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(12, 2))  # features are the innermost of the columns
    assert equalizable_pairs(rows) == []
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    assert equalizable_pairs(tied) == []


def test_dead_channels_and_bad_arguments():
    first, second = randn(3, 2), randn(4, 3, seed=1)
    first[0], second[:, 1] = 0, 0
    scales = equalizing_scales(first, second)
    assert scales[:2].tolist() == [1, 1] and scales[2] > 0
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    model[0].weight.data, model[2].weight.data = first, second
    assert torch.isfinite(equalize(model)(randn(5, 2))).all()
    with pytest.raises(ValueError, match="has not the first's 5 channels"):
        equalizing_scales(torch.ones(5, 2), torch.ones(4, 3))
    with pytest.raises(ValueError, match="must not be negative"):
        equalize(model, iterations=-1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(bad):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    model[0].weight.data[0, 0] = bad
    with pytest.raises(ValueError, match="weights must be finite.*layers '0' and '2'"):
        equalize(model)
    with pytest.raises(ValueError, match="weights must be finite"):
        equalizing_scales(torch.ones(2, 2), torch.full((2, 2), bad))
