"""Packing small integers: ``bits`` bits each, least significant bit first, no gaps between them.

Code number i occupies the bits ``i * bits`` to ``(i + 1) * bits - 1`` of the stream, and bit j of the stream
is bit ``j % 8`` (worth ``2 ** (j % 8)``) of byte ``j // 8``. Two facts make it fast without a loop over bits:
codes of 1, 2, 4 and 8 bits never straddle a byte, and eight codes of any width fill exactly ``bits`` bytes. So
eight codes, a byte each, are one 64-bit word (its first byte lowest, as on every machine that torch has wheels for),
and three steps of shift and mask close or open all the gaps in it: between codes, then pairs, then fours. Two codes
of 4 bits, or four of 2, need a shorter word and fewer steps.
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
    if bits == 8 or size == 0:
        return codes.clone()
    words = F.pad(codes, (0, -len(codes) % 8)).view(_word(bits))  # a new tensor, whether anything is added or not
    for lane, used, low in _steps(bits):  # two neighbours of lane bits each move together, into the lower lane
        upper = (words >> (lane - used)).bitwise_and_(low << used)
        words.bitwise_and_(low).bitwise_or_(upper)
    if 8 % bits == 0:
        return words.to(torch.uint8)[:size].clone()  # the lowest byte; no view: its storage is what counts
    return words.view(torch.uint8).view(-1, 8)[:, :bits].flatten()[:size].clone()


def unpack_bits(packed: Tensor, bits: int, n: int) -> Tensor:
    """Undo ``pack_bits``.

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
    if bits == 8 or n == 0:
        return packed.int()
    if torch.compiler.is_exporting():
        return _unpack_in_graph(packed, bits, n)
    if 8 % bits == 0:
        words = packed.to(_word(bits))
    else:
        groups = F.pad(packed, (0, -len(packed) % bits)).view(-1, bits)  # (n / 8, bits): eight codes a row
        words = F.pad(groups, (0, 8 - bits)).flatten().view(_word(bits))
    for lane, used, low in reversed(_steps(bits)):
        upper = (words << (lane - used)).bitwise_and_(low << lane)
        words.bitwise_and_(low).bitwise_or_(upper)
    return words.view(torch.uint8)[:n].int()


def _unpack_in_graph(packed: Tensor, bits: int, n: int) -> Tensor:
    """`unpack_bits` for an exported graph: ONNX has these operations for every type, and no view of other bytes."""
    if 8 % bits == 0:
        byte = torch.arange(256, dtype=torch.int32, device=packed.device).unsqueeze(1)
        table = _digits(byte, bits * torch.arange(8 // bits, device=packed.device), bits)  # (256, 8 / bits)
        return table.index_select(0, packed.int()).flatten()[:n]
    groups = F.pad(packed, (0, -len(packed) % bits)).view(-1, bits)  # (n / 8, bits): eight codes a row
    groups = F.pad(groups, (0, 1)).int()
    start = bits * torch.arange(8, device=packed.device)  # the first bit of each of the eight codes
    low, high = groups[:, start // 8], groups[:, start // 8 + 1]  # (n / 8, 8): the two bytes a code may touch
    return _digits(low + 256 * high, start % 8, bits).flatten()[:n]


def _word(bits: int) -> torch.dtype:
    """The word of as many bytes as codes fill whole bytes together: 2 of 4 bits, 4 of 2 bits, else 8."""
    return {4: torch.int16, 2: torch.int32}.get(bits, torch.int64)


def _steps(bits: int) -> list[tuple[int, int, int]]:
    """For lanes of 8 bits, 16 and 32, where a word has two or more of them: the width of a lane, how many of its
    bits codes take, and the mask of these bits in every second lane.
    """
    size = 8 * _word(bits).itemsize
    lanes = [(lane, bits * lane // 8) for lane in (8, 16, 32) if lane < size]
    return [(lane, used, sum((2**used - 1) << start for start in range(0, size, 2 * lane))) for lane, used in lanes]


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
