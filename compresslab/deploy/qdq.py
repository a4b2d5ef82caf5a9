r"""Static int8 for an inference engine, with the course's own scales.

`quantization.integer_network` decides everything that there is to decide: which range each activation gets,
the scale of each weight channel, the integers of weights and biases. Here they are written down in the form
that engines read: an ordinary graph of float operations, in which every tensor passes through a pair of nodes

    QuantizeLinear      q = clamp(round(x / S) + Z)         float32 -> uint8
    DequantizeLinear    x = S (q - Z)                       uint8 or int8 -> float32

("QDQ"). Run node by node it would be slower than the float network. But an engine knows the pattern: it
replaces *dequantize, convolve, quantize* by one convolution of integers (``QLinearConv``), with the sums in 32
bits and one factor :math:`M = S_1 S_2 / S_3` behind them. `fusion.optimized_operations` shows whether it has.

The graph is written node by node, not traced, and so takes milliseconds. Biases are int32 at scale
:math:`S_1 S_2`; a ReLU is the lower bound of its uint8 grid, whose zero point is 0, and needs no node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches
from compresslab.core.errors import check_int
from compresslab.core.uniform import FindRange, Grid, min_max
from compresslab.deploy.export import OPSET, write_proto
from compresslab.quantization.integer_network import (
    Clamp,
    IntegerAdd,
    IntegerLayer,
    IntegerMean,
    IntegerNetwork,
    integer_network,
)

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10  # of the file format that goes with `OPSET`
FLOAT32 = 1  # its number in the format


def export_int8(
    model: nn.Module,
    path: str | os.PathLike[str],
    input_shape: Sequence[int],
    batches: Batches,
    *,
    batch: int | None = None,
    find_range: FindRange = min_max,
) -> IntegerNetwork:
    """Calibrate a network and write its int8 form as an .onnx file; return the integers that it stands for.

    Args:
        model: plain, pruned, decomposed or coded; what `quantization.integer_network` can take. Not changed.
        path: where to write; an existing file is replaced, all or nothing.
        input_shape: of one input, without the batch, such as ``(3, 32, 32)``.
        batches: calibration inputs (N, ...) or (inputs, targets) pairs, from the training images.
        batch: the only batch size that the file will take; None lets it take any.
        find_range: how an activation's range follows from its values, as for `integer_network`:
            ``core.min_max``, `quantization.percentile_range`, `quantization.mse_range`.

    Returns:
        the bit-true network; its ``grids`` hold the scales that are in the file.

    Raises:
        ImportError: onnx is not installed.
        ValueError: what `integer_network` refuses (an operation with no integer form, by name; no calibration
            data; nan or inf), or ``batch`` below 1.

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", CVPR 2018.
    Differs: the engine multiplies by a float32 factor where the paper, and `integer_network`, shift integers.
        So a sum that falls next to the middle between two integers may round to the other one.
    Example (a second):
        ``export_int8(load_baseline("resnet8"), "int8.onnx", (3, 32, 32), [digits.train.x(slice(256))])``
    """
    network = integer_network(model, batches, find_range=find_range)
    write_proto(int8_proto(network, input_shape, batch=batch), path)
    return network


def int8_proto(
    network: IntegerNetwork, input_shape: Sequence[int], *, batch: int | None = None
) -> onnx.ModelProto:
    """The QDQ graph of a network of integers.

    Args:
        network: from `integer_network`, of 8 bits.
        input_shape, batch: as for `export_int8`.

    Raises:
        ImportError: onnx is not installed.
        ValueError: the network has fewer than 8 bits, which no engine's kernel would use; ``batch`` below 1.
    """
    if batch is not None:
        check_int("batch", batch, 1)
    for name, grid in network.grids.items():
        if (grid.qmin, grid.qmax) != (0, 255):
            got = f"{grid.qmin} to {grid.qmax} for '{name}'"
            raise ValueError(f"an int8 file needs activations of 0 to 255, got {got}")
    return _Writer(network).write(input_shape, batch)


class _Writer:
    """Writes down the steps of a network of integers, one after the other."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.helper = _import_onnx()
        self.network = network
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def write(self, input_shape: Sequence[int], batch: int | None) -> onnx.ModelProto:
        helper, first = self.helper, next(iter(self.network.grids))
        self.quantize("input", first)
        for (name, inputs), layer in zip(self.network.plan, self.network.layers, strict=True):
            self.quantize(self.compute(name, inputs, layer), name)
        last = self.network.plan[-1][0] if self.network.plan else first
        self.node("DequantizeLinear", [f"{last}.q", *self.grid(last)], "output")
        shapes = {"input": input_shape, "output": self.network(torch.zeros(1, *input_shape)).shape[1:]}
        x, y = (
            helper.make_tensor_value_info(end, FLOAT32, [batch or "batch", *shape])
            for end, shape in shapes.items()
        )
        graph = helper.make_graph(self.nodes, "int8", [x], [y], list(self.constants.values()))
        versions = {"opset_imports": [helper.make_opsetid("", OPSET)], "ir_version": IR_VERSION}
        return helper.make_model(graph, producer_name="compresslab", **versions)

    def node(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: np.ndarray | np.generic) -> str:
        from onnx import numpy_helper

        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(array), name))
        return name

    def grid(self, name: str) -> list[str]:
        """The scale and the zero point of an activation, as inputs of a node."""
        grid: Grid = self.network.grids[name]
        scale = self.constant(f"{name}.scale", np.float32(grid.scale.item()))
        return [scale, self.constant(f"{name}.zero_point", np.uint8(int(grid.zero_point)))]

    def quantize(self, value: str, name: str) -> None:
        self.node("QuantizeLinear", [value, *self.grid(name)], f"{name}.q")

    def compute(self, name: str, inputs: tuple[str, ...], layer: nn.Module) -> str:
        """The float nodes of one step, its inputs dequantized; the name of the result."""
        real = [
            self.node("DequantizeLinear", [f"{x}.q", *self.grid(x)], f"{name}.in{i}")
            for i, x in enumerate(inputs)
        ]
        out = f"{name}.real"
        if isinstance(layer, IntegerLayer):
            return self.weighted(name, inputs[0], real, layer, out)
        if isinstance(layer, IntegerAdd):
            return self.node("Add", real, out)
        if isinstance(layer, IntegerMean):
            return self.mean(name, layer, real, out)
        if isinstance(layer, Clamp):
            return self.clamp(name, layer, real, out)
        if isinstance(layer, nn.MaxPool2d):
            window = _window(layer.kernel_size, layer.stride, layer.padding)
            more = {"dilations": _pair(layer.dilation), "ceil_mode": int(layer.ceil_mode)}
            return self.node("MaxPool", real, out, **window, **more)
        return self.flatten(name, layer, real, out)

    def weighted(self, name: str, before: str, real: list[str], layer: IntegerLayer, out: str) -> str:
        """A convolution or a matrix product, of an int8 weight and an int32 bias with a scale per channel."""
        zero_point = int(self.network.grids[before].zero_point)
        sums = layer.weight.long().flatten(1).sum(1)
        bias = layer.bias.long() + zero_point * sums  # without Z_1, which the engine works in
        scale = layer.weight_scale.float()
        arrays = {
            "weight": (layer.weight, scale),
            "bias": (bias.int(), scale * self.network.grids[before].scale.float()),
        }
        for role, (q, step) in arrays.items():
            stored = {f"{name}.{role}": q.numpy(), f"{name}.{role}_scale": step.numpy()}
            if layer.options is None and role == "weight":  # the engine's matrix product asks for one that is written
                stored[f"{name}.weight_zero_point"] = np.zeros(len(step), np.int8)
            names = [self.constant(*item) for item in stored.items()]
            real.append(self.node("DequantizeLinear", names, f"{name}.{role}_real", axis=0))
        if layer.options is None:
            return self.node("Gemm", real, out, transB=1)
        options = layer.options
        window = _window(layer.weight.shape[2:], options["stride"], options["padding"])
        more = {"dilations": _pair(options["dilation"]), "group": options["groups"]}
        return self.node("Conv", real, out, **window, **more)

    def mean(self, name: str, layer: IntegerMean, real: list[str], out: str) -> str:
        options = layer.options
        if layer.whole:
            pooled = self.node("GlobalAveragePool", real, f"{out}.mean" if layer.flat else out)
            return self.flat(name, pooled, out) if layer.flat else pooled
        stride = options.get("stride") or options["kernel"]
        window = _window(options["kernel"], stride, options.get("padding", 0))
        return self.node("AveragePool", real, out, count_include_pad=1, **window)

    def flat(self, name: str, pooled: str, out: str) -> str:
        """Flatten behind a pair of its own: between the mean and its quantization it would hide the pattern."""
        q = self.node("QuantizeLinear", [pooled, *self.grid(name)], f"{pooled}.q")
        return self.node("Flatten", [self.node("DequantizeLinear", [q, *self.grid(name)], f"{pooled}.again")], out)

    def clamp(self, name: str, layer: Clamp, real: list[str], out: str) -> str:
        grid = self.network.grids[name]
        bounds = [(bound - int(grid.zero_point)) * grid.scale.item() for bound in (layer.low, layer.high)]
        names = (f"{name}.low", f"{name}.high")
        ends = [self.constant(end, np.float32(x)) for end, x in zip(names, bounds, strict=True)]
        return self.node("Clip", [*real, *ends], out)

    def flatten(self, name: str, layer: nn.Flatten, real: list[str], out: str) -> str:
        if (layer.start_dim, layer.end_dim) != (1, -1):
            raise ValueError(f"'{name}': only a flatten of all but the batch has a form here, got {layer}")
        return self.node("Flatten", real, out)


def _window(kernel: Any, stride: Any, padding: Any) -> dict[str, list[int]]:
    """Kernel, stride and padding as ONNX names them."""
    return {"kernel_shape": _pair(kernel), "strides": _pair(stride), "pads": _pair(padding) * 2}


def _pair(value: int | Sequence[int] | Tensor) -> list[int]:
    return [int(x) for x in value] if isinstance(value, (tuple, list, torch.Size)) else [int(value)] * 2


def _import_onnx():
    try:
        from onnx import helper
    except ImportError as error:
        raise ImportError("writing .onnx files needs onnx: pip install onnx") from error
    return helper
