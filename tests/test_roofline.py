"""The roofline and what layers cost, against hand-worked cases; the measurements against what must hold anywhere."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compresslab.compare.energy import moved_activations
from compresslab.core import UniformCode, count_macs, encode
from compresslab.deploy import roofline
from compresslab.deploy.roofline import (
    LayerCost,
    Roofline,
    fastest,
    layer_costs,
    measure_bandwidth,
    measure_peak,
    measure_roofline,
    predict_milliseconds,
)
from compresslab.lowrank import decompose
from compresslab.models import build_model
from compresslab.pruning import prune_channels

positive = st.floats(1e-3, 1e12)


@given(positive, positive, positive, positive)
def test_the_two_forms_of_the_roof_agree(peak, bandwidth, macs, moved):
    roof = Roofline(peak, bandwidth)
    assert roof.seconds(macs, moved) == pytest.approx(macs / roof.attainable(macs / moved), rel=1e-9)
    assert roof.attainable(roof.ridge) == pytest.approx(peak)
    assert roof.attainable(roof.ridge / 2) == pytest.approx(peak / 2)


@pytest.mark.parametrize("values", [(0.0, 1.0), (1.0, -1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_a_roof_needs_two_positive_numbers(values):
    with pytest.raises(ValueError, match="must be a finite number above 0, got"):
        Roofline(*values)


def test_negative_work_is_refused():
    roof = Roofline(1.0, 1.0)
    with pytest.raises(ValueError, match="intensity must be 0 or more, got -1"):
        roof.attainable(-1)
    with pytest.raises(ValueError, match="0 or more, got 1 and -2"):
        roof.seconds(1, -2)


def test_a_strided_grouped_convolution_by_hand():
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)  # 4x8x8 -> 6x4x4; 6 * 2 * 9 weights, 6 biases
    (cost,) = layer_costs(nn.Sequential(layer, nn.ReLU()), (4, 8, 8), batch=3, weight_bits=4, activation_bits=16)
    assert (cost.name, cost.kind) == ("0", "Conv2d")
    assert cost.macs == 3 * 6 * 16 * 2 * 9
    assert cost.weight_bytes == (108 + 6) * 4 / 8
    assert cost.activation_bytes == 3 * (256 + 96) * 2
    assert cost.moved == cost.weight_bytes + cost.activation_bytes
    assert cost.intensity == cost.macs / cost.moved


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_the_sums_are_those_of_the_other_counters(name):
    model = build_model(name)
    costs = layer_costs(model, (3, 32, 32), batch=2)
    macs = count_macs(model, (3, 32, 32))
    assert {cost.name: cost.macs for cost in costs} == {layer: 2 * count for layer, count in macs.by_layer.items()}
    assert sum(cost.activation_bytes for cost in costs) == 2 * 4 * moved_activations(model, (3, 32, 32))
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert sum(cost.weight_bytes for cost in costs) == 4 * sum(p.numel() for layer in layers for p in layer.parameters())


def test_weights_are_shared_by_the_batch_and_activations_are_not():
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    for one, many in zip(layer_costs(model, (8,)), layer_costs(model, (8,), batch=10), strict=True):
        assert many.weight_bytes == one.weight_bytes
        assert (many.macs, many.activation_bytes) == (10 * one.macs, 10 * one.activation_bytes)
        assert many.intensity > one.intensity


def test_a_compressed_network_counts_as_what_runs():
    model = build_model("resnet")
    dense = layer_costs(model, (3, 32, 32))
    assert layer_costs(encode(model, UniformCode.from_dense), (3, 32, 32)) == dense
    half = layer_costs(prune_channels(model, torch.zeros(1, 3, 32, 32), 0.5), (3, 32, 32))
    assert [cost.name for cost in half] == [cost.name for cost in dense]
    assert sum(cost.macs for cost in half) < 0.35 * sum(cost.macs for cost in dense)
    split = layer_costs(decompose(nn.Sequential(nn.Linear(64, 64)), {"0": 4}), (64,))
    assert sum(cost.macs for cost in split) == 2 * 4 * 64


def test_outputs_in_tuples_count():
    (cost,) = layer_costs(nn.LSTM(3, 2, batch_first=True), (5, 3))
    assert cost.macs == 5 * 4 * 2 * (3 + 2)
    assert cost.activation_bytes == 4 * (5 * 3 + 5 * 2 + 2 + 2)  # all inputs, all outputs, the last h and c


def test_a_layer_that_is_called_twice_is_two_rows_and_the_model_stays_as_it_was():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(self.fc(x))

    model = Twice().train()
    costs = layer_costs(model, (3,))
    assert [cost.name for cost in costs] == ["fc", "fc"] and costs[0] == costs[1]
    assert model.training and not model.fc._forward_hooks


@pytest.mark.parametrize(
    "argument, error, message",
    [
        ({"batch": 0}, ValueError, "batch must be a whole number of at least 1, got 0"),
        ({"batch": 1.5}, TypeError, "batch"),
        ({"weight_bits": 0}, ValueError, "weight_bits must be a finite number above 0, got 0"),
        ({"activation_bits": -8}, ValueError, "activation_bits must be a finite number above 0, got -8"),
    ],
)
def test_layer_costs_refuses(argument, error, message):
    with pytest.raises(error, match=message):
        layer_costs(nn.Linear(2, 2), (2,), **argument)


def test_the_sum_of_the_bounds_is_at_least_the_bound_of_the_sums():
    costs = layer_costs(build_model("mobilenet"), (3, 32, 32))
    roof = Roofline(peak=5e10, bandwidth=1e10)
    together = 1e3 * roof.seconds(sum(cost.macs for cost in costs), sum(cost.moved for cost in costs))
    assert predict_milliseconds(costs, roof) > together
    alone = [LayerCost("a", "Linear", 50, 10, 10)]
    assert predict_milliseconds(alone, Roofline(100.0, 10.0)) == 2000.0  # 0.5 s to compute, 2 s to move


# -- measuring, with a clock of our own ------------------------------------------------------------------


class Machine:
    """A clock that only calls move; the n-th call takes the n-th time, then the last one for ever."""

    def __init__(self, *seconds):
        self.seconds, self.now, self.calls = list(seconds), 0.0, 0

    def __call__(self):
        self.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1


def test_the_fastest_run_counts_and_the_first_does_not():
    machine = Machine(0.001, 5.0, 2.0, 3.0)
    assert fastest(machine, 3, clock=lambda: machine.now) == pytest.approx(2.0)
    assert machine.calls == 4


def test_short_calls_are_made_often_enough_for_the_clock():
    machine = Machine(1e-5)
    assert fastest(machine, 2, clock=lambda: machine.now) == pytest.approx(1e-5)
    assert machine.calls == pytest.approx(201, abs=2)


def test_bytes_of_a_copy_are_read_and_written(monkeypatch):
    monkeypatch.setattr(roofline, "fastest", lambda call, repeats: 0.5)
    assert measure_bandwidth(8, threads=1) == 2 * 8e6 / 0.5


def test_the_best_size_makes_the_peak(monkeypatch):
    times = iter([1e-3, 2e-3, 64e-3])
    monkeypatch.setattr(roofline, "fastest", lambda call, repeats: (call(), next(times))[1])
    assert measure_peak(sizes=(2, 4, 8), threads=1) == 64 / 2e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_peak_is_measured_and_the_threads_are_given_back(dtype):
    before = torch.get_num_threads()
    assert measure_peak(dtype, sizes=(16,), threads=1, repeats=1) > 0
    assert torch.get_num_threads() == before


def test_the_integer_product_is_one():
    (product,) = roofline._integer_product(5, "int8")()
    assert product.dtype == "int32" and (product == 5).all()


def test_a_whole_roofline(monkeypatch):
    monkeypatch.setattr(roofline, "measure_peak", lambda dtype, threads, repeats: {"int8": 8.0}[dtype])
    monkeypatch.setattr(roofline, "measure_bandwidth", lambda megabytes, threads, repeats: megabytes)
    assert measure_roofline("int8", megabytes=2) == Roofline(8.0, 2)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: measure_peak("int4"), ValueError, "dtype must be one of float32, .*, int8, got 'int4'"),
        (lambda: measure_peak(sizes=()), ValueError, "at least one size"),
        (lambda: measure_peak(sizes=(0,)), ValueError, "a size in sizes must be a whole number of at least 1, got 0"),
        (lambda: measure_peak(threads=0), ValueError, "threads must be a whole number of at least 1, got 0"),
        (lambda: measure_peak(sizes=(2,), repeats=0), ValueError, "repeats must be a whole number of at least 1, got 0"),
        (lambda: measure_bandwidth(0), ValueError, "megabytes must be a finite number above 0, got 0"),
        (lambda: measure_bandwidth(1, threads=2.5), TypeError, "threads"),
    ],
)
def test_measuring_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
