"""Typical half-repaired answers to exercise 7.12: each one is run, to recognise it in a learner's answer.

All are `compress` with one or more of its parts exchanged; with all of them exchanged it is the buggy one.
"""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F

from compresslab.core import kmeans_1d


def right(weight, x, y):
    """The fraction of images that a linear layer has right."""
    return ((x @ weight.T).argmax(1) == y).double().mean().item()


def pruned(weight, sparsity):
    """(the flat weight with zeros, the places that are left)."""
    order = weight.abs().flatten().argsort(stable=True)
    drop, kept = order[:round(sparsity * weight.numel())], order[round(sparsity * weight.numel()):]
    return weight.flatten().index_fill(0, drop, 0.0), kept


def clusters_of_the_rest(weight, sparsity, k):
    """Right: (values, places, labels), the pruned places left out."""
    flat, kept = pruned(weight, sparsity)
    return *kmeans_1d(flat[kept], k), kept


def clusters_of_everything(weight, sparsity, k):
    """Wrong: the zeros are clustered with the others."""
    flat, _ = pruned(weight, sparsity)
    return *kmeans_1d(flat, k), torch.arange(len(flat))


def clusters_before_pruning(weight, sparsity, k):
    """Wrong: the code book is made of all weights, before any is dropped."""
    _, kept = pruned(weight, sparsity)
    values, labels = kmeans_1d(weight.flatten(), k)
    return values, labels[kept], kept


def clusters_of_everything_zeros_held(weight, sparsity, k):
    """The zeros take part in the clustering, and then they are held."""
    flat, kept = pruned(weight, sparsity)
    values, labels = kmeans_1d(flat, k)
    return values, labels[kept], kept


def sums(gradient, labels, size):
    return torch.zeros(size).index_add(0, labels, gradient)


def means(gradient, labels, size):
    return sums(gradient, labels, size) / torch.bincount(labels, minlength=size).clamp(min=1)


def in_eval(teacher, images):
    with torch.no_grad():
        return copy.deepcopy(teacher).eval()(images).softmax(1)


def as_it_is(teacher, images):
    """Wrong: in the mode in which the last training left it."""
    with torch.no_grad():
        return copy.deepcopy(teacher).train()(images).softmax(1)


def hard_answers(teacher, images):
    return F.one_hot(in_eval(teacher, images).argmax(1), in_eval(teacher, images).shape[1]).float()


def run(weight, teacher, images, validation, test, sparsity, k, steps, lr, *, cluster=clusters_of_the_rest, taught=in_eval, reduced=sums,
        chosen_on="validation", reported_on="test", better=lambda new, old: new > old, choices=slice(None)):
    """`compress`, with its parts as arguments."""
    values, labels, places = cluster(weight, sparsity, k)
    targets, splits, history = taught(teacher, images), {"validation": validation, "test": test}, []
    for _ in range(steps + 1):
        decoded = torch.zeros(weight.numel()).index_copy(0, places, values[labels]).view_as(weight).requires_grad_()
        history.append((right(decoded, *splits[chosen_on]), decoded.detach()))
        gradient, = torch.autograd.grad(F.cross_entropy(images @ decoded.T, targets), decoded)
        values = values - lr * reduced(gradient.flatten()[places], labels, len(values))
    best = None
    for item in history[choices]:
        if best is None or better(item[0], best[0]):
            best = item
    return best[1], right(best[1], *splits[reported_on])


def _with(**parts):
    def compress(weight, teacher, images, validation, test, sparsity, k, steps, lr):
        return run(weight, teacher, images, validation, test, sparsity, k, steps, lr, **parts)

    return compress


all_bugs = _with(cluster=clusters_of_everything, taught=as_it_is, reduced=means, chosen_on="test")
zeros_clustered = _with(cluster=clusters_of_everything)
zeros_clustered_but_held = _with(cluster=clusters_of_everything_zeros_held)
code_book_before_pruning = _with(cluster=clusters_before_pruning)
gradient_averaged = _with(reduced=means)
teacher_in_training = _with(taught=as_it_is)
answers_hardened = _with(taught=hard_answers)
chosen_on_test = _with(chosen_on="test")
reported_on_validation = _with(reported_on="validation")
last_step = _with(choices=slice(-1, None))
without_the_start = _with(choices=slice(1, None))
one_step_short = _with(choices=slice(None, -1))
latest_of_equals = _with(better=lambda new, old: new >= old)
worst_chosen = _with(better=lambda new, old: new < old)
only_the_zeros_repaired = _with(taught=as_it_is, reduced=means, chosen_on="test")
zeros_and_gradient_repaired = _with(taught=as_it_is, chosen_on="test")
teacher_not_repaired_nor_zeros = _with(cluster=clusters_of_everything, taught=as_it_is)
zeros_and_choice_left = _with(cluster=clusters_of_everything, chosen_on="test")


def masked_at_the_end(weight, teacher, images, validation, test, sparsity, k, steps, lr):
    """The zeros are clustered and trained; only what is returned is masked."""
    stored, _ = run(weight, teacher, images, validation, test, sparsity, k, steps, lr, cluster=clusters_of_everything)
    flat, _ = pruned(weight, sparsity)
    stored = torch.where(flat.view_as(weight) != 0, stored, torch.zeros_like(stored))
    return stored, right(stored, *test)


def weights_tuned_apart(weight, teacher, images, validation, test, sparsity, k, steps, lr):
    """Every weight that is left follows its own gradient: nothing is shared any more."""
    values, labels, places = clusters_of_the_rest(weight, sparsity, k)
    own, targets, history = values[labels], in_eval(teacher, images), []
    for _ in range(steps + 1):
        decoded = torch.zeros(weight.numel()).index_copy(0, places, own).view_as(weight).requires_grad_()
        history.append((right(decoded, *validation), decoded.detach()))
        gradient, = torch.autograd.grad(F.cross_entropy(images @ decoded.T, targets), decoded)
        own = own - lr * gradient.flatten()[places]
    best = max(history, key=lambda item: item[0])[1]
    return best, right(best, *test)
