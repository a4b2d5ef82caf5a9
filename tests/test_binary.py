"""Binary weights: the best signs and scale, the gradient through a sign, and one bit of storage."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from compresslab.core.codes import WeightCode
from compresslab.core.layers import decompress, encode
from compresslab.core.modules import bake
from compresslab.core.prepare import convert, prepare
from compresslab.core.size import storage_bits
from compresslab.core.store import load, save
from compresslab.quantization.binary import (
    BWN,
    BinaryCode,
    BinaryConnect,
    clip_latent_,
    mean_magnitude,
    sign,
    sign_ste,
)

SHAPES = [(3, 8), (5, 7), (1, 1), (4, 6, 3), (8, 4, 3, 3), (6, 1, 5, 5), (9,)]


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


@pytest.mark.parametrize("n", range(1, 9))
def test_no_sign_vector_and_scale_fit_better(n):
    w = randn(n, seed=n, dtype=torch.float64)
    found = (w - mean_magnitude(w[None])[0] * sign(w)).square().sum()
    errors = []
    for signs in itertools.product([-1.0, 1.0], repeat=n):
        b = torch.tensor(signs, dtype=torch.float64)
        errors.append((w - w @ b / n * b).square().sum())  # the best scale of these signs
    assert found <= min(errors) + 1e-12
    assert found == pytest.approx(float(w.square().sum() - w.abs().sum() ** 2 / n))


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_scale_and_signs_of_every_row(axis):
    weight = randn(4, 3, 5)
    decoded = BinaryCode.from_dense(weight, axis=axis).decode()
    others = [a for a in range(3) if axis is None or a != axis % 3]
    alpha = weight.abs().mean(others, keepdim=True)
    assert torch.allclose(decoded, alpha * weight.sign(), rtol=1e-6, atol=0)


def test_groups_are_tensors_of_their_own():
    weight = randn(6, 4, 5)
    grouped = BinaryCode.from_dense(weight, group_size=10)
    pieces = [BinaryCode.from_dense(piece, axis=None) for piece in weight.view(12, 10)]
    assert len(grouped.scale) == 12
    assert torch.equal(grouped.decode().view(12, 10), torch.stack([piece.decode() for piece in pieces]))


def test_straight_through_gradient_is_clipped_at_one():
    x = torch.tensor([-1.001, -1.0, -0.2, 0.0, 0.7, 1.0, 1.001], requires_grad=True)
    y = sign_ste(x)
    y.backward(torch.arange(1.0, 8.0))
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


def test_bwn_gradient_is_the_chain_rule():
    w, g = randn(3, 6, dtype=torch.float64).requires_grad_(), randn(3, 6, seed=1, dtype=torch.float64)
    BWN()(w).backward(g)
    signs, inside = w.detach().sign(), w.detach().abs() <= 1
    alpha = w.detach().abs().mean(1, keepdim=True)
    assert not inside.all()
    torch.testing.assert_close(w.grad, alpha * inside * g + signs / 6 * (signs * g).sum(1, keepdim=True))


@pytest.mark.parametrize("make", [BinaryConnect, BWN, lambda: BWN(None), lambda: BWN(1)])
@pytest.mark.parametrize("shape", SHAPES[:1] + SHAPES[3:6])
def test_simulated_equals_stored_bit_for_bit(make, shape):
    simulated = make()
    for weight in (randn(*shape), torch.zeros(shape), torch.full(shape, -0.3), -randn(*shape).abs()):
        assert torch.equal(simulated(weight), simulated.to_code(weight).decode())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_bit_a_weight_and_a_scale_a_row(shape):
    weight = randn(*shape)
    code = BinaryCode.from_dense(weight)
    assert isinstance(code, WeightCode) and code.decode().shape == shape
    assert storage_bits(code) == 8 * math.ceil(weight.numel() / 8) + 32 * shape[0]
    assert torch.equal(copy.deepcopy(code).decode(), code.decode())


def test_zero_constant_one_sided_and_empty_weights():
    assert torch.equal(BinaryCode.from_dense(torch.zeros(2, 3)).decode(), torch.zeros(2, 3))
    for value in (0.75, -0.75):
        assert torch.equal(BinaryCode.from_dense(torch.full((2, 3), value)).decode(), torch.full((2, 3), value))
    assert (BinaryCode.from_dense(randn(2, 9).abs()).decode() > 0).all()
    assert BinaryCode.from_dense(torch.zeros(0, 3)).decode().shape == (0, 3)
    assert torch.equal(BinaryCode.from_dense(torch.tensor([0.0, -0.0]), scaled=False).decode(), torch.ones(2))


def test_training_moves_latent_weights_and_the_hook_clips_them():
    model, x, target = net(), randn(8, 2, 5, 5), torch.arange(8) % 3
    prepared = prepare(model, lambda weight: BinaryConnect(), skip=["4"])
    optimizer = torch.optim.SGD(prepared.parameters(), lr=5.0)
    before = prepared[4].weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(prepared(x), target).backward()
        optimizer.step()
    latent = prepared[0].parametrizations.weight.original
    assert latent.abs().max() > 1 and prepared[4].weight.abs().max() > 1
    clipped = latent.detach().clamp(-1, 1)
    plain = prepared[4].weight.detach().clone()
    clip_latent_(prepared, 0)
    assert torch.equal(latent, clipped) and prepared[0].weight.abs().eq(1).all()
    assert torch.equal(prepared[4].weight, plain) and not torch.equal(plain, before)


@pytest.mark.parametrize("make", [BinaryConnect, BWN])
def test_convert_stores_what_was_simulated(make, tmp_path):
    model, x = net().eval(), randn(2, 2, 5, 5)
    prepared = prepare(model, lambda weight: make())
    coded = convert(prepared)
    assert torch.equal(coded(x), bake(prepared)(x)) and torch.equal(decompress(coded)(x), coded(x))
    save(coded, tmp_path / "net.safetensors")
    assert torch.equal(load(tmp_path / "net.safetensors", net().eval())(x), coded(x))


def test_bad_input_is_refused():
    for bad in (torch.tensor([1.0, math.nan]), torch.tensor([math.inf])):
        with pytest.raises(ValueError, match="finite"):
            BinaryCode.from_dense(bad)
    with pytest.raises(TypeError, match="floating-point"):
        BinaryCode.from_dense(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="group_size 4 does not divide the 6 weights"):
        BinaryCode.from_dense(torch.ones(2, 6), group_size=4)
    with pytest.raises(ValueError, match="axis must be"):
        BinaryCode.from_dense(torch.ones(2, 6), axis=2)
    with pytest.raises(ValueError, match="in layer '0'"):
        encode(nn.Sequential(nn.Linear(3, 2)), lambda weight: BinaryCode.from_dense(weight * math.nan))
    packed = torch.zeros(1, dtype=torch.uint8)
    with pytest.raises(ValueError, match="cannot share scales"):
        BinaryCode(packed, torch.ones(3), (2, 2))
    with pytest.raises(ValueError, match="take shape"):
        BinaryCode(packed, torch.ones(1), (3, 3))
    with pytest.raises(TypeError, match="scale must be floating-point"):
        BinaryCode(packed, torch.ones(2, dtype=torch.int64), (2, 2))
    with pytest.raises(TypeError, match="packed must be uint8"):
        BinaryCode(packed.int(), torch.ones(2), (2, 2))
