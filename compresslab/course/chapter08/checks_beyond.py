"""What a right answer to exercises 8.6 to 8.10 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from compresslab.course.trial import Trial, Wrong


def entries(t: Trial, got: Any, wanted: dict[str, float], what: str) -> None:
    """Expect a dict with these keys, in any order, and these numbers."""
    if not isinstance(got, dict) or set(got) != set(wanted):
        shown = ", ".join(sorted(map(str, got))) if isinstance(got, dict) else f"is a {type(got).__name__}"
        raise Wrong(f"{what} must be a dict with the keys {', '.join(map(str, wanted))}; yours: {shown}")
    for key, number in wanted.items():
        t.close(t.number(got[key]), number, f"{what}[{key!r}]", rtol=1e-5)


# -- changed answers ---------------------------------------------------------------------------------

def with_plain_keys(function: Any, before: Tensor, after: Tensor, labels: Tensor) -> Any:
    """The answer; class numbers that are no Python ints (0-d tensors, which no other tensor finds again) become texts."""
    found = function(before, after, labels)
    if isinstance(found, dict) and isinstance(found.get("by_class"), dict):
        found = {**found, "by_class": {key if type(key) is int else repr(key): change for key, change in found["by_class"].items()}}
    return found


def verify_changed_answers(t: Trial) -> str:
    cases = [([0], [0], [0]), ([0], [1], [0]), ([1], [0], [0]), ([1], [2], [0]),
             ([0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]), ([0, 1, 2, 2], [1, 0, 2, 0], [0, 0, 2, 2]),
             ([5, 5, 5, 3, 3, 3], [5, 3, 3, 3, 5, 3], [5, 5, 5, 3, 3, 5]), ([2, 2, 2, 0], [2, 2, 2, 1], [2, 2, 2, 0]),
             ([4, 4, 7, 7, 7, 7], [4, 7, 7, 7, 7, 4], [4, 4, 7, 7, 7, 7])]
    drawn = [tuple(torch.tensor(values) for values in case) for case in cases]
    for n, classes in ((20, 3), (60, 5), (300, 10)):
        labels = t.integers(0, classes - 1, (n,))
        before, after = (torch.where(t.integers(0, 3, (n,)) > 0, labels, t.integers(0, classes - 1, (n,))) for _ in range(2))
        drawn.append((before, after, labels))
    for before, after, labels in drawn:
        _check_changes(t, t.use(with_plain_keys, before, after, labels), before.tolist(), after.tolist(), labels.tolist())
    return f"{len(drawn)} pairs of networks: answers that broke, were mended or moved between wrong classes, and every class's own change"


def _check_changes(t: Trial, got: Any, before: list[int], after: list[int], labels: list[int]) -> None:
    triples, n = list(zip(before, after, labels)), len(labels)
    by_class = {c: (sum(a == y for _, a, y in triples if y == c) - sum(b == y for b, _, y in triples if y == c)) / labels.count(c)
                for c in sorted(set(labels))}
    whole = {"changed": sum(b != a for b, a, _ in triples) / n, "broken": sum(b == y != a for b, a, y in triples) / n,
             "mended": sum(a == y != b for b, a, y in triples) / n}
    keys = {*whole, "by_class", "worst"}
    if not isinstance(got, dict) or set(got) != keys:
        raise Wrong(f"return a dict with the keys changed, broken, mended, by_class and worst; yours: {', '.join(map(str, got)) if isinstance(got, dict) else type(got).__name__}")
    entries(t, {key: got[key] for key in whole}, whole, "the answer")
    t.expect(isinstance(got["by_class"], dict) and all(type(key) is int for key in got["by_class"]),
             "by_class must be a dict with the class numbers, as Python ints, as keys")
    entries(t, got["by_class"], by_class, "by_class")
    t.close(t.number(got["worst"]), min(by_class, key=lambda c: (by_class[c], c)), "the class with the lowest change, the smallest number of equals")


# -- calibration -------------------------------------------------------------------------------------

def verify_calibration_error(t: Trial) -> str:
    def sure(values: list[float]) -> Tensor:
        return torch.tensor([[value, 1 - value] for value in values])

    cases = [(sure([1.0]), torch.tensor([0]), 1), (sure([1.0]), torch.tensor([1]), 2), (sure([0.75, 0.75]), torch.tensor([0, 1]), 4),
             (sure([0.25]), torch.tensor([1]), 2), (sure([0.5625, 0.9375]), torch.tensor([0, 1]), 1),
             (sure([0.5625, 0.9375]), torch.tensor([0, 1]), 2), (sure([0.5625, 0.9375]), torch.tensor([0, 1]), 4),
             (sure([0.75, 0.875]), torch.tensor([0, 1]), 4), (sure([0.75, 0.875, 1.0, 0.625]), torch.tensor([0, 1, 1, 0]), 8),
             (sure([0.5, 0.5, 0.75]), torch.tensor([0, 1, 1]), 2)]
    for n, classes, bins in ((12, 3, 5), (50, 4, 10), (200, 10, 15), (400, 10, 3)):
        logits = 2.5 * t.randn(n, classes)
        labels = torch.where(t.integers(0, 2, (n,)) > 0, logits.argmax(1), t.integers(0, classes - 1, (n,)))
        cases.append((logits.softmax(1), labels, bins))
    for probabilities, labels, bins in cases:
        got = t.number(t.call(probabilities, labels, bins))
        wanted = float(_calibration(probabilities.tolist(), labels.tolist(), bins))
        t.close(got, wanted, "the gap between confidence and accuracy of each group, weighted by its images", rtol=1e-3, atol=1e-5)
    return f"{len(cases)} sets of probabilities, bounds and empty groups included"


def _calibration(rows: list[list[float]], labels: list[int], bins: int) -> Fraction:
    """In exact fractions: groups low < confidence <= high."""
    groups: dict[int, list[Fraction]] = {}
    for row, label in zip(rows, labels):
        confidence = Fraction(max(row))
        gap = (row.index(max(row)) == label) - confidence
        groups.setdefault(math.ceil(confidence * bins), []).append(gap)
    return sum((abs(sum(gaps)) for gaps in groups.values()), Fraction(0)) / len(labels)


# -- energy ------------------------------------------------------------------------------------------

def verify_layer_energy(t: Trial) -> str:
    toy = {"mac": {8: 1.0, 16: 3.0, 32: 10.0}, "dram": 5.0, "sram": 0.5}
    cases = [((1, 0, 0), (32, 32), toy), ((0, 1, 0), (32, 32), toy), ((0, 0, 1), (32, 32), toy), ((0, 1, 1), (8, 16), toy),
             ((1, 0, 0), (8, 8), toy), ((1, 0, 0), (8, 32), toy), ((1, 0, 0), (32, 8), toy), ((1, 0, 0), (4, 4), toy), ((2, 3, 5), (4, 8), toy),
             ((2, 3, 5), (1.5, 16), toy), ((100, 10, 20), (12, 8), toy)]
    other = {"mac": {32: 7.0, 4: 0.25, 8: 1.0}, "sram": 2.0, "dram": 40.0}
    cases += [((10, 2, 3), (4, 2), other), ((10, 2, 3), (5, 4), other), ((10, 2, 3), (3, 16), other)]
    for _ in range(4):
        counts = tuple(t.integer(1, 1000) for _ in range(3))
        cases.append((counts, (t.integer(1, 32), t.integer(1, 32)), toy))
    for (macs, weights, activations), bits, costs in cases:
        width = min(width for width in costs["mac"] if width >= max(bits))
        wanted = {"compute": macs * costs["mac"][width], "weights": weights * bits[0] * costs["dram"],
                  "activations": activations * bits[1] * costs["sram"]}
        entries(t, t.call(macs, weights, activations, bits, costs), wanted, "the energy")
    return f"{len(cases)} layers at two price lists; odd bit widths are computed in the next wider unit"


# -- break-even --------------------------------------------------------------------------------------

def verify_break_even(t: Trial) -> str:
    cases = [(10, 3, 1), (10, 4, 1), (9, 4, 1), (1, 4, 1), (0.5, 1.0, 0.75), (0, 2, 1), (0, 1, 2), (0, 1, 1), (5, 1, 1), (5, 1, 2), (7, 0.5, 0), (3, 0, 0)]
    for _ in range(5):
        after = t.integer(0, 20)
        cases.append((t.integer(1, 1000), after + t.integer(1, 16) / 4, after))
    for cost_once, before, after in cases:
        got = t.number(t.call(cost_once, before, after))
        wanted = _first_paid(Fraction(cost_once), Fraction(before) - Fraction(after))
        t.expect(got == math.inf or got == int(got) if not math.isnan(got) else False, "uses are counted: return a whole number, or math.inf")
        t.close(got, wanted, "the smallest number of uses after which the total is no larger than before")
    return f"{len(cases)} bills: paid at once, to the cent, in between, never"


def _first_paid(cost: Fraction, saving: Fraction) -> float:
    if cost <= 0:
        return 0.0
    return float(-(-cost // saving)) if saving > 0 else math.inf


# -- the harness -------------------------------------------------------------------------------------

def run(method: str, setting: str, seed: int, validation: list[float], test: list[float], file_bytes: int = 1000, nonzeros: int = 100) -> dict[str, Any]:
    """A run as the exercise describes it; no validation results: it failed."""
    failed = not validation
    return {"method": method, "setting": setting, "seed": seed, "failed": failed, "validation": validation, "test": test,
            "file_bytes": None if failed else file_bytes, "nonzeros": None if failed else nonzeros}


def verify_compare_fairly(t: Trial) -> str:
    dense = [run("dense", "", seed, *curves) for seed, curves in enumerate((([0.9, 0.875], [0.875, 0.9375]), ([0.75, 0.875], [0.75, 0.8125])))]
    mild = [run("a", "mild", 0, [0.75, 0.5], [0.75, 0.78125], 600, 50), run("a", "mild", 1, [0.75, 0.8125], [0.84375, 0.6875], 640, 70)]
    hard = [run("a", "hard", 0, [0.5, 0.625], [0.9375, 0.96875], 300, 20), run("a", "hard", 1, [0.5625, 0.5], [0.90625, 0.5], 340, 30)]
    lost = [run("b", "low", 0, [0.96875, 0.5], [0.9375, 0.5], 200, 10), run("b", "low", 1, [], []),
            run("b", "high", 0, [0.75], [0.6875], 400, 40), run("b", "high", 1, [0.6875], [0.71875], 420, 44)]
    gone = [run("c", "only", 0, [], []), run("c", "only", 1, [0.875], [0.875])]
    one_seed = [run("d", "x", 1, [0.75, 0.875, 0.75], [0.5, 0.625, 0.75], 800, 90)]
    dead = [run("e", "only", 0, [], []), run("e", "only", 1, [], [])]
    late = [run("f", "p", 0, [0.875, 0.5], [0.75, 0.5]), run("f", "q", 0, [0.75, 0.5], [0.625, 0.96875])]
    lucky = [run("g", "lucky", 0, [0.9375], [0.875]), run("g", "lucky", 1, [0.25], [0.25]), run("g", "even", 0, [0.75], [0.75]), run("g", "even", 1, [0.75], [0.71875])]
    often = [run("h", "often", 0, [0.5], [0.5]), run("h", "often", 1, [0.5], [0.5]), run("h", "once", 1, [0.75], [0.75], 700)]
    cases = [[dense[0], run("a", "mild", 0, [0.75], [0.75], 600, 50)], [dense[0], run("a", "mild", 0, [0.875, 0.875], [0.75, 0.9375], 600, 50)], [dense[0], mild[0]], [dense[0], mild[0], hard[0]], [*dense, *mild], [*dense, *one_seed],
             [*dense, *hard, *mild], [dense[0], *late], [*dense, *lucky], [*dense, *often], [*dense, *lost], [*dense, *dead, *mild], [*dense, *gone, *mild], [*mild, *lost, *gone, *one_seed, *hard, *dead, *dense[::-1]]]
    cases += [_drawn(t, methods, seeds) for methods, seeds in ((1, 2), (2, 3), (4, 3))]
    for runs in cases:
        wanted = _fair_table(runs)
        got = t.call(runs)
        t.expect(isinstance(got, dict) and set(got) == set(wanted),
                 f"the table must have a row for each method but dense ({', '.join(sorted(wanted))}), also for one that failed")
        for method, row in wanted.items():
            if row is None:
                t.expect(got[method] is None, f"every setting of method {method!r} failed with some seed: its row is None")
                continue
            t.expect(isinstance(got[method], dict) and set(got[method]) == set(row), "a row has the keys setting, file_bytes and loss")
            t.expect(got[method]["setting"] == row["setting"],
                     f"of method {method!r} the setting {row['setting']!r} must be chosen: no seed failed, and the best validation accuracy on average")
            entries(t, {k: got[method][k] for k in ("file_bytes", "loss")}, {k: row[k] for k in ("file_bytes", "loss")}, f"row {method!r}")
    return f"{len(cases)} comparisons: chosen on validation images, paired by seed, whole files, and no failure forgotten"


def _drawn(t: Trial, methods: int, seeds: int) -> list[dict[str, Any]]:
    def curves() -> tuple[list[float], list[float]]:
        return tuple([t.integer(300, 1000) / 1024 for _ in range(4)] for _ in range(2))

    runs = [run("dense", "", seed, *curves()) for seed in range(seeds)]
    for method in range(methods):
        for setting in ("1", "2", "3"):
            lost = t.integer(0, 2 * seeds)
            runs += [run(f"m{method}", setting, seed, *(([], []) if seed == lost else curves()), t.integer(100, 900), t.integer(5, 20)) for seed in range(seeds)]
    return runs


def _fair_table(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """The rule of the exercise, once more."""
    def chosen(one: dict[str, Any]) -> float:
        return max(zip(one["validation"], range(0, -100, -1), one["test"]))[2]  # the first of the best epochs

    baseline = {one["seed"]: chosen(one) for one in runs if one["method"] == "dense"}
    table: dict[str, dict[str, Any] | None] = {}
    for method in dict.fromkeys(one["method"] for one in runs if one["method"] != "dense"):
        best, table[method] = -1.0, None
        for setting in dict.fromkeys(one["setting"] for one in runs if one["method"] == method):
            group = [one for one in runs if (one["method"], one["setting"]) == (method, setting)]
            score = -1.0 if any(one["failed"] for one in group) else sum(max(one["validation"]) for one in group) / len(group)
            if score > best:
                best = score
                table[method] = {"setting": setting, "file_bytes": sum(one["file_bytes"] for one in group) / len(group),
                                 "loss": sum(baseline[one["seed"]] - chosen(one) for one in group) / len(group)}
    return table
