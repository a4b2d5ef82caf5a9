"""Right answers to exercises 5.1 to 5.6 that look different from the references: every check must let them pass."""

from __future__ import annotations

import math

import torch
from torch import nn


# -- 5.1 ---------------------------------------------------------------------------------------------

def split_all_left(weight, rank):
    if rank < 1 or rank > min(weight.shape):
        raise ValueError("a rank is at least 1 and at most the shorter side")
    U, S, V = torch.svd(weight)
    return U[:, :rank] @ torch.diag(S[:rank]), V[:, :rank].T


def split_by_eigh(weight, rank):
    if rank not in range(1, min(weight.shape) + 1):
        raise ValueError(f"no rank {rank}")
    U = torch.linalg.eigh(weight.double() @ weight.double().T).eigenvectors.flip(1)[:, :rank]
    return U.to(weight.dtype), (U.T @ weight.double()).to(weight.dtype)


def split_one_by_one(weight, rank):
    if not 0 < rank <= min(weight.shape):
        raise ValueError("no such rank")
    U, S, Vh = torch.linalg.svd(-weight.double())
    B, A = weight.new_zeros(len(weight), rank), weight.new_zeros(rank, weight.shape[1])
    for i in range(rank):
        B[:, i], A[i] = -U[:, i], S[i] * Vh[i]
    return B, A


# -- 5.2 ---------------------------------------------------------------------------------------------

def break_even_by_counting(out_features, in_features):
    k = 0
    while (k + 1) * (out_features + in_features) < out_features * in_features:
        k += 1
    return k


def break_even_by_ceiling(out_features, in_features):
    return math.ceil(out_features * in_features / (out_features + in_features)) - 1


def break_even_by_remainder(out_features, in_features):
    k, rest = divmod(out_features * in_features, out_features + in_features)
    return k if rest else k - 1


# -- 5.3 ---------------------------------------------------------------------------------------------

def flattenings_by_loops(kernel):
    n, c, kh, kw = kernel.shape
    spatial, pixel = torch.empty(c * kh, n * kw), torch.empty(kh * kw, n * c)
    for i in range(kh):
        for j in range(kw):
            spatial[i::kh, j::kw] = kernel[:, :, i, j].T
            pixel[i * kw + j] = kernel[:, :, i, j].flatten()
    return {"pixel": pixel, "spatial": spatial, "output": kernel.flatten(1), "input": torch.cat([k.flatten(1) for k in kernel.split(1)], 1).view(c, -1)
            if n == 1 else torch.stack([kernel[:, q].flatten() for q in range(c)])}


def flattenings_by_movedim(kernel):
    return {"output": kernel.flatten(1), "input": kernel.transpose(0, 1).flatten(1),
            "spatial": kernel.movedim(0, 2).flatten(2).flatten(0, 1), "pixel": kernel.flatten(0, 1).flatten(1).T}


# -- 5.4 ---------------------------------------------------------------------------------------------

def separable_by_svd(conv, rank):
    if conv.groups > 1:
        raise ValueError("one group only")
    n, c, kh, kw = conv.weight.shape
    matrix = conv.weight.data.permute(1, 2, 0, 3).reshape(c * kh, n * kw)
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    vertical = nn.Conv2d(c, rank, (kh, 1), (conv.stride[0], 1), (conv.padding[0], 0), bias=False)
    horizontal = nn.Conv2d(rank, n, (1, kw), (1, conv.stride[1]), (0, conv.padding[1]), bias=conv.bias is not None)
    vertical.weight.data = (-U[:, :rank] * S[:rank]).view(c, kh, rank).permute(2, 0, 1).unsqueeze(3).contiguous()
    horizontal.weight.data = -Vh[:rank].view(rank, n, kw).permute(1, 0, 2).unsqueeze(2).contiguous()
    if conv.bias is not None:
        horizontal.bias.data = conv.bias.data.clone()
    return nn.Sequential(vertical, horizontal)


def separable_named(conv, rank):
    made = separable_by_svd(conv, rank)
    whole = nn.Sequential()
    whole.add_module("vertical", made[0])
    whole.add_module("horizontal", made[1])
    return whole


def separable_filter_by_filter(conv, rank):
    """Each vertical and each horizontal filter written to its place, one rank after the other."""
    if conv.groups != 1:
        raise ValueError("one group only")
    n, c, kh, kw = conv.weight.shape
    made = separable_by_svd(conv, rank)
    U, S, Vh = torch.linalg.svd(conv.weight.detach().double().transpose(0, 1).transpose(1, 2).reshape(c * kh, n * kw))
    with torch.no_grad():
        for r in range(rank):
            for i in range(c * kh):
                made[0].weight[r, i // kh, i % kh, 0] = U[i, r] * S[r] ** 0.5
            for j in range(n * kw):
                made[1].weight[j // kw, r, 0, j % kw] = Vh[r, j] * S[r] ** 0.5
    return made


# -- 5.5 ---------------------------------------------------------------------------------------------

def energy_by_loop(singular_values, energy):
    if not 0 < energy <= 1:
        raise ValueError("no such share")
    squares = [float(s) ** 2 for s in singular_values]
    kept = 0.0
    for k, square in enumerate(squares, 1):
        kept += square
        if kept >= energy * sum(squares):
            return k
    return len(squares)


def energy_by_tails(singular_values, energy):
    if energy > 1 or not energy > 0:
        raise ValueError("no such share")
    tails = singular_values.square().flip(0).cumsum(0).flip(0)
    return max(1, int((tails > (1 - energy) * tails[0]).sum()))


def energy_by_search(singular_values, energy):
    if not 0 < energy <= 1:
        raise ValueError("no such share")
    kept = (singular_values**2).cumsum(0)
    return min(int(torch.searchsorted(kept, energy * kept[-1])) + 1, len(kept))


# -- 5.6 ---------------------------------------------------------------------------------------------

def _check(weight, rank):
    if rank < 1 or rank > min(weight.shape):
        raise ValueError("no such rank")


def response_by_cholesky(weight, moments, rank):
    _check(weight, rank)
    H = moments.double()
    L = torch.linalg.cholesky(H + 1e-6 * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype))
    U, S, Vh = torch.linalg.svd(weight.double() @ L, full_matrices=False)
    return (U[:, :rank] * S[:rank]).float(), torch.linalg.solve_triangular(L, Vh[:rank], upper=False, left=False).float()


def response_by_root(weight, moments, rank):
    _check(weight, rank)
    values, vectors = torch.linalg.eigh(moments.double())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    U, S, Vh = torch.linalg.svd(weight.double() @ root, full_matrices=False)
    return (U[:, :rank] * S[:rank]).float(), (Vh[:rank] @ torch.linalg.pinv(root, rtol=1e-6, hermitian=True)).float()


def response_in_single_precision(weight, moments, rank):
    _check(weight, rank)
    U, S, _ = torch.linalg.svd(weight @ moments @ weight.T)
    return U[:, :rank], U[:, :rank].T @ weight
