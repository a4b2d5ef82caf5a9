"""Packing against memory: 10 million 4-bit codes packed and unpacked, beside a clone of the dense tensor.

    python benchmarks/bits.py

The three run in turn, again and again, so that a slow moment of the machine hits all of them; what is printed
is the median of the ratios of neighbours, and their quartiles.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import torch

from compresslab.core.bits import pack_bits, unpack_bits

N, BITS, ROUNDS = 10_000_000, 4, 21


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2**BITS, (N,), dtype=torch.uint8, generator=generator)
    dense = torch.randn(N, generator=generator)
    packed = pack_bits(codes, BITS)
    runs = {
        "clone": dense.clone,
        "pack": lambda: pack_bits(codes, BITS),
        "unpack": lambda: unpack_bits(packed, BITS, N),
    }
    for run in runs.values():
        run()
    times = {name: np.empty(ROUNDS) for name in runs}
    for round_number in range(ROUNDS):
        for name, run in runs.items():
            times[name][round_number] = seconds(run)
    print(
        f"{N:,} codes of {BITS} bits, {torch.get_num_threads()} of {os.cpu_count()} threads, {ROUNDS} rounds"
    )
    for name, samples in times.items():
        low, middle, high = np.quantile(samples / times["clone"], [0.25, 0.5, 0.75])
        print(f"{name:8}{np.median(samples) * 1e3:8.1f} ms   {middle:5.2f} x clone  [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
