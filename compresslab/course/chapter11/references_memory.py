"""Reference answers to exercises 11.10 and 11.11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache


def peak_of_order(operations: Mapping[str, tuple[tuple[str, ...], int]], order: Sequence[str]) -> int:
    """The most bytes that live at once while `operations` run in `order`."""
    last = dict.fromkeys(order, len(order) - 1)  # what nobody reads is an output, and stays
    for step, name in enumerate(order):
        for source in operations[name][0]:
            last[source] = step  # a later reader overwrites an earlier one
    peak = 0
    for step in range(len(order)):
        live = [name for name in order[: step + 1] if last[name] >= step]
        peak = max(peak, sum(operations[name][1] for name in live))
    return peak


def best_order(operations: Mapping[str, tuple[tuple[str, ...], int]]) -> list[str]:
    """An order of all `operations`, each behind what it reads, with the smallest peak of live bytes."""
    readers = {name: {other for other in operations if name in operations[other][0]} for name in operations}

    @cache
    def finish(done):
        """The smallest peak of what is left to run when the set `done` has run, and its order."""
        waiting = sum(operations[name][1] for name in done if not readers[name] or readers[name] - done)
        ways = []
        for name in operations:
            if name not in done and done.issuperset(operations[name][0]):
                peak, rest = finish(done | {name})
                ways.append((max(peak, waiting + operations[name][1]), [name, *rest]))
        return min(ways, default=(0, []))

    return finish(frozenset())[1]
