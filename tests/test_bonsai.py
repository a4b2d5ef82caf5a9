"""Bonsai: path indicators, hard is the limit of soft, thresholding, and a model under two kilobytes."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

from compresslab.classical.bonsai import BonsaiClassifier, bonsai_scores, path_indicators
from compresslab.classical.size import load_model, model_bytes, save_model
from compresslab.classical.stored_matrix import rounded

X, y = load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@parametrize_with_checks([BonsaiClassifier(epochs=8, lr=0.05, dimensions=4)])
def test_is_an_estimator(estimator, check):
    check(estimator)


def draws(depth=2, n=9, d=3, labels=4, features=5):
    rng = torch.Generator().manual_seed(depth)
    inner = 2**depth - 1
    shapes = ((n, features), (d, features), (inner, d), (2 * inner + 1, d, labels), (2 * inner + 1, d, labels))
    return [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 50.0, float("inf")])
def test_the_indicators_of_a_level_add_up_to_one(depth, sharpness):
    X, Z, theta, *_ = draws(depth)
    nodes = path_indicators(X @ Z.T, theta, sharpness)
    assert nodes.shape == (9, 2 ** (depth + 1) - 1)
    for level in range(depth + 1):
        torch.testing.assert_close(nodes[:, 2**level - 1 : 2 ** (level + 1) - 1].sum(1), torch.ones(9, dtype=torch.float64))


def test_the_hard_path_is_one_node_a_level_and_the_limit_of_the_soft_one():
    X, Z, theta, *_ = draws(3)
    hard = path_indicators(X @ Z.T, theta, float("inf"))
    assert set(hard.unique().tolist()) == {0.0, 1.0} and (hard.sum(1) == 4).all()
    gaps = [(path_indicators(X @ Z.T, theta, sharpness) - hard).abs().max().item() for sharpness in (1, 10, 100, 1e6)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-6 < gaps[0]


def test_scores_by_walking_the_tree():
    X, Z, theta, W, V = draws(2)
    scores = bonsai_scores(X, Z, theta, W, V, 0.7, float("inf"))
    for x, got in zip(X, scores):
        p, k, wanted = Z @ x, 0, 0
        while k < len(W):
            wanted = wanted + (p @ W[k]) * torch.tanh(0.7 * (p @ V[k]))
            k = 2 * k + (2 if k < len(theta) and theta[k] @ p > 0 else 1)
        torch.testing.assert_close(got, wanted)


def test_soft_scores_reach_the_hard_ones():
    parts = draws(2)
    hard = bonsai_scores(*parts, 1.0, float("inf"))
    torch.testing.assert_close(bonsai_scores(*parts, 1.0, 1e5), hard)


def test_digits_in_two_kilobytes():
    X, y = load_digits(return_X_y=True)
    model = BonsaiClassifier(epochs=4).fit(X[:900] / 16, y[:900])
    assert model_bytes(model) < 2048 and model.score(X[900:] / 16, y[900:]) > 0.7


@pytest.mark.parametrize("density, bits, depth", [(1.0, 8, 0), (0.4, 5, 1), (0.5, 32, 2)])
def test_the_budget_holds_and_the_file_brings_the_model_back(density, bits, depth, tmp_path):
    model = BonsaiClassifier(dimensions=4, depth=depth, density=density, bits=bits, epochs=4).fit(X, y)
    assert (model.Z_ != 0).sum() <= round(density * 20)
    if bits < 32:
        for matrix in (model.Z_, model.theta_, model.W_, model.V_):
            np.testing.assert_array_equal(matrix, rounded(matrix, bits))
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.depth == depth
    np.testing.assert_allclose(loaded.decision_function(X), model.decision_function(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_it_repeats_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second = (BonsaiClassifier(epochs=2).fit(X, y) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first.W_, second.W_)


@pytest.mark.parametrize("argument, value", [("bits", 1), ("density", 80), ("dimensions", 0), ("depth", 7), ("epochs", -1), ("batch_size", 0)])
def test_what_is_refused(argument, value):
    with pytest.raises(ValueError, match=argument):
        BonsaiClassifier(**{argument: value}).fit(X, y)
