"""Coded layers, ``encode`` and ``decompress``."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from compresslab.core import (
    CodebookCode,
    CodedConv2d,
    CodedLayer,
    CodedLinear,
    CodedMultiheadAttention,
    DenseCode,
    SparseCode,
    UniformCode,
    apply_mask_,
    decompress,
    encode,
    named_layers,
    storage_bits,
)

uniform4 = partial(UniformCode.from_dense, bits=4)
image = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))
signal = image[:, :, 0]
row = image[:, 0, 0, :8]
tokens = torch.tensor([[1, 0, 5], [2, 2, 6]])
sequence = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))

LAYERS = {
    "linear": (lambda: nn.Linear(8, 3), row),
    "linear without bias": (lambda: nn.Linear(8, 3, bias=False), row),
    "linear 1x1": (lambda: nn.Linear(1, 1), row[:, :1]),
    "conv": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), image),
    "conv grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), image),
    "conv depthwise dilated": (lambda: nn.Conv2d(4, 8, (3, 1), groups=4, dilation=2, padding="same"), image),
    "conv circular": (lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular"), image),
    "conv reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), image),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="replicate"), signal),
    "embedding": (lambda: nn.Embedding(7, 5, padding_idx=0), tokens),
    "lstm": (lambda: nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True), sequence),
    "lstm projected without bias": (lambda: nn.LSTM(8, 6, bias=False, proj_size=3), sequence),
}


def build(make, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def first_output(out):
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(("make", "x"), LAYERS.values(), ids=LAYERS)
def test_exact_code_same_output_lossy_code_same_as_decompressed(make, x):
    layer = build(make)
    before = copy.deepcopy(layer.state_dict())
    exact = encode(layer, DenseCode.from_dense)
    assert isinstance(exact, CodedLayer) and not exact.training
    assert torch.equal(first_output(exact(x)), first_output(layer(x)))
    coded = encode(layer, uniform4)
    plain = decompress(coded)
    assert type(plain) is type(layer) and plain.extra_repr() == layer.extra_repr()
    assert torch.allclose(first_output(coded(x)), first_output(plain(x)), atol=1e-7)
    assert any(p.numel() > 1 for p in layer.parameters()) != torch.equal(
        first_output(coded(x)), first_output(layer(x))
    )
    assert torch.equal(first_output(copy.deepcopy(coded)(x)), first_output(coded(x)))
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


@pytest.mark.parametrize(
    "settings", [{}, {"kdim": 6, "vdim": 5}, {"add_bias_kv": True, "bias": False}], ids=str
)
@pytest.mark.parametrize("grad", [True, False])  # without gradients torch takes another path
def test_attention(settings, grad):
    layer = build(lambda: nn.MultiheadAttention(8, 2, batch_first=True, **settings))
    inputs = (sequence, sequence[..., : settings.get("kdim", 8)], sequence[..., : settings.get("vdim", 8)])
    with torch.set_grad_enabled(grad):
        exact = encode(layer, DenseCode.from_dense)
        assert isinstance(exact, CodedMultiheadAttention) and isinstance(exact.out_proj, CodedLinear)
        assert torch.allclose(exact(*inputs)[0], layer(*inputs)[0], atol=1e-6)
        coded = encode(layer, uniform4)
        assert torch.allclose(coded(*inputs)[0], decompress(coded)(*inputs)[0], atol=1e-6)
    assert not [name for name, _ in coded.named_parameters() if "weight" in name]


def test_parts_of_attention_are_chosen_by_name():
    layer = nn.Sequential(nn.MultiheadAttention(8, 2))
    inputs_only = encode(layer, uniform4, only=["0"])[0]
    assert isinstance(inputs_only, CodedMultiheadAttention) and isinstance(inputs_only.out_proj, nn.Linear)
    output_only = encode(layer, uniform4, only=["0.out_proj"])[0]
    assert type(output_only) is nn.MultiheadAttention and isinstance(output_only.out_proj, CodedLinear)
    for coded in (inputs_only, output_only):
        assert torch.allclose(
            coded(sequence, sequence, sequence)[0], decompress(coded)(sequence, sequence, sequence)[0]
        )


def test_transformer_layer_runs_coded():
    layer = build(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    with torch.no_grad():
        assert torch.allclose(encode(layer, DenseCode.from_dense)(sequence), layer(sequence), atol=1e-6)


class Tied(nn.Module):
    """An embedding and an output layer with one weight, and one layer used under two names."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 5), nn.Linear(5, 7)
        self.head.weight = self.embed.weight
        self.first = self.second = nn.Linear(5, 5)

    def forward(self, x):
        return self.head(self.second(self.first(self.embed(x))))


def test_tied_weights_and_shared_layers_stay_one():
    model = build(Tied)
    calls = []
    coded = encode(model, lambda weight: calls.append(1) or uniform4(weight))
    assert len(calls) == 2
    assert coded.embed.coded is coded.head.coded and coded.first is coded.second
    assert storage_bits(coded) == 8 * (
        18 + 4 + 13 + 4 + 4 * 7 + 4 * 5
    )  # ceil(35 / 2), scale, ceil(25 / 2), scale, biases
    plain = decompress(coded)
    assert plain.embed.weight is plain.head.weight and plain.first is plain.second
    assert torch.allclose(plain(tokens), coded(tokens))


def test_only_and_skip_choose_layers():
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(196, 5))
    coded = encode(model, uniform4, only=["3"])
    assert type(coded[0]) is nn.Conv2d and isinstance(coded[3], CodedLinear)
    coded = encode(model, uniform4, skip=["3"])
    assert (
        isinstance(coded[0], CodedConv2d) and type(coded[3]) is nn.Linear and type(coded[1]) is nn.BatchNorm2d
    )
    with pytest.raises(ValueError, match="only names no such layer: '9'"):
        encode(model, uniform4, only=["9"])
    with pytest.raises(ValueError, match="skip names no such layer: '1'"):
        encode(model, uniform4, skip=["1"])


def test_encoding_twice_leaves_coded_layers_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    half = encode(model, uniform4, only=["0"])
    full = encode(half, DenseCode.from_dense)
    assert isinstance(full[0].coded, UniformCode) and isinstance(full[1].coded, DenseCode)


def test_a_coded_layer_is_not_mistaken_for_a_plain_one():
    coded = encode(nn.Sequential(nn.Linear(4, 4)), uniform4)
    assert not named_layers(coded) and not isinstance(coded[0], nn.Linear)
    assert torch.equal(coded[0].weight, coded[0].coded.decode())


def test_masks_are_baked_in():
    layer = nn.Linear(4, 2)
    apply_mask_(layer, torch.tensor([[True, False, True, False]] * 2))
    coded = encode(nn.Sequential(layer), SparseCode.from_dense)
    assert coded[0].coded.values.shape == (4,) and torch.equal(coded(row[:, :4]), layer(row[:, :4]))


def test_biases_keep_learning():
    layer = encode(nn.Linear(4, 2), uniform4)
    assert [name for name, parameter in layer.named_parameters() if parameter.requires_grad] == ["bias"]
    layer(row[:, :4]).sum().backward()
    assert layer.bias.grad is not None


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_subclass_with_a_forward_of_its_own_is_left_alone_or_refused_by_name():
    model = nn.Sequential(Scaled(4, 2))
    assert type(encode(model, uniform4)[0]) is Scaled
    with pytest.raises(ValueError, match="layer '0' is a Scaled, whose forward may not be"):
        encode(model, uniform4, only=["0"])


def test_errors_name_the_layer():
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4))
    with pytest.raises(ValueError, match="group_size 8 does not divide the 4 weights .* in layer '1'"):
        encode(model, partial(UniformCode.from_dense, group_size=8))
    with pytest.raises(TypeError, match="make_code must return a WeightCode, got Tensor in layer '0'"):
        encode(model, lambda weight: weight)
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="nan or inf in it in layer '1'"):
        encode(model, uniform4)


def test_parts_that_do_not_fit_are_refused():
    geometry = {"in_features": 4, "out_features": 2}
    code = uniform4(torch.ones(2, 4))
    with pytest.raises(ValueError, match="coded must be a WeightCode, got NoneType"):
        CodedLinear(geometry, bias=torch.zeros(2))
    with pytest.raises(ValueError, match=r"coded must have shape \(2, 4\), got \(4, 2\)"):
        CodedLinear(geometry, coded=uniform4(torch.ones(4, 2)), bias=torch.zeros(2))
    with pytest.raises(ValueError, match="bias must be a Tensor"):
        CodedLinear(geometry, coded=code)
    with pytest.raises(ValueError, match="has no part 'extra'"):
        CodedLinear(geometry, coded=code, bias=torch.zeros(2), extra=code)
    with pytest.raises(TypeError, match="Linear takes no argument 'groups'"):
        CodedLinear(geometry | {"groups": 2}, coded=code, bias=torch.zeros(2))


class AllLayers(nn.Module):
    """One of each coded layer, so that a single export covers them."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.conv1 = nn.Conv1d(8, 8, 3, padding=1, groups=2, padding_mode="circular")
        self.conv2 = nn.Conv2d(1, 2, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = self.embed(x)
        h = self.conv1(h.transpose(1, 2)).transpose(1, 2)
        h = h + self.attention(h, h, h)[0]
        h = self.conv2(h.unsqueeze(1)).transpose(1, 2).flatten(2)
        return self.head(self.lstm(h)[0])


@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
def test_every_layer_exports_to_torch_and_onnx():
    ort = pytest.importorskip("onnxruntime")
    coded = encode(build(AllLayers), partial(CodebookCode.from_dense, bits=3))
    with torch.no_grad():
        expected = coded(tokens)
        program = torch.export.export(coded, (tokens,))
        assert torch.allclose(program.module()(tokens), expected, atol=1e-6)
        proto = torch.onnx.export(program, (tokens,), dynamo=True, verbose=False).model_proto
    session = ort.InferenceSession(proto.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: tokens.numpy()})
    assert np.allclose(found, expected.numpy(), atol=1e-5)


def test_a_coded_layer_alone_exports():
    coded, x = encode(nn.Linear(5, 3), UniformCode.from_dense).eval(), torch.randn(2, 5)
    exported = torch.export.export(coded, (x,)).module()
    assert torch.equal(exported(x), coded(x))
