"""The one rule of size: a model is as big as the distinct storages in its ``state_dict``."""

from collections import defaultdict
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList

from compresslab.core.codes import WeightCode
from compresslab.core.modules import Mask

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
_INNER = (WeightCode, Mask, ParametrizationList, nn.ModuleDict)  # what is listed under the layer around it


def storage_bits(model: nn.Module) -> int:
    """The bits of a model: 8 times the bytes of the distinct storages in its ``state_dict``.

    Tensors that share a storage (tied weights, shared layers, views) count once. A mask counts, and so does a
    weight that a mask hides: simulated compression saves nothing.

    Example:
        >>> storage_bits(nn.Linear(4, 2))  # (4 * 2 + 2) float32
        320
    """
    return storage_report(model).total_bits


@dataclass(frozen=True)
class StorageRow:
    """One stored array: the layer it belongs to, its role there, its name in the ``state_dict``, its size.

    ``role`` is ``weight``, ``bias``, ``norm`` (weights and statistics of a normalisation layer), ``values``,
    ``indices``, ``scales``, ``codebook``, ``mask``, ``positions`` (gaps), or else the array's own name.
    """

    layer: str
    role: str
    name: str
    bits: int


@dataclass(frozen=True)
class StorageReport:
    """The bits of a model, array by array; ``print`` it for a table of layers by roles, in bytes."""

    rows: tuple[StorageRow, ...]

    @property
    def total_bits(self) -> int:
        return sum(row.bits for row in self.rows)

    @property
    def by_layer(self) -> dict[str, int]:
        """Bits per layer, in the model's order."""
        return self._sum_by("layer")

    @property
    def by_role(self) -> dict[str, int]:
        """Bits per role, in order of appearance."""
        return self._sum_by("role")

    def _sum_by(self, key: str) -> dict[str, int]:
        sums: dict[str, int] = defaultdict(int)
        for row in self.rows:
            sums[getattr(row, key)] += row.bits
        return dict(sums)

    def __str__(self) -> str:
        cells: dict[tuple[str, str], int] = defaultdict(int)
        for row in self.rows:
            cells[row.layer, row.role] += row.bits // 8
        roles, layers = list(self.by_role), list(self.by_layer)
        lines = [["bytes", *roles, "total"]]
        for layer in layers:
            sizes = [cells[layer, role] for role in roles]
            lines.append(
                [layer or "(model)", *(f"{size:,}" if size else "" for size in sizes), f"{sum(sizes):,}"]
            )
        totals = [*self.by_role.values(), self.total_bits]
        lines.append(["total", *(f"{bits // 8:,}" for bits in totals)])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        return "\n".join(
            line[0].ljust(widths[0])
            + "".join("  " + cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
            for line in lines
        )


def storage_report(model: nn.Module) -> StorageReport:
    """List what a model stores, by layer and by role; the bits add up to ``storage_bits``.

    A storage is listed where it is met first. Arrays of codes are listed under the layer whose weight they
    store.

    Example:
        >>> print(storage_report(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))))
        bytes  weight  bias  norm  total
        0          32     8            40
        1                      40      40
        total      32     8    40      80
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    seen: set[tuple[str, int]] = set()
    rows = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        storage = tensor.untyped_storage()
        place = (str(tensor.device), storage.data_ptr())
        if place in seen or storage.nbytes() == 0:
            continue
        seen.add(place)
        owner, _, array = name.rpartition(".")
        rows.append(
            StorageRow(_layer_of(owner, modules), _role(modules[owner], array), name, 8 * storage.nbytes())
        )
    return StorageReport(tuple(rows))


def _layer_of(path: str, modules: dict[str, nn.Module]) -> str:
    """The layer a module belongs to: what is neither a code nor a parametrization, upwards from ``path``."""
    while path and isinstance(modules[path], _INNER):
        path = path.rpartition(".")[0]
    return path


def _role(owner: nn.Module, array: str) -> str:
    """What an array is to the module that holds it."""
    if isinstance(owner, WeightCode):
        return owner.roles.get(array, array)
    if isinstance(owner, ParametrizationList):  # holds the unmasked weight as "original"
        return "weight"
    if isinstance(owner, _NORMS):
        return "norm"
    return next((role for role in ("weight", "bias") if role in array), array)
