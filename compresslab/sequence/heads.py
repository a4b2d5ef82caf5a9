r"""Remove attention heads and whole layers of a GPT: which ones, and how to make the network really smaller.

A head that is multiplied by zero still takes its place in four matrices. A head that is *removed* takes its
rows out of `q`, `k` and `v` and its columns out of `o`, and the network computes exactly what the masked one
did. A layer adds to the stream what it has to say, so leaving it out is no surgery at all: the stream runs
past.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.calibrate import Batches, watch
from compresslab.core.errors import check_int, where
from compresslab.core.macs import plain
from compresslab.core.modules import bake
from compresslab.core.train import evaluating
from compresslab.sequence.gpt import GPT


def head_scores(model: GPT, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
    r"""How much the loss would change, to first order, if a head were turned down.

    .. math:: I_h = E_x \left| \frac{\partial L(x)}{\partial \xi_h} \right|
                  = E_x \left| \sum_t Att_h(x)_t^\top \frac{\partial L(x)}{\partial Att_h(x)_t} \right|

    :math:`\xi_h` is a factor in front of the head's output, 1 at first. The absolute value is taken of each
    text, before the mean: a head that helps one text and harms another is important.

    Args:
        model: a GPT, plain or coded; it is not changed.
        batches: pairs (x, y) of tokens (B, L), such as `text.train.drawn(16).batches(8)`.

    Returns:
        block -> (heads,), float32, not negative.

    Raises:
        ValueError: no data.

    Source: P. Michel, O. Levy, G. Neubig, "Are Sixteen Heads Really Better than One?", NeurIPS 2019, section
        4.1.
    Differs: scores are not normalised within a layer; each L(x) is the mean loss of one window.

    Example:
        >>> tokens = torch.arange(6).view(1, 6)
        >>> head_scores(GPT(width=8, layers=2, heads=[4, 2]), [(tokens, tokens)])[1].shape
        torch.Size([2])
    """
    model = plain(model).requires_grad_(True).eval()
    names = [f"blocks.{number}.o" for number in range(len(model.blocks))]
    totals, windows = dict.fromkeys(range(len(names)), 0), 0
    for x, y in batches:
        with watch(model, names, inputs=True) as seen:
            nats = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none")
        losses = nats.view(y.shape).mean(1)  # of each window
        outputs = [seen[name] for name in names]
        gradients = torch.autograd.grad(losses.sum(), outputs)
        for number, (output, gradient) in enumerate(zip(outputs, gradients)):
            product = (output * gradient).detach().unflatten(2, (model.blocks[number].heads, -1))
            totals[number] = totals[number] + product.sum((1, 3)).abs().sum(0)
        windows += len(x)
    if not windows:
        raise ValueError("there is no text to score the heads on: batches is empty")
    return {number: total / windows for number, total in totals.items()}


def lowest_heads(scores: Mapping[int, Tensor], n: int) -> dict[int, list[int]]:
    """The n heads of least score over all blocks, where each block keeps its best one.

    Args:
        scores: block -> (heads,), as from `head_scores`. n: how many, from 0 to all but one per block.

    Returns:
        block -> its heads among them, ascending; blocks that lose none are left out.

    Raises:
        ValueError: n is out of range.

    Example:
        >>> lowest_heads({0: torch.tensor([0.1, 0.2]), 1: torch.tensor([0.5, 0.9, 0.3])}, 2)
        {0: [0], 1: [2]}
    """
    best = {block: int(score.argmax()) for block, score in scores.items()}
    able = [(float(value), block, head) for block, score in scores.items()
            for head, value in enumerate(score) if head != best[block]]  # fmt: skip
    check_int("n", n, 0, len(able))
    chosen: dict[int, list[int]] = {}
    for _, block, head in sorted(able)[:n]:
        chosen.setdefault(block, []).append(head)
    return {block: sorted(heads) for block, heads in sorted(chosen.items())}


def remove_heads(model: GPT, heads: Mapping[int, Collection[int]]) -> GPT:
    """Copy of a GPT without some heads: smaller matrices, and the same function as if these heads gave zeros.

    Args:
        model: a plain GPT; masks are baked in. heads: block -> the numbers of the heads to remove; at least
            one of each block must stay.

    Returns:
        a GPT with its own `spec`, which says how many heads each block has.

    Raises:
        TypeError: a coded block (decompress it first).
        ValueError: no such block or head, or a block that would lose all its heads.

    Source: Michel, Levy, Neubig, NeurIPS 2019.

    Example:
        >>> small = remove_heads(GPT(width=8, layers=2), {1: [0, 3]})
        >>> small.spec["heads"], small.blocks[1].o
        ([4, 2], Linear(in_features=4, out_features=8, bias=False))
    """
    model = bake(model)
    for number, removed in heads.items():
        check_int("the number of a block", number, 0, len(model.blocks) - 1)
        layer, block = f"blocks.{number}", model.blocks[number]
        for head in removed:
            check_int("the number of a head", head, 0, block.heads - 1, layer=layer)
        stay = [head for head in range(block.heads) if head not in set(removed)]
        if not stay:
            raise ValueError(f"at least one of the {block.heads} heads must stay{where(layer)}")
        places = torch.arange(block.heads * block.head_size).view(block.heads, -1)[stay].flatten()
        for kind in "qkv":
            setattr(block, kind, _part_of(getattr(block, kind), places, 0, f"{layer}.{kind}"))
        block.o = _part_of(block.o, places, 1, f"{layer}.o")
        block.heads = len(stay)
    model.spec = {**model.spec, "heads": [block.heads for block in model.blocks]}
    return model


def block_influence(model: GPT, batches: Batches) -> Tensor:
    r"""How much each layer turns the stream: one minus the mean cosine of what comes in and what goes out.

    .. math:: BI_i = 1 - E_{x,t} \frac{x_{i,t}^\top x_{i+1,t}}{\|x_{i,t}\|\,\|x_{i+1,t}\|}

    Args:
        model: a GPT, plain or coded. batches: tokens (B, L), or pairs whose first item is one.

    Returns:
        (layers,), float64, from 0 to 2.

    Raises:
        ValueError: no data.

    Source: X. Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
        Findings of ACL 2025.

    Example:
        >>> block_influence(GPT(width=8, layers=3), [torch.arange(6).view(1, 6)]).shape
        torch.Size([3])
    """
    names = [f"blocks.{number}" for number in range(len(model.blocks))]
    total, tokens = torch.zeros(len(names), dtype=torch.float64), 0
    with evaluating(model), watch(model, names, inputs=True) as before, watch(model, names) as after:
        for batch in batches:
            x = batch if isinstance(batch, Tensor) else batch[0]
            model(x)
            cosines = [F.cosine_similarity(before[name], after[name], dim=2) for name in names]
            total += torch.stack([cosine.double().sum() for cosine in cosines])
            tokens += x.numel()
    if not tokens:
        raise ValueError("there is no text to measure the layers on: batches is empty")
    return 1 - total / tokens


def remove_layers(model: GPT, layers: Collection[int]) -> GPT:
    """Copy of a GPT without some of its blocks; the stream runs past them.

    Args:
        model: a GPT, plain or coded. layers: numbers of the blocks to remove; at least one must stay.

    Returns:
        a GPT with its own `spec`; the blocks are numbered again from 0.

    Raises:
        ValueError: no such block, or none would stay.

    Source: Men et al., Findings of ACL 2025.

    Example:
        >>> remove_layers(GPT(width=8, layers=3, hidden=[8, 16, 24]), [1]).spec["hidden"]
        [8, 24]
    """
    for number in layers:
        check_int("the number of a block", number, 0, len(model.blocks) - 1)
    model = bake(model)
    stay = [block for block in model.blocks if block.number not in set(layers)]
    if not stay:
        raise ValueError(f"at least one of the {len(model.blocks)} blocks must stay")
    lists = {key: [model.spec[key][block.number] for block in stay] for key in ("heads", "hidden")}
    model.spec = {**model.spec, "layers": len(stay), **lists}
    for number, block in enumerate(stay):
        block.number = number
    model.blocks = nn.ModuleList(stay)
    return model


def _part_of(layer: nn.Module, places: Tensor, axis: int, name: str) -> nn.Linear:
    """A linear layer with some of its outputs (axis 0) or inputs (axis 1) only."""
    if not isinstance(layer, nn.Linear):
        kind = type(layer).__name__
        raise TypeError(f"only plain layers can lose heads, got {kind}; decompress first{where(name)}")
    weight = layer.weight.detach().index_select(axis, places.to(layer.weight.device))
    part = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=False)
    part.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    return part.train(layer.training)
