"""Intervals and tests of paired answers, against scipy, brute force and simulation."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm, ttest_1samp

from compresslab.core.statistics import (
    PairedDifference,
    mcnemar_exact,
    mean_interval,
    paired_difference,
    proportion_interval,
    tango_interval,
)


def answers(both: int, only_a: int, only_b: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return torch.tensor(a), torch.tensor(b)


def score(b: int, c: int, n: int, d: float) -> float:
    """Z(D) with the flip probability found by maximising the multinomial likelihood numerically."""

    def minus_log_likelihood(q: float) -> float:
        p = np.array([q + d, q, 1 - 2 * q - d])
        counts = np.array([b, c, n - b - c])
        return -np.sum(counts[counts > 0] * np.log(np.maximum(p[counts > 0], 1e-300)))

    low, high = max(0.0, -d), (1 - d) / 2
    q = minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))


@pytest.mark.parametrize(("b", "c", "n"), [(12, 5, 100), (1, 14, 50), (40, 37, 2000), (3, 3, 30)])
def test_at_the_ends_of_tangos_interval_the_score_test_is_just_rejected(b, c, n):
    z = norm.ppf(0.975)
    low, high = tango_interval(b, c, n)
    assert score(b, c, n, low) == pytest.approx(z, rel=1e-4)
    assert score(b, c, n, high) == pytest.approx(-z, rel=1e-4)


def test_the_interval_of_no_flips_has_the_width_that_n_allows():
    z2 = norm.ppf(0.975) ** 2
    for n in (10, 1000, 50_000):
        assert tango_interval(0, 0, n) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)))


@pytest.mark.parametrize(("b", "c", "n"), [(5, 0, 5), (0, 5, 5), (5, 0, 1000), (0, 1, 1), (500, 0, 1000)])
def test_extreme_counts_keep_the_interval_in_range_and_around_the_estimate(b, c, n):
    low, high = tango_interval(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert low < high


def test_exchanging_the_networks_mirrors_the_interval():
    low, high = tango_interval(17, 4, 300)
    assert tango_interval(4, 17, 300) == (-high, -low)


def test_many_flips_agree_with_walds_interval():
    b, c, n = 4000, 3600, 100_000
    half = norm.ppf(0.975) * math.sqrt(b + c - (b - c) ** 2 / n) / n
    assert tango_interval(b, c, n) == pytest.approx(((b - c) / n - half, (b - c) / n + half), abs=2e-5)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """2,000 simulated comparisons of 500 images, 3 % and 2 % flips: 95 % coverage within 3 standard errors (1.5 points)."""
    counts = np.random.default_rng(0).multinomial(500, [0.03, 0.02, 0.95], size=2000)
    unique, index = np.unique(counts[:, :2], axis=0, return_inverse=True)
    covered = np.array([low <= 0.01 <= high for low, high in (tango_interval(int(b), int(c), 500) for b, c in unique)])
    assert abs(covered[index.ravel()].mean() - 0.95) < 0.015


def test_paired_difference_counts_flips_and_gives_a_verdict():
    result = paired_difference(*answers(90, 8, 0, 2))
    assert (result.flips_ab, result.flips_ba, result.n) == (8, 0, 100)
    assert result.difference == pytest.approx(0.08)
    assert (result.low, result.high) == tango_interval(8, 0, 100)
    assert result.verdict == "a is better"
    assert paired_difference(*answers(90, 0, 8, 2)).verdict == "b is better"
    assert paired_difference(*answers(90, 3, 2, 5)).verdict == "not distinguishable"


def test_a_wider_confidence_gives_a_wider_interval():
    a, b = answers(180, 9, 4, 7)
    narrow, wide = paired_difference(a, b, 0.8), paired_difference(a, b, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert str(PairedDifference(0.01, -0.005, 0.02, 3, 2, 100)) == (
        "+1.00 points [-0.50, +2.00], not distinguishable, n = 100"
    )


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 5), (3, 14), (0, 20), (200, 260)])
def test_mcnemar_equals_the_exact_binomial_test(b, c):
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (7, 20), (981, 1000)])
def test_the_interval_of_a_proportion_equals_scipys_wilson_interval(successes, n):
    expected = binomtest(successes, n).proportion_ci(0.9, method="wilson")
    assert proportion_interval(successes, n, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.1, float("nan")])
def test_a_confidence_out_of_range_is_refused(confidence):
    for call in (
        lambda: tango_interval(1, 1, 10, confidence),
        lambda: proportion_interval(1, 10, confidence),
        lambda: paired_difference(*answers(1, 1, 1, 1), confidence),
    ):
        with pytest.raises(ValueError, match="confidence must be in"):
            call()
    if confidence == 95:
        with pytest.raises(ValueError, match="did you mean 0.95"):
            tango_interval(1, 1, 10, 95)


def test_impossible_counts_and_answers_are_refused():
    with pytest.raises(ValueError, match="at most n together"):
        tango_interval(6, 5, 10)
    with pytest.raises(ValueError, match="flips must be 0 or more"):
        mcnemar_exact(-1, 2)
    with pytest.raises(ValueError, match="successes must be from 0 to n"):
        proportion_interval(11, 10)
    with pytest.raises(TypeError, match="correct_b must be a bool tensor"):
        paired_difference(torch.ones(3, dtype=torch.bool), torch.ones(3))
    with pytest.raises(ValueError, match="one answer per image"):
        paired_difference(torch.ones(3, dtype=torch.bool), torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="one answer per image"):
        paired_difference(torch.ones(0, dtype=torch.bool), torch.ones(0, dtype=torch.bool))


@pytest.mark.parametrize("values", [[1.0, 2.0], [0.021, 0.025, 0.019, 0.031, 0.02], [3.0, 3.0, 3.0]])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_of_a_mean_is_that_of_scipys_one_sample_t_test(values, confidence):
    mean, low, high = mean_interval(values, confidence)
    assert mean == pytest.approx(sum(values) / len(values)) and low <= mean <= high
    if len(set(values)) > 1:
        expected = ttest_1samp(values, 0).confidence_interval(confidence)
        assert (low, high) == pytest.approx((expected.low, expected.high))
    else:
        assert low == mean == high


@pytest.mark.parametrize(("values", "confidence", "message"), [
    ([1.0], 0.95, "at least two finite values"),
    ([1.0, float("nan")], 0.95, "at least two finite values"),
    ([1.0, 2.0], 95, "did you mean 0.95"),
])  # fmt: skip
def test_a_mean_without_an_interval(values, confidence, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(values, confidence)
