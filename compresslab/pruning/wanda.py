r"""Wanda: a weight matters as much as the signal that passes through it.

A small weight on a loud input can move the output more than a large weight on a quiet one. Wanda multiplies
the two and compares within each output row. No retraining, no gradient, one forward pass over a little data.
"""

import copy
from collections.abc import Collection

from torch import Tensor, nn

from compresslab.core.calibrate import Batches, input_norms
from compresslab.pruning.masks import keep_mask, live_scores, mask_layers_, weight_layers
from compresslab.pruning.nm import keep_n_of_m


def wanda_scores(weight: Tensor, norms: Tensor) -> Tensor:
    r"""Weight times input norm.

    .. math:: S_{ij} = |W_{ij}| \cdot \|X_j\|_2

    Its square, halved, is OBS's saliency if the inputs are uncorrelated: for :math:`H = XX^\top` diagonal,
    :math:`w^2 / (2 [H^{-1}]_{jj}) = \frac12 w^2 \|X_j\|^2`.

    Args:
        weight: (O, I) or (O, I, kh, kw).
        norms: (I,), or (I * kh * kw,) for a convolution, in the order of ``weight.flatten(1)``.

    Returns:
        The weight's shape.

    Raises:
        ValueError: the number of norms is not the number of inputs.

    Source: M. Sun, Z. Liu, A. Bair, J. Z. Kolter, "A Simple and Effective Pruning Approach for Large Language
    Models", ICLR 2024, equation 1.

    Example:
        >>> import torch
        >>> wanda_scores(torch.tensor([[1.0, -2.0]]), torch.tensor([6.0, 1.0]))
        tensor([[6., 2.]])
    """
    rows = weight.detach().abs().flatten(1)
    if norms.shape != rows.shape[1:]:
        raise ValueError(f"norms must have shape ({rows.shape[1]},), one per input, got {tuple(norms.shape)}")
    return (rows * norms.to(rows)).view(weight.shape)


def wanda_mask(
    weight: Tensor, norms: Tensor, *, sparsity: float | None = None, nm: tuple[int, int] | None = None
) -> Tensor:
    """Mask of the best weights of every output row, or of every group of M in a row.

    Args:
        weight: (O, I) or (O, I, kh, kw).
        norms: as in :func:`wanda_scores`.
        sparsity: fraction in [0, 1] to drop from each row, exactly ``round(sparsity * I)`` weights; or
        nm: (N, M), keep N of every M consecutive inputs.

    Returns:
        bool, the weight's shape; True keeps.

    Raises:
        ValueError: not exactly one of ``sparsity`` and ``nm``, or a bad value of it; wrong norms.

    Source: Sun et al., ICLR 2024, section 3.
    """
    return choose_mask(wanda_scores(weight, norms), sparsity=sparsity, nm=nm)


def choose_mask(
    scores: Tensor, *, sparsity: float | None = None, nm: tuple[int, int] | None = None
) -> Tensor:
    """Turn scores into a mask, row by row or in groups of M; arguments as in :func:`wanda_mask`."""
    if (sparsity is None) == (nm is None):
        raise ValueError(f"give exactly one of sparsity and nm, got sparsity={sparsity} and nm={nm}")
    return keep_n_of_m(scores, *nm) if sparsity is None else keep_mask(scores, sparsity, per_row=True)


def prune_wanda(
    model: nn.Module,
    batches: Batches,
    *,
    sparsity: float | None = None,
    nm: tuple[int, int] | None = None,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` with Wanda's masks: layers in order, each calibrated behind those already pruned.

    Args:
        model: a trained network.
        batches: calibration inputs (N, ...), or (inputs, targets) pairs; a few hundred examples do.
        sparsity: fraction in [0, 1] to drop from every output row; or
        nm: (N, M), keep N of every M consecutive inputs.
        only, skip: names of layers to prune, or to leave dense. Grouped convolutions must be skipped.

    Returns:
        A masked copy; the kept weights are unchanged.

    Raises:
        ValueError: not exactly one of ``sparsity`` and ``nm``, an unknown layer name, a grouped convolution,
            no data.

    Source: Sun et al., ICLR 2024, algorithm 1.
    Differs: the paper prunes the linear layers of language models; a convolution counts as a linear layer on
    patches.
    """
    model, batches = copy.deepcopy(model), list(batches)
    for name, layer in weight_layers(model, only, skip).items():
        norms = input_norms(model, [name], batches)[name]
        scores = live_scores(layer, wanda_scores(layer.weight, norms))
        mask_layers_(model, {name: choose_mask(scores, sparsity=sparsity, nm=nm)})
    return model
