r"""Binary weights: a sign each, and a scale that makes the signs fit.

Which scale? For signs :math:`B` the squared error :math:`\|W - \alpha B\|^2` is least for
:math:`\alpha = W^\top B / n`, and what is left, :math:`\|W\|^2 - (W^\top B)^2 / n`, is least where every sign
agrees with its weight: :math:`B = \mathrm{sign}(W)`, :math:`\alpha = \|W\|_1 / n`. No search over the
:math:`2^n` sign vectors can do better.

Zero has the sign +1 here, so that every weight is one of two values and fits into a bit. A pruned weight
comes back as :math:`\alpha`: two levels have no room for zero, which is what ternary weights are for.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.bits import check_packed, pack_bits, unpack_bits
from compresslab.core.codes import WeightCode, check_weight
from compresslab.core.errors import check_int
from compresslab.core.prepare import Simulated, straight_through
from compresslab.core.uniform import from_rows, kept_axis, to_rows


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1 (``torch.sign`` has a third value, 0), in the dtype of ``x``.

    Example:
        >>> sign(torch.tensor([-2.0, 0.0, 0.5]))
        tensor([-1.,  1.,  1.])
    """
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def sign_ste(x: Tensor) -> Tensor:
    r"""``sign`` with the gradient of a clip.

    .. math:: \frac{\partial\,\mathrm{sign}(x)}{\partial x} := \mathbb 1[|x| \le 1]

    Beyond one the gradient is cut, or a latent weight would drift away for ever without its sign changing.

    Source: M. Courbariaux, I. Hubara, D. Soudry, R. El-Yaniv, Y. Bengio, "Binarized Neural Networks", 2016;
    M. Rastegari et al., "XNOR-Net", ECCV 2016.

    Example:
        >>> x = torch.tensor([0.3, -1.5], requires_grad=True)
        >>> (7 * sign_ste(x)).sum().backward()
        >>> x.grad
        tensor([7., 0.])
    """
    return straight_through(x, sign(x), x.detach().abs() <= 1)


def mean_magnitude(rows: Tensor) -> Tensor:
    r"""The best scale of the signs of each row, :math:`\alpha = \|w\|_1 / n`: (R, m) -> (R, 1).

    Example:
        >>> mean_magnitude(torch.tensor([[1.0, -3.0, 0.5, -0.5]]))
        tensor([[1.2500]])
    """
    total = rows.abs().double().sum(1, keepdim=True)
    return (total / max(rows.shape[1], 1)).to(rows.dtype)


class BinaryCode(WeightCode):
    r"""One bit a weight and one scale a row: :math:`\hat w = \alpha\,b`, :math:`b \in \{-1, +1\}`.

    A row of n weights takes n + 32 bits instead of 32 n.

    Args:
        packed: uint8, ``pack_bits`` at 1 bit; a set bit is +1.
        scale: :math:`\alpha`, floating-point, (R,), one for each row of ``to_rows``; at least one.
        shape: shape of the weight.
        axis: the axis that was moved to the front.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size.

    Source:
        M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, "XNOR-Net: ImageNet Classification Using Binary
        Convolutional Neural Networks", ECCV 2016, section 3.1.

    Example:
        >>> code = BinaryCode.from_dense(torch.tensor([[1.0, -2.0], [0.0, 4.0]]))
        >>> code.packed, code.decode()  # the bits 1 0 1 1, the least significant first
        (tensor([13], dtype=torch.uint8), tensor([[ 1.5000, -1.5000],
                                                  [ 2.0000,  2.0000]]))
    """

    meta = ("shape", "axis")
    roles = {"packed": "values", "scale": "scales"}

    def __init__(self, packed: Tensor, scale: Tensor, shape: tuple[int, ...], axis: int = 0):
        super().__init__(shape)
        self.axis = check_int("axis", axis, 0, len(self.shape) - 1)
        check_packed(packed, 1, self.numel)
        if not scale.is_floating_point():
            raise TypeError(f"scale must be floating-point, got {scale.dtype}")
        if scale.ndim != 1 or len(scale) == 0 or self.numel % len(scale):
            raise ValueError(
                f"{self.numel} weights cannot share scales of shape {tuple(scale.shape)} equally"
            )
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)

    @classmethod
    def from_dense(
        cls, weight: Tensor, *, axis: int | None = 0, group_size: int | None = None, scaled: bool = True
    ) -> "BinaryCode":
        """Keep the signs, and the scale that fits them best.

        Args:
            weight: any shape of at least one dimension.
            axis, group_size: which weights share a scale, as in ``to_rows``; by default an output channel.
            scaled: False sets every scale to 1, as BinaryConnect does.

        Raises:
            TypeError, ValueError: no finite floating-point weight, or no such rows.
        """
        weight = check_weight(weight)
        rows = to_rows(weight, axis, group_size)
        scale = mean_magnitude(rows).flatten() if scaled else rows.new_ones(len(rows))
        return cls(pack_bits(rows >= 0, 1), scale, weight.shape, kept_axis(weight.shape, axis))

    def decode(self) -> Tensor:
        bits = unpack_bits(self.packed, 1, self.numel).view(len(self.scale), -1 if self.numel else 0)
        return from_rows((2 * bits - 1).float() * self.scale.float().unsqueeze(1), self.shape, self.axis)


class BinaryConnect(Simulated):
    r"""Train with the signs of the weights; the latent weights keep count of small steps.

    .. math:: \hat w = \mathrm{sign}(w), \qquad \frac{\partial L}{\partial w} =
              \frac{\partial L}{\partial \hat w}\,\mathbb 1[|w| \le 1], \qquad
              w \leftarrow \mathrm{clip}(w - \eta\,\partial L / \partial w, -1, 1)

    The clip is the hook ``clip_latent_``, for ``train(..., after_step=clip_latent_)``. The network needs
    batch norm behind its layers: with weights of magnitude 1 a sum of n inputs grows like :math:`\sqrt n`.

    Source:
        M. Courbariaux, Y. Bengio, J.-P. David, "BinaryConnect: Training Deep Neural Networks with binary
        weights during propagations", NeurIPS 2015, algorithm 1.
    Differs: deterministic signs only; the paper also draws them with probability
        :math:`\mathrm{clip}((w + 1) / 2, 0, 1)`. The mask in the gradient comes from a later paper and
        changes nothing as long as the weights are clipped.

    Example:
        >>> BinaryConnect()(torch.tensor([[0.2, -0.7]]))
        tensor([[ 1., -1.]])
    """

    def forward(self, weight: Tensor) -> Tensor:
        return sign_ste(weight)

    def to_code(self, weight: Tensor) -> BinaryCode:
        return BinaryCode.from_dense(weight, axis=None, scaled=False)


class BWN(Simulated):
    r"""Binary-weight network: signs times the mean magnitude of each output channel.

    .. math:: \hat w_i = \alpha\,\mathrm{sign}(w_i), \quad \alpha = \|w\|_1 / n, \qquad
              \frac{\partial L}{\partial w_i} = \alpha\,\mathbb 1[|w_i| \le 1]\, g_i
              + \frac{\mathrm{sign}(w_i)}{n} \sum_j \mathrm{sign}(w_j)\, g_j, \quad
              g = \frac{\partial L}{\partial \hat w}

    Args:
        axis, group_size: which weights share a scale, as in ``to_rows``; by default an output channel.

    Source:
        M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, "XNOR-Net", ECCV 2016, section 3.1.
    Differs: the paper writes :math:`g_i (1/n + \alpha \mathbb 1[|w_i| \le 1])`; its :math:`1/n` leaves out
        that all weights of a channel share :math:`\alpha`. Here it is the chain rule.

    Example:
        >>> BWN()(torch.tensor([[1.0, -2.0], [0.0, 4.0]]))
        tensor([[ 1.5000, -1.5000],
                [ 2.0000,  2.0000]])
    """

    def __init__(self, axis: int | None = 0, group_size: int | None = None):
        super().__init__()
        self.axis, self.group_size = axis, group_size

    def forward(self, weight: Tensor) -> Tensor:
        rows = to_rows(weight, self.axis, self.group_size)
        return from_rows(sign_ste(rows) * mean_magnitude(rows), weight.shape, self.axis)

    def to_code(self, weight: Tensor) -> BinaryCode:
        return BinaryCode.from_dense(weight, axis=self.axis, group_size=self.group_size)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, group_size={self.group_size}"


@torch.no_grad()
def clip_latent_(model: nn.Module, step: int = 0) -> None:
    """Clip the latent weights of ``BinaryConnect`` layers to [-1, 1], in place: an ``after_step`` for
    ``train``.

    Other weights are left alone, and so are BWN's, whose magnitudes are the scale.
    """
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            chain = module.parametrizations.weight
            if any(isinstance(p, BinaryConnect) for p in chain):
                chain.original.clamp_(-1, 1)
