r"""Contrastive distillation: can one tell which teacher vector belongs to which student vector?

Show a critic a student's vector and a teacher's, either of the same image (C = 1) or of two images (C = 0,
N times as often). If it can tell, the student's vector carries information about the teacher's; how well it can
tell bounds how much. So critic and student are trained together, to make telling easy.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.errors import check_int
from compresslab.distillation.distill import Seen, Term
from compresslab.distillation.feature_maps import to_vectors
from compresslab.distillation.soft_targets import check_temperature


def _check_scores(scores: Tensor) -> None:
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or not len(scores):
        raise ValueError(f"scores must be square, (B, B), students by teachers, got {tuple(scores.shape)}")


def similarity_scores(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    r"""Cosine of every student vector with every teacher vector, over the temperature.

    .. math:: s_{ij} = \frac{1}{\tau} \frac{g^S_i \cdot g^T_j}{\|g^S_i\|_2 \, \|g^T_j\|_2}

    Args:
        student, teacher: :math:`g^S, g^T`, embeddings of the same images in the same space, (B, D).
        temperature: :math:`\tau > 0`.

    Returns:
        (B, B); the diagonal belongs to the images themselves.

    Raises:
        TypeError, ValueError: other shapes, or a temperature that is not positive.

    Example:
        >>> similarity_scores(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]]), 0.5).item()
        0.0
    """
    check_temperature(temperature)
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"embeddings must have one shape, (B, D), got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    return F.normalize(student, dim=1) @ F.normalize(teacher, dim=1).T / temperature


def optimal_critic(joint: Tensor, negatives: int) -> Tensor:
    r"""The best answer to "does this pair belong together?", where the joint distribution is known.

    .. math:: h^*(t, s) = q(C = 1 \mid t, s) = \frac{p(t, s)}{p(t, s) + N p(t) p(s)}

    Args:
        joint: :math:`p(t, s)`, a table (values of t, values of s) that sums to 1.
        negatives: :math:`N`, pairs that do not belong together for each that does, at least 1.

    Returns:
        (values of t, values of s), in [0, 1]; 0 where t or s never happens.

    Raises:
        TypeError, ValueError: no table of probabilities, or a bad number of negatives.

    Source: Y. Tian, D. Krishnan, P. Isola, "Contrastive Representation Distillation", ICLR 2020, section 3.1.

    Example:
        >>> optimal_critic(torch.tensor([[0.5, 0.0], [0.0, 0.5]]), negatives=1)  # 0.5 against 0.25
        tensor([[0.6667, 0.0000],
                [0.0000, 0.6667]])
    """
    check_int("negatives", negatives, 1)
    if joint.ndim != 2 or not (joint >= 0).all() or not math.isclose(joint.sum().item(), 1, abs_tol=1e-4):
        raise ValueError(f"joint must be a table of probabilities with sum 1, got shape {tuple(joint.shape)}")
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    both = joint + negatives * independent
    return torch.where(both > 0, joint / both.clamp(min=torch.finfo(joint.dtype).tiny), 0.0)


def critic_objective(joint: Tensor, h: Tensor, negatives: int) -> Tensor:
    r"""What a critic is trained to make large, on a known distribution.

    .. math:: \mathbb E_{p(t, s)} [\log h(t, s)] + N \, \mathbb E_{p(t) p(s)} [\log(1 - h(t, s))]

    Args:
        joint: as in :func:`optimal_critic`.
        h: the critic's probabilities, in [0, 1], the shape of ``joint``.
        negatives: :math:`N`.

    Returns:
        A scalar, at most 0.

    Source: Tian et al., ICLR 2020, section 3.1.
    """
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (torch.xlogy(joint, h) + negatives * torch.xlogy(independent, 1 - h)).sum()


def information_bound(h: Tensor, negatives: int) -> Tensor:
    r"""What a critic proves about the mutual information of teacher and student, in nats.

    .. math:: I(T; S) \ge \log N + \mathbb E_{q(T, S \mid C = 1)} [\log h(T, S)]

    It holds for the optimal critic only: one that says yes to everything would prove anything. For *any*
    critic, :math:`I \ge \log N +` :func:`critic_objective`. The bound never exceeds log N, so many negatives
    are needed to prove much, and a critic that always answers 1 / (1 + N), what a guess is worth, proves
    nothing.

    Args:
        h: the critic's answers for pairs that do belong together, in (0, 1], any shape.
        negatives: :math:`N`, at least 1.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: a bad number of negatives, or no answers.

    Source: Tian et al., ICLR 2020, section 3.1.

    Example:
        >>> information_bound(torch.tensor([1.0, 1.0]), negatives=1).item()
        0.0
    """
    check_int("negatives", negatives, 1)
    if not h.numel():
        raise ValueError("the bound is a mean over the critic's answers, and there are none")
    return math.log(negatives) + h.log().mean()


def contrastive_loss(
    scores: Tensor, log_normalizer: Tensor | float = 0.0, negatives: Tensor | None = None
) -> Tensor:
    r"""Cost of a critic that must recognise each image's own pair among the others of the batch.

    .. math:: L = -\mathbb E_{C = 1}[\log h] - N \, \mathbb E_{C = 0}[\log(1 - h)], \qquad
              h_{ij} = \frac{e^{s_{ij}}}{e^{s_{ij}} + N c}

    At its optimum :math:`e^{s_{ij}} / c` is the ratio of densities :math:`p(t, s) / (p(t) p(s))`. The
    constant c has to be learned, or set; c = 1 / M for a data set of M images is the paper's choice.

    Args:
        scores: :math:`s`, (B, B), from :func:`similarity_scores`.
        log_normalizer: :math:`\log c`.
        negatives: bool (B, B), which pairs may serve as negatives; all but the diagonal if None.

    Returns:
        A scalar: the positive cost averaged over the batch, plus the negative cost of each student's
        negatives, summed over them and averaged over the batch. N is the mean number of negatives.

    Raises:
        ValueError: scores that are not square, or negatives of another shape or with the diagonal in it.

    Source: Tian et al., ICLR 2020, section 3.1.
    Differs: the negatives are the other images of the batch, N = B - 1, where the paper draws 16,384 from a
        memory of all embeddings.

    Example:
        >>> blind = contrastive_loss(torch.zeros(2, 2))  # N = 1: h = 1/2 for each pair, right or wrong
        >>> round(blind.item(), 4), round(2 * math.log(2), 4)
        (1.3863, 1.3863)
    """
    _check_scores(scores)
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    negatives = ~own if negatives is None else negatives
    if negatives.shape != scores.shape or bool((negatives & own).any()):
        raise ValueError(f"negatives must be (B, B) without the diagonal, got shape {tuple(negatives.shape)}")
    count = (negatives.sum().to(scores) / len(scores)).clamp(min=1)
    logits = scores - count.log() - log_normalizer  # h = sigmoid(logits), 1 - h = sigmoid(-logits)
    wrong = F.logsigmoid(-logits).masked_fill(~negatives, 0.0)
    return -F.logsigmoid(logits.diagonal()).mean() - wrong.sum(1).mean()


def info_nce_loss(scores: Tensor) -> Tensor:
    r"""Cost of picking each image's own pair out of 1 + N candidates.

    .. math:: L = -\frac1B \sum_i \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}, \qquad
              I(T; S) \ge \log(1 + N) - L

    Choosing instead of answering yes or no: no constant is left to learn. A critic that cannot tell pays
    log(N + 1).

    Args:
        scores: :math:`s`, (B, B) with N = B - 1.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: scores that are not square.

    Source: A. van den Oord, Y. Li, O. Vinyals, "Representation Learning with Contrastive Predictive Coding",
        2018, section 2.3.

    Example:
        >>> round(info_nce_loss(torch.zeros(4, 4)).item(), 4), round(math.log(4), 4)
        (1.3863, 1.3863)
    """
    _check_scores(scores)
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def _embed(who: str, embed: nn.Linear, vectors: Tensor) -> Tensor:
    if vectors.shape[1] != embed.in_features:
        got = f"but the {who}'s layer gives {vectors.shape[1]} per image"
        raise ValueError(f"{who}_features is {embed.in_features}, {got}")
    return embed(vectors)


class Contrastive(Term):
    r"""Term of the loss: a critic on linear embeddings of two named layers, by CRD or by InfoNCE.

    Weight: 0.5. At the start the loss is about :math:`1 + \log N` (for InfoNCE :math:`\log(1 + N)`), more
    than twice the cross-entropy of ten classes, and so is its gradient.

    Args:
        student_layer, teacher_layer: names of late layers, such as "stage3" and "conv2". Feature maps are
            averaged over their positions to one vector per image; anything else is flattened.
        student_features, teacher_features: lengths of these vectors: channels, for feature maps.
        dimension: of the common space of the embeddings.
        temperature: :math:`\tau > 0`.
        loss: "crd" for :func:`contrastive_loss`, with a learned constant; "infonce" for
            :func:`info_nce_loss`.
        other_classes: with "crd", only images of another class are negatives.
        seed: of the first embeddings; the global generator is left as it was.

    Raises:
        TypeError, ValueError: a size below 1, a temperature that is not positive, another loss; (when used)
            vectors of other lengths.

    Source: Tian et al., ICLR 2020, section 3.1.
    Differs: negatives from the batch instead of a memory bank; the constant is learned instead of estimated
        from the first batch.
    """

    def __init__(
        self,
        student_layer: str,
        teacher_layer: str,
        student_features: int,
        teacher_features: int,
        *,
        dimension: int = 128,
        temperature: float = 0.1,
        loss: str = "crd",
        other_classes: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        if loss not in ("crd", "infonce"):
            raise ValueError(f"loss must be 'crd' or 'infonce', got {loss!r}")
        check_int("student_features", student_features, 1)
        check_int("teacher_features", teacher_features, 1)
        check_int("dimension", dimension, 1)
        self.student_layers, self.teacher_layers = (student_layer,), (teacher_layer,)
        self.temperature, self.loss, self.other_classes = check_temperature(temperature), loss, other_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed_student = nn.Linear(student_features, dimension)
            self.embed_teacher = nn.Linear(teacher_features, dimension)
        self.log_normalizer = nn.Parameter(torch.zeros(()))

    def scores(self, seen: Seen) -> Tensor:
        """The critic's scores of every student with every teacher of the batch, (B, B)."""
        student = to_vectors(seen.student[self.student_layers[0]])
        teacher = to_vectors(seen.teacher[self.teacher_layers[0]]).detach()
        student = _embed("student", self.embed_student, student)
        teacher = _embed("teacher", self.embed_teacher, teacher)
        return similarity_scores(student, teacher, self.temperature)

    def forward(self, seen: Seen) -> Tensor:
        scores = self.scores(seen)
        if self.loss == "infonce":
            return info_nce_loss(scores)
        others = seen.y[:, None] != seen.y[None]
        return contrastive_loss(scores, self.log_normalizer, others if self.other_classes else None)
