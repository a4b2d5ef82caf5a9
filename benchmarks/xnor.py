"""Popcount against floats: products of sign matrices in numpy, beside torch's float32 product.

    python benchmarks/xnor.py

One word holds 64 signs, so a speed-up of 58 is easily claimed. numpy makes a pass through memory of each
exclusive-or and each popcount; the float product is a tuned library's. Packing the activations is timed
apart: the weights are packed once, the activations in every call. The runs alternate; printed are the
medians, and the median and quartiles of the ratio to torch, below 1 is faster.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import torch

from compresslab.quantization.xnor import pack_signs, xnor_matmul

SIZES = [(1, 1024, 1024), (1, 4096, 4096), (64, 1024, 64), (256, 1024, 256), (1024, 1024, 1024)]
ROUNDS = 15


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    print(f"torch {torch.get_num_threads()} of {os.cpu_count()} threads, popcount 1 thread, {ROUNDS} rounds")
    generator = torch.Generator().manual_seed(0)
    for rows, n, columns in SIZES:
        a = 2.0 * torch.randint(0, 2, (rows, n), generator=generator) - 1
        b = 2.0 * torch.randint(0, 2, (columns, n), generator=generator) - 1
        packed_a, packed_b = pack_signs(a), pack_signs(b)
        if not np.array_equal(xnor_matmul(packed_a, packed_b, n), (a @ b.T).numpy()):
            raise RuntimeError("the two products differ")
        runs = {
            "torch float32": lambda a=a, b=b: a @ b.T,
            "numpy float32": lambda a=a.numpy(), b=b.numpy(): a @ b.T,
            "popcount": lambda a=packed_a, b=packed_b, n=n: xnor_matmul(a, b, n),
            "pack, popcount": lambda a=a, b=packed_b, n=n: xnor_matmul(pack_signs(a), b, n),
        }
        times = {name: np.array([]) for name in runs}
        for _ in range(ROUNDS + 1):  # the first round warms up
            for name, run in runs.items():
                times[name] = np.append(times[name], seconds(run))
        print(f"({rows}, {n}) x ({n}, {columns}): {4 * b.numel():,} bytes, {packed_b.nbytes:,} packed")
        for name, samples in times.items():
            low, middle, high = np.quantile(samples[1:] / times["torch float32"][1:], [0.25, 0.5, 0.75])
            milliseconds = np.median(samples[1:]) * 1e3
            print(f"  {name:15}{milliseconds:9.3f} ms   {middle:5.2f} x torch  [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
