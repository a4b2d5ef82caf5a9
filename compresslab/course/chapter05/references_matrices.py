"""The reference answers of exercises 5.1 to 5.6.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# -- one matrix into two -----------------------------------------------------------------------------

def split_linear(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """5.1: B (m, rank) and A (rank, n), whose product is the closest matrix of this rank."""
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(f"rank must be from 1 to {min(weight.shape)}, got {rank}")
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    root = S[:rank].sqrt()
    return U[:, :rank] * root, root[:, None] * Vh[:rank]


def break_even_rank(out_features: int, in_features: int) -> int:
    """5.2: the largest k with k (m + n) < m n."""
    return (out_features * in_features - 1) // (out_features + in_features)


# -- a kernel has many ranks -------------------------------------------------------------------------

def flattenings(kernel: Tensor) -> dict[str, Tensor]:
    """5.3: the four matrices of a kernel (N, C, kh, kw)."""
    n, c, kh, kw = kernel.shape
    return {"output": kernel.reshape(n, c * kh * kw),
            "input": kernel.permute(1, 0, 2, 3).reshape(c, n * kh * kw),
            "spatial": kernel.permute(1, 2, 0, 3).reshape(c * kh, n * kw),
            "pixel": kernel.permute(2, 3, 0, 1).reshape(kh * kw, n * c)}


def separable_conv(conv: nn.Conv2d, rank: int) -> nn.Sequential:
    """5.4: a kh x 1 convolution to `rank` channels, then a 1 x kw one; together the closest of this rank."""
    if conv.groups != 1:
        raise ValueError(f"groups must be 1, got {conv.groups}")
    n, c, kh, kw = conv.weight.shape
    B, A = split_linear(flattenings(conv.weight.detach())["spatial"], rank)
    first = nn.Conv2d(c, rank, (kh, 1), stride=(conv.stride[0], 1), padding=(conv.padding[0], 0), bias=False)
    second = nn.Conv2d(rank, n, (1, kw), stride=(1, conv.stride[1]), padding=(0, conv.padding[1]), bias=conv.bias is not None)
    with torch.no_grad():
        first.weight.copy_(B.T.reshape(rank, c, kh, 1))
        second.weight.copy_(A.reshape(rank, n, 1, kw).transpose(0, 1))
        if conv.bias is not None:
            second.bias.copy_(conv.bias)
    return nn.Sequential(first, second)


# -- how much to keep --------------------------------------------------------------------------------

def energy_rank(singular_values: Tensor, energy: float) -> int:
    """5.5: the smallest rank that keeps this share of the sum of squares."""
    if not 0 < energy <= 1:
        raise ValueError(f"energy must be in (0, 1], got {energy}")
    kept = singular_values.double().square().cumsum(0)
    return int((kept < energy * kept[-1]).sum()) + 1


# -- the closest output ------------------------------------------------------------------------------

def response_svd(weight: Tensor, moments: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """5.6: B (m, rank) and A (rank, n) with the smallest ||(W - B A) X||, given moments = X X^T."""
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(f"rank must be from 1 to {min(weight.shape)}, got {rank}")
    W, H = weight.double(), moments.double()
    directions = torch.linalg.eigh(W @ H @ W.T).eigenvectors[:, -rank:]
    return directions.to(weight.dtype), (directions.T @ W).to(weight.dtype)
