r"""How important is a filter? Criteria that look at weights only.

Each returns scores: layer -> (O,), one number per output channel, higher is more worth keeping.
``choose_channels`` adds up what is coupled and ranks. Criteria that look at data are in ``data_criteria``.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .channel_tracing import TRANSPOSED, WEIGHTED


def filters(layer: nn.Module) -> Tensor:
    """The weights behind each output channel, one row each: (O, I / groups * kernel size), detached."""
    weight = layer.weight.detach()
    if isinstance(layer, TRANSPOSED):  # (I, O / groups, ...)
        per_group = weight.view(layer.groups, -1, *weight.shape[1:])  # (G, I / G, O / G, ...)
        weight = per_group.transpose(1, 2).reshape(layer.out_channels, -1)
    return weight.flatten(1)


def _score_filters(model: nn.Module, score: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, WEIGHTED)}
    return {name: score(filters(layer)) for name, layer in layers.items()}


def norm_importance(model: nn.Module, p: float = 1) -> dict[str, Tensor]:
    r"""Norm of each filter.

    .. math:: s_i=\|F_i\|_p=\Bigl(\sum|F_i|^p\Bigr)^{1/p}

    Args:
        model: scored are its linear and convolutional layers; a mask counts.
        p: 1 for the paper's criterion, 2 for the Euclidean norm.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, -4.0], [1.0, 1.0]]))
        >>> norm_importance(layer)[""]
        tensor([7., 2.])
    """
    return _score_filters(model, lambda rows: torch.linalg.vector_norm(rows, p, dim=1))


def geometric_median_importance(model: nn.Module) -> dict[str, Tensor]:
    r"""Distance of each filter to all the others of its layer: what is near to all is redundant.

    .. math:: g(x)=\sum_j\|x-F_j\|_2,\qquad x=F_1,\dots,F_O

    A norm asks how long a filter is, :math:`g` how replaceable: it does not change when all filters are
    shifted by the same vector. The filter with the smallest :math:`g` is the best filter to stand in
    for the layer's geometric median. For filters that average to about zero the two ranks are nearly
    the same.

    Source: Y. He, P. Liu, Z. Wang, Z. Hu, Y. Yang, "Filter Pruning via Geometric Median for Deep
        Convolutional Neural Networks Acceleration", CVPR 2019, section 3.3.

    Example:
        >>> layer = nn.Linear(1, 3)
        >>> _ = layer.weight.data.copy_(torch.tensor([[10.0], [11.0], [15.0]]))
        >>> geometric_median_importance(layer)[""]                     # the middle one can go
        tensor([6., 5., 9.])
    """
    return _score_filters(
        model, lambda rows: torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
    )


def random_importance(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Uniform random scores: the control that every criterion must beat at the same ratios.

    Args:
        model: scored are its linear and convolutional layers.
        seed: of the draw; the global random state is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    return _score_filters(model, lambda rows: torch.rand(len(rows), generator=generator))


def bn_scale_importance(model: nn.Module) -> dict[str, Tensor]:
    r"""Absolute scale of each batch-norm channel, :math:`|\gamma|`.

    Meaningful after training with ``slimming.slimming_penalty``, which pulls the scales of useless
    channels to zero; use ``scope="global"``, one threshold for all layers, as the paper does. Channels
    without batch norm are not scored, so they stay.

    Source: Z. Liu, J. Li, Z. Shen, G. Huang, S. Yan, C. Zhang, "Learning Efficient Convolutional
        Networks through Network Slimming", ICCV 2017, section 3.

    Raises:
        ValueError: the model has no batch norm with a scale.
    """
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    scores = {
        name: layer.weight.detach().abs()
        for name, layer in model.named_modules()
        if isinstance(layer, norms) and layer.affine
    }
    if not scores:
        network = type(model).__name__
        raise ValueError(f"importance 'bn_scale' needs batch norm with a scale, and {network} has none")
    return scores


CRITERIA: dict[str, Callable[[nn.Module], dict[str, Tensor]]] = {
    "l1": norm_importance,
    "l2": lambda model: norm_importance(model, 2),
    "fpgm": geometric_median_importance,
    "bn_scale": bn_scale_importance,
    "random": random_importance,
}


def score_channels(
    model: nn.Module, importance: str | Mapping[str, Tensor] | Callable[[nn.Module], Mapping[str, Tensor]]
) -> Mapping[str, Tensor]:
    """Scores from a criterion's name, from a function of the model, or given as they are.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(importance, Mapping):
        return importance
    if isinstance(importance, str):
        if importance not in CRITERIA:
            names = ", ".join(CRITERIA)
            raise ValueError(f"importance must be one of {names}, scores or a function, got {importance!r}")
        importance = CRITERIA[importance]
    return importance(model)
