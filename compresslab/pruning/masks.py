r"""From scores to masks: which weights stay, exactly how many, and how the answer is held while training.

Every method of this family that zeroes single weights ends here. The methods differ in the *score* they give
a weight; the rest is the same three steps: rank the scores, drop the lowest, hold the mask.

A threshold alone is the obvious way to drop the lowest ``k`` scores, and it is wrong: with ties it drops more
than ``k``. Here the threshold is the ``k``-th lowest score, and of the scores that equal it only as many fall as
are missing, the first of a row. So the count is exact, and the masks of growing sparsities are nested.
"""

import copy
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.errors import check_fraction, check_int
from compresslab.core.modules import apply_mask_, get_mask, named_layers


def keep_mask(scores: Tensor, sparsity: float, *, per_row: bool = False) -> Tensor:
    r"""Mask that drops exactly :math:`\mathrm{round}(sn)` of the ``n`` lowest scores.

    Args:
        scores: any shape; a higher score is more worth keeping.
        sparsity: fraction ``s`` in [0, 1] to drop.
        per_row: compare within each row (axis 0) only, so that all rows are equally sparse.

    Returns:
        bool, the shape of ``scores``; True keeps. Raising ``sparsity`` only ever turns True into False.

    Raises:
        ValueError: ``sparsity`` outside [0, 1], or a score is nan.

    Example:
        >>> keep_mask(torch.tensor([3.0, 1.0, 1.0, 1.0]), 0.5)
        tensor([ True, False, False,  True])
    """
    check_fraction("sparsity", sparsity)
    if torch.isnan(scores).any():
        raise ValueError("scores must be numbers, got nan; check the weights and the data")
    rows = (scores.flatten(1) if per_row else scores.reshape(1, -1)).contiguous()
    drop = round(sparsity * rows.shape[1])
    if drop == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = _kth_lowest(rows, drop)
    fallen = rows <= threshold
    surplus = fallen.sum(1) - drop
    if surplus.any():  # of the scores that equal the threshold, the last ones of a row stay
        tied = (rows == threshold).flatten().nonzero().flatten()
        row = tied // rows.shape[1]
        left = row.bincount(minlength=len(rows)).cumsum(0)[row] - torch.arange(len(tied), device=row.device)
        fallen.view(-1)[tied[left <= surplus[row]]] = False
    return fallen.logical_not_().view(scores.shape)


def _kth_lowest(rows: Tensor, k: int) -> Tensor:
    """The ``k``-th lowest entry of each row, (R, 1), without sorting: numpy selects several times as fast as torch."""
    rows = rows.detach()
    if rows.is_cuda:
        return rows.kthvalue(k, dim=1, keepdim=True).values
    wide = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows  # numpy has no bfloat16
    lowest = np.partition(wide.numpy(), k - 1, axis=1)[:, k - 1 : k]
    return torch.from_numpy(lowest.copy()).to(rows.dtype)


def mask_layers_(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Hold the masked weights of named layers at zero, in place; what is masked already stays masked.

    Args:
        model: the network.
        masks: layer name -> bool mask of the weight's shape; True keeps.

    Raises:
        ValueError: an unknown layer, or a mask of another shape.
    """
    layers = named_layers(model, only=masks)
    for name, layer in layers.items():
        if masks[name].shape != layer.weight.shape:
            got, want = tuple(masks[name].shape), tuple(layer.weight.shape)
            raise ValueError(f"mask must have the weight's shape {want}, got {got} in layer '{name}'")
    for name, layer in layers.items():
        before = get_mask(layer)
        apply_mask_(layer, masks[name] if before is None else masks[name] & before)


def mask_layers(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Copy of ``model`` with the masked weights of named layers held at zero; see :func:`mask_layers_`."""
    model = copy.deepcopy(model)
    mask_layers_(model, masks)
    return model


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """The masks that a model holds: layer name -> bool mask. Layers without a mask are left out."""
    masks = {name: get_mask(layer) for name, layer in named_layers(model).items()}
    return {name: mask for name, mask in masks.items() if mask is not None}


def prune_by_score_(
    model: nn.Module, scores: Mapping[str, Tensor], sparsity: float, *, scope: str = "layer"
) -> None:
    """Mask the weights of lowest score, in place.

    Args:
        model: the network.
        scores: layer name -> score of every weight, in the weight's shape.
        sparsity: fraction in [0, 1] of the scored weights that shall be masked, those masked before included.
        scope: ``"layer"`` drops this fraction of every layer; ``"global"`` compares weights across layers, so
            that layers end up unequally sparse.

    Raises:
        ValueError: a bad sparsity or scope, an unknown layer, scores of another shape.
    """
    scored = named_layers(model, only=scores)
    live = {name: live_scores(layer, scores[name]) for name, layer in scored.items()}
    if scope == "layer":
        masks = {name: keep_mask(score, sparsity) for name, score in live.items()}
    elif scope == "global":
        everything = torch.cat([score.flatten() for score in live.values()]) if live else torch.empty(0)
        parts = keep_mask(everything, sparsity).split([score.numel() for score in live.values()])
        masks = {name: part.view(live[name].shape) for name, part in zip(live, parts, strict=True)}
    else:
        raise ValueError(f'scope must be "layer" or "global", got {scope!r}')
    mask_layers_(model, masks)


def prune_by_score(
    model: nn.Module, scores: Mapping[str, Tensor], sparsity: float, *, scope: str = "layer"
) -> nn.Module:
    """Copy of ``model`` with the weights of lowest score masked; see :func:`prune_by_score_`."""
    model = copy.deepcopy(model)
    prune_by_score_(model, scores, sparsity, scope=scope)
    return model


def live_scores(layer: nn.Module, scores: Tensor) -> Tensor:
    """``scores``, with minus infinity at weights that are masked already, so that these go first."""
    mask = get_mask(layer)
    return scores if mask is None or mask.shape != scores.shape else scores.masked_fill(~mask, -torch.inf)


def trainable_weight(layer: nn.Module) -> nn.Parameter:
    """The parameter that an optimizer moves: in a masked layer, the weight behind the mask."""
    if parametrize.is_parametrized(layer, "weight"):
        return layer.parametrizations["weight"].original
    return layer.weight


def layer_sparsity(model: nn.Module) -> dict[str, float]:
    """Fraction of exact zeros in each layer's weight, as the forward pass sees it; biases are not counted."""
    return {name: (layer.weight == 0).double().mean().item() for name, layer in named_layers(model).items()}


def sparsity_of(model: nn.Module) -> float:
    """Fraction of exact zeros in the weights of all linear and convolutional layers, biases left out.

    Raises:
        ValueError: the model has no such layer.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> sparsity_of(mask_layers(nn.Sequential(layer), {"0": torch.tensor([[True, False]])}))
        0.5
    """
    weights = [layer.weight for layer in named_layers(model).values()]
    if not weights:
        raise ValueError("the model has no Linear, Conv1d or Conv2d layer whose sparsity could be measured")
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def random_masks(model: nn.Module, *, like: nn.Module, seed: int = 0) -> nn.Module:
    """The control experiment: mask as many weights of every layer as in ``like``, but at random places.

    A criterion earns its keep only if it beats this. Su et al. found that several methods which prune at
    initialization do not: what they find is a good ratio for each layer, not the right weights.

    Args:
        model: the network to mask, usually the dense one. Weights it has masked already count and stay
            masked.
        like: a pruned network with the same layers; its zeros are counted layer by layer.
        seed: of the random order.

    Returns:
        A copy of ``model`` with random masks.

    Raises:
        ValueError: the two models' layers differ.

    Source: J. Su et al., "Sanity-Checking Pruning Methods: Random Tickets Can Win the Jackpot", NeurIPS 2020.
    """
    check_int("seed", seed, 0)
    generator = torch.Generator().manual_seed(seed)
    layers, likes = named_layers(model), named_layers(like)
    if {n: la.weight.shape for n, la in layers.items()} != {n: la.weight.shape for n, la in likes.items()}:
        raise ValueError("model and like must have the same layers with weights of the same shapes")
    masks = {}
    for name, layer in layers.items():
        scores = torch.rand(layer.weight.shape, generator=generator).to(layer.weight.device)
        zeros = int((likes[name].weight == 0).sum())
        if zeros:
            masks[name] = keep_mask(live_scores(layer, scores), zeros / scores.numel())
    return mask_layers(model, masks)


def weight_layers(
    model: nn.Module, only: Collection[str] | None, skip: Collection[str]
) -> dict[str, nn.Module]:
    """The layers a pruning method works on; like ``named_layers``, but an empty choice is an error.

    Raises:
        ValueError: an unknown name, or nothing left to prune.
    """
    layers = named_layers(model, only=only, skip=skip)
    if not layers:
        raise ValueError("nothing to prune: no Linear, Conv1d or Conv2d layer is left by only and skip")
    return layers
