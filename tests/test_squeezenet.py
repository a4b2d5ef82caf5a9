"""SqueezeNet 1.0: torchvision's parameters and outputs, the metaparameters, and every error."""

import pytest
import torch

import compresslab  # noqa: F401  (before torchvision)

# isort: split
from torchvision.models import squeezenet1_0

from compresslab.compact.fire import Fire, fire_parameters
from compresslab.compact.squeezenet import SqueezeNet, fire_widths
from compresslab.core.macs import count_macs


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("size, classes", [(65, 1000), (84, 10)])
def test_outputs_equal_torchvisions_with_its_weights(size, classes):
    theirs, ours = squeezenet1_0(weights=None, num_classes=classes).eval(), SqueezeNet(classes).eval()
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert a.shape == b.shape
        a.copy_(b)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = theirs(x)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    assert expected.std() > 1e-4


def test_parameters_exactly_and_by_the_closed_form():
    with torch.device("meta"):
        model = SqueezeNet()
    fires = [m for m in model.modules() if isinstance(m, Fire)]
    widths = fire_widths()
    inputs = [96] + [w[1] + w[2] for w in widths[:-1]]
    by_formula = [fire_parameters(c, *w) for c, w in zip(inputs, widths, strict=True)]
    assert [count(fire) for fire in fires] == by_formula
    stem, classifier = 96 * 3 * 49 + 96, 512 * 1000 + 1000
    assert count(model) == stem + sum(by_formula) + classifier == 1_248_424


def test_fewer_parameters_than_alexnet_but_more_operations():
    """0.819 G multiply-accumulates at 224 x 224; AlexNet has 0.714 G."""
    assert round(count_macs(SqueezeNet(), (3, 224, 224)).total / 1e9, 3) == 0.819


def test_the_table_of_the_paper_follows_from_five_numbers():
    assert fire_widths() == [
        (16, 64, 64), (16, 64, 64), (32, 128, 128), (32, 128, 128),
        (48, 192, 192), (48, 192, 192), (64, 256, 256), (64, 256, 256),
    ]  # fmt: skip
    assert fire_widths(base=8, increment=0, frequency=1, squeeze_ratio=0.5, share3x3=1) == [(4, 1, 7)] * 8
    assert [w[1] + w[2] for w in fire_widths(10, 4, 3)] == [10, 10, 10, 14, 14, 14, 18, 18]


def test_other_widths_classes_and_channels():
    model = SqueezeNet(7, in_channels=1, base=16, increment=8, squeeze_ratio=0.25).eval()
    assert model(torch.zeros(1, 1, 21, 23)).shape == (1, 7)
    first, last = model.fires.fire0, model.fires.fire7
    assert (first.squeeze.out_channels, last.expand1x1.out_channels + last.expand3x3.out_channels) == (4, 40)


def test_it_starts_with_signals_of_ordinary_size():
    """Without batch norm the start decides: the eighth module's outputs are neither dead nor exploded."""
    torch.manual_seed(0)
    model = SqueezeNet(10).eval()
    x = torch.randn(2, 3, 64, 64)
    inside = model.fires(model.pool(torch.relu(model.stem(x))))
    assert 0.05 < inside.std() < 20 and (inside > 0).float().mean() > 0.1
    assert not any(layer.bias.any() for layer in model.modules() if isinstance(layer, torch.nn.Conv2d))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(num_classes=0), ValueError, "num_classes must be"),
        (dict(in_channels=0), ValueError, "in_channels must be"),
        (dict(dropout=50), ValueError, r"dropout must be in \[0, 1\], got 50; did you mean 0.5"),
        (dict(base=1), ValueError, "base must be a whole number of at least 2"),
        (dict(increment=-1), ValueError, "increment must be"),
        (dict(frequency=0), ValueError, "frequency must be"),
        (dict(squeeze_ratio=0), ValueError, r"squeeze_ratio must be in \(0, 1\]"),
        (dict(share3x3=1.5), ValueError, "share3x3 must be in"),
        (dict(base=64.0), TypeError, "base must be a whole number"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        SqueezeNet(**arguments)
