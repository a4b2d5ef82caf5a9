"""Hart's condensed set, product-quantized neighbours: consistent, exact to the decoded points, and estimators."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from compresslab.classical.condensed import CondensedNeighborsClassifier, condense
from compresslab.classical.product_index import (
    ProductNeighborsClassifier,
    asymmetric_distances,
    decode_product,
    distance_tables,
    encode_product,
    product_codebooks,
)
from compresslab.classical.size import load_model, model_arrays, save_model

X, y = load_iris(return_X_y=True)
RNG = np.random.default_rng(0)


@parametrize_with_checks([CondensedNeighborsClassifier(), ProductNeighborsClassifier()])
def test_is_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("seed", range(4))
def test_the_store_has_every_training_point_right(seed):
    rng = np.random.default_rng(seed)
    points, labels = rng.standard_normal((80, 3)), rng.integers(0, 3, 80)
    order = rng.permutation(80)
    store = condense(points, labels, order)
    assert store[0] == order[0] and len(set(store)) == len(store) <= 80
    assert KNeighborsClassifier(1).fit(points[store], labels[store]).score(points, labels) == 1


def test_one_class_needs_one_point_and_twins_of_two_classes_end():
    assert condense(RNG.standard_normal((9, 2)), np.zeros(9)).tolist() == [0]
    assert condense(np.zeros((4, 2)), np.array([0, 1, 0, 1])).tolist() == [0]


def test_a_case_by_hand():
    points = np.array([[0.0], [1.0], [2.1], [3.3], [4.6]])
    assert condense(points, np.array([0, 0, 0, 1, 1])).tolist() == [0, 3, 2]


def test_what_condense_refuses():
    with pytest.raises(ValueError, match="at least one point and a class for each"):
        condense(np.zeros((0, 2)), np.zeros(0))
    with pytest.raises(ValueError, match="at least one point and a class for each"):
        condense(np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="permutation of 0 to 2"):
        condense(np.zeros((3, 2)), np.zeros(3), np.array([0, 1, 1]))


def test_float_storage_is_the_exact_neighbour():
    model = CondensedNeighborsClassifier(bits=32).fit(X, y)
    assert len(model.points_) < 30 and model.score(X, y) == 1
    oracle = KNeighborsClassifier(1).fit(model.points_ + model.offset_, model.labels_)
    probe = RNG.uniform(0, 8, (200, 4))
    assert (oracle.predict(probe) == model.predict(probe)).mean() > 0.99


# -- product quantization ---------------------------------------------------------------------------------


def test_asymmetric_distances_are_those_to_the_decoded_points():
    points, queries = RNG.standard_normal((40, 12)), RNG.standard_normal((5, 12))
    books = product_codebooks(points, 4, 6)
    codes = encode_product(points, books)
    decoded = decode_product(codes, books)
    assert books.shape == (4, 6, 3) and codes.shape == (40, 4) and distance_tables(queries, books).shape == (5, 4, 6)
    wanted = ((queries[:, None] - decoded) ** 2).sum(2)
    np.testing.assert_allclose(asymmetric_distances(queries, codes, books), wanted, rtol=1e-10, atol=1e-12)


def test_the_code_is_the_nearest_of_all():
    points, books = RNG.standard_normal((10, 4)), RNG.standard_normal((2, 3, 2))
    error = ((decode_product(encode_product(points, books), books) - points) ** 2).sum(1)
    for first in range(3):
        for second in range(3):
            other = decode_product(np.tile([first, second], (10, 1)), books)
            assert (error <= ((other - points) ** 2).sum(1) + 1e-12).all()


def test_enough_words_lose_nothing():
    points = RNG.integers(0, 3, (60, 6)).astype(float)
    books = product_codebooks(points, 6, 8)
    np.testing.assert_allclose(decode_product(encode_product(points, books), books), points, atol=1e-12)


@pytest.mark.parametrize("neighbors", [1, 3])
def test_with_exact_codes_it_is_nearest_neighbours(neighbors):
    points = RNG.integers(0, 4, (90, 5)) + 0.0
    labels = RNG.integers(0, 2, 90)
    model = ProductNeighborsClassifier(neighbors, subspaces=5, bits=3).fit(points, labels)
    probe = RNG.uniform(0, 3, (150, 5))
    table = ((probe[:, None] - points) ** 2).sum(2)
    clear = np.sort(table, 1)
    clear = clear[:, neighbors] - clear[:, neighbors - 1] > 1e-6
    oracle = KNeighborsClassifier(neighbors).fit(points, labels).predict(probe)
    np.testing.assert_array_equal(model.predict(probe)[clear], oracle[clear])


def test_bytes_by_hand():
    model = ProductNeighborsClassifier(subspaces=2, bits=3).fit(X, y)
    arrays = model_arrays(model)
    assert arrays["codes"].nbytes == -(-150 * 2 * 3 // 8) and arrays["codebooks"].nbytes == 4 * 2 * 8 * 2 and arrays["labels"].nbytes == 150


def test_what_product_codebooks_refuse():
    with pytest.raises(ValueError, match="subspaces must divide the 4 features, got 3"):
        product_codebooks(X, 3, 4)
    with pytest.raises(ValueError, match="k must be"):
        product_codebooks(X, 2, 0)
    with pytest.raises(ValueError, match="bits must be"):
        ProductNeighborsClassifier(bits=9).fit(X, y)
    with pytest.raises(ValueError, match="neighbors must be"):
        ProductNeighborsClassifier(0).fit(X, y)


@pytest.mark.parametrize("model", [CondensedNeighborsClassifier(), CondensedNeighborsClassifier(bits=4), ProductNeighborsClassifier(3, 2, 3)])
@pytest.mark.parametrize("labels", [y, np.array(["a", "b", "c"])[y]])
def test_a_file_brings_it_back(model, labels, tmp_path):
    model.fit(X, labels)
    save_model(model, tmp_path / "m")
    probe = RNG.uniform(0, 8, (100, 4))
    np.testing.assert_array_equal(load_model(tmp_path / "m").predict(probe), model.predict(probe))
