"""A network's structure as JSON, and a network rebuilt from it: the layers that its class does not tell.

``describe`` maps the path of a layer to a *description*:

- ``["Conv2d", {"in_channels": 3, ...}]``: a plain layer and its geometry; a third entry names masked weights;
- ``["Sequential", ["0", "1"]]``: a sequence and the names of its children, which have entries of their own;
- ``["CodedLinear", {"geometry": ...}, {"coded": ["CodebookCode", {...}]}]``: a stored class, the values of its
  ``meta``, the descriptions of its children; its arrays are found by their names;
- ``"encoder.0"``: the very module at that path.

Modules of other classes (the network's own) are not described: they come from the skeleton, the network as
its class builds it. ``rebuild`` makes of a skeleton what the descriptions say.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.geometry import build_layer, geometry_of, is_plain, plain_class
from compresslab.core.modules import Mask, apply_mask_
from compresslab.core.names import import_by_name

# The classes that a file may name beside the plain layers, and where they live; imported when a file needs
# them. A family adds its codes and layers here. The class must be built as cls(**meta, **arrays, **children).
STORED_CLASSES: dict[str, str] = {
    "CodedLinear": "compresslab.core.layers:CodedLinear",
    "CodedConv1d": "compresslab.core.layers:CodedConv1d",
    "CodedConv2d": "compresslab.core.layers:CodedConv2d",
    "CodedEmbedding": "compresslab.core.layers:CodedEmbedding",
    "CodedMultiheadAttention": "compresslab.core.layers:CodedMultiheadAttention",
    "CodedLSTM": "compresslab.core.layers:CodedLSTM",
    "DenseCode": "compresslab.core.codes:DenseCode",
    "UniformCode": "compresslab.core.codes:UniformCode",
    "CodebookCode": "compresslab.core.codes:CodebookCode",
    "SparseCode": "compresslab.core.sparse:SparseCode",
    "GapSparseCode": "compresslab.core.sparse:GapSparseCode",
    "NMCode": "compresslab.pruning.nm:NMCode",
    "BlockCode": "compresslab.pruning.nm:BlockCode",
    "BinaryCode": "compresslab.quantization.binary:BinaryCode",
    "Float8Code": "compresslab.quantization.float_formats:Float8Code",
    "MXFP4Code": "compresslab.quantization.block_formats:MXFP4Code",
    "NVFP4Code": "compresslab.quantization.block_formats:NVFP4Code",
    "NF4Code": "compresslab.quantization.nf4:NF4Code",
    "InputScaledCode": "compresslab.quantization.awq:InputScaledCode",
    "TTLinear": "compresslab.lowrank.tensor_train:TTLinear",
    "LoRALinear": "compresslab.lowrank.lora:LoRALinear",
    "HashedCode": "compresslab.sharing.hashing:HashedCode",
    "BlockCirculantCode": "compresslab.sharing.circulant:BlockCirculantCode",
    "CirculantLinear": "compresslab.sharing.circulant:CirculantLinear",
    "ToeplitzCode": "compresslab.sharing.toeplitz:ToeplitzCode",
    "DisplacementCode": "compresslab.sharing.displacement:DisplacementCode",
    "FastfoodLinear": "compresslab.sharing.fastfood:FastfoodLinear",
    "ProductCode": "compresslab.sharing.product:ProductCode",
    "LookupLinear": "compresslab.sharing.product:LookupLinear",
    "FactorizedEmbedding": "compresslab.sharing.cross_layer:FactorizedEmbedding",
    "ClusterCode": "compresslab.sharing.clusters:ClusterCode",
    "Basis": "compresslab.sharing.basis:Basis",
    "BasisCode": "compresslab.sharing.basis:BasisCode",
    "BucketCode": "compresslab.hybrid.buckets:BucketCode",
    "LowRankSparse": "compresslab.hybrid.sparse_low_rank:LowRankSparse",
}

Description = str | list[Any]
Tensors = dict[str, Tensor]


def own_tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """The ``state_dict`` with each module visited once: (key, module, name in the module, tensor)."""
    for path, module in model.named_modules():
        buffers = {
            name: b for name, b in module._buffers.items() if name not in module._non_persistent_buffers_set
        }
        for name, tensor in (module._parameters | buffers).items():
            if tensor is not None:
                yield f"{path}.{name}".lstrip("."), module, name, tensor


def describe(model: nn.Module) -> dict[str, Description]:
    """Describe every layer that can be described, parents first.

    Raises:
        TypeError: a layer is of a storable kind, but its class is not in the table; or a parametrization is
            no mask.
    """
    descriptions: dict[str, Description] = {}
    first: dict[int, str] = {}

    def visit(path: str, module: nn.Module) -> None:
        description = _describe(path, module, first)
        if description is not None:
            descriptions[path] = description
        if isinstance(description, str) or _is_stored(module):
            return
        for name, child in module._modules.items():
            if child is not None and name != "parametrizations":
                visit(_join(path, name), child)

    visit("", model)
    return descriptions


def difference(
    descriptions: dict[str, Description], planned: dict[str, Description]
) -> dict[str, Description]:
    """The descriptions that differ from the planned ones, or share a layer that does.

    A coded layer leaves out its geometry where that is as planned.
    """
    new = {path for path, description in descriptions.items() if planned.get(path) != description}
    changed = {
        path: d for path, d in descriptions.items() if path in new or (isinstance(d, str) and d in new)
    }
    for path, description in changed.items():
        if len(description) < 2 or description[0] not in STORED_CLASSES or "geometry" not in description[1]:
            continue
        name, meta, *children = description
        if planned.get(path) == [find_class(name).plain, meta["geometry"]]:
            changed[path] = [
                name,
                {key: value for key, value in meta.items() if key != "geometry"},
                *children,
            ]
    return changed


def rebuild(model: nn.Module, descriptions: dict[str, Description], tensors: Tensors) -> nn.Module:
    """Change ``model`` in place until it is as described, and return it (or what replaced it).

    Layers that are already as described are kept. New plain layers are on the device "meta" and wait for
    their tensors.

    Raises:
        Many kinds of exception for descriptions that make no sense; ``store`` turns them into one.
    """
    first = {id(module): path for path, module in model.named_modules()}
    by_owner: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        owner, _, name = key.rpartition(".")
        by_owner.setdefault(owner, {})[name] = tensor
    for path, description in descriptions.items():
        try:
            old = _get(model, path)
            if isinstance(description, str):
                model = _put(model, path, _get(model, description, needed=True))
            elif old is None or first.get(id(old)) != path or not _is_as_described(path, old, description):
                model = _put(model, path, _build(model, path, description, by_owner, old))
        except Exception as error:  # whatever a hostile description provokes
            raise ValueError(f"layer '{path}': {error or type(error).__name__}") from error
    for path, module in model.named_modules():
        if isinstance(module, nn.Sequential) and None in module._modules.values():
            raise ValueError(f"layer '{path}': a child of the Sequential is not described")
    return model


def _is_stored(module: nn.Module) -> bool:
    """Whether the module's class claims to follow the rule of ``STORED_CLASSES``."""
    return isinstance(getattr(type(module), "meta", None), tuple)


def _describe(path: str, module: nn.Module, first: dict[int, str]) -> Description | None:
    """Describe a module, or say where in ``first`` (id: path) it was; None for the network's own classes."""
    if id(module) in first:
        return first[id(module)]
    first[id(module)] = path
    if _is_stored(module):
        return _describe_stored(path, module, first)
    if is_plain(module):
        return _describe_plain(path, module)
    return ["Sequential", list(module._modules)] if type(module) is nn.Sequential else None


def _describe_plain(path: str, layer: nn.Module) -> Description:
    name, geometry = plain_class(layer).__name__, geometry_of(layer)
    if not parametrize.is_parametrized(layer):
        return [name, geometry] if geometry else [name]
    for weight, chain in layer.parametrizations.items():
        if len(chain) != 1 or type(chain[0]) is not Mask:
            raise TypeError(
                f"layer '{path}': only masks can be stored; bake in what parametrizes its {weight}"
            )
    return [name, geometry, list(layer.parametrizations)]


def _describe_stored(path: str, module: nn.Module, first: dict[int, str]) -> Description:
    cls = type(module)
    if cls.__name__ not in STORED_CLASSES or find_class(cls.__name__) is not cls:
        raise TypeError(
            f"layer '{path}': {cls.__name__} is not in STORED_CLASSES, no file could bring it back"
        )
    arguments = inspect.signature(cls).parameters
    values = {name: getattr(module, name) for name in cls.meta}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    meta = {name: value for name, value in values.items() if value != arguments[name].default}
    children = {name: _describe(_join(path, name), child, first) for name, child in module._modules.items()}
    return [cls.__name__, meta, children] if children else [cls.__name__, meta]


def _is_as_described(path: str, module: nn.Module, description: Description) -> bool:
    if is_plain(module):
        return _describe_plain(path, module) == description
    return type(module) is nn.Sequential and description == ["Sequential", list(module._modules)]


def find_class(name: str) -> type:
    """The class that ``STORED_CLASSES`` lists under this name."""
    if name not in STORED_CLASSES:
        raise ValueError(f"there is no storable class {name!r}")
    return import_by_name(STORED_CLASSES[name])


def _build(
    model: nn.Module, path: str, description: Description, arrays: dict[str, Tensors], old: nn.Module | None
) -> nn.Module:
    """Build the module that a description stands for."""
    name, *rest = description
    if name == "Sequential":
        new = nn.Sequential()
        kept = old._modules if type(old) is nn.Sequential else {}
        new._modules.update({child: kept.get(child) for child in rest[0]})
        return new
    if name not in STORED_CLASSES:
        layer = build_layer(name, rest[0] if rest else {})
        for weight in rest[1] if len(rest) > 1 else ():
            mask = torch.ones(layer._parameters[weight].shape, dtype=torch.bool, device="meta")
            apply_mask_(layer, mask, weight)
        return layer
    cls, meta, children = find_class(name), dict(rest[0]), rest[1] if len(rest) > 1 else {}
    if "geometry" in cls.meta and "geometry" not in meta:  # the layer is as the skeleton has it
        meta["geometry"] = geometry_of(old)
    parts: dict[str, nn.Module] = {}
    for child, inner in children.items():
        child_path = _join(path, child)
        parts[child] = (
            _get(model, inner, needed=True)
            if isinstance(inner, str)
            else _build(model, child_path, inner, arrays, None)
        )
    return cls(**meta, **arrays.get(path, {}), **parts)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}".lstrip(".")


def _get(model: nn.Module, path: str, needed: bool = False) -> nn.Module | None:
    """The module at a path; None, or a ValueError if it is needed, where there is none."""
    module: nn.Module | None = model
    for name in path.split(".") if path else ():
        module = module._modules.get(name) if module is not None else None
    if module is None and needed:
        raise ValueError(f"it shares a layer '{path}' that is not there")
    return module


def _put(model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Put a module at a path that exists, and return the model."""
    if not path:
        return new
    parent_path, _, name = path.rpartition(".")
    parent = _get(model, parent_path)
    if parent is None or name not in parent._modules:
        raise ValueError("the skeleton has no such layer")
    parent._modules[name] = new
    return model
