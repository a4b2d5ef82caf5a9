"""Uniform quantization, packing and GPTQ beside torchao: time, and the error that is left.

    python -m benchmarks weight_quantization

Rounding: find scales, round, and give the weights back, per output row at 8 bits and per group of 32 at 4 bits,
symmetric and affine. Packing: 10 million codes into bytes and back. GPTQ: torchao has it for CUDA only, by an
assertion; here its own source runs with the assertions off and the wait for the GPU left out, nothing else changed.
It offers 8 bits per row without further packages. Its error, like ours, is what the layer's outputs lose,
relative: sqrt(trace(D H D') / trace(W H W')), D = W - Q(W).

Budget: 30 seconds.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor

from benchmarks.report import PEER, Table, against, threads_note, time_within
from compresslab.core.bits import pack_bits, unpack_bits
from compresslab.core.uniform import choose_scale, dequantize, from_rows, min_max, quantize, to_rows
from compresslab.quantization.gptq import gptq

BUDGET = 30  # seconds
ROUNDS_SECONDS = 1.5  # for each row
CASES = {  # name: (bits, group size or None for a row, symmetric)
    "8 bits per row, symmetric": (8, None, True),
    "8 bits per row, affine": (8, None, False),
    "4 bits per 32, symmetric": (4, 32, True),
    "4 bits per 32, affine": (4, 32, False),
}


def run(width: int = 1024, codes: int = 10_000_000, gptq_shape: tuple[int, int] = (512, 512)) -> list[Table]:
    """Rounding of a (4 width, width) matrix, packing of ``codes`` codes, GPTQ of a matrix of ``gptq_shape``."""
    logging.getLogger("torchao").setLevel(logging.ERROR)
    return [rounding_table(width), packing_table(codes), gptq_table(*gptq_shape)]


def rounding_table(width: int) -> Table:
    weight = torch.randn(4 * width, width, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, (bits, group, symmetric) in CASES.items():
        calls = {"ours": lambda c=(bits, group, symmetric): ours(weight, *c),
                 "theirs": lambda c=(bits, group, symmetric): theirs(weight, *c)}  # fmt: skip
        errors = [f"{relative_error(weight, call()):.6f}" for call in calls.values()]
        times = time_within(calls, ROUNDS_SECONDS)
        rows.append([name, *against(times["theirs"], times["ours"]), *errors])
    note = (
        f"({4 * width}, {width}) normal weights to integers and back to float32; {threads_note()}. Error: norm of what is "
        "lost. The affine grids are the same; torchao's symmetric one has a level more below zero, ours none, so that "
        "-w has the code -q: at 4 bits that level is worth 2 % of the error."
    )
    return Table("Uniform quantization, against torchao", note, ["grid", *PEER, "our error", "peer's error"], rows)


def ours(weight: Tensor, bits: int, group: int | None, symmetric: bool) -> Tensor:
    """Round and give back."""
    rows = to_rows(weight, 0, group)
    grid = choose_scale(*min_max(rows), bits, symmetric=symmetric)
    return from_rows(dequantize(quantize(rows, grid), grid), tuple(weight.shape), 0)


def theirs(weight: Tensor, bits: int, group: int | None, symmetric: bool) -> Tensor:
    """The same by torchao's primitives."""
    from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine, dequantize_affine, quantize_affine

    block = (1, group or weight.shape[1])
    kind = MappingType.SYMMETRIC if symmetric else MappingType.ASYMMETRIC
    dtype = torch.int8 if symmetric else torch.uint8
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    scale, zero = choose_qparams_affine(weight, kind, block, dtype, low, high)
    q = quantize_affine(weight, block, scale, zero, dtype, low, high)
    return dequantize_affine(q, block, scale, zero, dtype, low, high)


def packing_table(n: int) -> Table:
    from torchao.prototype.dtypes.uintx.bitpacking import pack_cpu, unpack_cpu

    rows = []
    for bits in (2, 3, 4, 5, 6, 7):
        codes = torch.randint(0, 2**bits, (n,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        packed, shards = pack_bits(codes, bits), pack_cpu(codes, bits)
        if not torch.equal(unpack_cpu(shards, bits), codes):
            raise RuntimeError("torchao's unpacking did not give the codes back")
        calls = {
            "pack": (lambda c=codes, b=bits: pack_bits(c, b), lambda c=codes, b=bits: pack_cpu(c, b)),
            "unpack": (lambda p=packed, b=bits: unpack_bits(p, b, n), lambda s=shards, b=bits: unpack_cpu(s, b)),
        }
        for name, (mine, other) in calls.items():
            times = time_within({"ours": mine, "theirs": other}, ROUNDS_SECONDS / 3)
            sizes = [f"{packed.nbytes:,}", f"{sum(shard.nbytes for shard in shards):,}"]
            rows.append([f"{name}, {bits} bits", *against(times["theirs"], times["ours"]), *sizes])
    note = (
        f"{n:,} codes; {threads_note()}. torchao packs the bits of a code by powers of two into several arrays, checks "
        "nothing and gives uint8 back. Ours is one stream of neighbours without gaps, checks the range, and gives int32 "
        "back, four times the bytes to write: the price of a format that a byte offset can be computed in."
    )
    return Table("Packing, against torchao", note, ["operation", *PEER, "our bytes", "peer's bytes"], rows)


def gptq_table(outputs: int, inputs: int) -> Table:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator)
    mix = torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    factors = torch.randn(4 * inputs, inputs, generator=generator) @ mix
    H = factors.T @ factors / len(factors)
    peer = torchao_gptq(inputs)

    def mine() -> Tensor:
        q, grid = gptq(weight, H, 8)
        return dequantize(q, grid)

    calls = {"ours": mine, "theirs": lambda: peer(H.clone(), weight.clone())}
    errors = [f"{output_error(weight, call(), H):.6f}" for call in calls.values()]
    nearest = f"{output_error(weight, ours(weight, 8, None, True), H):.6f}"
    times = time_within(calls, 4 * ROUNDS_SECONDS, least=3)
    row = [f"{outputs} x {inputs}, 8 bits", *against(times["theirs"], times["ours"]), *errors, nearest]
    note = f"Correlated inputs, 8 bits per row; {threads_note()}. torchao's code has no CPU path of its own (see above)."
    columns = ["matrix", *PEER, "our error", "peer's error", "error of plain rounding"]
    return Table("GPTQ, against torchao", note, columns, [row])


def torchao_gptq(inputs: int) -> Callable[[Tensor, Tensor], Tensor]:
    """torchao's function on the CPU: compiled without its assertions, and nothing to wait for.

    In one block, since it takes the scale of a row from the columns of the first block alone.
    """
    from torchao.prototype.gptq import api
    from torchao.quantization.granularity import PerRow
    from torchao.quantization.quant_api import Int8WeightOnlyConfig

    names = dict(vars(api))
    exec(compile(inspect.getsource(api.gptq_quantize), api.__file__, "exec", optimize=1), names)
    base = Int8WeightOnlyConfig(granularity=PerRow())
    config = api.GPTQConfig(step="convert", base_config=base, gptq_quantize_block_size=inputs)

    def quantize_by_torchao(H: Tensor, weight: Tensor) -> Tensor:
        with mock.patch("torch.cuda.synchronize"):
            return names["gptq_quantize"](H, weight, config).dequantize()

    return quantize_by_torchao


def relative_error(weight: Tensor, rounded: Tensor) -> float:
    """The norm of the difference over the norm of the weights, in float64."""
    return float((weight.double() - rounded.double()).norm() / weight.double().norm())


def output_error(weight: Tensor, rounded: Tensor, H: Tensor) -> float:
    """What the outputs lose, relative: both norms are those of weights times inputs with moments ``H``."""
    lost, W, H = (weight - rounded).double(), weight.double(), H.double()
    return float((((lost @ H) * lost).sum() / ((W @ H) * W).sum()).sqrt())


if __name__ == "__main__":
    for table in run():
        print(table)
