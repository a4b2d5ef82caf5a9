"""Typical wrong answers to exercises 6.1 to 6.3. They diagnose a learner's mistake, and they test the checks."""

from __future__ import annotations

import math

import numpy as np
import torch


# -- 6.1 unique_parameters ---------------------------------------------------------------------------

def each_parameter(model):
    return sum(parameter.numel() for parameter in model.parameters())


def each_use(model):
    return sum(parameter.numel() for _, parameter in model.named_parameters(remove_duplicate=False))


def first_addresses(model):
    return sum({parameter.data_ptr(): parameter.numel() for parameter in model.parameters()}.values())


def first_seen(model):
    sizes = {}
    for parameter in model.parameters():
        sizes.setdefault(parameter.untyped_storage().data_ptr(), parameter.numel())
    return sum(sizes.values())


def last_seen(model):
    return sum({p.untyped_storage().data_ptr(): p.numel() for p in model.parameters()}.values())


def largest_seen(model):
    sizes = {}
    for p in model.parameters():
        place = p.untyped_storage().data_ptr()
        sizes[place] = max(sizes.get(place, 0), p.numel())
    return sum(sizes.values())


def _storages(tensors):
    """{address: (bytes, bytes of one number)} of the distinct storages."""
    return {x.untyped_storage().data_ptr(): (x.untyped_storage().nbytes(), x.element_size()) for x in tensors}


def in_bytes(model):
    return sum(size for size, _ in _storages(model.parameters()).values())


def of_four_bytes(model):
    return sum(size for size, _ in _storages(model.parameters()).values()) // 4


def with_buffers(model):
    return sum(size // item for size, item in _storages(model.state_dict().values()).values())


def trainable_only(model):
    return sum(size // item for size, item in _storages(p for p in model.parameters() if p.requires_grad).values())


def equal_values(model):
    found = {}
    for p in model.parameters():
        found[(tuple(p.shape), tuple(p.flatten().tolist()))] = p
    return sum(size // item for size, item in _storages(found.values()).values())


def distinct_numbers(model):
    values = [p.detach().double().flatten() for p in model.parameters()]
    return torch.cat(values).unique().numel() if values else 0


def as_a_float(model):
    return sum(size / item for size, item in _storages(model.parameters()).values())


# -- 6.2 shared_gradient -----------------------------------------------------------------------------

def _sums(gradient, indices, signs, size):
    return torch.zeros(size, dtype=gradient.dtype).index_add(0, indices.flatten(), (signs * gradient).flatten())


def averaged(gradient, indices, signs, size):
    uses = torch.bincount(indices.flatten(), minlength=size).clamp(min=1)
    return _sums(gradient, indices, signs, size) / uses


def averaged_over_all(gradient, indices, signs, size):
    return _sums(gradient, indices, signs, size) / max(gradient.numel(), 1)


def averaged_by_root(gradient, indices, signs, size):
    uses = torch.bincount(indices.flatten(), minlength=size).clamp(min=1)
    return _sums(gradient, indices, signs, size) / uses.sqrt()


def one_use_counts(gradient, indices, signs, size):
    total = torch.zeros(size, dtype=gradient.dtype)
    total[indices.flatten()] += (signs * gradient).flatten()
    return total


def first_use_counts(gradient, indices, signs, size):
    total, seen = torch.zeros(size, dtype=gradient.dtype), set()
    for k, g in zip(indices.flatten().tolist(), (signs * gradient).flatten()):
        if k not in seen:
            seen.add(k)
            total[k] = g
    return total


def signs_forgotten(gradient, indices, signs, size):
    return _sums(gradient, indices, torch.ones_like(signs), size)


def sizes_summed(gradient, indices, signs, size):
    return _sums((signs * gradient).abs(), indices, torch.ones_like(signs), size)


def signs_on_the_sum(gradient, indices, signs, size):
    total = _sums(gradient, indices, torch.ones_like(signs), size)
    last = torch.ones(size)
    last[indices.flatten()] = signs.flatten().float()
    return total * last


def uses_counted(gradient, indices, signs, size):
    return torch.bincount(indices.flatten(), minlength=size).to(gradient.dtype)


def too_short(gradient, indices, signs, size):
    return torch.bincount(indices.flatten(), (signs * gradient).flatten()).to(gradient.dtype)


def too_short_by_unique(gradient, indices, signs, size):
    used, place = indices.flatten().unique(return_inverse=True)
    return _sums(gradient, place, signs, len(used))


def one_for_each_place(gradient, indices, signs, size):
    return _sums(gradient, indices, signs, size)[indices]


# -- 6.3 hash_indices --------------------------------------------------------------------------------

GOLDEN, FIRST, SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _numbers(shape, start=1):
    return np.arange(start, math.prod(shape) + start, dtype=np.uint64)


def _mixed(z):
    z = (z ^ (z >> np.uint64(30))) * FIRST
    z = (z ^ (z >> np.uint64(27))) * SECOND
    return z ^ (z >> np.uint64(31))


def _table(z, shape, buckets, sign=None, index=None):
    sign = z & np.uint64(1) if sign is None else sign
    index = z >> np.uint64(1) if index is None else index
    indices = torch.from_numpy((index % np.uint64(buckets)).astype(np.int64)).view(shape)
    return indices, torch.from_numpy(1 - 2 * sign.astype(np.float32)).view(shape)


def pythons_hash(shape, buckets, seed):
    places = [str((seed, number)) for number in range(math.prod(shape))]
    indices = torch.tensor([hash(place) % buckets for place in places], dtype=torch.int64)
    return indices.view(shape), torch.tensor([1.0 - 2 * (hash("-" + place) % 2) for place in places]).view(shape)


def drawn(shape, buckets, seed):
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(buckets, shape, generator=generator)
    return indices, 1 - 2 * torch.randint(2, shape, generator=generator).float()


def drawn_from_numpy(shape, buckets, seed):
    generator = np.random.default_rng(seed)
    indices = torch.from_numpy(generator.integers(0, buckets, shape))
    return indices, torch.from_numpy(1 - 2 * generator.integers(0, 2, shape).astype(np.float32))


def sign_bit_not_dropped(shape, buckets, seed):
    z = _mixed(_numbers(shape) * GOLDEN + np.uint64(seed))
    return _table(z, shape, buckets, index=z)


def highest_bit_as_sign(shape, buckets, seed):
    z = _mixed(_numbers(shape) * GOLDEN + np.uint64(seed))
    return _table(z, shape, buckets, sign=z >> np.uint64(63))


def signs_turned(shape, buckets, seed):
    indices, signs = _table(_mixed(_numbers(shape) * GOLDEN + np.uint64(seed)), shape, buckets)
    return indices, -signs


def zeros_and_ones(shape, buckets, seed):
    indices, signs = _table(_mixed(_numbers(shape) * GOLDEN + np.uint64(seed)), shape, buckets)
    return indices, (1 - signs) / 2


def all_plus(shape, buckets, seed):
    indices, signs = _table(_mixed(_numbers(shape) * GOLDEN + np.uint64(seed)), shape, buckets)
    return indices, torch.ones_like(signs)


def signs_of_buckets(shape, buckets, seed):
    indices, signs = _table(_mixed(_numbers(shape) * GOLDEN + np.uint64(seed)), shape, buckets)
    return indices, 1 - 2 * (indices % 2).float()


def signs_of_64_bits(shape, buckets, seed):
    indices, signs = _table(_mixed(_numbers(shape) * GOLDEN + np.uint64(seed)), shape, buckets)
    return indices, signs.double()


def cast_too_early(shape, buckets, seed):
    z = _mixed(_numbers(shape) * GOLDEN + np.uint64(seed)).astype(np.int64)
    return torch.from_numpy(z // 2 % buckets).view(shape), torch.from_numpy(1 - 2 * (z & 1).astype(np.float32)).view(shape)


def arithmetic_shift(shape, buckets, seed):
    z = _numbers(shape).astype(np.int64) * GOLDEN.astype(np.int64) + np.int64(seed)
    z = (z ^ (z >> 30)) * FIRST.astype(np.int64)
    z = (z ^ (z >> 27)) * SECOND.astype(np.int64)
    z = z ^ (z >> 31)
    return torch.from_numpy((z >> 1) % buckets).view(shape), torch.from_numpy(1 - 2 * (z & 1).astype(np.float32)).view(shape)


def in_floating_point(shape, buckets, seed):
    def times(z, constant):
        return np.array([int(float(number) * float(constant)) % 2**64 for number in z.tolist()], dtype=np.uint64)

    z = times(_numbers(shape), GOLDEN) + np.uint64(seed)
    z = times(z ^ (z >> np.uint64(30)), FIRST)
    z = times(z ^ (z >> np.uint64(27)), SECOND)
    return _table(z ^ (z >> np.uint64(31)), shape, buckets)


def cut_to_32_bits(shape, buckets, seed):
    cut, z = 2**32 - 1, []
    for number in range(1, math.prod(shape) + 1):
        h = (number * int(GOLDEN) + seed) & cut
        h = ((h ^ (h >> 30)) * int(FIRST)) & cut
        h = ((h ^ (h >> 27)) * int(SECOND)) & cut
        z.append(h ^ (h >> 31))
    return _table(np.array(z, dtype=np.uint64), shape, buckets)


def not_cut(shape, buckets, seed):
    indices, signs = [], []
    for number in range(1, math.prod(shape) + 1):
        h = number * int(GOLDEN) + seed
        h = (h ^ (h >> 30)) * int(FIRST)
        h = (h ^ (h >> 27)) * int(SECOND)
        h = h ^ (h >> 31)
        indices.append((h >> 1) % buckets)
        signs.append(1.0 - 2 * (h & 1))
    return torch.tensor(indices, dtype=torch.int64).view(shape), torch.tensor(signs).view(shape)


def counted_from_zero(shape, buckets, seed):
    return _table(_mixed(_numbers(shape, start=0) * GOLDEN + np.uint64(seed)), shape, buckets)


def seed_ignored(shape, buckets, seed):
    return _table(_mixed(_numbers(shape) * GOLDEN), shape, buckets)


def seed_added_to_buckets(shape, buckets, seed):
    indices, signs = _table(_mixed(_numbers(shape) * GOLDEN), shape, buckets)
    return (indices + seed) % buckets, signs


def seed_added_to_places(shape, buckets, seed):
    return _table(_mixed((_numbers(shape) + np.uint64(seed)) * GOLDEN), shape, buckets)


def not_mixed(shape, buckets, seed):
    return _table(_numbers(shape) * GOLDEN + np.uint64(seed), shape, buckets)


def last_step_forgotten(shape, buckets, seed):
    z = _numbers(shape) * GOLDEN + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * FIRST
    return _table((z ^ (z >> np.uint64(27))) * SECOND, shape, buckets)


def shifted_without_xor(shape, buckets, seed):
    z = _numbers(shape) * GOLDEN + np.uint64(seed)
    z = (z >> np.uint64(30)) * FIRST
    z = (z >> np.uint64(27)) * SECOND
    return _table(z >> np.uint64(31), shape, buckets)


def shifted_left(shape, buckets, seed):
    z = _numbers(shape) * GOLDEN + np.uint64(seed)
    z = (z ^ (z << np.uint64(30))) * FIRST
    z = (z ^ (z << np.uint64(27))) * SECOND
    return _table(z ^ (z << np.uint64(31)), shape, buckets)


def column_by_column(shape, buckets, seed):
    places = np.arange(1, math.prod(shape) + 1, dtype=np.uint64).reshape(shape, order="F").flatten()
    return _table(_mixed(places * GOLDEN + np.uint64(seed)), shape, buckets)


def same_in_every_row(shape, buckets, seed):
    places = np.broadcast_to(np.arange(1, shape[-1] + 1, dtype=np.uint64), shape).flatten()
    return _table(_mixed(places * GOLDEN + np.uint64(seed)), shape, buckets)
