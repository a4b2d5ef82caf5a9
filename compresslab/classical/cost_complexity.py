r"""Cost-complexity pruning: which branches of a tree are worth their leaves?

A branch :math:`T_t` (node t with everything below it) lowers the risk, and costs leaves. Charge
:math:`\alpha` for every leaf:

.. math:: R_\alpha(T) = R(T) + \alpha\,|\tilde T|, \qquad
          g(t) = \frac{R(t) - R(T_t)}{|\tilde T_t| - 1}

At :math:`\alpha = g(t)` the branch and the single leaf t cost the same. So as the price rises the node with
the least g, the **weakest link**, collapses first; then g of the nodes above it changes, and the next weakest
link is looked for. This path of nested trees holds the best subtree for *every* price.

A depth limit cuts all branches at one level, good or not. This cuts where it costs least.

Source: L. Breiman, J. Friedman, R. Olshen, C. Stone, "Classification and Regression Trees", 1984, chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from compresslab.classical.one_tree import OneTreeClassifier
from compresslab.classical.tree_arrays import TreeArrays
from compresslab.core.errors import check_int


@dataclass(frozen=True, eq=False)
class PruningPath:
    """The trees between the full one and its root.

    Attributes:
        alphas: (s,), the price at which each step happens; it starts with 0, the full tree, and never falls.
        leaves: (s,), leaves that are left after the step. risks: (s,), risk of the tree after it.
        nodes: (s,), the node that collapsed; -1 in the first place.
    """

    alphas: NDArray[np.float64]
    leaves: NDArray[np.int64]
    risks: NDArray[np.float64]
    nodes: NDArray[np.int64]


def branch_totals(tree: TreeArrays) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(risk, leaves) of the branch below each node: the sums over its leaves; both (n,)."""
    parent, leaf = tree.parents(), tree.is_leaf
    risk, leaves = np.where(leaf, tree.risk, 0.0), leaf.astype(np.int64)
    for node in range(len(leaf) - 1, 0, -1):  # children come behind their parent
        risk[parent[node]] += risk[node]
        leaves[parent[node]] += leaves[node]
    return risk, leaves


def link_strengths(tree: TreeArrays) -> NDArray[np.float64]:
    r"""g(t) of every node: the risk that its branch saves, per leaf that it costs more than one.

    Returns:
        (n,); infinity in leaves, where nothing can collapse.

    Example:
        >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 1, 0, 0]
        >>> tree = TreeArrays.from_sklearn(DecisionTreeClassifier().fit(X, y))
        >>> link_strengths(tree)  # root: (0.375 - 0) / (3 - 1); its left child: (0.25 - 0) / (2 - 1)
        array([0.1875, 0.25  ,    inf,    inf,    inf])
    """
    risk, leaves = branch_totals(tree)
    return np.where(tree.is_leaf, np.inf, (tree.risk - risk) / np.maximum(leaves - 1, 1))


def cost_complexity_path(tree: TreeArrays) -> PruningPath:
    """Collapse the weakest link, again and again, down to the root.

    Returns:
        the path, one step for each collapse. ``alphas`` and ``risks`` are those of scikit-learn's
        ``cost_complexity_pruning_path``.
    """
    parent, gone = tree.parents(), tree.is_leaf.copy()  # gone: leaves, and what is below a collapsed node
    risk, leaves = branch_totals(tree)
    steps = [(0.0, leaves[0], risk[0], -1)]
    while not gone[0]:
        strength = np.where(gone, np.inf, (tree.risk - risk) / np.maximum(leaves - 1, 1))
        weakest = int(strength.argmin())
        gone[weakest : _end(tree, weakest)] = True
        more, fewer = tree.risk[weakest] - risk[weakest], leaves[weakest] - 1
        node = weakest
        while node >= 0:  # only the nodes above notice
            risk[node] += more
            leaves[node] -= fewer
            node = parent[node]
        steps.append((strength[weakest], leaves[0], risk[0], weakest))
    alphas, counts, risks, nodes = (np.array(column) for column in zip(*steps))
    return PruningPath(np.maximum.accumulate(alphas), counts, risks, nodes)


def _end(tree: TreeArrays, node: int) -> int:
    """One behind the last node of a branch: the way down on the right ends there."""
    while tree.right[node] >= 0:
        node = tree.right[node]
    return node + 1


def prune_tree(tree: TreeArrays, ccp_alpha: float, path: PruningPath | None = None) -> TreeArrays:
    """The smallest subtree that is best at this price for a leaf.

    Args:
        tree: the full tree.
        ccp_alpha: the price, at least 0, in the unit of the risk. 0 removes only branches that save nothing.
        path: of this tree, if it is known already.

    Returns:
        a new tree; it predicts as scikit-learn's tree does that was fitted with this ``ccp_alpha``.

    Raises:
        ValueError: a negative price.
    """
    if not ccp_alpha >= 0:
        raise ValueError(f"ccp_alpha must be at least 0, got {ccp_alpha:g}")
    path = cost_complexity_path(tree) if path is None else path
    return tree.collapse(path.nodes[1:][path.alphas[1:] <= ccp_alpha]) if ccp_alpha > 0 else tree


class PrunedTreeClassifier(OneTreeClassifier):
    """A decision tree that is pruned at a price found by cross-validation inside the training set.

    Args:
        folds: into how many parts the training set is cut to judge prices.
        tolerance: choose the smallest tree whose error is within so many standard errors of the best; 1 is
            CART's rule.
        seed: of the trees and the cuts.

    Attributes:
        tree_: the pruned ``TreeArrays``. ccp_alpha_: the price. classes_: (L,). full_leaves_: leaves before
            pruning.

    Source: Breiman et al., "Classification and Regression Trees", 1984, chapter 3: cross-validation at
        geometric means of neighbouring prices, and the one-standard-error rule.
    """

    def __init__(self, folds: int = 5, tolerance: float = 1.0, seed: int = 0) -> None:
        self.folds = folds
        self.tolerance = tolerance
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray) -> PrunedTreeClassifier:
        """Grow, choose the price, prune. X: (N, D); y: (N,). Fewer folds if a class is smaller."""
        check_int("folds", self.folds, 2)
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0, got {self.tolerance!r}")
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        full = self._grown(X, numbers)
        path = cost_complexity_path(full)
        after = np.append(path.alphas[1:], path.alphas[-1])
        prices = np.unique(np.sqrt(path.alphas * after))  # between two steps of the path
        self.ccp_alpha_ = float(prices[self._chosen(X, numbers, prices)])
        self.tree_, self.full_leaves_ = prune_tree(full, self.ccp_alpha_, path), full.n_leaves
        return self

    def _grown(self, X: NDArray, y: NDArray) -> TreeArrays:
        return TreeArrays.from_sklearn(DecisionTreeClassifier(random_state=self.seed).fit(X, y))

    def _chosen(self, X: NDArray, y: NDArray, prices: NDArray) -> int:
        """The index of the highest price whose error is near the least one."""
        folds = min(self.folds, int(np.bincount(y).min()))
        if folds < 2 or len(prices) == 1:
            return 0
        wrong = np.zeros((len(prices), len(y)))
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=self.seed).split(X, y):
            tree = self._grown(X[train], y[train])
            path = cost_complexity_path(tree)
            for i, price in enumerate(prices):
                wrong[i, test] = prune_tree(tree, price, path).predict(X[test]) != y[test]
        error = wrong.mean(1)
        best = error.min()
        near = best + self.tolerance * np.sqrt(best * (1 - best) / len(y))
        return int(np.flatnonzero(error <= near)[-1])
