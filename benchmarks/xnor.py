"""Popcount against floats: products of sign matrices in numpy, beside torch's float32 product.

    python -m benchmarks xnor

One word holds 64 signs, so a speed-up of 58 is easily claimed. numpy makes a pass through memory of each
exclusive-or and each popcount; the float product is a tuned library's. Packing the activations is timed apart:
the weights are packed once, the activations in every call.

Budget: 10 seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.report import Table, show_ratio, show_time, threads_note, time_within
from compresslab.core.timing import speedup
from compresslab.quantization.xnor import pack_signs, xnor_matmul

BUDGET = 10  # seconds
ROUNDS_SECONDS = 1.0  # for each size
SIZES = ((1, 1024, 1024), (1, 4096, 4096), (64, 1024, 64), (256, 1024, 256), (1024, 1024, 1024))


def run(sizes: Sequence[tuple[int, int, int]] = SIZES) -> list[Table]:
    """Products (rows, n) x (n, columns) of each size, which must be equal."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for count, n, columns in sizes:
        a = 2.0 * torch.randint(0, 2, (count, n), generator=generator) - 1
        b = 2.0 * torch.randint(0, 2, (columns, n), generator=generator) - 1
        packed_a, packed_b = pack_signs(a), pack_signs(b)
        if not np.array_equal(xnor_matmul(packed_a, packed_b, n), (a @ b.T).numpy()):
            raise RuntimeError("the two products differ")
        calls = {
            "torch": lambda a=a, b=b: a @ b.T,
            "popcount": lambda a=packed_a, b=packed_b, n=n: xnor_matmul(a, b, n),
            "packed first": lambda a=a, b=packed_b, n=n: xnor_matmul(pack_signs(a), b, n),
        }
        times = time_within(calls, ROUNDS_SECONDS)
        ratios = [show_ratio(speedup(times["torch"], times[name])) for name in ("popcount", "packed first")]
        sizes_shown = f"{4 * b.numel():,} / {packed_b.nbytes:,}"
        rows.append([f"({count}, {n}) x ({n}, {columns})", *map(show_time, times.values()), *ratios, sizes_shown])
    heads = ["product", "torch float32 (ms)", "popcount (ms)", "pack, popcount (ms)", "popcount: times as fast",
             "with packing: times as fast", "weight bytes, float / packed"]  # fmt: skip
    return [Table("Products of signs", f"{threads_note()}, popcount one thread. Results equal in every bit.", heads, rows)]


if __name__ == "__main__":
    for table in run():
        print(table)
