"""Ghost modules: the formula against counted weights, a module built by hand, the unchanged intrinsic maps."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.compact.ghost import GhostBottleneck, GhostModule, ghost_compression
from compresslab.core.macs import count_macs


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conv_weights(module):
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize(
    "c, n, k, s, d", [(3, 8, 3, 2, 3), (16, 32, 1, 4, 3), (12, 12, 5, 3, 1), (7, 10, 3, 5, 5), (4, 6, 1, 1, 3)]
)
def test_formula_where_the_ratio_divides(c, n, k, s, d):
    """r = n c k^2 / (n/s c k^2 + (s - 1) n/s d^2), by weights and by multiply-accumulates."""
    formula = n * c * k**2 / (n / s * c * k**2 + (s - 1) * n / s * d**2)
    module = GhostModule(c, n, k, s, d)
    dense = nn.Conv2d(c, n, k, padding=k // 2, bias=False)
    assert ghost_compression(c, n, k, s, d) == pytest.approx(formula, rel=1e-12)
    assert dense.weight.numel() / conv_weights(module) == pytest.approx(formula, rel=1e-12)
    macs = count_macs(dense, (c, 9, 7)).total / count_macs(module, (c, 9, 7)).total
    assert macs == pytest.approx(formula, rel=1e-12)


def test_approximations_of_the_formula():
    """For d = k the ratio is exactly s c / (s + c - 1), and tends to s with many input channels."""
    for c, s in ((8, 2), (64, 4), (3, 2)):
        assert ghost_compression(c, 4 * s, 3, s, 3) == pytest.approx(s * c / (s + c - 1), rel=1e-12)
    assert ghost_compression(10_000, 8, 3, 4, 3) == pytest.approx(4, rel=1e-3)
    assert ghost_compression(16, 16, 1, 2, 3) < 1.3  # d = 3 beside k = 1: far from 2


@pytest.mark.parametrize("n, s", [(7, 2), (10, 3), (5, 5), (11, 4)])
def test_the_formula_counts_the_module_that_is_built(n, s):
    dense = 6 * n * 9
    assert dense / conv_weights(GhostModule(6, n, 3, s)) == pytest.approx(ghost_compression(6, n, 3, s), rel=1e-12)


class TestModule:
    def test_by_hand(self):
        """A primary convolution that adds two maps, ghosts that shift and that double them."""
        module = GhostModule(2, 3, kernel_size=1, ratio=3, ghost_kernel=3, activation=None).eval()
        with torch.no_grad():
            module.primary.conv.weight.copy_(torch.ones(1, 2, 1, 1))
            module.cheap.conv.weight.zero_()
            module.cheap.conv.weight[0, 0, 1, 0] = 1  # looks one pixel to the left
            module.cheap.conv.weight[1, 0, 1, 1] = 2
            for bn in (module.primary.bn, module.cheap.bn):
                bn.running_var.fill_(1 - bn.eps)  # so that batch norm is the identity
        x = rand(2, 2, 4, 5)
        sums = x.sum(1)
        y = module(x)
        torch.testing.assert_close(y[:, 0], sums)
        torch.testing.assert_close(y[:, 1], F.pad(sums, (1, 0))[..., :-1])
        torch.testing.assert_close(y[:, 2], 2 * sums)

    @pytest.mark.parametrize("n, s", [(8, 2), (7, 2), (9, 3), (10, 4), (6, 1)])
    def test_identity_branch_passes_the_maps_unchanged(self, n, s):
        module = GhostModule(4, n, 3, s).train()
        x = rand(3, 4, 6, 6)
        y, intrinsic = module(x), copy.deepcopy(module).primary(x)
        m = -(-n // s)
        assert intrinsic.shape[1] == m and torch.equal(y[:, :m], intrinsic)

    def test_a_ghost_sees_one_intrinsic_map(self):
        """Ghost number j of m (s - 1) comes from map j // (s - 1), and from no other."""
        module = GhostModule(4, 9, ratio=3, activation=None).eval()
        maps = rand(1, 3, 5, 5).requires_grad_()
        for ghost in range(6):
            (gradient,) = torch.autograd.grad(module.cheap(maps)[0, ghost].sum(), maps)
            reached = gradient.abs().sum((0, 2, 3)) > 0
            assert reached.tolist() == [i == ghost // 2 for i in range(3)]

    def test_ratio_one_is_the_convolution(self):
        module = GhostModule(4, 6, 3, ratio=1).eval()
        x = rand(2, 4, 5, 5)
        assert module.cheap is None and torch.equal(module(x), module.primary(x))

    @pytest.mark.parametrize("stride, size", [(1, 7), (2, 7), (2, 8), (3, 10)])
    def test_shape(self, stride, size):
        y = GhostModule(4, 6, 3, stride=stride)(rand(2, 4, size, size + 1))
        assert y.shape == (2, 6, -(-size // stride), -(-(size + 1) // stride))


class TestBottleneck:
    @pytest.mark.parametrize("channels", [(8, 8), (8, 12), (5, 7)])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("squeeze_excite", [None, 0.25])
    def test_shapes_one_image_and_tracing(self, channels, stride, squeeze_excite):
        block = GhostBottleneck(*channels, stride, squeeze_excite=squeeze_excite).eval()
        for size in (1, 6, 7):
            x = rand(1, channels[0], size, size)
            y = block(x)
            assert y.shape == (1, channels[1], -(-size // stride), -(-size // stride))
            assert torch.equal(torch.fx.symbolic_trace(block)(x), y)
            assert torch.equal(copy.deepcopy(block)(x), y)
        assert block.residual == (stride == 1 and channels[0] == channels[1])

    def test_the_shortcut_is_the_input(self):
        block = GhostBottleneck(6, 6).eval()
        x = rand(2, 6, 5, 5)
        for layer in (block.narrow.primary.bn, block.narrow.cheap.bn):
            nn.init.zeros_(layer.weight)
        assert torch.equal(block(x), x)  # negative values too: no activation after the sum

    def test_expansion_and_squeeze(self):
        block = GhostBottleneck(8, 8, stride=2, expansion=2.5, squeeze_excite=0.25)
        assert block.widen.out_channels == 20 and block.depthwise.conv.weight.shape == (20, 1, 3, 3)
        assert block.squeeze.fc1.out_channels == 5

    def test_learns(self):
        block = GhostBottleneck(4, 4)
        block(rand(2, 4, 5, 5)).square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in block.parameters())


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: GhostModule(0, 4), "in_channels must be"),
        (lambda: GhostModule(4, 4, ratio=5), "ratio must be a whole number from 1 to 4, got 5"),
        (lambda: GhostModule(4, 4, ratio=0), "ratio must be"),
        (lambda: GhostModule(4, 4, kernel_size=2), "kernel_size must be odd"),
        (lambda: GhostModule(4, 4, ghost_kernel=4), "ghost_kernel must be odd"),
        (lambda: GhostModule(4, 4, stride=0), "stride must be"),
        (lambda: GhostBottleneck(4, 4, stride=3), "stride must be"),
        (lambda: GhostBottleneck(4, 4, expansion=0.5), "expansion must be from 1 to 64, got 0.5"),
        (lambda: GhostBottleneck(4, 4, expansion=float("nan")), "expansion must be"),
        (lambda: GhostBottleneck(4, 4, squeeze_excite=25), "squeeze_excite must be in"),
        (lambda: ghost_compression(4, 4, ratio=8), "ratio must be"),
    ],
)
def test_values_that_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_types_that_are_refused():
    with pytest.raises(TypeError, match="ratio must be a whole number"):
        GhostModule(4, 4, ratio=2.0)
    with pytest.raises(TypeError, match="expansion must be a number"):
        GhostBottleneck(4, 4, expansion="3")
