"""`load_data`: every data set of the course under one function.

| name                              | image   | default sizes (train, validation, test) | from         |
|-----------------------------------|---------|-----------------------------------------|--------------|
| street_digits                     | 3x32x32 | 20,000, 2,000, 10,000                   | drawn here   |
| ink_digits                        | 1x28x28 | 20,000, 2,000, 10,000                   | drawn here   |
| digits                            | 1x8x8   | 1,097, 300, 400                         | scikit-learn |
| mnist, fashion_mnist              | 1x28x28 | all but 5,000; 5,000; all               | downloaded   |
| cifar10, svhn                     | 3x32x32 | all but 5,000; 5,000; all               | downloaded   |

Asking for fewer images gives the first ones: `train=4000` is the beginning of `train=20000`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from compresslab.core.progress import progress_bar
from compresslab.data.cache import cache_folder, cached
from compresslab.data.drawing import DRAW, PART, stream
from compresslab.data.genuine import GENUINE, HELD_OUT, read_genuine
from compresslab.data.split import Data, Split

VERSION = 2  # of the drawings; raise it with any change that moves a pixel
DRAWN_SIZES = {"train": 20_000, "validation": 2_000, "test": 10_000}
DIGITS_SIZES = {"train": 1_097, "validation": 300, "test": 400}
STATISTICS = {"street_digits": ((0.5,) * 3, (0.22,) * 3), "ink_digits": ((0.12,), (0.28,))}  # mean, std
PARTS = ("train", "validation", "test", "fresh")
DATA_NAMES = (*DRAW, "digits", *GENUINE)


def load_data(
    name: str,
    *,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    download: bool = True,
) -> Data:
    """Load a data set by name, drawing or downloading it the first time.

    Args:
        name: one of `DATA_NAMES`.
        train, validation, test: images wanted in each split; None is the data set's default (see the table).
        seed: of the drawing; for sets of fixed images, of the shuffling that makes the splits.
        cache: folder to keep the images in; None is `cache_folder()`.
        download: False never touches the network.
    Returns:
        the `Data`, its splits disjoint.
    Raises:
        ValueError: an unknown name, or more images than the set has, or a negative number.
        ConnectionError: a data set that is not here and cannot be downloaded; the message names a stand-in.
    Example:
        >>> load_data("digits", train=100)
        Data('digits': train 100, validation 300, test 400; 1x8x8, 10 classes)
    """
    if name not in DATA_NAMES:
        raise ValueError(f"there is no data set {name!r}; choose one of {', '.join(DATA_NAMES)}")
    sizes = {"train": train, "validation": validation, "test": test}
    for part, size in sizes.items():
        if size is not None and (not isinstance(size, int) or size < 0):
            raise ValueError(f"{part} must be a number of images, 0 or more, got {size!r}")
    folder = cache_folder(cache)
    if name in DRAW:
        sizes = {part: DRAWN_SIZES[part] if size is None else size for part, size in sizes.items()}
        splits = {part: _drawn(name, part, size, seed, folder) for part, size in sizes.items()}
    else:
        splits = _sklearn_digits(seed) if name == "digits" else _genuine(name, seed, folder, download)
        splits = {part: split.take(sizes[part]) if sizes[part] is not None else split
                  for part, split in splits.items()}  # fmt: skip
    return Data(name, **splits, num_classes=10)


def fresh_data(name: str, n: int, *, seed: int) -> Split:
    """Draw `n` new images that no training, validation or test set contains, whatever their seeds.

    Drawn data cost nothing, so a claim about a tenth of a point can be judged on 50,000 images that nobody
    has trained or tuned on. They are not cached.

    Args:
        name: street_digits or ink_digits.
        n: images, >= 0.
        seed: another seed, other images.
    Raises:
        ValueError: a data set that is not drawn, or a negative n.
    Example:
        >>> fresh_data("ink_digits", 5, seed=1).images.shape
        torch.Size([5, 1, 28, 28])
    """
    if name not in DRAW:
        raise ValueError(f"fresh images can be drawn for {' and '.join(DRAW)}, got {name!r}")
    if n < 0:
        raise ValueError(f"n must be a number of images, 0 or more, got {n}")
    return _drawn(name, "fresh", n, seed, None)


def _drawn(name: str, part: str, n: int, seed: int, folder: Path | None) -> Split:
    """The first `n` images of one part of a drawn set, piece by piece; `folder` None keeps nothing."""
    kind, place = list(DRAW).index(name), PARTS.index(part)

    def piece(number: int) -> dict[str, Tensor]:
        def draw() -> dict[str, Tensor]:
            images, labels = DRAW[name](PART, stream(kind, place, seed, number))
            return {"images": images, "labels": labels}

        if folder is None:
            return draw()
        return cached(folder / f"{name}-v{VERSION}" / f"{part}-seed{seed}-{number:04d}.safetensors", draw)

    numbers = range(max(1, -(-n // PART)))
    pieces = [piece(number) for number in progress_bar(numbers, f"{name} {part}", unit="thousand", show=len(numbers) > 1)]
    images, labels = (torch.cat([one[key] for one in pieces])[:n] for key in ("images", "labels"))
    return Split(images, labels, *STATISTICS[name])


def _sklearn_digits(seed: int) -> dict[str, Split]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    order = torch.randperm(len(labels), generator=stream(seed))
    parts = dict(zip(DIGITS_SIZES, order.split(list(DIGITS_SIZES.values())), strict=True))
    return _normalised({part: (images[indices], labels[indices]) for part, indices in parts.items()})


def _genuine(name: str, seed: int, folder: Path, download: bool) -> dict[str, Split]:
    """Hold out validation images, and shuffle: the first 5,000 test images of MNIST are the easy ones."""
    (images, labels), test = read_genuine(name, folder, download=download)
    order = torch.randperm(len(labels), generator=stream(seed))
    held_out = min(HELD_OUT, len(labels) // 5)
    train, validation = order[held_out:], order[:held_out]
    test_order = torch.randperm(len(test[1]), generator=stream(seed))
    return _normalised(
        {
            "train": (images[train], labels[train]),
            "validation": (images[validation], labels[validation]),
            "test": (test[0][test_order], test[1][test_order]),
        }
    )


def _normalised(parts: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Split]:
    """Splits that share the mean and the std of all training images."""
    pixels = parts["train"][0].float() / 255
    mean, std = (tuple(values.tolist()) for values in (pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))))
    return {part: Split(images, labels, mean, std) for part, (images, labels) in parts.items()}
