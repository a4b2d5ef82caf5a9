"""Reduced sets, Nystrom and random Fourier features: closed forms, exact cases, unbiasedness, scikit-learn."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_iris
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from compresslab.classical.random_features import FourierFeatures, NystromFeatures, draw_fourier, fourier_features, nystrom_features
from compresslab.classical.reduced_set import ReducedSetClassifier, reduced_coefficients, reduction_error, reduction_gradient
from compresslab.classical.size import load_model, model_bytes, save_model

X, y = load_iris(return_X_y=True)
RNG = np.random.default_rng(0)


@parametrize_with_checks([ReducedSetClassifier(vectors=12, steps=5), NystromFeatures(10), FourierFeatures(10)])
def test_is_an_estimator(estimator, check):
    check(estimator)


def expansion(seed=0, n=12, m=4, d=3, machines=2):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, d)), rng.standard_normal((n, d)), rng.standard_normal((n, machines))


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_is_the_minimum(seed):
    Z, vectors, alpha = expansion(seed)
    beta = reduced_coefficients(Z, vectors, alpha, 0.4)
    np.testing.assert_allclose(beta, np.linalg.inv(rbf_kernel(Z, gamma=0.4)) @ rbf_kernel(Z, vectors, gamma=0.4) @ alpha, rtol=1e-8)
    found = minimize(lambda b: reduction_error(Z, b.reshape(4, 2), vectors, alpha, 0.4), np.zeros(8), tol=1e-12)
    np.testing.assert_allclose(beta.ravel(), found.x, atol=1e-4)
    assert reduction_error(Z, beta, vectors, alpha, 0.4) <= found.fun + 1e-10


def test_the_error_is_a_squared_length():
    Z, vectors, alpha = expansion()
    beta = RNG.standard_normal((4, 2))
    both, signs = np.vstack([vectors, Z]), np.vstack([alpha, -beta])
    wanted = np.trace(signs.T @ rbf_kernel(both, gamma=0.4) @ signs)
    assert reduction_error(Z, beta, vectors, alpha, 0.4) == pytest.approx(wanted)
    own = reduced_coefficients(vectors, vectors, alpha, 0.4)
    assert reduction_error(vectors, own, vectors, alpha, 0.4) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(own, alpha, atol=1e-6)


def test_the_gradient_by_finite_differences():
    Z, vectors, alpha = expansion(1)
    beta = RNG.standard_normal((4, 2))
    gradient, numeric = reduction_gradient(Z, beta, vectors, alpha, 0.4), np.zeros_like(Z)
    for place in np.ndindex(Z.shape):
        ends = []
        for sign in (1, -1):
            moved = Z.copy()
            moved[place] += sign * 1e-6
            ends.append(reduction_error(moved, beta, vectors, alpha, 0.4))
        numeric[place] = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-7)


def test_twins_in_the_reduced_set_share():
    beta = reduced_coefficients(np.array([[1.0], [1.0]]), np.array([[1.0]]), np.array([3.0]), 1.0)
    np.testing.assert_allclose(beta, [1.5, 1.5])


def test_with_all_vectors_it_is_sklearns_machine():
    model = ReducedSetClassifier(vectors=1000, C=1.0, gamma=0.5, steps=0, bits=32).fit(X, y)
    oracle = OneVsRestClassifier(SVC(C=1.0, gamma=0.5)).fit(X, y)
    assert abs(model.error_) < 1e-9
    np.testing.assert_allclose(model.decision_function(X), oracle.decision_function(X), atol=1e-3)


def test_moving_helps_and_the_error_falls_with_the_vectors():
    still = [ReducedSetClassifier(vectors=m, steps=0).fit(X, y).error_ for m in (4, 12, 30)]
    moved = ReducedSetClassifier(vectors=4, steps=40).fit(X, y).error_
    assert still[0] > still[1] > still[2] > -1e-9 and moved < still[0]


@pytest.mark.parametrize("bits", [5, 8, 32])
def test_a_file_brings_it_back(bits, tmp_path):
    model = ReducedSetClassifier(vectors=9, steps=3, bits=bits).fit(X, y)
    assert save_model(model, tmp_path / "m") == model_bytes(model)
    loaded = load_model(tmp_path / "m")
    np.testing.assert_allclose(loaded.decision_function(X), model.decision_function(X), rtol=1e-5, atol=1e-6)


def test_what_a_reduced_set_refuses():
    with pytest.raises(ValueError, match="vectors must be"):
        ReducedSetClassifier(0).fit(X, y)
    with pytest.raises(ValueError, match="steps must be"):
        ReducedSetClassifier(steps=-1).fit(X, y)
    with pytest.raises(ValueError, match="one class"):
        ReducedSetClassifier().fit(X, np.zeros(150))


# -- features of finite length ------------------------------------------------------------------------------


def test_nystrom_is_exact_on_its_landmarks_and_everywhere_with_all_points():
    points, gamma = X[:40] + 0.01 * RNG.standard_normal((40, 4)), 2.0
    features = nystrom_features(points, points, gamma)
    np.testing.assert_allclose(features @ features.T, rbf_kernel(points, gamma=gamma), atol=1e-8)
    few = nystrom_features(points, points[:7], gamma)
    exact = rbf_kernel(points, gamma=gamma)
    np.testing.assert_allclose((few @ few.T)[:7], exact[:7], atol=1e-8)
    assert np.abs(few @ few.T - exact).max() > 0.05


def test_nystrom_against_sklearn():
    points = X + 0.01 * RNG.standard_normal(X.shape)
    theirs = Nystroem(gamma=0.5, n_components=20, random_state=0).fit(points)
    theirs_products = theirs.transform(points) @ theirs.transform(points).T
    mine = nystrom_features(points, theirs.components_, 0.5)
    np.testing.assert_allclose(mine @ mine.T, theirs_products, atol=1e-5)
    model = NystromFeatures(20, gamma=0.5).fit(points)
    np.testing.assert_allclose(model.transform(points), nystrom_features(points, model.landmarks_, 0.5))


def test_fourier_features_are_sklearns_for_its_draws():
    theirs = RBFSampler(gamma=0.3, n_components=9, random_state=1).fit(X)
    np.testing.assert_allclose(fourier_features(X, theirs.random_weights_.T, theirs.random_offset_), theirs.transform(X), atol=1e-10)


def test_fourier_features_are_unbiased_and_noise_falls_like_the_root():
    points, gamma, draws = X[::15], 0.2, 3000
    exact = rbf_kernel(points, gamma=gamma)
    spread = {}
    for m in (2, 8):
        products = np.array([f @ f.T for f in (fourier_features(points, *draw_fourier(m, 4, gamma, seed)) for seed in range(draws))])
        error = products.std(0, ddof=1) / np.sqrt(draws)
        assert (np.abs(products.mean(0) - exact) < 5 * error + 1e-12).all()
        spread[m] = products.std(0).mean()
    assert spread[2] / spread[8] == pytest.approx(2, rel=0.1)


def test_features_refuse_none():
    with pytest.raises(ValueError, match="landmarks must be"):
        NystromFeatures(0).fit(X)
    with pytest.raises(ValueError, match="features must be"):
        FourierFeatures(0).fit(X)
