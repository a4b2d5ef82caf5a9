"""Small floats and block formats: against torch's and torchao's, by their bit fields, by their sizes."""

import copy
import math
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core.bits import unpack_bits
from compresslab.core.codes import UniformCode
from compresslab.core.layers import encode
from compresslab.core.size import storage_bits
from compresslab.core.store import load, save
from compresslab.quantization.block_formats import MXFP4Code, NVFP4Code, decode_e8m0, encode_e8m0
from compresslab.quantization.float_formats import (
    E2M1,
    E4M3,
    E5M2,
    Float8Code,
    FloatFormat,
    decode_float,
    decode_table,
    encode_float,
    round_float,
)
from compresslab.quantization.nf4 import NF4Code, normal_levels, quantize_scales
from compresslab.quantization.rate import entropy, signal_to_noise

DTYPES = {E4M3: torch.float8_e4m3fn, E5M2: torch.float8_e5m2}
CODES = {
    "float8": partial(Float8Code.from_dense, axis=0),
    "float8, wide": partial(Float8Code.from_dense, format="e5m2"),
    "mxfp4": MXFP4Code.from_dense,
    "nvfp4": NVFP4Code.from_dense,
    "nf4": NF4Code.from_dense,
    "nf4, double": partial(NF4Code.from_dense, double=True),
}


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(a, b):
    """Equal bit for bit, nan and minus zero included."""
    return torch.equal(a.nan_to_num(-7.5), b.nan_to_num(-7.5)) and torch.equal(a.signbit(), b.signbit())


class TestFloats:
    @pytest.mark.parametrize("form", [E4M3, E5M2])
    def test_all_256_codes_decode_as_in_torch(self, form):
        codes = torch.arange(256, dtype=torch.uint8)
        theirs = codes.view(DTYPES[form]).float()
        ours = decode_table(form)
        assert torch.equal(ours.isnan(), theirs.isnan()) and ours.isnan().sum() == (2 if form is E4M3 else 6)
        assert same(ours[~ours.isnan()], theirs[~ours.isnan()])
        assert same(decode_float(codes.view(16, 16), form)[0, :8], theirs[:8])

    @pytest.mark.parametrize("form", [E4M3, E5M2])
    def test_rounding_is_torchs_cast(self, form):
        """Random numbers of all magnitudes, and the ties: every midpoint of two neighbours and the floats beside."""
        numbers = decode_table(form)[: form.top + 1]
        ties = (numbers[1:] + numbers[:-1]) / 2
        x = torch.cat([
            randn(20000) * 2.0 ** torch.linspace(-24, math.log2(form.largest) - 3, 20000),
            ties, ties.nextafter(torch.tensor(math.inf)), ties.nextafter(torch.tensor(0.0)), numbers,
        ])  # fmt: skip
        x = torch.cat([x, -x])
        x = x[x.abs() <= form.largest]
        theirs = x.to(DTYPES[form])
        assert torch.equal(encode_float(x, form), theirs.view(torch.uint8))
        assert same(round_float(x, form), theirs.float())

    def test_ties_go_to_the_even_mantissa_and_not_away_from_zero(self):
        x = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
        assert round_float(x, E2M1).tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
        assert round_float(-x, E2M1).tolist() == [-0.0, -1.0, -1.0, -2.0, -2.0, -4.0, -4.0]

    @pytest.mark.parametrize("form, largest", [(E4M3, 448), (E5M2, 57344), (E2M1, 6)])
    def test_saturates(self, form, largest):
        assert form.largest == largest
        x = torch.tensor([largest * 1.01, largest * 100.0, 1e30, math.inf])
        assert round_float(torch.cat([x, -x]), form).tolist() == [largest] * 4 + [-largest] * 4
        if form is E5M2:  # torch's cast does not
            assert x.to(torch.float8_e5m2).float()[1:].isinf().all()

    @pytest.mark.parametrize("form", [E4M3, E5M2, E2M1, FloatFormat(3, 2, "none"), FloatFormat(3, 2, "ieee")])
    def test_nearest_by_exhaustive_search_and_a_round_trip(self, form):
        numbers = decode_table(form)
        finite = numbers[numbers.isfinite()]
        assert same(round_float(finite, form), finite)
        x = randn(1000).double() * form.largest / 3
        nearest = (x.unsqueeze(1) - finite.double()).abs().amin(1)
        torch.testing.assert_close((x - round_float(x, form).double()).abs(), nearest, rtol=0, atol=1e-6)

    def test_relative_error_is_bounded_where_an_integer_grid_is_not(self):
        x = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 400 + 2.0**-6
        x = torch.cat([x, x * 1e-3]).clamp(min=2.0**-6)  # the normal numbers of E4M3
        assert ((round_float(x, E4M3) - x).abs() <= x * 2.0**-4).all()

    def test_nan_is_refused(self):
        with pytest.raises(ValueError, match="nan cannot be quantized"):
            encode_float(torch.tensor([1.0, math.nan]), E4M3)


class TestPowersOfTwo:
    def test_decodes_as_torchs_float8_e8m0(self):
        codes = torch.arange(256, dtype=torch.uint8)
        theirs = codes.view(torch.float8_e8m0fnu).float()
        assert torch.equal(decode_e8m0(codes)[1:255], theirs[1:255]) and decode_e8m0(codes)[255].isnan()
        assert decode_e8m0(codes)[0] == 2.0**-127

    def test_largest_element_lands_between_four_and_eight(self):
        largest = randn(1000).abs() * 10.0 ** torch.linspace(-30, 30, 1000)
        ratio = largest / decode_e8m0(encode_e8m0(largest))
        assert (ratio >= 4).all() and (ratio < 8).all()
        edge = torch.tensor([4.0, 3.999999, 8.0, 1e-45, 3e38])
        assert encode_e8m0(edge).tolist() == [127, 126, 128, 0, 252]


class TestCodes:
    @pytest.mark.parametrize(
        "name, expected, bits",
        [("mxfp4", 18.8, 4.25), ("nvfp4", 20.4, 4.5), ("nf4", 20.7, 4.5), ("nf4, double", 20.7, 4.127)],
    )
    def test_signal_to_noise_and_bits_on_normal_weights(self, name, expected, bits):
        weight = randn(256, 4096)
        code = CODES[name](weight)
        assert abs(signal_to_noise(weight, code.decode()) - expected) < 0.15
        assert storage_bits(code) / weight.numel() == pytest.approx(bits, abs=2e-4)

    @pytest.mark.parametrize("group_size, expected, bits", [(128, 18.6, 4.25), (32, 20.3, 5.0)])
    def test_integer_groups_beside_them(self, group_size, expected, bits):
        weight = randn(256, 4096)
        code = UniformCode.from_dense(weight, 4, group_size=group_size)
        assert abs(signal_to_noise(weight, code.decode()) - expected) < 0.15
        assert storage_bits(code) / weight.numel() == bits

    def test_float8_beside_int8(self):
        """With one scale per row, integers are finer on normal weights; with an outlier in the row, floats."""
        weight = randn(64, 1024)
        snr = lambda make: signal_to_noise(weight, make(weight).decode())  # noqa: E731
        int8 = partial(UniformCode.from_dense, bits=8, axis=0)
        assert abs(snr(CODES["float8"]) - 31.5) < 0.3 and snr(int8) > 40
        weight[:, 0] = 300.0
        kept = lambda make: signal_to_noise(weight[:, 1:], make(weight).decode()[:, 1:])  # noqa: E731
        assert kept(CODES["float8"]) > 30 and kept(int8) < 6

    @pytest.mark.parametrize("rows, inputs, group", [(3, 64, 64), (5, 30, 10), (1, 1, 1), (2, 7, 7)])
    def test_exact_bits(self, rows, inputs, group):
        weight, n, blocks = randn(rows, inputs), rows * inputs, rows * inputs // group
        packed = 8 * math.ceil(n / 2)
        assert storage_bits(MXFP4Code.from_dense(weight, group)) == packed + 8 * blocks
        assert storage_bits(NVFP4Code.from_dense(weight, group)) == packed + 8 * blocks + 32
        assert storage_bits(NF4Code.from_dense(weight, group)) == packed + 32 * blocks
        double = packed + 8 * blocks + 32 * math.ceil(blocks / 256) + 32
        assert storage_bits(NF4Code.from_dense(weight, group, double=True)) == double
        assert storage_bits(Float8Code.from_dense(weight, axis=0)) == 8 * n + 32 * rows
        assert storage_bits(Float8Code.from_dense(weight)) == 8 * n + 32

    @pytest.mark.parametrize("name", CODES)
    @pytest.mark.parametrize("shape", [(4, 64), (2, 64, 3), (3, 16, 2, 2), (1, 128)])
    def test_blocks_lie_within_an_output_and_error_within_half_a_step(self, name, shape):
        weight = randn(*shape)
        code = CODES[name](weight)
        assert code.decode().shape == weight.shape and code.decode().dtype == torch.float32
        if "float8" not in name:
            alone = torch.cat([CODES[name](row.unsqueeze(0)).decode() for row in weight])
            if name in ("mxfp4", "nf4"):
                assert torch.equal(code.decode(), alone)
        largest = weight.flatten(1).abs().amax(1).view(-1, *[1] * (len(shape) - 1))
        assert ((code.decode() - weight).abs() <= 0.26 * largest).all()

    @pytest.mark.parametrize("name", CODES)
    def test_zeros_constants_one_sided_and_tiny_weights(self, name):
        make = CODES[name]
        assert torch.equal(make(torch.zeros(2, 64)).decode(), torch.zeros(2, 64))
        exact = 0.75 if name in ("mxfp4",) else 0.3
        torch.testing.assert_close(make(torch.full((2, 64), exact)).decode(), torch.full((2, 64), exact))
        for weight in (randn(2, 64).abs(), -randn(2, 64).abs()):
            assert signal_to_noise(weight, make(weight).decode()) > 15
        for size in (1e-30, 1e30):
            assert signal_to_noise(randn(4, 128) * size, make(randn(4, 128) * size).decode()) > 15
        tiny = make(torch.full((1, 64), 1e-45)).decode()
        assert torch.isfinite(tiny).all() and tiny.abs().max() <= 1e-44
        mixed = torch.cat([torch.zeros(1, 64), randn(1, 64)])
        assert not make(mixed).decode()[0].any()
        assert make(torch.zeros(0, 64)).decode().shape == (0, 64)
        assert make(torch.zeros(3, 0)).decode().shape == (3, 0)

    def test_a_block_that_is_small_beside_the_tensor_is_not_lost(self):
        weight = torch.cat([torch.full((1, 16), 1000.0), torch.full((1, 16), 1e-3)])
        small = NVFP4Code.from_dense(weight).decode()[1]
        assert (small > 0).all() and (small < 2.5e-3).all()  # the least step: 2^-9 t = 7.3e-4

    def test_mxfp4_loses_less_than_it_saturates(self):
        """An element between 6 and 8 steps saturates at 6: at most a quarter of it is lost."""
        weight = torch.full((1, 32), 1.0)
        weight[0, 0] = 7.99
        assert MXFP4Code.from_dense(weight).decode()[0, 0] == 6.0

    def test_float8_channels_on_another_axis_and_groups(self):
        weight = randn(4, 6) * torch.tensor([1, 10, 100, 1e3, 1e4, 1e5])
        by_column = Float8Code.from_dense(weight, axis=1)
        assert len(by_column.scale) == 6 and by_column.axis == 1
        half_a_step = weight.abs() * 2.0**-4 + by_column.scale * 2.0**-10  # of normal and subnormal numbers
        assert ((by_column.decode() - weight).abs() <= half_a_step).all()
        assert torch.equal(by_column.decode(), Float8Code.from_dense(weight.T, axis=0).decode().T)
        assert len(Float8Code.from_dense(weight, group_size=3).scale) == 8
        assert Float8Code.from_dense(randn(5)).decode().shape == (5,)

    @pytest.mark.parametrize("name", CODES)
    def test_copy_file_and_export(self, name, tmp_path):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(16, 8, 2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)).eval()
        coded, x = encode(model, CODES[name]), randn(2, 16, 5, 5)
        save(coded, tmp_path / "model")
        with torch.no_grad():
            for other in (copy.deepcopy(coded), load(tmp_path / "model", model)):
                assert torch.equal(other(x), coded(x))
                assert storage_bits(other) == storage_bits(coded)
            if name in ("nvfp4", "nf4, double"):
                exported = torch.export.export(coded, (x,)).module()
                torch.testing.assert_close(exported(x), coded(x))

    @pytest.mark.parametrize("name", CODES)
    def test_refusals(self, name):
        make = CODES[name]
        for bad in (math.nan, math.inf):
            with pytest.raises(ValueError, match="must be finite"):
                make(torch.full((1, 64), bad))
        with pytest.raises(ValueError, match="at least one dimension"):
            make(torch.tensor(1.0))
        with pytest.raises(TypeError, match="floating-point"):
            make(torch.ones(1, 64, dtype=torch.int32))
        if "float8" not in name:
            with pytest.raises(ValueError, match=r"does not divide the 50 weights"):
                make(torch.ones(2, 50))
            with pytest.raises(ValueError, match=r"does not divide the 10 .* in layer '1'"):
                encode(nn.Sequential(nn.Linear(64, 10), nn.Linear(10, 2)), make)
            with pytest.raises(ValueError, match="group_size must be"):
                make(torch.ones(2, 64), group_size=0)
            with pytest.raises(TypeError, match="group_size must be"):
                make(torch.ones(2, 64), group_size=2.5)


class TestNF4:
    PUBLISHED = [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]  # fmt: skip

    def test_levels_agree_with_the_published_ones(self):
        for offset in (0.9677083, 1 - (1 / 32 + 1 / 30) / 2):
            torch.testing.assert_close(normal_levels(offset), torch.tensor(self.PUBLISHED), rtol=0, atol=1e-6)

    def test_nearest_level(self):
        weight = randn(3, 64)
        scale = weight.abs().amax(1, keepdim=True)
        levels = torch.tensor(self.PUBLISHED)
        nearest = levels[(weight / scale).unsqueeze(2).sub(levels).abs().argmin(2)] * scale
        torch.testing.assert_close(NF4Code.from_dense(weight).decode(), nearest, rtol=1e-5, atol=1e-6)

    def test_indices_of_normal_weights_carry_more_information_than_integers(self):
        weight = randn(64, 4096)
        indices = unpack_bits(NF4Code.from_dense(weight).packed, 4, weight.numel())
        integers = unpack_bits(UniformCode.from_dense(weight, 4, group_size=64).packed, 4, weight.numel())
        assert 3.85 < entropy(indices) < 4 and entropy(integers) < entropy(indices) - 0.2

    def test_double_quantization(self):
        scale = randn(600).abs() + 2
        codes, group_scale, mean = quantize_scales(scale)
        assert codes.dtype == torch.int8 and group_scale.shape == (3,) and mean == scale.mean()
        code = NF4Code.from_dense(randn(600, 64), double=True)
        stored = code.mean + code.group_scale.repeat_interleave(256)[:600] * code.scale
        exact = NF4Code.from_dense(randn(600, 64)).scale
        half = code.group_scale.repeat_interleave(256)[:600] / 2
        assert ((stored - exact).abs() <= half * (1 + 1e-4)).all()

    def test_refusals(self):
        single, double = NF4Code.from_dense(randn(2, 64)), NF4Code.from_dense(randn(2, 64), double=True)
        with pytest.raises(ValueError, match="offset must be"):
            normal_levels(1.0)
        with pytest.raises(TypeError, match="must be floating-point"):
            NF4Code(double.packed, double.scale, (2, 64))
        with pytest.raises(TypeError, match="must be int8"):
            NF4Code(single.packed, single.scale, (2, 64), double.group_scale, double.mean)
        with pytest.raises(ValueError, match=r"group_scale must have shape \(1,\)"):
            NF4Code(double.packed, double.scale, (2, 64), None, double.mean)
        with pytest.raises(ValueError, match="mean must be a single number"):
            NF4Code(double.packed, double.scale, (2, 64), double.group_scale, None)
        with pytest.raises(ValueError, match="cannot share scales"):
            NF4Code(single.packed, torch.ones(3), (2, 64))


def test_arrays_of_the_wrong_kind():
    float8, mx, nv = (make(randn(2, 64)) for make in (CODES["float8"], CODES["mxfp4"], CODES["nvfp4"]))
    with pytest.raises(ValueError, match="format must be"):
        Float8Code.from_dense(randn(2, 64), "e2m1")
    with pytest.raises(TypeError, match="packed must be uint8"):
        Float8Code(float8.packed.int(), float8.scale, (2, 64))
    with pytest.raises(ValueError, match=r"packed must have shape \(128,\)"):
        Float8Code(float8.packed[:5], float8.scale, (2, 64))
    with pytest.raises(ValueError, match="axis must be"):
        Float8Code(float8.packed, float8.scale, (2, 64), axis=2)
    with pytest.raises(ValueError, match="axis must be"):
        Float8Code.from_dense(randn(2, 64), axis=2)
    for code, arrays in ((MXFP4Code, (mx.scale,)), (NVFP4Code, (nv.scale, nv.tensor_scale))):
        with pytest.raises(TypeError, match="scale must be uint8"):
            code(mx.packed, arrays[0].float(), *arrays[1:], (2, 64))
        with pytest.raises(ValueError, match="cannot share scales"):
            code(mx.packed, arrays[0][:3], *arrays[1:], (2, 64))
        with pytest.raises(ValueError, match="64 codes of 4 bits take|128 codes of 4 bits take"):
            code(mx.packed[:5], arrays[0], *arrays[1:], (2, 64))
    with pytest.raises(ValueError, match="tensor_scale must be a single number"):
        NVFP4Code(nv.packed, nv.scale, torch.ones(1), (2, 64))


def test_torchao_gives_the_same_blocks():
    """torchao's emulation, bit for bit in MXFP4; NVFP4 multiplies by a reciprocal there, so ties may differ."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchao  # noqa: F401
        from torchao.prototype.mx_formats.kernels import f4_unpacked_to_f32, unpack_uint4
        from torchao.prototype.mx_formats.mx_tensor import to_mx
        from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize
        from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import NF4Tensor

        weight = randn(64, 512) * torch.logspace(-3, 3, 64).unsqueeze(1)
        scale, packed = to_mx(weight, torch.float4_e2m1fn_x2, 32)
        ours = MXFP4Code.from_dense(weight)
        assert torch.equal(ours.scale, scale.view(torch.uint8).flatten())
        assert torch.equal(ours.packed, packed.view(torch.uint8).flatten())

        weight = randn(64, 512)  # theirs has a larger least scale than E4M3's least number
        nv = NVFP4Code.from_dense(weight)
        scale, packed = nvfp4_quantize(weight, 16, nv.tensor_scale)
        assert torch.equal(nv.scale, scale.view(torch.uint8).flatten())
        numbers = f4_unpacked_to_f32(unpack_uint4(packed.view(torch.uint8))).view(-1, 16)
        theirs = numbers * scale.view(torch.float8_e4m3fn).float().view(-1, 1) * nv.tensor_scale
        torch.testing.assert_close(nv.decode().view(-1, 16), theirs, rtol=1e-5, atol=0)

        theirs = NF4Tensor.from_tensor(weight, 64, 256).get_original_weight()
        mine = NF4Code.from_dense(weight, double=True).decode()
        assert abs(signal_to_noise(weight, mine) - signal_to_noise(weight, theirs)) < 0.2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_a_magnitude_that_has_no_exponent_is_refused(bad):
    with pytest.raises(ValueError, match="finite and not negative"):
        encode_e8m0(torch.tensor([1.0, bad]))
