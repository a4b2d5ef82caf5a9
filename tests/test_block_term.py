"""Block term: planted blocks, the border case Tucker-2, the grouped convolution, every error."""

import copy

import pytest
import torch
from torch import nn

from compresslab.lowrank.block_term import block_term, block_term_conv
from compresslab.lowrank.tucker import hooi, tucker_conv


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative(tensor, approximation):
    return ((tensor - approximation).norm() / tensor.norm()).item()


def planted(blocks, ranks, shape=(12, 10, 3, 3)):
    """Blocks in channels of their own, mixed by orthogonal matrices."""
    kernel = torch.zeros(shape, dtype=torch.float64)
    for b in range(blocks):
        out, into = slice(b * ranks[0], (b + 1) * ranks[0]), slice(b * ranks[1], (b + 1) * ranks[1])
        kernel[out, into] = randn(*ranks, *shape[2:], seed=b) * 2.0**-b
    u, v = (torch.linalg.qr(randn(n, n, seed=n))[0] for n in shape[:2])
    return torch.einsum("pqij,np,cq->ncij", kernel, u, v)


class TestFit:
    @pytest.mark.parametrize("blocks, ranks", [(1, (3, 2)), (2, (3, 2)), (3, (4, 3)), (4, (1, 1))])
    def test_planted_blocks_are_found(self, blocks, ranks):
        x = planted(blocks, ranks)
        fit = block_term(x, blocks, ranks, iterations=2000, tolerance=0)
        assert fit.error < 1e-3
        assert relative(x, fit.to_tensor()) == pytest.approx(fit.error, abs=1e-9)
        assert fit.parameters == blocks * (ranks[0] * ranks[1] * 9 + 12 * ranks[0] + 10 * ranks[1])

    def test_one_block_is_tucker(self):
        x = randn(8, 7, 3, 3)
        fit = block_term(x, 1, (3, 2), iterations=0)
        torch.testing.assert_close(fit.to_tensor(), hooi(x, (3, 2)).to_tensor())

    @pytest.mark.parametrize("ranks", [(2, 2), (1, 1)])
    def test_error_never_rises_and_sweeps_gain_on_the_greedy_start(self, ranks):
        fit = block_term(randn(8, 7, 3, 3), 3, ranks, iterations=30, tolerance=0)
        assert all(b <= a * (1 + 1e-12) for a, b in zip(fit.errors, fit.errors[1:], strict=False))
        assert fit.error < fit.errors[0] - 1e-3

    def test_error_falls_with_the_blocks_and_stays_above_tucker_of_the_joint_ranks(self):
        x = randn(12, 10, 3, 3)
        errors = [block_term(x, b, (2, 2)).error for b in (1, 2, 3)]
        assert errors[0] > errors[1] > errors[2]
        joint = hooi(x, (6, 6), iterations=100, tolerance=1e-9)
        assert relative(x, joint.to_tensor()) < errors[2]  # a dense core holds every block-diagonal one

    def test_a_kernel_of_zeros(self):
        assert block_term(torch.zeros(3, 3, 1), 2, (1, 1)).error == 0

    def test_errors(self):
        x = randn(6, 5, 3, 3)
        with pytest.raises(ValueError, match="blocks must be a whole number of at least 1, got 0"):
            block_term(x, 0, (1, 1))
        with pytest.raises(TypeError, match="blocks must be a whole number"):
            block_term(x, 1.5, (1, 1))
        with pytest.raises(ValueError, match="the rank of mode 0 must be a whole number from 1 to 6, got 7"):
            block_term(x, 2, (7, 1))
        with pytest.raises(ValueError, match="the rank of mode 1 must be a whole number from 1 to 5, got 0"):
            block_term(x, 2, (1, 0))
        with pytest.raises(ValueError, match="iterations must be"):
            block_term(x, 2, (1, 1), iterations=-1)
        with pytest.raises(ValueError, match="nan or inf"):
            block_term(x / 0, 2, (1, 1))


class TestConvolution:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            dict(stride=2, padding=1, bias=False),
            dict(stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
            dict(padding="same", dilation=2),
            dict(padding=(1, 2), padding_mode="circular"),
        ],
    )
    @pytest.mark.parametrize("blocks, ranks", [(3, (2, 2)), (4, (1, 1)), (2, (3, 1))])
    def test_equals_the_convolution_with_the_rebuilt_kernel(self, blocks, ranks, options):
        conv = nn.Conv2d(5, 6, (3, 2), **options).double()
        rebuilt = copy.deepcopy(conv)
        rebuilt.weight.data.copy_(block_term(conv.weight, blocks, ranks).to_tensor())
        x = randn(2, 5, 9, 8)
        net = block_term_conv(conv, blocks, ranks)
        torch.testing.assert_close(net(x), rebuilt(x))
        assert [layer.groups for layer in net] == [1, blocks, 1]

    def test_one_block_is_the_tucker_convolution(self):
        conv = nn.Conv2d(5, 6, 3, padding=1).double()
        x = randn(2, 5, 9, 8)
        ours, tucker = block_term_conv(conv, 1, (3, 2), iterations=0), tucker_conv(conv, (3, 2), 20)
        torch.testing.assert_close(ours(x), tucker(x))

    def test_ordinary_layers_and_conv_is_not_modified(self):
        conv = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        before = copy.deepcopy(conv.state_dict())
        net = block_term_conv(conv, 2, (4, 3))
        assert sum(p.numel() for p in net.parameters()) == 2 * (8 * 3 + 4 * 3 * 9 + 4 * 16) + 16
        assert {p.dtype for p in net.parameters()} == {torch.float32}
        for p in net.parameters():
            p.data.zero_()
        assert all(torch.equal(before[name], value) for name, value in conv.state_dict().items())

    def test_errors(self):
        with pytest.raises(ValueError, match="groups=2 cannot be decomposed"):
            block_term_conv(nn.Conv2d(4, 6, 3, groups=2), 2, (1, 1))
        with pytest.raises(TypeError, match="expected an nn.Conv2d, got Linear"):
            block_term_conv(nn.Linear(4, 6), 2, (1, 1))
        with pytest.raises(ValueError, match="the rank of mode 0"):
            block_term_conv(nn.Conv2d(4, 6, 3), 2, (7, 1))
