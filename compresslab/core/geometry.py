"""What a plain torch layer was built with: its constructor's arguments, read back from the layer.

The geometry of ``nn.Conv2d(3, 8, 3, padding=1)`` is ``{"in_channels": 3, "out_channels": 8, "kernel_size": 3,
"padding": 1}``: what differs from the defaults, as plain JSON values. A file describes a layer by it, and a
coded layer turns back into a plain one by it.
"""

import inspect
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import parametrize

from compresslab.core.errors import check_int

Geometry = dict[str, Any]

# The layers that a file may describe. Whatever else a network is made of comes from its class: from the
# skeleton.
PLAIN_LAYERS: dict[str, type[nn.Module]] = {
    layer.__name__: layer
    for layer in (
        nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding, nn.MultiheadAttention, nn.LSTM,
        nn.GRU, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.Identity, nn.Flatten,
        nn.Dropout, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU,
        nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softmax,
    )
}  # fmt: skip

# Arguments in which one number stands for as many equal ones: 3 means (3, 3).
_ONE_FOR_ALL = {"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size"}
_MOST_LAYERS = 1024  # of a recurrent stack, before a file is taken to be corrupt


def plain_class(layer: nn.Module) -> type[nn.Module]:
    """The layer's class, seen through those that torch slips in.

    They are the class it generates for a parametrized layer, and the other name ``nn.Linear`` has where it
    projects the output of attention.
    """
    cls = type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)
    return nn.Linear if cls is NonDynamicallyQuantizableLinear else cls


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer is exactly one of ``PLAIN_LAYERS``, parametrized or not."""
    cls = plain_class(layer)
    return PLAIN_LAYERS.get(cls.__name__) is cls


def geometry_of(layer: nn.Module) -> Geometry:
    """The constructor arguments of a plain layer that differ from their defaults, as JSON values.

    Raises:
        TypeError: the layer's class is not among ``PLAIN_LAYERS``.

    Example:
        >>> geometry_of(nn.Linear(4, 2, bias=False))
        {'in_features': 4, 'out_features': 2, 'bias': False}
    """
    if not is_plain(layer):
        raise TypeError(
            f"{plain_class(layer).__name__} is none of the plain layers: {', '.join(PLAIN_LAYERS)}"
        )
    defaults = _defaults(plain_class(layer))
    if isinstance(layer, nn.MultiheadAttention):
        defaults = defaults | {"kdim": layer.embed_dim, "vdim": layer.embed_dim}
    found = {name: _argument(layer, name) for name in defaults}
    return {name: value for name, value in found.items() if value != defaults[name]}


def build_layer(name: str, geometry: Geometry) -> nn.Module:
    """Build the plain layer without memory for its tensors (they are on the device "meta").

    Raises:
        TypeError, ValueError, RuntimeError: the name is not in ``PLAIN_LAYERS``, or an argument is not one of
        the layer's or out of range.

    Example:
        >>> build_layer("Linear", {"in_features": 4, "out_features": 2}).weight.shape
        torch.Size([2, 4])
    """
    cls = PLAIN_LAYERS.get(name)
    if cls is None:
        raise TypeError(f"{name!r} is none of the plain layers: {', '.join(PLAIN_LAYERS)}")
    unknown = geometry.keys() - _defaults(cls).keys()
    if unknown:
        raise TypeError(f"{name} takes no argument {sorted(unknown)[0]!r}")
    check_int("num_layers", geometry.get("num_layers", 1), 1, _MOST_LAYERS)
    with torch.device("meta"):
        return cls(**geometry)


@cache
def _defaults(cls: type[nn.Module]) -> dict[str, Any]:
    """The constructor's arguments and their defaults (``inspect.Parameter.empty`` where there is none)."""
    source = nn.RNNBase if issubclass(cls, nn.RNNBase) else cls  # nn.LSTM itself says only (*args, **kwargs)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: argument.default
        for name, argument in inspect.signature(source).parameters.items()
        if argument.kind in named and name not in ("mode", "device", "dtype") and not name.startswith("_")
    }


def _argument(layer: nn.Module, name: str) -> Any:
    """One constructor argument of the layer as a JSON value."""
    if name == "bias":
        held = layer.in_proj_bias if isinstance(layer, nn.MultiheadAttention) else layer.bias
        return held is not None and held is not False
    if name == "add_bias_kv":
        return layer.bias_k is not None
    value = getattr(layer, name)
    if not isinstance(value, (tuple, list)):
        return value
    return value[0] if name in _ONE_FOR_ALL and len(set(value)) == 1 else list(value)
