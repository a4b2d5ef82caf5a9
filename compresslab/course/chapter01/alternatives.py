"""Right answers that look different from the references: every check must let them pass."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from compresslab.course.chapter01.references import global_masks, magnitude_mask


def mask_with_topk(weight, sparsity):
    if not (sparsity >= 0 and sparsity <= 1):
        raise ValueError("sparsity")
    n = weight.numel()
    kept = weight.reshape(-1).abs().topk(n - round(sparsity * n)).indices
    return torch.zeros(n).index_fill(0, kept, 1.0).bool().reshape(weight.shape)


def mask_in_a_loop(weight, sparsity):
    if sparsity != sparsity or sparsity < 0 or sparsity > 1:
        raise ValueError("sparsity")
    sizes = [abs(w) for w in weight.flatten().tolist()]
    mask = [True] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: (sizes[i], -i))[: round(sparsity * len(sizes))]:
        mask[i] = False
    return torch.tensor(mask, dtype=torch.bool).reshape(weight.shape)


def global_in_a_loop(weights, sparsity):
    ranked = sorted((abs(w), name, i) for name, weight in weights.items() for i, w in enumerate(weight.flatten().tolist()))
    masks = {name: torch.ones(weight.numel(), dtype=torch.bool) for name, weight in weights.items()}
    for _, name, i in ranked[: round(sparsity * len(ranked))]:
        masks[name][i] = False
    return {name: masks[name].view(weight.shape) for name, weight in weights.items()}


def sensitivity_with_restoring(model, evaluate, sparsities):
    model, curves = copy.deepcopy(model), {}
    for name, layer in model.named_modules():
        if hasattr(layer, "weight") and layer.weight.dim() > 1:
            dense = layer.weight.data.clone()
            points = []
            for sparsity in sparsities:
                layer.weight.data = dense * global_masks({"w": dense}, sparsity)["w"]
                points.append(evaluate(model))
            layer.weight.data = dense
            curves[name] = tuple(points)
    return curves


def cubic_by_cases(step, begin, end, final, initial=0.0):
    if step <= begin:
        return initial
    return final if step >= end else final - (final - initial) * ((end - step) / (end - begin)) ** 3


def prune_by_clearing_momentum(model, batches, prune_at, sparsity, lr=0.1, momentum=0.9):
    """Masks the gradient and the momentum instead of the weight: nothing is left that could move it."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    masks = {}
    for step, (x, y) in enumerate(batches):
        if step == prune_at:
            for p in model.parameters():
                if p.dim() > 1:
                    masks[p] = magnitude_mask(p.detach(), sparsity)
                    p.data.mul_(masks[p])
                    if "momentum_buffer" in optimizer.state[p]:
                        optimizer.state[p]["momentum_buffer"].mul_(masks[p])
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        for p, mask in masks.items():
            p.grad.mul_(mask)
        optimizer.step()
    return model


def starts_with_scattered_ones(trained, fresh, masks, generator):
    random_masks = {}
    for name, mask in masks.items():
        places = torch.rand(mask.numel(), generator=generator).argsort()[: int(mask.sum())]
        random_masks[name] = torch.zeros(mask.numel()).index_fill(0, places, 1.0).reshape(mask.shape)
    return {"from scratch": {n: fresh[n] * m for n, m in masks.items()},
            "random mask": {n: trained[n] * m for n, m in random_masks.items()},
            "inherited": {n: trained[n].masked_fill(~m, 0.0) for n, m in masks.items()}}


def gaps_by_walking(weight, index_bits):
    escape, codes, pending, zeros = 2**index_bits - 1, [], [], 0
    for value in weight.flatten().tolist():
        if value != 0:
            codes += [*pending, zeros]
            pending, zeros = [], 0
        else:
            zeros += 1
            if zeros == escape:
                pending, zeros = [*pending, escape], 0
    return torch.tensor(codes, dtype=torch.int32)


def gaps_vectorised(weight, index_bits):
    escape = 2**index_bits - 1
    places = torch.cat([torch.tensor([-1]), weight.flatten().nonzero().flatten()])
    zeros = places.diff() - 1
    codes = torch.full((int((zeros // escape + 1).sum()),), escape)
    codes[(zeros // escape + 1).cumsum(0) - 1] = zeros % escape
    return codes


def obs_by_solving(w, H, q):
    """The constrained minimiser itself: solve for the other weights, the removed one held at zero."""
    free = [i for i in range(len(w)) if i != q]
    step = torch.zeros_like(w)
    step[q] = -w[q]
    step[free] = torch.linalg.solve(H[free][:, free], H[free, q] * w[q])
    new = w + step
    new[q] = 0.0
    return new, step @ H @ step / 2


def remove_by_rebuilding(conv, bn, following, keep):
    n = len(keep)
    new = nn.Conv2d(conv.in_channels, n, conv.kernel_size, conv.stride, conv.padding, bias=conv.bias is not None)
    new_bn = nn.BatchNorm2d(n, eps=bn.eps)
    with torch.no_grad():
        for target, source in ((new, conv), (new_bn, bn)):
            for key, value in source.state_dict().items():
                target.state_dict()[key].copy_(value[keep] if value.dim() else value)
        if isinstance(following, nn.Linear):
            per = following.in_features // conv.out_channels
            last = nn.Linear(n * per, following.out_features, bias=following.bias is not None)
            last.weight.copy_(following.weight.view(following.out_features, conv.out_channels, per)[:, keep].flatten(1))
        else:
            last = nn.Conv2d(n, following.out_channels, following.kernel_size, following.stride, following.padding,
                             bias=following.bias is not None)
            last.weight.copy_(following.weight[:, keep])
        if following.bias is not None:
            last.bias.copy_(following.bias)
    return new.eval(), new_bn.eval(), last.eval()


def silence_by_masking(conv, bn, channels):
    quiet, quiet_bn = copy.deepcopy(conv), copy.deepcopy(bn)
    on = torch.ones(conv.out_channels).index_fill(0, channels, 0.0)
    with torch.no_grad():
        quiet.weight.mul_(on.view(-1, 1, 1, 1))
        quiet_bn.weight.mul_(on)
        quiet_bn.bias.mul_(on)
        leak = bn(torch.zeros(1, conv.out_channels, 1, 1)).relu()[0, :, 0, 0] if not bn.training else None
    return quiet, quiet_bn, leak[channels]


def coupled_by_spreading(layers, adds):
    label = {layer: i for i, layer in enumerate(layers)}
    for _ in layers:
        for a, b in adds:
            label[a] = label[b] = min(label[a], label[b])
    return [{layer for layer in layers if label[layer] == number} for number in set(label.values())]


def taylor_by_einsum(y, g):
    return torch.einsum("nchw,nchw->c", y, g).square()


def nm_with_topk(weight, n, m):
    if weight.shape[1] % m != 0:
        raise ValueError("m")
    rows = torch.zeros(weight.shape, dtype=torch.bool)
    for start in range(0, weight.shape[1], m):
        best = weight[:, start:start + m].abs().topk(n, dim=1).indices
        rows[:, start:start + m] = rows[:, start:start + m].scatter(1, best, True)
    return rows
