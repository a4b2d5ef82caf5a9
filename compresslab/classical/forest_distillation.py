r"""A forest's knowledge in one tree: let the forest label points that nobody ever measured.

On its own training points a forest says what the labels said; a student that learns there learns nothing new.
Between the points the forest has opinions, and there are as many of them as one cares to ask for. A **query**
is a synthetic point; its **soft label** is the forest's vector of class shares.

Queries must look like data. MUNGE makes one from a real point and a near neighbour: each feature is taken
from the neighbour with some chance, so the marginals and, roughly, the dependence of the features stay.

The student here is a regression tree on the soft labels. Its squared error in a node is the Gini impurity
that the forest's answers would have there, so it is CART, told the shares in place of the classes.

Source: C. Bucila, R. Caruana, A. Niculescu-Mizil, "Model Compression", KDD 2006 (MUNGE; there the students
are neural networks). L. Breiman and N. Shang, "Born Again Trees", 1996 (a tree from synthetic points that a
forest labels).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from compresslab.classical.one_tree import OneTreeClassifier
from compresslab.classical.tree_arrays import TreeArrays
from compresslab.core.errors import check_fraction, check_int


def draw_queries(X: NDArray, count: int, neighbors: int = 5, swap: float = 0.5, seed: int = 0) -> NDArray:
    """Synthetic points by MUNGE: a real point, some of whose features come from a near neighbour.

    Args:
        X: real points, (N, D), at least two.
        count: how many to draw.
        neighbors: the neighbour is one of so many nearest, at least 1; more than there are means all.
        swap: probability that a feature comes from the neighbour, in [0, 1].
        seed: of the draw.

    Returns:
        (count, D), the type of X. Every number stands in the same column of X somewhere.

    Raises:
        TypeError, ValueError: an argument out of range, or a single point.

    Source: Bucila et al., "Model Compression", KDD 2006. Differs: the neighbour is drawn among several, and a
        feature is copied; the paper exchanges between a point and its nearest one, and draws numbers around
        theirs.

    Example:
        >>> X = np.array([[0, 0], [1, 1]])
        >>> [draw_queries(X, 1, swap=swap, seed=0).tolist() for swap in (0.0, 1.0)]  # itself, its neighbour
        [[[1, 1]], [[0, 0]]]
    """
    check_int("count", count, 0)
    check_int("neighbors", neighbors, 1)
    check_fraction("swap", swap)
    X = np.asarray(X)
    if X.ndim != 2 or len(X) < 2:
        raise ValueError(f"queries need at least two points, got an array of shape {X.shape}")
    draw = np.random.default_rng(seed)
    neighbors = min(neighbors, len(X) - 1)
    near = NearestNeighbors(n_neighbors=neighbors).fit(X).kneighbors(return_distance=False)  # not itself
    first = draw.integers(len(X), size=count)
    second = near[first, draw.integers(neighbors, size=count)]
    return np.where(draw.random((count, X.shape[1])) < swap, X[second], X[first])


def fidelity(answers: ArrayLike, others: ArrayLike) -> float:
    """The share of points on which two models give the same answer, right or wrong.

    Raises:
        ValueError: not as many answers, or none.

    Example:
        >>> fidelity([0, 1, 2, 2], [0, 1, 1, 2])
        0.75
    """
    answers, others = np.asarray(answers), np.asarray(others)
    if answers.shape != others.shape or not answers.size:
        shapes = f"{answers.shape} and {others.shape}"
        raise ValueError(f"fidelity compares as many answers, at least one; got shapes {shapes}")
    return float((answers == others).mean())


def fitted_teacher(teacher: BaseEstimator | None, X: NDArray, y: NDArray, seed: int) -> BaseEstimator:
    """A fitted copy of the teacher; a random forest of 100 trees where none is given.

    Raises:
        TypeError: a teacher without ``predict_proba``.
    """
    if teacher is not None and not hasattr(teacher, "predict_proba"):
        raise TypeError(f"a teacher must have predict_proba, {type(teacher).__name__} has not")
    return (RandomForestClassifier(100, random_state=seed) if teacher is None else clone(teacher)).fit(X, y)


def soft_training_set(
    teacher: BaseEstimator, X: NDArray, queries: int, neighbors: int, seed: int
) -> tuple[NDArray, NDArray]:
    """Real points and queries, (N + queries, D), and the teacher's shares of each, (N + queries, L)."""
    if queries and len(X) > 1:
        X = np.vstack([X, draw_queries(X, queries, neighbors, seed=seed)])
    return X, teacher.predict_proba(X)


class DistilledTreeClassifier(OneTreeClassifier):
    """One tree that learned what a forest says of real and synthetic points.

    Args:
        teacher: an estimator with ``predict_proba``, fitted on a copy; None is a random forest of 100 trees.
        queries: synthetic points. 0: the training points only.
        max_leaf_nodes: leaves of the tree, at least 2, grown best first; None is no limit.
        neighbors: of ``draw_queries``. seed: of everything.

    Attributes:
        tree_: ``TreeArrays``. teacher_: the fitted forest (not needed to predict). classes_: (L,).

    Source: Breiman and Shang, "Born Again Trees", 1996. Differs: soft labels, and queries by MUNGE.
    """

    def __init__(
        self,
        teacher: BaseEstimator | None = None,
        queries: int = 10_000,
        max_leaf_nodes: int | None = 200,
        neighbors: int = 5,
        seed: int = 0,
    ) -> None:
        self.teacher = teacher
        self.queries = queries
        self.max_leaf_nodes = max_leaf_nodes
        self.neighbors = neighbors
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray) -> DistilledTreeClassifier:
        """Fit the forest, ask it, fit the tree. X: (N, D); y: (N,)."""
        check_int("queries", self.queries, 0)
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self.teacher_ = fitted_teacher(self.teacher, X, numbers, self.seed)
        asked, shares = soft_training_set(self.teacher_, X, self.queries, self.neighbors, self.seed)
        student = DecisionTreeRegressor(max_leaf_nodes=self.max_leaf_nodes, random_state=self.seed)
        self.tree_ = TreeArrays.from_sklearn(student.fit(asked, shares))
        return self
