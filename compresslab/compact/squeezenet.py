r"""SqueezeNet 1.0: eight fire modules, a fiftieth of AlexNet's parameters, and more operations than AlexNet.

The eight modules are not eight decisions. Five numbers describe them, in the paper's words the
metaparameters: the expand channels start at :math:`base_e` and grow by :math:`incr_e` after every
:math:`freq` modules; the squeeze ratio SR and the share of 3x3 filters :math:`pct_{3\times3}` are the same
everywhere.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.compact.blocks import part_of
from compresslab.compact.fire import Fire
from compresslab.core.errors import check_fraction, check_int

FIRES = 8
POOL_BEFORE = (3, 7)  # of the modules 0 to 7: a max pooling in front of these


def fire_widths(
    base: int = 128,
    increment: int = 128,
    frequency: int = 2,
    squeeze_ratio: float = 0.125,
    share3x3: float = 0.5,
) -> list[tuple[int, int, int]]:
    r"""The channels :math:`(s, e_1, e_3)` of the eight fire modules.

    .. math:: e_i = base_e + incr_e \left\lfloor \frac{i}{freq} \right\rfloor, \qquad s_i = \mathrm{SR}\, e_i,
              \qquad e_{i,3\times3} = pct_{3\times3}\, e_i

    Args:
        base: :math:`base_e`, expand channels of the first modules, at least 2.
        increment: :math:`incr_e`, at least 0.
        frequency: :math:`freq`, modules of equal width, at least 1.
        squeeze_ratio: SR, in (0, 1].
        share3x3: :math:`pct_{3\times3}`, in (0, 1].

    Returns:
        eight triples.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: F. N. Iandola et al., "SqueezeNet", 2016, section 5: metaparameters.

    Example:
        >>> fire_widths()[::7]  # the first and the last
        [(16, 64, 64), (64, 256, 256)]
    """
    check_int("base", base, 2)
    check_int("increment", increment, 0)
    check_int("frequency", frequency, 1)
    widths = []
    for i in range(FIRES):
        expand = base + increment * (i // frequency)
        squeeze = part_of(expand, squeeze_ratio, "squeeze_ratio")
        expand3x3 = min(part_of(expand, share3x3, "share3x3"), expand - 1)
        widths.append((squeeze, expand - expand3x3, expand3x3))
    return widths


class SqueezeNet(nn.Module):
    r"""SqueezeNet 1.0, for images of about 224 x 224.

    A 7x7 convolution, eight fire modules with three max poolings among them, a 1x1 convolution to the classes
    and the mean over the image: no fully connected layer, which is where most of AlexNet's parameters are.

    Args:
        num_classes: outputs.
        in_channels: of the images.
        dropout: the probability of dropping an input of the last convolution in training, in [0, 1].
        base, increment, frequency, squeeze_ratio, share3x3: as in ``fire_widths``.

    Shape: (N, in_channels, H, W) -> (N, num_classes), H and W at least 21.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source:
        F. N. Iandola, S. Han, M. W. Moskewicz, K. Ashraf, W. J. Dally, K. Keutzer, "SqueezeNet: AlexNet-level
        accuracy with 50x fewer parameters and <0.5MB model size", 2016, table 1.
    Differs: 1.0 without the bypass connections that the paper also tries. The weights start as torchvision's
        do, scaled for ReLU (He et al. 2015), and the last ones normal with standard deviation 0.01.

    Example:
        >>> sum(p.numel() for p in SqueezeNet().parameters())
        1248424
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
        *,
        base: int = 128,
        increment: int = 128,
        frequency: int = 2,
        squeeze_ratio: float = 0.125,
        share3x3: float = 0.5,
    ):
        check_int("num_classes", num_classes, 1)
        check_int("in_channels", in_channels, 1)
        widths = fire_widths(base, increment, frequency, squeeze_ratio, share3x3)
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 96, 7, stride=2)
        self.fires = nn.Sequential()
        channels = 96
        for i, (squeeze, expand1x1, expand3x3) in enumerate(widths):
            if i in POOL_BEFORE:
                self.fires.add_module(f"pool{i}", _pool())
            self.fires.add_module(f"fire{i}", Fire(channels, squeeze, expand1x1, expand3x3))
            channels = expand1x1 + expand3x3
        self.pool = _pool()
        self.dropout = nn.Dropout(check_fraction("dropout", dropout))
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        _initialise_(self, last=self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(x)))  # (N, 96, 54, 54) for 224 x 224
        x = self.dropout(self.fires(x))  # (N, 512, 13, 13)
        return F.relu(self.classifier(x)).mean((2, 3))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


@torch.no_grad()
def _initialise_(model: nn.Module, last: nn.Conv2d) -> None:
    """Weights scaled for ReLU, small ones in ``last``, biases zero: no batch norm will correct them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    nn.init.normal_(last.weight, std=0.01)
