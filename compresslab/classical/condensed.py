r"""Condensed nearest neighbours: keep only the training points that others need.

The nearest-neighbour rule stores its whole training set. Most of it lies deep inside a class, where any
neighbour would do. A subset is **consistent** if it classifies every training point as the whole set does:

.. math:: \forall i: \quad y_{j(i)} = y_i, \qquad j(i) = \arg\min_{j \in S} \|x_i - x_j\|

To find the smallest consistent subset is hard; Hart's rule finds a small one in a few passes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from compresslab.classical.size import Arrays, label_arrays, labels_of, smallest
from compresslab.classical.stored_matrix import check_bits, pack_matrices, rounded, unpack_matrices


def condense(X: NDArray, y: NDArray, order: NDArray | None = None) -> NDArray[np.int64]:
    """Hart's condensed subset: go round; what the store gets wrong enters the store, until a round adds nothing.

    Args:
        X: points, (N, D).
        y: their classes, (N,).
        order: in which the points are visited, a permutation of 0, ..., N - 1; None is as they come. The first
            one starts the store, and the result depends on the order.

    Returns:
        the store, indices into X in the order in which they entered. Points that are equal but of different
        classes cannot all be right; they never enter twice, so the rounds always end.

    Raises:
        ValueError: no points, as many classes as points are not given, or no permutation.

    Source:
        P. Hart, "The Condensed Nearest Neighbor Rule", IEEE Transactions on Information Theory 14, 1968.

    Example:
        >>> X = np.array([[0.0], [1.0], [5.0], [6.0]])
        >>> condense(X, np.array([0, 0, 1, 1]))
        array([0, 2])
    """
    X, y = np.asarray(X, np.float64), np.asarray(y)
    order = np.arange(len(X)) if order is None else np.asarray(order)
    if not len(X) or len(X) != len(y):
        raise ValueError(f"condense needs at least one point and a class for each, got {len(X)} points, {len(y)} classes")
    if not np.array_equal(np.sort(order), np.arange(len(X))):
        raise ValueError(f"order must be a permutation of 0 to {len(X) - 1}")
    store, nearest, label = [], np.full(len(X), np.inf), np.full(len(X), -1)

    def enter(i: int) -> None:  # every point remembers its nearest in the store, so a visit costs nothing
        store.append(i)
        distance = ((X - X[i]) ** 2).sum(1)
        closer = distance < nearest
        nearest[closer], label[closer] = distance[closer], i

    enter(order[0])
    size = 0
    while size < len(store):
        size = len(store)
        for i in order:
            if y[label[i]] != y[i] and nearest[i] > 0:
                enter(i)
    return np.array(store)


class CondensedNeighborsClassifier(ClassifierMixin, BaseEstimator):
    """The nearest neighbour in Hart's condensed training set, its points stored in few bits.

    Args:
        bits: of a stored coordinate, 2 to 8, or 32 for float32.
        seed: of the order in which the points are visited.

    Attributes:
        points_: (m, D), as they come back from storage. labels_: (m,), numbers of their classes. classes_: (L,).

    Source:
        P. Hart, "The Condensed Nearest Neighbor Rule", 1968. Differs: the stored points are rounded.

    Example:
        >>> X = np.array([[0.0], [1.0], [5.0], [6.0]])
        >>> CondensedNeighborsClassifier(bits=32).fit(X, [0, 0, 1, 1]).predict([[2.0], [4.5]]).tolist()
        [0, 1]
    """

    def __init__(self, bits: int = 8, seed: int = 0) -> None:
        self.bits = bits
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray) -> CondensedNeighborsClassifier:
        """Choose the points. X: (N, D); y: (N,)."""
        check_bits(self.bits)
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        kept = condense(X, numbers, np.random.default_rng(self.seed).permutation(len(X)))
        self.offset_ = np.float32((X.min() + X.max()) / 2)  # distances do not notice a shift, rounding does
        self.points_ = rounded(X[kept] - self.offset_, self.bits)
        self.labels_ = numbers[kept]
        return self

    def predict(self, X: NDArray) -> NDArray:
        """The class of the nearest stored point; (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return self.classes_[self.labels_[euclidean_distances(X - self.offset_, self.points_).argmin(1)]]

    def to_arrays(self) -> Arrays:
        """Points in ``bits`` bits each, class numbers, the shift."""
        check_is_fitted(self)
        arrays = pack_matrices({"points": self.points_}, self.bits)
        arrays |= {"labels": smallest(self.labels_), "offset": np.array([self.offset_], np.float32)}
        return arrays | label_arrays(self.classes_)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> CondensedNeighborsClassifier:
        """The fitted classifier that ``to_arrays`` stored."""
        model = cls(bits=int(arrays["layout"][0]))
        model.points_ = unpack_matrices(arrays, ["points"])["points"]
        model.labels_, model.offset_ = arrays["labels"], arrays["offset"][0]
        model.classes_ = labels_of(arrays, int(model.labels_.max()) + 1)
        model.n_features_in_ = model.points_.shape[1]
        return model
