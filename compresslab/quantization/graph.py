"""Reading a network's graph: which layer feeds which, whatever the way it was written.

A ReLU may be a module, a function or a method; a residual sum is a plus sign. Folding, equalization and
integer inference need to see them as one thing: ``as_layer`` gives every operation of the graph as a layer.
"""

import operator
from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from compresslab.core.modules import Mask
from compresslab.core.train import evaluating

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Add(nn.Module):
    """The sum of two tensors, as a layer."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class SpatialMean(nn.Module):
    """The mean over height and width as a layer: to (N, C), or (N, C, 1, 1) with ``keepdim``."""

    def __init__(self, keepdim: bool = False):
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=self.keepdim)


def trace(model: nn.Module) -> fx.Graph:
    """The graph of what ``model`` does in eval mode; the model is left as it was.

    Raises:
        ValueError: ``torch.fx`` cannot trace it.
    """
    try:
        with evaluating(model):
            return fx.Tracer().trace(model)
    except Exception as error:  # tracing runs the network's own code: anything may be raised
        raise ValueError(f"{type(model).__name__} cannot be traced by torch.fx: {error}") from error


def module_of(model: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that a node calls; None if it calls none."""
    return model.get_submodule(node.target) if node.op == "call_module" else None


def node_before(node: fx.Node) -> fx.Node | None:
    """The node whose value is the first argument; None if there is none."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None


def called_once(model: nn.Module, graph: fx.Graph) -> set[str]:
    """Names of the modules that are called once and have no parameter that another module has too."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    parameters = (p for module in model.modules() for p in module._parameters.values() if p is not None)
    owners = Counter(map(id, parameters))
    return {
        name
        for name, count in calls.items()
        if count == 1 and all(owners[id(p)] == 1 for p in model.get_submodule(name).parameters())
    }


def as_layer(model: nn.Module, node: fx.Node) -> nn.Module | None:
    """The layer that does what a node does: the module it calls, or one made for a function or method.

    Returns:
        ``nn.Identity`` for dropout; None for an operation that has no layer here.

    Example:
        >>> class Net(nn.Module):
        ...     def forward(self, x):
        ...         return F.relu(x) + x.flatten(1)
        >>> [as_layer(Net(), node) for node in trace(Net()).nodes if node.op.startswith("call")]
        [ReLU(), Flatten(start_dim=1, end_dim=-1), Add()]
    """
    if node.op == "call_module":
        layer = module_of(model, node)
        return nn.Identity() if isinstance(layer, nn.modules.dropout._DropoutNd) else layer
    make = _LAYERS.get(node.target)
    if make is None or node_before(node) is None:
        return None
    options = {name: value for name, value in node.kwargs.items() if name != "input"}
    try:
        return make(*node.args[1:], **options)
    except (TypeError, ValueError):  # a use of the function that the layer cannot express
        return None


def _relu(inplace: bool = False) -> nn.Module:
    return nn.ReLU()


def _relu6(inplace: bool = False) -> nn.Module:
    return nn.ReLU6()


def _max_pool(*args, return_indices: bool = False, **options) -> nn.Module | None:
    return None if return_indices else nn.MaxPool2d(*args, **options)


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module | None:
    return None if training else nn.Identity()


def _add(other: fx.Node | float, /, *, alpha: float = 1) -> nn.Module | None:
    return Add() if isinstance(other, fx.Node) and alpha == 1 else None


def _mean(dim: int | tuple[int, ...] = (), keepdim: bool = False) -> nn.Module | None:
    dims = {dim} if isinstance(dim, int) else set(dim)
    return SpatialMean(keepdim) if dims in ({2, 3}, {-1, -2}, {2, -1}, {3, -2}) else None


_LAYERS: dict[Callable | str, Callable[..., nn.Module | None]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), _relu),
    F.relu6: _relu6,
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    F.dropout: _dropout,
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((torch.mean, "mean"), _mean),
}


def stored_weight(layer: nn.Module, name: str) -> nn.Parameter:
    """The parameter behind ``layer.weight``: the weight itself, or what its mask is laid over.

    Raises:
        ValueError: another parametrization, which would not follow a change of scale.
    """
    if not parametrize.is_parametrized(layer, "weight"):
        return layer.weight
    chain = layer.parametrizations["weight"]
    if any(type(step) is not Mask for step in chain):
        raise ValueError(f"layer '{name}' has a parametrized weight: bake or convert the network first")
    return chain.original
