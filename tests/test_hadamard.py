"""Rotations: against scipy's Hadamard matrix, orthogonal, and with the function of the network unchanged."""

import copy
import math

import pytest
import torch
from scipy.linalg import hadamard
from torch import nn

from compresslab.core.codes import UniformCode
from compresslab.core.layers import encode
from compresslab.core.modules import apply_mask_
from compresslab.core.uniform import choose_scale, fake_quantize
from compresslab.core.hadamard import hadamard_transform
from compresslab.quantization.hadamard import random_signs, rotate, rotate_back, rotate_stream


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 64, 512])
def test_equals_scipys_matrix(n):
    x, H = randn(3, 2, n), torch.tensor(hadamard(n), dtype=torch.float64)
    torch.testing.assert_close(hadamard_transform(x), x @ H)
    assert torch.equal(hadamard_transform(torch.eye(n)), H.float())
    torch.testing.assert_close(hadamard_transform(hadamard_transform(x)), n * x)


@pytest.mark.parametrize("n, block", [(2, 2), (8, 8), (12, 4), (96, 32), (784, 16), (10, 2)])
def test_rotation_is_orthogonal_block_by_block(n, block):
    signs = random_signs(n, seed=3)
    Q = rotate(torch.eye(n, dtype=torch.float64), signs).T
    torch.testing.assert_close(Q @ Q.T, torch.eye(n, dtype=torch.float64))
    expected = torch.block_diag(*[torch.tensor(hadamard(block))] * (n // block)) / math.sqrt(block) * signs
    torch.testing.assert_close(Q, expected.double(), rtol=1e-6, atol=1e-7)
    x = randn(5, n)
    torch.testing.assert_close(rotate(x, signs), x @ Q.T)
    torch.testing.assert_close(rotate_back(rotate(x, signs), signs), x)
    torch.testing.assert_close(rotate(x, signs).norm(dim=1), x.norm(dim=1))


def test_signs():
    assert torch.equal(random_signs(64, seed=1), random_signs(64, seed=1))
    assert not torch.equal(random_signs(64, seed=1), random_signs(64, seed=2))
    assert random_signs(64).abs().eq(1).all() and 16 < (random_signs(64) > 0).sum() < 48


def test_one_outlier_channel_ruins_rounding_and_rotation_repairs_it():
    """4 bits, one scale per row. The outlier costs the other channels all they have; rotated, nobody notices."""
    x = randn(200, 128)
    x[:, 7] *= 100

    def error(x):
        low, high = x.aminmax(dim=1, keepdim=True)
        return (fake_quantize(x, choose_scale(low, high, 4, symmetric=True)) - x).square()

    signs = random_signs(128)
    turned = rotate(x, signs)
    assert turned.abs().amax() < 0.2 * x.abs().amax()
    plain = error(x)
    assert plain[:, [i for i in range(128) if i != 7]].mean() > 0.8  # variance 1: nearly all of it is lost
    assert error(turned).sum() < plain.sum() / 3  # and rotating back keeps lengths, those of errors too


def test_rotated_layer_loses_less_in_low_bits():
    """Weight and input both with one loud channel, both rounded: the product is nearer after the rotation."""
    x, W = randn(400, 64), randn(32, 64, seed=1)
    x[:, 3] *= 60
    W[:, 40] *= 20

    def product(x, W):
        grids = [choose_scale(*t.aminmax(dim=1, keepdim=True), 4, symmetric=True) for t in (x, W)]
        return fake_quantize(x, grids[0]) @ fake_quantize(W, grids[1]).T

    signs = random_signs(64, seed=5)
    lost = lambda a, b: (product(a, b) - x @ W.T).square().sum()  # noqa: E731
    assert lost(rotate(x, signs), rotate(W, signs)) < 0.5 * lost(x, W)


class Stream(nn.Module):
    """A residual stream without attention: embedding, blocks that read and write, RMSNorm, a tied output layer."""

    def __init__(self, tied=True, width=24):
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.up = nn.ModuleList([nn.Linear(width, 40) for _ in range(2)])
        self.down = nn.ModuleList([nn.Linear(40, width) for _ in range(2)])
        self.mix = nn.Linear(width, width)
        self.norm = nn.RMSNorm(width, elementwise_affine=False, eps=1e-6)
        self.head = nn.Linear(width, 11, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(self.norm(x))))
        return self.head(self.norm(x + self.mix(x)))


WRITERS, READERS = ["embed", "down.0", "down.1", "mix"], ["up.0", "up.1", "mix", "head"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("width", [24, 32])
def test_function_of_a_residual_network_is_unchanged(tied, width):
    torch.manual_seed(0)
    model, tokens = Stream(tied, width).double(), torch.arange(11)
    before = copy.deepcopy(model.state_dict())
    turned = rotate_stream(model, WRITERS, READERS, seed=4)
    torch.testing.assert_close(turned(tokens), model(tokens), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(turned.embed(tokens), rotate(model.embed(tokens), random_signs(width, seed=4)))
    assert not torch.allclose(turned.mix.weight, model.mix.weight)
    assert (turned.head.weight is turned.embed.weight) == tied
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    again = rotate_stream(model, WRITERS, READERS, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), turned.parameters(), strict=True))
    wrong = rotate_stream(model, WRITERS, READERS[:-2], seed=4)  # a reader is forgotten: the test would notice
    assert not torch.allclose(wrong(tokens), model(tokens), atol=1e-2)


def test_weights_with_an_outlier_row_are_stored_better_after_the_rotation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 16)).eval()
    model[1].weight.data[:, 5] *= 50
    x = torch.randn(100, 16)
    make = lambda weight: UniformCode.from_dense(weight, 4, axis=0)  # noqa: E731
    lost = lambda m: (encode(m, make, only=["1"])(x) - model(x)).square().sum().item()  # noqa: E731
    assert lost(rotate_stream(model, ["0"], ["1"])) < 0.5 * lost(model)


def test_masks_are_baked_in():
    layer = nn.Linear(4, 4)
    apply_mask_(layer, torch.eye(4, dtype=torch.bool))
    model, x = nn.Sequential(layer, nn.Linear(4, 2)), torch.randn(3, 4)
    torch.testing.assert_close(rotate_stream(model, ["0"], ["1"])(x), model(x))


def test_errors():
    for bad in (torch.ones(3), torch.ones(2, 0), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="power of two long"):
            hadamard_transform(bad)
    with pytest.raises(ValueError, match="n must be even, got 7"):
        random_signs(7)
    with pytest.raises(ValueError, match="n must be even, got 3"):
        rotate(torch.ones(2, 3), torch.ones(3))
    with pytest.raises(ValueError, match="last axis must be 4 long"):
        rotate_back(torch.ones(2, 3), torch.ones(4))
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.ReLU(), nn.Embedding(2, 6))
    with pytest.raises(ValueError, match="no layer '9'"):
        rotate_stream(model, ["9"], ["1"])
    with pytest.raises(TypeError, match="must be Linear, got Embedding in layer '3'"):
        rotate_stream(model, ["0"], ["3"])
    with pytest.raises(TypeError, match="must be Linear or Embedding, got ReLU in layer '2'"):
        rotate_stream(model, ["2"], ["1"])
    with pytest.raises(ValueError, match="4 coordinates in layer '0', but 6 in layer '3'"):
        rotate_stream(model, ["0", "3"], ["1"])
    with pytest.raises(ValueError, match="n must be even, got 5"):
        rotate_stream(nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 2)), ["0"], ["1"])
    with pytest.raises(ValueError, match="at least one writer and one reader"):
        rotate_stream(model, ["0"], [])
