"""The reference answers of exercises 6.1 to 6.6.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# -- one number, many places -------------------------------------------------------------------------

def unique_parameters(model: nn.Module) -> int:
    """6.1: the numbers in the distinct storages behind the model's parameters."""
    sizes = {}
    for parameter in model.parameters():
        storage = parameter.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes() // parameter.element_size()
    return sum(sizes.values())


def shared_gradient(gradient: Tensor, indices: Tensor, signs: Tensor, size: int) -> Tensor:
    """6.2: the gradient of each stored number, summed over all of its uses: (size,)."""
    total = torch.zeros(size, dtype=gradient.dtype)
    return total.index_add(0, indices.flatten(), (signs * gradient).flatten())


# -- hashing -----------------------------------------------------------------------------------------

def hash_indices(shape: tuple[int, ...], buckets: int, seed: int) -> tuple[Tensor, Tensor]:
    """6.3: (indices, signs) of every place of a weight, from SplitMix64."""
    z = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
    z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    indices = torch.from_numpy(((z >> np.uint64(1)) % np.uint64(buckets)).astype(np.int64))
    signs = torch.from_numpy(1 - 2 * (z & np.uint64(1)).astype(np.float32))
    return indices.view(shape), signs.view(shape)


def hashed_linear(x: Tensor, values: Tensor, indices: Tensor, signs: Tensor, bias: Tensor) -> Tensor:
    """6.4: x V^T + b with V_ij = sign_ij values[index_ij]."""
    weight = signs * values[indices]
    return F.linear(x, weight, bias)


# -- the control -------------------------------------------------------------------------------------

def same_size_width(inputs: int, classes: int, stored: int) -> int:
    """6.5: the widest dense network inputs -> width -> classes that stores at most `stored` numbers."""
    width = (stored - classes) // (inputs + 1 + classes)
    if width < 1:
        raise ValueError(f"{stored} numbers are too few for one hidden unit")
    return width


# -- clusters ----------------------------------------------------------------------------------------

def encode_subvectors(weight: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """6.6: (indices (m, s) of the nearest centroids, the decoded (m, n) weight)."""
    subspaces, _, length = codebooks.shape
    parts = weight.view(len(weight), subspaces, length)
    distances = (parts[:, :, None] - codebooks).square().sum(dim=-1)
    indices = distances.argmin(dim=-1)
    decoded = codebooks[torch.arange(subspaces), indices]
    return indices, decoded.view_as(weight)
