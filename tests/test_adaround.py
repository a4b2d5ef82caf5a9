"""AdaRound against all roundings of a row, and never worse than rounding to nearest."""

import copy
import math

import pytest
import torch
from torch import nn

from compresslab.core.calibrate import input_moments
from compresslab.core.codes import UniformCode
from compresslab.core.layers import CodedConv2d, CodedLinear, encode
from compresslab.core.uniform import choose_scale, min_max, quantize
from compresslab.models import build_model
from compresslab.quantization.adaround import (
    adaround,
    best_rounding,
    encode_adaround,
    rectified_sigmoid,
    rounding_error,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relu_moments(n: int, seed: int = 1) -> torch.Tensor:
    """H of inputs that are positive and correlated, as behind a ReLU."""
    X = (randn(n, 64, seed=seed) + 0.5 * randn(1, 64, seed=seed + 1)).clamp(min=0)
    return (X @ X.T).double()


def problem(rows: int = 100, n: int = 8, bits: int = 3):
    W, H = randn(rows, n), relu_moments(n)
    return W, H, choose_scale(*min_max(W), bits, symmetric=True)


def test_best_rounding_is_the_best_of_all():
    W, H, grid = problem(rows=5)
    for row, scale in zip(W, grid.scale.flatten().tolist(), strict=True):
        q, cost = best_rounding(row, scale, H)
        error = q.double() * scale - row.double()
        assert cost == pytest.approx((error @ H @ error).item())
        assert (error.abs() < scale).all()
        for seed in range(20):  # no other choice of up and down beats it
            up = torch.rand(8, generator=torch.Generator().manual_seed(seed)) < 0.5
            other = (torch.floor(row.double() / scale) + up) * scale - row.double()
            assert cost <= (other @ H @ other).item() + 1e-12
    q, _ = best_rounding(randn(8), 0.5, torch.eye(8))
    assert torch.equal(q, torch.round(randn(8) / 0.5).int())  # uncorrelated inputs: nearest is best


def test_close_to_the_best_of_all_roundings_and_never_worse_than_nearest():
    W, H, grid = problem()
    nearest = rounding_error(W, quantize(W, grid), H, grid)
    learned = rounding_error(W, adaround(W, H, grid), H, grid)
    best = torch.tensor([best_rounding(w, s, H)[1] for w, s in zip(W, grid.scale.flatten().tolist(), strict=True)])
    assert (learned <= nearest).all()
    assert (learned >= best * (1 - 1e-4)).all()
    assert learned.sum() < 1.1 * best.sum() < nearest.sum() * 0.85
    assert (learned <= best * 1.001).float().mean() > 0.7 > 0.5 > (nearest <= best * 1.001).float().mean()


def test_every_weight_goes_up_or_down_and_zeros_stay():
    W, H, _ = problem(rows=20)
    W[:, 3] = 0
    for symmetric in (True, False):
        grid = choose_scale(*min_max(W), 3, symmetric=symmetric)
        q = adaround(W, H, grid, steps=100)
        assert q.dtype == torch.int32 and q.min() >= grid.qmin and q.max() <= grid.qmax
        assert (((q - grid.zero_point) * grid.scale - W).abs() <= grid.scale * 1.0001).all()
        assert (q[:, 3] == grid.zero_point[:, 0]).all()


def test_degenerate_rows_are_exact():
    H = relu_moments(4)
    for W in (torch.zeros(2, 4), torch.full((2, 4), 0.7), torch.tensor([[1.0, -1.0, 0.0, 1.0]])):
        grid = choose_scale(*min_max(W), 4, symmetric=True)
        torch.testing.assert_close((adaround(W, H, grid, steps=20) * grid.scale), W)
    W, grid = randn(3, 4), choose_scale(-3.0, 3.0, 4, symmetric=True)
    for dead in (torch.zeros(4, 4), torch.eye(4)):  # no input, or uncorrelated ones
        assert torch.equal(adaround(W, dead, grid, steps=200), quantize(W, grid))
    assert torch.equal(adaround(W, H, grid, steps=0), quantize(W, grid))


def test_rectified_sigmoid():
    torch.testing.assert_close(rectified_sigmoid(torch.tensor([-3.0, 0.0, 3.0])), torch.tensor([0.0, 0.5, 1.0]))
    h = torch.tensor([0.0, 0.25, 0.75])
    torch.testing.assert_close(rectified_sigmoid(torch.logit((h + 0.1) / 1.2)), h)


class TestModel:
    def data(self):
        return [randn(16, 3, 16, 16, seed=5).abs(), (randn(16, 3, 16, 16, seed=6).abs(), None)]

    def test_layer_outputs_are_closer_at_3_bits(self):
        model = build_model("resnet", width=4).eval()
        before = copy.deepcopy(model.state_dict())
        coded = encode_adaround(model, self.data(), bits=3, steps=150, only=["conv1", "fc"])
        nearest = encode(model, lambda w: UniformCode.from_dense(w, 3, axis=0), only=["conv1", "fc"])
        assert isinstance(coded.conv1, CodedConv2d) and isinstance(coded.fc, CodedLinear)
        H = input_moments(model, ["conv1"], self.data())["conv1"]
        error = [
            (lambda E: ((E @ H) * E).sum())((m.conv1.weight - model.conv1.weight).flatten(1).double())
            for m in (coded, nearest)
        ]
        assert error[0] < 0.97 * error[1]
        assert torch.equal(coded.conv1.coded.scale, nearest.conv1.coded.scale)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())

    def test_groups_of_weights_grouped_convolutions_and_ties(self):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)
        )
        model[5].weight = model[3].weight
        x = randn(20, 4, 4, 4)
        coded = encode_adaround(model, [x], bits=4, group_size=9, symmetric=False, only=["0"])
        assert torch.equal(coded[0].weight, UniformCode.from_dense(model[0].weight, axis=0, symmetric=False).decode())
        coded = encode_adaround(model, [x], bits=4, group_size=8, skip=["0"], steps=50)
        assert coded[3].coded is coded[5].coded and len(coded[3].coded.scale) == 32
        assert (coded[3].weight - model[3].weight).abs().max() < model[3].weight.abs().max() / 7 * 1.001

    def test_errors(self):
        model = nn.Sequential(nn.Linear(3, 2))
        for bits in (0, 1, 33):
            with pytest.raises(ValueError, match="bits must be"):
                encode_adaround(model, [randn(4, 3)], bits=bits)
        with pytest.raises(TypeError, match="bits must be"):
            encode_adaround(model, [randn(4, 3)], bits=2.5)
        with pytest.raises(ValueError, match="group_size 2 does not divide the 3 weights.*layer '0'"):
            encode_adaround(model, [randn(4, 3)], group_size=2)
        with pytest.raises(ValueError, match="no calibration data"):
            encode_adaround(model, [])
        with pytest.raises(ValueError, match="no such layer"):
            encode_adaround(model, [randn(4, 3)], only=["fc"])
        model[0].weight.data[0, 0] = math.nan
        with pytest.raises(ValueError, match="finite.*layer '0'"):
            encode_adaround(model, [randn(4, 3)])


def test_errors():
    grid = choose_scale(-1.0, 1.0, 4, symmetric=True)
    with pytest.raises(ValueError, match="needs H"):
        adaround(torch.ones(2, 3), torch.eye(2), grid)
    with pytest.raises(ValueError, match="H must be finite"):
        adaround(torch.ones(2, 3), torch.full((3, 3), math.nan), grid)
    with pytest.raises(ValueError, match="steps must be"):
        adaround(torch.ones(2, 3), torch.eye(3), grid, steps=-1)
    for row, H in ((torch.ones(17), torch.eye(17)), (torch.ones(3), torch.eye(2)), (torch.ones(0), torch.ones(0, 0))):
        with pytest.raises(ValueError, match="1 to 16 weights needs H"):
            best_rounding(row, 1.0, H)


def test_a_layer_without_data_and_a_bad_grouped_convolution_are_named():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match="no calibration data reached layer 'unused'; skip it"):
        encode_adaround(Partly(), [randn(4, 3)], steps=1)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    model[0].weight.data[0] = math.nan
    with pytest.raises(ValueError, match="finite.*in layer '0'"):
        encode_adaround(model, [randn(2, 4, 4, 4)], steps=1)


def test_how_often_nearest_is_the_best_of_all_roundings():
    """Of rows of 8, about two in five behind a ReLU; with uncorrelated inputs, every one."""
    W, H, grid = problem(rows=200)
    scales = grid.scale.flatten().tolist()
    for moments, low, high in ((H, 0.25, 0.5), (torch.eye(8).double(), 1.0, 1.0)):
        nearest = rounding_error(W, quantize(W, grid), moments, grid)
        best = torch.tensor([best_rounding(w, s, moments)[1] for w, s in zip(W, scales, strict=True)])
        assert (nearest >= best * (1 - 1e-6)).all()
        assert low <= (nearest <= best * (1 + 1e-6)).double().mean() <= high
