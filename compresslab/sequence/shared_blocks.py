r"""A GPT whose blocks share their matrices: stored once, used many times.

ALBERT trains one block and runs it twelve times. A network that was trained *without* sharing can be made to
share as well: its blocks are tied, started from one of them or from their mean, and trained on. The depth
stays, so the computation stays; what shrinks is the file.

A block of our GPT is not shared itself, only the layers in it: the key-value cache tells blocks apart by
their number, and two layers with the same matrices still see different streams, so each needs a cache of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from compresslab.core.errors import check_int
from compresslab.core.modules import bake
from compresslab.sequence.gpt import GPT
from compresslab.sharing.cross_layer import share_layers

PARTS = ("norm1", "q", "k", "v", "o", "norm2", "up", "down")
STARTS = ("mean", "first")


def share_blocks(model: GPT, pattern: Sequence[int] | None = None, *, start: str = "mean") -> GPT:
    r"""Copy of a GPT in which some blocks use the layers of others.

    .. math:: W_i \leftarrow \frac{1}{|G|} \sum_{j \in G} W_j, \qquad i \in G

    for each group G of blocks with the same number in the pattern (start "mean").

    Args:
        model: a plain GPT; masks are baked in. Blocks that share need equally many heads and hidden units.
        pattern: for each block the number of its group, such as (0, 0, 1, 1); None: one group of all.
        start: what the group's weights are at first: the "mean" of its blocks, or those of its "first" block.

    Returns:
        a GPT to be trained on: as it is, it is much worse than the model was. `save` writes shared layers
        once.

    Raises:
        TypeError, ValueError: a pattern that has not one whole number per block, another start, or blocks of
            different shapes (the message names the layer).

    Source: Z. Lan et al., "ALBERT", ICLR 2020 (sharing); S. Bae et al., "Relaxed Recursive Transformers:
        Effective Parameter Sharing with Layer-wise LoRA", ICLR 2025 (trained networks made to share, and how
        to start them).
    Differs: no low-rank corrections for single layers.

    Example:
        >>> from compresslab.sharing import unique_parameters
        >>> model = GPT(width=8, layers=4)
        >>> one, two = share_blocks(model), share_blocks(model, (0, 0, 1, 1))
        >>> [unique_parameters(each) for each in (model, one, two)]
        [5720, 3368, 4152]
    """
    layers = len(model.blocks)
    pattern = [0] * layers if pattern is None else list(pattern)
    if len(pattern) != layers:
        raise ValueError(f"pattern must have one number for each of the {layers} blocks, got {len(pattern)}")
    for group in pattern:
        check_int("the number of a group", group, 0)
    if start not in STARTS:
        raise ValueError(f"start must be one of {STARTS}, got {start!r}")
    first = {group: pattern.index(group) for group in pattern}
    users = {number: first[group] for number, group in enumerate(pattern) if number != first[group]}
    sharing = {f"blocks.{i}.{part}": f"blocks.{j}.{part}" for i, j in users.items() for part in PARTS}
    shared = share_layers(bake(model), sharing)
    if start == "mean":
        _average_(shared, model, pattern)
    return shared


def _average_(shared: GPT, model: GPT, pattern: Sequence[int]) -> None:
    """Give every shared layer the mean weight of its group, in place."""
    plain = bake(model)
    with torch.no_grad():
        for group in set(pattern):
            members = [plain.blocks[number] for number, own in enumerate(pattern) if own == group]
            for part in PARTS:
                mean = torch.stack([getattr(block, part).weight for block in members]).mean(0)
                getattr(shared.blocks[pattern.index(group)], part).weight.copy_(mean)


def block_groups(model: GPT) -> list[int]:
    """For each block of a GPT the number of the group whose matrices it uses: the pattern of `share_blocks`.

    Example:
        >>> block_groups(share_blocks(GPT(width=8, layers=4), (0, 1, 0, 1)))
        [0, 1, 0, 1]
    """
    known: dict[tuple[int, ...], int] = {}
    matrices = [part for part in PARTS if not part.startswith("norm")]
    owners = [tuple(id(getattr(block, part)) for part in matrices) for block in model.blocks]
    return [known.setdefault(owner, len(known)) for owner in owners]
