"""The reference function of exercise 11.9: why a network did not get faster, from what was counted and measured."""

from __future__ import annotations

from typing import Any


def diagnose(case: dict[str, Any]) -> tuple[float, float, str]:
    """(work, rate, cause): how many times fewer MACs, how many times faster each, and why that is less than hoped for."""
    before, after = case["before"], case["after"]
    speedup, low, high = case["speedup"]
    work = before["macs"] / after["macs"]
    rate = speedup / work
    if high >= case["hoped"]:
        cause = "as hoped"
    elif work < 1:
        cause = "more work"
    elif work == 1 and after["operations"] > before["operations"]:
        cause = "simulated"
    elif work == 1:
        cause = "zeros are multiplied" if after["zeros"] > before["zeros"] + 0.1 else "no fast kernel"
    elif after["sparse"]:
        cause = "indices"
    else:
        cause = "memory" if after["macs"] / after["bytes"] < case["ridge"] else "small kernels"
    return work, rate, cause
