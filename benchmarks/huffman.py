"""Huffman coding beside the pure-Python package dahuffman: 1 million symbols, encoded and decoded.

    python benchmarks/huffman.py

The symbols are 4-bit indices with the frequencies of rounded normal weights. Both include making the code
from the data; the two run in turn, and the medians and quartiles of the ratio are printed, beside the sizes.
"""

import time

import numpy as np
import torch
from dahuffman import HuffmanCodec

from compresslab.core.huffman import huffman_decode, huffman_encode

N, ROUNDS = 1_000_000, 7


def ours(symbols: torch.Tensor) -> tuple[float, float, int]:
    start = time.perf_counter()
    stream = huffman_encode(symbols)
    middle = time.perf_counter()
    decoded = huffman_decode(stream)
    end = time.perf_counter()
    if not torch.equal(decoded, symbols.int()):
        raise RuntimeError("decoding did not give the symbols back")
    return middle - start, end - middle, len(stream)


def theirs(symbols: list[int]) -> tuple[float, float, int]:
    start = time.perf_counter()
    codec = HuffmanCodec.from_data(symbols)
    stream = codec.encode(symbols)
    middle = time.perf_counter()
    codec.decode(stream)
    return middle - start, time.perf_counter() - middle, len(stream)


def main() -> None:
    normal = torch.randn(N, generator=torch.Generator().manual_seed(0))
    symbols = (normal * 3).round().clamp(-8, 7).long() + 8
    as_list = symbols.tolist()
    ours(symbols)
    rows = np.array([(*ours(symbols), *theirs(as_list)) for _ in range(ROUNDS)])
    for name, (encode, decode, size) in (("compresslab", rows[:, :3].T), ("dahuffman", rows[:, 3:].T)):
        print(
            f"{name:12} encode {np.median(encode) * 1e3:7.1f} ms   decode {np.median(decode) * 1e3:7.1f} ms  "
            f"{size[0]:,.0f} bytes"
        )
    low, middle, high = np.quantile(rows[:, 3:5].sum(1) / rows[:, :2].sum(1), [0.25, 0.5, 0.75])
    print(
        f"both directions: {middle:.1f} times as fast  [{low:.1f}, {high:.1f}]; our bytes include the index"
    )


if __name__ == "__main__":
    main()
