"""The energy model: every number against the printed table or a sum by hand."""

import math

import pytest
import torch
from torch import nn

from compresslab.compare.energy import (
    ACCESS_PJ,
    EnergyReport,
    access_energy,
    energy,
    energy_per_image,
    mac_energy,
    moved_activations,
)
from compresslab.core.codes import UniformCode
from compresslab.core.layers import encode


def convolution() -> nn.Sequential:
    """3 x 8 x 8 to 4 x 6 x 6, then to 10: 3888 and 1440 MACs, 112 and 1450 parameters."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


@pytest.mark.parametrize(
    ("kind", "picojoules"),
    [("float32", 3.7 + 0.9), ("float16", 1.1 + 0.4), ("int32", 3.1 + 0.1), ("int8", 0.2 + 0.1)],
)
def test_price_of_a_mac_is_the_tables(kind, picojoules):
    assert mac_energy(kind) == pytest.approx(picojoules)


def test_price_of_an_access_is_that_of_64_bits_and_rises_with_the_memory():
    assert [access_energy(64, level) for level in ("sram_8k", "sram_32k", "sram_1m")] == [10, 20, 100]
    assert (access_energy(64, "dram"), access_energy(64, "dram_high")) == (1300, 2600)
    assert list(ACCESS_PJ.values()) == sorted(ACCESS_PJ.values())
    assert access_energy(32, "dram") / mac_energy("float32") == pytest.approx(141, abs=1)


def test_energy_of_a_small_network_by_hand():
    report = energy_per_image(convolution(), (3, 8, 8))
    assert report.compute_pj == pytest.approx((3888 + 1440) * 4.6)
    assert report.weights_pj == pytest.approx((112 + 1450) * 650)
    assert report.activations_pj == pytest.approx((192 + 144 + 144 + 10) * 50)
    assert report.total_pj == pytest.approx(report.compute_pj + report.weights_pj + report.activations_pj)


def test_memory_dominates_where_weights_are_used_once_and_not_where_they_are_used_often():
    assert energy(1000, 1000, 0).memory_share > 0.99
    assert energy(1_000_000, 1000, 0).memory_share < 0.15


def test_bits_scale_traffic_and_choose_the_arithmetic():
    full = energy_per_image(convolution(), (3, 8, 8))
    eight = energy_per_image(convolution(), (3, 8, 8), weight_bits=8, activation_bits=8)
    assert eight.weights_pj == full.weights_pj / 4 and eight.activations_pj == full.activations_pj / 4
    assert eight.compute_pj / full.compute_pj == pytest.approx(0.3 / 4.6)
    mixed = energy_per_image(convolution(), (3, 8, 8), weight_bits=4)
    assert mixed.compute_pj == full.compute_pj  # float activations: 4-bit weights are computed with as floats
    half = energy_per_image(convolution(), (3, 8, 8), weight_bits=4, activation_bits=16)
    assert half.compute_pj == pytest.approx(5328 * 1.5)


def test_memory_level_prices_the_weights():
    near = energy_per_image(convolution(), (3, 8, 8), weights_from="sram_8k")
    far = energy_per_image(convolution(), (3, 8, 8), weights_from="dram_high")
    assert far.weights_pj / near.weights_pj == pytest.approx(260)
    assert far.compute_pj == near.compute_pj


def test_coded_network_counts_like_its_dense_one():
    coded = encode(convolution(), UniformCode.from_dense)
    assert energy_per_image(coded, (3, 8, 8)) == energy_per_image(convolution(), (3, 8, 8))


def test_moved_activations_count_a_layer_that_is_called_twice_twice():
    layer = nn.Linear(5, 5)
    assert moved_activations(nn.Sequential(layer, nn.Tanh(), layer), (5,)) == 20
    assert not layer._forward_hooks


def test_model_is_left_as_it_was():
    model = convolution().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    energy_per_image(model, (3, 8, 8))
    after = model.state_dict()
    assert model.training and all(torch.equal(value, after[name]) for name, value in before.items())


def test_no_energy_has_no_share():
    assert EnergyReport(0.0, 0.0, 0.0).memory_share == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mac_energy("int4"), "arithmetic must be one of"),
        (lambda: access_energy(8, "l1"), "memory level must be one of"),
        (lambda: access_energy(-8, "dram"), "bits must be 0 or more"),
        (lambda: energy(-1, 0, 0), "macs must be 0 or more"),
        (lambda: energy(1, math.nan, 0), "weights must be 0 or more"),
        (lambda: energy(1, 1, 1, weight_bits=0), "weight_bits must be above 0"),
        (lambda: energy(1, 1, 1, activation_bits=-2), "activation_bits must be above 0"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
