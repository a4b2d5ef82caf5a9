"""Reference answers to exercises 9.1 to 9.3. Their bodies are the notebook's solution regions, word for word."""

from __future__ import annotations

import math

import torch


def bits_per_character(logits, targets):
    """A float: the mean of -log2 p(target); logits (B, L, V), targets (B, L) int64."""
    log_p = logits.double().log_softmax(dim=-1)
    surprise = -log_p.gather(-1, targets.unsqueeze(-1))
    return float(surprise.mean() / math.log(2))


def balanced_mask(weight, sparsity, blocks):
    """bool, the shape of weight, True keeps: each element's share of n weights loses exactly round(sparsity * n)."""
    mask = torch.ones_like(weight, dtype=torch.bool)
    for k in range(blocks):
        share = weight[k::blocks]
        drop = round(sparsity * share.numel())
        lowest = share.abs().flatten().argsort(stable=True)[:drop]
        kept = torch.ones(share.numel(), dtype=torch.bool)
        kept[lowest] = False
        mask[k::blocks] = kept.view_as(share)
    return mask


def project(weight_hh, head, rank):
    """(P, Z_hh, Z_head): P (rank, H), Z_hh (4H, rank) and Z_head (V, rank) with the least sum of squared errors."""
    stacked = torch.cat([weight_hh, head])
    _, _, Vh = torch.linalg.svd(stacked, full_matrices=False)
    P = Vh[:rank]
    return P, weight_hh @ P.T, head @ P.T
