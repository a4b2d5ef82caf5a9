"""Networks as data: a dictionary, or its JSON text, that describes a network, and what builds it.

Two forms, both strict: an unknown name, a missing option or a shape that does not fit is a `ValueError` that
names the layer. A network of the course (one of `MODELS`) with its arguments, or a stack of layers, pairs of
kind (one of `KINDS`, or a block of compact networks, one of `BLOCKS`) and options:

    {"model": "resnet", "depth": 20, "width": 16}

    {"input": [1, 28, 28],
     "layers": [["conv", {"out_channels": 8, "kernel_size": 5}], ["relu"], ["global_pool"],
                ["linear", {"out_features": 10}]]}

So a file with a compressed network can say which network it is without carrying a class: opening it never
runs code. The number of input channels or features of every layer follows from the layer before.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.core.names import import_by_name

# Whole networks, and blocks that a list of layers may hold beside `KINDS`; imported when they are asked for.
MODELS: dict[str, str] = {
    "lenet300": "compresslab.models.networks:LeNet300",
    "lenet5": "compresslab.models.networks:LeNet5",
    "vgg": "compresslab.models.networks:VGGLike",
    "resnet": "compresslab.models.networks:ResNet",
    "mobilenet": "compresslab.models.networks:MobileNetLike",
    "compact": "compresslab.compact.small:CompactNet",
    "gpt": "compresslab.sequence.gpt:GPT",
    "char_lstm": "compresslab.sequence.lstm:CharLSTM",
}
BLOCKS: dict[str, str] = {
    "fire": "compresslab.compact.fire:Fire",
    "separable": "compresslab.compact.separable:SeparableConv",
    "inverted_residual": "compresslab.compact.inverted:InvertedResidual",
    "shuffle_v1": "compresslab.compact.shuffle:ShuffleUnitV1",
    "shuffle_v2": "compresslab.compact.shuffle:ShuffleUnitV2",
    "ghost": "compresslab.compact.ghost:GhostModule",
}
LARGEST = 16_384  # channels, features, kernel sizes and input sides
DEEPEST = 1_300  # layers: a file that asks for a million would be built for hours
Shape = tuple[int, ...]


def from_spec(spec: dict[str, Any] | str) -> nn.Module:
    """Build the network that a specification describes, with random weights.

    Args:
        spec: a dictionary or its JSON text, in one of the two forms of this module.
    Returns:
        the network; its attribute `spec` describes it again.
    Raises:
        ValueError: text that is not JSON, or a specification with a mistake.
    Example:
        >>> from_spec({"model": "resnet", "depth": 20}).spec["width"]
        16
        >>> from_spec({"input": [4], "layers": [["linear", {"out_features": 2}]]})[0]
        Linear(in_features=4, out_features=2, bias=True)
    """
    if isinstance(spec, str):
        try:
            spec = json.loads(spec)
        except json.JSONDecodeError as error:
            raise ValueError(f"the specification is not JSON: {error}") from error
    if isinstance(spec, dict) and "model" in spec:
        arguments = dict(spec)
        return build_model(arguments.pop("model"), **arguments)
    if isinstance(spec, dict) and set(spec) == {"input", "layers"}:
        return Stack(spec["input"], spec["layers"])
    keys = sorted(map(str, spec)) if isinstance(spec, dict) else type(spec).__name__
    raise ValueError(f'a specification has the key "model", or the keys "input" and "layers", got {keys}')


def build_model(name: str, /, **arguments: Any) -> nn.Module:
    """Build a network of the course by name, with random weights.

    Args:
        name: one of `MODELS`: lenet300, lenet5, vgg, resnet, mobilenet, compact, gpt, char_lstm.
        arguments: of its class, such as `depth=20`.
    Raises:
        ValueError: an unknown name, an unknown argument, or a value out of range.
    """
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(f"there is no network {name!r}; choose one of {', '.join(MODELS)}")
    network = import_by_name(MODELS[name])
    allowed = list(inspect.signature(network).parameters)
    for argument in arguments:
        if argument not in allowed:
            raise ValueError(f"{name} has no argument {argument!r}; it has {', '.join(allowed)}")
    for argument in ("depth", "layers"):
        value = arguments.get(argument, 0)
        if isinstance(value, int | float) and value > DEEPEST:
            raise ValueError(f"{name}: {argument} must be at most {DEEPEST}, got {value!r}")
    return network(**arguments)


class Stack(nn.Sequential):
    """Layers in a row, built from a list; see the module's text.

    Args:
        input: the shape of one input, such as [3, 32, 32].
        layers: pairs [kind, options], kind one of `KINDS` or `BLOCKS`.
    """

    def __init__(self, input: list[int], layers: list) -> None:
        if not isinstance(input, (list, tuple)) or not input:
            raise ValueError(f'"input" must be the shape of one input, such as [3, 32, 32], got {input!r}')
        shape = tuple(_whole("input", side) for side in input)
        modules, _ = _build(layers, shape, "layer")
        super().__init__(*modules)
        self.spec = {"input": list(shape), "layers": json.loads(json.dumps(layers))}


class Residual(nn.Module):
    """y = x + f(x), with f a row of layers that keeps the shape."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _build(layers: list, shape: Shape, place: str) -> tuple[list[nn.Module], Shape]:
    """The modules of a list of layers and the shape that comes out, (C, H, W) or (features,)."""
    if not isinstance(layers, (list, tuple)) or not layers:
        raise ValueError(f"{place}: the layers must be a list of pairs [kind, options], got {layers!r}")
    modules = []
    for number, layer in enumerate(layers):
        kind, options = _parse(layer, f"{place} {number}")
        name = f"{place} {number} ({kind})"
        try:
            module = _kind(kind)(shape, name, **options)
            with torch.no_grad():
                shape = tuple(module.eval()(torch.zeros(1, *shape)).shape[1:])
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"{name}: {error}; its input has shape {shape}") from error
        modules.append(module.train())
    return modules, shape


def _parse(layer: list, name: str) -> tuple[str, dict]:
    if not isinstance(layer, (list, tuple)) or len(layer) not in (1, 2) or not isinstance(layer[0], str):
        raise ValueError(f"{name}: a layer is a pair [kind, options], got {layer!r}")
    kind, options = layer[0], layer[1] if len(layer) == 2 else {}
    if kind not in KINDS and kind not in BLOCKS:
        raise ValueError(f"{name}: there is no layer {kind!r}; choose one of {', '.join([*KINDS, *BLOCKS])}")
    allowed = list(inspect.signature(_kind(kind)).parameters)[2:]
    if not isinstance(options, dict) or set(options) - set(allowed):
        raise ValueError(f"{name} ({kind}): the options are {', '.join(allowed) or 'none'}, got {options!r}")
    return kind, options


def _kind(kind: str) -> Callable[..., nn.Module]:
    """What builds a layer of this kind: build(shape, name, **options)."""
    return KINDS[kind] if kind in KINDS else _block(import_by_name(BLOCKS[kind]))


def _block(cls: type[nn.Module]) -> Callable[..., nn.Module]:
    """A block of `compresslab.compact`, built from the number of channels that reach it and plain numbers."""
    _, *options = inspect.signature(cls).parameters.values()
    by_name = {o.name: o for o in options}
    plain = [o for o in options if o.default is o.empty or not isinstance(o.default, type)]  # no classes: activations

    def build(shape: Shape, name: str, **options: Any) -> nn.Module:
        channels = _axes(name, shape, 3)
        for key, value in options.items():
            default = by_name[key].default
            if isinstance(default, bool):
                _flag(name, value, key)
            elif value != default and not isinstance(value, float):
                _whole(f"{name}: {key}", value, 0)
        try:
            return cls(channels, **options)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    shape, name, _ = inspect.signature(build).parameters.values()
    keywords = [option.replace(kind=option.KEYWORD_ONLY) for option in plain]
    build.__signature__ = inspect.Signature([shape, name, *keywords])
    return build


def _whole(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise ValueError(f"{name} must be a whole number from {least} to {LARGEST}, got {value!r}")
    return value


def _axes(name: str, shape: Shape, count: int) -> int:
    """The first axis of a shape that must have `count` axes."""
    if len(shape) != count:
        wanted = "(channels, height, width)" if count == 3 else "(features,)"
        raise ValueError(f"{name} needs an input of shape {wanted}, got {shape}; is a flatten missing?")
    return shape[0]


def _conv(shape, name, *, out_channels, kernel_size=3, stride=1, padding=0, groups=1, bias=True) -> nn.Module:
    in_channels = _axes(name, shape, 3)
    sizes = [_whole(f"{name}: {key}", value) for key, value in
             (("out_channels", out_channels), ("kernel_size", kernel_size), ("stride", stride))]  # fmt: skip
    padding, groups = _whole(f"{name}: padding", padding, 0), _whole(f"{name}: groups", groups)
    if in_channels % groups or out_channels % groups:
        channels = f"{in_channels} input and {out_channels} output channels"
        raise ValueError(f"{name}: groups {groups} must divide the {channels}")
    return nn.Conv2d(in_channels, *sizes, padding, groups=groups, bias=_flag(name, bias))


def _linear(shape, name, *, out_features, bias=True) -> nn.Module:
    out_features = _whole(f"{name}: out_features", out_features)
    return nn.Linear(_axes(name, shape, 1), out_features, bias=_flag(name, bias))


def _pool(kind: type[nn.Module]) -> Callable:
    def build(shape, name, *, kernel_size=2, stride=None) -> nn.Module:
        _axes(name, shape, 3)
        kernel_size = _whole(f"{name}: kernel_size", kernel_size)
        return kind(kernel_size, kernel_size if stride is None else _whole(f"{name}: stride", stride))

    return build


def _global_pool(shape, name) -> nn.Module:
    _axes(name, shape, 3)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _batch_norm(shape, name) -> nn.Module:
    return nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(_axes(name, shape, 1))


def _dropout(shape, name, *, p=0.5) -> nn.Module:
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p < 1:
        raise ValueError(f"{name}: p must be in [0, 1), got {p!r}")
    return nn.Dropout(p)


def _residual(shape, name, *, layers) -> nn.Module:
    modules, out = _build(layers, shape, f"{name}, layer")
    if out != shape:
        raise ValueError(f"{name}: the layers inside must keep the shape {shape}, got {out}")
    return Residual(*modules)


def _flag(name: str, value: Any, key: str = "bias") -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {key} must be true or false, got {value!r}")
    return value


KINDS: dict[str, Callable[..., nn.Module]] = {
    "conv": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": lambda shape, name: nn.ReLU(),
    "max_pool": _pool(nn.MaxPool2d),
    "avg_pool": _pool(nn.AvgPool2d),
    "global_pool": _global_pool,
    "flatten": lambda shape, name: nn.Flatten(),
    "dropout": _dropout,
    "residual": _residual,
}
