r"""Neuron merging: instead of dropping a neuron, let a similar one do its work.

Two neurons with the same incoming weights and bias fire alike. One can go if the other takes over its
outgoing weights:

.. math:: a_i\,h(w^\top x)+a_j\,h(w^\top x)=(a_i+a_j)\,h(w^\top x)

No data are needed, and for equal neurons nothing is lost.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from compresslab.core.errors import check_fraction, check_int
from compresslab.core.modules import bake

from .channel_tracing import TRANSPOSED
from .channels import remove_channels
from .criteria import filters
from .graph import ChannelGraph, ChannelGroup, trace_channels

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def merge_similar(incoming: Tensor, outgoing: Tensor, count: int) -> tuple[Tensor, Tensor]:
    r"""Merge ``count`` neurons into others, the cheapest first.

    .. math:: s_{ij}=\langle a_j^2\rangle\,\|w_i-w_j\|_2^2,\qquad a_i\leftarrow a_i+a_j

    is paid when ``j`` goes and ``i`` takes over: neurons that are alike, or that nobody listens to,
    cost little.

    Args:
        incoming: :math:`w` (n, d), one row per neuron, bias included.
        outgoing: :math:`a` (n, m), one row per neuron.
        count: how many neurons go, 0 to n - 1.

    Returns:
        kept: (n - count,) the neurons that stay, ascending.
        outgoing: (n - count, m) their new outgoing weights.

    Source: S. Srinivas, R. V. Babu, "Data-free Parameter Pruning for Deep Neural Networks", BMVC 2015,
        section 3.

    Example:
        >>> incoming = torch.tensor([[1.0, 2.0], [5.0, 5.0], [1.0, 2.0]])   # 0 and 2 are equal
        >>> merge_similar(incoming, torch.tensor([[1.0], [2.0], [3.0]]), 1)
        (tensor([0, 1]), tensor([[4.],
                [2.]]))
    """
    check_int("count", count, 0, len(incoming) - 1)
    outgoing = outgoing.clone()
    rows = incoming.double()
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    distance.fill_diagonal_(torch.inf)
    alive = torch.ones(len(rows), dtype=torch.bool)
    for _ in range(count):
        saliency = distance * outgoing.double().square().mean(1)  # (i, j)
        saliency = saliency.nan_to_num(nan=torch.inf)  # a silent neuron and itself: 0 * inf
        i, j = divmod(int(saliency.argmin()), len(rows))
        outgoing[i] += outgoing[j]
        alive[j] = False
        distance[j], distance[:, j] = torch.inf, torch.inf
        outgoing[j] = 1.0  # out of the game
    kept = alive.nonzero().squeeze(1)
    return kept, outgoing[kept]


def merge_neurons(
    model: nn.Module, example_input: Tensor | tuple, ratio: float = 0.5, *, keep: Collection[str] = ()
) -> nn.Module:
    """Copy of ``model`` in which similar neurons (or filters) of a layer are merged.

    Args:
        model: any network that ``torch.fx`` can trace; not changed.
        example_input: an input (N, ...); only its shape matters.
        ratio: fraction in [0, 1] of the neurons of each layer to merge away; one always stays.
        keep: names of layers to leave whole.

    Returns:
        The smaller network. Merged are layers with one reader and nothing between but a batch norm and
        functions that treat all channels alike; all others are left whole.

    Raises:
        ValueError: no such layer; else as ``trace_channels``.

    Source: Srinivas and Babu, BMVC 2015.
    Differs: convolutions and batch norm (folded into the incoming weights for the comparison) are
        covered, too. The paper reads off from the curve of saliencies how many to merge; here the share
        is given.
    """
    check_fraction("ratio", ratio)
    graph, merged = trace_channels(model, example_input, keep=keep), bake(model)
    groups = [group for group in graph.groups if _can_merge(merged, graph, group)]
    if not groups:
        network = type(model).__name__
        raise ValueError(f"nothing to merge: no layer of {network} has one reader and nothing in between")
    removed = {}
    for group in groups:
        (layer, rows), (reader, columns) = *group.producers.items(), *group.consumers.items()
        norm = merged.get_submodule(next(iter(group.norms))) if group.norms else None
        incoming = incoming_weights(merged.get_submodule(layer), norm).cpu()[rows[:, 0]]
        weight = merged.get_submodule(reader).weight.data  # (O, I, ...)
        outgoing = weight.cpu()[:, columns].movedim(1, 0)  # (n, O, k, ...)
        count = min(int(ratio * len(group) + 1e-9), len(group) - 1)
        kept, new = merge_similar(incoming, outgoing.flatten(1), count)
        new = new.view(len(kept), *outgoing.shape[1:]).movedim(0, 1)
        weight[:, columns[kept]] = new.to(weight.device)
        removed[layer] = sorted(set(rows[:, 0].tolist()) - set(rows[kept, 0].tolist()))
    return remove_channels(merged, graph, removed)


def incoming_weights(layer: nn.Module, norm: nn.Module | None) -> Tensor:
    r"""What makes each neuron, one row each: weights and bias, batch norm folded in, (O, d + 1).

    .. math:: \hat w=\frac{\gamma}{\sqrt{v+\epsilon}}w,\qquad
        \hat b=\frac{\gamma}{\sqrt{v+\epsilon}}(b-\mu)+\beta
    """
    rows = filters(layer)
    bias = rows.new_zeros(len(rows)) if layer.bias is None else layer.bias.detach()
    if norm is not None:
        scale = (norm.running_var + norm.eps).rsqrt() * (1.0 if norm.weight is None else norm.weight.detach())
        shift = 0.0 if norm.bias is None else norm.bias.detach()
        rows, bias = rows * scale[:, None], (bias - norm.running_mean) * scale + shift
    return torch.cat([rows, bias[:, None]], 1)


def _can_merge(model: nn.Module, graph: ChannelGraph, group: ChannelGroup) -> bool:
    names = [*group.producers, *group.consumers]
    layers = [model.get_submodule(name) for name in names]
    norms = [model.get_submodule(norm) for norm in group.norms]
    return (
        len(group.producers) == len(group.consumers) == 1
        and graph.grouped.isdisjoint(names)
        and not any(isinstance(layer, TRANSPOSED) for layer in layers)
        and len(norms) <= 1
        and all(isinstance(norm, _BATCH_NORMS) and norm.track_running_stats for norm in norms)
        and all(len(norm.running_mean) == len(group) for norm in norms)
    )
