"""Bias correction: equal means on the calibration inputs, and the means that batch norm knows."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, stats
from torch import nn

from compresslab.core.codes import UniformCode
from compresslab.core.layers import encode
from compresslab.core.store import load, save
from compresslab.models import build_model
from compresslab.quantization.bias_correction import (
    clipped_normal_mean,
    correct_bias,
    correct_bias_data_free,
    expected_inputs,
)
from compresslab.quantization.folding import fold_batch_norm


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Flatten(),
        nn.Linear(54, 4),
    )  # fmt: skip


def channel_means(model: nn.Module, names: list[str], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean output per channel of the layers of a Sequential."""
    means = {}
    for name, layer in model.named_children():
        x = layer(x)
        if name in names:
            means[name] = x.transpose(0, 1).flatten(1).mean(1)
    return means


@pytest.mark.parametrize("coded", [True, False])
def test_means_are_equal_on_the_calibration_inputs(coded):
    model, x = net(), randn(12, 2, 5, 5).abs()
    quantized = encode(model, partial(UniformCode.from_dense, bits=2))
    if not coded:
        from compresslab.core.layers import decompress

        quantized = decompress(quantized)
    before = copy.deepcopy(quantized.state_dict())
    corrected = correct_bias(quantized, model, [x[:4], (x[4:8], None), x[8:]])
    names = ["0", "2", "5"]
    with torch.no_grad():
        want, got = channel_means(model, names, x), channel_means(corrected, names, x)
        off = channel_means(quantized, names, x)
    for name in names:
        torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-5)
        assert (off[name] - want[name]).abs().max() > 0.01
    assert all(torch.equal(before[key], value) for key, value in quantized.state_dict().items())


def test_a_corrected_coded_network_can_be_saved(tmp_path):
    model, x = net(), randn(4, 2, 5, 5)
    corrected = correct_bias(encode(model, UniformCode.from_dense), model, [x])
    save(corrected, tmp_path / "file")
    assert torch.equal(load(tmp_path / "file", net())(x), corrected(x))


def test_only_some_layers():
    model, x = net(), randn(4, 2, 5, 5)
    quantized = encode(model, partial(UniformCode.from_dense, bits=2))
    corrected = correct_bias(quantized, model, [x], skip=["2"])
    assert torch.equal(corrected[2].bias, quantized[2].bias) and not torch.equal(corrected[5].bias, quantized[5].bias)
    assert quantized[0].bias is None and corrected[0].bias is not None


@pytest.mark.parametrize("bounds", [(0.0, math.inf), (0.0, 6.0), (-1.0, 2.0), (-math.inf, 1.0)])
def test_clipped_normal_mean_is_the_integral(bounds):
    for mean, std in [(0.0, 1.0), (-2.0, 0.5), (3.0, 4.0), (7.0, 0.1)]:
        edges = [mean + k * std for k in (-12, 12)]
        points = [b for b in bounds if edges[0] < b < edges[1]] or None
        want, _ = integrate.quad(
            lambda x: min(max(x, bounds[0]), bounds[1]) * stats.norm.pdf(x, mean, std), *edges, points=points  # noqa: B023
        )
        got = clipped_normal_mean(torch.tensor([mean]), torch.tensor([std]), *bounds)
        torch.testing.assert_close(got, torch.tensor([want], dtype=torch.float64), rtol=1e-5, atol=1e-7)
    assert clipped_normal_mean(torch.tensor([2.0, -2.0]), torch.zeros(2)).tolist() == [2, 0]


class Block(nn.Module):
    """Batch norms before layers, in the ways that expected_inputs reads."""

    def __init__(self):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.a, self.b, self.c, self.d = (nn.Conv2d(4, 4, 1) for _ in range(4))
        self.e, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)
        for seed, bn in enumerate((self.bn1, self.bn2)):
            bn.weight.data, bn.bias.data = randn(4, seed=seed), randn(4, seed=seed + 5)

    def forward(self, x):
        y, z = self.bn1(x), self.bn2(x)
        self.a(y), self.b(F.relu(y)), self.c(F.relu6(y + 0 * z)), self.e(F.max_pool2d(F.relu(y), 2))
        return self.d(F.relu(y) + z), self.fc(F.relu(z).mean((2, 3)))


def test_expected_inputs_are_the_means_over_normal_data():
    block = Block()
    found = expected_inputs(block)
    assert sorted(found) == ["a", "b", "d", "fc"]  # c: ReLU6 of a sum; e: a maximum
    y, z = (randn(200_000, 4, seed=s) * bn.weight + bn.bias for s, bn in ((1, block.bn1), (2, block.bn2)))
    for name, data in (("a", y), ("b", y.relu()), ("d", y.relu() + z), ("fc", z.relu())):
        torch.testing.assert_close(found[name].float(), data.mean(0), rtol=0, atol=0.03)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_data_free_correction_cancels_the_shift_of_constant_inputs(groups):
    """Inputs that equal their mean everywhere: the correction is then exact, not just on average."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=groups, bias=False))
    quantized = encode(model, partial(UniformCode.from_dense, bits=2))
    mean = randn(4).double()
    corrected = correct_bias_data_free(quantized, model, {"0": mean})
    x = mean.float().view(1, 4, 1, 1).expand(1, 4, 5, 5)
    torch.testing.assert_close(corrected(x), model(x))
    assert (quantized(x) - model(x)).abs().max() > 0.01


def test_data_free_correction_of_a_network():
    """Data as batch norm believes them: the mean error of the layer behind falls."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    model[0].weight.data, model[0].bias.data = randn(8), randn(8, seed=1)
    quantized = encode(model, partial(UniformCode.from_dense, bits=3))
    corrected = correct_bias_data_free(quantized, model, expected_inputs(model))
    x = randn(400, 8, 5, 5, seed=3)
    with torch.no_grad():
        before, after = ((m(x) - model(x)).mean((0, 2, 3)).abs().mean() for m in (quantized, corrected))
    assert after < 0.1 * before


def test_on_a_folded_network_of_the_course():
    model = build_model("mobilenet", width_mult=0.25).eval()
    means = expected_inputs(model)
    assert len(means) == 20 and "blocks.0.depthwise" in means  # all but the first, which sees the image
    folded = fold_batch_norm(model)
    quantized = encode(folded, UniformCode.from_dense)
    corrected = correct_bias_data_free(quantized, folded, means)
    changed = [name for name, layer in corrected.named_modules()
               if name in means and not torch.equal(layer.bias, quantized.get_submodule(name).bias)]  # fmt: skip
    assert len(changed) == 15  # five expansions behind bottlenecks have inputs of mean 0 before training


def test_errors():
    model, x = net(), randn(4, 2, 5, 5)
    quantized = encode(model, UniformCode.from_dense)
    with pytest.raises(ValueError, match="no calibration data"):
        correct_bias(quantized, model, [])
    with pytest.raises(ValueError, match="the reference has no layer '5'"):
        correct_bias(quantized, model[:5], [x])
    with pytest.raises(ValueError, match="no such layer"):
        correct_bias(quantized, model, [x], only=["fc"])
    with pytest.raises(ValueError, match="no such layer"):
        correct_bias_data_free(quantized, model, {"fc": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"means must have shape \(2,\).*layer '0'"):
        correct_bias_data_free(quantized, model, {"0": torch.zeros(3)})


def test_what_is_not_finite_is_refused_by_name():
    for bad in (math.nan, math.inf):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        with pytest.raises(ValueError, match="finite.*layer '0'"):
            correct_bias(model, model, [torch.full((2, 3), bad)])
        with pytest.raises(ValueError, match="finite.*layer '1'"):
            correct_bias_data_free(copy.deepcopy(model), model, {"1": torch.full((3,), bad)})
        broken = copy.deepcopy(model)
        broken[1].weight.data[0, 0] = bad
        with pytest.raises(ValueError, match="finite.*layer '1'"):
            correct_bias(broken, model, [randn(4, 3)])


def test_a_reference_of_another_shape_is_refused_by_name():
    model, other = nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="as many output channels, got 4 for 2 in layer '0'"):
        correct_bias(model, other, [randn(5, 3)])
    with pytest.raises(ValueError, match=r"weight of this shape, got \(4, 3\) for \(2, 3\) in layer '0'"):
        correct_bias_data_free(model, other, {"0": torch.ones(3)})


def test_a_layer_that_runs_twice_has_no_one_mean():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
            self.shared, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.last(self.first(self.shared(self.second(self.shared(self.first(x))))))

    assert list(expected_inputs(Twice())) == ["last"]
