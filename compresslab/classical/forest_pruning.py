r"""A forest is a linear model: on the indicators of its leaves.

Number all leaves of all trees. A point x lies in exactly one leaf of each tree; let :math:`\phi(x)` be the
row with a 1 for each of those leaves, else 0. What a forest answers is a sum over trees, so it is linear in
:math:`\phi`:

.. math:: \hat y(x) = W^\top \phi(x), \qquad \phi(x) \in \{0, 1\}^m, \quad \sum_j \phi_j(x) = T

Bagging chose each row of W from its own tree alone. Two ways to choose them **together**, and then remove
leaves:

- **global refinement** (Ren et al.): W by ridge regression; two sibling leaves whose rows are small say
  little, so their parent becomes a leaf in their place; W is fitted again, and so on;
- **L1** (Joly et al.): :math:`\min_w \frac{1}{2N}\|y - \Phi w\|^2 + \alpha\|w\|_1` sets most rows to exactly
  zero.

Source: S. Ren, X. Cao, Y. Wei, J. Sun, "Global Refinement of Random Forest", CVPR 2015. A. Joly, F.
Schnitzler, P. Geurts, L. Wehenkel, "L1-based compression of random forest models", ESANN 2012.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.sparse import csr_matrix

from compresslab.classical.tree_arrays import TreeArrays
from compresslab.core.errors import check_fraction, check_int


def leaf_numbers(trees: Sequence[TreeArrays], X: NDArray) -> NDArray[np.int64]:
    """For each point and tree the number of its leaf, counted through all trees.

    Args:
        trees: T trees with m leaves in all. X: (N, D).

    Returns:
        (N, T), from 0 to m - 1; the leaves of a tree stand in preorder, behind those of the trees before it.
    """
    columns, before = [], 0
    for tree in trees:
        number = np.cumsum(tree.is_leaf) - 1
        columns.append(number[tree.apply(X)] + before)
        before += tree.n_leaves
    return np.stack(columns, axis=1)


def leaf_indicators(leaves: NDArray, count: int) -> csr_matrix:
    r"""The rows :math:`\phi(x)`: a 1 in the column of each leaf that the point lies in.

    Args:
        leaves: (N, T), numbers of leaves. count: m, leaves in all.

    Returns:
        sparse, (N, m), with T ones in every row.

    Raises:
        ValueError: a number that is no leaf.

    Example:
        >>> leaf_indicators(np.array([[0, 3], [1, 3]]), count=4).toarray()
        array([[1., 0., 0., 1.],
               [0., 1., 0., 1.]])
    """
    if leaves.size and (leaves.min() < 0 or leaves.max() >= count):
        found = f"{leaves.min()} to {leaves.max()}"
        raise ValueError(f"leaves must be numbered from 0 to {count - 1}, got {found}")
    points, trees = leaves.shape
    ends = np.arange(0, leaves.size + 1, trees)
    return csr_matrix((np.ones(leaves.size), leaves.ravel(), ends), shape=(points, count))


def refine_leaves(indicators: csr_matrix, targets: NDArray, l2: float) -> NDArray[np.float64]:
    r"""Ridge regression on leaf indicators: what every leaf should say, given what all the others say.

    .. math:: W = (\Phi^\top \Phi + \lambda I)^{-1} \Phi^\top Y

    Args:
        indicators: Phi, (N, m). targets: Y, (N, L). l2: lambda, above 0: the columns of each tree add up to
            1, so without it W would not be unique.

    Returns:
        W, (m, L).

    Raises:
        ValueError: ``l2`` is not above 0.
    """
    if not l2 > 0:
        raise ValueError(f"l2 must be above 0, got {l2!r}")
    points, leaves = indicators.shape
    if points < leaves:  # the same W from the smaller system: Phi^T (Phi Phi^T + lambda I)^-1 Y
        gram = (indicators @ indicators.T).toarray()
        gram.flat[:: points + 1] += l2
        return indicators.T @ solve(gram, targets, assume_a="pos")
    gram = (indicators.T @ indicators).toarray()
    gram.flat[:: leaves + 1] += l2
    return solve(gram, indicators.T @ targets, assume_a="pos")


def lasso_leaves(
    indicators: csr_matrix, target: NDArray, alpha: float, sweeps: int = 1000, tol: float = 1e-8
) -> NDArray[np.float64]:
    r"""L1 on leaf indicators by coordinate descent: most leaves get exactly 0.

    .. math:: w_j \leftarrow \frac{S\big(\tfrac1N \phi_j^\top r_j,\ \alpha\big)}{\tfrac1N \|\phi_j\|^2},
              \qquad S(a, \alpha) = \mathrm{sign}(a) \max(|a| - \alpha, 0)

    where r_j is what is left of the target without leaf j.

    Args:
        indicators: Phi, (N, m). target: y, (N,), one number for each point. alpha: at least 0.
        sweeps: over all leaves at most; stops when no weight moved by more than ``tol``.

    Returns:
        w, (m,).

    Raises:
        ValueError: a negative ``alpha``.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be at least 0, got {alpha!r}")
    phi, n = indicators.tocsc(), indicators.shape[0]
    members = [phi.indices[a:b] for a, b in zip(phi.indptr, phi.indptr[1:])]
    w, rest = np.zeros(phi.shape[1]), np.array(target, float)
    for _ in range(sweeps):
        moved = 0.0
        for j, rows in enumerate(members):
            if len(rows):
                share = len(rows) / n
                pull = rest[rows].sum() / n + share * w[j]
                new = np.sign(pull) * max(abs(pull) - alpha, 0.0) / share
                if new != w[j]:
                    rest[rows] -= new - w[j]
                    moved, w[j] = max(moved, abs(new - w[j])), new
        if moved <= tol:
            break
    return w


@dataclass(frozen=True, eq=False)
class RefinedForest:
    """Trees, and what all their leaves together say: ``weights`` is W, (m, L)."""

    trees: tuple[TreeArrays, ...]
    weights: NDArray[np.float64]

    @property
    def n_leaves(self) -> int:
        """m, the leaves of all trees."""
        return len(self.weights)

    def decision(self, X: NDArray) -> NDArray[np.float64]:
        """The sum of the rows of a point's leaves, (N, L)."""
        return self.weights[leaf_numbers(self.trees, X)].sum(axis=1)


def sibling_leaves(trees: Sequence[TreeArrays]) -> NDArray[np.int64]:
    """All pairs of leaves with one parent: (p, 4) of tree, parent node, numbers of both leaves."""
    rows, before = [], 0
    for t, tree in enumerate(trees):
        leaf, number = tree.is_leaf, np.cumsum(tree.is_leaf) - 1 + before
        inner = np.flatnonzero(~leaf)
        inner = inner[leaf[inner + 1] & leaf[tree.right[inner]]]
        both = number[inner + 1], number[tree.right[inner]]
        rows.append(np.stack([np.full(len(inner), t), inner, *both], axis=1))
        before += tree.n_leaves
    return np.concatenate(rows)


def prune_leaves(forest: RefinedForest, count: int) -> tuple[TreeArrays, ...]:
    """Merge the ``count`` pairs of sibling leaves with the least :math:`\\|w_l\\|^2 + \\|w_r\\|^2` (fewer if
    there are not so many).

    Returns:
        new trees with ``count`` leaves fewer; their leaves need new weights.

    Raises:
        TypeError, ValueError: ``count`` is no whole number of at least 0.
    """
    check_int("count", count, 0)
    pairs = sibling_leaves(forest.trees)
    norm = (forest.weights**2).sum(1)
    least = pairs[np.argsort(norm[pairs[:, 2]] + norm[pairs[:, 3]], kind="stable")[:count]]
    return tuple(tree.collapse(least[least[:, 0] == t, 1].tolist()) for t, tree in enumerate(forest.trees))


def refine_and_prune(
    trees: Sequence[TreeArrays], X: NDArray, targets: NDArray, leaves: int, l2: float = 1.0, rate: float = 0.2
) -> Iterator[RefinedForest]:
    """Refine, merge the least pairs, refine again, until so few leaves are left: every forest on the way.

    Args:
        trees: the forest. X: (N, D). targets: (N, L), one-hot or soft labels.
        leaves: where to stop, at least one for each tree.
        l2: lambda of ``refine_leaves``. rate: the fraction of the leaves that goes in a round, in (0, 1].

    Yields:
        ``RefinedForest``; the first one is refined but not pruned, the last one has at most ``leaves``
        leaves.

    Raises:
        TypeError, ValueError: an argument out of range, fewer leaves than trees.
    """
    check_int("leaves", leaves, max(len(trees), 1))
    if check_fraction("rate", rate) == 0:
        raise ValueError("rate must be above 0: nothing would ever be pruned")
    while True:
        count = sum(tree.n_leaves for tree in trees)
        indicators = leaf_indicators(leaf_numbers(trees, X), count)
        forest = RefinedForest(tuple(trees), refine_leaves(indicators, targets, l2))
        yield forest
        if count <= leaves:
            return
        trees = prune_leaves(forest, min(max(1, int(rate * count)), count - leaves))
