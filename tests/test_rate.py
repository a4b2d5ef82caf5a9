"""Rate and distortion: against integrals, sampled numbers, published constants, and the library's own codes."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import entropy as scipy_entropy
from scipy.stats import norm

from compresslab.core.bits import unpack_bits
from compresslab.core.codes import CodebookCode, UniformCode
from compresslab.core.kmeans import kmeans_1d
from compresslab.quantization.rate import (
    distortion_bound,
    entropy,
    entropy_coded_uniform,
    gaussian_distortion,
    gaussian_uniform,
    outlier_price,
    rate_bound,
    signal_to_noise,
    uniform_snr,
)


def randn(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def normal():
    return randn(100_000)


def test_signal_to_noise():
    x = randn(100)
    assert signal_to_noise(x, 0.9 * x) == pytest.approx(20.0, abs=1e-4)
    assert signal_to_noise(x, x) == math.inf == signal_to_noise(torch.zeros(3), torch.zeros(3))
    assert signal_to_noise(torch.zeros(3), torch.ones(3)) == -math.inf
    assert signal_to_noise(10 * x, 10 * x + 1) == pytest.approx(signal_to_noise(x, x + 0.1), abs=1e-4)
    with pytest.raises(ValueError, match="one shape"):
        signal_to_noise(torch.zeros(3), torch.zeros(4))


def test_six_decibels_per_bit_on_uniform_weights():
    weight = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for bits in (2, 4, 8):
        code = UniformCode.from_dense(weight, bits, symmetric=False)
        cells = 2**bits - 1  # a grid with points at both ends of the range has a cell less
        assert signal_to_noise(weight, code.decode()) == pytest.approx(20 * math.log10(cells), abs=0.15)
    assert uniform_snr(9) - uniform_snr(8) == pytest.approx(6.0206, abs=1e-4)
    assert uniform_snr(0) == 0


@pytest.mark.parametrize("ratio", [4.0, 16.0])
def test_one_outlier_costs_what_the_formula_says(ratio):
    weight = torch.rand(50_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    weight[0] = 1.0
    spoilt = weight.clone()
    spoilt[0] = ratio
    snr = lambda w, bits: signal_to_noise(w[1:], UniformCode.from_dense(w, bits).decode()[1:])  # noqa: E731
    decibels, bits = outlier_price(ratio)
    assert snr(weight, 8) - snr(spoilt, 8) == pytest.approx(decibels, abs=0.2)
    assert snr(spoilt, 8) == pytest.approx(snr(weight, 8 - int(bits)), abs=1.1)  # 4 bits: 15 levels for 16
    assert outlier_price(1) == (0.0, 0.0)


@pytest.mark.parametrize(
    "bits, step, distortion", [(1, 1.596, 0.3634), (2, 0.9957, 0.1188), (3, 0.5860, 0.03744), (4, 0.3352, 0.01154)]
)
def test_best_uniform_quantizer_is_max_1960(bits, step, distortion):
    ours, snr = gaussian_uniform(bits)
    assert ours == pytest.approx(step, abs=3e-4)
    assert 10 ** (-snr / 10) == pytest.approx(distortion, rel=1e-3)


def test_distortion_by_integration_and_by_sampling(normal):
    for step, levels in ((0.7, 4), (0.2, 8), (1.1, 5)):
        edges = [(-levels / 2 + k) * step for k in range(levels + 1)]
        edges[0], edges[-1] = -12.0, 12.0
        integral = sum(
            quad(lambda x, c=(k - (levels - 1) / 2) * step: (x - c) ** 2 * norm.pdf(x), edges[k], edges[k + 1])[0]
            for k in range(levels)
        )
        assert gaussian_distortion(step, levels) == pytest.approx(integral, rel=1e-7)
    step, snr = gaussian_uniform(4)
    q = torch.floor(normal / step).clamp(-8, 7) + 0.5
    assert signal_to_noise(normal, q * step) == pytest.approx(snr, abs=0.15)


def test_no_step_is_better_and_a_bit_is_worth_less_than_six_decibels():
    snrs = []
    for bits in range(1, 11):
        step, snr = gaussian_uniform(bits)
        best = gaussian_distortion(step, 2**bits)
        assert all(gaussian_distortion(step * f, 2**bits) > best for f in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))
        assert snr < uniform_snr(bits)
        snrs.append(snr)
    gains = [b - a for a, b in zip(snrs, snrs[1:], strict=False)]
    assert all(4 < gain < 6.02 for gain in gains) and gains == sorted(gains)


def test_entropy():
    symbols = torch.randint(0, 7, (50, 20), generator=torch.Generator().manual_seed(0)) ** 2 - 3
    _, counts = symbols.unique(return_counts=True)
    assert entropy(symbols) == pytest.approx(scipy_entropy(counts, base=2))
    assert entropy(torch.arange(256)) == pytest.approx(8.0)
    assert entropy(torch.zeros(5, dtype=torch.int32)) == 0 == entropy(torch.zeros(0, dtype=torch.int64))
    assert entropy(torch.tensor([True, False])) == 1
    with pytest.raises(TypeError, match="whole numbers"):
        entropy(torch.ones(3))


def test_at_20_decibels_entropy_coding_beats_kmeans(normal):
    """Equal error, fewer bits: uniform cells about 3.58, k-means about 3.73 (15 levels miss 20 dB, 16 pass it);
    the best fixed 16 levels take 4 bits.
    """
    step, bits = entropy_coded_uniform(normal, 20.0)
    assert signal_to_noise(normal, torch.round(normal / step) * step) == pytest.approx(20.0, abs=1e-4)
    assert bits == pytest.approx(3.58, abs=0.02)
    found = {}
    for k in (15, 16):
        codebook, indices = kmeans_1d(normal, k, iterations=300)
        found[k] = signal_to_noise(normal, codebook[indices]), entropy(indices)
        assert entropy_coded_uniform(normal, found[k][0])[1] < found[k][1] - 0.1  # at the very same error
    (low, cheap), (high, dear) = found[15], found[16]
    assert low < 20 < high
    assert cheap + (20 - low) / (high - low) * (dear - cheap) == pytest.approx(3.73, abs=0.03)
    code = CodebookCode.from_dense(normal, 4, iterations=300)
    assert entropy(unpack_bits(code.packed, 4, len(normal))) == pytest.approx(found[16][1], abs=1e-9)


def test_nothing_beats_the_bound_and_entropy_coding_stays_a_quarter_of_a_bit_above_it(normal):
    assert distortion_bound(0.0, 3.0) == 3.0 and distortion_bound(1.0) == 0.25
    for snr in (10.0, 30.0, 50.0):
        assert 10 * math.log10(1 / distortion_bound(rate_bound(snr))) == pytest.approx(snr)
    for snr in (10.0, 20.0, 30.0):
        _, bits = entropy_coded_uniform(normal, snr)
        assert bits > rate_bound(snr)
        if snr >= 20:
            assert bits - rate_bound(snr) == pytest.approx(math.log2(2 * math.pi * math.e / 12) / 2, abs=0.02)
    for bits in range(1, 9):
        assert gaussian_uniform(bits)[1] < 10 * math.log10(1 / distortion_bound(bits))
    assert rate_bound(-3.0) == 0.0


def test_errors():
    with pytest.raises(ValueError, match="bits must be at least 0"):
        uniform_snr(-1)
    with pytest.raises(ValueError, match="bits must be at least 0"):
        distortion_bound(math.nan)
    with pytest.raises(ValueError, match="variance must be at least 0"):
        distortion_bound(1.0, -1.0)
    for bad in (0.5, math.nan):
        with pytest.raises(ValueError, match="ratio must be at least 1"):
            outlier_price(bad)
    for bad in (0, 17):
        with pytest.raises(ValueError, match="bits must be a whole number"):
            gaussian_uniform(bad)
    with pytest.raises(TypeError, match="bits must be a whole number"):
        gaussian_uniform(2.5)
    for bad in (-1.0, 101.0, math.nan):
        with pytest.raises(ValueError, match="snr must be in"):
            entropy_coded_uniform(torch.ones(3), bad)
    for bad in (torch.zeros(3), torch.zeros(0), torch.tensor([math.nan, 1.0])):
        with pytest.raises(ValueError, match="finite numbers that are not all zero"):
            entropy_coded_uniform(bad, 20.0)
