"""SmoothQuant: the same function, equal ranges at alpha one half, and a smaller error in 8 bits."""

import copy
import math

import pytest
import torch
from torch import nn

from compresslab.core.calibrate import collect_inputs
from compresslab.core.modules import apply_mask_
from compresslab.core.uniform import choose_scale, fake_quantize
from compresslab.quantization.smoothquant import input_absmax, smooth, smooth_layers, smooth_scale


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loud(rows=100, inputs=32):
    x = randn(rows, inputs)
    x[:, [3, 20]] *= 100
    return x


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("shape", [(8, 32), (8, 32, 3), (8, 32, 3, 3)])
def test_product_is_unchanged_and_the_formula_holds(alpha, shape):
    weight, absmax_x = randn(*shape, seed=1), loud().abs().amax(0)
    smoothed, s = smooth(weight, absmax_x, alpha)
    absmax_w = weight.transpose(0, 1).flatten(1).abs().amax(1)
    torch.testing.assert_close(s.double(), absmax_x**alpha / absmax_w ** (1 - alpha), rtol=1e-5, atol=0)
    torch.testing.assert_close(smoothed.transpose(0, 1).flatten(1) / s.unsqueeze(1), weight.float().transpose(0, 1).flatten(1))
    if len(shape) == 2:
        x = loud()
        torch.testing.assert_close((x / s) @ smoothed.double().T, x @ weight.T, rtol=1e-4, atol=1e-4)


def test_alpha_one_half_equalises_and_the_ends_give_unit_ranges():
    weight, x = randn(8, 32, seed=1), loud()
    absmax = lambda t: t.double().abs().amax(0)  # noqa: E731
    smoothed, s = smooth(weight, absmax(x), 0.5)
    torch.testing.assert_close(absmax(x / s), absmax(smoothed), rtol=1e-5, atol=0)
    torch.testing.assert_close(absmax(x / s), (absmax(x) * absmax(weight)).sqrt(), rtol=1e-5, atol=0)
    ones = torch.ones(32, dtype=torch.float64)
    torch.testing.assert_close(absmax(x / smooth(weight, absmax(x), 1.0)[1]), ones, rtol=1e-5, atol=0)
    torch.testing.assert_close(absmax(smooth(weight, absmax(x), 0.0)[0]), ones, rtol=1e-5, atol=0)


def test_zero_channels_keep_their_scale():
    s = smooth_scale(torch.tensor([0.0, 4.0, 0.0, 1e-45]), torch.tensor([1.0, 0.0, 0.0, 3e38]), 0.5)
    assert torch.equal(s[:3], torch.ones(3)) and torch.isfinite(s).all() and (s > 0).all()
    weight, s = smooth(torch.zeros(2, 3), torch.ones(3))
    assert not weight.any() and torch.equal(s, torch.ones(3))


def test_a_whole_tensor_in_8_bits_loses_less_afterwards():
    weight, x = randn(16, 32, seed=1), loud()
    smoothed, s = smooth(weight, x.abs().amax(0))

    def lost(x, w):
        quantized = [fake_quantize(t, choose_scale(t.min(), t.max(), 8, symmetric=True)) for t in (x, w)]
        return (quantized[0] @ quantized[1].T - x @ w.T).square().sum()

    assert lost(x / s, smoothed.double()) < 0.2 * lost(x, weight)


class Block(nn.Module):
    """LayerNorm that three linear layers read, as in attention; then a linear pair with ReLU in between."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12, bias=False)

    def forward(self, x):
        y = self.norm(x)
        return self.down(torch.relu(self.up(self.q(y) * self.k(y) + self.v(y))))


def test_transformer_like_block():
    torch.manual_seed(0)
    model = Block().double()
    model.norm.weight.data[4] = 80.0
    model.norm.bias.data.normal_()
    x = randn(50, 12)
    before = copy.deepcopy(model.state_dict())
    smoothed = smooth_layers(model, iter([x[:20], (x[20:], 0)]), [("norm", ("q", "k", "v")), ("up", "down")])
    torch.testing.assert_close(smoothed(x), model(x), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    inputs = collect_inputs(smoothed, ["q", "down"], [x])
    weights = torch.cat([layer.weight for layer in (smoothed.q, smoothed.k, smoothed.v)])
    torch.testing.assert_close(inputs["q"].abs().amax(0), weights.abs().amax(0), rtol=1e-5, atol=0)
    fired = inputs["down"].amax(0) > 0  # the others are behind a ReLU that never opens, and keep their scale
    pair = [inputs["down"].amax(0)[fired], smoothed.down.weight.abs().amax(0)[fired]]
    torch.testing.assert_close(*pair, rtol=1e-5, atol=0)
    was = collect_inputs(model, ["q"], [x])["q"].abs().amax(0)
    now = inputs["q"].abs().amax(0)
    assert now.max() / now.min() < 0.5 * was.max() / was.min()
    forgotten = smooth_layers(model, [x], [("norm", ("q", "k"))])  # v is left out: the test would notice
    assert not torch.allclose(forgotten(x), model(x), atol=1e-3)


@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d(6), nn.GroupNorm(2, 6)])
def test_convolutions_and_normalisations(norm):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), *([norm] if norm else []), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 2, padding=1)]
    model, x = nn.Sequential(*layers).double().eval(), randn(20, 3, 8, 8)
    if norm:
        torch.nn.init.normal_(norm.weight)
    writer, reader = ("1", "4") if norm else ("0", "3")
    smoothed = smooth_layers(model, [x], [(writer, reader)], alpha=0.7)
    torch.testing.assert_close(smoothed(x), model(x))
    assert not torch.allclose(smoothed[int(reader)].weight, model[int(reader)].weight)
    absmax = input_absmax(model, [reader], [x])[reader]
    torch.testing.assert_close(absmax, model[: int(reader)](x).abs().amax((0, 2, 3)))


def test_masks_dead_channels_and_one_dimension():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU(), nn.Conv1d(5, 3, 1)).double()
    model[0].weight.data[1], model[0].bias.data[1] = 0.0, -1.0  # a dead channel
    model[2].weight.data[:, 2] = 0.0  # a channel nobody reads
    apply_mask_(model[0], torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.7)
    x = randn(9, 2, 7)
    smoothed = smooth_layers(model, [x], [("0", "2")])
    torch.testing.assert_close(smoothed(x), model(x))
    assert torch.equal(smoothed[0].weight == 0, model[0].weight == 0)


def test_errors():
    for bad in (80, -0.1, math.nan):
        with pytest.raises(ValueError, match="alpha must be in"):
            smooth_scale(torch.ones(2), torch.ones(2), bad)
    with pytest.raises(TypeError, match="alpha must be a number"):
        smooth_scale(torch.ones(2), torch.ones(2), "half")
    with pytest.raises(ValueError, match=r"must have shape \(I,\)"):
        smooth_scale(torch.ones(2), torch.ones(3))
    for bad in (torch.tensor([-1.0]), torch.tensor([math.inf])):
        with pytest.raises(ValueError, match="finite and not negative"):
            smooth_scale(bad, torch.ones(1))
    with pytest.raises(ValueError, match="two axes"):
        smooth(torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match="weight must be finite"):
        smooth(torch.full((2, 3), math.nan), torch.ones(3))
    x = torch.ones(2, 4)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), nn.LayerNorm(2, elementwise_affine=False))
    with pytest.raises(ValueError, match="no layer '9'"):
        smooth_layers(model, [x], [("0", "9")])
    with pytest.raises(TypeError, match="got ReLU in layer '1'"):
        smooth_layers(model, [x], [("1", "2")])
    with pytest.raises(TypeError, match="got LayerNorm in layer '3'"):
        smooth_layers(model, [x], [("0", "3")])
    with pytest.raises(ValueError, match="no weight to divide in layer '3'"):
        smooth_layers(model, [x], [("3", "2")])
    with pytest.raises(ValueError, match="layer '2' has 2 output channels, but layer '0' reads 4"):
        smooth_layers(model, [x], [("2", "0")])
    with pytest.raises(ValueError, match="at least one layer that reads"):
        smooth_layers(model, [x], [("0", ())])
    with pytest.raises(ValueError, match="no calibration data"):
        smooth_layers(model, [], [("0", "2")])
    grouped = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2))
    with pytest.raises(ValueError, match="got groups=2 in layer '1'"):
        smooth_layers(grouped, [torch.ones(1, 2, 1, 1)], [("0", "1")])

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.b(self.a(x))

    with pytest.raises(ValueError, match="no calibration data reached layer 'c'"):
        smooth_layers(Unused(), [torch.ones(1, 2)], [("a", ("b", "c"))])


def test_tied_readers_are_scaled_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.writer, self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3)
            self.two.weight = self.one.weight

        def forward(self, x):
            h = self.writer(x)
            return self.one(h) + 2 * self.two(h)

    torch.manual_seed(0)
    model, x = Tied().double(), loud()[:, :4]
    for readers in (("one", "two"), ("one", "one", "two")):
        smoothed = smooth_layers(model, [x], [("writer", readers)])
        assert smoothed.two.weight is smoothed.one.weight
        assert not torch.allclose(smoothed.one.weight, model.one.weight)
        torch.testing.assert_close(smoothed(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_by_name(bad):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).double()
    with pytest.raises(ValueError, match="finite.*between layer '0' and layer '1'"):
        smooth_layers(model, [torch.full((2, 3), bad).double()], [("0", "1")])
    model[1].weight.data[0, 0] = bad
    with pytest.raises(ValueError, match="finite.*between layer '0' and layer '1'"):
        smooth_layers(model, [randn(4, 3)], [("0", "1")])


def test_an_empty_batch_among_others_is_passed_over():
    model, x = nn.Sequential(nn.Linear(3, 3)).double(), randn(4, 3)
    found = input_absmax(model, ["0"], [x[:0], x, x[:0]])
    assert torch.equal(found["0"], x.abs().amax(0))
    with pytest.raises(ValueError, match="no calibration data"):
        input_absmax(model, ["0"], [x[:0]])
