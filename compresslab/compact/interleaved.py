r"""Interleaved group convolutions: two group convolutions that together reach every channel.

A group convolution is cheap, because an output sees only the inputs of its own group. If a second one is
grouped *across* the first, so that each of its groups takes one channel from every group of the first, then
every output sees every input again:

    primary:    L groups of M channels, k x k     filters space, mixes the channels of one group
    secondary:  M groups of L channels, 1 x 1     mixes one channel from each primary group

The two have so few weights that the layer may be *wider* than a dense convolution of the same size.
"""

import math

import torch
from torch import Tensor, nn

from compresslab.compact.blocks import Factory, check_kernel
from compresslab.compact.shuffle import channel_shuffle
from compresslab.core.errors import check_int


def interleaved_parameters(primary: int, secondary: int, kernel_size: int = 3) -> int:
    r"""The weights of an interleaved group convolution that keeps its number of channels :math:`G = L M`.

    .. math:: T = L\,M^2 S + M\,L^2 = G\,(M S + L)

    Args:
        primary: :math:`L`, groups of the k x k convolution, at least 1.
        secondary: :math:`M`, groups of the 1x1 convolution, at least 1.
        kernel_size: :math:`k`, :math:`S = k^2`.

    Returns:
        the number of weights, without bias and batch norm.

    Raises:
        TypeError, ValueError: an argument that is no whole number of at least 1.

    Source: T. Zhang, G.-J. Qi, B. Xiao, J. Wang, "Interleaved Group Convolutions for Deep Neural Networks",
        ICCV 2017, section 3.

    Example:
        >>> interleaved_parameters(primary=4, secondary=2)  # 8 channels: 8 * (2 * 9 + 4)
        176
        >>> 8 * 8 * 9  # the dense convolution of the same width
        576
    """
    for name, value in (("primary", primary), ("secondary", secondary), ("kernel_size", kernel_size)):
        check_int(name, value, 1)
    return primary * secondary * (secondary * kernel_size**2 + primary)


def dense_width(parameters: int, kernel_size: int = 3) -> float:
    r"""Channels of the dense convolution, as many in as out, that spends the given number of weights.

    .. math:: C = \sqrt{T / S}

    Args:
        parameters: :math:`T`, at least 1.
        kernel_size: :math:`k`, :math:`S = k^2`.

    Raises:
        TypeError, ValueError: an argument that is no whole number of at least 1.

    Example:
        >>> dense_width(576)
        8.0
    """
    return math.sqrt(check_int("parameters", parameters, 1)) / check_int("kernel_size", kernel_size, 1)


def is_wider(primary: int, secondary: int, kernel_size: int = 3) -> bool:
    r"""Whether the interleaved convolution is wider than the dense one of equally many weights.

    With :math:`C^2 S = G (M S + L)` follows

    .. math:: G > C \iff G\,S > M S + L \iff M S\,(L - 1) > L \iff \frac{L}{L - 1} < M S

    so for a 3x3 kernel it is wider as soon as there are two primary groups, and never with one.
    For a given :math:`G` the weights are fewest where :math:`L = M S`, since :math:`M S + L \ge 2\sqrt{G S}`.

    Args:
        primary, secondary, kernel_size: :math:`L, M, k`, see `interleaved_parameters`.

    Raises:
        TypeError, ValueError: an argument that is no whole number of at least 1.

    Source: Zhang et al., ICCV 2017, section 3, where the width is analysed; derived here from the two counts.

    Example:
        >>> is_wider(2, 1), is_wider(1, 8), is_wider(2, 1, kernel_size=1)
        (True, False, False)
    """
    interleaved_parameters(primary, secondary, kernel_size)  # checks the arguments
    return secondary * kernel_size**2 * (primary - 1) > primary


class InterleavedGroupConv(nn.Module):
    r"""Primary group convolution, permutation, secondary group convolution; then batch norm and activation.

    .. math:: x' = P\,W^d P^{\mathsf T}\,W^p x

    with block-diagonal :math:`W^p` (L blocks) and :math:`W^d` (M blocks). Nothing non-linear stands between
    the two, so they are a dense convolution whose kernel is a product of sparse ones (`dense_kernel`).

    Args:
        in_channels, out_channels: multiples of ``primary``.
        stride: of the primary convolution.
        primary: :math:`L`, groups of the k x k convolution; the 1x1 convolution has out_channels / L groups.
        kernel_size: :math:`k`, odd.
        activation: after the batch norm, None for none.

    Shape: (N, C, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument out of range, or ``primary`` does not divide the channels.

    Source: Zhang et al., ICCV 2017, section 3.
    Differs: input and output may have different numbers of channels, and there may be a stride.

    Example:
        >>> block = InterleavedGroupConv(8, 8, primary=4)
        >>> block.primary.weight.numel() + block.secondary.weight.numel()
        176
        >>> block(torch.zeros(1, 8, 5, 5)).shape
        torch.Size([1, 8, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        primary: int = 2,
        kernel_size: int = 3,
        activation: Factory | None = nn.ReLU,
    ):
        super().__init__()
        check_int("primary", primary, 1)
        check_int("stride", stride, 1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if check_int(name, channels, 1) % primary:
                raise ValueError(f"primary must divide {name}, got {primary} groups for {channels} channels")
        padding = check_kernel(kernel_size) // 2
        self.groups = primary, out_channels // primary
        self.primary = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=primary, bias=False
        )
        self.secondary = nn.Conv2d(out_channels, out_channels, 1, groups=self.groups[1], bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = nn.Identity() if activation is None else activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.linear(x)))

    def linear(self, x: Tensor) -> Tensor:
        """The two convolutions with the permutation between them and its inverse after them."""
        primary, secondary = self.groups
        y = channel_shuffle(self.primary(x), primary)  # (primary, secondary) -> (secondary, primary)
        return channel_shuffle(self.secondary(y), secondary)  # and back

    def dense_kernel(self) -> Tensor:
        r"""The kernel of the one dense convolution that computes the same: (out, in, k, k).

        Source: as the class; found by following one unit of every weight of the primary convolution.
        Example:
            >>> block = InterleavedGroupConv(4, 4, primary=2)
            >>> (block.dense_kernel() != 0).all().item()
            True
        """
        first, second = (_ungrouped(conv) for conv in (self.primary, self.secondary))
        order = torch.arange(len(first)).view(self.groups).T.flatten()  # shuffled position -> channel
        second_by_channel = torch.empty_like(second)
        second_by_channel[order[:, None], order[None]] = second
        return torch.einsum("oh,hikl->oikl", second_by_channel[..., 0, 0], first)


def _ungrouped(conv: nn.Conv2d) -> Tensor:
    """The kernel of a group convolution as that of a dense one: zero outside its diagonal blocks."""
    blocks = conv.weight.detach().chunk(conv.groups)
    rows, columns = len(blocks[0]), blocks[0].shape[1]
    dense = conv.weight.new_zeros(rows * conv.groups, columns * conv.groups, *conv.kernel_size)
    for group, block in enumerate(blocks):
        dense[group * rows : (group + 1) * rows, group * columns : (group + 1) * columns] = block
    return dense
