"""Trainable codebooks: the clusters of chapter 02, gradients summed, one copy in the file."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core import CodedLinear, decompress, encode, load, save, storage_bits
from compresslab.core.bits import pack_bits
from compresslab.core.codes import CodebookCode
from compresslab.lowrank.lora import add_lora
from compresslab.sharing.circulant import CirculantLinear
from compresslab.sharing.clusters import ClusterCode, UnpackedIndices
from compresslab.sharing.displacement import DisplacementCode
from compresslab.sharing.fastfood import FastfoodLinear
from compresslab.sharing.hashing import HashedCode
from compresslab.sharing.product import LookupLinear, ProductCode


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(20, 30), (6, 3, 3, 3), (50,), (0, 4), (1,)])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_stores_and_decodes_what_the_codebook_code_does(shape, bits):
    weight = randn(*shape)
    ours, theirs = ClusterCode.from_dense(weight, bits), CodebookCode.from_dense(weight, bits)
    assert torch.equal(ours.decode(), theirs.decode()) and torch.equal(ours.packed, theirs.packed)
    assert storage_bits(ours) == storage_bits(theirs)
    assert [name for name, _ in ours.named_parameters()] == ["codebook"]
    assert list(dict(ours.named_buffers())) == ["packed"]
    assert ours.indices.shape == tuple(shape)


def test_gradient_of_a_value_is_the_sum_over_its_uses():
    code, g = ClusterCode.from_dense(randn(7, 9), 2), randn(7, 9, seed=1)
    code.decode().backward(g)
    for j in range(4):
        assert code.codebook.grad[j] == pytest.approx(float(g[code.indices == j].sum()), abs=1e-5)


def test_weights_of_the_clustering():
    weight, h = randn(8, 8), randn(8, 8, seed=1).abs()
    expected = CodebookCode.from_dense(weight, 3, weights=h)
    assert torch.equal(ClusterCode.from_dense(weight, 3, weights=h).decode(), expected.decode())


def test_keep_scale_has_the_weights_root_mean_square():
    weight = randn(40, 40)
    plain, scaled = (ClusterCode.from_dense(weight, 1, keep_scale=keep).decode() for keep in (False, True))
    rms = lambda tensor: tensor.square().mean().sqrt().item()  # noqa: E731
    assert rms(scaled) == pytest.approx(rms(weight), rel=1e-5) and rms(plain) < 0.9 * rms(weight)
    assert not ClusterCode.from_dense(torch.zeros(3, 3), 2, keep_scale=True).decode().any()


def trained(model, x, y, steps=10):
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def test_training_keeps_the_sharing_and_a_file_restores_it(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 4))
    coded = encode(model, lambda weight: ClusterCode.from_dense(weight, 3))
    x, y = randn(64, 12), torch.arange(64) % 4
    after, losses = trained(coded, x, y)
    assert losses[-1] < losses[0]
    assert torch.equal(after[0].coded.packed, coded[0].coded.packed)
    assert len(after[0].weight.unique()) == 8
    save(after, tmp_path / "net")
    loaded = load(tmp_path / "net", model)
    assert torch.equal(loaded(x), after(x)) and isinstance(loaded[0].coded.codebook, nn.Parameter)
    assert type(loaded[0].coded) is ClusterCode
    again, _ = trained(loaded, x, y, 2)
    assert len(again[0].weight.unique()) == 8
    assert torch.equal(decompress(after)(x), after(x))


def test_what_is_kept_follows_the_packed_indices():
    """load_state_dict writes into the packed tensor, an assignment puts another in its place, a copy has its own."""
    one, two = (ClusterCode.from_dense(randn(5, 6, seed=seed), 2) for seed in (0, 1))
    first, second = one.decode().detach(), two.decode().detach()
    one.load_state_dict(two.state_dict())
    assert torch.equal(one.decode(), second) and not torch.equal(first, second)
    twin = copy.deepcopy(one)
    twin.packed.zero_()
    assert (twin.decode() == twin.codebook[0]).all() and torch.equal(one.decode(), second)
    one.packed = twin.packed
    assert (one.decode() == one.codebook[0]).all()
    assert set(one.state_dict()) == {"packed", "codebook"}


def test_indices_are_unpacked_once():
    calls, packed, kept = [], torch.zeros(3, dtype=torch.uint8), UnpackedIndices()
    unpack = lambda tensor: calls.append(1) or tensor.int()  # noqa: E731
    assert kept.get(packed, unpack) is kept.get(packed, unpack) and len(calls) == 1
    packed[0] = 1
    assert kept.get(packed, unpack)[0] == 1 and len(calls) == 2
    kept.get(packed.clone(), unpack)
    assert len(calls) == 3
    with torch.inference_mode():
        never = torch.zeros(3, dtype=torch.uint8)
        kept.get(never, unpack), kept.get(never, unpack)
    assert len(calls) == 5  # such tensors do not tell when they are written to


def test_exports_with_decoding_inside():
    coded = encode(nn.Linear(6, 3), lambda weight: ClusterCode.from_dense(weight, 2)).eval()
    x = randn(2, 6)
    coded(x)
    program = torch.export.export(coded, (x,))
    torch.testing.assert_close(program.module()(x), coded(x))
    torch.testing.assert_close(coded(x), decompress(coded)(x))  # nothing of the tracing is left behind


def test_errors():
    packed = torch.zeros(1, dtype=torch.uint8)
    with pytest.raises(TypeError, match="codebook must be floating-point, got torch.int64"):
        ClusterCode(packed, torch.tensor([1, 2]), (2, 2), 2)
    with pytest.raises(ValueError, match="codebook must have shape"):
        ClusterCode(packed, torch.zeros(5), (2, 2), 2)
    with pytest.raises(ValueError, match="take shape"):
        ClusterCode(packed, torch.zeros(4), (5, 2), 2)
    with pytest.raises(TypeError, match="packed must be uint8"):
        ClusterCode(packed.int(), torch.zeros(4), (2, 2), 2)
    with pytest.raises(ValueError, match="bits must be"):
        ClusterCode.from_dense(torch.ones(3), 9)
    with pytest.raises(ValueError, match="finite"):
        ClusterCode.from_dense(torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="weights must have the values' shape"):
        ClusterCode.from_dense(torch.ones(3), weights=torch.ones(4))


@pytest.mark.parametrize(
    "make_code",
    [
        partial(ClusterCode.from_dense, bits=2),
        partial(ProductCode.from_dense, subspaces=3, k=2),
        partial(HashedCode.from_dense, buckets=5),
        partial(DisplacementCode.from_dense, rank=2),
    ],
)
def test_training_after_inference_mode(make_code):
    """What a code keeps for later calls may be made, or moved, inside the mode, and is still fit for training."""
    coded, x = encode(nn.Sequential(nn.Linear(6, 6)), make_code), randn(4, 6)
    with torch.inference_mode():
        coded(x)
    coded(x).sum().backward()
    moved = coded.to("meta")
    with torch.inference_mode():
        moved(x.to("meta"))
    moved(x.to("meta")).sum().backward()


@pytest.mark.parametrize(
    "layer",
    [
        CirculantLinear.from_dense(nn.Linear(6, 6), 3, seed=1),
        FastfoodLinear.random(6, 6),
        LookupLinear.from_dense(nn.Linear(6, 6), 3, 2),
    ],
)
def test_layers_train_after_inference_mode(layer):
    layer, x = copy.deepcopy(layer), randn(4, 6).requires_grad_()
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    layer = layer.double()
    with torch.inference_mode():
        layer(x.double())
    layer(x.double()).sum().backward()
    layer, x = layer.to("meta"), torch.zeros(4, 6, dtype=torch.float64, device="meta", requires_grad=True)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()


def test_the_code_of_a_frozen_weight_is_frozen():
    base = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    adapted = encode(add_lora(base, 2), partial(ClusterCode.from_dense, bits=2), only=["0.layer"])
    assert isinstance(adapted[0].layer, CodedLinear) and not adapted[0].layer.coded.codebook.requires_grad
    base[0].weight.requires_grad_(False)
    base[1].weight.requires_grad_(True)
    coded = encode(base, partial(ClusterCode.from_dense, bits=2))
    assert [layer.coded.codebook.requires_grad for layer in coded] == [False, True]
    values = nn.Parameter(torch.zeros(4))  # of one codebook for both
    both = encode(base, lambda weight: ClusterCode(pack_bits(torch.zeros(36, dtype=torch.int64), 2), values, (6, 6), 2))
    assert both[0].coded.codebook is both[1].coded.codebook and both[0].coded.codebook.requires_grad
