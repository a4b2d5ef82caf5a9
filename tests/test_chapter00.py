"""Chapter 00: what its sliders compute and the two naive compressions of its evidence; the rest goes through its checks."""

import pytest
import torch
from torch import nn

from compresslab.core.statistics import tango_interval
from compresslab.course.chapter00 import evidence, figures
from compresslab.course.chapter00.references import paired_difference, roofline
from compresslab.course.chapter00.widgets import (
    FLIP_RATES,
    draw_on_the_roof,
    draw_paired_intervals,
    paired_intervals,
    point_on_the_roof,
)

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("thousands", [1, 10, 50])
def test_the_interval_slider_shows_what_paired_difference_computes(thousands):
    n = 1000 * thousands
    for flips, low, high in paired_intervals(thousands):
        only_a, only_b = round(n * (flips + 0.002) / 2), round(n * (flips - 0.002) / 2)
        labels = torch.zeros(n, dtype=torch.long)
        a, b = labels.clone(), labels.clone()
        b[:only_a], a[only_a:only_a + only_b] = 1, 1
        wanted = torch.stack(paired_difference(a, b, labels))
        torch.testing.assert_close(torch.tensor([0.002, low, high]).double(), wanted, rtol=1e-3, atol=1e-6)


def test_the_interval_agrees_with_the_librarys_where_flips_are_many():
    flips, low, high = paired_intervals(50)[FLIP_RATES.index(0.02)]
    only_a, only_b = round(50_000 * (flips + 0.002) / 2), round(50_000 * (flips - 0.002) / 2)
    assert (low, high) == pytest.approx(tango_interval(only_a, only_b, 50_000), abs=2e-5)


def test_more_images_tell_more_networks_apart():
    told = [sum(low > 0 for _, low, _ in paired_intervals(thousands)) for thousands in (2, 10, 50)]
    assert told == [0, 2, 4]  # what the static figure shows


@pytest.mark.parametrize("log2_batch", [0, 3, 8, 10])
def test_the_point_lies_on_the_roof(log2_batch):
    data = point_on_the_roof(log2_batch, 4096, 4096, peak=5e10, bandwidth=1e10)
    intensity, seconds = roofline(2**log2_batch, 4096, 4096, 5e10, 1e10)
    assert data.intensity == intensity
    assert data.rate == pytest.approx(min(5e10, 1e10 * intensity))
    assert data.rate == pytest.approx(2 * 2**log2_batch * 4096**2 / seconds)
    assert (data.ridge, 5e10) in data.roof
    assert [x for x, _ in data.roof] == sorted(x for x, _ in data.roof)


def test_the_figures_draw():
    draw_paired_intervals(plt.subplots()[1], paired_intervals(10))
    draw_on_the_roof(plt.subplots()[1], point_on_the_roof(0, 64, 64, 1e9, 1e9))
    assert len(figures.seven_families().axes) == 8
    row = {"name": "dense", "family": "dense", "file_bytes": 1000, "change": 0.0, "low": 0.0, "high": 0.0}
    assert len(figures.ruler([row]).axes) == 2
    timed = row | {"speedup": 1.0, "speedup_low": 0.9, "speedup_high": 1.1}
    assert len(figures.ruler([timed]).axes) == 3
    assert figures.bits_in_a_row([5, 3, 6], bits=3).axes[0].texts[-2].get_text() == "byte 0 holds 157"
    assert figures.images(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), ["a", "b", "c"]).axes
    assert figures.stored_forms(torch.ones(2, 8), torch.tensor([3, 1], dtype=torch.uint8), torch.ones(3)).axes
    assert figures.race({"a": [1.0, 2.0], "b": [1.0, 1.0]}).get_xlabel()


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 1.0])
def test_drop_smallest_drops_the_smallest(sparsity):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dropped = evidence.drop_smallest(model, sparsity)
    for old, new in ((model[0].weight, dropped[0].weight), (model[2].weight, dropped[2].weight)):
        gone = new == 0
        assert gone.sum() == round(sparsity * old.numel())
        assert old[~gone].equal(new[~gone])
        assert not gone.any() or gone.all() or old[gone].abs().max() <= old[~gone].abs().min()
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_round_weights_rounds_to_multiples_of_one_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20))
    before = model[0].weight.detach().clone()
    weight = evidence.round_weights(model, 4)[0].weight.detach()
    step = before.abs().max() / 7
    torch.testing.assert_close(weight / step, (before / step).round())
    assert (weight - before).abs().max() <= step / 2 * (1 + 1e-5)
    assert model[0].weight.equal(before)
