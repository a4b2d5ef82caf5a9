"""Slimmable layers: the plain network of each width has the same outputs, the first channels, its own batch norm."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.compact.slimmable import (
    SlimmableConv2d,
    SlimmableLinear,
    SlimmableNet,
    SwitchableBatchNorm,
    channels_at,
    freeze_width,
    set_width_,
    slim,
    slimmable_loss,
)
from compresslab.core.macs import count_macs
from compresslab.core.train import train
from compresslab.data import Split


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def network(**arguments):
    """With statistics that differ from width to width, as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SlimmableNet(**({"channels": (8, 12, 16), "widths": (0.25, 0.5, 1.0)} | arguments))
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for tensor in (layer.weight, layer.running_var):
                    nn.init.uniform_(tensor, 0.5, 2)
                for tensor in (layer.bias, layer.running_mean):
                    nn.init.normal_(tensor, 0, 0.3)
    return model.eval()


class TestLayers:
    @pytest.mark.parametrize("stride", [1, 2])
    def test_convolution_uses_the_first_channels(self, stride):
        conv = SlimmableConv2d(6, 8, stride=stride)
        conv.resize_(4, 5)
        x = rand(2, 4, 7, 7)
        assert torch.equal(conv(x), F.conv2d(x, conv.conv.weight[:5, :4], None, stride, 1))
        assert torch.equal(conv.plain()(x), conv(x))

    def test_depthwise(self):
        conv = SlimmableConv2d(6, 6, 5, depthwise=True)
        conv.resize_(4, 4)
        x = rand(2, 4, 7, 7)
        assert torch.equal(conv(x), F.conv2d(x, conv.conv.weight[:4], None, 1, 2, 1, 4))
        assert torch.equal(conv.plain()(x), conv(x)) and conv.plain().groups == 4

    def test_linear(self):
        layer = SlimmableLinear(6, 3)
        layer.resize_(4)
        x = rand(5, 4)
        assert torch.equal(layer(x), F.linear(x, layer.linear.weight[:, :4], layer.linear.bias))
        assert torch.equal(layer.plain()(x), layer(x))

    def test_full_width_is_the_ordinary_layer(self):
        conv, x = SlimmableConv2d(3, 4), rand(1, 3, 5, 5)
        assert torch.equal(conv(x), conv.conv(x))

    def test_each_width_has_its_own_batch_norm(self):
        norm = SwitchableBatchNorm([2, 4])
        x = rand(3, 4, 2, 2)
        norm.resize_(2)
        norm(x[:, :2])
        assert norm.norms["2"].running_mean.any() and not norm.norms["4"].running_mean.any()

    def test_gradient_reaches_only_what_is_used(self):
        conv = SlimmableConv2d(4, 6)
        conv.resize_(2, 3)
        conv(rand(1, 2, 4, 4)).sum().backward()
        gradient = conv.conv.weight.grad
        assert gradient[:3, :2].all() and not gradient[3:].any() and not gradient[:, 2:].any()

    def test_plain_layers_share_nothing(self):
        conv = SlimmableConv2d(3, 4)
        plain = conv.plain()
        nn.init.zeros_(plain.weight)
        assert conv.conv.weight.any()


class TestNetwork:
    @pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
    def test_slim_has_the_same_outputs(self, width):
        model, x = network(), rand(3, 3, 17, 16)
        set_width_(model, 1.0)
        plain = slim(model, width)
        assert all(layer.active != 3 for layer in model.modules() if isinstance(layer, SlimmableLinear))
        before = model(x)
        set_width_(model, width)
        assert torch.equal(plain(x), model(x))
        if width < 1:
            assert not torch.equal(plain(x), before)

    @pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
    def test_slim_is_plain_and_as_small_as_it_should_be(self, width):
        model = network()
        plain = slim(model, width)
        c0, c1, c2 = (channels_at(channels, width) for channels in (8, 12, 16))
        norms = 2 * (c0 + c0 + c1 + c1 + c2)
        assert count(plain) == 27 * c0 + 9 * c0 + c0 * c1 + 9 * c1 + c1 * c2 + norms + 10 * c2 + 10
        kinds = {type(layer) for layer in plain.modules() if not list(layer.children())}
        assert kinds == {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear}
        set_width_(model, width)
        assert count_macs(model, (3, 16, 16)).total == count_macs(plain, (3, 16, 16)).total

    def test_statistics_of_one_width_do_not_fit_another(self):
        """Why the batch norm is switched: narrow inputs are other sums than wide ones."""
        model, x = network(), rand(8, 3, 16, 16)
        model.train()
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
                layer.reset_running_stats()
        for width in (0.5, 1.0):
            set_width_(model, width)
            model(x)
        norm = model.features[7]  # after the first 1x1 convolution
        wide, narrow = norm.norms["12"], norm.norms["6"]
        assert (wide.running_var[:6] - narrow.running_var).abs().max() > 0.05

    def test_loss_is_the_mean_over_widths(self):
        model, x, y = network(), rand(4, 3, 16, 16), torch.tensor([1, 2, 3, 4])
        losses = [F.cross_entropy(slim(model, width)(x), y) for width in model.widths]
        torch.testing.assert_close(slimmable_loss(model.widths)(model, x, y), sum(losses) / 3)

    def test_trains_all_widths(self):
        images = torch.zeros(96, 3, 16, 16, dtype=torch.uint8)
        labels = torch.arange(96) % 3
        for label in range(3):
            images[labels == label, label] = 180
        data = Split(images, labels, (0.1,) * 3, (0.3,) * 3)
        model = SlimmableNet((8, 16), (0.5, 1.0), num_classes=3)
        trained = train(model, data, epochs=12, batch_size=16, loss=slimmable_loss(model.widths), progress=False)
        for width in model.widths:
            assert (slim(trained, width)(data.x()).argmax(1) == labels).double().mean() > 0.95

    def test_tracing_and_copies(self):
        model, x = network(), rand(1, 3, 8, 8)
        set_width_(model, 0.5)
        assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))
        assert torch.equal(copy.deepcopy(model)(x), model(x))
        assert freeze_width(model).classifier.in_features == 8


def test_a_refused_width_changes_nothing():
    model = network()
    set_width_(model, 0.5)
    before = model(rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="there is no batch norm for 6 channels, only for 2, 4, 8"):
        set_width_(model, 0.75)
    assert torch.equal(model(rand(1, 3, 8, 8)), before)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: channels_at(8, 0), ValueError, "width must be in"),
        (lambda: channels_at(8, 50), ValueError, "did you mean 0.5"),
        (lambda: channels_at(0, 0.5), ValueError, "channels must be"),
        (lambda: SlimmableConv2d(4, 6, depthwise=True), ValueError, "keeps the channels, got 4 in and 6 out"),
        (lambda: SlimmableConv2d(4, 6, kernel_size=2), ValueError, "kernel_size must be odd"),
        (lambda: SlimmableConv2d(4, 6, stride=0), ValueError, "stride must be"),
        (lambda: SlimmableConv2d(4, 6).resize_(5, 6), ValueError, "in_channels must be a whole number from 1 to 4"),
        (lambda: SlimmableConv2d(4, 4, depthwise=True).resize_(2, 3), ValueError, "keeps the channels"),
        (lambda: SlimmableLinear(4, 6).resize_(5), ValueError, "in_features must be"),
        (lambda: SlimmableLinear(4, 0), ValueError, "out_features must be"),
        (lambda: SwitchableBatchNorm([]), ValueError, "at least one number of channels"),
        (lambda: SwitchableBatchNorm([2.0]), TypeError, "channels must be"),
        (lambda: set_width_(nn.ReLU(), 0.5), ValueError, "ReLU has no slimmable layer"),
        (lambda: set_width_(network(), "half"), TypeError, "width must be"),
        (lambda: slim(network(), 0), ValueError, "width must be in"),
        (lambda: SlimmableNet(widths=(0.5,)), ValueError, "1 among the widths"),
        (lambda: SlimmableNet(channels=()), ValueError, "there must be channels"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
