r"""Decoupled distillation: how sure the teacher is, and what it thinks of the other classes, weighed apart.

The divergence of two softened distributions falls into two parts. One asks only "the right class, or not?";
the other compares how the wrong classes share what is left. Plain distillation multiplies the second part by
:math:`1 - p_t`, so that a teacher that is sure of an image teaches next to nothing about it. DKD takes that
factor away.
"""

import math

import torch
from torch import Tensor

from compresslab.distillation.distill import Seen, Term
from compresslab.distillation.soft_targets import check_labels, check_logits, check_temperature, divergence


def non_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits of every class but the right one, in their order: (N, K) to (N, K - 1).

    Example:
        >>> non_targets(torch.tensor([[5.0, 6.0, 7.0], [1.0, 2.0, 3.0]]), torch.tensor([1, 0]))
        tensor([[5., 7.],
                [2., 3.]])
    """
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels[:, None], False)
    return logits[others].view(len(logits), logits.shape[1] - 1)


def binary_log_probabilities(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    r"""The logarithms of :math:`b = [p_t, 1 - p_t]`: the right class against all others together.

    The second is the log-sum-exp of the other classes and not ``log(1 - p_t)``, which is minus infinity in
    float32 as soon as :math:`p_t` rounds to 1.

    Returns:
        (N, 2).

    Example:
        >>> b = binary_log_probabilities(torch.zeros(1, 4), torch.tensor([2]), temperature=1.0).exp()
        >>> [round(value, 4) for value in b[0].tolist()]
        [0.25, 0.75]
    """
    logits = logits / temperature
    target = logits.gather(1, labels[:, None])
    rest = non_targets(logits, labels).logsumexp(1, keepdim=True)
    return torch.cat([target, rest], dim=1).log_softmax(1)


def tckd(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    r"""The target part: does the student give the right class what the teacher gives it?

    .. math:: \mathrm{TCKD} = \mathrm{KL}(b^{\mathcal T} \,\|\, b^{\mathcal S}), \qquad b = [p_t,\; 1 - p_t],
              \qquad p = \mathrm{softmax}(z / T)

    Args:
        student_logits, teacher_logits: (N, K), K at least 2. The teacher's get no gradient.
        labels: int64 (N,), the right classes :math:`t`.
        temperature: :math:`T > 0`.

    Returns:
        (N,), one number per image, without the factor :math:`T^2`.

    Raises:
        TypeError, ValueError: shapes that differ, labels that are no class numbers, a temperature that is not
            above 0.

    Source:
        B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang, "Decoupled Knowledge Distillation", CVPR 2022, section 3.

    Example:
        >>> z = torch.tensor([[1.0, 0.0, 0.0]])
        >>> tckd(z, z + 5, torch.tensor([0]), temperature=2.0)  # a shift changes no probability
        tensor([0.])
    """
    _check(student_logits, teacher_logits, labels, temperature)
    teacher = binary_log_probabilities(teacher_logits.detach(), labels, temperature)
    return divergence(teacher, binary_log_probabilities(student_logits, labels, temperature))


def nckd(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    r"""The non-target part: among the wrong classes, does the student see the same likeness as the teacher?

    .. math:: \mathrm{NCKD} = \mathrm{KL}(\hat p^{\mathcal T} \,\|\, \hat p^{\mathcal S}), \qquad
              \hat p_i = \frac{e^{z_i / T}}{\sum_{j \ne t} e^{z_j / T}}, \quad i \ne t

    The target's logit is not in it, so it says nothing about being right.

    Args, Returns, Raises:
        as :func:`tckd`.

    Source: Zhao et al., CVPR 2022, section 3.

    Example:
        >>> student, teacher = torch.tensor([[9.0, 1.0, 1.0]]), torch.tensor([[-9.0, 4.0, 4.0]])
        >>> nckd(student, teacher, torch.tensor([0]), temperature=1.0)
        tensor([0.])
    """
    _check(student_logits, teacher_logits, labels, temperature)
    teacher = (non_targets(teacher_logits.detach(), labels) / temperature).log_softmax(1)
    return divergence(teacher, (non_targets(student_logits, labels) / temperature).log_softmax(1))


def non_target_mass(teacher_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    r""":math:`1 - p_t^{\mathcal T}` of every image: the weight that plain distillation gives to NCKD.

    Returns:
        (N,), in [0, 1].

    Example:
        >>> round(non_target_mass(torch.tensor([[8.0, 0.0]]), torch.tensor([0]), temperature=4.0).item(), 3)
        0.119
    """
    _check(teacher_logits, teacher_logits, labels, temperature)
    return binary_log_probabilities(teacher_logits, labels, temperature)[:, 1].exp()


def decoupled_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float | Tensor = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    r"""Decoupled knowledge distillation.

    .. math:: L = T^2 \left(\alpha\, \mathrm{TCKD} + \beta\, \mathrm{NCKD}\right), \qquad
              \mathrm{KD} = \mathrm{TCKD} + (1 - p_t^{\mathcal T})\, \mathrm{NCKD}

    The identity on the right holds image by image: with :math:`\alpha = 1` and :math:`\beta = 1 - p_t` this
    is ``soft_target_loss``. A constant :math:`\beta` lets the sure images speak as loud as the others.

    Args:
        student_logits, teacher_logits: (N, K), K at least 2.
        labels: int64 (N,).
        alpha: weight of the target part, at least 0.
        beta: weight of the non-target part, at least 0; one number, or (N,), one per image.
        temperature: :math:`T > 0`.

    Returns:
        a scalar, averaged over the batch.

    Raises:
        TypeError, ValueError: as :func:`tckd`; a weight that is negative or not finite, a
            ``beta`` of another shape.

    Source: Zhao et al., CVPR 2022, section 3.
    Differs: their training scales this loss up from zero over the first epochs; here its weight is constant.

    Example:
        >>> student, teacher = torch.zeros(1, 3), torch.tensor([[4.0, 1.0, 0.0]])
        >>> label = torch.tensor([0])
        >>> beta = non_target_mass(teacher, label, temperature=2.0)
        >>> loss = decoupled_loss(student, teacher, label, alpha=1.0, beta=beta, temperature=2.0)
        >>> p = (teacher / 2).softmax(1)
        >>> bool(loss.isclose(4 * (p * (3 * p).log()).sum()))  # T^2 KL(p || uniform)
        True
    """
    target = tckd(student_logits, teacher_logits, labels, temperature)
    others = nckd(student_logits, teacher_logits, labels, temperature)
    if isinstance(beta, Tensor) and beta.shape not in ((), target.shape):
        shape = tuple(beta.shape)
        raise ValueError(f"beta must be a number or ({len(target)},), one per image, got shape {shape}")
    _check_weight("alpha", alpha)
    _check_weight("beta", beta)
    return temperature**2 * (alpha * target + beta * others).mean()


class Decoupled(Term):
    """The term of :func:`decoupled_loss` for ``distill``; it goes with ``Labels()``.

    Args:
        alpha, beta: weights of the target and the non-target part, at least 0. The paper keeps alpha at 1 and
            takes a larger beta, the larger the surer the teacher is.
        temperature: :math:`T > 0`.

    Raises:
        TypeError, ValueError: a weight that is negative or not finite, a temperature that is not above 0.

    Source: Zhao et al., CVPR 2022.

    Example:
        >>> Decoupled(beta=2.0)
        Decoupled(alpha=1.0, beta=2.0, temperature=4.0)
    """

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.alpha, self.beta = _check_weight("alpha", alpha), _check_weight("beta", beta)
        self.temperature = check_temperature(temperature)

    def forward(self, seen: Seen) -> Tensor:
        weights = self.alpha, self.beta, self.temperature
        return decoupled_loss(seen.student_logits, seen.teacher_logits, seen.y, *weights)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, temperature={self.temperature}"


def _check_weight(name: str, value: float | Tensor) -> float | Tensor:
    for number in value.flatten().tolist() if isinstance(value, Tensor) else [value]:
        if not 0 <= number < math.inf:
            raise ValueError(f"{name} must be finite and not negative, got {number:g}")
    return value


def _check(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float) -> None:
    check_temperature(temperature)
    check_logits(student_logits, teacher_logits)
    check_labels(labels, student_logits)
