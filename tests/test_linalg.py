"""The shared inverse-Hessian factor: what it multiplies to, and what it says about columns still free."""

import pytest
import torch

from compresslab.core.linalg import damped_cholesky, inverse_factor


def spd(n=6, seed=0):
    x = torch.randn(n, 3 * n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x @ x.T


def test_factor_is_upper_and_rebuilds_the_inverse():
    H = spd()
    U = inverse_factor(H, damp=0.0)
    assert torch.equal(U, U.triu()) and (U.diagonal() > 0).all()
    torch.testing.assert_close(U.T @ U, torch.linalg.inv(H))


def test_trailing_block_is_the_inverse_over_the_remaining_columns():
    H = spd()
    U = inverse_factor(H, damp=0.0)
    for j in range(len(H)):
        torch.testing.assert_close(U[j:, j:].T @ U[j:, j:], torch.linalg.inv(H[j:, j:]))


def test_damping_is_a_share_of_the_mean_diagonal():
    H = spd()
    U = inverse_factor(H, damp=0.5)
    torch.testing.assert_close(torch.linalg.inv(U.T @ U), H + 0.5 * H.diagonal().mean() * torch.eye(6, dtype=H.dtype))


@pytest.mark.parametrize(
    "H, damp, message",
    [(torch.zeros(2, 3), 0.0, "must be square"),
     (torch.full((2, 2), float("nan")), 0.0, "must be finite"),
     (torch.ones(2, 2), 0.0, "not positive definite")],
)
def test_errors(H, damp, message):
    with pytest.raises(ValueError, match=message):
        inverse_factor(H, damp)


def test_cholesky_rebuilds_the_damped_matrix():
    H = spd()
    L = damped_cholesky(H.float(), 0.5)
    assert L.dtype == torch.float64 and torch.equal(L, L.tril()) and (L.diagonal() > 0).all()
    torch.testing.assert_close(
        L @ L.T, H + 0.5 * H.diagonal().mean() * torch.eye(6, dtype=H.dtype), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ValueError, match="not positive definite with damp=0"):
        damped_cholesky(-torch.eye(3), 0.0)
    for damp in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="damp must be a finite number of at least 0"):
            damped_cholesky(H, damp)
