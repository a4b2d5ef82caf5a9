r"""One network, many sizes: the width multiplier, and width, depth and resolution scaled together.

A convolution with :math:`M` input and :math:`N` output channels on :math:`H \times W` pixels costs
:math:`M N k^2 H W` multiply-accumulates, so that a network's cost grows

    depth  d   (blocks)              like d
    width  w   (channels)            like w^2      both sides of every convolution
    resolution r (side of the image) like r^2      and adds no parameter

Depthwise convolutions, the first layer and the classifier grow like w only: a thin network shrinks less than
its multiplier squared.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from compresslab.core.errors import check_int


@dataclass(frozen=True)
class Scale:
    """How many times deeper, wider and larger in resolution a network is than the one it was scaled from."""

    depth: float
    width: float
    resolution: float

    @property
    def cost(self) -> float:
        r"""The factor of the multiply-accumulates, :math:`d\,w^2 r^2`, where dense convolutions dominate."""
        return self.depth * self.width**2 * self.resolution**2


def make_divisible(channels: float, divisor: int = 8) -> int:
    r"""Round to the nearest multiple of ``divisor``, but not to less than nine tenths of the number.

    .. math:: c' = \max\left(q, q \left\lfloor \tfrac c q + \tfrac 1 2 \right\rfloor\right), \qquad
              c' \leftarrow c' + q \;\text{ if }\; c' < 0.9\,c

    Multiples of 8 fill vector registers. All MobileNets from V2 on, and EfficientNet, round this way.

    Args:
        channels: :math:`c`, positive, any number.
        divisor: :math:`q`, at least 1.

    Raises:
        TypeError: ``divisor`` is no whole number.
        ValueError: ``channels`` is not positive and finite, or ``divisor`` is below 1.

    Source: the rule of the reference code of MobileNetV2 (Sandler et al. 2018); the papers do not state it.

    Example:
        >>> make_divisible(37), make_divisible(1), make_divisible(11)  # 8 would be less than 0.9 * 11
        (40, 8, 16)
    """
    check_int("divisor", divisor, 1)
    if not 0 < channels < math.inf:
        raise ValueError(f"channels must be positive, got {channels}")
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def check_multiplier(name: str, value: float) -> float:
    """Return a width or depth multiplier if it is a number in (0, 16].

    Raises:
        TypeError, ValueError: it is none.

    Example:
        >>> check_multiplier("width_mult", 0)
        Traceback (most recent call last):
        ValueError: width_mult must be in (0, 16], got 0
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number in (0, 16], got {value!r}")
    if not 0 < value <= 16:
        raise ValueError(f"{name} must be in (0, 16], got {value:g}")
    return float(value)


def scale_channels(channels: int, width_mult: float, divisor: int = 8) -> int:
    r"""The channels of a layer under a width multiplier: :math:`\alpha M`, rounded by `make_divisible`.

    Args:
        channels: :math:`M`, at least 1.
        width_mult: :math:`\alpha`, in (0, 16].
        divisor: what the result is a multiple of.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: A. G. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
        Applications", 2017, section 3.3.

    Example:
        >>> scale_channels(32, 0.75), scale_channels(32, 0.1)
        (24, 8)
    """
    check_int("channels", channels, 1)
    return make_divisible(channels * check_multiplier("width_mult", width_mult), divisor)


def scaled_cost(depthwise: float, pointwise: float, width_mult: float, resolution_mult: float = 1.0) -> float:
    r"""Multiply-accumulates of depthwise-separable layers under a width and a resolution multiplier.

    .. math:: \alpha \rho^2\, D_K^2 M D_F^2 + \alpha^2 \rho^2\, M N D_F^2

    Args:
        depthwise: multiply-accumulates of the depthwise convolutions at full size, at least 0.
        pointwise: of the 1x1 convolutions.
        width_mult: :math:`\alpha`, in (0, 16].
        resolution_mult: :math:`\rho`, in (0, 16].

    Raises:
        TypeError, ValueError: a multiplier out of range, or a negative count.

    Source: Howard et al., MobileNets, 2017, sections 3.3 and 3.4.

    Example:
        >>> scaled_cost(depthwise=100, pointwise=1000, width_mult=0.5)  # 50 + 250, not a quarter of 1100
        300.0
    """
    alpha = check_multiplier("width_mult", width_mult)
    rho = check_multiplier("resolution_mult", resolution_mult)
    if not (depthwise >= 0 and pointwise >= 0):
        raise ValueError(f"counts must not be negative, got depthwise {depthwise} and pointwise {pointwise}")
    return (alpha * depthwise + alpha**2 * pointwise) * rho**2


def compound_scale(phi: float, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15) -> Scale:
    r"""Depth, width and resolution scaled together by one number.

    .. math:: d = \alpha^\phi, \quad w = \beta^\phi, \quad r = \gamma^\phi, \qquad
              \alpha\,\beta^2 \gamma^2 \approx 2, \quad \alpha, \beta, \gamma \ge 1

    so that the cost is about :math:`2^\phi` times that of the network scaled from.

    Args:
        phi: :math:`\phi`, how often the cost is doubled; negative makes a smaller network.
        alpha, beta, gamma: shares of depth, width, resolution; by default those found for EfficientNet-B0.

    Raises:
        ValueError: a share below 1, or a number that is not finite.

    Source: M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        ICML 2019, section 3.3.

    Example:
        >>> scale = compound_scale(2)
        >>> [round(x, 4) for x in (scale.depth, scale.width, scale.resolution, scale.cost)]
        [1.44, 1.21, 1.3225, 3.6874]
    """
    _check_shares(alpha, beta, gamma)
    if not math.isfinite(phi):
        raise ValueError(f"phi must be finite, got {phi}")
    return Scale(alpha**phi, beta**phi, gamma**phi)


def compound_grid(target: float = 2.0, step: float = 0.05, tolerance: float = 0.1) -> list[Scale]:
    r"""All triples :math:`(\alpha, \beta, \gamma)` on a grid that cost about ``target`` times as much.

    .. math:: \left|\alpha\,\beta^2 \gamma^2 - t\right| \le \epsilon\,t

    Args:
        target: :math:`t`, at least 1.
        step: of the grid from 1 upwards, positive.
        tolerance: :math:`\epsilon`, in [0, 1).

    Returns:
        the triples as `Scale`, in the order of alpha, beta, gamma.

    Raises:
        ValueError: an argument out of range.

    Source: Tan, Le, ICML 2019, section 3.3, step 1.

    Example:
        >>> Scale(1.2, 1.1, 1.15) in compound_grid()
        True
        >>> compound_grid(step=1.0)  # twice as deep
        [Scale(depth=2.0, width=1.0, resolution=1.0)]
    """
    if not (1 <= target < math.inf and 0 < step < math.inf and 0 <= tolerance < 1):
        raise ValueError(
            "target must be at least 1, step positive and tolerance in [0, 1), "
            f"got {target}, {step} and {tolerance}"
        )
    upper = target * (1 + tolerance)

    def axis(largest: float) -> list[float]:
        return [round(1 + i * step, 10) for i in range(int((largest - 1) / step + 1e-9) + 1)]

    roots = axis(math.sqrt(upper))
    scales = (Scale(a, b, c) for a in axis(upper) for b in roots for c in roots)
    return [scale for scale in scales if abs(scale.cost - target) <= tolerance * target + 1e-12]


def search_compound(
    score: Callable[[Scale], float], target: float = 2.0, step: float = 0.05, tolerance: float = 0.1
) -> Scale:
    r"""The triple of `compound_grid` with the highest score; the first one of equals.

    The score is meant to be the accuracy of the small network scaled once and trained: the shares are found
    where that is cheap, and then used for every :math:`\phi`.

    Args:
        score: of a `Scale`; higher is better. Called once per triple.
        target, step, tolerance: of `compound_grid`.

    Raises:
        ValueError: an argument out of range, or no triple on the grid.

    Source: Tan, Le, ICML 2019, section 3.3.

    Example:
        >>> search_compound(lambda scale: scale.depth)  # if depth were all
        Scale(depth=2.2, width=1.0, resolution=1.0)
    """
    grid = compound_grid(target, step, tolerance)
    if not grid:
        raise ValueError(f"no triple on a grid of step {step} costs {target} within {tolerance}; refine it")
    return max(grid, key=score)


def _check_shares(alpha: float, beta: float, gamma: float) -> None:
    for name, share in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not 1 <= share < math.inf:
            raise ValueError(f"{name} must be at least 1 and finite, got {share}")
