"""Variational Bayesian matrix factorization: planted ranks, noise, the free energy, edge cases."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from compresslab.lowrank.vbmf import evbmf, free_energy


def planted(rank, shape=(60, 90), noise=1.0, strength=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    sizes = (shape[0], rank), (rank, shape[1]), shape
    B, A, E = (torch.randn(size, generator=g, dtype=torch.float64) for size in sizes)
    return strength * B @ A, noise**0.5 * E


@pytest.mark.parametrize("rank", [0, 1, 3, 10, 20])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (70, 70)])
def test_finds_the_planted_rank_and_the_noise(rank, shape):
    for scale in (1e-6, 1.0, 1e3):
        signal, noise = planted(rank, shape, noise=0.25)
        found = evbmf(scale * (signal + noise))
        assert found.rank == rank
        assert found.noise / scale**2 == pytest.approx(0.25, rel=0.25)  # a little too much, at high ranks


def test_known_noise_is_used():
    signal, noise = planted(4)
    assert evbmf(signal + noise, noise=1.0).rank == 4
    assert evbmf(signal + noise, noise=1e6).rank == 0
    assert evbmf(signal + noise, noise=0.0).rank == 60  # all of it is signal then


def test_is_nearer_to_the_signal_than_the_matrix_and_than_the_truncated_one():
    signal, noise = planted(5, noise=4.0)
    U, S, V, _ = found = evbmf(signal + noise)
    u, s, vh = torch.linalg.svd(signal + noise)
    cut = (u[:, : found.rank] * s[: found.rank]) @ vh[: found.rank]
    denoised = U @ torch.diag(S) @ V.T
    assert (denoised - signal).norm() < (cut - signal).norm() < noise.norm()
    assert (S < s[: found.rank]).all() and (S.diff() <= 0).all()


def test_shrinks_to_the_stationary_point_of_its_variational_objective():
    """One component, known noise: minimise the free energy over means, variances and priors numerically."""
    signal, noise = planted(1, (12, 20), strength=0.7)
    Y = signal + noise
    L, M = Y.shape
    gamma = torch.linalg.svdvals(Y)[0].item()

    def energy(p):  # posterior means a, b, variances va, vb and prior variances ca, cb of the first component
        a, b, va, vb, ca, cb = np.exp(p)
        prior = M * (np.log(ca / va) - 1) + (a**2 + M * va) / ca
        prior += L * (np.log(cb / vb) - 1) + (b**2 + L * vb) / cb
        return prior + (-2 * a * b * gamma + (a**2 + M * va) * (b**2 + L * vb))  # noise variance 1

    start = np.log([gamma**0.5, gamma**0.5, 0.1, 0.1, 1.0, 1.0])
    options = dict(maxiter=20000, maxfev=20000, xatol=1e-9, fatol=1e-12)
    best = minimize(energy, start, method="Nelder-Mead", options=options)
    assert np.exp(best.x[0] + best.x[1]) == pytest.approx(evbmf(Y, noise=1.0).S[0].item(), rel=1e-4)


def test_noise_has_the_least_free_energy():
    signal, noise = planted(6, noise=2.0)
    found = evbmf(signal + noise)
    gamma = torch.linalg.svdvals(signal + noise).numpy()
    least = free_energy(found.noise, gamma, 60, 90)
    assert all(least <= free_energy(found.noise * f, gamma, 60, 90) + 1e-9 for f in np.geomspace(0.2, 5, 301))


def test_shapes_and_orientation():
    signal, noise = planted(3)
    found, other = evbmf(signal + noise), evbmf((signal + noise).T.contiguous())
    assert found.U.shape == (60, 3) and found.V.shape == (90, 3)
    torch.testing.assert_close(found.S, other.S)
    means = [f.U @ torch.diag(f.S) @ f.V.T for f in (found, other)]
    torch.testing.assert_close(means[0], means[1].T)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (2, 2)])
def test_tiny_matrices(shape):
    assert 0 <= evbmf(torch.arange(1.0, 1 + shape[0] * shape[1]).view(shape)).rank <= min(shape)


def test_no_noise_and_nothing():
    signal, _ = planted(4)
    assert evbmf(signal).rank == 4
    assert evbmf(torch.zeros(4, 5)).rank == 0


def test_errors():
    with pytest.raises(ValueError, match="noise is a variance, at least 0, got -1"):
        evbmf(torch.ones(3, 4), noise=-1)
    with pytest.raises(ValueError, match="got nan"):
        evbmf(torch.ones(3, 4), noise=float("nan"))
    with pytest.raises(ValueError, match="rows and columns"):
        evbmf(torch.ones(3))
    with pytest.raises(TypeError, match="floating-point"):
        evbmf(torch.ones(3, 4, dtype=torch.int32))
    with pytest.raises(ValueError, match="finite"):
        evbmf(torch.full((3, 4), torch.inf))


@pytest.mark.parametrize("shape", [(50, 60), (60, 50), (30, 30), (20, 80)])
def test_unknown_noise_leaves_at_most_the_limit(shape):
    """However many components there are, and however clear they stand out."""
    short, long = sorted(shape)
    limit = math.ceil(short / (1 + short / long)) - 1
    for rank in (limit - 1, limit + 3, short):
        signal, noise = planted(rank, shape, noise=1e-4)
        assert evbmf(signal + noise).rank <= limit
        assert evbmf(signal + noise, noise=1e-4).rank >= rank - 2  # a known noise has no limit
    assert evbmf(sum(planted(26, (50, 60)))).rank < 26 < math.ceil(50 / (1 + 50 / 60))  # near it: too low
