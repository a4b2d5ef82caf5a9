"""Trace a network with ``torch.fx`` and run its graph on channel identities.

The network is traced in train mode: auxiliary heads, which only train, are seen too. It is traced on a
skeleton, a copy without any data, so that neither mode nor weights nor counters of the original change.
"""

import copy
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.nn.modules.batchnorm import _NormBase

from compresslab.core.macs import TRANSPOSED

from .channel_ids import Identities, Ids, ids_in
from .channel_rules import MOVES, NEEDS_ALL, RULES

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
NORMS = (_NormBase, nn.GroupNorm, nn.PReLU)  # _NormBase: all batch and instance norms
MIXING = (nn.LayerNorm, nn.LocalResponseNorm, nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax)
MIXING_FAMILIES = ("rnn", "transformer")  # torch.nn.modules.<family>
SAME_FAMILIES = ("activation", "dropout")
PER_POSITION_FAMILIES = ("pooling", "padding", "upsampling")


class ChannelInterpreter(fx.Interpreter):
    """Runs a traced network on channel identities and writes down what it sees.

    Every node must carry the value it has in an ordinary run as ``node.meta["value"]``; only shapes are read.

    Args:
        module: the traced network.
        graph: its graph.
        keep: names of modules and functions of an unknown kind, which are left whole.

    Attributes:
        ids: the identities, with what is coupled and what is frozen.
        producers: layer -> identities of its output channels, shape (O,).
        consumers: layer -> identities of its input columns, shape (I,).
        norms: layer with parameters per channel -> identities, shape (C,).
    """

    def __init__(self, module: nn.Module, graph: fx.Graph, keep: Collection[str] = ()):
        super().__init__(module, graph=graph)
        self.extra_traceback = False  # our errors say where
        self.keep = frozenset(keep)
        self.ids = Identities()
        self.producers: dict[str, Ids] = {}
        self.consumers: dict[str, Ids] = {}
        self.norms: dict[str, Ids] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.node, self.value, self.where = n, n.meta["value"], n.name
        return super().run_node(n)

    def placeholder(self, target: str, args: tuple, kwargs: dict) -> Any:
        if not isinstance(self.value, Tensor):
            return self.value
        return self.ids.constant(self.value.shape, "input of the network")

    def output(self, target: str, args: tuple, kwargs: dict) -> Any:
        for x in ids_in(args):
            self.ids.freeze(x, "output of the network")
        return args[0]

    def call_function(self, target: Callable, args: tuple, kwargs: dict) -> Any:
        name = function_name(target)
        if isinstance(target, type) and issubclass(target, tuple):  # a named tuple of outputs
            return target(*args, **kwargs)
        return self._call(name, super().call_function, target, args, kwargs)

    def call_method(self, target: str, args: tuple, kwargs: dict) -> Any:
        return self._call(function_name(target), super().call_method, target, args, kwargs)

    def _call(self, name: str, run: Callable, target: Any, args: tuple, kwargs: dict) -> Any:
        if not ids_in((args, kwargs)) or name in MOVES:
            return run(target, args, kwargs)
        if name in NEEDS_ALL or name in self.keep:
            return self.leave_whole((args, kwargs), f"'{name}' needs all channels")
        first = [kwargs[key] for key in ("input",) if key in kwargs]  # torch's two names for operands
        last = [kwargs[key] for key in ("other",) if key in kwargs]
        kwargs = {key: value for key, value in kwargs.items() if key not in ("input", "other")}
        try:
            return RULES[name](self, *first, *args, *last, **kwargs)
        except (
            KeyError,
            TypeError,
            IndexError,
        ) as error:  # no rule, or a call that the rule does not foresee
            raise ValueError(_unknown(f"the function '{name}' at node '{self.where}'", name)) from error

    def call_module(self, target: str, args: tuple, kwargs: dict) -> Any:
        layer = self.fetch_attr(target)
        family = home(layer).rpartition(".")[2]
        if not ids_in((args, kwargs)) or isinstance(layer, nn.Flatten):
            return super().call_module(target, args, kwargs)
        if isinstance(layer, WEIGHTED) and home(layer).startswith("torch."):
            return self._weighted(target, layer, *args, **kwargs)
        if isinstance(layer, NORMS) and getattr(layer, "num_parameters", None) != 1:
            return self._norm(target, layer, *args, **kwargs)
        if isinstance(layer, MIXING) or family in MIXING_FAMILIES or target in self.keep:
            return self.leave_whole((args, kwargs), f"'{target}' ({type(layer).__name__}) needs all channels")
        if isinstance(layer, nn.GLU):
            return RULES["glu"](self, *args, layer.dim)
        if isinstance(layer, nn.Identity) or family in SAME_FAMILIES:
            return ids_in((args, kwargs))[0]
        if family in PER_POSITION_FAMILIES:
            return RULES["interpolate"](self, *args, **kwargs)
        if isinstance(layer, nn.Unflatten):
            return RULES["unflatten"](self, *args, layer.dim, layer.unflattened_size)
        raise ValueError(_unknown(f"the layer '{target}' of type {type(layer).__name__}", target))

    def _weighted(self, name: str, layer: nn.Module, x: Ids) -> Ids:
        """Read the input columns, issue new identities. A second call of a shared layer: the same both."""
        linear = isinstance(layer, nn.Linear)
        axis = -1 if linear else 1
        columns = self.ids.channels(x, axis)
        self.ids.couple(columns, self.consumers.setdefault(name, columns))
        if name not in self.producers:
            self.producers[name] = self.ids.new(layer.out_features if linear else layer.out_channels)
        rows = self.producers[name]
        if not linear and layer.groups > 1:  # a group goes as a whole, with its inputs and its outputs
            self.ids.couple(columns.view(layer.groups, -1), rows.view(layer.groups, -1)[:, :1])
            self.ids.couple(rows.view(layer.groups, -1), rows.view(layer.groups, -1)[:, :1])
        return self.spread(rows, axis)

    def _norm(self, name: str, layer: nn.Module, x: Ids) -> Ids:
        channels = self.ids.channels(x, 1)
        self.ids.couple(channels, self.norms.setdefault(name, channels))
        if isinstance(layer, nn.GroupNorm):
            groups = channels.view(layer.num_groups, -1)
            self.ids.couple(groups, groups[:, :1])
        return x

    def spread(self, channels: Ids, axis: int) -> Ids:
        """Fill the shape of this node's value with one identity per index along ``axis``."""
        shape = [1] * self.value.dim()
        shape[axis] = -1
        return channels.reshape(shape).expand(self.value.shape)

    def leave_whole(self, inputs: Any, reason: str) -> Any:
        """Freeze all inputs; what comes out has channels that are nobody's to remove."""
        for x in ids_in(inputs):
            self.ids.freeze(x, reason)
        return map_aggregate(
            self.value,
            lambda value: self.ids.constant(value.shape, reason) if isinstance(value, Tensor) else value,
        )


def run_on_identities(
    model: nn.Module, example_input: Tensor | tuple, keep: Collection[str] = ()
) -> ChannelInterpreter:
    """Trace ``model`` and run it on channel identities.

    Args:
        model: any network that ``torch.fx`` can trace; not changed.
        example_input: an input (N, ...) or a tuple of inputs; one item of the batch is used, and only
            its shape.
        keep: names of modules not to look into, and of functions of an unknown kind.

    Raises:
        ValueError: the network cannot be traced, does not accept the input, or contains something that
            no rule covers.
    """
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    skeleton = _skeleton(model).train()
    inputs = tuple(_shape_only(x, skeleton) if isinstance(x, Tensor) else x for x in inputs)
    graph = _trace(skeleton, keep)
    skeleton.eval()  # one item is too few for batch norm in train mode; the graph is fixed by now
    try:
        _record_values(skeleton, graph, inputs)
    except Exception:  # a module named in keep may need values, not only shapes
        _record_on_data(model, graph, example_input)
    interpreter = ChannelInterpreter(skeleton, graph, keep)
    interpreter.run(*inputs)
    return interpreter


def _shape_only(x: Tensor, skeleton: nn.Module) -> Tensor:
    """One item of a batch without its data, in the network's number format if it is a float."""
    dtype = next((p.dtype for p in skeleton.parameters() if p.is_floating_point()), x.dtype)
    return x[:1].to("meta", dtype if x.is_floating_point() else x.dtype)


def _skeleton(model: nn.Module) -> nn.Module:
    """Deep copy of all but the data: parameters and buffers are on the meta device, with shapes only."""
    on_meta: dict[int, Tensor] = {id(b): b.to("meta") for b in model.buffers()}
    on_meta |= {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, on_meta)


class _Tracer(fx.Tracer):
    """Does not look into PyTorch's layers and what is in ``keep``; remembers in which module it failed."""

    def __init__(self, keep: Collection[str]):
        super().__init__()
        self.keep, self.failed_in = keep, None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = home(m).startswith("torch.nn.") and not isinstance(m, nn.Sequential)
        return module_qualified_name in self.keep or known

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed_in = self.failed_in or self.path_of_module(m)
            raise


def _trace(skeleton: nn.Module, keep: Collection[str]) -> fx.Graph:
    tracer = _Tracer(keep)
    try:
        return tracer.trace(skeleton)
    except Exception as error:
        where = f"'{tracer.failed_in}'" if tracer.failed_in else "its own forward"
        cure = f"pass keep=({tracer.failed_in!r},) to leave that module whole"
        if not tracer.failed_in:
            cure = "move what depends on values into a module of its own and name that in keep"
        network, reason = type(skeleton).__name__, _first_line(error)
        raise ValueError(f"{network} cannot be traced in {where}: {reason}; {cure}") from error


@torch.no_grad()
def _record_values(module: nn.Module, graph: fx.Graph, inputs: tuple) -> None:
    """Run the graph and leave with each node its value, tensors without their data."""
    _ValueRecorder(module, graph=graph).run(*inputs)


def _record_on_data(model: nn.Module, graph: fx.Graph, example_input: Tensor | tuple) -> None:
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    try:
        first = tuple(x[:1] if isinstance(x, Tensor) else x for x in inputs)
        _record_values(copy.deepcopy(model).eval(), graph, first)
    except Exception as error:
        network, shapes = type(model).__name__, [tuple(x.shape) for x in inputs if isinstance(x, Tensor)]
        what = f"{network}, auxiliary heads included, does not run on an example of shape"
        raise ValueError(f"{what} {', '.join(map(str, shapes))}: {_first_line(error)}") from error


class _ValueRecorder(fx.Interpreter):
    def __init__(self, module: nn.Module, graph: fx.Graph):
        super().__init__(module, graph=graph)
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        n.meta["value"] = map_aggregate(value, lambda v: v.to("meta") if isinstance(v, Tensor) else v)
        return value

    def call_module(self, target: str, args: tuple, kwargs: dict) -> Any:
        layer = self.fetch_attr(target)
        same = home(layer).removeprefix("torch.nn.modules.") in SAME_FAMILIES and not isinstance(layer, (*MIXING, nn.GLU))
        if args and (same or isinstance(layer, NORMS)):  # changes no shape, and is slow on the meta device
            return args[0]
        return super().call_module(target, args, kwargs)


def home(layer: nn.Module) -> str:
    """The module that defines the layer's forward: a subclass without a forward of its own is its parent."""
    return type(layer).forward.__module__


def function_name(target: Any) -> str:
    """What a function or method is called, without the underscores of in-place forms."""
    return getattr(target, "__name__", str(target)).strip("_")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unknown(what: str, name: str) -> str:
    cure = f"pass keep=({name!r},) to leave its inputs and outputs whole"
    return f"no rule says how channels pass through {what}; {cure}"
