"""A forest into a tree or a network: where queries come from, the gradient by finite differences, fidelity grows."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from compresslab.classical.distilled_network import DistilledNetworkClassifier, soft_loss
from compresslab.classical.forest_distillation import DistilledTreeClassifier, draw_queries, fidelity
from compresslab.classical.size import model_bytes

CANCER, TUMOURS = load_breast_cancer(return_X_y=True)
DIGITS, LABELS = load_digits(return_X_y=True)
FOREST = RandomForestClassifier(30, random_state=0)


@pytest.mark.parametrize("neighbors", [1, 3, 100])
def test_a_query_mixes_a_point_with_a_near_neighbour(neighbors):
    X = np.random.default_rng(0).permutation(120).reshape(20, 6).astype(float)  # a number tells its point
    queries = draw_queries(X, 300, neighbors, swap=0.4, seed=1)
    near = NearestNeighbors(n_neighbors=min(neighbors, 19)).fit(X).kneighbors(return_distance=False)
    owner = np.argmax(queries[:, :, None] == X.T[None], axis=2)  # (300, 6)
    assert (X[owner, np.arange(6)] == queries).all()
    for row in owner:
        used = set(row.tolist())
        assert any(used <= {i, j} for i in used for j in near[i]) or any(used <= {i, int(j)} for i in range(20) for j in near[i])
    assert {len(set(row)) for row in owner.tolist()} == {1, 2}


def test_swap_is_the_share_of_the_neighbours_features():
    X = np.array([[0.0] * 50, [1.0] * 50, [9.0] * 50])  # 1 is the neighbour of 0; 9's neighbour is 1
    queries = draw_queries(X, 2000, 1, swap=0.3, seed=0)
    from_nine = queries[(queries == 9).any(1)]
    assert (from_nine == 1).mean() == pytest.approx(0.3, abs=0.02)
    assert set(np.unique(draw_queries(X, 50, 1, swap=1.0))) <= {0.0, 1.0}
    whole = draw_queries(X, 200, 1, swap=0.0)
    assert (whole == whole[:, :1]).all() and set(whole[:, 0]) == {0.0, 1.0, 9.0}


def test_queries_are_reproducible_and_keep_the_type():
    one, again, other = (draw_queries(DIGITS[:50].astype(np.uint8), 9, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one, again) and not np.array_equal(one, other) and one.dtype == np.uint8
    assert draw_queries(DIGITS[:5], 0).shape == (0, 64)


@pytest.mark.parametrize("arguments, message", [
    ((CANCER, -1), "count must be"), ((CANCER, 5, 0), "neighbors must be"), ((CANCER, 5, 1, 50), "did you mean 0.5"), ((CANCER[:1], 5), "at least two points"),
])
def test_queries_that_cannot_be_drawn(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_queries(*arguments)


def test_fidelity():
    assert fidelity(["a", "b"], ["a", "c"]) == 0.5 and fidelity([1], [1]) == 1
    for bad in (([], []), ([1, 2], [1])):
        with pytest.raises(ValueError, match="as many answers"):
            fidelity(*bad)


def test_without_queries_a_pure_teacher_gives_the_plain_tree():
    """A teacher that knows its training points by heart says what the labels said: CART again."""
    teacher = DecisionTreeClassifier(random_state=0)
    student = DistilledTreeClassifier(teacher, queries=0, max_leaf_nodes=None).fit(CANCER, TUMOURS)
    assert student.tree_.n_leaves == teacher.fit(CANCER, TUMOURS).get_n_leaves()
    assert np.array_equal(student.predict(CANCER), TUMOURS)


def test_queries_raise_fidelity():
    """A noisy disc in a square: the forest's border is drawn by few points, and filled in by queries."""
    draw = np.random.default_rng(0)
    train, test = draw.uniform(-1, 1, (2, 300, 2))
    inside = ((train**2).sum(1) < 0.5) ^ (draw.random(300) < 0.15)
    agreed = []
    for queries in (0, 300, 3000):
        student = DistilledTreeClassifier(FOREST, queries=queries, max_leaf_nodes=150).fit(train, inside)
        agreed.append(fidelity(student.predict(test), student.teacher_.predict(test)))
        assert student.tree_.n_leaves <= 150
    assert agreed == sorted(agreed) and agreed[2] > agreed[0] + 0.03


def test_the_gradient_is_that_of_the_loss():
    draw = np.random.default_rng(0)
    X, shares = draw.normal(size=(7, 3)), draw.dirichlet(np.ones(4), 7)
    flat = draw.normal(size=4 * 5 + 6 * 4)
    arguments = (X, shares, 5, 0.1)
    assert check_grad(lambda w: soft_loss(w, *arguments)[0], lambda w: soft_loss(w, *arguments)[1], flat) < 1e-5
    uniform = soft_loss(np.zeros(44), *arguments)[0]
    assert uniform == pytest.approx(np.log(4))  # all classes alike


def test_a_network_in_a_fraction_of_the_forest():
    train, test = slice(0, 1000), slice(1000, None)
    network = DistilledNetworkClassifier(FOREST, hidden=16, queries=300, iterations=40).fit(DIGITS[train], LABELS[train])
    forest = network.teacher_
    assert network.score(DIGITS[test], LABELS[test]) > forest.score(DIGITS[test], LABELS[test]) - 0.05
    assert model_bytes(network) < model_bytes(forest) / 15


@pytest.mark.parametrize("student", [
    DistilledTreeClassifier(FOREST, 100, 20), DistilledNetworkClassifier(FOREST, 5, 100, bits=4, iterations=10), DistilledNetworkClassifier(FOREST, 3, 10, bits=32, iterations=5),
], ids=["tree", "network", "network in float32"])
def test_stored_and_read_again(student):
    names = np.array(["bad", "good"])[TUMOURS]
    student.fit(CANCER, names)
    again = type(student).from_arrays(student.to_arrays())
    assert np.array_equal(again.predict(CANCER), student.predict(CANCER)) and set(again.predict(CANCER)) <= {"bad", "good"}
    assert model_bytes(again) == model_bytes(student)


@pytest.mark.parametrize("student", [
    DistilledTreeClassifier(DecisionTreeClassifier(random_state=0), 30), DistilledNetworkClassifier(DecisionTreeClassifier(random_state=0), 4, 0, bits=8, iterations=20),
], ids=["tree", "network"])
def test_the_estimators_conform(student):
    check_estimator(student, on_skip=None)


@pytest.mark.parametrize("student, kind, message", [
    (DistilledTreeClassifier(LinearSVC()), TypeError, "a teacher must have predict_proba, LinearSVC has not"),
    (DistilledTreeClassifier(queries=-1), ValueError, "queries must be"),
    (DistilledNetworkClassifier(hidden=0), ValueError, "hidden must be"),
    (DistilledNetworkClassifier(bits=1), ValueError, "bits must be"),
    (DistilledNetworkClassifier(iterations=0), ValueError, "iterations must be"),
])
def test_what_is_refused(student, kind, message):
    with pytest.raises(kind, match=message):
        student.fit(CANCER, TUMOURS)
