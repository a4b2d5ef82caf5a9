"""Packing whole numbers into bits."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from compresslab.core import pack_bits, packed_size, unpack_bits

BITS = range(1, 9)
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure


@st.composite
def codes_and_bits(draw: st.DrawFn) -> tuple[list[int], int]:
    bits = draw(st.integers(1, 8))
    return draw(st.lists(st.integers(0, 2**bits - 1), max_size=70)), bits


@settings(CALM, max_examples=150)
@given(codes_and_bits())
def test_packed_stream_is_the_number_in_base_two_to_the_bits(case):
    values, bits = case
    packed = pack_bits(torch.tensor(values, dtype=torch.int64), bits)
    stream = sum(value << (bits * i) for i, value in enumerate(values))  # exact, Python integers
    assert bytes(packed.tolist()) == stream.to_bytes(packed_size(len(values), bits), "little")
    assert unpack_bits(packed, bits, len(values)).tolist() == values


@pytest.mark.parametrize("bits", BITS)
def test_every_code_survives_at_every_position_and_length(bits):
    values = torch.arange(2**bits).repeat(5)
    for n in (0, 1, 7, 8, 9, len(values)):
        packed = pack_bits(values[:n], bits)
        assert packed.dtype == torch.uint8 and len(packed) == -(-n * bits // 8)
        assert torch.equal(unpack_bits(packed, bits, n), values[:n].int())


def test_one_bit_is_numpy_packbits():
    flags = torch.rand(1001, generator=torch.Generator().manual_seed(0)) < 0.3
    expected = np.packbits(flags.numpy(), bitorder="little")
    assert pack_bits(flags, 1).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_dtype_and_shape_gives_the_same_bytes(dtype):
    values = torch.arange(12).remainder(8).view(3, 4)
    assert torch.equal(pack_bits(values.to(dtype), 3), pack_bits(values.flatten(), 3))


@pytest.mark.parametrize("bits", BITS)
def test_packed_tensor_owns_no_more_than_its_bytes(bits):
    packed = pack_bits(torch.zeros(9, dtype=torch.uint8), bits)
    assert packed.untyped_storage().nbytes() == packed_size(9, bits)


def test_packing_does_not_share_memory_with_its_input():
    codes = torch.tensor([1, 2, 3], dtype=torch.uint8)
    pack_bits(codes, 8).zero_()
    assert codes.tolist() == [1, 2, 3]


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_a_width_out_of_range_is_refused(bits):
    with pytest.raises(ValueError, match=f"bits must be a whole number from 1 to 8, got {bits}"):
        pack_bits(torch.tensor([0]), bits)
    with pytest.raises(ValueError, match="bits must be"):
        unpack_bits(torch.zeros(1, dtype=torch.uint8), bits, 1)


@pytest.mark.parametrize("bits", [2.5, True, "4"])
def test_a_width_that_is_no_whole_number_is_refused(bits):
    with pytest.raises(TypeError, match="bits must be a whole number"):
        pack_bits(torch.tensor([0]), bits)


@pytest.mark.parametrize(("codes", "wrong"), [([16, 0], 16), ([-1, 3], -1), ([300], 300)])
def test_a_code_out_of_range_is_refused(codes, wrong):
    with pytest.raises(ValueError, match=rf"codes of 4 bits must be in \[0, 15\], got {wrong}"):
        pack_bits(torch.tensor(codes), 4)


def test_float_codes_are_refused():
    with pytest.raises(TypeError, match="integer dtype, got torch.float32"):
        pack_bits(torch.tensor([1.0]), 4)


def test_a_packed_tensor_of_the_wrong_size_or_type_is_refused():
    with pytest.raises(ValueError, match=r"3 codes of 4 bits take shape \(2,\), got \(3,\)"):
        unpack_bits(torch.zeros(3, dtype=torch.uint8), 4, 3)
    with pytest.raises(TypeError, match="packed must be uint8"):
        unpack_bits(torch.zeros(2, dtype=torch.int32), 4, 3)
    with pytest.raises(ValueError, match="n must be"):
        unpack_bits(torch.zeros(0, dtype=torch.uint8), 4, -1)


class _AllWidths(nn.Module):
    """Unpacks one tensor of every width, so that a single export covers them."""

    def __init__(self, values: list[torch.Tensor]):
        super().__init__()
        self.n = len(values[0])
        for bits, codes in zip(BITS, values):
            self.register_buffer(f"packed{bits}", pack_bits(codes, bits))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.stack(
            [unpack_bits(getattr(self, f"packed{bits}"), bits, self.n).float() for bits in BITS]
        )


@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
def test_every_width_exports_to_torch_and_onnx():
    ort = pytest.importorskip("onnxruntime")
    generator = torch.Generator().manual_seed(0)
    values = [torch.randint(0, 2**bits, (43,), generator=generator) for bits in BITS]
    model, x = _AllWidths(values).eval(), torch.zeros(1)
    expected = torch.stack(values).float()
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), expected)
    onnx_program = torch.onnx.export(program, (x,), dynamo=True, verbose=False)
    session = ort.InferenceSession(onnx_program.model_proto.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize("bits", range(1, 9))
def test_nothing_packs_into_nothing_whatever_its_strides(bits):
    for empty in (torch.zeros(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64).expand(0), torch.from_numpy(np.bincount([]))):
        packed = pack_bits(empty, bits)
        assert packed.dtype == torch.uint8 and packed.shape == (0,)
        assert unpack_bits(packed.expand(0), bits, 0).shape == (0,)
