"""The path of weakest links: scikit-learn's own, the best of all subtrees by enumeration, and the estimator."""

from itertools import product

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from compresslab.classical.cost_complexity import (
    PrunedTreeClassifier,
    branch_totals,
    cost_complexity_path,
    link_strengths,
    prune_tree,
)
from compresslab.classical.tree_arrays import TreeArrays

DATA = {"iris": load_iris, "breast cancer": load_breast_cancer, "digits": load_digits}


@pytest.mark.parametrize("load", DATA.values(), ids=DATA)
@pytest.mark.parametrize("settings", [{}, {"criterion": "entropy"}, {"max_leaf_nodes": 12}, {"class_weight": "balanced"}], ids=str)
def test_alphas_and_risks_are_those_of_scikit_learn(load, settings):
    X, y = load(return_X_y=True)
    fitted = DecisionTreeClassifier(random_state=0, **settings).fit(X, y)
    path, theirs = cost_complexity_path(TreeArrays.from_sklearn(fitted)), fitted.cost_complexity_pruning_path(X, y)
    np.testing.assert_allclose(path.alphas, theirs.ccp_alphas, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path.risks, theirs.impurities, rtol=1e-9, atol=1e-12)
    assert path.leaves[0] == fitted.get_n_leaves() and path.leaves[-1] == 1 and (np.diff(path.leaves) < 0).all()


@pytest.mark.parametrize("load", DATA.values(), ids=DATA)
def test_a_pruned_tree_predicts_as_scikit_learns_refit(load):
    X, y = load(return_X_y=True)
    tree = TreeArrays.from_sklearn(DecisionTreeClassifier(random_state=0).fit(X, y))
    alphas = cost_complexity_path(tree).alphas
    for price in [0.0, *((alphas[1:] + alphas[:-1]) / 2)[:: max(1, len(alphas) // 4)], alphas[-1] * 2]:
        theirs = DecisionTreeClassifier(random_state=0, ccp_alpha=price).fit(X, y)
        ours = prune_tree(tree, price)
        np.testing.assert_array_equal(ours.predict_value(X), theirs.predict_proba(X))
        assert ours.n_leaves == theirs.get_n_leaves()


def subtrees(tree, node=0):
    """(risk, leaves) of every way to prune the branch below a node."""
    yield tree.risk[node], 1
    if not tree.is_leaf[node]:
        for (a, m), (b, n) in product(list(subtrees(tree, node + 1)), list(subtrees(tree, tree.right[node]))):
            yield a + b, m + n


@pytest.mark.parametrize("seed", range(4))
def test_no_subtree_is_better_at_its_price(seed):
    draw = np.random.default_rng(seed)
    fitted = DecisionTreeClassifier(max_leaf_nodes=9, random_state=0).fit(draw.normal(size=(80, 3)), draw.integers(3, size=80))
    tree = TreeArrays.from_sklearn(fitted)
    everything = list(subtrees(tree))
    assert len(everything) > 10
    for price in np.linspace(1e-4, 1.2 * cost_complexity_path(tree).alphas[-1], 40):
        pruned = prune_tree(tree, price)
        cost = pruned.risk[pruned.is_leaf].sum() + price * pruned.n_leaves
        assert cost <= min(risk + price * leaves for risk, leaves in everything) + 1e-12


def test_strengths_and_totals_by_the_definition():
    X, y = load_iris(return_X_y=True)
    tree = TreeArrays.from_sklearn(DecisionTreeClassifier(random_state=0).fit(X, y))
    risk, leaves = branch_totals(tree)
    strength = link_strengths(tree)
    for node in range(len(tree.feature)):
        largest = max(subtrees(tree, node), key=lambda pair: pair[1])
        assert (risk[node], leaves[node]) == pytest.approx(largest)
        if tree.is_leaf[node]:
            assert np.isinf(strength[node])
        else:
            assert strength[node] == pytest.approx((tree.risk[node] - largest[0]) / (largest[1] - 1))


def test_a_lone_root_has_a_path_of_one_step():
    tree = TreeArrays.from_sklearn(DecisionTreeClassifier().fit([[0.0], [1.0]], [1, 1]))
    path = cost_complexity_path(tree)
    assert path.alphas.tolist() == [0] and path.leaves.tolist() == [1] and prune_tree(tree, 3.0).n_leaves == 1


def test_a_negative_price_is_refused():
    tree = TreeArrays.from_sklearn(DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1]))
    for price in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="ccp_alpha must be at least 0"):
            prune_tree(tree, price)


def test_the_estimator_conforms():
    check_estimator(PrunedTreeClassifier(folds=3, tolerance=0), on_skip=None)


def test_labels_of_noise_are_pruned_to_little():
    draw = np.random.default_rng(0)
    X = draw.normal(size=(300, 4))
    y = (X[:, 0] > 0).astype(int)
    flipped = np.where(draw.random(300) < 0.2, 1 - y, y)
    model = PrunedTreeClassifier().fit(X, flipped)
    assert model.full_leaves_ > 30 and model.tree_.n_leaves <= 4 and model.score(X, y) > 0.9
    assert PrunedTreeClassifier(tolerance=0).fit(X, flipped).tree_.n_leaves >= model.tree_.n_leaves


def test_stored_and_read_again():
    X, y = load_iris(return_X_y=True, as_frame=False)
    names = np.array(["a", "b", "c"])[y]
    model = PrunedTreeClassifier().fit(X, names)
    again = PrunedTreeClassifier.from_arrays(model.to_arrays())
    assert np.array_equal(again.predict(X), model.predict(X)) and again.predict(X)[0] == "a"


@pytest.mark.parametrize("settings, message", [({"folds": 1}, "folds must be"), ({"tolerance": -1}, "tolerance must be at least 0")])
def test_what_the_estimator_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        PrunedTreeClassifier(**settings).fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
