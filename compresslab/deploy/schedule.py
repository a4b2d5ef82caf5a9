"""In which order to run a network's operations, and where in memory to put what they make.

The weights of a network are read where they lie, in flash. What needs RAM are the activations: an output is
made, waits until its last reader has run, and is gone. How much waits at once depends on the order:

    operation      reads       while it runs, memory holds
    image          -           image
    wide           image       image, wide
    small          wide        wide, small                a chain has no choice of order;
    other          image       image, small, other        branches have, and the largest of these sums,
    add            small,other small, other, add          the peak, must fit the RAM

`best_order` finds the order with the smallest peak, `plan_arena` gives every tensor its address in one block
of memory, the arena, as engines for microcontrollers do it.

A graph here is a sequence of `Operation`. The input is an operation that reads nothing; what nobody reads is
an output and stays.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from compresslab.core.errors import check_int

STATES = 200_000  # sets of finished operations that `best_order` looks at, at most
ABSORBED = frozenset(
    "batchnorm1d batchnorm2d batchnorm3d relu relu_ relu6 leakyrelu leaky_relu hardtanh hardswish hardsigmoid sigmoid "
    "tanh silu gelu dropout dropout2d identity flatten".split()
)  # what an engine computes along with the operation before it


class Operation(NamedTuple):
    """One operation: what it is called, whose outputs it reads, and how large its own output is.

    Args:
        name: of the operation and of its output.
        inputs: names of the operations that it reads; each at most counts once.
        output_bytes: of what it makes, >= 0.
        in_place: it may write its output over its first input, where that is as large and nobody reads it later:
            an addition, an activation function.
    """

    name: str
    inputs: tuple[str, ...]
    output_bytes: int
    in_place: bool = False


class Lifetime(NamedTuple):
    """One tensor in memory: its bytes, and the first and the last step (counted from 0) at which it is there."""

    name: str
    size: int
    first: int
    last: int


class Arena(NamedTuple):
    """Where every tensor begins, in bytes from the start of the arena, and how long the arena is."""

    offsets: dict[str, int]
    size: int


def live_bytes(graph: Sequence[Operation], order: Sequence[str] | None = None) -> list[int]:
    """What memory holds while each operation of an order runs, in bytes.

        live(t) = sum of the outputs of steps 0 ... t that step t or a later one reads or that nobody reads

    The inputs of an operation and its output are there together, unless it works in place.

    Args:
        graph: the operations.
        order: their names, each once, every one behind those that it reads; None: as the graph lists them.
    Returns:
        one number per step of the order.
    Raises:
        ValueError: a name appears twice in the graph or is unknown, a size is negative, or the order leaves out
            an operation, runs one twice, or runs one before its inputs are there.
    Example:
        >>> graph = [Operation("x", (), 4), Operation("a", ("x",), 10), Operation("b", ("a",), 2)]
        >>> live_bytes(graph)  # x; x and a; a and b
        [4, 14, 12]
    """
    spans = lifetimes(graph, order)
    return [sum(s.size for s in spans if s.first <= step <= s.last) for step in range(len(graph))]


def peak_bytes(graph: Sequence[Operation], order: Sequence[str] | None = None) -> int:
    """The largest of `live_bytes`: no engine runs this order in less. 0 for an empty graph.

    Args, Raises: as `live_bytes`.
    """
    return max(live_bytes(graph, order), default=0)


def lifetimes(graph: Sequence[Operation], order: Sequence[str] | None = None) -> list[Lifetime]:
    """When each tensor is in memory, by the step at which it is made.

    An operation that works in place has no tensor of its own: it lengthens the life of the one it overwrites.

    Args, Raises: as `live_bytes`.
    Example:
        >>> graph = [Operation("x", (), 4), Operation("relu", ("x",), 4, in_place=True)]
        >>> lifetimes(graph)
        [Lifetime(name='x', size=4, first=0, last=1)]
    """
    operations = _checked(graph)
    order = list(operations) if order is None else list(order)
    _check_order(operations, order)
    step = {name: i for i, name in enumerate(order)}
    last = {name: len(order) - 1 for name in order}  # an output stays to the end
    for name, readers in _readers(operations).items():
        if readers:
            last[name] = max(step[reader] for reader in readers)
    spans: dict[str, Lifetime] = {}
    home: dict[str, str] = {}  # the tensor in whose place an output lies
    for name in order:
        operation = operations[name]
        over = home[operation.inputs[0]] if operation.in_place and operation.inputs else None
        if over is not None and spans[over].last == step[name] and operation.output_bytes == spans[over].size:
            home[name], spans[over] = over, spans[over]._replace(last=last[name])
        else:
            home[name] = name
            spans[name] = Lifetime(name, operation.output_bytes, step[name], last[name])
    return list(spans.values())


def best_order(graph: Sequence[Operation], *, width: int | None = None) -> list[str]:
    """The order of the operations with the smallest peak of live bytes.

        peak(S) = min over the operation o that S finishes with of max(peak(S - o), live while o runs)

    Which tensors wait depends only on the set S of finished operations, not on how it was reached; so the best
    way to every set is enough, and a chain of n operations has n sets, not n! orders.

    Args:
        graph: the operations, listed so that each stands behind those that it reads.
        width: keep only so many sets of every size, those with the smallest peaks, >= 1; fast, and the order
            may then not be the best one. None: all of them, exact.
    Returns:
        the names, in order. Among equal peaks the one closest to the graph's own listing is not guaranteed.
    Raises:
        ValueError: the graph is not one (see `live_bytes`), or has too many sets for an exact answer.
    Source: Lin, Chen, Lin, Gan, Han, MCUNet: tiny deep learning on IoT devices, 2020, on why the peak matters;
        Ahn et al., Ordering chaos: memory-aware scheduling of irregularly wired neural networks, 2020, the
        dynamic program over sets.
    Example:
        >>> graph = [Operation("x", (), 1), Operation("a", ("x",), 9), Operation("b", ("x",), 9),
        ...          Operation("p", ("a",), 1), Operation("q", ("b",), 1), Operation("y", ("p", "q"), 1)]
        >>> peak_bytes(graph), peak_bytes(graph, best_order(graph))  # both wide ones, or one after the other
        (19, 11)
    """
    operations = _checked(graph)
    if width is not None:
        check_int("width", width, 1)
    names = list(operations)
    search = _Search(operations)
    level = {0: (0, 0, ())}  # the set as bits: its peak, the bytes that wait now, the way there
    seen = 0
    for _ in names:
        following: dict[int, tuple[int, int, tuple]] = {}
        for done, (peak, _, way) in level.items():
            for place in search.ready(done):
                now = max(peak, search.while_running(done, place))
                after = done | 1 << place
                if after not in following or now < following[after][0]:
                    following[after] = (now, search.waiting(after), (place, way))
        seen += len(following)
        if width is None and seen > STATES:
            raise ValueError(
                f"the graph's {len(names)} operations can be finished in more than {STATES:,} sets; "
                "an exact search is limited to so many: give a width"
            )
        if width is not None:
            kept = sorted(following.items(), key=lambda item: item[1][:2])[:width]
            following = dict(kept)
        level = following
    (_, _, way), order = next(iter(level.values())), []
    while way:
        place, way = way
        order.append(names[place])
    return order[::-1]


def plan_arena(spans: Iterable[Lifetime]) -> Arena:
    """An address for every tensor: two that live at the same time never overlap.

    The largest tensor first, each at the lowest address at which it fits between those that are placed and
    live at the same time. The arena is never shorter than the peak of live bytes, and may be longer.

    Args:
        spans: as `lifetimes` gives them.
    Raises:
        ValueError: two tensors of one name, a negative size, or a life that ends before it begins.
    Source: Pisarchyk, Lee, Efficient memory management for deep neural net inference, 2020, greedy by size; the
        planner of TensorFlow Lite Micro works in this way.
    Differs: no alignment of the addresses.
    Example:
        >>> plan_arena([Lifetime("x", 4, 0, 1), Lifetime("a", 10, 1, 2), Lifetime("b", 2, 2, 2)])
        Arena(offsets={'a': 0, 'x': 10, 'b': 10}, size=14)
    """
    spans = list(spans)
    if len({span.name for span in spans}) < len(spans):
        raise ValueError("two tensors have the same name")
    for span in spans:
        if span.size < 0 or span.last < span.first:
            raise ValueError(f"{span.name!r} has {span.size} bytes from step {span.first} to step {span.last}")
    placed: list[tuple[int, Lifetime]] = []
    for span in sorted(spans, key=lambda s: (-s.size, s.first)):
        beside = [(o, s) for o, s in placed if s.first <= span.last and span.first <= s.last]
        offset = 0
        for start, other in sorted(beside, key=lambda pair: pair[0]):
            if offset + span.size <= start:
                break
            offset = max(offset, start + other.size)
        placed.append((offset, span))
    return Arena({s.name: o for o, s in placed}, max((o + s.size for o, s in placed), default=0))


def graph_of(model: nn.Module, input_shape: Sequence[int], *, bits: int = 8, batch: int = 1) -> list[Operation]:
    """The operations of a network as an engine for integers runs them, with the sizes of their outputs.

    Batch norm, ReLU and the other functions of one number belong to the operation before them, where nobody
    else reads its output: they need no memory of their own. Reshaping costs nothing.

    Args:
        model: any network that `torch.fx` can trace; masked and coded ones count as what they stand for.
        input_shape: of one image, such as (3, 32, 32).
        bits: per activation, 1 to 32.
        batch: images at once, >= 1.
    Returns:
        the operations in the order of the network's own code; the first is the input.
    Raises:
        ValueError: ``bits`` or ``batch`` is out of range, or the network cannot be traced.
    Example:
        >>> graph_of(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)), (1, 2, 2))
        ... # doctest: +NORMALIZE_WHITESPACE
        [Operation(name='input', inputs=(), output_bytes=4, in_place=False),
         Operation(name='0', inputs=('input',), output_bytes=16, in_place=False),
         Operation(name='3', inputs=('0',), output_bytes=2, in_place=False)]
    """
    from compresslab.compare.memory import activation_steps

    bits = check_int("bits", bits, 1, 32)
    steps = activation_steps(model, input_shape, batch=check_int("batch", batch, 1))
    readers = Counter(tensor for step in steps for tensor in step.reads)
    lies_in: dict[int, str] = {}  # tensor -> the operation whose output it is
    found: dict[str, Operation] = {}
    for step in steps:
        alone = len(step.reads) == 1 and readers[step.reads[0]] == 1
        if step.kind.lower() in ABSORBED and alone:
            lies_in.update(dict.fromkeys(step.makes, lies_in[step.reads[0]]))
        elif step.makes:
            name = "input" if step.kind == "input" else step.operation
            lies_in.update(dict.fromkeys(step.makes, name))
            inputs = tuple(dict.fromkeys(lies_in[tensor] for tensor in step.reads))
            found[name] = Operation(name, inputs, math.ceil(sum(step.makes.values()) * bits / 8))
    return list(found.values())


class _Search:
    """What `best_order` asks about sets of finished operations; a set is the bits of a number."""

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        self.operations = list(operations.values())
        place = {name: i for i, name in enumerate(operations)}
        self.needs = [sum(1 << place[name] for name in set(op.inputs)) for op in self.operations]
        self.first = [place[op.inputs[0]] if op.inputs else -1 for op in self.operations]
        readers = _readers(operations)
        self.readers = [sum(1 << place[r] for r in readers[name]) for name in operations]
        self.known: dict[int, int] = {}

    def ready(self, done: int) -> list[int]:
        """The operations that are not done and whose inputs are."""
        return [i for i, needs in enumerate(self.needs) if not done >> i & 1 and needs & done == needs]

    def waiting(self, done: int) -> int:
        """The bytes of the outputs of a set that somebody outside it reads, or nobody at all."""
        if done not in self.known:
            self.known[done] = sum(
                op.output_bytes
                for i, op in enumerate(self.operations)
                if done >> i & 1 and (not self.readers[i] or self.readers[i] & ~done)
            )
        return self.known[done]

    def while_running(self, done: int, place: int) -> int:
        """The bytes in memory while an operation runs behind a set: what waits, and its output."""
        operation, first = self.operations[place], self.first[place]
        live = self.waiting(done) + operation.output_bytes
        last_reader = first >= 0 and not self.readers[first] & ~(done | 1 << place)
        if operation.in_place and last_reader and operation.output_bytes == self.operations[first].output_bytes:
            live -= operation.output_bytes
        return live


def _checked(graph: Sequence[Operation]) -> dict[str, Operation]:
    """The operations by name, each behind those that it reads."""
    found: dict[str, Operation] = {}
    for operation in graph:
        if operation.name in found:
            raise ValueError(f"two operations are called {operation.name!r}")
        if operation.output_bytes < 0:
            raise ValueError(f"{operation.name!r} has an output of {operation.output_bytes} bytes")
        if missing := [name for name in operation.inputs if name not in found]:
            raise ValueError(f"{operation.name!r} reads {missing[0]!r}, which the graph does not list before it")
        found[operation.name] = operation
    return found


def _check_order(operations: Mapping[str, Operation], order: Sequence[str]) -> None:
    """Every operation once, behind those that it reads."""
    done: set[str] = set()
    for name in order:
        if name not in operations:
            raise ValueError(f"the order runs {name!r}; the graph has {', '.join(operations)}")
        if name in done:
            raise ValueError(f"the order runs {name!r} twice")
        if missing := [source for source in operations[name].inputs if source not in done]:
            raise ValueError(f"the order runs {name!r} before {missing[0]!r}, which it reads")
        done.add(name)
    if left := [name for name in operations if name not in done]:
        raise ValueError(f"the order leaves out {left[0]!r}")


def _readers(operations: Mapping[str, Operation]) -> dict[str, list[str]]:
    """Who reads each output."""
    readers: dict[str, list[str]] = {name: [] for name in operations}
    for operation in operations.values():
        for name in operation.inputs:
            readers[name].append(operation.name)
    return readers
