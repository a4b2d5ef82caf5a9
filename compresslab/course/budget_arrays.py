"""The open task of the chapter on classical models: a file of arrays, judged where nothing can hide.

Like `budget`, with which it shares the fresh process, the hidden seed and the words. The file is one that
`compresslab.classical.size.save_model` wrote: arrays, and the name of one of the library's estimators. The
judge brings that estimator back, counts every byte of the file and lets it classify freshly drawn ink digits,
pooled to few grey values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compresslab.course.budget import BudgetTask, Report


@dataclass(frozen=True)
class ArraysTask(BudgetTask):
    """A budget for a classical model.

    Args:
        dataset, input_shape, max_bytes, min_accuracy, images: as in `BudgetTask`. The other limits are for networks.
        pooling: side of the squares of pixels whose mean is one feature.
    """

    writer: ClassVar[str] = "save_model"

    pooling: int = 4

    def summary(self, report: Report) -> str:
        """What a file that keeps the budget is."""
        return f"{report.bytes:,} bytes, {report.accuracy:.2%} on {report.images:,} fresh images"


def pooled_features(split: Any, pooling: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Images as short vectors: the mean of every square of pixels, in [0, 1].

    Args:
        split: images (n, 1, H, W) of 0 to 255. pooling: side of a square, a divisor of H and W.
    Returns:
        X (n, H * W / pooling**2), float32, row after row; y (n,).
    """
    images = split.images.numpy()
    n, _, height, width = images.shape
    squares = images.reshape(n, height // pooling, pooling, width // pooling, pooling).astype(np.float32)
    return squares.mean((2, 4)).reshape(n, -1) / 255, split.labels.numpy()


def measure_arrays(request: dict[str, Any]) -> Report:
    """Load the file, count it, judge it: runs in the fresh process."""
    from compresslab.classical.size import load_model
    from compresslab.data import fresh_data

    path = Path(request["path"])
    size = path.stat().st_size
    try:
        model = load_model(path)
    except Exception as error:
        return Report(size, problem=f"the file cannot be loaded: {error}")
    if request["max_bytes"] is not None and size > request["max_bytes"]:
        return Report(size)  # too large, however good
    X, y = pooled_features(fresh_data(request["dataset"], request["images"], seed=request["seed"]), request["pooling"])
    try:
        accuracy = float((model.predict(X) == y).mean())
    except Exception as error:
        return Report(size, problem=f"the model cannot classify {X.shape[1]} features: {error}")
    return Report(size, accuracy=accuracy, images=request["images"])
