"""Typical wrong answers to exercises 4.4 to 4.6. They diagnose a learner's mistake, and they test the checks."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F

from compresslab.course.chapter04 import references_soft as right


# -- 4.4 cache_logits --------------------------------------------------------------------------------

def as_it_came(teacher, images, batch_size):
    with torch.no_grad():
        return torch.cat([teacher(batch) for batch in images.split(batch_size)])


def in_train_mode(teacher, images, batch_size):
    teacher.train()
    with torch.no_grad():
        return torch.cat([teacher(batch) for batch in images.split(batch_size)])


def left_in_eval(teacher, images, batch_size):
    teacher.eval()
    with torch.no_grad():
        return torch.cat([teacher(batch) for batch in images.split(batch_size)])


def back_to_train(teacher, images, batch_size):
    teacher.eval()
    with torch.no_grad():
        logits = torch.cat([teacher(batch) for batch in images.split(batch_size)])
    teacher.train()
    return logits


def mode_of_the_root(teacher, images, batch_size):
    mode = teacher.training
    teacher.eval()
    with torch.no_grad():
        logits = torch.cat([teacher(batch) for batch in images.split(batch_size)])
    teacher.train(mode)
    return logits


def gradients_kept(teacher, images, batch_size):
    teacher = copy.deepcopy(teacher).eval()
    return torch.cat([teacher(batch) for batch in images.split(batch_size)])


def gradients_kept_and_left_in_eval(teacher, images, batch_size):
    teacher.eval()
    return torch.cat([teacher(batch) for batch in images.split(batch_size)])


def last_batch_dropped(teacher, images, batch_size):
    whole = len(images) // batch_size * batch_size
    return right.cache_logits(teacher, images[:whole] if whole else images, batch_size)


def only_the_last_batch(teacher, images, batch_size):
    return right.cache_logits(teacher, images.split(batch_size)[-1], batch_size)


def all_at_once(teacher, images, batch_size):
    return right.cache_logits(teacher, images, len(images))


def number_of_batches(teacher, images, batch_size):
    teacher = copy.deepcopy(teacher).eval()
    with torch.no_grad():
        return torch.cat([teacher(batch) for batch in images.chunk(batch_size)])


def probabilities_cached(teacher, images, batch_size):
    return right.cache_logits(teacher, images, batch_size).softmax(1)


def labels_cached(teacher, images, batch_size):
    return right.cache_logits(teacher, images, batch_size).argmax(1)


def in_random_order(teacher, images, batch_size):
    return right.cache_logits(teacher, images[torch.randperm(len(images))], batch_size)


def a_list_of_batches(teacher, images, batch_size):
    return list(right.cache_logits(teacher, images, batch_size).split(batch_size))


# -- 4.5 shuffle_non_targets -------------------------------------------------------------------------

def _wrong_classes(probabilities, labels):
    return F.one_hot(labels, probabilities.shape[1]) == 0


def label_shuffled_too(probabilities, labels, generator):
    return probabilities.gather(1, torch.rand(probabilities.shape, generator=generator).argsort(dim=1))


def one_order_for_all(probabilities, labels, generator):
    n, classes = probabilities.shape
    wrong, shuffled = _wrong_classes(probabilities, labels), probabilities.clone()
    order = torch.randperm(classes - 1, generator=generator)
    shuffled[wrong] = probabilities[wrong].view(n, classes - 1)[:, order].flatten()
    return shuffled


def everything_wrong_shuffled_together(probabilities, labels, generator):
    wrong, shuffled = _wrong_classes(probabilities, labels), probabilities.clone()
    rest = probabilities[wrong]
    shuffled[wrong] = rest[torch.randperm(len(rest), generator=generator)]
    return shuffled


def rows_shuffled(probabilities, labels, generator):
    return probabilities[torch.randperm(len(probabilities), generator=generator)]


def averaged(probabilities, labels, generator):
    n, classes = probabilities.shape
    wrong, result = _wrong_classes(probabilities, labels), probabilities.clone()
    mean = probabilities[wrong].view(n, classes - 1).mean(1, keepdim=True)
    result[wrong] = mean.expand(n, classes - 1).flatten()
    return result


def rotated(probabilities, labels, generator):
    n, classes = probabilities.shape
    wrong, result = _wrong_classes(probabilities, labels), probabilities.clone()
    result[wrong] = probabilities[wrong].view(n, classes - 1).roll(1, dims=1).flatten()
    return result


def generator_ignored(probabilities, labels, generator):
    n, classes = probabilities.shape
    wrong, shuffled = _wrong_classes(probabilities, labels), probabilities.clone()
    order = torch.rand(n, classes - 1).argsort(dim=1)
    shuffled[wrong] = probabilities[wrong].view(n, classes - 1).gather(1, order).flatten()
    return shuffled


def largest_kept(probabilities, labels, generator):
    return right.shuffle_non_targets(probabilities, probabilities.argmax(1), generator)


def input_overwritten(probabilities, labels, generator):
    n, classes = probabilities.shape
    wrong = _wrong_classes(probabilities, labels)
    order = torch.rand(n, classes - 1, generator=generator).argsort(dim=1)
    probabilities[wrong] = probabilities[wrong].view(n, classes - 1).gather(1, order).flatten()
    return probabilities


# -- 4.6 smooth_labels -------------------------------------------------------------------------------

def _check_smoothing(smoothing):
    if not 0 <= smoothing <= 1:
        raise ValueError("smoothing must be in [0, 1]")


def shared_by_the_others(labels, classes, smoothing):
    _check_smoothing(smoothing)
    hard = F.one_hot(labels, classes).float()
    return (1 - smoothing) * hard + smoothing / (classes - 1) * (1 - hard)


def nothing_for_the_label(labels, classes, smoothing):
    _check_smoothing(smoothing)
    hard = F.one_hot(labels, classes).float()
    return (1 - smoothing) * hard + smoothing / classes * (1 - hard)


def added_on_top(labels, classes, smoothing):
    _check_smoothing(smoothing)
    return F.one_hot(labels, classes).float() + smoothing / classes


def undivided(labels, classes, smoothing):
    _check_smoothing(smoothing)
    return (1 - smoothing) * F.one_hot(labels, classes).float() + smoothing


def turned_round(labels, classes, smoothing):
    _check_smoothing(smoothing)
    return smoothing * F.one_hot(labels, classes).float() + (1 - smoothing) / classes


def still_hard(labels, classes, smoothing):
    _check_smoothing(smoothing)
    return F.one_hot(labels, classes).float()


def classes_counted(labels, classes, smoothing):
    _check_smoothing(smoothing)
    seen = int(labels.max()) + 1
    return (1 - smoothing) * F.one_hot(labels, seen).float() + smoothing / seen


def any_smoothing(labels, classes, smoothing):
    return (1 - smoothing) * F.one_hot(labels, classes).float() + smoothing / classes
