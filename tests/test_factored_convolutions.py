"""Convolutions factored in three schemes: the kernel rebuilt, the window shared out, the cost, errors."""

import copy

import pytest
import tensorly
import torch
from torch import nn

from compresslab.core.macs import count_macs
from compresslab.lowrank.block_term import block_term_conv
from compresslab.lowrank.convolution import (
    SCHEMES,
    count_pixels,
    factor_conv,
    factored_macs,
    factored_parameters,
    full_rank,
    kernel_from_matrix,
    kernel_matrix,
)
from compresslab.lowrank.cp import cp_conv
from compresslab.lowrank.svd import truncation_error
from compresslab.lowrank.tucker import tucker_conv

PAIRS = ("channel", "input", "spatial")
WINDOWS = [
    {},
    dict(stride=2, padding=1, bias=False),
    dict(stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    dict(padding="same", dilation=(2, 1)),
    dict(padding="valid"),
    dict(padding=(2, 1), padding_mode="reflect", stride=(1, 3)),
    dict(padding=(1, 2), padding_mode="circular"),
    dict(padding="same", padding_mode="replicate"),
]


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def conv2d(i=4, o=6, k=(3, 2), **options):
    conv = nn.Conv2d(i, o, k, **options).double()
    conv.weight.data.copy_(randn(*conv.weight.shape))
    return conv


class TestKernelMatrix:
    def test_entries(self):
        weight = randn(3, 4, 2, 5)
        matrices = {scheme: kernel_matrix(weight, scheme) for scheme in SCHEMES}
        for n, c, i, j in [(0, 0, 0, 0), (2, 1, 1, 3), (1, 3, 0, 4)]:
            value = weight[n, c, i, j]
            assert matrices["channel"][n, c * 10 + i * 5 + j] == value
            assert matrices["input"][c, n * 10 + i * 5 + j] == value
            assert matrices["spatial"][c * 2 + i, n * 5 + j] == value
            assert matrices["pixel"][i * 5 + j, n * 4 + c] == value

    def test_two_of_them_are_unfoldings_of_tensorly(self):
        weight = randn(3, 4, 2, 5)
        for mode, scheme in enumerate(("channel", "input")):
            expected = tensorly.unfold(weight.numpy(), mode)
            torch.testing.assert_close(kernel_matrix(weight, scheme), torch.from_numpy(expected.copy()))

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_and_back(self, scheme):
        weight = randn(3, 4, 2, 5)
        matrix = kernel_matrix(weight, scheme)
        assert torch.equal(kernel_from_matrix(matrix, weight.shape, scheme), weight)
        assert full_rank(nn.Conv2d(4, 3, (2, 5)), scheme) == min(matrix.shape)
        assert torch.linalg.matrix_rank(matrix) == min(matrix.shape)

    def test_errors(self):
        with pytest.raises(ValueError, match="one of channel, input, spatial, pixel, got 'rows'"):
            kernel_matrix(randn(3, 4, 2, 5), "rows")
        with pytest.raises(ValueError, match=r"kernel \(N, C, kh, kw\), got shape \(3, 4\)"):
            kernel_matrix(randn(3, 4))
        with pytest.raises(ValueError, match=r"'spatial' matrix .* has shape \(8, 15\), got \(15, 8\)"):
            kernel_from_matrix(randn(15, 8), (3, 4, 2, 5), "spatial")


class TestFactorConv:
    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch's own
    @pytest.mark.parametrize("scheme", PAIRS)
    @pytest.mark.parametrize("window", WINDOWS)
    def test_equals_the_convolution_with_the_rebuilt_kernel(self, scheme, window):
        conv, x = conv2d(**window), randn(2, 4, 9, 8, seed=1)
        for rank in (2, full_rank(conv, scheme)):
            u, s, vh = torch.linalg.svd(kernel_matrix(conv.weight.detach(), scheme), full_matrices=False)
            rebuilt = copy.deepcopy(conv)
            nearest = (u[:, :rank] * s[:rank]) @ vh[:rank]
            rebuilt.weight.data.copy_(kernel_from_matrix(nearest, conv.weight.shape, scheme))
            torch.testing.assert_close(factor_conv(conv, rank, scheme)(x), rebuilt(x))
        torch.testing.assert_close(rebuilt(x), conv(x))  # full rank is exact

    @pytest.mark.parametrize("scheme", PAIRS)
    def test_loses_exactly_the_tail(self, scheme):
        conv = conv2d(bias=False, padding=(2, 1))
        sigma = torch.linalg.svdvals(kernel_matrix(conv.weight.detach(), scheme))
        pair = factor_conv(conv, 3, scheme)
        impulses = torch.zeros(4, 4, 5, 3, dtype=torch.float64)  # one per input channel: shows the kernel
        impulses[range(4), range(4), 2, 1] = 1
        lost = (pair(impulses) - conv(impulses)).norm().item()
        assert lost == pytest.approx(truncation_error(sigma, 3), rel=1e-10)

    def test_the_window_goes_to_the_factor_that_has_its_axis(self):
        conv = nn.Conv2d(4, 6, (5, 3), stride=(2, 3), padding=(1, 2), dilation=(2, 1))
        windows = {
            scheme: [(f.kernel_size, f.stride, f.padding, f.dilation) for f in factor_conv(conv, 2, scheme)]
            for scheme in PAIRS
        }
        whole, point = ((5, 3), (2, 3), (1, 2), (2, 1)), ((1, 1), (1, 1), (0, 0), (1, 1))
        assert windows["channel"] == [whole, point]
        assert windows["input"] == [point, whole]
        assert windows["spatial"] == [
            ((5, 1), (2, 1), (1, 0), (2, 1)),
            ((1, 3), (1, 3), (0, 2), (1, 1)),
        ]

    @pytest.mark.parametrize("scheme", PAIRS)
    def test_bias_is_added_once_and_last(self, scheme):
        pair = factor_conv(conv2d(), 2, scheme)
        assert pair.reduce.bias is None and pair.expand.bias is not None
        assert factor_conv(conv2d(bias=False), 2, scheme).expand.bias is None

    @pytest.mark.parametrize("scheme", PAIRS)
    def test_conv_is_not_modified_nor_shared_and_the_scale_is_even(self, scheme):
        conv = conv2d().float()
        before, state = copy.deepcopy(conv.state_dict()), torch.get_rng_state()
        pair = factor_conv(conv, 3, scheme)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(p.dtype == torch.float32 for p in pair.parameters())
        torch.testing.assert_close(pair.reduce.weight.norm(), pair.expand.weight.norm())
        for p in pair.parameters():
            p.data.zero_()
        assert all(torch.equal(before[name], value) for name, value in conv.state_dict().items())

    def test_errors(self):
        conv = nn.Conv2d(4, 6, 3)
        for rank in (0, 7):
            with pytest.raises(ValueError, match=f"rank must be a whole number from 1 to 6, got {rank}"):
                factor_conv(conv, rank)
        with pytest.raises(ValueError, match="rank must be a whole number from 1 to 12, got 13"):
            factor_conv(conv, 13, "spatial")
        with pytest.raises(ValueError, match="'pixel' makes no pair"):
            factor_conv(conv, 1, "pixel")
        with pytest.raises(ValueError, match="scheme must be one of"):
            factor_conv(conv, 1, "rows")
        with pytest.raises(ValueError, match="groups"):
            factor_conv(nn.Conv2d(4, 6, 3, groups=2), 1)
        with pytest.raises(TypeError, match="expected an nn.Conv2d, got Conv1d"):
            factor_conv(nn.Conv1d(4, 6, 3), 1)


class TestCost:
    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
    @pytest.mark.parametrize("scheme", PAIRS)
    @pytest.mark.parametrize("window", WINDOWS)
    def test_by_the_counters(self, scheme, window):
        conv = conv2d(**{**window, "bias": False})
        for rank in (1, 3):
            pair = factor_conv(conv, rank, scheme)
            expected = count_macs(pair.float(), (4, 9, 8)).total
            assert factored_macs(conv, rank, scheme, count_pixels(conv, (9, 8))) == expected
            assert factored_parameters(conv, rank, scheme) == sum(p.numel() for p in pair.parameters())

    def test_linear(self):
        layer = nn.Linear(7, 5)
        assert full_rank(layer) == 5
        assert factored_parameters(layer, 2) == factored_macs(layer, 2) == 24

    def test_a_stride_makes_the_schemes_differ(self):
        """At equal channels "channel" and "input" hold as many numbers, but one works at the full size."""
        conv = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        assert factored_parameters(conv, 2, "channel") == factored_parameters(conv, 2, "input")
        pixels = count_pixels(conv, (16, 16))
        assert factored_macs(conv, 2, "input", pixels) - factored_macs(conv, 2, "channel", pixels) == 16 * 192

    def test_errors(self):
        with pytest.raises(ValueError, match="rank must be a whole number of at least 1, got 0"):
            factored_parameters(nn.Linear(3, 3), 0)
        with pytest.raises(ValueError, match="rank must be a whole number of at least 1, got 0"):
            factored_macs(nn.Linear(3, 3), 0)
        with pytest.raises(ValueError, match="'pixel' makes no pair"):
            factored_macs(nn.Conv2d(4, 6, 3), 1, "pixel")
        with pytest.raises(ValueError, match="groups"):
            full_rank(nn.Conv2d(4, 6, 3, groups=2))
        with pytest.raises(TypeError, match="got ReLU"):
            full_rank(nn.ReLU())


def test_every_chain_keeps_the_mode_and_what_is_frozen():
    conv = nn.Conv2d(4, 5, 3).requires_grad_(False).eval()
    chains = (
        factor_conv(conv, 2), tucker_conv(conv, (2, 2)), cp_conv(conv, 2), block_term_conv(conv, 2, (2, 2)),
    )  # fmt: skip
    for chain in chains:
        assert not any(module.training for module in chain.modules())
        assert not any(p.requires_grad for p in chain.parameters())
