"""Other right answers to exercise 11.9: they must pass."""

from __future__ import annotations


def first_that_fits(case):
    """A list of (condition, cause), the first true one counts."""
    a, b = case["before"], case["after"]
    work = a["macs"] / b["macs"]
    rules = [
        (max(case["speedup"]) >= case["hoped"], "as hoped"),
        (b["macs"] > a["macs"], "more work"),
        (b["macs"] == a["macs"] and b["operations"] > a["operations"], "simulated"),
        (b["macs"] == a["macs"] and b["zeros"] - a["zeros"] > 0.1, "zeros are multiplied"),
        (b["macs"] == a["macs"], "no fast kernel"),
        (b["sparse"], "indices"),
        (b["macs"] < case["ridge"] * b["bytes"], "memory"),
        (True, "small kernels"),
    ]
    return [work, case["speedup"][0] / work, next(cause for holds, cause in rules if holds)]


def nested(case):
    """By the work first; returns early."""
    before, after = case["before"], case["after"]
    ratio, _, high = case["speedup"]
    rate = ratio * after["macs"] / before["macs"]
    work = ratio / rate

    def cause():
        if not high < case["hoped"]:
            return "as hoped"
        if after["macs"] < before["macs"]:
            if after["sparse"]:
                return "indices"
            return "small kernels" if after["macs"] / after["bytes"] >= case["ridge"] else "memory"
        if after["macs"] > before["macs"]:
            return "more work"
        if after["operations"] <= before["operations"]:
            return "no fast kernel" if after["zeros"] <= before["zeros"] + 0.1 else "zeros are multiplied"
        return "simulated"

    return work, rate, cause()
