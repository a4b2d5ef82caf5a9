"""What the table of the comparison says: one line per setting, families at equal accuracy, and methods side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from compresslab.core.statistics import mean_interval, proportion_interval

Row = Mapping[str, Any]
COSTS = ("file_bytes", "macs", "latency_ms")
SHRINKING = ("pruning", "quantization", "compact", "distillation", "lowrank", "sharing", "hybrid")


def by_setting(rows: Iterable[Row], network: str) -> list[dict[str, Any]]:
    """One dict for each method and setting of a network, over its seeds.

    `low` is the lowest lower end, `high` the highest upper end of the seeds' Wilson intervals: the envelope of what images and seeds allow.

    Args:
        rows: of the comparison.
    Returns:
        dicts with `family`, `method`, `setting`, `seeds`, `accuracy` (mean, a fraction), `accuracies`, `low`, `high`, and the mean `file_bytes`, `macs` and
        `latency_ms` (None where it was not measured); large files first.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["network"] == network:
            groups.setdefault((row["method"], row["setting"]), []).append(row)
    found = []
    for (method, setting), runs in groups.items():
        ends = [proportion_interval(round(run["accuracy"] * run["n"]), run["n"]) for run in runs]
        costs = {cost: None if any(run[cost] is None for run in runs) else fmean(run[cost] for run in runs) for cost in COSTS}
        found.append({"family": runs[0]["family"], "method": method, "setting": setting, "seeds": len(runs), "accuracy": fmean(run["accuracy"] for run in runs),
                      "accuracies": [run["accuracy"] for run in runs], "low": min(low for low, _ in ends), "high": max(high for _, high in ends), **costs})
    return sorted(found, key=lambda line: -line["file_bytes"])


def dense_accuracy(rows: Iterable[Row]) -> dict[str, float]:
    """{network: accuracy of its dense original}."""
    return {row["network"]: row["accuracy"] for row in rows if row["family"] == "dense"}


def best_ratios(rows: Sequence[Row], family: str, loss: float = 0.01) -> dict[tuple[str, int], float]:
    """For each network and seed the largest ratio of a family that loses at most `loss` (a fraction); 1, the dense network, where none does.

    The setting is chosen on the images that judge it, which flatters every family a little, and those with many settings more.

    Args:
        rows: of the comparison.
    Returns:
        {(network, seed): ratio}.
    """
    dense, found = dense_accuracy(rows), {}
    for row in rows:
        if row["family"] == family and row["network"] in dense:
            place = row["network"], row["seed"]
            good = row["accuracy"] >= dense[row["network"]] - loss
            found[place] = max(found.get(place, 1.0), row["ratio"] if good else 1.0)
    return found


def side_by_side(rows: Sequence[Row], better: tuple[str, str], worse: tuple[str, str]) -> dict[str, dict[str, float]]:
    """Two methods on every network that has both: the difference of their accuracies in points, paired by seed.

    Args:
        rows: of the comparison. better, worse: (method, setting); the difference is better minus worse.
    Returns:
        {network: {"difference", "low", "high", "seeds"}}; low and high are Student's 95 % over the seeds; networks with under two seeds are left out.
    """
    runs: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in rows:
        runs.setdefault((row["network"], row["method"], row["setting"]), {})[row["seed"]] = 100 * row["accuracy"]
    found = {}
    for network in dict.fromkeys(row["network"] for row in rows):
        first, second = runs.get((network, *better), {}), runs.get((network, *worse), {})
        paired = [first[seed] - second[seed] for seed in first if seed in second]
        if len(paired) >= 2:
            difference, low, high = mean_interval(paired)
            found[network] = {"difference": difference, "low": low, "high": high, "seeds": len(paired)}
    return found


def verdict(compared: Mapping[str, Mapping[str, float]]) -> str:
    """In how many networks the expected method is ahead, behind, or neither.

    Example:
        >>> verdict({"a": {"low": 0.1, "high": 0.3}, "b": {"low": -0.1, "high": 0.2}})
        'ahead on 1, not distinguishable on 1 of 2'
    """
    ahead = sum(line["low"] > 0 for line in compared.values())
    behind = sum(line["high"] < 0 for line in compared.values())
    parts = [f"{word} on {count}" for word, count in (("ahead", ahead), ("behind", behind), ("not distinguishable", len(compared) - ahead - behind)) if count]
    return f"{', '.join(parts)} of {len(compared)}" if compared else "not measured"
