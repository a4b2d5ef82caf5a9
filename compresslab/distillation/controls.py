r"""Controls: what a teacher's outputs are worth once one thing has been taken from them.

A student that learns from soft targets and beats one that learns from labels has shown that they help. It has
not shown why. Each control here keeps a part of what the teacher says and destroys the rest:

| control             | keeps                                 | destroys                               |
|---------------------|---------------------------------------|----------------------------------------|
| `uniform_teacher`   | that no class is certain              | everything about the image             |
| `confidence_teacher`| how sure the teacher is of the label  | what it thinks of the wrong classes    |
| `shuffled_teacher`  | every probability, and the label's    | which wrong class has which            |
| `wrong_teacher`     | how alike the images are              | the names of all classes               |

If a student gains as much from a control as from the teacher, the gain was not in what the control destroyed.
Each takes a `TeacherOutputs` and returns a new one; named features pass through as they are.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.core.errors import check_fraction
from compresslab.distillation.decoupled import non_targets
from compresslab.distillation.distill import TeacherOutputs
from compresslab.distillation.soft_targets import check_labels, check_logits, check_temperature, soft_target_loss


def smoothed_label_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    r"""Label smoothing, written as distillation from a teacher that knows nothing.

    .. math:: L = (1 - \varepsilon)\, \mathrm{CE}(y, p) + \varepsilon\, \mathrm{KL}(u \| p), \quad u_k = 1 / K

    ``F.cross_entropy(..., label_smoothing=eps)`` is this plus the constant :math:`\varepsilon \log K`, so the
    gradients are equal: ``Labels(smoothing=eps)`` trains as
    ``[(1 - eps, Labels()), (eps, SoftTargets(temperature=1))]`` with :func:`uniform_teacher`.

    Args:
        logits: (N, K).
        labels: int64 (N,).
        smoothing: :math:`\varepsilon`, a fraction in [0, 1].

    Returns:
        a scalar, averaged over the batch.

    Raises:
        TypeError, ValueError: a smoothing outside [0, 1], or labels that are no class numbers.

    Source:
        C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, "Rethinking the Inception Architecture for
        Computer Vision", CVPR 2016, section 7; as a teacher: L. Yuan, F. E. H. Tay, G. Li, T. Wang, J. Feng,
        "Revisiting Knowledge Distillation via Label Smoothing Regularization", CVPR 2020.

    Example:
        >>> logits, label = torch.zeros(1, 4), torch.tensor([2])
        >>> loss = smoothed_label_loss(logits, label, smoothing=0.1)
        >>> bool(loss.isclose(torch.tensor(0.9 * math.log(4))))  # KL(u || u) = 0
        True
    """
    check_fraction("smoothing", smoothing)
    check_logits(logits, logits)
    check_labels(labels, logits)
    ignorance = soft_target_loss(logits, torch.zeros_like(logits), temperature=1.0)  # KL(u || p)
    return (1 - smoothing) * F.cross_entropy(logits, labels) + smoothing * ignorance


def uniform_teacher(outputs: TeacherOutputs) -> TeacherOutputs:
    """A teacher that gives every class the same probability, whatever the image.

    Args:
        outputs: of a real teacher.

    Returns:
        the same with all logits 0.
    """
    return replace(outputs, logits=torch.zeros_like(outputs.logits))


def flatten_non_targets(teacher_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    r"""Give every wrong class the same logit, so that the right class keeps its probability at `temperature`.

    .. math:: z_i \leftarrow T \log\!\Big(\tfrac{1}{K - 1} \sum_{j \ne t} e^{z_j / T}\Big), \quad i \ne t

    What is left is label smoothing with a strength of its own for every image.

    Args:
        teacher_logits: (N, K), K at least 2.
        labels: int64 (N,), the right classes t.
        temperature: T > 0, at which the student will see them.

    Returns:
        (N, K).

    Raises:
        TypeError, ValueError: as :func:`shuffle_non_targets`; a temperature that is not above 0.

    Example:
        >>> z = torch.tensor([[9.0, 0.0, math.log(3)]])
        >>> flatten_non_targets(z, torch.tensor([0]), temperature=1.0)[0, 1:].exp()
        tensor([2., 2.])
    """
    check_logits(teacher_logits, teacher_logits)
    check_labels(labels, teacher_logits)
    check_temperature(temperature)
    others = non_targets(teacher_logits, labels) / temperature
    mean = temperature * (others.logsumexp(1, keepdim=True) - math.log(others.shape[1]))
    return _put_non_targets(teacher_logits, labels, mean.expand_as(others))


def confidence_teacher(outputs: TeacherOutputs, labels: Tensor, temperature: float) -> TeacherOutputs:
    """A teacher that says only how sure it is of the label: :func:`flatten_non_targets` of its logits.

    Args:
        outputs: of a real teacher.
        labels: int64 (N,), of the split the outputs belong to, in its order: ``split.y``.
        temperature: that of the ``SoftTargets`` that will read them.

    Returns:
        outputs whose softened probability of the right class is the old one.
    """
    return replace(outputs, logits=flatten_non_targets(outputs.logits, labels, temperature))


def shuffle_non_targets(teacher_logits: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    r"""Deal the logits of the wrong classes out anew, image by image; the right class keeps its own.

    Probabilities, entropy and confidence stay as they were, at every temperature. What is gone is that a 7
    looks like a 1: which wrong class is the likely one is now chance.

    Args:
        teacher_logits: (N, K), K at least 2. (Probabilities can be shuffled as well.)
        labels: int64 (N,), the right classes.
        generator: draws N permutations of K - 1 classes.

    Returns:
        (N, K).

    Raises:
        TypeError, ValueError: logits that are not (N, K), labels that are no class numbers.

    Source:
        T. Furlanello, Z. C. Lipton, M. Tschannen, L. Itti, A. Anandkumar, "Born Again Neural Networks", ICML
        2018 (dark knowledge with permuted predictions).
    Differs: they permute all but the teacher's largest output, here all but the label's, so that the control
        does not change what is right.

    Example:
        >>> z = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        >>> shuffled = shuffle_non_targets(z, torch.tensor([2]), torch.Generator().manual_seed(0))
        >>> shuffled[0, 2].item(), sorted(shuffled[0].tolist())
        (3.0, [1.0, 2.0, 3.0, 4.0])
    """
    check_logits(teacher_logits, teacher_logits)
    check_labels(labels, teacher_logits)
    others = non_targets(teacher_logits, labels)
    order = torch.rand(others.shape, generator=generator).argsort(1).to(others.device)
    return _put_non_targets(teacher_logits, labels, others.gather(1, order))


def shuffled_teacher(outputs: TeacherOutputs, labels: Tensor, *, seed: int = 0) -> TeacherOutputs:
    """A teacher whose likenesses between classes are noise: :func:`shuffle_non_targets` of its logits.

    Args:
        outputs: of a real teacher.
        labels: int64 (N,), of the split the outputs belong to, in its order: ``split.y``.
        seed: of the permutations; each image keeps its own through all epochs.

    Returns:
        outputs with the same probabilities in other places.
    """
    generator = torch.Generator().manual_seed(seed)
    return replace(outputs, logits=shuffle_non_targets(outputs.logits, labels, generator))


def wrong_teacher(outputs: TeacherOutputs, *, seed: int = 0) -> TeacherOutputs:
    """A teacher with the names of the classes exchanged: one permutation for all images, no class its own.

    It is as accurate as the real one, about the wrong names. Images that were alike to the teacher still are.

    Args:
        outputs: of a real teacher, K classes, at least 2.
        seed: of the permutation: the classes in random order, each renamed to the next.

    Returns:
        outputs with the columns of the logits exchanged.

    Raises:
        ValueError: a single class.
    """
    classes = outputs.logits.shape[1]
    if classes < 2:
        raise ValueError(f"to exchange classes there must be 2 or more, got {classes}")
    ring = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    columns = torch.empty_like(ring)
    columns[ring] = ring.roll(1)
    return replace(outputs, logits=outputs.logits[:, columns])


def sharpness(logits: Tensor, temperature: float = 1.0) -> float:
    r"""How far softened outputs are from uniform: :math:`1 - H(p) / \log K`, averaged over the images.

    Args:
        logits: (N, K), K at least 2.
        temperature: T > 0.

    Returns:
        0 for uniform outputs, 1 for certain ones.

    Raises:
        ValueError: no (N, K) logits with K at least 2, or a temperature not above 0.

    Example:
        >>> round(sharpness(torch.zeros(3, 10)), 6), sharpness(torch.tensor([[0.0, 500.0]]))
        (0.0, 1.0)
    """
    check_logits(logits, logits)
    check_temperature(temperature)
    if logits.shape[1] < 2:
        raise ValueError(f"sharpness needs 2 classes or more, got {logits.shape[1]}")
    log_p = (logits.double() / temperature).log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    return (1 - entropy / math.log(logits.shape[1])).mean().item()


def agreement(first_logits: Tensor, second_logits: Tensor) -> float:
    """The fraction of images to which two networks give the same class, right or wrong: fidelity.

    A student can gain from a teacher that it does not come to agree with, so look at both.

    Args:
        first_logits, second_logits: (N, K), of the same images.

    Returns:
        in [0, 1].

    Raises:
        ValueError: shapes that differ.

    Source:
        S. Stanton, P. Izmailov, P. Kirichenko, A. A. Alemi, A. G. Wilson, "Does Knowledge Distillation Really
        Work?", NeurIPS 2021.

    Example:
        >>> agreement(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 1.0], [2.0, 1.0]]))
        0.5
    """
    check_logits(first_logits, second_logits)
    return (first_logits.argmax(1) == second_logits.argmax(1)).double().mean().item()


def _put_non_targets(logits: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Put (N, K - 1) numbers in the places of the wrong classes: the inverse of `non_targets`."""
    places = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels[:, None], False)
    return logits.masked_scatter(places, others.contiguous())
