r"""Grouped-query attention: several query heads share one head of keys and values, and the cache holds that one.

A trained network is converted by taking the mean of each group's key matrices, and of its value matrices:

.. math:: W_{K, h} \leftarrow \bar W_K = \frac1G \sum_{g \in \text{group}} W_{K, g}

In the words of low rank: the stacked matrices of a group become :math:`R \bar W`, with R a column of G identity
matrices, of at most a G-th of the rank. The mean is the :math:`\bar W` of least squared error.

Source: J. Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints",
EMNLP 2023.
Differs: the paper trains the network for another 5 % of its steps afterwards; here that is left to the caller. The
matrices keep their shape, with equal heads, so that every other method applies; only the cache gets smaller.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.core.errors import check_int, where
from compresslab.core.modules import bake
from compresslab.sequence.gpt import GPT, KVCache


def merge_kv_heads(model: GPT, groups: int) -> GPT:
    """Copy of a GPT in which the key heads of a group are equal, and the value heads: each the mean of its group.

    Args:
        model: with dense k and v; masks are baked in.
        groups: heads of keys and values that are left; must divide the heads of every block. Equal to them: nothing
            changes; 1 is multi-query attention.

    Raises:
        TypeError, ValueError: a number that does not divide the heads (the message names the block).

    Example:
        >>> merged = merge_kv_heads(GPT(width=8, layers=1, heads=4, head_size=2), groups=2)
        >>> first, second, third, _ = merged.blocks[0].k.weight.chunk(4)
        >>> torch.equal(first, second), torch.equal(first, third)
        (True, False)
    """
    check_int("groups", groups, 1)
    model = bake(model)
    for number, block in enumerate(model.blocks):
        if block.heads % groups:
            raise ValueError(f"groups must divide the {block.heads} heads, got {groups}{where(f'blocks.{number}')}")
        for layer in (block.k, block.v):
            heads = layer.weight.detach().view(groups, block.heads // groups, block.head_size, -1)
            layer.weight.data = heads.mean(1, keepdim=True).expand_as(heads).reshape(layer.weight.shape).contiguous()
    return model


class GroupedKVCache(KVCache):
    """A `KVCache` that holds one head of each group of equal ones; give it to `model.step` in its place.

    Args:
        groups: heads of keys and values to hold, as for `merge_kv_heads`.

    Raises:
        TypeError, ValueError: `groups` does not divide the heads, or the heads of a group are not equal.

    Example:
        >>> cache = GroupedKVCache(1)
        >>> keys, _ = cache.append(0, torch.ones(1, 4, 3, 2), torch.ones(1, 4, 3, 2))
        >>> keys.shape, cache.count_bytes()  # 2 x 3 tokens x 2 numbers of 4 bytes
        (torch.Size([1, 4, 3, 2]), 48)
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = check_int("groups", groups, 1)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new columns (B, heads, new, size) of a layer; returns all of them (B, heads, length, size)."""
        heads = keys.shape[1]
        if heads % self.groups:
            raise ValueError(f"groups must divide the {heads} heads, got {self.groups}{where(f'blocks.{layer}')}")
        size = heads // self.groups
        for columns in (keys, values):
            grouped = columns.unflatten(1, (self.groups, size))
            if not torch.allclose(grouped, grouped[:, :, :1].expand_as(grouped), atol=1e-5):
                raise ValueError(f"the heads of a group are not equal{where(f'blocks.{layer}')}: merge them first")
        held = super().append(layer, keys[:, ::size].contiguous(), values[:, ::size].contiguous())
        return tuple(columns.repeat_interleave(size, dim=1) for columns in held)
