r"""Ghost modules: compute a few feature maps in full, and the rest of them cheaply from those few.

Many maps of a trained layer look like copies of others, slightly changed. A ghost module takes that at its
word: an ordinary convolution makes :math:`m = n / s` *intrinsic* maps, and every one of them gets
:math:`s - 1` *ghosts* by a small linear filter of its own (a depthwise convolution).

    x (c maps) --conv k x k--> m intrinsic maps --+------ unchanged ------+--> n maps
                                                  |                       |
                                                  +-- depthwise d x d ----+
"""

import torch
from torch import Tensor, nn

from compresslab.compact.blocks import ConvBN, Factory, check_kernel, part_of, widened
from compresslab.compact.squeeze_excite import SqueezeExcite
from compresslab.core.errors import check_int


def ghost_compression(
    in_channels: int, out_channels: int, kernel_size: int = 1, ratio: int = 2, ghost_kernel: int = 3
) -> float:
    r"""How many times fewer weights (and operations) a ghost module has than the convolution it replaces.

    .. math:: r = \frac{n\,c\,k^2}{\frac n s c\,k^2 + (s - 1) \frac n s d^2}
              \approx \frac{s c}{s + c - 1} \approx s

    The first approximation holds for :math:`d \approx k`, the second for many input channels. With the 1x1
    convolutions of GhostNet and :math:`d = 3` neither does: 16 channels make 1.28 out of "about 2".

    Args:
        in_channels, out_channels: :math:`c, n`, at least 1.
        kernel_size, ghost_kernel: :math:`k, d`, odd.
        ratio: :math:`s`, maps per intrinsic map, 1 to ``out_channels``. Where it does not divide :math:`n`,
            :math:`\lceil n / s \rceil` intrinsic maps are counted, as `GhostModule` makes them.

    Returns:
        the ratio of the numbers of weights, without biases and batch norms.

    Raises:
        TypeError, ValueError: an argument that is no whole number, or out of range.

    Source: K. Han, Y. Wang, Q. Tian, J. Guo, C. Xu, C. Xu, "GhostNet: More Features from Cheap Operations",
        CVPR 2020, section 3.1.

    Example:
        >>> ghost_compression(3, 8, kernel_size=3, ratio=2, ghost_kernel=3)  # 216 / (108 + 36)
        1.5
        >>> round(ghost_compression(16, 16), 2)
        1.28
    """
    intrinsic = _check(in_channels, out_channels, kernel_size, ratio, ghost_kernel)
    dense = out_channels * in_channels * kernel_size**2
    return dense / (intrinsic * in_channels * kernel_size**2 + (ratio - 1) * intrinsic * ghost_kernel**2)


class GhostModule(nn.Module):
    r"""A convolution that computes :math:`1/s` of its maps and derives the others from them.

    .. math:: Y' = X * f', \qquad y_{ij} = \Phi_{ij}(y'_i), \quad i = 1 \dots m, \; j = 1 \dots s

    with :math:`\Phi_{is}` the identity and the other :math:`\Phi` depthwise filters of :math:`d \times d`.
    The output holds the :math:`m` intrinsic maps first, unchanged, and the ghosts after them.

    Args:
        in_channels, out_channels: :math:`c, n`, at least 1.
        kernel_size: :math:`k` of the primary convolution, odd.
        ratio: :math:`s`, 1 to ``out_channels``; 1 is an ordinary convolution.
        ghost_kernel: :math:`d` of the cheap filters, odd.
        activation: after both parts, None for none.
        stride: of the primary convolution.

    Shape: (N, C, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument that is no whole number, or out of range.

    Source: Han et al., CVPR 2020, section 3.1 and figure 2.
    Differs: if :math:`s` does not divide :math:`n`, the last ghosts are computed and cut off; batch norm
        and activation follow each part, as in the networks of section 3.2.

    Example:
        >>> module = GhostModule(4, 6, ratio=3)
        >>> [tuple(layer.weight.shape) for layer in module.modules() if isinstance(layer, nn.Conv2d)]
        [(2, 4, 1, 1), (4, 1, 3, 3)]
        >>> module(torch.zeros(1, 4, 5, 5)).shape
        torch.Size([1, 6, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        ratio: int = 2,
        ghost_kernel: int = 3,
        activation: Factory | None = nn.ReLU,
        stride: int = 1,
    ):
        super().__init__()
        intrinsic = _check(in_channels, out_channels, kernel_size, ratio, ghost_kernel)
        self.out_channels = out_channels
        self.primary = ConvBN(in_channels, intrinsic, kernel_size, stride, activation=activation)
        ghosts = (ratio - 1) * intrinsic
        self.cheap = None
        if ghosts:
            self.cheap = ConvBN(intrinsic, ghosts, ghost_kernel, groups=intrinsic, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        intrinsic = self.primary(x)  # (N, m, H', W')
        if self.cheap is None:
            return intrinsic
        return torch.cat([intrinsic, self.cheap(intrinsic)], 1)[:, : self.out_channels]


class GhostBottleneck(nn.Module):
    """Two ghost modules with a shortcut: the first widens, the second narrows and has no activation.

    With stride 2 a depthwise convolution stands between them. The shortcut is the identity where the
    shapes agree, otherwise a depthwise convolution with the stride and a 1x1 convolution.

    Args:
        in_channels, out_channels: at least 1.
        stride: 1 or 2.
        expansion: hidden channels per *input* channel, 1 to 64, such as 2.5.
        kernel_size: of the strided depthwise convolution and of the shortcut's, odd.
        ratio, ghost_kernel: of both ghost modules.
        squeeze_excite: fraction of the hidden channels to which squeeze-and-excitation narrows, or None.
        activation: of the first module.

    Shape: (N, C, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: Han et al., CVPR 2020, section 3.2 and figure 3 (the expansion of its table 1 is up to 6).

    Example:
        >>> block = GhostBottleneck(8, 8, expansion=3)
        >>> block.residual, block(torch.zeros(1, 8, 6, 6)).shape
        (True, torch.Size([1, 8, 6, 6]))
        >>> GhostBottleneck(8, 12, stride=2)(torch.zeros(1, 8, 7, 7)).shape
        torch.Size([1, 12, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        expansion: float = 3,
        kernel_size: int = 3,
        ratio: int = 2,
        ghost_kernel: int = 3,
        squeeze_excite: float | None = None,
        activation: Factory | None = nn.ReLU,
    ):
        super().__init__()
        check_int("in_channels", in_channels, 1)
        check_int("stride", stride, 1, 2)
        hidden = widened(in_channels, expansion)
        self.residual = stride == 1 and in_channels == out_channels
        self.widen = GhostModule(in_channels, hidden, 1, ratio, ghost_kernel, activation)
        self.depthwise = self.squeeze = None
        if stride > 1:
            self.depthwise = ConvBN(hidden, hidden, kernel_size, stride, groups=hidden, activation=None)
        if squeeze_excite is not None:
            self.squeeze = SqueezeExcite(hidden, part_of(hidden, squeeze_excite, "squeeze_excite"))
        self.narrow = GhostModule(hidden, out_channels, 1, ratio, ghost_kernel, activation=None)
        self.shortcut: nn.Module = nn.Identity()
        if not self.residual:
            self.shortcut = nn.Sequential(
                ConvBN(in_channels, in_channels, kernel_size, stride, groups=in_channels, activation=None),
                ConvBN(in_channels, out_channels, 1, activation=None),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.widen(x)  # (N, hidden, H, W)
        if self.depthwise is not None:
            y = self.depthwise(y)
        if self.squeeze is not None:
            y = self.squeeze(y)
        return self.narrow(y) + self.shortcut(x)


def _check(in_channels: int, out_channels: int, kernel_size: int, ratio: int, ghost_kernel: int) -> int:
    """Check the numbers of a ghost module and return how many intrinsic maps it makes."""
    check_int("in_channels", in_channels, 1)
    check_int("out_channels", out_channels, 1)
    check_int("ratio", ratio, 1, out_channels)
    check_kernel(kernel_size)
    check_kernel(ghost_kernel, "ghost_kernel")
    return -(-out_channels // ratio)
