r"""Small floats: 8 bits (E4M3, E5M2) and 4 bits (E2M1), built from their bit fields.

An integer grid has the same step everywhere. A float has a fixed number of steps between one power of two and
the next: the *relative* error is bounded, and a block of few bits can hold large and small numbers at once.
Which of the two is better is a question of the numbers: see the table in ``block_formats``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.core.codes import WeightCode, check_weight
from compresslab.core.errors import check_int
from compresslab.core.uniform import from_rows, kept_axis, to_rows


class FloatFormat(NamedTuple):
    r"""A float of one sign bit, ``e`` exponent bits and ``m`` mantissa bits, from the highest bit down.

    .. math:: (-1)^s \cdot 2^{E - \mathrm{bias}} (1 + M / 2^m), \qquad
              \text{or } (-1)^s \cdot 2^{1 - \mathrm{bias}}\, M / 2^m \text{ where } E = 0

    Args:
        exponent, mantissa: ``e`` and ``m``; together with the sign at most 8 bits.
        special: what the highest codes mean. ``"ieee"``: the highest exponent is infinity or nan, as in
            float32; ``"nan"``: only all ones is nan, and there is no infinity; ``"none"``: all are numbers.
    """

    exponent: int
    mantissa: int
    special: str

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent field."""
        return 2 ** (self.exponent - 1) - 1

    @property
    def top(self) -> int:
        """The code of the largest finite number."""
        specials = {"none": 0, "nan": 1, "ieee": 2**self.mantissa}[self.special]
        return 2 ** (self.bits - 1) - 1 - specials

    @property
    def largest(self) -> float:
        """The largest finite number: 448 for E4M3, 57344 for E5M2, 6 for E2M1."""
        return _value(self, self.top)


E4M3 = FloatFormat(4, 3, "nan")
E5M2 = FloatFormat(5, 2, "ieee")
E2M1 = FloatFormat(2, 1, "none")
FORMATS = {"e4m3": E4M3, "e5m2": E5M2, "e2m1": E2M1}


def _value(form: FloatFormat, code: int) -> float:
    """The number of a code without its sign bit, as the formula of :class:`FloatFormat` has it."""
    exponent, mantissa = divmod(code, 2**form.mantissa)
    if exponent == 0:
        return 2.0 ** (1 - form.bias - form.mantissa) * mantissa
    return 2.0 ** (exponent - form.bias - form.mantissa) * (2**form.mantissa + mantissa)


def decode_table(form: FloatFormat) -> Tensor:
    """The number that each code stands for.

    Returns:
        float32, (2**bits,); every value is exact. The second half is the first with a minus sign.

    Source: P. Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433, 2022, section 3 (E4M3,
    E5M2); Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, 2023 (E2M1).

    Example:
        >>> decode_table(E2M1)[:8]
        tensor([0.0000, 0.5000, 1.0000, 1.5000, 2.0000, 3.0000, 4.0000, 6.0000])
    """
    half = torch.tensor([_value(form, code) for code in range(2 ** (form.bits - 1))])
    half[form.top + 1 :] = torch.nan
    if form.special == "ieee":
        half[form.top + 1] = torch.inf
    return torch.cat([half, -half])


def encode_float(x: Tensor, form: FloatFormat) -> Tensor:
    r"""Round to the nearest number of the format, ties to the even mantissa; what is too large saturates.

    Codes without their sign rise with the numbers they stand for. So the code is how many of the midpoints
    between neighbours lie below :math:`|x|`, and on a midpoint the even one of the two codes.

    Args:
        x: float32 (a wider type is rounded to it first), any shape; inf saturates.

    Returns:
        uint8 codes in [0, 2**bits), the shape of ``x``.

    Raises:
        ValueError: there is a nan in ``x``.

    Differs: a cast in torch turns what E5M2 cannot hold into infinity; quantization wants the largest number.

    Example:
        >>> encode_float(torch.tensor([0.25, 0.75, -5.0, 100.0]), E2M1)  # 0, 1, -4 (sign bit 8), 6
        tensor([ 0,  2, 14,  7], dtype=torch.uint8)
    """
    if torch.isnan(x).any():
        raise ValueError("nan cannot be quantized, got it in x")
    x = x.detach().float()
    numbers = decode_table(form)[: form.top + 1].to(x.device)
    middles = (numbers[1:] + numbers[:-1]) / 2  # exact in float32
    code = torch.bucketize(x.abs().contiguous(), middles)  # on a midpoint: the lower one
    upper = middles[code.clamp(max=form.top - 1)] == x.abs()
    code = code + (upper & (code % 2 == 1))
    return (code + 2 ** (form.bits - 1) * torch.signbit(x)).to(torch.uint8)


def decode_float(codes: Tensor, form: FloatFormat) -> Tensor:
    """The numbers of codes, float32, by table; any shape.

    Example:
        >>> decode_float(torch.tensor([0x7E, 0x38, 0xC4]), E4M3)
        tensor([448.,   1.,  -3.])
    """
    table = decode_table(form).to(codes.device)
    return table.index_select(0, codes.flatten().long()).view(codes.shape)


def round_float(x: Tensor, form: FloatFormat) -> Tensor:
    """``decode_float(encode_float(x, form), form)``: ``x`` as the format holds it.

    Example:
        >>> round_float(torch.tensor([1.05, 17.0, 1000.0]), E4M3)
        tensor([  1.,  16., 448.])
    """
    return decode_float(encode_float(x, form), form)


class Float8Code(WeightCode):
    r"""One 8-bit float per weight, times a scale for the tensor or for each channel.

    .. math:: \hat w = s \cdot \mathrm{float8}(w / s), \qquad s = \max|w| / \mathrm{largest}

    Args:
        packed: uint8, (weights,), the codes row by row, with ``axis`` moved to the front.
        scale: :math:`s`, floating-point, (rows,); at least one.
        shape: shape of the weight.
        format: ``"e4m3"`` or ``"e5m2"``.
        axis: the axis that was moved to the front.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size, or the format is unknown.

    Source: P. Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433, 2022.

    Example:
        >>> code = Float8Code.from_dense(torch.tensor([448.0, 17.0, -1.05]))
        >>> code.scale, code.decode()
        (tensor([1.]), tensor([448.,  16.,  -1.]))
    """

    meta = ("shape", "format", "axis")
    roles = {"packed": "values", "scale": "scales"}

    def __init__(
        self, packed: Tensor, scale: Tensor, shape: tuple[int, ...], format: str = "e4m3", axis: int = 0
    ):
        super().__init__(shape)
        self.format = _check_format8(format)
        self.axis = check_int("axis", axis, 0, len(self.shape) - 1)
        check_codes(packed, self.numel)
        check_scale(scale, self.numel)
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)

    @classmethod
    def from_dense(
        cls,
        weight: Tensor,
        format: str = "e4m3",
        *,
        axis: int | None = None,
        group_size: int | None = None,
    ) -> "Float8Code":
        """Scale the largest weight of each row to the largest number of the format, and round.

        Args:
            weight: any shape of at least one dimension.
            format: ``"e4m3"`` (finer) or ``"e5m2"`` (wider).
            axis, group_size: which weights share a scale, as in ``UniformCode.from_dense``.

        Raises:
            ValueError: an unknown format, ``axis`` out of range, or a ``group_size`` that does not divide.
        """
        form = FORMATS[_check_format8(format)]
        weight = check_weight(weight)
        rows = to_rows(weight, axis, group_size)
        scale = positive(absmax(rows) / form.largest)
        codes = encode_float(rows / scale.unsqueeze(1), form)
        return cls(codes.flatten(), scale, weight.shape, format, kept_axis(weight.shape, axis))

    def decode(self) -> Tensor:
        rows = decode_float(self.packed, FORMATS[self.format]).view(len(self.scale), -1 if self.numel else 0)
        return from_rows(rows * self.scale.float().unsqueeze(1), self.shape, self.axis)


def _check_format8(name: str) -> str:
    """The name, if it is one of the two formats of 8 bits."""
    if name not in ("e4m3", "e5m2"):
        raise ValueError(f'format must be "e4m3" or "e5m2", got {name!r}')
    return name


def check_codes(codes: Tensor, n: int, name: str = "packed") -> None:
    """Raise unless these are ``n`` codes of 8 bits."""
    if codes.dtype != torch.uint8:
        raise TypeError(f"{name} must be uint8, got {codes.dtype}")
    if tuple(codes.shape) != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {tuple(codes.shape)}")


def check_scale(scale: Tensor, n: int) -> None:
    """Raise unless ``n`` weights can share these scales equally."""
    if scale.ndim != 1 or len(scale) == 0 or n % len(scale):
        raise ValueError(f"{n} weights cannot share scales of shape {tuple(scale.shape)} equally")


def absmax(rows: Tensor) -> Tensor:
    """The largest magnitude of each row, (R, m) -> (R,); 0 for an empty row."""
    return rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(len(rows))


def positive(scale: Tensor) -> Tensor:
    """The scale, with 1 where it is 0: what it divides is 0 then, or too small for float32."""
    return torch.where(scale > 0, scale, 1.0)
