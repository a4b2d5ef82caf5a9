"""ProtoNN: gradients by finite differences, kernel-weighted neighbours, budgets after thresholding."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from compresslab.classical.prototypes import ProtoNNClassifier, protonn_gradients, protonn_scores
from compresslab.classical.size import load_model, model_arrays, model_bytes, save_model
from compresslab.classical.stored_matrix import keep_largest, rounded
from compresslab.core.bits import packed_size

X, y = load_iris(return_X_y=True)
RNG = np.random.default_rng(0)


@parametrize_with_checks([ProtoNNClassifier(epochs=12, lr=0.05)])
def test_is_an_estimator(estimator, check):
    check(estimator)


def test_gradients_by_finite_differences():
    points, labels = RNG.standard_normal((6, 4)), np.eye(3)[[0, 1, 2, 2, 0, 1]]
    parameters = [RNG.standard_normal(shape) for shape in ((2, 4), (5, 2), (5, 3))]
    loss, gradients = protonn_gradients(points, labels, tuple(parameters), 0.6)
    assert loss == pytest.approx(((protonn_scores(points, *parameters, 0.6) - labels) ** 2).sum() / 12)
    for p, gradient in zip(parameters, gradients):
        numeric = np.zeros_like(p)
        for place in np.ndindex(p.shape):
            ends = []
            for sign in (1, -1):
                p[place] += sign * 1e-6
                ends.append(protonn_gradients(points, labels, tuple(parameters), 0.6)[0])
                p[place] -= sign * 1e-6
            numeric[place] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-8)


def test_the_training_set_as_prototypes_is_kernel_weighted_neighbours():
    """W = I, B = all points, Z = their labels: scikit-learn's vote of all neighbours with Gaussian weights."""
    gamma = 0.8
    neighbours = KNeighborsClassifier(len(X), weights=lambda distance: np.exp(-((gamma * distance) ** 2))).fit(X, y)
    scores = protonn_scores(X, np.eye(4), X, np.eye(3)[y], gamma)
    np.testing.assert_allclose(scores / scores.sum(1, keepdims=True), neighbours.predict_proba(X), atol=1e-8)


def test_scores_against_sklearns_kernel():
    W, B, Z = RNG.standard_normal((2, 4)), RNG.standard_normal((7, 2)), RNG.standard_normal((7, 3))
    np.testing.assert_allclose(protonn_scores(X, W, B, Z, 0.3), rbf_kernel(X @ W.T, B, gamma=0.09) @ Z, rtol=1e-8)


@pytest.mark.parametrize("density", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_the_budget_holds_after_training_and_the_file_brings_the_model_back(density, bits, tmp_path):
    model = ProtoNNClassifier(dimensions=3, per_class=2, density=density, bits=bits, epochs=6).fit(X, y)
    assert (model.W_ != 0).sum() <= round(density * 12)
    for matrix in (model.W_, model.B_, model.Z_) if bits < 32 else ():
        np.testing.assert_array_equal(matrix, rounded(matrix, bits))
        assert len(np.unique(matrix)) <= 2**bits - 1
    arrays = model_arrays(model)
    if density == 1 and bits < 32:
        assert [arrays[name].nbytes for name in "WBZ"] == [packed_size(n, bits) for n in (12, 18, 18)]
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    for name in ("W_", "B_", "Z_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name).astype(np.float32))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert model_bytes(loaded) == model_bytes(model)


def test_learning_helps_and_repeats():
    start = ProtoNNClassifier(per_class=1, epochs=0).fit(X, y)
    models = [ProtoNNClassifier(per_class=1, epochs=40).fit(X, y) for _ in range(2)]
    losses = [protonn_gradients(X, np.eye(3)[y], (m.W_, m.B_, m.Z_), m.gamma_)[0] for m in (start, models[0])]
    assert losses[1] < 0.8 * losses[0] and models[0].score(X, y) > 0.95
    np.testing.assert_array_equal(models[0].B_, models[1].B_)


def test_thresholding_is_part_of_the_start():
    model = ProtoNNClassifier(dimensions=2, density=0.5, epochs=0, bits=32).fit(X, y)
    assert (model.W_ != 0).sum() == 4
    np.testing.assert_array_equal(model.W_, keep_largest(model.W_, 0.5))


def test_more_directions_than_features_or_points():
    model = ProtoNNClassifier(dimensions=9, per_class=50, epochs=1).fit(X[48:53], y[48:53])
    assert model.W_.shape == (4, 4) and len(model.B_) == 5


@pytest.mark.parametrize("argument, value", [("bits", 1), ("density", 80), ("dimensions", 0), ("per_class", 0), ("epochs", -1), ("batch_size", 0)])
def test_what_is_refused(argument, value):
    with pytest.raises(ValueError, match=argument):
        ProtoNNClassifier(**{argument: value}).fit(X, y)
