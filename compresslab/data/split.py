"""`Split` and `Data`: images kept as bytes, normalised on the way out.

A split stores `uint8` images, a quarter of what floats would take, and hands out float32 batches

    x = (image / 255 - mean) / std          one mean and one std per channel

so that 20,000 images of 3x32x32 cost 61 MB and not 245. The three splits have one job each: `train` fits
weights and calibrates, `validation` chooses (a sparsity, a rank, a number of bits), `test` judges, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Channels = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64, (N,), class numbers from 0.
        mean, std: per channel, on the scale where white is 1; C numbers each.
    Raises:
        TypeError: images that are not uint8 or labels that are not int64.
        ValueError: shapes that do not belong together, or a std that is not positive.
    Example:
        >>> white = torch.full((2, 1, 1, 1), 255, dtype=torch.uint8)
        >>> split = Split(white, torch.tensor([3, 7]), mean=(0.5,), std=(0.25,))
        >>> len(split), split.x().flatten().tolist(), split.y.tolist()
        (2, [2.0, 2.0], [3, 7])
    """

    images: Tensor
    labels: Tensor
    mean: Channels
    std: Channels

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.labels.dtype != torch.int64:
            raise TypeError(
                "a split holds uint8 images and int64 labels, "
                f"got {self.images.dtype} and {self.labels.dtype}"
            )
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                "a split holds images (N, C, H, W) and labels (N,), "
                f"got {tuple(self.images.shape)} and {tuple(self.labels.shape)}"
            )
        channels = self.images.shape[1]
        if len(self.mean) != channels or len(self.std) != channels or not all(s > 0 for s in self.std):
            raise ValueError(
                f"mean and std need {channels} numbers each, std > 0, got {self.mean} and {self.std}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {'x'.join(map(str, self.shape))})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image, (C, H, W)."""
        return tuple(self.images.shape[1:])

    @property
    def y(self) -> Tensor:
        """The labels, int64 (N,)."""
        return self.labels

    def x(self, indices: Tensor | Sequence[int] | slice | None = None) -> Tensor:
        """Normalised float32 images, (N, C, H, W), of all images or of those at `indices`."""
        images = self.images if indices is None else self.images[indices]
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return images.float().div_(255).sub_(mean).div_(std)

    def batches(
        self,
        batch_size: int = 256,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        labels: bool = True,
    ) -> Iterator[tuple[Tensor, Tensor]] | Iterator[Tensor]:
        """Go through the split once, in batches; the last one may be smaller.

        Args:
            batch_size: images per batch, >= 1.
            shuffle: in random order, drawn from `generator` (a fresh one with seed 0 where None).
            labels: yield pairs (x, y); False yields x alone, which is what calibration needs.
        Returns:
            an iterator over (x, y), x float32 (B, C, H, W) and y int64 (B,).
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        order = torch.arange(len(self))
        if shuffle:
            order = torch.randperm(len(self), generator=generator or torch.Generator().manual_seed(0))
        return self._walk(order.split(batch_size) if len(self) else (), labels)

    def _walk(self, chunks: Sequence[Tensor], labels: bool) -> Iterator:
        for chunk in chunks:
            yield (self.x(chunk), self.labels[chunk]) if labels else self.x(chunk)

    def take(self, n: int) -> Split:
        """The first `n` images; ValueError where there are fewer.

        Example:
            >>> split = Split(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), torch.arange(3), (0.0,), (1.0,))
            >>> split.take(2).y.tolist()
            [0, 1]
        """
        if not 0 <= n <= len(self):
            raise ValueError(f"n must be between 0 and the {len(self)} images of this split, got {n}")
        return self.select(slice(n))

    def select(self, indices: Tensor | Sequence[int] | slice) -> Split:
        """The images at `indices` (numbers, a mask or a slice), in that order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: its name, its three disjoint splits and its number of classes."""

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part} {len(getattr(self, part)):,}" for part in ("train", "validation", "test"))
        shape = "x".join(map(str, self.shape))
        return f"Data({self.name!r}: {sizes}; {shape}, {self.num_classes} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image, (C, H, W)."""
        return self.train.shape
