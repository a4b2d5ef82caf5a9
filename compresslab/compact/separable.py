r"""Depthwise separable convolutions: filter each channel, then mix the channels; and how to get there.

A dense kernel does both at once. Doing one after the other can only express kernels of the form

.. math:: K_{n,m} = p_{n,m}\, d_m

where the N filters of an input channel are multiples of one :math:`d_m`: written as an :math:`N \times k^2`
matrix, :math:`K_{:,m}` has rank 1. So a separable convolution is no other species: it is a dense one with a
constraint, and the nearest one to a given kernel is M singular value decompositions away.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from compresslab.compact.blocks import ConvBN, Factory
from compresslab.core.errors import check_int


def separable_cost_ratio(out_channels: int, kernel_size: int) -> float:
    r"""What a separable convolution costs, as a fraction of the dense one: weights and operations alike.

    .. math:: \frac{D_K^2 M D_F^2 + M N D_F^2}{D_K^2 M N D_F^2} = \frac1N + \frac1{D_K^2}

    Args:
        out_channels: N. The input channels M and the size :math:`D_F` of the output cancel.
        kernel_size: :math:`D_K`.

    Returns:
        the ratio; above 1 for a 1x1 kernel, where there is nothing to separate.

    Raises:
        TypeError, ValueError: no whole numbers of at least 1.

    Source:
        A. G. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
        Applications", 2017, section 3.1.

    Example:
        >>> separable_cost_ratio(36, 3)  # 1/36 + 4/36
        0.1388888888888889
    """
    return 1 / check_int("out_channels", out_channels, 1) + 1 / check_int("kernel_size", kernel_size, 1) ** 2


class SeparableConv(nn.Module):
    r"""Depthwise k x k, then pointwise 1x1, each followed by batch norm and an activation.

    .. math:: y_n = \sigma\left(\sum_m p_{n,m}\, \sigma(d_m * x_m)\right)

    Args:
        in_channels, out_channels: M and N.
        kernel_size: k, odd.
        stride: at least 1, of the depthwise convolution.
        activation: makes :math:`\sigma`, twice; None for none.
        batch_norm: False leaves both batch norms out. With ``activation=None`` as well the block is linear,
            and equals one dense convolution without bias (``join_separable`` makes it).

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: A. G. Howard et al., "MobileNets", 2017, section 3.1 and figure 3.

    Example:
        >>> block = SeparableConv(4, 8, activation=None, batch_norm=False)
        >>> sum(p.numel() for p in block.parameters())  # 4 * 9 + 4 * 8, where a dense one has 4 * 8 * 9 = 288
        68
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        activation: Factory | None = nn.ReLU,
        batch_norm: bool = True,
    ):
        super().__init__()
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        check_int("in_channels", in_channels, 1)
        self.depthwise = ConvBN(in_channels, in_channels, kernel_size, stride, in_channels, activation, norm)
        self.pointwise = ConvBN(in_channels, out_channels, 1, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def join_separable(depthwise: nn.Conv2d, pointwise: nn.Conv2d) -> nn.Conv2d:
    r"""The dense convolution that equals a depthwise one followed by a pointwise one, nothing in between.

    .. math:: K_{n,m} = \sum_r p_{n,mR+r}\, d_{mR+r}, \qquad b = P\, b_d + b_p

    Args:
        depthwise: of M groups and MR output channels (R = 1 usually), with any stride, padding and dilation.
        pointwise: 1x1 from MR to N channels, without stride and padding.

    Returns:
        a new layer; it has a bias if one of the two has.

    Raises:
        TypeError, ValueError: the layers are not such a pair.

    Example:
        >>> block = SeparableConv(4, 8, activation=None, batch_norm=False)
        >>> join_separable(block.depthwise.conv, block.pointwise.conv)
        Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """
    _check_conv(depthwise)
    _check_conv(pointwise)
    channels = depthwise.in_channels
    if depthwise.groups != channels:
        raise ValueError(f"depthwise must have a group per input channel, {channels}, got {depthwise.groups}")
    plain = (pointwise.kernel_size, pointwise.stride, pointwise.groups) == ((1, 1), (1, 1), 1)
    if not plain or pointwise.padding not in ((0, 0), "valid", "same"):
        raise ValueError(f"pointwise must be 1x1 with stride 1, padding 0 and one group, got {pointwise}")
    if pointwise.in_channels != depthwise.out_channels:
        raise ValueError(
            f"pointwise must take the {depthwise.out_channels} channels of depthwise, "
            f"got in_channels={pointwise.in_channels}"
        )
    biased = depthwise.bias is not None or pointwise.bias is not None
    joined = _like(depthwise, channels, pointwise.out_channels, 1, biased)
    with torch.no_grad():
        p = pointwise.weight.flatten(1).unflatten(1, (channels, -1))  # (N, M, R)
        d = depthwise.weight.unflatten(0, (channels, -1)).squeeze(2)  # (M, R, kh, kw)
        joined.weight.copy_(torch.einsum("nmr,mrhw->nmhw", p, d))
        if biased:
            moved = 0 if depthwise.bias is None else pointwise.weight.flatten(1) @ depthwise.bias
            joined.bias.copy_(moved if pointwise.bias is None else moved + pointwise.bias)
    return joined


def separate_conv(conv: nn.Conv2d, rank: int = 1) -> nn.Sequential:
    r"""The separable convolution nearest to a dense one, by one SVD per input channel.

    .. math:: \min_{p, d} \sum_m \left\|K_{:,m} - \sum_{r \le R} p_{m,r}\, d_{m,r}^\top\right\|_F^2,
              \qquad K_{:,m} = U S V^\top: \quad p_{m,r} = u_r \sqrt{s_r}, \; d_{m,r} = v_r \sqrt{s_r}

    The problems of different input channels do not touch each other, and each is the best approximation of a
    matrix by one of rank R.

    Args:
        conv: dense (one group); any kernel size, stride, padding, dilation, with or without bias. Not
            changed.
        rank: R, depthwise filters per input channel: 1 is a separable convolution; with
            :math:`\min(N, k_h k_w)` any kernel is exact (and costs more than before).

    Returns:
        ``depthwise`` (M to MR channels in M groups, with the stride, the padding and the dilation) and
        ``pointwise`` (MR to N, with the bias), in a new ``nn.Sequential``.

    Raises:
        TypeError: ``conv`` is no ``nn.Conv2d``, or ``rank`` no whole number.
        ValueError: ``conv`` has groups, or the rank is out of its range.

    Source:
        C. Eckart, G. Young, "The Approximation of One Matrix by Another of Lower Rank", 1936, for each
        matrix.
    Differs: nearest in the weights, which is not nearest in the outputs unless the inputs are white.

    Example:
        >>> pair = separate_conv(nn.Conv2d(4, 8, 3, stride=2, padding=1))
        >>> pair.depthwise, pair.pointwise
        (Conv2d(4, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), groups=4, bias=False),
         Conv2d(4, 8, kernel_size=(1, 1), stride=(1, 1)))
    """
    u, s, vh = torch.linalg.svd(_matrices(conv, rank), full_matrices=False)  # (M, N, *), (M, *), (M, *, k^2)
    root = s[:, :rank].sqrt()
    p = u[:, :, :rank] * root[:, None]  # (M, N, R)
    d = vh[:, :rank] * root[:, :, None]  # (M, R, k^2)

    hidden = conv.in_channels * rank
    depthwise = _like(conv, conv.in_channels, hidden, conv.in_channels, bias=False)
    biased = conv.bias is not None
    like = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    pointwise = skip_init(nn.Conv2d, hidden, conv.out_channels, 1, bias=biased, **like)
    with torch.no_grad():
        depthwise.weight.copy_(d.reshape(depthwise.weight.shape))
        pointwise.weight.copy_(p.transpose(0, 1).reshape(pointwise.weight.shape))
        if biased:
            pointwise.bias.copy_(conv.bias)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))


def separation_error(conv: nn.Conv2d, rank: int = 1) -> float:
    r"""How far the nearest separable kernel is from a dense one, as a fraction of the dense one's norm.

    .. math:: \frac{\|K - \hat K\|_F}{\|K\|_F} =
              \sqrt{\frac{\sum_m \sum_{i > R} s_{m,i}^2}{\sum_m \sum_i s_{m,i}^2}}

    Args:
        conv, rank: as in ``separate_conv``.

    Returns:
        a fraction in [0, 1]: 0 if every :math:`K_{:,m}` has rank R at most (and for a kernel of zeros).

    Raises:
        TypeError, ValueError: as ``separate_conv``.

    Example:
        >>> conv = nn.Conv2d(1, 2, (1, 2), bias=False)
        >>> conv.weight.data[:, 0, 0] = torch.tensor([[4.0, 0.0], [0.0, 3.0]])  # singular values 4 and 3
        >>> round(separation_error(conv), 6)
        0.6
    """
    energy = torch.linalg.svdvals(_matrices(conv, rank)).square()
    total = energy.sum().item()
    return (energy[:, rank:].sum().item() / total) ** 0.5 if total else 0.0


def _matrices(conv: nn.Conv2d, rank: int) -> Tensor:
    """The kernel as one matrix per input channel, (M, N, kh * kw), float64; such a rank must be possible."""
    _check_conv(conv)
    if conv.groups != 1:
        raise ValueError(f"conv must be dense, groups=1, got groups={conv.groups}: what is to be separated?")
    matrices = conv.weight.detach().double().transpose(0, 1).flatten(2)
    check_int("rank", rank, 1, min(matrices.shape[1:]))
    return matrices


def _check_conv(conv: nn.Conv2d) -> None:
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"expected an nn.Conv2d, got {type(conv).__name__}")


def _like(conv: nn.Conv2d, in_channels: int, out_channels: int, groups: int, bias: bool) -> nn.Conv2d:
    """A convolution with the window of another, its weights still to be set."""
    return skip_init(
        nn.Conv2d, in_channels, out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
        groups, bias, conv.padding_mode, device=conv.weight.device, dtype=conv.weight.dtype,
    )  # fmt: skip
