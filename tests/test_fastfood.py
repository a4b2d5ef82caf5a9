"""Fastfood layers: against the product of scipy's matrices, their size, and that they train."""

import copy

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import nn

from compresslab.core import count_macs, load, save, storage_bits
from compresslab.sharing.fastfood import FastfoodLinear
from compresslab.sharing.hashing import hash_indices


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SIZES = [(1, 1), (4, 4), (5, 8), (5, 3), (8, 20), (3, 9), (130, 10)]  # inputs, outputs


def product_of_matrices(layer):
    """S H G P H B stack by stack, with scipy's H, cut to size."""
    blocks = []
    for stack in range(len(layer.b)):
        n = layer.b.shape[1]
        H = torch.tensor(hadamard(n) / np.sqrt(n))
        P = torch.eye(n, dtype=torch.float64)[hash_indices((n,), n, layer.seed + stack, injective=True)[0]]
        S, G, B = (torch.diag(array[stack].detach().double()) for array in (layer.s, layer.g, layer.b))
        blocks.append(S @ H @ G @ P @ H @ B)
    return torch.cat(blocks)[: layer.out_features, : layer.in_features]


@pytest.mark.parametrize("inputs, outputs", SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_product_of_its_matrices(inputs, outputs, bias):
    layer = FastfoodLinear.random(inputs, outputs, bias=bias, seed=3).double()
    x = randn(2, 3, inputs).double()
    expected = x @ product_of_matrices(layer).T + (layer.bias if bias else 0)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.to_dense()(x), expected)
    torch.testing.assert_close(layer(x[0, 0]), expected[0, 0])
    assert (layer.to_dense().bias is None) is not bias


def test_gradients():
    layer = FastfoodLinear.random(5, 11, seed=1).double()
    x = randn(3, 5).double().requires_grad_()
    names = ["b", "g", "s", "bias"]

    def run(x, *arrays):
        return torch.func.functional_call(layer, dict(zip(names, arrays, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *(getattr(layer, name) for name in names)))


def test_random_looks_like_a_dense_layer_at_its_start():
    layer = FastfoodLinear.random(200, 512, seed=1)
    weight = layer.to_dense().weight.detach()
    assert float(weight.std()) == pytest.approx(1 / np.sqrt(3 * 200), rel=0.05)
    assert abs(float(weight.mean())) < 0.002
    standardised = weight / weight.std()
    assert float(standardised.pow(4).mean()) == pytest.approx(3, abs=0.5)  # normal: the fourth moment is 3
    rows = weight / weight.norm(dim=1, keepdim=True)
    assert (rows @ rows.T - torch.eye(512)).abs().max() < 0.5  # no two outputs are nearly the same
    assert layer.bias.abs().max() <= 1 / np.sqrt(200)


def test_rows_have_the_lengths_that_s_says():
    layer = FastfoodLinear.random(64, 64, bias=False)
    lengths = layer.s[0] * layer.g[0].norm() / 8  # H G P H B has rows of length |g| / sqrt(n)
    torch.testing.assert_close(layer.to_dense().weight.norm(dim=1), lengths)


def test_the_same_seed_is_the_same_layer():
    first, again, other = (FastfoodLinear.random(6, 7, seed=seed).to_dense().weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_the_global_generators_are_left_alone():
    state = torch.get_rng_state()
    FastfoodLinear.random(6, 7)
    assert torch.equal(state, torch.get_rng_state())


def test_size_and_macs():
    layer = FastfoodLinear.random(784, 784)
    assert storage_bits(layer) == 32 * (3 * 1024 + 784)  # for 784 * 784 + 784: 160 times fewer
    assert storage_bits(FastfoodLinear.random(5, 20, bias=False)) == 32 * 3 * 3 * 8
    assert count_macs(layer, (784,)).total == 2 * 1024 * 10 + 3 * 1024
    assert count_macs(FastfoodLinear.random(5, 20), torch.zeros(2, 7, 5)).total == 7 * 3 * (2 * 8 * 3 + 3 * 8)


@pytest.mark.parametrize("bias", [False, True])
def test_files_and_copies(bias, tmp_path):
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 2)).eval()
    small = copy.deepcopy(model)
    small[0] = FastfoodLinear.random(5, 12, bias=bias, seed=9).eval()
    x = randn(4, 5)
    save(small, tmp_path / "fastfood.cl")
    loaded = load(tmp_path / "fastfood.cl", model)
    assert isinstance(loaded[0], FastfoodLinear) and (loaded[0].bias is not None) is bias
    assert torch.equal(loaded(x), small(x)) and torch.equal(copy.deepcopy(small)(x), small(x))


def test_it_trains():
    torch.manual_seed(0)
    target, layer = FastfoodLinear.random(8, 8, seed=1), FastfoodLinear.random(8, 8, seed=1)
    with torch.no_grad():
        for name in ("b", "g", "s"):
            getattr(layer, name).mul_(1 + 0.2 * torch.randn(1, 8))
    optimizer, losses = torch.optim.Adam(layer.parameters(), lr=0.01), []
    for _ in range(200):
        x = torch.randn(32, 8)
        losses.append((layer(x) - target(x).detach()).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


D = torch.ones(1, 4)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: FastfoodLinear(D.int(), D, D, 4, 4), TypeError, "b must be floating-point"),
        (lambda: FastfoodLinear(D, D, torch.ones(2, 4), 4, 4), ValueError, r"s must have shape \(1, 4\)"),
        (lambda: FastfoodLinear(D, D, D, 5, 4), ValueError, r"b must have shape \(1, 8\) for 5 inputs"),
        (lambda: FastfoodLinear(D, D, D, 4, 5), ValueError, r"shape \(2, 4\) for 4 inputs and 5 outputs"),
        (lambda: FastfoodLinear(D, D, D, 4, 3, torch.ones(4)), ValueError, r"bias must have shape \(3,\)"),
        (lambda: FastfoodLinear(D, D, D, 4, 4, seed=-1), ValueError, "seed must be"),
        (lambda: FastfoodLinear(D, D, D, 4, 4)(torch.ones(5)), ValueError, r"end in 4 features, got \(5,\)"),
        (lambda: FastfoodLinear.random(0, 4), ValueError, "in_features must be"),
        (lambda: FastfoodLinear.random(4, 0), ValueError, "out_features must be"),
        (lambda: FastfoodLinear.random(4, 2.0), TypeError, "out_features must be"),
        (lambda: FastfoodLinear.random(4, 4, seed=-1), ValueError, "seed must be"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
