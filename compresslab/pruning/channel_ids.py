"""Channel identities: which channels of a network can only be removed together, and which not at all.

Give every output channel of every layer a number of its own, its **identity**, and let the network
compute with identities instead of activations (``channel_tracing`` does): each element then says which
channel it came from. Where two identities meet, in a residual addition for instance, they are
**coupled**: whoever goes, goes with the other. Channels that something needs complete, such as the
network's output, are **frozen**.

A **unit** is a set of coupled channels, the smallest thing that can be removed: a connected component
of the couplings.
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.fx.node import map_aggregate


class Ids(Tensor):
    """An int64 tensor in the shape of an activation; each element is the identity of its channel."""


def ids_in(values: Any) -> list[Ids]:
    """All identity tensors in nested arguments, in order."""
    found: list[Ids] = []
    map_aggregate(values, lambda value: found.append(value) if isinstance(value, Ids) else None)
    return found


def repeats(x: Tensor, axis: int) -> bool:
    """Whether all slices of ``x`` along ``axis`` are equal: no channels are told apart along it."""
    return x.shape[axis] <= 1 or x.stride(axis) == 0 or bool((x == x.narrow(axis, 0, 1)).all())


def thin(x: Tensor, but: int | None = None) -> Tensor:
    """Cut every expanded axis (stride 0) except ``but`` to length 1: the same identities, fewer elements."""
    for axis, stride in enumerate(x.stride()):
        if stride == 0 and axis != but and x.shape[axis] > 1:
            x = x.narrow(axis, 0, 1)
    return x


class Identities:
    """Issues identities and notes which of them are coupled and which are frozen.

    Example:
        >>> ids = Identities()
        >>> left, right, head = ids.new(3), ids.new(3), ids.new(1)
        >>> ids.couple(left, right)               # left + right: a residual addition
        >>> ids.freeze(head, "output of the network")
        >>> units, frozen = ids.units()
        >>> units.tolist(), frozen
        ([0, 1, 2, 0, 1, 2, 3], {3: 'output of the network'})
    """

    def __init__(self) -> None:
        self.count = 0
        self.coupled: list[tuple[Tensor, Tensor]] = []
        self.frozen: list[tuple[Tensor, str]] = []

    def new(self, n: int) -> Ids:
        """Issue ``n`` identities never used before, shape (n,)."""
        self.count += n
        return torch.arange(self.count - n, self.count).as_subclass(Ids)

    def constant(self, shape: torch.Size, reason: str) -> Ids:
        """An activation whose channels are nobody's to remove: one frozen identity everywhere."""
        identity = self.new(1)
        self.freeze(identity, reason)
        return identity.expand(shape)

    def couple(self, a: Tensor, b: Tensor) -> None:
        """Note that channels in the same place of ``a`` and ``b`` (broadcast) can only go together."""
        a, b = torch.broadcast_tensors(a, b)
        for axis in range(a.dim()):
            if a.stride(axis) == b.stride(axis) == 0 and a.shape[axis] > 1:
                a, b = a.narrow(axis, 0, 1), b.narrow(axis, 0, 1)
        self.coupled.append((a.flatten(), b.flatten()))

    def freeze(self, x: Tensor, reason: str) -> None:
        """Note that no channel in ``x`` may be removed."""
        self.frozen.append((thin(x).flatten(), reason))

    def freeze_across(self, x: Tensor, axis: int, reason: str) -> None:
        """Freeze ``x`` if channels are told apart along ``axis``."""
        if not repeats(x, axis):
            self.freeze(x, reason)

    def channels(self, x: Tensor, axis: int) -> Ids:
        """One identity per index along ``axis``, (C,); all that lies at one index is one channel: coupled."""
        axis %= x.dim()
        lines = thin(x, but=axis).movedim(axis, 0).flatten(1)
        if lines.shape[1] > 1:
            self.couple(lines, lines[:, :1])
        return lines[:, 0]

    def units(self) -> tuple[Tensor, dict[int, str]]:
        """Number the units.

        Returns:
            The unit of every identity, shape (count,), and unit -> first reason for the frozen ones.
        """
        none = np.empty((2, 0), dtype=np.int64)
        pairs = np.concatenate([none, *(np.stack(pair) for pair in self.coupled)], axis=1)
        links = coo_array((np.ones(pairs.shape[1], dtype=bool), tuple(pairs)), shape=(self.count, self.count))
        units = torch.from_numpy(connected_components(links, directed=False)[1].astype(np.int64))
        frozen: dict[int, str] = {}
        for ids, reason in self.frozen:
            for unit in units[ids.as_subclass(Tensor)].unique().tolist():
                frozen.setdefault(unit, reason)
        return units, frozen
