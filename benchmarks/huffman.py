"""Huffman coding beside dahuffman (pure Python) and zlib (C): 1 million symbols, encoded and decoded.

    python -m benchmarks huffman

The symbols are 4-bit indices with the frequencies of rounded normal weights. Everybody makes the code from the
data, and decodes back to an array. zlib gets one byte per symbol: once with Huffman coding alone, which is the
same task, and once as everybody calls it, where it also searches for repeats.

Budget: 15 seconds.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

from benchmarks.report import PEER, Table, against, threads_note, time_within
from compresslab.core.huffman import huffman_decode, huffman_encode

BUDGET = 15  # seconds
ROUNDS_SECONDS = 3.0  # for the rounds of each direction
N = 1_000_000


def run(n: int = N) -> list[Table]:
    """Encode and decode ``n`` symbols; times, bytes, and the bytes over the entropy bound."""
    symbols = symbols_like_weights(n)
    coders = {
        "ours": ours(symbols),
        "dahuffman": dahuffman(symbols),
        "zlib, Huffman only": deflate(symbols, zlib.Z_HUFFMAN_ONLY),
        "zlib, level 6": deflate(symbols, zlib.Z_DEFAULT_STRATEGY),
    }
    sizes, decoders = {}, {}
    for name, (encode, decode) in coders.items():
        stream = encode()
        sizes[name] = len(stream)
        decoders[name] = lambda decode=decode, stream=stream: decode(stream)
        if not np.array_equal(np.asarray(decode(stream)), symbols.numpy()):
            raise RuntimeError(f"{name}: decoding did not give the symbols back")
    limit = entropy_bytes(symbols)
    times = {
        "encode": time_within({name: encode for name, (encode, _) in coders.items()}, ROUNDS_SECONDS, least=3),
        "decode": time_within(decoders, ROUNDS_SECONDS, least=3),
    }
    rows = []
    for direction, timings in times.items():
        for peer in list(coders)[1:]:
            cells = against(timings[peer], timings["ours"])
            bytes_over = [f"{sizes[name]:,} ({sizes[name] / limit:.3f})" for name in ("ours", peer)]
            rows.append([f"{direction}, {peer}", *cells, *bytes_over])
    note = (
        f"{n:,} symbols of 4 bits; the entropy bound is {limit:,.0f} bytes, the number in parentheses is bytes over it. "
        "Our bytes include the code and an index for decoding blocks at once. Huffman coding alone in zlib is a compiled "
        "loop over symbols; ours is numpy, a pass through memory for each operation: that is the rest between the two. "
        f"One thread each; {threads_note()}."
    )
    return [Table("Huffman coding", note, ["direction, peer", *PEER, "our bytes", "peer's bytes"], rows)]


def symbols_like_weights(n: int) -> torch.Tensor:
    """Normal weights in steps of a third of their deviation, as whole numbers 0 to 15, uint8."""
    normal = torch.randn(n, generator=torch.Generator().manual_seed(0))
    return ((normal * 3).round().clamp(-8, 7) + 8).to(torch.uint8)


def entropy_bytes(symbols: torch.Tensor) -> float:
    """What no code of single symbols goes below: n times the entropy of their frequencies."""
    share = symbols.bincount().double() / len(symbols)
    return float(-(share * share.clamp(min=1e-300).log2()).sum()) * len(symbols) / 8


def ours(symbols: torch.Tensor):
    return lambda: huffman_encode(symbols), huffman_decode


def dahuffman(symbols: torch.Tensor):
    from dahuffman import HuffmanCodec

    as_list, codec = symbols.tolist(), HuffmanCodec.from_data(symbols.tolist())
    return lambda: HuffmanCodec.from_data(as_list).encode(as_list), codec.decode


def deflate(symbols: torch.Tensor, strategy: int):
    as_bytes = symbols.numpy().tobytes()

    def encode() -> bytes:
        coder = zlib.compressobj(level=6, strategy=strategy)
        return coder.compress(as_bytes) + coder.flush()

    return encode, lambda stream: np.frombuffer(zlib.decompress(stream), dtype=np.uint8)


if __name__ == "__main__":
    for table in run():
        print(table)
