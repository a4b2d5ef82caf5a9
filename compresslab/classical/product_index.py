r"""Product quantization of a nearest-neighbour index: every stored point becomes a few bytes.

A point is cut into M pieces, and each piece is replaced by the nearest of k code words of its own code book.
Stored are M small numbers. A query stays as it is (**asymmetric**): its distances to all code words are
computed once, in a table, and the distance to a stored point is a sum of M entries,

.. math:: d(x, \hat y)^2 = \sum_{m=1}^M \| x^m - c^m_{y_m} \|^2 ,

which is the distance to the decoded point exactly; nothing is decoded for it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from compresslab.classical.size import Arrays, label_arrays, labels_of, smallest
from compresslab.core.bits import pack_bits, unpack_bits
from compresslab.core.errors import check_int


def product_codebooks(X: NDArray, subspaces: int, k: int, seed: int = 0) -> NDArray:
    """A code book for each piece of the points, by k-means.

    Args:
        X: points, (N, D). subspaces: M, a divisor of D. k: code words, at most N are made. seed: of k-means.

    Returns:
        (M, k, D / M).

    Raises:
        ValueError: M does not divide D, or out of range.

    Source:
        H. Jegou, M. Douze, C. Schmid, "Product Quantization for Nearest Neighbor Search", IEEE Transactions on
        Pattern Analysis and Machine Intelligence 33, 2011.
    """
    check_int("subspaces", subspaces, 1)
    check_int("k", k, 1)
    if X.shape[1] % subspaces:
        raise ValueError(f"subspaces must divide the {X.shape[1]} features, got {subspaces}")
    pieces = np.split(np.asarray(X, np.float64), subspaces, axis=1)
    books = np.zeros((subspaces, k, X.shape[1] // subspaces))
    for book, piece in zip(books, pieces):
        found = KMeans(min(k, len(np.unique(piece, axis=0))), n_init=1, random_state=seed).fit(piece).cluster_centers_
        book[:] = found[np.arange(k) % len(found)]  # fewer different pieces than code words: some words twice
    return books


def encode_product(X: NDArray, codebooks: NDArray) -> NDArray[np.int64]:
    """The number of the nearest code word for each piece: X (N, D), codebooks (M, k, D / M); returns (N, M)."""
    return distance_tables(X, codebooks).argmin(2)


def decode_product(codes: NDArray, codebooks: NDArray) -> NDArray:
    """The points that the codes stand for: codes (N, M); returns (N, D).

    Example:
        >>> decode_product(np.array([[1, 0]]), np.array([[[0.0], [5.0]], [[7.0], [9.0]]]))
        array([[5., 7.]])
    """
    return np.concatenate([book[code] for book, code in zip(codebooks, codes.T)], axis=1)


def distance_tables(X: NDArray, codebooks: NDArray) -> NDArray:
    """Squared distances of the pieces of queries to all code words: X (n, D); returns (n, M, k)."""
    pieces = np.asarray(X, np.float64).reshape(len(X), len(codebooks), 1, -1)
    return ((pieces - codebooks) ** 2).sum(3)


def asymmetric_distances(X: NDArray, codes: NDArray, codebooks: NDArray) -> NDArray:
    r"""Squared distances of queries to stored points, by looking them up.

    .. math:: d_{ij} = \sum_m T_{i,m,c_{jm}}, \qquad T_{i,m,v} = \|x_i^m - c^m_v\|^2

    Args:
        X: queries, (n, D), not quantized. codes: of the stored points, (N, M). codebooks: (M, k, D / M).

    Returns:
        (n, N), equal to the squared distances to ``decode_product(codes, codebooks)``.

    Source:
        Jegou, Douze, Schmid, 2011 (asymmetric distance computation).
    """
    tables = distance_tables(X, codebooks)
    return sum(tables[:, m, codes[:, m]] for m in range(len(codebooks)))


class ProductNeighborsClassifier(ClassifierMixin, BaseEstimator):
    """Nearest neighbours in a product-quantized training set.

    Args:
        neighbors: how many vote; of classes with equally many votes the first wins.
        subspaces: M; the features are padded with zeros to a multiple of it.
        bits: of a code, 1 to 8: k = 2**bits code words.
        seed: of k-means.

    Attributes:
        codes_: (N, M). codebooks_: (M, k, D / M), float32. labels_: (N,). classes_: (L,).

    Source:
        Jegou, Douze, Schmid, 2011. Differs: one list for all points (no inverted file).
    """

    def __init__(self, neighbors: int = 1, subspaces: int = 16, bits: int = 4, seed: int = 0) -> None:
        self.neighbors = neighbors
        self.subspaces = subspaces
        self.bits = bits
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray) -> ProductNeighborsClassifier:
        """Make the code books and encode the training set. X: (N, D); y: (N,)."""
        check_int("bits", self.bits, 1, 8)
        for name in ("neighbors", "subspaces"):
            check_int(name, getattr(self, name), 1)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, self.labels_ = np.unique(y, return_inverse=True)
        padded = self._padded(X)
        self.codebooks_ = product_codebooks(padded, self.subspaces, 2**self.bits, self.seed).astype(np.float32)
        self.codes_ = encode_product(padded, self.codebooks_)
        return self

    def _padded(self, X: NDArray) -> NDArray:
        return np.pad(X, ((0, 0), (0, -X.shape[1] % self.subspaces)))

    def predict(self, X: NDArray) -> NDArray:
        """The majority among the nearest stored points; (n,)."""
        check_is_fitted(self)
        X = self._padded(validate_data(self, X, reset=False, dtype=np.float64))
        distances = asymmetric_distances(X, self.codes_, self.codebooks_)
        nearest = self.labels_[np.argsort(distances, axis=1, kind="stable")[:, : self.neighbors]]
        votes = (nearest[:, :, None] == np.arange(len(self.classes_))).sum(1)
        return self.classes_[votes.argmax(1)]

    def to_arrays(self) -> Arrays:
        """Codes packed without gaps, code books in float32, class numbers."""
        check_is_fitted(self)
        numbers = [self.neighbors, self.bits, self.n_features_in_]
        arrays = {
            "codes": pack_bits(torch.from_numpy(self.codes_), self.bits).numpy(),
            "codebooks": self.codebooks_,
            "labels": smallest(self.labels_),
            "numbers": np.array(numbers, np.uint16),
        }
        return arrays | label_arrays(self.classes_)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ProductNeighborsClassifier:
        """The fitted classifier that ``to_arrays`` stored."""
        neighbors, bits, features = (int(number) for number in arrays["numbers"])
        books, labels = arrays["codebooks"], arrays["labels"]
        model = cls(neighbors=neighbors, subspaces=len(books), bits=bits)
        flat = unpack_bits(torch.from_numpy(arrays["codes"].copy()), bits, len(labels) * len(books))
        model.codes_, model.codebooks_, model.labels_ = flat.view(len(labels), -1).long().numpy(), books, labels
        model.classes_, model.n_features_in_ = labels_of(arrays, int(labels.max()) + 1), features
        return model
