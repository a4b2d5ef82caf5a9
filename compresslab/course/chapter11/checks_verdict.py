"""What a right answer to exercise 11.9 must do: cases made up here, simple ones first."""

from __future__ import annotations

from typing import Any

from compresslab.course.chapter11.references_verdict import diagnose
from compresslab.course.trial import Trial

CAUSES = ("as hoped", "more work", "simulated", "zeros are multiplied", "no fast kernel", "indices", "memory", "small kernels")


def case(hoped: float, speedup: tuple[float, float, float], before: tuple, after: tuple, ridge: float = 8.0) -> dict[str, Any]:
    """A case in the learner's form; before and after are (macs, bytes, operations, zeros, sparse)."""
    keys = ("macs", "bytes", "operations", "zeros", "sparse")
    return {"hoped": hoped, "speedup": speedup, "before": dict(zip(keys, before, strict=True)), "after": dict(zip(keys, after, strict=True)), "ridge": ridge}


DENSE = (1000, 100, 10, 0.0, False)
CASES = (
    case(10, (1.0, 0.9, 1.1), DENSE, (1000, 100, 10, 0.9, False)),                       # mask only
    case(1.5, (0.5, 0.4, 0.6), DENSE, (2000, 150, 12, 0.0, False)),                      # low rank above break-even
    case(4, (0.4, 0.3, 0.5), DENSE, (1000, 300, 30, 0.0, False)),                        # simulated int8
    case(2, (0.3, 0.2, 0.4), DENSE, (1000, 50, 10, 0.02, False)),                        # fp16 without a kernel: some weights become 0
    case(2, (1.3, 1.2, 1.4), DENSE, (1000, 50, 10, 0.0, False)),                         # bf16 with a kernel, and copies
    case(2, (0.5, 0.4, 0.6), DENSE, (500, 80, 10, 0.0, True)),                           # sparse product
    case(10, (2.0, 1.8, 2.2), DENSE, (100, 80, 10, 0.0, True)),                          # sparse product, faster
    case(8, (1.2, 1.1, 1.3), DENSE, (125, 50, 14, 0.0, False)),                          # depthwise: 2.5 MACs a byte
    case(2, (0.9, 0.8, 1.0), DENSE, (500, 50, 18, 0.0, False)),                          # thin: 10 MACs a byte
    case(4, (4.3, 4.1, 4.5), DENSE, (250, 40, 10, 0.0, False)),                          # channels removed
    case(4, (3.9, 3.7, 4.1), DENSE, (250, 40, 10, 0.0, False)),                          # the hope lies in the interval
    case(4, (3.7, 3.5, 3.9), DENSE, (250, 10, 10, 0.0, False)),                          # now it lies above
    case(2, (1.1, 0.8, 1.4), (1000, 100, 10, 0.4, False), (1000, 40, 10, 0.4, False)),   # zeros that were there before
    case(2, (1.0, 0.8, 1.2), (1000, 100, 10, 0.1, False), (1000, 100, 12, 0.6, False)),  # zeros of rounding, or a mask in every run
    case(2, (0.7, 0.6, 0.8), DENSE, (400, 20, 12, 0.5, False)),                          # fewer MACs, some zeros, 20 MACs a byte
    case(2, (0.7, 0.6, 0.8), DENSE, (400, 100, 12, 0.2, True), ridge=2.0),               # sparse, and above the ridge
    case(2, (1.3, 0.7, 2.4), DENSE, (1000, 100, 10, 0.9, False)),                        # so wide that it refutes nothing
    case(2, (1.8, 1.6, 2.0), DENSE, (500, 60, 10, 0.0, False)),                          # reaches the hope, just
    case(2, (0.9, 0.8, 1.0), DENSE, (900, 110, 12, 0.0, False)),                         # a little less work, more bytes: 8.2 MACs a byte
    case(2, (0.9, 0.8, 1.0), DENSE, (400, 50, 12, 0.0, False)),                          # on the ridge
    case(5, (1.0, 0.95, 1.05), (1000, 500, 10, 0.0, False), (200, 10, 10, 0.0, False), ridge=4.0),
)  # fmt: skip


def random_case(t: Trial) -> dict[str, Any]:
    """A dense network of any kind, changed in one of the ways, with a speed-up that suits no theory."""
    macs, size, calls = t.integer(100, 900) * 60, t.integer(100, 900), t.integer(5, 40)
    before = (macs, size, calls, 0.25 * t.integer(0, 1), False)
    factor = (1, 1, 1, 2, 3, 4, 5, 0.5, 0.25)[t.integer(0, 8)]
    sparse = factor > 1 and t.integer(0, 2) == 0
    zeros = before[3] + (0.0, 0.03, 0.25, 0.5)[t.integer(0, 3)]
    after = (int(macs / factor), t.integer(50, 900), calls + t.integer(0, 1) * t.integer(1, 20), zeros, sparse)
    middle, hoped = t.uniform(0.3, 4), t.uniform(1.5, 5)
    return case(hoped, (middle, 0.9 * middle, 1.15 * middle), before, after, ridge=t.uniform(20, 200))


def verify_diagnose(t: Trial) -> str:
    cases = [*CASES, *(random_case(t) for _ in range(24))]
    for one in cases:
        answer = t.call(one)
        t.expect(isinstance(answer, tuple | list) and len(answer) == 3, "return three things: work, rate and the cause")
        work, rate, cause = t.number(answer[0]), t.number(answer[1]), answer[2]
        a, b = one["before"], one["after"]
        wanted = a["macs"] / b["macs"]
        told = f"{a['macs']} MACs before, {b['macs']} after"
        t.expect(abs(work - wanted) <= 1e-5 * wanted, f"{told}: that is {wanted:.4g} times less work, not {work:.4g}")
        t.expect(abs(work * rate - one["speedup"][0]) <= 1e-5 * one["speedup"][0], f"work times rate must be the speed-up {one['speedup'][0]:.4g}, yours is {work * rate:.4g}")
        t.expect(cause in CAUSES, f"the cause must be one of {', '.join(CAUSES)}; you say {cause!r}")
        right = diagnose(one)[2]
        t.expect(cause == right, f"you say {cause!r}, but {REASONS[right].format(high=one['speedup'][2], hoped=one['hoped'], ridge=one['ridge'], intensity=b['macs'] / b['bytes'])}")
    return f"{len(cases)} cases, seven kinds of disappointment and one hope fulfilled among them"


REASONS = {
    "as hoped": "its interval reaches up to {high:.3g}, and {hoped:.3g} was hoped for: the hope is not refuted",
    "more work": "it stays below the hope and does more MACs than before",
    "simulated": "it stays below the hope, does as many MACs as before and calls more operations",
    "zeros are multiplied": "it stays below the hope, does as many MACs as before in no more operations, and has many more zeros",
    "no fast kernel": "it stays below the hope, does as many MACs as before, without many new zeros, in no more operations",
    "indices": "it stays below the hope, does fewer MACs, and its product is a sparse one",
    "memory": "it stays below the hope, does fewer MACs, and {intensity:.3g} MACs per byte are below the ridge of {ridge:.3g}",
    "small kernels": "it stays below the hope, does fewer MACs, and {intensity:.3g} MACs per byte are not below the ridge of {ridge:.3g}",
}
