"""Bits per layer: what a layer costs, measured and from the curvature, and the best split of a budget."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from compresslab.core.codes import CodebookCode, UniformCode
from compresslab.core.layers import CodedLayer, decompress, encode
from compresslab.quantization import sensitivity
from compresslab.quantization.mixed_precision import allocate_bits, allocate_greedy, encode_mixed
from compresslab.quantization.sensitivity import (
    hessian_errors,
    hutchinson_trace,
    layer_sizes,
    mean_loss,
    measured_sensitivity,
    quantization_errors,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def batches(n=24):
    x, y = randn(n, 4), torch.arange(n) % 3
    return [(x[:10], y[:10]), (x[10:], y[10:])]  # of different sizes


# ---- what a layer costs ------------------------------------------------------------------------------------


def test_measured_sensitivity_is_the_loss_with_one_layer_quantized():
    model, data = net(), batches()
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    found = measured_sensitivity(model, iter(data), bits=[2, 4])
    assert list(found) == ["0", "2"] and list(found["0"]) == [2, 4]
    for name, bits in itertools.product(["0", "2"], [2, 4]):
        one = encode(model, partial(UniformCode.from_dense, bits=bits, axis=0), only=[name])
        rise = F.cross_entropy(one(x), y) - F.cross_entropy(model(x), y)
        assert found[name][bits] == pytest.approx(rise.item(), abs=1e-6)


def test_sensitivity_leaves_the_model_alone_and_takes_other_codes():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first = measured_sensitivity(model, batches(), bits=[1], make_code=CodebookCode.from_dense, skip=["3"])
    assert first == measured_sensitivity(model, batches(), bits=[1], make_code=CodebookCode.from_dense, only=["0"])
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_errors_are_squared_distances():
    model = net()
    found = quantization_errors(model, bits=[3, 8])
    for name, bits in itertools.product(["0", "2"], [3, 8]):
        weight = model.get_submodule(name).weight.detach()
        decoded = UniformCode.from_dense(weight, bits, axis=0).decode()
        assert found[name][bits] == pytest.approx((decoded - weight).square().sum().item(), rel=1e-5)
    assert found["0"][3] > 50 * found["0"][8]


# ---- the curvature -----------------------------------------------------------------------------------------


def exact_traces(model, data, loss=F.cross_entropy):
    """The traces from the whole Hessian of each weight."""
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    traces = {}
    for name in ("0", "2"):
        weight = model.get_submodule(name).weight.detach()
        value = lambda w, name=name: loss(functional_call(model, {f"{name}.weight": w}, (x,)), y)  # noqa: E731
        H = hessian(value, weight).view(weight.numel(), weight.numel())
        traces[name] = H.trace().item()
    return traces


def test_hutchinson_finds_the_trace_of_the_exact_hessian():
    model, data = net(), batches()
    exact = exact_traces(model, data)
    found = [hutchinson_trace(model, iter(data), probes=20, seed=seed) for seed in range(30)]
    for name in ("0", "2"):
        estimates = np.array([traces[name] for traces in found])
        spread = estimates.std() / math.sqrt(30)
        assert list(found[0]) == ["0", "2"] and spread < 0.06 * exact[name]
        assert estimates.mean() == pytest.approx(exact[name], abs=4 * spread)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mean_over_all_signs_is_the_trace(monkeypatch):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 1, bias=False)).double()
    x, y = randn(5, 2).double(), randn(5, 1, seed=1).double()
    signs = iter(torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6))).double().flatten().tolist())
    draw = lambda weight, generator: weight.new_tensor([next(signs) for _ in range(weight.numel())]).view_as(weight)  # noqa: E731
    monkeypatch.setattr(sensitivity, "_random_signs", draw)
    found = hutchinson_trace(model, [(x, y)], probes=2**6, loss=F.mse_loss)
    traces = {}
    for name in ("0", "2"):
        weight = model.get_submodule(name).weight.detach()
        value = lambda w, name=name: F.mse_loss(functional_call(model, {f"{name}.weight": w}, (x,)), y)  # noqa: E731
        traces[name] = hessian(value, weight).view(weight.numel(), -1).trace().item()
    assert found == pytest.approx(traces, rel=1e-9)


def test_a_diagonal_hessian_needs_one_probe():
    layer = nn.Sequential(nn.Linear(3, 1, bias=False))
    x = torch.diag(torch.tensor([1.0, 2.0, 3.0]))  # one input at a time: H = 2 / 3 * diag(1, 4, 9)
    for seed in range(3):
        found = hutchinson_trace(layer, [(x, torch.zeros(3, 1))], probes=1, loss=F.mse_loss, seed=seed)
        assert found["0"] == pytest.approx(2 / 3 * 14)


def test_no_curvature_and_unused_layers_have_trace_zero():
    mean = lambda z, y: z.mean()  # noqa: E731
    assert hutchinson_trace(nn.Sequential(nn.Linear(3, 1)), [(randn(2, 3), randn(2))], 2, loss=mean) == {"0": 0.0}

    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.used(x)

    found = hutchinson_trace(Partly(), batches(), probes=2)
    assert found["unused"] == 0 and found["used"] > 0


def test_same_seed_same_trace_whatever_the_mode():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).train()
    state = torch.get_rng_state()
    first = hutchinson_trace(model, batches(), probes=3, seed=5)
    assert first == hutchinson_trace(model.eval(), batches(), probes=3, seed=5)
    assert first != hutchinson_trace(model, batches(), probes=3, seed=6)
    assert torch.equal(torch.get_rng_state(), state)


def test_hessian_errors_predict_the_rise_of_a_quadratic_loss():
    """A loss with the same curvature along every weight: the estimate is exact."""
    layer = nn.Sequential(nn.Linear(5, 4, bias=False))
    x = torch.eye(5)
    y = layer(x).detach()  # at the minimum
    data, loss = [(x, y)], lambda z, y: (z - y).square().sum(1).mean()  # noqa: E731
    traces, sizes = hutchinson_trace(layer, data, 3, loss=loss), layer_sizes(layer)
    estimated = hessian_errors(quantization_errors(layer, [2, 3]), traces, sizes)
    assert estimated["0"] == pytest.approx(measured_sensitivity(layer, data, [2, 3], loss=loss)["0"], rel=1e-4)
    assert sizes == {"0": 20}
    assert hessian_errors({"0": {2: 3.0}}, {"0": -1.0}, sizes) == {"0": {2: 0.0}}


# ---- the split of a budget ---------------------------------------------------------------------------------


def random_problem(seed):
    rng = np.random.default_rng(seed)
    layers, widths = [f"layer{i}" for i in range(rng.integers(1, 6))], [2, 3, 4, 8]
    errors = {
        layer: {b: float(10 ** rng.uniform(-9, 2) * 4.0**-b * rng.uniform(0.5, 2)) for b in widths[: rng.integers(1, 5)]}
        for layer in layers
    }
    sizes = {layer: int(rng.integers(1, 100_000)) for layer in layers}
    return errors, sizes


def total(errors, chosen):
    return sum(errors[layer][b] for layer, b in chosen.items())


def spent(sizes, chosen):
    return sum(sizes[layer] * b for layer, b in chosen.items())


@pytest.mark.parametrize("seed", range(12))
def test_exact_split_equals_enumeration_and_greedy_is_never_better(seed):
    errors, sizes = random_problem(seed)
    every = [dict(zip(errors, bits, strict=True)) for bits in itertools.product(*errors.values())]
    prices = sorted(spent(sizes, chosen) for chosen in every)
    for budget in {prices[0], prices[len(prices) // 3], prices[2 * len(prices) // 3] + 1, prices[-1] + 10}:
        best = min(total(errors, chosen) for chosen in every if spent(sizes, chosen) <= budget)
        exact, greedy = allocate_bits(errors, sizes, budget), allocate_greedy(errors, sizes, budget)
        assert list(exact) == list(greedy) == list(errors)
        assert spent(sizes, exact) <= budget and spent(sizes, greedy) <= budget
        worst = sum(max(row.values()) - min(row.values()) for row in errors.values())
        assert total(errors, exact) <= best * (1 + 1e-9) + 1e-9 * worst
        assert total(errors, greedy) >= best * (1 - 1e-12)


def test_greedy_can_be_worse():
    errors = {"a": {2: 3.0, 4: 0.0}, "b": {2: 10.0, 4: 0.0}}
    sizes = {"a": 1, "b": 10}
    assert allocate_greedy(errors, sizes, 42) == {"a": 4, "b": 2}
    assert allocate_bits(errors, sizes, 42) == {"a": 2, "b": 4}


def test_a_large_budget_buys_the_least_error_and_a_tight_one_the_fewest_bits():
    errors = {"a": {2: 5.0, 4: 1.0, 8: 2.0}, "b": {2: 1.0, 8: 0.5}}  # eight bits are worse than four in a
    sizes = {"a": 1000, "b": 10}
    for allocate in (allocate_bits, allocate_greedy):
        assert allocate(errors, sizes, 10**9) == {"a": 4, "b": 8}
        assert allocate(errors, sizes, 2020) == {"a": 2, "b": 2}
        with pytest.raises(ValueError, match="a budget of 2019 bits cannot be met; the smallest that can is 2020"):
            allocate(errors, sizes, 2019)
        equal = allocate({"a": {2: 0.0, 4: 0.0}}, {"a": 7}, 28)
        assert equal["a"] in (2, 4)


def test_budget_is_met_for_many_layers_of_real_sizes():
    rng = np.random.default_rng(0)
    sizes = {f"l{i}": int(n) for i, n in enumerate(rng.choice([432, 4608, 9216, 36_864, 147_456, 1_000_001], 25))}
    errors = {layer: {b: rng.uniform(0.1, 1) * 4.0**-b for b in range(2, 9)} for layer in sizes}
    for share in (2.0, 2.01, 3.3, 5.0, 7.99):
        budget = int(share * sum(sizes.values()))
        exact, greedy = allocate_bits(errors, sizes, budget), allocate_greedy(errors, sizes, budget)
        assert spent(sizes, exact) <= budget and spent(sizes, greedy) <= budget
        assert total(errors, exact) <= total(errors, greedy) * (1 + 1e-9)


def test_encode_mixed_stores_each_layer_with_its_width():
    model, x = net(), randn(5, 4)
    bits = allocate_bits(quantization_errors(model, [2, 4, 8]), layer_sizes(model), budget_bits=24 * 8 + 18 * 2)
    assert spent(layer_sizes(model), bits) <= 228
    coded = encode_mixed(model, {"0": 8, "2": 3})
    assert (coded[0].coded.bits, coded[2].coded.bits) == (8, 3)
    assert torch.equal(coded[0].weight, UniformCode.from_dense(model[0].weight, 8, axis=0).decode())
    assert torch.equal(decompress(coded)(x), coded(x))
    partly = encode_mixed(model, {"2": 1}, CodebookCode.from_dense)
    assert isinstance(partly[0], nn.Linear) and len(partly[2].coded.codebook) == 2
    assert not any(isinstance(module, CodedLayer) for module in model.modules())


# ---- what is refused ---------------------------------------------------------------------------------------


def test_bad_arguments_are_refused():
    model, data = net(), batches()
    for run in (partial(measured_sensitivity, model, data), partial(quantization_errors, model)):
        for bits in (0, 33):
            with pytest.raises(ValueError, match="bits must be"):
                run([bits])
        with pytest.raises(TypeError, match="bits must be"):
            run([2.5])
        with pytest.raises(ValueError, match="at least one width"):
            run([])
        with pytest.raises(ValueError, match="no such layer"):
            run([4], only=["1"])
    for run in (measured_sensitivity, hutchinson_trace, mean_loss):
        with pytest.raises(ValueError, match="no calibration data"):
            run(model, [])
    with pytest.raises(ValueError, match="there is no Linear"):
        hutchinson_trace(nn.ReLU(), data)
    with pytest.raises(ValueError, match="probes must be"):
        hutchinson_trace(model, data, 0)
    with pytest.raises(ValueError, match="bits must be.* in layer '2'"):
        encode_mixed(model, {"0": 4, "2": 33})
    with pytest.raises(ValueError, match="no such layer"):
        encode_mixed(model, {"9": 4})


@pytest.mark.parametrize("allocate", [allocate_bits, allocate_greedy])
def test_bad_problems_are_refused(allocate):
    with pytest.raises(ValueError, match="at least one layer"):
        allocate({}, {}, 10)
    with pytest.raises(ValueError, match="at least one width, got none in layer 'a'"):
        allocate({"a": {}}, {"a": 3}, 10)
    with pytest.raises(ValueError, match="there is no size in layer 'a'"):
        allocate({"a": {2: 1.0}}, {}, 10)
    with pytest.raises(ValueError, match="errors must be finite, got nan at 2 bits in layer 'a'"):
        allocate({"a": {2: math.nan}}, {"a": 3}, 10)
    with pytest.raises(TypeError, match="budget_bits must be"):
        allocate({"a": {2: 1.0}}, {"a": 3}, 10.5)
    with pytest.raises(ValueError, match="bits must be"):
        allocate({"a": {0: 1.0}}, {"a": 3}, 10)
    with pytest.raises(ValueError, match="the size must be"):
        allocate({"a": {2: 1.0}}, {"a": 0}, 10)


def test_traces_must_be_there():
    for traces in ({}, {"a": math.nan}):
        with pytest.raises(ValueError, match="a finite trace for every layer, got none in layer 'a'"):
            hessian_errors({"a": {2: 1.0}}, traces, {"a": 3})


@pytest.mark.parametrize("seed", [35, 37, 48])
def test_the_budget_is_kept_to_the_bit(seed):
    """Sizes without a common divisor, and a bit less than a split takes: the solver's own tolerance is wider."""
    rng = np.random.default_rng(seed)
    widths, sizes = (2, 3, 4, 6, 8), {f"l{i}": int(rng.integers(1, 5_000_000)) for i in range(rng.integers(3, 6))}
    errors = {
        layer: {b: float(rng.uniform(0.5, 1) * 4.0**-b * 10 ** rng.uniform(-3, 3)) for b in widths} for layer in sizes
    }
    every = [dict(zip(sizes, bits, strict=True)) for bits in itertools.product(widths, repeat=len(sizes))]
    for picked in rng.integers(0, len(every), 4):
        budget = max(spent(sizes, every[picked]) - 1, 2 * sum(sizes.values()))
        best = min(total(errors, chosen) for chosen in every if spent(sizes, chosen) <= budget)
        found = allocate_bits(errors, sizes, budget)
        assert spent(sizes, found) <= budget and total(errors, found) <= best * (1 + 1e-9)
