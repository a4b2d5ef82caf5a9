"""Int8 files: the engine computes what the network of integers computes, and it computes with integers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import numpy_helper  # noqa: E402

from compresslab.core import UniformCode, accuracy, dequantize, encode  # noqa: E402
from compresslab.data import load_data  # noqa: E402
from compresslab.deploy.engine import OnnxModel  # noqa: E402
from compresslab.deploy.fusion import operations, optimized_operations  # noqa: E402
from compresslab.deploy.qdq import export_int8, int8_proto  # noqa: E402
from compresslab.models import load_baseline  # noqa: E402
from compresslab.pruning import prune_channels  # noqa: E402
from compresslab.quantization import integer_network, percentile_range  # noqa: E402


class Everything(nn.Module):
    """Every operation that has an integer form, with odd sizes and settings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4)
        self.pointwise = nn.Conv2d(8, 12, 1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.average = nn.AvgPool2d(2, stride=1)
        self.hidden = nn.Linear(12 * 3 * 3, 7)
        self.head = nn.Linear(7, 5)

    def forward(self, x):
        x = F.relu6(self.norm(self.stem(x)))
        x = self.depthwise(x)
        y = F.relu(self.grouped(x) + self.pointwise(x))
        y = self.average(self.pool(y))
        return self.head(torch.relu(self.hidden(y.flatten(1))))


def build(cls, seed=0):
    torch.manual_seed(seed)
    return cls().eval()


def steps_apart(network, engine, x):
    """By how many steps of the output's grid each output differs."""
    (name, _), *_ = network.plan[::-1]
    return (network(x) - engine(x)).abs() / network.grids[name].scale


@pytest.fixture(scope="module")
def street():
    return load_data("street_digits")


@pytest.mark.parametrize("find_range", [None, percentile_range])
def test_every_operation_agrees_with_the_network_of_integers(tmp_path, find_range):
    model, x = build(Everything), torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    model.norm.running_mean.uniform_(-1, 1)
    options = {} if find_range is None else {"find_range": find_range}
    network = export_int8(model, tmp_path / "a.onnx", (3, 16, 16), [x[:32], (x[32:], 0)], **options)
    apart = steps_apart(network, OnnxModel(tmp_path / "a.onnx"), x)
    assert apart.max() < 2.01 and (apart > 0.5).float().mean() < 0.1
    assert list(network.grids) and (tmp_path / "a.onnx").stat().st_size < 12_000


@pytest.mark.parametrize("name", ["resnet8", "mobilenet"])
def test_real_networks_agree_to_one_step_on_a_thousand_images(tmp_path, street, name):
    model = load_baseline(name)
    network = export_int8(model, tmp_path / "a.onnx", (3, 32, 32), [street.train.x(slice(256))])
    engine = OnnxModel(tmp_path / "a.onnx")
    apart = steps_apart(network, engine, street.test.x(slice(1000)))
    assert apart.max() < 1.01
    fresh = street.test.take(1000)
    assert abs(accuracy(model, fresh) - accuracy(engine, fresh)) <= 0.01
    assert (tmp_path / "a.onnx").stat().st_size < 1.8 * sum(p.numel() for p in model.parameters())


def test_the_engine_replaces_the_pairs_by_integer_kernels(tmp_path, street):
    pruned = prune_channels(load_baseline("resnet8"), torch.zeros(1, 3, 32, 32), 0.5)
    export_int8(pruned, tmp_path / "a.onnx", (3, 32, 32), [street.train.x(slice(64))])
    written, run = operations(tmp_path / "a.onnx"), optimized_operations(tmp_path / "a.onnx")
    assert written["Conv"] == run["QLinearConv"] == 9 and run["Conv"] == 0
    assert written["Add"] == run["QLinearAdd"] == 3 and run["Add"] == 0
    assert run["QGemm"] == run["QLinearGlobalAveragePool"] == 1 and run["Gemm"] == run["GlobalAveragePool"] == 0


def test_the_scales_in_the_file_are_the_networks_own(tmp_path):
    model, x = build(Everything), torch.randn(8, 3, 16, 16)
    network = integer_network(model, [x])
    proto = int8_proto(network, (3, 16, 16), batch=2)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for name, grid in network.grids.items():
        assert arrays[f"{name}.scale"] == np.float32(grid.scale.item())
        assert arrays[f"{name}.zero_point"] == int(grid.zero_point)
        assert arrays[f"{name}.zero_point"].dtype == np.uint8
    before = next(inputs[0] for name, inputs in network.plan if name == "pointwise")
    assert arrays["pointwise.weight"].dtype == np.int8 and arrays["pointwise.bias"].dtype == np.int32
    assert np.allclose(arrays["pointwise.bias_scale"], arrays["pointwise.weight_scale"] * arrays[f"{before}.scale"])
    bias = arrays["pointwise.bias"] * arrays["pointwise.bias_scale"]
    assert np.allclose(bias, model.pointwise.bias.detach(), atol=arrays["pointwise.bias_scale"].max())
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_weights_are_rounded_to_the_nearest_step():
    layer = nn.Conv2d(2, 3, 1)
    network = integer_network(nn.Sequential(layer), [torch.randn(4, 2, 5, 5)])
    (step,) = network.layers
    error = step.weight * step.weight_scale.view(-1, 1, 1, 1) - layer.weight.detach()
    assert (error.abs() <= step.weight_scale.view(-1, 1, 1, 1) * 0.5001).all()
    assert (step.weight.flatten(1).abs().max(1).values == 127).all()


def test_a_coded_network_is_taken_for_what_it_decodes_to(tmp_path):
    model = encode(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), UniformCode.from_dense)
    x = torch.randn(50, 6)
    network = export_int8(model, tmp_path / "a.onnx", (6,), [x])
    assert steps_apart(network, OnnxModel(tmp_path / "a.onnx"), x).max() < 1.01
    assert (model(x) - network(x)).abs().max() < 0.1


def test_a_relu_with_two_readers_stays_a_bound(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.a(x)
            return y + self.b(F.relu(y))

    model, x = build(Twice), torch.randn(16, 2, 4, 4)
    network = export_int8(model, tmp_path / "a.onnx", (2, 4, 4), [x])
    assert steps_apart(network, OnnxModel(tmp_path / "a.onnx"), x).max() < 1.01
    assert (dequantize(network.tensors(x)["relu"].int(), network.grids["relu"]) >= 0).all()


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ValueError, match="'1' \\(Sigmoid\\) has no integer form"):
        export_int8(nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()), tmp_path / "a.onnx", (2,), [torch.randn(4, 2)])
    with pytest.raises(ValueError, match="no calibration data"):
        export_int8(nn.Sequential(nn.Linear(2, 2)), tmp_path / "a.onnx", (2,), [])
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1, got 0"):
        export_int8(nn.Sequential(nn.Linear(2, 2)), tmp_path / "a.onnx", (2,), [torch.randn(4, 2)], batch=0)
    network = integer_network(nn.Sequential(nn.Linear(2, 2)), [torch.randn(4, 2)], bits=4)
    with pytest.raises(ValueError, match="needs activations of 0 to 255, got 0 to 15"):
        int8_proto(network, (2,))
    network = integer_network(nn.Sequential(nn.Flatten(2), nn.Linear(4, 2)), [torch.randn(4, 3, 2, 2)])
    with pytest.raises(ValueError, match="only a flatten of all but the batch"):
        int8_proto(network, (3, 2, 2))
    assert not list(tmp_path.iterdir())
