"""Other right answers to exercises 11.10 and 11.11: they must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

from compresslab.course.chapter11.references_memory import peak_of_order as right_peak

Operations = Mapping[str, tuple[tuple[str, ...], int]]

# -- 11.10 -------------------------------------------------------------------------------------------

def by_counting_readers(operations: Operations, order: Sequence[str]) -> int:
    """As an engine does it: every tensor counts the readers that are still to come."""
    to_come = {name: sum(name in operations[other][0] for other in order) for name in order}
    live = peak = 0
    for name in order:
        live += operations[name][1]
        peak = max(peak, live)
        for source in set(operations[name][0]):
            to_come[source] -= 1
            live -= operations[source][1] * (to_come[source] == 0)
    return peak


def by_looking_ahead(operations: Operations, order: Sequence[str]) -> float:
    """At every step: what is made, and read now, later or never. Returns a float."""
    most = 0.0
    for step in range(len(order)):
        to_read = {source for name in order[step:] for source in operations[name][0]}
        ever_read = {source for name in order for source in operations[name][0]}
        live = {name for name in order[: step + 1] if name in to_read or name not in ever_read or name == order[step]}
        most = max(most, float(sum(operations[name][1] for name in live)))
    return most


# -- 11.11 -------------------------------------------------------------------------------------------

def by_trying_all(operations: Operations) -> list[str]:
    """Every order, one after the other, where there are few; else sets from the small to the large."""
    if len(operations) > 6:
        return by_levels(operations)
    allowed = (order for order in permutations(operations)
               if all(set(operations[name][0]) <= set(order[:i]) for i, name in enumerate(order)))
    return list(min(allowed, key=lambda order: right_peak(operations, order)))


def by_levels(operations: Operations) -> tuple[str, ...]:
    """Forward, with the best way to every set. Returns a tuple."""
    level: dict[frozenset, tuple[int, tuple[str, ...]]] = {frozenset(): (0, ())}
    for _ in operations:
        following: dict[frozenset, tuple[int, tuple[str, ...]]] = {}
        for done, (peak, way) in level.items():
            readers = {name: [o for o in operations if name in operations[o][0]] for name in done}
            waiting = sum(operations[n][1] for n in done if not readers[n] or not done.issuperset(readers[n]))
            for name, (sources, size) in operations.items():
                if name in done or not done.issuperset(sources):
                    continue
                after, now = done | {name}, max(peak, waiting + size)
                if after not in following or now < following[after][0]:
                    following[after] = (now, (*way, name))
        level = following
    return level[frozenset(operations)][1]
