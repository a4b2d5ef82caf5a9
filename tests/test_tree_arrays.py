"""A tree as arrays: every point in scikit-learn's own leaf, also points that lie on a threshold in float32."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import NotFittedError
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from compresslab.classical.size import model_arrays
from compresslab.classical.tree_arrays import TreeArrays

X, y = load_breast_cancer(return_X_y=True)
FITTED = {
    "depth first": DecisionTreeClassifier(random_state=0).fit(X, y),
    "best first": DecisionTreeClassifier(random_state=0, max_leaf_nodes=9).fit(X, y),  # not numbered in preorder
    "a stump": DecisionTreeClassifier(max_depth=1).fit(X, y),
    "one leaf": DecisionTreeClassifier().fit(X, np.zeros(len(X), int)),
    "at random": ExtraTreeClassifier(random_state=0).fit(X, y),
    "ten classes": DecisionTreeClassifier(random_state=0, max_leaf_nodes=60).fit(*load_digits(return_X_y=True)),
}


def points_of(fitted):
    data = X if fitted.n_features_in_ == X.shape[1] else load_digits().data
    draw = np.random.default_rng(0)
    inner = fitted.tree_.feature >= 0
    on_border = np.repeat(data[:1], 3 * max(inner.sum(), 1), axis=0)  # the threshold in float32, and its two neighbours
    for row, (feature, threshold) in enumerate(zip(fitted.tree_.feature[inner], fitted.tree_.threshold[inner])):
        near = np.float32(threshold)
        on_border[3 * row : 3 * row + 3, feature] = [near, np.nextafter(near, np.float32(9e9)), np.nextafter(near, np.float32(-9e9))]
    return np.concatenate([data, on_border, draw.normal(data.mean(0), data.std(0) + 1, (500, data.shape[1]))])


@pytest.mark.parametrize("fitted", FITTED.values(), ids=FITTED)
def test_every_point_ends_in_the_same_leaf(fitted):
    tree, points = TreeArrays.from_sklearn(fitted), points_of(fitted)
    np.testing.assert_array_equal(tree.predict_value(points), fitted.predict_proba(points))
    assert np.array_equal(fitted.classes_[tree.predict(points)], fitted.predict(points))
    ours, theirs = tree.apply(points), fitted.apply(points)  # numbered otherwise: one to one
    assert len(set(zip(ours, theirs))) == len(set(ours)) == len(set(theirs))
    assert tree.n_leaves == fitted.get_n_leaves() and tree.depth == fitted.get_depth()


@pytest.mark.parametrize("fitted", FITTED.values(), ids=FITTED)
def test_nodes_stand_in_preorder(fitted):
    tree = TreeArrays.from_sklearn(fitted)
    parent, inner = tree.parents(), np.flatnonzero(~tree.is_leaf)
    assert parent[0] == -1 and (parent[1:] < np.arange(1, len(parent))).all()
    assert (parent[inner + 1] == inner).all() and (parent[tree.right[inner]] == inner).all()
    assert np.bincount(parent[1:], minlength=len(parent))[inner].tolist() == [2] * len(inner)


@pytest.mark.parametrize("fitted", FITTED.values(), ids=FITTED)
def test_stored_and_read_again(fitted):
    tree, points = TreeArrays.from_sklearn(fitted), points_of(fitted)
    arrays = tree.to_arrays()
    again = TreeArrays.from_arrays(arrays, len(fitted.classes_))
    assert np.array_equal(again.predict(points), tree.predict(points))
    for name, array in model_arrays(fitted).items():  # the size rule counts the same
        assert np.array_equal(arrays[name], array) and arrays[name].dtype == array.dtype


def test_a_regression_tree_of_several_outputs():
    targets = np.random.default_rng(0).normal(size=(len(X), 3))
    fitted = DecisionTreeRegressor(max_leaf_nodes=20, random_state=0).fit(X, targets)
    np.testing.assert_array_equal(TreeArrays.from_sklearn(fitted).predict_value(X), fitted.predict(X))


def test_risk_is_the_share_weighted_impurity():
    tree = TreeArrays.from_sklearn(DecisionTreeClassifier().fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 0]))
    np.testing.assert_allclose(tree.risk, [6 / 16, 2 / 4 * 1 / 2, 0, 0, 0])


def test_collapse_by_hand_and_nothing_changes_outside():
    tree = TreeArrays.from_sklearn(FITTED["depth first"])
    before = [array.copy() for array in (tree.feature, tree.threshold, tree.right, tree.value)]
    inner = np.flatnonzero(~tree.is_leaf)
    for node in inner[[1, len(inner) // 2, -1]]:
        cut = tree.collapse([int(node)])
        stays = ~np.isin(tree.apply(X), _branch(tree, node))
        assert np.array_equal(cut.predict_value(X)[stays], tree.predict_value(X)[stays])
        assert (cut.predict_value(X)[~stays] == tree.value[node]).all() and (~stays).any()
        assert cut.n_leaves == tree.n_leaves - tree.is_leaf[_branch(tree, node)].sum() + 1
    for array, old in zip((tree.feature, tree.threshold, tree.right, tree.value), before):
        assert np.array_equal(array, old)
    nested = tree.collapse([1, *_branch(tree, 1)])  # what is below changes nothing
    assert nested.feature.tolist() == tree.collapse([1]).feature.tolist()
    assert tree.collapse([]).right.tolist() == tree.right.tolist() and tree.collapse([0]).n_leaves == 1


def _branch(tree, node):
    found, stack = [], [int(node)]
    while stack:
        t = stack.pop()
        found.append(t)
        if not tree.is_leaf[t]:
            stack += [t + 1, int(tree.right[t])]
    return found


def test_what_is_refused():
    with pytest.raises(TypeError, match="expected a decision tree of scikit-learn, got list"):
        TreeArrays.from_sklearn([])
    with pytest.raises(NotFittedError):
        TreeArrays.from_sklearn(DecisionTreeClassifier())
    with pytest.raises(ValueError, match="must have one output, got 2"):
        TreeArrays.from_sklearn(DecisionTreeClassifier().fit(X, np.stack([y, 1 - y], 1)))
    tree = TreeArrays.from_sklearn(FITTED["depth first"])
    with pytest.raises(ValueError, match="the tree asks for feature"):
        tree.apply(X[:, :3])
    with pytest.raises(ValueError, match="node must be from 0 to"):
        tree.collapse([10**6])


@pytest.mark.parametrize("change", [
    {"feature": np.array([0, 1, -1], np.int8)}, {"right": np.array([1], np.uint8)}, {"right": np.array([9], np.uint8)}, {"leaf": np.array([0, 7], np.uint8)},
])
def test_arrays_that_make_no_tree(change):
    arrays = TreeArrays.from_sklearn(FITTED["a stump"]).to_arrays() | change
    with pytest.raises((ValueError, IndexError)):
        TreeArrays.from_arrays(arrays, 2)
