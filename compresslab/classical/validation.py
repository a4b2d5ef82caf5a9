r"""Is a small model worse, on a data set of a thousand points? Repeated cross-validation, and an honest
interval.

One split of a small data set says little: two hundred test points give an accuracy to three points at best.
So the data are cut into k folds, each fold is judged once by a model trained on the others, and all of it is
repeated r times with other cuts. That gives r k differences between two models, all judged on the same folds.

They are **not** independent: any two trainings share most of their points. The usual interval of a mean would
be several times too short. Nadeau and Bengio's correction adds the share that is common:

.. math:: \bar d \pm t_{rk-1} \sqrt{\Big(\frac{1}{rk} + \frac{n_{test}}{n_{train}}\Big)\, s_d^2}

Source: C. Nadeau and Y. Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003; for r
repeats of k folds: R. Bouckaert and E. Frank, "Evaluating the Replicability of Significance Tests for
Comparing Learning Algorithms", PAKDD 2004.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import RepeatedStratifiedKFold

from compresslab.core.errors import check_int
from compresslab.core.statistics import Difference


@dataclass(frozen=True)
class FoldDifference(Difference):
    """The mean scores of two models in cross-validation; ``n`` is the number of trainings of each."""

    n: int
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{super().__str__()}, {self.n} trainings"


def repeated_cv(
    estimators: dict[str, BaseEstimator],
    X: NDArray,
    y: NDArray,
    repeats: int = 10,
    folds: int = 5,
    seed: int = 0,
    n_jobs: int = 1,
) -> dict[str, NDArray]:
    """Scores of several estimators on the same folds, stratified by class, cut anew in every repeat.

    Args:
        estimators: {name: estimator}; they are cloned, never fitted themselves.
        X: (N, D). y: (N,).
        repeats, folds: how often, into how many parts; each part has at least one point of each class.
        seed: of the cuts. n_jobs: processes.

    Returns:
        {name: (repeats * folds,)}, accuracies as fractions, in one order for all: they are paired.

    Raises:
        TypeError, ValueError: ``repeats`` below 1, ``folds`` below 2, no estimator.
    """
    check_int("repeats", repeats, 1)
    check_int("folds", folds, 2)
    if not estimators:
        raise ValueError("there is no estimator to judge")
    cuts = list(RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=seed).split(X, y))
    jobs = (delayed(_score)(estimator, X, y, *cut) for estimator in estimators.values() for cut in cuts)
    scores = np.array(Parallel(n_jobs=n_jobs)(jobs)).reshape(len(estimators), len(cuts))
    return dict(zip(estimators, scores))


def _score(estimator: BaseEstimator, X: NDArray, y: NDArray, train: NDArray, test: NDArray) -> float:
    return float(clone(estimator).fit(X[train], y[train]).score(X[test], y[test]))


def paired_interval(
    a: ArrayLike, b: ArrayLike, test_fraction: float, confidence: float = 0.95
) -> FoldDifference:
    r"""The mean of a - b over the folds, with the corrected resampled t interval.

    Args:
        a, b: scores on the same folds, (n,), as ``repeated_cv`` gives them.
        test_fraction: share of the points that a fold tests, 1/k for k folds: n_test / n_train is f / (1 -
            f).
        confidence: of the interval, in (0, 1).

    Returns:
        a ``FoldDifference``; printed, it is in points (hundredths).

    Raises:
        ValueError: fewer than two scores, scores that do not pair, or a fraction that is not between 0 and 1.

    Example:
        >>> print(paired_interval([0.90, 0.92], [0.90, 0.90], test_fraction=0.5))
        +1.00 points [-21.01, +23.01], not distinguishable, 2 trainings
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(
            f"a and b must be two rows of as many scores, at least two; got shapes {a.shape} and {b.shape}"
        )
    for name, value in (("test_fraction", test_fraction), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value:g}")
    d = a - b
    error = math.sqrt((1 / len(d) + test_fraction / (1 - test_fraction)) * d.var(ddof=1))
    half = float(t.ppf((1 + confidence) / 2, len(d) - 1)) * error
    return FoldDifference(float(d.mean()), float(d.mean()) - half, float(d.mean()) + half, len(d), confidence)
