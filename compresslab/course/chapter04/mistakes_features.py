"""Typical wrong answers to exercises 4.7 to 4.9: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_features`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


# -- 4.7 kl_both_ways --------------------------------------------------------------------------------

def _kl(p, q):
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1)


def directions_swapped(teacher, students):
    return _kl(students, teacher), _kl(teacher, students)


def forward_twice(teacher, students):
    return _kl(teacher, students), _kl(teacher, students)


def reverse_twice(teacher, students):
    return _kl(students, teacher), _kl(students, teacher)


def nan_at_zero(teacher, students):
    return (teacher * (teacher / students).log()).sum(-1), (students * (students / teacher).log()).sum(-1)


def a_little_added(teacher, students):
    p, q = teacher + 1e-8, students + 1e-8
    return (p * (p / q).log()).sum(-1), (q * (q / p).log()).sum(-1)


def never_infinite(teacher, students):
    return tuple(torch.nan_to_num(kl, nan=0.0, posinf=0.0) for kl in nan_at_zero(teacher, students))


def shared_support(teacher, students):
    both = (teacher > 0) & (students > 0)
    ratio = torch.where(both, teacher, 1.0) / torch.where(both, students, 1.0)
    return (teacher * ratio.log()).sum(-1), -(students * ratio.log()).sum(-1)


def mean_of_outcomes(teacher, students):
    return tuple(kl / teacher.shape[-1] for kl in (_kl(teacher, students), _kl(students, teacher)))


def cross_entropies(teacher, students):
    return -torch.special.xlogy(teacher, students).sum(-1), -torch.special.xlogy(students, teacher).sum(-1)


def one_number_each(teacher, students):
    return _kl(teacher, students).sum(), _kl(students, teacher).sum()


def minus_sign(teacher, students):
    return -_kl(teacher, students), -_kl(students, teacher)


def places_of_the_best(teacher, students):
    return int(_kl(teacher, students).argmin()), int(_kl(students, teacher).argmin())


def in_bits(teacher, students):
    return _kl(teacher, students) / torch.tensor(2.0).log(), _kl(students, teacher) / torch.tensor(2.0).log()


# -- 4.8 attention_loss ------------------------------------------------------------------------------

def _compared(student, teacher, attention):
    return (attention(student) - attention(teacher.detach())).norm(dim=1).mean()


def _energy(features):
    return features.pow(2).sum(1).flatten(1)


def not_normalised(student, teacher):
    return _compared(student, teacher, _energy)


def signed_sum_of_channels(student, teacher):
    return _compared(student, teacher, lambda f: F.normalize(f.sum(1).flatten(1), dim=1))


def absolute_sum_of_channels(student, teacher):
    return _compared(student, teacher, lambda f: F.normalize(f.abs().sum(1).flatten(1), dim=1))


def summed_then_squared(student, teacher):
    return _compared(student, teacher, lambda f: F.normalize(f.sum(1).pow(2).flatten(1), dim=1))


def normalised_by_the_sum(student, teacher):
    return _compared(student, teacher, lambda f: _energy(f) / _energy(f).sum(1, keepdim=True))


def normalised_over_the_batch(student, teacher):
    return _compared(student, teacher, lambda f: _energy(f) / _energy(f).norm())


def normalised_over_images(student, teacher):
    return _compared(student, teacher, lambda f: F.normalize(_energy(f), dim=0))


def each_channel_normalised(student, teacher):
    return _compared(student, teacher, lambda f: F.normalize(f.flatten(2), dim=2).pow(2).sum(1))


def squared_distance(student, teacher):
    a, b = (F.normalize(_energy(f), dim=1) for f in (student, teacher.detach()))
    return (a - b).pow(2).sum(1).mean()


def mean_squared_error(student, teacher):
    a, b = (F.normalize(_energy(f), dim=1) for f in (student, teacher.detach()))
    return F.mse_loss(a, b)


def summed_over_images(student, teacher):
    a, b = (F.normalize(_energy(f), dim=1) for f in (student, teacher.detach()))
    return (a - b).norm(dim=1).sum()


def one_norm_for_the_batch(student, teacher):
    a, b = (F.normalize(_energy(f), dim=1) for f in (student, teacher.detach()))
    return (a - b).norm()


def one_norm_over_images(student, teacher):
    a, b = (F.normalize(_energy(f), dim=1) for f in (student, teacher.detach()))
    return (a - b).norm() / len(a)


def attention_gradient_to_teacher(student, teacher):
    a, b = (F.normalize(_energy(f), dim=1) for f in (student, teacher))
    return (a - b).norm(dim=1).mean()


def student_detached(student, teacher):
    return attention_gradient_to_teacher(student.detach(), teacher.detach())


def channels_compared(student, teacher):
    """Squares summed over the positions: a map over channels."""
    a, b = (F.normalize(f.pow(2).sum((2, 3)), dim=1) for f in (student, teacher.detach()))
    return (a - b).norm(dim=1).mean()


# -- 4.9 best_regressor ------------------------------------------------------------------------------

def _rows(features):
    return features.detach().movedim(1, -1).flatten(0, 2)


def _convolution(weight, bias):
    """A 1x1 convolution with weight (inputs, outputs)."""
    layer = nn.Conv2d(*weight.shape, 1)
    layer.weight.data, layer.bias.data = weight.T[:, :, None, None].clone(), bias.clone()
    return layer


def _fitted(rows, wanted):
    found = torch.linalg.lstsq(F.pad(rows, (0, 1), value=1.0), wanted, driver="gelsd").solution
    return _convolution(found[:-1], found[-1])


def no_bias(student, teacher):
    weight = torch.linalg.lstsq(_rows(student), _rows(teacher), driver="gelsd").solution
    return _convolution(weight, torch.zeros(weight.shape[1]))


def reshaped(student, teacher):
    """`reshape(-1, C)` of (B, C, H, W): rows that mix channels and positions."""
    return _fitted(student.detach().reshape(-1, student.shape[1]), teacher.detach().reshape(-1, teacher.shape[1]))


def other_way_round(student, teacher):
    return _fitted(_rows(teacher), _rows(student))


def pooled(student, teacher):
    return _fitted(student.detach().mean((2, 3)), teacher.detach().mean((2, 3)))


def first_image_only(student, teacher):
    return _fitted(_rows(student[:1]), _rows(teacher[:1]))


def centred_and_left(student, teacher):
    rows, wanted = _rows(student), _rows(teacher)
    weight = torch.linalg.lstsq(rows - rows.mean(0), wanted - wanted.mean(0), driver="gelsd").solution
    return _convolution(weight, wanted.mean(0))


def normal_equations(student, teacher):
    rows = F.pad(_rows(student), (0, 1), value=1.0)
    found = torch.linalg.inv(rows.T @ rows) @ rows.T @ _rows(teacher)
    return _convolution(found[:-1], found[-1])


def untrained(student, teacher):
    return nn.Conv2d(student.shape[1], teacher.shape[1], 1)


def a_little_trained(student, teacher):
    layer = nn.Conv2d(student.shape[1], teacher.shape[1], 1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.mse_loss(layer(student.detach()), teacher.detach()).backward()
        optimizer.step()
    return layer


def numbers_only(student, teacher):
    layer = _fitted(_rows(student), _rows(teacher))
    return layer.weight.data, layer.bias.data
