"""Whole networks in integers: nothing real inside, every step within one of the simulated one, the same labels."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compresslab.core.codes import UniformCode
from compresslab.core.layers import decompress, encode
from compresslab.core.modules import apply_mask_
from compresslab.core.size import storage_bits
from compresslab.core.uniform import choose_scale, dequantize, fake_quantize, min_max, quantize
from compresslab.data import load_data
from compresslab.models import build_model, load_baseline
from compresslab.quantization.folding import fold_batch_norm
from compresslab.quantization.graph import as_layer, trace
from compresslab.quantization.integer_network import integer_network

NETWORKS = ["lenet300", "lenet5", "resnet", "vgg", "mobilenet"]
NARROW = {"resnet": {"width": 4}, "vgg": {"width": 4}, "mobilenet": {"width_mult": 0.25}}


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(name, **NARROW.get(name, {}))
    x = randn(12, *((1, 28, 28) if name.startswith("lenet") else (3, 32, 32)))
    if name not in ("lenet300", "lenet5"):
        model.train()(x)  # some statistics for batch norm
    return model.eval(), x


def simulated(model: nn.Module) -> nn.Module:
    """The folded network with weights as they are after rounding to 8 bits per channel."""
    return decompress(encode(fold_batch_norm(model), partial(UniformCode.from_dense, bits=8, axis=0)))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_is_within_one_of_the_simulated_one(name):
    """Each operation of the float graph, on the integers that the integer network has there."""
    model, x = network(name)
    integer, fake = integer_network(model, [x]), simulated(model)
    q = integer.tensors(x)
    real = {key: dequantize(value.int(), integer.grids[key]) for key, value in q.items()}
    compared = 0
    with torch.no_grad():
        for node in trace(fake).nodes:
            if node.op == "placeholder":
                assert torch.equal(q[node.name].int(), quantize(x, integer.grids[node.name]))
                real[node.name], compared = fake_quantize(x, integer.grids[node.name]), compared + 1
            elif node.op != "output":
                arguments = [real.get(argument.name) for argument in node.all_input_nodes]
                value = as_layer(fake, node)(*arguments)
                if node.name in q:
                    grid = integer.grids[node.name]
                    assert (q[node.name].int() - quantize(value, grid)).abs().max() <= 1, node.name
                    compared += 1
                else:  # fused into the step that follows, or nothing at all: it stays real
                    real[node.name] = value
    assert compared == len(q)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_real_between_input_and_output(name):
    model, x = network(name)
    before = copy.deepcopy(model.state_dict())
    integer = integer_network(model, [x[:6], (x[6:], None)])
    assert all(q.dtype == torch.uint8 for q in integer.tensors(x).values())
    seen = []
    for layer in integer.layers:
        layer.register_forward_hook(lambda _, inputs, output: seen.extend([*inputs, output]))
    y = integer(x)
    assert y.shape == (12, 10) and y.dtype == torch.float32
    assert seen and not any(value.is_floating_point() for value in seen)
    assert not any(value.is_floating_point() for value in integer.state_dict().values())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(copy.deepcopy(integer)(x), y)
    last = list(integer.grids)[-1]
    assert torch.equal(dequantize(integer.tensors(x)[last].int(), integer.grids[last]), y)


@pytest.mark.parametrize("name", ["lenet300", "resnet8_narrow"])
def test_trained_networks_keep_their_labels(name):
    data = load_data("ink_digits" if name == "lenet300" else "street_digits", train=256, validation=0, test=500)
    model = load_baseline(name)
    integer = integer_network(model, [data.train.x()])
    x = data.test.x()
    with torch.no_grad():
        labels, got = model(x).argmax(1), integer(x).argmax(1)
    assert (got == labels).float().mean() >= 0.97
    correct, got_correct = ((v == data.test.y).float().mean() for v in (labels, got))
    assert got_correct >= correct - 0.02
    assert storage_bits(integer) < storage_bits(model) / 3.2


def test_fewer_bits_are_coarser():
    model, x = network("lenet5")
    error = [(integer_network(model, [x], bits=bits)(x) - model(x)).norm().item() for bits in (8, 6, 4)]
    assert error[0] < error[1] < error[2]


def test_ranges_by_another_rule():
    def half(rows):
        return tuple(bound / 2 for bound in min_max(rows))

    model, x = network("lenet300")
    wide, narrow = integer_network(model, [x]), integer_network(model, [x], find_range=half)
    for name in wide.grids:
        torch.testing.assert_close(narrow.grids[name].scale, wide.grids[name].scale / 2)
    assert integer_network(model, [x[:3], x[3:]]).grids == wide.grids  # over batches, the lowest and the highest


def test_a_range_over_batches_is_the_widest():
    model, x = network("lenet300")
    first, *_ = integer_network(model, [0.1 * x, x, 0.1 * x]).grids.values()
    assert first == choose_scale(x.min(), x.max())


class Net(nn.Module):
    """A forward given as a function of the network and its input."""

    def __init__(self, run):
        super().__init__()
        self.conv, self.other = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(4, 3)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


RUNS = {
    "a ReLU that cannot be fused": lambda n, x: (lambda y: n.other(F.relu(y)) + n.other(y))(n.conv(x)),
    "ReLU6 after a sum": lambda n, x: F.relu6(n.conv(x) + n.other(F.relu(n.conv(x)))),
    "ReLU6 after pooling": lambda n, x: F.relu6(F.max_pool2d(n.conv(x), 3, 2, 1)),
    "average pooling": lambda n, x: n.other(F.avg_pool2d(n.pool(n.conv(x)).relu(), 2)),
    "adaptive pooling": lambda n, x: n.fc(torch.flatten(F.adaptive_avg_pool2d(n.conv(x), 1), 1)),
    "adaptive pooling to 4 x 2": lambda n, x: F.adaptive_avg_pool2d(n.conv(x), (4, 2)),
    "mean, kept dimensions": lambda n, x: n.other(n.conv(x).mean((-1, -2), keepdim=True)),
    "dropout": lambda n, x: n.fc(F.dropout(n.conv(x).mean([2, 3]), 0.5, n.training)),
    "doubled": lambda n, x: (lambda y: y + y)(n.conv(x)),
    "the input itself": lambda n, x: F.relu(x),
    "something that nobody asks for": lambda n, x: (n.conv(x), torch.sigmoid(n.conv(x)))[0],
}


@pytest.mark.parametrize("name", RUNS)
def test_ways_to_write_a_network(name):
    torch.manual_seed(0)
    model, x = Net(RUNS[name]).eval(), randn(16, 2, 8, 8)
    integer = integer_network(model, [x])
    with torch.no_grad():
        want, got = model(x), integer(x)
    step = list(integer.grids.values())[-1].scale
    assert got.shape == want.shape and (got - want).abs().max() < 6 * step + 0.02 * want.abs().max()


def test_fused_relu_is_a_bound():
    model, x = network("resnet")
    names = list(integer_network(model, [x]).grids)
    assert "relu" in names and "add" not in names and "conv1" not in names and "stage1_0_conv2" in names


def test_coded_masked_and_degenerate_weights():
    model, x = network("lenet300")
    coded = encode(model, partial(UniformCode.from_dense, bits=4, axis=0))
    assert torch.equal(integer_network(coded, [x])(x), integer_network(decompress(coded), [x])(x))
    masked = copy.deepcopy(model)
    apply_mask_(masked.fc1, randn(300, 784) > 0)
    weight = integer_network(masked, [x]).layers[1].weight
    assert (weight[randn(300, 784) <= 0] == 0).all() and weight.abs().max() == 127
    model.fc2.weight.data[0], model.fc2.weight.data[1] = 0, 1e-12 * model.fc2.weight.data[1]  # dead channels
    model.fc2.bias.data[:2] = torch.tensor([3.0, -2.0])
    integer = integer_network(model, [x])
    grid, q = integer.grids["relu_1"], integer.tensors(x)["relu_1"]
    assert (q[:, 0] == quantize(torch.tensor(3.0), grid)).all() and (q[:, 1] == 0).all()
    for parameter in model.parameters():
        parameter.data.zero_()
    assert (integer_network(model, [x])(x) == 0).all()


def test_errors():
    x = randn(4, 2, 8, 8)
    for run, message in [
        (lambda n, x: torch.sigmoid(n.conv(x)), "'sigmoid'.* has no integer form.*supported: Linear"),
        (lambda n, x: n.conv(x) + 1, "'add'.* has no integer form"),
        (lambda n, x: n.conv(x).mean(1), "'mean'.* has no integer form"),
        (lambda n, x: n.conv(x) * n.other(n.conv(x)), "'mul'.* has no integer form"),
        (lambda n, x: (n.conv(x), x), "one output"),
        (lambda n, x: F.avg_pool2d(n.conv(x), 3, ceil_mode=True), "whole windows"),
        (lambda n, x: F.avg_pool2d(n.conv(x), 3, padding=1, count_include_pad=False), "whole windows"),
        (lambda n, x: F.adaptive_avg_pool2d(n.conv(x), 3), "does not divide"),
    ]:
        with pytest.raises(ValueError, match=message):
            integer_network(Net(run), [x])
    for layers, message in [
        ([nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")], "padding must be a number of zeros.*reflect"),
        ([nn.BatchNorm2d(2)], r"'0' \(BatchNorm2d\) has no integer form"),
        ([nn.Conv2d(2, 2, 1), nn.GELU()], r"'1' \(GELU\) has no integer form"),
    ]:
        with pytest.raises(ValueError, match=message):
            integer_network(nn.Sequential(*layers), [x])
    model = nn.Sequential(nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match="no calibration data"):
        integer_network(model, [])
    with pytest.raises(ValueError, match="activation 'input_1' must be finite"):
        integer_network(model, [torch.full_like(x, math.nan)])
    for bits in (0, 1, 9, 33):
        with pytest.raises(ValueError, match="bits must be"):
            integer_network(model, [x], bits=bits)
    with pytest.raises(TypeError, match="bits must be"):
        integer_network(model, [x], bits=2.5)
    with pytest.raises(ValueError, match="nan cannot be quantized"):
        integer_network(model, [x])(torch.full_like(x, math.nan))
    with pytest.raises(ValueError, match="32 bits.*layer '0'"):
        wide = nn.Sequential(nn.Linear(40_000, 1))
        wide[0].weight.data.fill_(1.0)
        integer_network(wide, [torch.ones(2, 40_000)])
