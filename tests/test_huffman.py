"""Canonical Huffman coding."""

import heapq
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compresslab.core import canonical_codes, code_lengths, huffman_decode, huffman_encode
from compresslab.core import huffman
from compresslab.core.huffman import BLOCK

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure


def textbook_cost(counts: list[int]) -> int:
    """Bits of an optimal prefix code: the sum of all merged weights of Huffman's tree."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    return cost


@settings(CALM, max_examples=150)
@given(st.lists(st.integers(0, 40), max_size=200))
def test_decoding_gives_the_symbols_back(symbols):
    stream = huffman_encode(torch.tensor(symbols, dtype=torch.int64))
    assert huffman_decode(stream).tolist() == symbols


@settings(CALM, max_examples=150)
@given(
    st.lists(st.integers(0, 1000), min_size=2, max_size=60).filter(
        lambda counts: sum(c > 0 for c in counts) > 1
    )
)
def test_lengths_are_optimal_and_within_one_bit_of_the_entropy(counts):
    lengths = code_lengths(np.array(counts))
    cost = int((lengths * counts).sum())
    assert cost == textbook_cost(counts)
    assert sum(2.0**-length for length in lengths if length) == 1  # Kraft, with equality
    total = sum(counts)
    entropy = -sum(c / total * math.log2(c / total) for c in counts if c)
    assert entropy - 1e-9 <= cost / total < entropy + 1


def test_a_length_limit_is_kept_at_least_cost():
    counts = [1, 1, 2, 3, 5, 8, 13]  # Fibonacci: Huffman's code is six bits deep
    assert code_lengths(np.array(counts)).max() == 6
    limited = code_lengths(np.array(counts), limit=3)
    feasible = (
        sum(n * length for n, length in zip(counts, lengths))
        for lengths in itertools.product(range(1, 4), repeat=7)
        if sum(2.0**-length for length in lengths) <= 1
    )
    assert limited.max() == 3 and int((limited * counts).sum()) == min(feasible)


def test_too_many_symbols_for_the_limit_are_refused():
    with pytest.raises(ValueError, match="5 symbols need codes of more than 2 bits"):
        code_lengths(np.ones(5, dtype=int), limit=2)


def test_canonical_codes_of_the_standard_example():
    # RFC 1951, section 3.2.2: lengths (3, 3, 3, 3, 3, 2, 4, 4) for A..H.
    codes = canonical_codes(np.array([3, 3, 3, 3, 3, 2, 4, 4]))
    assert codes.tolist() == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]


@pytest.mark.parametrize("n", [0, 1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
@pytest.mark.parametrize("kind", ["one symbol", "two symbols", "skewed", "deep"])
def test_all_lengths_and_kinds_survive(n, kind):
    generator = torch.Generator().manual_seed(n)
    symbols = {
        "one symbol": torch.full((n,), 9),
        "two symbols": torch.randint(0, 2, (n,), generator=generator) * 300,
        "skewed": (torch.randn(n, generator=generator) * 3).round().long().clamp(-20, 20) + 20,
        "deep": torch.log2(torch.rand(n, generator=generator).clamp_min(1e-9)).neg().floor().long(),
    }[kind]
    stream = huffman_encode(symbols)
    assert stream.dtype == torch.uint8 and stream.untyped_storage().nbytes() == len(stream)
    assert torch.equal(huffman_decode(stream), symbols.int())


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 2048, 3 * 1024, 3 * 1024 + 5, 7000])
def test_the_stream_is_the_same_in_however_many_parts_it_is_written(n, parts, monkeypatch):
    generator = torch.Generator().manual_seed(n)
    symbols = torch.randn(n, generator=generator).mul(2 ** (2 * parts)).abs().long()
    whole = huffman_encode(symbols)
    monkeypatch.setattr(huffman, "_AT_ONCE", parts * BLOCK)
    assert torch.equal(huffman_encode(symbols), whole)
    assert torch.equal(huffman_decode(whole), symbols.int())
    lengths = code_lengths(np.bincount(symbols.numpy()))
    codes = canonical_codes(lengths)
    bits = "".join(format(codes[s], f"0{lengths[s]}b") for s in symbols.tolist())  # one code behind the other
    payload = bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
    assert whole.numpy().tobytes().endswith(payload)


def test_the_stream_is_as_long_as_the_formula_says():
    symbols = (torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 2).round().long().clamp(
        -7, 7
    ) + 7
    counts = torch.bincount(symbols).numpy()
    header, lengths, index = 6, -(-len(counts) // 2), 2 * -(-5000 // BLOCK)
    codes = -(-int((code_lengths(counts) * counts).sum()) // 8)
    assert len(huffman_encode(symbols)) == header + lengths + index + codes


def test_as_small_as_a_peer():
    dahuffman = pytest.importorskip("dahuffman")
    symbols = (torch.randn(20_000, generator=torch.Generator().manual_seed(2)) * 3).round().long().clamp(
        -8, 7
    ) + 8
    theirs = len(dahuffman.HuffmanCodec.from_data(symbols.tolist()).encode(symbols.tolist()))
    tables = 6 + 8 + 2 * -(-20_000 // BLOCK)
    codes = len(huffman_encode(symbols)) - tables
    assert (
        theirs * 0.995 < codes <= theirs
    )  # they add an end-of-file symbol, which makes the rarest codes longer


@settings(CALM, max_examples=200)
@given(st.data())
def test_a_damaged_stream_decodes_or_raises_value_error(data):
    stream = huffman_encode(torch.arange(1500).remainder(11).square())
    damaged = stream.clone()
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(stream)))]
    try:
        assert huffman_decode(damaged).dtype == torch.int32
    except ValueError as error:
        assert "corrupt" in str(error)


def test_every_truncation_is_noticed():
    stream = huffman_encode(torch.arange(300).remainder(7))
    for size in range(len(stream)):
        with pytest.raises(ValueError, match="the Huffman stream is corrupt"):
            huffman_decode(stream[:size])


def test_a_count_beyond_the_payload_is_refused_before_memory_is_taken():
    stream = huffman_encode(torch.arange(64).remainder(4))
    stream[:4] = 255
    with pytest.raises(ValueError, match="corrupt"):
        huffman_decode(stream)


def test_symbols_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"symbols must be in \[0, 32768\), got -1 to 2"):
        huffman_encode(torch.tensor([-1, 2]))
    with pytest.raises(ValueError, match="symbols must be in"):
        huffman_encode(torch.tensor([32768]))
    with pytest.raises(TypeError, match="integer dtype"):
        huffman_encode(torch.tensor([0.5]))


def test_something_else_than_a_stream_is_refused():
    with pytest.raises(ValueError, match="1-d uint8 tensor"):
        huffman_decode(torch.zeros(3, dtype=torch.int32))
