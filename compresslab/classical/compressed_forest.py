r"""A forest of a hundred trees in a few kilobytes: few leaves, refined together, every node in a dozen bits.

Four steps, each of them small:

1. grow many small trees at random;
2. refine all leaves together, on what a **teacher forest** says of real and synthetic points, and merge
   sibling leaves that say least (``forest_pruning``);
3. round thresholds to a grid and leaves to a few bits;
4. pack the nodes: one bit for "leaf or not", and then what such a node needs, without pointers. In
   preorder the shape of a tree follows from the first bits alone.

.. math:: \mathrm{bits} = m\,(1 + L\,b_{leaf}) + (m - T)\,\big(1 + \lceil\log_2 D\rceil + b_{threshold}\big)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from compresslab.classical.forest_distillation import fitted_teacher, soft_training_set
from compresslab.classical.forest_pruning import RefinedForest, refine_and_prune
from compresslab.classical.size import Arrays, label_arrays, labels_of, smallest
from compresslab.classical.stored_matrix import check_bits, pack_matrices, rounded, unpack_matrices
from compresslab.classical.tree_arrays import LEAF, TreeArrays
from compresslab.core.bits import pack_bits, unpack_bits
from compresslab.core.errors import check_int


def round_thresholds(
    trees: Sequence[TreeArrays], X: NDArray, bits: int
) -> tuple[tuple[TreeArrays, ...], NDArray[np.float32]]:
    r"""Thresholds on a grid of 2^bits places between the values of the features.

    .. math:: \hat\tau = \mathrm{low} + (c + \tfrac12)\,\mathrm{step}, \qquad c \in \{0, \dots, 2^{bits} - 1\}

    Args:
        trees: with thresholds anywhere. X: (N, D), the training points; low and step are those of each
            feature, or one for all where all features have the same range.
        bits: of a code c, 1 to 8.

    Returns:
        the trees with rounded thresholds; the grid, (D, 2) or (1, 2): low and step of each feature. Whole
        numbers from 0 to 2^bits keep all their questions: a threshold between k and k + 1 stays between them.

    Raises:
        TypeError, ValueError: ``bits`` out of range.
    """
    check_int("threshold_bits", bits, 1, 8)
    low, high = np.float32(X.min(0)), np.float32(X.max(0))
    used = high > low
    if used.any() and (low[used] == low[used][0]).all() and np.median(high[used]) == high.max():
        low, high = low[used][:1], high.max(keepdims=True)  # most features fill one common range: images
    grid = np.stack([low, (high - low) / np.float32(2**bits)], axis=1).astype(np.float32)
    grid[grid[:, 1] == 0, 1] = 1
    return tuple(_on_grid(tree, threshold_codes(tree, grid, bits), grid) for tree in trees), grid


def threshold_codes(tree: TreeArrays, grid: NDArray[np.float32], bits: int) -> NDArray[np.int64]:
    """The place c of each inner node's threshold on the grid, (inner nodes,)."""
    inner = ~tree.is_leaf
    low, step = grid[tree.feature[inner] if len(grid) > 1 else np.zeros(inner.sum(), int)].T
    return np.clip(np.rint((tree.threshold[inner] - low) / step - 0.5), 0, 2**bits - 1).astype(np.int64)


def _on_grid(tree: TreeArrays, codes: NDArray, grid: NDArray[np.float32]) -> TreeArrays:
    inner, threshold = ~tree.is_leaf, tree.threshold.copy()
    low, step = grid[tree.feature[inner] if len(grid) > 1 else np.zeros(inner.sum(), int)].T
    threshold[inner] = low + (codes.astype(np.float32) + np.float32(0.5)) * step
    return TreeArrays(tree.feature, threshold, tree.right, tree.value, tree.risk)


def preorder_children(leaf: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The right child of every inner node, from the leaf bits of trees in preorder, one behind the other; -1
    in leaves.

    Raises:
        ValueError: the bits end within a tree.

    Example:
        >>> preorder_children(np.array([False, True, False, True, True]))
        array([ 2, -1,  4, -1, -1])
    """
    right, waiting = np.full(len(leaf), LEAF), []
    for node in range(len(leaf)):
        if node and leaf[node - 1] and waiting:  # a leaf ends the left subtree of the last one that waits
            right[waiting.pop()] = node
        if not leaf[node]:
            waiting.append(node)
    if waiting or not len(leaf) or not leaf[-1]:
        raise ValueError("the leaf bits end within a tree")
    return right


class CompressedForestClassifier(ClassifierMixin, BaseEstimator):
    """A small forest, refined and pruned on what a large one says, and stored in a few bits a node.

    Args:
        teacher: an estimator with ``predict_proba``, fitted on a copy; None is a random forest of 100 trees.
        n_estimators: trees of the small forest. max_leaf_nodes: leaves of each before pruning, at least 2.
        leaves: of all trees together, after pruning.
        queries, neighbors: synthetic points, as in ``DistilledTreeClassifier``.
        l2: lambda of the refinement. bits: of a number in a leaf, 2 to 8, or 32.
        threshold_bits: 1 to 8. seed: of everything.

    Attributes:
        forest_: ``RefinedForest`` with weights and thresholds as they come back from storage. grid_: of the
            thresholds.
        teacher_: the fitted teacher (not needed to predict). classes_: (L,).

    Source: Ren et al., "Global Refinement of Random Forest", CVPR 2015. Differs: ridge regression in place of
        a support vector machine or logistic loss; the teacher's soft labels and synthetic points; rounding.
    """

    def __init__(
        self,
        teacher: BaseEstimator | None = None,
        n_estimators: int = 70,
        max_leaf_nodes: int = 20,
        leaves: int = 1000,
        queries: int = 4_000,
        neighbors: int = 5,
        l2: float = 1.0,
        bits: int = 4,
        threshold_bits: int = 4,
        seed: int = 0,
    ) -> None:
        self.teacher = teacher
        self.n_estimators = n_estimators
        self.max_leaf_nodes = max_leaf_nodes
        self.leaves = leaves
        self.queries = queries
        self.neighbors = neighbors
        self.l2 = l2
        self.bits = bits
        self.threshold_bits = threshold_bits
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray) -> CompressedForestClassifier:
        """Teach, grow, round thresholds, refine and prune, round leaves. X: (N, D); y: (N,)."""
        check_int("n_estimators", self.n_estimators, 1)
        check_int("leaves", self.leaves, self.n_estimators)
        check_int("queries", self.queries, 0)
        check_bits(self.bits)
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self.teacher_ = fitted_teacher(self.teacher, X, numbers, self.seed)
        asked, shares = soft_training_set(self.teacher_, X, self.queries, self.neighbors, self.seed)
        shares[: len(X)] = np.eye(len(self.classes_))[numbers]  # of the real points the truth is known
        grower = ExtraTreesClassifier(
            self.n_estimators, max_leaf_nodes=self.max_leaf_nodes, random_state=self.seed
        )
        grown = [TreeArrays.from_sklearn(tree) for tree in grower.fit(X, numbers).estimators_]
        trees, self.grid_ = round_thresholds(grown, X, self.threshold_bits)
        targets = shares - 1 / len(self.classes_)
        *_, forest = refine_and_prune(trees, asked, targets, self.leaves, self.l2)
        self.forest_ = RefinedForest(forest.trees, self._stored(forest.weights))
        return self

    def _stored(self, weights: NDArray) -> NDArray[np.float32]:
        """Clip the few very large weights, then round: else they would take the grid from all others."""
        limit = 3 * weights.std()
        return rounded(np.clip(weights, -limit, limit), self.bits)

    def predict(self, X: NDArray) -> NDArray:
        """The class with the largest sum, (N,)."""
        check_is_fitted(self)
        return self.classes_[self.forest_.decision(validate_data(self, X, reset=False)).argmax(1)]

    def to_arrays(self) -> Arrays:
        """Leaf bits, features and threshold codes without gaps, leaves in ``bits`` bits, the grid."""
        check_is_fitted(self)
        trees, features = self.forest_.trees, self.n_features_in_
        leaf = np.concatenate([tree.is_leaf for tree in trees])
        feature = np.concatenate([tree.feature[~tree.is_leaf] for tree in trees])
        codes = np.concatenate([threshold_codes(tree, self.grid_, self.threshold_bits) for tree in trees])
        arrays = pack_matrices({"leaves": self.forest_.weights}, self.bits)
        return arrays | label_arrays(self.classes_) | {
            "shape": np.array([features, self.threshold_bits], np.int32),
            "is_leaf": np.packbits(leaf),
            "feature": _packed(feature, _width(features)),
            "threshold": _packed(codes, self.threshold_bits),
            "grid": self.grid_,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> CompressedForestClassifier:
        """A fitted classifier from what ``to_arrays`` returned."""
        model, weights = cls(), unpack_matrices(arrays, ["leaves"])["leaves"]
        features, model.threshold_bits = (int(number) for number in arrays["shape"])
        model.bits, model.n_features_in_, model.grid_ = int(arrays["layout"][0]), features, arrays["grid"]
        bits = np.unpackbits(arrays["is_leaf"]).astype(bool)
        leaf = bits[: np.searchsorted(np.cumsum(bits), len(weights)) + 1]  # up to the last leaf
        inner = int((~leaf).sum())
        feature, threshold = np.full(len(leaf), LEAF), np.zeros(len(leaf), np.int64)
        feature[~leaf] = _unpacked(arrays["feature"], _width(features), inner)
        threshold[~leaf] = _unpacked(arrays["threshold"], model.threshold_bits, inner)
        model.forest_ = RefinedForest(_split(leaf, feature, threshold, model.grid_), weights)
        model.classes_ = labels_of(arrays, weights.shape[1])
        return model


def _split(leaf: NDArray, feature: NDArray, codes: NDArray, grid: NDArray) -> tuple[TreeArrays, ...]:
    """Cut the row of nodes into trees: one ends where it has a leaf more than inner nodes."""
    balance, start, trees = np.cumsum(np.where(leaf, 1, -1)), 0, []
    while start < len(leaf):
        before = balance[start - 1] if start else 0
        end = start + int(np.argmax(balance[start:] == before + 1)) + 1
        part, n = slice(start, end), end - start
        right, nothing = preorder_children(leaf[part]), np.zeros(n)
        tree = TreeArrays(feature[part], np.zeros(n, np.float32), right, nothing[:, None], nothing)
        trees.append(_on_grid(tree, codes[part][~leaf[part]], grid))
        start = end
    return tuple(trees)


def _width(features: int) -> int:
    """Bits that tell so many features apart."""
    return max(1, (features - 1).bit_length())


def _packed(numbers: NDArray, bits: int) -> NDArray:
    """Without gaps up to 8 bits, else in the smallest type."""
    if bits > 8:
        return smallest(numbers)
    return pack_bits(torch.from_numpy(numbers.astype(np.int64)), bits).numpy()


def _unpacked(stored: NDArray, bits: int, count: int) -> NDArray:
    if bits > 8:
        return stored.astype(np.int64)
    return unpack_bits(torch.from_numpy(stored.copy()), bits, count).numpy()
