r"""A forest in a network of one hidden layer, its weights stored in few bits.

A tree can only cut along axes, so it needs many leaves for a slanted border; a small network needs one unit.
The forest says, in class shares p, what it thinks of real and synthetic points; the network learns to say the
same:

.. math:: L(\theta) = -\frac1N \sum_i \sum_c p_{ic} \log \hat y_{ic} + \frac\lambda2 \|\theta\|^2, \qquad
          \hat y = \mathrm{softmax}\big(\max(0, x W_1 + b_1)\, W_2 + b_2\big)

The loss is minimised by L-BFGS, which uses all points in every step and needs no learning rate.

Source: C. Bucila, R. Caruana, A. Niculescu-Mizil, "Model Compression", KDD 2006. Differs: soft labels and
cross-entropy, where the paper fits squared errors; weights rounded at the end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from compresslab.classical.forest_distillation import fitted_teacher, soft_training_set
from compresslab.classical.size import Arrays, label_arrays, labels_of
from compresslab.classical.stored_matrix import check_bits, pack_matrices, rounded, unpack_matrices
from compresslab.core.errors import check_int


def soft_loss(flat: NDArray, X: NDArray, shares: NDArray, hidden: int, decay: float) -> tuple[float, NDArray]:
    """The loss above and its gradient.

    Args:
        flat: all parameters in one row, W1 (D + 1, hidden) with the biases in its last row, then W2 (hidden +
            1, L).
        X: (N, D). shares: p, (N, L), rows that sum to 1.
        hidden: units. decay: lambda.

    Returns:
        the loss; its gradient, as ``flat``.
    """
    W1, W2 = _unflatten(flat, X.shape[1], hidden, shares.shape[1])
    before = X @ W1[:-1] + W1[-1]  # (N, hidden)
    active = np.maximum(before, 0)
    log_probability = log_softmax(active @ W2[:-1] + W2[-1], axis=1)  # (N, L)
    loss = -(shares * log_probability).sum() / len(X) + decay / 2 * flat @ flat
    error = (np.exp(log_probability) - shares) / len(X)  # dL / d logits
    back = (error @ W2[:-1].T) * (before > 0)
    gradient = np.concatenate([
        (X.T @ back).ravel(), back.sum(0), (active.T @ error).ravel(), error.sum(0),
    ])
    return loss, gradient + decay * flat


def _unflatten(flat: NDArray, features: int, hidden: int, classes: int) -> tuple[NDArray, NDArray]:
    first = (features + 1) * hidden
    return flat[:first].reshape(features + 1, hidden), flat[first:].reshape(hidden + 1, classes)


class DistilledNetworkClassifier(ClassifierMixin, BaseEstimator):
    """A small network that learned what a forest says of real and synthetic points.

    Args:
        teacher: an estimator with ``predict_proba``, fitted on a copy; None is a random forest of 100 trees.
        hidden: units of the one hidden layer.
        queries, neighbors: as in ``DistilledTreeClassifier``.
        bits: of a stored weight, 2 to 8, or 32 for float32.
        decay: lambda, at least 0. iterations: of L-BFGS at most. seed: of everything.

    Attributes:
        W1_: (D + 1, hidden), W2_: (hidden + 1, L), as they come back from storage; biases in the last rows.
        mean_, scale_: (D,): what enters is (x - mean) / scale.
        teacher_: the fitted forest (not needed to predict). classes_: (L,).
    """

    def __init__(
        self,
        teacher: BaseEstimator | None = None,
        hidden: int = 24,
        queries: int = 4_000,
        neighbors: int = 5,
        bits: int = 5,
        decay: float = 1e-3,
        iterations: int = 100,
        seed: int = 0,
    ) -> None:
        self.teacher = teacher
        self.hidden = hidden
        self.queries = queries
        self.neighbors = neighbors
        self.bits = bits
        self.decay = decay
        self.iterations = iterations
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray) -> DistilledNetworkClassifier:
        """Fit the forest, ask it, fit the network, round its weights. X: (N, D); y: (N,)."""
        check_int("hidden", self.hidden, 1)
        check_int("queries", self.queries, 0)
        check_int("iterations", self.iterations, 1)
        check_bits(self.bits)
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self.teacher_ = fitted_teacher(self.teacher, X, numbers, self.seed)
        asked, shares = soft_training_set(self.teacher_, X, self.queries, self.neighbors, self.seed)
        self.mean_, self.scale_ = np.float32(X.mean(0)), np.float32(X.std(0))
        self.scale_[self.scale_ == 0] = 1
        W1, W2 = self._trained((asked - self.mean_) / self.scale_, shares)
        self.W1_, self.W2_ = rounded(W1, self.bits), rounded(W2, self.bits)
        return self

    def _trained(self, X: NDArray, shares: NDArray) -> tuple[NDArray, NDArray]:
        draw, sides = np.random.default_rng(self.seed), (X.shape[1], self.hidden, shares.shape[1])
        start = np.concatenate([
            np.append(draw.normal(size=a * b) * np.sqrt(2 / a), np.zeros(b)) for a, b in zip(sides, sides[1:])
        ])
        found = minimize(soft_loss, start, (X, shares, self.hidden, self.decay), "L-BFGS-B", jac=True,
                         options={"maxiter": self.iterations})
        return _unflatten(found.x, *sides)

    def predict(self, X: NDArray) -> NDArray:
        """The class of each point, (N,)."""
        check_is_fitted(self)
        x = (validate_data(self, X, reset=False) - self.mean_) / self.scale_
        active = np.maximum(x @ self.W1_[:-1] + self.W1_[-1], 0)
        return self.classes_[(active @ self.W2_[:-1] + self.W2_[-1]).argmax(1)]

    def to_arrays(self) -> Arrays:
        """Both layers in ``bits`` bits, and mean and scale of the features in float32."""
        check_is_fitted(self)
        arrays = pack_matrices({"W1": self.W1_, "W2": self.W2_}, self.bits)
        return arrays | {"mean": self.mean_, "scale": self.scale_} | label_arrays(self.classes_)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> DistilledNetworkClassifier:
        """A fitted classifier from what ``to_arrays`` returned."""
        model, matrices = cls(), unpack_matrices(arrays, ["W1", "W2"])
        model.W1_, model.W2_ = matrices["W1"], matrices["W2"]
        model.mean_, model.scale_ = arrays["mean"], arrays["scale"]
        model.hidden, model.n_features_in_ = model.W1_.shape[1], len(model.mean_)
        model.bits = int(arrays["layout"][0])
        model.classes_ = labels_of(arrays, model.W2_.shape[1])
        return model
