r"""Neuron selectivity transfer: student and teacher should have the same *kinds* of neurons.

A channel is selective for some places of an image: its map, scaled to length 1, is its selectivity pattern.
The patterns of all channels are a sample from a distribution. The student has fewer channels, so it cannot
match them one by one; it can match the distribution, and the maximum mean discrepancy (MMD) measures how far
apart two samples are.
"""

import math

import torch  # noqa: F401  (for the examples)
from torch import Tensor

from compresslab.core.errors import check_int
from compresslab.distillation.distill import Seen, Term
from compresslab.distillation.feature_maps import to_common_size, to_unit


def _check_kernel(degree: int, constant: float) -> None:
    check_int("degree", degree, 1)
    if not (constant >= 0 and math.isfinite(constant)):
        raise ValueError(f"constant must be finite and not negative, got {constant}")


def polynomial_kernel(x: Tensor, y: Tensor, degree: int = 2, constant: float = 0.0) -> Tensor:
    r"""All values of the polynomial kernel between two sets of vectors.

    .. math:: k(x, y) = (x^\top y + c)^d

    Args:
        x: (..., m, D).
        y: (..., n, D).
        degree: :math:`d`, at least 1.
        constant: :math:`c`, at least 0.

    Returns:
        (..., m, n).

    Raises:
        TypeError, ValueError: a degree or a constant out of range.

    Example:
        >>> polynomial_kernel(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        tensor([[9., 4.]])
    """
    _check_kernel(degree, constant)
    return (x @ y.transpose(-1, -2) + constant) ** degree


def mmd_squared(x: Tensor, y: Tensor, degree: int = 2, constant: float = 0.0) -> Tensor:
    r"""Squared maximum mean discrepancy of two samples, under a polynomial kernel.

    .. math:: \mathrm{MMD}^2 = \frac{1}{m^2} \sum_{i, i'} k(x_i, x_{i'})
              + \frac{1}{n^2} \sum_{j, j'} k(y_j, y_{j'}) - \frac{2}{mn} \sum_{i, j} k(x_i, y_j)

    It is the squared distance between the mean feature vectors of the kernel: of the means themselves for
    d = 1, of the matrices :math:`\frac1m \sum_i x_i x_i^\top` for d = 2 and c = 0.

    Args:
        x: (..., m, D).
        y: (..., n, D); m and n may differ.
        degree, constant: of the kernel.

    Returns:
        (...), at least 0 up to rounding; 0 for equal samples.

    Raises:
        TypeError, ValueError: a degree or a constant out of range, an empty sample, or vectors of other
            lengths.

    Source: A. Gretton, K. M. Borgwardt, M. J. Rasch, B. Schoelkopf, A. Smola, "A Kernel Two-Sample Test",
        JMLR 2012.

    Example:
        >>> mmd_squared(torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]]), degree=1)  # means 2 and 5
        tensor(9.)
    """
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"samples must be (..., m, D) and (..., n, D), got {shapes}")
    if not x.shape[-2] or not y.shape[-2]:
        raise ValueError(f"a sample is empty: the shapes are {tuple(x.shape)} and {tuple(y.shape)}")
    means = [polynomial_kernel(a, b, degree, constant).mean((-2, -1)) for a, b in ((x, x), (y, y), (x, y))]
    return means[0] + means[1] - 2 * means[2]


def selectivity_loss(student: Tensor, teacher: Tensor, *, degree: int = 2, constant: float = 0.0) -> Tensor:
    r"""MMD between the selectivity patterns of the student's and the teacher's channels.

    .. math:: L = \mathrm{MMD}^2\Big( \big\{ f_S^k / \|f_S^k\|_2 \big\}_k,
              \big\{ f_T^k / \|f_T^k\|_2 \big\}_k \Big)

    averaged over the batch, with :math:`f^k` the flattened map of channel k. The order and the (positive)
    scale of the channels do not matter.

    Args:
        student: (N, C_student, H, W).
        teacher: (N, C_teacher, H', W'), of the same images; it gets no gradient.
        degree, constant: of :func:`polynomial_kernel`; 2 and 0 as in the paper.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: a degree or a constant out of range; not (N, C, H, W); other numbers of images.

    Source: Z. Huang, N. Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017,
        section 4.
    Differs: of two sizes, the larger map is averaged to the smaller by adaptive pooling.

    Example:
        >>> maps = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # one channel for each pixel
        >>> selectivity_loss(5 * maps.flip(1), maps).item(), selectivity_loss(maps[:, :1], maps).item()
        (0.0, 0.5)
    """
    student, teacher = to_common_size(student, teacher.detach())
    patterns = [to_unit(maps.flatten(2), dim=2) for maps in (student, teacher)]
    return mmd_squared(*patterns, degree, constant).mean()


class NeuronSelectivity(Term):
    """Term of the loss: :func:`selectivity_loss` between two named layers.

    Weight: 10 for the kernel of degree 2; its gradient is then about twice that of the cross-entropy.

    Args:
        student_layer, teacher_layer: names of late layers with feature maps, such as "stage3" and "blocks.5".
        degree, constant: of the kernel.

    Raises:
        TypeError, ValueError: a degree or a constant out of range.

    Source: Huang & Wang, 2017, section 4.
    """

    def __init__(self, student_layer: str, teacher_layer: str, *, degree: int = 2, constant: float = 0.0):
        super().__init__()
        _check_kernel(degree, constant)
        self.student_layers, self.teacher_layers = (student_layer,), (teacher_layer,)
        self.degree, self.constant = degree, constant

    def forward(self, seen: Seen) -> Tensor:
        student, teacher = seen.student[self.student_layers[0]], seen.teacher[self.teacher_layers[0]]
        return selectivity_loss(student, teacher, degree=self.degree, constant=self.constant)
