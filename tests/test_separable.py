"""Separable convolutions: the dense one that they equal, the nearest one, what they cost, every error."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.compact.blocks import ConvBN
from compresslab.compact.separable import (
    SeparableConv,
    join_separable,
    separable_cost_ratio,
    separate_conv,
    separation_error,
)
from compresslab.core.macs import count_macs


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(i, o, k=3, rank=None, seed=0, **options):
    """A dense convolution, its K[:, m] of the given rank."""
    conv = nn.Conv2d(i, o, k, **options).double()
    kernel = randn(*conv.weight.shape, seed=seed)
    if rank is not None:
        p, d = randn(i, o, rank, seed=seed), randn(i, rank, kernel[0, 0].numel(), seed=seed + 1)
        kernel = torch.einsum("mnr,mrk->nmk", p, d).reshape(kernel.shape)
    conv.weight.data.copy_(kernel)
    return conv


class TestEqualsADenseConvolution:
    def test_kernel_is_p_times_d(self):
        """K[n, m] = p[n, m] d[m], by the definition, and the outputs agree, borders included."""
        block = SeparableConv(3, 5, stride=2, activation=None, batch_norm=False).double()
        joined = join_separable(block.depthwise.conv, block.pointwise.conv)
        p, d = block.pointwise.conv.weight[:, :, 0, 0], block.depthwise.conv.weight[:, 0]
        for n in range(5):
            for m in range(3):
                torch.testing.assert_close(joined.weight[n, m], p[n, m] * d[m])
        x = randn(2, 3, 9, 8)
        torch.testing.assert_close(joined(x), block(x))

    def test_the_rank_is_one_per_input_channel_and_not_per_output_channel(self):
        block = SeparableConv(4, 6, activation=None, batch_norm=False).double()
        kernel = join_separable(block.depthwise.conv, block.pointwise.conv).weight.flatten(2)  # (N, M, k^2)
        assert [torch.linalg.matrix_rank(kernel[:, m]).item() for m in range(4)] == [1] * 4
        assert torch.linalg.matrix_rank(kernel[0]) == 4

    @pytest.mark.parametrize("between", ["activation", "batch_norm"])
    def test_not_with_something_in_between(self, between):
        """A ReLU in between makes it no convolution at all; a batch norm in train mode looks at the batch."""
        activation = nn.ReLU if between == "activation" else None
        block = SeparableConv(3, 5, activation=activation, batch_norm=between == "batch_norm").double()
        joined = join_separable(block.depthwise.conv, block.pointwise.conv)
        x = randn(2, 3, 6, 6)
        assert not torch.allclose(block(x), joined(x), atol=1e-3)

    @pytest.mark.parametrize("first, second", [(True, True), (True, False), (False, True)])
    def test_biases_and_window(self, first, second):
        window = dict(kernel_size=(3, 2), stride=(2, 1), padding=(1, 3), dilation=(1, 2))
        depthwise = nn.Conv2d(4, 8, **window, groups=4, bias=first).double()
        pointwise = nn.Conv2d(8, 5, 1, bias=second).double()
        x = randn(2, 4, 9, 8)
        joined = join_separable(depthwise, pointwise)
        torch.testing.assert_close(joined(x), pointwise(depthwise(x)))
        assert joined.groups == 1

    @pytest.mark.parametrize(
        "depthwise, pointwise, error, message",
        [
            (nn.Conv2d(4, 4, 3), nn.Conv2d(4, 5, 1), ValueError, "a group per input channel, 4, got 1"),
            (nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 5, 3), ValueError, "pointwise must be 1x1"),
            (nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1, stride=2), ValueError, "pointwise must be 1x1"),
            (nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1, padding=1), ValueError, "must be 1x1"),
            (nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1, groups=2), ValueError, "pointwise must be 1x1"),
            (nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(8, 5, 1), ValueError, "the 4 channels .* in_channels=8"),
            (nn.Linear(4, 4), nn.Conv2d(4, 5, 1), TypeError, "expected an nn.Conv2d, got Linear"),
            (nn.Conv2d(4, 4, 3, groups=4), nn.Linear(4, 4), TypeError, "expected an nn.Conv2d, got Linear"),
        ],
    )
    def test_errors(self, depthwise, pointwise, error, message):
        with pytest.raises(error, match=message):
            join_separable(depthwise, pointwise)


class TestSeparateConv:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            dict(stride=2, padding=1, bias=False),
            dict(padding="same", dilation=2),
            dict(padding=1, padding_mode="circular"),
        ],
    )
    def test_exact_for_rank_one(self, options):
        conv = dense(4, 6, rank=1, **options)
        x = randn(2, 4, 9, 8, seed=5)
        pair = separate_conv(conv)
        torch.testing.assert_close(pair(x), conv(x))
        assert separation_error(conv) < 1e-12
        assert (pair.depthwise.groups, pair.pointwise.kernel_size) == (4, (1, 1))

    @pytest.mark.parametrize("k, o", [((1, 5), 6), ((3, 2), 2), (3, 20)])
    def test_exact_with_all_ranks(self, k, o):
        conv = dense(3, o, k)
        full = min(o, conv.weight[0, 0].numel())
        x = randn(2, 3, 7, 7)
        torch.testing.assert_close(separate_conv(conv, full)(x), conv(x))
        assert separation_error(conv, full) == 0

    @pytest.mark.parametrize("rank", [1, 2, 3])
    def test_error_is_the_distance_and_falls_with_the_rank(self, rank):
        conv = dense(3, 6)
        nearest = join_separable(*separate_conv(conv, rank))
        distance = (nearest.weight - conv.weight).norm() / conv.weight.norm()
        assert separation_error(conv, rank) == pytest.approx(distance.item(), rel=1e-12)
        assert separation_error(conv, rank + 1) < separation_error(conv, rank) < 1

    def test_no_separable_kernel_is_nearer(self):
        """Descend from the answer and from elsewhere: nothing lower is found."""
        conv = dense(2, 4)
        target = conv.weight.detach()
        least = separation_error(conv) * target.norm()
        for start in range(3):
            p, d = randn(4, 2, seed=10 + start), randn(2, 3, 3, seed=20 + start)
            for _ in range(200):  # alternating least squares
                p = torch.einsum("nmhw,mhw->nm", target, d) / d.square().sum((1, 2))
                d = torch.einsum("nmhw,nm->mhw", target, p) / p.square().sum(0)[:, None, None]
            assert (torch.einsum("nm,mhw->nmhw", p, d) - target).norm() >= least * (1 - 1e-12)
        pair = separate_conv(conv)
        pair.requires_grad_(True)
        (join_like(pair) - target).square().sum().backward()
        assert all(p.grad is None or p.grad.abs().max() < 1e-10 for p in pair.parameters())

    def test_conv_is_not_modified_and_nothing_is_shared(self):
        conv = dense(4, 6).float()
        before, state = copy.deepcopy(conv.state_dict()), torch.get_rng_state()
        pair = separate_conv(conv)
        join_separable(*pair)
        assert torch.equal(torch.get_rng_state(), state)  # nor is the random state
        assert all(p.dtype == torch.float32 for p in pair.parameters())
        for p in pair.parameters():
            p.data.zero_()
        assert all(torch.equal(before[name], value) for name, value in conv.state_dict().items())

    def test_a_kernel_of_zeros(self):
        conv = dense(2, 3, bias=False)
        conv.weight.data.zero_()
        assert separation_error(conv) == 0 and not separate_conv(conv)(randn(1, 2, 4, 4)).any()

    def test_errors(self):
        conv = nn.Conv2d(4, 6, 3)
        for call in (separate_conv, separation_error):
            with pytest.raises(ValueError, match="conv must be dense, groups=1, got groups=2"):
                call(nn.Conv2d(4, 6, 3, groups=2))
            with pytest.raises(TypeError, match="expected an nn.Conv2d, got ConvBN"):
                call(ConvBN(4, 6))
            with pytest.raises(ValueError, match="rank must be a whole number from 1 to 6, got 7"):
                call(conv, 7)
            with pytest.raises(ValueError, match="rank must be a whole number from 1 to 6, got 0"):
                call(conv, 0)
            with pytest.raises(TypeError, match="rank must be a whole number"):
                call(conv, 1.0)


def join_like(pair):
    """The kernel of a separable pair, by the definition and with gradients."""
    return torch.einsum("nm,mhw->nmhw", pair.pointwise.weight[:, :, 0, 0], pair.depthwise.weight[:, 0])


class TestCost:
    @pytest.mark.parametrize("m, n, k", [(8, 16, 3), (5, 7, 5), (16, 4, 1)])
    def test_by_the_counter(self, m, n, k):
        """Multiply-accumulates and weights, at any stride."""
        for stride in (1, 2):
            separable = SeparableConv(m, n, k, stride, batch_norm=False)
            plain = ConvBN(m, n, k, stride, norm=nn.Identity)
            macs = [count_macs(block, (m, 12, 10)).total for block in (separable, plain)]
            weights = [sum(p.numel() for p in block.parameters()) for block in (separable, plain)]
            assert macs[0] / macs[1] == pytest.approx(separable_cost_ratio(n, k), rel=1e-12)
            assert weights[0] / weights[1] == pytest.approx(separable_cost_ratio(n, k), rel=1e-12)

    def test_errors(self):
        with pytest.raises(ValueError, match="out_channels must be"):
            separable_cost_ratio(0, 3)
        with pytest.raises(TypeError, match="kernel_size must be"):
            separable_cost_ratio(4, 1.5)


class TestSeparableConv:
    def test_by_torchs_functions(self):
        block = SeparableConv(4, 6, 5, 2).double()
        x = randn(3, 4, 9, 8)
        depthwise, pointwise = block.depthwise.conv.weight, block.pointwise.conv.weight
        y = F.conv2d(x, depthwise, stride=2, padding=2, groups=4)
        y = F.relu(F.batch_norm(y, None, None, training=True))
        y = F.relu(F.batch_norm(F.conv2d(y, pointwise), None, None, training=True))
        torch.testing.assert_close(block(x), y)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (dict(in_channels=0), "in_channels must be a whole number of at least 1"),
            (dict(out_channels=0), "out_channels must be"),
            (dict(kernel_size=2), "kernel_size must be odd"),
            (dict(stride=0), "stride must be"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            SeparableConv(**{"in_channels": 4, "out_channels": 4, **arguments})
