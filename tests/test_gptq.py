"""GPTQ against Optimal Brain Quantization written out row by row, and against rounding to the nearest."""

import copy
import itertools
import math

import pytest
import torch
from contract_models import Tied
from torch import nn

from compresslab.core.calibrate import input_moments
from compresslab.core.codes import UniformCode
from compresslab.core.layers import decompress, encode
from compresslab.core.modules import apply_mask_
from compresslab.core.size import storage_bits
from compresslab.core.store import load, save
from compresslab.core.uniform import choose_scale, dequantize, from_rows, min_max, quantize
from compresslab.quantization.gptq import encode_gptq, gptq


def problem(outputs=6, inputs=24, rows=80, seed=0):
    """Weights, and inputs that are correlated."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(inputs, inputs, generator=g).double() @ torch.randn(inputs, rows, generator=g).double()
    return torch.randn(outputs, inputs, generator=g), X


def decoded(weight, H, *args, **kwargs):
    q, grid = gptq(weight, H, *args, **kwargs)
    return UniformCode.from_rows(q, grid, weight.shape).decode()


def error(W, V, X):
    return ((V.double() - W.double()) @ X).square().sum()


def obq(weight, H, order, make_grid):
    """Row by row, one inverse at a time: round a weight, let all that are left make up for it, drop it."""
    out = torch.zeros_like(weight)
    for i, row in enumerate(weight.double()):
        row, left = row.clone(), list(order)
        for j in order:
            H_inv = torch.linalg.inv(H[left][:, left])
            grid = make_grid(i, j, row)
            rounded = dequantize(quantize(row[j].float(), grid), grid)
            out[i, j] = rounded
            row[left] -= (row[j] - rounded) / H_inv[0, 0] * H_inv[0]
            left.remove(j)
    return out


def row_grid(weight, bits, symmetric=True):
    return lambda i, j, row: choose_scale(weight[i].min(), weight[i].max(), bits, symmetric=symmetric)


@pytest.mark.parametrize("bits, symmetric", [(2, True), (3, False), (4, True)])
def test_equals_obq_in_the_same_order(bits, symmetric):
    W, X = problem(inputs=12)
    H = X @ X.T
    ours = decoded(W, H, bits, symmetric=symmetric, damp=0.0)
    assert torch.equal(ours, obq(W, H, range(12), row_grid(W, bits, symmetric)))


def test_order_by_activation_equals_obq_in_that_order():
    W, X = problem(inputs=12)
    X = X * torch.linspace(0.3, 3, 12).roll(5).double().unsqueeze(1)
    H = X @ X.T
    order = H.diagonal().argsort(descending=True).tolist()
    assert order != list(range(12))
    assert torch.equal(decoded(W, H, 3, order="activation", damp=0.0), obq(W, H, order, row_grid(W, 3)))


def test_groups_take_their_grid_from_the_updated_weights():
    W, X = problem(inputs=12)
    H, grids = X @ X.T, {}

    def at_the_start(i, j, row):
        if j % 4 == 0:
            grids[i] = choose_scale(*min_max(row[j : j + 4].float()), 3, symmetric=True)
        return grids[i]

    expected = obq(W, H, range(12), at_the_start)  # scales of updated weights may differ in their last bit
    torch.testing.assert_close(decoded(W, H, 3, group_size=4, damp=0.0), expected, rtol=1e-6, atol=0)
    q, grid = gptq(W, H, 3, group_size=4, damp=0.0)
    assert q.shape == (18, 4) and grid.scale.shape == (18, 1)
    static, _ = gptq(W, H, 3, group_size=4, damp=0.0, order="activation")
    assert not torch.equal(static, q)


def test_one_scale_for_the_tensor():
    W, X = problem(inputs=12)
    grid = choose_scale(W.min(), W.max(), 4, symmetric=True)
    expected = obq(W, X @ X.T, range(12), lambda i, j, row: grid)
    q, got = gptq(W, X @ X.T, 4, axis=None, damp=0.0)
    assert q.shape == (1, 72) and torch.equal(got.scale.flatten(), grid.scale.flatten())
    assert torch.equal(from_rows(dequantize(q, got), W.shape), expected)


@pytest.mark.parametrize("diagonal", [torch.ones(24), torch.linspace(0.1, 5, 24)])
@pytest.mark.parametrize("scales", [{"axis": 0}, {"axis": None}, {"group_size": 8}])
@pytest.mark.parametrize("symmetric", [True, False])
def test_uncorrelated_inputs_give_rounding_to_the_nearest(diagonal, scales, symmetric):
    W, _ = problem()
    nearest = UniformCode.from_dense(W, 4, symmetric=symmetric, **scales).decode()
    for order in (None, "activation"):
        ours = decoded(W, torch.diag(diagonal), 4, symmetric=symmetric, order=order, **scales)
        assert torch.equal(ours, nearest)


@pytest.mark.parametrize("choice", [{}, {"group_size": 5}, {"order": "activation"}, {"axis": None}])
def test_lazy_blocks_change_nothing(choice):
    W, X = problem(inputs=25)
    whole, grid = gptq(W, X @ X.T, 4, block=1000, **choice)
    for block in (1, 4, 5, 7, 12, 24):
        q, same = gptq(W, X @ X.T, 4, block=block, **choice)
        assert torch.equal(q, whole) and torch.equal(same.scale, grid.scale)


def test_better_than_rounding_on_average_but_not_on_every_row():
    better = worse = 0
    ratios = []
    for seed in range(20):
        W, X = problem(outputs=16, seed=seed)
        ours, nearest = decoded(W, X @ X.T, 4), UniformCode.from_dense(W, 4, axis=0).decode()
        ratios.append(float(error(W, ours, X) / error(W, nearest, X)))
        rows = [error(W[i : i + 1], V[i : i + 1], X) for V in (ours, nearest) for i in range(16)]
        better += sum(a < b for a, b in zip(rows[:16], rows[16:], strict=True))
        worse += sum(a > b for a, b in zip(rows[:16], rows[16:], strict=True))
    assert max(ratios) < 1 and sum(ratios) / 20 < 0.6
    assert worse > 0 and better > 5 * worse


def test_against_all_roundings_of_a_short_row():
    """Of 2^6 ways to round up or down GPTQ finds one of the best, and never beats the best."""
    ranks = []
    for seed in range(20):
        W, X = problem(outputs=1, inputs=6, seed=seed)
        grid = choose_scale(W.min(), W.max(), 4, symmetric=True)
        ways = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
        all_of_them = ((W / grid.scale).floor() + ways).clamp(grid.qmin, grid.qmax) * grid.scale
        errors = ((all_of_them.double() - W) @ X).square().sum(1)
        ranks.append(int((errors < error(W, decoded(W, X @ X.T, 4, damp=0.0), X) * (1 - 1e-9)).sum()))
    assert sum(ranks) / 20 < 8 and ranks.count(0) >= 3


def test_dead_inputs_and_degenerate_weights():
    W, X = problem(inputs=10)
    X[3] = 0
    dead = decoded(W, X @ X.T, 4, damp=0.01)
    live = [j for j in range(10) if j != 3]
    grid = choose_scale(*min_max(W), 4, symmetric=True)
    assert torch.equal(dead[:, 3], dequantize(quantize(W, grid), grid)[:, 3])  # nothing is passed on to it
    expected = obq(W[:, live], (X @ X.T)[live][:, live], range(9), row_grid(W, 4))
    assert torch.equal(decoded(W, X @ X.T, 4, damp=0.0)[:, live], expected)
    nothing_known = decoded(W, torch.zeros(10, 10), 4)
    assert torch.equal(nothing_known, UniformCode.from_dense(W, 4, axis=0).decode())
    for weight in (torch.zeros(2, 10), torch.full((2, 10), 0.7), torch.full((2, 10), -0.7)):
        assert torch.isfinite(decoded(weight, X @ X.T, 4)).all()
    assert not decoded(torch.zeros(2, 10), X @ X.T, 4).any()
    for shape in ((0, 10), (2, 0)):
        assert decoded(torch.zeros(shape), torch.eye(shape[1]), 4).shape == shape
    one = torch.tensor([[0.3], [-2.0]])  # a row of a single value
    torch.testing.assert_close(decoded(one, torch.eye(1), 4), one)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()


def images(n=120):
    x = torch.randn(n, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    return x + x.roll(1, -1) + x.roll(1, -2)  # neighbours are correlated


def test_encodes_layer_by_layer_and_beats_rounding():
    model, x = net(), images()
    before = copy.deepcopy(model.state_dict())
    coded = encode_gptq(model, iter([x[:60], (x[60:], torch.zeros(60))]), 3)
    nearest = encode(model, lambda weight: UniformCode.from_dense(weight, 3, axis=0))
    assert storage_bits(coded) == storage_bits(nearest)
    with torch.no_grad():
        assert (coded(x) - model(x)).square().sum() < 0.8 * (nearest(x) - model(x)).square().sum()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    behind = copy.deepcopy(model)  # layer 3 is calibrated behind the coded convolution
    behind[0] = decompress(coded)[0]
    H = input_moments(behind, ["3"], [x[:60], x[60:]])["3"]
    torch.testing.assert_close(coded[3].weight, decoded(model[3].weight, H, 3))
    H = input_moments(model, ["0"], [x[:60], x[60:]])["0"]
    torch.testing.assert_close(coded[0].weight.flatten(1), decoded(model[0].weight.flatten(1), H, 3))


def test_options_files_and_layers_left_out(tmp_path):
    model, x = net(), images()
    coded = encode_gptq(
        model, [x], 4, group_size=2, symmetric=False, order="activation", only=["0", "3"], skip=["3"]
    )
    assert len(coded[0].coded.scale) == 54 and coded[0].coded.zero_point is not None
    assert type(coded[3]) is nn.Linear and torch.equal(coded[3].weight, model[3].weight)
    save(coded, tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "model", model)(x), coded(x))
    masked = copy.deepcopy(model)
    apply_mask_(masked[3], torch.rand(8, 54, generator=torch.Generator().manual_seed(0)) < 0.5)
    assert torch.isfinite(encode_gptq(masked, [x])[3].weight).all()


def test_a_weight_that_two_layers_share_stays_shared():
    torch.manual_seed(0)
    model, tokens = Tied(), torch.randint(0, 11, (50, 4), generator=torch.Generator().manual_seed(0))
    coded = encode_gptq(model, [tokens], 4)
    assert coded.embedding.coded is coded.out.coded
    assert storage_bits(coded) < storage_bits(model) / 3


def test_errors():
    W, X = problem(inputs=8)
    H = X @ X.T
    for bad in (0, 1, 9, 33):
        with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8"):
            gptq(W, H, bad)
    with pytest.raises(TypeError, match="bits must be a whole number"):
        gptq(W, H, 2.5)
    with pytest.raises(ValueError, match="group_size 3 does not divide the 8"):
        gptq(W, H, group_size=3)
    with pytest.raises(ValueError, match="block must be a whole number"):
        gptq(W, H, block=0)
    with pytest.raises(ValueError, match="axis must be 0"):
        gptq(W, H, axis=1)
    with pytest.raises(ValueError, match="order must be None"):
        gptq(W, H, order="random")
    with pytest.raises(ValueError, match=r"needs H \(I, I\)"):
        gptq(W, H[:4, :4])
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="weight must be finite"):
            gptq(torch.full((2, 8), bad), H)
        with pytest.raises(ValueError, match="H must be finite"):
            gptq(W, torch.full((8, 8), bad))
    with pytest.raises(ValueError, match="positive definite"):
        gptq(W, torch.ones(8, 8), damp=0.0)
    with pytest.raises(TypeError, match="floating-point"):
        gptq(torch.ones(2, 8, dtype=torch.int32), H)
    with pytest.raises(ValueError, match=r"group_size 5 does not divide the 18 .* in layer '0'"):
        encode_gptq(net(), [images(2)], group_size=5)
    with pytest.raises(ValueError, match="no calibration data"):
        encode_gptq(net(), [])
    with pytest.raises(ValueError, match="grouped convolution"):
        encode_gptq(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), [torch.ones(1, 2, 1, 1)])
    with pytest.raises(ValueError, match="no such layer"):
        encode_gptq(net(), [images(2)], only=["1"])
    with pytest.raises(ValueError, match="nothing to code"):
        encode_gptq(nn.Sequential(nn.ReLU()), [images(2)])
    attention = nn.MultiheadAttention(4, 2)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            return self.attention(x, x, x)[0]

    with pytest.raises(ValueError, match="no calibration data reached layer 'attention.out_proj'"):
        encode_gptq(Wrapped(), [torch.ones(2, 3, 4)])
