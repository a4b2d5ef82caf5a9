"""OnnxModel runs a file as a module would; fusion counts what is in the graph and what the engine makes of it."""

import copy
import threading

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compresslab.core import time_models
from compresslab.core.train import accuracy
from compresslab.data import Split
from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.export import agreement
from compresslab.deploy.fusion import operations, optimized_graph, optimized_operations


def proto(nodes, constants=(), inputs=("x",), outputs=("y",), dtype=TensorProto.FLOAT, shape=("n", 4)):
    """A graph with the given nodes, constants and ends."""
    ends = [[helper.make_tensor_value_info(name, dtype, list(shape)) for name in names] for names in (inputs, outputs)]
    tensors = [numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def linear():
    """y = x W, (n, 4) -> (n, 3)."""
    file = proto([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT})
    file.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    return file


def test_path_bytes_and_proto_are_the_same_network(tmp_path):
    content = linear().SerializeToString()
    (tmp_path / "net.onnx").write_bytes(content)
    x = torch.randn(5, 4)
    for source in (linear(), content, tmp_path / "net.onnx", str(tmp_path / "net.onnx")):
        engine = OnnxModel(source)
        assert torch.allclose(engine(x), x @ torch.from_numpy(WEIGHT), atol=1e-5)
        assert engine.path_bytes == len(content)
        assert not list(engine.parameters()) and not engine.training


def test_inputs_become_contiguous_and_of_the_files_dtype():
    engine = OnnxModel(linear())
    x = torch.randn(4, 5).T
    assert not x.is_contiguous()
    assert torch.allclose(engine(x.double()), x @ torch.from_numpy(WEIGHT), atol=1e-5)
    assert engine.run_numpy(np.ones((2, 4), dtype=np.float64)).dtype == np.float32
    grad = torch.randn(2, 4, requires_grad=True)
    assert not engine(grad).requires_grad


def test_token_inputs_keep_their_dtype():
    table = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    file = proto([helper.make_node("Gather", ["t", "x"], ["y"])], {"t": table}, dtype=TensorProto.INT64, shape=["n"])
    file.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2]))
    assert OnnxModel(file)(torch.tensor([1, 0])).tolist() == [[3.0, 4.0], [1.0, 2.0]]


def test_a_copy_shares_the_session_and_the_harnesses_take_it():
    engine = OnnxModel(linear(), threads=1)
    twin = copy.deepcopy(engine)
    assert twin is not engine and twin.session is engine.session
    times = time_models({"engine": engine, "torch": nn.Linear(4, 3)}, torch.randn(2, 4), repeats=3, warmup=1)
    assert set(times) == {"engine", "torch"} and len(times["engine"].samples) == 3
    white = (255 * torch.eye(4)).to(torch.uint8).view(4, 4, 1, 1)  # x = 0 or 1: rows of W, whose last entry is largest
    judged = nn.Sequential(nn.Flatten(), engine)
    for labels, share in (([2, 2, 2, 2], 1.0), ([0, 2, 2, 2], 0.75)):
        assert accuracy(judged, Split(white, torch.tensor(labels), (0.0,) * 4, (1.0,) * 4)) == share


def test_threads_are_the_sessions_own():
    assert OnnxModel(linear(), threads=2).session.get_session_options().intra_op_num_threads == 2
    default = OnnxModel(linear())
    assert default.threads == torch.get_num_threads()
    results = []
    engine = OnnxModel(linear(), threads=1)
    workers = [threading.Thread(target=lambda: results.append(engine(torch.ones(1, 4)).sum().item())) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [66.0] * 3


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda tmp: OnnxModel(tmp / "none.onnx"), FileNotFoundError, "there is no file"),
        (lambda tmp: OnnxModel(b"not a graph"), ValueError, "no ONNX file"),
        (lambda tmp: OnnxModel(3), TypeError, "path, bytes or an onnx.ModelProto, got int"),
        (lambda tmp: OnnxModel(linear(), threads=0), ValueError, "threads must be a whole number of at least 1"),
        (lambda tmp: OnnxModel(linear(), threads=1.5), TypeError, "threads"),
        (lambda tmp: OnnxModel(linear(), weights="fast"), ValueError, "weights must be one of rounded, exact, unpacked"),
        (lambda tmp: OnnxModel(linear())(torch.ones(2, 7)), ValueError, r"takes inputs of shape \['n', 4\], got \[2, 7\]"),
        (lambda tmp: operations(b"\xff\xff\xff"), ValueError, "no ONNX model"),
        (lambda tmp: operations(b""), ValueError, "no ONNX model"),
        (lambda tmp: operations(tmp / "none.onnx"), FileNotFoundError, "none.onnx"),
        (lambda tmp: optimized_operations(linear(), "most"), ValueError, "level must be one of none, basic"),
    ],
)
def test_what_is_refused(make, kind, words, tmp_path):
    with pytest.raises(kind, match=words):
        make(tmp_path)


def test_a_file_with_two_inputs_or_outputs_is_refused():
    two_in = proto([helper.make_node("Add", ["x", "z"], ["y"])], inputs=("x", "z"))
    two_out = proto([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])], outputs=("y", "z"))
    for file, words in ((two_in, "2 and 1"), (two_out, "1 and 2")):
        with pytest.raises(ValueError, match=words):
            OnnxModel(file)


def test_agreement_counts_by_hand():
    x = torch.tensor([[1.0, 2.0, 0.0], [5.0, 1.0, 4.5]])
    found = agreement(nn.Identity(), nn.Hardtanh(-4, 4), x, batch_size=1)
    assert found == (1.0, 1.0, 2)                                  # 5 -> 4 and 4.5 -> 4; the first of equals wins
    found = agreement(nn.Identity(), nn.Hardtanh(-4, 0), x)        # all labels become 0
    assert found.equal_labels == 0.5 and found.largest == 5.0


def test_agreement_refuses_and_leaves_the_mode():
    net = nn.Dropout(0.9).train()
    assert agreement(net, nn.Identity(), torch.randn(8, 3)).largest == 0.0 and net.training
    with pytest.raises(ValueError, match="empty"):
        agreement(net, net, torch.zeros(0, 3))
    with pytest.raises(ValueError, match="shapes"):
        agreement(nn.Identity(), nn.Flatten(), torch.zeros(2, 3, 3))


def convolution_norm_relu():
    """Conv (no bias) -> BatchNormalization -> Relu on (n, 2, 5, 5)."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((3, 2, 3, 3)).astype(np.float32)}
    constants |= {name: rng.uniform(0.5, 2, 3).astype(np.float32) for name in ("gamma", "beta", "mean", "var")}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    file = proto(nodes, constants, shape=["n", 2, 5, 5])
    file.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 3, 3]))
    return file


def test_the_engine_folds_the_norm_and_fuses_the_relu():
    file = convolution_norm_relu()
    onnx.checker.check_model(file)
    assert operations(file) == {"Conv": 1, "BatchNormalization": 1, "Relu": 1}
    assert optimized_operations(file, "none") == operations(file)
    assert optimized_operations(file, "basic") == {"Conv": 1, "Relu": 1}                # the norm is folded
    fused = optimized_operations(file, "extended")
    assert fused.total() == 1 and fused["FusedConv"] == 1                               # and the ReLU absorbed
    x = torch.randn(4, 2, 5, 5)
    assert torch.allclose(OnnxModel(file)(x), OnnxModel(file, optimize=False)(x), atol=1e-5)
    (conv,) = optimized_graph(file, "extended").graph.node
    assert conv.op_type == "FusedConv"
