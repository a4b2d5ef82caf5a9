r"""NF4: a 4-bit code book for numbers that are normally distributed, and scales that are quantized again.

Levels at equal distances spend many codes on large weights, which are few. NF4 puts its sixteen levels at
quantiles of the normal distribution, dense where the weights are dense. The code book is fixed, so nothing
but the indices and one scale per block of 64 has to be stored. With float32 scales that is 4 + 32/64 = 4.5
bits per weight. *Double quantization* stores the scales in 8 bits: 4 + 8/64 + 32/(64 * 256) = 4.127.
"""

from functools import cache

import torch
from torch import Tensor

from compresslab.core.bits import check_packed, pack_bits, unpack_bits
from compresslab.core.codes import WeightCode, check_weight
from compresslab.core.uniform import to_rows
from compresslab.quantization.float_formats import absmax, check_scale, positive

OFFSET = 1 - (1 / 32 + 1 / 30) / 2  # 0.9677083: the probability whose quantile becomes the level 1
SCALES_PER_GROUP = 256


def normal_levels(offset: float = OFFSET) -> Tensor:
    r"""The sixteen levels of NF4, from -1 to 1, with an exact zero.

    .. math:: 0, \quad \Phi^{-1}(p) \text{ at 8 even steps of } p \text{ from the offset to } 1/2,
              \quad -\Phi^{-1}(p) \text{ at 7},

    without the end 1/2, divided by the largest. Of sixteen levels one is zero; of the other fifteen, eight
    are positive and seven negative.

    Args:
        offset: in (1/2, 1), the probability whose quantile becomes the outermost level. At 1 it would be
            infinite; NF4 stays inside by the mean of 1/32 and 1/30, half a step of 16 and of 15 levels.

    Returns:
        float32, (16,), ascending.

    Raises:
        ValueError: ``offset`` is outside (1/2, 1).

    Source: T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA: Efficient Finetuning of Quantized
    LLMs", NeurIPS 2023, section 3 (4-bit NormalFloat) and the appendix that lists its values.

    Example:
        >>> normal_levels()[[0, 1, 7, 8, 14, 15]]
        tensor([-1.0000, -0.6962,  0.0000,  0.0796,  0.7230,  1.0000])
    """
    if not 0.5 < offset < 1:
        raise ValueError(f"offset must be between 0.5 and 1, got {offset:g}")

    def quantiles(n: int) -> Tensor:
        return torch.special.ndtri(torch.linspace(offset, 0.5, n + 1, dtype=torch.float64)[:-1])

    upper, lower = quantiles(8), quantiles(7)
    levels = torch.cat([-lower, upper.new_zeros(1), upper.flip(0)])
    return (levels / levels.max()).float()


_levels = cache(normal_levels)


class NF4Code(WeightCode):
    r"""An index into the levels of NF4 per weight, and the largest magnitude of each block.

    .. math:: \hat w = s\, q_{a}, \qquad s = \max|w_{block}|, \qquad a = \arg\min_k |w / s - q_k|

    Double quantization stores :math:`s` as :math:`\mu + g\, d` with one mean :math:`\mu` (scales are all
    positive: it takes away what they have in common), one float32 :math:`g` per 256 scales, and 8-bit
    integers :math:`d`. The weights are then rounded by the scales as they are stored.

    Args:
        packed: uint8, ``pack_bits`` of the indices, 4 bits each.
        scale: (blocks,): :math:`s`, floating-point; or :math:`d`, int8.
        shape: shape of the weight.
        group_scale: :math:`g`, floating-point, (ceil(blocks / 256),); only with :math:`d`.
        mean: :math:`\mu`, floating-point, a single number of shape (); only with :math:`d`.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size, or is missing.

    Source: Dettmers et al., NeurIPS 2023, section 3 (Double Quantization).
    Differs: the 8-bit scales of the paper's implementation are floats of a format of its own; here they are
    integers. Blocks do not run on from one output channel into the next.

    Example:
        >>> NF4Code.from_dense(torch.tensor([[2.0, -0.08, 1.5, -2.0]]), group_size=4).decode()
        tensor([[ 2.0000,  0.0000,  1.4459, -2.0000]])
    """

    roles = {"packed": "indices", "scale": "scales", "group_scale": "scales", "mean": "scales"}

    def __init__(
        self,
        packed: Tensor,
        scale: Tensor,
        shape: tuple[int, ...],
        group_scale: Tensor | None = None,
        mean: Tensor | None = None,
    ):
        super().__init__(shape)
        check_packed(packed, 4, self.numel)
        check_scale(scale, self.numel)
        _check_double(scale, group_scale, mean)
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)
        self.register_buffer("group_scale", group_scale)
        self.register_buffer("mean", mean)

    @classmethod
    def from_dense(cls, weight: Tensor, group_size: int = 64, *, double: bool = False) -> "NF4Code":
        """Round to the nearest level of each block's scale.

        Args:
            weight: any shape of at least one dimension.
            group_size: weights of one block, consecutive among those of an output channel.
            double: quantize the scales as well.

        Raises:
            ValueError: ``group_size`` does not divide the weights of one output channel.
        """
        weight = check_weight(weight)
        rows = to_rows(weight, 0, group_size)  # (blocks, group_size)
        scale = absmax(rows)
        stored = quantize_scales(scale) if double else (scale,)
        step = dequantize_scales(*stored) if double else scale
        levels = _levels().to(weight.device)
        middles = (levels[1:] + levels[:-1]) / 2
        scaled = rows / torch.where(step != 0, step, 1.0).unsqueeze(1)
        indices = torch.bucketize(scaled.contiguous(), middles)
        return cls(pack_bits(indices, 4), stored[0], weight.shape, *stored[1:])

    def decode(self) -> Tensor:
        indices = unpack_bits(self.packed, 4, self.numel)
        values = _levels().to(indices.device).index_select(0, indices.long())
        scale = self.scale.float()
        if self.mean is not None:
            scale = dequantize_scales(self.scale, self.group_scale.float(), self.mean.float())
        return (values.view(len(scale), -1 if self.numel else 0) * scale.unsqueeze(1)).view(self.shape)


def quantize_scales(scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Double quantization of (blocks,) scales: ``d`` (blocks,) int8, ``g`` (groups,), ``mean`` ()."""
    mean = scale.mean()
    rest = scale - mean
    groups = torch.nn.functional.pad(rest, (0, -len(rest) % SCALES_PER_GROUP)).view(-1, SCALES_PER_GROUP)
    group_scale = positive(absmax(groups) / 127)
    codes = torch.round(groups / group_scale.unsqueeze(1)).clamp(-127, 127).flatten()[: len(rest)]
    return codes.to(torch.int8), group_scale, mean


def dequantize_scales(codes: Tensor, group_scale: Tensor, mean: Tensor) -> Tensor:
    """Undo :func:`quantize_scales`, float32 (blocks,)."""
    group = torch.arange(len(codes), device=codes.device) // SCALES_PER_GROUP
    return mean + codes.float() * group_scale.index_select(0, group)


def _check_double(scale: Tensor, group_scale: Tensor | None, mean: Tensor | None) -> None:
    """Raise unless the scales are floats alone, or int8 with all that double quantization needs."""
    if group_scale is None and mean is None:
        if not scale.is_floating_point():
            raise TypeError(f"scale must be floating-point without group_scale and mean, got {scale.dtype}")
        return
    if scale.dtype != torch.int8:
        raise TypeError(f"scale must be int8 with group_scale and mean, got {scale.dtype}")
    groups = -(-len(scale) // SCALES_PER_GROUP)
    if group_scale is None or tuple(group_scale.shape) != (groups,):
        got = None if group_scale is None else tuple(group_scale.shape)
        raise ValueError(f"group_scale must have shape ({groups},) for {len(scale)} scales, got {got}")
    if mean is None or mean.shape != ():
        raise ValueError(f"mean must be a single number, got {None if mean is None else tuple(mean.shape)}")
