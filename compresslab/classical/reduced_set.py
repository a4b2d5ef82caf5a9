r"""A kernel machine with fewer vectors: the nearest expansion in few points of one's own choice.

A support vector machine decides by :math:`\Psi = \sum_i \alpha_i \phi(x_i)`, with a term for every support
vector. Its **reduced set** is a short sum, as near as possible in feature space:

.. math:: \rho^2 = \Big\| \sum_{i=1}^{N} \alpha_i \phi(x_i) - \sum_{j=1}^{m} \beta_j \phi(z_j) \Big\|^2

For given z the best coefficients are one linear system; the z are started by k-means and moved down the
gradient. All classes share the z, so a vector is stored once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from compresslab.classical.size import Arrays, label_arrays, labels_of
from compresslab.classical.stored_matrix import check_bits, pack_matrices, rounded, unpack_matrices
from compresslab.core.errors import check_int


def reduced_coefficients(Z: NDArray, X: NDArray, alpha: NDArray, gamma: float) -> NDArray:
    r"""The best coefficients for given vectors.

    .. math:: \beta = K_{zz}^{-1} K_{zx}\, \alpha, \qquad K_{uv} = \exp(-\gamma \|u - v\|^2)

    Args:
        Z: the reduced set, (m, D). X: the support vectors, (N, D).
        alpha: their coefficients, (N,), or (N, L) for several machines at once.
        gamma: of the kernel, 1 / squared distance.

    Returns:
        beta, (m,) or (m, L). Where vectors coincide, the shortest of the best solutions.

    Source:
        C. Burges, "Simplified Support Vector Decision Rules", ICML 1996.

    Example:
        >>> reduced_coefficients(np.array([[1.0], [50.0]]), np.array([[1.0], [50.0]]), np.array([2.0, -3.0]), 1.0).round(6)
        array([ 2., -3.])
    """
    return np.linalg.lstsq(rbf_kernel(Z, gamma=gamma), rbf_kernel(Z, X, gamma=gamma) @ alpha, rcond=1e-12)[0]


def reduction_error(Z: NDArray, beta: NDArray, X: NDArray, alpha: NDArray, gamma: float) -> float:
    r"""How far the short sum is from the long one, in feature space.

    .. math:: \rho^2 = \alpha^\top K_{xx} \alpha - 2\,\beta^\top K_{zx} \alpha + \beta^\top K_{zz} \beta

    Args:
        Z: (m, D). beta: (m,) or (m, L). X: (N, D). alpha: (N,) or (N, L). gamma: of the kernel.

    Returns:
        the sum over all machines, not negative up to rounding.
    """
    long = (alpha * (rbf_kernel(X, gamma=gamma) @ alpha)).sum()
    mixed = (beta * (rbf_kernel(Z, X, gamma=gamma) @ alpha)).sum()
    return float(long - 2 * mixed + (beta * (rbf_kernel(Z, gamma=gamma) @ beta)).sum())


def reduction_gradient(Z: NDArray, beta: NDArray, X: NDArray, alpha: NDArray, gamma: float) -> NDArray:
    r"""The derivative of :math:`\rho^2` by the vectors, (m, D); beta held.

    .. math:: \frac{\partial \rho^2}{\partial z_i} = -4\gamma \Big( \sum_j (\beta\beta^\top \circ K_{zz})_{ij} (z_i - z_j)
              - \sum_n (\beta\alpha^\top \circ K_{zx})_{in} (z_i - x_n) \Big)

    Args:
        beta: (m, L). alpha: (N, L). The others as in ``reduction_error``.
    """

    def pull(M: NDArray, towards: NDArray) -> NDArray:
        return M.sum(1)[:, None] * Z - M @ towards

    own = (beta @ beta.T) * rbf_kernel(Z, gamma=gamma)
    return -4 * gamma * (pull(own, Z) - pull((beta @ alpha.T) * rbf_kernel(Z, X, gamma=gamma), X))


class ReducedSetClassifier(ClassifierMixin, BaseEstimator):
    """Support vector machines, one for each class against the rest, that share a reduced set.

    Args:
        vectors: m, of the reduced set.
        C, gamma: of the machines; gamma is a number, or "scale" as in scikit-learn.
        steps: of Adam on the vectors, beta solved anew in each; 0 keeps those of k-means.
        lr: of these steps, as a fraction of the spread of the data.
        bits: of a stored number, 2 to 8, or 32 for float32.
        seed: of k-means.

    Attributes:
        Z_: (m, D), beta_: (m, L), as they come back from storage. intercept_: (L,). gamma_.
        error_: the relative error rho^2 / |Psi|^2, before rounding. support_: how many vectors there were.

    Source:
        Burges, ICML 1996. Differs: the vectors start from k-means of the support vectors and move together.
    """

    def __init__(self, vectors: int = 40, C: float = 10.0, gamma: float | str = "scale", steps: int = 30, lr: float = 0.05,
                 bits: int = 8, seed: int = 0) -> None:  # fmt: skip
        self.vectors = vectors
        self.C = C
        self.gamma = gamma
        self.steps = steps
        self.lr = lr
        self.bits = bits
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray) -> ReducedSetClassifier:
        """Train the machines, then reduce them. X: (N, D); y: (N,)."""
        check_bits(self.bits)
        check_int("vectors", self.vectors, 1)
        check_int("steps", self.steps, 0)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a support vector machine needs two classes, the data have one class: {self.classes_[0]!r}")
        self.gamma_ = float(np.float32(1 / (X.shape[1] * (X.var() or 1)) if self.gamma == "scale" else self.gamma))
        alpha, self.intercept_ = self._machines(X, numbers)
        used = np.flatnonzero((alpha != 0).any(1))
        self.support_ = len(used)
        Z, beta = self._reduce(X[used], alpha[used])
        long = reduction_error(Z, 0 * beta, X[used], alpha[used], self.gamma_)
        self.error_ = reduction_error(Z, beta, X[used], alpha[used], self.gamma_) / long
        self.Z_ = rounded(Z, self.bits)
        self.beta_ = rounded(reduced_coefficients(self.Z_, X[used], alpha[used], self.gamma_), self.bits)
        return self

    def _machines(self, X: NDArray, numbers: NDArray) -> tuple[NDArray, NDArray]:
        """alpha (N, L) and the intercepts (L,) of one machine for each class."""
        alpha, intercept = np.zeros((len(X), len(self.classes_))), []
        for label in range(len(self.classes_)):
            machine = SVC(C=self.C, gamma=self.gamma_).fit(X, numbers == label)
            alpha[machine.support_, label] = machine.dual_coef_[0]
            intercept.append(machine.intercept_[0])
        return alpha, np.array(intercept, np.float32)

    def _reduce(self, X: NDArray, alpha: NDArray) -> tuple[NDArray, NDArray]:
        """The vectors and their coefficients: k-means, then Adam with beta solved in every step."""
        m = min(self.vectors, len(np.unique(X, axis=0)))
        Z = KMeans(m, n_init=1, random_state=self.seed).fit(X).cluster_centers_
        rate, first, second = self.lr * X.std(), np.zeros_like(Z), np.zeros_like(Z)
        beta = reduced_coefficients(Z, X, alpha, self.gamma_)
        for step in range(1, self.steps + 1):
            gradient = reduction_gradient(Z, beta, X, alpha, self.gamma_)
            first += 0.1 * (gradient - first)
            second += 0.01 * (gradient**2 - second)
            Z = Z - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-12)
            beta = reduced_coefficients(Z, X, alpha, self.gamma_)
        return Z, beta

    def _scores(self, X: NDArray) -> NDArray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return rbf_kernel(X, self.Z_.astype(np.float64), gamma=self.gamma_) @ self.beta_ + self.intercept_

    def decision_function(self, X: NDArray) -> NDArray:
        """The machines' margins: (n, L), or (n,) for two classes."""
        scores = self._scores(X)
        return (scores[:, 1] - scores[:, 0]) / 2 if len(self.classes_) == 2 else scores

    def predict(self, X: NDArray) -> NDArray:
        """The class whose machine has the largest margin; (n,)."""
        numbers = self._scores(X).argmax(1)
        return self.classes_[numbers]

    def to_arrays(self) -> Arrays:
        """Vectors and coefficients in ``bits`` bits each, intercepts, gamma."""
        check_is_fitted(self)
        arrays = pack_matrices({"Z": self.Z_, "beta": self.beta_}, self.bits)
        arrays |= {"intercept": self.intercept_, "gamma": np.array([self.gamma_], np.float32)}
        return arrays | label_arrays(self.classes_)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ReducedSetClassifier:
        """The fitted classifier that ``to_arrays`` stored."""
        model = cls(bits=int(arrays["layout"][0]))
        model.Z_, model.beta_ = unpack_matrices(arrays, ["Z", "beta"]).values()
        model.intercept_, model.gamma_ = arrays["intercept"], float(arrays["gamma"][0])
        model.classes_, model.n_features_in_ = labels_of(arrays, model.beta_.shape[1]), model.Z_.shape[1]
        return model
