"""Typical wrong answers to exercises 4.10 to 4.12: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_features`.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


# -- 4.10 relational_loss ----------------------------------------------------------------------------

def _pairs(embedding):
    return F.pdist(embedding.flatten(1))


def _psi(embedding):
    return _pairs(embedding) / _pairs(embedding).mean()


def not_divided(student, teacher):
    return F.smooth_l1_loss(_pairs(student), _pairs(teacher.detach()))


def both_by_the_teacher(student, teacher):
    mean = _pairs(teacher.detach()).mean()
    return F.smooth_l1_loss(_pairs(student) / mean, _pairs(teacher.detach()) / mean)


def divided_by_the_largest(student, teacher):
    return F.smooth_l1_loss(*(_pairs(f) / _pairs(f).max() for f in (student, teacher.detach())))


def squared_distances(student, teacher):
    squares = [_pairs(f) ** 2 for f in (student, teacher.detach())]
    return F.smooth_l1_loss(*(d / d.mean() for d in squares))


def _matrix(embedding):
    rows = embedding.flatten(1)
    return (rows[:, None] - rows[None]).norm(dim=-1)


def with_itself(student, teacher):
    return F.smooth_l1_loss(*(_matrix(f) / _matrix(f).mean() for f in (student, teacher.detach())))


def with_itself_in_the_mean(student, teacher):
    """mu over the pairs of different images, the loss over all B^2 entries."""
    return F.smooth_l1_loss(*(_matrix(f) / _pairs(f).mean() for f in (student, teacher.detach())))


def neighbours_only(student, teacher):
    steps = [(f.flatten(1)[1:] - f.flatten(1)[:-1]).norm(dim=1) for f in (student, teacher.detach())]
    return F.smooth_l1_loss(*(d / d.mean() for d in steps))


def squared_error(student, teacher):
    return F.mse_loss(_psi(student), _psi(teacher.detach()))


def half_squared_error(student, teacher):
    return F.mse_loss(_psi(student), _psi(teacher.detach())) / 2


def absolute_error(student, teacher):
    return F.l1_loss(_psi(student), _psi(teacher.detach()))


def summed_over_pairs(student, teacher):
    return F.smooth_l1_loss(_psi(student), _psi(teacher.detach()), reduction="sum")


def cosines(student, teacher):
    return F.smooth_l1_loss(*(F.normalize(f.flatten(1), dim=1) @ F.normalize(f.flatten(1), dim=1).T for f in (student, teacher.detach())))


def relational_gradient_to_teacher(student, teacher):
    return F.smooth_l1_loss(_psi(student), _psi(teacher))


def mean_held_fixed(student, teacher):
    return F.smooth_l1_loss(_pairs(student) / _pairs(student).mean().detach(), _psi(teacher.detach()))


def root_of_zero(student, teacher):
    """The distances from the Gram matrix: a square root of 0 has an infinite slope."""
    def psi(embedding):
        rows = embedding.flatten(1)
        d = (rows[:, None] - rows[None]).pow(2).sum(-1).sqrt()
        d = d[torch.ones_like(d).triu(1) == 1]
        return d / d.mean()

    return F.smooth_l1_loss(psi(student), psi(teacher.detach()))


# -- 4.11 decoupled_terms ----------------------------------------------------------------------------

def _kl_of_logs(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _parts(logits, labels, temperature):
    z = logits / temperature
    target, others = z.gather(1, labels[:, None]), z[F.one_hot(labels, z.shape[1]) == 0].view(len(z), -1)
    return torch.cat([target, others.logsumexp(1, keepdim=True)], 1).log_softmax(1), others.log_softmax(1)


def _both(student_logits, teacher_logits, labels, temperature):
    (bs, os), (bt, ot) = _parts(student_logits, labels, temperature), _parts(teacher_logits, labels, temperature)
    return _kl_of_logs(bt, bs), _kl_of_logs(ot, os)


def terms_swapped(student_logits, teacher_logits, labels, temperature):
    tckd, nckd = _both(student_logits, teacher_logits, labels, temperature)
    return nckd, tckd


def terms_reversed(student_logits, teacher_logits, labels, temperature):
    return _both(teacher_logits, student_logits, labels, temperature)


def times_t_squared(student_logits, teacher_logits, labels, temperature):
    return tuple(temperature**2 * term for term in _both(student_logits, teacher_logits, labels, temperature))


def terms_averaged(student_logits, teacher_logits, labels, temperature):
    return tuple(term.mean() for term in _both(student_logits, teacher_logits, labels, temperature))


def already_weighted(student_logits, teacher_logits, labels, temperature):
    tckd, nckd = _both(student_logits, teacher_logits, labels, temperature)
    sure = (teacher_logits / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
    return tckd, (1 - sure) * nckd


def no_temperature(student_logits, teacher_logits, labels, temperature):
    return _both(student_logits, teacher_logits, labels, 1.0)


def _logs(logits, labels, temperature):
    log_p = (logits / temperature).log_softmax(1)
    return log_p, F.one_hot(labels, logits.shape[1]).bool()


def others_not_renormalised(student_logits, teacher_logits, labels, temperature):
    log_s, _ = _logs(student_logits, labels, temperature)
    log_t, target = _logs(teacher_logits, labels, temperature)
    tckd, _ = _both(student_logits, teacher_logits, labels, temperature)
    return tckd, (log_t.exp() * (log_t - log_s)).masked_fill(target, 0).sum(1)


def others_zeroed(student_logits, teacher_logits, labels, temperature):
    """The label's logit set to 0, not taken out."""
    keep = F.one_hot(labels, student_logits.shape[1]) == 0
    tckd, _ = _both(student_logits, teacher_logits, labels, temperature)
    return tckd, _kl_of_logs(*((z / temperature * keep).log_softmax(1) for z in (teacher_logits, student_logits)))


def target_alone(student_logits, teacher_logits, labels, temperature):
    """p_t log(p_t / q_t) without the rest."""
    log_s, log_t = (_parts(z, labels, temperature)[0][:, 0] for z in (student_logits, teacher_logits))
    return log_t.exp() * (log_t - log_s), _both(student_logits, teacher_logits, labels, temperature)[1]


def one_minus_p(student_logits, teacher_logits, labels, temperature):
    """log(1 - p), which is -inf as soon as p rounds to 1."""
    def binary(logits):
        p = (logits / temperature).softmax(1).gather(1, labels[:, None])
        return torch.cat([p, 1 - p], 1)

    p, q = binary(teacher_logits), binary(student_logits)
    return (p * (p / q).log()).sum(1), _both(student_logits, teacher_logits, labels, temperature)[1]


def teachers_choice(student_logits, teacher_logits, labels, temperature):
    return _both(student_logits, teacher_logits, teacher_logits.argmax(1), temperature)


def mean_of_the_others(student_logits, teacher_logits, labels, temperature):
    """The rest as the mean logit of the others, not their log-sum-exp."""
    def binary(logits):
        z = logits / temperature
        target, others = z.gather(1, labels[:, None]), z[F.one_hot(labels, z.shape[1]) == 0].view(len(z), -1)
        return torch.cat([target, others.mean(1, keepdim=True)], 1).log_softmax(1)

    return _kl_of_logs(binary(teacher_logits), binary(student_logits)), _both(student_logits, teacher_logits, labels, temperature)[1]


# -- 4.12 mutual_losses ------------------------------------------------------------------------------

def _mutual(logits, labels, *, stop=True, reverse=False, ce=1.0, reduction="batchmean", divide=None, own=False):
    losses = []
    for i, mine in enumerate(logits):
        apart = []
        for j, other in enumerate(logits):
            if j != i or own:
                other, log_mine = (other.detach() if stop else other).log_softmax(1), mine.log_softmax(1)
                pair = (other, log_mine) if reverse else (log_mine, other)
                apart.append(F.kl_div(*pair, log_target=True, reduction=reduction))
        losses.append(ce * F.cross_entropy(mine, labels) + sum(apart) / (divide or len(apart)))
    return losses


def peers_not_stopped(logits, labels):
    return _mutual(logits, labels, stop=False)


def peers_reversed(logits, labels):
    return _mutual(logits, labels, reverse=True)


def peers_added(logits, labels):
    return _mutual(logits, labels, divide=1)


def divided_by_all(logits, labels):
    return _mutual(logits, labels, divide=len(logits))


def labels_forgotten(logits, labels):
    return _mutual(logits, labels, ce=0.0)


def mean_over_elements(logits, labels):
    return _mutual(logits, labels, reduction="mean")


def log_target_forgotten(logits, labels):
    """Logarithms of the peers as targets, without log_target=True: the logarithm of a negative number."""
    return [F.cross_entropy(mine, labels) + sum(F.kl_div(mine.log_softmax(1), other.detach().log_softmax(1), reduction="batchmean")
                                                for j, other in enumerate(logits) if j != i) / (len(logits) - 1)
            for i, mine in enumerate(logits)]


def one_loss_for_all(logits, labels):
    return sum(_mutual(logits, labels))


def itself_detached(logits, labels):
    """One's own logits detached in the divergence, not the peer's."""
    losses = []
    for i, mine in enumerate(logits):
        apart = [F.kl_div(mine.detach().log_softmax(1), other.log_softmax(1), log_target=True, reduction="batchmean")
                 for j, other in enumerate(logits) if j != i]
        losses.append(F.cross_entropy(mine, labels) + sum(apart) / len(apart))
    return losses


def against_the_mean(logits, labels):
    """The divergence from the mean of the peers' distributions."""
    losses = []
    for i, mine in enumerate(logits):
        mean = sum(other.detach().softmax(1) for j, other in enumerate(logits) if j != i) / (len(logits) - 1)
        losses.append(F.cross_entropy(mine, labels) + F.kl_div(mine.log_softmax(1), mean, reduction="batchmean"))
    return losses
