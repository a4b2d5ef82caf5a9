"""The reference functions of exercises 11.3 and 11.4: a batch norm folded in a graph, a 4-bit initializer read."""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.course.chapter11.graphs import Node


def fold_norms(nodes: list[Node], constants: dict[str, Tensor], outputs: tuple[str, ...]) -> tuple[list[Node], dict[str, Tensor]]:
    """The graph without the batch norms that can go into the convolution before them."""
    nodes, constants = list(nodes), dict(constants)
    for norm in [node for node in nodes if node.op == "BatchNormalization"]:
        source, gamma, beta, mean, var = norm.inputs
        conv = next((node for node in nodes if node.output == source), None)
        readers = [node for node in nodes if source in node.inputs]
        if conv is None or conv.op != "Conv" or len(readers) > 1 or source in outputs:
            continue
        factor = constants[gamma] / torch.sqrt(constants[var] + norm.attributes["epsilon"])
        old_bias = constants[conv.inputs[2]] if len(conv.inputs) == 3 else 0
        weight, bias = f"{norm.output}.weight", f"{norm.output}.bias"
        constants[weight] = constants[conv.inputs[1]] * factor.view(-1, 1, 1, 1)
        constants[bias] = (old_bias - constants[mean]) * factor + constants[beta]
        nodes[nodes.index(conv)] = conv._replace(inputs=(conv.inputs[0], weight, bias), output=norm.output)
        nodes.remove(norm)
    return nodes, constants


def read_int4(raw: Tensor, shape: tuple[int, ...], scale: Tensor, axis: int, block: int) -> Tensor:
    """The weights that a 4-bit initializer stands for."""
    count = torch.Size(shape).numel()
    nibbles = torch.stack([raw % 16, raw // 16], dim=1).flatten()[:count].int()
    q = torch.where(nibbles > 7, nibbles - 16, nibbles).reshape(shape)
    scales = scale.repeat_interleave(block, dim=axis).narrow(axis, 0, shape[axis])
    return q * scales
