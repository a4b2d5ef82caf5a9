r"""The inverted residual with a linear bottleneck, of which MobileNetV2, V3 and EfficientNet are made.

The residual block of ResNet is wide outside and narrow inside; here the shortcut joins the narrow ends, and
the inside is wide, because a depthwise convolution is cheap there. The narrow end has no activation: a ReLU
in few channels would destroy what it sets to zero, with no other channel left to remember it.
"""

from torch import Tensor, nn

from compresslab.compact.blocks import ConvBN, Factory, NormFactory, part_of, widened
from compresslab.compact.squeeze_excite import SqueezeExcite
from compresslab.core.errors import check_int


class InvertedResidual(nn.Module):
    r"""Widen by 1x1, filter each channel by k x k, narrow by 1x1; add the input where shapes agree.

    .. math:: f(x) = W_p\; \mathrm{SE}\left(\sigma(D * \sigma(W_e x))\right), \qquad
              y = \begin{cases} x + f(x) & \text{stride 1 and equal channels} \\ f(x) & \text{else}
              \end{cases}

    each convolution followed by batch norm. With M input, N output and :math:`tM` hidden channels a pixel
    costs :math:`t M^2 + t M k^2 + t M N` multiply-accumulates (stride 1).

    Args:
        in_channels, out_channels: M and N.
        stride: 1 or 2, of the depthwise convolution.
        expansion: :math:`t`, a number from 1 to 64; with :math:`t = 1` there is no widening layer.
        kernel_size: k of the depthwise convolution, odd.
        activation: makes :math:`\sigma`: ``nn.ReLU6`` (V2), ``nn.Hardswish`` (V3), ``nn.SiLU``
            (EfficientNet).
        squeeze_excite: None; or a fraction: squeeze-and-excitation with that part of the hidden channels in
            its middle; or a module of your own, for the hidden channels.
        hidden_channels: the hidden channels themselves, instead of ``expansion``.
        norm: makes the normalisations.

    Attributes:
        branch: :math:`f`, an ``nn.Sequential`` of ``expand``, ``depthwise``, ``squeeze_excite``, ``project``;
            the first and third are missing where there are none.
        residual: whether the input is added.

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source:
        M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: Inverted Residuals and Linear
        Bottlenecks", CVPR 2018, section 3; A. Howard et al., "Searching for MobileNetV3", ICCV 2019, for the
        place of squeeze-and-excitation.

    Example:
        >>> block = InvertedResidual(8, 8)
        >>> block.residual, list(block.branch._modules)
        (True, ['expand', 'depthwise', 'project'])
        >>> sum(p.numel() for p in block.parameters())  # 48 * (8 + 9 + 8), and 2 * (48 + 48 + 8)
        1408
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        expansion: float = 6,
        kernel_size: int = 3,
        activation: Factory = nn.ReLU6,
        squeeze_excite: float | nn.Module | None = None,
        *,
        hidden_channels: int | None = None,
        norm: NormFactory = nn.BatchNorm2d,
    ):
        check_int("in_channels", in_channels, 1)
        check_int("out_channels", out_channels, 1)
        check_int("stride", stride, 1, 2)
        hidden = _hidden(in_channels, expansion, hidden_channels)
        super().__init__()
        self.residual = stride == 1 and in_channels == out_channels
        self.branch = nn.Sequential()
        if hidden != in_channels:
            self.branch.add_module("expand", ConvBN(in_channels, hidden, 1, 1, 1, activation, norm))
        depthwise = ConvBN(hidden, hidden, kernel_size, stride, hidden, activation, norm)
        self.branch.add_module("depthwise", depthwise)
        if squeeze_excite is not None:
            self.branch.add_module("squeeze_excite", _squeeze_excite(hidden, squeeze_excite))
        self.branch.add_module("project", ConvBN(hidden, out_channels, 1, activation=None, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return x + y if self.residual else y


def _hidden(in_channels: int, expansion: float, hidden_channels: int | None) -> int:
    """The hidden channels, as asked for in one of two ways."""
    if hidden_channels is not None:
        return check_int("hidden_channels", hidden_channels, 1)
    return widened(in_channels, expansion)


def _squeeze_excite(hidden: int, wanted: float | nn.Module) -> nn.Module:
    if isinstance(wanted, nn.Module):
        return wanted
    return SqueezeExcite(hidden, part_of(hidden, wanted, "squeeze_excite"))
