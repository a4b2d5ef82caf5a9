"""Typical wrong answers to exercises 3.10 to 3.12: depth, search, and a stage half repaired."""

from __future__ import annotations

import itertools
import random

import torch
from torch import nn
from torch.nn import functional as F


# -- 3.10 stochastic_depth ---------------------------------------------------------------------------

def _row(x, branches, p, training, *, test=None, kept=lambda branch, x, p: branch(x)):
    """The row of blocks with the survival rule p(l); `test` and `kept` say what each mistake does."""
    for l, branch in enumerate(branches, 1):
        if not training:
            x = F.relu((test or (lambda branch, x, p: p * branch(x)))(branch, x, p(l)) + x)
        elif torch.rand(()) < p(l):
            x = F.relu(kept(branch, x, p(l)) + x)
    return x


def _rule(branches, last):
    return lambda l: 1 - l / len(branches) * (1 - last)


def not_scaled_at_test(x, branches, last, training):
    return _row(x, branches, _rule(branches, last), training, test=lambda branch, x, p: branch(x))


def scaled_in_training(x, branches, last, training):
    return _row(x, branches, _rule(branches, last), training, test=lambda branch, x, p: branch(x),
                kept=lambda branch, x, p: branch(x) / p)


def scaled_twice(x, branches, last, training):
    return _row(x, branches, _rule(branches, last), training, kept=lambda branch, x, p: p * branch(x))


def same_for_all(x, branches, last, training):
    return _row(x, branches, lambda l: last, training)


def counted_from_zero(x, branches, last, training):
    return _row(x, branches, lambda l: 1 - (l - 1) / len(branches) * (1 - last), training)


def first_drops_most(x, branches, last, training):
    count = len(branches)
    return _row(x, branches, lambda l: 1 - (count + 1 - l) / count * (1 - last), training)


def all_but_one(x, branches, last, training):
    return _row(x, branches, lambda l: 1 - (l - 1) / max(1, len(branches) - 1) * (1 - last), training)


def rises_to_one(x, branches, last, training):
    return _row(x, branches, lambda l: last + l / len(branches) * (1 - last), training)


def drop_probability(x, branches, last, training):
    return _row(x, branches, lambda l: l / len(branches) * (1 - last), training)


def last_is_dropped(x, branches, last, training):
    return _row(x, branches, lambda l: 1 - l / len(branches) * last, training)


def drops_at_test(x, branches, last, training):
    return _row(x, branches, _rule(branches, last), True)


def never_drops(x, branches, last, training):
    return _row(x, branches, _rule(branches, last), False)


def computed_in_vain(x, branches, last, training):
    p = _rule(branches, last)
    for l, branch in enumerate(branches, 1):
        y = branch(x)
        b = (torch.rand(()) < p(l)).float() if training else p(l)
        x = F.relu(b * y + x)
    return x


def one_coin(x, branches, last, training):
    p, coin = _rule(branches, last), torch.rand(())
    for l, branch in enumerate(branches, 1):
        if not training:
            x = F.relu(p(l) * branch(x) + x)
        elif coin < p(l):
            x = F.relu(branch(x) + x)
    return x


def relu_inside(x, branches, last, training):
    p = _rule(branches, last)
    for l, branch in enumerate(branches, 1):
        if not training:
            x = p(l) * F.relu(branch(x)) + x
        elif torch.rand(()) < p(l):
            x = F.relu(branch(x)) + x
    return x


def whole_block_dropped(x, branches, last, training):
    """The shortcut is dropped (or scaled) together with its branch."""
    p = _rule(branches, last)
    for l, branch in enumerate(branches, 1):
        x = F.relu(p(l) * (branch(x) + x)) if not training else (torch.rand(()) < p(l)).float() * F.relu(branch(x) + x)
    return x


def pythons_coins(x, branches, last, training):
    p = _rule(branches, last)
    for l, branch in enumerate(branches, 1):
        if not training:
            x = F.relu(p(l) * branch(x) + x)
        elif random.random() < p(l):
            x = F.relu(branch(x) + x)
    return x


# -- 3.11 evolve -------------------------------------------------------------------------------------

def _pick(options):
    return options[int(torch.randint(len(options), ()))]


def _mutant(parent, choices):
    child, place = list(parent), int(torch.randint(len(choices), ()))
    child[place] = _pick(choices[place])
    return tuple(child)


def _search(choices, score, cost, budget, rounds, children, keep, *, child=None, fits=None, select=None):
    """The right search; `child`, `fits` and `select` are what each mistake changes."""
    child = child or (lambda parents: _mutant(_pick(parents), choices))
    fits = fits or (lambda c: cost(c) <= budget)
    select = select or (lambda parents, born: sorted({*parents, *born}, key=score, reverse=True)[:keep])
    parents = [tuple(options[0] for options in choices)]
    for _ in range(rounds):
        parents = select(parents, [c for c in (child(parents) for _ in range(children)) if fits(c)])
    return parents[0]


def budget_ignored(choices, score, cost, budget, rounds=20, children=20, keep=5):
    return _search(choices, score, cost, budget, rounds, children, keep, fits=lambda c: True)


def strictly_below(choices, score, cost, budget, rounds=20, children=20, keep=5):
    return _search(choices, score, cost, budget, rounds, children, keep, fits=lambda c: cost(c) < budget)


def parent_changed(choices, score, cost, budget, rounds=20, children=20, keep=5):
    """A child that is its parent, not a copy of it."""
    parents = [[options[0] for options in choices]]
    for _ in range(rounds):
        family = list(parents)
        for _ in range(children):
            child, place = _pick(parents), int(torch.randint(len(choices), ()))
            child[place] = _pick(choices[place])
            if cost(tuple(child)) <= budget:
                family.append(child)
        parents = sorted(family, key=lambda c: score(tuple(c)), reverse=True)[:keep]
    return tuple(parents[0])


def keeps_the_worst(choices, score, cost, budget, rounds=20, children=20, keep=5):
    return _search(choices, score, cost, budget, rounds, children, keep,
                   select=lambda parents, born: sorted({*parents, *born}, key=score)[:keep])


def parents_die(choices, score, cost, budget, rounds=20, children=20, keep=5):
    return _search(choices, score, cost, budget, rounds, children, keep,
                   select=lambda parents, born: sorted(set(born) or parents, key=score, reverse=True)[:keep])


def drawn_afresh(choices, score, cost, budget, rounds=20, children=20, keep=5):
    return _search(choices, score, cost, budget, rounds, children, keep, child=lambda parents: tuple(_pick(o) for o in choices))


def scored_first(choices, score, cost, budget, rounds=20, children=20, keep=5):
    def select(parents, born):
        ranked = sorted({*parents, *born}, key=score, reverse=True)
        return [c for c in ranked if cost(c) <= budget][:keep]
    return _search(choices, score, cost, budget, rounds, children, keep, fits=lambda c: True, select=select)


def one_place_only(choices, score, cost, budget, rounds=20, children=20, keep=5):
    def child(parents):
        new = list(_pick(parents))
        new[0] = _pick(choices[0])
        return tuple(new)
    return _search(choices, score, cost, budget, rounds, children, keep, child=child)


def tries_everything(choices, score, cost, budget, rounds=20, children=20, keep=5):
    everything = itertools.islice(itertools.product(*choices), 20_000)
    return max((c for c in everything if cost(c) <= budget), key=score)


def children_of_the_first(choices, score, cost, budget, rounds=20, children=20, keep=5):
    first = tuple(options[0] for options in choices)
    return _search(choices, score, cost, budget, rounds, children, keep, child=lambda parents: _mutant(first, choices))


def last_one(choices, score, cost, budget, rounds=20, children=20, keep=5):
    parents = [tuple(options[0] for options in choices)]
    for _ in range(rounds):
        born = [_mutant(_pick(parents), choices) for _ in range(children)]
        parents = sorted({*parents, *(c for c in born if cost(c) <= budget)}, key=score, reverse=True)[:keep]
    return parents[-1]


def cheapest(choices, score, cost, budget, rounds=20, children=20, keep=5):
    return _search(choices, score, cost, budget, rounds, children, keep,
                   select=lambda parents, born: sorted({*parents, *born}, key=cost)[:keep])


def pythons_dice(choices, score, cost, budget, rounds=20, children=20, keep=5):
    def child(parents):
        new, place = list(random.choice(parents)), random.randrange(len(choices))
        new[place] = random.choice(choices[place])
        return tuple(new)
    return _search(choices, score, cost, budget, rounds, children, keep, child=child)


def options_of_the_first(choices, score, cost, budget, rounds=20, children=20, keep=5):
    def child(parents):
        new = list(_pick(parents))
        new[int(torch.randint(len(choices), ()))] = _pick(choices[0])
        return tuple(new)
    return _search(choices, score, cost, budget, rounds, children, keep, child=child)


def starts_with_the_smallest(choices, score, cost, budget, rounds=20, children=20, keep=5):
    return _search([sorted(options) for options in choices], score, cost, budget, rounds, children, keep)


# -- 3.12 Stage --------------------------------------------------------------------------------------

class _Stage(nn.Module):
    """The stage with some of its four bugs left."""

    bugs: frozenset = frozenset({"norm", "bent", "crop", "same"})

    def __init__(self, in_channels, out_channels, blocks, stride=1, expansion=4):
        super().__init__()
        first = self.branch(in_channels, out_channels, stride, expansion)
        others = [self.branch(out_channels, out_channels, 1, expansion) for _ in range(blocks - 1)]
        if "same" in self.bugs:
            others = others[:1] * (blocks - 1)
        self.branches = nn.ModuleList([first] + others)

    def branch(self, inputs, outputs, stride, expansion):
        hidden = expansion * inputs
        norm = nn.BatchNorm2d(hidden)
        layers = [nn.Conv2d(inputs, hidden, 1, bias=False), norm, nn.ReLU6(),
                  nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
                  norm if "norm" in self.bugs else nn.BatchNorm2d(hidden), nn.ReLU6(),
                  nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        return nn.Sequential(*layers, *([nn.ReLU6()] if "bent" in self.bugs else []))

    def join(self, x, y):
        if "crop" in self.bugs:
            return y + x[:, :, :y.shape[2], :y.shape[3]] if y.shape[1] == x.shape[1] else y
        return y + x if y.shape == x.shape else y

    def forward(self, x):
        for branch in self.branches:
            x = self.join(x, branch(x))
        return x


def with_bugs(*bugs):
    """The stage with these of its four bugs left."""
    return type("Stage", (_Stage,), {"bugs": frozenset(bugs), "__module__": __name__})


class StrideEverywhere(_Stage):
    bugs = frozenset()

    def __init__(self, in_channels, out_channels, blocks, stride=1, expansion=4):
        nn.Module.__init__(self)
        self.branches = nn.ModuleList(self.branch(in_channels if k == 0 else out_channels, out_channels, stride, expansion) for k in range(blocks))


class ShortcutsLost(_Stage):
    bugs = frozenset()

    def join(self, x, y):
        return y


class Subsampled(_Stage):
    bugs = frozenset()

    def join(self, x, y):
        if y.shape[1] != x.shape[1]:
            return y
        step = 2 if y.shape[2] < x.shape[2] else 1
        return y + x[:, :, ::step, ::step]


class PlainList(_Stage):
    """The blocks in a Python list: no parameter is registered."""

    bugs = frozenset()

    def __init__(self, in_channels, out_channels, blocks, stride=1, expansion=4):
        super().__init__(in_channels, out_channels, blocks, stride, expansion)
        found = list(self.branches)
        del self.branches
        self.branches = found


class NormAfter(_Stage):
    bugs = frozenset()

    def branch(self, inputs, outputs, stride, expansion):
        layers = super().branch(inputs, outputs, stride, expansion)
        return nn.Sequential(*(layers[place] for place in (0, 2, 1, 3, 5, 4, 6, 7)))


class StrideLast(_Stage):
    bugs = frozenset()

    def branch(self, inputs, outputs, stride, expansion):
        layers = super().branch(inputs, outputs, 1, expansion)
        layers[6].stride = (stride, stride)
        return layers
