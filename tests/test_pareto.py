"""Fronts, bands and averages of ratios."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gmean, ttest_1samp

from compresslab.compare.pareto import (
    break_even,
    dominates,
    geometric_mean_ratio,
    hypervolume,
    pareto_front,
    surely_dominated,
)

NUMBERS = st.integers(0, 6)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)
RATIOS = st.lists(st.floats(0.01, 100), min_size=2, max_size=8)


@given(POINTS)
def test_front_is_what_nothing_dominates(points):
    front = pareto_front(points)
    for index, (size, accuracy) in enumerate(points):
        beaten = any(s <= size and a >= accuracy and (s, a) != (size, accuracy) for s, a in points)
        assert (index in front) != beaten
    assert front == sorted(front)


@given(POINTS.filter(len))
def test_every_point_off_the_front_is_dominated_by_one_on_it(points):
    front = pareto_front(points)
    assert front
    for index in set(range(len(points))) - set(front):
        assert any(dominates(points[f], points[index], (False, True)) for f in front)


def test_duplicates_stand_and_fall_together():
    assert pareto_front([(1, 1), (1, 1), (2, 1), (2, 1)]) == [0, 1]
    assert not dominates((1, 1), (1, 1), (False, True))


def test_ties_in_one_number_are_settled_by_the_other():
    assert dominates((1, 5), (2, 5), (False, True))
    assert dominates((1, 6), (1, 5), (False, True))
    assert not dominates((1, 4), (2, 5), (False, True))
    assert pareto_front([(1, 2, 3), (1, 2, 2)], (False, False, False)) == [1]


def test_front_of_nothing_is_empty():
    assert pareto_front([]) == []


@pytest.mark.parametrize("points", [[(1, 2), (1, 2, 3)], [(1,)], [(1, math.nan)]])
def test_front_refuses_points_that_cannot_be_compared(points):
    with pytest.raises(ValueError, match="every point|nan"):
        pareto_front(points)


# ---- the band ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 3)), max_size=10))
def test_surely_dominated_is_dominated_whatever_the_true_accuracies_are(rows):
    cost, low = [c for c, _, _ in rows], [a for _, a, _ in rows]
    high = [a + width for _, a, width in rows]
    sure = surely_dominated(cost, low, high)
    for i, is_sure in enumerate(sure):
        luckiest = [(c, high[i] if j == i else low[j]) for j, c in enumerate(cost)]
        strictly = any(c <= cost[i] and a > high[i] for j, (c, a) in enumerate(luckiest) if j != i)
        assert is_sure == strictly
        if is_sure:
            assert i not in pareto_front(luckiest)


def test_touching_intervals_decide_nothing():
    assert surely_dominated([1, 2], [0.8, 0.7], [0.9, 0.8]) == [False, False]
    assert surely_dominated([1, 1], [0.8, 0.7], [0.9, 0.79]) == [False, True]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([1, 2], [0.5], [0.6]), "as long"),
        (([1], [math.nan], [0.6]), "nan"),
        (([1], [0.7], [0.6]), "low <= high"),
    ],
)
def test_surely_dominated_refuses_bad_intervals(columns, message):
    with pytest.raises(ValueError, match=message):
        surely_dominated(*columns)


# ---- area --------------------------------------------------------------------------------------------------


@given(POINTS)
def test_area_is_the_number_of_unit_squares_that_are_dominated(points):
    squares = sum(
        any(x <= i and y >= j + 1 for x, y in points) for i, j in itertools.product(range(6), range(7))
    )
    assert hypervolume(points, reference=(6, 0)) == squares


@given(POINTS, st.tuples(NUMBERS, NUMBERS))
def test_area_grows_only_by_points_that_the_front_does_not_cover(points, new):
    reference = (7, -1)  # worse than all
    before, after = hypervolume(points, reference), hypervolume([*points, new], reference)
    covered = any(x <= new[0] and y >= new[1] for x, y in points)
    assert after == before if covered else after > before


def test_area_turns_with_the_direction():
    assert hypervolume([(1, 2)], (3, 5), (False, False)) == 2 * 3
    assert hypervolume([(1, 2)], (0, 0), (True, True)) == 1 * 2


@pytest.mark.parametrize(("points", "reference", "maximize"), [
    ([(1, 2)], (3,), (False, True)), ([(1, 2, 3)], (1, 2, 3), (True,) * 3),
    ([(math.nan, 1)], (2, 2), (False, True)),
])  # fmt: skip
def test_area_refuses_other_points(points, reference, maximize):
    with pytest.raises(ValueError, match="two numbers|every point|nan"):
        hypervolume(points, reference, maximize)


# ---- ratios ------------------------------------------------------------------------------------------------


@given(RATIOS)
def test_average_of_inverse_ratios_is_the_inverse_average(ratios):
    ratio, low, high = geometric_mean_ratio(ratios)
    inverse = geometric_mean_ratio([1 / r for r in ratios])
    assert inverse == pytest.approx((1 / ratio, 1 / high, 1 / low), rel=1e-6)
    assert ratio == pytest.approx(gmean(ratios))
    assert low <= ratio * (1 + 1e-12) and ratio <= high * (1 + 1e-12)


def test_interval_of_the_ratio_is_scipys_t_interval_of_the_logarithms():
    ratios = [1.2, 3.4, 2.0, 0.9, 5.0]
    ends = ttest_1samp(np.log(ratios), 0).confidence_interval(0.9)
    assert geometric_mean_ratio(ratios, 0.9)[1:] == pytest.approx(np.exp(ends))


def test_twice_and_half_average_to_one():
    assert geometric_mean_ratio([2.0, 0.5])[0] == pytest.approx(1)


@pytest.mark.parametrize("ratios", [[2.0], [1.0, 0.0], [1.0, -2.0], [1.0, math.inf], [1.0, math.nan]])
def test_ratios_that_have_no_average_are_refused(ratios):
    with pytest.raises(ValueError, match="two finite values|positive and finite"):
        geometric_mean_ratio(ratios)


# ---- break-even --------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.integers(0, 200), st.integers(-5, 20))
def test_break_even_is_the_first_use_that_has_saved_the_cost(cost, saving):
    uses = break_even(cost, saving)
    if cost and saving <= 0:
        assert uses == math.inf
    else:
        assert uses == next(n for n in itertools.count() if n * saving >= cost)


@pytest.mark.parametrize(("cost", "saving"), [(-1, 1), (math.nan, 1), (1, math.inf)])
def test_break_even_refuses_bad_numbers(cost, saving):
    with pytest.raises(ValueError, match="cost_once"):
        break_even(cost, saving)


def test_a_saving_too_small_for_a_float_never_pays():
    assert break_even(1e308, 1e-10) == math.inf
