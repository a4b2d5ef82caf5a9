"""Chapter 06: what its widget computes, what its figures and tables say, and its answers against the library."""

import matplotlib.pyplot as plt
import pytest
import torch

from compresslab.core.statistics import mean_interval
from compresslab.course.chapter06 import figures, figures_structures
from compresslab.course.chapter06 import references_hashing as hashing
from compresslab.course.chapter06 import references_structures as structures
from compresslab.course.chapter06.widgets import BucketLook, draw_buckets
from compresslab.sharing import circulant, circulant_product, collisions, hash_indices, nearest_circulant


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# -- the widget --------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0, 5, 10])
def test_the_look_counts_who_shares_as_the_library_does(power):
    look = BucketLook(hashing.hash_indices, (16, 64), {"with signs": {1: 0.8, 1024: 0.9}})
    data = look(power)
    loads = torch.bincount(hash_indices((16, 64), 2**power, 0)[0].flatten(), minlength=2**power)
    assert data.sharing == pytest.approx(collisions(loads) / 1024)
    assert data.empty == pytest.approx(int((loads == 0).sum()) / len(loads))
    assert data.corner.shape == data.signs.shape == (12, 12)


def test_the_look_is_drawn_with_its_position():
    data = BucketLook(hashing.hash_indices, (16, 64), {"with signs": {1: 0.8, 1024: 0.9}})(3)
    _, axes = plt.subplots(1, 2)
    draw_buckets(axes, data)
    assert axes[0].get_title().startswith("8 buckets")
    assert [line.get_xdata()[0] for line in axes[1].lines][-1] == 8


# -- figures and tables ------------------------------------------------------------------------------


def row(method: str, unique: int, seed: int, accuracy: float) -> dict:
    return {"method": method, "unique": unique, "seed": seed, "accuracy": accuracy, "file_bytes": 4 * unique}


def test_a_method_is_compared_with_the_control_of_its_own_size_and_seed():
    rows = [row("hashed", 1000, seed, 0.9 + 0.01 * seed) for seed in range(3)]
    rows += [row("small dense", 950, seed, 0.88) for seed in range(3)] + [row("small dense", 5000, seed, 0.99) for seed in range(3)]
    (found,) = figures.against_control(rows)
    mean, low, high = mean_interval([2.0, 3.0, 4.0])
    assert (found["unique"], found["control"], found["seeds"]) == (1000, 950, 3)
    assert (found["gain"], found["low"], found["high"]) == pytest.approx((mean, low, high))
    assert figures.against_control([*rows, row("hashed", 20_000, 0, 0.5)]) == [found]  # nothing stores as much


def test_what_lies_far_below_the_controls_is_named_at_the_lower_edge():
    rows = [row("small dense", 1000, 0, 0.9), row("small dense", 2000, 0, 0.95), row("low rank", 1500, 0, 0.5)]
    axes = figures.sharers(rows).axes
    assert axes[0].get_ylim()[0] == pytest.approx(88)
    assert [text.get_text() for text in axes[0].texts] == ["low rank: 50 %"]


def test_the_transform_is_faster_from_the_size_after_its_last_defeat():
    ratios = {256: 0.5, 512: 1.2, 1024: 0.9, 2048: 3.0, 4096: 5.0}
    rows = [{"n": n, "batch": 1, "ratio": ratio, "low": ratio, "high": ratio, "dense_ms": ratio, "fft_ms": 1.0} for n, ratio in ratios.items()]
    assert figures_structures.faster_from(rows, 1) == 2048
    assert figures_structures.faster_from(rows[:3], 1) is None and figures_structures.faster_from(rows, 64) is None
    table = figures_structures.crossover_table(rows, {256: 14.2})
    assert len(table.splitlines()) == 6 and table.count("x fewer") == 1


# -- the learner's functions -------------------------------------------------------------------------


def test_the_references_are_the_library():
    r, matrix = torch.arange(5.0), torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(structures.circulant(r), circulant(r))
    torch.testing.assert_close(structures.circulant_product(r, x), circulant_product(r, x))
    torch.testing.assert_close(structures.nearest_circulant(matrix), nearest_circulant(matrix))
    for mine, theirs in zip(hashing.hash_indices((7, 9), 5, 3), hash_indices((7, 9), 5, 3), strict=True):
        assert torch.equal(mine, theirs)
