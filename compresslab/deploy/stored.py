r"""Files that are as small as the codes: integers in the file, and a ``DequantizeLinear`` behind each.

ONNX has the uniform code as an operation: :math:`\hat w = S\,(q - Z)` with :math:`q` of 8 or 4 bits, and one
scale per tensor, per index of an axis, or per block of consecutive weights along it. Codes with other
arithmetic (codebooks, sparse positions, other widths) go into the graph as the operations that decode them.

**Small is not fast.** Before a convolution the engine decodes at every run, and convolves in float as before:
slower than float weights. Before a matrix product it has one operation that decodes while it multiplies
(``MatMulNBits``); at batch 1, where reading the weights is the work, that is faster. So matrices are written
transposed here, as that operation wants them. ``OnnxModel(..., weights="unpacked")`` decodes while loading.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.core.bits import pack_bits, unpack_bits
from compresslab.core.codes import UniformCode
from compresslab.core.errors import check_int
from compresslab.core.layers import (
    CodedConv1d,
    CodedConv2d,
    CodedEmbedding,
    CodedLayer,
    CodedLinear,
    decompress,
)
from compresslab.core.modules import map_layers
from compresslab.deploy.export import OPSET, code_arrays, to_proto, write_proto

if TYPE_CHECKING:
    import onnx

ONE_WEIGHT = (CodedLinear, CodedConv1d, CodedConv2d, CodedEmbedding)


class Integers(NamedTuple):
    """A weight as the file stores it.

    Args:
        q: int32, of the shape of the initializer.
        scale: float, () per tensor, (n,) per index of ``axis``, or ``q``'s shape with ``axis`` divided by
            ``block``.
        zero_point: int32 of the scale's shape, or None for signed integers around 0.
        bits: 4 or 8.
        axis: along which scales change.
        block: how many neighbours along ``axis`` share a scale; 0 where it is no blocked scale.
    """

    q: Tensor
    scale: Tensor
    zero_point: Tensor | None
    bits: int
    axis: int
    block: int


def export_stored(
    model: nn.Module,
    path: str | os.PathLike[str],
    input_shape: Sequence[int],
    *,
    batch: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a coded network as an .onnx file that is about as small as its codes.

    Uniform codes of 4 and 8 bits become INT4, UINT4, INT8 or UINT8 initializers with ``DequantizeLinear``;
    all other codes go into the graph as the operations that decode them. A batch norm behind such a convolution
    is folded into the scales: :math:`\\hat w\\,g = (S g)\\,(q - Z)`, the integers stay.

    Args:
        model: a coded network with one input and one output; it is not changed.
        path, input_shape, batch, dtype: as for `export_onnx`.

    Returns:
        the path.

    Raises:
        ValueError: no layer is coded, or as `export_onnx`.
    """
    if not code_arrays(model):
        raise ValueError("no layer of this network is coded: encode it first, or use export_onnx")
    plain, codes = _decode_uniform(model)
    keep = code_arrays(plain) | set(codes)
    proto = to_proto(plain, input_shape, batch=batch, opset=OPSET, dtype=dtype, keep=keep)
    graph = proto.graph
    for name in [tensor.name for tensor in graph.initializer if tensor.name in codes]:
        factor = _fold_norm(graph, name) if _scales_by_channel(codes[name]) else None
        store_weight(graph, name, codes[name], factor)
    _sort(graph)
    return write_proto(proto, path)


def integers_of(code: UniformCode, factor: Tensor | None = None, transposed: bool = False) -> Integers:
    """A code's integers and scales in the order in which an ONNX initializer holds them.

    Args:
        code: of 4 or 8 bits.
        factor: (n,), numbers that the scales along axis 0 are multiplied by.
        transposed: of a matrix coded along axis 0: its transpose.
    """
    rows = len(code.scale)
    offset = 2 ** (code.bits - 1) - 1 if code.zero_point is None else 0
    q = unpack_bits(code.packed, code.bits, code.numel) - offset
    kept = code.shape[code.axis]
    scale, zero_point = code.scale, code.zero_point
    zero_point = None if zero_point is None else zero_point.int()
    if factor is not None:
        repeat = max(kept // rows, 1)  # a scale of the whole tensor becomes one per channel
        scale = scale.float().repeat_interleave(repeat) * factor.repeat_interleave(max(rows // kept, 1))
        zero_point = None if zero_point is None else zero_point.repeat_interleave(repeat)
        rows = len(scale)
    if rows <= kept:  # one scale, or one for each index of the axis: the weight's own shape
        moved = [code.shape[code.axis], *code.shape[: code.axis], *code.shape[code.axis + 1 :]]
        q = q.view(moved).movedim(0, code.axis)
        one = rows == 1 and kept != 1
        scale, axis, block = scale[0] if one else scale, code.axis, 0
        zero_point = zero_point[0] if one and zero_point is not None else zero_point
    else:
        q, axis, block = q.view(kept, -1), 1, code.numel // rows
        scale = scale.view(kept, -1)
        zero_point = None if zero_point is None else zero_point.view(kept, -1)
    if transposed:
        q, axis = q.T, 1 - axis
        scale, zero_point = (None if x is None else x.T if x.ndim == 2 else x for x in (scale, zero_point))
    return Integers(q.contiguous(), scale.contiguous(), zero_point, code.bits, axis, block)


def initializer(name: str, q: Tensor, bits: int, signed: bool) -> onnx.TensorProto:
    r"""Integers of 4 or 8 bits as an ONNX tensor of raw bytes: at 4 bits two in a byte, low nibble first.

    The bytes are those of ``pack_bits`` of :math:`q \bmod 2^b` (two's complement), ceil(n b / 8) of them.
    (``onnx.helper.make_tensor`` can write one byte per 4-bit number.)

    Args:
        q: int32, any shape, in the range of ``bits`` bits.

    Example:
        >>> initializer("q", torch.tensor([1, -1, 7]), 4, signed=True).raw_data.hex()
        'f107'
    """
    from onnx import TensorProto

    check_int("bits", bits, 4, 8)
    kinds = {(4, True): "INT4", (4, False): "UINT4", (8, True): "INT8", (8, False): "UINT8"}
    raw = pack_bits(torch.remainder(q, 2**bits), bits).numpy().tobytes()
    return TensorProto(
        name=name, data_type=getattr(TensorProto, kinds[bits, signed]), dims=list(q.shape), raw_data=raw
    )


def _decode_uniform(model: nn.Module) -> tuple[nn.Module, dict[str, UniformCode]]:
    """The network with plain layers where ONNX's operation fits the code, and these codes by weight name."""
    weights: dict[int, nn.Parameter] = {}
    owners: dict[int, UniformCode] = {}

    def replace(name: str, layer: CodedLayer) -> nn.Module | None:
        code = layer.coded if type(layer) in ONE_WEIGHT else None
        if not isinstance(code, UniformCode) or not _fits(code):
            return None
        plain = decompress(layer)
        plain.weight = weights.setdefault(id(code), plain.weight)  # layers that shared a code share a weight
        owners[id(plain.weight)] = code
        return plain

    plain = map_layers(model, CodedLayer, replace)
    named = plain.named_parameters(remove_duplicate=False)
    return plain, {name: owners[id(weight)] for name, weight in named if id(weight) in owners}


def _fits(code: UniformCode) -> bool:
    """4 or 8 bits, and rows that are the tensor, the indices of the axis, or equal parts of these."""
    rows, kept = len(code.scale), code.shape[code.axis]
    return code.bits in (4, 8) and code.numel > 0 and (rows == 1 or rows % kept == 0)


def _scales_by_channel(code: UniformCode) -> bool:
    return code.axis == 0 and code.scale.dtype == torch.float32


def store_weight(graph: onnx.GraphProto, name: str, code: UniformCode, factor: Tensor | None) -> None:
    """Replace the initializer ``name`` by integers, scales and the operation that decodes them."""
    from onnx import helper, numpy_helper

    transposed = code.axis == 0 and len(code.shape) == 2 and _read_transposed(graph, name)
    stored = integers_of(code, factor, transposed)
    graph.initializer.remove(next(tensor for tensor in graph.initializer if tensor.name == name))
    signed = stored.zero_point is None
    graph.initializer.append(initializer(f"{name}.q", stored.q, stored.bits, signed))
    graph.initializer.append(numpy_helper.from_array(stored.scale.detach().numpy(), f"{name}.scale"))
    inputs = [f"{name}.q", f"{name}.scale"]
    if code.scale.dtype != torch.float32 and factor is None:
        graph.node.append(helper.make_node("Cast", [inputs[1]], [f"{name}.scale32"], to=1))
        inputs[1] = f"{name}.scale32"
    if stored.zero_point is not None:
        graph.initializer.append(initializer(f"{name}.zero", stored.zero_point, stored.bits, False))
        inputs.append(f"{name}.zero")
    shape = code.shape[::-1] if transposed else code.shape
    decoded = name if tuple(stored.q.shape) == shape else f"{name}.rows"
    settings = {"block_size": stored.block} if stored.block else {}
    graph.node.append(helper.make_node("DequantizeLinear", inputs, [decoded], axis=stored.axis, **settings))
    if decoded != name:
        _reshape(graph, decoded, name, code)


def _reshape(graph: onnx.GraphProto, rows: str, name: str, code: UniformCode) -> None:
    """Nodes from the rows of blocks (n, m) to the weight's own shape."""
    from onnx import helper, numpy_helper

    others = [i for i in range(len(code.shape)) if i != code.axis]
    moved = np.array([code.shape[i] for i in (code.axis, *others)], dtype=np.int64)
    graph.initializer.append(numpy_helper.from_array(moved, f"{name}.shape"))
    flat = name if code.axis == 0 else f"{name}.moved"
    graph.node.append(helper.make_node("Reshape", [rows, f"{name}.shape"], [flat]))
    if code.axis:
        order = [int(i) for i in np.argsort([code.axis, *others])]
        graph.node.append(helper.make_node("Transpose", [flat], [name], perm=order))


def _read_transposed(graph: onnx.GraphProto, name: str) -> bool:
    """Make the one reader of a matrix read its transpose: Gemm becomes MatMul and Add, a Transpose goes.

    A ReLU behind it is written as max(x, 0): ONNX Runtime would fuse product, bias and ReLU first, and then
    find no product any more that it could decode in (1.31; an MLP of width 1024 ran 20 times slower).
    """
    from onnx import helper, numpy_helper

    readers = [node for node in graph.node if name in node.input]
    if len(readers) != 1:
        return False
    reader = readers[0]
    settings = {a.name: helper.get_attribute_value(a) for a in reader.attribute}
    if reader.op_type == "Transpose" and list(settings.get("perm", [1, 0])) == [1, 0]:
        for node in graph.node:
            node.input[:] = [name if x == reader.output[0] else x for x in node.input]
        graph.node.remove(reader)
        return True
    plain = settings.pop("transB", 0) == 1 and all(value in (0, 1.0) for value in settings.values())
    if reader.op_type != "Gemm" or not plain or settings.get("transA", 0) or reader.input[1] != name:
        return False
    product = reader.output[0] if len(reader.input) < 3 else f"{reader.output[0]}.product"
    graph.node.append(helper.make_node("MatMul", list(reader.input[:2]), [product]))
    if len(reader.input) == 3:
        graph.node.append(helper.make_node("Add", [product, reader.input[2]], list(reader.output)))
    for relu in [node for node in graph.node if node.op_type == "Relu" and reader.output[0] in node.input]:
        graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), f"{relu.output[0]}.zero"))
        relu.op_type = "Max"
        relu.input.append(f"{relu.output[0]}.zero")
    graph.node.remove(reader)
    return True


def _fold_norm(graph: onnx.GraphProto, name: str) -> Tensor | None:
    """Take out the batch norm behind the one convolution that reads ``name``; return its factor."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    convs = [node for node in graph.node if name in node.input]
    if len(convs) != 1 or convs[0].op_type != "Conv" or convs[0].input[1] != name:
        return None
    conv, out = convs[0], convs[0].output[0]
    readers = [node for node in graph.node if out in node.input]
    if len(readers) != 1 or readers[0].op_type != "BatchNormalization":
        return None
    if out in {x.name for x in graph.output}:
        return None
    norm = readers[0]
    if any(x not in constants for x in (*norm.input[1:], *conv.input[2:3])):
        return None
    arrays = [numpy_helper.to_array(constants[x]).astype(np.float64) for x in norm.input[1:]]
    gamma, beta, mean, variance = arrays
    eps = {a.name: helper.get_attribute_value(a) for a in norm.attribute}.get("epsilon", 1e-5)
    factor = gamma / np.sqrt(variance + eps)
    bias = numpy_helper.to_array(constants[conv.input[2]]) if len(conv.input) > 2 else 0.0
    folded = ((bias - mean) * factor + beta).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(folded, f"{name}.bias"))
    conv.input[2:] = [f"{name}.bias"]
    conv.output[0] = norm.output[0]
    graph.node.remove(norm)
    _drop_unread(graph)
    return torch.from_numpy(factor.astype(np.float32))


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Take out initializers that no node reads."""
    read = {x for node in graph.node for x in node.input} | {x.name for x in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _sort(graph: onnx.GraphProto) -> None:
    """Order the nodes so that each comes after those it reads from."""
    known = {x.name for x in graph.input} | {x.name for x in graph.initializer} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise ValueError(f"the graph reads {waiting[0].input} which nothing writes")
        ordered += ready
        known.update(x for node in ready for x in node.output)
        waiting = [node for node in waiting if not known.issuperset(node.output)]
    del graph.node[:]
    graph.node.extend(ordered)
