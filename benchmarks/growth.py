"""How the cost grows: pruning, k-means, GPTQ, Huffman and packing from 10,000 to 100 million weights.

    python -m benchmarks growth ["k-means, 16 clusters" ...]

Every point is measured in a process of its own, so that its high-water mark of memory is its own and nothing
is left over from the size before. A cost of c n^s is a straight line of slope s on log-log paper; s is fitted
by least squares over the sizes from a million up, where the fixed cost of a call no longer counts. A size that
would take too long or too much memory, judged by the one before, is left out, and the table says why.

Budget: 240 seconds. Writes `growth.svg` beside this file.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.report import Table, threads_note

BUDGET = 240  # seconds
SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
FITTED_FROM = 1_000_000  # weights; smaller sizes measure the call, not the work
LONGEST = 20.0  # seconds that one point may take, judged by the size before
ENOUGH = 1.0  # seconds after which a point is not measured again
MEMORY_SHARE = 0.8  # of the free memory that a point may take
ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path(__file__).with_name("growth.svg")

Call = Callable[[], object]


class Operation(NamedTuple):
    """What is measured: ``prepare(n)`` makes the input and returns the call; the cost should grow as n^power."""

    prepare: Callable[[int], Call]
    power: float
    why: str


class Point(NamedTuple):
    """One size, measured in its own process: seconds of a call, bytes of memory above what stood before it."""

    n: int
    seconds: float
    q1: float
    q3: float
    rounds: int
    input_bytes: int
    peak_bytes: int


class Slope(NamedTuple):
    """The slope of a line on log-log paper, its standard error, and the slope between the last two points."""

    slope: float
    error: float
    last: float


def _normal(*shape: int):
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _symbols(n: int):
    """Four-bit symbols with the frequencies of rounded normal weights, uint8."""
    import torch

    return _normal(n).mul_(3).round_().clamp_(-8, 7).add_(8).to(torch.uint8)


def prepare_copy(n: int) -> Call:
    """A copy of the weights, float32: what reading and writing them once costs."""
    return _normal(n).clone


def prepare_mask(n: int) -> Call:
    """The mask of the largest tenth."""
    from compresslab.pruning.magnitude import magnitude_mask

    weight = _normal(n)
    return lambda: magnitude_mask(weight, 0.9)


def prepare_kmeans(n: int) -> Call:
    """Sixteen clusters, 25 steps at most, as a code book takes them."""
    from compresslab.core.kmeans import kmeans_1d

    values = _normal(n)
    return lambda: kmeans_1d(values, 16, iterations=25)


def prepare_gptq(rows: int, columns: int) -> Call:
    """Four bits, a scale for each row; H of correlated inputs."""
    import torch

    from compresslab.quantization.gptq import gptq

    weight, factors = _normal(rows, columns), _normal(64, columns)
    H = factors.T @ factors / 64 + torch.eye(columns)
    return lambda: gptq(weight, H, 4)


def prepare_encode(n: int) -> Call:
    """Four-bit symbols to a Huffman stream."""
    from compresslab.core.huffman import huffman_encode

    symbols = _symbols(n)
    return lambda: huffman_encode(symbols)


def prepare_decode(n: int) -> Call:
    """The stream back to symbols."""
    from compresslab.core.huffman import huffman_decode, huffman_encode

    stream = huffman_encode(_symbols(n))
    return lambda: huffman_decode(stream)


def prepare_pack(n: int) -> Call:
    """Codes of three bits, which straddle bytes."""
    from compresslab.core.bits import pack_bits

    codes = _symbols(n).floor_divide_(2)
    return lambda: pack_bits(codes, 3)


def prepare_unpack(n: int) -> Call:
    """The packed codes back to int32."""
    from compresslab.core.bits import pack_bits, unpack_bits

    packed = pack_bits(_symbols(n).floor_divide_(2), 3)
    return lambda: unpack_bits(packed, 3, n)


OPERATIONS: dict[str, Operation] = {  # the dear ones last: they may use up the budget
    "copy": Operation(prepare_copy, 1, "reads and writes each weight once"),
    "pruning mask": Operation(prepare_mask, 1, "one selection"),
    "Huffman encode": Operation(prepare_encode, 1, "one pass"),
    "Huffman decode": Operation(prepare_decode, 1, "one pass"),
    "pack 3 bits": Operation(prepare_pack, 1, "one pass"),
    "unpack 3 bits": Operation(prepare_unpack, 1, "one pass"),
    "k-means, 16 clusters": Operation(prepare_kmeans, 1, "one sort, n log n; the steps do not depend on n"),
    "GPTQ, square": Operation(lambda n: prepare_gptq(math.isqrt(n), math.isqrt(n)), 1.5, "side cubed"),
    "GPTQ, 512 columns": Operation(lambda n: prepare_gptq(max(n // 512, 1), 512), 1, "rows x 512 x 512"),
}


def measure(name: str, n: int) -> Point:
    """Measure one point in this process, which should be fresh: the memory of a first call, the time of the next."""
    from benchmarks._memory import forget_high_water, high_water_bytes, resident_bytes

    operation = OPERATIONS[name]
    operation.prepare(SIZES[0])()
    before_input = resident_bytes()
    call = operation.prepare(n)
    forget_high_water()  # making the input may have taken more than the call will
    before = resident_bytes()
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    peak = max(high_water_bytes() - before, 0)  # of one call: what allocators keep of many is theirs
    samples: list[float] = [first] if first > ENOUGH else []  # else it warmed up
    while not samples or (sum(samples) < ENOUGH and len(samples) < 15):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    q1, median, q3 = np.quantile(samples, [0.25, 0.5, 0.75]).tolist()
    return Point(n, median, q1, q3, len(samples), max(before - before_input, 0), peak)


def measure_apart(name: str, n: int, limit: float) -> Point | str:
    """`measure` in a fresh process; a sentence where it died or took longer than ``limit`` seconds."""
    command = [sys.executable, "-m", "benchmarks.growth", name, str(n)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"the process ended with code {done.returncode}: {last[:100]}"
    return Point(**json.loads(done.stdout.splitlines()[-1]))


def refusal(points: Sequence[Point], n: int, power: float, seconds: float, free_bytes: float) -> str | None:
    """Why the size ``n`` is not tried: too long or too much memory, judged by the last point; None if it fits.

    Args:
        points: of the smaller sizes; without any the size is tried.
        n: the size to judge.
        power: the cost is taken to grow as n^power.
        seconds, free_bytes: what there is.

    Example:
        >>> refusal([Point(100, 2.0, 2.0, 2.0, 1, 0, 800)], 1000, power=1, seconds=10, free_bytes=1e9)
        'about 20 s, more than 10 s'
    """
    if seconds <= 0:
        return "the budget is used up"
    if not points:
        return None
    last = points[-1]
    needed = last.seconds * (n / last.n) ** power
    if needed > seconds:
        return f"about {needed:.0f} s, more than {seconds:.0f} s"
    memory = (last.input_bytes + last.peak_bytes) * n / last.n
    if memory > MEMORY_SHARE * free_bytes:
        return f"about {memory / 1e9:.1f} GB, more than {MEMORY_SHARE:.0%} of the free {free_bytes / 1e9:.1f} GB"
    return None


def fit_slope(sizes: Sequence[float], costs: Sequence[float]) -> Slope:
    r"""The power s of costs c n^s: least squares on the logarithms.

    .. math:: s = \frac{\sum (x - \bar x)(y - \bar y)}{\sum (x - \bar x)^2}, \qquad x = \log n, y = \log \mathrm{cost}

    Args:
        sizes, costs: positive, as many of each, at least two, the sizes ascending.

    Returns:
        the slope; its standard error (nan for two points, which every line meets); the slope of the last step.

    Example:
        >>> fit_slope([10, 100, 1000], [3, 300, 30000])
        Slope(slope=2.0, error=0.0, last=2.0)
    """
    if len(sizes) != len(costs) or len(sizes) < 2:
        raise ValueError(f"a slope needs two points or more, got {len(sizes)} sizes and {len(costs)} costs")
    if min(*sizes, *costs) <= 0:
        raise ValueError("sizes and costs must be positive: their logarithms are fitted")
    x, y = np.log10(sizes), np.log10(costs)
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    rest = y - slope * x
    error = math.sqrt(rest @ rest / (len(x) - 2) / (x @ x)) if len(x) > 2 else math.nan
    last = float((y[-1] - y[-2]) / (x[-1] - x[-2]))
    return Slope(round(slope, 9), round(error, 9), round(last, 9))


def run(names: Sequence[str] = (), sizes: Sequence[int] = SIZES, picture: Path = PICTURE) -> list[Table]:
    """Measure the curves of these operations, or all; draw them where all were wanted; return the tables."""
    from benchmarks._memory import available_bytes

    if unknown := set(names) - set(OPERATIONS):
        raise ValueError(f"there is no operation {min(unknown)!r}; there are {', '.join(OPERATIONS)}")
    curves: dict[str, list[Point]] = {}
    reasons: dict[str, str] = {}
    end = time.monotonic() + BUDGET
    for name in names or OPERATIONS:
        points = curves[name] = []
        for n in sizes:
            left = min(LONGEST, end - time.monotonic())
            got = refusal(points, n, OPERATIONS[name].power, left, available_bytes()) or measure_apart(name, n, 3 * LONGEST)
            if isinstance(got, str):
                reasons[name] = f"{_power_of_ten(n)}: {got}"
                break
            points.append(got)
    if not names:
        draw(curves, picture)
    return tables(curves, reasons, sizes)


def tables(curves: dict[str, list[Point]], reasons: dict[str, str], sizes: Sequence[int]) -> list[Table]:
    """Seconds by size, the slopes, and the memory by size."""
    heads = [_power_of_ten(n) for n in sizes]
    note = f"Median of up to 15 calls in a fresh process for each point; {threads_note()}."
    seconds = [[name, *_padded([_time(p) for p in points], len(sizes))] for name, points in curves.items()]
    memory = [[name, *_padded([f"{p.peak_bytes / 1e6:.1f}" for p in points], len(sizes))]
              for name, points in curves.items()]  # fmt: skip
    slopes = [_slope_row(name, points, reasons.get(name, "")) for name, points in curves.items() if points]
    return [
        Table("Time of one call, by number of weights", note, ["operation", *heads], seconds),
        Table(
            "How the time grows",
            f"Slope of log time over log n by least squares from {_power_of_ten(FITTED_FROM)} weights up, with its "
            "standard error, and between the last two sizes; picture: growth.svg.",
            ["operation", "slope", "last step", "expected", "because", "ns per weight", "bytes per weight", "left out"],
            slopes,
        ),
        Table(
            "Memory above the input, by number of weights (MB)",
            "High-water mark of the process during a first call, less what stood before them (input included there); "
            "what a call returns is counted.",
            ["operation", *heads],
            memory,
        ),
    ]


def _slope_row(name: str, points: list[Point], reason: str) -> list[str]:
    """One row of the second table; time and memory per weight are those of the largest size."""
    operation, largest = OPERATIONS[name], points[-1]
    fitted = [p for p in points if p.n >= FITTED_FROM]
    shown = ["", ""]
    if len(fitted) >= 2:
        slope = fit_slope([p.n for p in fitted], [p.seconds for p in fitted])
        shown = [f"{slope.slope:.2f} ± {slope.error:.2f}" if len(fitted) > 2 else f"{slope.slope:.2f}", f"{slope.last:.2f}"]
    each = [f"{largest.seconds / largest.n * 1e9:.2f}", f"{largest.peak_bytes / largest.n:.1f}"]
    return [name, *shown, f"{operation.power:g}", operation.why, *each, reason]


def _time(point: Point) -> str:
    """A time in the unit that suits it: milliseconds, or seconds from a second on."""
    if point.seconds >= 1:
        return f"{point.seconds:.2f} s"
    return f"{point.seconds * 1e3:.3g} ms"


def _padded(cells: list[str], length: int) -> list[str]:
    return cells + [""] * (length - len(cells))


def _power_of_ten(n: int) -> str:
    """``10^6``, or the number in full where it is no power of ten."""
    power = round(math.log10(n))
    return f"10^{power}" if 10**power == n else f"{n:,}"


def draw(curves: dict[str, list[Point]], path: Path) -> None:
    """Both costs on log-log paper, with a dotted line of slope 1 to compare with; written as SVG."""
    import matplotlib.pyplot as plt

    from compresslab.course import plots

    with plt.rc_context():
        plots.style()
        plt.rcParams["svg.hashsalt"] = "compresslab"
        figure, axes = plt.subplots(1, 2, figsize=(10, 4.2))
        looks = [*plots.FAMILIES.values(), ("#882255", "d", (0, (3, 1)))]
        for (name, points), (color, marker, line) in zip(curves.items(), looks, strict=False):
            sizes = [p.n for p in points]
            look = {"color": color, "marker": marker, "linestyle": line, "markersize": 5}
            axes[0].plot(sizes, [p.seconds for p in points], label=name, **look)
            axes[1].plot(sizes, [max(p.peak_bytes, 1e4) for p in points], **look)
        for ax, start in zip(axes, (1e-9, 10), strict=True):
            ends = np.array([min(SIZES), max(SIZES)])
            ax.plot(ends, start * ends, ":", color="#BBBBBB", zorder=0, label="slope 1" if ax is axes[0] else None)
            ax.set(xscale="log", yscale="log", xlabel="weights")
        axes[0].set(ylabel="seconds of one call", title="time")
        axes[1].set(ylabel="bytes above the input", title="memory, high-water mark")
        figure.legend(loc="outside right upper", fontsize=9)
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))._asdict()))
