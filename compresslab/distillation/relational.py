r"""Relations: how the images of a batch lie to each other, rather than where each one lies.

Student and teacher may use quite different axes. What should agree is the shape of the cloud: which images
are close, and which stand at a right angle. Distances and angles (RKD) do not change when the cloud is
turned, moved or scaled; inner products between images (similarity-preserving) do not change when it is
turned. None needs as many features here as there.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.distillation.distill import Seen, Term
from compresslab.distillation.feature_maps import check_batch, to_unit, to_vectors


def _check_vectors(vectors: Tensor) -> None:
    if vectors.ndim != 2:
        raise ValueError(f"relations need vectors, one per image: (N, D), got shape {tuple(vectors.shape)}")


def _differences(vectors: Tensor) -> Tensor:
    """t_i - t_j, (N, N, D)."""
    return vectors[:, None] - vectors[None]


def distance_potential(vectors: Tensor) -> Tensor:
    r"""Distances between all images, in units of their mean.

    .. math:: \psi_D(t_i, t_j) = \frac1\mu \| t_i - t_j \|_2, \qquad
              \mu = \frac{1}{N (N - 1)} \sum_{i \ne j} \| t_i - t_j \|_2

    Args:
        vectors: :math:`t`, (N, D).

    Returns:
        (N, N), symmetric with a zero diagonal; all zeros if all vectors are equal.

    Raises:
        ValueError: not (N, D).

    Source: W. Park, D. Kim, Y. Lu, M. Cho, "Relational Knowledge Distillation", CVPR 2019, section 3.2.1.

    Example:
        >>> distance_potential(torch.tensor([[0.0], [1.0], [3.0]]))  # distances 1, 2, 3: their mean is 2
        tensor([[0.0000, 0.5000, 1.5000],
                [0.5000, 0.0000, 1.0000],
                [1.5000, 1.0000, 0.0000]])
    """
    _check_vectors(vectors)
    distances = _differences(vectors).norm(dim=2)
    mean = distances.sum() / max(len(vectors) * (len(vectors) - 1), 1)
    return distances / mean.clamp(min=torch.finfo(vectors.dtype).tiny)


def angle_potential(vectors: Tensor) -> Tensor:
    r"""Cosines of the angles that two images make, seen from a third.

    .. math:: \psi_A(t_i, t_j, t_k) = \cos \angle t_i t_j t_k = \langle e^{ij}, e^{kj} \rangle, \qquad
              e^{ij} = \frac{t_i - t_j}{\| t_i - t_j \|_2}

    Args:
        vectors: :math:`t`, (N, D).

    Returns:
        (N, N, N), the entry [j, i, k] belongs to the angle at :math:`t_j`; 0 where two of the three are the
        same image, or coincide with the vertex.

    Raises:
        ValueError: not (N, D).

    Source: Park et al., CVPR 2019, section 3.2.2.

    Example:
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> angles = angle_potential(corner)
        >>> round(angles[0, 1, 2].item(), 4), angles[1, 0, 2].item()  # 45 degrees, and a right angle
        (0.7071, 0.0)
    """
    _check_vectors(vectors)
    directions = to_unit(_differences(vectors), dim=2).transpose(0, 1)  # [j, i] -> e^{ij}
    same = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    return (directions @ directions.transpose(1, 2)).masked_fill(same, 0.0)


def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""How far the distances in the student's cloud are from those in the teacher's.

    .. math:: L_D = \sum_{i \ne j} l_\delta\big(\psi_D(t_i, t_j), \psi_D(s_i, s_j)\big), \qquad
              l_\delta(x, y) = \begin{cases} \frac12 (x - y)^2 & |x - y| \le 1 \\
              |x - y| - \frac12 & \text{otherwise} \end{cases}

    Args:
        student: (N, D_student).
        teacher: (N, D_teacher), of the same images; it gets no gradient.

    Returns:
        A scalar; 0 for fewer than two images, which have no distance.

    Raises:
        ValueError: not (N, D), or other numbers of images.

    Source: Park et al., CVPR 2019, section 3.2.1.
    Differs: a mean over the pairs instead of a sum.

    Example:
        >>> student = torch.tensor([[0.0], [1.0], [3.0]])
        >>> rkd_distance_loss(student, 1 - 4 * student).item()
        0.0
    """
    check_batch(student, teacher)
    relations = distance_potential(student), distance_potential(teacher.detach())
    pairs = len(student) * (len(student) - 1)
    return F.smooth_l1_loss(*relations, reduction="sum") / max(pairs, 1)


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""How far the angles in the student's cloud are from those in the teacher's.

    .. math:: L_A = \sum_{i \ne j \ne k} l_\delta\big(\psi_A(t_i, t_j, t_k), \psi_A(s_i, s_j, s_k)\big)

    with :math:`l_\delta` as in :func:`rkd_distance_loss`. Memory and time grow with the cube of the batch.

    Args:
        student: (N, D_student).
        teacher: (N, D_teacher), of the same images; it gets no gradient.

    Returns:
        A scalar; 0 for fewer than three images, which have no angle.

    Raises:
        ValueError: not (N, D), or other numbers of images.

    Source: Park et al., CVPR 2019, section 3.2.2.
    Differs: a mean over the triples instead of a sum.
    """
    check_batch(student, teacher)
    relations = angle_potential(student), angle_potential(teacher.detach())
    triples = len(student) * (len(student) - 1) * (len(student) - 2)
    return F.smooth_l1_loss(*relations, reduction="sum") / max(triples, 1)


def similarity_matrix(features: Tensor) -> Tensor:
    r"""Inner products between the images of a batch, each row scaled to length 1.

    .. math:: \tilde G = Q Q^\top, \qquad G_{[i,:]} = \tilde G_{[i,:]} / \| \tilde G_{[i,:]} \|_2

    Args:
        features: (N, ...), flattened to :math:`Q` (N, D).

    Returns:
        :math:`G`, (N, N).

    Source: F. Tung, G. Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, section 3.

    Example:
        >>> similarity_matrix(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        tensor([[1., 0.],
                [0., 1.]])
    """
    rows = features.flatten(1)
    return to_unit(rows @ rows.T, dim=1)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared distance between the similarity matrices of student and teacher.

    .. math:: L_{SP} = \frac{1}{b^2} \| G_T - G_S \|_F^2

    Args:
        student: (b, ...), any features.
        teacher: (b, ...), of the same images, of any size; it gets no gradient.

    Returns:
        A scalar.

    Raises:
        ValueError: other numbers of images, or tensors without features.

    Source: Tung & Mori, ICCV 2019, section 3.

    Example:
        >>> alike, apart = torch.tensor([[1.0], [1.0]]), torch.eye(2)
        >>> round(similarity_loss(alike, apart).item(), 4)  # each row: (1, 0) against (0.71, 0.71)
        0.2929
    """
    check_batch(student, teacher)
    return F.mse_loss(similarity_matrix(student), similarity_matrix(teacher.detach()))


class _Relation(Term):
    """A term that compares one layer of the student with one of the teacher."""

    def __init__(self, student_layer: str, teacher_layer: str):
        super().__init__()
        self.student_layers, self.teacher_layers = (student_layer,), (teacher_layer,)

    def outputs(self, seen: Seen) -> tuple[Tensor, Tensor]:
        return seen.student[self.student_layers[0]], seen.teacher[self.teacher_layers[0]]


class RelationalDistance(_Relation):
    """Term of the loss: :func:`rkd_distance_loss` between two named layers.

    Weight: 2, and twice that for :class:`RelationalAngle`; their gradients are then a little larger than that
    of the cross-entropy.

    Args:
        student_layer, teacher_layer: names of late layers, such as "stage3" and "conv2". Feature maps are
            averaged over their positions to one vector per image; anything else is flattened.

    Source: Park et al., CVPR 2019, section 3.2.
    """

    def forward(self, seen: Seen) -> Tensor:
        return rkd_distance_loss(*map(to_vectors, self.outputs(seen)))


class RelationalAngle(_Relation):
    """Term of the loss: :func:`rkd_angle_loss` between two named layers.

    Weight: 4, twice that of :class:`RelationalDistance`.

    Args, Source:
        as :class:`RelationalDistance`.
    """

    def forward(self, seen: Seen) -> Tensor:
        return rkd_angle_loss(*map(to_vectors, self.outputs(seen)))


class SimilarityPreserving(_Relation):
    """Term of the loss: :func:`similarity_loss` between two named layers.

    Weight: 500 for batches of 128; the gradient is then a few times that of the cross-entropy. (Published
    comparisons take 3000.) An entry of G is about 1 / sqrt(b), so the loss itself is small.

    Args:
        student_layer, teacher_layer: names of late layers; whole feature maps are compared, of any size.

    Source: Tung & Mori, ICCV 2019, section 4.
    """

    def forward(self, seen: Seen) -> Tensor:
        return similarity_loss(*self.outputs(seen))
