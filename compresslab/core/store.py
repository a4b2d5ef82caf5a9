"""One file per network: its arrays in safetensors, its structure as JSON beside them, never pickle.

The metadata entry ``compresslab`` holds JSON with ``version``, ``crc32`` (of the JSON without it, and of all
arrays), and as needed ``spec`` (the network as data), ``layers`` (see ``structure``: with a spec only what
differs from it), ``ties`` (a tensor that is another one), ``views`` (tensors that share a storage) and
``huffman`` (arrays that are stored entropy-coded).
"""

import copy
import importlib
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from compresslab.core.bits import pack_bits, packed_size, unpack_bits
from compresslab.core.files import write_atomic
from compresslab.core.huffman import huffman_decode, huffman_encode
from compresslab.core.structure import Tensors, describe, difference, own_tensors, rebuild

VERSION = 1
_LONGEST = 400  # characters of a message
_ENTRY_BYTES = 40  # about what the metadata of one Huffman-coded array take
_INTEGERS = {name: getattr(torch, name) for name in ("bool", "uint8", "int8", "int16", "int32", "int64")}
_FLOATS = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}


class CompressedFileError(ValueError):
    """A file is no compresslab file, is damaged, or does not fit the network; the message says which."""


def save(model: nn.Module, path: str | os.PathLike[str], *, entropy: bool = False) -> int:
    """Write a network to a file, and return the size of the file in bytes.

    Without entropy coding the file takes exactly ``storage_bits(model) / 8`` bytes and its header. A file
    that was there is replaced only once the new one is complete.

    Args:
        model: any network, plain, masked, pruned or coded. If it has a ``spec`` (see
            ``compresslab.models.from_spec``), only what differs from that is described, and ``load`` needs no
            skeleton.
        path: where to write.
        entropy: store integer arrays Huffman-coded where that makes them smaller.

    Raises:
        TypeError: the model has a layer that no file could bring back; the message names it.
        OSError: the file cannot be written.

    Source:
        The last stage of S. Han, H. Mao, W. Dally, "Deep Compression", ICLR 2016, section 4 (``entropy``).
    """
    path = Path(path)
    info: dict[str, Any] = {}
    layers = describe(model)
    if isinstance(getattr(model, "spec", None), dict):
        info["spec"] = model.spec
        layers = difference(layers, describe(_from_spec(model.spec)))
    tensors, info["ties"], info["views"] = _distinct_tensors(model)
    if "spec" in info:
        _try_out(info | {"layers": layers}, tensors)
    info["huffman"] = _entropy_code_(tensors) if entropy else {}
    info["layers"] = layers
    info = {"version": VERSION} | {key: value for key, value in info.items() if value}
    info["crc32"] = _checksum(info, tensors)
    data = safetensors.torch.save(tensors, {"compresslab": _to_json(info)})
    write_atomic(path, data)
    return len(data)


def load(path: str | os.PathLike[str], skeleton: nn.Module | None = None) -> nn.Module:
    """Read a network from a file; it is in eval mode, on the CPU.

    Args:
        path: a file that ``save`` wrote.
        skeleton: a network of the same class, pruned or not; it is not changed. Layers that differ from the
            file are rebuilt as they were saved. None: the file's own ``spec`` says what to build.

    Raises:
        CompressedFileError: the file is truncated, altered, of another format or version, or does not fit the
            skeleton; or it has no ``spec``, and no skeleton was given.
        OSError: the file cannot be read.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        info, tensors = _parse(data)
        if skeleton is None and "spec" not in info:
            raise ValueError(
                "it does not say which network it holds; pass skeleton=, a network of the saved class"
            )
        model = _from_spec(info["spec"]) if skeleton is None else copy.deepcopy(skeleton)
        model = _assemble(model, info, tensors)
    except Exception as error:  # a file can be wrong in any way; the caller gets one kind of error for all
        raise CompressedFileError(f"cannot load {path}: {_in_short(error)}") from error
    return model.eval()


def _in_short(error: Exception) -> str:
    """The first line of what an error says, as much of it as one reads; a file may have put anything there."""
    lines = str(error).splitlines() or [""]
    return (lines[0] if len(lines[0]) <= _LONGEST else lines[0][:_LONGEST] + " ...") or type(error).__name__


def _assemble(model: nn.Module, info: dict[str, Any], tensors: Tensors) -> nn.Module:
    """Make of a skeleton the network of a file, in place; ``tensors`` is used up."""
    _restore_(tensors, info)
    model = rebuild(model, info.get("layers", {}), tensors)
    _fill_(model, tensors)
    return model


def _try_out(info: dict[str, Any], tensors: Tensors) -> None:
    """Raise TypeError if the network could not be put together again from its spec. Copies no arrays."""
    try:
        _assemble(_from_spec(info["spec"]), info, dict(tensors))
    except Exception as error:
        raise TypeError(f"the network differs from its spec by more than a file can say: {error}") from error


def header_bytes(path: str | os.PathLike[str]) -> int:
    """The bytes of a file that are not arrays: names, shapes, structure."""
    data = Path(path).read_bytes()
    try:
        return 8 + _header_size(data)
    except ValueError as error:
        raise CompressedFileError(f"cannot read {path}: {error}") from error


def payload_bits(path: str | os.PathLike[str]) -> int:
    """The bits of a file that are arrays; the whole file is this and ``header_bytes``."""
    return 8 * (Path(path).stat().st_size - header_bytes(path))


# ---- the file ----------------------------------------------------------------------------------------------


def _header_size(data: bytes) -> int:
    """The length of the JSON header of a safetensors file."""
    if data[8:9] != b"{" and (data[:2] == b"PK" or data[:1] == b"\x80"):
        raise ValueError(
            "it looks like a pickle (as torch.save writes), which could run code; those are never read"
        )
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError("it is truncated, or no compresslab file")
    return size


def _parse(data: bytes) -> tuple[dict[str, Any], Tensors]:
    """The metadata and the arrays of a file, after its checksum has been verified."""
    header = json.loads(data[8 : 8 + _header_size(data)])
    entry = header.get("__metadata__", {}).get("compresslab") if isinstance(header, dict) else None
    if not isinstance(entry, str):
        raise ValueError("it is a safetensors file, but not one of compresslab")
    info = json.loads(entry)
    if not isinstance(info, dict) or info.get("version") != VERSION:
        version = info.get("version") if isinstance(info, dict) else None
        raise ValueError(f"it has format version {version!r}, and this compresslab reads version {VERSION}")
    tensors = safetensors.torch.load(data)
    checksum = info.pop("crc32", None)
    if checksum != _checksum(info, tensors):
        raise ValueError("it is damaged: its checksum does not match")
    for key in ("layers", "ties", "views", "huffman"):
        if not isinstance(info.get(key, {}), dict):
            raise ValueError(f"its entry {key!r} must be a JSON object, got {info[key]!r}")
    return info, tensors


def _checksum(info: dict[str, Any], tensors: Tensors) -> str:
    """CRC-32 of the metadata and of every array with its name, type and shape."""
    crc = zlib.crc32(_to_json(info).encode())
    for key, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{key} {tensor.dtype} {list(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(_bytes_of(tensor).numpy(), crc)
    return f"{crc:08x}"


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _from_spec(spec: dict[str, Any]) -> nn.Module:
    """The network of a specification, its tensors on "meta". (``core`` knows ``models`` by name only.)"""
    with torch.device("meta"):
        return importlib.import_module("compresslab.models").from_spec(spec)


# ---- the arrays --------------------------------------------------------------------------------------------


def _bytes_of(tensor: Tensor) -> Tensor:
    """The tensor's elements as uint8, 1-d."""
    return tensor.contiguous().flatten().view(torch.uint8)


def _distinct_tensors(model: nn.Module) -> tuple[Tensors, dict[str, str], dict[str, list]]:
    """The arrays to write, each storage once; which keys are ties of others; which are views."""
    groups: dict[tuple[str, int], list[tuple[str, Tensor]]] = {}
    for key, _, _, tensor in own_tensors(model):
        storage = tensor.untyped_storage()
        place = (str(tensor.device), storage.data_ptr()) if storage.nbytes() else (key, 0)
        groups.setdefault(place, []).append((key, tensor.detach()))
    tensors, ties, views = {}, {}, {}
    for group in groups.values():
        first, tensor = group[0]
        if _fills_its_storage(tensor) and len({_layout(t) for _, t in group}) == 1:
            tensors[first] = tensor.cpu().contiguous()
            ties.update({key: first for key, _ in group[1:]})
        else:
            storage = tensor.untyped_storage()
            tensors[first] = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage).cpu()
            views.update({key: [first, *_layout(t)] for key, t in group})
    return tensors, ties, views


def _fills_its_storage(tensor: Tensor) -> bool:
    """Whether the tensor is all there is in its storage, in whatever order of axes."""
    order = sorted(range(tensor.ndim), key=lambda axis: -tensor.stride(axis))
    return tensor.nbytes == tensor.untyped_storage().nbytes() and tensor.permute(order).is_contiguous()


def _layout(tensor: Tensor) -> tuple[str, int, tuple[int, ...], tuple[int, ...]]:
    """Where in its storage a tensor's elements are: (dtype, offset, shape, stride)."""
    return str(tensor.dtype)[6:], tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _entropy_code_(tensors: Tensors) -> dict[str, list]:
    """Replace integer arrays that shrink by Huffman streams; return [width, dtype, *shape] for each."""
    coded = {}
    for key, tensor in tensors.items():
        name = str(tensor.dtype)[6:]
        if name not in _INTEGERS or tensor.nbytes <= _ENTRY_BYTES:
            continue
        raw = _bytes_of(tensor)
        width = min(range(2, 9), key=lambda bits: _entropy_bits(_symbols(raw, bits)))
        stream = huffman_encode(_symbols(raw, width))
        if len(stream) + _ENTRY_BYTES < len(raw):
            tensors[key] = stream
            coded[key] = [width, name, *tensor.shape]
    return coded


def _symbols(raw: Tensor, width: int) -> Tensor:
    """Bytes read as symbols of ``width`` bits: what ``pack_bits`` may have made them of."""
    n = -(-8 * len(raw) // width)
    padding = raw.new_zeros(packed_size(n, width) - len(raw))
    return unpack_bits(torch.cat([raw, padding]), width, n)


def _entropy_bits(symbols: Tensor) -> float:
    """Shannon's lower bound for coding the symbols one by one: n H."""
    counts = torch.bincount(symbols).double()
    return float(torch.special.entr(counts / len(symbols)).sum() / math.log(2) * len(symbols))


def _restore_(tensors: Tensors, info: dict[str, Any]) -> None:
    """Undo entropy coding, views and ties, so that every key has its tensor."""
    for key, (width, dtype, *shape) in info.get("huffman", {}).items():
        packed = pack_bits(huffman_decode(tensors[key]), width)
        size = math.prod(shape) * _INTEGERS[dtype].itemsize
        tensors[key] = packed[:size].clone().view(_INTEGERS[dtype]).reshape(shape)
    bases = {first: tensors[first] for first, *_ in info.get("views", {}).values()}
    for key, (first, dtype, offset, shape, stride) in info.get("views", {}).items():
        tensors[key] = bases[first].view((_INTEGERS | _FLOATS)[dtype]).as_strided(shape, stride, offset)
    for key, source in info.get("ties", {}).items():
        tensors[key] = tensors[source]


def _fill_(model: nn.Module, tensors: Tensors) -> None:
    """Give every parameter and buffer its tensor; those that are one in the file become one."""
    places = {key: (module, name, old) for key, module, name, old in own_tensors(model)}
    for keys, complaint in (
        (places.keys() - tensors.keys(), "is missing"),
        (tensors.keys() - places.keys(), "is not wanted"),
    ):
        if keys:
            raise ValueError(f"tensor '{min(keys)}' {complaint}: the file does not fit the network")
    parameters: dict[int, nn.Parameter] = {}
    for key, (module, name, old) in places.items():
        new = tensors[key]
        if new.shape != old.shape:
            raise ValueError(
                f"tensor '{key}' has shape {tuple(new.shape)} in the file, {tuple(old.shape)} in the network"
            )
        if new.dtype != old.dtype and not (new.is_floating_point() and old.is_floating_point()):
            raise ValueError(f"tensor '{key}' has type {new.dtype} in the file, {old.dtype} in the network")
        if isinstance(old, nn.Parameter):
            new = parameters.setdefault(id(new), nn.Parameter(new, requires_grad=old.requires_grad))
        setattr(module, name, new)
    left = [name for name, tensor in model.named_buffers() if tensor.is_meta]
    if left:
        raise ValueError(f"buffer '{left[0]}' is in no file: register it as persistent, or pass skeleton=")
