r"""SparseGPT: Optimal Brain Surgeon in a fixed order, so that all rows share one inverse Hessian.

OBS removes the cheapest weight first, which is another one in each row, so every row needs an inverse Hessian
of its own. SparseGPT goes through the columns from left to right, and lets only the columns to the right make
up for what was removed. Then the inverse of the remaining Hessian is the same for all rows, and one Cholesky
factor holds all of them.
"""

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches, input_moments
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.linalg import inverse_factor
from compresslab.pruning.masks import keep_mask, mask_layers_, trainable_weight, weight_layers
from compresslab.pruning.nm import check_nm, from_matrix, keep_n_of_m, to_matrix


def sparsegpt_prune(
    weight: Tensor,
    H: Tensor,
    *,
    sparsity: float | None = None,
    nm: tuple[int, int] | None = None,
    mask_block: int = 128,
    block: int = 128,
    damp: float = 0.01,
) -> tuple[Tensor, Tensor]:
    r"""Prune one weight matrix, column by column, with compensation in the columns to come.

    .. math:: w_{j:} \leftarrow w_{j:} - \frac{w_j}{U_{jj}} U_{j,j:}, \qquad H^{-1} = U^\top U

    for the rows that drop column ``j``. Which rows do is settled when a mask block begins, by the saliency
    :math:`w_j^2 / U_{jj}^2` of weights that have been updated so far.

    Args:
        weight: (O, I).
        H: (I, I), :math:`XX^\top` of the layer's inputs.
        sparsity: fraction in [0, 1] to drop from every mask block, over all rows together; or
        nm: (N, M), keep N of every M consecutive columns in each row; mask blocks are then M wide.
        mask_block: columns whose mask is chosen together, :math:`B_s`.
        block: columns between two updates of the rest of the matrix, ``B``; rounded to a multiple of
            ``mask_block``. It changes the speed, not the result.
        damp: share of the mean diagonal of ``H`` added to it.

    Returns:
        (O, I) the new weight, float64, and its bool mask; masked entries are exactly 0.

    Raises:
        ValueError: not exactly one of ``sparsity`` and ``nm``, or a bad value of it; a block size below 1;
            shapes that do not match; ``H`` not positive definite.

    Source: E. Frantar, D. Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in
    One-Shot", ICML 2023, section 3 and algorithm 1.

    Example:
        >>> W, H = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> sparsegpt_prune(W, H, sparsity=0.5, damp=0.0)[0]  # the second weight takes over half of the first
        tensor([[0.0000, 2.5000]], dtype=torch.float64)
    """
    _check(weight, H, sparsity, nm)
    mask_block = nm[1] if nm else check_int("mask_block", mask_block, 1)
    block = max(check_int("block", block, 1) // mask_block, 1) * mask_block
    U = inverse_factor(H, damp)
    W, keep = weight.detach().double().clone(), torch.ones_like(weight, dtype=torch.bool)
    for start in range(0, W.shape[1], block):
        stop = min(start + block, W.shape[1])
        errors = torch.zeros(len(W), stop - start, dtype=W.dtype, device=W.device)
        for j in range(start, stop):
            if j % mask_block == 0:
                ahead = slice(j, j + mask_block)
                saliency = W[:, ahead].square() / U.diagonal()[ahead].square()
                keep[:, ahead] = keep_n_of_m(saliency, *nm) if nm else keep_mask(saliency, sparsity)
            errors[:, j - start] = W[:, j].masked_fill(keep[:, j], 0.0) / U[j, j]
            W[:, j:stop] -= torch.outer(errors[:, j - start], U[j, j:stop])
        W[:, stop:] -= errors @ U[start:stop, stop:]  # the lazy update: all that this block owes to the right
    return W.masked_fill(~keep, 0.0), keep


def prune_sparsegpt(
    model: nn.Module,
    batches: Batches,
    *,
    sparsity: float | None = None,
    nm: tuple[int, int] | None = None,
    mask_block: int = 128,
    damp: float = 0.01,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` pruned by SparseGPT. Layers go in order, each calibrated behind those already pruned.

    Args:
        model: a trained network. Where a layer has a mask already, the result is zero under both.
        batches: calibration inputs (N, ...), or (inputs, targets) pairs. More rows than inputs of the widest
            layer, or ``H`` rests on ``damp`` alone.
        sparsity: fraction in [0, 1] to drop from every layer; or
        nm: (N, M), keep N of every M consecutive inputs.
        mask_block, damp: as in :func:`sparsegpt_prune`.
        only, skip: names of layers to prune, or to leave dense. Grouped convolutions must be skipped.

    Returns:
        A masked copy with compensated weights.

    Raises:
        ValueError: as :func:`sparsegpt_prune`; an unknown layer name, a grouped convolution, no data.

    Source: Frantar and Alistarh, ICML 2023.
    Differs: the paper prunes the linear layers of language models; a convolution counts as a linear layer on
    patches, its columns ordered with the channels innermost, as N:M wants them.
    """
    model, batches = copy.deepcopy(model), list(batches)
    for name, layer in weight_layers(model, only, skip).items():
        H = input_moments(model, [name], batches)[name]
        weight = layer.weight.detach()
        order = to_matrix(torch.arange(len(H), device=H.device).view(1, *weight.shape[1:]))[0]
        pruned, keep = sparsegpt_prune(
            to_matrix(weight), H[order][:, order], sparsity=sparsity, nm=nm, mask_block=mask_block, damp=damp
        )
        trainable_weight(layer).data.copy_(from_matrix(pruned, weight.shape))
        mask_layers_(model, {name: from_matrix(keep, weight.shape)})
    return model


def _check(weight: Tensor, H: Tensor, sparsity: float | None, nm: tuple[int, int] | None) -> None:
    """Raise unless :func:`sparsegpt_prune` can work with these."""
    if (sparsity is None) == (nm is None):
        raise ValueError(f"give exactly one of sparsity and nm, got sparsity={sparsity} and nm={nm}")
    if weight.ndim != 2 or H.shape != (weight.shape[1],) * 2:
        raise ValueError(f"weight (O, I) needs H (I, I), got {tuple(weight.shape)} and {tuple(H.shape)}")
    if nm is None:
        check_fraction("sparsity", sparsity)
    else:
        check_nm(*nm)
