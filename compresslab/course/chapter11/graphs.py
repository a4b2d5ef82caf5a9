"""A network as a list of nodes, for the exercises on graphs: small enough to read, complete enough to run.

A node is what one line of an .onnx file says: an operation, the names of the tensors it reads, the name of the
tensor it writes. Tensors whose values are known have their names in a dict of constants.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compresslab.core.errors import where


class Node(NamedTuple):
    """One operation of a graph.

    Args:
        op: its name in ONNX, such as "Conv".
        inputs: names of the tensors that it reads; constants among them.
        output: name of the tensor that it writes.
        attributes: settings that are no tensors, such as {"epsilon": 1e-5}.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


SIMPLE = {
    "relu": "Relu", "ReLU": "Relu", "relu6": "Clip", "ReLU6": "Clip", "add": "Add", "iadd": "Add",
    "mean": "GlobalAveragePool", "AdaptiveAvgPool2d": "GlobalAveragePool",
}  # fmt: skip


def _conv(a: Mapping[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight, bias, a.get("stride", 1), a.get("padding", 0), a.get("dilation", 1), a.get("groups", 1))


def _norm(a: Mapping[str, Any], x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return F.batch_norm(x, mean, var, gamma, beta, False, 0.0, a["epsilon"])


KERNELS = {
    "Conv": _conv,
    "BatchNormalization": _norm,
    "Relu": lambda a, x: F.relu(x),
    "Clip": lambda a, x: F.relu6(x),
    "Add": lambda a, x, y: x + y,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3)),
    "Gemm": lambda a, x, weight, bias=None: F.linear(x, weight, bias),
}


def run_graph(nodes: Sequence[Node], constants: Mapping[str, Tensor], outputs: Sequence[str], x: Tensor) -> list[Tensor]:
    """Run the nodes in their order; the input of the graph is called "x".

    Raises:
        ValueError: an operation is unknown, or reads a tensor that nothing has written.
    """
    known = {"x": x, **constants}
    for node in nodes:
        if node.op not in KERNELS:
            raise ValueError(f"operation {node.op!r} is unknown; known are {', '.join(KERNELS)}")
        for name in node.inputs:
            if name not in known:
                raise ValueError(f"{node.op} reads {name!r}, which nothing has written")
        known[node.output] = KERNELS[node.op](node.attributes, *(known[name] for name in node.inputs))
    for name in outputs:
        if name not in known:
            raise ValueError(f"the graph's output {name!r} is not written by any node")
    return [known[name] for name in outputs]


def count_operations(nodes: Sequence[Node]) -> Counter[str]:
    """How often each operation stands in the list."""
    return Counter(node.op for node in nodes)


def record_graph(model: nn.Module) -> tuple[list[Node], dict[str, Tensor], tuple[str, ...]]:
    """The nodes, constants and outputs of a network of convolutions, norms, ReLUs, sums, a mean and linear layers.

    Raises:
        ValueError: the network does something else.
    """
    traced = fx.symbolic_trace(copy.deepcopy(model).eval())
    modules, nodes = dict(traced.named_modules()), []
    constants: dict[str, Tensor] = {}
    names: dict[fx.Node, str] = {}
    outputs: tuple[str, ...] = ()
    for step in traced.graph.nodes:
        if step.op == "placeholder":
            names[step] = "x"
        elif step.op == "output":
            outputs = (names[step.args[0]],)
        else:
            layer = modules[step.target] if step.op == "call_module" else None
            if isinstance(layer, nn.Identity | nn.Flatten | nn.Dropout):
                names[step] = names[step.args[0]]
                continue
            op, attributes, arrays = _translate(step, layer)
            constants |= {f"{step.target}.{key}": value for key, value in arrays.items()}
            read = [names[arg] for arg in step.args if isinstance(arg, fx.Node)]
            names[step] = step.name
            nodes.append(Node(op, (*read, *(f"{step.target}.{key}" for key in arrays)), step.name, attributes))
    return nodes, constants, outputs


def _translate(step: fx.Node, layer: nn.Module | None) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """The operation, the attributes and the constants of one step of a trace."""
    if isinstance(layer, nn.Conv2d):
        attributes = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
        return "Conv", attributes, _tensors(layer, "weight", "bias")
    if isinstance(layer, nn.BatchNorm2d):
        arrays = _tensors(layer, "weight", "bias", "running_mean", "running_var")
        return "BatchNormalization", {"epsilon": layer.eps}, arrays
    if isinstance(layer, nn.Linear):
        return "Gemm", {}, _tensors(layer, "weight", "bias")
    name = type(layer).__name__ if layer is not None else getattr(step.target, "__name__", str(step.target))
    if name not in SIMPLE:
        raise ValueError(f"{name} has no node here; known are convolutions, norms, ReLU, sums, means, linear layers{where(step.name)}")
    return SIMPLE[name], {}, {}


def _tensors(layer: nn.Module, *keys: str) -> dict[str, Tensor]:
    return {key: getattr(layer, key).detach() for key in keys if isinstance(getattr(layer, key), Tensor)}


def random_constants(generator: torch.Generator, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Normal numbers by name; those whose name begins with "var" are positive.

    Example:
        >>> random_constants(torch.Generator().manual_seed(0), var1=(2,))["var1"] > 0
        tensor([True, True])
    """
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: 0.1 + value.abs() if name.startswith("var") else value for name, value in drawn.items()}
