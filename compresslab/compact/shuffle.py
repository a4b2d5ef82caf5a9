r"""Group convolutions and the channel shuffle: ShuffleNet V1 and V2.

A 1x1 convolution in g groups costs a g-th, but a group never sees the channels of another, however many such
layers follow. The shuffle costs no operation at all and lets every group of the next layer see every group of
this one.
"""

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compresslab.compact.blocks import ConvBN, check_groups
from compresslab.core.errors import check_int


@fx.wrap  # a check of numbers: torch.fx shall write the call down, not look into it
def _divisor(groups: int, channels: int) -> int:
    return check_groups(groups, channels=channels)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    r"""Take one channel of each group in turn.

    With :math:`C = g n` channels, channel :math:`i n + j` (number j of group i) moves to :math:`j g + i`:
    write the channels into a g x n table by rows, read it by columns.

    .. math:: (g, n) \to (n, g)

    Args:
        x: (N, C, H, W), or any shape with the channels second.
        groups: g, divides C.

    Returns:
        the same shape: a permutation of the channels, nothing computed.

    Raises:
        TypeError, ValueError: ``groups`` is no whole number that divides C.

    Source:
        X. Zhang, X. Zhou, M. Lin, J. Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network
        for Mobile Devices", CVPR 2018, section 3.1.

    Example:
        >>> x = torch.arange(6).reshape(1, 6, 1, 1)
        >>> channel_shuffle(x, 2).flatten().tolist()  # groups (0, 1, 2) and (3, 4, 5)
        [0, 3, 1, 4, 2, 5]
    """
    return x.unflatten(1, (_divisor(groups, x.shape[1]), -1)).transpose(1, 2).flatten(1, 2)


def channel_unshuffle(x: Tensor, groups: int) -> Tensor:
    r"""Undo ``channel_shuffle(x, groups)``: a shuffle with :math:`C / g` groups, not with g.

    .. math:: (n, g) \to (g, n)

    Args:
        x: (N, C, H, W), or any shape with the channels second.
        groups: g, as it was in the shuffle.

    Raises:
        TypeError, ValueError: ``groups`` is no whole number that divides C.

    Example:
        >>> x = torch.arange(6).reshape(1, 6, 1, 1)
        >>> channel_unshuffle(channel_shuffle(x, 2), 2).flatten().tolist()
        [0, 1, 2, 3, 4, 5]
    """
    return x.unflatten(1, (-1, _divisor(groups, x.shape[1]))).transpose(1, 2).flatten(1, 2)


class ChannelShuffle(nn.Module):
    """``channel_shuffle`` as a layer; arguments and errors are the same.

    Example:
        >>> ChannelShuffle(2)(torch.arange(4).reshape(1, 4, 1, 1)).flatten().tolist()
        [0, 2, 1, 3]
    """

    def __init__(self, groups: int):
        super().__init__()
        self.groups = check_int("groups", groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class ShuffleUnitV1(nn.Module):
    r"""A bottleneck of group convolutions with a shuffle in between.

    .. math:: f(x) = G_2\left(D * \mathrm{shuffle}(\mathrm{ReLU}(G_1 x))\right), \qquad
              y = \begin{cases} \mathrm{ReLU}(x + f(x)) & \text{stride 1} \\
              \mathrm{ReLU}([\mathrm{pool}(x), f(x)]) & \text{stride 2} \end{cases}

    with :math:`G_1, G_2` of 1x1 in g groups and :math:`D` depthwise 3x3, batch norm after each, and no
    activation after the depthwise convolution. With stride 2 the input stays beside the result, averaged over
    3x3 pixels.

    Args:
        in_channels, out_channels: equal with stride 1; with stride 2 more out than in, for f makes the
            difference.
        stride: 1 or 2.
        groups: g; divides ``in_channels``, the bottleneck and the channels that f makes (out, or out - in).
        bottleneck: channels in the middle; by default a quarter of ``out_channels``, made divisible by g.
        first_groups: groups of :math:`G_1`; by default g. The paper takes 1 in the very first unit, whose
            input has few channels.

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument out of its range, channels that do not fit the stride, or groups
            that do not divide.

    Source: X. Zhang et al., "ShuffleNet", CVPR 2018, section 3.2 and figure 2.
    Differs: the bottleneck is rounded down to a multiple of g where a quarter is none.

    Example:
        >>> ShuffleUnitV1(8, 24, stride=2, groups=2)(torch.zeros(1, 8, 5, 5)).shape
        torch.Size([1, 24, 3, 3])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        groups: int = 2,
        *,
        bottleneck: int | None = None,
        first_groups: int | None = None,
    ):
        made = _made_channels(in_channels, out_channels, stride)
        check_groups(groups, made_channels=made)  # those that f makes
        if bottleneck is None:
            bottleneck = groups * max(1, out_channels // (4 * groups))
        check_groups(groups, bottleneck=check_int("bottleneck", bottleneck, 1))
        first = groups if first_groups is None else first_groups
        super().__init__()
        self.stride, self.residual = stride, stride == 1
        self.reduce = ConvBN(in_channels, bottleneck, 1, groups=first)
        self.shuffle = ChannelShuffle(groups)
        self.depthwise = ConvBN(bottleneck, bottleneck, 3, stride, bottleneck, activation=None)
        self.expand = ConvBN(bottleneck, made, 1, groups=groups, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise(self.shuffle(self.reduce(x))))
        if self.residual:
            return F.relu(x + y)
        return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, padding=1), y], 1))


def _made_channels(in_channels: int, out_channels: int, stride: int) -> int:
    """The channels that the unit has to compute: all with stride 1, the new ones with stride 2."""
    check_int("in_channels", in_channels, 1)
    check_int("out_channels", out_channels, 1)
    if check_int("stride", stride, 1, 2) == 1:
        if in_channels != out_channels:
            raise ValueError(
                f"with stride 1 the input is added, so out_channels must equal in_channels={in_channels}, "
                f"got {out_channels}"
            )
        return out_channels
    if out_channels <= in_channels:
        raise ValueError(
            f"with stride 2 the input is kept beside the new channels, so out_channels must be above "
            f"in_channels={in_channels}, got {out_channels}"
        )
    return out_channels - in_channels


class ShuffleUnitV2(nn.Module):
    r"""Split the channels, let one half pass, work on the other, shuffle.

    .. math:: y = \mathrm{shuffle}_2\left([x_1,\; f(x_2)]\right) \;\text{(stride 1)}, \qquad
              y = \mathrm{shuffle}_2\left([h(x),\; f(x)]\right) \;\text{(stride 2)}

    where f is 1x1, depthwise 3x3, 1x1 and h is depthwise 3x3, 1x1; batch norm after each, ReLU after each
    1x1. No groups, no addition, equal channels into and out of every 1x1: what the paper's guidelines ask
    for. The shuffle leaves channel 0 where it is, so the units of stride 1 never touch it; the next unit of
    stride 2 does.

    Args:
        in_channels, out_channels: both halves have half of ``out_channels``, which is even; with stride 1
            they are equal.
        stride: 1 or 2.

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument out of its range, an odd number of channels, or unequal ones with
            stride 1.

    Source:
        N. Ma, X. Zhang, H.-T. Zheng, J. Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN
        Architecture Design", ECCV 2018, section 3 and figure 3.

    Example:
        >>> unit = ShuffleUnitV2(4, 4)
        >>> unit(torch.zeros(1, 4, 5, 5)).shape
        torch.Size([1, 4, 5, 5])
        >>> sum(p.numel() for p in unit.parameters())  # 2 * 2 + 2 * 9 + 2 * 2, and 3 * (2 + 2)
        38
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        check_int("in_channels", in_channels, 1)
        check_int("stride", stride, 1, 2)
        if check_int("out_channels", out_channels, 2) % 2:
            raise ValueError(f"out_channels must be even, two equal halves, got {out_channels}")
        if stride == 1 and in_channels != out_channels:
            raise ValueError(
                f"with stride 1 half of the channels pass unchanged, so out_channels must equal "
                f"in_channels={in_channels}, got {out_channels}"
            )
        super().__init__()
        half = out_channels // 2
        self.stride = stride
        if stride == 2:
            self.passing = nn.Sequential(
                ConvBN(in_channels, in_channels, 3, 2, in_channels, activation=None),
                ConvBN(in_channels, half, 1),
            )
        self.working = nn.Sequential(
            ConvBN(half if stride == 1 else in_channels, half, 1),
            ConvBN(half, half, 3, stride, half, activation=None),
            ConvBN(half, half, 1),
        )
        self.shuffle = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            first, second = x.chunk(2, dim=1)
            return self.shuffle(torch.cat([first, self.working(second)], 1))
        return self.shuffle(torch.cat([self.passing(x), self.working(x)], 1))


def memory_access(height: int, width: int, in_channels: int, out_channels: int, groups: int = 1) -> int:
    r"""The numbers that a 1x1 convolution reads and writes: its input, its output and its weights, each once.

    .. math:: \mathrm{MAC} = hw\,(c_1 + c_2) + \frac{c_1 c_2}{g}

    The paper's MAC is the *memory access cost*; everywhere else in this course a MAC is a
    multiply-accumulate, and there are :math:`B = h w c_1 c_2 / g` of those.

    Args:
        height, width: h and w of the image, in pixels.
        in_channels, out_channels: :math:`c_1, c_2`.
        groups: g, divides both.

    Raises:
        TypeError, ValueError: no whole numbers of at least 1, or groups that do not divide.

    Source: N. Ma et al., "ShuffleNet V2", ECCV 2018, section 2, guidelines G1 and G2.

    Example:
        >>> memory_access(4, 4, 8, 8), memory_access(4, 4, 2, 32)  # both compute 16 * 64 products
        (320, 608)
    """
    pixels = check_int("height", height, 1) * check_int("width", width, 1)
    check_int("in_channels", in_channels, 1)
    check_int("out_channels", out_channels, 1)
    check_groups(groups, in_channels=in_channels, out_channels=out_channels)
    return pixels * (in_channels + out_channels) + in_channels * out_channels // groups


def least_memory_access(height: int, width: int, macs: int, groups: int = 1) -> float:
    r"""Guideline G1: no 1x1 convolution of so many multiply-accumulates moves fewer numbers than this.

    .. math:: \mathrm{MAC} \ge 2\sqrt{h w\, g B} + \frac{B}{hw}, \qquad B = \frac{h w c_1 c_2}{g}

    because :math:`c_1 + c_2 \ge 2\sqrt{c_1 c_2}`; equal channels, :math:`c_1 = c_2`, reach it. At the same B,
    more groups move more (G2).

    Args:
        height, width: of the image, in pixels.
        macs: B, multiply-accumulates, at least 1.
        groups: g; the paper states G1 for 1.

    Raises:
        TypeError, ValueError: no whole numbers of at least 1.

    Source: N. Ma et al., "ShuffleNet V2", ECCV 2018, section 2, guideline G1.

    Example:
        >>> least_memory_access(4, 4, 16 * 64)  # reached by 8 to 8 channels
        320.0
    """
    pixels = check_int("height", height, 1) * check_int("width", width, 1)
    check_int("macs", macs, 1)
    return 2 * (pixels * check_int("groups", groups, 1) * macs) ** 0.5 + macs / pixels
