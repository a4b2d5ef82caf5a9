r"""Magnitude pruning: drop the smallest weights.

The oldest criterion, and the one every other has to beat. It needs no data and no gradient. Its assumption:
what is small does little. That fails when weights act through correlated or badly scaled inputs (see
``second_order`` and ``wanda``).
"""

from collections.abc import Collection

from torch import Tensor, nn

from compresslab.pruning.masks import keep_mask, prune_by_score, weight_layers


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    r"""Mask of the largest weights by absolute value.

    .. math:: m = \mathbb 1[\,|w| \ge t\,]

    with the threshold ``t`` implied by the count: exactly :math:`\mathrm{round}(sn)` of the ``n`` weights are
    dropped, also when several share the magnitude ``t`` (the first of them, in index order, go).

    Args:
        weight: any shape.
        sparsity: fraction ``s`` in [0, 1] to drop.

    Returns:
        bool, the shape of ``weight``; True keeps.

    Raises:
        ValueError: ``sparsity`` outside [0, 1], or a weight is nan.

    Source: S. Han, J. Pool, J. Tran, W. Dally, "Learning both Weights and Connections for Efficient Neural
    Networks", NeurIPS 2015, section 3.
    Differs: the paper sets ``t`` to a quality parameter times the layer's standard deviation; here the share
    is given.

    Example:
        >>> import torch
        >>> magnitude_mask(torch.tensor([[0.5, -2.0], [0.1, 1.0]]), 0.5)
        tensor([[False,  True],
                [False,  True]])
    """
    return keep_mask(weight.detach().abs(), sparsity)


def prune_magnitude(
    model: nn.Module,
    sparsity: float,
    *,
    scope: str = "layer",
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` whose smallest weights are masked; a step of a pipeline.

    Args:
        model: the network; biases and normalization are left alone.
        sparsity: fraction in [0, 1] of the weights that shall be zero, those masked before included. Pruning
            never brings a masked weight back: a sparsity below the present one changes nothing.
        scope: ``"layer"`` takes this fraction of every layer, ``"global"`` one threshold for all layers.
        only: names of the layers to prune; None means all linear and convolutional ones.
        skip: names of layers to leave dense; small first and last layers are the usual choice.

    Returns:
        A masked copy. Train it to recover: the masks hold. ``core.modules.bake`` makes it plain.

    Raises:
        ValueError: a bad sparsity or scope, an unknown layer name, no layer to prune.

    Source: Han et al., NeurIPS 2015 (see :func:`magnitude_mask`).
    Differs: one shot. For iterations with retraining see ``schedule`` and ``lottery``.
    """
    return prune_by_score(model, magnitudes(model, only=only, skip=skip), sparsity, scope=scope)


def magnitudes(
    model: nn.Module, *, only: Collection[str] | None = None, skip: Collection[str] = ()
) -> dict[str, Tensor]:
    """The score of this file: layer name -> :math:`|w|`, in the weight's shape, detached.

    Raises:
        ValueError: an unknown layer name, or no layer is left.
    """
    return {name: layer.weight.detach().abs() for name, layer in weight_layers(model, only, skip).items()}
