r"""Incremental quantization to powers of two: freeze the large weights, retrain the rest, repeat.

A product with a power of two is a shift, so a layer of such weights needs no multiplier. Rounding all weights
at once costs accuracy; here a growing share is rounded and frozen while the others learn to make up for it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.bits import pack_bits
from compresslab.core.codes import CodebookCode, check_weight
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.prepare import Simulated


def power_levels(largest: float, bits: int) -> Tensor:
    r"""The levels zero and plus and minus the powers of two that suit weights of magnitude up to ``largest``.

    .. math:: P = \{0, \pm 2^{n_2}, \dots, \pm 2^{n_1}\}, \qquad
              n_1 = \lfloor \log_2(4 s / 3) \rfloor, \qquad n_2 = n_1 + 1 - 2^{b - 2}

    :math:`n_1` is chosen so that ``s`` itself rounds to :math:`2^{n_1}` and never lies beyond
    :math:`1.5 \cdot 2^{n_1}`.

    Args:
        largest: :math:`s = \max|w|`, finite, at least 0; 0 counts as 1.
        bits: :math:`b`, 2 to 8: one for zero, and the rest for :math:`2^{b-2}` exponents of either sign.

    Returns:
        (2^(b-1) + 1,) float32, ascending; all exact.

    Raises:
        TypeError, ValueError: ``bits`` is out of range, ``largest`` is negative, nan or infinite.

    Source:
        A. Zhou, A. Yao, Y. Guo, L. Xu, Y. Chen, "Incremental Network Quantization: Towards Lossless CNNs with
        Low-Precision Weights", ICLR 2017, section 2.1.

    Example:
        >>> power_levels(1.0, bits=3)  # n1 = 0, n2 = -1
        tensor([-1.0000, -0.5000,  0.0000,  0.5000,  1.0000])
    """
    check_int("bits", bits, 2, 8)
    if not 0 <= largest < math.inf:
        raise ValueError(f"the largest magnitude must be finite and not negative, got {largest}")
    _, exponent = math.frexp(4 * (largest or 1.0) / 3)  # a number in [1/2, 1) times 2^exponent
    n1 = min(exponent - 1, 127)  # float32 ends there
    sizes = torch.tensor([math.ldexp(1.0, n1 - k) for k in range(2 ** (bits - 2))])  # descending
    return torch.cat([-sizes, torch.zeros(1), sizes.flip(0)])


def nearest_level(weight: Tensor, levels: Tensor) -> Tensor:
    r"""Index of the nearest level for each weight; between two, a tie goes away from zero.

    For neighbours :math:`\alpha < \beta` among the magnitudes, :math:`|w|` becomes :math:`\beta` where
    :math:`(\alpha + \beta) / 2 \le |w| < 3 \beta / 2`. For two powers that is the rule above
    :math:`0.75\,\beta`, and zero is what lies below half of the smallest.

    Args:
        weight: any shape.
        levels: ascending, symmetric around a zero in the middle, as :func:`power_levels` makes them.

    Returns:
        int64, the shape of ``weight``.

    Source:
        Zhou et al., ICLR 2017, section 2.1.

    Example:
        >>> nearest_level(torch.tensor([-0.75, 0.24, 0.25]), power_levels(1.0, bits=3))
        tensor([0, 2, 3])
    """
    middle = len(levels) // 2
    size = weight.abs().contiguous()
    sizes = levels[middle:]
    bounds = (sizes[:-1] + sizes[1:]) / 2
    return middle + weight.sign().long() * torch.bucketize(size, bounds, right=True)


class PowersOfTwo(Simulated):
    """A weight of which a share is frozen at powers of two; the rest is still trained, in float.

    The levels are those of the weight that it is made for, and stay. Frozen values are kept here, so momentum
    and weight decay cannot move them. :class:`IncrementalQuantization` freezes during training; ``convert``
    rounds what is left. Only when all is frozen are the simulated weights those of the code.

    Args:
        weight: floating-point, any shape.
        bits: 2 to 8.
        share: fraction in [0, 1] to freeze at once. The default freezes everything: plain rounding.

    Attributes:
        levels: (2^(bits - 1) + 1,), as :func:`power_levels`.
        frozen: bool, the weight's shape.
        values: what is frozen, the weight's shape; 0 elsewhere.

    Raises:
        TypeError, ValueError: ``bits`` or ``share`` is out of range; nan or inf in the weight.

    Source:
        Zhou et al., ICLR 2017, sections 2.1 and 2.2.

    Example:
        >>> weight = torch.tensor([1.0, -0.3, 0.6, 0.1])
        >>> PowersOfTwo(weight, bits=3, share=0.5)(weight)
        tensor([ 1.0000, -0.3000,  0.5000,  0.1000])
        >>> PowersOfTwo(weight, bits=3)(weight)
        tensor([ 1.0000, -0.5000,  0.5000,  0.0000])
    """

    levels: Tensor
    frozen: Tensor
    values: Tensor

    def __init__(self, weight: Tensor, bits: int = 5, share: float = 1.0):
        super().__init__()
        weight = check_weight(weight)
        self.bits = check_int("bits", bits, 2, 8)
        largest = weight.abs().max().item() if weight.numel() else 0.0
        self.register_buffer("levels", power_levels(largest, bits).to(weight.device))
        self.register_buffer("frozen", torch.zeros_like(weight, dtype=torch.bool))
        self.register_buffer("values", torch.zeros_like(weight))
        self.freeze_(weight, share)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.frozen, self.values.to(weight.dtype), weight)

    @torch.no_grad()
    def freeze_(self, weight: Tensor, share: float) -> None:
        """Freeze the largest of the free weights, until ``round(share * n)`` of n are frozen; in place."""
        count = round(check_fraction("share", share) * weight.numel()) - int(self.frozen.sum())
        if count <= 0:
            return
        size = weight.abs().masked_fill(self.frozen, -1.0).flatten()
        chosen = size.argsort(descending=True, stable=True)[:count]
        now = torch.zeros_like(self.frozen).flatten().index_fill(0, chosen, True).view(self.frozen.shape)
        self.values = torch.where(now, self.levels[nearest_level(weight, self.levels)], self.values)
        self.frozen = self.frozen | now

    def to_code(self, weight: Tensor) -> CodebookCode:
        """The indices of the levels: frozen weights as they are, the others rounded now."""
        weight = check_weight(torch.where(self.frozen, self.values, weight))
        indices = nearest_level(weight, self.levels)
        return CodebookCode(pack_bits(indices, self.bits), self.levels.clone(), weight.shape, self.bits)

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


@dataclass(frozen=True)
class IncrementalQuantization:
    """Freezes the next share of each layer's weights, as an ``after_step`` callback of ``core.train.train``.

    ``shares[k]`` is reached at optimizer step ``k * every``. The network is one that was prepared with
    ``prepare(model, partial(PowersOfTwo, share=0.0))``.

    Args:
        every: optimizer steps between two freezings, at least 1: how long the free weights may settle.
        shares: rising fractions in [0, 1]; the last one is 1 in the paper, after which no float weight is
        left.

    Raises:
        TypeError, ValueError: ``every`` below 1, a share outside [0, 1], shares that fall or are none at all;
            or, when called, a model that was not prepared.

    Source:
        Zhou et al., ICLR 2017, section 2.2, algorithm 1; the shares are those of its ResNet-18.
    Differs: the learning rate goes on along its one schedule; the paper starts it anew after each freezing.

    Example:
        >>> from compresslab.core.prepare import prepare
        >>> model = prepare(nn.Sequential(nn.Linear(4, 2)), lambda weight: PowersOfTwo(weight, share=0.0))
        >>> freeze = IncrementalQuantization(every=10)
        >>> for step in range(15):
        ...     freeze(model, step)
        >>> int(model[0].parametrizations.weight[0].frozen.sum())  # after steps 0 and 10: 3/4 of 8
        6
    """

    every: int
    shares: Sequence[float] = (0.5, 0.75, 0.875, 1.0)

    def __post_init__(self):
        check_int("every", self.every, 1)
        shares = [check_fraction("a share", share) for share in self.shares]
        if not shares or shares != sorted(shares):
            raise ValueError(f"shares must be one or more rising fractions, got {self.shares}")

    def __call__(self, model: nn.Module, step: int) -> None:
        """Freeze weights of ``model`` in place, if ``step`` is a freezing step."""
        number, rest = divmod(step, self.every)
        if rest or number >= len(self.shares):
            return
        found = list(_simulated_weights(model))
        if not found:
            raise ValueError("the model has no PowersOfTwo; prepare it first")
        for simulated, weight in found:
            simulated.freeze_(weight, self.shares[number])


def _simulated_weights(model: nn.Module) -> Iterator[tuple[PowersOfTwo, Tensor]]:
    """Each PowersOfTwo of the model, and the weight that comes to it, behind any mask."""
    for chain in [m for m in model.modules() if isinstance(m, parametrize.ParametrizationList)]:
        weight = chain.original.detach()
        for parametrization in chain:
            if isinstance(parametrization, PowersOfTwo):
                yield parametrization, weight
            weight = parametrization(weight)


def shift_matmul(x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
    r"""Multiply integers by powers of two with shifts and additions alone.

    .. math:: \sum_i x_i\, \sigma_i\, 2^{n_i} = 2^{n}\sum_i \sigma_i\,\big(x_i \ll (n_i - n)\big),
              \qquad n = \min_i n_i

    Args:
        x: whole numbers, an integer dtype, (N, I).
        weight: (O, I), each entry zero or plus or minus a power of two.

    Returns:
        the sums, int64 (N, O), and :math:`n`: ``x @ weight.T`` is the sums times :math:`2^n`, exactly.

    Raises:
        TypeError: ``x`` is not of an integer dtype.
        ValueError: shapes that do not match, a weight that is no power of two, or sums that may not fit into
            63 bits.

    Example:
        >>> shift_matmul(torch.tensor([[3, -5]]), torch.tensor([[2.0, -0.5]]))  # 6 + 2.5 = 17 / 2
        (tensor([[17]]), -1)
    """
    if x.is_floating_point():
        raise TypeError(f"x must hold whole numbers of an integer dtype, got {x.dtype}")
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        shapes = f"{tuple(x.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"x (N, I) needs a weight (O, I), got {shapes}")
    x = x.long()  # the magnitude of -128 is no int8
    mantissa, exponent = torch.frexp(weight)  # of a power of two: 1/2, and its exponent plus 1
    zero = weight == 0
    if not ((mantissa.abs() == 0.5) | zero).all():
        raise ValueError("every weight must be zero or plus or minus a power of two")
    n = 0 if zero.all() else int(exponent[~zero].min()) - 1
    shift = torch.where(zero, 0, exponent.long() - 1 - n)
    largest = int(x.abs().max()) * x.shape[1] << int(shift.max()) if x.numel() and shift.numel() else 0
    if largest >= 2**63:
        raise ValueError(f"the sums may reach {largest}, which does not fit into 63 bits")
    shifted = x.abs().unsqueeze(1) << shift  # (N, O, I)
    return (shifted * x.sign().unsqueeze(1) * weight.sign().long()).sum(2), n
