r"""Flow of solution procedure (FSP): not what a layer says, but how the next one follows from it.

A teacher at the blackboard shows the step from line to line, not the lines. Between two layers the step is
summed up in one small matrix: which channels of the first respond at the same places as which channels of the
second.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.distillation.distill import Seen, Term
from compresslab.distillation.feature_maps import to_common_size


def flow_matrix(first: Tensor, second: Tensor) -> Tensor:
    r"""Inner products of the channels of two layers, over the positions.

    .. math:: G_{ij} = \frac{1}{hw} \sum_{s=1}^{h} \sum_{t=1}^{w} F^1_{st,i} \, F^2_{st,j}

    Of one layer with itself it is the Gram matrix: symmetric, positive semidefinite.

    Args:
        first: :math:`F^1`, (N, m, H, W).
        second: :math:`F^2`, a later layer of the same network, (N, n, H', W').

    Returns:
        :math:`G`, (N, m, n).

    Raises:
        ValueError: not (N, C, H, W), or other numbers of images.

    Source: J. Yim, D. Joo, J. Bae, J. Kim, "A Gift from Knowledge Distillation: Fast Optimization, Network
        Minimization and Transfer Learning", CVPR 2017, section 3.
    Differs: layers of two sizes are made alike by adaptive average pooling, where the paper uses max pooling.

    Example:
        >>> first = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]])  # two channels of 1 x 2 pixels
        >>> flow_matrix(first, torch.tensor([[[[1.0, 1.0]]]]))
        tensor([[[1.5000],
                 [2.0000]]])
    """
    first, second = to_common_size(first, second)
    positions = first.shape[2] * first.shape[3]
    return torch.einsum("nihw,njhw->nij", first, second) / positions


def flow_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared distance between the flow matrices of student and teacher.

    .. math:: L_{FSP} = \frac1N \sum_x \| G^T(x) - G^S(x) \|_2^2

    Args:
        student, teacher: flow matrices, (N, m, n); the teacher's get no gradient.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ: the two networks must have as many channels in both layers.

    Source: Yim et al., CVPR 2017, section 3.
    Differs: a mean over the m n entries instead of their sum, so that one weight serves layers of any width.

    Example:
        >>> flow_loss(torch.zeros(1, 1, 2), torch.tensor([[[2.0, 4.0]]]))  # (4 + 16) / 2
        tensor(10.)
    """
    if student.ndim != 3 or student.shape != teacher.shape:
        raise ValueError(
            "the flow matrices of student and teacher must have one shape, (N, m, n), "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}; regressors can make the channels agree"
        )
    return F.mse_loss(student, teacher.detach())


class Flow(Term):
    r"""Term of the loss: :func:`flow_loss` for the step between two layers.

    Weight: 3, for features of size about 1. The loss is of fourth degree in the features: twice as large ones
    would want a sixteenth.

    Args:
        student_layers: names of the first and the second layer in the student, such as ("stage1", "stage2").
        teacher_layers: the same in the teacher, such as ("blocks.0", "blocks.2").
        regressors: two modules that bring the student's two outputs to the teacher's channels, trained along
            with the student, such as two of
            :func:`~compresslab.distillation.feature_maps.channel_regressor`. None if the channels agree, as
            the paper demands.

    Raises:
        ValueError: not two layers each, or (when used) channels that differ.

    Source: Yim et al., CVPR 2017, section 3.
    Differs: the paper trains with this loss alone first and on the labels afterwards; here it is one term
        among others. Regressors are ours: published comparisons leave FSP out where the widths of student and
        teacher differ.
    """

    def __init__(
        self,
        student_layers: tuple[str, str],
        teacher_layers: tuple[str, str],
        regressors: tuple[nn.Module, nn.Module] | None = None,
    ):
        super().__init__()
        for who, layers in (("student", student_layers), ("teacher", teacher_layers)):
            if isinstance(layers, str) or len(layers) != 2:
                raise ValueError(f"a flow joins two layers: give two {who}_layers, got {layers!r}")
        if regressors is not None and len(regressors) != 2:
            raise ValueError(f"give two regressors, one for each layer of the student, got {len(regressors)}")
        self.student_layers, self.teacher_layers = tuple(student_layers), tuple(teacher_layers)
        self.regressors = nn.ModuleList(regressors or (nn.Identity(), nn.Identity()))

    def forward(self, seen: Seen) -> Tensor:
        outputs = [seen.student[name] for name in self.student_layers]
        student = [regressor(x) for regressor, x in zip(self.regressors, outputs, strict=True)]
        teacher = [seen.teacher[name] for name in self.teacher_layers]
        return flow_loss(flow_matrix(*student), flow_matrix(*teacher))
