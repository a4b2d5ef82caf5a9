"""The reference answers of exercises 5.7 to 5.13.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


# -- one layer into three ----------------------------------------------------------------------------

def tucker2(kernel: Tensor, rank_out: int, rank_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """5.7: (core, U_out, U_in) of a kernel (N, C, kh, kw): bases from its two channel unfoldings, and what they see."""
    U_out = torch.linalg.svd(kernel.flatten(1), full_matrices=False).U[:, :rank_out]
    U_in = torch.linalg.svd(kernel.transpose(0, 1).flatten(1), full_matrices=False).U[:, :rank_in]
    core = torch.einsum("nchw,nr,cs->rshw", kernel, U_out, U_in)
    return core, U_out, U_in


def tucker_conv(conv: nn.Conv2d, rank_out: int, rank_in: int) -> nn.Sequential:
    """5.8: 1x1 to rank_in channels, kh x kw to rank_out channels, 1x1 back: the convolution with the rebuilt kernel."""
    core, U_out, U_in = tucker2(conv.weight.detach(), rank_out, rank_in)
    first = nn.Conv2d(conv.in_channels, rank_in, 1, bias=False)
    middle = nn.Conv2d(rank_in, rank_out, conv.kernel_size, conv.stride, conv.padding, bias=False)
    last = nn.Conv2d(rank_out, conv.out_channels, 1, bias=conv.bias is not None)
    first.weight.data = U_in.T[:, :, None, None].clone()
    middle.weight.data = core.clone()
    last.weight.data = U_out[:, :, None, None].clone()
    if conv.bias is not None:
        last.bias.data = conv.bias.detach().clone()
    return nn.Sequential(first, middle, last)


# -- many small factors ------------------------------------------------------------------------------

def als_step(tensor: Tensor, factors: list[Tensor], mode: int) -> Tensor:
    """5.9: the factor of this mode that brings sum_r a_r o b_r o ... nearest to the tensor, the others held fixed."""
    others = [factor for m, factor in enumerate(factors) if m != mode]
    khatri_rao = others[0]
    for factor in others[1:]:
        khatri_rao = (khatri_rao[:, None] * factor).flatten(0, 1)
    unfolded = tensor.movedim(mode, 0).flatten(1)
    return torch.linalg.lstsq(khatri_rao, unfolded.T, driver="gelsd").solution.T


def tt_product(cores: list[Tensor], x: Tensor) -> Tensor:
    """5.10: x (batch, n_1 ... n_d) times the matrix in tensor-train form with cores (r, m_k, n_k, r'), never built."""
    state = x.reshape(len(x), 1, 1, -1)                  # (batch, outputs so far, rank, inputs to come)
    for core in cores:
        rank, _, n, _ = core.shape
        state = state.reshape(len(x), state.shape[1], rank, n, state.shape[3] // n)
        state = torch.einsum("borni,rmns->bomsi", state, core).flatten(1, 2)
    return state.flatten(1)


# -- a budget ----------------------------------------------------------------------------------------

def choose_ranks(spectra: list[Tensor], costs: list[float], budget: float) -> list[int]:
    """5.11: from full ranks down, always where the least share of energy is lost for each unit of cost."""
    if sum(costs) > budget:
        raise ValueError(f"rank 1 everywhere costs {sum(costs)}, and the budget is {budget}")
    shares = [values.double() ** 2 / (values.double() ** 2).sum() for values in spectra]
    ranks = [len(values) for values in spectra]
    while sum(rank * cost for rank, cost in zip(ranks, costs)) > budget:
        prices = [share[rank - 1].item() / cost if rank > 1 else math.inf for share, rank, cost in zip(shares, ranks, costs)]
        ranks[prices.index(min(prices))] -= 1
    return ranks


# -- adapters ----------------------------------------------------------------------------------------

def merge_adapter(weight: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """5.12: the one matrix that does what W with its adapter did: W + (alpha / r) B A."""
    rank = A.shape[0]
    return weight + alpha / rank * B @ A


# -- a decomposer, repaired --------------------------------------------------------------------------

def decompose_repaired(conv: nn.Conv2d, fraction: float) -> nn.Sequential:
    """5.13: kh x kw to `rank` channels, then 1x1: the largest rank with at most this fraction of the weights."""
    out_channels, columns = conv.weight.flatten(1).shape
    rank = max(1, int(fraction * conv.weight.numel() / (out_channels + columns)))
    U, S, Vh = torch.linalg.svd(conv.weight.detach().flatten(1), full_matrices=False)
    first = nn.Conv2d(conv.in_channels, rank, conv.kernel_size, conv.stride, conv.padding, bias=False)
    second = nn.Conv2d(rank, out_channels, 1, bias=conv.bias is not None)
    first.weight.data = (S[:rank, None] * Vh[:rank]).view_as(first.weight)
    second.weight.data = U[:, :rank, None, None].clone()
    if conv.bias is not None:
        second.bias.data = conv.bias.detach().clone()
    return nn.Sequential(first, second)
