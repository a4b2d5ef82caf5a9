"""EfficientNet-B0 and, by its two multipliers, the larger networks of the same family.

The block is that of MobileNetV3 with the swish instead of hard-swish, and squeeze-and-excitation in every
block. The network itself was found by a search; what the paper is known for is how it grows, see `scaling`.
"""

import math

from torch import Tensor, nn

from compresslab.compact.blocks import ConvBN
from compresslab.compact.depth import StochasticDepth, survival_probabilities
from compresslab.compact.inverted import InvertedResidual
from compresslab.compact.scaling import check_multiplier, make_divisible, scale_channels
from compresslab.compact.squeeze_excite import SqueezeExcite
from compresslab.core.errors import check_fraction, check_int

STEM = 32
STAGES = (
    # expansion, kernel, stride of the first block, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNetB0(nn.Module):
    """A 3x3 convolution, sixteen inverted residuals with squeeze-and-excitation, a 1x1 convolution.

    With ``width_mult`` and ``depth_mult`` of (1, 1.1), (1.1, 1.2), (1.2, 1.4) it is B1, B2, B3.
    B0 has 5,288,548 parameters for 1000 classes. Squeeze-and-excitation narrows to a quarter of the block's
    *input* channels.

    Args:
        num_classes: outputs, at least 1.
        width_mult: multiplies the numbers of channels, in (0, 16].
        depth_mult: multiplies the numbers of blocks, rounded up, in (0, 16].
        dropout: fraction of the features dropped before the classifier in training, in [0, 1].
        survival: of the last block's branch under stochastic depth, in (0, 1]; 1 turns it off.

    Shape: (N, 3, H, W) -> (N, num_classes), for images of any size; 224x224 for B0 in the paper.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        ICML 2019, section 4 and table 1.

    Example:
        >>> sum(p.numel() for p in EfficientNetB0(num_classes=10, width_mult=0.25).parameters())
        328956
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        depth_mult: float = 1.0,
        dropout: float = 0.2,
        survival: float = 0.8,
    ):
        check_int("num_classes", num_classes, 1)
        check_fraction("dropout", dropout)
        super().__init__()
        if check_fraction("survival", survival) == 0:
            raise ValueError("survival must be in (0, 1], got 0: a branch that survives is divided by it")
        blocks = _blocks(width_mult, depth_mult)
        channels = scale_channels(STEM, width_mult)
        self.features = nn.Sequential(ConvBN(3, channels, stride=2, activation=nn.SiLU))
        survivals = survival_probabilities(len(blocks), survival)
        for (expansion, kernel_size, stride, out_channels), alive in zip(blocks, survivals, strict=True):
            hidden = make_divisible(channels * expansion)
            squeeze = SqueezeExcite(hidden, max(1, channels // 4), activation=nn.SiLU, gate=nn.Sigmoid)
            block = InvertedResidual(
                channels, out_channels, stride, kernel_size=kernel_size, activation=nn.SiLU,
                squeeze_excite=squeeze, hidden_channels=hidden,
            )  # fmt: skip
            if block.residual:
                block.branch.add_module("depth", StochasticDepth(alive, mode="row", inverted=True))
            self.features.append(block)
            channels = out_channels
        self.features.append(ConvBN(channels, 4 * channels, 1, activation=nn.SiLU))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * channels, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def _blocks(width_mult: float, depth_mult: float) -> list[tuple[int, int, int, int]]:
    """(expansion, kernel, stride, output channels) of every block of the scaled network."""
    check_multiplier("depth_mult", depth_mult)
    return [
        (expansion, kernel_size, 1 if block else first_stride, scale_channels(wide, width_mult))
        for expansion, kernel_size, first_stride, wide, blocks in STAGES
        for block in range(math.ceil(blocks * depth_mult))
    ]
