"""Other right answers to exercises 5.7 to 5.13: every one must pass."""

from __future__ import annotations

import heapq

import numpy as np
import torch
from torch import nn

from compresslab.course.chapter05.references_tensors import tucker2


# -- 5.7 --------------------------------------------------------------------------------------------

def tucker_by_eigh(kernel, rank_out, rank_in):
    """From the small Gram matrices, in double precision."""
    wide = kernel.double()
    U_out = torch.linalg.eigh(torch.einsum("nchw,mchw->nm", wide, wide)).eigenvectors.flip(1)[:, :rank_out]
    U_in = torch.linalg.eigh(torch.einsum("nchw,ndhw->cd", wide, wide)).eigenvectors.flip(1)[:, :rank_in]
    core = torch.tensordot(U_out.T, torch.tensordot(U_in.T, wide, ([1], [1])), ([1], [1]))
    return core.to(kernel.dtype), U_out.to(kernel.dtype), U_in.to(kernel.dtype)


def tucker_by_hooi(kernel, rank_out, rank_in):
    """Some sweeps of higher-order orthogonal iteration: never worse; and with other signs."""
    _, U_out, U_in = tucker2(kernel, rank_out, rank_in)
    for _ in range(5):
        U_out = torch.linalg.svd(torch.einsum("nchw,cs->nshw", kernel, U_in).flatten(1), full_matrices=False).U[:, :rank_out]
        if U_out.shape[1] < rank_out:                                # fewer columns than rank: keep the first ones
            return tucker2(kernel, rank_out, rank_in)
        found = torch.linalg.svd(torch.einsum("nchw,nr->crhw", kernel, U_out).flatten(1), full_matrices=False).U[:, :rank_in]
        if found.shape[1] < rank_in:
            return tucker2(kernel, rank_out, rank_in)
        U_in = -found
    return [torch.einsum("nchw,nr,cs->rshw", kernel, U_out, U_in), U_out, U_in]


def tucker_one_after_the_other(kernel, rank_out, rank_in):
    """The second basis from what the first has left."""
    n, c, h, w = kernel.shape
    U_out = torch.linalg.svd(kernel.reshape(n, -1), full_matrices=False)[0][:, :rank_out]
    part = (U_out.T @ kernel.reshape(n, -1)).reshape(-1, c, h, w)
    rows = part.permute(1, 0, 2, 3).reshape(c, -1)
    U_in = torch.linalg.svd(rows, full_matrices=True)[0][:, :rank_in]
    core = (U_in.T @ rows).reshape(rank_in, part.shape[0], h, w).permute(1, 0, 2, 3)
    return core, U_out, U_in


# -- 5.8 --------------------------------------------------------------------------------------------

def chain_with_functions(conv, rank_out, rank_in):
    """copy_ under no_grad; the signs of one basis turned around."""
    core, U_out, U_in = tucker2(conv.weight.data, rank_out, rank_in)
    has_bias = conv.bias is not None
    chain = nn.Sequential(nn.Conv2d(conv.in_channels, rank_in, kernel_size=1, bias=False),
                          nn.Conv2d(rank_in, rank_out, conv.kernel_size, stride=conv.stride, padding=conv.padding, bias=False),
                          nn.Conv2d(rank_out, conv.out_channels, kernel_size=1, bias=has_bias))
    with torch.no_grad():
        chain[0].weight.copy_(-U_in.t().reshape(rank_in, conv.in_channels, 1, 1))
        chain[1].weight.copy_(-core)
        chain[2].weight.copy_(U_out.reshape(conv.out_channels, rank_out, 1, 1))
        if has_bias:
            chain[2].bias.copy_(conv.bias)
    return chain


def chain_scaled(conv, rank_out, rank_in):
    """The core scaled to length 1, its length in the last layer."""
    core, U_out, U_in = tucker2(conv.weight.detach().double(), rank_out, rank_in)
    length = core.norm()
    chain = nn.Sequential()
    for weight, stride, padding in ((U_in.T[:, :, None, None], 1, 0), (core / length, conv.stride, conv.padding), (length * U_out[:, :, None, None], 1, 0)):
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), stride, padding, bias=False)
        layer.weight = nn.Parameter(weight.float().contiguous())
        chain.append(layer)
    chain[2].bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
    return chain


# -- 5.9 --------------------------------------------------------------------------------------------

def step_by_normal_equations(tensor, factors, mode):
    """The Gram matrix of a Khatri-Rao product is the elementwise product of the Gram matrices."""
    letters = "abcd"[: tensor.ndim]
    others = [m for m in range(tensor.ndim) if m != mode]
    wide = [factor.double() for factor in factors]
    seen = torch.einsum(f"{letters},{','.join(letters[m] + 'r' for m in others)}->{letters[mode]}r", tensor.double(), *(wide[m] for m in others))
    gram = torch.ones(seen.shape[1], seen.shape[1]).double()
    for m in others:
        gram = gram * (wide[m].T @ wide[m])
    return (seen @ torch.linalg.pinv(gram, hermitian=True)).to(tensor.dtype)


def step_row_by_row(tensor, factors, mode):
    """One small least-squares problem for each row, in numpy."""
    columns = []
    for r in range(factors[0].shape[1]):
        column = np.ones(1)
        for m, factor in enumerate(factors):
            if m != mode:
                column = np.kron(column, factor[:, r].numpy())
        columns.append(column)
    product = np.stack(columns, 1)
    rows = [np.linalg.lstsq(product, tensor.select(mode, i).numpy().ravel(), rcond=None)[0] for i in range(tensor.shape[mode])]
    return torch.from_numpy(np.stack(rows)).float()


# -- 5.10 -------------------------------------------------------------------------------------------

def train_from_the_right(cores, x):
    """From the last core to the first."""
    state = x.reshape(len(x), -1, 1, 1)                               # (batch, inputs to come, rank, outputs so far)
    for core in reversed(cores):
        state = state.reshape(len(x), -1, core.shape[2], core.shape[3], state.shape[-1])
        state = torch.einsum("binso,rmns->birmo", state, core)
        state = state.reshape(len(x), state.shape[1], core.shape[0], -1)
    return state.reshape(len(x), -1)


def train_with_tensordot(cores, x):
    """All modes kept apart to the end."""
    modes = [core.shape[2] for core in cores]
    state = x.double().reshape(len(x), *modes, 1)                     # (batch, n_1 ... n_d, rank), outputs pile up behind
    for core in cores:
        rank_axis = len(modes) + 1
        state = torch.tensordot(state, core.double(), ([1, rank_axis], [2, 0]))      # -> batch, n..., outputs so far, m, rank
        modes = modes[1:]
        state = state.movedim(-1, len(modes) + 1)
    return state.reshape(len(x), -1).float()


def train_row_by_row(cores, x):
    rows = []
    for row in x:
        state = row.reshape(1, 1, -1)
        for core in cores:
            r, m, n, s = core.shape
            state = torch.stack([sum(core[:, i, j].T @ state.reshape(-1, r, n, state.shape[2] // n)[:, :, j] for j in range(n)) for i in range(m)], 1)
            state = state.flatten(0, 1)
        rows.append(state.flatten())
    return torch.stack(rows)


# -- 5.11 -------------------------------------------------------------------------------------------

def ranks_with_a_heap(spectra, costs, budget):
    total = sum(len(values) * cost for values, cost in zip(spectra, costs))
    if sum(costs) > budget:
        raise ValueError("even rank 1 everywhere is too dear")
    energies = [(values.double() ** 2).tolist() for values in spectra]
    sums = [sum(energy) for energy in energies]
    ranks = [len(energy) for energy in energies]

    def offer(layer):
        return energies[layer][ranks[layer] - 1] / (sums[layer] * costs[layer]), layer

    heap = [offer(layer) for layer in range(len(ranks)) if ranks[layer] > 1]
    heapq.heapify(heap)
    while total > budget:
        _, layer = heapq.heappop(heap)
        ranks[layer] -= 1
        total -= costs[layer]
        if ranks[layer] > 1:
            heapq.heappush(heap, offer(layer))
    return tuple(ranks)


def ranks_by_sorting(spectra, costs, budget):
    """All steps of all layers in one sorted list: within a layer the prices can only rise."""
    if budget < sum(costs):
        raise ValueError("too small")
    steps = []
    for layer, (values, cost) in enumerate(zip(spectra, costs)):
        energy = values.double().square()
        steps += [((energy[k] / energy.sum()).item() / cost, layer, -k) for k in range(1, len(values))]
    ranks = torch.tensor([len(values) for values in spectra])
    total = sum(len(values) * cost for values, cost in zip(spectra, costs))
    for _, layer, _ in sorted(steps):
        if total <= budget:
            break
        ranks[layer] -= 1
        total -= costs[layer]
    return ranks.tolist()


# -- 5.12 -------------------------------------------------------------------------------------------

def merged_with_addmm(weight, A, B, alpha):
    return torch.addmm(weight, B, A, alpha=alpha / A.size(0))


def merged_by_columns(weight, A, B, alpha):
    merged = weight.clone()
    for b, a in zip(B.T, A):
        merged += torch.outer(b, a) * alpha / B.shape[1]
    return merged


# -- 5.13 -------------------------------------------------------------------------------------------

def repaired_with_roots(conv, fraction):
    """The root of each singular value on both sides."""
    n, c, h, w = conv.weight.shape
    rank = max(int(fraction * conv.weight.numel()) // (n + c * h * w), 1)
    U, S, Vh = torch.linalg.svd(conv.weight.detach().double().reshape(n, -1), full_matrices=False)
    root = S[:rank].sqrt()
    first = nn.Conv2d(c, rank, (h, w), stride=conv.stride, padding=conv.padding, bias=False)
    second = nn.Conv2d(rank, n, 1, bias=conv.bias is not None)
    with torch.no_grad():
        first.weight.copy_((root[:, None] * Vh[:rank]).reshape(rank, c, h, w))
        second.weight.copy_((U[:, :rank] * root).reshape(n, rank, 1, 1))
        if conv.bias is not None:
            second.bias.copy_(conv.bias)
    return nn.Sequential(first, second)


def repaired_by_eigh(conv, fraction):
    """The scale in the kernel, the basis from the Gram matrix of the outputs; the rank by counting up."""
    matrix = conv.weight.detach().flatten(1).double()
    rank = 1
    while (rank + 1) * sum(matrix.shape) <= fraction * matrix.numel():
        rank += 1
    basis = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -rank:]
    first = nn.Conv2d(conv.in_channels, rank, conv.kernel_size, conv.stride, conv.padding, bias=False)
    first.weight = nn.Parameter((basis.T @ matrix).float().reshape(first.weight.shape))
    second = nn.Conv2d(rank, conv.out_channels, 1, bias=False)
    second.weight = nn.Parameter(basis.float()[:, :, None, None])
    if conv.bias is not None:
        second.bias = nn.Parameter(conv.bias.detach().clone())
    return nn.Sequential(first, second)
