"""ShuffleNet V2: torchvision's parameters and outputs in the paper's sizes, and every error."""

import pytest
import torch
from torch import fx

import compresslab  # noqa: F401  (before torchvision)

# isort: split
from torchvision import models

from compresslab.compact.shufflenet import WIDTHS, ShuffleNetV2
from compresslab.core.macs import count_macs

PARAMETERS = {0.5: 1_366_792, 1.0: 2_278_604, 1.5: 3_503_624, 2.0: 7_393_996}


def of_torchvision(width, **arguments):
    return getattr(models, f"shufflenet_v2_x{width:.1f}".replace(".", "_"))(weights=None, **arguments)


@pytest.mark.parametrize("width", WIDTHS)
def test_parameters_exactly(width):
    with torch.device("meta"):
        ours, theirs = ShuffleNetV2(width), of_torchvision(width)
    assert sum(p.numel() for p in ours.parameters()) == PARAMETERS[width]
    shapes = [[tuple(t.shape) for t in model.state_dict().values()] for model in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("width, classes, size", [(1.0, 1000, 64), (0.5, 10, 75)])
def test_outputs_equal_torchvisions_with_its_weights(width, classes, size):
    """In training, where each takes and updates its own batch statistics, then in eval mode with these."""
    theirs, ours = of_torchvision(width, num_classes=classes), ShuffleNetV2(width, classes)
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        a.copy_(b)
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for mode in (True, False):
            expected = theirs.train(mode)(x)
            torch.testing.assert_close(ours.train(mode)(x), expected, rtol=1e-5, atol=1e-5)
            assert expected.std() > 1e-3


def test_operations():
    """0.145 G multiply-accumulates at 224 x 224, as published."""
    assert round(count_macs(ShuffleNetV2(), (3, 224, 224)).total / 1e9, 3) == 0.145


def test_small_images_other_channels_and_tracing():
    model = ShuffleNetV2(0.5, num_classes=7, in_channels=1).eval()
    x = torch.randn(1, 1, 5, 9, generator=torch.Generator().manual_seed(0))
    assert model(x).shape == (1, 7)
    assert torch.equal(fx.symbolic_trace(model)(x), model(x))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(width_mult=0.75), ValueError, "width_mult must be one of the paper's 0.5, 1, 1.5, 2, got 0.75"),
        (dict(width_mult=True), ValueError, "width_mult must be"),
        (dict(width_mult="1"), ValueError, "width_mult must be"),
        (dict(num_classes=0), ValueError, "num_classes must be"),
        (dict(in_channels=1.0), TypeError, "in_channels must be"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        ShuffleNetV2(**arguments)
