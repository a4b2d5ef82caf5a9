"""Beyond accuracy: what a compressed network does differently although its accuracy is the same.

Two networks of equal accuracy can answer differently on many images: the mistakes moved. So a row of the
comparison also says

- how many answers changed (`flips`), and in which direction (`changed_answers`);
- how far the probabilities moved (`kl_to_original`);
- which class pays for it (`class_damage`, `worst_class`);
- whether the network is right as often as it says (`reliability`, `calibration_error`);
- how it holds on images that are noisy, blurred, pale, bright or shifted (`corrupted_accuracy`).

Answers are class numbers, int64 (n,), of the same n images in the same order: `predict_labels(model, split)`.

Source: Dutta et al., Accuracy is Not All You Need, NeurIPS 2024 (flips, KL); Hooker et al., What Do
    Compressed Deep Neural Networks Forget?, 2019 (damage to single classes, corrupted inputs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.compare.corruptions import corrupted_accuracy
from compresslab.core.errors import check_int
from compresslab.core.statistics import PairedDifference, paired_difference

__all__ = [
    "ChangedAnswers", "ReliabilityBin", "calibration_error", "changed_answers", "class_damage",
    "corrupted_accuracy", "flips", "kl_to_original", "reliability", "worst_class",
]  # fmt: skip


@dataclass(frozen=True)
class ChangedAnswers:
    """What became of the answers, as fractions of all images, each in [0, 1].

    `changed` answers differ; `broken` were right and are wrong now, `mended` the other way round; the rest of
    the changed ones went from one wrong class to another. Accuracy moves by `mended - broken`.
    """

    changed: float
    broken: float
    mended: float


def flips(before: Tensor, after: Tensor) -> float:
    """The fraction of answers that changed, in [0, 1]; it needs no labels.

        flips = |{i: before_i != after_i}| / n

    Args:
        before, after: the answers of the original and of the compressed network, int64, (n,).
    Raises:
        ValueError: shapes that differ, or no answers.
    Source: Dutta et al., Accuracy is Not All You Need, NeurIPS 2024.
    Differs: there, a flip is right to wrong or wrong to right; here a change between two wrong answers
        counts, too.
    Example:
        >>> flips(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 0]))
        0.25
    """
    _check_answers(before, after)
    return (before != after).double().mean().item()


def changed_answers(labels: Tensor, before: Tensor, after: Tensor) -> ChangedAnswers:
    """How many answers changed, broke and were mended.

    Args:
        labels, before, after: the truth and the two networks' answers, int64, (n,).
    Raises:
        ValueError: shapes that differ, or no answers.
    Example:
        >>> truth = torch.tensor([0, 0, 0, 0])
        >>> changed_answers(truth, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 2]))
        ChangedAnswers(changed=0.75, broken=0.25, mended=0.25)
    """
    _check_answers(labels, before, after)
    was, now = before == labels, after == labels
    return ChangedAnswers(
        flips(before, after), (was & ~now).double().mean().item(), (now & ~was).double().mean().item()
    )


def kl_to_original(logits_p: Tensor, logits_q: Tensor) -> float:
    """How far the compressed network's probabilities q are from the original's p: mean divergence in nats.

        KL = 1/n sum_i sum_c p_ic log(p_ic / q_ic),    p = softmax(logits_p), q = softmax(logits_q)

    It is 0 only where every probability is the same, and it sees changes that turn no answer over.

    Args:
        logits_p: of the original network, (n, classes), finite.
        logits_q: of the compressed one, the same shape.
    Returns:
        nats, >= 0.
    Raises:
        ValueError: shapes that differ or are not (n, classes), no images, or logits that are not finite.
    Source: Dutta et al., Accuracy is Not All You Need, NeurIPS 2024.
    Example:
        >>> kl_to_original(torch.zeros(1, 2), torch.zeros(1, 2))
        0.0
    """
    if logits_p.shape != logits_q.shape or logits_p.ndim != 2 or not logits_p.numel():
        shapes = f"{tuple(logits_p.shape)} and {tuple(logits_q.shape)}"
        raise ValueError(f"both need the same shape (n, classes) with n >= 1, got {shapes}")
    if not (torch.isfinite(logits_p).all() and torch.isfinite(logits_q).all()):
        raise ValueError("the logits must be finite, got nan or an infinity")
    log_p, log_q = (F.log_softmax(logits.double(), 1) for logits in (logits_p, logits_q))
    return (log_p.exp() * (log_p - log_q)).sum(1).clamp(min=0).mean().item()


def class_damage(
    labels: Tensor, before: Tensor, after: Tensor, *, confidence: float = 0.95
) -> dict[int, PairedDifference]:
    """The change of accuracy of every class, after minus before, each with its paired interval.

    The intervals are of one class each. The worst of ten is picked because it looks bad, so ask for more
    `confidence` before you believe it: 0.995 each makes at least 0.95 for ten classes together (Bonferroni).

    Args:
        labels, before, after: the truth and the two networks' answers, int64, (n,).
        confidence: of each interval, in (0, 1).
    Returns:
        by class, ascending, the classes that occur in `labels`: a `PairedDifference` of the compressed (a)
        and the original (b) network, negative where the class suffered.
    Raises:
        ValueError: shapes that differ, no answers, or a confidence out of range.
    Source: Hooker et al., What Do Compressed Deep Neural Networks Forget?, 2019.
    Differs: theirs tests the change of a class against the mean change over many trained networks; here two
        networks answer the same images, and Tango's interval is used.
    Example:
        >>> truth = torch.tensor([0, 0, 1, 1])
        >>> damage = class_damage(truth, torch.tensor([0, 0, 1, 0]), torch.tensor([0, 1, 1, 1]))
        >>> {label: change.difference for label, change in damage.items()}
        {0: -0.5, 1: 0.5}
    """
    _check_answers(labels, before, after)
    now, was = after == labels, before == labels
    members = {int(label): labels == label for label in labels.unique()}
    return {
        label: paired_difference(now[chosen], was[chosen], confidence) for label, chosen in members.items()
    }


def worst_class(damage: dict[int, PairedDifference]) -> tuple[int, PairedDifference]:
    """The class that lost most (the smallest number among equals) and its change, of a `class_damage`."""
    return min(damage.items(), key=lambda item: (item[1].difference, item[0]))


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of similar confidence: `low < confidence <= high`, how many, how sure and how right they are."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(
    probabilities: Tensor, labels: Tensor, bins: int = 15, *, equal_mass: bool = False
) -> list[ReliabilityBin]:
    """Group images by the confidence of their answer, the largest probability: a reliability diagram's bars.

    Args:
        probabilities: (n, classes), rows that sum to 1.
        labels: int64, (n,).
        bins: groups, >= 1.
        equal_mass: bounds that hold equally many images each, as far as equal confidences (which stay
            together) allow; False: bounds at k / bins.
    Returns:
        the groups that are not empty, by ascending confidence; their `n` sum to the images.
    Raises:
        TypeError, ValueError: bins below 1, shapes that do not match, rows that are no probabilities.
    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2; equal mass: Nixon et
        al., Measuring Calibration in Deep Learning, 2019.
    Example:
        >>> sure = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
        >>> bars = reliability(sure, torch.tensor([0, 1]))
        >>> [(bar.n, round(bar.confidence, 2), bar.accuracy) for bar in bars]
        [(2, 0.9, 0.5)]
    """
    check_int("bins", bins, 1)
    _check_probabilities(probabilities, labels)
    confidence, answers = probabilities.double().max(1)
    right = (answers == labels).double()
    if equal_mass:
        last = [math.ceil(k * len(labels) / bins) - 1 for k in range(1, bins + 1)]
        highs = confidence.sort().values[[max(0, index) for index in last]]
    else:
        highs = torch.arange(1, bins + 1, dtype=torch.float64) / bins
    member = torch.searchsorted(highs, confidence).clamp(max=bins - 1)  # the first bound that is not below
    groups = []
    for k in member.unique().tolist():
        chosen = member == k
        low = 0.0 if k == 0 else highs[k - 1].item()
        means = confidence[chosen].mean().item(), right[chosen].mean().item()
        groups.append(ReliabilityBin(low, highs[k].item(), int(chosen.sum()), *means))
    return groups


def calibration_error(
    probabilities: Tensor, labels: Tensor, bins: int = 15, *, equal_mass: bool = False
) -> float:
    """The expected calibration error: how far confidence is from accuracy, averaged over the images.

        ECE = sum_m n_m / n |accuracy_m - confidence_m|

    0 does not mean a good network: always answering with the frequencies of the classes is calibrated, too.

    Args:
        probabilities, labels, bins, equal_mass: as in `reliability`.
    Returns:
        a fraction in [0, 1].
    Raises:
        TypeError, ValueError: as `reliability`.
    Source: Naeini, Cooper, Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI
        2015; Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.
    Example:
        >>> sure = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
        >>> round(calibration_error(sure, torch.tensor([0, 1])), 3)
        0.4
    """
    groups = reliability(probabilities, labels, bins, equal_mass=equal_mass)
    return math.fsum(bar.n * abs(bar.accuracy - bar.confidence) for bar in groups) / len(labels)


def _check_answers(*answers: Tensor) -> None:
    shapes = [tuple(answer.shape) for answer in answers]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        got = ", ".join(map(str, shapes))
        raise ValueError(f"all need one class number per image, (n,) with n >= 1, got {got}")


def _check_probabilities(probabilities: Tensor, labels: Tensor) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        shapes = f"{tuple(probabilities.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"probabilities must be (n, classes) and labels (n,) with n >= 1, got {shapes}")
    sums = probabilities.double().sum(1)
    if not (bool((probabilities >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)):
        raise ValueError("every row of probabilities must sum to 1, none negative; logits need a softmax")
