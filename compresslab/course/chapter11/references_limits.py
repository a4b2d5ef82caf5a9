"""The reference functions of exercises 11.7 and 11.8: a layer on the roofline, and the gain of a whole network."""

from __future__ import annotations

from math import prod


def on_the_roof(weight: tuple, image: tuple, out: tuple, batch: int, bits: float, peak: float, bandwidth: float) -> tuple[float, float]:
    """(MACs per byte, the most MACs per second) of a convolution or a linear layer, from its shapes."""
    macs = batch * prod(out) * prod(weight[1:])
    numbers = prod(weight) + batch * (prod(image) + prod(out))
    intensity = macs / (numbers * bits / 8)
    return intensity, min(peak, bandwidth * intensity)


def predict_gain(before: list, after: list, bandwidth: float, rest: float) -> float:
    """How many times faster a network gets; its layers are (MACs, bytes, peak), `rest` are seconds that stay."""
    old, new = rest, rest
    for macs, moved, peak in before:
        old += max(macs / peak, moved / bandwidth)
    for macs, moved, peak in after:
        new += max(macs / peak, moved / bandwidth)
    return old / new
