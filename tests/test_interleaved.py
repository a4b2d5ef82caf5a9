"""Interleaved group convolution: the dense kernel it stands for, who reaches whom, and when it is wider."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.compact.interleaved import (
    InterleavedGroupConv,
    dense_width,
    interleaved_parameters,
    is_wider,
)

CASES = [(8, 8, 4), (8, 8, 2), (12, 12, 3), (6, 12, 3), (6, 6, 1), (6, 6, 6), (8, 4, 2)]


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("inputs, outputs, primary", CASES)
@pytest.mark.parametrize("stride", [1, 2])
def test_equals_its_dense_kernel(inputs, outputs, primary, stride):
    block = InterleavedGroupConv(inputs, outputs, stride, primary).double()
    x = rand(2, inputs, 7, 6).double()
    dense = F.conv2d(x, block.dense_kernel(), None, stride, 1)
    torch.testing.assert_close(block.linear(x), dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inputs, outputs, primary", CASES)
def test_every_output_sees_every_input(inputs, outputs, primary):
    """By gradient, and not so without the secondary convolution, unless there is one group."""
    block = InterleavedGroupConv(inputs, outputs, primary=primary, kernel_size=1)

    def reached(function):
        x = rand(1, inputs, 1, 1).requires_grad_()
        rows = [torch.autograd.grad(function(x)[0, i].sum(), x)[0].flatten() for i in range(outputs)]
        return torch.stack(rows) != 0

    assert reached(block.linear).all()
    blocks = torch.block_diag(*[torch.ones(outputs // primary, inputs // primary)] * primary).bool()
    assert torch.equal(reached(block.primary), blocks)


def test_secondary_partition_takes_one_channel_of_each_primary_one():
    """Without mixing (both convolutions the identity) the permutation and its inverse cancel."""
    block = InterleavedGroupConv(6, 6, primary=2, kernel_size=1)
    with torch.no_grad():
        block.primary.weight.copy_(torch.eye(3).repeat(2, 1)[:, :, None, None])
        block.secondary.weight.copy_(torch.eye(2).repeat(3, 1)[:, :, None, None])
    x = rand(1, 6, 2, 2)
    assert torch.equal(block.linear(x), x)
    with torch.no_grad():  # the first secondary group swaps its channels: number 0 of either primary group
        block.secondary.weight[:2] = torch.eye(2).flip(0)[:, :, None, None]
    assert torch.equal(block.linear(x), x[:, [3, 1, 2, 0, 4, 5]])


@pytest.mark.parametrize("primary, secondary, kernel", [(4, 2, 3), (2, 8, 3), (1, 5, 3), (6, 4, 1), (3, 3, 5)])
def test_parameters_and_width(primary, secondary, kernel):
    width = primary * secondary
    block = InterleavedGroupConv(width, width, primary=primary, kernel_size=kernel)
    weights = sum(layer.weight.numel() for layer in (block.primary, block.secondary))
    assert weights == interleaved_parameters(primary, secondary, kernel)
    dense = dense_width(weights, kernel)
    assert dense**2 * kernel**2 == pytest.approx(weights, rel=1e-12)
    assert is_wider(primary, secondary, kernel) == (width > dense)


def test_wider_everywhere_by_count():
    """The inequality L / (L - 1) < M S against the widths themselves, ties included (L = 2, M = 2, S = 1)."""
    for primary in range(1, 9):
        for secondary in range(1, 9):
            for kernel in (1, 3):
                weights = interleaved_parameters(primary, secondary, kernel)
                wider = (primary * secondary) ** 2 * kernel**2 > weights
                assert is_wider(primary, secondary, kernel) == wider
    assert not is_wider(2, 2, 1) and interleaved_parameters(2, 2, 1) == 4 * 4


def test_fewest_weights_where_both_terms_are_equal():
    counts = {primary: interleaved_parameters(primary, 36 // primary, 1) for primary in (1, 2, 3, 4, 6, 9, 12, 18, 36)}
    assert min(counts, key=counts.get) == 6
    assert counts[6] == 2 * 36 * math.sqrt(36)


def test_norm_and_activation_come_last():
    block = InterleavedGroupConv(4, 4).eval()
    x = rand(1, 4, 5, 5)
    assert torch.equal(block(x), F.relu(block.bn(block.linear(x))))
    assert isinstance(InterleavedGroupConv(4, 4, activation=None).activation, nn.Identity)
    assert torch.equal(torch.fx.symbolic_trace(block)(x), block(x))


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: InterleavedGroupConv(6, 8, primary=4), ValueError, "must divide in_channels, got 4 groups for 6"),
        (lambda: InterleavedGroupConv(8, 6, primary=4), ValueError, "must divide out_channels"),
        (lambda: InterleavedGroupConv(8, 8, primary=0), ValueError, "primary must be"),
        (lambda: InterleavedGroupConv(8, 8, stride=0), ValueError, "stride must be"),
        (lambda: InterleavedGroupConv(8, 8, kernel_size=2), ValueError, "kernel_size must be odd"),
        (lambda: interleaved_parameters(2.0, 2), TypeError, "primary must be"),
        (lambda: is_wider(2, 0), ValueError, "secondary must be"),
        (lambda: dense_width(0), ValueError, "parameters must be"),
    ],
)
def test_refusals(build, error, message):
    with pytest.raises(error, match=message):
        build()
