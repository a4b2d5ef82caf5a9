"""Does a network fit a microcontroller? Its weights go to the flash, its activations to the RAM.

    flash   what the file holds: codes, scales, tables; it stays when the power goes off, and cannot be written
            while the network runs
    RAM     what lives at once while one image runs: the arena of `plan_arena`

Both have to fit, each for itself. Pruning single weights or shorter codes help the flash only; narrower layers
help both; another order of the operations, or a smaller image, helps the RAM only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from compresslab.core.errors import check_int
from compresslab.core.macs import count_macs
from compresslab.core.store import save
from compresslab.deploy.schedule import best_order, graph_of, lifetimes, peak_bytes, plan_arena

WIDTH = 100  # sets of operations kept at a time while the order is sought


class Budget(NamedTuple):
    """What a device leaves for a network, in bytes; the program needs some of both as well."""

    flash_bytes: int
    ram_bytes: int


class Fit(NamedTuple):
    """What a network needs, in bytes, beside what there is.

    Attributes:
        flash_bytes: of the file.
        ram_bytes: of the arena, in the best order that was found.
        own_order_bytes: the peak in the order of the network's own code.
        macs: multiply-accumulates per image.
        budget: what the device has.
        order: of the operations; the arena holds for this one.
    """

    flash_bytes: int
    ram_bytes: int
    own_order_bytes: int
    macs: int
    budget: Budget
    order: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Both fit."""
        return self.flash_bytes <= self.budget.flash_bytes and self.ram_bytes <= self.budget.ram_bytes

    def __str__(self) -> str:
        flash = f"flash {self.flash_bytes:,} of {self.budget.flash_bytes:,} bytes"
        return f"{flash}, RAM {self.ram_bytes:,} of {self.budget.ram_bytes:,} bytes: {'fits' if self.fits else 'too large'}"


def fit(model: nn.Module, input_shape: Sequence[int], budget: Budget, *, bits: int = 8, entropy: bool = False) -> Fit:
    """What a network needs of flash and RAM, and whether a device has it.

        flash = bytes of the file that `core.save` writes
        RAM = bytes of the arena, each activation in so many bits

    Args:
        model: in the form in which it shall be stored, such as coded by `core.encode`.
        input_shape: of one image, such as (1, 28, 28).
        budget: bytes of flash and RAM that are free for the network.
        bits: per activation, 1 to 32.
        entropy: the file's codes are entropy-coded: then they need to be decoded somewhere, see "Differs".
    Raises:
        ValueError: a budget below 0, or as `graph_of`.
    Source: Lin, Chen, Lin, Gan, Han, MCUNet: tiny deep learning on IoT devices, 2020, section 3, flash and RAM
        as the two limits.
    Differs: the code of the engine, its buffers inside an operation, and the decoded weights of a layer whose
        code the device cannot read in place are not counted.
    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> report = fit(network, (1, 8, 8), Budget(2000, 100))
        >>> report.ram_bytes, report.fits  # 64 + 10 bytes of activations; 650 floats are more than 2,000 bytes
        (74, False)
    """
    for name, size in budget._asdict().items():
        check_int(name, size, 0)
    graph = graph_of(model, input_shape, bits=bits)
    own = [operation.name for operation in graph]
    order = min(own, best_order(graph, width=WIDTH), key=lambda order: peak_bytes(graph, order))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save(model, path, entropy=entropy)
        flash = path.stat().st_size
    arena = plan_arena(lifetimes(graph, order)).size
    macs = count_macs(model, tuple(input_shape)).total
    return Fit(flash, arena, peak_bytes(graph), macs, Budget(*budget), tuple(order))
