"""Channel shuffle and its units: a permutation, who sees whom, torch and torchvision, memory access."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import compresslab  # noqa: F401  (before torchvision)

# isort: split
from torchvision.models import shufflenetv2

from compresslab.compact.blocks import ConvBN
from compresslab.compact.shuffle import (
    ChannelShuffle,
    ShuffleUnitV1,
    ShuffleUnitV2,
    channel_shuffle,
    channel_unshuffle,
    least_memory_access,
    memory_access,
)
from compresslab.core.macs import count_macs


def numbered(channels, *shape):
    return torch.arange(channels).reshape(1, channels, *[1] * len(shape)).expand(2, channels, *shape)


def reaches(function, channels):
    """(out, in): whether an output channel depends on an input channel, by the gradient at a random point."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, 4, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    out = function(x)
    rows = [torch.autograd.grad(out[:, c].sum(), x, retain_graph=True)[0] for c in range(out.shape[1])]
    return torch.stack([row.abs().sum((0, 2, 3)) for row in rows]) > 0


class TestShuffle:
    @pytest.mark.parametrize("groups, n", [(1, 5), (5, 1), (2, 3), (3, 4), (4, 4)])
    def test_a_permutation_with_its_inverse(self, groups, n):
        """Channel i n + j moves to j g + i; a shuffle with C / g groups undoes it, another one if g != n."""
        channels = groups * n
        x = numbered(channels, 2, 3)
        shuffled = channel_shuffle(x, groups)
        order = shuffled[0, :, 0, 0].tolist()
        assert sorted(order) == list(range(channels))
        for i, j in itertools.product(range(groups), range(n)):
            assert order[j * groups + i] == i * n + j
        assert torch.equal(channel_unshuffle(shuffled, groups), x)
        assert torch.equal(channel_shuffle(shuffled, n), x)
        assert torch.equal(channel_unshuffle(x, groups), channel_shuffle(x, n))
        assert torch.equal(channel_shuffle(shuffled, groups), x) == (groups == n or 1 in (groups, n))

    @pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
    def test_against_torch_and_torchvision(self, groups):
        x = torch.randn(3, 12, 4, 5, generator=torch.Generator().manual_seed(0))
        before = x.clone()
        found = channel_shuffle(x, groups)
        assert torch.equal(found, F.channel_shuffle(x, groups))
        assert torch.equal(found, shufflenetv2.channel_shuffle(x, groups))
        assert torch.equal(ChannelShuffle(groups)(x), found) and torch.equal(x, before)

    def test_other_shapes_and_gradients(self):
        assert channel_shuffle(numbered(6), 3)[0].tolist() == [0, 2, 4, 1, 3, 5]
        x = torch.randn(1, 6, 2, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: channel_shuffle(x, 2), x)

    def test_groups_see_each_other_only_after_a_shuffle(self):
        """Two 1x1 convolutions of 3 groups: blocks on the diagonal without, everything with the shuffle."""
        torch_layers = [nn.Conv2d(9, 9, 1, groups=3).double() for _ in range(2)]
        alone = reaches(nn.Sequential(*torch_layers), 9)
        mixed = reaches(nn.Sequential(torch_layers[0], ChannelShuffle(3), torch_layers[1]), 9)
        assert torch.equal(alone, torch.block_diag(*[torch.ones(3, 3)] * 3).bool())
        assert mixed.all()

    @pytest.mark.parametrize(
        "function", [channel_shuffle, channel_unshuffle, lambda x, g: ChannelShuffle(g)(x)]
    )
    def test_errors(self, function):
        with pytest.raises(ValueError, match="got groups=4 and channels=6; 6 is divisible by 1, 2, 3, 6"):
            function(torch.zeros(1, 6, 2, 2), 4)
        with pytest.raises(ValueError, match="groups must be a whole number of at least 1, got 0"):
            function(torch.zeros(1, 6, 2, 2), 0)
        with pytest.raises(TypeError, match="groups must be a whole number of at least 1, got 2.0"):
            function(torch.zeros(1, 6, 2, 2), 2.0)


class TestUnitV1:
    @pytest.mark.parametrize("stride, out", [(1, 12), (2, 30)])
    def test_by_torchs_functions(self, stride, out):
        unit = ShuffleUnitV1(12, out, stride, groups=3, bottleneck=6).double()
        x = torch.randn(3, 12, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

        def norm(y):
            return F.batch_norm(y, None, None, training=True)

        y = F.relu(norm(F.conv2d(x, unit.reduce.conv.weight, groups=3)))
        y = F.channel_shuffle(y, 3)
        y = norm(F.conv2d(y, unit.depthwise.conv.weight, stride=stride, padding=1, groups=6))
        y = norm(F.conv2d(y, unit.expand.conv.weight, groups=3))
        expected = x + y if stride == 1 else torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1)
        torch.testing.assert_close(unit(x), F.relu(expected))

    def test_the_shuffle_connects_the_unit(self):
        """All inputs of the branch reach every output; without the shuffle only those of its group."""
        unit = ShuffleUnitV1(8, 8, groups=2, bottleneck=8).double().eval()
        unit.reduce.activation = nn.Identity()  # nobody is silent by chance
        branch = nn.Sequential(unit.reduce, unit.shuffle, unit.depthwise, unit.expand)
        assert reaches(branch, 8).all()
        unit.shuffle.groups = 1
        assert torch.equal(reaches(branch, 8), torch.block_diag(torch.ones(4, 4), torch.ones(4, 4)).bool())

    def test_bottleneck_and_first_groups(self):
        unit = ShuffleUnitV1(24, 240, 2, groups=3, first_groups=1)  # the first unit of the paper's network
        first, last = unit.reduce.conv, unit.expand.conv
        assert (first.groups, first.out_channels, last.groups, last.out_channels) == (1, 60, 3, 216)
        assert ShuffleUnitV1(10, 10, groups=5).reduce.conv.out_channels == 5  # 10 / 4, but divisible by 5

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (dict(in_channels=0), "in_channels must be"),
            (dict(out_channels=0), "out_channels must be"),
            (dict(stride=3), "stride must be a whole number from 1 to 2, got 3"),
            (dict(out_channels=24), "out_channels must equal in_channels=12, got 24"),
            (dict(stride=2), "out_channels must be above in_channels=12, got 12"),
            (dict(groups=5), "groups must divide made_channels, got groups=5 and made_channels=12"),
            (dict(in_channels=10, out_channels=22, stride=2, groups=4), "groups=4 and in_channels=10"),
            (dict(groups=0), "groups must be"),
            (dict(groups=3, bottleneck=4), "groups must divide bottleneck, got groups=3 and bottleneck=4"),
            (dict(bottleneck=0), "bottleneck must be"),
            (dict(first_groups=5), "groups must divide in_channels, got groups=5"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ShuffleUnitV1(**{"in_channels": 12, "out_channels": 12, **arguments})


class TestUnitV2:
    @pytest.mark.parametrize("i, o, stride", [(8, 8, 1), (6, 10, 2), (8, 8, 2)])
    def test_against_torchvision(self, i, o, stride):
        theirs, ours = shufflenetv2.InvertedResidual(i, o, stride), ShuffleUnitV2(i, o, stride)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            a.copy_(b)
        x = torch.randn(3, i, 9, 8, generator=torch.Generator().manual_seed(0))
        for mode in (True, False):  # training first: then the statistics are no longer zeros and ones
            torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), rtol=1e-5, atol=1e-5)

    def test_half_of_the_channels_pass_unchanged(self):
        unit = ShuffleUnitV2(8, 8).eval()
        x = torch.randn(2, 8, 5, 5)
        assert torch.equal(unit(x)[:, ::2], x[:, :4])

    def test_after_enough_units_everything_is_mixed_but_the_first_channel(self):
        """The shuffle leaves position 0 in place, in the half that passes: no unit of stride 1 touches it."""
        units = [ShuffleUnitV2(8, 8, stride) for stride in (1, 1, 1, 1, 1, 2)]
        units = nn.Sequential(*units).double().eval()
        for module in units.modules():
            if isinstance(module, ConvBN):
                module.activation = nn.Identity()  # nobody is silent by chance
        alone = torch.block_diag(torch.ones(1, 1), torch.ones(7, 7)).bool()
        assert torch.equal(reaches(units[:-1], 8), alone)
        assert not reaches(units[:2], 8)[1:, 1:].all()
        assert reaches(units, 8).all()  # a unit of stride 2 takes all channels in both branches

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (dict(in_channels=0), "in_channels must be"),
            (dict(out_channels=1), "out_channels must be a whole number of at least 2"),
            (dict(out_channels=9, stride=2), "out_channels must be even, two equal halves, got 9"),
            (dict(out_channels=10), "out_channels must equal in_channels=8, got 10"),
            (dict(stride=0), "stride must be a whole number from 1 to 2, got 0"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ShuffleUnitV2(**{"in_channels": 8, "out_channels": 8, **arguments})


class TestMemoryAccess:
    @pytest.mark.parametrize("groups", [1, 2, 4])
    def test_g1_by_enumeration(self, groups):
        """Of all pairs with the same product none moves less than the bound; equal channels reach it."""
        h, w, product = 5, 3, 2**12
        costs = {}
        for c1 in (2**e for e in range(2, 11)):
            c2 = product // c1
            macs = count_macs(nn.Conv2d(c1, c2, 1, groups=groups), (c1, h, w)).total
            costs[c1, c2] = memory_access(h, w, c1, c2, groups)
            assert costs[c1, c2] >= least_memory_access(h, w, macs, groups) * (1 - 1e-12)
            assert macs == h * w * product // groups  # the same for all
        assert min(costs, key=costs.get) == (64, 64)
        assert costs[64, 64] == pytest.approx(least_memory_access(h, w, macs, groups), rel=1e-12)

    def test_it_counts_input_output_and_weights(self):
        conv, x = nn.Conv2d(12, 18, 1, groups=3, bias=False), torch.zeros(1, 12, 5, 7)
        assert memory_access(5, 7, 12, 18, 3) == x.numel() + conv(x).numel() + conv.weight.numel()

    def test_g2_more_groups_move_more_at_equal_macs(self):
        """With c2 = g * 8 every choice computes the same; the paper's second guideline."""
        costs = [memory_access(7, 7, 64, 8 * g, g) for g in (1, 2, 4, 8)]
        assert costs == sorted(costs) and len(set(costs)) == 4

    @pytest.mark.parametrize(
        "call, error, message",
        [
            (lambda: memory_access(0, 1, 1, 1), ValueError, "height must be"),
            (lambda: memory_access(1, 0, 1, 1), ValueError, "width must be"),
            (lambda: memory_access(1, 1, 0, 1), ValueError, "in_channels must be"),
            (lambda: memory_access(1, 1, 1, 0), ValueError, "out_channels must be"),
            (lambda: memory_access(1, 1, 4, 6, 4), ValueError, "groups must divide out_channels"),
            (lambda: least_memory_access(0, 1, 1), ValueError, "height must be"),
            (lambda: least_memory_access(1, 1, 0), ValueError, "macs must be"),
            (lambda: least_memory_access(1, 1, 1, 0), ValueError, "groups must be"),
            (lambda: least_memory_access(1, 1, 1.5), TypeError, "macs must be"),
        ],
    )
    def test_errors(self, call, error, message):
        with pytest.raises(error, match=message):
            call()
