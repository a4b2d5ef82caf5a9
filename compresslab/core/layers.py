"""Layers whose weights are stored as codes, and the two functions between a plain and a coded network.

A coded layer runs the ``forward`` of the torch layer it stands for. That reads ``self.weight``, and here
reading a weight decodes it: ``__getattr__`` answers ``weight`` from the code in ``self.coded``,
``in_proj_weight`` from ``self.in_proj_coded``, ``weight_hh_l0`` from ``self.coded_hh_l0``. It is no subclass of
the torch layer, so a method that looks for ``nn.Linear`` to change its weight does not find one whose weight
it could only pretend to change.
"""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compresslab.core.codes import MakeCode, WeightCode
from compresslab.core.errors import naming, where
from compresslab.core.geometry import Geometry, build_layer, geometry_of, plain_class
from compresslab.core.modules import as_parameter, bake, map_layers, named_layers


def code_name(weight_name: str) -> str:
    """The child with the code of a weight: ``weight`` -> ``coded``, ``in_proj_weight`` -> ``in_proj_coded``."""
    return weight_name.replace("weight", "coded")  # not "code": torch.export gives every model an attribute of that name


class CodedLayer(nn.Module):
    """A torch layer with codes in the place of its weights.

    Args:
        geometry: the constructor arguments of the torch layer, as ``geometry_of`` gives them.
        parts: a ``WeightCode`` for each weight, under ``code_name``, and a tensor for each other parameter
            (biases), under its own name; for attention also ``out_proj``, a layer.

    Raises:
        ValueError: a part is missing, unknown, or has the wrong shape.
    """

    plain: ClassVar[str]
    meta: ClassVar[tuple[str, ...]] = ("geometry",)

    def __init__(self, geometry: Geometry, **parts: Any):
        super().__init__()
        self.geometry = dict(geometry)
        layer = build_layer(self.plain, geometry)
        settings = {name: value for name, value in vars(layer).items() if name not in vars(self)}
        vars(self).update({name: value for name, value in settings.items() if not hasattr(type(self), name)})
        for name, parameter in layer._parameters.items():
            if parameter is None:
                self.register_parameter(name, None)
            elif "weight" in name:
                self.add_module(code_name(name), _part(parts, code_name(name), WeightCode, parameter))
            else:
                held = _part(parts, name, Tensor, parameter)
                self.register_parameter(name, as_parameter(held))
        for name in layer._modules:
            self.add_module(name, _part(parts, name, nn.Module))
        if parts:
            raise ValueError(f"{self.plain} with {self.geometry} has no part {sorted(parts)[0]!r}")

    def __getattr__(self, name: str) -> Any:
        code = self.__dict__.get("_modules", {}).get(code_name(name)) if "weight" in name else None
        return code.decode() if isinstance(code, WeightCode) else super().__getattr__(name)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.geometry.items())


def _part(parts: dict[str, Any], name: str, kind: type, like: Tensor | None = None) -> Any:
    """Take a part out of ``parts``, checking that it is there, of its kind, and of the shape of ``like``."""
    if not isinstance(parts.get(name), kind):
        raise ValueError(f"{name} must be a {kind.__name__}, got {type(parts.get(name)).__name__}")
    part = parts.pop(name)
    if like is not None and tuple(part.shape) != tuple(like.shape):
        raise ValueError(f"{name} must have shape {tuple(like.shape)}, got {tuple(part.shape)}")
    return part


class CodedLinear(CodedLayer):
    r"""``nn.Linear`` with a coded weight: :math:`y = x \hat W^\top + b`."""

    plain = "Linear"
    forward = nn.Linear.forward


class CodedConv1d(CodedLayer):
    """``nn.Conv1d`` with a coded weight."""

    plain = "Conv1d"
    forward = nn.Conv1d.forward
    _conv_forward = nn.Conv1d._conv_forward


class CodedConv2d(CodedLayer):
    """``nn.Conv2d`` with a coded weight; groups, dilation and padding modes as there."""

    plain = "Conv2d"
    forward = nn.Conv2d.forward
    _conv_forward = nn.Conv2d._conv_forward


class CodedEmbedding(CodedLayer):
    """``nn.Embedding`` with a coded weight (the whole table is decoded for a look-up)."""

    plain = "Embedding"
    forward = nn.Embedding.forward


class CodedMultiheadAttention(CodedLayer):
    """``nn.MultiheadAttention`` with coded input projections; ``out_proj`` is a layer, coded or not."""

    plain = "MultiheadAttention"
    forward = nn.MultiheadAttention.forward
    merge_masks = nn.MultiheadAttention.merge_masks


class CodedLSTM(CodedLayer):
    """``nn.LSTM`` with a code for each of its weight matrices."""

    plain = "LSTM"
    forward = nn.LSTM.forward
    permute_hidden = nn.LSTM.permute_hidden
    check_input = nn.LSTM.check_input
    check_hidden_size = nn.LSTM.check_hidden_size
    check_forward_args = nn.LSTM.check_forward_args
    get_expected_hidden_size = nn.LSTM.get_expected_hidden_size
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    _flat_weight_refs = ()  # torch watches here whether its list of weights is out of date; ours never is

    @property
    def _flat_weights(self) -> list[Tensor]:
        """All weights and biases in the order that torch's kernel wants."""
        return [getattr(self, name) for name in self._flat_weights_names]

    def _update_flat_weights(self) -> None:
        pass


CODED_LAYERS: dict[type[nn.Module], type[CodedLayer]] = {
    nn.Linear: CodedLinear,
    nn.Conv1d: CodedConv1d,
    nn.Conv2d: CodedConv2d,
    nn.Embedding: CodedEmbedding,
    nn.MultiheadAttention: CodedMultiheadAttention,
    nn.LSTM: CodedLSTM,
}


def encode(
    model: nn.Module,
    make_code: MakeCode | Mapping[str, MakeCode],
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Return a copy of the model whose weights are stored as codes.

    Linear, Conv1d, Conv2d, Embedding, MultiheadAttention and LSTM layers are coded. Masks and other
    parametrizations are baked in first. A weight that two layers share becomes one code that they share;
    biases and batch norm stay as they are. The code of a frozen weight is frozen; what it has in common with
    the code of a weight that trains (a basis) is not.

    Args:
        model: any network; it is not changed. Layers that are coded already stay as they are.
        make_code: computes the code of one weight, such as ``partial(UniformCode.from_dense, bits=4)``; or
            such functions by the names of the layers to code, where layers get different codes.
        only: names of the layers to code; None codes all. The input projections of an attention layer go by
            its name, ``"attn"``, its output projection by ``"attn.out_proj"``.
        skip: names of layers to leave as they are.

    Raises:
        ValueError: ``only`` or ``skip`` names no such layer, or ``make_code`` refuses a weight; the message
            ends with the layer's name.
        TypeError: ``make_code`` returns no ``WeightCode``.

    Example:
        >>> from compresslab.core import UniformCode
        >>> encode(nn.Sequential(nn.Linear(4, 2)), UniformCode.from_dense)[0].coded
        UniformCode(shape=(2, 4), bits=4, axis=0)
    """
    model = bake(model)
    if isinstance(make_code, Mapping):
        only = list(make_code) if only is None else only
    chosen = named_layers(model, tuple(CODED_LAYERS), only=only, skip=skip)
    if isinstance(make_code, Mapping) and (left_out := [name for name in chosen if name not in make_code]):
        raise ValueError(f"make_code has no function for layer '{left_out[0]}'")
    unsupported = [name for name in only or () if plain_class(chosen[name]) not in CODED_LAYERS]
    if unsupported:
        kind = type(chosen[unsupported[0]]).__name__
        raise ValueError(
            f"layer '{unsupported[0]}' is a {kind}, whose forward may not be that of the class it extends"
        )
    codes: dict[int, tuple[Tensor, WeightCode]] = {}  # id of a weight -> (it, kept alive; its code)

    def code_of(name: str, weight: Tensor) -> WeightCode:
        if id(weight) not in codes:
            make = make_code[name] if isinstance(make_code, Mapping) else make_code
            codes[id(weight)] = (weight, _make_code(make, name, weight))
        return codes[id(weight)][1]

    def replace(name: str, layer: nn.Module) -> nn.Module | None:
        coded = CODED_LAYERS.get(plain_class(layer)) if name in chosen else None
        if coded is None:
            return None
        parts: dict[str, Any] = {key: value for key, value in layer._parameters.items() if value is not None}
        for key in [key for key in parts if "weight" in key]:
            parts[code_name(key)] = code_of(name, parts.pop(key))
        for key, child in layer._modules.items():  # attention's output projection
            parts[key] = replace(f"{name}.{key}".lstrip("."), child) or child
        return coded(geometry_of(layer), **parts).train(layer.training)

    coded_model = map_layers(model, tuple(CODED_LAYERS), replace)
    _freeze_(codes.values())
    return coded_model


def _freeze_(codes: Collection[tuple[Tensor, WeightCode]]) -> None:
    """Freeze the codes of frozen weights, except for parameters that codes of trainable ones have too."""
    learning = {parameter for weight, code in codes if weight.requires_grad for parameter in code.parameters()}
    for code in (code for weight, code in codes if not weight.requires_grad):
        for parameter in set(code.parameters()) - learning:
            parameter.requires_grad_(False)


def _make_code(make_code: MakeCode, name: str, weight: Tensor) -> WeightCode:
    """Run ``make_code``, naming the layer where it fails."""
    with naming(name):
        code = make_code(weight.detach())
    if not isinstance(code, WeightCode):
        raise TypeError(f"make_code must return a WeightCode, got {type(code).__name__}{where(name)}")
    return code


def decompress(model: nn.Module) -> nn.Module:
    """Return a copy of the model with plain torch layers again, whose weights are the decoded ones.

    This is what runs fast (a coded layer decodes at every call) and what accuracy is measured on. Layers that
    shared a code share a weight.

    Example:
        >>> from compresslab.core import DenseCode
        >>> decompress(encode(nn.Linear(4, 2), DenseCode.from_dense))
        Linear(in_features=4, out_features=2, bias=True)
    """
    weights: dict[int, nn.Parameter] = {}  # id of a code -> the weight it becomes

    def replace(name: str, coded: CodedLayer) -> nn.Module:
        layer = build_layer(coded.plain, coded.geometry)
        for key in [key for key, parameter in layer._parameters.items() if parameter is not None]:
            if "weight" not in key:
                setattr(layer, key, getattr(coded, key))
                continue
            code = getattr(coded, code_name(key))
            if id(code) not in weights:
                weights[id(code)] = nn.Parameter(
                    code.decode().detach().clone(memory_format=torch.contiguous_format)
                )
            setattr(layer, key, weights[id(code)])
        for key in layer._modules:
            child = getattr(coded, key)
            setattr(layer, key, replace(key, child) if isinstance(child, CodedLayer) else child)
        return layer.train(coded.training)

    return map_layers(model, CodedLayer, replace)
