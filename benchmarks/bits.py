"""Packing against memory: 10 million 4-bit codes packed and unpacked, beside a clone of the dense tensor.

    python -m benchmarks bits

A clone of the float32 weights reads and writes each of them once; nothing that touches all weights can be much
faster, so it stands for the limit of the memory. (Packing beside torchao's: `weight_quantization`.)

Budget: 10 seconds.
"""

from __future__ import annotations

import torch

from benchmarks.report import Table, show_ratio, show_time, threads_note, time_within
from compresslab.core.bits import pack_bits, packed_size, unpack_bits
from compresslab.core.timing import speedup

BUDGET = 10  # seconds
ROUNDS_SECONDS = 2.0  # for each width
N = 10_000_000


def run(n: int = N) -> list[Table]:
    """Pack and unpack ``n`` codes of 3, 4 and 8 bits."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(n, generator=generator)
    rows = []
    for bits in (3, 4, 8):
        codes = torch.randint(0, 2**bits, (n,), dtype=torch.uint8, generator=generator)
        packed = pack_bits(codes, bits)
        if not torch.equal(unpack_bits(packed, bits, n), codes.int()):
            raise RuntimeError("unpacking did not give the codes back")
        calls = {
            "clone": dense.clone,
            "pack": lambda codes=codes, bits=bits: pack_bits(codes, bits),
            "unpack": lambda packed=packed, bits=bits: unpack_bits(packed, bits, n),
        }
        times = time_within(calls, ROUNDS_SECONDS)
        for name in ("pack", "unpack"):
            share = show_ratio(speedup(times["clone"], times[name]))
            shown = [show_time(times[name]), show_time(times["clone"]), share, f"{packed_size(n, bits):,}"]
            rows.append([f"{name}, {bits} bits", *shown])
    note = f"{n:,} codes; {threads_note()}. Ratio to the limit: 1 would be as fast as the clone."
    return [Table("Packing", note, ["operation", "ours (ms)", "clone (ms)", "ratio to the limit", "packed bytes"], rows)]


if __name__ == "__main__":
    for table in run():
        print(table)
