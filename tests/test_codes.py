"""Codes: how one weight tensor is stored."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from compresslab.core import (
    CodebookCode,
    DenseCode,
    GapSparseCode,
    Grid,
    SparseCode,
    UniformCode,
    WeightCode,
    choose_scale,
    dequantize,
    gap_codebook,
    kmeans_1d,
    pack_bits,
    sparse_codebook,
    storage_bits,
    unpack_bits,
)

MAKE = {
    "dense": DenseCode.from_dense,
    "uniform": partial(UniformCode.from_dense, bits=3),
    "uniform per channel": partial(UniformCode.from_dense, bits=8, axis=0),
    "codebook": partial(CodebookCode.from_dense, bits=3),
    "sparse": SparseCode.from_dense,
    "sparse uniform": partial(SparseCode.from_dense, values=partial(UniformCode.from_dense, bits=5)),
    "sparse codebook": sparse_codebook(bits=2),
    "gaps": partial(GapSparseCode.from_dense, index_bits=2),
    "gaps codebook": gap_codebook(bits=4),
}
EXACT = ("dense", "sparse", "gaps")
SHAPES = [(1,), (0,), (1, 1), (3, 5), (5, 7, 3), (4, 1, 3, 3), (17,)]


def pruned(shape: tuple[int, ...], density: float = 0.3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    return weight * (torch.rand(shape, generator=generator) < density)


@pytest.mark.parametrize("make_code", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_type_input_and_copies(make_code, shape):
    for weight in (pruned(shape), pruned(shape, 1.0), torch.zeros(shape), torch.full(shape, -2.5)):
        before = weight.clone()
        code = make_code(weight)
        decoded = code.decode()
        assert isinstance(code, WeightCode) and code.shape == shape and code.numel == weight.numel()
        assert decoded.shape == shape and decoded.dtype == torch.float32 and torch.isfinite(decoded).all()
        assert torch.equal(weight, before)
        assert torch.equal(copy.deepcopy(code).decode(), decoded)
        assert torch.equal(make_code(weight).decode(), decoded)


@pytest.mark.parametrize("make_code", [MAKE[name] for name in EXACT], ids=EXACT)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lossless_codes_give_the_weight_back(make_code, shape):
    for weight in (pruned(shape, 0.05), pruned(shape), pruned(shape, 1.0)):
        assert torch.equal(make_code(weight).decode(), weight)


@pytest.mark.parametrize("make_code", MAKE.values(), ids=MAKE)
def test_constant_and_zero_weights_are_exact(make_code):
    for weight in (torch.zeros(3, 5), torch.full((3, 5), 0.75), torch.full((3, 5), -0.75)):
        assert torch.allclose(make_code(weight).decode(), weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("make_code", MAKE.values(), ids=MAKE)
def test_weights_that_cannot_be_stored_are_refused(make_code):
    with pytest.raises(ValueError, match="a weight must be finite, got nan or inf"):
        make_code(torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="finite"):
        make_code(torch.tensor([1.0, -float("inf")]))
    with pytest.raises(ValueError, match=r"at least one dimension, got a single number of shape \(\)"):
        make_code(torch.tensor(1.0))
    with pytest.raises(TypeError, match="a weight must be a floating-point tensor, got torch.int64"):
        make_code(torch.tensor([1, 2]))


# ---- size: formulas written down apart from the code -------------------------------------------------------


def bytes_of(n: int, bits: int) -> int:
    return math.ceil(n * bits / 8)


def test_sizes_follow_the_formulas():
    weight = pruned((50, 31))
    n, nnz = weight.numel(), int((weight != 0).sum())
    gaps = np.diff(np.flatnonzero(weight.numpy()), prepend=-1) - 1
    entries = nnz + int((gaps // 7).sum())
    sizes = {
        DenseCode.from_dense: 4 * n,
        partial(DenseCode.from_dense, dtype=torch.bfloat16): 2 * n,
        partial(UniformCode.from_dense, bits=5): bytes_of(n, 5) + 4,
        partial(UniformCode.from_dense, bits=5, axis=0): bytes_of(n, 5) + 4 * 50,
        partial(UniformCode.from_dense, bits=5, axis=1): bytes_of(n, 5) + 4 * 31,
        partial(CodebookCode.from_dense, bits=6): bytes_of(n, 6) + 4 * 64,
        SparseCode.from_dense: bytes_of(n, 1) + 4 * nnz,
        sparse_codebook(bits=4): bytes_of(n, 1) + bytes_of(nnz, 4) + 4 * 16,
        gap_codebook(bits=4, index_bits=3): bytes_of(entries, 3) + bytes_of(nnz, 4) + 4 * 16,
    }
    for make_code, size in sizes.items():
        assert storage_bits(make_code(weight)) == 8 * size, make_code


def test_default_index_width_is_the_smallest():
    for density in (0.01, 0.05, 0.2, 0.7):
        weight = pruned((200, 50), density)
        sizes = {b: storage_bits(GapSparseCode.from_dense(weight, index_bits=b)) for b in range(2, 9)}
        chosen = GapSparseCode.from_dense(weight)
        assert storage_bits(chosen) == min(sizes.values()) == sizes[chosen.index_bits]


# ---- uniform -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_uniform_equals_torch_fake_quantize(bits, axis):
    weight = pruned((6, 4, 3), 1.0)
    qmax = 2 ** (bits - 1) - 1
    if axis is None:
        expected = torch.fake_quantize_per_tensor_affine(
            weight, float(weight.abs().max() / qmax), 0, -qmax, qmax
        )
    else:
        scale = weight.abs().amax([a for a in range(3) if a != axis % 3]) / qmax
        zero = torch.zeros(len(scale), dtype=torch.int32)
        expected = torch.fake_quantize_per_channel_affine(weight, scale, zero, axis % 3, -qmax, qmax)
    decoded = UniformCode.from_dense(weight, bits=bits, axis=axis).decode()
    assert torch.allclose(decoded, expected, rtol=1e-6, atol=1e-7)


def test_uniform_error_is_at_most_half_a_step_of_its_row():
    weight = pruned((8, 40), 1.0)
    code = UniformCode.from_dense(weight, bits=4, axis=0)
    assert ((code.decode() - weight).abs() <= code.scale.unsqueeze(1) / 2 * (1 + 1e-5)).all()


def test_groups_equal_separate_tensors():
    weight = pruned((6, 4, 5), 1.0)
    grouped = UniformCode.from_dense(weight, bits=4, group_size=10)
    pieces = [UniformCode.from_dense(piece, bits=4) for piece in weight.view(12, 10)]
    assert torch.equal(grouped.decode().view(12, 10), torch.stack([piece.decode() for piece in pieces]))
    assert len(grouped.scale) == 12


def test_a_zero_row_beside_others_stays_zero():
    weight = pruned((4, 9), 1.0)
    weight[2] = 0
    decoded = UniformCode.from_dense(weight, bits=4, axis=0).decode()
    assert (decoded[2] == 0).all() and (decoded[1] != 0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, "bits must be a whole number from 2 to 8, got 1"),
        ({"bits": 9}, "bits must be"),
        ({"axis": 2}, "axis must be a whole number from -2 to 1, got 2"),
        ({"group_size": 48}, "group_size 48 does not divide the 100 weights of each index of axis 0"),
        ({"group_size": 0}, "group_size must be"),
    ],
)
def test_uniform_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        UniformCode.from_dense(torch.ones(3, 100), **arguments)


# ---- codebook ----------------------------------------------------------------------------------------------


def test_codebook_decodes_to_the_clusters():
    weight = pruned((9, 11), 1.0)
    h = torch.rand(9, 11, generator=torch.Generator().manual_seed(5))
    centres, indices = kmeans_1d(weight, 8, weights=h)
    code = CodebookCode.from_dense(weight, bits=3, weights=h)
    assert torch.equal(code.decode(), centres[indices].view(9, 11))
    assert torch.equal(unpack_bits(code.packed, 3, 99).long(), indices)


def test_codebook_is_no_longer_than_the_weight():
    code = CodebookCode.from_dense(torch.tensor([1.0, 2.0, 3.0]), bits=8)
    assert len(code.codebook) == 3 and torch.equal(code.decode(), torch.tensor([1.0, 2.0, 3.0]))


# ---- sparse ------------------------------------------------------------------------------------------------


def test_gaps_of_the_deep_compression_figure():
    # Han et al. 2016, figure 2: weights at 1, 4 and 15 with 3 index bits. A code of 7 skips 7 zeros.
    weight = torch.zeros(16)
    weight[[1, 4, 15]] = torch.tensor([3.4, 0.9, 1.7])
    code = GapSparseCode.from_dense(weight, index_bits=3)
    assert unpack_bits(code.gaps, 3, code.entries).tolist() == [1, 2, 7, 3]
    assert torch.equal(code.decode(), weight)


@pytest.mark.parametrize("gap", range(0, 20))
def test_every_gap_around_a_multiple_of_the_skip(gap):
    weight = torch.zeros(2 * gap + 2)
    weight[gap], weight[-1] = 1.0, 2.0
    for index_bits in (2, 3):
        code = GapSparseCode.from_dense(weight, index_bits=index_bits)
        assert torch.equal(code.decode(), weight)
        assert code.entries == 2 + 2 * (gap // (2**index_bits - 1))


def test_pruned_weights_stay_exactly_zero_under_a_codebook():
    weight = pruned((30, 30), 0.1)
    for make_code in (sparse_codebook(bits=2), gap_codebook(bits=2, index_bits=2)):
        assert torch.equal(make_code(weight).decode() != 0, weight != 0)


@pytest.mark.parametrize("index_bits", [1, 9])
def test_gaps_refuse_a_bad_width(index_bits):
    with pytest.raises(ValueError, match="index_bits must be a whole number from 2 to 8"):
        GapSparseCode.from_dense(torch.ones(4), index_bits=index_bits)


# ---- arrays that do not fit together -----------------------------------------------------------------------


def test_arrays_that_do_not_fit_are_refused():
    three = DenseCode(torch.ones(3), (3,))
    with pytest.raises(ValueError, match=r"value must have shape \(2, 2\), got \(4,\)"):
        DenseCode(torch.ones(4), (2, 2))
    with pytest.raises(ValueError, match="take shape"):
        UniformCode(torch.zeros(3, dtype=torch.uint8), torch.ones(1), (2, 2), 4)
    with pytest.raises(ValueError, match="cannot share scales"):
        UniformCode(torch.zeros(2, dtype=torch.uint8), torch.ones(3), (2, 2), 4)
    with pytest.raises(ValueError, match=r"codebook must have shape \(K,\) with K <= 4, got \(5,\)"):
        CodebookCode(torch.zeros(1, dtype=torch.uint8), torch.ones(5), (4,), 2)
    with pytest.raises(ValueError, match=r"mask has 2 ones, so values must have shape \(2,\), got \(3,\)"):
        SparseCode(pack_bits(torch.tensor([1, 0, 1, 0]), 1), three, (4,))
    with pytest.raises(ValueError, match="gaps lead to 2 weights, but values have shape"):
        GapSparseCode(pack_bits(torch.tensor([0, 3, 0]), 2), three, (9,), 3, 2)
    with pytest.raises(ValueError, match="gaps lead to position 4 of 4 weights"):
        GapSparseCode(pack_bits(torch.tensor([1, 1, 0]), 2), three, (4,), 3, 2)
    with pytest.raises(TypeError, match="packed must be uint8"):
        CodebookCode(torch.zeros(2), torch.ones(4), (4,), 4)


# ---- export ------------------------------------------------------------------------------------------------


class _Decode(nn.Module):
    """Decodes a set of codes, so that a single export covers them all."""

    def __init__(self, codes: list[WeightCode]):
        super().__init__()
        self.codes = nn.ModuleList(codes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x * code.decode().flatten() for code in self.codes])


@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
def test_every_code_exports_to_torch_and_onnx():
    ort = pytest.importorskip("onnxruntime")
    weight = pruned((6, 5))
    codes = [
        MAKE[name](weight) for name in ("dense", "uniform", "codebook", "sparse codebook", "gaps codebook")
    ]
    codes.append(UniformCode.from_dense(weight, bits=4, axis=1))
    codes += [MAKE[name](torch.zeros(6, 5)) for name in ("sparse", "gaps")]
    model, x = _Decode(codes).eval(), torch.ones(1)
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))
    proto = torch.onnx.export(program, (x,), dynamo=True, verbose=False).model_proto
    session = ort.InferenceSession(proto.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.allclose(found, model(x).numpy(), rtol=1e-6, atol=0)


# -- uniform codes with a zero point, and integers chosen elsewhere ------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_affine_code_spends_all_its_levels_on_a_one_sided_weight(bits):
    weight = torch.rand(3, 50, generator=torch.Generator().manual_seed(0)) + 1
    affine = UniformCode.from_dense(weight, bits, axis=0, symmetric=False)
    symmetric = UniformCode.from_dense(weight, bits, axis=0)
    errors = [(code.decode() - weight).square().mean() for code in (affine, symmetric)]
    assert errors[0] < 0.5 * errors[1]
    assert affine.zero_point.dtype == torch.uint8 and symmetric.zero_point is None


def test_integers_that_a_method_chose_are_stored_as_they_are():
    grid = choose_scale(torch.tensor([[-1.0], [-4.0]]), torch.tensor([[1.0], [4.0]]), 3, symmetric=True)
    q = torch.tensor([[-3, 0, 2], [1, 3, -2]])
    code = UniformCode.from_rows(q, grid, (2, 3))
    assert code.bits == 3 and torch.equal(code.decode(), dequantize(q, grid))
    with pytest.raises(ValueError, match="the integers must lie between -3 and 3, got -4 to 3"):
        UniformCode.from_rows(q - 2 * (q == -2), grid, (2, 3))


def test_more_than_eight_bits_are_not_stored():
    grid = choose_scale(-1.0, 1.0, 9)
    with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8, got 9"):
        UniformCode.from_rows(torch.zeros(2, 3, dtype=torch.int32), grid, (2, 3))


@pytest.mark.parametrize("zero_point", [torch.zeros(2, dtype=torch.int32), torch.zeros(3, dtype=torch.uint8)])
def test_a_zero_point_of_another_dtype_or_size_is_refused(zero_point):
    code = UniformCode.from_dense(torch.ones(2, 4), 4, axis=0, symmetric=False)
    with pytest.raises(ValueError, match="zero_point must be uint8 of the scales' shape"):
        UniformCode(code.packed, code.scale, (2, 4), 4, 0, zero_point)


def test_a_range_of_its_own_clips_the_outlier():
    weight = torch.tensor([[0.1, -0.2, 0.15, 8.0]])
    clipped = UniformCode.from_dense(weight, 4, find_range=lambda rows: (rows.amin(1, True), rows.new_full((1, 1), 0.2)))
    assert (clipped.decode() - weight)[0, :3].abs().max() < 0.03 and clipped.decode()[0, 3] == pytest.approx(0.2)


def test_a_grid_that_the_format_cannot_hold_is_refused():
    """-8 .. 7, as in other libraries, has one level more below zero: it would come back shifted."""
    zero, one = torch.zeros(1, 1, dtype=torch.int32), torch.ones(1, 1)
    for grid in (Grid(one, zero, -8, 7), Grid(one, zero, 0, 4), Grid(one, zero + 1, -7, 7)):
        with pytest.raises(ValueError, match="a grid of . bits goes from"):
            UniformCode.from_rows(torch.tensor([[0, 4]]), grid, (2,))
    with pytest.raises(TypeError, match="integer dtype"):
        UniformCode.from_rows(torch.tensor([[0.6, 1.0]]), Grid(one, zero, -1, 1), (2,))
