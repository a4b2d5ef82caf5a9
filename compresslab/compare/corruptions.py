"""Images made worse: does the compressed network hold where the images are not those it was tuned on?

The corruptions are a handful of tensor operations on pixels in [0, 1], before normalisation. They are drawn
from a seed of their own, so every network meets the same noise, and two networks can be compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.errors import check_int
from compresslab.core.train import accuracy
from compresslab.data import Split

CORRUPTIONS = ("noise", "blur", "contrast", "brightness", "shift")
_CHUNK = 1000  # images corrupted at once; part of the definition, because the noise is drawn chunk by chunk


def corrupt(x: Tensor, kind: str, severity: int, generator: torch.Generator) -> Tensor:
    """Images made worse in one of five ways; s is the severity, the result is cut to [0, 1].

        noise       x + 0.04 s e,  e ~ N(0, 1)
        blur        Gaussian, sigma 0.3 s pixels
        contrast    m + (1 - 0.15 s)(x - m),  m the mean of the image
        brightness  x + 0.08 s
        shift       ceil(s W / 32) pixels left, right, up or down (drawn per image), edges repeated

    Args:
        x: float images, (N, C, H, W), in [0, 1], before normalisation.
        kind: one of `CORRUPTIONS`.
        severity: 0 (nothing changes) to 5.
        generator: of the noise and of the directions; the other kinds draw nothing.
    Returns:
        new images, the shape of `x`.
    Raises:
        TypeError, ValueError: an unknown kind, a severity out of range, or images of another form.
    Source: Hendrycks, Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations, ICLR 2019.
    Differs: five kinds instead of fifteen, as plain tensor operations, with strengths of our own.
    Example:
        >>> corrupt(torch.full((1, 1, 2, 2), 0.5), "brightness", 5, torch.Generator()).unique().item()
        0.8999999761581421
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"kind must be one of {', '.join(CORRUPTIONS)}, got {kind!r}")
    check_int("severity", severity, 0, 5)
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"the images must be floats (N, C, H, W) in [0, 1], got {x.dtype} {tuple(x.shape)}")
    if severity == 0:
        return x.clone()
    if kind == "noise":
        x = x + 0.04 * severity * torch.randn(x.shape, generator=generator)
    elif kind == "blur":
        x = _blur(x, 0.3 * severity)
    elif kind == "contrast":
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + (1 - 0.15 * severity) * (x - mean)
    elif kind == "brightness":
        x = x + 0.08 * severity
    else:
        x = _shift(x, math.ceil(severity * x.shape[3] / 32), generator)
    return x.clamp(0, 1)


def corrupted_split(split: Split, kind: str, severity: int = 3, *, seed: int = 0) -> Split:
    """The split with every image corrupted and rounded to bytes again, in the same way for the same seed."""
    generator, parts = torch.Generator().manual_seed(seed), []
    for chunk in split.images.split(_CHUNK):
        worse = corrupt(chunk.float() / 255, kind, severity, generator)
        parts.append(worse.mul(255).round().to(torch.uint8))
    return replace(split, images=torch.cat(parts) if parts else split.images)


def accuracy_by_corruption(
    model: nn.Module, split: Split, *, kinds: Sequence[str] = CORRUPTIONS, severity: int = 3, seed: int = 0
) -> dict[str, float]:
    """The accuracy on each kind of corrupted images; every network meets the same ones.

    Args:
        model: a network whose layers run; decompress a coded one first, it would be slow.
        split: clean images; they are corrupted as bytes and then normalised as ever.
        kinds, severity: as in `corrupt`.
        seed: of the noise and the shifts.
    Returns:
        fractions in [0, 1] by kind.
    """
    return {kind: accuracy(model, corrupted_split(split, kind, severity, seed=seed)) for kind in kinds}


def corrupted_accuracy(
    model: nn.Module, split: Split, *, kinds: Sequence[str] = CORRUPTIONS, severity: int = 3, seed: int = 0
) -> float:
    """The mean of `accuracy_by_corruption` over the kinds, a fraction in [0, 1]."""
    by_kind = accuracy_by_corruption(model, split, kinds=kinds, severity=severity, seed=seed)
    if not by_kind:
        raise ValueError(f"kinds must name at least one of {', '.join(CORRUPTIONS)}, got none")
    return math.fsum(by_kind.values()) / len(by_kind)


def _blur(x: Tensor, sigma: float) -> Tensor:
    """A separable Gaussian, one matrix product per axis: a convolution of single channels is far slower."""
    rows, columns = (_blur_matrix(size, sigma).to(x) for size in x.shape[2:])
    return rows @ x @ columns.T


def _blur_matrix(size: int, sigma: float) -> Tensor:
    """Row i averages the pixels around i, up to ceil(2 sigma) away; the edge pixels are repeated outward."""
    radius = math.ceil(2 * sigma)
    steps = torch.arange(-radius, radius + 1)
    taps = torch.exp(-(steps.double() ** 2) / (2 * sigma**2))
    sources = (torch.arange(size)[:, None] + steps).clamp(0, size - 1)
    weights = (taps / taps.sum()).expand(size, -1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, sources, weights)


def _shift(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Each image moved by so many pixels in a direction of its own."""
    height, width = x.shape[2:]
    padded = F.pad(x, (pixels,) * 4, mode="replicate")
    moved = torch.stack([
        padded[:, :, pixels + down : pixels + down + height, pixels + right : pixels + right + width]
        for down, right in ((0, pixels), (0, -pixels), (pixels, 0), (-pixels, 0))
    ])  # fmt: skip
    direction = torch.randint(4, (len(x),), generator=generator)
    return moved[direction, torch.arange(len(x))]
