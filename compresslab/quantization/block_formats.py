r"""Microscaling: many small blocks of 4-bit floats, each with a scale of its own.

One scale per channel must serve the channel's largest weight; a block of 16 or 32 weights has a smaller
largest weight, so finer steps. The price is the scale, and it is kept low by storing the scale itself in 8
bits:

============ ======== ================================= ============ ====================
format       block    scale                             bits/weight  normal weights, dB
============ ======== ================================= ============ ====================
INT4         128      float32                           4.25         18.6
MXFP4        32       a power of two, 8 bits            4.25         18.8
INT4         32       float32                           5            20.3
NVFP4        16       E4M3, and a float32 per tensor    4.5          20.4
NF4          64       float32 (or 8 bits, ``double``)   4.5 (4.127)  20.7
============ ======== ================================= ============ ====================

Blocks are cut from the flattened inputs of each output channel, as ``UniformCode`` cuts its groups, and must
fit: a block size that does not divide the inputs is refused; choose another ``group_size``.
"""

import math

import torch
from torch import Tensor

from compresslab.core.bits import check_packed, pack_bits, unpack_bits
from compresslab.core.codes import WeightCode, check_weight
from compresslab.core.uniform import to_rows
from compresslab.quantization.float_formats import (
    E2M1,
    E4M3,
    absmax,
    check_codes,
    check_scale,
    decode_float,
    encode_float,
    positive,
)

_E8M0 = torch.tensor([2.0 ** (code - 127) for code in range(255)] + [math.nan])


def encode_e8m0(absmax: Tensor) -> Tensor:
    r"""The power of two that brings a block's largest element into the range of E2M1, as its exponent.

    .. math:: X = 2^{\lfloor \log_2 \max|w| \rfloor - 2}, \qquad \mathrm{code} = \log_2 X + 127

    2 is the exponent of E2M1's largest power of two, 4. What then lies between 6 and 8 saturates at 6.

    Args:
        absmax: float32, finite, not negative, any shape. 0 gets the scale 1.

    Returns:
        uint8 in [0, 254], the shape of ``absmax``.

    Raises:
        ValueError: a magnitude is negative, nan or infinite.

    Source: Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, 2023; B. D.
    Rouhani et al., "Microscaling Data Formats for Deep Learning", arXiv:2310.10537, 2023, algorithm 1.

    Example:
        >>> encode_e8m0(torch.tensor([1.0, 5.9, 0.0]))
        tensor([125, 127, 127], dtype=torch.uint8)
    """
    if not (torch.isfinite(absmax).all() and (absmax >= 0).all()):
        raise ValueError("absmax must be finite and not negative")
    exponent = torch.frexp(absmax).exponent - 1  # exactly the floor of the logarithm
    return torch.where(absmax > 0, exponent - 2 + 127, 127).clamp(0, 254).to(torch.uint8)


def decode_e8m0(codes: Tensor) -> Tensor:
    """The powers of two of exponent codes, float32: 2**(code - 127), and nan for 255.

    Example:
        >>> decode_e8m0(torch.tensor([126, 130]))
        tensor([0.5000, 8.0000])
    """
    return _E8M0.to(codes.device).index_select(0, codes.flatten().long()).view(codes.shape)


class MXFP4Code(WeightCode):
    r"""Blocks of 32 four-bit floats that share a power of two: 4.25 bits per weight.

    .. math:: \hat w = X \cdot \mathrm{E2M1}(w / X)

    A power of two costs no multiplication, but it can be off by a factor of up to two from the scale that
    would fit, so the largest element of a block lands anywhere between 4 and 8.

    Args:
        packed: uint8, ``pack_bits`` of the E2M1 codes, 4 bits each.
        scale: uint8, (blocks,), the E8M0 codes of :math:`X`.
        shape: shape of the weight.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size.

    Source: as :func:`encode_e8m0`.

    Example:
        >>> code = MXFP4Code.from_dense(torch.tensor([[1.0, -0.3, 0.0, 0.13]]), group_size=4)  # X = 1/4
        >>> code.scale, code.decode()
        (tensor([125], dtype=torch.uint8), tensor([[ 1.0000, -0.2500,  0.0000,  0.1250]]))
    """

    roles = {"packed": "values", "scale": "scales"}

    def __init__(self, packed: Tensor, scale: Tensor, shape: tuple[int, ...]):
        super().__init__(shape)
        check_packed(packed, 4, self.numel)
        check_scale(scale, self.numel)
        check_codes(scale, len(scale), "scale")
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)

    @classmethod
    def from_dense(cls, weight: Tensor, group_size: int = 32) -> "MXFP4Code":
        """Choose each block's power of two by its largest weight, and round.

        Raises:
            ValueError: ``group_size`` does not divide the weights of one output channel.
        """
        weight = check_weight(weight)
        rows = to_rows(weight, 0, group_size)  # (blocks, group_size)
        scale = encode_e8m0(absmax(rows))
        codes = encode_float(rows / decode_e8m0(scale).unsqueeze(1), E2M1)
        return cls(pack_bits(codes, 4), scale, weight.shape)

    def decode(self) -> Tensor:
        rows = _unpack(self.packed, self.numel, len(self.scale))
        return (rows * decode_e8m0(self.scale).unsqueeze(1)).view(self.shape)


class NVFP4Code(WeightCode):
    r"""Blocks of 16 four-bit floats whose scale is an 8-bit float: 4.5 bits per weight.

    .. math:: \hat w = t\, s \cdot \mathrm{E2M1}(w / (t s)), \qquad
              s = \mathrm{E4M3}(\max|w_{block}| / (6 t)), \qquad t = \max|w| / (6 \cdot 448)

    The scale has a mantissa, so it fits the block to within 6 %; but E4M3 spans few powers of two, and one
    float32 for the whole tensor moves them to where the scales are.

    Args:
        packed: uint8, ``pack_bits`` of the E2M1 codes, 4 bits each.
        scale: uint8, (blocks,), the E4M3 codes of :math:`s`.
        tensor_scale: :math:`t`, floating-point, a single number of shape ().
        shape: shape of the weight.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size.

    Source: NVIDIA, "Pretraining Large Language Models with NVFP4", arXiv:2509.25149, 2025.
    Differs: the paper also rounds stochastically, rotates, and leaves some layers in higher precision, which
    training needs.

    Example:
        >>> code = NVFP4Code.from_dense(torch.tensor([[3.0, -1.4, 0.75, 0.2]]), group_size=2)
        >>> code.decode()  # the second block's scale is 1/8: 0.75 / 6, a number of E4M3 times t = 3 / 2688
        tensor([[ 3.0000, -1.5000,  0.7500,  0.1875]])
    """

    roles = {"packed": "values", "scale": "scales", "tensor_scale": "scales"}

    def __init__(self, packed: Tensor, scale: Tensor, tensor_scale: Tensor, shape: tuple[int, ...]):
        super().__init__(shape)
        check_packed(packed, 4, self.numel)
        check_scale(scale, self.numel)
        check_codes(scale, len(scale), "scale")
        if tensor_scale.shape != ():
            raise ValueError(f"tensor_scale must be a single number, got shape {tuple(tensor_scale.shape)}")
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)
        self.register_buffer("tensor_scale", tensor_scale)

    @classmethod
    def from_dense(cls, weight: Tensor, group_size: int = 16) -> "NVFP4Code":
        """Fit each block's scale to its largest weight, round it to E4M3, and round the weights by it.

        A block too small for E4M3 gets its least positive number, so that no block is divided by zero.

        Raises:
            ValueError: ``group_size`` does not divide the weights of one output channel.
        """
        weight = check_weight(weight)
        rows = to_rows(weight, 0, group_size)  # (blocks, group_size)
        largest = absmax(rows)  # (blocks,)
        tensor_scale = positive(largest.max() / (E2M1.largest * E4M3.largest))
        scale = encode_float(largest / E2M1.largest / tensor_scale, E4M3).clamp(min=1)
        step = decode_float(scale, E4M3) * tensor_scale
        codes = encode_float(rows / positive(step).unsqueeze(1), E2M1)
        return cls(pack_bits(codes, 4), scale, tensor_scale, weight.shape)

    def decode(self) -> Tensor:
        rows = _unpack(self.packed, self.numel, len(self.scale))
        step = decode_float(self.scale, E4M3) * self.tensor_scale.float()
        return (rows * step.unsqueeze(1)).view(self.shape)


def _unpack(packed: Tensor, n: int, blocks: int) -> Tensor:
    """The E2M1 numbers, (blocks, weights of a block)."""
    return decode_float(unpack_bits(packed, 4, n), E2M1).view(blocks, -1 if n else 0)
