r"""The fire module of SqueezeNet: squeeze the channels by 1x1, then expand them by 1x1 and 3x3.

A 3x3 convolution pays nine weights for every pair of channels. The fire module hands it few input channels
(the squeeze) and lets it make only part of the output channels (1x1 makes the others).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.compact.blocks import ConvBN, part_of
from compresslab.core.errors import check_int


def fire_parameters(in_channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> int:
    r"""The number of parameters of a fire module.

    .. math:: P = C_i s + s e_1 + 9 s e_3 + \underbrace{s + e_1 + e_3}_{\text{biases}}

    Args:
        in_channels, squeeze, expand1x1, expand3x3: :math:`C_i, s, e_1, e_3`, at least 1.

    Raises:
        TypeError, ValueError: an argument that is no whole number of at least 1.

    Source:
        F. N. Iandola, S. Han, M. W. Moskewicz, K. Ashraf, W. J. Dally, K. Keutzer, "SqueezeNet: AlexNet-level
        accuracy with 50x fewer parameters and <0.5MB model size", 2016, section 3.

    Example:
        >>> fire_parameters(2, 1, 1, 1)  # 2 + 1 + 9 weights and three biases
        15
        >>> fire_parameters(96, 16, 64, 64)  # the first one of SqueezeNet 1.0
        11920
    """
    _check(in_channels, squeeze, expand1x1, expand3x3)
    weights = in_channels * squeeze + squeeze * expand1x1 + 9 * squeeze * expand3x3
    return weights + squeeze + expand1x1 + expand3x3


class Fire(nn.Module):
    r"""Squeeze and expand.

    .. math:: z = \mathrm{ReLU}(W_s x), \qquad y = \mathrm{ReLU}\left([W_1 z,\; W_3 * z]\right)

    with :math:`W_s` and :math:`W_1` of 1x1, :math:`W_3` of 3x3, a bias each, and :math:`[\cdot,\cdot]` one
    behind the other along the channels. It is cheap where s is small: everything passes through these s
    channels.

    Args:
        in_channels: :math:`C_i`.
        squeeze: :math:`s`, the channels in between.
        expand1x1, expand3x3: :math:`e_1, e_3`; there are :math:`e_1 + e_3` output channels.
        stride: 1 or 2, of both expanding convolutions.
        batch_norm: each convolution is followed by batch norm, and has no bias.

    Shape: (N, C_i, H, W) -> (N, e_1 + e_3, ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: F. N. Iandola et al., "SqueezeNet", 2016, section 3.
    Differs: the paper has neither stride (max pooling between the modules halves the image) nor batch norm;
        both are off by default.

    Example:
        >>> fire = Fire(96, 16, 64, 64)
        >>> fire(torch.zeros(1, 96, 5, 5)).shape
        torch.Size([1, 128, 5, 5])
        >>> sum(p.numel() for p in fire.parameters()) == fire_parameters(96, 16, 64, 64)
        True
    """

    def __init__(
        self,
        in_channels: int,
        squeeze: int,
        expand1x1: int,
        expand3x3: int,
        stride: int = 1,
        batch_norm: bool = False,
    ):
        _check(in_channels, squeeze, expand1x1, expand3x3)
        check_int("stride", stride, 1, 2)
        super().__init__()
        self.squeeze = _conv(in_channels, squeeze, 1, 1, batch_norm)
        self.expand1x1 = _conv(squeeze, expand1x1, 1, stride, batch_norm)
        self.expand3x3 = _conv(squeeze, expand3x3, 3, stride, batch_norm)

    @classmethod
    def of(
        cls,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        squeeze_ratio: float = 0.125,
        share3x3: float = 0.5,
        batch_norm: bool = False,
    ) -> "Fire":
        r"""A fire module by its two ratios instead of three numbers of channels.

        .. math:: s = \mathrm{SR}\,(e_1 + e_3), \qquad e_3 = \mathrm{pct}_{3\times3}\,(e_1 + e_3)

        Args:
            in_channels: :math:`C_i`.
            out_channels: :math:`e_1 + e_3`, at least 2.
            stride, batch_norm: as in the class.
            squeeze_ratio: SR, in (0, 1].
            share3x3: the fraction of the output channels that 3x3 makes, in (0, 1]; 1x1 makes at least one.

        Raises:
            TypeError, ValueError: an argument out of its range.

        Source: F. N. Iandola et al., "SqueezeNet", 2016, section 5: its own are SR = 0.125, half of them 3x3.

        Example:
            >>> Fire.of(96, 128).squeeze
            Conv2d(96, 16, kernel_size=(1, 1), stride=(1, 1))
        """
        check_int("out_channels", out_channels, 2)
        squeeze = part_of(out_channels, squeeze_ratio, "squeeze_ratio")
        expand3x3 = min(part_of(out_channels, share3x3, "share3x3"), out_channels - 1)
        return cls(in_channels, squeeze, out_channels - expand3x3, expand3x3, stride, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.squeeze(x))  # (N, s, H, W)
        return F.relu(torch.cat([self.expand1x1(z), self.expand3x3(z)], 1))


def _check(in_channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
    check_int("in_channels", in_channels, 1)
    check_int("squeeze", squeeze, 1)
    check_int("expand1x1", expand1x1, 1)
    check_int("expand3x3", expand3x3, 1)


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int, batch_norm: bool) -> nn.Module:
    if batch_norm:
        return ConvBN(in_channels, out_channels, kernel_size, stride, activation=None)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
