r"""Cross-layer equalization: make the ranges of channels equal before one scale must serve them all.

After batch norm has been folded, the channels of a layer can differ in range by a hundred, and a per-tensor
grid wide enough for the largest leaves the smallest nothing. But a ReLU does not mind a positive factor,
:math:`f(sx) = s f(x)`: what one layer's channel is divided by, the next layer's weights can be multiplied by.
The function stays, the ranges change, and no data are needed.
"""

import torch
from torch import Tensor, fx, nn

from compresslab.quantization.folding import fold_batch_norm
from compresslab.quantization.graph import (
    WEIGHTED,
    SpatialMean,
    as_layer,
    called_once,
    module_of,
    node_before,
    stored_weight,
    trace,
)

# f(s x) = s f(x) for s > 0, channel by channel. ReLU6 is not among them: its six does not scale.
HOMOGENEOUS = (nn.Identity, nn.ReLU, nn.LeakyReLU)
HOMOGENEOUS_IN_SPACE = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def equalizing_scales(first: Tensor, second: Tensor, groups: int = 1) -> Tensor:
    r"""The factors that give output channel i of one layer and input channel i of the next the same range.

    .. math:: s_i = \frac{\sqrt{r^{(1)}_i r^{(2)}_i}}{r^{(2)}_i}, \qquad
              W^{(1)}_{i:} \leftarrow W^{(1)}_{i:} / s_i, \quad b_i \leftarrow b_i / s_i, \quad
              W^{(2)}_{:i} \leftarrow s_i W^{(2)}_{:i}

    with :math:`r_i` the largest absolute weight of the channel. Both ranges become
    :math:`\sqrt{r^{(1)}_i r^{(2)}_i}`.

    Args:
        first: :math:`W^{(1)}`, (O, ...).
        second: :math:`W^{(2)}`, (P, O / groups, ...), or (P, O * positions) after a flatten.
        groups: of the second layer.

    Returns:
        (O,) float64, positive; 1 where a range is 0, since a dead channel has nothing to equalize.

    Raises:
        ValueError: the second layer has not the first one's channels as inputs; nan or inf in a weight.

    Source: M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight
        Equalization and Bias Correction", ICCV 2019, section 4.1.

    Example:
        >>> equalizing_scales(torch.tensor([[8.0], [0.5]]), torch.tensor([[2.0, 2.0]]))
        tensor([2.0000, 0.5000], dtype=torch.float64)
    """
    columns = _columns(second, len(first), groups)
    r1 = first.detach().double().abs().flatten(1).amax(1)
    r2 = columns.detach().double().abs().amax((1, 3)).flatten()
    if not (torch.isfinite(r1).all() and torch.isfinite(r2).all()):
        raise ValueError("weights must be finite, got nan or inf in one of the two")
    alive = (r1 > 0) & (r2 > 0)
    return torch.where(alive, torch.sqrt(r1 / torch.where(alive, r2, 1.0)), 1.0)


def equalize(model: nn.Module, *, iterations: int = 50, tolerance: float = 1e-4) -> nn.Module:
    """Copy of ``model`` that computes the same with equalized weights; batch norm is folded first.

    A pair is two layers, called once each, between which there is nothing but ReLU and operations that keep
    channels apart and scale with them: pooling, flatten, dropout in eval mode, nothing at all. A depthwise
    layer is the second of one pair and the first of the next, so pairs are gone through until the factors
    settle.

    Args:
        model: any network that ``torch.fx`` can trace.
        iterations: the most rounds over all pairs.
        tolerance: stop when no factor of a round is further than this from 1.

    Raises:
        ValueError: as :func:`fold_batch_norm`; ``iterations`` or ``tolerance`` is negative; nan or inf in a
            weight (the message names the layers).

    Source: Nagel et al., ICCV 2019, section 4.1.
    Differs: the paper replaces ReLU6 by ReLU, which changes the function; here a pair around ReLU6 is left as
        it is. High biases are not absorbed.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
        >>> _ = model[0].weight.data.fill_(8.0), model[2].weight.data.fill_(2.0)
        >>> equal = equalize(model)
        >>> equal[0].weight.item(), equal[2].weight.item()
        (4.0, 4.0)
    """
    if iterations < 0 or tolerance < 0:
        raise ValueError(f"iterations and tolerance must not be negative, got {iterations} and {tolerance}")
    model = fold_batch_norm(model)
    pairs = [(model.get_submodule(a), model.get_submodule(b), a, b) for a, b in equalizable_pairs(model)]
    for _ in range(iterations):
        furthest = 0.0
        for first, second, first_name, second_name in pairs:
            weights = stored_weight(first, first_name), stored_weight(second, second_name)
            try:
                scales = equalizing_scales(*weights, getattr(second, "groups", 1))
            except ValueError as error:
                raise ValueError(f"{error}, layers '{first_name}' and '{second_name}'") from error
            _scale_(*weights, first.bias, scales, getattr(second, "groups", 1))
            furthest = max(furthest, (scales - 1).abs().max().item()) if scales.numel() else furthest
        if furthest <= tolerance:
            break
    return model


def equalizable_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """The names of all pairs of layers that :func:`equalize` may rescale, in the order of execution.

    Example:
        >>> equalizable_pairs(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.Linear(4, 2)))
        [('0', '2'), ('2', '3')]
    """
    graph = trace(model)
    alone = called_once(model, graph)
    calls = [node for node in graph.nodes if node.target in alone]
    layers = [node for node in calls if isinstance(module_of(model, node), WEIGHTED)]
    return [
        (before.target, node.target)
        for node in layers
        if (before := _layer_before(model, node)) in layers and _fit(model, before, node)
    ]


def _layer_before(model: nn.Module, node: fx.Node) -> fx.Node | None:
    """The layer whose output alone, rescaled or pooled, is the input of ``node``."""
    before = node_before(node)
    while before is not None and len(before.users) == 1:
        layer = as_layer(model, before)
        if isinstance(layer, WEIGHTED):
            return before
        in_space = isinstance(layer, (*HOMOGENEOUS_IN_SPACE, SpatialMean))
        if not (isinstance(layer, HOMOGENEOUS) or in_space or _flattens(layer)):
            return None
        before = node_before(before)
    return None


def _fit(model: nn.Module, first: fx.Node, second: fx.Node) -> bool:
    """Whether input channel i of the second layer is output channel i of the first."""
    kinds = [isinstance(module_of(model, node), nn.Linear) for node in (first, second)]
    between, node = [], node_before(second)
    while node is not first:
        between.append(as_layer(model, node))
        node = node_before(node)
    if kinds[0]:  # features, on the last axis: they must stay there
        return kinds[1] and all(isinstance(layer, HOMOGENEOUS) for layer in between)
    flat = any(_flattens(layer) or isinstance(layer, SpatialMean) and not layer.keepdim for layer in between)
    return flat if kinds[1] else not flat


def _flattens(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Flatten) and layer.start_dim == 1 and layer.end_dim == -1


def _columns(second: Tensor, channels: int, groups: int) -> Tensor:
    """View (P, O / groups, ...) as (groups, P / groups, channels of a group, positions)."""
    inputs = second[0].numel() * groups if len(second) else 0
    if channels == 0 or channels % groups or inputs == 0 or inputs % channels:
        raise ValueError(
            f"the second layer, {tuple(second.shape)} with {groups} groups, has not the first's {channels} "
            "channels as inputs"
        )
    return second.view(groups, len(second) // groups, channels // groups, -1)


@torch.no_grad()
def _scale_(first: Tensor, second: Tensor, bias: Tensor | None, scales: Tensor, groups: int) -> None:
    """Divide the first layer's channels by the factors and multiply the second's columns, in place."""
    rows = scales.view(-1, *[1] * (first.ndim - 1))
    first.copy_(first.double() / rows)
    if bias is not None:
        bias.copy_(bias.double() / scales)
    columns = _columns(second, len(first), groups)
    columns.copy_(columns.double() * scales.view(groups, 1, -1, 1))
