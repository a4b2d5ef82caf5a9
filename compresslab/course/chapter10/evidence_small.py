"""What the second half of chapter 10 shows without computing it again: neighbours, two kilobytes, kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from compresslab.classical.bonsai import BonsaiClassifier
from compresslab.classical.condensed import CondensedNeighborsClassifier
from compresslab.classical.product_index import ProductNeighborsClassifier
from compresslab.classical.prototypes import ProtoNNClassifier
from compresslab.classical.random_features import FourierFeatures, NystromFeatures
from compresslab.classical.reduced_set import ReducedSetClassifier
from compresslab.classical.size import array_bytes, model_arrays, model_bytes
from compresslab.classical.validation import paired_interval, repeated_cv

FOLDS = 5


def _digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def _cancer() -> tuple[Any, Any]:
    X, y = load_breast_cancer(return_X_y=True)
    return X / X.max(0), y


def _judged(named: dict[str, BaseEstimator], X: Any, y: Any, repeats: int, baseline: str) -> list[dict[str, Any]]:
    """A row for each model: bytes when trained on a fold's share of the points, accuracy, loss with its interval."""
    scores = repeated_cv(named, X, y, repeats=repeats, folds=FOLDS)
    share = slice(0, len(X) - len(X) // FOLDS)
    rows = []
    for name, model in named.items():
        fitted = model.fit(X[share], y[share])
        lost = paired_interval(scores[baseline], scores[name], 1 / FOLDS)
        rows.append({"name": name, "bytes": model_bytes(fitted), "constants": array_bytes(model_arrays(fitted)), "accuracy": float(scores[name].mean()),
                     "loss": lost.difference, "low": lost.low, "high": lost.high, "trainings": lost.n})
    return rows


def neighbours() -> list[dict[str, Any]]:
    """The goal: nearest neighbours at a twentieth of the bytes, at no more than one point lost; ten times five folds of the digits."""
    named: dict[str, BaseEstimator] = {
        "1 nearest neighbour": KNeighborsClassifier(1),
        "Hart, 8 bits": CondensedNeighborsClassifier(),
        "product codes": ProductNeighborsClassifier(),
        "ProtoNN, 10 x 40": ProtoNNClassifier(),
        "ProtoNN, 16 x 80": ProtoNNClassifier(dimensions=16, per_class=8),
    }
    return _judged(named, *_digits(), 10, "1 nearest neighbour")


def neighbours_of_patients() -> list[dict[str, Any]]:
    """The same on the breast cancer data, each measurement divided by its largest."""
    named: dict[str, BaseEstimator] = {
        "1 nearest neighbour": KNeighborsClassifier(1),
        "Hart, 8 bits": CondensedNeighborsClassifier(),
        "ProtoNN, 6 x 6": ProtoNNClassifier(dimensions=6, per_class=3),
    }
    return _judged(named, *_cancer(), 10, "1 nearest neighbour")


def two_kilobytes() -> list[dict[str, Any]]:
    """What a few hundred to a few thousand bytes buy on the digits; twice five folds."""
    named: dict[str, BaseEstimator] = {"1 nearest neighbour": KNeighborsClassifier(1)}
    for leaves in (15, 40, 100, 200):
        named[f"tree, {leaves} leaves"] = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0)
    for dimensions, per_class, bits in ((6, 1, 4), (8, 2, 4), (8, 3, 6), (10, 4, 8), (16, 8, 8)):
        named[f"ProtoNN, {dimensions} x {10 * per_class}, {bits} bits"] = ProtoNNClassifier(dimensions=dimensions, per_class=per_class, bits=bits)
    for dimensions, depth, bits in ((6, 0, 4), (8, 1, 6), (8, 1, 8)):
        named[f"Bonsai, {dimensions}, depth {depth}, {bits} bits"] = BonsaiClassifier(dimensions=dimensions, depth=depth, bits=bits, epochs=30)
    return _judged(named, *_digits(), 2, "1 nearest neighbour")


def kernels() -> list[dict[str, Any]]:
    """Ways to a kernel machine with less: fewer vectors, landmarks, random features; five folds of the digits."""
    named: dict[str, BaseEstimator] = {"SVC": SVC(C=10)}
    for vectors in (10, 20, 40, 80):
        named[f"k-means vectors {vectors}"] = ReducedSetClassifier(vectors, steps=0)
        named[f"reduced set {vectors}"] = ReducedSetClassifier(vectors)
    for features in (25, 50, 100, 200):
        linear = LogisticRegression(C=100, max_iter=1000)
        named[f"Nystrom {features}"] = make_pipeline(NystromFeatures(features), linear)
        named[f"random Fourier {features}"] = make_pipeline(FourierFeatures(features), linear)
    return _judged(named, *_digits(), 1, "SVC")


ENTRIES: dict[str, Callable[[], Any]] = {"neighbours": neighbours, "neighbours of patients": neighbours_of_patients, "two kilobytes": two_kilobytes, "kernels": kernels}
