"""MNIST, Fashion-MNIST, CIFAR-10 and SVHN: fetched through torchvision, read here.

torchvision knows the addresses and the checksums; an archive whose checksum is wrong is refused. The files
are read by the few lines below and not by torchvision, for one reason: the batches of CIFAR-10 are Python
pickles, and unpickling a file can run whatever code it contains. `_ArrayUnpickler` builds strings, lists,
dictionaries and NumPy arrays and refuses everything else. Folders are laid out as torchvision does it, so
that files that are already here are found.

Source: LeCun, Cortes, Burges, The MNIST Database, 1998 (the idx format); Xiao et al., Fashion-MNIST, 2017;
    Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; Netzer et al., SVHN, 2011.
"""

from __future__ import annotations

import gzip
import math
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HELD_OUT = 5_000  # training images set aside for validation
Labelled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Source:
    """Where a data set lives: its folder, the files it consists of, its reader and its torchvision class."""

    folder: str
    files: tuple[str, ...]
    read: Callable[[Path], tuple[Labelled, Labelled]]
    torchvision_class: str
    stand_in: str


def read_genuine(name: str, cache: Path, *, download: bool) -> tuple[Labelled, Labelled]:
    """Read one of `GENUINE` from `cache`, downloading it first where it is not there.

    Returns:
        (training set, test set), each as images uint8 (N, C, H, W) and labels int64 (N,).
    Raises:
        ConnectionError: the files are not here and cannot be fetched.
        ValueError: a file that is not in the format of this data set.
    """
    source = GENUINE[name]
    folder = cache / source.folder
    if not _complete(folder, source):
        _fetch(name, folder, download)
    try:
        return source.read(folder)
    except ValueError as error:
        raise ValueError(f"{error}; delete that file and it is downloaded again") from error


def _complete(folder: Path, source: Source) -> bool:
    return all(_find(folder / file) is not None for file in source.files)


def _find(path: Path) -> Path | None:
    """The file, or its gzipped form, or None."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.exists()), None)


def _fetch(name: str, folder: Path, download: bool) -> None:
    reason = "download=False"
    if download:
        try:
            _download(GENUINE[name].torchvision_class, folder)
        except (OSError, RuntimeError, EOFError) as error:
            reason = str(error) or type(error).__name__
        else:
            return
    raise ConnectionError(
        f"{name} is not in {folder} and was not downloaded ({reason}). "
        f"Use load_data({GENUINE[name].stand_in!r}), which is drawn on this machine and has the same shape, "
        f"or put {', '.join(GENUINE[name].files)} into that folder."
    )


def _download(class_name: str, folder: Path) -> None:
    """Fetch a data set's archives from torchvision's addresses, its checksums enforced."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    origin = getattr(datasets, class_name)
    if class_name == "CIFAR10":
        download_and_extract_archive(origin.url, folder.parent, filename=origin.filename, md5=origin.tgz_md5)
    elif class_name == "SVHN":
        for part in ("train", "test"):
            url, filename, md5 = origin.split_list[part]
            download_url(url, folder, filename, md5)
    else:
        for filename, md5 in origin.resources:
            _from_first_mirror(origin.mirrors, filename, folder, md5)


def _from_first_mirror(mirrors: list[str], filename: str, folder: Path, md5: str) -> None:
    from torchvision.datasets.utils import download_url

    errors = []
    for mirror in mirrors:
        try:
            return download_url(mirror + filename, folder, filename, md5)
        except (OSError, RuntimeError) as error:
            errors.append(f"{mirror}: {error}")
    raise ConnectionError("; ".join(errors))


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes, gzipped or not: two zeros, type 8, the number of axes, the axes, the data.

    Raises:
        ValueError: another type, or a size that does not match the header.
    """
    path = _find(path) or path
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    axes = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * axes:
        raise ValueError(f"{path} is not an idx file of bytes")
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    size = len(content) - 4 - 4 * axes
    if size != math.prod(shape):
        raise ValueError(f"{path} should hold {shape} bytes after its header, got {size}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_mnist(folder: Path) -> tuple[Labelled, Labelled]:
    def part(name: str) -> Labelled:
        images = read_idx(folder / f"{name}-images-idx3-ubyte")
        return _labelled(images[:, None], read_idx(folder / f"{name}-labels-idx1-ubyte"), folder)

    return part("train"), part("t10k")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain containers and NumPy arrays, and refuses every other class or function."""

    ALLOWED = {
        "numpy.core.multiarray._reconstruct": np._core.multiarray._reconstruct,
        "numpy._core.multiarray._reconstruct": np._core.multiarray._reconstruct,
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        if f"{module}.{name}" not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.ALLOWED[f"{module}.{name}"]


def read_cifar_batch(path: Path) -> tuple[np.ndarray, list[int]]:
    """Read one batch of CIFAR-10: images uint8 (N, 3, 32, 32) and their labels.

    Raises:
        ValueError: a file that is no such batch, or that asks for code to be run.
    """
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="latin1").load()
        return np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32), list(batch["labels"])
    except Exception as error:  # a damaged pickle raises almost anything
        raise ValueError(f"{path} is not a batch of CIFAR-10: {error}") from error


def _read_cifar(folder: Path) -> tuple[Labelled, Labelled]:
    batches = [read_cifar_batch(folder / f"data_batch_{number}") for number in range(1, 6)]
    images = np.concatenate([images for images, _ in batches])
    train = _labelled(images, np.array([label for _, labels in batches for label in labels]), folder)
    images, labels = read_cifar_batch(folder / "test_batch")
    return train, _labelled(images, np.array(labels), folder)


def _read_svhn(folder: Path) -> tuple[Labelled, Labelled]:
    """Read MATLAB files whose `X` is (32, 32, 3, N) and whose `y` has class 10 for the digit 0."""
    from scipy.io import loadmat

    def part(name: str) -> Labelled:
        path = folder / f"{name}_32x32.mat"
        try:
            content = loadmat(path)
            images, labels = content["X"], content["y"]
        except Exception as error:  # scipy raises many kinds for damaged files
            raise ValueError(f"{path} is not a file of SVHN: {error}") from error
        return _labelled(images.transpose(3, 2, 0, 1), labels.ravel() % 10, folder)

    return part("train"), part("test")


def _labelled(images: np.ndarray, labels: np.ndarray, folder: Path) -> Labelled:
    if len(images) != len(labels):
        raise ValueError(f"the files in {folder} hold {len(images)} images but {len(labels)} labels")
    return torch.from_numpy(np.array(images, np.uint8)), torch.from_numpy(np.array(labels, np.int64))


_IDX_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
_CIFAR_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
GENUINE = {
    "mnist": Source("MNIST/raw", _IDX_FILES, _read_mnist, "MNIST", "ink_digits"),
    "fashion_mnist": Source("FashionMNIST/raw", _IDX_FILES, _read_mnist, "FashionMNIST", "ink_digits"),
    "cifar10": Source("cifar-10-batches-py", _CIFAR_FILES, _read_cifar, "CIFAR10", "street_digits"),
    "svhn": Source("SVHN", ("train_32x32.mat", "test_32x32.mat"), _read_svhn, "SVHN", "street_digits"),
}
