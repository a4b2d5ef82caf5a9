r"""Squeeze-and-excitation: channels weighted by what the whole image holds; and two cheap nonlinearities.

A convolution sees a window. Squeeze-and-excitation averages each channel over the image, computes one factor
in [0, 1] per channel from these averages, and multiplies: few operations (the image is one pixel by then),
but :math:`2 C C_s` weights.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.compact.blocks import Factory
from compresslab.core.errors import check_int


def hard_sigmoid(x: Tensor) -> Tensor:
    r"""A sigmoid of three straight lines.

    .. math:: \mathrm{hsigmoid}(x) = \frac{\mathrm{ReLU6}(x + 3)}{6}

    Args:
        x: any shape, floating point.

    Returns:
        the same shape, in [0, 1]: 0 up to -3, 1 from 3 on. It differs from the sigmoid by at most 0.07.

    Source: A. Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.

    Example:
        >>> import torch
        >>> hard_sigmoid(torch.tensor([-4.0, -3.0, 0.0, 1.5, 3.0]))
        tensor([0.0000, 0.0000, 0.5000, 0.7500, 1.0000])
    """
    return F.relu6(x + 3) / 6


def hard_swish(x: Tensor) -> Tensor:
    r"""The swish :math:`x\,\mathrm{sigmoid}(x)` with the sigmoid replaced by straight lines.

    .. math:: \mathrm{hswish}(x) = x\,\frac{\mathrm{ReLU6}(x + 3)}{6}

    It needs no exponential, and its pieces survive low precision; as a layer it is ``nn.Hardswish``.

    Args:
        x: any shape, floating point.

    Returns:
        the same shape: 0 up to -3, x from 3 on, and least at -1.5, where it is -0.375.

    Source: A. Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.

    Example:
        >>> import torch
        >>> hard_swish(torch.tensor([-4.0, -1.5, 0.0, 1.5, 4.0]))
        tensor([-0.0000, -0.3750, 0.0000, 1.1250, 4.0000])
    """
    return x * hard_sigmoid(x)


class SqueezeExcite(nn.Module):
    r"""Weight each channel by a factor that the averages of all channels decide.

    .. math:: z_c = \frac{1}{HW} \sum_{i,j} x_{c,i,j}, \qquad s = g(W_2\,\delta(W_1 z)), \qquad
              \tilde x_c = s_c\,x_c

    with biases in :math:`W_1` and :math:`W_2`, an activation :math:`\delta` and a gate :math:`g`.

    Args:
        channels: C, of the image.
        squeeze_channels: :math:`C_s`, between the two layers; usually a small part of C.
        activation: makes :math:`\delta`.
        gate: makes :math:`g`, with values in [0, 1]: ``nn.Sigmoid`` (SE, EfficientNet) or ``nn.Hardsigmoid``
            (MobileNetV3).

    Shape: (N, C, H, W) -> (N, C, H, W).

    Raises:
        TypeError, ValueError: a number of channels that is no whole number of at least 1.

    Source:
        J. Hu, L. Shen, G. Sun, "Squeeze-and-Excitation Networks", CVPR 2018, section 3;
        A. Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5, for the hard sigmoid.
    Differs: the fully connected layers are written as 1x1 convolutions of a 1x1 image.

    Example:
        >>> sum(p.numel() for p in SqueezeExcite(8, 2).parameters())  # 2 * 8 * 2, and 2 + 8 biases
        42
    """

    def __init__(
        self,
        channels: int,
        squeeze_channels: int,
        activation: Factory = nn.ReLU,
        gate: Factory = nn.Hardsigmoid,
    ):
        check_int("channels", channels, 1)
        check_int("squeeze_channels", squeeze_channels, 1)
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeeze_channels, 1)
        self.activation = activation()
        self.fc2 = nn.Conv2d(squeeze_channels, channels, 1)
        self.gate = gate()

    def factors(self, x: Tensor) -> Tensor:
        """The factors :math:`s` of an input: (N, C, H, W) -> (N, C, 1, 1)."""
        z = x.mean((2, 3), keepdim=True)
        return self.gate(self.fc2(self.activation(self.fc1(z))))

    def forward(self, x: Tensor) -> Tensor:
        return self.factors(x) * x
