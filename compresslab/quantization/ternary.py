r"""Ternary weights: minus one, zero, plus one, and one or two scales.

Given which weights become zero, the rest is settled: their signs stay, and the best scale is their mean
magnitude. Keeping k weights leaves the error :math:`\|w\|^2 - (\sum_{kept} |w_i|)^2 / k`, so the k largest
are the ones to keep, and only n choices of k are left: sort once, and the best of :math:`3^n` assignments is
found.
"""

import torch
from torch import Tensor, nn

from compresslab.core.bits import pack_bits
from compresslab.core.codes import CodebookCode, UniformCode, check_weight
from compresslab.core.errors import check_fraction
from compresslab.core.prepare import Simulated, straight_through
from compresslab.core.uniform import Grid, dequantize, from_rows, kept_axis, to_rows

RULES = ("exact", "0.7")


def exact_threshold(rows: Tensor) -> Tensor:
    r"""The threshold with the least squared error, for each row.

    .. math:: \Delta^* = \arg\max_\Delta \frac{\left(\sum_{|w_i| > \Delta} |w_i|\right)^2}
              {\#\{i : |w_i| > \Delta\}}

    Equal magnitudes are kept or dropped together without loss: between them the maximum is convex in k.

    Args:
        rows: (R, m), finite.

    Returns:
        (R, 1): the largest magnitude that becomes zero, 0 where none does. Weights above it are kept.

    Source:
        F. Li, B. Zhang, B. Liu, "Ternary Weight Networks", 2016, section 2.
    Differs: the paper gives this up as too expensive and takes ``rule_threshold``; sorting makes it cheap.

    Example:
        >>> exact_threshold(torch.tensor([[4.0, -3.0, 0.5, 0.1]]))  # 4, 7, 7.5, 7.6: 16, 24.5, 18.75, 14.44
        tensor([[0.5000]])
    """
    if rows.shape[1] == 0:
        return rows.new_zeros(len(rows), 1)
    magnitudes = rows.detach().abs().sort(dim=1, descending=True).values  # (R, m)
    counts = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    best = (magnitudes.double().cumsum(1).square() / counts).argmax(1, keepdim=True)  # k - 1
    dropped = torch.cat([magnitudes, magnitudes.new_zeros(len(rows), 1)], 1)
    return dropped.gather(1, best + 1)


def rule_threshold(rows: Tensor) -> Tensor:
    r"""The rule of thumb :math:`\Delta = 0.7\,\mathrm E|w|` for each row: (R, m) -> (R, 1).

    The exact threshold tends to :math:`\frac23 \mathrm E|w|` for uniform weights and to
    :math:`0.767\,\mathrm E|w| = 0.612\,\sigma` for normal ones; 0.7 lies between.

    Source: F. Li, B. Zhang, B. Liu, "Ternary Weight Networks", 2016, section 2.

    Example:
        >>> rule_threshold(torch.tensor([[4.0, -3.0, 0.5, 0.5]]))
        tensor([[1.4000]])
    """
    total = rows.detach().abs().double().sum(1, keepdim=True)
    return (0.7 * total / max(rows.shape[1], 1)).to(rows.dtype)


def ternarize(
    weight: Tensor, axis: int | None = None, group_size: int | None = None, rule: str = "exact"
) -> tuple[Tensor, Grid]:
    r"""The ternary weights :math:`\hat w = \alpha\,t` nearest to ``weight``.

    .. math:: t_i = \mathrm{sign}(w_i)\,\mathbb 1[|w_i| > \Delta], \qquad
              \alpha = \frac{1}{|I_\Delta|} \sum_{i \in I_\Delta} |w_i|

    Args:
        weight: any shape of at least one dimension, finite.
        axis, group_size: which weights share a scale, as in ``to_rows``; None is one for the tensor, as in
            the paper; 0 one per output channel.
        rule: ``"exact"`` or ``"0.7"``: how :math:`\Delta` is chosen.

    Returns:
        ``t`` (R, m), int32, and the grid whose ``scale`` (R, 1) is :math:`\alpha`; 1 for a row of zeros.

    Raises:
        TypeError, ValueError: no finite floating-point weight, no such rows, or an unknown rule.

    Example:
        >>> t, grid = ternarize(torch.tensor([4.0, -3.0, 0.5, 0.1]))
        >>> t, grid.scale
        (tensor([[ 1, -1,  0,  0]], dtype=torch.int32), tensor([[3.5000]]))
    """
    _check_rule(rule)
    rows = to_rows(check_weight(weight), axis, group_size)
    kept = rows.abs() > (exact_threshold(rows) if rule == "exact" else rule_threshold(rows))
    counts = kept.sum(1, keepdim=True)
    total = (rows.abs().double() * kept).sum(1, keepdim=True)
    scale = torch.where(counts > 0, total / counts.clamp(min=1), 1.0).float()
    return (rows.sign() * kept).int(), Grid(scale, torch.zeros_like(scale, dtype=torch.int32), -1, 1)


def ternary_code(
    weight: Tensor, axis: int | None = None, group_size: int | None = None, rule: str = "exact"
) -> UniformCode:
    """The ternary code of a weight, arguments as in ``ternarize``: two bits a weight and a scale per row.

    A ternary grid is the symmetric uniform one of 2 bits, :math:`q \\in \\{-1, 0, 1\\}`; only its scale is
    chosen otherwise, so it is stored as one. (Three values carry 1.58 bits; Huffman coding finds most of the
    rest.)

    Example:
        >>> ternary_code(torch.tensor([4.0, -3.0, 0.5, 0.1])).decode()
        tensor([ 3.5000, -3.5000,  0.0000,  0.0000])
    """
    t, grid = ternarize(weight, axis, group_size, rule)
    return UniformCode.from_rows(t, grid, tuple(weight.shape), kept_axis(weight.shape, axis))


class Ternary(Simulated):
    r"""Ternary weight network: train through the nearest ternary weights, found anew at every step.

    The gradient passes straight through: :math:`\partial L / \partial w = \partial L / \partial \hat w`.

    Args:
        axis, group_size, rule: as in ``ternarize``.

    Raises:
        ValueError: an unknown rule.

    Source: F. Li, B. Zhang, B. Liu, "Ternary Weight Networks", 2016, section 2.

    Example:
        >>> Ternary(rule="0.7")(torch.tensor([4.0, -3.0, 0.5, 0.1]))
        tensor([ 3.5000, -3.5000,  0.0000,  0.0000])
    """

    def __init__(self, axis: int | None = None, group_size: int | None = None, rule: str = "exact"):
        super().__init__()
        _check_rule(rule)
        self.axis, self.group_size, self.rule = axis, group_size, rule

    def forward(self, weight: Tensor) -> Tensor:
        t, grid = ternarize(weight, self.axis, self.group_size, self.rule)
        value = from_rows(dequantize(t, grid), weight.shape, self.axis)
        return straight_through(weight, value.to(weight.dtype))

    def to_code(self, weight: Tensor) -> UniformCode:
        return ternary_code(weight, self.axis, self.group_size, self.rule)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, group_size={self.group_size}, rule={self.rule!r}"


class _TrainedTernary(torch.autograd.Function):
    """Three levels going forward; the rules of the paper, written out, going backward."""

    @staticmethod
    def forward(ctx, weight: Tensor, positive: Tensor, negative: Tensor, threshold: Tensor) -> Tensor:
        above, below = weight > threshold, weight < -threshold
        ctx.save_for_backward(above, below, positive, negative)
        return torch.where(above, positive, torch.where(below, -negative, 0.0)).to(weight.dtype)

    @staticmethod
    def backward(ctx, g: Tensor):
        above, below, positive, negative = ctx.saved_tensors
        latent = g * torch.where(above, positive, torch.where(below, negative, 1.0))
        return latent, (g * above).sum(), -(g * below).sum(), None


class TTQ(Simulated):
    r"""Trained ternary quantization: two scales that are learned, :math:`W_p` and :math:`W_n`.

    .. math:: \hat w_i = \begin{cases} W_p & w_i > \Delta \\ 0 & |w_i| \le \Delta \\
              -W_n & w_i < -\Delta \end{cases} \qquad \Delta = t \max_i |w_i|

    .. math:: \frac{\partial L}{\partial W_p} = \sum_{i \in I_p} g_i, \quad
              \frac{\partial L}{\partial W_n} = -\sum_{i \in I_n} g_i, \quad
              \frac{\partial L}{\partial w_i} = g_i \cdot (W_p, 1 \text{ or } W_n), \quad
              g = \frac{\partial L}{\partial \hat w}

    Args:
        weight: the weight to start from; each scale starts as the mean magnitude of its weights, 1 if none.
        threshold: :math:`t`, a fraction in [0, 1]; 1 makes everything zero.

    Raises:
        TypeError, ValueError: no finite floating-point weight, or no fraction.

    Source:
        C. Zhu, S. Han, H. Mao, W. J. Dally, "Trained Ternary Quantization", ICLR 2017, section 3.
    Differs: the paper prints the gradient of :math:`W_n` without the minus, which ascends for a negative
        level :math:`-W_n`. It also divides the latent weights by their largest magnitude first; the threshold
        is relative to that magnitude here, which chooses the same weights.

    Example:
        >>> ttq = TTQ(torch.tensor([0.9, 0.5, -0.3, 0.01]))
        >>> ttq(torch.tensor([0.9, 0.5, -0.3, 0.01])).tolist()
        [0.699999988079071, 0.699999988079071, -0.30000001192092896, 0.0]
    """

    def __init__(self, weight: Tensor, threshold: float = 0.05):
        super().__init__()
        self.threshold = check_fraction("threshold", threshold)
        weight = check_weight(weight)
        delta = self._delta(weight)
        self.positive = nn.Parameter(_mean_or_one(weight[weight > delta]))
        self.negative = nn.Parameter(_mean_or_one(-weight[weight < -delta]))

    def _delta(self, weight: Tensor) -> Tensor:
        """The threshold as a magnitude, a scalar."""
        largest = weight.detach().abs().max() if weight.numel() else weight.new_zeros(())
        return self.threshold * largest

    def forward(self, weight: Tensor) -> Tensor:
        return _TrainedTernary.apply(weight, self.positive, self.negative, self._delta(weight))

    def to_code(self, weight: Tensor) -> CodebookCode:
        """Two bits a weight, and the codebook :math:`(-W_n, 0, W_p)`."""
        weight = check_weight(weight)
        delta = self._delta(weight)
        indices = 1 + (weight > delta).int() - (weight < -delta).int()
        positive, negative = self.positive.detach().float(), self.negative.detach().float()
        codebook = torch.stack([-negative, torch.zeros_like(positive), positive])
        return CodebookCode(pack_bits(indices, 2), codebook, tuple(weight.shape), 2)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"


def _mean_or_one(magnitudes: Tensor) -> Tensor:
    return magnitudes.mean() if len(magnitudes) else torch.ones((), device=magnitudes.device)


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(map(repr, RULES))}, got {rule!r}")
