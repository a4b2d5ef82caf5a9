"""Exported files compute what PyTorch computes: plain, masked, decomposed and coded networks."""

from functools import partial

import onnx
import pytest
import torch
from torch import nn

from compresslab.core import CodebookCode, GapSparseCode, UniformCode, encode
from compresslab.core.modules import apply_mask_
from compresslab.data import load_data
from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.export import agreement, code_arrays, export_onnx, write_proto
from compresslab.deploy.fusion import operations, optimized_operations
from compresslab.models import load_baseline
from compresslab.pruning import magnitude_mask


class Small(nn.Module):
    """A convolution with a norm, a residual one, and a linear layer: (3, 8, 8) -> 5."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.b, self.drop, self.fc = nn.Conv2d(32, 32, 3, padding=1), nn.Dropout(0.5), nn.Linear(32, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.a(x)))
        return self.fc(self.drop((x + self.b(x)).mean((2, 3))))


def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Small()
        nn.init.uniform_(net.norm.running_mean), nn.init.uniform_(net.norm.running_var, 0.5, 2)
        nn.init.uniform_(net.norm.weight, -1, 1)  # factors of both signs
    return net.train()


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return export_onnx(load_baseline("resnet8"), tmp_path_factory.mktemp("resnet") / "net.onnx", (3, 32, 32))


def test_a_baseline_agrees_on_1000_images(resnet):
    net, engine = load_baseline("resnet8"), OnnxModel(resnet)
    found = agreement(net, engine, load_data("street_digits").test.take(1000))
    assert found.n == 1000 and found.largest < 1e-4 and found.equal_labels == 1.0
    assert engine(torch.zeros(1, 3, 32, 32)).shape == (1, 10)  # any batch


def test_the_file_is_whole_folded_and_tells_nothing_about_the_machine(resnet):
    proto = onnx.load(resnet)
    assert operations(resnet)["BatchNormalization"] == 0 and operations(resnet)["Conv"] == 9
    floats = sum(p.numel() for p in load_baseline("resnet8").parameters())
    assert resnet.stat().st_size < 4 * floats + 12_000  # weights inside, little else
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    content = resnet.read_bytes()
    assert b".py" not in content and b"site-packages" not in content
    assert [file.name for file in resnet.parent.iterdir()] == ["net.onnx"]
    assert optimized_operations(resnet)["Relu"] == 0  # every ReLU fused into a convolution


def test_a_masked_decomposed_network_for_one_batch_size(tmp_path, capfd):
    net = small()
    net.b = nn.Sequential(nn.Conv2d(32, 4, 1), nn.Conv2d(4, 32, 3, padding=1))  # as a decomposition leaves it
    apply_mask_(net.fc, magnitude_mask(net.fc.weight, 0.5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    path = export_onnx(net, tmp_path / "net.onnx", (3, 8, 8), batch=3)
    assert "".join(capfd.readouterr()) == ""
    assert net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    x = torch.randn(3, 3, 8, 8)
    assert agreement(net, OnnxModel(path), x).largest < 1e-4
    with pytest.raises(ValueError, match="takes inputs of shape"):
        OnnxModel(path)(x[:2])


def test_codes_decode_in_the_graph_and_the_file_stays_small(tmp_path):
    make = {"a": partial(CodebookCode.from_dense, bits=2), "b": partial(UniformCode.from_dense, bits=3), "fc": CodebookCode.from_dense}
    coded = encode(small(), make)
    path = export_onnx(coded, tmp_path / "codes.onnx", (3, 8, 8), form="decoded")
    assert agreement(coded, OnnxModel(path), torch.randn(16, 3, 8, 8)).largest < 1e-4
    proto = onnx.load(path)
    stored = {tensor.name: len(tensor.raw_data) for tensor in proto.graph.initializer}
    assert stored["b.coded.packed"] == 32 * 32 * 9 * 3 // 8 and stored["a.coded.packed"] == 3 * 32 * 9 // 4
    floats = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert max(len(tensor.raw_data) for tensor in floats) == 4 * 32  # no weight was decoded ahead
    run = optimized_operations(path)  # the engine decodes once, while loading
    assert run["Gather"] == run["GatherND"] == run["Mod"] == 0 and run["Conv"] + run["FusedConv"] == 2


def test_code_arrays_name_what_the_state_dict_holds():
    net = encode(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4)), partial(GapSparseCode.from_dense), only=["1"])
    names = code_arrays(net)
    assert names and names <= set(net.state_dict()) and all(name.startswith("1.coded.") for name in names)
    assert code_arrays(nn.Linear(2, 2)) == set()


class Undecided(nn.Module):
    """Its path depends on the numbers: nothing that a graph can say."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    "arguments, kind, words",
    [
        ({"form": "small"}, ValueError, 'form must be "dense" or "decoded"'),
        ({"opset": 11}, ValueError, "opset must be a whole number from 18 to 23"),
        ({"batch": 0}, ValueError, "batch must be a whole number of at least 1"),
        ({"model": "resnet8"}, TypeError, "must be an nn.Module, got str"),
        ({"model": Undecided()}, ValueError, "cannot export this Undecided"),
    ],
)
def test_what_is_refused(arguments, kind, words, tmp_path):
    arguments = {"model": nn.ReLU(), "path": tmp_path / "net.onnx", "input_shape": (3,)} | arguments
    with pytest.raises(kind, match=words):
        export_onnx(**arguments)
    assert not list(tmp_path.iterdir())


def test_an_invalid_graph_is_not_written(tmp_path):
    proto = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node("Nothing", ["x"], ["y"])], "g", [], []))
    with pytest.raises(ValueError, match="no valid ONNX model"):
        write_proto(proto, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
