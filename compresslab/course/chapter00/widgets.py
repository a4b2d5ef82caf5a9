"""Chapter 00: what the sliders compute and draw. The callbacks are plain functions, fast and tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compresslab.course.chapter00.references import roofline

DIFFERENCE = 0.002  # 98.1 % against 97.9 %
FLIP_RATES = (0.004, 0.01, 0.02, 0.04, 0.08)


def paired_intervals(thousands: float, difference: float = DIFFERENCE) -> list[tuple[float, float, float]]:
    """The 95 % interval of a paired difference, for networks that differ on more and more of the images.

    The variance of one image's d is the share of images on which one network only is right, minus the squared mean:

        margin = 1.96 sqrt((flips - difference^2) / n)

    Args:
        thousands: test images, in thousands.
        difference: the observed difference, a fraction; at most the smallest of `FLIP_RATES`.
    Returns:
        (flip rate, low, high) for each of `FLIP_RATES`, fractions.
    """
    n = 1000 * thousands
    margins = {flips: 1.96 * ((flips - difference**2) / n) ** 0.5 for flips in FLIP_RATES}
    return [(flips, difference - margin, difference + margin) for flips, margin in margins.items()]


def draw_paired_intervals(ax: Any, intervals: list[tuple[float, float, float]]) -> None:
    """One interval per flip rate; those that hold 0 are hollow."""
    for place, (_, low, high) in enumerate(intervals):
        told = low > 0
        color, line, fill = ("#0072B2", "-", "full") if told else ("#D55E00", "--", "none")
        ax.plot((100 * low, 100 * high), (place, place), color=color, linestyle=line)
        ax.plot(50 * (low + high), place, "o", color=color, fillstyle=fill)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(intervals)), [f"{100 * flips:g} %" for flips, _, _ in intervals])
    ax.set(xlabel="difference (points)", ylabel="images that flip", xlim=(-1.8, 2.2), ylim=(-0.6, len(intervals) - 0.4))
    ax.set_title(f"{sum(low > 0 for _, low, _ in intervals)} of {len(intervals)} told apart", fontsize=9)


@dataclass(frozen=True)
class OnTheRoof:
    """One matmul on the roofline: its intensity and rate, and the roof over a range of intensities."""

    batch: int
    intensity: float
    rate: float
    ridge: float
    roof: list[tuple[float, float]]


def point_on_the_roof(log2_batch: float, inputs: int, outputs: int, peak: float, bandwidth: float) -> OnTheRoof:
    """Where the matmul with batch 2^log2_batch lies under the roof min(peak, intensity * bandwidth).

    Args:
        log2_batch: 0 is batch 1, 8 is batch 256.
        peak: FLOP/s. bandwidth: bytes/s.
    """
    batch = round(2**log2_batch)
    intensity, seconds = roofline(batch, inputs, outputs, peak, bandwidth)
    grid = [2**e * 0.125 for e in range(13)]
    ridge = peak / bandwidth
    roof = [(x, min(peak, x * bandwidth)) for x in sorted([*grid, ridge])]
    return OnTheRoof(batch, intensity, 2 * batch * inputs * outputs / seconds, ridge, roof)


def draw_on_the_roof(ax: Any, data: OnTheRoof) -> None:
    """The roof in black, the point on it, and what limits it in the title."""
    ax.loglog([x for x, _ in data.roof], [rate / 1e9 for _, rate in data.roof], color="black")
    ax.plot(data.intensity, data.rate / 1e9, "o", color="#D55E00", markersize=9)
    ax.axvline(data.ridge, color="#7A7A7A", linestyle=":", linewidth=1)
    limit = "memory" if data.intensity < data.ridge else "arithmetic"
    ax.set(xlabel="intensity (FLOP per byte)", ylabel="attainable GFLOP/s")
    ax.minorticks_off()
    ax.set_title(f"batch {data.batch}: waits for {limit}", fontsize=9)
