"""Right answers to exercises 4.7 to 4.13 that look different from the references: every check must let them pass."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F


# -- 4.7 --------------------------------------------------------------------------------------------

def kl_with_xlogy(teacher, students):
    """p log p - p log q; 0 log 0 is 0 in xlogy, and a positive p beside q = 0 gives infinity."""
    def kl(p, q):
        return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(1)

    wide = teacher.expand_as(students)
    return kl(wide, students), kl(students, wide)


def kl_in_a_loop(teacher, students):
    def kl(p, q):
        total = 0.0
        for a, b in zip(p.tolist(), q.tolist()):
            if a > 0:
                total += a * math.log(a / b) if b > 0 else math.inf
        return total

    return torch.tensor([kl(teacher, s) for s in students]), torch.tensor([kl(s, teacher) for s in students])


def kl_with_torch(teacher, students):
    wide = teacher.expand_as(students)
    return [F.kl_div(q.log(), p, reduction="none").nan_to_num(nan=0.0, posinf=math.inf).sum(-1) for p, q in ((wide, students), (students, wide))]


# -- 4.8 --------------------------------------------------------------------------------------------

def attention_in_a_loop(student, teacher):
    total = 0.0
    for s, t in zip(student, teacher.detach()):
        a, b = torch.einsum("chw,chw->hw", s, s).flatten(), torch.einsum("chw,chw->hw", t, t).flatten()
        total = total + torch.linalg.vector_norm(a / a.norm().clamp_min(1e-12) - b / b.norm().clamp_min(1e-12))
    return total / len(student)


def attention_by_averages(student, teacher):
    """The mean over the channels: normalising takes the difference away."""
    with torch.no_grad():
        t = F.normalize((teacher**2).mean(dim=1).reshape(len(teacher), -1), p=2, dim=-1)
    s = F.normalize((student**2).mean(dim=1).reshape(len(student), -1), p=2, dim=-1)
    return F.pairwise_distance(s, t, eps=0.0).mean()


# -- 4.9 --------------------------------------------------------------------------------------------

def regressor_by_pinv(student, teacher):
    """In double precision, with the pseudo-inverse."""
    rows = student.permute(0, 2, 3, 1).reshape(-1, student.shape[1]).double()
    wanted = teacher.permute(0, 2, 3, 1).reshape(-1, teacher.shape[1]).double()
    mean, level = rows.mean(0), wanted.mean(0)
    weight = torch.linalg.pinv(rows - mean, rtol=1e-6) @ (wanted - level)
    layer = nn.Conv2d(rows.shape[1], wanted.shape[1], kernel_size=(1, 1))
    with torch.no_grad():
        layer.weight.copy_(weight.T.reshape(layer.weight.shape))
        layer.bias.copy_(level - mean @ weight)
    return layer


def regressor_one_channel_each(student, teacher):
    """Output channel by output channel."""
    rows = torch.cat([student.movedim(1, 0).flatten(1), torch.ones(1, student[:, 0].numel())]).T
    layer = nn.Conv2d(student.shape[1], teacher.shape[1], 1)
    for c in range(teacher.shape[1]):
        w = torch.linalg.lstsq(rows.double(), teacher[:, c].reshape(-1, 1).double(), driver="gelsd").solution[:, 0]
        layer.weight.data[c, :, 0, 0], layer.bias.data[c] = w[:-1].float(), w[-1].float()
    return layer


# -- 4.10 -------------------------------------------------------------------------------------------

def relations_from_a_matrix(student, teacher):
    def psi(embedding):
        rows = embedding.reshape(len(embedding), -1)
        d = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        i, j = torch.triu_indices(len(rows), len(rows), offset=1)
        return d[i, j] / d[i, j].mean()

    error = (psi(student) - psi(teacher).detach()).abs()
    return torch.where(error <= 1, error**2 / 2, error - 0.5).mean()


def relations_pair_by_pair(student, teacher):
    def distances(embedding):
        rows = embedding.flatten(1)
        return torch.stack([(rows[i] - rows[j]).norm() for i in range(len(rows)) for j in range(len(rows)) if i != j])

    s, t = distances(student), distances(teacher.detach())
    return F.huber_loss(s / s.mean(), t / t.mean())


# -- 4.11 -------------------------------------------------------------------------------------------

def decoupled_by_masking(student_logits, teacher_logits, labels, temperature):
    """The label's logit at minus a lot; the rest from logsumexp."""
    rows, target = torch.arange(len(labels)), F.one_hot(labels, student_logits.shape[1]).bool()

    def parts(logits):
        z = logits.double() / temperature
        log_p = z.log_softmax(1)[rows, labels]
        rest = z.masked_fill(target, -math.inf)
        return torch.stack([log_p, rest.logsumexp(1) - z.logsumexp(1)], 1), z.masked_fill(target, -1e9).log_softmax(1)

    (bs, os), (bt, ot) = parts(student_logits), parts(teacher_logits)
    return F.kl_div(bs, bt, reduction="none", log_target=True).sum(1), F.kl_div(os, ot, reduction="none", log_target=True).sum(1)


def decoupled_in_a_loop(student_logits, teacher_logits, labels, temperature):
    first, second = [], []
    for s, t, y in zip(student_logits / temperature, teacher_logits / temperature, labels.tolist()):
        others = [c for c in range(len(s)) if c != y]
        s_others, t_others = s[others].log_softmax(0), t[others].log_softmax(0)
        second.append((t_others.exp() * (t_others - s_others)).sum())
        s_two = torch.stack([s[y], s[others].logsumexp(0)]).log_softmax(0)
        t_two = torch.stack([t[y], t[others].logsumexp(0)]).log_softmax(0)
        first.append((t_two.exp() * (t_two - s_two)).sum())
    return torch.stack(first), torch.stack(second)


# -- 4.12 -------------------------------------------------------------------------------------------

def mutual_by_entropies(logits, labels):
    """KL = cross-entropy minus entropy, the peers' probabilities without gradient."""
    with torch.no_grad():
        p = [z.softmax(1) for z in logits]
        entropy = [torch.special.entr(q).sum(1).mean() for q in p]
    k = len(logits)
    return tuple(F.cross_entropy(z, labels) + sum(F.cross_entropy(z, p[j]) - entropy[j] for j in range(k) if j != i) / (k - 1)
                 for i, z in enumerate(logits))


def mutual_stacked(logits, labels):
    z = torch.stack(list(logits))
    log_p, k = z.log_softmax(-1), len(logits)
    fixed = log_p.detach()
    kl = (fixed.exp()[None] * (fixed[None] - log_p[:, None])).sum(-1).mean(-1)      # kl[i, j] = KL(p_j || p_i)
    return [F.nll_loss(log_p[i], labels) + (kl[i].sum() - kl[i, i]) / (k - 1) for i in range(k)]


# -- 4.13 -------------------------------------------------------------------------------------------

def mode_put_back(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    """The teacher itself, in eval mode for the time being; KL by hand."""
    modes = [module.training for module in teacher.modules()]
    teacher.eval()
    learner, losses = copy.deepcopy(student), []
    learner.train()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=lr)
    for x, y in batches:
        with torch.no_grad():
            log_t = F.log_softmax(teacher(x) / temperature, dim=1)
        z = learner(x)
        log_s = F.log_softmax(z / temperature, dim=1)
        loss = (1 - alpha) * F.cross_entropy(z, y) + alpha * temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()
        for parameter in learner.parameters():
            parameter.grad = None
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    for module, mode in zip(teacher.modules(), modes):
        module.training = mode
    return learner.eval(), losses


def teacher_asked_once(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    """All answers of the teacher first, then the training."""
    teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
    taught = [teacher(x) for x, _ in batches]
    learner = copy.deepcopy(student).train()
    optimizer, losses = torch.optim.AdamW(learner.parameters(), lr), []
    for (x, y), wanted in zip(batches, taught, strict=True):
        z = learner(x)
        soft = F.kl_div(F.log_softmax(z / temperature, 1), F.log_softmax(wanted / temperature, 1), reduction="batchmean", log_target=True)
        total = alpha * soft * temperature**2 + (1 - alpha) * F.cross_entropy(z, y)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.detach())
    return learner.train(False), torch.stack(losses)
