"""Right answers to exercises 2.10 to 2.17 that look different from the references: every check must let them pass."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import torch
from torch import nn


# -- 2.10 --------------------------------------------------------------------------------------------

def rounding_in_a_loop(w, scale, H):
    best, least = None, math.inf
    for choice in itertools.product((torch.floor, torch.ceil), repeat=len(w)):
        q = torch.stack([way(x / scale) for way, x in zip(choice, w)])
        error = float((scale * q - w) @ H @ (scale * q - w))
        if error < least:
            best, least = q, error
    return best


def rounding_through_a_root(w, scale, H):
    """|| L' d ||^2 = d'Hd with H = L L'; in double precision."""
    L = torch.linalg.cholesky(H.double())
    ups = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * len(w)).view(-1, len(w))
    q = torch.floor(w.double() / scale) + ups
    return q[((scale * q - w.double()) @ L).norm(dim=1).argmin()].long()


# -- 2.11 --------------------------------------------------------------------------------------------

class _Staircase(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, scale, qmin, qmax):
        v = w / scale
        ctx.save_for_backward((v >= qmin) & (v <= qmax))
        return torch.clamp(torch.round(v), qmin, qmax) * scale

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0], None, None, None


def fake_by_a_function(w, scale, qmin, qmax):
    return _Staircase.apply(w, scale, qmin, qmax)


def fake_with_a_mask(w, scale, qmin, qmax):
    q = (w.detach() / scale).round().clamp(qmin, qmax) * scale
    inside = (w >= qmin * scale) & (w <= qmax * scale)
    return q + (w - w.detach()) * inside


def fake_with_two_detached(w, scale, qmin, qmax):
    clipped = torch.clamp(w / scale, qmin, qmax) * scale
    return clipped + (scale * torch.clamp(torch.round(w / scale), qmin, qmax)).detach() - clipped.detach()


# -- 2.12 --------------------------------------------------------------------------------------------

def lsq_by_autograd(w, step, upstream, qn, qp):
    s = torch.tensor(float(step), requires_grad=True)
    v = w / s
    v = torch.where((v > -qn) & (v < qp), v, v.detach().clamp(-qn, qp))      # on the edge the value is fixed, too
    simulated = (v + (v.round() - v).detach()) * s
    (slope,) = torch.autograd.grad((simulated * upstream).sum(), s)
    return slope / math.sqrt(w.numel() * qp)


def lsq_in_a_loop(w, step, upstream, qn, qp):
    total = 0.0
    for x, g in zip(w.flatten().tolist(), upstream.flatten().tolist()):
        v = x / step
        total += g * (-qn if v <= -qn else qp if v >= qp else round(v) - v)
    return total / math.sqrt(w.numel() * qp)


# -- 2.13 --------------------------------------------------------------------------------------------

def ternary_by_trying_thresholds(w):
    best, least = (torch.zeros_like(w), 0.0), float((w**2).sum())
    for threshold in w.abs().unique():
        kept = w.abs() >= threshold
        alpha = float(w.abs()[kept].mean())
        error = float(((w - alpha * w.sign() * kept) ** 2).sum())
        if error < least:
            best, least = (w.sign() * kept, alpha), error
    return best


def ternary_by_the_root(w):
    """argmax of sum / sqrt(k) is that of sum^2 / k."""
    size = w.abs().reshape(-1).double().sort(descending=True).values
    score = size.cumsum(0) / torch.arange(1, w.numel() + 1).sqrt()
    k = int(score.argmax()) + 1
    alpha = size[:k].mean()
    return torch.where(w.abs() >= size[k - 1].float(), w.sign(), 0.0), alpha


# -- 2.14 --------------------------------------------------------------------------------------------

def dot_by_unpacking(a, b, n):
    def signs(words):
        bits = (words[..., None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
        return 2 * bits.reshape(*words.shape[:-1], -1)[..., :n].astype(np.int64) - 1
    return (signs(a) * signs(b)).sum(-1)


def dot_by_matches(a, b, n):
    """Agreements minus differences, with the padding taken off."""
    agree = np.bitwise_count(~(a ^ b)).sum(axis=-1).astype(np.int64) - (64 * a.shape[-1] - n)
    return agree - (n - agree)


# -- 2.15 --------------------------------------------------------------------------------------------

def lloyd_with_bincount(values, codebook):
    middles = (codebook[1:] + codebook[:-1]) / 2
    indices = torch.bucketize(values, middles)
    count = torch.bincount(indices, minlength=len(codebook))
    total = torch.bincount(indices, weights=values.double(), minlength=len(codebook))
    return indices, torch.where(count > 0, total / count.clamp(min=1), codebook.double()).float()


def lloyd_one_by_one(values, codebook):
    levels = codebook.tolist()
    indices = [min(range(len(levels)), key=lambda k: (levels[k] - v) ** 2) for v in values.tolist()]
    for k in set(indices):
        members = [v for v, i in zip(values.tolist(), indices) if i == k]
        levels[k] = sum(members) / len(members)
    return torch.tensor(indices), torch.tensor(levels)


# -- 2.16 --------------------------------------------------------------------------------------------

def allocate_by_enumeration(errors, sizes, budget):
    best, least = None, math.inf
    for bits in itertools.product(*(errors[layer] for layer in sizes)):
        error = sum(errors[layer][b] for layer, b in zip(sizes, bits))
        if sum(size * b for size, b in zip(sizes.values(), bits)) <= budget and error < least:
            best, least = dict(zip(sizes, bits)), error
    if best is None:
        raise ValueError("the budget is too small")
    return best


def allocate_by_milp(errors, sizes, budget):
    """One yes or no for each layer and number of bits; each layer has exactly one yes."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    pairs = [(layer, bits) for layer in sizes for bits in errors[layer]]
    one_each = np.array([[float(layer == other) for layer, _ in pairs] for other in sizes])
    cost = np.array([[sizes[layer] * bits for layer, bits in pairs]], dtype=float)
    found = milp(np.array([errors[layer][bits] for layer, bits in pairs]), integrality=np.ones(len(pairs)), bounds=Bounds(0, 1),
                 constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(cost, -np.inf, budget)], options={"mip_rel_gap": 0})
    if found.x is None:
        raise ValueError("no choice fits")
    return {layer: bits for (layer, bits), yes in zip(pairs, found.x) if yes > 0.5}


# -- 2.17 --------------------------------------------------------------------------------------------

def report_with_own_hooks(model, calibration_x, test_x, test_y, bits=8):
    model = copy.deepcopy(model)
    model.eval()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    qmax, ranges = 2 ** (bits - 1) - 1, {}
    handles = []
    for name, layer in layers.items():
        handles.append(layer.register_forward_hook(
            lambda layer, inputs, output, name=name: ranges.update({name: float(inputs[0].abs().max())})))
    model(calibration_x)
    for handle in handles:
        handle.remove()
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda layer, inputs, s=ranges[name] / qmax: (
            torch.clamp((inputs[0] / s).round(), -qmax, qmax).to(torch.int8).float() * s,))
    return (model(test_x).argmax(1) == test_y).float().mean().item(), ranges


def report_and_tidy_up(model, calibration_x, test_x, test_y, bits=8):
    """On the caller's model, every module put back into its mode."""
    from compresslab.course.chapter02.references_training import run_with
    modes = {module: module.training for module in model.modules()}
    model.eval()
    top, ranges = 2 ** (bits - 1) - 1, {}
    run_with(model, calibration_x, lambda name, x: ranges.update({name: float(x.abs().max())}))
    outputs = run_with(model, test_x, lambda name, x: (x * top / ranges[name]).round().clamp(-top, top) * ranges[name] / top)
    for module, mode in modes.items():
        module.training = mode
    return (outputs.argmax(1) == test_y).double().mean(), ranges


def report_without_int8(model, calibration_x, test_x, test_y, bits=8):
    from compresslab.course.chapter02.references_training import run_with
    model = copy.deepcopy(model).train(False)
    top = 2 ** (bits - 1) - 1
    ranges: dict[str, float] = {}
    run_with(model, calibration_x, lambda name, x: ranges.update({name: x.abs().max().item()}))
    outputs = run_with(model, test_x, lambda name, x: (x * top / ranges[name]).round().clamp(-top, top) * ranges[name] / top)
    return float((outputs.argmax(1) == test_y).sum()) / len(test_y), ranges
