r"""ProtoNN: a few learned prototypes in a learned, sparse projection, in place of a training set.

.. math:: \hat y(x) = \sum_{j=1}^m z_j \exp\big(-\gamma^2 \|W x - b_j\|^2\big)

Nearest neighbours, made small in three ways at once: few points (:math:`b_j`), few coordinates (:math:`W`
has d rows for D features), and labels that are scores (:math:`z_j`), so that one prototype can speak for and
against several classes. All three are learned together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from compresslab.classical.size import Arrays, label_arrays, labels_of
from compresslab.classical.stored_matrix import FLOAT, check_bits, keep_largest, pack_matrices, rounded, unpack_matrices
from compresslab.core.errors import check_fraction, check_int

Parameters = tuple[NDArray, NDArray, NDArray]


def protonn_scores(X: NDArray, W: NDArray, B: NDArray, Z: NDArray, gamma: float) -> NDArray:
    r"""The scores of all classes.

    .. math:: \hat y = K Z, \qquad K_{ij} = \exp(-\gamma^2 \|W x_i - b_j\|^2)

    With W = I, B = the training set and Z = its one-hot labels this is the kernel-weighted vote of *all*
    neighbours.

    Args:
        X: (n, D). W: (d, D). B: prototypes, (m, d). Z: their scores, (m, L).
        gamma: of the kernel, 1 / distance.

    Returns:
        (n, L).

    Source:
        C. Gupta et al., "ProtoNN: Compressed and Accurate kNN for Resource-scarce Devices", ICML 2017.

    Example:
        >>> protonn_scores(np.array([[3.0]]), np.eye(1), np.array([[3.0], [90.0]]), np.eye(2), 1.0)
        array([[1., 0.]])
    """
    return _kernel(X @ W.T, B, gamma) @ Z


def _kernel(P: NDArray, B: NDArray, gamma: float) -> NDArray:
    squared = (P**2).sum(1)[:, None] - 2 * P @ B.T + (B**2).sum(1)
    return np.exp(-(gamma**2) * np.maximum(squared, 0))


def protonn_gradients(X: NDArray, Y: NDArray, parameters: Parameters, gamma: float) -> tuple[float, Parameters]:
    r"""The squared loss and its gradients.

    .. math:: \mathcal R = \frac{1}{2n} \sum_i \|y_i - \hat y(x_i)\|^2, \qquad
              H = \tfrac{1}{n}\big((\hat Y - Y) Z^\top\big) \circ K

    .. math:: \nabla_Z = \tfrac1n K^\top (\hat Y - Y), \qquad
              \nabla_B = 2\gamma^2 \big(H^\top P - \mathrm{diag}(H^\top 1) B\big), \qquad
              \nabla_W = 2\gamma^2 \big(H B - \mathrm{diag}(H 1) P\big)^\top X \quad\text{with } P = X W^\top

    Args:
        X: (n, D). Y: one-hot labels, (n, L). parameters: (W, B, Z). gamma: of the kernel.

    Returns:
        the loss, and the gradients in the shapes of (W, B, Z).

    Source:
        Gupta et al., ICML 2017 (the squared loss).
    """
    W, B, Z = parameters
    P = X @ W.T
    K = _kernel(P, B, gamma)
    error = K @ Z - Y
    H = (error @ Z.T) * K / len(X)
    grad_P = 2 * gamma**2 * (H @ B - H.sum(1)[:, None] * P)
    grad_B = 2 * gamma**2 * (H.T @ P - H.sum(0)[:, None] * B)
    return (error**2).sum() / (2 * len(X)), (grad_P.T @ X, grad_B, K.T @ error / len(X))


class ProtoNNClassifier(ClassifierMixin, BaseEstimator):
    """Learned prototypes in a learned projection, trained in the precision in which they are stored.

    Each step of Adam is followed by the projection of W onto its largest entries (iterative hard
    thresholding). In the second half of the epochs the gradient is taken at the *rounded* parameters and
    applied to the real ones (straight-through), so the rounding is trained against.

    Args:
        dimensions: d, of the projection; at most the number of features is used.
        per_class: prototypes that start in each class.
        density: fraction of W that stays, in [0, 1].
        bits: of a stored number, 2 to 8, or 32 for float32.
        gamma: of the kernel; None takes 2.5 / the median distance of a point from a prototype, at the start.
        epochs, batch_size, lr: of the training.
        seed: of k-means and of the order of the points.

    Attributes:
        W_: (d, D), B_: (m, d), Z_: (m, L), as they come back from storage. gamma_. classes_: (L,).

    Source:
        Gupta et al., ICML 2017. Differs: Adam on all three together, not alternating; W starts from principal
        components; only W is sparse; rounding in training is not in the paper.
    """

    def __init__(self, dimensions: int = 10, per_class: int = 4, density: float = 1.0, bits: int = 8, gamma: float | None = None,
                 epochs: int = 60, batch_size: int = 64, lr: float = 0.02, seed: int = 0) -> None:  # fmt: skip
        self.dimensions = dimensions
        self.per_class = per_class
        self.density = density
        self.bits = bits
        self.gamma = gamma
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray) -> ProtoNNClassifier:
        """Learn W, B and Z. X: (N, D); y: (N,)."""
        check_bits(self.bits)
        check_fraction("density", self.density)
        for name in ("dimensions", "per_class", "batch_size"):
            check_int(name, getattr(self, name), 1)
        check_int("epochs", self.epochs, 0)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        start = self._start(X, numbers)
        W, B, Z = self._train(X, np.eye(len(self.classes_))[numbers], start)
        self.W_, self.B_, self.Z_ = self._stored((keep_largest(W, self.density), B, Z))
        return self

    def _start(self, X: NDArray, numbers: NDArray) -> Parameters:
        """Principal directions scaled to unit spread, k-means in each class, one-hot scores; sets gamma."""
        _, spread, directions = np.linalg.svd(X - X.mean(0), full_matrices=False)
        d = min(self.dimensions, X.shape[1])
        W = np.zeros((d, X.shape[1]))
        found = min(d, len(directions))
        W[:found] = directions[:found] / max(spread[0] / np.sqrt(len(X)), 1e-12)
        W = keep_largest(W, self.density)
        P = X @ W.T
        centres, labels = [], []
        for label in range(len(self.classes_)):
            own = P[numbers == label]
            k = min(self.per_class, len(np.unique(own, axis=0)))
            centres.append(KMeans(k, n_init=1, random_state=self.seed).fit(own).cluster_centers_)
            labels += [label] * k
        B = np.concatenate(centres)
        distance = np.sqrt(np.maximum((P**2).sum(1)[:, None] - 2 * P @ B.T + (B**2).sum(1), 0))
        self.gamma_ = float(np.float32(self.gamma or 2.5 / max(np.median(distance), 1e-6)))
        return W, B, np.eye(len(self.classes_))[labels]

    def _train(self, X: NDArray, Y: NDArray, parameters: Parameters) -> Parameters:
        """Adam with iterative hard thresholding; rounded parameters from half time on."""
        rng = np.random.default_rng(self.seed)
        parameters = [p.copy() for p in parameters]
        first, second, step = [0 * p for p in parameters], [0 * p for p in parameters], 0
        batches = max(1, len(X) // self.batch_size)
        for epoch in range(self.epochs):
            for rows in np.array_split(rng.permutation(len(X)), batches):
                step += 1
                seen = self._stored(parameters) if 2 * epoch >= self.epochs else parameters
                _, gradients = protonn_gradients(X[rows], Y[rows], tuple(seen), self.gamma_)
                rate = self.lr * (1 - step / (self.epochs * batches + 1))
                for p, g, m, v in zip(parameters, gradients, first, second):
                    m += 0.1 * (g - m)
                    v += 0.01 * (g**2 - v)
                    p -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
                parameters[0] = keep_largest(parameters[0], self.density) if self.density < 1 else parameters[0]
        return tuple(parameters)

    def _stored(self, parameters: Parameters) -> Parameters:
        return tuple(parameters) if self.bits == FLOAT else tuple(rounded(p, self.bits) for p in parameters)

    def decision_function(self, X: NDArray) -> NDArray:
        """The scores: (n, L), or (n,) for two classes: that of the second minus that of the first."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        scores = protonn_scores(X, self.W_, self.B_, self.Z_, self.gamma_)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: NDArray) -> NDArray:
        """The class with the largest score; (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return self.classes_[protonn_scores(X, self.W_, self.B_, self.Z_, self.gamma_).argmax(1)]

    def to_arrays(self) -> Arrays:
        """W (nonzeros only, where it is sparse), B, Z in ``bits`` bits each, and gamma."""
        check_is_fitted(self)
        matrices = {"W": self.W_, "B": self.B_, "Z": self.Z_}
        arrays = pack_matrices(matrices, self.bits, sparse=["W"] if self.density < 1 else [])
        return arrays | {"gamma": np.array([self.gamma_], np.float32)} | label_arrays(self.classes_)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ProtoNNClassifier:
        """The fitted classifier that ``to_arrays`` stored."""
        model = cls(bits=int(arrays["layout"][0]), density=0.5 if "W_mask" in arrays else 1.0)
        model.W_, model.B_, model.Z_ = unpack_matrices(arrays, "WBZ").values()
        model.gamma_, model.classes_ = float(arrays["gamma"][0]), labels_of(arrays, model.Z_.shape[1])
        model.n_features_in_ = model.W_.shape[1]
        return model
