r"""ShuffleNet V2: three stages of units that split the channels in two and shuffle them.

The paper starts from measured time, not from operations, and from four guidelines: equal channels in and out
of a 1x1 convolution move the least memory (G1), groups move more (G2), many small branches run badly in
parallel (G3), and additions and activations are not free (G4). ``shuffle.memory_access`` computes the first
two.
"""

from torch import Tensor, nn

from compresslab.compact.blocks import ConvBN
from compresslab.compact.shuffle import ShuffleUnitV2
from compresslab.core.errors import check_int

# width_mult -> channels of the stem, of stages 2, 3 and 4, and of the last 1x1 convolution
WIDTHS: dict[float, tuple[int, int, int, int, int]] = {
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 244, 488, 976, 2048),
}
UNITS = (4, 8, 4)  # of stages 2, 3 and 4; the first of each halves the image


class ShuffleNetV2(nn.Module):
    r"""ShuffleNet V2 in its four sizes, for images of about 224 x 224.

    A 3x3 convolution and a max pooling of stride 2 each, three stages of ``ShuffleUnitV2`` that halve the
    image once each, a 1x1 convolution, the mean over the image, a linear layer. The stem is equally narrow in
    all sizes.

    Args:
        width_mult: 0.5, 1, 1.5 or 2. The paper's widths are a table, not a product.
        num_classes: outputs.
        in_channels: of the images.

    Shape: (N, in_channels, H, W) -> (N, num_classes), any H and W.

    Raises:
        TypeError, ValueError: a width that the paper does not have, or a number out of its range.

    Source:
        N. Ma, X. Zhang, H.-T. Zheng, J. Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN
        Architecture Design", ECCV 2018, table 5.

    Example:
        >>> sum(p.numel() for p in ShuffleNetV2().parameters())
        2278604
    """

    def __init__(self, width_mult: float = 1.0, num_classes: int = 1000, in_channels: int = 3):
        if isinstance(width_mult, bool) or width_mult not in WIDTHS:
            allowed = ", ".join(f"{w:g}" for w in WIDTHS)
            raise ValueError(f"width_mult must be one of the paper's {allowed}, got {width_mult!r}")
        check_int("num_classes", num_classes, 1)
        check_int("in_channels", in_channels, 1)
        super().__init__()
        channels, *stages, last = WIDTHS[width_mult]
        self.stem = ConvBN(in_channels, channels, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.Sequential()
        for out, units in zip(stages, UNITS, strict=True):
            first = ShuffleUnitV2(channels, out, stride=2)
            self.stages.append(nn.Sequential(first, *(ShuffleUnitV2(out, out) for _ in range(units - 1))))
            channels = out
        self.head = ConvBN(channels, last, 1)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.pool(self.stem(x)))  # (N, 464, 7, 7) at width 1, for 224 x 224
        return self.fc(self.head(x).mean((2, 3)))
