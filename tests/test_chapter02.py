"""Chapter 02: what its widget computes and what its figures draw; the rest goes through its checks."""

import math

import matplotlib.pyplot as plt
import pytest
import torch

from compresslab.core import uniform
from compresslab.course.chapter02 import checks_grid, figures, references_grid
from compresslab.course.chapter02.references_grid import choose_scale, quantize, snr_db
from compresslab.course.chapter02.widgets import GridLook, draw_grid
from compresslab.quantization.fixed_point import fixed_point_multiplier
from compresslab.quantization.folding import fold


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def numbers():
    return torch.randn(3000, generator=torch.Generator().manual_seed(0)) ** 3 + 0.5


@pytest.fixture(scope="module")
def look(numbers):
    return GridLook(numbers, choose_scale, quantize)


# -- the widget --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_two_parts_of_the_error_are_the_librarys_error(numbers, look, bits, share, symmetric):
    low, high = share * numbers.min(), share * numbers.max()
    grid = uniform.choose_scale(low, high, bits, symmetric=symmetric)
    x_hat = uniform.fake_quantize(numbers, grid)
    data = look(bits, share, symmetric)
    assert data.rounding + data.clipping == pytest.approx(float((numbers - x_hat).square().mean()), rel=1e-4)
    assert data.snr == pytest.approx(snr_db(numbers, x_hat), abs=1e-3)
    assert data.scale == pytest.approx(float(grid.scale), rel=1e-5)
    assert len(data.levels) == 2**bits - symmetric == grid.qmax - grid.qmin + 1
    assert min(abs(level) for level in data.levels) == 0
    assert sum(data.counts) == len(numbers)


def test_nothing_is_clipped_at_the_full_range_and_much_at_a_small_one(look):
    full, small = look(4, 1.0, False), look(4, 0.05, False)
    assert full.clipping == 0 and full.clipped == 0 < small.clipped < 1
    assert full.rounding > small.rounding and small.clipping > small.rounding


def test_a_symmetric_grid_has_as_many_levels_on_both_sides(look):
    levels = look(3, 1.0, True).levels
    assert levels == pytest.approx([-level for level in reversed(levels)]) and len(levels) == 7


def test_a_perfect_grid():
    data = GridLook(torch.tensor([0.0, 1.0, 2.0, 3.0]), choose_scale, quantize)(2, 1.0, False)
    assert data.snr == math.inf and data.rounding == data.clipping == 0
    draw_grid(plt.subplots(1, 2)[1], data)


def test_a_position_is_pure_and_looks_at_a_bounded_sample():
    x = torch.randn(2, 100_001, generator=torch.Generator().manual_seed(1))
    before, big = x.clone(), GridLook(x, choose_scale, quantize)
    assert big(8, 0.5, True) == big(8, 0.5, True) and x.equal(before)
    assert 10_000 < len(big.x) <= 20_000  # a few milliseconds


def test_the_widget_draws_levels_and_hatches_what_is_clipped(look):
    left, right = plt.subplots(1, 2)[1]
    draw_grid((left, right), look(3, 0.3, False))
    hatched = [bar for bar in left.patches if bar.get_hatch()]
    assert 0 < len(hatched) < len(left.patches)
    assert len(left.collections[0].get_segments()) == 8
    assert [label.get_text() for label in right.get_xticklabels()] == ["rounding", "clipping"]


# -- the figures -------------------------------------------------------------------------------------


def rows():
    yield {"method": "float", "bits": 32, "seed": 0, "accuracy": 0.97}
    for place, method in enumerate(figures.METHODS):
        for bits in (8, 4, 2):
            for seed in range(3 if method in ("AdaRound", "QAT") else 1):
                yield {"method": method, "bits": bits, "seed": seed, "accuracy": 0.5 + bits / 20 + place / 100 + seed / 1000}


def test_accuracy_against_bits_draws_means_seeds_and_the_float_line():
    ax = figures.accuracy_bits(rows()).axes[0]
    lines = {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}
    assert list(lines) == [*figures.METHODS, "float, 32 bits"]
    assert lines["QAT"].get_ydata() == pytest.approx([100 * (0.54 + b / 20 + 0.001) for b in (2, 4, 8)])
    assert list(lines["float, 32 bits"].get_ydata()) == [97, 97]
    assert {line.get_marker() for line in lines.values()} >= {marker for _, marker, _ in figures.METHODS.values()}
    for part in zip(*figures.METHODS.values(), strict=True):  # colours, markers, lines: each tells all methods apart
        assert len(set(part)) == len(figures.METHODS)
    assert list(ax.get_xticks()) == [2, 4, 8] and ax.get_xlabel() and ax.get_ylabel()
    seeds = [line for line in ax.get_lines() if line.get_marker() == "_"]
    assert len(seeds) == 2 * 3 and all(len(line.get_ydata()) == 3 for line in seeds)


def test_accuracy_against_bits_with_what_is_there():
    assert figures.accuracy_bits([]).axes
    few = [row for row in rows() if row["method"] == "per tensor"]
    assert len(figures.accuracy_bits(few).axes[0].get_legend().get_texts()) == 1


def test_the_map_shows_as_many_levels_as_it_says():
    lines = figures.map_of_quantization().axes[1]
    drawn = [line for line in lines.get_lines() if line.get_marker() != "None"]
    for label, line in zip(lines.get_yticklabels(), drawn, strict=True):
        assert int(label.get_text().split(": ")[1].split()[0]) == len(set(line.get_xdata()))


def test_the_other_figures_draw():
    row = torch.tensor([0.1, -2.0, 0.0, 0.3])
    ax = figures.step_sizes(row, {"one scale": torch.full((4,), 0.2), "blocks": torch.tensor([0.2, 0.2, 0.01, 0.01])})
    assert list(ax.get_lines()[1].get_ydata()) == pytest.approx([0.1] * 4)
    ax = figures.range_errors([0.2, 0.5, 1.0], {"8 bits": [3.0, 2.0, 1.0], "3 bits": [3.0, 1.0, 2.0]})
    rings = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in ax.get_lines()[2:]]
    assert rings == [(100.0, 1.0), (50.0, 1.0)]
    assert len(figures.integer_layer().axes[0].patches) == 4


# -- the references say what the library says ----------------------------------------------------------


@pytest.mark.parametrize("ends", [(-1.0, 2.0), (0.0, 0.0), (0.5, 3.0), (-4.0, -1.0), (-1.3, 0.7)])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_scale_and_levels_are_the_librarys(ends, bits):
    grid = uniform.choose_scale(*ends, bits)
    scale, zero_point = choose_scale(*ends, bits)
    assert (scale, zero_point) == (pytest.approx(float(grid.scale)), int(grid.zero_point))
    x = torch.linspace(-5, 5, 1001)
    assert quantize(x, float(grid.scale), zero_point, bits).int().equal(uniform.quantize(x, grid))


def test_channels_are_the_librarys():
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    q, scale = references_grid.quantize_per_channel(weight, 4)
    rows_ = weight.flatten(1)
    grid = uniform.choose_scale(*uniform.min_max(rows_), 4, symmetric=True)
    torch.testing.assert_close(scale, grid.scale.flatten())
    assert q.flatten(1).int().equal(uniform.quantize(rows_, grid))


def test_folding_is_the_librarys():
    generator = torch.Generator().manual_seed(3)
    weight, (bias, gamma, beta, mean) = torch.randn(4, 3, 2, 2, generator=generator), torch.randn(4, 4, generator=generator)
    var = torch.rand(4, generator=generator)
    for own in (bias, None):
        found = references_grid.fold_batch_norm(weight, own, gamma, beta, mean, var, 1e-3)
        torch.testing.assert_close(found, fold(weight, own, gamma, beta, mean, var, 1e-3))


def test_fixed_point_is_the_librarys():
    for multiplier in (0.3, 0.5, 1e-4, 1 - 2.0**-40, 5.0):
        wanted = tuple(int(part) for part in fixed_point_multiplier(multiplier))
        assert references_grid.fixed_point(multiplier) == wanted


def test_the_golden_integers_are_those_of_a_hand_computed_layer():
    """2 inputs, 1 output: ((4 - 3) * 5 + (1 - 3) * 2 + 6) = 7; times one half is 3.5, rounded up; plus 10."""
    given = (torch.tensor([[4, 1]], dtype=torch.uint8), 3, torch.tensor([[5, 2]], dtype=torch.int8),
             torch.tensor([6], dtype=torch.int32), 2**30, 0, 10)  # fmt: skip
    assert checks_grid.golden(*given) == [[14]] == references_grid.integer_linear(*given).tolist()
