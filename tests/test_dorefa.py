"""DoReFa: levels, gradients against autograd on the smooth part, and noise that does not bias."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core.codes import CodebookCode
from compresslab.core.prepare import convert, prepare
from compresslab.core.train import train
from compresslab.data import Split
from compresslab.quantization.dorefa import (
    DoReFa,
    DoReFaActivation,
    GradientQuantizer,
    dorefa_activation,
    quantize_gradient,
    squeeze_weight,
)
from compresslab.quantization.pact import replace_relu


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def round_half_even(r, k):
    return round(r * (2**k - 1)) / (2**k - 1)  # Python's round, too, goes to the even number


class TestWeights:
    @pytest.mark.parametrize("bits", range(2, 9))
    def test_levels_and_values(self, bits):
        weight = randn(6, 5, 3) * 2
        weight[0, :, 0] = 0  # pruned
        value = DoReFa(bits)(weight)
        largest = max(abs(math.tanh(w)) for w in weight.flatten().tolist())
        expected = [2 * round_half_even(math.tanh(w) / (2 * largest) + 0.5, bits) - 1 for w in weight.flatten().tolist()]
        off = (value.flatten() - torch.tensor(expected)).abs()
        assert (off > 1e-5).float().mean() < 0.02  # but for numbers next to a tie
        assert off[weight.flatten() != 0].max() < 2 / (2**bits - 1) + 1e-5
        assert value.abs().max() == 1 and value.abs().min() > 0, "there is no zero level: pruned weights come back"
        dense = DoReFa(bits)(torch.linspace(-3, 3, 20_001))
        assert torch.equal(dense.unique(), (2 * torch.arange(2**bits) - (2**bits - 1)).float() / (2**bits - 1))

    def test_one_bit_is_mean_magnitude_times_sign(self):
        weight = randn(4, 7)
        weight[0, 0] = 0
        size = weight.abs().mean()
        assert torch.equal(DoReFa(1)(weight), torch.where(weight >= 0, size, -size))

    @pytest.mark.parametrize("bits", range(1, 9))
    @pytest.mark.parametrize(
        "weight",
        [
            randn(5, 3, 2, 2), randn(7, seed=1) * 30, randn(3, 4).abs(), -randn(3, 4).abs(), torch.zeros(3, 5),
            torch.full((2, 3), -0.7), torch.tensor([[0.3]]), torch.tensor([1e-30, -1e-38]), torch.empty(0, 3),
        ],
    )  # fmt: skip
    def test_simulated_is_encoded(self, bits, weight):
        dorefa = DoReFa(bits)
        code = dorefa.to_code(weight)
        assert isinstance(code, CodebookCode) and len(code.codebook) == 2**bits and code.bits == bits
        assert torch.equal(dorefa(weight), code.decode()) and code.decode().shape == weight.shape
        assert torch.isfinite(code.decode()).all()

    def test_zeros_are_exact_in_one_bit_and_the_middle_levels_otherwise(self):
        assert not DoReFa(1)(torch.zeros(4)).any()
        assert DoReFa(3)(torch.zeros(4)).abs().eq(torch.tensor(1 / 7)).all()

    @pytest.mark.parametrize("bits", [1, 2, 5])
    def test_gradient_is_straight_through_the_rounding_only(self, bits):
        weight, upstream = randn(4, 6), randn(4, 6, seed=1)
        ours, smooth = weight.clone().requires_grad_(), weight.clone().requires_grad_()
        DoReFa(bits)(ours).backward(upstream)
        if bits == 1:
            assert torch.equal(ours.grad, upstream)
            return
        (torch.tanh(smooth) / torch.tanh(smooth).abs().max()).backward(upstream)
        torch.testing.assert_close(ours.grad, smooth.grad)

    def test_squeeze(self):
        squeezed = squeeze_weight(randn(50) * 5)
        assert squeezed.min() >= 0 and squeezed.max() <= 1
        assert 0 in squeezed or 1 in squeezed

    def test_training_and_converting(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
        prepared = prepare(replace_relu(model, partial(DoReFaActivation, bits=2)), lambda weight: DoReFa(bits=2))
        pictures = torch.randint(0, 256, (96, 1, 2, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        data = Split(pictures, (pictures[:, 0, 0, 0] > 127).long(), mean=(0.5,), std=(0.3,))
        history = []
        flat = nn.Sequential(nn.Flatten(), prepared)
        trained = train(flat, data, epochs=20, batch_size=32, progress=False, history=history)
        assert history[-1]["loss"] < 0.6 * history[0]["loss"]
        coded = convert(trained)
        with torch.no_grad():
            assert torch.equal(coded(data.x()), trained(data.x()))


class TestActivations:
    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_value_and_gradient(self, bits):
        x = (randn(500) * 2).requires_grad_()
        y = dorefa_activation(x, bits)
        expected = [round_half_even(min(max(v, 0.0), 1.0), bits) for v in x.tolist()]
        assert (y.detach() - torch.tensor(expected)).abs().gt(1e-6).float().mean() < 0.01
        assert len(y.unique()) == 2**bits
        y.backward(randn(500, seed=1))
        assert torch.equal(x.grad, randn(500, seed=1) * ((x >= 0) & (x <= 1)))
        assert torch.equal(DoReFaActivation(bits)(x), y)


class TestGradients:
    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_unbiased(self, bits):
        gradient = randn(3, 4) * torch.tensor([[1e-4], [1.0], [50.0]])
        draws, n = 2000, 2**bits - 1
        generator = torch.Generator().manual_seed(0)
        mean = sum(quantize_gradient(gradient, bits, generator).double() for _ in range(draws)) / draws
        step = 2 * gradient.abs().amax(1, keepdim=True).double() / n
        standard_error = step / 2 / math.sqrt(draws)  # a step's two ends: at most half a step of deviation
        assert ((mean - gradient.double()).abs() < 5 * standard_error + 1e-6 * step).all()
        nearest = (torch.round(gradient / step + n / 2) - n / 2) * step  # what would be left without the noise
        assert (nearest - gradient).abs().max() > 5 * standard_error.max()

    @pytest.mark.parametrize("bits", [1, 3])
    def test_every_example_has_its_own_range_and_levels(self, bits):
        gradient = randn(5, 2, 3, 3) * torch.logspace(-6, 6, 5).view(5, 1, 1, 1)
        rounded = quantize_gradient(gradient, bits)
        for row, example in zip(rounded, gradient, strict=True):
            levels = (row / example.abs().max() + 1) / 2 * (2**bits - 1)
            torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
            assert row.abs().max() <= example.abs().max() * (1 + 1e-6)

    def test_zero_and_empty_gradients(self):
        gradient = torch.zeros(2, 3)
        gradient[1, 0] = 1.0
        rounded = quantize_gradient(gradient, 4)
        assert not rounded[0].any() and rounded[1, 0] == 1
        assert quantize_gradient(torch.empty(0, 3), 4).shape == (0, 3)

    def test_module_is_the_identity_forward_and_rounds_backward(self):
        x, upstream = randn(6, 5).requires_grad_(), randn(6, 5, seed=1)
        module = GradientQuantizer(bits=3, seed=7)
        twin = copy.deepcopy(module)
        y = module(x)
        assert torch.equal(y, x)
        y.backward(upstream)
        assert torch.equal(x.grad, quantize_gradient(upstream, 3, torch.Generator().manual_seed(7)))
        first, x.grad = x.grad, None
        module(x).backward(upstream)
        assert not torch.equal(x.grad, first), "the noise goes on"
        x.grad = None
        twin(x).backward(upstream)
        assert torch.equal(x.grad, first), "a copy starts where the original stood"
        with torch.no_grad():
            assert torch.equal(module(x), x)

    def test_training_through_it(self):
        torch.manual_seed(0)
        pictures = torch.randint(0, 256, (64, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        data = Split(pictures, (pictures[:, 0, 1, 1] > 127).long(), mean=(0.5,), std=(0.3,))
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), GradientQuantizer(4), nn.ReLU(), nn.Linear(16, 2))
        histories = [[], []]
        for history in histories:
            train(model, data, epochs=15, batch_size=16, progress=False, history=history)
        assert histories[0] == histories[1] and histories[0][-1]["loss"] < 0.7 * histories[0][0]["loss"]


def test_refusals():
    for make in (DoReFa, DoReFaActivation, GradientQuantizer):
        for bad in (0, 33):
            with pytest.raises(ValueError, match="bits must be"):
                make(bad)
        with pytest.raises(TypeError, match="bits must be"):
            make(2.5)
    for function in (dorefa_activation, quantize_gradient):
        with pytest.raises(ValueError, match="bits must be"):
            function(torch.ones(2, 2), 0)
    with pytest.raises(ValueError, match="one row per example"):
        quantize_gradient(torch.tensor(1.0), 2)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="nan or inf"):
            DoReFa().to_code(torch.tensor([bad]))
        with pytest.raises(ValueError, match="nan or inf in it in layer '0'"):
            layer = nn.Linear(2, 1)
            nn.init.constant_(layer.weight, bad)
            prepare(nn.Sequential(layer), lambda weight: DoReFa())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_not_hidden(bad):
    gradient = randn(2, 3)
    gradient[0, 1] = bad
    rounded = quantize_gradient(gradient, 4)
    assert rounded[0].isnan().all() and torch.isfinite(rounded[1]).all()
