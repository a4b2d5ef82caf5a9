"""Integer layers against plain Python integers, torch's own int32 kernels, and ONNX Runtime."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compresslab.core.uniform import Grid, choose_scale, dequantize, min_max, quantize, to_rows
from compresslab.quantization.integer import (
    LARGEST_BIAS,
    integer_add,
    integer_average_pool,
    integer_bias,
    integer_conv2d,
    integer_linear,
    integer_matmul,
    make_add,
    make_rescale,
    requantize,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(low, high, *shape, seed=0, dtype=torch.uint8):
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def grid_of(x: torch.Tensor, **options) -> Grid:
    return choose_scale(x.min(), x.max(), **options)


def golden_rescale(acc: int, M0: int, shift: int, zero_point: int, low: int, high: int) -> int:
    """What the hardware does with one 32-bit sum, in Python's own integers."""
    product, divisor = abs(acc * M0), 2 ** (31 + shift)
    rounded = (2 * product + divisor) // (2 * divisor)
    return min(max((rounded if acc >= 0 else -rounded) + zero_point, low), high)


class Layer:
    """A float layer, its grids, and its integer form."""

    def __init__(self, weight, bias, x, compute):
        self.x_grid, self.y_grid = grid_of(x), grid_of(compute(x, weight, bias))
        rows = to_rows(weight, axis=0)
        w_grid = choose_scale(*min_max(rows), symmetric=True)
        self.w_scale = w_grid.scale.flatten()
        self.weight = quantize(rows, w_grid).view(weight.shape).to(torch.int8)
        scale = self.x_grid.scale * self.w_scale
        self.zero_point = int(self.x_grid.zero_point)
        self.bias = integer_bias(self.weight, bias, scale, self.zero_point)
        self.plain_bias = integer_bias(self.weight, bias, scale, 0)  # without the input's zero point
        self.rescale = make_rescale(scale, self.y_grid)
        self.x = quantize(x, self.x_grid).to(torch.uint8)
        self.real = compute(dequantize(self.x.int(), self.x_grid), self.weight * self.w_scale.view(-1, *[1] * (weight.ndim - 1)), bias)


def linear(rows=7, inputs=13, outputs=5):
    return Layer(randn(outputs, inputs), randn(outputs, seed=1), randn(rows, inputs, seed=2) + 0.3, F.linear)


CONVS = [
    dict(stride=1, padding=1),
    dict(stride=2, padding=0),
    dict(stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    dict(padding=1, groups=2),
    dict(padding=1, groups=4),
]


def conv(options, outputs=4):
    weight = randn(outputs, 4 // options.get("groups", 1), 3, 3)
    return Layer(weight, randn(outputs, seed=1), randn(2, 4, 6, 7, seed=2) + 0.3, lambda x, w, b: F.conv2d(x, w, b, **options))


def golden_linear(layer: Layer) -> list[list[int]]:
    """The layer in Python integers, with the zero point where the equation has it."""
    x, w, b = layer.x.tolist(), layer.weight.tolist(), layer.plain_bias.tolist()
    M0, shift, *bounds = (v.tolist() if isinstance(v, torch.Tensor) else v for v in layer.rescale)
    return [
        [
            golden_rescale(sum((q1 - layer.zero_point) * q2 for q1, q2 in zip(row, w[o], strict=True)) + b[o], M0[o], shift[o], *bounds)
            for o in range(len(w))
        ]
        for row in x
    ]


def golden_conv(layer: Layer, stride=1, padding=0, dilation=1, groups=1) -> torch.Tensor:
    (sh, sw), (ph, pw), (dh, dw) = ((v, v) if isinstance(v, int) else v for v in (stride, padding, dilation))
    x, w, b = layer.x.tolist(), layer.weight.tolist(), layer.plain_bias.tolist()
    M0, shift, *bounds = (v.tolist() if isinstance(v, torch.Tensor) else v for v in layer.rescale)
    N, _, H, W = layer.x.shape
    O, I, kh, kw = layer.weight.shape
    height, width = (H + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (W + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    out = torch.zeros(N, O, height, width, dtype=torch.uint8)
    for n, o, i, j in itertools.product(range(N), range(O), range(height), range(width)):
        first, acc = o // (O // groups) * I, b[o]
        for c, u, v in itertools.product(range(I), range(kh), range(kw)):
            y, z = i * sh + u * dh - ph, j * sw + v * dw - pw
            if 0 <= y < H and 0 <= z < W:  # outside is real zero: it adds nothing
                acc += (x[n][first + c][y][z] - layer.zero_point) * w[o][c][u][v]
        out[n, o, i, j] = golden_rescale(acc, M0[o], shift[o], *bounds)
    return out


def test_linear_is_the_golden_vector():
    layer = linear()
    got = integer_linear(layer.x, layer.weight, layer.bias, layer.rescale)
    assert got.dtype == torch.uint8 and got.tolist() == golden_linear(layer)
    assert (got.int() - quantize(layer.real, layer.y_grid)).abs().max() <= 1


@pytest.mark.parametrize("options", CONVS)
def test_conv_is_the_golden_vector(options):
    layer = conv(options)
    got = integer_conv2d(layer.x, layer.weight, layer.bias, layer.rescale, zero_point=layer.zero_point, **options)
    assert got.dtype == torch.uint8 and torch.equal(got, golden_conv(layer, **options))
    assert (got.int() - quantize(layer.real, layer.y_grid)).abs().max() <= 1


@pytest.mark.parametrize("channels", [16, 64, 512])
def test_sums_are_exact_at_the_extremes(channels):
    """All integers as large as they come, beyond what float32 holds: torch's int32 kernels are the oracle."""
    x = torch.where(integers(0, 1, 2, channels, 6, 6) > 0, 255, 254).to(torch.uint8)
    weight = torch.where(integers(0, 7, 8, channels, 3, 3, seed=1) > 0, 127, -126).to(torch.int8)
    grid = Grid(torch.tensor(2.0**18), torch.tensor(3, dtype=torch.int32), 0, 255)
    rescale, bias = make_rescale(torch.ones(8), grid), torch.zeros(8, dtype=torch.int32)
    want = requantize(F.conv2d(x.int(), weight.int()), rescale, axis=1)
    assert torch.equal(integer_conv2d(x, weight, bias, rescale), want)
    # scale 1: every unit of the sum shows, up to 255 of them
    fine = make_rescale(torch.ones(8), grid._replace(scale=torch.tensor(1.0)))
    flat, rows = x.flatten(1), weight.flatten(1).repeat(1, 4)
    sums = flat.int() @ rows.int().T
    centred = integer_linear(flat, rows, -sums[0], fine)
    assert torch.equal(centred, (sums - sums[0] + 3).clamp(0, 255).to(torch.uint8)) and (centred[0] == 3).all()


@pytest.mark.parametrize("z2", [0, -4, torch.tensor([1, -2, 3], dtype=torch.int32)])
def test_cross_terms(z2):
    q1, q2 = integers(0, 255, 4, 9), integers(-128, 127, 9, 3, seed=1, dtype=torch.int8)
    got = integer_matmul(q1, q2, 17, z2)
    assert got.dtype == torch.int32 and torch.equal(got, (q1.int() - 17) @ (q2.int() - z2))


def test_clamp_before_cast():
    rescale = make_rescale(torch.tensor(1.0), choose_scale(-1.0, 1.5))
    got = requantize(torch.tensor([-10, 0, 10, 2**31 - 1, -(2**31)], dtype=torch.int32), rescale)
    assert got.dtype == torch.uint8 and got.tolist() == [0, 102, 255, 255, 0]
    signed = make_rescale(torch.tensor(1.0), choose_scale(-1.0, 1.0, symmetric=True))
    got = requantize(torch.tensor([-10, 0, 10], dtype=torch.int32), signed)
    assert got.dtype == torch.int8 and got.tolist() == [-127, 0, 127]


def test_int8_inputs():
    layer = linear()
    shifted = (layer.x.int() - 128).to(torch.int8)
    bias = integer_bias(layer.weight, None, layer.x_grid.scale * layer.w_scale, layer.zero_point - 128)
    plain = integer_bias(layer.weight, None, layer.x_grid.scale * layer.w_scale, layer.zero_point)
    assert torch.equal(
        integer_linear(shifted, layer.weight, bias, layer.rescale), integer_linear(layer.x, layer.weight, plain, layer.rescale)
    )


def golden_add(x, y, c) -> list[int]:
    out = []
    for q1, q2 in zip(x.tolist(), y.tolist(), strict=True):
        total = 0
        for q, z, M0, shift in zip((q1, q2), c.zero_points, c.M0.tolist(), c.shift.tolist(), strict=True):
            total += golden_rescale((q - z) << c.left, M0, shift, 0, -(2**31), 2**31 - 1)
        rounded = (2 * abs(total) + 2**c.left) // 2 ** (c.left + 1)
        out.append(min(max((rounded if total >= 0 else -rounded) + c.zero_point, c.low), c.high))
    return out


@pytest.mark.parametrize("ranges", [((-1, 1), (-2, 3), (-3, 4)), ((0, 6), (-5, 0.1), (0, 6)), ((-1, 1), (-1, 1), (-0.001, 0.001))])
def test_add(ranges):
    grids = [choose_scale(float(a), float(b)) for a, b in ranges]
    x, y = (q.flatten() for q in torch.meshgrid(torch.arange(0, 256, 5), torch.arange(0, 256, 5), indexing="ij"))
    x, y, constants = x.to(torch.uint8), y.to(torch.uint8), make_add(*grids)
    got = integer_add(x, y, constants)
    assert got.dtype == torch.uint8 and got.tolist() == golden_add(x, y, constants)
    real = dequantize(x.int(), grids[0]).double() + dequantize(y.int(), grids[1]).double()
    want = torch.round(real / grids[2].scale.double()) + grids[2].zero_point
    assert (got - want.clamp(0, 255)).abs().max() <= 1
    assert (got == want.clamp(0, 255)).float().mean() > 0.95  # the rest are ties, which went away from zero
    relu = integer_add(x, y, make_add(*grids, low=int(grids[2].zero_point)))
    assert torch.equal(relu, got.clamp(min=int(grids[2].zero_point)))


@pytest.mark.parametrize("kernel, stride, padding", [((2, 2), None, 0), ((3, 2), (2, 1), 0), ((3, 3), (2, 2), 1), ((6, 6), None, 0)])
def test_average_pool(kernel, stride, padding):
    x = randn(2, 3, 6, 6) + 0.5
    grid = grid_of(x)
    q = quantize(x, grid).to(torch.uint8)
    real = F.avg_pool2d(dequantize(q.int(), grid).double(), kernel, stride, padding)
    out = grid_of(real)
    rescale = make_rescale(grid.scale / (kernel[0] * kernel[1]), out)
    got = integer_average_pool(q, kernel, rescale, zero_point=int(grid.zero_point), stride=stride, padding=padding)
    assert got.dtype == torch.uint8 and got.shape == real.shape
    assert (got - quantize(real, out)).abs().max() <= 1
    window = q[0, 0, : kernel[0], : kernel[1]].flatten().tolist()
    if not padding:
        total = sum(v - int(grid.zero_point) for v in window)
        assert int(got[0, 0, 0, 0]) == golden_rescale(total, int(rescale.M0), int(rescale.shift), *rescale[2:])


def run_onnx(op: str, inputs: dict[str, np.ndarray], shape: tuple[int, ...], **attributes) -> np.ndarray:
    """One ONNX operator on constant operands."""
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in inputs.items()]
    node = helper.make_node(op, list(inputs), ["y"], **attributes)
    out = helper.make_tensor_value_info("y", TensorProto.UINT8, shape)
    graph = helper.make_graph([node], "one", [], [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, {})[0]


def on_grid(grid: Grid, name: str) -> dict[str, np.ndarray]:
    return {f"{name}_scale": grid.scale.numpy(), f"{name}_zero": grid.zero_point.numpy().astype(np.uint8)}


@pytest.mark.parametrize("options", CONVS)
def test_onnx_runtime_qlinearconv_within_one_step(options):
    layer = conv(options)
    got = integer_conv2d(layer.x, layer.weight, layer.bias, layer.rescale, zero_point=layer.zero_point, **options)
    pairs = {key: (v, v) if isinstance(v, int) else v for key, v in options.items() if key != "groups"}
    ph, pw = pairs.get("padding", (0, 0))
    want = run_onnx(
        "QLinearConv",
        {"x": layer.x.numpy()} | on_grid(layer.x_grid, "x")
        | {"w": layer.weight.numpy(), "w_scale": layer.w_scale.numpy(), "w_zero": np.zeros(len(layer.weight), np.int8)}
        | on_grid(layer.y_grid, "y") | {"b": layer.plain_bias.numpy()},
        got.shape, strides=pairs.get("stride", (1, 1)), pads=[ph, pw, ph, pw], dilations=pairs.get("dilation", (1, 1)),
        group=options.get("groups", 1),
    )  # fmt: skip
    assert np.abs(got.numpy().astype(int) - want).max() <= 1
    assert (got.numpy() == want).mean() > 0.95


def test_onnx_runtime_qlinearmatmul_within_one_step():
    layer = Layer(randn(6, 40), None, randn(20, 40, seed=2) + 0.3, F.linear)
    got = integer_linear(layer.x, layer.weight, layer.bias, layer.rescale)
    want = run_onnx(
        "QLinearMatMul",
        {"x": layer.x.numpy()} | on_grid(layer.x_grid, "x")
        | {"w": np.ascontiguousarray(layer.weight.numpy().T), "w_scale": layer.w_scale.numpy(), "w_zero": np.zeros(6, np.int8)}
        | on_grid(layer.y_grid, "y"),
        got.shape,
    )  # fmt: skip
    assert np.abs(got.numpy().astype(int) - want).max() <= 1
    assert (got.numpy() == want).mean() > 0.95


def test_errors():
    layer = linear()
    with pytest.raises(TypeError, match="x must be uint8 or int8"):
        integer_linear(layer.x.float(), layer.weight, layer.bias, layer.rescale)
    with pytest.raises(TypeError, match="weight must be int8"):
        integer_linear(layer.x, layer.weight.int(), layer.bias, layer.rescale)
    with pytest.raises(TypeError, match="bias must be int32"):
        integer_linear(layer.x, layer.weight, layer.bias.float(), layer.rescale)
    weight, scale = torch.ones(1, 4, dtype=torch.int8), torch.tensor([1.0])
    with pytest.raises(ValueError, match="might not fit into 32 bits"):
        integer_bias(weight, torch.tensor([LARGEST_BIAS * 2.0]), scale, 0)
    with pytest.raises(ValueError, match="might not fit into 32 bits"):
        integer_bias(torch.full((1, 40_000), 127, dtype=torch.int8), None, scale, 0)


def test_empty_batches():
    layer = linear()
    assert integer_linear(layer.x[:0], layer.weight, layer.bias, layer.rescale).shape == (0, 5)
    assert nn.Linear(13, 5)(torch.zeros(0, 13)).shape == (0, 5)


@pytest.mark.parametrize("bias, scale", [(float("nan"), 1.0), (1.0, float("nan")), (0.0, 0.0)])
def test_a_bias_that_is_nan_is_refused(bias, scale):
    with pytest.raises(ValueError, match="the bias must be finite"):
        integer_bias(torch.ones(1, 2, dtype=torch.int8), torch.tensor([bias]), torch.tensor([scale]), 0)
