"""Right answers to exercises 9.1 to 9.3 that look different from the reference."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

# -- 9.1 ---------------------------------------------------------------------------------------------

def bits_by_cross_entropy(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) / torch.tensor(2.0).log()


def bits_by_loop(logits, targets):
    total = 0.0
    for window, row in zip(logits.double(), targets):
        for scores, target in zip(window, row.tolist()):
            total += float(scores.logsumexp(0) - scores[target])
    return total / targets.numel() / np.log(2)


def bits_in_base_2(logits, targets):
    scores = logits.double() * np.log2(np.e)
    log2_p = scores - torch.logsumexp(logits.double(), -1, keepdim=True) * np.log2(np.e)
    return (-log2_p * F.one_hot(targets, logits.shape[-1])).sum(-1).mean().item()


# -- 9.2 ---------------------------------------------------------------------------------------------

def masked_by_reshape(weight, sparsity, blocks):
    m, n = weight.shape
    shares = weight.abs().view(m // blocks, blocks, n).transpose(0, 1).reshape(blocks, -1)
    ranks = shares.argsort(1).argsort(1)
    kept = ranks >= round(sparsity * shares.shape[1])
    return kept.view(blocks, m // blocks, n).transpose(0, 1).reshape(m, n)


def masked_by_topk(weight, sparsity, blocks):
    mask = torch.zeros_like(weight, dtype=torch.bool)
    element = torch.arange(len(weight)) % blocks
    for k in range(blocks):
        rows = (element == k).nonzero().flatten()
        share = weight[rows].abs().flatten()
        best = share.topk(len(share) - round(sparsity * len(share))).indices
        kept = torch.zeros(len(share), dtype=torch.bool)
        kept[best] = True
        mask[rows] = kept.view(len(rows), -1)
    return mask


def masked_by_sorting(weight, sparsity, blocks):
    values, mask = weight.tolist(), torch.ones(weight.shape, dtype=torch.bool)
    for k in range(blocks):
        places = [(i, j) for i in range(k, len(values), blocks) for j in range(len(values[0]))]
        places.sort(key=lambda place: abs(values[place[0]][place[1]]))
        for i, j in places[: round(sparsity * len(places))]:
            mask[i, j] = False
    return mask


# -- 9.3 ---------------------------------------------------------------------------------------------

def project_by_eigenvectors(weight_hh, head, rank):
    gram = weight_hh.double().T @ weight_hh.double() + head.double().T @ head.double()
    P = torch.linalg.eigh(gram).eigenvectors[:, -rank:].T.float()
    return P, weight_hh @ P.T, head @ P.T


def project_evenly(weight_hh, head, rank):
    U, S, Vh = torch.linalg.svd(torch.cat([weight_hh, head]), full_matrices=False)
    root = S[:rank].sqrt()
    Z = U[:, :rank] * root
    return root[:, None] * Vh[:rank], Z[: len(weight_hh)], Z[len(weight_hh):]


def project_by_least_squares(weight_hh, head, rank):
    stacked = np.concatenate([weight_hh.numpy(), head.numpy()]).astype(float)
    U, _, _ = np.linalg.svd(stacked.T, full_matrices=False)
    P = 3 * U[:, :rank].T
    Z = np.linalg.lstsq(P.T, stacked.T, rcond=None)[0].T
    Z = torch.tensor(Z, dtype=torch.float32)
    return torch.tensor(P, dtype=torch.float32), Z[: len(weight_hh)], Z[len(weight_hh):]
