"""What a classical model weighs: the stored arrays are enough to predict, and no larger than they must be."""

import numpy as np
import pytest
import safetensors.numpy
from sklearn.datasets import load_iris
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from compresslab.classical import size
from compresslab.classical.condensed import CondensedNeighborsClassifier
from compresslab.classical.random_features import NystromFeatures
from compresslab.classical.size import (
    array_bytes,
    floor32,
    label_arrays,
    labels_of,
    load_arrays,
    load_model,
    model_arrays,
    model_bytes,
    save_arrays,
    save_model,
    smallest,
)

X, y = load_iris(return_X_y=True)
X = X + 0.01 * np.random.default_rng(0).standard_normal(X.shape)  # no ties


def walk(arrays, points):
    """Leaf numbers of a stored tree, in plain Python."""
    inner = arrays["feature"] >= 0
    rank = np.cumsum(inner) - inner
    leaves = []
    for x in np.float32(points):
        i = 0
        while arrays["feature"][i] >= 0:
            i = i + 1 if x[arrays["feature"][i]] <= arrays["threshold"][rank[i]] else int(arrays["right"][rank[i]])
        leaves.append(i - rank[i])
    return np.array(leaves)


@pytest.mark.parametrize("limits", [{}, {"max_leaf_nodes": 5}, {"max_depth": 2}, {"max_depth": 1}])
def test_the_arrays_of_a_tree_are_enough_to_predict(limits):
    tree = DecisionTreeClassifier(random_state=0, **limits).fit(X[::2], y[::2])
    arrays = model_arrays(tree)
    np.testing.assert_array_equal(arrays["leaf"][walk(arrays, X)], tree.predict(X))
    assert arrays["threshold"].dtype == np.float32 and arrays["feature"].dtype == np.int8
    nodes, inner = tree.tree_.node_count, tree.tree_.node_count - tree.get_n_leaves()
    assert array_bytes(arrays) == nodes + 4 * inner + inner + (nodes - inner)


def test_a_tree_of_one_leaf():
    tree = DecisionTreeClassifier().fit(X[:10], y[:10])
    arrays = model_arrays(tree)
    assert arrays["feature"].tolist() == [-1] and not arrays["threshold"].size and model_bytes(tree) > 0


@pytest.mark.parametrize("forest", [RandomForestClassifier(7, random_state=0), ExtraTreesClassifier(5, max_depth=2, random_state=0)])
def test_the_arrays_of_a_forest_are_enough_to_predict(forest):
    forest.fit(X[::2], y[::2])
    arrays = model_arrays(forest)
    starts = np.cumsum(arrays["nodes"]) - arrays["nodes"]
    shares = 0
    for start, count in zip(starts, arrays["nodes"]):
        inner = arrays["feature"] >= 0
        first = int(inner[:start].sum())
        part = {"feature": arrays["feature"][start : start + count], "threshold": arrays["threshold"][first:], "right": arrays["right"][first:]}
        leaf = walk(part, X) + int(start) - first
        if arrays["leaf"].ndim == 1:  # pure leaves: the class is all
            shares = shares + np.eye(3)[arrays["leaf"][leaf]]
        else:
            two = arrays["leaf"][leaf]
            shares = shares + np.column_stack([two, 1 - two.sum(1)])
    np.testing.assert_allclose(shares / len(starts), forest.predict_proba(X), atol=1e-6)


def test_a_rounded_threshold_asks_the_same_question():
    thresholds = np.random.default_rng(0).standard_normal(2000)
    floor = floor32(thresholds)
    assert floor.dtype == np.float32 and (floor <= thresholds).all() and (np.nextafter(floor, np.float32(np.inf)) > thresholds).all()
    np.testing.assert_array_equal(floor32(floor.astype(np.float64)), floor)


def test_neighbours_machines_and_linear_models_by_hand():
    neighbours = model_arrays(KNeighborsClassifier(1).fit(X, y))
    assert array_bytes(neighbours) == 150 * 4 * 4 + 150
    machine = SVC(gamma=0.5).fit(X, y)
    arrays = model_arrays(machine)
    vectors = len(machine.support_)
    assert array_bytes(arrays) == 4 * (4 * vectors + 2 * vectors + 3 + 1) + 3
    assert array_bytes(model_arrays(LogisticRegression(max_iter=300).fit(X, y))) == 4 * (3 * 4 + 3)
    network = MLPClassifier((6,), max_iter=600, tol=1e-2, random_state=0).fit(X, y)
    assert array_bytes(model_arrays(network)) == 4 * (4 * 6 + 6 + 6 * 3 + 3)


def test_a_pipeline_is_its_steps():
    features, linear = NystromFeatures(5), LogisticRegression(max_iter=500)
    both = make_pipeline(features, linear).fit(X, y)
    assert array_bytes(model_arrays(both)) == array_bytes(model_arrays(both[0])) + array_bytes(model_arrays(both[1]))
    assert set(model_arrays(both)) == {"0.landmarks", "0.gamma", "1.weights", "1.bias"}


def test_the_file_has_the_counted_size(tmp_path):
    model = CondensedNeighborsClassifier().fit(X, y)
    written = save_model(model, tmp_path / "m")
    assert written == model_bytes(model) == (tmp_path / "m").stat().st_size
    assert written - array_bytes(model_arrays(model)) < 500


@pytest.mark.parametrize("labels", [[0, 1, 2], [3, 7, 300], [-1, 0, 1], [0.5, 1.5], ["a", "bé", "c"], [False, True]])
def test_labels_come_back(labels):
    classes = np.unique(labels)
    found = labels_of(label_arrays(classes), len(classes))
    np.testing.assert_array_equal(found, classes)
    assert bool(label_arrays(classes)) == (not np.array_equal(classes, np.arange(len(classes))))


def test_smallest_type():
    for low, high, wanted in [(0, 255, "uint8"), (0, 256, "uint16"), (-1, 127, "int8"), (-1, 128, "int16"), (-129, 0, "int16"), (0, 2**31, "uint32"), (-1, 2**31, "int64")]:
        assert smallest(np.array([low, high])).dtype == wanted
    assert smallest(np.zeros(0, int)).dtype == np.uint8
    with pytest.raises(TypeError, match="takes whole numbers"):
        smallest(np.array([0.5]))


def test_what_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        model_bytes(DecisionTreeClassifier())
    with pytest.raises(TypeError, match="the size of a LinearRegression is not known"):
        model_bytes(LinearRegression().fit(X, y))
    with pytest.raises(TypeError, match="no file can bring back a SVC; it can be one of Condensed"):
        save_model(SVC().fit(X, y), tmp_path / "svc")
    path = tmp_path / "m"
    save_arrays(path, {"a": np.zeros(2)}, "Spy")
    assert load_arrays(path)[1] == "Spy"
    with pytest.raises(ValueError, match="it holds a 'Spy', known are"):
        load_model(path)
    save_arrays(path, {"a": np.zeros(2)}, "ProtoNNClassifier")
    with pytest.raises(ValueError, match="its arrays make no ProtoNNClassifier"):
        load_model(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="it is no file of arrays"):
        load_arrays(path)
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}))
    with pytest.raises(ValueError, match="does not say what kind"):
        load_arrays(path)
    with pytest.raises(OSError):
        load_arrays(tmp_path / "none")


def test_every_kind_can_be_imported():
    from compresslab.core.names import import_by_name

    for name, place in size.KINDS.items():
        assert import_by_name(place).__name__ == name
