"""Wrong answers to exercises 11.10 and 11.11, each of a kind of its own."""

from __future__ import annotations

from functools import cache

from compresslab.course.chapter11.references_memory import peak_of_order as right_peak

# -- 11.10 the peak of an order ----------------------------------------------------------------------

def _last(operations, order, end=None):
    last = dict.fromkeys(order, len(order) - 1 if end is None else end)
    for step, name in enumerate(order):
        for source in operations[name][0]:
            last[source] = step
    return last


def _lives(operations, order, alive):
    """For each step the bytes of what `alive(name, step)` says lives."""
    return [sum(operations[name][1] for name in order[: step + 1] if alive(name, step)) for step in range(len(order))]


def all_outputs(operations, order):
    return sum(operations[name][1] for name in order)


def largest_output(operations, order):
    return max(operations[name][1] for name in order)


def largest_two(operations, order):
    return sum(sorted(operations[name][1] for name in order)[-2:])


def only_those_at_work(operations, order):
    return max(operations[name][1] + sum(operations[source][1] for source in set(operations[name][0])) for name in order)


def inputs_gone(operations, order):
    last = _last(operations, order)
    return max(_lives(operations, order, lambda name, step: last[name] > step or name == order[step] or last[name] == len(order) - 1 and not _read(operations, name)))


def _read(operations, name):
    return any(name in sources for sources, _ in operations.values())


def output_not_counted(operations, order):
    last = _last(operations, order)
    return max(_lives(operations, order, lambda name, step: last[name] >= step and name != order[step]))


def first_reader(operations, order):
    last = {}
    for step, name in enumerate(order):
        for source in operations[name][0]:
            last.setdefault(source, step)
    return max(_lives(operations, order, lambda name, step: last.get(name, len(order)) >= step))


def outputs_dropped(operations, order):
    step_of = {name: step for step, name in enumerate(order)}
    last = {name: step_of[name] for name in order} | {
        source: max(step_of[reader] for reader in order if source in operations[reader][0])
        for source in order if _read(operations, source)
    }
    return max(_lives(operations, order, lambda name, step: last[name] >= step))


def a_step_late(operations, order):
    last = _last(operations, order)
    return max(_lives(operations, order, lambda name, step: last[name] >= step - 1))


def as_listed(operations, order):
    return right_peak(operations, list(operations))


def at_the_end(operations, order):
    last = _last(operations, order)
    return _lives(operations, order, lambda name, step: last[name] >= step)[-1]


def once_per_reader(operations, order):
    readers = {name: [other for other in order if name in operations[other][0]] for name in order}
    step_of = {name: step for step, name in enumerate(order)}
    return max(
        sum(operations[name][1] * (max(1, sum(step_of[r] >= step for r in readers[name])) if readers[name] else 1)
            for name in order[: step + 1] if not readers[name] or any(step_of[r] >= step for r in readers[name]))
        for step in range(len(order)))


def image_stays(operations, order):
    last = _last(operations, order)
    return max(_lives(operations, order, lambda name, step: last[name] >= step or not operations[name][0]))


def sum_over_steps(operations, order):
    last = _last(operations, order)
    return sum(_lives(operations, order, lambda name, step: last[name] >= step))


def which_step(operations, order):
    last = _last(operations, order)
    lives = _lives(operations, order, lambda name, step: last[name] >= step)
    return lives.index(max(lives))


# -- 11.11 the best order ----------------------------------------------------------------------------

def _readers(operations):
    return {name: {other for other in operations if name in operations[other][0]} for name in operations}


def _greedy(operations, key):
    """One operation after the other, always the ready one with the smallest key(name, done)."""
    order = []
    while len(order) < len(operations):
        ready = [name for name in operations if name not in order and set(operations[name][0]) <= set(order)]
        order.append(min(ready, key=lambda name: key(name, order)))
    return order


def _waiting(operations, done):
    readers = _readers(operations)
    return sum(operations[name][1] for name in done if not readers[name] or readers[name] - set(done))


def _search(operations, cost, join=max, choose=min):
    """The reference with another cost of running `name` when `done` has run, or another way to add them up."""
    readers = _readers(operations)

    def waiting(done):
        return sum(operations[name][1] for name in done if not readers[name] or readers[name] - done)

    @cache
    def finish(done):
        ways = []
        for name in operations:
            if name not in done and done.issuperset(operations[name][0]):
                peak, rest = finish(done | {name})
                ways.append((join(peak, cost(name, done, waiting)), [name, *rest]))
        return choose(ways, default=(0, []))

    return finish(frozenset())[1]


def given_order(operations):
    return list(operations)


def turned_round(operations):
    return list(operations)[::-1]


def by_size(operations):
    return sorted(operations, key=lambda name: operations[name][1])


def smallest_output(operations):
    return _greedy(operations, lambda name, done: operations[name][1])


def largest_output_first(operations):
    return _greedy(operations, lambda name, done: -operations[name][1])


def least_after(operations):
    return _greedy(operations, lambda name, done: _waiting(operations, [*done, name]))


def depth_first(operations):
    def age(name, done):
        return -max((done.index(source) for source in operations[name][0]), default=-1)
    return _greedy(operations, age)


def breadth_first(operations):
    @cache
    def depth(name):
        return 1 + max(map(depth, operations[name][0]), default=-1)
    return sorted(operations, key=depth)


def without_inputs(operations):
    return _search(operations, lambda name, done, waiting: waiting(done | {name}))


def without_output(operations):
    return _search(operations, lambda name, done, waiting: waiting(done))


def at_work_only(operations):
    return _search(operations, lambda name, done, waiting: operations[name][1] + sum(operations[source][1] for source in operations[name][0]),
                   join=lambda peak, now: peak + now)


def least_sum(operations):
    return _search(operations, lambda name, done, waiting: waiting(done) + operations[name][1], join=lambda peak, now: peak + now)


def outputs_forgotten(operations):
    readers = _readers(operations)
    return _search(operations, lambda name, done, waiting: operations[name][1] + sum(operations[n][1] for n in done if readers[n] - done))


def largest_peak(operations):
    return _search(operations, lambda name, done, waiting: waiting(done) + operations[name][1], choose=max)


def the_peak(operations):
    return right_peak(operations, _search(operations, lambda name, done, waiting: waiting(done) + operations[name][1]))


def outputs_left_out(operations):
    order = _search(operations, lambda name, done, waiting: waiting(done) + operations[name][1])
    return [name for name in order if _readers(operations)[name]]


def without_the_image(operations):
    order = _search(operations, lambda name, done, waiting: waiting(done) + operations[name][1])
    return [name for name in order if operations[name][0]]
