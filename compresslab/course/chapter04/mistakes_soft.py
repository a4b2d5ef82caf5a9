"""Typical wrong answers to exercises 4.1 to 4.3. They diagnose a learner's mistake, and they test the checks."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from compresslab.course.chapter04 import references_soft as right


# -- 4.1 soften --------------------------------------------------------------------------------------

def _refuse(temperature):
    if not temperature > 0:
        raise ValueError("temperature must be positive")


def multiplied(logits, temperature):
    _refuse(temperature)
    return torch.softmax(logits * temperature, dim=-1)


def softened_afterwards(logits, temperature):
    _refuse(temperature)
    return torch.softmax(logits, dim=-1) / temperature


def probabilities_softened(logits, temperature):
    _refuse(temperature)
    return torch.softmax(torch.softmax(logits, dim=-1) / temperature, dim=-1)


def overflowed(logits, temperature):
    _refuse(temperature)
    weights = torch.exp(logits / temperature)
    return weights / weights.sum(dim=-1, keepdim=True)


def maximum_of_the_batch(logits, temperature):
    _refuse(temperature)
    weights = torch.exp((logits - logits.max()) / temperature)
    return weights / weights.sum(dim=-1, keepdim=True)


def maximum_divided_late(logits, temperature):
    _refuse(temperature)
    weights = torch.exp(logits / temperature - logits.max(dim=-1, keepdim=True).values)
    return weights / weights.sum(dim=-1, keepdim=True)


def over_the_batch(logits, temperature):
    _refuse(temperature)
    return torch.softmax(logits / temperature, dim=0)


def over_dimension_one(logits, temperature):
    _refuse(temperature)
    return torch.softmax(logits / temperature, dim=1)


def summed_over_everything(logits, temperature):
    _refuse(temperature)
    weights = torch.exp((logits - logits.max()) / temperature)
    return weights / weights.sum()


def powers_not_normalised(logits, temperature):
    _refuse(temperature)
    return torch.softmax(logits, dim=-1) ** (1 / temperature)


def powers_of_probabilities(logits, temperature):
    _refuse(temperature)
    powers = torch.softmax(logits, dim=-1) ** (1 / temperature)
    return powers / powers.sum(dim=-1, keepdim=True)


def logarithms(logits, temperature):
    _refuse(temperature)
    return torch.log_softmax(logits / temperature, dim=-1)


def not_refused(logits, temperature):
    return torch.softmax(logits / temperature, dim=-1)


def zero_not_refused(logits, temperature):
    if temperature < 0:
        raise ValueError("temperature must be positive")
    return torch.softmax(logits / temperature, dim=-1)


def nan_not_refused(logits, temperature):
    if temperature <= 0:
        raise ValueError("temperature must be positive")
    return torch.softmax(logits / temperature, dim=-1)


def asserted(logits, temperature):
    assert temperature > 0
    return torch.softmax(logits / temperature, dim=-1)


# -- 4.2 distillation_loss ---------------------------------------------------------------------------

def _kl(student_logits, teacher_logits, temperature, student_temperature=None):
    """KL(teacher || student), the mean over the batch."""
    log_s = F.log_softmax(student_logits / (student_temperature or temperature), dim=1)
    return F.kl_div(log_s, F.log_softmax(teacher_logits / temperature, dim=1), reduction="batchmean", log_target=True)


def _mix(alpha, hard, soft):
    return (1 - alpha) * hard + alpha * soft


def forgot_t_squared(student_logits, teacher_logits, labels, temperature, alpha):
    return _mix(alpha, F.cross_entropy(student_logits, labels), _kl(student_logits, teacher_logits, temperature))


def t_not_squared(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature * _kl(student_logits, teacher_logits, temperature)
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def divided_by_t_squared(student_logits, teacher_logits, labels, temperature, alpha):
    soft = _kl(student_logits, teacher_logits, temperature) / temperature**2
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def t_squared_on_both(student_logits, teacher_logits, labels, temperature, alpha):
    return temperature**2 * forgot_t_squared(student_logits, teacher_logits, labels, temperature, alpha)


def soft_and_hard_swapped(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(student_logits, teacher_logits, temperature)
    return _mix(1 - alpha, F.cross_entropy(student_logits, labels), soft)


def not_a_mixture(student_logits, teacher_logits, labels, temperature, alpha):
    return F.cross_entropy(student_logits, labels) + alpha * temperature**2 * _kl(student_logits, teacher_logits, temperature)


def reversed_kl(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(teacher_logits, student_logits, temperature)
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def mean_over_elements(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(student_logits, teacher_logits, temperature) / student_logits.shape[1]
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def sum_over_batch(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(student_logits, teacher_logits, temperature) * len(labels)
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def both_summed(student_logits, teacher_logits, labels, temperature, alpha):
    return len(labels) * right.distillation_loss(student_logits, teacher_logits, labels, temperature, alpha)


def softened_labels_loss(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(student_logits, teacher_logits, temperature)
    return _mix(alpha, F.cross_entropy(student_logits / temperature, labels), soft)


def only_the_teacher_softened(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(student_logits, teacher_logits, temperature, student_temperature=1.0)
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def only_the_student_softened(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(student_logits, teacher_logits, 1.0, student_temperature=temperature)
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def labels_from_the_teacher(student_logits, teacher_logits, labels, temperature, alpha):
    return right.distillation_loss(student_logits, teacher_logits, teacher_logits.argmax(1), temperature, alpha)


def labels_against_the_teacher(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(student_logits, teacher_logits, temperature)
    return _mix(alpha, F.cross_entropy(teacher_logits, labels), soft)


def teacher_entropy_left_in(student_logits, teacher_logits, labels, temperature, alpha):
    p_t = torch.softmax(teacher_logits / temperature, dim=1)
    soft = temperature**2 * F.cross_entropy(student_logits / temperature, p_t)
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def student_not_in_logarithms(student_logits, teacher_logits, labels, temperature, alpha):
    p_s, p_t = (torch.softmax(z / temperature, dim=1) for z in (student_logits, teacher_logits))
    soft = temperature**2 * F.kl_div(p_s, p_t, reduction="batchmean")
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def sign_of_kl(student_logits, teacher_logits, labels, temperature, alpha):
    soft = -(temperature**2) * _kl(student_logits, teacher_logits, temperature)
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def target_in_logarithms(student_logits, teacher_logits, labels, temperature, alpha):
    log_s, log_t = (torch.log_softmax(z / temperature, dim=1) for z in (student_logits, teacher_logits))
    soft = temperature**2 * (log_t * (log_t - log_s)).sum(1).mean()
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def log_twice(student_logits, teacher_logits, labels, temperature, alpha):
    p_s, log_t = torch.softmax(student_logits / temperature, dim=1), torch.log_softmax(teacher_logits / temperature, dim=1)
    soft = temperature**2 * (log_t.exp() * (log_t - torch.log_softmax(p_s, dim=1))).sum(1).mean()
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def softmax_before_cross_entropy(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(student_logits, teacher_logits, temperature)
    return _mix(alpha, F.cross_entropy(torch.softmax(student_logits, dim=1), labels), soft)


def log_target_forgotten(student_logits, teacher_logits, labels, temperature, alpha):
    log_s, log_t = (torch.log_softmax(z / temperature, dim=1) for z in (student_logits, teacher_logits))
    soft = temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean")
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def log_of_a_softmax(student_logits, teacher_logits, labels, temperature, alpha):
    p_s, p_t = (torch.softmax(z / temperature, dim=1) for z in (student_logits, teacher_logits))
    soft = temperature**2 * (p_t * (p_t.log() - p_s.log())).sum(1).mean()
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def log_of_the_student_only(student_logits, teacher_logits, labels, temperature, alpha):
    p_s, p_t = (torch.softmax(z / temperature, dim=1) for z in (student_logits, teacher_logits))
    soft = temperature**2 * F.kl_div(p_s.log(), p_t, reduction="batchmean")
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def student_detached(student_logits, teacher_logits, labels, temperature, alpha):
    soft = temperature**2 * _kl(student_logits.detach(), teacher_logits, temperature)
    return _mix(alpha, F.cross_entropy(student_logits, labels), soft)


def a_python_number(student_logits, teacher_logits, labels, temperature, alpha):
    return right.distillation_loss(student_logits, teacher_logits, labels, temperature, alpha).item()


# -- 4.3 soft_gradient -------------------------------------------------------------------------------

def _differences(student_logits, teacher_logits, temperature):
    return (torch.softmax(student_logits / temperature, 1) - torch.softmax(teacher_logits / temperature, 1)) / len(student_logits)


def t_squared_without_chain(student_logits, teacher_logits, temperature):
    return temperature**2 * _differences(student_logits, teacher_logits, temperature)


def t_squared_forgotten(student_logits, teacher_logits, temperature):
    return _differences(student_logits, teacher_logits, temperature) / temperature


def chain_and_t_squared_forgotten(student_logits, teacher_logits, temperature):
    return _differences(student_logits, teacher_logits, temperature)


def sign_turned(student_logits, teacher_logits, temperature):
    return -temperature * _differences(student_logits, teacher_logits, temperature)


def batch_forgotten(student_logits, teacher_logits, temperature):
    return temperature * len(student_logits) * _differences(student_logits, teacher_logits, temperature)


def mean_over_classes_too(student_logits, teacher_logits, temperature):
    return temperature * _differences(student_logits, teacher_logits, temperature) / student_logits.shape[1]


def classes_for_batch(student_logits, teacher_logits, temperature):
    return temperature * len(student_logits) * _differences(student_logits, teacher_logits, temperature) / student_logits.shape[1]


def never_softened(student_logits, teacher_logits, temperature):
    return temperature * _differences(student_logits, teacher_logits, 1.0)


def limit_for_all(student_logits, teacher_logits, temperature):
    z_s, z_t = (z - z.mean(dim=1, keepdim=True) for z in (student_logits, teacher_logits))
    return (z_s - z_t) / student_logits.numel()


def logits_not_centred(student_logits, teacher_logits, temperature):
    return (student_logits - teacher_logits) / student_logits.numel()


def first_choice_for_teacher(student_logits, teacher_logits, temperature):
    target = F.one_hot(teacher_logits.argmax(1), teacher_logits.shape[1])
    return temperature * (torch.softmax(student_logits / temperature, 1) - target) / len(student_logits)


def of_the_reversed_kl(student_logits, teacher_logits, temperature):
    log_s, log_t = (torch.log_softmax(z / temperature, 1) for z in (student_logits, teacher_logits))
    inner = log_s - log_t
    inner = inner - (log_s.exp() * inner).sum(1, keepdim=True)
    return temperature * log_s.exp() * inner / len(student_logits)
