"""Prepare, train, convert: simulated = stored, masks, sharing, and what is refused."""

import copy
from functools import partial

import pytest
import torch
from contract_models import build
from torch import nn

from compresslab.core import (
    CodedLinear,
    Simulated,
    UniformCode,
    apply_mask_,
    convert,
    decompress,
    encode,
    load,
    prepare,
    save,
    straight_through,
    train,
)
from compresslab.data import load_data
from compresslab.quantization import FakeQuantize, round_ste

def test_what_was_shared_stays_shared():
    prepared = prepare(build("shared")[0], lambda weight: FakeQuantize())
    assert prepared.block[0] is prepared.again[0]
    coded = convert(prepared)
    assert coded.block[0] is coded.again[0]


def test_training_moves_the_latent_weights_and_the_stored_ones_are_what_was_trained():
    data = load_data("digits", train=300)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    prepared = prepare(model, lambda weight: FakeQuantize(bits=2))
    trained = train(prepared, data.train, epochs=3, progress=False)
    latent = trained[1].parametrizations.weight.original
    assert not torch.equal(latent, prepared[1].parametrizations.weight.original)
    assert all(len(row.unique()) <= 3 for row in trained[1].weight)
    assert torch.equal(decompress(convert(trained))[1].weight, trained[1].weight)


def test_a_masked_weight_stays_zero_in_the_code():
    model, _ = build("mlp")
    keep = model[0].weight.abs() > model[0].weight.abs().median()
    apply_mask_(model[0], keep)
    coded = convert(prepare(model, lambda weight: FakeQuantize(bits=4)))
    weight = coded[0].coded.decode()
    assert (weight[~keep] == 0).all() and (weight[keep] != 0).any()


def test_copies_of_a_prepared_network_are_independent():
    first = prepare(build("mlp")[0], lambda weight: FakeQuantize(bits=4))
    second = copy.deepcopy(first)
    apply_mask_(second[0], torch.zeros_like(second[0].weight, dtype=torch.bool))
    assert (second[0].weight == 0).all() and (first[0].weight != 0).any()


def test_only_and_skip_choose_layers(tmp_path):
    model, x = build("mlp")
    coded = convert(prepare(model, lambda weight: FakeQuantize(bits=3), skip=["4"]))
    assert [type(layer) is CodedLinear for layer in (coded[0], coded[2], coded[4])] == [True, True, False]
    save(coded, tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "net.safetensors", build("mlp")[0])(x), coded(x))


def test_a_simulation_without_a_forward_of_its_own_passes_gradients_straight_through():
    class Rounded(Simulated):
        def to_code(self, weight):
            return UniformCode.from_dense(weight, bits=4)

    weight = torch.tensor([[0.3, -0.7]], requires_grad=True)
    Rounded()(weight).sum().backward()
    assert weight.grad.tolist() == [[1.0, 1.0]]


def test_bad_calls_are_refused_with_the_layer_named():
    model, _ = build("mlp")
    with pytest.raises(TypeError, match="make must return a Simulated, got Identity in layer '0'"):
        prepare(model, lambda weight: nn.Identity())
    with pytest.raises(ValueError, match="group_size 5 does not divide the 13 weights .* in layer '0'"):
        prepare(model, lambda weight: FakeQuantize(group_size=5))
    prepared = prepare(model, lambda weight: FakeQuantize(), only=["0"])
    with pytest.raises(ValueError, match="the weight is simulated already in layer '0'"):
        prepare(prepared, lambda weight: FakeQuantize())
    with pytest.raises(ValueError, match="only names no such layer: 'fc'"):
        prepare(model, lambda weight: FakeQuantize(), only=["fc"])
    with pytest.raises(ValueError, match="no weight of this model is simulated"):
        convert(model)


def test_layers_can_get_different_codes():
    model, _ = build("mlp")
    codes = {"0": partial(UniformCode.from_dense, bits=2), "4": partial(UniformCode.from_dense, bits=8)}
    coded = encode(model, codes)
    assert (coded[0].coded.bits, coded[4].coded.bits) == (2, 8) and isinstance(coded[2], nn.Linear)
    with pytest.raises(ValueError, match="only names no such layer: 'x'"):
        encode(model, {"x": codes["0"]})
    with pytest.raises(ValueError, match="make_code has no function for layer '2'"):
        encode(model, codes, only=["0", "2"])


# -- the straight-through estimator --------------------------------------------------------------------------


def test_the_value_is_exact_and_the_gradient_is_what_was_asked():
    x = torch.tensor([1e8, 0.1, -3.3], requires_grad=True)
    value = torch.tensor([0.3, 7.0, -1.0])
    y = straight_through(x, value, torch.tensor([1.0, 0.0, 0.5]))
    assert torch.equal(y, value)
    (y * torch.tensor([2.0, 2.0, 2.0])).sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 1.0]


def test_rounding_has_the_gradient_one():
    x = torch.tensor([0.5, 1.5, -2.4], requires_grad=True)
    y = round_ste(x)
    y.sum().backward()
    assert y.tolist() == [0.0, 2.0, -2.0] and x.grad.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("symmetric", [True, False])
def test_fake_quantization_has_torchs_gradient(symmetric):
    """Clipped at half of the largest weight, so that the mask matters."""

    def half(rows):
        return rows.amin(1, keepdim=True) / 2, rows.amax(1, keepdim=True) / 2

    weight = torch.randn(4, 60, generator=torch.Generator().manual_seed(1)).requires_grad_()
    simulated = FakeQuantize(bits=4, symmetric=symmetric, find_range=half)
    upstream = torch.randn(4, 60, generator=torch.Generator().manual_seed(2))
    (simulated(weight) * upstream).sum().backward()
    ours, weight.grad = weight.grad, None
    code = simulated.to_code(weight)
    zero = torch.zeros(4, dtype=torch.int32) if symmetric else code.zero_point.int()
    qmin, qmax = (-7, 7) if symmetric else (0, 15)
    theirs = torch.fake_quantize_per_channel_affine(weight, code.scale, zero, 0, qmin, qmax)
    (theirs * upstream).sum().backward()
    assert torch.equal(ours, weight.grad) and (ours == 0).any() and (ours != 0).any()


@pytest.mark.parametrize("bits, error", [(0, ValueError), (33, ValueError), (1, ValueError), (2.5, TypeError)])
def test_fake_quantization_refuses_bits(bits, error):
    with pytest.raises(error, match="bits must be a whole number from 2 to 8"):
        FakeQuantize(bits=bits)


@pytest.mark.parametrize("weight", [torch.zeros(3, 4), torch.full((3, 4), 0.7), torch.full((3, 1), -2.0), torch.zeros(0, 4)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_degenerate_weights_come_back(weight, symmetric):
    simulated = FakeQuantize(bits=4, symmetric=symmetric)
    torch.testing.assert_close(simulated(weight), weight)
    assert torch.equal(simulated.to_code(weight).decode(), simulated(weight))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="a weight must be finite"):
        FakeQuantize().to_code(torch.tensor([[1.0, bad]]))


def test_a_weight_that_training_has_ruined_is_refused_by_name():
    prepared = prepare(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), lambda weight: FakeQuantize(4))
    with torch.no_grad():
        prepared[1].parametrizations.weight.original[0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite.*in layer '1'"):
        convert(prepared)
