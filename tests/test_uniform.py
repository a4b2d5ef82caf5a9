"""The uniform grid: against torch and ONNX Runtime, at ties and at the ends, and what it refuses."""

import math

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compresslab.core.uniform import (
    Grid,
    choose_scale,
    dequantize,
    fake_quantize,
    from_rows,
    min_max,
    quantize,
    to_rows,
)

BITS = (2, 3, 4, 5, 6, 7, 8, 12, 16)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def off_ties(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Where x / scale is so far from a tie that dividing and multiplying by the inverse round alike."""
    return ((x / grid.scale) % 1 - 0.5).abs() > 1e-4


# -- the grid ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("low, high", [(-1.0, 2.0), (0.5, 3.0), (-4.0, -1.0), (-1e-6, 1e6), (0.0, 0.0)])
def test_an_affine_grid_covers_the_range_and_holds_zero(low, high, bits):
    grid = choose_scale(low, high, bits)
    assert (grid.qmin, grid.qmax) == (0, 2**bits - 1)
    assert grid.scale > 0 and 0 <= grid.zero_point <= grid.qmax
    assert dequantize(grid.zero_point, grid) == 0
    ends = dequantize(torch.tensor([grid.qmin, grid.qmax]), grid)
    assert ends[0] <= min(low, 0) + 0.5001 * grid.scale and ends[1] >= max(high, 0) - 0.5001 * grid.scale


@pytest.mark.parametrize("bits", BITS)
def test_a_symmetric_grid_is_as_long_below_zero_as_above_it(bits):
    grid = choose_scale(-1.0, 3.0, bits, symmetric=True)
    qmax = 2 ** (bits - 1) - 1
    assert (grid.qmin, grid.qmax, int(grid.zero_point)) == (-qmax, qmax, 0)
    assert grid.scale * qmax == pytest.approx(3.0)


def test_a_one_sided_range_uses_every_level_of_an_affine_grid_and_half_of_a_symmetric_one():
    x = torch.linspace(0, 1, 1000)
    affine = quantize(x, choose_scale(0.0, 1.0, 4)).unique()
    symmetric = quantize(x, choose_scale(0.0, 1.0, 4, symmetric=True)).unique()
    assert len(affine) == 16 and len(symmetric) == 8


def test_ranges_of_rows_give_a_grid_for_each():
    rows = normal(5, 40)
    grid = choose_scale(*min_max(rows), 8)
    assert grid.scale.shape == grid.zero_point.shape == (5, 1)
    for row, scale in zip(rows, grid.scale, strict=True):
        assert scale.item() == pytest.approx(((row.max() - row.min()) / 255).item())


# -- rounding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_torch_rounds_the_same(bits, symmetric):
    x = 3 * normal(2000)
    grid = choose_scale(-2.0, 5.0, bits, symmetric=symmetric)
    torchs = torch.fake_quantize_per_tensor_affine(
        x, float(grid.scale), int(grid.zero_point), grid.qmin, grid.qmax
    )
    clear = off_ties(x, grid)
    assert clear.float().mean() > 0.99
    assert torch.equal(fake_quantize(x, grid)[clear], torchs[clear])


def test_torch_rounds_the_same_per_channel():
    weight = normal(6, 50)
    grid = choose_scale(*min_max(weight), 4)
    torchs = torch.fake_quantize_per_channel_affine(
        weight, grid.scale.flatten(), grid.zero_point.flatten(), 0, grid.qmin, grid.qmax
    )
    clear = off_ties(weight, grid)
    assert torch.equal(fake_quantize(weight, grid)[clear], torchs[clear])


def test_onnx_runtime_rounds_the_same_at_ties_and_beyond_the_ends():
    grid = Grid(torch.tensor(0.5), torch.tensor(10, dtype=torch.int32), 0, 255)
    x = torch.cat([torch.arange(-40, 600) / 4, torch.tensor([-1e9, 1e9])])
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"])
    graph = helper.make_graph(
        [node], "q",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(x)])],
        [helper.make_tensor_value_info("q", TensorProto.UINT8, [len(x)])],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5]), helper.make_tensor("zero", TensorProto.UINT8, [], [10])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert quantize(x, grid).tolist() == session.run(None, {"x": x.numpy()})[0].tolist()


def test_ties_go_to_the_even_integer():
    grid = choose_scale(-7.0, 7.0, 4, symmetric=True)
    assert quantize(torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]), grid).tolist() == [-2, -2, 0, 0, 2, 2]


def test_what_lies_beyond_saturates_before_it_becomes_an_integer():
    grid = choose_scale(0.0, 255.0, 8)
    assert quantize(torch.tensor([300.0, -44.0, math.inf, -math.inf, 3e38]), grid).tolist() == [255, 0, 255, 0, 255]


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30),
    st.sampled_from(BITS),
    st.booleans(),
)
def test_the_error_is_at_most_half_a_step_inside_the_range(values, bits, symmetric):
    x = torch.tensor(values)
    grid = choose_scale(x.min(), x.max(), bits, symmetric=symmetric)
    error = (x.double() - fake_quantize(x, grid).double()).abs().max()
    # at the ends of an affine range the rounded zero point may cost another half step; the rest is float32's rounding
    assert error <= grid.scale.double() * ((0.5 if symmetric else 1.0) + 2**bits * 2.0**-22)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30), st.sampled_from(BITS), st.booleans())
def test_simulated_is_stored_and_rounding_twice_is_rounding_once(values, bits, symmetric):
    x = torch.tensor(values)
    grid = choose_scale(x.min(), x.max(), bits, symmetric=symmetric)
    q = quantize(x, grid)
    assert q.dtype == torch.int32 and grid.qmin <= q.min() and q.max() <= grid.qmax
    assert torch.equal(dequantize(q, grid), fake_quantize(x, grid))
    assert torch.equal(quantize(dequantize(q, grid), grid), q)


def test_stored_bytes_do_not_wrap_below_the_zero_point():
    grid = choose_scale(-1.0, 2.0, 2)
    assert dequantize(torch.tensor([0, 1, 3], dtype=torch.uint8), grid).tolist() == [-1.0, 0.0, 2.0]


# -- rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis, group_size, rows", [(None, None, 1), (0, None, 4), (1, None, 6), (-1, None, 3), (0, 9, 8), (None, 6, 12)])
def test_rows_there_and_back(axis, group_size, rows):
    weight = normal(4, 6, 3)
    parts = to_rows(weight, axis, group_size)
    assert parts.shape == (rows, 72 // rows)
    assert torch.equal(from_rows(parts, weight.shape, axis), weight)


def test_a_row_holds_one_index_of_the_kept_axis():
    weight = normal(4, 6, 3)
    assert torch.equal(to_rows(weight, 1)[2], weight[:, 2].flatten())
    assert torch.equal(to_rows(weight, 0, 9)[3], weight[1].flatten()[9:])


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_an_empty_weight_has_rows_and_a_range(axis):
    low, high = min_max(to_rows(torch.zeros(0, 4), axis))
    assert low.shape == high.shape and (low == 0).all()
    assert choose_scale(low, high, 4).scale.unique().tolist() == [1.0]


# -- degenerate and bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.7, -0.7, 1e-45, 3e38])
def test_a_constant_comes_back(value, symmetric):
    x = torch.full((5,), value)
    grid = choose_scale(x.min(), x.max(), 8, symmetric=symmetric)
    assert torch.isfinite(grid.scale).all()
    torch.testing.assert_close(fake_quantize(x, grid), x, rtol=1e-6, atol=1e-44)


@pytest.mark.parametrize("bits, error", [(0, ValueError), (33, ValueError), (17, ValueError), (2.5, TypeError), (True, TypeError)])
def test_bits_out_of_range_are_refused(bits, error):
    with pytest.raises(error, match=f"bits must be a whole number from 1 to 16, got {bits}"):
        choose_scale(0.0, 1.0, bits)


def test_one_bit_has_no_symmetric_grid():
    with pytest.raises(ValueError, match="from 2 to 16, got 1"):
        choose_scale(-1.0, 1.0, 1, symmetric=True)


@pytest.mark.parametrize("low, high", [(math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0)])
def test_a_range_that_is_not_finite_is_refused(low, high):
    with pytest.raises(ValueError, match="a range must be finite"):
        choose_scale(low, high)


def test_a_range_upside_down_is_refused_and_shown():
    with pytest.raises(ValueError, match="from low to high, got 2 to 1"):
        choose_scale(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))


def test_nan_is_refused():
    with pytest.raises(ValueError, match="nan cannot be quantized"):
        quantize(torch.tensor([0.0, math.nan]), choose_scale(0.0, 1.0))


def test_a_group_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="group_size 4 does not divide the 18 weights of each index of axis 0"):
        to_rows(normal(4, 6, 3), 0, 4)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_inside_the_grid_the_error_is_at_most_half_a_step(bits, symmetric):
    """Between the outermost points, in multiples of the step; what is left over is float32's own rounding."""
    for seed, (low, high) in enumerate([(-1.0, 1.0), (-0.3, 2.0), (-5.0, 0.01), (0.2, 0.9)]):
        grid = choose_scale(low, high, bits, symmetric=symmetric)
        least, largest = dequantize(torch.tensor([grid.qmin, grid.qmax]), grid)
        x = least + (largest - least) * torch.rand(20_000, generator=torch.Generator().manual_seed(seed))
        error = (x.double() - fake_quantize(x, grid).double()).abs().max() / grid.scale.double()
        assert 0.49 < error <= 0.5 + 2**bits * 2.0**-23


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bits", [8, 16])
def test_other_dtypes_are_rounded_as_float32_and_keep_their_dtype(dtype, bits):
    x, grid = normal(1000).to(dtype), choose_scale(-2.0, 3.0, bits)
    assert torch.equal(quantize(x, grid), quantize(x.float(), grid))
    assert fake_quantize(x, grid).dtype == dtype
    assert torch.equal(fake_quantize(x, grid), dequantize(quantize(x, grid), grid).to(dtype))
    assert fake_quantize(torch.tensor([1, 2]), choose_scale(0.0, 1.5, 2)).tolist() == [1.0, 1.5]


@pytest.mark.parametrize("bits, symmetric", [(1, False), (2, True), (3, True), (8, True), (16, True)])
def test_the_largest_floats_stay_finite(bits, symmetric):
    largest = torch.finfo(torch.float32).max
    grid = choose_scale(-largest, largest, bits, symmetric=symmetric)
    x = torch.tensor([-largest, 0.0, largest])
    back = fake_quantize(x, grid)
    assert torch.isfinite(grid.scale) and torch.isfinite(back).all() and back[1] == 0
    assert ((back.double() - x.double()).abs() <= 1.001 * grid.scale.double()).all()
