"""What the slider of the roofline computes: every layer of a network at a batch size, in 32 and in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

OnTheRoof = Callable[..., tuple[float, float]]


class BatchOnTheRoof:
    """Intensity and attainable MACs per second of every layer, for a batch size.

    Args:
        on_the_roof: the function of exercise 11.7.
        shapes: (name, weight, image, output) of each layer.
        peaks: MACs per second, by bits per number. bandwidth: bytes per second.
    """

    def __init__(self, on_the_roof: OnTheRoof, shapes: Sequence[tuple], peaks: Mapping[int, float], bandwidth: float) -> None:
        self.on_the_roof, self.shapes, self.peaks, self.bandwidth = on_the_roof, shapes, dict(peaks), bandwidth

    def __call__(self, batch: float) -> dict[str, Any]:
        series = {}
        for bits, peak in self.peaks.items():
            points = [(name, *map(float, self.on_the_roof(*shape, int(batch), bits, peak, self.bandwidth))) for name, *shape in self.shapes]
            waiting = [name for name, intensity, _ in points if intensity < peak / self.bandwidth]
            series[bits] = {"points": points, "peak": peak, "waiting": len(waiting)}
        return {"batch": int(batch), "bandwidth": self.bandwidth, "series": series}
