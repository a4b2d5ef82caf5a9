"""Drawn images on disk: parts with a checksum beside each, replaced when damaged, never half written.

    <cache>/street_digits-v2/train-seed0-0003.safetensors          one part of `drawing.PART` images
    <cache>/street_digits-v2/train-seed0-0003.safetensors.sha256   its checksum

The cache saves seconds and nothing depends on it: a part that is missing, damaged or of another version is
drawn again, and where the folder cannot be written the images stay in memory and one printed line says so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
import safetensors.torch
from torch import Tensor

from compresslab.core.files import write_atomic

Tensors = dict[str, Tensor]
_reported: set[Path] = set()


def cache_folder(folder: str | Path | None = None) -> Path:
    """Where data sets are kept: `folder`, or COMPRESSLAB_CACHE, or the user's cache folder."""
    return Path(folder or os.environ.get("COMPRESSLAB_CACHE") or platformdirs.user_cache_dir("compresslab"))


def cached(path: Path, make: Callable[[], Tensors]) -> Tensors:
    """The tensors stored at `path`, or `make()`, which is then stored there.

    Args:
        path: of the safetensors file.
        make: computes the tensors where the file is missing or does not match its checksum.
    Returns:
        the tensors by name.
    """
    tensors = read_checked(path)
    if tensors is None:
        tensors = make()
        try:
            write_checked(path, tensors)
        except OSError as error:
            _report_once(path.parent, error)
    return tensors


def read_checked(path: Path) -> Tensors | None:
    """The tensors in a file, or None where it is missing or differs from its checksum."""
    try:
        content = path.read_bytes()
        expected = checksum_path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if hashlib.sha256(content).hexdigest() != expected:
        return None
    return safetensors.torch.load(content)


def write_checked(path: Path, tensors: Tensors) -> None:
    """Write the file, then its checksum, each in one step: a reader never sees a part of either."""
    content = safetensors.torch.save(tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
    write_atomic(checksum_path(path), hashlib.sha256(content).hexdigest().encode("ascii"))


def checksum_path(path: Path) -> Path:
    """The file beside `path` that holds its sha256."""
    return path.with_name(path.name + ".sha256")


def _report_once(folder: Path, error: OSError) -> None:
    if folder not in _reported:
        _reported.add(folder)
        reason = error.strerror or error
        print(
            f"The cache folder {folder} cannot be written ({reason}): the images are kept in memory and "
            "drawn again next time. Set COMPRESSLAB_CACHE to a folder of yours to keep them."
        )
