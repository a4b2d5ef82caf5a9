"""Fake quantization: train with rounded weights, step with exact ones."""

import torch
from torch import Tensor

from compresslab.core.codes import UniformCode, check_weight
from compresslab.core.errors import check_int
from compresslab.core.prepare import Simulated, straight_through
from compresslab.core.uniform import (
    FindRange,
    Grid,
    choose_scale,
    fake_quantize,
    from_rows,
    min_max,
    to_rows,
)


def round_ste(x: Tensor) -> Tensor:
    """Round to the nearest whole number, ties to even, with the gradient 1 of the straight-through estimator.

    Example:
        >>> x = torch.tensor([0.6], requires_grad=True)
        >>> round_ste(x).backward()
        >>> x.grad
        tensor([1.])
    """
    return straight_through(x, torch.round(x))


def fake_quantize_ste(x: Tensor, grid: Grid) -> Tensor:
    """``fake_quantize``, trained straight through: gradient 1 for what rounds to a point of the grid, else 0.

    Example:
        >>> x = torch.tensor([0.6, 3.4, 3.6], requires_grad=True)
        >>> fake_quantize_ste(x, choose_scale(0.0, 3.0, bits=2)).sum().backward()
        >>> x.grad.tolist()
        [1.0, 1.0, 0.0]
    """
    q = torch.round(x.detach() / grid.scale) + grid.zero_point
    return straight_through(x, fake_quantize(x, grid), (q >= grid.qmin) & (q <= grid.qmax))


class FakeQuantize(Simulated):
    r"""A weight rounded to a uniform grid that follows its range, trained straight through.

    .. math:: \hat w = S\,(\mathrm{clamp}(\mathrm{round}(w / S) + Z, q_{min}, q_{max}) - Z), \qquad
              \frac{\partial \hat w}{\partial w} = \mathbb 1[\,w_{low} \le w \le w_{high}\,]

    Args:
        bits: :math:`b`, 2 to 8.
        axis, group_size: which weights share a scale, as in ``core.uniform.to_rows``; by default a channel.
        symmetric: no zero point.
        find_range: rows (R, m) -> low, high (R, 1) each, found anew in every forward pass.

    Raises:
        TypeError, ValueError: ``bits`` is no whole number from 2 to 8.

    Source:
        B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, section 3; R. Krishnamoorthi, "Quantizing deep convolutional networks for
        efficient inference: A whitepaper", 2018 (a scale per channel).

    Example:
        >>> FakeQuantize(bits=2)(torch.tensor([[1.0, 0.6, -0.4], [4.0, 0.0, -3.0]]))
        tensor([[ 1.,  1.,  0.],
                [ 4.,  0., -4.]])
    """

    def __init__(
        self,
        bits: int = 4,
        axis: int | None = 0,
        group_size: int | None = None,
        symmetric: bool = True,
        find_range: FindRange = min_max,
    ):
        super().__init__()
        self.bits = check_int("bits", bits, 2, 8)
        self.axis, self.group_size, self.symmetric, self.find_range = axis, group_size, symmetric, find_range

    def forward(self, weight: Tensor) -> Tensor:
        rows = to_rows(weight, self.axis, self.group_size)
        low, high = self.find_range(rows.detach())
        grid = choose_scale(low, high, self.bits, symmetric=self.symmetric)
        return from_rows(fake_quantize_ste(rows, grid), weight.shape, self.axis)

    def to_code(self, weight: Tensor) -> UniformCode:
        return UniformCode.from_dense(
            check_weight(weight),
            self.bits,
            axis=self.axis,
            group_size=self.group_size,
            symmetric=self.symmetric,
            find_range=self.find_range,
        )

    def extra_repr(self) -> str:
        return (
            f"bits={self.bits}, axis={self.axis}, group_size={self.group_size}, symmetric={self.symmetric}"
        )
