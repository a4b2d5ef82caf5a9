r"""Group lasso: train so that whole groups of weights become exactly zero.

An L2 penalty makes weights small, an L1 penalty makes single weights zero. The sum of the *norms* of groups
makes whole groups zero, and a zero filter or channel can be cut out of the network. Plain gradient descent
never quite gets there, as the penalty has no gradient at zero. The proximal step does: it shrinks each
group's norm and stops at zero.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compresslab.pruning.masks import trainable_weight, weight_layers

# Which axes of a weight (O, I/groups, ...) one group runs over; the other axes tell the groups apart.
GROUP_AXES = {
    "filter": lambda ndim: tuple(range(1, ndim)),  # W[o]: all that makes one output; a linear layer's row
    "channel": lambda ndim: (0, *range(2, ndim)),  # W[:, i]: all that reads one input; its columns
    "shape": lambda ndim: (0,),  # W[:, i, y, x]: one column of the unfolded (im2col) product
}


def group_norms(weight: Tensor, groups: str = "filter") -> Tensor:
    r"""Euclidean norm of every group, :math:`\|w_g\|_2`.

    Args:
        weight: (O, I) or (O, I/groups, ...).
        groups: ``"filter"``, ``"channel"`` or ``"shape"``.

    Returns:
        Norms with the grouped axes kept at size 1, so that they broadcast against ``weight``.

    Raises:
        ValueError: another name of groups, or a weight with fewer than two axes.

    Example:
        >>> group_norms(torch.tensor([[3.0, 4.0], [0.0, 5.0]]), "filter").flatten()
        tensor([5., 5.])
    """
    if groups not in GROUP_AXES:
        raise ValueError(f"groups must be one of {', '.join(map(repr, GROUP_AXES))}, got {groups!r}")
    if weight.ndim < 2:
        raise ValueError(f"weight must have at least two axes, got shape {tuple(weight.shape)}")
    return torch.linalg.vector_norm(weight, dim=GROUP_AXES[groups](weight.ndim), keepdim=True)


def prox_group_lasso(weight: Tensor, threshold: float, groups: str = "filter") -> Tensor:
    r"""Proximal operator of the group lasso: shrink every group's norm by ``threshold``, down to zero.

    .. math:: \mathrm{prox}(w_g) = \arg\min_v \tfrac12 \|v - w_g\|_2^2 + \lambda \|v\|_2
        = \left(1 - \frac{\lambda}{\|w_g\|_2}\right)_+ w_g

    Args:
        weight: (O, I) or (O, I/groups, ...).
        threshold: :math:`\lambda \ge 0`; in training it is learning rate times strength, :math:`\eta\lambda`.
        groups: ``"filter"``, ``"channel"`` or ``"shape"``.

    Returns:
        The weight's shape. A group is zero if and only if its norm was at most ``threshold``.

    Raises:
        ValueError: a negative or nan threshold, or as :func:`group_norms`.

    Source: M. Yuan, Y. Lin, "Model selection and estimation in regression with grouped variables", Journal of
    the Royal Statistical Society B 68, 2006; for networks: W. Wen, C. Wu, Y. Wang, Y. Chen, H. Li, "Learning
    Structured Sparsity in Deep Neural Networks", NeurIPS 2016, section 3.

    Example:
        >>> prox_group_lasso(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), 1.0)
        tensor([[2.4000, 3.2000],
                [0.0000, 0.0000]])
    """
    _check_threshold("threshold", threshold)
    norms = group_norms(weight, groups)
    smallest = torch.finfo(weight.dtype).tiny
    return weight * ((norms - threshold).clamp_min(0) / norms.clamp_min(smallest))


def group_penalty(
    model: nn.Module,
    strength: float,
    *,
    groups: str = "filter",
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> Tensor:
    r"""The penalty as a term of the loss, for training by gradient alone.

    .. math:: R = \lambda \sum_g \|w_g\|_2

    Args:
        model: the network.
        strength: :math:`\lambda \ge 0`.
        groups: ``"filter"``, ``"channel"`` or ``"shape"``.
        only, skip: names of layers to penalize, or to leave out.

    Returns:
        A scalar with a gradient. At a zero group the gradient is taken as zero.

    Raises:
        ValueError: a negative or nan strength, other groups, an unknown layer name, no layer left.

    Source: Wen et al., NeurIPS 2016, section 3.
    Differs: the paper gives filters, channels and shapes a strength each; call it once for each and add.
    """
    _check_threshold("strength", strength)
    layers = weight_layers(model, only, skip).values()
    return strength * sum(group_norms(layer.weight, groups).sum() for layer in layers)


@dataclass(frozen=True)
class GroupLasso:
    r"""Proximal gradient training: the ``after_step`` callback of ``core.train.train`` that applies the prox.

    .. math:: w \leftarrow \mathrm{prox}_{\eta\lambda}\left(w - \eta \nabla L(w)\right)

    The optimizer does the inner step, this does the outer. Norms fall by ``threshold`` per step against
    whatever the loss pulls back, so choose it small: over ``T`` steps an idle group loses ``T * threshold``
    of its norm.

    Args:
        threshold: :math:`\eta\lambda \ge 0`, the shrinkage per step.
        groups: ``"filter"``, ``"channel"`` or ``"shape"``.
        only, skip: names of layers to shrink, or to leave alone; leave the last layer's filters alone, they
            are the classes.

    Raises:
        ValueError: a negative or nan threshold; or, when called, other groups or an unknown layer name.

    Source: Wen et al., NeurIPS 2016; V. Lebedev, V. Lempitsky, "Fast ConvNets Using Group-wise Brain Damage",
    CVPR 2016.
    Differs: both papers train with the penalty's gradient and cut small groups at the end; the prox needs no
    cut. The threshold stays the same while the learning rate falls.
    """

    threshold: float
    groups: str = "filter"
    only: Collection[str] | None = None
    skip: Collection[str] = ()

    def __post_init__(self):
        _check_threshold("threshold", self.threshold)

    @torch.no_grad()
    def __call__(self, model: nn.Module, step: int) -> None:
        """Shrink all groups of ``model`` in place; ``step`` plays no part."""
        for layer in weight_layers(model, self.only, self.skip).values():
            trainable_weight(layer).copy_(prox_group_lasso(layer.weight, self.threshold, self.groups))


def group_sparsity(model: nn.Module, *, groups: str = "filter") -> dict[str, float]:
    """Fraction of groups that are entirely zero: layer name -> fraction in [0, 1].

    Raises:
        ValueError: other groups, or a model without layers.
    """
    layers = weight_layers(model, None, ())
    return {name: (group_norms(la.weight, groups) == 0).double().mean().item() for name, la in layers.items()}


def _check_threshold(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value:g}")
