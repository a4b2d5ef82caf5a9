"""Remove channels for good: a network with smaller layers, that runs and trains like any other.

    >>> convolution, head = nn.Conv2d(3, 8, 3), nn.Linear(8 * 4, 10)
    >>> model = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), head)
    >>> small = prune_channels(model, torch.zeros(1, 3, 4, 4), 0.5)
    >>> small[0].out_channels, small[1].num_features, small[4].in_features
    (4, 4, 16)

What a mask cannot do, this does: fewer bytes, fewer operations, less time. The price is coarseness. A
filter goes whole, and with it everything that hangs on it (see ``graph``).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.core.modules import bake

from .channel_choice import Scores, choose_channels
from .channel_tracing import TRANSPOSED
from .criteria import score_channels
from .graph import ChannelGraph, trace_channels


def prune_channels(
    model: nn.Module,
    example_input: Tensor | tuple,
    ratio: float | Mapping[str, float] = 0.5,
    *,
    importance: str | Scores | Callable[[nn.Module], Scores] = "l1",
    keep: Collection[str] = (),
    **choice: Any,
) -> nn.Module:
    """Copy of ``model`` with the least important channels removed.

    Args:
        model: any network that ``torch.fx`` can trace; not changed. Masks are baked in.
        example_input: an input (N, ...) or a tuple of inputs; only its shape matters.
        ratio: fraction in [0, 1] of the channels of every group to remove, or layer -> fraction.
        importance: ``"l1"``, ``"l2"``, ``"fpgm"``, ``"bn_scale"``, ``"random"``, or scores (layer ->
            (O,)), or a function from the model to scores, such as a ``partial`` of
            ``criteria.taylor_importance``.
        keep: names of layers to leave whole; see ``trace_channels``.
        **choice: how to choose: ``scope``, ``normalize``, ``min_channels`` and ``round_to`` of
            ``choose_channels``.

    Returns:
        The smaller network. Layers that cannot lose channels keep all: ``print(trace_channels(model,
        example_input))`` lists them with reasons.

    Raises:
        ValueError: see ``trace_channels`` and ``choose_channels``; an unknown importance.

    Source: H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf, "Pruning Filters for Efficient
        ConvNets", ICLR 2017, section 3, with ``importance="l1"``.
    Differs: the paper lets the shortcut's filters decide for a residual stage; here the scores of all coupled
        filters are added.
    """
    graph = trace_channels(model, example_input, keep=keep)
    removed = choose_channels(graph, score_channels(model, importance), ratio, **choice)
    return remove_channels(model, graph, removed)


def remove_channels(model: nn.Module, graph: ChannelGraph, removed: Mapping[str, Sequence[int]]) -> nn.Module:
    """Copy of ``model`` without the given output channels and all that is coupled to them.

    Args:
        model: the network that ``graph`` was traced on; not changed.
        graph: from ``trace_channels``.
        removed: layer -> output channels. Naming a channel once is enough, in whichever of its coupled
            layers; in a grouped convolution its whole group goes.

    Returns:
        The smaller network, with the same types of layers.

    Raises:
        TypeError: an index is not a whole number.
        ValueError: an unknown layer; an index out of range, repeated, or of a channel that cannot go;
            the last channels of a layer; a graph of another network.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> remove_channels(model, trace_channels(model, torch.zeros(1, 4)), {"0": [1]})
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=2, bias=True)
        )
    """
    stays = ~units_gone(graph, removed)
    small = bake(model)
    layers = _layers_of(small, graph)
    for name in graph.producers:
        _cut_weighted_(layers[name], stays[graph.producers[name]], stays[graph.consumers[name]])
    for name, units in graph.norms.items():
        _cut_norm_(layers[name], stays[units])
    return small


def masked_twin(model: nn.Module, graph: ChannelGraph, removed: Mapping[str, Sequence[int]]) -> nn.Module:
    """Copy of ``model`` at full size that computes what the pruned network computes.

    The channels are there, but every layer that reads them has zeros in those input columns. Zeroing
    the filter itself would not do: batch norm turns a channel of zeros into a constant,
    ``beta - gamma * mean / std``, and ReLU lets a positive one through.

    Args, Raises: as :func:`remove_channels`.
    """
    gone = units_gone(graph, removed)
    twin = bake(model)
    layers = _layers_of(twin, graph)
    for name, units in graph.consumers.items():
        layer = layers[name]
        if name not in graph.grouped:  # a grouped convolution loses whole groups: nobody reads its output
            columns = gone[units].nonzero().squeeze(1).to(layer.weight.device)
            with torch.no_grad():
                layer.weight.index_fill_(0 if isinstance(layer, TRANSPOSED) else 1, columns, 0.0)
    return twin


def units_gone(graph: ChannelGraph, removed: Mapping[str, Sequence[int]]) -> Tensor:
    """Which units go if these channels do, after a check of the request: bool (number of units,).

    Raises: as :func:`remove_channels`.
    """
    gone = torch.zeros(graph.num_units, dtype=torch.bool)
    for layer, channels in removed.items():
        if layer not in graph.producers:
            raise ValueError(f"no such layer: '{layer}'; the layers are {', '.join(graph.producers)}")
        units = graph.producers[layer]
        channels = _check_indices(layer, channels, len(units))
        for channel, unit in zip(channels, units[channels].tolist(), strict=True):
            if unit in graph.frozen_units:
                reason = graph.frozen_units[unit]
                raise ValueError(f"channel {channel} of layer '{layer}' cannot go: {reason}")
        gone[units[channels]] = True
    for table in (graph.producers, graph.consumers):
        for layer, units in table.items():
            if gone[units].all():
                n = len(units)
                raise ValueError(f"layer '{layer}' would lose all its {n} channels; at least one must stay")
    return gone


def _check_indices(layer: str, channels: Sequence[int], n: int) -> list[int]:
    channels = channels.tolist() if isinstance(channels, Tensor) else list(channels)
    for channel in channels:
        if isinstance(channel, bool) or not hasattr(channel, "__index__"):
            raise TypeError(f"channel indices must be whole numbers, got {channel!r} in layer '{layer}'")
        if not 0 <= channel < n:
            raise ValueError(f"channel must be in 0..{n - 1}, got {channel} in layer '{layer}'")
    if len(set(channels)) < len(channels):
        twice = next(channel for channel in channels if channels.count(channel) > 1)
        raise ValueError(f"channel {twice} is given twice in layer '{layer}'")
    return [int(channel) for channel in channels]


def _layers_of(model: nn.Module, graph: ChannelGraph) -> dict[str, nn.Module]:
    """The model's modules by name, after a check that the graph is this model's."""
    layers = dict(model.named_modules())
    for name, units in graph.producers.items():
        layer = layers.get(name)
        if getattr(layer, "out_features", getattr(layer, "out_channels", None)) != len(units):
            found = f"it has a layer '{name}' with {len(units)} output channels"
            raise ValueError(f"the graph is of another network: {found}")
    return layers


def _cut_weighted_(layer: nn.Module, rows: Tensor, columns: Tensor) -> None:
    """Keep the output channels ``rows`` (O,) and the input columns ``columns`` (I,) of a layer, in place."""
    if rows.all() and columns.all():
        return
    row_axis, column_axis = (1, 0) if isinstance(layer, TRANSPOSED) else (0, 1)
    if getattr(layer, "groups", 1) > 1:  # whole groups go: only the axis that counts all groups gets shorter
        layer.groups = layer.groups * int(rows.sum()) // len(rows)
        _select_(layer, "weight", 0, columns if isinstance(layer, TRANSPOSED) else rows)
    else:
        _select_(layer, "weight", row_axis, rows)
        _select_(layer, "weight", column_axis, columns)
    _select_(layer, "bias", 0, rows)
    kind = "features" if isinstance(layer, nn.Linear) else "channels"
    setattr(layer, f"in_{kind}", int(columns.sum()))
    setattr(layer, f"out_{kind}", int(rows.sum()))


def _cut_norm_(layer: nn.Module, stay: Tensor) -> None:
    """Keep the channels ``stay`` (C,) of a layer whose tensors have one entry per channel, in place."""
    if stay.all():
        return
    for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        if tensor.dim() == 1:  # not the counter of batches
            _select_(layer, name, 0, stay)
    if isinstance(layer, nn.GroupNorm):
        layer.num_groups = layer.num_groups * int(stay.sum()) // len(stay)
    size = next(name for name in ("num_features", "num_channels", "num_parameters") if hasattr(layer, name))
    setattr(layer, size, int(stay.sum()))


def _select_(layer: nn.Module, name: str, axis: int, stay: Tensor) -> None:
    """Shorten one parameter or buffer of a layer; None stays None."""
    old = getattr(layer, name)
    if old is None or stay.all():
        return
    new = old.detach().index_select(axis, stay.nonzero().squeeze(1).to(old.device))
    setattr(layer, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
