"""What a right answer to exercises 11.7 and 11.8 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compresslab.course.trial import Trial

# -- 11.7 a layer on the roof ------------------------------------------------------------------------

LAYERS = (  # weight, image, output: grouped and strided, depthwise, 1x1, no padding, linear, a layer of resnet8
    ((4, 2, 3, 3), (4, 5, 5), (4, 3, 3)),
    ((3, 1, 3, 3), (3, 4, 4), (3, 4, 4)),
    ((2, 6, 1, 1), (6, 3, 3), (2, 3, 3)),
    ((5, 2, 3, 2), (2, 5, 4), (5, 3, 3)),
    ((10, 64), (64,), (10,)),
    ((32, 16, 3, 3), (16, 32, 32), (32, 16, 16)),
)


def limits(weight: Sequence[int], image: Sequence[int], out: Sequence[int], batch: int, bits: float) -> tuple[int, float]:
    """MACs and bytes of a layer for a whole batch."""
    per_output = math.prod(weight) // weight[0]
    moved = math.prod(weight) + batch * math.prod(image) + batch * math.prod(out)
    return batch * math.prod(out) * per_output, moved * bits / 8


def verify_on_the_roof(t: Trial) -> str:
    cases = [(*layer, batch, bits, 1000.0, slow) for layer in LAYERS for batch, bits, slow in ((3, 16, 7.0), (1, 8, 7000.0), (8, 32, 7.0))]
    for _ in range(8):
        side, kernel, stride = t.integer(4, 9), t.integer(1, 3), t.integer(1, 2)
        weight = (t.integer(2, 9), t.integer(1, 4), kernel, kernel)
        groups = t.integer(1, 2)
        out = (side - kernel) // stride + 1
        cases.append((weight, (weight[1] * groups, side, side), (weight[0], out, out), t.integer(1, 32), float(t.integer(2, 32)), t.uniform(1, 50) * 1e9, t.uniform(1, 30) * 1e9))
    for weight, image, out, batch, bits, peak, bandwidth in cases:
        answer = t.call(weight, image, out, batch, bits, peak, bandwidth)
        t.expect(isinstance(answer, tuple | list) and len(answer) == 2, "return two numbers: MACs per byte, and the most MACs per second")
        intensity, rate = (t.number(value) for value in answer)
        macs, moved = limits(weight, image, out, batch, bits)
        t.expect(abs(intensity - macs / moved) <= 1e-5 * macs / moved,
                 f"{macs:,} MACs for {moved:,.6g} bytes are {macs / moved:.5g} MACs per byte, you return {intensity:.5g}")
        wanted = macs / max(macs / peak, moved / bandwidth)
        t.expect(abs(rate - wanted) <= 1e-5 * wanted, f"at {intensity:.5g} MACs per byte {wanted:.5g} MACs per second are possible, you return {rate:.5g}")
    return f"{len(cases)} layers, some under the slope and some under the flat part, grouped, strided and linear ones among them"


# -- 11.8 the gain of a network ----------------------------------------------------------------------

NETWORKS = (  # before, after, bandwidth, rest; the peak of a layer stands in the layer
    ([(900.0, 20.0, 100.0), (100.0, 70.0, 100.0), (300.0, 50.0, 100.0)], [(900.0, 5.0, 400.0), (100.0, 17.5, 400.0), (300.0, 50.0, 100.0)], 10.0, 1.7),
    ([(900.0, 20.0, 100.0), (100.0, 70.0, 100.0), (200.0, 60.0, 100.0)], [(400.0, 10.0, 100.0), (50.0, 35.0, 100.0), (150.0, 40.0, 100.0)], 10.0, 0.0),
    ([(800.0, 90.0, 100.0), (500.0, 30.0, 100.0)], [(100.0, 30.0, 100.0), (100.0, 20.0, 100.0), (500.0, 30.0, 100.0)], 10.0, 2.0),
)  # fmt: skip


def verify_predict_gain(t: Trial) -> str:
    cases = list(NETWORKS)
    for _ in range(8):
        before = [(t.uniform(1, 90) * 1e6, t.uniform(0.1, 9) * 1e6, 4e10) for _ in range(t.integer(1, 6))]
        after = [(macs * t.uniform(0.2, 1), moved * t.uniform(0.2, 1), peak * t.integer(1, 4)) for macs, moved, peak in before]
        cases.append((before, after[:1] * t.integer(1, 2) + after[1:], t.uniform(4, 20) * 1e9, t.uniform(0, 1e-3)))
    for before, after, bandwidth, rest in cases:
        gain = t.number(t.call(before, after, bandwidth, rest))
        old, new = (rest + sum(max(macs / peak, moved / bandwidth) for macs, moved, peak in layers) for layers in (before, after))
        t.expect(math.isfinite(gain) and abs(gain - old / new) <= 1e-5 * old / new,
                 f"{old:.4g} s become {new:.4g} s, {old / new:.4g} times faster; you return {gain:.4g}")
    return f"{len(cases)} networks: times are added up first and divided then"
