"""EfficientNet-B0 and its multipliers against torchvision, and the stochastic depth inside."""

import copy
import math

import pytest
import torch
from torch import nn

import compresslab  # noqa: F401  (before torchvision)

import torchvision

from compresslab.compact.depth import StochasticDepth, survival_probabilities
from compresslab.compact.efficientnet import EfficientNetB0
from compresslab.core.macs import count_macs


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def awaken(model, size):
    """Random weights and batch statistics with which outputs are far from 0 and differ from image to image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                layer.momentum = 1.0
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 3 / math.sqrt(layer.in_features))
        with torch.no_grad():
            model.train()(torch.randn(4, 3, size, size))
    return model.eval()


def test_b0_equals_torchvision():
    theirs = awaken(torchvision.models.efficientnet_b0(), 64)
    ours = EfficientNetB0()
    assert count(ours) == 5_288_548
    mine, yours = ours.state_dict(), theirs.state_dict()
    assert [value.shape for value in mine.values()] == [value.shape for value in yours.values()]
    ours.load_state_dict(dict(zip(mine, yours.values(), strict=True)))
    x = torch.randn(2, 3, 64, 65, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y, reference = ours.eval()(x), theirs(x)
    assert reference.std() > 0.1 and (reference[0] - reference[1]).abs().max() > 0.1
    assert (y - reference).abs().max() <= 1e-5


@pytest.mark.parametrize("name, width, depth", [("b1", 1.0, 1.1), ("b2", 1.1, 1.2)])
def test_the_larger_siblings(name, width, depth):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"efficientnet_{name}")()
        assert count(EfficientNetB0(width_mult=width, depth_mult=depth)) == count(theirs)


def test_macs_at_224_and_what_resolution_costs():
    """Twice the side, four times the cost, but for the layers that see averages over the image."""
    with torch.device("meta"):  # shapes are enough
        model = EfficientNetB0()
    base, large = (count_macs(model, (3, side, side)).total for side in (224, 448))
    assert round(base / 1e6) == 386 and large / base == pytest.approx(4, rel=0.02)


def test_survival_falls_along_the_blocks():
    with torch.device("meta"):
        model = EfficientNetB0(10, survival=0.8)
    line = survival_probabilities(16, 0.8)
    seen = {}
    for position, block in enumerate(model.features[1:-1]):
        depth = [layer for layer in block.modules() if isinstance(layer, StochasticDepth)]
        assert len(depth) == block.residual
        if block.residual:
            assert depth[0].inverted and depth[0].mode == "row"
            seen[position] = depth[0].survival
    assert len(seen) == 9 and all(seen[position] == line[position] for position in seen)


def test_any_size_one_image_tracing_and_copying():
    model = awaken(EfficientNetB0(5, 0.25), 32)
    for size in (32, 47, 1):
        x = torch.randn(1, 3, size, size)
        y = model(x)
        assert y.shape == (1, 5) and y.isfinite().all()
    assert torch.equal(torch.fx.symbolic_trace(model)(x), y) and torch.equal(copy.deepcopy(model)(x), y)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"width_mult": 0}, "width_mult must be in"),
        ({"depth_mult": -1}, "depth_mult must be in"),
        ({"survival": 80}, "did you mean 0.8"),
        ({"survival": -0.1}, "must be in"),
        ({"dropout": 1.5}, "dropout must be in"),
        ({"num_classes": 0}, "num_classes must be"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetB0(**arguments)
