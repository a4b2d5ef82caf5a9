"""A forest as a linear model: scikit-learn's apply, Ridge and Lasso as oracles; merging siblings by enumeration."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Lasso, Ridge

from compresslab.classical.forest_pruning import (
    RefinedForest,
    lasso_leaves,
    leaf_indicators,
    leaf_numbers,
    prune_leaves,
    refine_and_prune,
    refine_leaves,
    sibling_leaves,
)
from compresslab.classical.tree_arrays import TreeArrays

X, y = load_iris(return_X_y=True)
FOREST = RandomForestClassifier(6, max_leaf_nodes=7, random_state=0).fit(X, y)
TREES = [TreeArrays.from_sklearn(tree) for tree in FOREST.estimators_]
M = sum(tree.n_leaves for tree in TREES)
Y = np.eye(3)[y]


def indicators():
    return leaf_indicators(leaf_numbers(TREES, X), M)


def test_leaves_are_those_of_apply():
    numbers, theirs = leaf_numbers(TREES, X), FOREST.apply(X)
    borders = np.cumsum([0, *(tree.n_leaves for tree in TREES)])
    for t in range(len(TREES)):
        assert len(set(zip(numbers[:, t], theirs[:, t]))) == len(set(numbers[:, t])) == len(set(theirs[:, t]))
        assert borders[t] <= numbers[:, t].min() and numbers[:, t].max() < borders[t + 1]


def test_indicators_sum_to_the_trees_and_a_forests_vote_is_linear_in_them():
    phi = indicators()
    assert phi.shape == (150, M) and (phi.sum(1) == len(TREES)).all() and set(phi.data) == {1.0}
    shares = np.concatenate([tree.value[tree.is_leaf] for tree in TREES]) / len(TREES)
    np.testing.assert_allclose(phi @ shares, FOREST.predict_proba(X))
    np.testing.assert_allclose(RefinedForest(tuple(TREES), shares).decision(X), FOREST.predict_proba(X))


@pytest.mark.parametrize("points", [20, 150], ids=["fewer points than leaves", "more points"])
@pytest.mark.parametrize("l2", [0.1, 5.0])
def test_refinement_is_ridge_regression(points, l2):
    phi = indicators()[:points]
    theirs = Ridge(alpha=l2, fit_intercept=False, solver="cholesky").fit(phi.toarray(), Y[:points])
    np.testing.assert_allclose(refine_leaves(phi, Y[:points], l2), theirs.coef_.T, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0005, 0.005, 0.05])
def test_l1_is_the_lasso_of_scikit_learn(alpha):
    phi = indicators()
    target = Y[:, 1] - 1 / 3
    w = lasso_leaves(phi, target, alpha, sweeps=5000, tol=1e-10)
    theirs = Lasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(phi.toarray(), target)

    def loss(weights):
        return ((target - phi @ weights) ** 2).mean() / 2 + alpha * np.abs(weights).sum()

    assert loss(w) == pytest.approx(loss(theirs.coef_), abs=1e-7)
    np.testing.assert_allclose(phi @ w, theirs.predict(phi.toarray()), atol=1e-3)
    slope = phi.T @ (phi @ w - target) / len(target)  # the conditions of the optimum, leaf by leaf
    assert (np.abs(slope[w == 0]) <= alpha + 1e-6).all()
    np.testing.assert_allclose(slope[w != 0], -alpha * np.sign(w[w != 0]), atol=1e-6)


def test_a_strong_l1_keeps_nothing_and_more_of_it_keeps_less():
    phi, target = indicators(), Y[:, 1] - 1 / 3
    kept = [(lasso_leaves(phi, target, alpha) != 0).sum() for alpha in (0.001, 0.01, 0.1, 1.0)]
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[-1] == 0


def test_pairs_of_siblings():
    pairs = sibling_leaves(TREES)
    for t, parent, left, right in pairs:
        tree, before = TREES[t], sum(tree.n_leaves for tree in TREES[:t])
        leaves = np.flatnonzero(tree.is_leaf)
        assert leaves[left - before] == parent + 1 and leaves[right - before] == tree.right[parent]
    assert len(pairs) == sum(
        tree.is_leaf[node + 1] and tree.is_leaf[tree.right[node]] for tree in TREES for node in np.flatnonzero(~tree.is_leaf)
    )


def test_the_least_pairs_are_merged():
    weights = np.random.default_rng(0).normal(size=(M, 3))
    pairs = sibling_leaves(TREES)
    norms = (weights[pairs[:, 2]] ** 2).sum(1) + (weights[pairs[:, 3]] ** 2).sum(1)
    least = {(int(t), int(node)) for t, node in pairs[np.argsort(norms)[:4], :2]}
    after = prune_leaves(RefinedForest(tuple(TREES), weights), 4)
    assert sum(tree.n_leaves for tree in after) == M - 4
    for t, tree in enumerate(TREES):
        wanted = tree.collapse([node for index, node in least if index == t])
        assert np.array_equal(after[t].feature, wanted.feature)
    assert prune_leaves(RefinedForest(tuple(TREES), weights), 0)[0].n_leaves == TREES[0].n_leaves
    assert sum(tree.n_leaves for tree in prune_leaves(RefinedForest(tuple(TREES), weights), 10**6)) == M - len(pairs)


def test_round_after_round_down_to_the_number():
    before = [tree.feature.copy() for tree in TREES]
    forests = list(refine_and_prune(TREES, X, Y, leaves=15, l2=0.5, rate=0.25))
    counts = [forest.n_leaves for forest in forests]
    assert counts[0] == M and counts[-1] == 15 and counts == sorted(set(counts), reverse=True)
    for forest in forests:  # the weights belong to these trees
        phi = leaf_indicators(leaf_numbers(forest.trees, X), forest.n_leaves)
        np.testing.assert_allclose(forest.weights, refine_leaves(phi, Y, 0.5), atol=1e-9)
    assert (forests[-1].decision(X).argmax(1) == y).mean() > 0.95
    assert all(np.array_equal(tree.feature, old) for tree, old in zip(TREES, before))
    assert [forest.n_leaves for forest in refine_and_prune(TREES, X, Y, leaves=M)] == [M]


def test_what_is_refused():
    phi = csr_matrix(np.eye(3))
    for call, message in [
        (lambda: refine_leaves(phi, np.eye(3), 0), "l2 must be above 0"),
        (lambda: lasso_leaves(phi, np.ones(3), -1), "alpha must be at least 0"),
        (lambda: leaf_indicators(np.array([[3]]), 3), "leaves must be numbered from 0 to 2, got 3 to 3"),
        (lambda: next(refine_and_prune(TREES, X, Y, leaves=5)), "leaves must be a whole number of at least 6, got 5"),
        (lambda: next(refine_and_prune(TREES, X, Y, leaves=9, rate=0)), "rate must be above 0"),
        (lambda: next(refine_and_prune(TREES, X, Y, leaves=9, rate=20)), "rate must be in"),
        (lambda: prune_leaves(RefinedForest(tuple(TREES), np.ones((M, 1))), -1), "count must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="leaves must be"):
        next(refine_and_prune(TREES, X, Y, leaves=9.5))
