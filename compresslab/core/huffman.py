"""Canonical Huffman coding: frequent symbols get short codes, and their lengths are all a decoder needs.

The stream, little endian: the number of symbols (uint32), the size of the alphabet (uint16), a code length of
4 bits for each symbol of the alphabet, the *index* (uint16: how many bits each block of 1024 symbols takes),
and the codes, first bit highest. A code's end is only known once it has been read, so a plain stream must be
decoded symbol by symbol. The index says where each block begins: all blocks are decoded in lockstep, one
numpy operation for a symbol of every block, for 1/64 bit a symbol.
"""

import numpy as np
import torch
from torch import Tensor

from compresslab.core.bits import pack_bits, packed_size, unpack_bits
from compresslab.core.errors import check_int

MAX_LENGTH = 15  # bits of the longest code; a length fits into 4 bits
BLOCK = 1024  # symbols; a block takes at most 15 * 1024 bits, which fits into a uint16
_AT_ONCE = 32 * BLOCK  # symbols that the encoder widens to 64 bits together: they stay in the cache
_ALPHABET = 2**MAX_LENGTH
_HEADER = np.dtype([("count", "<u4"), ("alphabet", "<u2")])


def code_lengths(counts: np.ndarray, limit: int = MAX_LENGTH) -> np.ndarray:
    r"""The lengths of an optimal prefix code whose longest code has at most ``limit`` bits, by package-merge.

    .. math:: \min_l \sum_s n_s l_s \quad \text{with} \quad \sum_s 2^{-l_s} \le 1, \; l_s \le \mathrm{limit}

    A code of length l is bought as l coins, worth 1/2, 1/4, ..., :math:`2^{-l}`, each at the price
    :math:`n_s`. From the smallest coins up, the cheapest are paired into packages that compete with the coins
    of the next size; the cheapest 2 m - 2 of the largest pay for a complete code of m symbols. Where the
    limit does not bind this is Huffman's code.

    Args:
        counts: :math:`n_s`, how often each symbol occurs, whole numbers, (alphabet,).
        limit: longest length allowed, at least log2 of the number of symbols that occur.

    Returns:
        :math:`l_s`, int64, (alphabet,): 0 for symbols that do not occur, 1 for a symbol on its own.

    Raises:
        ValueError: more symbols occur than ``limit`` bits can tell apart.

    Source:
        L. Larmore, D. Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", J. ACM 37(3),
        1990.

    Example:
        >>> code_lengths(np.array([5, 0, 2, 1]))
        array([1, 0, 2, 2])
    """
    present = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), dtype=np.int64)
    if len(present) > 2**limit:
        raise ValueError(f"{len(present)} symbols need codes of more than {limit} bits")
    if len(present) < 2:
        lengths[present] = 1
        return lengths
    coins = sorted(((int(counts[symbol]), [int(symbol)]) for symbol in present), key=lambda coin: coin[0])
    row = coins
    for _ in range(limit - 1):
        packages = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(row[0::2], row[1::2])]
        row = sorted(coins + packages, key=lambda coin: coin[0])[: 2 * len(coins) - 2]
    bought = [symbol for _, symbols in row[: 2 * len(coins) - 2] for symbol in symbols]
    return np.bincount(bought, minlength=len(counts))


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """Number the codes: by (length, symbol), each is the one before plus 1, widened by zeros at its end.

    Returns:
        int64, (alphabet,): the codes as numbers; symbol s writes the low ``lengths[s]`` bits, highest first.

    Example:
        >>> canonical_codes(np.array([1, 0, 2, 2]))  # 0, -, 10, 11
        array([0, 0, 2, 3])
    """
    order = _canonical_order(lengths)
    width = 2 ** (MAX_LENGTH - lengths[order])  # how much of the range [0, 2**15) a code takes
    codes = np.zeros(len(lengths), dtype=np.int64)
    codes[order] = (np.cumsum(width) - width) // width
    return codes


def huffman_encode(symbols: Tensor) -> Tensor:
    """Encode whole numbers by a Huffman code made for them.

    Args:
        symbols: integer dtype, in [0, 32768), any shape (flattened); none or one distinct symbol are ordinary
            cases.

    Returns:
        uint8, 1-d: the stream described above, with all that ``huffman_decode`` needs.

    Raises:
        TypeError: ``symbols`` is not an integer tensor.
        ValueError: a symbol is out of range, or there are 2**32 of them or more.

    Source:
        D. Huffman, "A Method for the Construction of Minimum-Redundancy Codes", Proc. IRE 40(9), 1952.

    Example:
        >>> stream = huffman_encode(torch.tensor([7, 7, 7, 5, 7, 7, 5, 7]))
        >>> len(stream)  # 6 header, 4 lengths, 2 index, 1 codes
        13
        >>> huffman_decode(stream)
        tensor([7, 7, 7, 5, 7, 7, 5, 7], dtype=torch.int32)
    """
    values, counts = _counted(symbols)
    lengths = code_lengths(counts)
    index, payload = _encode_blocks(values, lengths, int(counts @ lengths))
    parts = [
        np.array([(len(values), len(counts))], dtype=_HEADER).view(np.uint8),
        pack_bits(torch.from_numpy(lengths), 4).numpy(),
        index.astype("<u2").view(np.uint8),
        payload,
    ]
    return torch.from_numpy(np.concatenate(parts))


def huffman_decode(stream: Tensor) -> Tensor:
    """Undo ``huffman_encode``.

    Returns:
        int32, (n,).

    Raises:
        ValueError: the stream is truncated or corrupt.
    """
    if stream.dtype != torch.uint8 or stream.ndim != 1:
        raise ValueError(
            f"a Huffman stream is a 1-d uint8 tensor, got {stream.dtype} of shape {tuple(stream.shape)}"
        )
    data = stream.cpu().numpy()
    if len(data) < _HEADER.itemsize:
        raise _corrupt("it is shorter than its header")
    header = data[: _HEADER.itemsize].copy().view(_HEADER)[0]
    count, alphabet = int(header["count"]), int(header["alphabet"])
    blocks = -(-count // BLOCK)
    table_end = _HEADER.itemsize + packed_size(alphabet, 4)
    payload_start = table_end + 2 * blocks
    if len(data) < payload_start:
        raise _corrupt("it ends within its tables")
    lengths = unpack_bits(stream[_HEADER.itemsize : table_end].cpu(), 4, alphabet).numpy().astype(np.int64)
    index = data[table_end:payload_start].copy().view("<u2").astype(np.int64)
    payload = data[payload_start:]
    if count > index.sum():
        raise _corrupt(f"its index gives {index.sum()} bits to {count} symbols")
    if len(payload) != packed_size(int(index.sum()), 1):
        raise _corrupt(
            f"its index asks for {packed_size(int(index.sum()), 1)} bytes of codes, it has {len(payload)}"
        )
    if count == 0:
        return torch.zeros(0, dtype=torch.int32)
    symbols = _decode_blocks(payload, index, _lookup_table(lengths), count)
    return torch.from_numpy(symbols)


def _decode_blocks(payload: np.ndarray, index: np.ndarray, table: np.ndarray, count: int) -> np.ndarray:
    """Decode all blocks in lockstep; (count,). ``table[next bits]`` is ``symbol * 16 + length``."""
    longest = len(table).bit_length() - 1
    slack = BLOCK * MAX_LENGTH // 8 + 3  # how far a corrupt block can run past the end
    bytes_ = np.concatenate([payload, np.zeros(slack, dtype=np.uint8)]).astype(np.int32)
    windows = (bytes_[:-2] << 16) | (bytes_[1:-1] << 8) | bytes_[2:]  # 24 bits from each byte on
    block_ends = np.cumsum(index)
    position = block_ends - index  # (blocks,): the next bit of each block
    last = count - (len(index) - 1) * BLOCK  # symbols in the last block, the only one that may be short
    entries = np.zeros((min(count, BLOCK), len(index)), dtype=np.int32)
    active = position
    for step in range(len(entries)):
        if step == last:
            active = position[:-1]
        bits = windows[active >> 3] >> (24 - longest - (active & 7))
        entry = table[bits & (2**longest - 1)]
        entries[step, : len(active)] = entry
        active += entry & 15
    if not np.array_equal(position, block_ends):
        raise _corrupt("a block of codes does not end where its index says")
    entries >>= 4
    return entries.T.reshape(-1)[:count]


def _lookup_table(lengths: np.ndarray) -> np.ndarray:
    """``symbol * 16 + length`` for every value of the next bits, (2**longest,), in canonical order."""
    order = _canonical_order(lengths)
    longest = int(lengths.max(initial=0))
    sizes = 2 ** (longest - lengths[order])  # how many values begin with the code
    complete = len(order) > 1 and sizes.sum() == 2**longest
    if not complete and not (len(order) == 1 and longest == 1):
        raise _corrupt("its code lengths make no prefix code")
    table = np.repeat(order * 16 + lengths[order], sizes).astype(np.int32)
    rest = 2**longest - len(table)  # a lone symbol has the code 0; behind a 1 stands an entry of no length
    return np.pad(table, (0, rest))


def _canonical_order(lengths: np.ndarray) -> np.ndarray:
    """The symbols that have a code, by length, then by number."""
    order = np.argsort(lengths, kind="stable")
    return order[lengths[order] > 0]


def _encode_blocks(values: np.ndarray, lengths: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """The index, (blocks,), and the codes one behind the other, uint8; some blocks at a time.

    ``total`` bits are written in units of 16. A part's first code may begin in the unit in which the part before
    ends: they share no bit, so adding joins them.
    """
    codes = canonical_codes(lengths)
    units = np.zeros(total // 16 + 2, dtype=np.uint16)
    index, bit = [], 0
    for start in range(0, len(values), _AT_ONCE):
        part = values[start : start + _AT_ONCE]
        widths = lengths[part]
        ends = np.cumsum(widths)  # the bit behind each code, from the part's first on
        block_ends = ends[np.minimum(np.arange(BLOCK, len(part) + BLOCK, BLOCK), len(part)) - 1]
        index.append(np.diff(block_ends, prepend=0))
        written = _write_bits(codes[part], widths, ends + bit % 16)
        units[bit // 16 : bit // 16 + len(written)] += written
        bit += int(ends[-1])
    payload = units.astype(">u2").view(np.uint8)[: packed_size(total, 1)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *index]), payload


def _write_bits(codes: np.ndarray, lengths: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Write the codes one behind the other, highest bit first, in units of 16 bits; uint16.

    A code of at most 15 bits touches at most two units: it is shifted to its place in the 32 bits from the unit
    of its first bit on. Codes share no bit, so adding up what begins in a unit (exact in float64) joins them.
    """
    starts = ends - lengths
    placed = codes << (32 - (starts & 15) - lengths)
    sums = np.bincount(starts >> 4, weights=placed, minlength=int(ends[-1]) // 16 + 1).astype(np.int64)
    units = sums >> 16
    units[1:] += sums[:-1] & 0xFFFF
    return units.astype(np.uint16)


def _counted(symbols: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The symbols as a flat array, and how often each occurs, after type and range have been checked."""
    if symbols.is_floating_point() or symbols.is_complex():
        raise TypeError(f"symbols must be whole numbers of an integer dtype, got {symbols.dtype}")
    values = symbols.flatten().cpu().numpy()
    check_int("the number of symbols", len(values), 0, 2**32 - 1)
    values = values.astype(np.uint8) if values.dtype == bool else values  # an index, not a choice
    if len(values) and not 0 <= values.min() <= values.max() < _ALPHABET:
        raise ValueError(f"symbols must be in [0, {_ALPHABET}), got {values.min()} to {values.max()}")
    size = int(values.max()) + 1 if len(values) else 0
    counts = np.zeros(size, dtype=np.int64)
    for start in range(0, len(values), _AT_ONCE):
        counts += np.bincount(values[start : start + _AT_ONCE].astype(np.int64), minlength=size)
    return values, counts


def _corrupt(reason: str) -> ValueError:
    return ValueError(f"the Huffman stream is corrupt: {reason}")
