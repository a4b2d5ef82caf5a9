r"""Optimal Brain Damage and Surgeon: drop what the loss does not miss, let the others make up for it.

At a minimum the gradient is zero, and a change :math:`\delta w` costs :math:`\delta L = \frac12 \delta w^\top
H \delta w`. OBD looks at one weight at a time (the diagonal of ``H``). OBS also asks how the remaining
weights should move, and takes the weight whose removal is cheapest *after* they have moved. With a diagonal
``H`` nothing can move to help, and OBS is OBD.

The inverse of ``H`` is what makes OBS dear. SparseGPT and GPTQ are OBS with a fixed order of weights: see
``sparsegpt``.
"""

import copy
from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compresslab.core.calibrate import Batches, input_moments
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.linalg import inverse_factor
from compresslab.pruning.curvature import hessian_diagonal
from compresslab.pruning.masks import mask_layers_, prune_by_score, trainable_weight, weight_layers


def obd_saliency(weight: Tensor, h: Tensor) -> Tensor:
    r"""Rise of the loss when one weight is set to zero and no other moves.

    .. math:: s_k = \tfrac12 h_{kk} w_k^2

    Args:
        weight: any shape.
        h: the Hessian's diagonal, same shape; see ``curvature.hessian_diagonal``.

    Returns:
        Same shape.

    Source: Y. LeCun, J. S. Denker, S. A. Solla, "Optimal Brain Damage", NeurIPS 1989, section 2.

    Example:
        >>> obd_saliency(torch.tensor([1.0, 2.0]), torch.tensor([8.0, 1.0]))  # the larger weight matters less
        tensor([4., 2.])
    """
    return 0.5 * h * weight.square()


def prune_obd(
    model: nn.Module,
    sparsity: float,
    x: Tensor,
    y: Tensor,
    *,
    curvature: str = "gauss_newton",
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    scope: str = "global",
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` with the weights of least OBD saliency masked.

    Args:
        model: a trained network.
        sparsity: fraction in [0, 1] of the weights to mask.
        x, y: (N, ...) examples and targets for the curvature.
        curvature: ``"gauss_newton"``, ``"exact"`` or ``"fisher"``.
        loss: (outputs, targets) -> scalar.
        scope: ``"global"`` (saliencies are losses, so layers compare) or ``"layer"``.
        only, skip: names of layers to prune, or to leave dense.

    Raises:
        ValueError: as ``hessian_diagonal``; a bad sparsity or scope.

    Source: LeCun, Denker, Solla, NeurIPS 1989, section 2.2.
    """
    diagonal = hessian_diagonal(model, x, y, curvature=curvature, loss=loss, only=only, skip=skip)
    weights = {name: layer.weight.detach() for name, layer in weight_layers(model, only, skip).items()}
    scores = {name: obd_saliency(weights[name], h) for name, h in diagonal.items()}
    return prune_by_score(model, scores, sparsity, scope=scope)


def obs_saliency(w: Tensor, H_inv: Tensor) -> Tensor:
    r"""Rise of the loss when weight ``q`` is set to zero and all others move to make up for it.

    .. math:: L_q = \frac{w_q^2}{2\,[H^{-1}]_{qq}}

    Args:
        w: (n,).
        H_inv: (n, n), the inverse Hessian.

    Returns:
        (n,). Never more than OBD's saliency.

    Source: B. Hassibi, D. G. Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon",
    NeurIPS 1992, equation 5.
    """
    return w.square() / (2 * H_inv.diagonal())


def obs_remove(w: Tensor, H_inv: Tensor, q: int) -> tuple[Tensor, Tensor]:
    r"""Set weight ``q`` to zero, move the others, and take ``q`` out of the inverse Hessian.

    .. math:: \delta w = -\frac{w_q}{[H^{-1}]_{qq}} H^{-1} e_q, \qquad
        H^{-1} \leftarrow H^{-1} - \frac{H^{-1} e_q e_q^\top H^{-1}}{[H^{-1}]_{qq}}

    The second is one step of Gaussian elimination: on the remaining weights it is the inverse of ``H``
    without row and column ``q``.

    Args:
        w: (n,).
        H_inv: (n, n).
        q: which weight.

    Returns:
        The new ``w`` (n,), exactly 0 at ``q``, and the new ``H_inv`` (n, n), exactly 0 in row and column
        ``q``.

    Source: Hassibi and Stork, 1992, equation 5; the elimination: E. Frantar, S. P. Singh, D. Alistarh,
    "Optimal Brain Compression: A Framework for Accurate Post-Training Quantization and Pruning", NeurIPS
    2022, lemma 1.

    Example:
        >>> H_inv = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
        >>> obs_remove(torch.tensor([1.0, 2.0]), H_inv, 0)[0]
        tensor([0.0000, 1.5000])
    """
    column = H_inv[:, q] / H_inv[q, q]
    w = w - w[q] * column
    H_inv = H_inv - torch.outer(column, H_inv[q])
    w[q], H_inv[q], H_inv[:, q] = 0, 0, 0  # zero up to rounding already; now exactly
    return w, H_inv


def obs_prune(w: Tensor, H: Tensor, count: int, *, damp: float = 0.0) -> Tensor:
    r"""Remove ``count`` weights of a quadratic loss one after another, always the cheapest, and compensate.

    .. math:: \min_v\; \tfrac12 (v - w)^\top H (v - w)

    For the set of removed weights that it finds, the result is the exact minimizer. The set itself is greedy.

    Args:
        w: (n,).
        H: (n, n) symmetric, positive definite after damping.
        count: how many weights to remove, 0 to n.
        damp: share of the mean diagonal to add to the diagonal of ``H``.

    Returns:
        (n,) with at least ``count`` zeros, in the dtype of ``w``; computed in float64.

    Raises:
        ValueError: ``count`` out of range, or ``H`` not positive definite.

    Source: Hassibi and Stork, 1992, section 2.
    Differs: there ``H`` is the Hessian of the whole network, recomputed after each removal; on a quadratic it
    stays.
    """
    check_int("count", count, 0, len(w))
    U = inverse_factor(H, damp)
    v, H_inv = w.double(), U.T @ U
    gone = torch.zeros(len(w), dtype=torch.bool, device=w.device)
    for _ in range(count):
        cost = torch.where(gone, torch.inf, obs_saliency(v, H_inv))
        q = int(cost.argmin())
        v, H_inv = obs_remove(v, H_inv, q)
        gone[q] = True
    return v.to(w.dtype)


def prune_obs(
    model: nn.Module,
    sparsity: float,
    batches: Batches,
    *,
    damp: float = 0.01,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    r"""Copy of ``model`` in which every row of every layer went through OBS against its own inputs.

    Each layer shall keep its outputs: :math:`\min \frac12\|WX - \hat WX\|_F^2`, whose Hessian is :math:`H =
    XX^\top` for every row of ``W``. Time grows as rows times columns cubed: for layers of up to some hundred
    inputs.

    Args:
        model: a trained network.
        sparsity: fraction in [0, 1] of every row to remove.
        batches: calibration inputs (N, ...), or (inputs, targets) pairs.
        damp: share of the mean diagonal of ``H`` added to it; inputs that are always zero need one above 0.
        only, skip: names of layers to prune, or to leave dense. Grouped convolutions must be skipped.

    Returns:
        A masked copy with compensated weights.

    Raises:
        ValueError: a bad sparsity or layer name, a grouped convolution, no data, or ``H`` not positive
            definite.

    Source: Frantar, Singh, Alistarh, NeurIPS 2022, section 4 (ExactOBS).
    Differs: the same sparsity in every row; the paper spreads one budget over all rows. All layers are
    calibrated on the dense network's inputs.
    """
    check_fraction("sparsity", sparsity)
    model = copy.deepcopy(model)
    layers = weight_layers(model, only, skip)
    moments = input_moments(model, layers, batches)
    for name, layer in layers.items():
        rows = layer.weight.detach().flatten(1)
        count = round(sparsity * rows.shape[1])
        pruned = torch.stack([obs_prune(row, moments[name], count, damp=damp) for row in rows])
        trainable_weight(layer).data.copy_(pruned.view_as(layer.weight))
        mask_layers_(model, {name: (pruned != 0).view_as(layer.weight)})
    return model
