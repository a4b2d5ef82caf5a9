"""How small models store their matrices: exact round trips, half a step of error, exact counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compresslab.classical.stored_matrix import check_bits, codes_of, keep_largest, pack_matrices, rounded, unpack_matrices
from compresslab.core.bits import packed_size


def randn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_rounding_is_at_most_half_a_step_and_done_once(bits):
    matrix = randn(7, 9)
    codes, scale = codes_of(matrix, bits)
    assert np.abs(codes).max() == 2 ** (bits - 1) - 1 and codes.dtype == np.int8
    once = rounded(matrix, bits)
    assert np.abs(once - matrix).max() <= scale / 2 * (1 + 1e-5)
    np.testing.assert_array_equal(rounded(once, bits), once)
    np.testing.assert_array_equal(codes_of(once, bits)[0], codes)


def test_all_zeros_and_nothing():
    assert codes_of(np.zeros((2, 2)), 4)[1] == 1 and not rounded(np.zeros((2, 2)), 4).any()
    assert codes_of(np.zeros((0, 3)), 4)[0].shape == (0, 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from([2, 3, 4, 6, 8, 32]), st.booleans(), st.integers(0, 99))
def test_what_is_packed_comes_back(rows, columns, bits, sparse, seed):
    first, second = rounded(keep_largest(randn(rows, columns, seed=seed), 0.5), bits), rounded(randn(3, 2, seed=seed), bits)
    arrays = pack_matrices({"W": first, "B": second}, bits, sparse=["W"] if sparse else [])
    found = unpack_matrices(arrays, ["W", "B"])
    np.testing.assert_allclose(found["W"], first, rtol=1e-6)
    np.testing.assert_allclose(found["B"], second, rtol=1e-6)
    assert list(found) == ["W", "B"] and all(matrix.dtype == np.float32 for matrix in found.values())


def test_bytes_are_counted_by_hand():
    W = keep_largest(randn(10, 64), 0.25)
    arrays = pack_matrices({"W": W}, 5, sparse=["W"])
    assert arrays["W"].nbytes == packed_size(160, 5) == 100 and arrays["W_mask"].nbytes == 80 and arrays["scales"].nbytes == 4
    assert pack_matrices({"W": W}, 32)["W"].nbytes == 4 * 640
    assert pack_matrices({"W": W}, 32, sparse=["W"])["W"].nbytes == 4 * 160


@pytest.mark.parametrize("density", [0.0, 0.3, 0.5, 1.0])
def test_hard_thresholding_is_the_nearest_of_its_kind(density):
    matrix = randn(4, 5, seed=3)
    kept = keep_largest(matrix, density)
    assert (kept != 0).sum() == round(density * 20)
    assert (np.abs(kept[kept != 0]).min(initial=np.inf)) >= np.abs(matrix[kept == 0]).max(initial=0)
    np.testing.assert_array_equal(kept[kept != 0], matrix[kept != 0])
    np.testing.assert_array_equal(keep_largest(kept, density), kept)


def test_ties_keep_the_exact_count():
    assert (keep_largest(np.ones((3, 3)), 0.5) != 0).sum() == round(4.5)


def test_what_is_refused():
    for bits in (1, 9, 0, 16):
        with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8"):
            check_bits(bits)
    with pytest.raises(TypeError, match="bits"):
        check_bits(4.5)
    with pytest.raises(ValueError, match="W must be a matrix"):
        pack_matrices({"W": np.zeros(3)}, 8)
    arrays = pack_matrices({"W": randn(4, 4)}, 5)
    with pytest.raises(ValueError, match="do not fill"):
        unpack_matrices(arrays | {"W": arrays["W"][:-1]}, ["W"])
    with pytest.raises(KeyError):
        unpack_matrices(arrays, ["V"])
