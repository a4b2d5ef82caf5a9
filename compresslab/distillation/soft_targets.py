"""Soft targets: the student imitates the teacher's whole distribution, not its first choice.

A teacher that calls a digit a 7 with 0.9, a 1 with 0.08 and a 4 with 0.01 says more than the label 7: which
mistakes are small ones. A temperature T > 1 brings the small probabilities up to where they matter:

    p_i^T = exp(z_i / T) / sum_j exp(z_j / T)
    L     = (1 - alpha) CE(y, p_s) + alpha T^2 KL(p_t^T || p_s^T)

Gradients of the second term shrink like 1 / T^2, so the factor T^2 keeps the balance between the two when T
changes. For large T the gradient with respect to z_s tends to ((z_s - mean) - (z_t - mean)) / K: the student
matches the teacher's logits.

Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015, section 2; the idea of
    training on a large model's outputs: Bucilua, Caruana, Niculescu-Mizil, Model Compression, 2006.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compresslab.core.errors import check_fraction
from compresslab.distillation.distill import Seen, Term


def check_temperature(temperature: float) -> float:
    """Return the temperature if it is a positive, finite number.

    Raises:
        TypeError: not a number. ValueError: zero, negative, infinite or nan.
    """
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
        raise TypeError(f"temperature must be a number, got {temperature!r}")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    return float(temperature)


def check_logits(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Refuse logits that do not belong together.

    Raises:
        ValueError: two shapes, or none that reads (N, classes).
    """
    shapes = tuple(student_logits.shape), tuple(teacher_logits.shape)
    if student_logits.ndim != 2 or shapes[0] != shapes[1]:
        raise ValueError(
            "the student's and the teacher's logits must have one shape, (N, classes), "
            f"got {shapes[0]} and {shapes[1]}"
        )


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Refuse labels that do not name one class for each row of ``logits``, and logits of a single class.

    Raises:
        TypeError: the labels are no int64.
        ValueError: they are not (N,), or one is no class number; fewer than two classes.
    """
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64 class numbers, got {labels.dtype}")
    rows, classes = logits.shape
    if labels.shape != (rows,):
        raise ValueError(f"labels must be ({rows},), one per row of logits, got shape {tuple(labels.shape)}")
    if classes < 2:
        raise ValueError(f"there must be 2 classes or more, got logits of {classes}")
    if rows and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        wrong = labels[(labels < 0) | (labels >= classes)][0].item()
        raise ValueError(f"labels must be class numbers from 0 to {classes - 1}, got {wrong}")


def soften(logits: Tensor, temperature: float) -> Tensor:
    """The distribution p^T of logits at a temperature.

    Args:
        logits: (..., K).
        temperature: T > 0; 1 is the ordinary softmax, large T tends to the uniform distribution, small T to
            the first choice alone.
    Returns:
        probabilities, (..., K), that sum to 1 over the last dimension.
    Raises:
        TypeError, ValueError: as `check_temperature`.
    Example:
        >>> soften(torch.tensor([2.0, 0.0]) * math.log(3), 2.0)  # odds 9 become odds 3
        tensor([0.7500, 0.2500])
    """
    return F.softmax(logits / check_temperature(temperature), dim=-1)


def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(p_t^T || p_s^T), averaged over the batch.

    Args:
        student_logits, teacher_logits: z_s and z_t, (N, K). The teacher's get no gradient.
        temperature: T > 0, the same for both.
    Returns:
        a scalar >= 0; 0 where the two agree up to a constant per row.
    Raises:
        TypeError, ValueError: as `check_temperature`; shapes that differ.
    Example:
        >>> z = torch.tensor([[1.0, 0.0]])
        >>> soft_target_loss(z, z + 5).item()
        0.0
    """
    check_logits(student_logits, teacher_logits)
    return _scaled_kl(teacher_logits.detach(), student_logits, temperature)


def reverse_kl_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(p_s^T || p_t^T), averaged over the batch: the other direction.

    It punishes probability where the teacher has none, and forgives peaks that the student leaves out, so a
    student too small for both peaks of a teacher takes one of them instead of covering both.

    Args, Returns, Raises:
        as `soft_target_loss`.
    Source: Gu, Dong, Wei, Huang, MiniLLM: Knowledge Distillation of Large Language Models, 2024, which
        argues for it where the student generates text.
    """
    check_logits(student_logits, teacher_logits)
    return _scaled_kl(student_logits, teacher_logits.detach(), temperature)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of every row, from log-probabilities (N, K): (N,)."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _scaled_kl(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(first / T) || softmax(second / T)), batch mean."""
    check_temperature(temperature)
    log_p, log_q = F.log_softmax(first / temperature, 1), F.log_softmax(second / temperature, 1)
    return temperature**2 * divergence(log_p, log_q).mean()


class SoftTargets(Term):
    """The term T^2 KL(p_t^T || p_s^T) of `soft_target_loss`.

    Args:
        temperature: T > 0.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = check_temperature(temperature)

    def forward(self, seen: Seen) -> Tensor:
        return soft_target_loss(seen.student_logits, seen.teacher_logits, self.temperature)


class Labels(Term):
    """The ordinary cross-entropy with the labels: the hard half of the loss, or a student without a teacher.

    Args:
        smoothing: eps in [0, 1]; the target becomes (1 - eps) on the label and eps / K on every class.
    Source: of the smoothing, Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, Rethinking the Inception
        Architecture for Computer Vision, 2016, section 7.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = check_fraction("smoothing", smoothing)

    def forward(self, seen: Seen) -> Tensor:
        return F.cross_entropy(seen.student_logits, seen.y, label_smoothing=self.smoothing)
