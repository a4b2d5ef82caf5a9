"""Integers in the file: every form of the uniform code decodes in the engine to what it decodes to here."""

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compresslab.core import UniformCode, decompress, encode, storage_report, unpack_bits
from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.export import agreement
from compresslab.deploy.fusion import operations, optimized_operations
from compresslab.deploy.stored import export_stored, initializer, integers_of, store_weight


def decoded_by_engine(code, factor=None, optimize=True):
    """What ONNX Runtime makes of the stored code: 0 + W."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(code.shape)) for name in "xy"]
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(np.zeros(code.shape, np.float32), "w")])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    store_weight(file.graph, "w", code, factor)
    file.graph.node.append(file.graph.node[0])
    del file.graph.node[0]  # the sum comes last
    onnx.checker.check_model(file)
    return OnnxModel(file, optimize=optimize)(torch.zeros(code.shape))


FORMS = [
    dict(),
    dict(axis=0),
    dict(axis=1),
    dict(axis=0, group_size=6),
    dict(axis=1, group_size=4),
    dict(group_size=12),
]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("shape", [(4, 12), (4, 6, 2, 1), (8, 6, 2)], ids=str)
def test_the_engine_decodes_every_form_bit_for_bit(bits, symmetric, form, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.5
    code = UniformCode.from_dense(weight, bits, symmetric=symmetric, **form)
    assert torch.equal(decoded_by_engine(code), code.decode())


def test_scales_in_half_precision_are_stored_as_they_are():
    code = UniformCode.from_dense(torch.randn(4, 12), 4, axis=0)
    code.scale = code.scale.half()
    assert torch.equal(decoded_by_engine(code), code.decode())
    assert integers_of(code).scale.dtype == torch.float16


@pytest.mark.parametrize("form", [dict(), dict(axis=0), dict(axis=0, group_size=6)], ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_factor_per_channel_goes_into_the_scales(form, symmetric):
    code = UniformCode.from_dense(torch.randn(4, 6, 2, 1) + 1, 4, symmetric=symmetric, **form)
    factor = torch.tensor([2.0, -1.0, 0.0, 0.5])  # negative and zero factors occur in trained norms
    wanted = code.decode() * factor.view(4, 1, 1, 1)
    assert torch.allclose(decoded_by_engine(code, factor), wanted, rtol=1e-6)


def test_a_transposed_matrix_has_its_blocks_along_axis_0():
    code = UniformCode.from_dense(torch.arange(24.0).view(2, 12) - 7, 4, axis=0, group_size=6)
    stored, flipped = integers_of(code), integers_of(code, transposed=True)
    assert torch.equal(flipped.q, stored.q.T) and torch.equal(flipped.scale, stored.scale.T)
    assert (stored.axis, flipped.axis, stored.block, flipped.block) == (1, 0, 6, 6)


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_4_bit_initializers_are_packed_low_nibble_first(numbers):
    tensor = initializer("q", torch.tensor(numbers), 4, signed=True)
    assert len(tensor.raw_data) == (len(numbers) + 1) // 2
    assert numpy_helper.to_array(tensor).astype(int).tolist() == numbers  # onnx's own reader
    nibbles = [n for byte in tensor.raw_data for n in (byte & 15, byte >> 4)][: len(numbers)]
    assert [n - 16 if n > 7 else n for n in nibbles] == numbers
    assert unpack_bits(torch.frombuffer(bytearray(tensor.raw_data), dtype=torch.uint8), 4, len(numbers)).tolist() == nibbles


def test_initializers_of_8_bits_and_wrong_widths():
    assert initializer("q", torch.tensor([-128, -1, 127]), 8, signed=True).raw_data == bytes([128, 255, 127])
    assert initializer("q", torch.tensor([0, 255]), 8, signed=False).data_type == TensorProto.UINT8
    with pytest.raises(ValueError, match="bits must be a whole number from 4 to 8, got 3"):
        initializer("q", torch.tensor([1]), 3, signed=True)


def convolutional():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16))
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
        for norm in (net[1], net[4]):
            nn.init.uniform_(norm.weight, -1, 1), nn.init.uniform_(norm.running_mean), nn.init.uniform_(norm.running_var, 0.5, 2)
    return net


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory):
    make = {"0": partial(UniformCode.from_dense, bits=4), "3": partial(UniformCode.from_dense, bits=4, group_size=16)}
    matrix = partial(UniformCode.from_dense, bits=4, axis=0, group_size=32)
    coded = encode(convolutional(), make | {"6": matrix, "8": matrix})
    path = export_stored(coded, tmp_path_factory.mktemp("stored") / "net.onnx", (3, 8, 8))
    return coded, path


def test_a_network_of_4_bits_agrees_with_its_decoded_weights(four_bits):
    coded, path = four_bits
    x = torch.randn(1000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for weights in ("exact", "unpacked"):
        found = agreement(decompress(coded), OnnxModel(path, weights=weights), x)
        assert found.largest < 1e-4 and found.equal_labels == 1.0
    rounded = agreement(decompress(coded), OnnxModel(path), x)  # inputs of the product rounded to 8 bits
    assert 1e-4 < rounded.largest < 0.1


def test_the_file_holds_integers_and_no_norm(four_bits):
    coded, path = four_bits
    counts = operations(path)
    assert counts["BatchNormalization"] == 0 and counts["DequantizeLinear"] == 4
    assert counts["MatMul"] == 2 and counts["Gemm"] == 0
    arrays = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    assert {arrays[f"{i}.weight.q"].data_type for i in (0, 3, 6, 8)} == {TensorProto.INT4}
    assert sum(len(arrays[f"{i}.weight.q"].raw_data) for i in (0, 3, 6, 8)) == sum(coded[i].coded.numel for i in (0, 3, 6, 8)) // 2
    codes = storage_report(coded).total_bits // 8
    assert path.stat().st_size < codes + 3000  # the graph's own words


def test_what_the_engine_makes_of_it(four_bits):
    run = optimized_operations(four_bits[1])
    assert run["MatMulNBits"] == 2 and run["DequantizeLinear"] == 2  # convolutions decode at every run
    unpacked = optimized_operations(four_bits[1], weights="unpacked")
    assert unpacked["DequantizeLinear"] == unpacked["MatMulNBits"] == 0


class Tied(nn.Module):
    """An embedding and an output layer with one matrix."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(12, 32), nn.Linear(32, 12, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens):
        return self.out(self.table(tokens))


def test_a_shared_code_is_stored_once(tmp_path):
    coded = encode(Tied().eval(), partial(UniformCode.from_dense, bits=8, axis=0, symmetric=False))
    path = export_stored(coded, tmp_path / "tied.onnx", (7,), dtype=torch.int64)
    tokens = torch.randint(0, 12, (4, 7))
    assert agreement(coded, OnnxModel(path, weights="exact"), tokens).largest < 1e-4
    assert sum(len(t.raw_data) for t in onnx.load(path).graph.initializer if t.name.endswith(".q")) == 12 * 32


def test_a_network_without_codes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no layer of this network is coded"):
        export_stored(nn.Linear(3, 2), tmp_path / "x.onnx", (3,))
