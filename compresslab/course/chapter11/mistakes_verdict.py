"""Wrong answers to exercise 11.9, each of a kind of its own."""

from __future__ import annotations

from compresslab.course.chapter11.references_verdict import diagnose as right


def _changed(case, **changes):
    return case | changes


def _unless(case, cause, enough):
    """The right answer where the hope is not met by this test of it."""
    if enough:
        return "as hoped"
    return right(_changed(case, hoped=float("inf")))[2] if cause == "as hoped" else cause


def believes_the_ratio(case):
    work, rate, cause = right(case)
    return work, rate, _unless(case, cause, case["speedup"][0] >= case["hoped"])


def asks_the_low_end(case):
    work, rate, cause = right(case)
    return work, rate, _unless(case, cause, case["speedup"][1] >= case["hoped"])


def any_gain(case):
    work, rate, cause = right(case)
    return work, rate, _unless(case, cause, case["speedup"][1] > 1)


def believes_the_operations(case):
    work, rate, cause = right(case)
    return work, rate, _unless(case, cause, work >= case["hoped"])


def work_upside_down(case):
    work, rate, cause = right(case)
    return 1 / work, case["speedup"][0] * work, cause


def rate_multiplied(case):
    work, rate, cause = right(case)
    return work, case["speedup"][0] * work, cause


def rate_is_speedup(case):
    work, rate, cause = right(case)
    return work, case["speedup"][0], cause


def work_from_zeros(case):
    after = case["after"]
    work, rate, cause = right(case)
    promised = 1 / (1 - after["zeros"]) if after["zeros"] < 1 else work
    return promised if after["zeros"] > 0 else work, case["speedup"][0] / promised if after["zeros"] > 0 else rate, cause


def work_in_bytes(case):
    work = case["before"]["bytes"] / case["after"]["bytes"]
    return work, case["speedup"][0] / work, right(case)[2]


def any_zeros(case):
    before = case["before"] | {"zeros": 0.0}
    return right(_changed(case, before=before))


def one_zero(case):
    work, rate, cause = right(case)
    more = case["after"]["zeros"] > case["before"]["zeros"]
    return work, rate, "zeros are multiplied" if cause == "no fast kernel" and more else cause


def zeros_before_operations(case):
    work, rate, cause = right(case)
    zeros = case["after"]["zeros"] > case["before"]["zeros"] + 0.1
    return work, rate, "zeros are multiplied" if cause == "simulated" and zeros else cause


def zeros_first(case):
    work, rate, cause = right(case)
    fits = cause != "as hoped" and case["after"]["zeros"] > case["before"]["zeros"] + 0.1
    return work, rate, "zeros are multiplied" if fits else cause


def never_zeros(case):
    return right(_changed(case, after=case["after"] | {"zeros": 0.0}))


def operations_first(case):
    work, rate, cause = right(case)
    more = case["after"]["operations"] > case["before"]["operations"]
    return work, rate, "simulated" if cause != "as hoped" and more else cause


def never_simulated(case):
    return right(_changed(case, after=case["after"] | {"operations": case["before"]["operations"]}))


def intensity_before(case):
    after = case["after"]
    changed = case["before"]["bytes"] / case["before"]["macs"] * after["macs"]
    return right(_changed(case, after=after | {"bytes": changed}))


def wrong_side(case):
    work, rate, cause = right(case)
    swapped = {"memory": "small kernels", "small kernels": "memory"}
    return work, rate, swapped.get(cause, cause)


def bytes_per_mac(case):
    after = case["after"]
    work, rate, cause = right(case)
    if cause in ("memory", "small kernels"):
        cause = "memory" if after["bytes"] / after["macs"] < case["ridge"] else "small kernels"
    return work, rate, cause


def indices_are_memory(case):
    return right(_changed(case, after=case["after"] | {"sparse": False}))


def more_work_forgotten(case):
    work, rate, cause = right(case)
    return work, rate, "small kernels" if cause == "more work" else cause
