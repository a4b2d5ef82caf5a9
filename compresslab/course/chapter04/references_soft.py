"""The reference answers of exercises 4.1 to 4.6.

Each body, its docstring apart, is the solution region of the notebook; a test compares the two.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# -- what the teacher says ---------------------------------------------------------------------------

def soften(logits: Tensor, temperature: float) -> Tensor:
    """4.1: the softmax of logits / T over the last dimension, for logits of any size."""
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    z = logits / temperature
    weights = torch.exp(z - z.max(dim=-1, keepdim=True).values)
    return weights / weights.sum(dim=-1, keepdim=True)


# -- what the student is told ------------------------------------------------------------------------

def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """4.2: (1 - alpha) CE(labels) + alpha T^2 KL(teacher || student), both averaged over the batch."""
    log_s = F.log_softmax(student_logits / temperature, dim=1)
    log_t = F.log_softmax(teacher_logits / temperature, dim=1)
    soft = (log_t.exp() * (log_t - log_s)).sum(dim=1).mean()
    hard = F.cross_entropy(student_logits, labels)
    return (1 - alpha) * hard + alpha * temperature**2 * soft


def soft_gradient(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """4.3: the gradient of T^2 KL(teacher || student), averaged over the batch, for the student's logits."""
    difference = soften(student_logits, temperature) - soften(teacher_logits, temperature)
    return temperature * difference / len(student_logits)


# -- a teacher once ----------------------------------------------------------------------------------

def cache_logits(teacher: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """4.4: the teacher's logits for all images, in their order, in eval mode, without gradients."""
    teacher = copy.deepcopy(teacher).eval()
    with torch.no_grad():
        return torch.cat([teacher(batch) for batch in images.split(batch_size)])


# -- controls ----------------------------------------------------------------------------------------

def shuffle_non_targets(probabilities: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """4.5: in each row the probabilities of the wrong classes in random order; the label's stays."""
    n, classes = probabilities.shape
    wrong = F.one_hot(labels, classes) == 0
    order = torch.rand(n, classes - 1, generator=generator).argsort(dim=1)
    shuffled = probabilities.clone()
    shuffled[wrong] = probabilities[wrong].view(n, classes - 1).gather(1, order).flatten()
    return shuffled


def smooth_labels(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """4.6: (1 - s) of the label and s of the uniform distribution: (N, classes) probabilities."""
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be in [0, 1], got {smoothing}")
    hard = F.one_hot(labels, classes).float()
    return (1 - smoothing) * hard + smoothing / classes
