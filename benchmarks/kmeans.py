"""K-means on the line beside scikit-learn: 1 million normal weights into 16 centroids.

    python -m benchmarks kmeans

Both run until they have converged (scikit-learn's default tolerance; here until no weight changes its cluster),
and ours again with the 25 steps that a codebook takes by default. scikit-learn starts from one k-means++ draw,
a new one each time; a second start would only cost it time. Quality is the sum of squared distances reached.

Budget: 15 seconds.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from benchmarks.report import PEER, Table, against, threads_note, time_within
from compresslab.core.kmeans import kmeans_1d

BUDGET = 15  # seconds
ROUNDS_SECONDS = 7.0
CASES = {"25 steps": 25, "to the end": 1000}  # steps at most


def run(n: int = 1_000_000, k: int = 16) -> list[Table]:
    """Cluster ``n`` weights into ``k`` clusters with both."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_info

    values = torch.randn(n, generator=torch.Generator().manual_seed(0))
    column, seeds = values.numpy().reshape(-1, 1), itertools.count()
    reached: dict[str, list[float]] = {"scikit-learn": []}

    def theirs() -> None:
        found = KMeans(k, n_init=1, random_state=next(seeds)).fit(column)
        reached["scikit-learn"].append(inertia(values, torch.from_numpy(found.cluster_centers_[:, 0])))

    calls = {name: lambda steps=steps: kmeans_1d(values, k, iterations=steps) for name, steps in CASES.items()}
    times = time_within(calls | {"scikit-learn": theirs}, ROUNDS_SECONDS, most=12)
    peer = reached["scikit-learn"]
    rows = []
    for name, steps in CASES.items():
        ours = inertia(values, kmeans_1d(values, k, iterations=steps)[0])
        rows.append([name, *against(times["scikit-learn"], times[name]), f"{ours:.1f}", f"{min(peer):.1f} to {max(peer):.1f}"])
    threads = max((library["num_threads"] for library in threadpool_info()), default=1)
    note = f"{n:,} weights, {k} centroids; {threads_note()}, scikit-learn {threads}. Inertia: lower is better."
    return [Table("K-means on the line, against scikit-learn", note, ["ours", *PEER, "our inertia", "peer's inertia"], rows)]


def inertia(values: torch.Tensor, codebook: torch.Tensor) -> float:
    """The sum of squared distances to the nearest centroid, in float64."""
    centres = np.sort(codebook.double().numpy())
    exact = values.double().numpy()
    nearest = centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, exact)]
    return float(np.square(exact - nearest).sum())


if __name__ == "__main__":
    for table in run():
        print(table)
