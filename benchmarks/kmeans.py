"""K-means on the line beside scikit-learn: 1 million normal weights into 16 centroids.

    python benchmarks/kmeans.py

Both run until they have converged (scikit-learn's default tolerance; here until no weight changes its
cluster, and again with the 25 steps that a codebook takes by default). scikit-learn starts from one k-means++
draw, a new one each round; a second start would only cost it time. The runs alternate; printed are the
medians and quartiles of the ratio of neighbours, and the sum of squared distances that each one reached.
"""

import os
import time

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info

from compresslab.core.kmeans import kmeans_1d

N, K, ROUNDS = 1_000_000, 16, 7


def ours(values: torch.Tensor, iterations: int) -> tuple[float, float]:
    """Seconds, and the sum of squared distances."""
    start = time.perf_counter()
    codebook, indices = kmeans_1d(values, K, iterations=iterations)
    seconds = time.perf_counter() - start
    return seconds, (values.double() - codebook.double()[indices]).square().sum().item()


def theirs(column: np.ndarray, seed: int) -> tuple[float, float]:
    """Seconds, and the sum of squared distances."""
    start = time.perf_counter()
    found = KMeans(K, n_init=1, random_state=seed).fit(column)
    seconds = time.perf_counter() - start
    distances = column.astype(np.float64)[:, 0] - found.cluster_centers_.astype(np.float64)[found.labels_, 0]
    return seconds, float(np.square(distances).sum())


def main() -> None:
    values = torch.randn(N, generator=torch.Generator().manual_seed(0))
    column = values.numpy().reshape(-1, 1)
    ours(values, 25)
    rows = np.array(
        [(*ours(values, 25), *ours(values, 1000), *theirs(column, seed)) for seed in range(ROUNDS)]
    )
    threads = max(library["num_threads"] for library in threadpool_info())
    print(
        f"{N:,} weights, {K} centroids, {ROUNDS} rounds; torch {torch.get_num_threads()}, "
        f"scikit-learn {threads} of {os.cpu_count()} threads"
    )
    names = ("compresslab, 25 steps", "compresslab, to the end", "scikit-learn")
    for name, (seconds, inertia) in zip(names, rows.T.reshape(3, 2, ROUNDS), strict=True):
        low, middle, high = np.quantile(seconds / rows[:, 4], [0.25, 0.5, 0.75])
        print(
            f"{name:24}{np.median(seconds) * 1e3:8.1f} ms   {middle:.4f} x scikit-learn"
            f"  [{low:.4f}, {high:.4f}]   inertia {inertia.min():.1f} to {inertia.max():.1f}"
        )


if __name__ == "__main__":
    main()
