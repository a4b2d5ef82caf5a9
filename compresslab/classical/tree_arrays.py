r"""A decision tree as what it is: a few arrays, one number for each node.

A node asks ``x[feature] <= threshold``; yes goes left, no goes right. Nodes stand in **preorder**: a node,
then all of its left subtree, then all of its right one. So the left child is simply the next node and need
not be stored:

    node        0    1    2    3    4        0: x[1] <= 0.5
    feature     1   -1    0   -1   -1        |-- 1: class 0
    threshold  0.5       2.5                 `-- 2: x[0] <= 2.5
    right       2         4                       |-- 3: class 1
    class            0         1    0             `-- 4: class 0

A fitted tree of scikit-learn holds ten arrays in double width. What a prediction reads is these four.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import BaseDecisionTree
from sklearn.utils.validation import check_is_fitted

from compresslab.classical.size import Arrays, floor32, smallest

LEAF = -1


@dataclass(frozen=True, eq=False)
class TreeArrays:
    """The nodes of a binary decision tree, in preorder.

    Attributes:
        feature: (n,), which feature a node asks for; -1 in a leaf.
        threshold: (n,), float32; a point goes left if its feature is at most that. 0 in a leaf.
        right: (n,), the right child; -1 in a leaf. The left child of node i is i + 1.
        value: (n, K), what a node would answer if it were a leaf: class shares, or K regression values.
        risk: (n,), R(t): impurity of a node times the share of the training points in it.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    right: NDArray[np.int64]
    value: NDArray[np.float64]
    risk: NDArray[np.float64]

    @classmethod
    def from_sklearn(cls, estimator: BaseDecisionTree) -> TreeArrays:
        """Read a fitted tree of scikit-learn.

        scikit-learn compares a point in float32 with a threshold in float64. The threshold is rounded down to
        float32: every float32 point then goes the same way.

        Raises:
            TypeError: no decision tree. ValueError: a tree of several outputs with classes.
            NotFittedError: it is not fitted.
        """
        if not isinstance(estimator, BaseDecisionTree):
            raise TypeError(f"expected a decision tree of scikit-learn, got {type(estimator).__name__}")
        check_is_fitted(estimator)
        tree = estimator.tree_
        if tree.n_outputs > 1 and tree.value.shape[2] > 1:
            raise ValueError(f"a classification tree must have one output, got {tree.n_outputs}")
        order = _preorder(tree.children_left, tree.children_right)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        leaf = tree.children_left[order] < 0
        return cls(
            feature=np.where(leaf, LEAF, tree.feature[order]),
            threshold=np.where(leaf, np.float32(0), floor32(tree.threshold[order])),
            right=np.where(leaf, LEAF, place[tree.children_right[order]]),
            value=tree.value[order].reshape(len(order), -1),
            risk=tree.weighted_n_node_samples[order] * tree.impurity[order] / tree.weighted_n_node_samples[0],
        )

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        """(n,), which nodes are leaves."""
        return self.feature == LEAF

    @property
    def n_leaves(self) -> int:
        """The number of leaves: always one more than inner nodes."""
        return int(self.is_leaf.sum())

    @property
    def depth(self) -> int:
        """The questions on the longest way down; 0 for a tree that is one leaf."""
        level = np.zeros(len(self.feature), np.int64)
        for node in np.flatnonzero(~self.is_leaf):
            level[node + 1] = level[self.right[node]] = level[node] + 1
        return int(level.max())

    def parents(self) -> NDArray[np.int64]:
        """(n,), the node above each node; -1 above the root."""
        parent = np.full(len(self.feature), -1)
        inner = np.flatnonzero(~self.is_leaf)
        parent[inner + 1] = parent[self.right[inner]] = inner
        return parent

    def apply(self, X: NDArray) -> NDArray[np.int64]:
        """The leaf in which each point ends.

        Args:
            X: (N, D); compared in float32, as scikit-learn does.

        Returns:
            (N,), numbers of nodes.

        Raises:
            ValueError: the points have fewer features than the tree asks for.
        """
        X = np.asarray(X, np.float32)
        if X.ndim != 2 or X.shape[1] <= self.feature.max():
            raise ValueError(f"the tree asks for feature {self.feature.max()}, got points of shape {X.shape}")
        node, rows = np.zeros(len(X), np.int64), np.arange(len(X))
        while len(rows := rows[~self.is_leaf[node[rows]]]):  # all points go down one level at a time
            at = node[rows]
            left = X[rows, self.feature[at]] <= self.threshold[at]
            node[rows] = np.where(left, at + 1, self.right[at])
        return node

    def predict_value(self, X: NDArray) -> NDArray[np.float64]:
        """The value of each point's leaf, (N, K)."""
        return self.value[self.apply(X)]

    def predict(self, X: NDArray) -> NDArray[np.int64]:
        """The number of the class with the largest share, (N,); of equal ones the first."""
        return self.value.argmax(1)[self.apply(X)]

    def collapse(self, nodes: Iterable[int]) -> TreeArrays:
        """A new tree in which these nodes are leaves, and what was below them is gone.

        Args:
            nodes: any nodes; below another one of them, or leaves already, they change nothing.

        Raises:
            ValueError: no such node.
        """
        cut = np.zeros(len(self.feature), bool)
        for node in nodes:
            if not 0 <= node < len(cut):
                raise ValueError(f"node must be from 0 to {len(cut) - 1}, got {node}")
            cut[node] = True
        return self._with_leaves(cut | self.is_leaf)

    def _with_leaves(self, leaf: NDArray[np.bool_]) -> TreeArrays:
        parent, alive = self.parents(), np.ones(len(leaf), bool)
        for node in range(1, len(leaf)):  # preorder: a parent comes first
            alive[node] = alive[parent[node]] and not leaf[parent[node]]
        kept = np.flatnonzero(alive)
        place = np.cumsum(alive) - 1
        return TreeArrays(
            feature=np.where(leaf, LEAF, self.feature)[kept],
            threshold=np.where(leaf, np.float32(0), self.threshold)[kept],
            right=np.where(leaf, LEAF, place[self.right])[kept],
            value=self.value[kept],
            risk=self.risk[kept],
        )

    def to_arrays(self) -> Arrays:
        """What ``predict`` reads: features, thresholds, right children, classes of leaves."""
        leaf = self.is_leaf
        return {
            "feature": smallest(self.feature),
            "threshold": self.threshold[~leaf],
            "right": smallest(self.right[~leaf]),
            "leaf": smallest(self.value[leaf].argmax(1)),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, classes: int) -> TreeArrays:
        """Undo ``to_arrays``: the same predictions. Inner nodes come back without values, all without risks.

        Raises:
            KeyError, ValueError, IndexError: the arrays do not make a tree.
        """
        feature = arrays["feature"].astype(np.int64)
        leaf, n = feature == LEAF, len(feature)
        if 2 * leaf.sum() != n + 1:
            raise ValueError(f"{n} nodes with {leaf.sum()} leaves make no binary tree")
        threshold, right, value = np.zeros(n, np.float32), np.full(n, LEAF), np.zeros((n, classes))
        threshold[~leaf], right[~leaf] = arrays["threshold"], arrays["right"]
        inner = np.flatnonzero(~leaf)
        if ((right[inner] <= inner + 1) | (right[inner] >= n)).any():
            raise ValueError("a right child must come behind the left one and be a node")
        value[np.flatnonzero(leaf), arrays["leaf"]] = 1
        return cls(feature, threshold, right, value, np.zeros(n))


def _preorder(left: NDArray, right: NDArray) -> NDArray[np.int64]:
    """The nodes in the order node, left subtree, right subtree."""
    order, stack = [], [0]
    while stack:
        node = stack.pop()
        order.append(node)
        if left[node] >= 0:
            stack += [right[node], left[node]]
    return np.array(order)
