"""Small networks for the course's images: one skeleton, in which the block can be exchanged.

So that blocks can be compared, everything else is equal: a 3x3 convolution of stride 2, three stages of the
same number of blocks with w, 2w and 4w channels, a mean over what is left of the image, one linear layer.
`width_for` finds the width at which a block fills a budget of parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from compresslab.compact.blocks import ConvBN
from compresslab.compact.fire import Fire
from compresslab.compact.ghost import GhostBottleneck
from compresslab.compact.inverted import InvertedResidual
from compresslab.compact.separable import SeparableConv
from compresslab.compact.shuffle import ShuffleUnitV1, ShuffleUnitV2
from compresslab.core.errors import check_int
from compresslab.models import BasicBlock

# Each is called as block(in_channels, out_channels, stride=1 | 2).
BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "plain": ConvBN,
    "residual": BasicBlock,
    "fire": partial(Fire.of, squeeze_ratio=0.25, batch_norm=True),
    "separable": SeparableConv,
    "inverted": partial(InvertedResidual, expansion=4),
    "shuffle_v1": partial(ShuffleUnitV1, groups=2),
    "shuffle_v2": ShuffleUnitV2,
    "ghost": partial(GhostBottleneck, expansion=3),
}


class CompactNet(nn.Module):
    """A stem, three stages of one kind of block, a mean, a linear layer.

    Args:
        block: one of `BLOCKS`: plain, residual, fire, separable, inverted, shuffle_v1, shuffle_v2, ghost.
        width: w, channels of the first stage; the stages have w, 2w and 4w. Blocks with groups or halves want
            a multiple of 2 or more.
        depth: blocks per stage; the first one of the second and third stage halves the image.
        num_classes: outputs.
        in_channels: of the images.
    Shape: (N, in_channels, H, W) -> (N, num_classes), H and W at least 8.
    Raises:
        ValueError: an unknown block, or a width that it cannot have.
        TypeError, ValueError: a number out of its range.
    Example:
        >>> CompactNet("separable", width=8)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self, block: str = "inverted", width: int = 16, depth: int = 2, num_classes: int = 10, in_channels: int = 3
    ) -> None:
        if block not in BLOCKS:
            raise ValueError(f"there is no block {block!r}; choose one of {', '.join(BLOCKS)}")
        sizes = {"width": width, "depth": depth, "num_classes": num_classes, "in_channels": in_channels}
        for name, value in sizes.items():
            check_int(name, value, 1)
        super().__init__()
        self.spec = {"model": "compact", "block": block, **sizes}
        self.stem = ConvBN(in_channels, width, 3, stride=2)
        self.stages = nn.Sequential()
        channels = width
        for stage, stride in enumerate((1, 2, 2)):
            out = width * 2**stage
            blocks = [_build(block, channels if i == 0 else out, out, stride if i == 0 else 1) for i in range(depth)]
            self.stages.append(nn.Sequential(*blocks))
            channels = out
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem(x))  # (N, 4 * width, H / 8, W / 8)
        return self.fc(x.mean((2, 3)))


def _build(block: str, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    try:
        return BLOCKS[block](in_channels, out_channels, stride=stride)
    except ValueError as error:
        raise ValueError(f"a {block} block from {in_channels} to {out_channels} channels: {error}") from error


def width_for(block: str, max_parameters: int, **arguments: int) -> int:
    """The largest width at which a network of this block keeps a budget of parameters.

    Args:
        block: one of `BLOCKS`.
        max_parameters: at least what the smallest network has.
        arguments: of `CompactNet`, such as `depth=3`.
    Returns:
        the width; widths that the block cannot have are passed over.
    Raises:
        ValueError: no width is small enough.
        TypeError, ValueError: an unknown block, or an argument that `CompactNet` refuses.
    Example:
        >>> sum(p.numel() for p in CompactNet("plain", width_for("plain", 20_000)).parameters()) <= 20_000
        True
    """
    check_int("max_parameters", max_parameters, 1)
    _size(block, 16, **arguments)  # a width that every block can have: what it refuses, no width will mend
    best = width = size = 0
    while size <= max_parameters:
        best, width = (width if size else best), width + 1
        try:
            size = _size(block, width, **arguments)
        except ValueError:  # a width that the block cannot have
            size = 0
    if not best:
        raise ValueError(f"no network of {block} blocks has at most {max_parameters} parameters")
    return best


def _size(block: str, width: int, **arguments: int) -> int:
    """The parameters of a network, of which only the shapes are made."""
    with torch.device("meta"):
        return sum(p.numel() for p in CompactNet(block, width, **arguments).parameters())
