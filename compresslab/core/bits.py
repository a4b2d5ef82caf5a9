"""Packing small integers: ``bits`` bits each, least significant bit first, no gaps between them.

Code number i occupies the bits ``i * bits`` to ``(i + 1) * bits - 1`` of the stream, and bit j of the stream
is bit ``j % 8`` (worth ``2 ** (j % 8)``) of byte ``j // 8``. Two facts make it fast without a loop over bits:
codes of 1, 2, 4 and 8 bits never straddle a byte, and eight codes of any width fill exactly ``bits`` bytes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from compresslab.core.errors import check_int


def packed_size(n: int, bits: int) -> int:
    """The bytes that ``n`` codes of ``bits`` bits take: ``ceil(n * bits / 8)``."""
    return -(-n * bits // 8)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    r"""Pack whole numbers into as few bytes as they need.

    .. math:: \mathrm{stream} = \sum_i c_i\, 2^{\,i \cdot \mathrm{bits}}

    Args:
        codes: whole numbers in [0, 2**bits), any integer dtype or bool, any shape (read in row-major order).
        bits: width of one code, 1 to 8.

    Returns:
        uint8, (ceil(n * bits / 8),); the unused high bits of the last byte are 0.

    Raises:
        TypeError: ``codes`` is not an integer tensor, or ``bits`` not an int.
        ValueError: a code or ``bits`` is out of range.

    Example:
        >>> pack_bits(torch.tensor([1, 2, 3]), bits=4)  # 0x21, 0x03
        tensor([33,  3], dtype=torch.uint8)
    """
    codes = _checked_codes(codes, bits)
    size = packed_size(len(codes), bits)
    if bits == 8:
        return codes.clone()
    codes = F.pad(codes, (0, -len(codes) % 8))
    if 8 % bits == 0:
        packed = codes[0 :: 8 // bits].clone()
        for position in range(1, 8 // bits):  # the codes that share a byte: first, second, ...
            packed.add_(codes[position :: 8 // bits], alpha=2 ** (position * bits))
        return packed[:size].clone() if len(packed) > size else packed  # no view: its storage is what counts
    eights = codes.view(-1, 8).long() << bits * torch.arange(8, device=codes.device)  # (n / 8, 8)
    words = eights.sum(1, keepdim=True)  # (n / 8, 1): 8 * bits <= 56 bits, so they fit into an int64
    split = words >> 8 * torch.arange(bits, device=codes.device)  # (n / 8, bits)
    return (split & 255).to(torch.uint8).flatten()[:size].clone()


def unpack_bits(packed: Tensor, bits: int, n: int) -> Tensor:
    """Undo ``pack_bits``. Uses table look-up, division and remainder only, which ONNX has for every type.

    Args:
        packed: uint8, (ceil(n * bits / 8),).
        bits: width of one code, 1 to 8.
        n: how many codes to read; the padding behind them is dropped.

    Returns:
        int32, (n,), in [0, 2**bits). (Not uint8, where ``codes - 7`` would wrap around without a word.)

    Raises:
        TypeError: ``packed`` is not uint8, or ``bits`` or ``n`` not an int.
        ValueError: ``bits`` is out of range, or ``packed`` has not the size that ``n`` codes take.

    Example:
        >>> unpack_bits(torch.tensor([33, 3], dtype=torch.uint8), bits=4, n=3)
        tensor([1, 2, 3], dtype=torch.int32)
    """
    check_packed(packed, bits, n)
    if bits == 8:
        return packed.int()
    if 8 % bits == 0:
        byte = torch.arange(256, dtype=torch.int32, device=packed.device).unsqueeze(1)
        table = _digits(byte, bits * torch.arange(8 // bits, device=packed.device), bits)  # (256, 8 / bits)
        return table.index_select(0, packed.int()).flatten()[:n]
    groups = F.pad(packed, (0, -len(packed) % bits)).view(-1, bits)  # (n / 8, bits): eight codes a row
    groups = F.pad(groups, (0, 1)).int()
    start = bits * torch.arange(8, device=packed.device)  # the first bit of each of the eight codes
    low, high = groups[:, start // 8], groups[:, start // 8 + 1]  # (n / 8, 8): the two bytes a code may touch
    return _digits(low + 256 * high, start % 8, bits).flatten()[:n]


def check_packed(packed: Tensor, bits: int, n: int) -> None:
    """Raise TypeError or ValueError unless ``packed`` can hold exactly ``n`` codes of ``bits`` bits."""
    check_int("bits", bits, 1, 8)
    check_int("n", n, 0)
    if packed.dtype != torch.uint8:
        raise TypeError(f"packed must be uint8, got {packed.dtype}")
    if tuple(packed.shape) != (packed_size(n, bits),):
        raise ValueError(
            f"{n} codes of {bits} bits take shape ({packed_size(n, bits)},), got {tuple(packed.shape)}"
        )


def _digits(numbers: Tensor, shift: Tensor, bits: int) -> Tensor:
    """``bits`` bits of each number, from bit ``shift`` on: shift right by division, mask by remainder."""
    shifted = torch.div(numbers, (2**shift).int(), rounding_mode="floor")
    return torch.remainder(shifted, 2**bits)


def _checked_codes(codes: Tensor, bits: int) -> Tensor:
    """The codes as a flat uint8 tensor, after their type and range have been checked."""
    check_int("bits", bits, 1, 8)
    if codes.is_floating_point() or codes.is_complex():
        raise TypeError(f"codes must be whole numbers of an integer dtype, got {codes.dtype}")
    codes = codes.flatten()
    if len(codes) and codes.dtype != torch.bool:
        low, high = (int(extreme) for extreme in codes.aminmax())
        if low < 0 or high >= 2**bits:
            raise ValueError(
                f"codes of {bits} bits must be in [0, {2**bits - 1}], got {low if low < 0 else high}"
            )
    return codes.to(torch.uint8)
