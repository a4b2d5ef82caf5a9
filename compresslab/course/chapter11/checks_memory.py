"""What a right answer to exercises 11.10 and 11.11 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compresslab.course.trial import Trial, Wrong
from compresslab.deploy.schedule import Operation
from compresslab.deploy.schedule import best_order as search
from compresslab.deploy.schedule import live_bytes

Operations = dict[str, tuple[tuple[str, ...], int]]

CHAIN: Operations = {"x": ((), 4), "a": (("x",), 10), "b": (("a",), 2)}
SHORTCUT: Operations = {"x": ((), 3), "a": (("x",), 8), "b": (("a",), 5), "y": (("b", "x"), 2)}
TWO_OUTPUTS: Operations = {"x": ((), 2), "a": (("x",), 7), "b": (("x",), 1), "c": (("b",), 3)}
LATE_READER: Operations = {"x": ((), 6), "a": (("x",), 9), "b": (("a",), 1), "c": (("b",), 1), "d": (("c", "x"), 4), "e": (("d",), 1)}
BRANCHES: Operations = {"x": ((), 2), "a": (("x",), 20), "b": (("x",), 16), "p": (("a",), 3), "q": (("b",), 2), "y": (("p", "q"), 5)}
TWICE: Operations = {"x": ((), 5), "a": (("x", "x"), 4), "y": (("a",), 9)}

# Branches in which doing first what is small, deep, or frees most, is a mistake.
TRAPS: tuple[Operations, ...] = (
    {"x": ((), 2), "a": (("x",), 3), "b": (("x",), 4), "aa": (("a",), 30), "bb": (("b",), 20), "pa": (("aa",), 1), "pb": (("bb",), 9), "y": (("pa", "pb"), 1)},
    {"x": ((), 1), "a": (("x",), 6), "b": (("x",), 5), "pa": (("a",), 5), "pb": (("b",), 1), "y": (("pa", "pb"), 2)},
    {"x": ((), 10), "a": (("x",), 2), "b": (("x",), 9), "c": (("a",), 25), "d": (("c",), 1), "e": (("b",), 12), "f": (("e",), 1), "y": (("d", "f"), 3)},
    {"x": ((), 4), "out": (("x",), 9), "a": (("x",), 12), "b": (("a",), 2), "y": (("b",), 1)},
    {"x": ((), 5), "a1": (("x",), 8), "b1": (("x",), 8), "b2": (("b1",), 16), "y": (("a1", "b2"), 4)},
    {"x": ((), 6), "a1": (("x",), 11), "b1": (("x",), 17), "b2": (("b1",), 7), "c1": (("x",), 10), "c2": (("c1",), 19), "y": (("a1", "b2", "c2"), 4)},
)


def as_operations(operations: Mapping[str, tuple[tuple[str, ...], int]]) -> list[Operation]:
    """As the library writes them."""
    return [Operation(name, sources, size) for name, (sources, size) in operations.items()]


def drawn(t: Trial, length: int) -> Operations:
    """A graph in which everybody reads one or two earlier ones, mostly late ones."""
    operations: Operations = {"x": ((), t.integer(1, 9))}
    for number in range(length):
        names = list(operations)
        sources = {names[t.integer(max(0, len(names) - 4), len(names) - 1)] for _ in range(t.integer(1, 2))}
        operations[f"o{number}"] = (tuple(sorted(sources)), t.integer(1, 30))
    return operations


def an_order(t: Trial, operations: Operations) -> list[str]:
    """Some order in which the operations can run."""
    order: list[str] = []
    while len(order) < len(operations):
        ready = [name for name in operations if name not in order and set(operations[name][0]) <= set(order)]
        order.append(ready[t.integer(0, len(ready) - 1)])
    return order


def verify_peak_of_order(t: Trial) -> str:
    cases = [(CHAIN, list(CHAIN)), (TWO_OUTPUTS, list(TWO_OUTPUTS)), (SHORTCUT, list(SHORTCUT)), (TWICE, list(TWICE)),
             (TWO_OUTPUTS, ["x", "b", "c", "a"]), (BRANCHES, list(BRANCHES)), (BRANCHES, ["x", "a", "p", "b", "q", "y"]), (LATE_READER, list(LATE_READER))]
    for length in (4, 6, 8, 8, 10, 12):
        operations = drawn(t, length)
        cases += [(operations, an_order(t, operations)), (operations, an_order(t, operations))]
    for operations, order in cases:
        lives = live_bytes(as_operations(operations), order)
        got, step = t.number(t.call(operations, order)), lives.index(max(lives))
        t.expect(got == max(lives), f"the peak is {max(lives)} bytes, while {order[step]!r} runs (step {step}); you return {got:g}")
    return f"{len(cases)} orders of chains, shortcuts, branches and graphs with several outputs"


def verify_best_order(t: Trial) -> str:
    cases: list[Operations] = [CHAIN, BRANCHES, SHORTCUT, *TRAPS, *(drawn(t, length) for length in (5, 6, 7, 7, 8, 8, 9, 9))]
    for operations in cases:
        order = _as_order(t.call(operations))
        graph = as_operations(operations)
        try:
            needs = max(live_bytes(graph, order))
        except ValueError as error:
            raise Wrong(f"this is no order of these operations: {error}") from None
        enough = max(live_bytes(graph, search(graph)))
        t.expect(needs <= enough, f"your order {' '.join(order)} needs {needs} bytes at its peak, {enough} are enough")
    return f"the smallest peak for {len(cases)} graphs, among them some in which the nearest choice misleads"


def _as_order(answer: Any) -> Sequence[str]:
    if isinstance(answer, str) or not isinstance(answer, Sequence) or not all(isinstance(name, str) for name in answer):
        raise Wrong("return the names of the operations, in order, in a list")
    return list(answer)
