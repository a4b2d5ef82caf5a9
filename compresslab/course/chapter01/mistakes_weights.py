"""Typical wrong answers to exercises 1.1 to 1.4: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_weights.py`.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from compresslab.course.chapter01.references import magnitude_mask


# -- 1.1 magnitude_mask ------------------------------------------------------------------------------

def _by_order(weight, sparsity, order, count=round):
    if not 0 <= sparsity <= 1:
        raise ValueError
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[order[: count(sparsity * weight.numel())]] = False
    return mask.view(weight.shape)


def kept_smallest(weight, sparsity):
    return _by_order(weight, sparsity, weight.abs().flatten().argsort(descending=True, stable=True))


def forgot_abs(weight, sparsity):
    return _by_order(weight, sparsity, weight.flatten().argsort(stable=True))


def percent(weight, sparsity):
    return _by_order(weight, sparsity / 100, weight.abs().flatten().argsort(stable=True))


def truncated(weight, sparsity):
    return _by_order(weight, sparsity, weight.abs().flatten().argsort(stable=True), count=int)


def returned_weights(weight, sparsity):
    return weight * magnitude_mask(weight, sparsity)


def _threshold(weight, sparsity):
    if not 0 <= sparsity <= 1:
        raise ValueError
    k = round(sparsity * weight.numel())
    return weight.abs().flatten().sort().values[k - 1] if k else torch.tensor(-1.0)


def threshold_drops_ties(weight, sparsity):
    return weight.abs() > _threshold(weight, sparsity)


def threshold_keeps_ties(weight, sparsity):
    k = round(sparsity * weight.numel())
    if not 0 <= sparsity <= 1:
        raise ValueError
    if k == weight.numel():
        return torch.zeros(weight.shape, dtype=torch.bool)
    return weight.abs() >= weight.abs().flatten().sort().values[k]


def no_refusal(weight, sparsity):
    order = weight.abs().flatten().argsort(stable=True)
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[order[: round(sparsity * weight.numel())]] = False
    return mask.view(weight.shape)


# -- 1.2 global_masks --------------------------------------------------------------------------------

def one_threshold_per_layer(weights, sparsity):
    return {name: magnitude_mask(weight, sparsity) for name, weight in weights.items()}


def _global(scores, sparsity):
    parts = magnitude_mask(torch.cat([s.flatten() for s in scores.values()]), sparsity).split(
        [s.numel() for s in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts)}


def relative_to_the_largest(weights, sparsity):
    return _global({name: weight.abs() / weight.abs().max() for name, weight in weights.items()}, sparsity)


def largest_first(weights, sparsity):
    return {name: ~mask for name, mask in _global(weights, 1 - sparsity).items()}


def global_without_abs(weights, sparsity):
    everything = torch.cat([weight.flatten() for weight in weights.values()])
    order = everything.argsort(stable=True)
    keep = torch.ones(len(everything), dtype=torch.bool)
    keep[order[: round(sparsity * len(everything))]] = False
    parts = keep.split([weight.numel() for weight in weights.values()])
    return {name: part.view(weights[name].shape) for name, part in zip(weights, parts)}


def global_threshold_with_ties(weights, sparsity):
    everything = torch.cat([weight.abs().flatten() for weight in weights.values()])
    k = round(sparsity * len(everything))
    limit = everything.sort().values[k - 1] if k else torch.tensor(-1.0)
    return {name: weight.abs() > limit for name, weight in weights.items()}


# -- 1.3 sensitivity ---------------------------------------------------------------------------------

def _layers(model, types=(nn.Linear, nn.Conv2d)):
    return [name for name, layer in model.named_modules() if isinstance(layer, types)]


def _prune(model, name, sparsity):
    weight = model.get_submodule(name).weight
    weight.data *= magnitude_mask(weight.data, sparsity)
    return model


def never_copied(model, evaluate, sparsities):
    return {name: [evaluate(_prune(model, name, s)) for s in sparsities] for name in _layers(model)}


def one_copy_for_all_layers(model, evaluate, sparsities):
    return never_copied(copy.deepcopy(model), evaluate, sparsities)


def one_copy_per_layer(model, evaluate, sparsities):
    curves = {}
    for name in _layers(model):
        pruned = copy.deepcopy(model)
        curves[name] = [evaluate(_prune(pruned, name, s)) for s in sparsities]
    return curves


def all_layers_at_once(model, evaluate, sparsities):
    curves = {name: [] for name in _layers(model)}
    for s in sparsities:
        pruned = copy.deepcopy(model)
        for name in curves:
            _prune(pruned, name, s)
        for name in curves:
            curves[name].append(evaluate(pruned))
    return curves


def linear_layers_only(model, evaluate, sparsities):
    return {name: [evaluate(_prune(copy.deepcopy(model), name, s)) for s in sparsities]
            for name in _layers(model, nn.Linear)}


# -- 1.4 cubic_sparsity ------------------------------------------------------------------------------

def _progress(step, begin, end):
    return min(max((step - begin) / (end - begin), 0.0), 1.0)


def straight_line(step, begin, end, final, initial=0.0):
    return initial + (final - initial) * _progress(step, begin, end)


def slow_start(step, begin, end, final, initial=0.0):
    return initial + (final - initial) * _progress(step, begin, end) ** 3


def ignored_begin(step, begin, end, final, initial=0.0):
    return final + (initial - final) * (1 - min(step / end, 1.0)) ** 3


def not_held(step, begin, end, final, initial=0.0):
    return final + (initial - final) * (1 - (step - begin) / (end - begin)) ** 3


def ignored_initial(step, begin, end, final, initial=0.0):
    return final * (1 - (1 - _progress(step, begin, end)) ** 3)
