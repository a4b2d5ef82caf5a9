"""Which channels go: from one score per channel to a choice that respects what hangs together.

A criterion (``criteria``) scores the channels of each layer. Here the scores of coupled channels are
added up, the units of a group are ranked, and the lowest go.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from compresslab.core.errors import check_fraction, check_int

from .graph import ChannelGraph, ChannelGroup

Scores = Mapping[str, Tensor]
Removal = dict[str, list[int]]


def choose_channels(
    graph: ChannelGraph,
    scores: Scores,
    ratio: float | Mapping[str, float] = 0.5,
    *,
    scope: str = "layer",
    normalize: bool = False,
    min_channels: int = 1,
    round_to: int = 1,
) -> Removal:
    r"""Choose the channels to remove.

    A unit scores :math:`s_u=\sum_{l}\sum_{c\in u} s_{l,c}`, summed over its channels in the scored
    layers. Of each group of ``n`` units exactly :math:`\lfloor rn\rfloor` go, the lowest first; equal
    scores go in index order, so the choices of growing ratios are nested.

    Args:
        graph: from ``trace_channels``.
        scores: layer -> (O,); higher is more worth keeping. Where both the batch norms and the layers
            of a group are scored, the batch norms count. Groups without any score are left whole.
        ratio: fraction ``r`` in [0, 1] to remove from every group, or layer -> fraction, then other
            groups stay whole.
        scope: ``"layer"`` ranks within each group; ``"global"`` ranks the units of all groups together.
        normalize: divide the scores of each group by their mean first, so that a global ranking
            compares layers with unlike scales.
        min_channels: at least so many channels stay in every layer, whatever the ratio.
        round_to: the number that stays is rounded up to a multiple of this; kernels like multiples of 8
            or 16.

    Returns:
        layer -> output channels to remove, ascending, for every layer that loses any.

    Raises:
        ValueError: a fraction outside [0, 1], an unknown layer, a layer whose channels cannot go, two
            ratios for one group, an unknown scope, nothing to prune, scores that do not fit.
    """
    check_int("min_channels", min_channels, 1)
    check_int("round_to", round_to, 1)
    ranked = [(group, group_scores(group, scores)) for group in graph.groups]
    ranked = [(group, own) for group, own in ranked if own is not None]
    if normalize:
        ranked = [(group, own / own.mean().clamp(min=1e-30)) for group, own in ranked]
    if not ranked:
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in graph.frozen.items())
        raise ValueError(f"nothing can be pruned: no scored layer has channels that may go ({reasons})")
    if scope == "global":
        counts = _count_globally([own for _, own in ranked], check_fraction("ratio", ratio), min_channels)
    elif scope == "layer":
        ratios = _ratio_per_group(graph, [group for group, _ in ranked], ratio)
        counts = [math.floor(r * len(group) + 1e-9) for (group, _), r in zip(ranked, ratios, strict=True)]
    else:
        raise ValueError(f"scope must be 'layer' or 'global', got {scope!r}")
    gone = torch.zeros(graph.num_units, dtype=torch.bool)
    for (group, own), count in zip(ranked, counts, strict=True):
        count = _allowed(group, count, min_channels, round_to)
        gone[group.units[own.argsort(stable=True)[:count]]] = True
    removed = {layer: gone[units].nonzero().squeeze(1).tolist() for layer, units in graph.producers.items()}
    return {layer: channels for layer, channels in removed.items() if channels}


def group_scores(group: ChannelGroup, scores: Scores) -> Tensor | None:
    """One score per unit: the sum over its channels in all scored norms, or else in all scored layers.

    Returns:
        (n,) float64, or None if no layer of the group is scored.

    Raises:
        ValueError: scores of the wrong length, or nan.
    """
    for table in (group.norms, group.producers):
        scored = [layer for layer in table if layer in scores]
        if scored:
            return torch.stack([_take(layer, scores[layer], table[layer]) for layer in scored]).sum(0)
    return None


def _take(layer: str, scores: Tensor, channels: Tensor) -> Tensor:
    if scores.dim() != 1 or len(scores) <= channels.max():
        shape = tuple(scores.shape)
        raise ValueError(f"scores of layer '{layer}' must be one number per channel, got shape {shape}")
    if scores.isnan().any():
        raise ValueError(f"scores of layer '{layer}' must be numbers, got nan; check weights and data")
    return scores.detach().cpu().double()[channels].sum(1)


def _ratio_per_group(
    graph: ChannelGraph, groups: list[ChannelGroup], ratio: float | Mapping[str, float]
) -> list[float]:
    if not isinstance(ratio, Mapping):
        return [check_fraction("ratio", ratio)] * len(groups)
    for layer, value in ratio.items():
        check_fraction("ratio", value, layer=layer)
        if layer not in graph.producers:
            layers = ", ".join(graph.producers)
            raise ValueError(f"ratio names no such layer: '{layer}'; the layers are {layers}")
        if not any(layer in group.producers for group in groups):
            reason = graph.frozen.get(layer, "none of its channels is scored")
            raise ValueError(f"layer '{layer}' cannot be pruned: {reason}")
    ratios = []
    for group in groups:
        named = {layer: ratio[layer] for layer in group.producers if layer in ratio}
        if len(set(named.values())) > 1:
            raise ValueError(f"coupled layers must have the same ratio, got {named}")
        ratios.append(next(iter(named.values()), 0.0))
    return ratios


def _count_globally(scores: list[Tensor], ratio: float, min_channels: int) -> list[int]:
    """How many units of each group are among the lowest floor(ratio * all), the best of each group
    being safe."""
    total = sum(len(own) for own in scores)
    candidates = [own.sort().values[: max(0, len(own) - min_channels)] for own in scores]
    owner = torch.cat([torch.full((len(own),), number) for number, own in enumerate(candidates)])
    lowest = torch.cat(candidates).argsort(stable=True)[: math.floor(ratio * total + 1e-9)]
    return torch.bincount(owner[lowest], minlength=len(scores)).tolist()


def _allowed(group: ChannelGroup, count: int, min_channels: int, round_to: int) -> int:
    """Lower ``count`` until enough channels stay, and a multiple of ``round_to``, in the group's layers."""
    width = next(iter(group.producers.values())).shape[1]  # channels per unit
    step = round_to // math.gcd(round_to, width)
    left = max(len(group) - count, math.ceil(min_channels / width))
    return max(0, len(group) - math.ceil(left / step) * step)
