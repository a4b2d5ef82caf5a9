"""The reference answers of exercises 8.6 to 8.10.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

# -- beyond accuracy ---------------------------------------------------------------------------------

def changed_answers(before: Tensor, after: Tensor, labels: Tensor) -> dict[str, Any]:
    """8.6: what became of the answers, in all and by class."""
    was, now = before == labels, after == labels
    by_class = {}
    for label in labels.unique().tolist():
        chosen = labels == label
        by_class[label] = (int(now[chosen].sum()) - int(was[chosen].sum())) / int(chosen.sum())
    return {"changed": (before != after).double().mean().item(), "broken": (was & ~now).double().mean().item(),
            "mended": (now & ~was).double().mean().item(), "by_class": by_class, "worst": min(by_class, key=by_class.get)}


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """8.7: the expected calibration error."""
    confidence, answers = probabilities.double().max(dim=1)
    right = (answers == labels).double()
    total = 0.0
    for k in range(bins):
        chosen = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if chosen.any():
            total += chosen.sum().item() * abs(right[chosen].mean() - confidence[chosen].mean()).item()
    return total / len(labels)


# -- energy and break-even ---------------------------------------------------------------------------

def layer_energy(macs: int, weights: int, activations: int, bits: tuple[float, float], costs: dict[str, Any]) -> dict[str, float]:
    """8.8: picojoules of one image, by where they go."""
    weight_bits, activation_bits = bits
    width = min(width for width in costs["mac"] if width >= max(bits))
    return {"compute": macs * costs["mac"][width],
            "weights": weights * weight_bits * costs["dram"],
            "activations": activations * activation_bits * costs["sram"]}


def break_even(cost_once: float, cost_before: float, cost_after: float) -> float:
    """8.9: the smallest number of uses after which compressing has paid."""
    saving = cost_before - cost_after
    if cost_once <= 0:
        return 0
    return math.ceil(cost_once / saving) if saving > 0 else math.inf


# -- a comparison, repaired --------------------------------------------------------------------------

def compare_fairly(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """8.10: {method: its setting, file size and loss}, chosen on validation images, judged on test images."""
    def best_epoch(run):
        return run["validation"].index(max(run["validation"]))

    dense = {run["seed"]: run["test"][best_epoch(run)] for run in runs if run["method"] == "dense"}
    tried, table = {}, {}
    for run in runs:
        if run["method"] != "dense":
            tried.setdefault(run["method"], {}).setdefault(run["setting"], []).append(run)
    for method, settings in tried.items():
        whole = {setting: group for setting, group in settings.items() if not any(run["failed"] for run in group)}
        table[method] = None
        if whole:
            setting, group = max(whole.items(), key=lambda item: sum(max(run["validation"]) for run in item[1]) / len(item[1]))
            losses = [dense[run["seed"]] - run["test"][best_epoch(run)] for run in group]
            table[method] = {"setting": setting, "file_bytes": sum(run["file_bytes"] for run in group) / len(group),
                             "loss": sum(losses) / len(losses)}
    return table
