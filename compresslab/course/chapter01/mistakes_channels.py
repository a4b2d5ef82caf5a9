"""Typical wrong answers to exercises 1.9 to 1.13: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_channels.py`.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from compresslab.course.chapter01.references import remove_channels, take


# -- 1.9 remove_channels -----------------------------------------------------------------------------

def bn_statistics_kept(conv, bn, following, keep):
    conv, small, following = remove_channels(conv, bn, following, keep)
    small.running_mean, small.running_var = bn.running_mean.clone(), bn.running_var.clone()
    return conv, small, following


def bn_kept(conv, bn, following, keep):
    conv, _, following = remove_channels(conv, bn, following, keep)
    return conv, copy.deepcopy(bn), following


def consumer_kept(conv, bn, following, keep):
    conv, bn, _ = remove_channels(conv, bn, following, keep)
    return conv, bn, copy.deepcopy(following)


def bias_kept(conv, bn, following, keep):
    small, bn, following = remove_channels(conv, bn, following, keep)
    small.bias = copy.deepcopy(conv.bias)
    return small, bn, following


def removed_the_kept(conv, bn, following, keep):
    others = torch.tensor([c for c in range(conv.out_channels) if c not in keep.tolist()], dtype=torch.long)
    return remove_channels(conv, bn, following, others)


def _with_columns(conv, bn, following, keep, columns):
    small, bn, cut = remove_channels(conv, bn, following, keep)
    if isinstance(following, nn.Linear):
        cut.weight, cut.in_features = take(following.weight, columns, axis=1), len(columns)
    return small, bn, cut


def first_columns(conv, bn, following, keep):
    pixels = getattr(following, "in_features", 0) // conv.out_channels
    return _with_columns(conv, bn, following, keep, torch.arange(len(keep) * pixels))


def one_column_per_channel(conv, bn, following, keep):
    return _with_columns(conv, bn, following, keep, keep)


def pixels_outside(conv, bn, following, keep):
    pixels = getattr(following, "in_features", 0) // conv.out_channels
    columns = (torch.arange(pixels)[:, None] * conv.out_channels + keep).flatten()
    return _with_columns(conv, bn, following, keep, columns)


def numbers_not_updated(conv, bn, following, keep):
    small, small_bn, cut = remove_channels(conv, bn, following, keep)
    small.out_channels, small_bn.num_features = conv.out_channels, bn.num_features
    if isinstance(cut, nn.Conv2d):
        cut.in_channels = following.in_channels
    else:
        cut.in_features = following.in_features
    return small, small_bn, cut


# -- 1.10 silence_channels ---------------------------------------------------------------------------

def _leak(bn, channels):
    return F.relu(bn.bias - bn.weight * bn.running_mean / torch.sqrt(bn.running_var + bn.eps))[channels].detach()


def _silence(conv, bn, channels, *, gamma=True, beta=True):
    conv, bn = copy.deepcopy((conv, bn))
    conv.weight.data[channels] = 0
    if gamma:
        bn.weight.data[channels] = 0
    if beta:
        bn.bias.data[channels] = 0
    return conv, bn


def filter_only(conv, bn, channels):
    return *_silence(conv, bn, channels, gamma=False, beta=False), _leak(bn, channels)


def gamma_only(conv, bn, channels):
    return *_silence(conv, bn, channels, beta=False), _leak(bn, channels)


def beta_only(conv, bn, channels):
    return *_silence(conv, bn, channels, gamma=False), _leak(bn, channels)


def leak_is_beta(conv, bn, channels):
    return *_silence(conv, bn, channels), F.relu(bn.bias)[channels].detach()


def leak_before_relu(conv, bn, channels):
    leak = bn.bias - bn.weight * bn.running_mean / torch.sqrt(bn.running_var + bn.eps)
    return *_silence(conv, bn, channels), leak[channels].detach()


def leak_by_variance(conv, bn, channels):
    leak = F.relu(bn.bias - bn.weight * bn.running_mean / (bn.running_var + bn.eps))
    return *_silence(conv, bn, channels), leak[channels].detach()


def leak_after_silencing(conv, bn, channels):
    conv, bn = _silence(conv, bn, channels)
    return conv, bn, _leak(bn, channels)


def leak_of_all(conv, bn, channels):
    return *_silence(conv, bn, channels), _leak(bn, slice(None))


# -- 1.12 coupled_layers -----------------------------------------------------------------------------

def pairs_only(layers, adds):
    inside = {layer for pair in adds for layer in pair}
    return sorted([sorted(set(pair)) for pair in adds] + [[layer] for layer in layers if layer not in inside])


def never_merged(layers, adds):
    groups = []
    for a, b in adds:
        found = next((group for group in groups if a in group or b in group), None)
        if found is None:
            groups.append({a, b})
        else:
            found |= {a, b}
    inside = {layer for group in groups for layer in group}
    return sorted([sorted(group) for group in groups] + [[layer] for layer in layers if layer not in inside])


def _merged(layers, adds):
    groups = [{layer} for layer in layers]
    for a, b in adds:
        first, second = ([g for g in groups if layer in g][0] for layer in (a, b))
        if first is not second:
            groups.remove(second)
            first |= second
    return sorted(sorted(group) for group in groups)


def loners_lost(layers, adds):
    return [group for group in _merged(layers, adds) if len(group) > 1]


def one_big_group(layers, adds):
    inside = sorted({layer for pair in adds for layer in pair})
    return sorted(([inside] if inside else []) + [[layer] for layer in layers if layer not in inside])


def nothing_coupled(layers, adds):
    return [[layer] for layer in sorted(layers)]


# -- 1.11 taylor_importance --------------------------------------------------------------------------

def absolute_inside(y, g):
    return (y * g).abs().sum(dim=(0, 2, 3)) ** 2


def squared_inside(y, g):
    return (y * g).square().sum(dim=(0, 2, 3))


def squared_per_image(y, g):
    return (y * g).sum(dim=(2, 3)).square().sum(0)


def not_squared(y, g):
    return (y * g).sum(dim=(0, 2, 3))


def gradient_alone(y, g):
    return g.sum(dim=(0, 2, 3)) ** 2


def averaged(y, g):
    return (y * g).mean(dim=(0, 2, 3)) ** 2


def per_image(y, g):
    return (y * g).sum(dim=(1, 2, 3)) ** 2


# -- 1.13 nm_mask ------------------------------------------------------------------------------------

def _check_blocks(weight, m):
    if weight.shape[1] % m:
        raise ValueError


def _choose(blocks, count):
    kept = blocks.argsort(dim=1, descending=True)[:, :count]
    return torch.zeros_like(blocks, dtype=torch.bool).scatter(1, kept, True)


def along_outputs(weight, n, m):
    _check_blocks(weight, m)
    if weight.shape[0] % m:
        raise RuntimeError
    return _choose(weight.T.abs().reshape(-1, m), n).view(weight.T.shape).T


def pruned_n(weight, n, m):
    _check_blocks(weight, m)
    return _choose(weight.abs().reshape(-1, m), m - n).view(weight.shape)


def kept_smallest_of_block(weight, n, m):
    _check_blocks(weight, m)
    return _choose(-weight.abs().reshape(-1, m), n).view(weight.shape)


def signed_blocks(weight, n, m):
    _check_blocks(weight, m)
    return _choose(weight.reshape(-1, m), n).view(weight.shape)


def best_of_all(weight, n, m):
    _check_blocks(weight, m)
    return _choose(weight.abs().reshape(1, -1), weight.numel() * n // m).view(weight.shape)


def block_threshold(weight, n, m):
    _check_blocks(weight, m)
    blocks = weight.abs().reshape(-1, m)
    return (blocks >= blocks.sort(dim=1, descending=True).values[:, n - 1: n]).view(weight.shape)


def blocks_across_rows(weight, n, m):
    return _choose(weight.abs().reshape(-1, m), n).view(weight.shape)
