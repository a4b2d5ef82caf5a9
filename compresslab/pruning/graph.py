"""The channel graph: which channels of a network go together, who reads them, and which cannot go.

Removing a filter is easy in a chain of layers: the next layer loses one input column. In a real network
the same channel is added to a shortcut, concatenated, filtered depthwise, flattened. ``trace_channels``
finds out what hangs together; ``channels`` does the removing.

    >>> class Residual(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.stem, self.branch = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
    ...         self.head = nn.Conv2d(8, 10, 1)
    ...     def forward(self, x):
    ...         x = self.stem(x).relu()
    ...         return self.head(x + self.branch(x)).mean((2, 3))
    >>> print(trace_channels(Residual(), torch.zeros(1, 3, 4, 4)))
    group 0: 8 units | written by stem, branch
        read by branch, head
    whole: head (output of the network)
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .channel_tracing import ChannelInterpreter, function_name, run_on_identities


@dataclass(frozen=True)
class ChannelGroup:
    """Units that are exchangeable: they live in the same layers, so they compete with one another.

    Row ``u`` of each table lists the channels that go when unit ``u`` goes. In a plain chain that is
    one output channel, one channel of the batch norm, one input column; after flattening it is one
    column per position; in a grouped convolution all channels of one group.

    Attributes:
        units: (n,) numbers of the units in the graph.
        producers: layer -> (n, k) output channels.
        consumers: layer -> (n, k) input columns.
        norms: layer -> (n, k) channels.
    """

    units: Tensor
    producers: dict[str, Tensor]
    consumers: dict[str, Tensor]
    norms: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.units)

    def __str__(self) -> str:
        norms = f" | normalized by {', '.join(self.norms)}" if self.norms else ""
        readers = ", ".join(self.consumers) or "nobody"
        return f"{len(self)} units | written by {', '.join(self.producers)}{norms}\n    read by {readers}"


@dataclass(frozen=True)
class ChannelGraph:
    """Result of :func:`trace_channels`; ``print`` it.

    Attributes:
        groups: what can be pruned.
        frozen: layer -> why (some of) its output channels cannot go.
        producers: layer -> (O,) the unit of every output channel.
        consumers: layer -> (I,) the unit of every input column.
        norms: layer -> (C,) the unit of every channel.
        frozen_units: unit -> why it cannot go.
        num_units: how many units there are, frozen ones included; units are numbered from 0.
        grouped: convolutions with groups, depthwise ones among them.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: dict[str, str]
    producers: dict[str, Tensor]
    consumers: dict[str, Tensor]
    norms: dict[str, Tensor]
    frozen_units: dict[int, str]
    num_units: int
    grouped: frozenset[str]

    def __str__(self) -> str:
        lines = [f"group {number}: {group}" for number, group in enumerate(self.groups)]
        return "\n".join(lines + [f"whole: {layer} ({reason})" for layer, reason in self.frozen.items()])


def trace_channels(
    model: nn.Module, example_input: Tensor | tuple, *, keep: Collection[str] = ()
) -> ChannelGraph:
    """Find out which channels of a network can be removed, and what goes with them.

    Handled: residual additions and other shortcuts, concatenation, chunk and channel shuffle, depthwise
    and grouped convolutions (whole groups), batch, instance and group norm, squeeze-and-excitation,
    flattening, pooling, permutation, transposed convolutions, layers that are called twice, auxiliary
    heads. Attention and layer norm need all their channels; what they touch is left whole and reported.

    Args:
        model: any network that ``torch.fx`` can trace; neither changed nor returned.
        example_input: an input (N, ...), or a tuple of inputs; only its shape matters.
        keep: names of what to leave whole. A linear, convolutional or norm layer keeps all its output
            channels. Any other module is not looked into: it keeps its inputs and outputs. The name of
            a function (``"fft"``) stands for all its calls.

    Raises:
        ValueError: the network cannot be traced or does not accept the example; a layer or function is
            unknown; a name in ``keep`` is. The message says which, and what to pass as ``keep``.

    Differs: most tools write one rule per operator over a graph of layers (G. Fang, X. Ma, M. Song,
        M. Bi Mi, X. Wang, "DepGraph: Towards Any Structural Pruning", CVPR 2023); running the network on
        channel identities needs rules for few operators.
    """
    if isinstance(keep, str):
        raise ValueError(f"keep must be a collection of names, got the string {keep!r}; write [{keep!r}]")
    run = run_on_identities(model, example_input, keep)
    _freeze_kept(run, model, keep)
    _freeze_tied(run, model)
    of, frozen_units = run.ids.units()
    tables = tuple(
        {layer: of[ids.as_subclass(Tensor)] for layer, ids in table.items()}
        for table in (run.producers, run.consumers, run.norms)
    )
    num_units = int(of.max()) + 1
    groups = _group(tables, num_units, frozen_units)
    grouped = frozenset(layer for layer in run.producers if getattr(run.fetch_attr(layer), "groups", 1) > 1)
    frozen = _explain(tables[0], frozen_units, groups)
    return ChannelGraph(groups, frozen, *tables, frozen_units, num_units, grouped)


def _freeze_kept(run: ChannelInterpreter, model: nn.Module, keep: Collection[str]) -> None:
    known = {name for name, _ in model.named_modules(remove_duplicate=False)}
    known |= {function_name(node.target) for node in run.graph.nodes}
    for name in keep:
        for table in (run.producers, run.norms):
            if name in table:
                run.ids.freeze(table[name], "named in keep")
        if name not in known:
            raise ValueError(f"keep names '{name}', no module and no function of {type(model).__name__}")


def _freeze_tied(run: ChannelInterpreter, model: nn.Module) -> None:
    """A weight that two layers share must fit both: keep it whole."""
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            first = owner.setdefault(id(parameter), name)
            for layer, other in ((name, first), (first, name)) if first != name else ():
                for table in (run.producers, run.consumers, run.norms):
                    if layer in table:
                        run.ids.freeze(table[layer], f"shares a weight with '{other}'")


def _group(
    tables: tuple[dict[str, Tensor], ...], num_units: int, frozen: dict[int, str]
) -> tuple[ChannelGroup, ...]:
    """Collect the free units that occur in the same layers, equally often in each."""
    places: list[tuple[int, str]] = []  # (which table, layer), once for each number of occurrences
    lives_in: list[list[int]] = [[] for _ in range(num_units)]  # unit -> places
    for role, table in enumerate(tables):
        for layer, units in table.items():
            members, counts = units.unique(return_counts=True)
            for count in counts.unique():
                for unit in members[counts == count].tolist():
                    lives_in[unit].append(len(places))
                places.append((role, layer))
    alike: dict[tuple[int, ...], list[int]] = {}
    for unit, own in enumerate(lives_in):
        if unit not in frozen:
            alike.setdefault(tuple(own), []).append(unit)
    return tuple(
        _make_group(tables, [places[place] for place in own], torch.tensor(units))
        for own, units in alike.items()
        if len(units) > 1  # one alone could only go with the whole layer
    )


def _make_group(
    tables: tuple[dict[str, Tensor], ...], places: list[tuple[int, str]], units: Tensor
) -> ChannelGroup:
    found: list[dict[str, Tensor]] = [{} for _ in tables]
    for role, layer in places:
        found[role][layer] = _positions(tables[role][layer], units)
    return ChannelGroup(units, *found)


def _positions(units: Tensor, wanted: Tensor) -> Tensor:
    """Where each of the sorted ``wanted`` (n,) occurs in ``units`` (C,): (n, k)."""
    rank = torch.searchsorted(wanted, units).clamp(max=len(wanted) - 1)
    place = (wanted[rank] == units).nonzero().squeeze(1)
    return place[rank[place].argsort(stable=True)].view(len(wanted), -1)


def _explain(
    producers: dict[str, Tensor], frozen: dict[int, str], groups: tuple[ChannelGroup, ...]
) -> dict[str, str]:
    """layer -> why (some of) its channels cannot go."""
    free = {unit for group in groups for unit in group.units.tolist()}
    reasons = {}
    for layer, units in producers.items():
        bound = [unit for unit in units.tolist() if unit not in free]
        if bound:
            reason = frozen.get(bound[0], "its channels can only go all together")
            share = "" if len(bound) == len(units) else f"{len(bound)} of {len(units)} channels: "
            reasons[layer] = share + reason
    return reasons
