"""Chapter 03, first half: what its widget computes, what its figures draw, and that references say what the library says."""

import matplotlib.pyplot as plt
import pytest
import torch
from torch.nn import functional as F

from compresslab.compact import fire, separable, shuffle
from compresslab.course.chapter03 import figures
from compresslab.course.chapter03 import references_blocks as references
from compresslab.course.chapter03.widgets import CostLook, draw_cost


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# -- the widget --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width_mult", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("log_groups", [0, 4])
def test_a_position_prices_the_layer_that_it_names(width_mult, log_groups):
    look = CostLook(references.conv_cost)
    data = look(width_mult, 5, log_groups)
    channels, groups = round(64 * width_mult), 2**log_groups
    assert data.cost == references.conv_cost(channels, channels, 5, 16, 16, 1, groups)
    assert data.layer.startswith(f"{channels} to {channels}, 5x5") and (f"{groups} groups" in data.layer) == (groups > 1)
    assert data == look(width_mult, 5, log_groups) and data.start == look(1.0, 3, 0).cost
    draw_cost(plt.subplots()[1], data)


def test_half_the_width_is_a_quarter_of_parameters_and_macs_and_more_than_a_quarter_of_what_moves():
    data = CostLook(references.conv_cost)(0.5, 3, 0)
    parameters, macs, moved = (now / before for now, before in zip(data.cost, data.start))
    assert parameters == macs == 0.25 < moved < 0.5


# -- the figures -------------------------------------------------------------------------------------


def rows():
    for place, block in enumerate(figures.BLOCKS):
        for seed in range(3):
            yield {"experiment": "blocks", "block": block, "seed": seed, "parameters": 19_000 + place, "macs": 1e6 * (place + 1),
                   "accuracy": 0.9 + place / 100 + seed / 1000}
    for batch in (1, 64):
        yield {"experiment": "latency", "batch": batch, "rows": [
            {"block": block, "milliseconds": batch * (place + 1.0), "q1": place + 0.5, "q3": place + 2.0}
            for place, block in enumerate(figures.BLOCKS)]}


def test_blocks_stand_at_their_price_in_three_currencies():
    figure = figures.blocks_compared(rows(), batch=1)
    for ax, wanted in zip(figure.axes, (lambda k: 19 + k / 1000, lambda k: k + 1, lambda k: k + 1)):
        lines = {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}
        assert list(lines) == list(figures.BLOCKS) and ax.get_xlabel()
        for place, line in enumerate(lines.values()):
            assert (float(line.get_xdata()[0]), float(line.get_ydata()[0])) == pytest.approx((wanted(place), 90.1 + place))
        marks = [line for line in ax.get_lines() if line.get_marker() == "_"]
        assert [len(mark.get_ydata()) for mark in marks] == [3] * len(figures.BLOCKS)
    for part in zip(*figures.BLOCKS.values()):  # colours and markers: each tells all blocks apart
        assert len(set(part)) == len(figures.BLOCKS)


def test_blocks_compared_with_what_is_there():
    assert len(figures.blocks_compared([]).axes) == 3
    assert figures.blocks_compared([row for row in rows() if row["experiment"] == "blocks"]).axes[2].get_lines() == []


def test_connections_say_how_many_inputs_an_output_sees():
    table = torch.tensor([[True, True, False], [True, False, False]])
    ax = figures.connections({"one": table, "two": table.T}).axes[0]
    assert ax.get_title() == "one\nan output sees 1 or 2 of 3" and len(ax.patches) == 6


def test_the_other_figures_draw():
    assert sum(len(ax.patches) for ax in figures.map_of_compact().axes[:4]) == 4 * 64 + 64 + 64 + 8 + 32
    shares = figures.cost_by_layer({"a": (1, 3, 5), "b": (3, 1, 5)}).axes
    assert [bar.get_width() for bar in shares[0].patches] == [25, 75] and [bar.get_width() for bar in shares[2].patches] == [50, 50]
    heights = [bar.get_height() for bar in figures.three_prices({"a": (10, 20, 40), "b": (1, 4, 40)}).patches]
    assert heights == pytest.approx([100, 10, 100, 20, 100, 100])
    assert len(figures.kernels(torch.randn(3, 3, 3), torch.randn(3, 3, 3)).axes) == 7


# -- the references say what the library says ----------------------------------------------------------


def test_fire_is_the_librarys():
    mine, theirs = references.Fire(6, 2, 3, 4), fire.Fire(6, 2, 3, 4)
    assert sum(p.numel() for p in mine.parameters()) == fire.fire_parameters(6, 2, 3, 4)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), mine.state_dict().values(), strict=True)))
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(mine(x), theirs(x))


def test_the_nearest_separable_layer_is_the_librarys():
    conv = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    depthwise, pointwise = references.project_separable(conv.weight.detach())
    x = torch.randn(1, 3, 6, 6)
    dense = F.conv2d(x, pointwise * depthwise.transpose(0, 1), padding=1)
    torch.testing.assert_close(dense, separable.separate_conv(conv)(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_the_shuffle_is_the_librarys(groups):
    x = torch.randn(2, 12, 3, 2)
    assert references.channel_shuffle(x, groups).equal(shuffle.channel_shuffle(x, groups))
