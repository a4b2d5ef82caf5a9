"""MobileNet V1 and V2: depthwise-separable convolutions, then inverted residuals with linear bottlenecks.

| network       | parameters | million multiply-accumulates at 224x224 |
|---------------|------------|-----------------------------------------|
| `MobileNetV1` | 4,231,976  | 569                                     |
| `MobileNetV2` | 3,504,872  | 301                                     |

Both halve the image five times and end in a global average and one linear layer. Other tools print other
counts for the same network: some count the running statistics of batch norm as parameters.
"""

from torch import Tensor, nn

from compresslab.compact.blocks import ConvBN
from compresslab.compact.inverted import InvertedResidual
from compresslab.compact.scaling import check_multiplier, make_divisible, scale_channels
from compresslab.compact.separable import SeparableConv
from compresslab.core.errors import check_fraction, check_int

V1_STEM = 32
V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    *[(512, 1)] * 5, (1024, 2), (1024, 1),
)  # (channels, stride)  # fmt: skip
V2_STEM, V2_LAST = 32, 1280
V2_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # (expansion, channels, blocks, stride of the first)  # fmt: skip


class MobileNetV1(nn.Module):
    r"""A 3x3 convolution and thirteen depthwise-separable ones.

    Args:
        num_classes: outputs, at least 1.
        width_mult: :math:`\alpha`, multiplies every number of channels, in (0, 16].

    Shape: (N, 3, H, W) -> (N, num_classes), for images of any size; 224x224 in the paper.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: A. G. Howard, M. Zhu, B. Chen, D. Kalenichenko, W. Wang, T. Weyand, M. Andreetto, H. Adam,
        "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017, table 1.
    Differs: the last block has stride 1; the table prints 2, which does not fit its own output size. Channels
        are rounded to multiples of 8, which changes none of the widths in the paper.

    Example:
        >>> sum(p.numel() for p in MobileNetV1(num_classes=10, width_mult=0.25).parameters())
        215642
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0):
        check_int("num_classes", num_classes, 1)
        super().__init__()
        channels = scale_channels(V1_STEM, width_mult)
        self.features = nn.Sequential(ConvBN(3, channels, stride=2))
        for wide, stride in V1_BLOCKS:
            out_channels = scale_channels(wide, width_mult)
            self.features.append(SeparableConv(channels, out_channels, stride=stride))
            channels = out_channels
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v1_parameters(num_classes: int = 1000, width_mult: float = 1.0) -> int:
    r"""The parameters of `MobileNetV1`, from its table and without building it.

    .. math:: P = 27\,C_0 + 2\,C_0 + \sum_{l} \left(9\,M_l + 2\,M_l + M_l N_l + 2\,N_l\right) + (N_L + 1) K

    with :math:`C_0` channels of the stem, two numbers of batch norm per channel, and :math:`K` classes.

    Args: of `MobileNetV1`.
    Raises:
        TypeError, ValueError: an argument out of range.

    Example:
        >>> mobilenet_v1_parameters()
        4231976
    """
    check_int("num_classes", num_classes, 1)
    channels = scale_channels(V1_STEM, width_mult)
    total = (27 + 2) * channels
    for wide, _ in V1_BLOCKS:
        out_channels = scale_channels(wide, width_mult)
        total += (9 + 2) * channels + channels * out_channels + 2 * out_channels
        channels = out_channels
    return total + (channels + 1) * num_classes


class MobileNetV2(nn.Module):
    """A 3x3 convolution, seventeen inverted residuals, a 1x1 convolution that widens.

    Args:
        num_classes: outputs, at least 1.
        width_mult: multiplies the numbers of channels, in (0, 16]; the last 1x1 convolution never gets
            narrower than 1280.
        dropout: fraction of the features dropped before the classifier in training, in [0, 1].

    Shape: (N, 3, H, W) -> (N, num_classes), for images of any size; 224x224 in the paper.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: Inverted Residuals and
        Linear Bottlenecks", CVPR 2018, table 2.

    Example:
        >>> sum(p.numel() for p in MobileNetV2(num_classes=10, width_mult=0.1).parameters())
        98890
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.2):
        check_int("num_classes", num_classes, 1)
        check_fraction("dropout", dropout)
        super().__init__()
        channels = scale_channels(V2_STEM, width_mult)
        self.features = nn.Sequential(ConvBN(3, channels, stride=2, activation=nn.ReLU6))
        for expansion, wide, blocks, first_stride in V2_STAGES:
            out_channels = scale_channels(wide, width_mult)
            for block in range(blocks):
                stride = 1 if block else first_stride
                self.features.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        last = make_divisible(V2_LAST * max(1.0, check_multiplier("width_mult", width_mult)))
        self.features.append(ConvBN(channels, last, 1, activation=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))
