r"""Rate and distortion: how many bits a certain error costs, and the least that any method could pay.

*Rate* is bits per number, *distortion* the mean squared error; the signal-to-noise ratio puts the error on a
scale where one bit is worth 6.02 decibels. That one number lets very different methods be compared:

- a uniform quantizer pays for its *range*: one outlier costs every other weight its bits;
- levels where the weights are (k-means) make the error smaller at the same number of levels;
- but a uniform quantizer whose integers are then *entropy coded* beats k-means at the same error: equal cells
  waste no bits on symbols that hardly occur. Fewer levels are not a smaller file.
- No method on independent normal weights gets below Shannon's bound.
"""

import math
from functools import cache

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from compresslab.core.errors import check_int


def signal_to_noise(x: Tensor, x_hat: Tensor) -> float:
    r"""How much stronger the numbers are than their error, in decibels.

    .. math:: \mathrm{SNR} = 10 \log_{10} \frac{\sum_i x_i^2}{\sum_i (x_i - \hat x_i)^2}

    Args:
        x: the numbers, any shape.
        x_hat: what became of them, the same shape.

    Returns:
        decibels; infinity where nothing was lost, minus infinity where ``x`` is zero and ``x_hat`` is not.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> signal_to_noise(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))  # 25 / 0.25 = 100
        20.0
    """
    if x.shape != x_hat.shape:
        raise ValueError(f"x and x_hat must have one shape, got {tuple(x.shape)} and {tuple(x_hat.shape)}")
    signal = x.detach().double().square().sum().item()
    noise = (x.detach().double() - x_hat.detach().double()).square().sum().item()
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def uniform_snr(bits: float) -> float:
    r"""The law of six decibels: rounding a uniformly distributed number to :math:`2^b` equal cells.

    .. math:: D = \frac{\Delta^2}{12}, \quad \Delta = \frac{R}{2^b}, \quad \sigma^2 = \frac{R^2}{12}
              \quad\Rightarrow\quad \mathrm{SNR} = 10 \log_{10} 4^b \approx 6.02\, b

    Args:
        bits: :math:`b`, at least 0.

    Returns:
        decibels.

    Raises:
        ValueError: ``bits`` is negative or nan.

    Source: A. Gersho, R. M. Gray, "Vector Quantization and Signal Compression", 1992, chapter 5.

    Example:
        >>> round(uniform_snr(8), 2)
        48.16
    """
    return 20 * _not_negative("bits", bits) * math.log10(2)


def outlier_price(ratio: float) -> tuple[float, float]:
    r"""What one number costs all the others if it makes the range ``ratio`` times as wide.

    The step grows by the ratio, the error by its square: :math:`20 \log_{10} r` decibels, or
    :math:`\log_2 r` bits on every number, to be back where one was.

    Args:
        ratio: :math:`r`, the new largest magnitude divided by the old one, at least 1.

    Returns:
        decibels lost, and bits lost.

    Raises:
        ValueError: ``ratio`` is below 1.

    Example:
        >>> outlier_price(16)[1]  # one weight sixteen times as large: of 8 bits, 4 are left
        4.0
    """
    if not ratio >= 1:
        raise ValueError(f"ratio must be at least 1, got {ratio:g}: an outlier widens the range")
    return 20 * math.log10(ratio), math.log2(ratio)


def distortion_bound(bits: float, variance: float = 1.0) -> float:
    r"""Shannon's bound for a normal source: no code of ``R`` bits per number has a smaller mean square error.

    .. math:: D(R) = \sigma^2\, 2^{-2R}

    Args:
        bits: :math:`R`, at least 0; a fraction is fine.
        variance: :math:`\sigma^2`.

    Raises:
        ValueError: one of them is negative or nan.

    Source: T. M. Cover, J. A. Thomas, "Elements of Information Theory", 1991, chapter on rate distortion.

    Example:
        >>> distortion_bound(2.0)
        0.0625
    """
    return _not_negative("variance", variance) * 4.0 ** -_not_negative("bits", bits)


def rate_bound(snr: float) -> float:
    r"""The other way round: the fewest bits per normal number at a signal-to-noise ratio in decibels.

    .. math:: R(D) = \tfrac12 \log_2 (\sigma^2 / D) = \mathrm{SNR} / 6.02

    Example:
        >>> round(rate_bound(20.0), 3)
        3.322
    """
    return max(snr, 0.0) / (20 * math.log10(2))


@cache
def gaussian_uniform(bits: int) -> tuple[float, float]:
    r"""The best uniform quantizer for a normal source at a fixed number of bits.

    .. math:: \min_\Delta \int (x - Q_\Delta(x))^2\, \varphi(x)\, dx, \qquad Q_\Delta(x) \in
              \{\pm\tfrac12, \pm\tfrac32, \dots, \pm\tfrac{2^b - 1}{2}\}\, \Delta

    The step has no closed form, for the range trades two errors: too narrow cuts off the tails, too wide
    makes all steps coarse. It gains less than 6 dB per bit, as the range must grow with the number of
    levels.

    Args:
        bits: :math:`b`, 1 to 16.

    Returns:
        the step :math:`\Delta` in standard deviations, and the signal-to-noise ratio in decibels.

    Raises:
        TypeError, ValueError: ``bits`` is no whole number from 1 to 16.

    Source: J. Max, "Quantizing for Minimum Distortion", IRE Transactions on Information Theory, 1960.

    Example:
        >>> step, snr = gaussian_uniform(1)  # the two levels are at plus and minus sqrt(2 / pi)
        >>> round(step, 3), round(snr, 2)
        (1.596, 4.4)
    """
    levels = 2 ** check_int("bits", bits, 1, 16)
    best = minimize_scalar(
        lambda step: gaussian_distortion(step, levels), bounds=(0.0, 16 / levels), method="bounded",
        options={"xatol": 1e-9 / levels},
    )  # fmt: skip
    return float(best.x), -10 * math.log10(best.fun)


def gaussian_distortion(step: float, levels: int) -> float:
    r"""Mean squared error of a standard normal number, rounded to levels ``step`` apart around zero.

    Each cell contributes :math:`\int_a^b (x - c)^2 \varphi(x)\,dx
    = (1 + c^2)(\Phi(b) - \Phi(a)) - (b - 2c)\varphi(b) + (a - 2c)\varphi(a)`; the outermost are open.

    Example:
        >>> round(gaussian_distortion(step=1.596, levels=2), 4)  # 1 - 2 / pi
        0.3634
    """
    centre = (torch.arange(levels, dtype=torch.float64) - (levels - 1) / 2) * step
    edge = (centre[1:] + centre[:-1]) / 2
    below, density = torch.special.ndtr(edge), torch.exp(-edge.square() / 2) / math.sqrt(2 * math.pi)
    zero, one = edge.new_zeros(1), edge.new_ones(1)
    mass = torch.diff(torch.cat([zero, below, one]))
    first = -torch.diff(torch.cat([zero, density, zero]))  # the integral of x over the cell
    second = mass - torch.diff(torch.cat([zero, edge * density, zero]))  # of x squared
    return float((second - 2 * centre * first + centre.square() * mass).sum())


def entropy(symbols: Tensor) -> float:
    r"""Bits per symbol that a code needs at least, if it codes the symbols one by one.

    .. math:: H = -\sum_k p_k \log_2 p_k

    Args:
        symbols: whole numbers, any shape; :math:`p_k` is the share of value :math:`k`.

    Returns:
        bits; 0 where there is nothing to tell.

    Raises:
        TypeError: ``symbols`` is not an integer or bool tensor.

    Example:
        >>> entropy(torch.tensor([0, 0, 1, 7]))
        1.5
    """
    if symbols.is_floating_point() or symbols.is_complex():
        raise TypeError(f"symbols must be whole numbers of an integer dtype, got {symbols.dtype}")
    if symbols.numel() == 0:
        return 0.0
    share = symbols.flatten().unique(return_counts=True)[1].double() / symbols.numel()
    return float(torch.special.entr(share).sum() / math.log(2))


def entropy_coded_uniform(x: Tensor, snr: float) -> tuple[float, float]:
    r"""A uniform quantizer without a limit on its range, made as coarse as the error allows.

    Integers :math:`q = \mathrm{round}(x / \Delta)`, with the largest :math:`\Delta` at which the
    signal-to-noise ratio is still ``snr`` (by bisection), cost their entropy. At high rate that is 0.254
    bits, or 1.53 dB, above Shannon's bound, whatever the distribution.

    Args:
        x: the numbers, any shape, finite, not all zero.
        snr: decibels, 0 to 100.

    Returns:
        the step :math:`\Delta`, and the entropy of the integers in bits per number.

    Raises:
        ValueError: ``x`` is empty, zero or not finite, or ``snr`` out of range.

    Source: H. Gish, J. N. Pierce, "Asymptotically Efficient Quantizing", IEEE Transactions on Information
    Theory, 1968.

    Example:
        >>> x = torch.linspace(-1, 1, 9)
        >>> step, bits = entropy_coded_uniform(x, 60.0)  # nine values that a step of 1/4 tells apart
        >>> round(bits, 2)
        3.17
    """
    if not 0 <= snr <= 100:
        raise ValueError(f"snr must be in [0, 100] decibels, got {snr:g}")
    x = x.detach().flatten().double()
    if not (torch.isfinite(x).all() and x.any()):
        raise ValueError("x must hold finite numbers that are not all zero")
    low, high = 0.0, 4 * x.abs().max().item()  # at the upper end everything rounds to zero
    for _ in range(50):
        step = (low + high) / 2
        fine = signal_to_noise(x, torch.round(x / step) * step) >= snr
        low, high = (step, high) if fine else (low, step)
    return low, entropy(torch.round(x / low).long())


def _not_negative(name: str, value: float) -> float:
    """The value, if it is a number of at least 0."""
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value:g}")
    return float(value)
