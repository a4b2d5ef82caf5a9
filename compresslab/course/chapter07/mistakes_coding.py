"""Typical wrong answers to exercises 7.1 to 7.3. They diagnose a learner's mistake, and they test the checks."""

from __future__ import annotations

import heapq
import math

import torch

# -- 7.1 coded_bits ----------------------------------------------------------------------------------


def _parts(weight):
    """(positions, zeros before each) of the nonzero entries, row by row."""
    positions = weight.flatten().nonzero().flatten()
    return positions, positions.diff(prepend=torch.tensor([-1])) - 1


def _bytes(count, width):
    """Whole bytes for `count` numbers of `width` bits, counted in bits."""
    return 8 * math.ceil(count * width / 8)


def _result(weight, index_bits, bits, entries=None, values=None, book=None):
    positions, zeros = _parts(weight)
    entries = len(positions) + int((zeros // (2**index_bits - 1)).sum()) if entries is None else entries
    values = len(positions) if values is None else values
    return _bytes(entries, index_bits), _bytes(values, bits), 32 * min(2**bits, len(positions)) if book is None else book


def no_padding(weight, index_bits, bits):
    return _result(weight, index_bits, bits, entries=len(_parts(weight)[0]))


def padding_has_values(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    entries = len(positions) + int((zeros // (2**index_bits - 1)).sum())
    return _result(weight, index_bits, bits, values=entries)


def papers_padding(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    entries = len(positions) + int((zeros // 2**index_bits).sum())
    return _result(weight, index_bits, bits, entries=entries, values=entries)


def skips_a_power_of_two(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    return _result(weight, index_bits, bits, entries=len(positions) + int((zeros // 2**index_bits).sum()))


def escape_is_a_gap(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    return _result(weight, index_bits, bits, entries=len(positions) + int(((zeros - 1).clamp(min=0) // (2**index_bits - 1)).sum()))


def one_padding_at_most(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    return _result(weight, index_bits, bits, entries=len(positions) + int((zeros >= 2**index_bits - 1).sum()))


def differences(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    return _result(weight, index_bits, bits, entries=len(positions) + int(((zeros + 1) // (2**index_bits - 1)).sum()))


def first_gap_forgotten(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    return _result(weight, index_bits, bits, entries=len(positions) + int((zeros[1:] // (2**index_bits - 1)).sum()))


def zeros_at_the_end(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    escape, last = 2**index_bits - 1, int(positions[-1]) if len(positions) else -1
    rest = (weight.numel() - 1 - last) // escape
    return _result(weight, index_bits, bits, entries=len(positions) + int((zeros // escape).sum()) + rest)


def gaps_by_row(weight, index_bits, bits):
    entries = 0
    for row in weight.reshape(-1, weight.shape[-1]):
        positions, zeros = _parts(row)
        entries += len(positions) + int((zeros // (2**index_bits - 1)).sum())
    return _result(weight, index_bits, bits, entries=entries)


def an_index_for_all(weight, index_bits, bits):
    return _result(weight, index_bits, bits, values=weight.numel())


def only_positive(weight, index_bits, bits):
    return _result(weight.clamp(min=0), index_bits, bits)


def book_forgotten(weight, index_bits, bits):
    return _result(weight, index_bits, bits, book=0)


def book_always_full(weight, index_bits, bits):
    return _result(weight, index_bits, bits, book=32 * 2**bits)


def book_with_a_zero(weight, index_bits, bits):
    return _result(weight, index_bits, bits, book=32 * min(2**bits, len(_parts(weight)[0]) + 1))


def book_of_16_bits(weight, index_bits, bits):
    return _result(weight, index_bits, bits, book=16 * min(2**bits, len(_parts(weight)[0])))


def book_of_what_differs(weight, index_bits, bits):
    return _result(weight, index_bits, bits, book=32 * min(2**bits, len(weight[weight != 0].unique())))


def parts_of_bytes(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    entries = len(positions) + int((zeros // (2**index_bits - 1)).sum())
    return entries * index_bits, len(positions) * bits, 32 * min(2**bits, len(positions))


def a_byte_each(weight, index_bits, bits):
    return tuple(8 * math.ceil(size / 8) if i == 2 else 8 * size // max(width, 1) for i, (size, width) in enumerate(
        zip(parts_of_bytes(weight, index_bits, bits), (index_bits, bits, 1))))


def in_bytes(weight, index_bits, bits):
    return tuple(size // 8 for size in _result(weight, index_bits, bits))


def widths_swapped(weight, index_bits, bits):
    positions, zeros = _parts(weight)
    entries = len(positions) + int((zeros // (2**index_bits - 1)).sum())
    return _bytes(entries, bits), _bytes(len(positions), index_bits), 32 * min(2**bits, len(positions))


# -- 7.2 entropy -------------------------------------------------------------------------------------


def _shares(symbols):
    counts = symbols.flatten().unique(return_counts=True)[1].double()
    return counts / counts.sum()


def in_nats(symbols):
    share = _shares(symbols)
    return float(-(share * share.log()).sum())


def in_tens(symbols):
    share = _shares(symbols)
    return float(-(share * share.log10()).sum())


def sign_forgotten(symbols):
    share = _shares(symbols)
    return float((share * share.log2()).sum())


def total_bits(symbols):
    share = _shares(symbols)
    return float(-(share * share.log2()).sum()) * symbols.numel()


def not_weighted(symbols):
    share = _shares(symbols)
    return float(-share.log2().mean()) if len(share) else 0.0


def equally_likely(symbols):
    return math.log2(max(len(symbols.unique()), 1))


def by_the_range(symbols):
    return math.log2(int(symbols.max() - symbols.min()) + 1) if symbols.numel() else 0.0


def whole_bits(symbols):
    share = _shares(symbols)
    return float((share * (-share.log2()).ceil()).sum())


def rounded_up(symbols):
    share = _shares(symbols)
    return float(math.ceil(float(-(share * share.log2()).sum()) - 1e-9))


def perplexity(symbols):
    share = _shares(symbols)
    return 2.0 ** float(-(share * share.log2()).sum())


def symbols_as_shares(symbols):
    values = symbols.flatten().unique().abs().double()
    share = values / values.sum()
    return float(-(share * share.log2()).nansum())


def counts_of_rows(symbols):
    share = symbols.flatten().unique(return_counts=True)[1].double() / len(symbols)
    return float(-(share * share.log2()).sum())


def zero_times_infinity(symbols):
    low = int(symbols.min()) if symbols.numel() else 0
    counts = torch.bincount((symbols.flatten().long() - low).clamp(max=10**5)).double()
    share = counts / counts.sum()
    return float(-(share * share.log2()).sum())


def nan_if_empty(symbols):
    _, inverse, counts = symbols.flatten().unique(return_inverse=True, return_counts=True)
    return float(-(counts.double() / symbols.numel()).log2()[inverse].mean())


# -- 7.3 huffman_lengths -----------------------------------------------------------------------------


def _huffman(counts, merge=lambda a, b: a + b, key=lambda count: count, alone=1, absent=False):
    lengths = [0] * len(counts)
    heap = [(key(count), symbol, [symbol], count) for symbol, count in enumerate(counts) if count > 0 or absent]
    if len(heap) == 1:
        lengths[heap[0][1]] = alone
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in first[2] + second[2]:
            lengths[symbol] += 1
        count = merge(first[3], second[3])
        heapq.heappush(heap, (key(count), first[1], first[2] + second[2], count))
    return lengths


def most_frequent_first(counts):
    return _huffman(counts, key=lambda count: -count)


def larger_of_the_two(counts):
    return _huffman(counts, merge=max)


def nothing_for_one(counts):
    return _huffman(counts, alone=0)


def absent_ones_too(counts):
    return _huffman(counts, absent=True)


def shannon_lengths(counts):
    n = sum(counts)
    return [max(1, math.ceil(math.log2(n / count) - 1e-12)) if count else 0 for count in counts]


def nearest_lengths(counts):
    n = sum(counts)
    return [max(1, round(math.log2(n / count))) if count else 0 for count in counts]


def real_lengths(counts):
    n, used = sum(counts), sum(count > 0 for count in counts)
    return [(math.log2(n / count) if used > 1 else 1.0) if count else 0 for count in counts]


def all_alike(counts):
    used = sum(count > 0 for count in counts)
    return [max(1, math.ceil(math.log2(used))) if count else 0 for count in counts]


def one_more_each(counts):
    """Sorted once; the merged group stays at the front, so every further symbol hangs below it: 1, 2, 3, ..."""
    lengths = [0] * len(counts)
    order = sorted((symbol for symbol, count in enumerate(counts) if count > 0), key=lambda symbol: counts[symbol])
    group = order[:1]
    for symbol in order[1:]:
        group = [*group, symbol]
        for member in group:
            lengths[member] += 1
    if len(order) == 1:
        lengths[order[0]] = 1
    return lengths


def merged_last(counts):
    """Sorted once; the merged group goes to the end of the row, whatever its count."""
    lengths = [0] * len(counts)
    row = [[symbol] for symbol in sorted((s for s, count in enumerate(counts) if count > 0), key=lambda s: counts[s])]
    if len(row) == 1:
        lengths[row[0][0]] = 1
    while len(row) > 1:
        for symbol in row[0] + row[1]:
            lengths[symbol] += 1
        row = [*row[2:], row[0] + row[1]]
    return lengths


def halves(counts):
    """Shannon and Fano: cut the sorted row where both sides weigh most nearly the same."""
    lengths = [0] * len(counts)

    def cut(symbols):
        if len(symbols) < 2:
            return
        total, place = sum(counts[s] for s in symbols), 1
        for i in range(1, len(symbols)):
            if abs(total - 2 * sum(counts[s] for s in symbols[:i])) < abs(total - 2 * sum(counts[s] for s in symbols[:place])):
                place = i
        for symbol in symbols:
            lengths[symbol] += 1
        cut(symbols[:place])
        cut(symbols[place:])

    present = sorted((s for s, count in enumerate(counts) if count > 0), key=lambda s: -counts[s])
    cut(present)
    if len(present) == 1:
        lengths[present[0]] = 1
    return lengths


def only_the_roots(counts):
    """Lengthens the first symbol of each merged group only."""
    lengths = [0] * len(counts)
    heap = [(count, symbol) for symbol, count in enumerate(counts) if count > 0]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        lengths[first[1]] += 1
        lengths[second[1]] += 1
        heapq.heappush(heap, (first[0] + second[0], first[1]))
    return lengths


def sorted_lengths(counts):
    lengths = _huffman(counts)
    return sorted(length for length in lengths if length) + [0] * lengths.count(0)


def without_the_absent(counts):
    return [length for length in _huffman(counts) if length]


def all_bits(counts):
    return [count * length for count, length in zip(counts, _huffman(counts))]


def ten_bits_at_most(counts):
    return [min(length, 10) for length in _huffman(counts)]
