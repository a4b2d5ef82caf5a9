r"""Attention transfer: the student should look where the teacher looks.

A feature map says what was found, channel by channel. Its squares summed over the channels say only *where*
the network responds: one picture per image, which student and teacher both have, however many channels they
use. So nothing needs to be learned to compare them, and nothing is thrown away afterwards.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from compresslab.distillation.distill import Seen, Term
from compresslab.distillation.feature_maps import to_common_size, to_unit


def _check_power(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of at least 1, got {value!r}")
    if not (value >= 1 and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number of at least 1, got {value}")


def attention_map(features: Tensor, power: float = 2.0) -> Tensor:
    r"""Where a layer responds: one unit vector per image, over the positions.

    .. math:: Q = \mathrm{vec} \sum_c |A_c|^{power}, \qquad \hat Q = Q / \|Q\|_2

    A larger power looks more at the few strongest responses. The scale of the features and the order of their
    channels do not matter.

    Args:
        features: :math:`A`, (N, C, H, W).
        power: at least 1; 2 is the paper's choice.

    Returns:
        :math:`\hat Q`, (N, H * W); all zeros for an image whose features are.

    Raises:
        TypeError: ``power`` is no number.
        ValueError: features of another shape, or a power below 1.

    Source: S. Zagoruyko, N. Komodakis, "Paying More Attention to Attention: Improving the Performance of
        Convolutional Neural Networks via Attention Transfer", ICLR 2017, section 3.1.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 0.0]], [[-1.0, 0.0]]]])  # two channels, one pixel of two
        >>> attention_map(features)
        tensor([[1., 0.]])
    """
    _check_power("power", power)
    if features.ndim != 4:
        raise ValueError(f"attention needs feature maps (N, C, H, W), got shape {tuple(features.shape)}")
    return to_unit(features.abs().pow(power).sum(1).flatten(1), dim=1)


def attention_loss(student: Tensor, teacher: Tensor, *, power: float = 2.0, p: float = 2.0) -> Tensor:
    r"""Distance between the student's and the teacher's attention, averaged over the batch.

    .. math:: \left\| \frac{Q_S}{\|Q_S\|_2} - \frac{Q_T}{\|Q_T\|_2} \right\|_p

    Args:
        student: (N, C_student, H, W).
        teacher: (N, C_teacher, H', W'), of the same images; it gets no gradient.
        power: of the map, as in :func:`attention_map`.
        p: of the norm, at least 1. With 2 the loss is at most :math:`\sqrt 2`, for maps that do not overlap.

    Returns:
        A scalar, 0 where every image has proportional maps.

    Raises:
        TypeError: ``power`` or ``p`` is no number.
        ValueError: features of another shape, other numbers of images, a power or p below 1.

    Source: Zagoruyko & Komodakis, ICLR 2017, section 3.1.
    Differs: maps of two sizes are made alike by adaptive average pooling of the larger features.

    Example:
        >>> import torch
        >>> left, right = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 0.5]]]])
        >>> round(attention_loss(left, right).item(), 4), attention_loss(left, 2 * left).item()
        (1.4142, 0.0)
    """
    _check_power("p", p)
    student, teacher = to_common_size(student, teacher.detach())
    return (attention_map(student, power) - attention_map(teacher, power)).norm(p, dim=1).mean()


class AttentionTransfer(Term):
    r"""Term of the loss: the sum of :func:`attention_loss` over pairs of layers.

    Weight: 1. Each pair adds a number between 0 and :math:`\sqrt 2`, and its gradient is about as large as
    that of the cross-entropy.

    Args:
        pairs: (student layer, teacher layer) by name, such as
            [("stage2", "blocks.2"), ("stage3", "blocks.5")].
        power, p: as in :func:`attention_loss`.

    Raises:
        TypeError: ``power`` or ``p`` is no number, or a pair is none.
        ValueError: no pair, or a power or p below 1.

    Source: Zagoruyko & Komodakis, ICLR 2017, section 3.1.
    Differs: the authors' factor 1/2 is left to the weight.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], *, power: float = 2.0, p: float = 2.0):
        super().__init__()
        _check_power("power", power)
        _check_power("p", p)
        pairs = list(pairs)
        if not pairs:
            raise ValueError("give at least one pair (student layer, teacher layer)")
        for pair in pairs:
            if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
                raise TypeError(f"pairs must hold (student layer, teacher layer), got {pair!r}")
        self.student_layers, self.teacher_layers = zip(*pairs, strict=True)
        self.power, self.p = power, p

    def forward(self, seen: Seen) -> Tensor:
        pairs = zip(self.student_layers, self.teacher_layers, strict=True)
        return sum(
            attention_loss(seen.student[s], seen.teacher[t], power=self.power, p=self.p) for s, t in pairs
        )
