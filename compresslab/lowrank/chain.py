r"""Several small convolutions in the place of one: which of them gets the stride, and how they are built.

A convolution whose kernel is a product of factors is a chain of convolutions, one for each factor. The factor
that has a spatial axis of the kernel gets that axis' stride, padding and dilation; the others are 1 wide
there, and get none. The bias is added once, by the last layer. No layer before it has one, so that the zeros
around the image are zeros for every factor, and the chain equals the convolution at the borders, too.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init


def chain(**layers: nn.Module) -> nn.Sequential:
    """The layers one after the other, under their names.

    Example:
        >>> chain(reduce=nn.Linear(4, 2), expand=nn.Linear(2, 4))
        Sequential(
          (reduce): Linear(in_features=4, out_features=2, bias=True)
          (expand): Linear(in_features=2, out_features=4, bias=True)
        )
    """
    return nn.Sequential(OrderedDict(layers))


def factor_layer(
    conv: nn.Conv2d,
    weight: Tensor,
    *,
    axes: Sequence[int] = (),
    groups: int = 1,
    bias: Tensor | None = None,
) -> nn.Conv2d:
    """One convolution of a chain that stands for ``conv``, with the window of the spatial axes it covers.

    Args:
        conv: where dtype, device, stride, padding (its mode, too) and dilation come from.
        weight: (out, in / groups, kh, kw) of the new layer.
        axes: the spatial axes, 0 for height and 1 for width, that take the stride, padding and dilation; the
            kernel is 1 along the others.
        groups: of the new layer.
        bias: for the last layer of a chain.

    Returns:
        the layer, in the dtype and on the device of ``conv``, with copies of the weight and the bias.

    Example:
        >>> conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        >>> factor_layer(conv, torch.zeros(5, 4, 3, 1), axes=[0])  # the vertical half, to 5 channels
        Conv2d(4, 5, kernel_size=(3, 1), stride=(2, 1), padding=(1, 0), bias=False)
    """

    def window(values: tuple[int, int], neutral: int) -> tuple[int, ...]:
        return tuple(value if axis in axes else neutral for axis, value in enumerate(values))

    padding = conv.padding if isinstance(conv.padding, str) else window(conv.padding, 0)
    layer = skip_init(
        nn.Conv2d,
        weight.shape[1] * groups,
        len(weight),
        tuple(weight.shape[2:]),
        window(conv.stride, 1),
        padding if axes else 0,
        window(conv.dilation, 1),
        groups,
        bias is not None,
        conv.padding_mode if axes else "zeros",
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.train(conv.training)


def like_before(layers: nn.Sequential, layer: nn.Module) -> nn.Sequential:
    """The chain in the mode of the layer it stands for, its parameters trainable where the layer's were.

    Example:
        >>> frozen = nn.Linear(4, 4, bias=False).requires_grad_(False).eval()
        >>> pair = like_before(chain(reduce=nn.Linear(4, 2, False), expand=nn.Linear(2, 4, False)), frozen)
        >>> pair.training, [p.requires_grad for p in pair.parameters()]
        (False, [False, False])
    """
    for name, parameter in layers.named_parameters():
        stood_for = getattr(layer, name.rpartition(".")[2])
        if stood_for is not None:
            parameter.requires_grad_(stood_for.requires_grad)
    return layers.train(layer.training)


def check_conv(conv: nn.Conv2d) -> None:
    """Refuse what is no dense two-dimensional convolution.

    Raises:
        TypeError: it is no ``nn.Conv2d``.
        ValueError: it has groups: it is several kernels, each of which would have to be decomposed.
    """
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"expected an nn.Conv2d, got {type(conv).__name__}")
    if conv.groups != 1:
        raise ValueError(
            f"a convolution with groups={conv.groups} cannot be decomposed as one kernel, groups must be 1"
        )
