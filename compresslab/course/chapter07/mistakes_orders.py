"""Typical wrong answers to exercises 7.10 and 7.11: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_joint`.
"""

from __future__ import annotations

import math

import torch

from compresslab.core.statistics import mean_interval


# -- 7.10 order_effect -------------------------------------------------------------------------------

def _accuracies(rows):
    return {(tuple(row["order"]), row["seed"]): row["accuracy"] for row in rows}


def _swapped(order, first, second):
    return tuple({first: second, second: first}.get(name, name) for name in order)


def _gains(rows, first, second, here=lambda order, first, second: order.index(second) == order.index(first) + 1):
    """(order, seed, gain) wherever `here` finds the two, with the same order but for their swap."""
    found = _accuracies(rows)
    return [(order, seed, value - found[_swapped(order, first, second), seed]) for (order, seed), value in found.items() if here(order, first, second)]


def _grouped(gains, key):
    groups = {}
    for order, seed, gain in gains:
        groups.setdefault(key(order, seed), []).append(gain)
    return [sum(values) / len(values) for values in groups.values()]


def every_row_counts(rows, first, second):
    return mean_interval([gain for _, _, gain in _gains(rows, first, second)])


def contexts_as_runs(rows, first, second):
    return mean_interval(_grouped(_gains(rows, first, second), lambda order, seed: order))


def signs_turned(rows, first, second):
    return mean_interval(_grouped(_gains(rows, second, first), lambda order, seed: seed))


def not_only_neighbours(rows, first, second):
    gains = _gains(rows, first, second, lambda order, first, second: order.index(first) < order.index(second))
    return mean_interval(_grouped(gains, lambda order, seed: seed))


def first_context_only(rows, first, second):
    gains = _gains(rows, first, second)
    return mean_interval([gain for order, _, gain in gains if order == gains[0][0]])


def at_the_start_only(rows, first, second):
    gains = _gains(rows, first, second, lambda order, first, second: order[:2] == (first, second))
    return mean_interval(_grouped(gains, lambda order, seed: seed))


def last_context_only(rows, first, second):
    """A dict by seed, overwritten by each context."""
    last = {seed: gain for _, seed, gain in _gains(rows, first, second)}
    return mean_interval(list(last.values()))


def summed_over_contexts(rows, first, second):
    gains, sums = _gains(rows, first, second), {}
    for _, seed, gain in gains:
        sums[seed] = sums.get(seed, 0.0) + gain
    return mean_interval(list(sums.values()))


def unpaired(rows, first, second):
    """Two means, and an interval as if the runs had nothing in common."""
    found = _accuracies(rows)
    pairs = [(order, seed) for order, seed, _ in _gains(rows, first, second)]
    a, b = {}, {}
    for order, seed in pairs:
        a.setdefault(seed, []).append(found[order, seed])
        b.setdefault(seed, []).append(found[_swapped(order, first, second), seed])
    (one, one_low, _), (two, two_low, _) = (mean_interval([sum(v) / len(v) for v in side.values()]) for side in (a, b))
    half = math.hypot(one - one_low, two - two_low)
    return one - two, one - two - half, one - two + half


def normal_quantile(rows, first, second):
    values = torch.tensor(_grouped(_gains(rows, first, second), lambda order, seed: seed), dtype=torch.float64)
    mean, half = values.mean().item(), 1.96 * values.std().item() / len(values) ** 0.5
    return mean, mean - half, mean + half


def spread_of_runs(rows, first, second):
    """The deviation of one run in the place of that of their mean."""
    values = _grouped(_gains(rows, first, second), lambda order, seed: seed)
    mean, low, high = mean_interval(values)
    root = len(values) ** 0.5
    return mean, mean - (mean - low) * root, mean + (high - mean) * root


def mean_only(rows, first, second):
    return mean_interval(_grouped(_gains(rows, first, second), lambda order, seed: seed))[0]


# -- 7.11 clip_action --------------------------------------------------------------------------------

def _clip(layer, action, costs, spent, budget, later=None, fits=None, instead=None, least=None):
    later = sum(min(row) for row in costs[layer + 1:]) if later is None else later
    room = budget - spent - later
    own = costs[layer]
    fitting = [a for a, cost in enumerate(own) if (cost <= room if fits is None else fits(cost, room))]
    if not fitting:
        raise ValueError(f"the smallest budget that can be met is {(spent + min(own) + later) if least is None else least}")
    if action in fitting:
        return action
    return max(fitting, key=lambda a: own[a]) if instead is None else instead(fitting, own)


def later_forgotten(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, later=0)


def only_the_next(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, later=sum(min(row) for row in costs[layer + 1:layer + 2]))


def later_at_most(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, later=sum(max(row) for row in costs[layer + 1:]))


def later_at_last(layer, action, costs, spent, budget):
    """Takes the last setting of a row for its cheapest."""
    return _clip(layer, action, costs, spent, budget, later=sum(row[-1] for row in costs[layer + 1:]))


def later_at_first(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, later=sum(row[0] for row in costs[layer + 1:]))


def layer_counted_twice(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, later=sum(min(row) for row in costs[layer:]))


def all_layers_counted(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, later=sum(min(row) for row in costs) - min(costs[layer]))


def spent_forgotten(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, 0, budget)


def strictly_less(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, fits=lambda cost, room: cost < room)


def to_the_cheapest(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, instead=lambda fits, own: min(fits, key=lambda a: own[a]))


def to_the_last_that_fits(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, instead=lambda fits, own: fits[-1])


def to_the_first_that_fits(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, instead=lambda fits, own: fits[0])


def always_the_dearest(layer, action, costs, spent, budget):
    """Spends whatever fits, asked or not."""
    return _clip(layer, -1, costs, spent, budget)


def action_not_clipped(layer, action, costs, spent, budget):
    _clip(layer, action, costs, spent, budget)
    return action


def cost_returned(layer, action, costs, spent, budget):
    return costs[layer][_clip(layer, action, costs, spent, budget)]


def never_refuses(layer, action, costs, spent, budget):
    try:
        return _clip(layer, action, costs, spent, budget)
    except ValueError:
        return min(range(len(costs[layer])), key=lambda a: costs[layer][a])


def says_the_budget(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, least=budget)


def says_without_spent(layer, action, costs, spent, budget):
    return _clip(layer, action, costs, spent, budget, least=sum(min(row) for row in costs[layer:]))
