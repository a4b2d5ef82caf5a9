r"""Distillation in steps: through assistants of middling size, and from one generation to the next.

Both are chains of `distill`, each student the teacher of the one after it:

    teacher assistant      large -> middle -> small       bridges a gap in size
    born again             large -> large -> large        the same network, begun anew

The second looks pointless, a network that teaches its own twin. Yet the twin has a softer target than the
labels; Furlanello et al. report that it can end above its teacher, and that this stops in the end.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from compresslab.core.errors import check_int
from compresslab.data import Split
from compresslab.distillation.distill import TeacherOutputs, Term, distill
from compresslab.distillation.soft_targets import check_logits


def distill_through(
    teacher: nn.Module | TeacherOutputs,
    students: Sequence[nn.Module],
    split: Split,
    terms: Sequence[tuple[float, Term]],
    *,
    epochs: int,
    seed: int = 0,
    **options: object,
) -> list[nn.Module]:
    """Distil the teacher into the first student, that one into the second, and so on.

    With a large first student and a small last one this is teacher-assistant distillation: a student that is
    much smaller than its teacher learns less from it than from a teacher nearer to its own size.

    Args:
        teacher: a trained network, or its outputs for this split.
        students: untrained networks, the assistants first, from large to small; they are left as they were.
        split: the training images, the same for all.
        terms: pairs (weight, term) for every step of the chain. Layers they name must exist in each network.
        epochs: passes over the split, for every student of the chain: a chain of n costs n times as much.
        seed: of the first step; every further step adds 1.
        options: further keywords of `distill`, such as ``lr``, ``batch_size`` or ``progress``.

    Returns:
        the trained copies in the order of ``students``; the last is the one that was wanted.

    Raises:
        TypeError: one network instead of a list of them, or a student that is no network.
        ValueError: no student; and as `distill`.

    Source:
        S. I. Mirzadeh, M. Farajtabar, A. Li, N. Levine, A. Matsukawa, H. Ghasemzadeh, "Improved Knowledge
        Distillation via Teacher Assistant", AAAI 2020.

    Example:
        >>> from compresslab.distillation.soft_targets import SoftTargets
        >>> split = Split(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1]), (0.0,), (1.0,))
        >>> teacher, assistant, student = (nn.Sequential(nn.Flatten(), nn.Linear(1, 2)) for _ in range(3))
        >>> terms = [(1.0, SoftTargets(2.0))]
        >>> chain = distill_through(teacher, [assistant, student], split, terms, epochs=1, progress=False)
        >>> len(chain)
        2
    """
    if isinstance(students, nn.Module):
        raise TypeError(f"students is a list of networks, got one {type(students).__name__}; write [student]")
    students = list(students)
    if not students:
        raise ValueError("a chain needs one student or more, got none")
    for student in students:
        if not isinstance(student, nn.Module):
            raise TypeError(f"a student is a network, got {type(student).__name__}")
    trained: list[nn.Module] = []
    for step, student in enumerate(students):
        above = trained[-1] if trained else teacher
        trained.append(distill(student, above, split, terms, epochs=epochs, seed=seed + step, **options))
    return trained


def distill_generations(
    teacher: nn.Module | TeacherOutputs,
    make_student: Callable[[int], nn.Module],
    split: Split,
    terms: Sequence[tuple[float, Term]],
    *,
    generations: int,
    epochs: int,
    seed: int = 0,
    **options: object,
) -> list[nn.Module]:
    r"""Born-again networks: every generation begins anew and learns from the one before.

    .. math:: \theta_k = \arg\min_\theta\; L\big(f(x; \theta),\; f(x; \theta_{k-1})\big), \quad k = 1 \ldots G

    Args:
        teacher: generation 0, a trained network, usually of the same shape as the students; or its outputs.
        make_student: ``make_student(seed)`` returns an untrained network. A new seed gives new first weights:
            started where its teacher started, a generation has less to add.
        split, terms, epochs, options: as in :func:`distill_through`.
        generations: :math:`G`, at least 1.
        seed: of the first generation, its weights and its order of the images; each further one adds 1.

    Returns:
        the G generations, oldest first. The paper also averages them: :func:`average_teachers`.

    Raises:
        TypeError: ``generations`` is no whole number, or ``make_student`` returns no network.
        ValueError: no generation; and as `distill`.

    Source:
        T. Furlanello, Z. C. Lipton, M. Tschannen, L. Itti, A. Anandkumar, "Born Again Neural Networks", ICML
        2018.
    """
    check_int("generations", generations, 1)
    students = [make_student(seed + k) for k in range(generations)]
    return distill_through(teacher, students, split, terms, epochs=epochs, seed=seed, **options)


def average_teachers(outputs: Sequence[TeacherOutputs]) -> TeacherOutputs:
    r"""An ensemble as one teacher: its probabilities are the mean of theirs.

    .. math:: z = \log \frac{1}{M} \sum_{m} \mathrm{softmax}(z^{(m)})

    The mean is taken at temperature 1 and softened afterwards.

    Args:
        outputs: of M teachers, for the same split and classes; M at least 1.

    Returns:
        logits (N, K) that are log-probabilities; no features: those of different networks have no mean.

    Raises:
        ValueError: no teacher, or logits whose shapes differ.

    Source:
        G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015 (from an ensemble
        to one network); Furlanello et al., ICML 2018 (an ensemble of generations).

    Example:
        >>> one, two = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> average_teachers([TeacherOutputs(one), TeacherOutputs(two)]).logits.exp()
        tensor([[0.7000, 0.3000]])
    """
    outputs = list(outputs)
    if not outputs:
        raise ValueError("an ensemble needs one teacher or more, got none")
    for other in outputs[1:]:
        check_logits(outputs[0].logits, other.logits)
    log_p = torch.stack([each.logits.log_softmax(1) for each in outputs])
    return TeacherOutputs(log_p.logsumexp(0) - torch.tensor(float(len(outputs))).log())
