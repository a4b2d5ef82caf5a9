"""MobileNet V1, V2 and V3-Large: counts, multiply-accumulates, and torchvision's outputs after copying its weights."""

import copy
import math

import pytest
import torch
from torch import nn

import compresslab  # noqa: F401  (before torchvision)

import torchvision

from compresslab.compact.mobilenet import MobileNetV1, MobileNetV2, mobilenet_v1_parameters
from compresslab.compact.mobilenet_v3 import MobileNetV3Large
from compresslab.core.macs import count_macs

COUNTS = {MobileNetV1: 4_231_976, MobileNetV2: 3_504_872, MobileNetV3Large: 5_483_032}
THEIRS = {MobileNetV2: "mobilenet_v2", MobileNetV3Large: "mobilenet_v3_large"}


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def awaken(model, size):
    """Random weights and batch statistics with which outputs are far from 0 and differ from image to image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.2)
                layer.momentum, layer.before = 1.0, layer.momentum
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 3 / math.sqrt(layer.in_features))
        with torch.no_grad():
            model.train()(torch.randn(4, 3, size, size))
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = layer.before
    return model.eval()


def copy_by_position(ours, theirs):
    mine, yours = ours.state_dict(), theirs.state_dict()
    assert [value.shape for value in mine.values()] == [value.shape for value in yours.values()]
    ours.load_state_dict(dict(zip(mine, yours.values(), strict=True)))
    return ours.eval()


@pytest.mark.parametrize("network", COUNTS)
def test_published_counts(network):
    with torch.device("meta"):
        assert count(network()) == COUNTS[network]


@pytest.mark.parametrize("network", THEIRS)
@pytest.mark.parametrize("width_mult", [1.0, 0.35])
def test_outputs_equal_torchvision(network, width_mult):
    theirs = awaken(getattr(torchvision.models, THEIRS[network])(width_mult=width_mult), 64)
    ours = copy_by_position(network(width_mult=width_mult), theirs)
    x = torch.randn(2, 3, 64, 65, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y, reference = ours(x), theirs(x)
    assert reference.std() > 0.1 and (reference[0] - reference[1]).abs().max() > 0.1
    assert (y - reference).abs().max() <= 1e-5


@pytest.mark.parametrize("network", THEIRS)
def test_one_training_step_equals_torchvision(network):
    """Gradients and the new running statistics, too: the same momentum, the same epsilon."""
    theirs = awaken(getattr(torchvision.models, THEIRS[network])(num_classes=3, width_mult=0.25, dropout=0.0), 32)
    ours = copy_by_position(network(num_classes=3, width_mult=0.25, dropout=0.0), theirs)
    x = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for model in (ours, theirs):
        model.train()(x).square().sum().backward()
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, yours.grad, rtol=1e-3, atol=1e-3)
    for mine, yours in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", THEIRS)
@pytest.mark.parametrize("width_mult", [0.1, 1.4])
def test_widths_equal_torchvision(network, width_mult):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, THEIRS[network])(width_mult=width_mult, num_classes=7)
        assert count(network(7, width_mult)) == count(theirs)


@pytest.mark.parametrize("num_classes, width_mult", [(1000, 1.0), (10, 0.75), (3, 0.1), (1, 1.3)])
def test_v1_formula(num_classes, width_mult):
    with torch.device("meta"):
        assert count(MobileNetV1(num_classes, width_mult)) == mobilenet_v1_parameters(num_classes, width_mult)


def test_v1_other_tools_count_the_running_statistics_too():
    with torch.device("meta"):
        model = MobileNetV1()
    running = sum(b.numel() for name, b in model.named_buffers() if "running" in name)
    assert count(model) + running == 4_253_864


@pytest.mark.parametrize(
    "network, millions", [(MobileNetV1, 569), (MobileNetV2, 301), (MobileNetV3Large, 217)]
)
def test_macs_at_224(network, millions):
    with torch.device("meta"):  # shapes are enough
        assert round(count_macs(network(), (3, 224, 224)).total / 1e6) == millions


@pytest.mark.parametrize("network", COUNTS)
def test_any_size_one_image_tracing_and_copying(network):
    model = awaken(network(num_classes=5, width_mult=0.25), 32)
    for height, width in ((32, 32), (33, 47), (1, 1)):
        x = torch.randn(1, 3, height, width)
        y = model(x)
        assert y.shape == (1, 5) and y.isfinite().all()
    assert torch.equal(torch.fx.symbolic_trace(model)(x), y) and torch.equal(copy.deepcopy(model)(x), y)


@pytest.mark.parametrize("network", COUNTS)
def test_refusals(network):
    for bad in (0, -1.0, math.nan, 17):
        with pytest.raises(ValueError, match="width_mult must be in"):
            network(width_mult=bad)
    with pytest.raises(TypeError, match="width_mult must be a number"):
        network(width_mult="1.0")
    with pytest.raises(ValueError, match="num_classes must be"):
        network(num_classes=0)
    if network is not MobileNetV1:
        with pytest.raises(ValueError, match="dropout must be"):
            network(dropout=20)
