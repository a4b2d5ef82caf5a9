r"""One choice for every layer, least error, within a budget: the multiple-choice knapsack, by integer programming.

If errors and costs of layers add up, choosing a bit width, a sparsity or a rank for each of them is this one
problem. (That errors add up is the assumption to doubt.)
"""

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

Choice = TypeVar("Choice", bound=Hashable)


def choose_within_budget(
    errors: Mapping[str, Mapping[Choice, float]], costs: Mapping[str, Mapping[Choice, int]], budget: int
) -> dict[str, Choice]:
    r"""The choices of least total error whose costs stay within a budget: by integer linear programming.

    .. math:: \min_{x \in \{0, 1\}} \sum_{l, c} x_{lc}\, \Omega_l(c) \quad \text{s.t.} \quad
              \sum_c x_{lc} = 1, \quad \sum_{l, c} x_{lc}\, C_l(c) \le B

    Args:
        errors: layer -> choice -> :math:`\Omega`, finite. Only differences within a layer matter.
        costs: layer -> choice -> C, a whole number of at least 0, for the same layers and choices.
        budget: B, in the unit of the costs.

    Returns:
        layer -> choice, in the order of ``errors``; the budget is kept to the unit. The total is the least up to
        about 1e-10 of the largest error: the solver does not see finer differences.

    Raises:
        ValueError: the budget is too small (see ``check_budget``).

    Example:
        >>> errors = {"a": {2: 9.0, 4: 1.0}, "b": {2: 5.0, 4: 0.0}}
        >>> choose_within_budget(errors, {"a": {2: 20, 4: 40}, "b": {2: 20, 4: 40}}, 60)
        {'a': 4, 'b': 2}
    """
    check_budget(costs, budget)
    options = [(layer, choice) for layer, row in errors.items() for choice in row]
    best = {layer: min(row.values()) for layer, row in errors.items()}
    excess = np.array([errors[layer][choice] - best[layer] for layer, choice in options])
    # the solver stops at an absolute gap of 1e-6, so errors are brought to a size where that is nothing
    objective = excess * (1e4 / excess.max()) if excess.max() > 0 else excess
    prices = np.array([costs[layer][choice] for layer, choice in options])
    unit = math.gcd(*prices.tolist()) or 1  # whole numbers as small as they can be
    one_each = np.array([[float(layer == other) for layer, _ in options] for other in errors])
    constraints = [
        LinearConstraint(one_each, 1, 1),
        LinearConstraint(prices[None] // unit, -np.inf, budget // unit),
    ]
    while True:
        chosen = _solve(objective, constraints)
        if prices[chosen].sum() <= budget:
            return {layer: choice for (layer, choice), x in zip(options, chosen, strict=True) if x}
        # the solver counts a constraint as met to a millionth, which may be a few units: shut that choice out
        constraints.append(LinearConstraint(chosen[None].astype(float), -np.inf, len(errors) - 1))


def _solve(objective: np.ndarray, constraints: list[LinearConstraint]) -> np.ndarray:
    """Which options the solver takes, bool."""
    found = milp(
        objective,
        integrality=np.ones(len(objective)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    if not found.success:
        raise RuntimeError(f"the solver found no allocation: {found.message}")
    return found.x > 0.5


def smallest_budget(costs: Mapping[str, Mapping[Choice, int]]) -> int:
    """What the cheapest choice of every layer costs together: no smaller budget can be met."""
    return sum(min(row.values()) for row in costs.values())


def check_budget(costs: Mapping[str, Mapping[Choice, int]], budget: int, unit: str = "") -> None:
    """Raise unless the budget can be met.

    Example:
        >>> check_budget({"a": {2: 20, 4: 40}}, 19, "bits")
        Traceback (most recent call last):
        ValueError: a budget of 19 bits cannot be met; the smallest that can is 20
    """
    least = smallest_budget(costs)
    if budget < least:
        size = f"{budget} {unit}".rstrip()
        raise ValueError(f"a budget of {size} cannot be met; the smallest that can is {least}")
