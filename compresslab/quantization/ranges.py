r"""Ranges: which part of the number line gets the grid.

The widest number sets the scale of all the others. A range that holds every number (min-max) never clips and
rounds coarsely; a narrower one clips a few and rounds the rest more finely. The estimators here look for the
place in between. Each maps rows (..., m) to ``low`` and ``high`` of shape (..., 1): a weight's rows (R, m),
so that it serves ``UniformCode.from_dense`` as ``find_range``, or a flat sample (m,) of activations. Bind the
other arguments with ``functools.partial``.
"""

import numpy as np
import torch
from scipy.special import rel_entr
from torch import Tensor

from compresslab.core.errors import check_fraction, check_int
from compresslab.core.uniform import choose_scale, fake_quantize, min_max

EPSILON = 1e-4  # share of the quantized histogram spread over all bins, so that no logarithm is infinite


def percentile_range(rows: Tensor, fraction: float = 0.999) -> tuple[Tensor, Tensor]:
    r"""The range that holds a fraction of the numbers, with the same share left out at either end.

    .. math:: k = \left\lfloor \tfrac{1 - f}{2}\,(m - 1) \right\rfloor, \qquad
              r_{min} = x_{(k)}, \quad r_{max} = x_{(m - 1 - k)}

    where :math:`x_{(0)} \le \dots \le x_{(m-1)}` is the sorted row.

    Args:
        rows: (..., m), floating-point.
        fraction: :math:`f` in [0, 1]; 1 is min-max, 0 the median.

    Returns:
        low, high: (..., 1) each, numbers of the row.

    Raises:
        TypeError, ValueError: ``fraction`` is no number in [0, 1]; nan or inf in the rows.

    Source:
        H. Wu, P. Judd, X. Zhang, M. Isaev, P. Micikevicius, "Integer Quantization for Deep Learning
        Inference: Principles and Empirical Evaluation", 2020 (there of the absolute value).
    Differs: both ends are cut, so that it serves affine grids too.

    Example:
        >>> percentile_range(torch.tensor([-50.0, 1.0, 2.0, 3.0, 90.0]), fraction=0.5)
        (tensor([1.]), tensor([3.]))
    """
    check_fraction("fraction", fraction)
    _check_finite(rows)
    m = rows.shape[-1]
    if m == 0:
        return min_max(rows)
    ordered = rows.sort(-1).values
    cut = int((1 - fraction) / 2 * (m - 1) + 1e-9)  # 1e-9: 0.2 * 5 should count as 1
    return ordered[..., cut : cut + 1], ordered[..., m - 1 - cut : m - cut]


def mse_range(
    rows: Tensor, bits: int = 8, symmetric: bool = False, steps: int = 100
) -> tuple[Tensor, Tensor]:
    r"""The clipping that leaves the least squared error after rounding, by trying ``steps`` of them.

    .. math:: \min_{t \in \{1/n, \dots, n/n\}} \sum_i (x_i - \hat x_i(t))^2,
              \qquad r_{min} = \max(\min x, -t A),\; r_{max} = \min(\max x, t A),\; A = \max|x|

    One magnitude bounds both ends, so a single outlier costs only its own side. t = 1 is min-max: the result
    is never worse.

    Args:
        rows: (..., m), floating-point.
        bits, symmetric: of the grid, as in ``choose_scale``.
        steps: :math:`n`, at least 1.

    Returns:
        low, high: (..., 1) each, the best of each row.

    Raises:
        TypeError, ValueError: ``bits`` or ``steps`` out of range; nan or inf in the rows.

    Source:
        The criterion is common; for instance R. Banner, Y. Nahshan, D. Soudry, "Post training 4-bit
        quantization of convolutional networks for rapid-deployment", NeurIPS 2019, which solves it for
        Laplace and normal densities.
    Differs: a search over the numbers themselves instead of a density.

    Example:
        >>> row = torch.tensor([-1.0, -1.0, 1.0, 1.0, 1.6])  # -t, 0, t: t = 1.2 costs 4 * 0.2^2 + 0.4^2
        >>> mse_range(row, bits=2, symmetric=True, steps=8)
        (tensor([-1.]), tensor([1.2000]))
    """
    check_int("steps", steps, 1)
    _check_finite(rows)
    low, high = min_max(rows)
    largest = torch.maximum(low.abs(), high.abs())
    best_low, best_high, least = low, high, squared_error(rows, low, high, bits, symmetric)
    for step in range(steps - 1, 0, -1):
        top = largest * (step / steps)
        tried_low, tried_high = low.clamp(-top, top), high.clamp(-top, top)
        error = squared_error(rows, tried_low, tried_high, bits, symmetric)
        better = error < least
        best_low = torch.where(better, tried_low, best_low)
        best_high = torch.where(better, tried_high, best_high)
        least = torch.where(better, error, least)
    return best_low, best_high


def squared_error(rows: Tensor, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> Tensor:
    """Sum of squared rounding errors of each row on the grid over its range: (..., 1), float64."""
    grid = choose_scale(low, high, bits, symmetric=symmetric)
    return (fake_quantize(rows, grid) - rows).double().square().sum(-1, keepdim=True)


def entropy_range(rows: Tensor, bits: int = 8, bins: int = 2048) -> tuple[Tensor, Tensor]:
    r"""The clipping whose histogram loses the least information when it is quantized.

    Take a histogram of the distinct :math:`|x|` with ``bins`` bins. For each number of bins kept,
    :math:`i = L, L + 1, \dots`, with :math:`L = 2^{b-1}` levels: :math:`P` is the histogram cut after i bins,
    with everything beyond piled onto the last one, as clipping would do; :math:`Q` is the part inside,
    averaged over the bins of each level. The threshold is the end of the last bin kept, for the least

    .. math:: D(P \| Q) = \sum_k P_k \ln (P_k / Q_k)

    Args:
        rows: (..., m), floating-point; a histogram needs thousands of numbers.
        bits: :math:`b`, of the grid; the levels on one side of zero are counted.
        bins: at least :math:`L`. No threshold is below :math:`L / bins` of the largest magnitude.

    Returns:
        low, high: (..., 1) each, the extremes of the row cut to plus and minus the threshold.

    Raises:
        TypeError, ValueError: ``bits`` is not 1 to 16, ``bins`` too small; nan or inf in the rows.

    Source:
        S. Migacz, "8-bit Inference with TensorRT", GPU Technology Conference, 2017.
    Differs: a number that occurs often (the zeros behind a ReLU, the background of a drawing) counts once, or
        it would pull the threshold down to itself; Q keeps the share of the numbers that is inside and is not
        scaled up to 1, or clipping nearly everything could look free; a share of :math:`10^{-4}` is spread
        over all bins of Q.

    Example:
        >>> sample = torch.cat([torch.linspace(0, 1, 5000), torch.tensor([9.0])])
        >>> low, high = entropy_range(sample)
        >>> 1 <= high.item() < 1.1
        True
    """
    levels = 2 ** (check_int("bits", bits, 1, 16) - 1)
    check_int("bins", bins, levels)
    _check_finite(rows)
    low, high = min_max(rows)
    flat = rows.detach().reshape(low.numel(), rows.shape[-1])
    found = [_entropy_threshold(row.abs().double().numpy(force=True), levels, bins) for row in flat]
    top = torch.tensor(found, dtype=low.dtype, device=low.device).view(low.shape)
    return low.clamp(-top, top), high.clamp(-top, top)


def _entropy_threshold(sizes: np.ndarray, levels: int, bins: int) -> float:
    sizes = np.unique(sizes[sizes > 0])
    largest = float(sizes.max(initial=0.0))
    if largest == 0 or largest / bins == 0:  # nothing to choose from
        return largest
    counts = np.histogram(sizes, bins, (0.0, largest))[0].astype(float)
    kept = range(levels, bins + 1)
    best = min(kept, key=lambda i: (divergence(counts, i, levels), -i))  # of equals, the widest
    return largest * best / bins


def divergence(counts: np.ndarray, kept: int, levels: int) -> float:
    r"""What clipping a histogram after ``kept`` bins and rounding it to ``levels`` loses: nats of D(P||Q).

    Args:
        counts: (bins,), at least one positive.
        kept: bins inside the range, ``levels`` to ``bins``.
        levels: runs of neighbouring bins that become one level; bin k is in level ``k * levels // kept``.

    Returns:
        at least 0; as in :func:`entropy_range`.

    Example:
        >>> round(divergence(np.array([4.0, 4.0, 2.0, 2.0]), kept=4, levels=2), 6)  # each level is flat
        0.0
    """
    inside = counts[:kept]
    p = inside.copy()
    p[-1] += counts[kept:].sum()
    level = np.arange(kept) * levels // kept  # of each bin
    mass, filled = np.bincount(level, inside), np.bincount(level, inside > 0)
    q = (mass / np.maximum(filled, 1))[level] * (inside > 0)  # a level stands for bins that hold something
    p, q = p / counts.sum(), (1 - EPSILON) * q / counts.sum() + EPSILON / kept
    return max(float(rel_entr(p, q).sum()), 0.0)


class MovingAverage:
    r"""A range that follows batch after batch: an exponential moving average of their extremes.

    .. math:: r_{min} \leftarrow \mu\,r_{min} + (1 - \mu) \min x, \qquad
              r_{max} \leftarrow \mu\,r_{max} + (1 - \mu) \max x

    The first batch sets the range. One batch with an outlier moves it by :math:`1 - \mu` of the way.

    Args:
        momentum: :math:`\mu` in [0, 1]; 0 keeps the last batch, 1 the first.

    Raises:
        TypeError, ValueError: ``momentum`` is no number in [0, 1].

    Source:
        B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, section 3.1.

    Example:
        >>> average = MovingAverage(momentum=0.75)
        >>> average.update(torch.tensor([0.0, 4.0]))
        >>> average.update(torch.tensor([-4.0, 8.0]))
        >>> average.range()
        (tensor([-1.]), tensor([5.]))
    """

    def __init__(self, momentum: float = 0.9):
        self.momentum = check_fraction("momentum", momentum)
        self._range: tuple[Tensor, Tensor] | None = None

    def update(self, rows: Tensor) -> None:
        """Take in the extremes of a batch, (..., m); the leading shape stays the same from batch to batch."""
        _check_finite(rows)
        new = min_max(rows.detach())
        if self._range is not None:
            new = tuple(torch.lerp(n, old, self.momentum) for old, n in zip(self._range, new, strict=True))
        self._range = new

    def range(self) -> tuple[Tensor, Tensor]:
        """low, high: (..., 1) each. Raises ValueError before the first ``update``."""
        if self._range is None:
            raise ValueError("no calibration data: update was never called")
        return self._range


def _check_finite(rows: Tensor) -> None:
    if not torch.isfinite(rows).all():
        raise ValueError("a range is found for finite numbers, got nan or inf")
