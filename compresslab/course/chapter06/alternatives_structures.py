"""Right answers to exercises 6.7 to 6.12 that look different from the references: every check must let them pass."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from compresslab.course.chapter06.references_hashing import hash_indices


# -- 6.7 --------------------------------------------------------------------------------------------

def lookup_in_a_loop(x, codebooks, indices):
    """One sub-space after the other, each with a table of its own."""
    subspaces, _, length = codebooks.shape
    total = 0
    for s in range(subspaces):
        table = x[:, s * length:(s + 1) * length] @ codebooks[s].T
        total = total + table[:, indices[:, s]]
    return total


def lookup_by_gather(x, codebooks, indices):
    table = (x.reshape(len(x), len(codebooks), 1, -1) * codebooks).sum(-1)
    picked = table.gather(2, indices.T.expand(len(x), -1, -1))
    return picked.sum(1)


# -- 6.8 --------------------------------------------------------------------------------------------

def circulant_by_rolling(r):
    return torch.stack([r.roll(k) for k in range(len(r))], dim=1)


def circulant_by_windows(r):
    backwards = r.flip(0)
    return torch.cat([backwards, backwards])[:-1].unfold(0, len(r), 1).flip(0)


def circulant_row_by_row(r):
    return torch.stack([torch.stack([r[i - j] for j in range(len(r))]) for i in range(len(r))])


# -- 6.9 --------------------------------------------------------------------------------------------

def product_by_complex_fft(r, x):
    return torch.fft.ifft(torch.fft.fft(x, dim=-1) * torch.fft.fft(r)).real


def product_by_padding(r, x):
    """A linear convolution of twice the length, its tail folded back."""
    n = len(r)
    long = torch.fft.irfft(torch.fft.rfft(r, 2 * n) * torch.fft.rfft(x, 2 * n), n=2 * n)
    return long[..., :n] + long[..., n:]


# -- 6.10 -------------------------------------------------------------------------------------------

def nearest_by_rolling(matrix):
    """Turn each column back, and take the mean of the rows."""
    return torch.stack([matrix[:, j].roll(-j) for j in range(len(matrix))], dim=1).mean(1)


def nearest_by_fft(matrix):
    """The Fourier transform makes every circulant matrix diagonal: keep the diagonal."""
    n = len(matrix)
    eigenvalues = torch.fft.fft(torch.fft.ifft(matrix.double(), dim=1), dim=0).diagonal()
    return torch.fft.ifft(eigenvalues, n=n).real.to(matrix.dtype)


def nearest_diagonal_by_diagonal(matrix):
    n = len(matrix)
    return torch.stack([matrix.diagonal(-k).sum() + (matrix.diagonal(n - k).sum() if k else 0) for k in range(n)]) / n


# -- 6.11 -------------------------------------------------------------------------------------------

def stack_by_cycle(blocks, depth):
    return nn.Sequential(*itertools.islice(itertools.cycle(blocks), depth))


class _Turns(nn.Module):
    def __init__(self, blocks, depth):
        super().__init__()
        self.blocks, self.depth = nn.ModuleList(blocks), depth

    def forward(self, x):
        for layer in range(self.depth):
            x = self.blocks[layer % len(self.blocks)](x)
        return x


def stack_with_a_loop(blocks, depth):
    """A module of one's own: each block is held once, and called in turn."""
    return _Turns(blocks, depth)


# -- 6.12 -------------------------------------------------------------------------------------------

def trained_by_autograd(values, shapes, batches, lr=0.05, seed=0):
    """The values are the parameter; autograd sums by itself."""
    shared = nn.Parameter(values.clone())
    optimizer, losses = torch.optim.SGD([shared], lr), []
    tables = [hash_indices(shape, len(values), seed + layer) for layer, shape in enumerate(shapes)]
    for x, y in batches:
        for layer, (indices, signs) in enumerate(tables):
            x = F.linear(x.relu() if layer else x, shared[indices] * signs)
        loss = F.cross_entropy(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return shared.detach(), losses


def trained_with_index_put(values, shapes, batches, lr=0.05, seed=0):
    """The layers' gradients are added one by one into the values."""
    values, losses = values.clone(), []
    for x, y in batches:
        tables = [hash_indices(shape, len(values), seed + layer) for layer, shape in enumerate(shapes)]
        weights = [(values[indices] * signs).requires_grad_() for indices, signs in tables]
        for layer, weight in enumerate(weights):
            x = (x.relu() if layer else x) @ weight.T
        loss = F.cross_entropy(x, y)
        loss.backward()
        for weight, (indices, signs) in zip(weights, tables):
            values.index_put_((indices,), -lr * signs * weight.grad, accumulate=True)
        losses.append(float(loss))
    return values, losses
