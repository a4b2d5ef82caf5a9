"""Typical half-repaired loops of exercise 6.12: each one is run, to recognise it in a learner's answer.

All are `train_shared` with one or more of its parts exchanged.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from compresslab.course.chapter06.references_hashing import hash_indices, shared_gradient


def python_table(shape, buckets, seed):
    """Python's hash of a text: another one in every process."""
    places = [hash(f"{seed}/{place}") for place in range(shape[0] * shape[1])]
    indices = torch.tensor([place // 2 % buckets for place in places]).view(shape)
    return indices, torch.tensor([1.0 - 2 * (place % 2) for place in places]).view(shape)


def _decoded(values, tables):
    return [(signs * values[indices]).requires_grad_() for indices, signs in tables]


def _loss(x, y, weights):
    for weight in weights[:-1]:
        x = F.relu(F.linear(x, weight))
    return F.cross_entropy(F.linear(x, weights[-1]), y)


def _tables(values, shapes, seed, table=hash_indices):
    return [table(shape, len(values), seed + layer) for layer, shape in enumerate(shapes)]


def _one_pool(values, shapes, batches, lr, seed, gradient_of, table=hash_indices):
    """The repaired loop with another way to the values' gradient: `gradient_of(gradient, indices, signs, size)`."""
    values, losses = values.clone(), []
    tables = _tables(values, shapes, seed, table)
    for x, y in batches:
        weights = _decoded(values, tables)
        loss = _loss(x, y, weights)
        for gradient, (indices, signs) in zip(torch.autograd.grad(loss, weights), tables):
            values -= lr * gradient_of(gradient, indices, signs, len(values))
        losses.append(loss.item())
    return values, losses


def _mean(gradient, indices, signs, size):
    return shared_gradient(gradient, indices, signs, size) / torch.bincount(indices.flatten(), minlength=size).clamp_min(1)


def _unsigned(gradient, indices, signs, size):
    return shared_gradient(gradient, indices, torch.ones_like(signs), size)


def _unsigned_mean(gradient, indices, signs, size):
    return _mean(gradient, indices, torch.ones_like(signs), size)


def _pools(values, shapes, batches, lr, seed, gradient_of=shared_gradient, table=hash_indices):
    """A pool of values for each layer."""
    pools, losses = [values.clone() for _ in shapes], []
    tables = _tables(values, shapes, seed, table)
    for x, y in batches:
        weights = [_decoded(pool, [own])[0] for pool, own in zip(pools, tables)]
        loss = _loss(x, y, weights)
        for pool, gradient, (indices, signs) in zip(pools, torch.autograd.grad(loss, weights), tables):
            pool -= lr * gradient_of(gradient, indices, signs, len(pool))
        losses.append(loss.item())
    return pools, losses


def all_bugs(values, shapes, batches, lr=0.05, seed=0):
    pools, losses = _pools(values, shapes, batches, lr, seed, _mean, python_table)
    return pools[0], losses


def a_pool_per_layer(values, shapes, batches, lr=0.05, seed=0):
    pools, losses = _pools(values, shapes, batches, lr, seed)
    return pools[0], losses


def pools_averaged(values, shapes, batches, lr=0.05, seed=0):
    pools, losses = _pools(values, shapes, batches, lr, seed)
    return torch.stack(pools).mean(0), losses


def all_pools_returned(values, shapes, batches, lr=0.05, seed=0):
    return _pools(values, shapes, batches, lr, seed)


def gradient_averaged(values, shapes, batches, lr=0.05, seed=0):
    return _one_pool(values, shapes, batches, lr, seed, _mean)


def sign_forgotten(values, shapes, batches, lr=0.05, seed=0):
    return _one_pool(values, shapes, batches, lr, seed, _unsigned)


def averaged_and_unsigned(values, shapes, batches, lr=0.05, seed=0):
    return _one_pool(values, shapes, batches, lr, seed, _unsigned_mean)


def pythons_hash(values, shapes, batches, lr=0.05, seed=0):
    return _one_pool(values, shapes, batches, lr, seed, shared_gradient, python_table)


def one_table_for_all(values, shapes, batches, lr=0.05, seed=0):
    """Every layer hashes with the same seed."""
    return _one_pool(values, shapes, batches, lr, seed, shared_gradient, lambda shape, buckets, _: hash_indices(shape, buckets, seed))


def no_signs_at_all(values, shapes, batches, lr=0.05, seed=0):
    def unsigned_table(shape, buckets, own):
        indices, signs = hash_indices(shape, buckets, own)
        return indices, torch.ones_like(signs)

    return _one_pool(values, shapes, batches, lr, seed, shared_gradient, unsigned_table)


def last_use_wins(values, shapes, batches, lr=0.05, seed=0):
    """`values[indices] -= ...` writes each value as often as it is used, and keeps the last."""
    values, losses = values.clone(), []
    tables = _tables(values, shapes, seed)
    for x, y in batches:
        weights = _decoded(values, tables)
        loss = _loss(x, y, weights)
        for gradient, (indices, signs) in zip(torch.autograd.grad(loss, weights), tables):
            kept = {index: place for place, index in enumerate(indices.flatten().tolist())}
            step = (signs * gradient).flatten()
            for index, place in kept.items():
                values[index] -= lr * step[place]
        losses.append(loss.item())
    return values, losses


def averaged_over_layers(values, shapes, batches, lr=0.05, seed=0):
    return _one_pool(values, shapes, batches, lr / len(shapes), seed, shared_gradient)


def averaged_over_all_uses(values, shapes, batches, lr=0.05, seed=0):
    """The mean over the uses in all layers."""
    counts = sum(torch.bincount(indices.flatten(), minlength=len(values)) for indices, _ in _tables(values, shapes, seed))

    def mean_of_all(gradient, indices, signs, size):
        return shared_gradient(gradient, indices, signs, size) / counts.clamp_min(1)

    return _one_pool(values, shapes, batches, lr, seed, mean_of_all)


def trained_dense(values, shapes, batches, lr=0.05, seed=0):
    """Decoded once, trained as an ordinary network, and averaged back at the end."""
    tables, losses = _tables(values, shapes, seed), []
    weights = [weight.detach() for weight in _decoded(values, tables)]
    for x, y in batches:
        weights = [weight.requires_grad_() for weight in weights]
        loss = _loss(x, y, weights)
        weights = [weight.detach() - lr * gradient for weight, gradient in zip(weights, torch.autograd.grad(loss, weights))]
        losses.append(loss.item())
    size = len(values)
    sums = sum(shared_gradient(weight, indices, signs, size) for weight, (indices, signs) in zip(weights, tables))
    counts = sum(torch.bincount(indices.flatten(), minlength=size) for indices, _ in tables)
    return torch.where(counts > 0, sums / counts.clamp_min(1), values), losses


def last_layer_only(values, shapes, batches, lr=0.05, seed=0):
    values, losses = values.clone(), []
    tables = _tables(values, shapes, seed)
    for x, y in batches:
        weights = _decoded(values, tables)
        loss = _loss(x, y, weights)
        values -= lr * shared_gradient(torch.autograd.grad(loss, weights[-1])[0], *tables[-1], len(values))
        losses.append(loss.item())
    return values, losses


def first_layer_only(values, shapes, batches, lr=0.05, seed=0):
    values, losses = values.clone(), []
    tables = _tables(values, shapes, seed)
    for x, y in batches:
        weights = _decoded(values, tables)
        loss = _loss(x, y, weights)
        values -= lr * shared_gradient(torch.autograd.grad(loss, weights[0])[0], *tables[0], len(values))
        losses.append(loss.item())
    return values, losses


def gradients_kept(values, shapes, batches, lr=0.05, seed=0):
    """No zero_grad: every step goes along the sum of all gradients so far."""
    so_far = torch.zeros_like(values)
    values, losses = values.clone(), []
    tables = _tables(values, shapes, seed)
    for x, y in batches:
        weights = _decoded(values, tables)
        loss = _loss(x, y, weights)
        for gradient, (indices, signs) in zip(torch.autograd.grad(loss, weights), tables):
            so_far += shared_gradient(gradient, indices, signs, len(values))
        values -= lr * so_far
        losses.append(loss.item())
    return values, losses


def callers_values_marked(values, shapes, batches, lr=0.05, seed=0):
    """`requires_grad_()` on the tensor that was given."""
    trained = _one_pool(values, shapes, batches, lr, seed, shared_gradient)
    values.requires_grad_()
    return trained


def callers_values_changed(values, shapes, batches, lr=0.05, seed=0):
    trained, losses = _one_pool(values, shapes, batches, lr, seed, shared_gradient)
    values.copy_(trained)
    return values, losses
