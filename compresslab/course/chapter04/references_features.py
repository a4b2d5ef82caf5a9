"""The reference answers of exercises 4.7 to 4.13.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F


# -- two directions ----------------------------------------------------------------------------------

def kl_both_ways(teacher: Tensor, students: Tensor) -> tuple[Tensor, Tensor]:
    """4.7: KL(teacher || student) and KL(student || teacher) for every row of `students`, with 0 log 0 = 0."""
    def kl(p, q):
        return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1)

    return kl(teacher, students), kl(students, teacher)


# -- from inside the teacher -------------------------------------------------------------------------

def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """4.8: the distance of the two normalised attention maps, averaged over the images."""
    def attention(features):
        return F.normalize(features.pow(2).sum(1).flatten(1), dim=1)

    return (attention(student) - attention(teacher.detach())).norm(dim=1).mean()


def best_regressor(student: Tensor, teacher: Tensor) -> nn.Conv2d:
    """4.9: the 1x1 convolution that carries the student's feature maps nearest to the teacher's."""
    rows = student.detach().movedim(1, -1).flatten(0, 2)
    wanted = teacher.detach().movedim(1, -1).flatten(0, 2)
    found = torch.linalg.lstsq(F.pad(rows, (0, 1), value=1.0), wanted, driver="gelsd").solution
    regressor = nn.Conv2d(student.shape[1], teacher.shape[1], 1)
    regressor.weight.data = found[:-1].T[:, :, None, None].clone()
    regressor.bias.data = found[-1].clone()
    return regressor


def relational_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """4.10: the Huber loss between the pairwise distances of the two, each divided by its own mean."""
    def distances(embedding):
        pairs = F.pdist(embedding.flatten(1))
        return pairs / pairs.mean()

    return F.smooth_l1_loss(distances(student), distances(teacher.detach()))


# -- the loss, taken apart ---------------------------------------------------------------------------

def decoupled_terms(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor,
                    temperature: float) -> tuple[Tensor, Tensor]:
    """4.11: (TCKD, NCKD) of each image: target against the rest, and the other classes among themselves."""
    def kl(log_p, log_q):
        return (log_p.exp() * (log_p - log_q)).sum(1)

    def parts(logits):
        z = logits / temperature
        target = z.gather(1, labels[:, None])
        others = z[F.one_hot(labels, z.shape[1]) == 0].view(len(z), -1)
        binary = torch.cat([target, others.logsumexp(1, keepdim=True)], 1)
        return binary.log_softmax(1), others.log_softmax(1)

    (binary_s, others_s), (binary_t, others_t) = parts(student_logits), parts(teacher_logits)
    return kl(binary_t, binary_s), kl(others_t, others_s)


# -- peers -------------------------------------------------------------------------------------------

def mutual_losses(logits: list[Tensor], labels: Tensor) -> list[Tensor]:
    """4.12: the loss of each of K peers: its cross-entropy, and its mean divergence from the others."""
    losses = []
    for i, mine in enumerate(logits):
        others = [other.detach().log_softmax(1) for j, other in enumerate(logits) if j != i]
        apart = [F.kl_div(mine.log_softmax(1), other, log_target=True, reduction="batchmean") for other in others]
        losses.append(F.cross_entropy(mine, labels) + sum(apart) / len(others))
    return losses


# -- a loop, repaired --------------------------------------------------------------------------------

def distill_student(student: nn.Module, teacher: nn.Module, batches: list[tuple[Tensor, Tensor]], temperature: float = 4.0,
                    alpha: float = 0.9, lr: float = 0.01) -> tuple[nn.Module, list[float]]:
    """4.13: (a copy of the student, trained on labels and soft targets; the loss of every step)."""
    student, teacher, losses = copy.deepcopy(student).train(), copy.deepcopy(teacher).eval(), []
    optimizer = torch.optim.AdamW(student.parameters(), lr)
    for x, y in batches:
        student_logits = student(x)
        with torch.no_grad():
            wanted = (teacher(x) / temperature).softmax(1)
        soft = F.kl_div((student_logits / temperature).log_softmax(1), wanted, reduction="batchmean")
        hard = F.cross_entropy(student_logits, y)
        loss = alpha * temperature**2 * soft + (1 - alpha) * hard
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return student.eval(), losses
