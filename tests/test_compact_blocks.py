"""ConvBN, fire, inverted residual, squeeze-and-excitation: torchvision's, by count, and every error."""

import copy
from functools import partial

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import compresslab  # noqa: F401  (before torchvision)

# isort: split
from torchvision.models import efficientnet, mobilenetv2, mobilenetv3, squeezenet
from torchvision.ops import Conv2dNormActivation, SqueezeExcitation

from compresslab.compact.blocks import ConvBN, check_groups, check_kernel, part_of
from compresslab.compact.fire import Fire, fire_parameters
from compresslab.compact.inverted import InvertedResidual
from compresslab.compact.separable import SeparableConv
from compresslab.compact.shuffle import ShuffleUnitV1, ShuffleUnitV2
from compresslab.compact.squeeze_excite import SqueezeExcite, hard_sigmoid, hard_swish
from compresslab.core.macs import count_macs

BLOCKS = {
    "conv": ConvBN,
    "conv5": partial(ConvBN, kernel_size=5, groups=2, activation=None),
    "fire": Fire.of,
    "fire_bn": partial(Fire.of, batch_norm=True),
    "separable": SeparableConv,
    "inverted": InvertedResidual,
    "inverted_se": partial(InvertedResidual, kernel_size=5, activation=nn.Hardswish, squeeze_excite=0.25),
    "shuffle_v1": partial(ShuffleUnitV1, groups=2),
    "shuffle_v2": ShuffleUnitV2,
}


def randomize_(model, seed=0):
    """Random weights and random batch-norm statistics: nothing may hide behind ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(0.1 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
                if tensor.dim() == 4:  # kernels have both signs
                    tensor.sub_(0.6)
    return model.eval()


def copy_by_position_(target, source):
    """The two state dictionaries have the same shapes in the same order."""
    ours, theirs = target.state_dict(), source.state_dict()
    assert [tuple(t.shape) for t in ours.values()] == [tuple(t.shape) for t in theirs.values()]
    for a, b in zip(ours.values(), theirs.values(), strict=True):
        a.copy_(b)


def assert_same_function(ours, theirs, channels, train=True):
    randomize_(theirs)
    copy_by_position_(ours, theirs)
    x = torch.randn(3, channels, 9, 10, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours.eval()(x), theirs(x), rtol=1e-5, atol=1e-5)
    if train:
        torch.testing.assert_close(ours.train()(x), theirs.train()(x), rtol=1e-5, atol=1e-5)
        for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # the statistics moved alike


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 4), (1, 1), (8, 8)])
def test_every_block_keeps_the_contract(name, stride, size):
    """Shapes are ceil(H / stride); torch.fx traces it; a copy is independent; one image is enough."""
    block = BLOCKS[name](8, 8 * stride, stride=stride)
    x = torch.randn(1, 8, *size, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    out = block.eval()(x)
    assert out.shape == (1, 8 * stride, -(-size[0] // stride), -(-size[1] // stride))
    assert torch.equal(x, before)
    assert torch.equal(fx.symbolic_trace(block)(x), out)
    twin = copy.deepcopy(block)
    assert torch.equal(twin(x), out)
    for p in twin.parameters():
        p.data.zero_()
    assert torch.equal(block(x), out)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_of_a_block_is_trained(name):
    block = BLOCKS[name](8, 16, stride=2)
    x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    out = block(x)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in block.parameters())


class TestConvBN:
    @pytest.mark.parametrize(
        "k, stride, groups, activation", [(3, 1, 1, nn.ReLU), (5, 2, 4, nn.SiLU), (1, 1, 2, None)]
    )
    def test_against_torchvision(self, k, stride, groups, activation):
        options = dict(groups=groups, activation_layer=activation, inplace=None)
        theirs = Conv2dNormActivation(8, 12, k, stride, **options)
        assert_same_function(ConvBN(8, 12, k, stride, groups, activation), theirs, 8)

    def test_norm_is_exchangeable(self):
        block = ConvBN(4, 6, norm=partial(nn.BatchNorm2d, eps=0.5, momentum=0.01))
        assert (block.bn.num_features, block.bn.eps, block.bn.momentum) == (6, 0.5, 0.01)
        plain = ConvBN(4, 6, activation=None, norm=nn.Identity)
        x = torch.randn(2, 4, 5, 5)
        assert torch.equal(plain(x), plain.conv(x)) and plain.conv.bias is None

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (dict(in_channels=0), "in_channels must be a whole number of at least 1, got 0"),
            (dict(out_channels=-2), "out_channels must be a whole number of at least 1, got -2"),
            (dict(kernel_size=4), "kernel_size must be odd, got 4"),
            (dict(kernel_size=0), "kernel_size must be a whole number of at least 1"),
            (dict(stride=0), "stride must be a whole number of at least 1, got 0"),
            (dict(groups=0), "groups must be a whole number of at least 1"),
            (dict(groups=3), "groups must divide in_channels, got groups=3 and in_channels=8; .* 1, 2, 4, 8"),
            (dict(groups=8), "groups must divide out_channels, got groups=8 and out_channels=12"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ConvBN(**{"in_channels": 8, "out_channels": 12, **arguments})

    def test_type_errors(self):
        wrong = (dict(stride=1.0), dict(groups=2.0), dict(kernel_size=(3, 3)), dict(in_channels=True))
        for arguments in wrong:
            with pytest.raises(TypeError, match=f"{next(iter(arguments))} must be a whole number"):
                ConvBN(**{"in_channels": 8, "out_channels": 12, **arguments})
        with pytest.raises(ValueError, match="expand must be odd"):
            check_kernel(2, "expand")
        assert check_groups(6, a=12, b=18) == 6
        assert part_of(5, 1, "x") == 5
        nan = float("nan")
        for fraction, error in ((0, ValueError), (25, ValueError), ("a", TypeError), (nan, ValueError)):
            with pytest.raises(error, match="share must be"):
                part_of(5, fraction, "share")


class TestFire:
    @pytest.mark.parametrize("widths", [(96, 16, 64, 64), (5, 1, 1, 1), (7, 3, 2, 9)])
    def test_parameters_by_the_formula(self, widths):
        """P = C s + s e1 + 9 s e3 + biases, and the function is torchvision's."""
        c, s, e1, e3 = widths
        fire = Fire(*widths)
        assert sum(p.numel() for p in fire.parameters()) == fire_parameters(*widths)
        assert fire_parameters(*widths) == c * s + s * e1 + 9 * s * e3 + s + e1 + e3
        assert_same_function(fire, squeezenet.Fire(*widths), c)

    def test_everything_passes_through_the_squeeze(self):
        """The Jacobian of a pixel has at most rank s, whatever the other widths are."""
        fire = Fire(12, 3, 10, 10).double()
        x = torch.randn(1, 12, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        jacobian = torch.autograd.functional.jacobian(fire, x).reshape(20, 12)
        assert torch.linalg.matrix_rank(jacobian) <= 3

    @pytest.mark.parametrize(
        "ratio, share, widths", [(0.125, 0.5, (16, 64, 64)), (0.5, 0.25, (64, 96, 32)), (1, 1, (128, 1, 127))]
    )
    def test_by_ratios(self, ratio, share, widths):
        fire = Fire.of(96, 128, squeeze_ratio=ratio, share3x3=share)
        found = fire.squeeze.out_channels, fire.expand1x1.out_channels, fire.expand3x3.out_channels
        assert found == widths

    def test_batch_norm_takes_the_place_of_the_biases(self):
        plain, normed = Fire(8, 2, 3, 4), Fire(8, 2, 3, 4, batch_norm=True)
        assert all(m.bias is None for m in normed.modules() if isinstance(m, nn.Conv2d))
        count = [sum(p.numel() for p in m.parameters()) for m in (plain, normed)]
        assert count[1] - count[0] == 2 + 3 + 4  # gamma and beta instead of one bias

    @pytest.mark.parametrize(
        "call, message",
        [
            (lambda: Fire(0, 1, 1, 1), "in_channels must be"),
            (lambda: Fire(1, 0, 1, 1), "squeeze must be"),
            (lambda: Fire(1, 1, 0, 1), "expand1x1 must be"),
            (lambda: Fire(1, 1, 1, 0), "expand3x3 must be"),
            (lambda: fire_parameters(1, 1, 1, 0), "expand3x3 must be"),
            (lambda: Fire(1, 1, 1, 1, stride=3), "stride must be a whole number from 1 to 2, got 3"),
            (lambda: Fire.of(4, 1), "out_channels must be a whole number of at least 2"),
            (lambda: Fire.of(4, 8, squeeze_ratio=0), r"squeeze_ratio must be in \(0, 1\], got 0"),
            (lambda: Fire.of(4, 8, squeeze_ratio=12.5), "squeeze_ratio must be in .* did you mean 0.125"),
            (lambda: Fire.of(4, 8, share3x3=-0.5), "share3x3 must be in"),
        ],
    )
    def test_errors(self, call, message):
        with pytest.raises(ValueError, match=message):
            call()


class TestSqueezeExcite:
    @pytest.mark.parametrize("activation, gate", [(nn.ReLU, nn.Hardsigmoid), (nn.SiLU, nn.Sigmoid)])
    def test_against_torchvision(self, activation, gate):
        theirs = SqueezeExcitation(8, 3, activation=activation, scale_activation=gate)
        assert_same_function(SqueezeExcite(8, 3, activation, gate), theirs, 8)

    def test_the_factors_by_the_equation(self):
        block = randomize_(SqueezeExcite(4, 2, gate=nn.Sigmoid).double())
        x = torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        w1, b1, w2, b2 = (p.detach() for p in block.parameters())
        z = x.mean((2, 3))
        s = torch.sigmoid(torch.relu(z @ w1[:, :, 0, 0].T + b1) @ w2[:, :, 0, 0].T + b2)  # (3, 4)
        torch.testing.assert_close(block.factors(x)[:, :, 0, 0], s)
        torch.testing.assert_close(block(x), s[:, :, None, None] * x)

    def test_hard_functions_are_torchs(self):
        x = torch.linspace(-8, 8, 3201, dtype=torch.float64)
        torch.testing.assert_close(hard_swish(x), F.hardswish(x), rtol=0, atol=1e-15)
        torch.testing.assert_close(hard_sigmoid(x), F.hardsigmoid(x), rtol=0, atol=1e-15)
        assert (hard_sigmoid(x) - torch.sigmoid(x)).abs().max() < 0.07
        assert hard_swish(x).min().item() == pytest.approx(-0.375)
        assert x[hard_swish(x).argmin()].item() == pytest.approx(-1.5)

    def test_errors(self):
        with pytest.raises(ValueError, match="channels must be a whole number of at least 1, got 0"):
            SqueezeExcite(0, 1)
        with pytest.raises(TypeError, match="squeeze_channels must be a whole number .* got 0.25"):
            SqueezeExcite(8, 0.25)


class TestInvertedResidual:
    @pytest.mark.parametrize(
        "i, o, stride, expansion", [(8, 8, 1, 6), (8, 8, 2, 6), (8, 12, 1, 4), (8, 8, 1, 1)]
    )
    def test_against_mobilenet_v2(self, i, o, stride, expansion):
        theirs = mobilenetv2.InvertedResidual(i, o, stride, expansion)
        ours = InvertedResidual(i, o, stride, expansion)
        assert ours.residual == theirs.use_res_connect
        assert_same_function(ours, theirs, i)

    @pytest.mark.parametrize(
        "hard, squeezed, stride, hidden", [(False, True, 1, 24), (True, True, 2, 40), (True, False, 1, 8)]
    )
    def test_against_mobilenet_v3(self, hard, squeezed, stride, hidden):
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
        name = "HS" if hard else "RE"
        config = mobilenetv3.InvertedResidualConfig(8, 5, hidden, 8, squeezed, name, stride, 1, 1.0)
        theirs = mobilenetv3.InvertedResidual(config, norm)
        squeeze = SqueezeExcite(hidden, theirs.block[-2].fc1.out_channels) if squeezed else None
        activation = nn.Hardswish if hard else nn.ReLU
        ours = InvertedResidual(8, 8, stride, 0, 5, activation, squeeze, hidden_channels=hidden, norm=norm)
        assert_same_function(ours, theirs, 8)

    @pytest.mark.parametrize("expansion, stride", [(1, 1), (6, 1), (6, 2)])
    def test_against_efficientnet(self, expansion, stride):
        config = efficientnet.MBConvConfig(expansion, 3, stride, 8, 8, 1)
        theirs = efficientnet.MBConv(config, 0.0, nn.BatchNorm2d)
        squeeze = SqueezeExcite(8 * expansion, 2, nn.SiLU, nn.Sigmoid)
        ours = InvertedResidual(8, 8, stride, expansion, activation=nn.SiLU, squeeze_excite=squeeze)
        assert_same_function(ours, theirs, 8)

    def test_cost_by_the_formula(self):
        m, n, t, k, pixels = 8, 12, 3, 5, 6 * 7
        block = InvertedResidual(m, n, expansion=t, kernel_size=k)
        assert count_macs(block, (m, 6, 7)).total == pixels * (t * m * m + t * m * k * k + t * m * n)

    @pytest.mark.parametrize("i, o, stride, added", [(8, 8, 1, True), (8, 8, 2, False), (8, 10, 1, False)])
    def test_the_input_is_added_where_shapes_agree(self, i, o, stride, added):
        block = InvertedResidual(i, o, stride).eval()
        x = torch.randn(2, i, 6, 6)
        torch.testing.assert_close(block(x), block.branch(x) + x if added else block.branch(x))
        assert block.residual is added

    def test_the_bottleneck_is_linear(self):
        """Scaling the last batch norm scales the branch: no activation stands behind it."""
        block = InvertedResidual(4, 6).eval()
        x = torch.randn(2, 4, 5, 5)
        out = block(x)
        assert (out < 0).any()
        block.branch.project.bn.weight.data.mul_(-2)
        torch.testing.assert_close(block(x), -2 * out)

    def test_squeeze_excite_by_fraction(self):
        block = InvertedResidual(8, 8, expansion=2.5, squeeze_excite=0.25)
        assert block.branch.expand.conv.out_channels == 20
        assert block.branch.squeeze_excite.fc1.out_channels == 5
        assert list(block.branch._modules) == ["expand", "depthwise", "squeeze_excite", "project"]

    @pytest.mark.parametrize(
        "arguments, error, message",
        [
            (dict(in_channels=0), ValueError, "in_channels must be"),
            (dict(out_channels=0), ValueError, "out_channels must be"),
            (dict(stride=3), ValueError, "stride must be a whole number from 1 to 2, got 3"),
            (dict(stride=0), ValueError, "stride must be"),
            (dict(expansion=0.5), ValueError, "expansion must be from 1 to 64, got 0.5"),
            (dict(expansion=float("nan")), ValueError, "expansion must be from 1 to 64"),
            (dict(expansion=float("inf")), ValueError, "expansion must be from 1 to 64"),
            (dict(expansion="6"), TypeError, "expansion must be a number of at least 1, got '6'"),
            (dict(hidden_channels=0), ValueError, "hidden_channels must be"),
            (dict(kernel_size=2), ValueError, "kernel_size must be odd"),
            (dict(squeeze_excite=0.0), ValueError, r"squeeze_excite must be in \(0, 1\]"),
            (dict(squeeze_excite=4), ValueError, "squeeze_excite must be in"),
        ],
    )
    def test_errors(self, arguments, error, message):
        with pytest.raises(error, match=message):
            InvertedResidual(**{"in_channels": 8, "out_channels": 8, **arguments})

