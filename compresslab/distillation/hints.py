r"""Hints: the student's middle layer should be able to tell what the teacher's middle layer says.

Soft targets speak only about the last layer. A hint speaks about the inside: a *regressor* on top of the
student's guided layer predicts the teacher's hint layer, and its error is a term of the loss. The regressor
may be as weak as a 1x1 convolution; it is there because the two layers differ in channels, and it is thrown
away after training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.distillation.distill import Seen, Term
from compresslab.distillation.feature_maps import channel_regressor, check_batch, to_common_size


def hint_loss(guided: Tensor, hint: Tensor) -> Tensor:
    r"""Half the squared distance between the regressed student features and the teacher's.

    .. math:: L_{HT} = \tfrac12 \, \| u_h(x) - r(v_g(x)) \|^2

    Args:
        guided: :math:`r(v_g(x))`, the regressor's output on the student's guided layer, (N, ...).
        hint: :math:`u_h(x)`, the teacher's hint layer, the same shape; it gets no gradient.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ.

    Source: A. Romero, N. Ballas, S. E. Kahou, A. Chassang, C. Gatta, Y. Bengio, "FitNets: Hints for Thin Deep
        Nets", ICLR 2015, section 2.2.
    Differs: a mean over images, channels and positions instead of a sum, so that one weight serves layers of
        any size.

    Example:
        >>> hint_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 6.0]]))  # (0 + 16) / 2 elements / 2
        tensor(4.)
    """
    if guided.shape != hint.shape:
        raise ValueError(
            f"the regressor's output has shape {tuple(guided.shape)}, "
            f"but the teacher's hint has {tuple(hint.shape)}"
        )
    return F.mse_loss(guided, hint.detach()) / 2


def best_linear_regressor(student: Tensor, teacher: Tensor) -> nn.Conv2d:
    r"""The 1x1 convolution with bias that predicts the teacher's maps best, by least squares.

    .. math:: \min_{W, b} \sum_{n, h, w} \| u_{nhw} - W v_{nhw} - b \|^2

    It shows how much of the teacher's layer is *already* a linear function of the student's: what no training
    of a regressor alone can improve on. Dead channels, or fewer positions than channels, give the solution of
    least norm.

    Args:
        student: :math:`v`, (N, C_student, H, W).
        teacher: :math:`u`, (N, C_teacher, H, W); of other sizes, both are averaged to the smaller.

    Returns:
        ``nn.Conv2d(C_student, C_teacher, 1)`` in the student's dtype.

    Raises:
        ValueError: not (N, C, H, W), other numbers of images, or no position at all.

    Example:
        >>> v = torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 1, 3)
        >>> fit = best_linear_regressor(v, 3 * v + 1)
        >>> round(fit.weight.item(), 4), round(fit.bias.item(), 4)
        (3.0, 1.0)
    """
    student, teacher = to_common_size(student.detach(), teacher.detach())
    if student.numel() == 0:
        raise ValueError(f"there is nothing to fit: the student's features have shape {tuple(student.shape)}")
    rows = student.movedim(1, -1).flatten(0, 2).double()  # (N H W, C_student)
    inputs = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    targets = teacher.movedim(1, -1).flatten(0, 2).double()
    # "gelsd" (on the CPU only) finds the least-norm solution where columns are dependent
    solution = torch.linalg.lstsq(inputs.cpu(), targets.cpu(), driver="gelsd").solution.to(student)
    fit = channel_regressor(rows.shape[1], targets.shape[1]).to(student)
    with torch.no_grad():
        fit.weight.copy_(solution[:-1].T[:, :, None, None])
        fit.bias.copy_(solution[-1])
    return fit


class Hint(Term):
    """Term of the loss: :func:`hint_loss` between a layer of the student, regressed, and one of the teacher.

    Weight: 5, for layers behind a batch norm, whose features are of size about 1; its gradient is then about
    as large as that of the cross-entropy.

    Args:
        student_layer: name of the guided layer, such as "stage2".
        teacher_layer: name of the hint layer, such as "blocks.3".
        regressor: maps the student's output to the teacher's channels, trained along with the student; for
            feature maps :func:`~compresslab.distillation.feature_maps.channel_regressor`. None if the
            channels agree.

    Raises:
        ValueError: (when used) the regressor's output is not of the teacher's shape.

    Source: Romero et al., ICLR 2015, section 2.
    Differs: the paper trains the layers up to the hint first, and with soft targets afterwards; here the hint
        is one term among others (call ``distill`` twice for the paper's two stages). Maps of other sizes are
        averaged to the smaller by adaptive average pooling, where the paper's regressor is a convolution
        without padding.
    """

    def __init__(self, student_layer: str, teacher_layer: str, regressor: nn.Module | None = None):
        super().__init__()
        self.student_layers, self.teacher_layers = (student_layer,), (teacher_layer,)
        self.regressor = nn.Identity() if regressor is None else regressor

    def forward(self, seen: Seen) -> Tensor:
        guided, hint = seen.student[self.student_layers[0]], seen.teacher[self.teacher_layers[0]]
        check_batch(guided, hint)
        if guided.ndim == hint.ndim == 4:
            guided, hint = to_common_size(guided, hint)
        return hint_loss(self.regressor(guided), hint)
