"""AWQ: plain rounding at alpha 0, the same weight without rounding, never worse than rounding on its data."""

import copy
import math
from functools import partial

import pytest
import torch
from contract_models import Tied
from torch import nn

from compresslab.core.calibrate import collect_inputs
from compresslab.core.codes import DenseCode, UniformCode
from compresslab.core.layers import encode
from compresslab.core.size import storage_bits
from compresslab.core.store import load, save
from compresslab.quantization.awq import InputScaledCode, awq_scale, encode_awq, search_awq

INT3 = partial(UniformCode.from_dense, bits=3, axis=0)
INT4_GROUPS = partial(UniformCode.from_dense, bits=4, group_size=16)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def problem(outputs=24, inputs=64, rows=200, seed=0):
    """Inputs of which three in a hundred are loud."""
    x = randn(rows, inputs, seed=seed)
    x[:, [5, 40]] *= 40
    return randn(outputs, inputs, seed=seed + 100), x


def lost(weight, decoded, x):
    return (x.double() @ (decoded.double() - weight.double()).flatten(1).T).square().sum().item()


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_scale_formula_and_its_normalisation(alpha):
    magnitude = torch.tensor([0.5, 2.0, 8.0, 3.0])
    scale = awq_scale(magnitude, alpha)
    ratio = (magnitude / magnitude[0]) ** alpha
    torch.testing.assert_close(scale / scale[0], ratio)
    torch.testing.assert_close(scale.max() * scale.min(), torch.tensor(1.0))
    torch.testing.assert_close(awq_scale(7 * magnitude, alpha), scale)


def test_silent_inputs_count_as_the_quietest_live_one():
    scale = awq_scale(torch.tensor([0.0, 1.0, 4.0]), 0.5)
    torch.testing.assert_close(scale, awq_scale(torch.tensor([1.0, 1.0, 4.0]), 0.5))
    assert torch.equal(awq_scale(torch.zeros(3), 0.5), torch.ones(3))


@pytest.mark.parametrize("make", [INT3, INT4_GROUPS, UniformCode.from_dense])
def test_alpha_zero_is_plain_rounding(make):
    weight, x = problem()
    ones = awq_scale(x.abs().mean(0), 0.0)
    assert torch.equal(ones, torch.ones(64))
    assert torch.equal(InputScaledCode.from_dense(weight, ones, make).decode(), make(weight).decode())
    found = search_awq(weight, x, make, grid=4)
    assert found.alphas == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert found.errors[0] == pytest.approx(lost(weight, make(weight).decode(), x), rel=1e-9)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 3, 3)])
def test_without_rounding_the_weight_is_unchanged(shape):
    weight = randn(*shape)
    code = InputScaledCode.from_dense(weight, randn(5, seed=1).abs() + 0.1, DenseCode.from_dense)
    torch.testing.assert_close(code.decode(), weight)
    scaled = code.scaled.decode() / weight
    assert (scaled - scaled[:1]).abs().max() < 1e-4 and scaled.transpose(0, 1).flatten(1).std(1).max() < 1e-4


@pytest.mark.parametrize("make", [INT3, INT4_GROUPS])
def test_never_worse_than_rounding_on_its_data_and_much_better_with_loud_inputs(make):
    for seed in range(3):
        weight, x = problem(seed=seed)
        found = search_awq(weight, x, make)
        decoded = InputScaledCode.from_dense(weight, found.input_scale, make).decode()
        nearest = lost(weight, make(weight).decode(), x)
        assert lost(weight, decoded, x) == pytest.approx(min(found.errors), rel=1e-6)
        assert min(found.errors) < 0.7 * nearest and 0 < found.alpha <= 1
        _, fresh = problem(rows=400, seed=seed + 50)  # the gain is not one of these inputs only
        assert lost(weight, decoded, fresh) < 0.75 * lost(weight, make(weight).decode(), fresh)
        quiet = search_awq(weight, randn(200, 64, seed=seed), make)
        assert min(quiet.errors) <= quiet.errors[0]


def test_exact_bits():
    weight, _ = problem()
    code = InputScaledCode.from_dense(weight, torch.ones(64), INT3)
    assert storage_bits(code) == storage_bits(INT3(weight)) + 64 * 32


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()


def images(n=100):
    return randn(n, 4, 5, 5, seed=1) * torch.tensor([1.0, 1.0, 30.0, 1.0]).view(4, 1, 1)


def test_encodes_every_layer_for_its_inputs_in_the_float_network(tmp_path):
    model, x = net(), images()
    before = copy.deepcopy(model.state_dict())
    coded = encode_awq(model, iter([x[:50], (x[50:], torch.zeros(50))]), INT3, max_rows=None)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    for name, index in (("0", 0), ("3", 3), ("5", 5)):
        rows = collect_inputs(model, [name], [x])[name]
        found = search_awq(model[index].weight, rows, INT3)
        expected = InputScaledCode.from_dense(model[index].weight, found.input_scale, INT3).decode()
        torch.testing.assert_close(coded[index].weight, expected)
    assert coded[0].coded.input_scale.shape == (4,) and coded[0].coded.input_scale.argmax() == 2
    nearest = encode(model, INT3)
    with torch.no_grad():  # layer by layer it is better; the sum of the layers' errors need not be
        for index, inputs in ((0, x), (3, model[:3](x)), (5, model[:5](x))):
            off = [(m[index](inputs) - model[index](inputs)).square().sum() for m in (coded, nearest)]
            assert off[0] <= off[1]
        save(coded, tmp_path / "model")
        assert torch.equal(load(tmp_path / "model", model)(x), coded(x))


def test_where_rounding_is_best_no_scales_are_stored():
    model = nn.Sequential(nn.Linear(4, 2))
    model[0].weight.data = torch.tensor([[7.0, 1.0, -2.0, 3.0], [7.0, -7.0, 0.0, 1.0]])  # integers: exact in 4 bits
    coded = encode_awq(model, [randn(20, 4)])
    assert type(coded[0].coded) is UniformCode and torch.equal(coded[0].weight, model[0].weight)


def test_only_skip_and_shared_weights():
    model, x = net(), images(10)
    coded = encode_awq(model, [x], INT3, only=["0", "3"], skip=["0"])
    assert type(coded[0]) is nn.Conv2d and type(coded[3]) is not nn.Linear and type(coded[5]) is nn.Linear
    torch.manual_seed(0)
    tied = encode_awq(Tied(), [torch.randint(0, 11, (20, 4), generator=torch.Generator().manual_seed(0))], INT3)
    assert tied.embedding.coded is tied.out.coded


def test_degenerate_weights():
    x = randn(30, 8)
    for weight in (torch.zeros(2, 8), torch.full((2, 8), 0.5), randn(2, 8).abs()):
        found = search_awq(weight, x, INT3)
        assert torch.isfinite(found.input_scale).all() and math.isfinite(min(found.errors))
    assert search_awq(torch.zeros(2, 8), x, INT3).alpha == 0
    assert search_awq(randn(2, 8), torch.zeros(3, 8), INT3).alpha == 0


def test_errors():
    weight, x = problem(inputs=64)
    with pytest.raises(ValueError, match="alpha must be in"):
        awq_scale(torch.ones(3), 1.5)
    for bad in (torch.tensor([-1.0]), torch.tensor([math.nan])):
        with pytest.raises(ValueError, match="magnitude must be finite"):
            awq_scale(bad, 0.5)
    for bad in (x[:, :5], x[:0], x[0]):
        with pytest.raises(ValueError, match=r"inputs must have shape \(N, 64\)"):
            search_awq(weight, bad)
    with pytest.raises(ValueError, match="inputs must be finite"):
        search_awq(weight, torch.full((2, 64), math.inf))
    with pytest.raises(ValueError, match="weight must be finite"):
        search_awq(torch.full((2, 64), math.nan), x)
    with pytest.raises(ValueError, match="grid must be"):
        search_awq(weight, x, grid=0)
    with pytest.raises(TypeError, match="grid must be"):
        search_awq(weight, x, grid=2.5)
    for bad in (torch.zeros(64), -torch.ones(64), torch.full((64,), math.inf)):
        with pytest.raises(ValueError, match="input_scale must be positive and finite"):
            InputScaledCode.from_dense(weight, bad)
    with pytest.raises(ValueError, match="one number per input"):
        InputScaledCode.from_dense(weight, torch.ones(5))
    with pytest.raises(ValueError, match="one number per input"):
        InputScaledCode.from_dense(torch.ones(5), torch.ones(5))
    inner = INT3(weight)
    with pytest.raises(ValueError, match="must be a code of shape"):
        InputScaledCode(inner, torch.ones(64), (24, 32))
    with pytest.raises(ValueError, match="one number per input"):
        InputScaledCode(inner, torch.ones(5), (24, 64))
    with pytest.raises(ValueError, match="no calibration data"):
        encode_awq(net(), [])
    with pytest.raises(ValueError, match=r"group_size 16 does not divide .* in layer '0'"):
        encode_awq(net(), [images(3)], INT4_GROUPS)
    with pytest.raises(ValueError, match="grouped convolution"):
        encode_awq(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), [torch.ones(1, 2, 1, 1)])
    with pytest.raises(ValueError, match="no such layer"):
        encode_awq(net(), [images(3)], only=["1"])
    with pytest.raises(ValueError, match="nothing to code"):
        encode_awq(nn.Sequential(nn.ReLU()), [images(3)])


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4, 0, 3, 3)])
def test_an_empty_weight_has_unit_scales(shape):
    found = search_awq(torch.zeros(shape), randn(5, math.prod(shape[1:])), grid=2)
    assert found.input_scale.shape == shape[1:2] and set(found.errors) == {0.0}
