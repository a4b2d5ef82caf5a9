"""Right answers to exercises 6.1 to 6.6 that look different from the references: every check must let them pass."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


# -- 6.1 unique_parameters ---------------------------------------------------------------------------

def unique_by_bytes(model):
    """The last of several parameters in one storage decides; they have one dtype."""
    seen, count = set(), 0
    for _, parameter in model.named_parameters(remove_duplicate=False):
        storage = parameter.data.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            count += len(storage) // parameter.dtype.itemsize
    return count


def unique_by_addresses(model):
    """The address of every single number, in a set."""
    addresses = set()
    for parameter in model.parameters():
        steps = torch.zeros(parameter.shape, dtype=torch.int64)
        for dimension, (size, stride) in enumerate(zip(parameter.shape, parameter.stride())):
            shape = [1] * parameter.ndim
            shape[dimension] = size
            steps = steps + stride * torch.arange(size).view(shape)
        addresses.update((parameter.data_ptr() + parameter.element_size() * steps).flatten().tolist())
    return len(addresses)


# -- 6.2 shared_gradient -----------------------------------------------------------------------------

def gradient_by_autograd(gradient, indices, signs, size):
    values = torch.zeros(size, dtype=gradient.dtype, requires_grad=True)
    return torch.autograd.grad(values[indices] * signs, values, gradient)[0]


def gradient_by_loop(gradient, indices, signs, size):
    total = [0.0] * size
    for g, k, sign in zip(gradient.flatten().tolist(), indices.flatten().tolist(), signs.flatten().tolist()):
        total[k] += sign * g
    return torch.tensor(total)


def gradient_by_one_hot(gradient, indices, signs, size):
    return F.one_hot(indices.flatten(), size).to(gradient.dtype).T @ (gradient * signs).flatten()


def gradient_by_bincount(gradient, indices, signs, size):
    """Of whole numbers where the table is empty: there is nothing to add up."""
    return torch.bincount(indices.flatten(), weights=(signs * gradient).flatten(), minlength=size)


# -- 6.3 hash_indices --------------------------------------------------------------------------------

def hash_in_python(shape, buckets, seed):
    """Python's whole numbers have no end: cut them to 64 bits after each step."""
    cut = (1 << 64) - 1
    indices, signs = [], []
    for number in range(math.prod(shape)):
        z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & cut
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & cut
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & cut
        z ^= z >> 31
        indices.append(z // 2 % buckets)
        signs.append(-1.0 if z % 2 else 1.0)
    return torch.tensor(indices, dtype=torch.int64).view(shape), torch.tensor(signs).view(shape)


def hash_in_torch(shape, buckets, seed):
    """In int64, with logical shifts made of arithmetic ones."""
    def shifted(z, places):
        return (z >> places) & ((1 << (64 - places)) - 1)

    def signed(number):
        return number - (1 << 64) if number >= 1 << 63 else number

    z = torch.arange(1, math.prod(shape) + 1) * signed(0x9E3779B97F4A7C15) + seed
    z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
    z = z ^ shifted(z, 31)
    indices = shifted(z, 1) % buckets
    return indices.view(shape), (1 - 2 * (z & 1)).float().view(shape)


# -- 6.4 hashed_linear -------------------------------------------------------------------------------

def hashed_by_bucket_sums(x, values, indices, signs, bias):
    """Chen et al.'s other view: hash the inputs into buckets for every unit, then one product with the values."""
    columns = []
    for index, sign in zip(indices, signs):
        sums = torch.zeros(len(x), len(values), dtype=x.dtype).index_add(1, index, x * sign)
        columns.append(sums @ values)
    return torch.stack(columns, dim=1) + bias


def hashed_by_take(x, values, indices, signs, bias):
    weight = torch.take(values, indices).mul(signs)
    return torch.addmm(bias, x, weight.t())


# -- 6.5 same_size_width -----------------------------------------------------------------------------

def width_by_trying(inputs, classes, stored):
    width = 0
    while inputs * (width + 1) + (width + 1) + (width + 1) * classes + classes <= stored:
        width += 1
    if width == 0:
        raise ValueError("not even one unit")
    return width


def width_by_floor(inputs, classes, stored):
    width = math.floor((stored - classes) / (inputs + classes + 1))
    if width <= 0:
        raise ValueError(f"no hidden unit fits into {stored} numbers")
    return width


# -- 6.6 encode_subvectors ---------------------------------------------------------------------------

def encode_one_by_one(weight, codebooks):
    subspaces, _, length = codebooks.shape
    indices, decoded = torch.zeros(len(weight), subspaces, dtype=torch.int64), torch.empty_like(weight)
    for i, row in enumerate(weight):
        for part, codebook in enumerate(codebooks):
            own = slice(part * length, (part + 1) * length)
            indices[i, part] = (codebook - row[own]).norm(dim=1).argmin()
            decoded[i, own] = codebook[indices[i, part]]
    return indices, decoded


def encode_by_cdist(weight, codebooks):
    parts = weight.double().reshape(len(weight), len(codebooks), -1).transpose(0, 1)
    indices = torch.cdist(parts, codebooks.double()).argmin(2)                 # (s, m)
    decoded = torch.stack([codebook[index] for codebook, index in zip(codebooks, indices)], dim=1)
    return indices.T, decoded.flatten(1)


def encode_by_products(weight, codebooks):
    """|w - c|^2 = |w|^2 - 2 <w, c> + |c|^2, and |w|^2 is the same for every centroid."""
    parts = weight.reshape(len(weight), codebooks.shape[0], -1)
    scores = 2 * torch.einsum("msd,skd->msk", parts, codebooks) - codebooks.square().sum(2)
    indices = scores.argmax(2)
    decoded = torch.cat([codebooks[s, indices[:, s]] for s in range(len(codebooks))], dim=1)
    return indices, decoded
