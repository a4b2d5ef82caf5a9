"""How much memory a network needs while it runs, besides its weights: the peak of its activations.

An activation lives from the operation that makes it to the last one that reads it. The largest sum of what
lives at one moment is the least memory in which this order of operations can run:

    x -> conv1 -> relu -> conv2 -> + -> y        a chain holds an input and an output at a time;
    |______________________________|             a shortcut holds x for as long as the branch runs

A small file does not help here: weights and activations are different bytes, and with one image at a time a
device may have room for the first and not for the second.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from compresslab.core.macs import plain


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)


class Moment(NamedTuple):
    """One operation of the run, and the bytes of the activations that live while it runs."""

    operation: str
    live_bytes: int


class Step(NamedTuple):
    """One operation of the run: the tensors that it reads and those that it makes, by their number.

    Attributes:
        operation: name of the layer, or of the node in the graph.
        kind: class of the layer ("Conv2d"), or name of the function ("add", "flatten"); "input" for the input.
        reads: numbers of the tensors that it reads (weights are none), in the order of its arguments.
        makes: number -> how many numbers the new tensor holds; empty for views and in-place operations.
        returns: numbers of the tensors in which its result lies.
    """

    operation: str
    kind: str
    reads: tuple[int, ...]
    makes: dict[int, int]
    returns: tuple[int, ...]


def peak_activation_bytes(model: nn.Module, input_shape: Sequence[int], *, batch: int = 1) -> int:
    """The largest sum of live activations in a run, in bytes.

    Args, Raises: as `live_activations`.
    Example:
        >>> peak_activation_bytes(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), (4,))  # 4 and 8 floats
        48
    """
    return max(moment.live_bytes for moment in live_activations(model, input_shape, batch=batch))


def live_activations(model: nn.Module, input_shape: Sequence[int], *, batch: int = 1) -> list[Moment]:
    """What lives while each operation of a network runs.

        live(t) = sum of the bytes of the storages that operation t makes or that t or a later one reads

    The operations and their order are those of the network's graph (`torch.fx`), each layer of torch being
    one; the sizes come from a run on shapes alone, which computes nothing. Views and in-place operations
    share the storage of their input and add nothing; a part of a tensor keeps the whole tensor alive, as in
    torch. The input and the outputs count, parameters and buffers do not.

    Args:
        model: any network that `torch.fx` can trace; a masked or coded one counts as the dense network that
            it stands for. It runs in eval mode.
        input_shape: of one image, such as (3, 224, 224); float32.
        batch: images at once, >= 1.
    Returns:
        one `Moment` per operation, in order.
    Raises:
        ValueError: the network cannot be traced, or not be run on shapes alone; the message says why.
    Differs: what an operation allocates inside itself (the unrolled image of a convolution, the scores of an
        attention layer) is not counted, and nothing is fused: a ReLU that is not in place holds its input and
        its output.
    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
        >>> for moment in live_activations(model, (4,)):
        ...     print(moment.operation, moment.live_bytes)
        0 48
        1 32
        2 40
    """
    return _followed(_Liveness, model, input_shape, batch).moments


def activation_steps(model: nn.Module, input_shape: Sequence[int], *, batch: int = 1) -> list[Step]:
    """Which tensors each operation of a network reads and makes, in the order of its graph.

    Args, Raises: as `live_activations`.
    Returns:
        one `Step` per operation, the input first; the last one, of kind "output", reads the results.
    Example:
        >>> for step in activation_steps(nn.Sequential(nn.Linear(4, 8), nn.Flatten(), nn.Linear(8, 2)), (4,)):
        ...     print(step.operation, step.kind, step.reads, step.makes)
        input_1 input () {0: 4}
        0 Linear (0,) {1: 8}
        1 Flatten (1,) {}
        2 Linear (1,) {2: 2}
        output output (2,) {}
    """
    return _followed(_Steps, model, input_shape, batch).steps


def _followed(kind: type[_Run], model: nn.Module, input_shape: Sequence[int], batch: int) -> Any:
    """The interpreter of this kind, after its run on shapes alone."""
    network = _without_data(plain(model)).eval()
    try:
        run = kind(fx.symbolic_trace(network))
        with torch.no_grad():
            run.run(torch.empty(batch, *input_shape, device="meta"))
    except Exception as error:  # whatever the network's own code raises under tracing
        reason = str(error).split("\n")[0] or type(error).__name__
        name = type(model).__name__
        raise ValueError(f"{name} cannot be followed operation by operation: {reason}") from error
    return run


def _without_data(model: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes and no content; the weights are never copied."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo)


class _Run(fx.Interpreter):
    """Runs a graph operation by operation, on shapes alone."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        tensors = (*network.parameters(), *network.buffers())
        self.weights = {storage for storage, _ in _storages(list(tensors))}

    def call_module(self, target: str, args: tuple, kwargs: dict) -> Any:
        if isinstance(self.fetch_attr(target), NORMS):  # slow without data, and the shape stays
            return torch.empty_like(args[0])
        return super().call_module(target, args, kwargs)


class _Liveness(_Run):
    """Adds up the storages that are alive at each operation."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.moments: list[Moment] = []

    def run_node(self, node: fx.Node) -> Any:
        # What dies with this node is still in `env` here: fx drops it only after the node has run.
        result = super().run_node(node)
        if node.op not in ("placeholder", "get_attr", "output"):
            alive = dict(_storages([*self.env.values(), result]))
            live = sum(size for storage, size in alive.items() if storage not in self.weights)
            self.moments.append(Moment(str(node.target) if node.op == "call_module" else node.name, live))
        return result


class _Steps(_Run):
    """Notes which storages each operation reads and makes."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.steps: list[Step] = []
        self.numbers: dict[int, int] = {}
        self.kept: list[Any] = []  # a storage that is let go may come back as another one

    def run_node(self, node: fx.Node) -> Any:
        read = [self.env[each] for each in node.all_input_nodes]
        result = super().run_node(node)
        self.kept.append(result)
        if node.op == "get_attr":
            return result
        reads = tuple(dict.fromkeys(self.numbers[s] for s, _ in _storages(read) if s in self.numbers))
        makes: dict[int, int] = {}
        for tensor in pytree.tree_leaves(result):
            for storage, size in _storages(tensor):
                if storage not in self.numbers and storage not in self.weights:
                    self.numbers[storage] = len(self.numbers)
                    makes[self.numbers[storage]] = size // tensor.element_size()
        returns = tuple(dict.fromkeys(self.numbers[s] for s, _ in _storages(result) if s in self.numbers))
        name = str(node.target) if node.op == "call_module" else node.name
        self.steps.append(Step(name, self._kind(node), reads, makes, returns))
        return result

    def _kind(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(self.fetch_attr(str(node.target))).__name__
        if node.op in ("placeholder", "output"):
            return "input" if node.op == "placeholder" else "output"
        return node.target if isinstance(node.target, str) else node.target.__name__


def _storages(values: Any) -> Iterator[tuple[int, int]]:
    """The identity and the bytes of the storage of every tensor in nested lists, tuples and dictionaries."""
    for value in pytree.tree_leaves(values):
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            yield storage._cdata, storage.nbytes()
