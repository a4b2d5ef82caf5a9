"""Typical wrong answers to exercise 4.13, the loop to repair: each bug left in alone, all of them, and some new ones."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F


def _loop(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01, *, teacher_trains=False, trained_along=False,
          squared=True, swapped=False, reduction="batchmean", twice=False, log_target_forgotten=False, soft_backwards=False,
          in_place=False, zero_grad=True, ends_in_train=False, soft_only_squared=True, teacher_mode_left=False,
          entropy_left_in=False, student_hard=False):
    """The loop with some of its bugs."""
    student = student.train() if in_place else copy.deepcopy(student).train()
    if teacher_trains or trained_along or teacher_mode_left:
        teacher.train(teacher_trains)
    else:
        teacher = copy.deepcopy(teacher).eval()
    parameters = [*student.parameters(), *(teacher.parameters() if trained_along else ())]
    optimizer, losses = torch.optim.AdamW(parameters, lr), []
    for x, y in batches:
        answers = student(x)
        wanted = teacher(x) if trained_along else teacher(x).detach()
        log_s, log_t = (answers / temperature).log_softmax(1), (wanted / temperature).log_softmax(1)
        if log_target_forgotten:
            soft = F.kl_div(log_s, log_t, reduction=reduction)
        elif entropy_left_in:
            soft = F.cross_entropy(answers / temperature, log_t.exp())
        elif student_hard:
            soft = F.kl_div(answers.log_softmax(1), log_t, log_target=True, reduction=reduction)
        elif soft_backwards:
            soft = F.kl_div(log_t, log_s, log_target=True, reduction=reduction)
        else:
            soft = F.kl_div(log_s, log_t, log_target=True, reduction=reduction)
        hard = F.cross_entropy(answers.softmax(1) if twice else answers, y)
        soft = temperature**2 * soft if squared else soft
        if not soft_only_squared:
            hard = temperature**2 * hard
        loss = alpha * hard + (1 - alpha) * soft if swapped else alpha * soft + (1 - alpha) * hard
        if zero_grad:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return (student if ends_in_train else student.eval()), losses


def all_bugs(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, teacher_trains=True, trained_along=True, squared=False, twice=True)


def teacher_in_train_mode(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, teacher_trains=True)


def copy_in_train_mode(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, copy.deepcopy(teacher), batches, temperature, alpha, lr, teacher_trains=True)


def mode_as_it_came(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, teacher_trains=teacher.training, teacher_mode_left=True)


def eval_and_left(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, teacher_mode_left=True)


def teacher_trained_along(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, trained_along=True)


def copy_trained_along(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, copy.deepcopy(teacher), batches, temperature, alpha, lr, trained_along=True)


def gradient_into_teacher(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    """The optimizer holds the student alone, but the loss is not cut off from the teacher."""
    modes = [module.training for module in teacher.modules()]
    teacher.eval()
    student, losses = copy.deepcopy(student).train(), []
    optimizer = torch.optim.AdamW(student.parameters(), lr)
    for x, y in batches:
        answers = student(x)
        log_s, log_t = ((z / temperature).log_softmax(1) for z in (answers, teacher(x)))
        soft = F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")
        loss = alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(answers, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for module, mode in zip(teacher.modules(), modes, strict=True):
        module.training = mode
    return student.eval(), losses


def forgot_t_squared(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, squared=False)


def soft_and_hard_swapped(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, swapped=True)


def both_squared(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, soft_only_squared=False)


def softmax_twice(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, twice=True)


def log_of_the_target(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, log_target_forgotten=True)


def kl_backwards(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, soft_backwards=True)


def entropy_in_the_loss(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    """The cross-entropy with the soft targets for KL: the same gradients, another number."""
    return _loop(student, teacher, batches, temperature, alpha, lr, entropy_left_in=True)


def student_not_softened(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, student_hard=True)


def mean_over_classes(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, reduction="mean")


def sum_over_images(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, reduction="sum")


def student_changed(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, in_place=True)


def gradients_pile_up(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, zero_grad=False)


def left_in_train_mode(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    return _loop(student, teacher, batches, temperature, alpha, lr, ends_in_train=True)


def student_in_eval_mode(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    """Everything in eval mode: the student's batch norms learn no statistics."""
    teacher = copy.deepcopy(teacher).eval()
    student, losses = copy.deepcopy(student).eval(), []
    optimizer = torch.optim.AdamW(student.parameters(), lr)
    for x, y in batches:
        answers, wanted = student(x), (teacher(x).detach() / temperature).softmax(1)
        soft = F.kl_div((answers / temperature).log_softmax(1), wanted, reduction="batchmean")
        loss = alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(answers, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return student, losses
