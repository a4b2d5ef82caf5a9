"""Is the compressed network worse, or was it luck? Comparing two networks on the same images.

Both networks answer the same n images, so only the images on which they disagree carry information:

                      network b right   network b wrong
    network a right         ...              flips_ab          d = (flips_ab - flips_ba) / n
    network a wrong       flips_ba              ...

d is the accuracy of a minus the accuracy of b. Its interval is Tango's: all differences that a score test
would not reject. It is used because its ends are right where compression lives, near zero disagreement: after
10,000 images without any flip, Wald's interval is [0, 0], as if certain, Tango's is [-0.04, +0.04] points.

Images are one source of chance, seeds another: `mean_interval` is for a handful of whole runs.

Source: Tango, Equivalence Test and Confidence Interval for the Difference in Proportions for the
    Paired-Sample Design, Statistics in Medicine 17, 1998, section 3; Wilson, Probable Inference, the Law of
    Succession, and Statistical Inference, 1927; McNemar, Note on the Sampling Error of the Difference Between
    Correlated Proportions, 1947 (here with exact binomial probabilities).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from scipy.stats import binom, norm, t
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """Accuracy of a minus accuracy of b, as fractions, with the ends of its interval."""

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """"not distinguishable" where the interval contains 0, else which of the two is better."""
        if self.low <= 0 <= self.high:
            return "not distinguishable"
        return "a is better" if self.difference > 0 else "b is better"

    def __str__(self) -> str:
        low, difference, high = (100 * value for value in (self.low, self.difference, self.high))
        return f"{difference:+.2f} points [{low:+.2f}, {high:+.2f}], {self.verdict}"


@dataclass(frozen=True)
class PairedDifference(Difference):
    """The accuracies of two networks on the same n images.

    `flips_ab` counts images that a has right and b wrong, `flips_ba` those that b has right and a wrong.
    """

    flips_ab: int
    flips_ba: int
    n: int
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{super().__str__()}, n = {self.n:,}"


def paired_difference(correct_a: Tensor, correct_b: Tensor, confidence: float = 0.95) -> PairedDifference:
    """Compare two networks on the same images: Tango's interval of the difference of their accuracies.

    Args:
        correct_a, correct_b: whether each network had each image right, bool, (n,), in the same order.
        confidence: of the interval, in (0, 1).
    Returns:
        a `PairedDifference`; printed, it is in points (hundredths).
    Raises:
        TypeError: tensors that are not bool.
        ValueError: shapes that differ, no images, or a confidence out of range.
    Example:
        >>> a = torch.tensor([True] * 98 + [False] * 2)
        >>> b = torch.tensor([True] * 90 + [False] * 10)
        >>> print(paired_difference(a, b))
        +8.00 points [+4.00, +15.00], a is better, n = 100
    """
    for name, correct in (("correct_a", correct_a), ("correct_b", correct_b)):
        if not isinstance(correct, Tensor) or correct.dtype != torch.bool:
            got = getattr(correct, "dtype", type(correct).__name__)
            raise TypeError(f"{name} must be a bool tensor, got {got}")
    if correct_a.shape != correct_b.shape or correct_a.ndim != 1 or not len(correct_a):
        shapes = f"{tuple(correct_a.shape)} and {tuple(correct_b.shape)}"
        raise ValueError(f"both need one answer per image, (n,) with n >= 1, got {shapes}")
    _check_confidence(confidence)
    ab, ba, n = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum()), len(correct_a)
    low, high = tango_interval(ab, ba, n, confidence)
    return PairedDifference((ab - ba) / n, low, high, ab, ba, n, confidence)


def tango_interval(flips_ab: int, flips_ba: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval: the differences D with |Z(D)| <= z, where with b = flips_ab and c = flips_ba

        Z(D) = (b - c - n D) / sqrt(n (2 q + D (1 - D)))
        q    = (sqrt(B^2 - 8 n C) - B) / (4 n),   B = (2 n - b + c) D - b - c,   C = -c D (1 - D)

    and q is the most likely probability of the flip ba if the difference is D.

    Args:
        flips_ab, flips_ba: images on which only a, only b was right; their sum is at most `n`.
        n: images, >= 1.
        confidence: in (0, 1).
    Returns:
        (low, high), within [-1, 1].
    Example:
        >>> low, high = tango_interval(0, 0, 10_000)  # no flip: +- z^2 / (n + z^2)
        >>> round(high, 6), low == -high
        (0.000384, True)
    """
    _check_confidence(confidence)
    if flips_ab < 0 or flips_ba < 0 or n < 1 or flips_ab + flips_ba > n:
        got = f"{flips_ab}, {flips_ba} and n = {n}"
        raise ValueError(f"flips must be 0 or more and at most n together, got {got}")
    z = float(norm.ppf((1 + confidence) / 2))
    return -_upper_limit(flips_ba, flips_ab, n, z), _upper_limit(flips_ab, flips_ba, n, z)


def _upper_limit(b: int, c: int, n: int, z: float) -> float:
    """The largest D with Z(D) >= -z; above (b - c) / n, where Z is 0, or 0 / 0 without flips."""
    least = (b - c) / n + 1e-12
    if least >= 1:
        return 1.0

    def excess(d: float) -> float:
        return b - c - n * d + z * math.sqrt(max(0.0, n * (2 * _flip_probability(b, c, n, d) + d * (1 - d))))

    return float(brentq(excess, least, 1.0, xtol=1e-12))


def _flip_probability(b: int, c: int, n: int, d: float) -> float:
    linear = (2 * n - b + c) * d - b - c
    constant = -c * d * (1 - d)
    return (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of one proportion, such as an accuracy.

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),    p = successes / n

    Args:
        successes: from 0 to `n`.
        n: trials, >= 1.
        confidence: in (0, 1).
    Returns:
        (low, high), within [0, 1]; not a single point even at 0 or n successes.
    Example:
        >>> [round(end, 4) for end in proportion_interval(980, 1000)]
        [0.9693, 0.987]
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes must be from 0 to n and n at least 1, got {successes} and n = {n}")
    z = float(norm.ppf((1 + confidence) / 2))
    p = successes / n
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """The mean of repeated runs with Student's interval, such as the gain of a method in each of several seeds.

        mean +- t_{n-1} s / sqrt(n),    s^2 = sum (v - mean)^2 / (n - 1)

    Where two methods were run with the same seeds, hand in their differences: what the seeds do to both drops out.

    Args:
        values: one number per run, at least two.
        confidence: of the interval, in (0, 1).
    Returns:
        (mean, low, high).
    Raises:
        ValueError: fewer than two values, one that is not finite, or a confidence out of range.
    Source: Student, The Probable Error of a Mean, Biometrika, 1908.
    Example:
        >>> [round(number, 3) for number in mean_interval([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]
    """
    _check_confidence(confidence)
    values = [float(value) for value in values]
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        raise ValueError(f"an interval needs at least two finite values, got {values}")
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * spread
    return mean, mean - half, mean + half


def mcnemar_exact(flips_ab: int, flips_ba: int) -> float:
    """The two-sided p-value of "both flips are equally likely": twice the smaller binomial tail, at most 1.

        p = min(1, 2 P(X <= min(b, c))),    X ~ Binomial(b + c, 1/2)

    Args:
        flips_ab, flips_ba: images on which only a, only b was right, >= 0.
    Returns:
        the p-value, in (0, 1]; 1 without any flip.
    Example:
        >>> mcnemar_exact(0, 5)
        0.0625
    """
    if flips_ab < 0 or flips_ba < 0:
        raise ValueError(f"flips must be 0 or more, got {flips_ab} and {flips_ba}")
    tail = binom.cdf(min(flips_ab, flips_ba), flips_ab + flips_ba, 0.5)
    return min(1.0, 2 * float(tail))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        hint = f"; did you mean {confidence / 100:g}?" if 1 < confidence < 100 else ""
        raise ValueError(f"confidence must be in (0, 1), got {confidence}{hint}")
