"""Where the bytes of a file are: what each part of a compressed network costs, once all is written.

Ratios do not multiply, because pruning pays with positions, a code book with its values, and every method
leaves biases and a header behind. A ledger of the real file shows which of them is the next thing worth
compressing.
"""

import json
import os
from pathlib import Path

from torch import nn

from compresslab.core.size import storage_report
from compresslab.core.store import header_bytes, load

PARTS = ("values", "codebooks", "index", "biases", "norm", "other", "header")

# what `storage_report` calls an array -> the part it is counted under; other names are "other"
_PART_OF_ROLE = {
    "weight": "values",
    "values": "values",
    "indices": "values",
    "codebook": "codebooks",
    "scales": "codebooks",
    "positions": "index",
    "mask": "index",
    "bias": "biases",
    "norm": "norm",
}


def file_ledger(path: str | os.PathLike[str], skeleton: nn.Module | None = None) -> dict[str, int]:
    """Share out the bytes of a saved network among its parts; they add up to the size of the file.

    Args:
        path: a file that ``core.save`` wrote; an array that is Huffman-coded in it counts as it is coded
            there, with its code lengths.
        skeleton: as for ``core.load``, for a file that does not say which network it holds.

    Returns:
        bytes under each name in ``PARTS``, and their sum, the size of the file, under ``"total"``:

        - ``values``: the weights themselves, or the integers that stand for them: grid points, code-book
          indices;
        - ``codebooks``: shared values and scales;
        - ``index``: where the weights stand: gaps, masks, positions;
        - ``biases``: of all layers but normalization;
        - ``norm``: weights, biases and statistics of normalization;
        - ``other``: whatever has another name;
        - ``header``: names, shapes, structure, checksum.

    Raises:
        CompressedFileError: the file is damaged, or no file of compresslab, or needs a skeleton.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> from compresslab.core import save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = save(nn.Linear(4, 2), Path(folder) / "net.safetensors")
        ...     ledger = file_ledger(Path(folder) / "net.safetensors", nn.Linear(4, 2))
        >>> ledger["values"], ledger["biases"], ledger["total"] == size
        (32, 8, True)
    """
    roles = {row.name: row.role for row in storage_report(load(path, skeleton)).rows}
    ledger = dict.fromkeys(PARTS, 0)
    for name, size in _array_bytes(path).items():
        ledger[_PART_OF_ROLE.get(roles.get(name), "other")] += size
    ledger["header"] = header_bytes(path)
    return ledger | {"total": sum(ledger.values())}


def _array_bytes(path: str | os.PathLike[str]) -> dict[str, int]:
    """The bytes of each array in a safetensors file, as its header gives them."""
    data = Path(path).read_bytes()
    header = json.loads(data[8 : header_bytes(path)])
    spans = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: end - begin for name, (begin, end) in spans.items()}
