"""MobileNetV3-Large: a network found by a search, with squeeze-and-excitation and hard-swish.

Beside the blocks it teaches where cost hides. The stem has 16 channels instead of 32, since hard-swish needs
fewer. The last expensive layer of V2, which widens 7x7 maps to 1280 channels, comes *after* the average here,
where the image is a single pixel.
"""

from functools import partial

from torch import Tensor, nn

from compresslab.compact.blocks import ConvBN
from compresslab.compact.inverted import InvertedResidual
from compresslab.compact.scaling import make_divisible, scale_channels
from compresslab.compact.squeeze_excite import SqueezeExcite
from compresslab.core.errors import check_fraction, check_int

STEM, LAST = 16, 1280
BLOCKS = (
    # kernel, hidden, out, squeeze-excite, activation, stride
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
)
NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)  # as the published networks were trained


class MobileNetV3Large(nn.Module):
    """A 3x3 convolution, fifteen inverted residuals, a 1x1 convolution, and two linear layers.

    Squeeze-and-excitation narrows to a quarter of the hidden channels and has the hard sigmoid as its gate.
    The network has 5,483,032 parameters for 1000 classes, more than V2, but fewer multiply-accumulates: 217
    million instead of 301. Nearly half of its parameters are in the two linear layers.

    Args:
        num_classes: outputs, at least 1.
        width_mult: multiplies the numbers of channels, in (0, 16].
        dropout: fraction of the 1280 features dropped before the last layer in training, in [0, 1].

    Shape: (N, 3, H, W) -> (N, num_classes), for images of any size; 224x224 in the paper.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: A. Howard, M. Sandler, G. Chu, L.-C. Chen, B. Chen, M. Tan, W. Wang, Y. Zhu, R. Pang,
        V. Vasudevan, Q. V. Le, H. Adam, "Searching for MobileNetV3", ICCV 2019, table 1.
    Differs: hidden widths are rounded to multiples of 8 after scaling, as in torchvision.

    Example:
        >>> sum(p.numel() for p in MobileNetV3Large(num_classes=10, width_mult=0.25).parameters())
        299210
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.2):
        check_int("num_classes", num_classes, 1)
        check_fraction("dropout", dropout)
        super().__init__()
        channels = scale_channels(STEM, width_mult)
        self.features = nn.Sequential(ConvBN(3, channels, stride=2, activation=nn.Hardswish, norm=NORM))
        for kernel_size, wide, out, with_squeeze, activation, stride in BLOCKS:
            hidden, out_channels = scale_channels(wide, width_mult), scale_channels(out, width_mult)
            squeeze = SqueezeExcite(hidden, make_divisible(hidden // 4)) if with_squeeze else None
            block = InvertedResidual(
                channels, out_channels, stride, kernel_size=kernel_size, activation=activation,
                squeeze_excite=squeeze, hidden_channels=hidden, norm=NORM,
            )  # fmt: skip
            self.features.append(block)
            channels = out_channels
        self.features.append(ConvBN(channels, 6 * channels, 1, activation=nn.Hardswish, norm=NORM))
        last = scale_channels(LAST, width_mult)
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, last), nn.Hardswish(), nn.Dropout(dropout), nn.Linear(last, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))
