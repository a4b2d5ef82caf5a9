"""The reference answers of chapter 01.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


# -- which weights go ------------------------------------------------------------------------------

def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """1.1: bool mask, the shape of weight; exactly round(sparsity * n) of the smallest weights are False."""
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    n_pruned = round(sparsity * weight.numel())
    order = weight.abs().flatten().argsort(stable=True)
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[order[:n_pruned]] = False
    return mask.view(weight.shape)


def global_masks(weights: dict[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """1.2: one ranking over all layers; {name: mask}."""
    everything = torch.cat([weight.abs().flatten() for weight in weights.values()])
    parts = magnitude_mask(everything, sparsity).split([weight.numel() for weight in weights.values()])
    return {name: part.view(weights[name].shape) for name, part in zip(weights, parts)}


def sensitivity(model: nn.Module, evaluate: Callable[[nn.Module], float], sparsities: Sequence[float]) -> dict:
    """1.3: {layer name: [evaluate(model with only this layer pruned) for each sparsity]}."""
    curves = {}
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            curves[name] = []
            for sparsity in sparsities:
                pruned = copy.deepcopy(model)
                weight = pruned.get_submodule(name).weight
                weight.data *= magnitude_mask(weight.data, sparsity)
                curves[name].append(evaluate(pruned))
    return curves


# -- pruning and training ----------------------------------------------------------------------------

def cubic_sparsity(step: int, begin: int, end: int, final: float, initial: float = 0.0) -> float:
    """1.4: s_t of Zhu and Gupta: initial until begin, final from end on, a cubic between."""
    progress = min(max((step - begin) / (end - begin), 0.0), 1.0)
    return final + (initial - final) * (1 - progress) ** 3


def prune_in_training(model: nn.Module, batches: Iterable, prune_at: int, sparsity: float,
                      lr: float = 0.1, momentum: float = 0.9) -> nn.Module:
    """1.5: a trained copy; from step prune_at on, the masked weights are zero and stay zero."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    masks = {}
    for step, (x, y) in enumerate(batches):
        if step == prune_at:
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    masks[name] = magnitude_mask(parameter.detach(), sparsity)
                    parameter.data *= masks[name]
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, parameter in model.named_parameters():
            if name in masks:
                parameter.data *= masks[name]
    return model


def control_starts(trained: dict[str, Tensor], fresh: dict[str, Tensor], masks: dict[str, Tensor],
                   generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
    """1.6: the three starting points of the controls, {"inherited" | "random mask" | "from scratch": {layer: weight}}."""
    shuffled = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator)
        shuffled[name] = mask.flatten()[order].view(mask.shape)
    return {
        "inherited": {name: trained[name] * masks[name] for name in masks},
        "random mask": {name: trained[name] * shuffled[name] for name in masks},
        "from scratch": {name: fresh[name] * masks[name] for name in masks},
    }


# -- the file ----------------------------------------------------------------------------------------

def gap_encode(weight: Tensor, index_bits: int) -> Tensor:
    """1.7: the codes, int64; G = 2**index_bits - 1 means "skip G zeros, no weight here"."""
    escape = 2**index_bits - 1
    codes, last = [], -1
    for position in weight.flatten().nonzero().flatten().tolist():
        zeros = position - last - 1
        codes += [escape] * (zeros // escape) + [zeros % escape]
        last = position
    return torch.tensor(codes, dtype=torch.int64)


# -- second order ------------------------------------------------------------------------------------

def obs_remove(w: Tensor, H: Tensor, q: int) -> tuple[Tensor, float]:
    """1.8: set w[q] to zero, move the others to make up for it; (new w, rise of the loss)."""
    H_inv = torch.linalg.inv(H)
    rise = w[q] ** 2 / (2 * H_inv[q, q])
    w = w - w[q] / H_inv[q, q] * H_inv[:, q]
    w[q] = 0
    return w, float(rise)


# -- channels ----------------------------------------------------------------------------------------

def take(parameter: Tensor, keep: Tensor, axis: int = 0) -> nn.Parameter:
    """Given in the notebook: the entries `keep` along one axis, as a new parameter."""
    return nn.Parameter(parameter.detach().index_select(axis, keep).clone())


def remove_channels(conv: nn.Conv2d, bn: nn.BatchNorm2d, following: nn.Module, keep: Tensor) -> tuple:
    """1.9: smaller copies of conv, bn and the layer that reads them, with the channels `keep` only."""
    channels = conv.out_channels
    conv, bn, following = copy.deepcopy((conv, bn, following))
    conv.weight, conv.out_channels = take(conv.weight, keep), len(keep)
    if conv.bias is not None:
        conv.bias = take(conv.bias, keep)
    bn.weight, bn.bias, bn.num_features = take(bn.weight, keep), take(bn.bias, keep), len(keep)
    bn.running_mean, bn.running_var = bn.running_mean[keep], bn.running_var[keep]
    if isinstance(following, nn.Conv2d):
        following.weight, following.in_channels = take(following.weight, keep, axis=1), len(keep)
    else:
        pixels = following.in_features // channels
        columns = (keep[:, None] * pixels + torch.arange(pixels)).flatten()
        following.weight, following.in_features = take(following.weight, columns, axis=1), len(columns)
    return conv, bn, following


def silence_channels(conv: nn.Conv2d, bn: nn.BatchNorm2d, channels: Tensor) -> tuple:
    """1.10: copies of conv and bn in which these channels are silent, and what each leaks if only its filter is zero."""
    conv, bn = copy.deepcopy((conv, bn))
    std = torch.sqrt(bn.running_var + bn.eps)
    leak = F.relu(bn.bias - bn.weight * bn.running_mean / std)[channels].detach()
    for parameter in (conv.weight, bn.weight, bn.bias):
        parameter.data[channels] = 0
    return conv, bn, leak


def coupled_layers(layers: Sequence[str], adds: Sequence[tuple[str, str]]) -> list[list[str]]:
    """1.12: groups of layers whose output channels must be removed together; each group and the list sorted."""
    groups = [{layer} for layer in layers]
    for a, b in adds:
        first = next(group for group in groups if a in group)
        second = next(group for group in groups if b in group)
        if first is not second:
            groups.remove(second)
            first |= second
    return sorted(sorted(group) for group in groups)


def taylor_importance(y: Tensor, g: Tensor) -> Tensor:
    """1.11: (C,), squared first-order change of the loss when channel c of the feature map y is switched off."""
    return (y * g).sum(dim=(0, 2, 3)) ** 2


def nm_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """1.13: keep the n largest of every m neighbours in a row of a (O, I) weight."""
    if weight.shape[1] % m:
        raise ValueError(f"m={m} does not divide the {weight.shape[1]} inputs")
    blocks = weight.abs().reshape(-1, m)
    kept = blocks.argsort(dim=1, descending=True)[:, :n]
    return torch.zeros_like(blocks, dtype=torch.bool).scatter(1, kept, True).view(weight.shape)
