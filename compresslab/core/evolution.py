"""Evolution under a budget: the best candidates survive, cross and mutate, and none exceeds what it may cost.

A candidate is one value for every *gene*. What it stands for (an architecture, a setting for each layer), its
score and its cost are the caller's.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from compresslab.core.errors import check_fraction, check_int

Genes = tuple[int, ...]


@dataclass
class SearchResult:
    """What a search found: `best` with its `score`; `scores` of all that were tried; `history`, the best
    score after every generation."""

    best: Any
    score: float
    scores: dict[Any, float] = field(repr=False)
    history: list[float] = field(repr=False)


def evolve_genes(
    genes: Sequence[Sequence[int]],
    decode: Callable[[Genes], Hashable],
    score: Callable[[Any], float],
    cost: Callable[[Any], float],
    budget: float,
    *,
    start: Sequence[Sequence[int]] = (),
    population: int = 24,
    parents: int = 8,
    generations: int = 12,
    mutation: float = 0.2,
    seed: int = 0,
) -> SearchResult:
    """Look for the candidate of highest score whose cost is within a budget.

    A generation keeps its ``parents`` best. Half of the others are mutants of one of these, in which every
    gene is drawn anew with probability ``mutation``; half are children of two, each gene from either. One
    that exceeds the budget loses a step of a random gene at a time until it fits, and one that was scored
    before is drawn again, a few times: every candidate counts.

    Args:
        genes: for each gene the values it may have, ascending in cost. The first of each must fit together.
        decode: one value for each gene -> what is scored; different candidates stand for different things.
        score: higher is better; called once for each candidate that comes up.
        cost: what a candidate costs, known before it is scored.
        budget: the most it may cost.
        start: candidates of the first generation; the others are random. They are made to fit, too.
        population: candidates per generation, at least 2.
        parents: how many of them survive, 1 to ``population``.
        generations: how often, at least 1.
        mutation: fraction of the genes of a mutant that are drawn anew, in [0, 1].
        seed: of all random choices; the global generator is not used.

    Returns:
        a `SearchResult`; of equal scores the candidate found first.

    Raises:
        TypeError, ValueError: an argument out of range, a score that is nan, or a budget below the cheapest.

    Example:
        >>> found = evolve_genes([(0, 1, 2)] * 2, tuple, lambda g: g[0] - g[1], sum, budget=3)
        >>> found.best, found.score
        ((2, 0), 2.0)
    """
    _check(population, parents, generations, mutation)
    cheapest = cost(decode(tuple(choices[0] for choices in genes)))
    if not budget >= cheapest:
        raise ValueError(f"the budget must be at least {cheapest}, what the cheapest costs, got {budget}")
    breed = _Breeder(genes, lambda g: cost(decode(g)), budget, mutation, torch.Generator().manual_seed(seed))
    scores: dict[Any, float] = {}
    given = [breed.fit(list(first)) for first in start][:population]
    breed.known.update(given)
    alive = given + [breed.fresh(breed.random) for _ in range(population - len(given))]
    history = []
    for _ in range(generations):
        for candidate in alive:
            _remember(scores, decode(candidate), score)
        alive = sorted(dict.fromkeys(alive), key=lambda candidate: -scores[decode(candidate)])[:parents]
        history.append(scores[decode(alive[0])])
        ways = (partial(breed.child, alive), partial(breed.mutant, alive))
        alive = alive + [breed.fresh(ways[i % 2]) for i in range(population - len(alive))]
    best = max(scores, key=scores.__getitem__)
    return SearchResult(best, scores[best], scores, history)


def _remember(scores: dict[Any, float], found: Any, score: Callable[[Any], float]) -> None:
    if found not in scores:
        scores[found] = float(score(found))
        if math.isnan(scores[found]):
            raise ValueError(f"the score of {found} is nan")


class _Breeder:
    """Makes candidates: one value for each gene, always within the budget."""

    def __init__(
        self,
        genes: Sequence[Sequence[int]],
        cost: Callable[[Genes], float],
        budget: float,
        mutation: float,
        generator: torch.Generator,
    ):
        self.genes, self.budget, self.mutation, self.generator = genes, budget, mutation, generator
        self.known: set[Genes] = set()
        self._cost, self.costs = cost, {}

    def draw(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return torch.rand((), generator=self.generator).item() < probability

    def fresh(self, make: Callable[[], Genes], tries: int = 20) -> Genes:
        """A candidate that did not come up before, if a few tries find one."""
        for _ in range(tries):
            genes = make()
            if genes not in self.known:
                break
        self.known.add(genes)
        return genes

    def cost(self, genes: Genes) -> float:
        if genes not in self.costs:
            self.costs[genes] = self._cost(genes)
        return self.costs[genes]

    def random(self) -> Genes:
        return self.fit([choices[self.draw(len(choices))] for choices in self.genes])

    def mutant(self, alive: list[Genes]) -> Genes:
        genes = list(alive[self.draw(len(alive))])
        for i, choices in enumerate(self.genes):
            if self.chance(self.mutation):
                genes[i] = choices[self.draw(len(choices))]
        return self.fit(genes)

    def child(self, alive: list[Genes]) -> Genes:
        one, other = (alive[self.draw(len(alive))] for _ in range(2))
        return self.fit([a if self.chance(0.5) else b for a, b in zip(one, other, strict=True)])

    def fit(self, genes: list[int]) -> Genes:
        """Lower random genes, a step at a time, until the budget is kept."""
        while self.cost(tuple(genes)) > self.budget:
            high = [i for i, choices in enumerate(self.genes) if genes[i] > choices[0]]
            i = high[self.draw(len(high))]
            choices = self.genes[i]
            genes[i] = choices[choices.index(genes[i]) - 1]
        return tuple(genes)


def _check(population: int, parents: int, generations: int, mutation: float) -> None:
    check_int("population", population, 2)
    check_int("parents", parents, 1, population)
    check_int("generations", generations, 1)
    check_fraction("mutation", mutation)
