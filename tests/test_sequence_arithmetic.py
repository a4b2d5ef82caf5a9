"""What a step of writing reads and multiplies: against counting the arrays of real networks by hand."""

import pytest
import torch
from torch import nn

from compresslab.core.codes import UniformCode
from compresslab.core.layers import encode
from compresslab.core.macs import count_macs
from compresslab.core.size import storage_bits
from compresslab.sequence.arithmetic import DecodeStep, decode_arithmetic, kv_cache_bytes
from compresslab.sequence.gpt import GPT, KVCache
from compresslab.sequence.lstm import CharLSTM


def test_the_cache_has_the_bytes_of_the_formula():
    model, memory = GPT(vocabulary=9, width=12, layers=3, heads=2, head_size=6), KVCache()
    model.step(torch.zeros(4, 10, dtype=torch.int64), memory)
    assert memory.count_bytes() == kv_cache_bytes(3, 2, 6, 10, bits=32, batch=4)
    assert kv_cache_bytes(32, 8, 128, 4096) * 4 == kv_cache_bytes(32, 32, 128, 4096) == 2**31  # grouped queries: a quarter
    assert kv_cache_bytes(1, 1, 32, 1, bits=4.5) == 36


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("coded", [False, True])
def test_a_gpt_reads_its_weights_once_and_two_rows(tied, coded):
    model = GPT(vocabulary=20, width=16, layers=2, context=32, heads=[4, 2], head_size=4, hidden=[64, 24], tied=tied)
    tables = ["positions"] if tied else ["tokens", "positions"]
    if coded:
        model = encode(model, lambda weight: UniformCode.from_dense(weight, 8, axis=0), only=["positions", "blocks.0.up", "blocks.1.k"])
    step = decode_arithmetic(model, 7, batch=3, cache_bits=16)
    in_tables = sum(storage_bits(model.get_submodule(name)) for name in tables) // 8
    assert step.weight_bytes == storage_bits(model) // 8 - in_tables
    rows = (20 if coded else 64) + (0 if tied else 64)  # 16 bytes and a scale, or 16 floats
    assert step.text_bytes == rows + 2 * (16 + 8) * 7 * 2
    assert step.bytes == step.weight_bytes + 3 * step.text_bytes
    # the eighth token's MACs: those of eight tokens together, less those of seven; attention counts all pairs
    matrices = sum(p.numel() for name, p in GPT(**{k: v for k, v in model.spec.items() if k != "model"}).named_parameters()
                   if "blocks" in name and p.ndim == 2) + 20 * 16  # fmt: skip
    assert step.macs == matrices + 2 * (16 + 8) * 7
    assert decode_arithmetic(model, 1).macs == count_macs(model, torch.zeros(1, 1, dtype=torch.int64)).total


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch: a slower kernel runs
@pytest.mark.parametrize("projection", [0, 3])
def test_an_lstm_reads_its_weights_and_its_state(projection):
    model = CharLSTM(vocabulary=9, embedding=4, hidden=6, layers=2, projection=projection)
    step = decode_arithmetic(model, 50)
    assert step.weight_bytes == storage_bits(model) // 8 - 9 * 4 * 4
    assert step.text_bytes == 16 + 2 * 4 * (6 + (projection or 6))
    assert step.macs == sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "embedding" not in n)


def test_four_bits_are_faster_while_bytes_decide():
    full, four = (DecodeStep(2_000_000 * bits // 8, 1000, 2_000_000, batch=1) for bits in (16, 4))
    assert four.tokens_per_second(1e9) / full.tokens_per_second(1e9) == pytest.approx(4, rel=0.01)
    assert full.intensity == pytest.approx(0.5, rel=0.01)
    many = [DecodeStep(step.weight_bytes, 0, step.macs, batch=4000) for step in (full, four)]
    rates = [step.tokens_per_second(1e9, macs_per_second=1e12) for step in many]
    assert rates[0] == rates[1] == 1e12 / 2_000_000  # arithmetic decides, and it is the same
    assert many[0].tokens_per_second(1e9) == pytest.approx(1e9 * 4000 / 4_000_000)


def test_documented_errors():
    for bad in ({"layers": 0}, {"kv_heads": 0}, {"head_size": 0}, {"length": 0}, {"bits": 0}, {"batch": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            kv_cache_bytes(**({"layers": 1, "kv_heads": 1, "head_size": 1, "length": 1} | bad))
    with pytest.raises(TypeError, match="length"):
        kv_cache_bytes(1, 1, 1, 1.5)
    for bad in ({"length": 0}, {"batch": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            decode_arithmetic(GPT(width=8, layers=1), **bad)
    with pytest.raises(TypeError, match="GPT or a CharLSTM, got Linear"):
        decode_arithmetic(nn.Linear(2, 2))
    for limits in ((0.0,), (1.0, 0.0), (float("nan"),)):
        with pytest.raises(ValueError, match="must be positive"):
            DecodeStep(1, 1, 1).tokens_per_second(*limits)
