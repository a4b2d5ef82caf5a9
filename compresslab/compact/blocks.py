r"""The brick of every compact network: a convolution without bias, batch norm, an activation.

A convolution with :math:`M` input and :math:`N` output channels in :math:`g` groups costs, for each output
pixel, as many multiply-accumulates as it has weights:

.. math:: \frac{N M k^2}{g}

so there are few ways to make it cheap: fewer channels (fire), a smaller kernel (1x1), more groups (depthwise
is :math:`g = M`), fewer pixels (stride). Every block of this family is a composition of these.
"""

from collections.abc import Callable

from torch import Tensor, nn

from compresslab.core.errors import check_fraction, check_int

Factory = Callable[[], nn.Module]  # an activation: nn.ReLU, or functools.partial(nn.LeakyReLU, 0.1)
NormFactory = Callable[[int], nn.Module]  # a normalisation for so many channels: nn.BatchNorm2d


def check_groups(groups: int, **channels: int) -> int:
    """Return ``groups`` if it divides every number of channels given by name.

    Args:
        groups: at least 1.
        channels: numbers of channels by the name that the message shall use.

    Raises:
        TypeError: ``groups`` is no whole number.
        ValueError: it is below 1, or does not divide; the message lists the divisors.

    Example:
        >>> check_groups(4, in_channels=8, out_channels=12)
        4
        >>> check_groups(2, channels=9)
        Traceback (most recent call last):
        ValueError: groups must divide channels, got groups=2 and channels=9; 9 is divisible by 1, 3, 9
    """
    check_int("groups", groups, 1)
    for name, count in channels.items():
        if count % groups:
            divisors = ", ".join(str(d) for d in range(1, count + 1) if count % d == 0)
            raise ValueError(
                f"groups must divide {name}, got groups={groups} and {name}={count}; "
                f"{count} is divisible by {divisors}"
            )
    return groups


def check_kernel(kernel_size: int, name: str = "kernel_size") -> int:
    """Return ``kernel_size`` if it is odd, so that padding :math:`(k - 1) / 2` keeps the image size.

    Raises:
        TypeError, ValueError: no whole number of at least 1, or even.

    Example:
        >>> check_kernel(4)
        Traceback (most recent call last):
        ValueError: kernel_size must be odd, got 4: an even kernel has no centre
    """
    if check_int(name, kernel_size, 1) % 2 == 0:
        raise ValueError(f"{name} must be odd, got {kernel_size}: an even kernel has no centre")
    return kernel_size


def part_of(channels: int, fraction: float, name: str) -> int:
    """A fraction of the channels, rounded, but at least one.

    Raises:
        TypeError, ValueError: ``fraction`` is no number in (0, 1]; ``name`` is what the message calls it.

    Example:
        >>> part_of(10, 0.25, "squeeze_ratio"), part_of(3, 0.1, "squeeze_ratio")
        (2, 1)
    """
    if check_fraction(name, fraction) == 0:
        raise ValueError(f"{name} must be in (0, 1], got 0: a layer needs at least one channel")
    return max(1, round(channels * fraction))


def widened(in_channels: int, expansion: float) -> int:
    """So many times as many channels, rounded.

    Raises:
        TypeError, ValueError: ``expansion`` is no number from 1 to 64.

    Example:
        >>> widened(16, 6), widened(3, 1.5)
        (96, 4)
    """
    if isinstance(expansion, bool) or not isinstance(expansion, (int, float)):
        raise TypeError(f"expansion must be a number of at least 1, got {expansion!r}")
    if not 1 <= expansion <= 64:
        raise ValueError(f"expansion must be from 1 to 64, got {expansion:g}")
    return round(in_channels * expansion)


class ConvBN(nn.Module):
    r"""Convolution, batch norm, activation.

    .. math:: y = \sigma\left(\gamma\,\frac{K * x - \mu}{\sqrt{v + \epsilon}} + \beta\right)

    The convolution needs no bias, because :math:`\mu` would subtract it again. The padding is
    :math:`(k - 1) / 2` on every side: with stride s, H pixels become :math:`\lceil H / s \rceil`.

    Args:
        in_channels, out_channels: M and N, at least 1.
        kernel_size: k, odd.
        stride: at least 1.
        groups: divides both numbers of channels; ``groups=in_channels`` is a depthwise convolution.
        activation: makes the activation, such as ``nn.ReLU``; None for none (a linear layer).
        norm: makes the normalisation of N channels; ``nn.Identity`` for none.

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source:
        S. Ioffe, C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
        Covariate Shift", ICML 2015, section 3.2: batch norm before the nonlinearity, and no bias.

    Example:
        >>> block = ConvBN(3, 8, stride=2)
        >>> sum(p.numel() for p in block.parameters())  # 8 * 3 * 9, and gamma and beta of 8 channels
        232
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation: Factory | None = nn.ReLU,
        norm: NormFactory = nn.BatchNorm2d,
    ):
        check_int("in_channels", in_channels, 1)
        check_int("out_channels", out_channels, 1)
        check_int("stride", stride, 1)
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        padding = check_kernel(kernel_size) // 2
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        )
        self.bn = norm(out_channels)
        self.activation = nn.Identity() if activation is None else activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)))
