"""What the first half of chapter 10 shows without computing it again: the forest's goal, one tree, pruning against a depth limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.tree import DecisionTreeClassifier

from compresslab.classical.compressed_forest import CompressedForestClassifier
from compresslab.classical.cost_complexity import cost_complexity_path, prune_tree
from compresslab.classical.distilled_network import DistilledNetworkClassifier
from compresslab.classical.forest_distillation import DistilledTreeClassifier, draw_queries, fidelity
from compresslab.classical.size import model_bytes
from compresslab.classical.tree_arrays import TreeArrays
from compresslab.classical.validation import paired_interval, repeated_cv

FOLDS, REPEATS, PARTS = 5, 2, 5  # ten repeats, in five entries of two: each is a minute
TEACHER = "forest of 100 trees"
QUERIES = (0, 250, 1000, 4000, 16000)


def _models() -> dict[str, Any]:
    return {
        TEACHER: RandomForestClassifier(100, random_state=0),
        "refined, packed": CompressedForestClassifier(),
        "network, 5 bits": DistilledNetworkClassifier(),
        "one tree": DistilledTreeClassifier(queries=4000),
    }


def forest(part: int) -> dict[str, list[float]]:
    """The accuracies of the forest and of what stands in for it, on the digits: two times five folds."""
    X, y = load_digits(return_X_y=True)
    scores = repeated_cv(_models(), X / 16, y, repeats=REPEATS, folds=FOLDS, seed=part)
    return {name: found.tolist() for name, found in scores.items()}


def forest_bytes() -> dict[str, int]:
    """The bytes of each of them, trained on four fifths of the digits."""
    X, y = load_digits(return_X_y=True)
    share = slice(0, len(X) - len(X) // FOLDS)
    return {name: model_bytes(model.fit(X[share] / 16, y[share])) for name, model in _models().items()}


def forest_rows(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each model, from the five entries together: bytes, accuracy, loss against the forest with its interval."""
    parts = [evidence[f"forest {part}"] for part in range(PARTS) if f"forest {part}" in evidence]
    rows = []
    for name, size in evidence["forest bytes"].items():
        ours, forest_s = (np.concatenate([part[key] for part in parts]) for key in (name, TEACHER))
        lost = paired_interval(forest_s, ours, 1 / FOLDS)
        rows.append({"name": name, "bytes": size, "accuracy": float(ours.mean()), "loss": lost.difference, "low": lost.low, "high": lost.high,
                     "trainings": lost.n})
    return rows


def one_tree() -> list[dict[str, Any]]:
    """How a tree of 200 leaves agrees with the forest and with the truth, by number of queries and kind of label; two times five folds."""
    X, y = load_digits(return_X_y=True)
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for train, test in RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(X, y):
        teacher = RandomForestClassifier(100, random_state=0).fit(X[train] / 16, y[train])
        says = teacher.predict(X[test] / 16)
        asked = np.vstack([X[train] / 16, draw_queries(X[train] / 16, max(QUERIES))])
        shares = teacher.predict_proba(asked)
        for count in QUERIES:
            use = slice(0, len(train) + count)
            for labels in ("soft", "hard"):
                targets = shares[use] if labels == "soft" else np.eye(shares.shape[1])[shares[use].argmax(1)]
                answers = _student(asked[use], targets).predict(X[test] / 16)
                found.setdefault((labels, count), []).append((fidelity(answers, says), float((answers == y[test]).mean())))
    return [{"labels": labels, "queries": count, "fidelity": float(np.mean([f for f, _ in pairs])), "accuracy": float(np.mean([a for _, a in pairs]))}
            for (labels, count), pairs in found.items()]


def _student(X: np.ndarray, targets: np.ndarray) -> TreeArrays:
    from sklearn.tree import DecisionTreeRegressor

    return TreeArrays.from_sklearn(DecisionTreeRegressor(max_leaf_nodes=200, random_state=0).fit(X, targets))


def pruned_tree() -> dict[str, list[dict[str, float]]]:
    """The weakest links against a depth limit: accuracy and leaves, for each depth the pruned tree of as many leaves; ten times five folds."""
    found = {}
    for name, load in (("digits", load_digits), ("breast cancer", load_breast_cancer)):
        X, y = load(return_X_y=True)
        depths = range(1, 9 if name == "digits" else 6)
        rows: dict[int, list[tuple[float, float, float, float]]] = {depth: [] for depth in depths}
        for train, test in RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=10, random_state=0).split(X, y):
            full = TreeArrays.from_sklearn(DecisionTreeClassifier(random_state=0).fit(X[train], y[train]))
            path = cost_complexity_path(full)
            for depth in depths:
                limited = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(X[train], y[train])
                step = int(np.flatnonzero(path.leaves <= limited.get_n_leaves())[0])
                pruned = prune_tree(full, path.alphas[step], path)
                rows[depth].append((limited.get_n_leaves(), limited.score(X[test], y[test]), pruned.n_leaves,
                                    float((pruned.predict(X[test]) == y[test]).mean())))
        columns = ("limited_leaves", "limited_accuracy", "pruned_leaves", "pruned_accuracy")
        found[name] = [{"depth": depth, **dict(zip(columns, np.mean(values, axis=0).tolist()))} for depth, values in rows.items()]
    return found


ENTRIES: dict[str, Callable[[], Any]] = {
    "forest bytes": forest_bytes,
    **{f"forest {part}": partial(forest, part) for part in range(PARTS)},
    "one tree": one_tree,
    "pruned tree": pruned_tree,
}
