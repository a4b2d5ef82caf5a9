"""What a right answer to exercises 7.10 to 7.12 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.stats import t as student
from torch import nn

from compresslab.course.trial import Trial

# -- 7.10 order --------------------------------------------------------------------------------------

def order_rows(t: Trial, operations: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A made-up row for every order and seed; orders and seeds shuffled, as files have them."""
    rows = [{"order": list(order), "seed": seed, "accuracy": round(t.uniform(0.8, 1.0), 4)}
            for order in itertools.permutations(operations) for seed in seeds]
    return [rows[i] for i in torch.randperm(len(rows), generator=t.rng)]


def effect(rows: Sequence[dict[str, Any]], first: str, second: str) -> tuple[float, float, float]:
    """Straight from the definition, by another road than the reference: positions, then Student's formula."""
    value = {(tuple(row["order"]), row["seed"]): row["accuracy"] for row in rows}
    others = sorted({name for row in rows for name in row["order"]} - {first, second})
    means = []
    for seed in sorted({row["seed"] for row in rows}):
        gains = [value[(*rest[:i], first, second, *rest[i:]), seed] - value[(*rest[:i], second, first, *rest[i:]), seed]
                 for rest in itertools.permutations(others) for i in range(len(rest) + 1)]
        means.append(sum(gains) / len(gains))
    n, mean = len(means), sum(means) / len(means)
    half = float(student.ppf(0.975, n - 1)) * (sum((m - mean) ** 2 for m in means) / (n - 1) / n) ** 0.5
    return mean, mean - half, mean + half


def verify_order_effect(t: Trial) -> str:
    tiny = ([{"order": ["prune", "quantize"], "seed": 0, "accuracy": 0.9}, {"order": ["quantize", "prune"], "seed": 0, "accuracy": 0.8},
               {"order": ["prune", "quantize"], "seed": 1, "accuracy": 0.95}, {"order": ["quantize", "prune"], "seed": 1, "accuracy": 0.91}], "prune", "quantize")
    cases = [(order_rows(t, ("a", "b", "c"), (0, 1)), "a", "b"), tiny]          # two contexts first: with one, several mistakes look alike
    cases += [(order_rows(t, ("a", "b"), (3, 5, 8)), "b", "a"), (order_rows(t, ("a", "b", "c"), (0, 1, 2)), "c", "a"),
              (order_rows(t, ("prune", "quantize", "decompose", "distil"), (0, 1, 2)), "prune", "decompose"),
              (order_rows(t, ("prune", "quantize", "decompose", "distil"), (7, 4, 1, 0)), "distil", "quantize")]
    for rows, first, second in cases:
        output = t.call(rows, first, second)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 3, "return (mean, low, high)")
        got, wanted = [t.number(value) for value in output], effect(rows, first, second)
        t.expect(abs(got[0] - wanted[0]) < 1e-6, f"the mean gain is {wanted[0]:+.4f}, yours is {got[0]:+.4f}")
        t.close(got[1:], list(wanted[1:]), "the mean is right, the ends of its interval are not", rtol=1e-4, atol=1e-6)
    return f"mean and interval for {len(cases)} tables, of two to four operations and two to four seeds"


# -- 7.11 one budget ---------------------------------------------------------------------------------

def chosen_or_refused(function: Callable[..., Any], *args: Any) -> Any:
    """What is chosen; or the whole numbers in the refusal."""
    try:
        return function(*args)
    except ValueError as error:
        return ["ValueError", *sorted({int(found) for found in re.findall(r"\d+", re.sub(r"(?<=\d)[,_ ](?=\d{3})", "", str(error)))})]


def walk(function: Callable[..., Any], actions: Sequence[int], costs: Sequence[Sequence[int]], budget: int) -> int:
    """The bytes that a whole walk through the layers spends."""
    spent = 0
    for layer, action in enumerate(actions):
        spent += costs[layer][int(function(layer, action, costs, spent, budget))]
    return spent


def _tables(t: Trial) -> list[tuple[int, int, list[list[int]], int, int]]:
    small = [[10, 4], [20, 5]]
    cases = [(0, 0, small, 0, 15), (0, 0, small, 0, 14), (0, 1, small, 0, 30), (1, 0, small, 10, 30), (1, 0, small, 10, 29), (1, 1, small, 4, 24),
             (0, 2, [[3, 9, 6, 30], [8, 2]], 0, 100), (0, 3, [[3, 9, 6, 30], [8, 2]], 0, 11), (0, 3, [[3, 9, 6, 30], [8, 2]], 0, 10), (0, 0, [[30, 6, 9, 3], [2, 8]], 0, 8),
             (1, 1, [[5, 6], [50, 20, 35, 10], [7, 9, 8], [4, 12]], 6, 41), (0, 1, [[5, 60], [20, 35, 10], [7, 9], [4, 12]], 0, 60)]
    for _ in range(12):
        layers = t.integer(1, 4)
        costs = [[t.integer(1, 60) for _ in range(t.integer(2, 5))] for _ in range(layers)]
        layer = t.integer(0, layers - 1)
        spent = sum(max(row) for row in costs[:layer])
        least = spent + sum(min(row) for row in costs[layer:])
        cases.append((layer, t.integer(0, len(costs[layer]) - 1), costs, spent, least + t.integer(0, 40)))
    return cases


def verify_clip_action(t: Trial) -> str:
    cases = _tables(t)
    for layer, action, costs, spent, budget in cases:
        got = t.number(t.call(layer, action, costs, spent, budget))
        t.expect(got == int(got) and 0 <= got < len(costs[layer]), f"return the number of a setting, 0 to {len(costs[layer]) - 1}")
        taken = costs[layer][int(got)]
        later = sum(min(row) for row in costs[layer + 1:])
        t.expect(spent + taken + later <= budget, f"you chose {taken} bytes: with the cheapest of what comes later that is {spent + taken + later}, and the budget is {budget}")
        wanted = costs[layer][t.reference(layer, action, costs, spent, budget)]
        t.expect(got == action or taken == wanted, f"a setting of {wanted} bytes is right here, you chose one of {taken}")
        t.expect(got == action or costs[layer][action] > budget - spent - later, "the budget can still be met after this action: leave it as it is")
    refused = [(0, 0, [[10, 4], [20, 5]], 0, 8, 9), (1, 0, [[10, 4], [20, 5]], 10, 14, 15), (0, 1, [[3, 9], [8, 2], [50, 40]], 0, 44, 45), (1, 0, [[300, 90], [80, 20], [50, 40]], 90, 149, 150)]
    for *inputs, least in refused:
        said = t.use(chosen_or_refused, *inputs)
        t.expect(isinstance(said, list) and said[0] == "ValueError", f"this budget cannot be met, not even with the cheapest of all: raise a ValueError ({inputs[-1]} bytes, {least} are needed)")
        t.expect(least in said, f"the message must say the smallest budget that can be met, {least}: what is spent, and the cheapest from here on")
    for _ in range(20):
        costs = [[t.integer(1, 90) for _ in range(t.integer(2, 6))] for _ in range(t.integer(2, 6))]
        budget = sum(min(row) for row in costs) + t.integer(0, 60)
        spent = t.use(walk, [t.integer(0, len(row) - 1) for row in costs], costs, budget)
        t.expect(spent <= budget, f"a walk with random actions spent {spent} bytes of {budget}")
    return f"{len(cases)} actions, {len(refused)} budgets that nobody can meet, and 20 random walks that all end under their budget"


# -- 7.12 a hybrid, repaired -------------------------------------------------------------------------

def lessons(t: Trial, n: int, classes: int, teaching: int, judged: int) -> tuple[Any, ...]:
    """A weight, a teacher in training mode, images to learn from, and two labelled sets that differ."""
    weight = t.randn(classes, n)
    hidden = nn.Linear(n, 8)
    out = nn.Linear(8, classes)
    hidden.weight.data, hidden.bias.data, out.weight.data, out.bias.data = t.randn(8, n), t.randn(8), t.randn(classes, 8), t.randn(classes)
    teacher = nn.Sequential(nn.Dropout(0.5), hidden, nn.Tanh(), out).train()
    sets = []
    for _ in range(2):
        x = t.randn(judged, n)
        with torch.no_grad():
            sets.append((x, out(hidden(x).tanh()).argmax(1)))
    return weight, teacher, t.randn(teaching, n), *sets


def verify_compress(t: Trial) -> str:
    cases = [(*lessons(t, n, classes, 40, 60), sparsity, k, steps, lr) for n, classes, sparsity, k, steps, lr in
             ((4, 3, 0.5, 2, 0, 0.5), (4, 3, 0.5, 2, 6, 0.5), (6, 3, 0.0, 4, 8, 0.2), (10, 4, 0.6, 4, 12, 0.4), (12, 5, 0.8, 3, 15, 0.6), (9, 3, 0.7, 4, 20, 1.0))]
    for case in cases:
        weight, _, _, _, test, sparsity, k, steps, _ = case
        output = t.call(*case)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 2, "return (the weight as it is stored, its accuracy on the test images)")
        stored, accuracy = t.tensor(output[0], shape=weight.shape).detach(), t.number(output[1])
        zeros = round(sparsity * weight.numel())
        t.expect(int((stored == 0).sum()) == zeros, f"{zeros} of {weight.numel()} weights were pruned, {int((stored == 0).sum())} are zero in what you return")
        shared = stored[stored != 0].unique().numel()
        t.expect(shared <= k, f"the weights that are left share {k} values, yours have {shared}")
        wanted, right = t.reference(*case)
        t.close(stored, wanted, f"the weight after the best of {steps} steps", rtol=1e-3, atol=1e-4)
        found = ((test[0] @ stored.T).argmax(1) == test[1]).double().mean().item()
        t.expect(abs(found - right) > 1e-9 or abs(accuracy - right) < 1e-6, f"this weight has {right:.1%} of the test images right, you report {accuracy:.1%}")
    return f"{len(cases)} layers: zeros held, values shared, a calm teacher, chosen on validation, reported on test"
