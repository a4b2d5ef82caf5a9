"""The reference answers of exercises 6.7 to 6.12.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.course.chapter06.references_hashing import hash_indices, shared_gradient

# -- look-up -----------------------------------------------------------------------------------------

def lookup_product(x: Tensor, codebooks: Tensor, indices: Tensor) -> Tensor:
    """6.7: x W^T for the weight that the indices (m, s) pick from the codebooks (s, k, d), without decoding it."""
    subspaces, _, length = codebooks.shape
    parts = x.view(len(x), subspaces, length)
    table = torch.einsum("bsd,skd->bsk", parts, codebooks)
    return table[:, torch.arange(subspaces), indices].sum(dim=-1)


# -- structured matrices -----------------------------------------------------------------------------

def circulant(r: Tensor) -> Tensor:
    """6.8: the (n, n) matrix whose first column is r, each next column turned down by one place."""
    i = torch.arange(len(r))
    return r[(i[:, None] - i) % len(r)]


def circulant_product(r: Tensor, x: Tensor) -> Tensor:
    """6.9: x circulant(r)^T, by the Fourier transform."""
    spectrum = torch.fft.rfft(r) * torch.fft.rfft(x)
    return torch.fft.irfft(spectrum, n=len(r))


def nearest_circulant(matrix: Tensor) -> Tensor:
    """6.10: the first column of the circulant matrix nearest to a square matrix."""
    n = len(matrix)
    i = torch.arange(n)
    diagonal = (i[:, None] - i) % n
    sums = torch.zeros(n, dtype=matrix.dtype).index_add(0, diagonal.flatten(), matrix.flatten())
    return sums / n


# -- across layers -----------------------------------------------------------------------------------

def cyclic_stack(blocks: list[nn.Module], depth: int) -> nn.Sequential:
    """6.11: `depth` layers that use the given blocks in turn, each of them itself and no copy."""
    return nn.Sequential(*[blocks[layer % len(blocks)] for layer in range(depth)])


# -- a loop, repaired --------------------------------------------------------------------------------

def train_shared(values: Tensor, shapes: list[tuple[int, int]], batches: list[tuple[Tensor, Tensor]],
                 lr: float = 0.05, seed: int = 0) -> tuple[Tensor, list[float]]:
    """6.12: (the trained values, the loss of every step) of a network whose layers share one vector of values."""
    values, losses = values.clone(), []
    tables = [hash_indices(shape, len(values), seed + layer) for layer, shape in enumerate(shapes)]
    for x, y in batches:
        weights = [(signs * values[indices]).requires_grad_() for indices, signs in tables]
        for weight in weights[:-1]:
            x = F.relu(F.linear(x, weight))
        loss = F.cross_entropy(F.linear(x, weights[-1]), y)
        gradients = torch.autograd.grad(loss, weights)
        for gradient, (indices, signs) in zip(gradients, tables):
            values -= lr * shared_gradient(gradient, indices, signs, len(values))
        losses.append(loss.item())
    return values, losses
