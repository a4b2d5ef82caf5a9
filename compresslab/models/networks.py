"""The networks of the course: small enough for a laptop, famous enough to have papers written about them.

| network         | input   | parameters by default         | from                                 |
|-----------------|---------|-------------------------------|--------------------------------------|
| `LeNet300`      | 28x28   | 266,610                       | LeCun et al. 1998, Han et al. 2015   |
| `LeNet5`        | 1x28x28 | 431,080                       | the same, in the variant of Caffe    |
| `VGGLike`       | 3x32x32 | 1,183,466                     | Simonyan, Zisserman 2015, batch norm |
| `ResNet`        | 3x32x32 | 78,042 (depth 20: 272,474)    | He et al. 2016, section 4.2          |
| `MobileNetLike` | 3x32x32 | 66,170                        | Sandler et al. 2018                  |

Every network is described by data: `model.spec` is a dictionary that `from_spec` turns into the same network,
with new random weights. All of them can be traced by `torch.fx`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}")


class LeNet300(nn.Module):
    """LeNet-300-100: 784 - 300 - 100 - classes, with ReLU; flattens its input.

    Source: LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, 1998,
        section III.C; the usual first example of pruning (Han et al. 2015, table 3).
    Example:
        >>> sum(p.numel() for p in LeNet300().parameters())
        266610
    """

    def __init__(self, num_classes: int = 10) -> None:
        _at_least(1, num_classes=num_classes)
        super().__init__()
        self.spec = {"model": "lenet300", "num_classes": num_classes}
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)  # (N, 1, 28, 28) -> (N, 784)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class LeNet5(nn.Module):
    """LeNet-5 as in Caffe, which the pruning papers use: 20 and 50 filters of 5x5, 500 hidden units.

    Source: LeCun et al. 1998, section II.B; widths as in Han et al. 2015, table 4.
    Example:
        >>> sum(p.numel() for p in LeNet5().parameters())
        431080
    """

    def __init__(self, num_classes: int = 10) -> None:
        _at_least(1, num_classes=num_classes)
        super().__init__()
        self.spec = {"model": "lenet5", "num_classes": num_classes}
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (N, 20, 12, 12)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (N, 50, 4, 4)
        x = x.flatten(1)  # (N, 800)
        return self.fc2(F.relu(self.fc1(x)))


class VGGLike(nn.Module):
    """A plain stack in the manner of VGG: two 3x3 convolutions per stage, and a halving after each.

    Args:
        width: channels of the first stage; the four stages have 1, 2, 4 and 8 times as many.
        num_classes: outputs.
        in_channels: of the images, which are 32x32.
    Source: Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015,
        table 1.
    Differs: four stages for small images, batch norm, and one linear layer instead of three.
    """

    def __init__(self, width: int = 32, num_classes: int = 10, in_channels: int = 3) -> None:
        _at_least(1, width=width, num_classes=num_classes, in_channels=in_channels)
        super().__init__()
        self.spec = {"model": "vgg", "width": width, "num_classes": num_classes, "in_channels": in_channels}
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in range(4):
            for _ in range(2):
                wider = width * 2**stage
                layers.append(nn.Conv2d(channels, wider, 3, padding=1, bias=False))
                layers += [nn.BatchNorm2d(wider), nn.ReLU()]
                channels = wider
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * 2 * 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (N, 8 * width, 2, 2)
        return self.classifier(x.flatten(1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: y = relu(f(x) + s(x)), s the identity or a 1x1 projection."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network for 32x32 images: three stages of (depth - 2) / 6 blocks.

    Args:
        depth: 8, 14, 20, 32, 44, 56, 110, ...: 6 n + 2 with n >= 1 blocks per stage.
        width: channels of the first stage, 16 in the paper; the stages have 1, 2 and 4 times as many.
        num_classes: outputs.
        in_channels: of the images.
    Source: He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2016, section 4.2.
    Differs: shortcuts that change the shape are 1x1 projections (the paper's option B), as in later work on
        compression; with 100 classes the counts are 278,324, 472,756, 861,620 and 1,736,564 for
        depth 20, 32, 56 and 110.
    Example:
        >>> sum(p.numel() for p in ResNet(depth=20, num_classes=100).parameters())
        278324
    """

    def __init__(self, depth: int = 8, width: int = 16, num_classes: int = 10, in_channels: int = 3) -> None:
        _at_least(1, width=width, num_classes=num_classes, in_channels=in_channels)
        if not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6 n + 2 with n >= 1 (8, 14, 20, 26, 32, ...), got {depth!r}")
        super().__init__()
        self.spec = {
            "model": "resnet", "depth": depth, "width": width, "num_classes": num_classes,
            "in_channels": in_channels,
        }  # fmt: skip
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks = (depth - 2) // 6
        self.stage1 = self._stage(width, width, blocks, stride=1)
        self.stage2 = self._stage(width, 2 * width, blocks, stride=2)
        self.stage3 = self._stage(2 * width, 4 * width, blocks, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))  # (N, 4 * width, 8, 8)
        return self.fc(x.mean((2, 3)))


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1; add the input where shapes agree."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn1(self.expand(x)))
        y = F.relu6(self.bn2(self.depthwise(y)))
        y = self.bn3(self.project(y))
        return x + y if self.residual else y


class MobileNetLike(nn.Module):
    """Inverted residual blocks for 32x32 images.

    Args:
        width_mult: multiplies every number of channels, > 0.
        num_classes: outputs.
        in_channels: of the images.
    Source: Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2: Inverted Residuals and Linear Bottlenecks,
        2018, tables 1 and 2.
    Differs: six blocks of expansion 4, and two halvings instead of five, for small images.
    """

    BLOCKS = ((16, 1), (24, 1), (24, 1), (40, 2), (40, 1), (64, 1))  # (channels, stride)
    EXPANSION = 4

    def __init__(self, width_mult: float = 1.0, num_classes: int = 10, in_channels: int = 3) -> None:
        _at_least(1, num_classes=num_classes, in_channels=in_channels)
        if not isinstance(width_mult, (int, float)) or width_mult is True or not 0 < width_mult <= 16:
            raise ValueError(f"width_mult must be a number in (0, 16], got {width_mult!r}")
        super().__init__()
        self.spec = {
            "model": "mobilenet", "width_mult": width_mult, "num_classes": num_classes,
            "in_channels": in_channels,
        }  # fmt: skip

        def scaled(channels: int) -> int:
            return max(1, round(channels * width_mult))

        channels = scaled(16)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        blocks = []
        for out, stride in self.BLOCKS:
            blocks.append(InvertedResidual(channels, scaled(out), stride, self.EXPANSION))
            channels = scaled(out)
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(channels, scaled(160), 1, bias=False)
        self.bn2 = nn.BatchNorm2d(scaled(160))
        self.fc = nn.Linear(scaled(160), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn1(self.conv1(x)))
        x = F.relu6(self.bn2(self.conv2(self.blocks(x))))  # (N, 160, 8, 8)
        return self.fc(x.mean((2, 3)))
