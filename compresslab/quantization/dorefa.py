r"""DoReFa: k-bit weights, activations and gradients, all from one quantizer of the interval [0, 1].

.. math:: \mathrm{quantize}_k(r) = \frac{1}{2^k - 1}\,\mathrm{round}\big((2^k - 1)\,r\big)

A weight is squeezed into [0, 1] by tanh, an activation by clipping, a gradient by its own maximum.
"""

import torch
from torch import Tensor, nn

from compresslab.core.bits import pack_bits
from compresslab.core.codes import CodebookCode, check_weight
from compresslab.core.errors import check_int
from compresslab.core.prepare import Simulated, straight_through


class DoReFa(Simulated):
    r"""A weight in k bits, of one scale per layer: the levels are :math:`-1, \dots, 1`, evenly spaced.

    .. math:: w_q = 2\,\mathrm{quantize}_k\!\left(\frac{\tanh w}{2 \max|\tanh w|} + \frac12\right) - 1, \qquad
              k = 1:\; w_q = \mathbb E|w| \cdot \mathrm{sign}(w)

    There are :math:`2^k` levels, none of which is zero: a pruned weight comes back. The largest weight
    becomes plus or minus 1 whatever it was, so the size of a trained layer is lost for k > 1. Batch norm
    behind the layer makes up for that; without it, train from the start.

    Backward: straight through the rounding; through tanh and its maximum as they are. For k = 1 the gradient
    passes unchanged.

    Args:
        bits: :math:`k`, 1 to 8.

    Raises:
        TypeError, ValueError: ``bits`` is out of range.

    Source:
        S. Zhou, Y. Wu, Z. Ni, X. Zhou, H. Wen, Y. Zou, "DoReFa-Net: Training Low Bitwidth Convolutional
        Neural Networks with Low Bitwidth Gradients", arXiv:1606.06160, 2016, section 2.3.
    Differs: sign(0) is 1; a weight of nothing but zeros counts as squeezed to 1/2, the middle.

    Example:
        >>> DoReFa(bits=2)(torch.tensor([0.5, 0.1, -0.5])).tolist()
        [1.0, 0.3333333432674408, -1.0]
        >>> DoReFa(bits=1)(torch.tensor([0.5, 0.1, -0.6])).tolist()
        [0.4000000059604645, 0.4000000059604645, -0.4000000059604645]
    """

    def __init__(self, bits: int = 2):
        super().__init__()
        self.bits = check_int("bits", bits, 1, 8)

    def forward(self, weight: Tensor) -> Tensor:
        codebook, indices = self._codebook(weight), self._indices(weight)
        value = codebook[indices.long()]
        return straight_through(weight if self.bits == 1 else 2 * squeeze_weight(weight) - 1, value)

    def to_code(self, weight: Tensor) -> CodebookCode:
        weight = check_weight(weight)
        packed = pack_bits(self._indices(weight), self.bits)
        return CodebookCode(packed, self._codebook(weight), weight.shape, self.bits)

    def _indices(self, weight: Tensor) -> Tensor:
        if self.bits == 1:
            return (weight >= 0).to(torch.uint8)
        return torch.round((2**self.bits - 1) * squeeze_weight(weight.detach())).to(torch.uint8)

    def _codebook(self, weight: Tensor) -> Tensor:
        """The levels that the indices count, from below: (2^k,)."""
        if self.bits == 1:
            size = weight.detach().abs().mean() if weight.numel() else weight.new_zeros(())
            return torch.stack([-size, size])
        n = 2**self.bits - 1
        return (2 * torch.arange(n + 1, device=weight.device) - n).float() / n

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


def squeeze_weight(weight: Tensor) -> Tensor:
    r"""Into [0, 1]: :math:`\tanh w / (2 \max|\tanh w|) + 1/2`, the maximum over the layer.

    Example:
        >>> squeeze_weight(torch.tensor([-0.5, 0.0, 0.5])).tolist()
        [0.0, 0.5, 1.0]
    """
    if weight.numel() == 0:
        return weight
    squeezed = torch.tanh(weight)
    largest = squeezed.abs().max()
    return squeezed / (2 * torch.where(largest > 0, largest, 1.0)) + 0.5


def dorefa_activation(x: Tensor, bits: int) -> Tensor:
    r"""Clip to [0, 1] and round: :math:`x_q = \mathrm{quantize}_k(\mathrm{clip}(x, 0, 1))`.

    Backward: 1 inside [0, 1], 0 outside.

    Args:
        x: any shape.
        bits: :math:`k`, 1 to 16.

    Raises:
        TypeError, ValueError: ``bits`` is out of range.

    Source:
        Zhou et al., 2016, section 2.4.

    Example:
        >>> dorefa_activation(torch.tensor([-1.0, 0.6, 3.0]), bits=1).tolist()
        [0.0, 1.0, 1.0]
    """
    n = 2 ** check_int("bits", bits, 1, 16) - 1
    value = torch.round(n * x.detach().clamp(0, 1)) / n
    return straight_through(x, value, (x >= 0) & (x <= 1))


class DoReFaActivation(nn.Module):
    """:func:`dorefa_activation` in the place of a ReLU; give it to ``replace_relu``.

    Args:
        bits: 1 to 16.

    Raises:
        TypeError, ValueError: ``bits`` is out of range.
    """

    def __init__(self, bits: int = 2):
        super().__init__()
        self.bits = check_int("bits", bits, 1, 16)

    def forward(self, x: Tensor) -> Tensor:
        return dorefa_activation(x, self.bits)

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


def quantize_gradient(gradient: Tensor, bits: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Round a gradient at random to k bits, so that its expectation stays what it was.

    .. math:: f_k(g) = 2 m \left[\mathrm{quantize}_k\left(\frac{g}{2m} + \frac12 + N\right) - \frac12\right],
              \qquad N = \frac{\sigma}{2^k - 1},\; \sigma \sim U(-\tfrac12, \tfrac12)

    with :math:`m` the largest magnitude of each example. Small gradients, which nearest rounding would turn
    to zero in every step, survive on average.

    Args:
        gradient: (N, ...), N examples.
        bits: :math:`k`, 1 to 16.
        generator: of the noise; a fresh one with seed 0 where None.

    Returns:
        the shape of ``gradient``; the gradient of an example that is all zero stays zero, and one with a nan
        or inf in it becomes nan, as a sign that training has diverged.

    Raises:
        TypeError, ValueError: ``bits`` is out of range; the gradient has no dimension.

    Source:
        Zhou et al., 2016, section 2.5.

    Example:
        >>> quantize_gradient(torch.tensor([[-2.0, 2.0, 0.0]]), bits=1)[0, :2].tolist()
        [-2.0, 2.0]
    """
    n = 2 ** check_int("bits", bits, 1, 16) - 1
    if gradient.ndim == 0:
        raise ValueError("a gradient must have one row per example, got a single number of shape ()")
    if gradient.numel() == 0:
        return gradient
    largest = gradient.abs().flatten(1).amax(1) if gradient.ndim > 1 else gradient.abs()
    largest = largest.view(-1, *[1] * (gradient.ndim - 1))
    generator = generator or torch.Generator(gradient.device).manual_seed(0)
    noise = torch.rand(gradient.shape, generator=generator, device=gradient.device) - 0.5
    q = torch.round(n * (gradient / torch.where(largest > 0, 2 * largest, 1.0) + 0.5) + noise).clamp(0, n)
    rounded = 2 * largest * (q / n - 0.5)
    return torch.where(largest == 0, 0.0, torch.where(torch.isfinite(largest), rounded, torch.nan))


class GradientQuantizer(nn.Module):
    """The identity, whose backward pass is :func:`quantize_gradient`; put it behind a layer.

    Args:
        bits: 1 to 16.
        seed: of the noise, which goes on from one backward pass to the next.

    Raises:
        TypeError, ValueError: ``bits`` is out of range.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> y = GradientQuantizer(bits=1)(x)
        >>> y.backward(torch.tensor([[3.0, -3.0]]))
        >>> y.tolist(), x.grad.tolist()
        ([[1.0, 2.0]], [[3.0, -3.0]])
    """

    def __init__(self, bits: int = 6, seed: int = 0):
        super().__init__()
        self.bits = check_int("bits", bits, 1, 16)
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return x
        x = x.view_as(x)  # a tensor of its own, so that the hook does not follow the caller's
        x.register_hook(lambda g: quantize_gradient(g.cpu(), self.bits, self.generator).to(g.device))
        return x

    def extra_repr(self) -> str:
        return f"bits={self.bits}"
