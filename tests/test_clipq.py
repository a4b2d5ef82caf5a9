"""CLIP-Q: what is clipped, what the rest is shown as, the two limits, and pruned weights that return."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binned_statistic
from torch import nn

from compresslab.core import CodebookCode, DenseCode, GapSparseCode, convert, decompress, load, prepare, save
from compresslab.core.modules import named_layers
from compresslab.core.train import accuracy, train
from compresslab.data import load_data
from compresslab.hybrid.clipq import ClipQ, clip_partition, clip_q
from compresslab.pruning import magnitude_mask, sparsity_of


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_hand(weight: torch.Tensor, fraction: float, bits: int) -> torch.Tensor:
    """One weight after the other, one interval after the other."""
    flat = weight.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: abs(flat[i]))
    kept = order[round(fraction * len(flat)) :]
    shown = [0.0] * len(flat)
    if kept:
        low, high = min(flat[i] for i in kept), max(flat[i] for i in kept)
        width = (high - low) / (2**bits - 1)
        for j in range(2**bits - 1):
            upper = low + (j + 1) * width if j < 2**bits - 2 else high
            inside = [i for i in kept if (flat[i] > low + j * width or j == 0) and flat[i] <= upper]
            for i in inside:
                shown[i] = sum(flat[l] for l in inside) / len(inside)
    return torch.tensor(shown).view(weight.shape)


@pytest.mark.parametrize("shape", [(40,), (7, 9), (4, 3, 3, 3)])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_against_loops(shape, fraction, bits):
    weight = randn(*shape, seed=bits)
    torch.testing.assert_close(clip_partition(weight, fraction, bits), by_hand(weight, fraction, bits))


def test_means_are_those_of_scipys_equal_bins():
    weight = randn(500)
    kept = weight[magnitude_mask(weight, 0.6)].double().numpy()
    means, _, number = binned_statistic(kept, kept, bins=7)
    shown = clip_partition(weight, 0.6, bits=3)
    np.testing.assert_allclose(shown[shown != 0].numpy(), means[number - 1], rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-8, 8, width=16), min_size=1, max_size=40),
    st.floats(0, 1),
    st.integers(1, 6),
)
def test_count_order_and_mean_hold_for_any_weight(values, fraction, bits):
    weight = torch.tensor(values)
    shown = clip_partition(weight, fraction, bits)
    kept = magnitude_mask(weight, fraction)
    assert not shown[~kept].any() and int((~kept).sum()) == round(fraction * len(values))
    assert len(shown[kept].unique()) <= 2**bits - 1
    order = weight[kept].argsort(stable=True)
    assert (shown[kept][order].diff() >= 0).all()
    assert shown[kept].double().sum().item() == pytest.approx(weight[kept].double().sum().item(), abs=1e-4)
    if kept.any():
        width = (weight[kept].max() - weight[kept].min()).item() / (2**bits - 1)
        assert (shown - weight)[kept].abs().max().item() <= width + 1e-5


def test_fraction_zero_is_pure_quantization():
    weight = randn(30, 20)
    shown = clip_partition(weight, 0.0, bits=3)
    assert not (shown == 0).any() and len(shown.unique()) == 7
    assert type(ClipQ(0.0, 3).to_code(weight)) is CodebookCode


def test_infinitely_many_bits_are_pure_pruning():
    weight = randn(30, 20)
    pruned = weight * magnitude_mask(weight, 0.7)
    assert torch.equal(clip_partition(weight, 0.7, None), pruned)
    code = ClipQ(0.7, None).to_code(weight)
    assert type(code.values) is DenseCode and torch.equal(code.decode(), pruned)
    gaps = [(clip_partition(weight, 0.7, bits) - pruned).abs().max().item() for bits in (2, 4, 8, 12, 16)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-4  # and the limit is approached
    assert torch.equal(clip_partition(weight, 0.0, None), weight)


def test_ties_go_in_index_order():
    assert clip_partition(torch.tensor([1.0, -1.0, 1.0, 1.0]), 0.5, 1).tolist() == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("bits", [1, 4, 8, None])
def test_what_is_shown_is_what_is_stored_bit_for_bit(fraction, bits):
    weight = randn(17, 23)
    simulated = ClipQ(fraction, bits)
    assert torch.equal(simulated(weight), simulated.to_code(weight).decode())


def test_values_that_average_to_zero_are_stored_as_zeros():
    weight = torch.tensor([-1.0, 1.0, 0.1])  # one interval, mean 0
    code = ClipQ(1 / 3, 1).to_code(weight)
    assert isinstance(code, GapSparseCode) and code.values.numel == 0
    assert code.decode().tolist() == [0.0, 0.0, 0.0]


def test_the_gradient_reaches_every_weight_unchanged():
    weight, gradient = randn(6, 5).requires_grad_(), randn(6, 5, seed=1)
    ClipQ(0.8, 2)(weight).backward(gradient)
    assert torch.equal(weight.grad, gradient)


def test_a_pruned_weight_returns_and_another_one_goes():
    model = prepare(nn.Linear(4, 1, bias=False), lambda weight: ClipQ(0.5, None))
    latent = model.parametrizations.weight.original
    latent.data = torch.tensor([[0.1, 0.2, 1.0, 2.0]])
    assert model.weight.tolist() == [[0.0, 0.0, 1.0, 2.0]]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.tensor([[-5.0, 0.0, 0.0, 0.0]])).sum().backward()  # asks for more of the first
    optimizer.step()
    shown = model.weight[0]
    assert shown[0] > 5 and shown[2] == 0 and shown[3] == 2
    assert latent[0, 2].item() == 1.0  # the master keeps what is clipped now


def test_training_works_and_the_file_is_what_was_trained(tmp_path):
    split = load_data("digits").train.take(400)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    model = train(model, split, epochs=15, progress=False)
    before = {name: layer.weight.clone() for name, layer in named_layers(model).items()}
    coded = clip_q(model, split, 0.7, 3, epochs=6, seed=1, progress=False)
    save(coded, tmp_path / "net.safetensors", entropy=True)
    loaded = load(tmp_path / "net.safetensors", model)
    assert torch.equal(loaded(split.x()), coded(split.x()))
    plain = decompress(coded)
    assert sparsity_of(plain) == pytest.approx(0.7, abs=1e-3)
    at_once = decompress(convert(prepare(model, lambda weight: ClipQ(0.7, 3))))
    assert accuracy(plain, split) > accuracy(at_once, split)
    assert all(torch.equal(before[name], layer.weight) for name, layer in named_layers(model).items())
    again = clip_q(model, split, 0.7, 3, epochs=6, seed=1, progress=False)
    assert torch.equal(again(split.x()), coded(split.x()))


def test_skipped_layers_stay_plain():
    split = load_data("digits").train.take(64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10))
    coded = clip_q(model, split, 0.5, epochs=0, skip=["2"], progress=False)
    assert type(coded[2]) is nn.Linear and torch.equal(coded[2].weight, model[2].weight)
    assert isinstance(coded[1].coded, GapSparseCode)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((torch.ones(3), 70), ValueError, "did you mean 0.7"),
        ((torch.ones(3), 0.5, 0), ValueError, "bits must be a whole number from 1 to 16, got 0"),
        ((torch.ones(3), 0.5, 2.5), TypeError, "bits"),
        ((torch.tensor([1.0, math.nan]), 0.5), ValueError, "finite"),
        ((torch.tensor([1, 2]), 0.5), TypeError, "floating-point"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        clip_partition(*arguments)


def test_bad_layers_and_settings():
    for bad in ({"fraction": -0.1}, {"fraction": 0.5, "bits": 9}, {"fraction": 0.5, "index_bits": 1}):
        with pytest.raises(ValueError, match="must be"):
            ClipQ(**bad)
    split = load_data("digits").train.take(64)
    with pytest.raises(ValueError, match="no such layer"):
        clip_q(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), split, 0.5, epochs=0, skip=["fc"])


def test_an_empty_weight_stays_empty():
    assert clip_partition(torch.zeros(0, 3), 0.5, 2).shape == (0, 3)
