"""Repeated cross-validation and the corrected interval: scikit-learn's scores, the formula by hand, simulated coverage."""

import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.datasets import load_iris
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from compresslab.classical.validation import paired_interval, repeated_cv

X, y = load_iris(return_X_y=True)


def test_scores_are_those_of_scikit_learn_on_the_same_folds():
    estimators = {"tree": DecisionTreeClassifier(random_state=0), "bayes": GaussianNB()}
    scores = repeated_cv(estimators, X, y, repeats=2, folds=3, seed=4)
    cuts = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=4)
    assert list(scores) == ["tree", "bayes"]
    for name, estimator in estimators.items():
        np.testing.assert_allclose(scores[name], cross_val_score(estimator, X, y, cv=cuts))
        assert not hasattr(estimator, "classes_")  # clones were fitted


def test_another_seed_cuts_otherwise():
    one, other = (repeated_cv({"t": GaussianNB()}, X, y, 2, 3, seed)["t"] for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_without_shared_points_the_interval_is_students():
    a, b = np.random.default_rng(0).normal([[0.9], [0.88]], 0.02, (2, 40))
    found = paired_interval(a, b, test_fraction=1e-12, confidence=0.9)
    wanted = ttest_rel(a, b).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], wanted, rtol=1e-6)
    assert found.difference == pytest.approx((a - b).mean()) and found.n == 40 and found.confidence == 0.9


def test_the_correction_by_hand():
    """Ten times five folds: (1/50 + 1/4) in place of 1/50."""
    a = np.tile([0.02, 0.0], 25)
    plain, corrected = paired_interval(a, 0 * a, 1e-12), paired_interval(a, 0 * a, 0.2)
    assert (corrected.high - corrected.low) / (plain.high - plain.low) == pytest.approx(np.sqrt(0.27 / 0.02))
    assert corrected.difference == pytest.approx(0.01)


def test_equal_models_are_told_apart_no_more_often_than_promised():
    """Folds that share a common error, as trainings on common points do: the plain interval fails, the corrected one holds."""
    draw, rounds = np.random.default_rng(1), 200
    missed = {0.2: 0, 1e-12: 0}
    for _ in range(rounds):
        common, own = draw.normal(0, np.sqrt(0.2)), draw.normal(0, np.sqrt(0.8), 50)
        for fraction in missed:
            found = paired_interval(common + own, np.zeros(50), fraction)
            missed[fraction] += not found.low <= 0 <= found.high
    assert missed[0.2] <= 0.08 * rounds and missed[1e-12] >= 0.3 * rounds


@pytest.mark.parametrize("shift, verdict", [(0.0, "not distinguishable"), (0.5, "a is better"), (-0.5, "b is better")])
def test_the_verdict(shift, verdict):
    a = shift + np.array([0.01, -0.01, 0.02, -0.02])
    found = paired_interval(a, np.zeros(4), 0.2)
    assert found.verdict == verdict and verdict in str(found)


@pytest.mark.parametrize("a, b, fraction, confidence, message", [
    ([0.1], [0.2], 0.2, 0.95, "at least two"),
    ([0.1, 0.2], [0.1], 0.2, 0.95, "as many scores"),
    ([[0.1, 0.2]], [[0.1, 0.2]], 0.2, 0.95, "as many scores"),
    ([0.1, 0.2], [0.1, 0.3], 1.0, 0.95, "test_fraction must be between 0 and 1, got 1"),
    ([0.1, 0.2], [0.1, 0.3], 0.2, 95, "confidence must be between 0 and 1, got 95"),
])
def test_what_is_refused(a, b, fraction, confidence, message):
    with pytest.raises(ValueError, match=message):
        paired_interval(a, b, fraction, confidence)


def test_what_cross_validation_refuses():
    tree = {"t": GaussianNB()}
    with pytest.raises(ValueError, match="folds must be a whole number of at least 2, got 1"):
        repeated_cv(tree, X, y, folds=1)
    with pytest.raises(ValueError, match="repeats must be"):
        repeated_cv(tree, X, y, repeats=0)
    with pytest.raises(TypeError, match="repeats must be"):
        repeated_cv(tree, X, y, repeats=2.5)
    with pytest.raises(ValueError, match="no estimator"):
        repeated_cv({}, X, y)
