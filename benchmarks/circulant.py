"""From which size on is a circulant product by FFT faster than the dense product?

    python -m benchmarks circulant

Chapter 06 ships one run of the same comparison as evidence.

Budget: 15 seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.report import Table, threads_note
from compresslab.course.chapter06.evidence import BATCHES, crossover
from compresslab.course.chapter06.figures_structures import faster_from

BUDGET = 15  # seconds


def run(batches: Sequence[int] = BATCHES) -> list[Table]:
    """One table per batch size."""
    return [_table(batch) for batch in batches]


def _table(batch: int) -> Table:
    rows = crossover(batch, threads=torch.get_num_threads())["rows"]
    first = faster_from(rows, batch)
    found = f"The FFT is faster from n = {first} on." if first else "The FFT is at no size faster."
    shown = [[f"n = {row['n']}", f"{row['fft_ms']:.3f}", f"{row['dense_ms']:.3f}",
              f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"] for row in rows]  # fmt: skip
    columns = ["size", "circulant (ms)", "dense (ms)", "times as fast"]
    return Table(f"Circulant against dense, batch {batch}", f"{found} {threads_note()}.", columns, shown)


if __name__ == "__main__":
    for table in run():
        print(table)
