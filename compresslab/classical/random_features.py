r"""Kernels by finitely many features: Nystrom, which looks at the data, and random Fourier features, which do not.

A kernel machine keeps its training points because its features :math:`\phi` are infinitely many. Both methods
here replace :math:`\phi` by a vector of length m, so that

.. math:: k(x, y) \approx \varphi(x)^\top \varphi(y)

and a *linear* model on :math:`\varphi` is all that has to be stored. Nystrom is low rank for kernel matrices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils.validation import check_is_fitted, validate_data

from compresslab.classical.size import Arrays
from compresslab.core.errors import check_int


def nystrom_features(X: NDArray, Z: NDArray, gamma: float) -> NDArray:
    r"""Features whose products are the Nystrom approximation of the kernel.

    .. math:: \varphi(X) = K_{xz}\, K_{zz}^{-1/2}, \qquad \varphi(X)\varphi(X)^\top = K_{xz} K_{zz}^{-1} K_{zx}

    It is exact wherever one of the two points is in Z, so with all points in Z everywhere.

    Args:
        X: (n, D). Z: landmarks, (m, D). gamma: of the kernel :math:`\exp(-\gamma\|x - y\|^2)`.

    Returns:
        (n, m).

    Source:
        C. Williams, M. Seeger, "Using the Nystrom Method to Speed Up Kernel Machines", NIPS 2000 (proceedings 2001).
    """
    return rbf_kernel(X, Z, gamma=gamma) @ _inverse_root(rbf_kernel(Z, gamma=gamma))


def _inverse_root(K: NDArray) -> NDArray:
    """The pseudo-inverse of the square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(K)
    good = values > 1e-12 * values[-1]
    return (vectors[:, good] / np.sqrt(values[good])) @ vectors[:, good].T


def fourier_features(X: NDArray, omega: NDArray, phase: NDArray) -> NDArray:
    r"""Random Fourier features.

    .. math:: \varphi(x) = \sqrt{\tfrac2m}\,\big(\cos(\omega_1^\top x + b_1), \ldots, \cos(\omega_m^\top x + b_m)\big)

    With :math:`\omega \sim N(0, 2\gamma I)` and b uniform in :math:`[0, 2\pi]`, the expected value of
    :math:`\varphi(x)^\top \varphi(y)` is :math:`\exp(-\gamma\|x - y\|^2)` exactly, for every m.

    Args:
        X: (n, D). omega: (m, D). phase: b, (m,).

    Returns:
        (n, m).

    Source:
        A. Rahimi, B. Recht, "Random Features for Large-Scale Kernel Machines", NIPS 2007.

    Example:
        >>> fourier_features(np.zeros((1, 1)), np.ones((2, 1)), np.zeros(2))
        array([[1., 1.]])
    """
    return np.sqrt(2 / len(omega)) * np.cos(X @ omega.T + phase)


def draw_fourier(features: int, dimensions: int, gamma: float, seed: int = 0) -> tuple[NDArray, NDArray]:
    """omega (features, dimensions) and phase (features,) for the kernel exp(-gamma |x - y|^2)."""
    rng = np.random.default_rng(seed)
    return np.sqrt(2 * gamma) * rng.standard_normal((features, dimensions)), rng.uniform(0, 2 * np.pi, features)


def scale_gamma(X: NDArray) -> float:
    """1 / (features * variance), scikit-learn's "scale"; 1 / features for constant data."""
    return 1 / (X.shape[1] * (X.var() or 1))


class NystromFeatures(TransformerMixin, BaseEstimator):
    """Nystrom features on landmarks drawn from the training points.

    Args:
        landmarks: m; at most as many as there are points. gamma: of the kernel, None is "scale".
        seed: of the draw.

    Attributes:
        landmarks_: (m, D). root_: the inverse root of their kernel matrix, (m, m). gamma_.

    Source:
        Williams, Seeger, NIPS 2000. Differs: drawn without weights, no k-means.
    """

    def __init__(self, landmarks: int = 50, gamma: float | None = None, seed: int = 0) -> None:
        self.landmarks = landmarks
        self.gamma = gamma
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray | None = None) -> NystromFeatures:
        """Draw the landmarks. X: (N, D)."""
        check_int("landmarks", self.landmarks, 1)
        X = validate_data(self, X, dtype=np.float64)
        self.gamma_ = float(scale_gamma(X) if self.gamma is None else self.gamma)
        chosen = np.random.default_rng(self.seed).permutation(len(X))[: self.landmarks]
        self.landmarks_ = X[np.sort(chosen)]
        self.root_ = _inverse_root(rbf_kernel(self.landmarks_, gamma=self.gamma_))
        return self

    def transform(self, X: NDArray) -> NDArray:
        """The features; (n, m)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return rbf_kernel(X, self.landmarks_, gamma=self.gamma_) @ self.root_

    def to_arrays(self) -> Arrays:
        """Landmarks and gamma, float32. The root follows from them; it is computed once, after loading."""
        check_is_fitted(self)
        return {"landmarks": np.float32(self.landmarks_), "gamma": np.array([self.gamma_], np.float32)}


class FourierFeatures(TransformerMixin, BaseEstimator):
    """Random Fourier features of the Gaussian kernel.

    Args:
        features: m. gamma: of the kernel, None is "scale". seed: of the draw.

    Attributes:
        omega_: (m, D). phase_: (m,). gamma_.

    Source:
        Rahimi, Recht, NIPS 2007.
    """

    def __init__(self, features: int = 100, gamma: float | None = None, seed: int = 0) -> None:
        self.features = features
        self.gamma = gamma
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray | None = None) -> FourierFeatures:
        """Draw the frequencies. X: (N, D); only its size and spread matter."""
        check_int("features", self.features, 1)
        X = validate_data(self, X, dtype=np.float64)
        self.gamma_ = float(scale_gamma(X) if self.gamma is None else self.gamma)
        self.omega_, self.phase_ = draw_fourier(self.features, X.shape[1], self.gamma_, self.seed)
        return self

    def transform(self, X: NDArray) -> NDArray:
        """The features; (n, m)."""
        check_is_fitted(self)
        return fourier_features(validate_data(self, X, reset=False, dtype=np.float64), self.omega_, self.phase_)

    def to_arrays(self) -> Arrays:
        """Frequencies and phases, float32. (A device that can repeat the draw needs the seed only.)"""
        check_is_fitted(self)
        return {"omega": np.float32(self.omega_), "phase": np.float32(self.phase_)}
