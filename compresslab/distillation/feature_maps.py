r"""Bring what a layer of the student says to the shape of what a layer of the teacher says.

Two networks seldom agree in the size of their feature maps, and hardly ever in the number of channels. Most
methods that transfer features need one of three answers: average both maps to the smaller size, average
positions away altogether, or learn a map from one set of channels to the other, which is thrown away after
training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.errors import check_int


def check_maps(student: Tensor, teacher: Tensor) -> None:
    """Refuse anything but two batches of feature maps of the same images.

    Raises:
        ValueError: a tensor is not (N, C, H, W), or the numbers of images differ.
    """
    for who, maps in (("student", student), ("teacher", teacher)):
        if maps.ndim != 4:
            raise ValueError(f"the {who}'s feature maps must be (N, C, H, W), got {tuple(maps.shape)}")
    check_batch(student, teacher)


def check_batch(student: Tensor, teacher: Tensor) -> None:
    """Refuse outputs that cannot belong to the same images.

    Raises:
        ValueError: the numbers of images differ, or a tensor is not (N, ...) with features.
    """
    for who, features in (("student", student), ("teacher", teacher)):
        if features.ndim < 2:
            raise ValueError(f"the {who}'s features must have shape (N, ...), got {tuple(features.shape)}")
    if len(student) != len(teacher):
        rows = f"{len(student)} and {len(teacher)} rows"
        raise ValueError(f"student and teacher must see the same images, got {rows}")


def to_common_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average both maps to the smaller height and the smaller width.

    Adaptive average pooling: where the sizes divide, each output is the mean of one block; equal sizes are
    returned as they are. Averaging the larger map, rather than blowing up the smaller, invents no detail.

    Args:
        student, teacher: (N, C, H, W), of any channels and sizes.

    Returns:
        The two, (N, C_student, h, w) and (N, C_teacher, h, w).

    Raises:
        ValueError: as :func:`check_maps`.

    Example:
        >>> small, large = torch.zeros(1, 2, 1, 1), torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
        >>> to_common_size(small, large)[1].flatten()
        tensor([3.])
    """
    check_maps(student, teacher)
    size = tuple(min(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return tuple(x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (student, teacher))


def to_vectors(features: Tensor) -> Tensor:
    """One vector per image: feature maps (N, C, H, W) averaged over positions, anything else flattened.

    Example:
        >>> to_vectors(torch.arange(8.0).view(1, 2, 2, 2))
        tensor([[1.5000, 5.5000]])
    """
    return features.mean((2, 3)) if features.ndim == 4 else features.flatten(1)


def to_unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors scaled to length 1; the zero vector stays zero.

    ``F.normalize`` does the same, but a gradient that meets the zero vector comes out of it 10^12 times as large.

    Args:
        vectors: any shape; they lie along ``dim``.

    Example:
        >>> to_unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), dim=1)
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    length = vectors.norm(dim=dim, keepdim=True)
    return vectors / length.masked_fill(length == 0, 1.0)


def channel_regressor(in_channels: int, out_channels: int, *, seed: int = 0) -> nn.Conv2d:
    """A 1x1 convolution with bias that turns the student's channels into as many as the teacher has.

    Args:
        in_channels: of the student's layer.
        out_channels: of the teacher's layer.
        seed: of its first weights; the global generator is left as it was.

    Raises:
        TypeError, ValueError: a number of channels that is no whole number of at least 1.

    Example:
        >>> channel_regressor(8, 24)(torch.zeros(5, 8, 4, 4)).shape
        torch.Size([5, 24, 4, 4])
    """
    check_int("in_channels", in_channels, 1)
    check_int("out_channels", out_channels, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Conv2d(in_channels, out_channels, kernel_size=1)
