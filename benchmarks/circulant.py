"""From which size on is a circulant product by FFT faster than the dense product?

    python benchmarks/circulant.py

Chapter 06 ships one run of the same comparison as evidence.
"""

import torch

from compresslab.course.chapter06.evidence import BATCHES, crossover
from compresslab.course.chapter06.figures_structures import faster_from


def main() -> None:
    threads = torch.get_num_threads()
    for batch in BATCHES:
        rows = crossover(batch, threads=threads)["rows"]
        print(f"batch {batch}, {threads} threads")
        for row in rows:
            print(f"  n = {row['n']:5}   dense {row['dense_ms']:8.3f} ms   circulant {row['fft_ms']:8.3f} ms   "
                  f"{row['ratio']:6.2f} times as fast  [{row['low']:.2f}, {row['high']:.2f}]")
        first = faster_from(rows, batch)
        print(f"  faster from n = {first} on" if first else "  at no size faster")


if __name__ == "__main__":
    main()
