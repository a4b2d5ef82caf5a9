"""The packed forest: bits counted by hand, read again, thresholds on the grid ask the same; goal on the digits."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from compresslab.classical.compressed_forest import CompressedForestClassifier, preorder_children, round_thresholds, threshold_codes
from compresslab.classical.size import model_bytes
from compresslab.classical.tree_arrays import TreeArrays

DIGITS, LABELS = load_digits(return_X_y=True)
CANCER, TUMOURS = load_breast_cancer(return_X_y=True)


def trees_on(X, y, seed=0):
    grown = ExtraTreesClassifier(5, max_leaf_nodes=20, random_state=seed).fit(X, y)
    return [TreeArrays.from_sklearn(tree) for tree in grown.estimators_]


@pytest.mark.parametrize("scale", [1.0, 1 / 16], ids=["0 to 16", "0 to 1"])
def test_four_bits_keep_every_question_about_seventeen_levels(scale):
    trees = trees_on(DIGITS * scale, LABELS)
    rounded, grid = round_thresholds(trees, DIGITS * scale, bits=4)
    assert grid.shape == (1, 2)  # one grid for all pixels
    for before, after in zip(trees, rounded):
        assert np.array_equal(before.apply(DIGITS * scale), after.apply(DIGITS * scale))
        codes = threshold_codes(after, grid, 4)
        assert codes.min() >= 0 and codes.max() <= 15
        assert np.array_equal(codes, threshold_codes(before, grid, 4)) and not np.array_equal(before.threshold, after.threshold)


def test_a_grid_for_each_feature_is_at_most_half_a_step_off():
    trees = trees_on(CANCER, TUMOURS)
    for bits in (3, 8):
        rounded, grid = round_thresholds(trees, CANCER, bits)
        assert grid.shape == (30, 2)
        for before, after in zip(trees, rounded):
            inner = ~before.is_leaf
            step = grid[before.feature[inner], 1]
            assert (np.abs(before.threshold - after.threshold)[inner] <= step * 0.5001).all()
    with pytest.raises(ValueError, match="threshold_bits must be"):
        round_thresholds(trees, CANCER, 9)


def test_children_from_flags_alone():
    trees = trees_on(CANCER, TUMOURS) + [TreeArrays.from_sklearn(ExtraTreesClassifier(1).fit([[0.0]], [0]).estimators_[0])]
    for tree in trees:
        assert np.array_equal(preorder_children(tree.is_leaf), tree.right)
    for broken in ([], [False], [False, True], [False, False, True, True]):
        with pytest.raises(ValueError, match="end within a tree"):
            preorder_children(np.array(broken, bool))


@pytest.mark.parametrize("X, y, settings", [
    (DIGITS[:400], LABELS[:400], {"bits": 4}),
    (DIGITS[:400], LABELS[:400], {"bits": 32, "threshold_bits": 3}),
    (CANCER, np.array(["bad", "good"])[TUMOURS], {"bits": 3, "threshold_bits": 8}),
], ids=["digits", "float leaves", "names of classes"])
def test_stored_and_read_again(X, y, settings):
    teacher = RandomForestClassifier(5, random_state=0)
    model = CompressedForestClassifier(teacher, n_estimators=7, max_leaf_nodes=12, leaves=50, queries=200, **settings).fit(X, y)
    arrays = model.to_arrays()
    again = CompressedForestClassifier.from_arrays(arrays)
    assert np.array_equal(again.predict(X), model.predict(X)) and again.forest_.n_leaves == model.forest_.n_leaves <= 50
    assert model_bytes(again) == model_bytes(model)
    m, T, L, D = model.forest_.n_leaves, 7, len(set(y)), X.shape[1]
    assert arrays["is_leaf"].nbytes == -(-(2 * m - T) // 8)
    assert arrays["feature"].nbytes == -(-(m - T) * int(np.ceil(np.log2(D))) // 8)
    assert arrays["threshold"].nbytes == -(-(m - T) * model.threshold_bits // 8)
    assert arrays["leaves"].nbytes == -(-m * L * model.bits // 8)


def test_more_features_than_a_byte_can_number():
    X = np.random.default_rng(0).normal(size=(60, 300))
    model = CompressedForestClassifier(RandomForestClassifier(3), 5, 4, 15, queries=0).fit(X, X[:, 270] > 0)
    assert np.array_equal(CompressedForestClassifier.from_arrays(model.to_arrays()).predict(X), model.predict(X))


def test_twenty_times_smaller_and_hardly_worse():
    """One split; the chapter's evidence has ten repeats of five folds."""
    train, test = slice(0, 1437), slice(1437, None)
    model = CompressedForestClassifier(queries=500).fit(DIGITS[train], LABELS[train])
    assert model_bytes(model.teacher_) >= 20 * model_bytes(model)
    assert model.score(DIGITS[test], LABELS[test]) >= model.teacher_.score(DIGITS[test], LABELS[test]) - 0.03


def test_same_seed_same_forest_and_the_global_generator_is_left_alone():
    state = np.random.get_state()[1].copy()
    fit = {seed: CompressedForestClassifier(RandomForestClassifier(3, random_state=0), 5, 8, 30, 50, seed=seed).fit(CANCER, TUMOURS) for seed in (1, 2)}
    once_more = CompressedForestClassifier(RandomForestClassifier(3, random_state=0), 5, 8, 30, 50, seed=1).fit(CANCER, TUMOURS)
    assert np.array_equal(once_more.forest_.weights, fit[1].forest_.weights)
    assert not np.array_equal(fit[1].forest_.weights, fit[2].forest_.weights)
    assert np.array_equal(np.random.get_state()[1], state)


def test_the_estimator_conforms():
    check_estimator(CompressedForestClassifier(DecisionTreeClassifier(random_state=0), 3, 8, 20, 20, bits=6, threshold_bits=8), on_skip=None)


@pytest.mark.parametrize("settings, message", [
    ({"n_estimators": 0}, "n_estimators must be"), ({"n_estimators": 9, "leaves": 8}, "leaves must be a whole number of at least 9"),
    ({"queries": -1}, "queries must be"), ({"bits": 9}, "bits must be"), ({"threshold_bits": 0}, "threshold_bits must be"),
])
def test_what_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CompressedForestClassifier(**{"teacher": RandomForestClassifier(2), **settings}).fit(CANCER, TUMOURS)
