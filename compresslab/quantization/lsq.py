r"""Learned step size quantization: the step of the grid is a parameter, trained by the loss like any weight.

A range rule (min-max, percentile) does not know the task. LSQ gives the step a gradient: it says for each
weight whether a longer step would move its rounded value up or down.
"""

import math

import torch
from torch import Tensor, nn

from compresslab.core.codes import UniformCode, check_weight
from compresslab.core.errors import check_int
from compresslab.core.prepare import Simulated
from compresslab.core.uniform import Grid, from_rows, kept_axis, quantize, to_rows

SMALLEST_STEP = torch.finfo(torch.float32).tiny  # training must not carry a step to zero or below


class _Quantize(torch.autograd.Function):
    """v, s -> s * round(clip(v / s)), with the paper's two gradients."""

    @staticmethod
    def forward(ctx, v: Tensor, s: Tensor, qn: int, qp: int) -> Tensor:
        ctx.save_for_backward(v, s)
        ctx.bounds = -qn, qp
        return torch.round(torch.clamp(v / s, -qn, qp)) * s

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        v, s = ctx.saved_tensors
        low, high = ctx.bounds
        ratio = v / s
        inside = (ratio > low) & (ratio < high)
        by_step = torch.where(inside, torch.round(ratio) - ratio, ratio.clamp(low, high))
        return upstream * inside, (upstream * by_step).sum_to_size(s.shape), None, None


def lsq_quantize(v: Tensor, s: Tensor, qn: int, qp: int) -> Tensor:
    r"""Quantize with a step that has a gradient of its own.

    .. math:: \hat v = s \lfloor \mathrm{clip}(v / s, -Q_N, Q_P) \rceil, \qquad
              \frac{\partial \hat v}{\partial v} = \mathbb 1[\,-Q_N < v / s < Q_P\,], \qquad
              \frac{\partial \hat v}{\partial s} = \begin{cases}
              -v / s + \lfloor v / s \rceil & -Q_N < v / s < Q_P \\ -Q_N & v / s \le -Q_N \\
              Q_P & v / s \ge Q_P \end{cases}

    The second gradient jumps where the value does, from a half up to minus a half down: near a tie a longer
    step throws the value to the other side. (Earlier methods let it be zero inside the range.)

    Args:
        v: numbers, any shape.
        s: step, positive, of a shape that broadcasts to ``v``.
        qn, qp: :math:`Q_N, Q_P`, how many steps below and above zero, at least 0 and 1: (0, 2^b - 1) for
            activations, (2^(b-1), 2^(b-1) - 1) for weights.

    Returns:
        the shape of ``v``.

    Raises:
        TypeError: ``qn`` or ``qp`` is no whole number.
        ValueError: they are too small, ``s`` is not positive, or does not broadcast to ``v``.

    Source:
        S. K. Esser, J. L. McKinstry, D. Bablani, R. Appuswamy, D. S. Modha, "Learned Step Size Quantization",
        ICLR 2020, section 2.1.

    Example:
        >>> v, s = torch.tensor([-9.0, 1.2, 9.0]), torch.tensor(0.5, requires_grad=True)
        >>> value = lsq_quantize(v, s, qn=4, qp=3)
        >>> value.tolist()
        [-2.0, 1.0, 1.5]
        >>> value.sum().backward()  # -4, then 2 - 2.4, then 3
        >>> round(s.grad.item(), 4)
        -1.4
    """
    check_int("qn", qn, 0)
    check_int("qp", qp, 1)
    if not (s > 0).all():
        raise ValueError(f"the step must be positive, got {s.min().item():g}")
    if torch.broadcast_shapes(v.shape, s.shape) != v.shape:
        raise ValueError(f"a step of shape {tuple(s.shape)} does not broadcast to {tuple(v.shape)}")
    return _Quantize.apply(v, s, qn, qp)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x``, with ``factor`` times its gradient.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> scale_gradient(x, 0.5).backward()
        >>> x.grad
        tensor(0.5000)
    """
    return x.detach() + factor * (x - x.detach())


class LSQ(Simulated):
    r"""A weight on a symmetric grid whose step is learned, :math:`Q_N = Q_P = 2^{b-1} - 1`.

    The step starts at :math:`2\,\overline{|w|} / \sqrt{Q_P}`. Its gradient is multiplied by
    :math:`g = 1 / \sqrt{N Q_P}`, N the weights that share it; without that, a step would move thousands of
    times as far as a weight, relative to its size.

    Args:
        weight: floating-point, any shape; sets the first step. A row of zeros starts with step 1.
        bits: :math:`b`, 2 to 8.
        axis: one step per index of this axis (0 = output channel); None, as in the paper: one for the tensor.

    Attributes:
        step: the parameter, (R, 1). Its magnitude is what counts, and it is never less than the
            smallest normal float32.

    Raises:
        TypeError, ValueError: ``bits`` or ``axis`` is out of range; nan or inf in the weight.

    Source:
        Esser et al., ICLR 2020, sections 2.1 and 2.2.
    Differs: a level less below zero, so that the code needs no zero point.

    Example:
        >>> weight = torch.tensor([[0.5, -1.5]])
        >>> lsq = LSQ(weight, bits=2)  # Q = 1, so the step is 2 * 1.0
        >>> lsq(weight).tolist(), lsq.to_code(weight).decode().tolist()
        ([[0.0, -2.0]], [[0.0, -2.0]])
    """

    def __init__(self, weight: Tensor, bits: int = 4, axis: int | None = None):
        super().__init__()
        self.bits, self.axis = check_int("bits", bits, 2, 8), axis
        self.q = 2 ** (bits - 1) - 1
        rows = to_rows(check_weight(weight), axis)
        size = rows.abs().mean(1, keepdim=True) if rows.numel() else rows.new_zeros(len(rows), 1)
        step = torch.where(size > 0, 2 * size / math.sqrt(self.q), 1.0)
        self.step = nn.Parameter(step)

    def forward(self, weight: Tensor) -> Tensor:
        rows = to_rows(weight, self.axis)
        gradient_scale = 1 / math.sqrt(max(rows.shape[1], 1) * self.q)
        step = scale_gradient(self._positive_step(), gradient_scale)
        return from_rows(lsq_quantize(rows, step, self.q, self.q), weight.shape, self.axis)

    def to_code(self, weight: Tensor) -> UniformCode:
        weight = check_weight(weight)
        step = self._positive_step().detach()
        grid = Grid(step, torch.zeros_like(step, dtype=torch.int32), -self.q, self.q)
        q = quantize(to_rows(weight, self.axis), grid)
        return UniformCode.from_rows(q, grid, weight.shape, kept_axis(weight.shape, self.axis))

    def _positive_step(self) -> Tensor:
        return self.step.abs().clamp(min=SMALLEST_STEP)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, axis={self.axis}"
