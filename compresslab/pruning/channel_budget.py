r"""Prune channels down to a budget of multiply-accumulates or of parameters.

A ratio of 0.5 halves the channels, but a layer's cost is proportional to its outputs *and* its inputs:
half the channels leave about a quarter. The ratio that meets a budget is found by bisection, without
pruning anything on the way: what a layer costs after pruning follows from what it costs now,

.. math:: \mathrm{cost}_l'=\mathrm{cost}_l\cdot\frac{O_l'}{O_l}\cdot\frac{I_l'}{I_l}

(a grouped convolution loses whole groups, so only the first factor applies).
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from compresslab.core.errors import check_fraction
from compresslab.core.macs import count_macs

from .channel_choice import Removal, Scores, choose_channels
from .channels import remove_channels, units_gone
from .criteria import score_channels
from .graph import ChannelGraph, trace_channels

STEPS = 1024  # the ratio is found to within 1 / STEPS
Cost = Callable[[Tensor], float]  # from the units that stay, bool (units,)


def prune_channels_to_macs(
    model: nn.Module,
    example_input: Tensor,
    macs_ratio: float = 0.5,
    *,
    importance: str | Scores | Callable[[nn.Module], Scores] = "l1",
    keep: Collection[str] = (),
    **choice: Any,
) -> nn.Module:
    """Copy of ``model`` with as few channels removed as bring its MACs to the budget.

    Args:
        model: any network that ``torch.fx`` can trace; not changed.
        example_input: an input (N, ...); its size decides how much each layer costs.
        macs_ratio: the budget as a fraction in [0, 1] of the present MACs in eval mode (no auxiliary heads).
        importance, keep: as ``prune_channels``.
        **choice: as there.

    Raises:
        ValueError: the budget cannot be reached, and how far one gets; else as ``prune_channels``.
    """
    check_fraction("macs_ratio", macs_ratio)
    macs = count_macs(model, example_input).by_layer
    graph = trace_channels(model, example_input, keep=keep)
    scores = score_channels(model, importance)
    return _prune_to(macs_ratio, model, graph, scores, choice, partial(macs_left, graph, macs))


def prune_channels_to_parameters(
    model: nn.Module,
    example_input: Tensor | tuple,
    parameter_ratio: float = 0.5,
    *,
    importance: str | Scores | Callable[[nn.Module], Scores] = "l1",
    keep: Collection[str] = (),
    **choice: Any,
) -> nn.Module:
    """Copy of ``model`` with as few channels removed as bring its number of parameters to the budget.

    Args, Raises: as :func:`prune_channels_to_macs`, with ``parameter_ratio`` of the present parameters.
    """
    check_fraction("parameter_ratio", parameter_ratio)
    graph = trace_channels(model, example_input, keep=keep)
    scores = score_channels(model, importance)
    cost = partial(parameters_left, model, graph)
    return _prune_to(parameter_ratio, model, graph, scores, choice, cost)


def macs_left(graph: ChannelGraph, macs: Mapping[str, int], stays: Tensor) -> float:
    """MACs that remain if only the units in ``stays`` (bool, one per unit) do.

    Args:
        graph: from ``trace_channels``.
        macs: of each layer, before.
        stays: bool (number of units,).
    """
    return sum(cost * _weight_fraction(graph, layer, stays) for layer, cost in macs.items())


def parameters_left(model: nn.Module, graph: ChannelGraph, stays: Tensor) -> float:
    """Parameters that remain if only the units in ``stays`` do. What the graph does not know stays."""
    modules = dict(model.named_modules())
    total = sum(parameter.numel() for parameter in model.parameters())
    for layer, units in graph.producers.items():
        total -= modules[layer].weight.numel() * (1 - _weight_fraction(graph, layer, stays))
        total -= int((~stays[units]).sum()) if modules[layer].bias is not None else 0
    for layer, units in graph.norms.items():
        total -= int((~stays[units]).sum()) * len(list(modules[layer].parameters(recurse=False)))
    return total


def _weight_fraction(graph: ChannelGraph, layer: str, stays: Tensor) -> float:
    """Which fraction of a layer's weight remains."""
    if layer not in graph.producers:
        return 1.0
    fraction = stays[graph.producers[layer]].double().mean().item()
    if layer not in graph.grouped:
        fraction *= stays[graph.consumers[layer]].double().mean().item()
    return fraction


def _prune_to(
    budget: float, model: nn.Module, graph: ChannelGraph, scores: Scores, choice: dict[str, Any], cost: Cost
) -> nn.Module:
    """Remove as few channels as bring ``cost`` to ``budget`` times the present cost."""

    def try_ratio(step: int) -> tuple[Removal, float]:
        removed = choose_channels(graph, scores, step / STEPS, **choice)
        return removed, cost(~units_gone(graph, removed))

    dense, least = try_ratio(0)[1], try_ratio(STEPS)[1]
    if least > budget * dense:
        possible = f"the smallest possible is {least / dense:.3g}"
        raise ValueError(f"a ratio of {budget:g} cannot be reached: {possible}")
    low, high = -1, STEPS  # high meets the budget, low does not: the cost falls as the ratio grows
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if try_ratio(middle)[1] <= budget * dense else (middle, high)
    return remove_channels(model, graph, try_ratio(high)[0])
