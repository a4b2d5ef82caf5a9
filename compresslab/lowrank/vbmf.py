r"""The rank that noise leaves: variational Bayesian matrix factorization, in closed form.

Suppose a matrix is a product of two factors plus noise, :math:`V = BA^\top + E`. With Gaussian priors on the
columns of the factors, whose variances are learned as well, some columns are shrunk to exactly 0: the data do
not speak loud enough for them. How many are left is a rank that nobody had to choose. For a fully observed
matrix no iteration is needed: each singular value is kept (and shrunk) or dropped on its own, and only the
variance of the noise is searched, along one line.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from .svd import check_matrix

TAU = 2.5129  # where keeping a component and dropping it cost the same free energy, over sqrt(alpha)
GRID = 200  # values of the noise variance that are tried before the best is refined


class EVBMF(NamedTuple):
    r"""The posterior mean :math:`U \operatorname{diag}(S) V^\top`, of ``rank`` components, and the noise.

    ``U`` (m, rank), ``S`` (rank,) shrunk singular values, descending, ``V`` (n, rank), all float64;
    ``noise`` is the variance of an entry of E.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    noise: float

    @property
    def rank(self) -> int:
        """How many components are left; 0 if all is noise."""
        return len(self.S)


def evbmf(matrix: Tensor, noise: float | None = None) -> EVBMF:
    r"""Denoise a matrix by empirical variational Bayes, and so find its rank.

    With :math:`V` (L, M), :math:`L \le M`, :math:`\alpha = L / M` and :math:`\tau = 2.5129 \sqrt\alpha`, a
    singular value :math:`\gamma` is kept if and only if

    .. math:: \gamma > \sigma \sqrt{M (1 + \tau)(1 + \alpha / \tau)}

    and then shrunk to

    .. math:: \frac{\gamma}{2} \left( 1 - \frac{(L + M)\sigma^2}{\gamma^2} + \sqrt{\Big(1 -
              \frac{(L + M)\sigma^2}{\gamma^2}\Big)^2 - \frac{4 L M \sigma^4}{\gamma^4}} \right)

    Args:
        matrix: :math:`V` or its transpose: either way gives the same.
        noise: :math:`\sigma^2`, at least 0; None finds the one of least free energy.

    Returns:
        an ``EVBMF``, whose ``rank`` may be 0. A trained kernel is no low-rank matrix plus noise: take the
        rank as a first guess. Where the noise has to be found, the rank is at most
        :math:`\lceil L / (1 + \alpha) \rceil - 1`, about half of a square matrix, and near that limit too
        low: more components cannot be told from noise. A known noise has no such limit.

    Raises:
        TypeError: the matrix is not floating-point.
        ValueError: it has not two axes or is not finite, or the noise is negative.

    Source:
        S. Nakajima, M. Sugiyama, S. D. Babacan, R. Tomioka, "Global Analytic Solution of Fully-Observed
        Variational Bayesian Matrix Factorization", 2013. To choose ranks of kernels: Y.-D. Kim et al.,
        "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications", 2016.

    Example:
        >>> x = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))  # noise of variance 1
        >>> x[:, :5] += 10  # and something of rank 1
        >>> evbmf(x).rank
        1
    """
    check_matrix(matrix)
    if noise is not None and not 0 <= noise < math.inf:
        raise ValueError(f"noise is a variance, at least 0, got {noise}")
    U, s, Vh = torch.linalg.svd(matrix.detach().double(), full_matrices=False)
    (L, M), gamma = sorted(matrix.shape), s.cpu().numpy()
    if noise is None:
        noise = _find_noise(gamma, L, M)
    kept = gamma[(gamma > math.sqrt(noise * M * _threshold(L / M))) & (gamma > 0)]
    x = 1 - (L + M) * noise / kept**2
    shrunk = kept / 2 * (x + np.sqrt(x**2 - 4 * L * M * noise**2 / kept**4))
    k = len(kept)
    return EVBMF(U[:, :k], torch.from_numpy(shrunk).to(s), Vh[:k].T, float(noise))


def _threshold(alpha: float) -> float:
    r"""The least :math:`\gamma^2 / (M \sigma^2)` of a component that is kept."""
    tau = TAU * math.sqrt(alpha)
    return (1 + tau) * (1 + alpha / tau)


def free_energy(noise: float, gamma: np.ndarray, L: int, M: int) -> float:
    r"""The free energy of a noise variance, all else at its best (up to constants, over M).

    .. math:: \Omega(\sigma^2) = \sum_h \psi_0(x_h) + \sum_{h \text{ kept}} \psi_1(x_h), \qquad
              x_h = \frac{\gamma_h^2}{M \sigma^2}, \quad \psi_0(x) = x - \log x,

    .. math:: \psi_1(x) = \log(\tau + 1) + \alpha \log\Big(\frac\tau\alpha + 1\Big) - \tau, \quad
              \tau = \tfrac12 \Big(x - (1 + \alpha) + \sqrt{(x - (1 + \alpha))^2 - 4\alpha}\Big)

    Args:
        noise: :math:`\sigma^2 > 0`.
        gamma: the L singular values.
        L, M: the sides of the matrix, L the shorter.
    """
    alpha = L / M
    x = gamma**2 / (M * noise)
    above = x[x > _threshold(alpha)] - (1 + alpha)
    tau = (above + np.sqrt(above**2 - 4 * alpha)) / 2
    gain = np.log(tau + 1) + alpha * np.log(tau / alpha + 1) - tau
    return float((x - np.log(x)).sum() + gain.sum())


def _find_noise(gamma: np.ndarray, L: int, M: int) -> float:
    """The noise variance of least free energy: the best of a grid, refined, as there are several valleys."""
    if gamma[0] == 0:
        return 0.0
    gamma = np.maximum(gamma, 1e-15 * gamma[0])  # an exact 0 would have no logarithm
    most = min(math.ceil(L / (1 + L / M)) - 1, L - 1)  # components that can be told from noise
    high = (gamma**2).sum() / (L * M)
    low = max(gamma[most] ** 2 / (M * _threshold(L / M)), (gamma[most:] ** 2).mean() / M)
    grid = np.linspace(math.log(min(low, high)), math.log(high), GRID)
    best = int(np.argmin([free_energy(math.exp(point), gamma, L, M) for point in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    found = minimize_scalar(
        lambda point: free_energy(math.exp(point), gamma, L, M), bounds=around, method="bounded"
    )
    return math.exp(found.x)
