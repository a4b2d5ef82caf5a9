"""Triangular factors of the damped Hessian, which every method that sees the weights through data shares."""

import math

import torch
from torch import Tensor


def damped_cholesky(H: Tensor, damp: float = 0.0) -> Tensor:
    r"""The lower triangular factor of a damped Hessian.

    .. math:: H + \lambda I = LL^\top, \qquad \lambda = \mathrm{damp} \cdot \mathrm{mean}(\mathrm{diag}\, H)

    An error E in the weights of a layer with :math:`H = XX^\top` then costs :math:`\|EX\| = \|EL\|`.

    Args:
        H: (n, n), symmetric and positive semi-definite; only its lower triangle is read.
        damp: share of the mean diagonal that is added to it, at least 0; 0 asks for a definite ``H``.

    Returns:
        ``L`` (n, n), float64, lower triangular with a positive diagonal.

    Raises:
        ValueError: ``H`` is not square, not finite, or not positive definite after damping, or ``damp`` is
            negative or not finite.

    Example:
        >>> damped_cholesky(torch.diag(torch.tensor([8.0, 0.0])), damp=0.25).diagonal()  # 9 and 1
        tensor([3., 1.], dtype=torch.float64)
    """
    if H.ndim != 2 or H.shape[0] != H.shape[1]:
        raise ValueError(f"H must be square, got shape {tuple(H.shape)}")
    if not torch.isfinite(H).all():
        raise ValueError("H must be finite, got nan or inf; check the calibration inputs")
    if not 0 <= damp < math.inf:
        raise ValueError(f"damp must be a finite number of at least 0, got {damp}")
    H = H.detach().double()
    lower, failed = torch.linalg.cholesky_ex(H + damp * H.diagonal().mean() * torch.eye(len(H)).to(H))
    if failed:
        raise ValueError(f"H is not positive definite with damp={damp:g}; use more inputs or a larger damp")
    return lower


def inverse_factor(H: Tensor, damp: float = 0.01) -> Tensor:
    r"""Factor the inverse of a damped Hessian into an upper triangular matrix.

    .. math:: (H + \lambda I)^{-1} = U^\top U, \qquad \lambda = \mathrm{damp} \cdot \mathrm{mean}(\mathrm{diag}\, H)

    Row ``j`` of ``U`` holds what a layer-wise method needs when it has fixed columns ``0 .. j`` and may still
    move the others: with columns before ``j`` eliminated, the inverse Hessian's first row is ``U[j, j] * U[j, j:]``.

    Args:
        H: (n, n), symmetric and positive semi-definite, usually :math:`XX^\top` of a layer's inputs.
        damp: share of the mean diagonal that is added to the diagonal; 0 asks for a definite ``H``.

    Returns:
        ``U`` (n, n), float64, upper triangular with a positive diagonal.

    Raises:
        ValueError: as ``damped_cholesky``.

    Source:
        E. Frantar, D. Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", 2023,
        section 3; E. Frantar et al., "GPTQ", 2023, section 3 (step 3, the Cholesky reformulation).

    Example:
        >>> inverse_factor(torch.diag(torch.tensor([4.0, 1.0])), damp=0.0).diagonal()
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    return torch.linalg.cholesky(torch.cholesky_inverse(damped_cholesky(H, damp)), upper=True)
