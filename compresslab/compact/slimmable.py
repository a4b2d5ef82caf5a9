r"""Slimmable layers: one set of weights that works at several widths, chosen when the network runs.

A layer at width :math:`w` uses the first :math:`w C` of its channels. The weights can be shared; the
statistics of batch norm cannot, because the inputs of a narrow layer are other sums than those of a wide one.
So each width has a batch norm of its own, which costs next to nothing.

    width 1.0   [ c1 c2 c3 c4 | c5 c6 c7 c8 ]      one kernel,
    width 0.5   [ c1 c2 c3 c4 ]                    two batch norms
"""

import copy
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.compact.blocks import check_kernel
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.modules import map_layers


def channels_at(channels: int, width: float) -> int:
    """The channels of a layer at a fraction of its width: rounded, at least 1.

    Raises:
        TypeError, ValueError: ``width`` is no fraction in (0, 1].

    Example:
        >>> channels_at(16, 0.25), channels_at(3, 0.1)
        (4, 1)
    """
    if check_fraction("width", width) == 0:
        raise ValueError("width must be in (0, 1], got 0")
    return max(1, round(check_int("channels", channels, 1) * width))


class SlimmableConv2d(nn.Module):
    r"""A convolution without bias that uses the first of its input and output channels.

    .. math:: y_n = \sum_{m=1}^{M'} K_{n,m} * x_m, \qquad n = 1 \dots N', \quad M' \le M, \; N' \le N

    Args:
        in_channels, out_channels: :math:`M, N`, at full width.
        kernel_size: odd; the padding keeps the size of the maps.
        stride: at least 1.
        depthwise: one filter per channel; the numbers of channels must then be equal.
        slim_in: whether ``set_width_`` shrinks the input; False for the first layer, which sees the image.

    Attributes:
        active: :math:`(M', N')`, set by `resize_` or `set_width_`.

    Shape: (N, M', H, W) -> (N, N', ceil(H / stride), ceil(W / stride)).

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: J. Yu, L. Yang, N. Xu, J. Yang, T. Huang, "Slimmable Neural Networks", ICLR 2019, section 3.

    Example:
        >>> import torch
        >>> conv = SlimmableConv2d(4, 8)
        >>> conv.resize_(2, 4)
        >>> conv(torch.zeros(1, 2, 5, 5)).shape, conv.plain().weight.shape
        (torch.Size([1, 4, 5, 5]), torch.Size([4, 2, 3, 3]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        depthwise: bool = False,
        slim_in: bool = True,
    ):
        check_int("in_channels", in_channels, 1)
        check_int("out_channels", out_channels, 1)
        check_int("stride", stride, 1)
        _check_channels(in_channels, out_channels, depthwise)
        super().__init__()
        groups, padding = in_channels if depthwise else 1, check_kernel(kernel_size) // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        )
        self.depthwise, self.slim_in = depthwise, slim_in
        self.active = in_channels, out_channels

    def resize_(self, in_channels: int, out_channels: int) -> None:
        """Use so many channels from now on.

        Raises:
            TypeError, ValueError: more than there are, or less than 1; unequal numbers in a depthwise layer.
        """
        check_int("in_channels", in_channels, 1, self.conv.in_channels)
        check_int("out_channels", out_channels, 1, self.conv.out_channels)
        _check_channels(in_channels, out_channels, self.depthwise)
        self.active = in_channels, out_channels

    def set_width_(self, width: float) -> None:
        inputs = self.conv.in_channels
        if self.slim_in:
            inputs = channels_at(inputs, width)
        self.resize_(inputs, channels_at(self.conv.out_channels, width))

    def weight(self) -> Tensor:
        """The active part of the kernel, (N', M', k, k), or (N', 1, k, k) where depthwise; a view."""
        inputs, outputs = self.active
        return self.conv.weight[:outputs, : 1 if self.depthwise else inputs]

    def forward(self, x: Tensor) -> Tensor:
        groups = self.active[0] if self.depthwise else 1
        return F.conv2d(x, self.weight(), None, self.conv.stride, self.conv.padding, 1, groups)

    def count_macs(self, inputs: tuple, output: Tensor) -> int:
        """The multiply-accumulates of one call at the active width, for `core.macs`."""
        return output.numel() * self.weight()[0].numel()

    def plain(self) -> nn.Conv2d:
        """An ordinary convolution with a copy of the active weights."""
        inputs, outputs = self.active
        groups = inputs if self.depthwise else 1
        size, stride, padding = self.conv.kernel_size, self.conv.stride, self.conv.padding
        conv = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)
        conv.weight = nn.Parameter(self.weight().detach().clone())
        return conv


def _check_channels(in_channels: int, out_channels: int, depthwise: bool) -> None:
    if depthwise and in_channels != out_channels:
        raise ValueError(f"a depthwise convolution keeps the channels, got {in_channels} in and {out_channels} out")


class SlimmableLinear(nn.Module):
    """A linear layer that uses the first of its input features; the outputs are the classes, always all.

    Args:
        in_features, out_features: at full width.

    Shape: (N, active inputs) -> (N, out_features).

    Source: Yu et al., ICLR 2019, section 3.

    Example:
        >>> layer = SlimmableLinear(8, 3)
        >>> layer.set_width_(0.5)
        >>> layer.plain()
        Linear(in_features=4, out_features=3, bias=True)
    """

    def __init__(self, in_features: int, out_features: int):
        check_int("in_features", in_features, 1)
        check_int("out_features", out_features, 1)
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.active = in_features

    def resize_(self, in_features: int) -> None:
        self.active = check_int("in_features", in_features, 1, self.linear.in_features)

    def set_width_(self, width: float) -> None:
        self.resize_(channels_at(self.linear.in_features, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.linear.weight[:, : self.active], self.linear.bias)

    def count_macs(self, inputs: tuple, output: Tensor) -> int:
        return output.numel() * self.active

    def plain(self) -> nn.Linear:
        """An ordinary linear layer with a copy of the active weights."""
        linear = nn.Linear(self.active, self.linear.out_features)
        linear.weight = nn.Parameter(self.linear.weight.detach()[:, : self.active].clone())
        linear.bias = nn.Parameter(self.linear.bias.detach().clone())
        return linear


class SwitchableBatchNorm(nn.Module):
    """One batch norm, with parameters and statistics of its own, for every number of channels that may come.

    Args:
        choices: the numbers of channels, at least one; equal ones share a batch norm.

    Shape: (N, active, H, W) -> the same.

    Raises:
        TypeError, ValueError: no choice, or one that is no whole number of at least 1.

    Source: Yu et al., ICLR 2019, section 3 ("switchable batch normalization").

    Example:
        >>> norm = SwitchableBatchNorm([2, 4, 8])
        >>> norm.resize_(4)
        >>> norm.plain().num_features, sum(p.numel() for p in norm.parameters())
        (4, 28)
    """

    def __init__(self, choices: Sequence[int]):
        super().__init__()
        if not choices:
            raise ValueError("choices must name at least one number of channels")
        counts = sorted({check_int("channels", channels, 1) for channels in choices})
        self.norms = nn.ModuleDict({str(channels): nn.BatchNorm2d(channels) for channels in counts})
        self.active = counts[-1]

    def resize_(self, channels: int) -> None:
        if str(channels) not in self.norms:
            built = ", ".join(self.norms)
            raise ValueError(f"there is no batch norm for {channels} channels, only for {built}")
        self.active = channels

    def set_width_(self, width: float) -> None:
        self.resize_(channels_at(max(map(int, self.norms)), width))

    def forward(self, x: Tensor) -> Tensor:
        return self.norms[str(self.active)](x)

    def plain(self) -> nn.BatchNorm2d:
        """A copy of the active batch norm."""
        return copy.deepcopy(self.norms[str(self.active)])


SLIMMABLE = (SlimmableConv2d, SlimmableLinear, SwitchableBatchNorm)


def set_width_(model: nn.Module, width: float) -> None:
    """Let every slimmable layer of a network use a fraction of its channels from now on, in place.

    Args:
        model: a network with slimmable layers, all of which shrink alike.
        width: fraction of the channels, in (0, 1]; one that the batch norms were built for.

    Raises:
        TypeError, ValueError: ``width`` is out of range, a batch norm does not know it, or there is no
            slimmable layer.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, SLIMMABLE)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no slimmable layer")
    before = [layer.active for layer in layers]
    try:
        for layer in layers:
            layer.set_width_(width)
    except (TypeError, ValueError):
        for layer, active in zip(layers, before, strict=True):
            layer.active = active
        raise


def freeze_width(model: nn.Module) -> nn.Module:
    """Return a plain, smaller copy: each slimmable layer replaced by what it computes at its present width.

    Example:
        >>> net = nn.Sequential(SlimmableConv2d(3, 8, slim_in=False), SwitchableBatchNorm([4, 8]))
        >>> set_width_(net, 0.5)
        >>> sum(p.numel() for p in freeze_width(net).parameters())  # 4 * 3 * 9 + 2 * 4
        116
    """
    return map_layers(model, SLIMMABLE, lambda name, layer: layer.plain().train(layer.training))


def slim(model: nn.Module, width: float) -> nn.Module:
    """Return the plain network of a given width; its outputs are those of the slimmable one at that width.

    Args: of `set_width_`; the model is not changed.

    Source: Yu et al., ICLR 2019.

    Example:
        >>> net = SlimmableNet(channels=(8, 16), widths=(0.5, 1.0))
        >>> [sum(p.numel() for p in slim(net, width).parameters()) for width in net.widths]
        [298, 650]
    """
    model = copy.deepcopy(model)
    set_width_(model, width)
    return freeze_width(model)


class SlimmableNet(nn.Module):
    """A small network of depthwise-separable convolutions that runs at several widths.

    Args:
        channels: of the stem and of each separable convolution; all but the first halve the image.
        widths: fractions in (0, 1] at which the network is to work, 1 among them.
        num_classes: outputs.
        in_channels: of the images.

    Shape: (N, in_channels, H, W) -> (N, num_classes).

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: Yu et al., ICLR 2019; the networks of the paper are larger.

    Example:
        >>> import torch
        >>> net = SlimmableNet(channels=(8, 16, 32), widths=(0.25, 0.5, 1.0)).eval()
        >>> set_width_(net, 0.25)
        >>> net(torch.zeros(1, 3, 16, 16)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 128),
        widths: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
        num_classes: int = 10,
        in_channels: int = 3,
    ):
        super().__init__()
        self.widths = tuple(sorted(widths))
        if not channels or not self.widths or self.widths[-1] != 1:
            raise ValueError(f"there must be channels, and 1 among the widths, got {channels} and {widths}")

        def norm(count: int) -> SwitchableBatchNorm:
            return SwitchableBatchNorm([channels_at(count, width) for width in self.widths])

        stem = SlimmableConv2d(in_channels, channels[0], slim_in=False)
        layers: list[nn.Module] = [stem, norm(channels[0]), nn.ReLU()]
        for thin, wide in zip(channels, channels[1:], strict=False):
            layers += [SlimmableConv2d(thin, thin, stride=2, depthwise=True), norm(thin), nn.ReLU()]
            layers += [SlimmableConv2d(thin, wide, 1), norm(wide), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = SlimmableLinear(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def slimmable_loss(widths: Sequence[float]) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The mean cross-entropy at all widths, as a ``loss`` for `core.train.train`.

    Args:
        widths: fractions that the network was built for; the last one stays set.

    Raises:
        ValueError: no widths.

    Source: Yu et al., ICLR 2019, section 3, algorithm 1.
    """
    if not widths:
        raise ValueError("give at least one width to train at")

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        total = x.new_zeros(())
        for width in widths:
            set_width_(model, width)
            total = total + F.cross_entropy(model(x), y)
        return total / len(widths)

    return loss
