"""Ranges: order statistics against numpy, the two searches against enumeration, scipy for the divergence."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from compresslab.core.codes import UniformCode
from compresslab.core.uniform import choose_scale, fake_quantize, min_max
from compresslab.quantization.fake import FakeQuantize
from compresslab.quantization.ranges import (
    EPSILON,
    MovingAverage,
    divergence,
    entropy_range,
    mse_range,
    percentile_range,
)

ESTIMATORS = [
    percentile_range,
    partial(percentile_range, fraction=0.9),
    partial(mse_range, bits=3, symmetric=True, steps=20),
    partial(mse_range, bits=4, symmetric=False, steps=20),
    partial(entropy_range, bits=4, bins=64),
]


def heavy_tailed(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) ** 3


def error_of(row, low, high, bits, symmetric):
    grid = choose_scale(low, high, bits, symmetric=symmetric)
    return (fake_quantize(row, grid) - row).double().square().sum().item()


class TestPercentile:
    @pytest.mark.parametrize("m", [1, 2, 5, 100, 1001])
    @pytest.mark.parametrize("fraction", [0.0, 0.5, 0.777, 0.99, 0.999, 1.0])
    def test_is_numpys_quantile_rounded_outwards(self, m, fraction):
        rows = heavy_tailed(4, m)
        low, high = percentile_range(rows, fraction)
        tail = (1 - fraction) / 2
        assert low.shape == high.shape == (4, 1)
        np.testing.assert_array_equal(low[:, 0], np.quantile(rows.numpy(), tail, axis=1, method="lower"))
        np.testing.assert_array_equal(high[:, 0], np.quantile(rows.numpy(), 1 - tail, axis=1, method="higher"))
        assert ((rows >= low) & (rows <= high)).float().mean() >= fraction - 1e-6

    def test_whole_tails_are_cut(self):
        row = torch.arange(6.0)  # (1 - 0.6) / 2 * 5 = 1 exactly: one from either end
        assert [t.item() for t in percentile_range(row, 0.6)] == [1.0, 4.0]
        assert [t.item() for t in percentile_range(row, 1.0)] == [0.0, 5.0]


class TestSquaredError:
    @pytest.mark.parametrize("bits, symmetric", [(2, True), (4, True), (8, True), (1, False), (4, False), (8, False)])
    def test_is_the_best_of_its_candidates_in_every_row(self, bits, symmetric):
        rows = heavy_tailed(5, 200)
        rows[1] = rows[1].abs()
        rows[2] = -rows[2].abs() - 3
        low, high = mse_range(rows, bits, symmetric, steps=25)
        for row, a, b in zip(rows, low, high, strict=True):
            candidates = []
            for k in range(1, 26):
                top = row.abs().max() * (k / 25)
                candidates.append(error_of(row, row.min().clamp(-top, top), row.max().clamp(-top, top), bits, symmetric))
            assert error_of(row, a, b, bits, symmetric) == pytest.approx(min(candidates), rel=1e-9)
            assert error_of(row, a, b, bits, symmetric) <= error_of(row, row.min(), row.max(), bits, symmetric)

    def test_few_bits_clip_more(self):
        row = heavy_tailed(2000)
        tops = [mse_range(row, bits, True, steps=40)[1].item() for bits in (2, 3, 4, 6, 8)]
        assert tops == sorted(tops) and tops[0] < tops[-1] / 2

    def test_an_outlier_costs_only_its_own_side(self):
        row = torch.cat([torch.linspace(-1, 1, 2001), torch.tensor([5.0])])
        low, high = mse_range(row, bits=4, symmetric=False)
        assert low.item() == -1 and 1 <= high.item() < 2.5


def slow_divergence(counts, kept, levels):
    """The same distributions bin by bin; the divergence itself is scipy's."""
    p = [float(c) for c in counts[:kept]]
    p[-1] += float(sum(counts[kept:]))
    q = [0.0] * kept
    for level in range(levels):
        filled = [k for k in range(kept) if k * levels // kept == level and counts[k] > 0]
        for k in filled:
            q[k] = sum(float(counts[j]) for j in filled) / len(filled)
    q = [(1 - EPSILON) * value / sum(p) + EPSILON / kept for value in q]
    return stats.entropy(p, q) - math.log(sum(q))  # scipy scales q up to 1


class TestEntropy:
    @pytest.mark.parametrize("levels", [1, 4, 8])
    def test_divergence_is_scipys(self, levels):
        counts = np.random.default_rng(0).poisson(1.5, 32).astype(float)
        counts[-8:] = [0, 0, 0, 1, 0, 0, 0, 1]
        for kept in range(levels, 33):
            assert divergence(counts, kept, levels) == pytest.approx(slow_divergence(counts, kept, levels), abs=1e-12)

    @pytest.mark.parametrize("bits", [2, 3, 4])
    def test_the_threshold_has_the_least_divergence_of_all(self, bits):
        for seed in range(3):
            sample = heavy_tailed(3000, seed=seed)
            high = entropy_range(sample.abs(), bits, bins=48)[1].item()
            sizes = np.unique(sample.abs().double().numpy())
            counts = np.histogram(sizes, 48, (0, sizes.max()))[0]
            candidates = {kept: slow_divergence(counts, kept, 2 ** (bits - 1)) for kept in range(2 ** (bits - 1), 49)}
            chosen = round(high / sizes.max() * 48)
            assert candidates[chosen] == pytest.approx(min(candidates.values()), abs=1e-12)
            assert high == pytest.approx(chosen / 48 * sizes.max(), rel=1e-6)

    def test_keeps_a_clean_sample_and_clips_one_outlier(self):
        clean = torch.rand(50_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
        low, high = entropy_range(clean)
        assert low.item() < -0.97 and high.item() > 0.97
        low, high = entropy_range(torch.cat([clean, torch.tensor([12.0])]))
        assert low.item() < -0.97 and 0.97 < high.item() < 1.3

    def test_repetitions_do_not_count_and_one_sided_samples_stay_one_sided(self):
        sample = heavy_tailed(20_000).abs()
        low, high = entropy_range(torch.cat([torch.zeros(20_000), sample, sample[:1].repeat(50_000)]))
        assert low.item() == 0 and high.item() == entropy_range(sample)[1].item()
        low, high = entropy_range(-sample)
        assert (low.item(), high.item()) == (-entropy_range(sample)[1].item(), -sample.min().item())

    def test_rows_are_separate(self):
        rows = heavy_tailed(3, 500)
        low, high = entropy_range(rows, 4, 64)
        for row, a, b in zip(rows, low, high, strict=True):
            assert (a.item(), b.item()) == tuple(t.item() for t in entropy_range(row, 4, 64))


class TestMovingAverage:
    def test_closed_form(self):
        batches = [heavy_tailed(50, seed=seed) for seed in range(6)]
        average = MovingAverage(momentum=0.8)
        for batch in batches:
            average.update(batch)
        weights = [0.8**5] + [0.2 * 0.8 ** (5 - k) for k in range(1, 6)]
        assert sum(weights) == pytest.approx(1)
        low, high = average.range()
        assert low.item() == pytest.approx(sum(w * b.min().item() for w, b in zip(weights, batches, strict=True)), rel=1e-5)
        assert high.item() == pytest.approx(sum(w * b.max().item() for w, b in zip(weights, batches, strict=True)), rel=1e-5)

    def test_momentum_0_and_1(self):
        for momentum, kept in ((0.0, 2.0), (1.0, 1.0)):
            average = MovingAverage(momentum)
            average.update(torch.tensor([[0.0, 1.0]]))
            average.update(torch.tensor([[0.0, 2.0]]))
            assert average.range()[1].tolist() == [[kept]]

    def test_refusals(self):
        with pytest.raises(ValueError, match="no calibration data"):
            MovingAverage().range()
        with pytest.raises(ValueError, match="did you mean 0.9"):
            MovingAverage(90)
        with pytest.raises(ValueError, match="nan or inf"):
            MovingAverage().update(torch.tensor([math.inf]))


@pytest.mark.parametrize("find_range", ESTIMATORS)
class TestEveryEstimator:
    @pytest.mark.parametrize("row", [[0.0] * 5, [2.5] * 5, [-2.5] * 5, [7.0], [1e-45, 0.0]])
    def test_degenerate_rows_work(self, find_range, row):
        row = torch.tensor([row])
        low, high = find_range(row)
        assert low.shape == high.shape == (1, 1) and row.min() <= low <= high <= row.max()

    def test_stays_inside_min_max_and_an_empty_row_is_0_to_0(self, find_range):
        for rows in (heavy_tailed(3, 400), heavy_tailed(3, 400).abs(), -heavy_tailed(3, 400).abs() - 1):
            (low, high), (least, largest) = find_range(rows), min_max(rows)
            assert (least <= low).all() and (low <= high).all() and (high <= largest).all()
        assert [t.tolist() for t in find_range(torch.empty(2, 0))] == [[[0.0], [0.0]]] * 2

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_refuses_what_is_not_finite(self, find_range, bad):
        with pytest.raises(ValueError, match="nan or inf"):
            find_range(torch.tensor([[1.0, bad]]))

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_simulated_is_encoded(self, find_range, symmetric):
        weight = heavy_tailed(4, 3, 5, 5)
        for axis in (None, 0, 1):
            arguments = {"axis": axis, "symmetric": symmetric, "find_range": find_range}
            code = UniformCode.from_dense(weight, 4, **arguments)
            assert torch.equal(FakeQuantize(4, **arguments)(weight), code.decode())


def test_bad_arguments():
    row = torch.ones(3)
    with pytest.raises(ValueError, match="did you mean 0.999"):
        percentile_range(row, 99.9)
    for estimator in (mse_range, entropy_range):
        for bad in (0, 33):
            with pytest.raises(ValueError, match="bits must be"):
                estimator(row, bad)
        with pytest.raises(TypeError, match="bits must be a whole number"):
            estimator(row, 2.5)
    with pytest.raises(ValueError, match="steps must be"):
        mse_range(row, steps=0)
    with pytest.raises(ValueError, match="bins must be a whole number of at least 128"):
        entropy_range(row, bits=8, bins=127)


def test_entropy_does_not_collapse_on_numbers_of_few_values():
    """Images have 256 values, most of them background; a histogram of them is a comb with one tall tooth."""
    values = torch.linspace(-0.4, 3.1, 200)
    picture = torch.cat([values.repeat(20), torch.full((40_000,), -0.4)])
    for bits in (3, 4, 8):
        assert entropy_range(picture, bits)[1].item() > 2.5
