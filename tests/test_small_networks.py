"""The networks in which blocks are compared: what they cost, and that the rest of the library takes them."""

import copy
import json

import pytest
import torch
from torch import fx, nn

from compresslab.compact import CompactNet, width_for
from compresslab.compact.small import BLOCKS
from compresslab.core import UniformCode, count_macs, encode, load, save
from compresslab.models import from_spec
from compresslab.quantization import fold_batch_norm


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(params=BLOCKS)
def block(request) -> str:
    return request.param


@pytest.fixture
def model(block) -> CompactNet:
    """A small network of every block, its batch norms filled as if it had been trained."""
    torch.manual_seed(0)
    model = CompactNet(block, width_for(block, 4_000), depth=1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_every_block_fills_the_budget_and_the_next_width_breaks_it(block):
    width = width_for(block, 20_000)
    assert 15_000 < parameters(CompactNet(block, width)) <= 20_000
    wider = []
    for next_width in range(width + 1, width + 9):
        try:
            wider.append(parameters(CompactNet(block, next_width)))
        except ValueError:  # a width that this block cannot have
            continue
    assert wider and min(wider) > 20_000


def test_the_plain_network_by_hand():
    w, first = 4, 3 * 9 * 4 + 2 * 4
    blocks = [(w, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w)]
    expected = first + sum(9 * i * o + 2 * o for i, o in blocks) + 10 * (4 * w + 1)
    assert parameters(CompactNet("plain", w)) == expected
    pixels = [256, 256, 64, 64, 16, 16]
    macs = 256 * 27 * w + sum(p * 9 * i * o for p, (i, o) in zip(pixels, blocks, strict=True)) + 40 * w
    assert count_macs(CompactNet("plain", w), (3, 32, 32)).total == macs


def test_its_specification_builds_it_again(model, x):
    again = from_spec(json.dumps(model.spec))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(x), model(x)) and copy.deepcopy(model).spec == model.spec


def test_it_is_traced_quantized_saved_and_folded(model, x, tmp_path):
    expected = model(x)
    torch.testing.assert_close(fx.symbolic_trace(model)(x), expected)
    torch.testing.assert_close(fold_batch_norm(model)(x), expected, rtol=1e-3, atol=1e-4)
    coded = encode(model, UniformCode.from_dense)
    save(coded, tmp_path / "small")
    assert torch.equal(load(tmp_path / "small")(x), coded(x))


def test_small_images_and_other_numbers_of_classes():
    assert CompactNet("shuffle_v2", 8, 1, 3, 1).eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "magic"}, "there is no block 'magic'; choose one of plain, residual, fire"),
        ({"block": "shuffle_v2", "width": 3}, "a shuffle_v2 block from 3 to 3 channels: "),
        ({"width": 0}, "width must be a whole number"),
        ({"depth": 0}, "depth must be a whole number"),
    ],
)
def test_what_it_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        CompactNet(**arguments)


@pytest.mark.parametrize("arguments", [{"block": "nope"}, {"block": "plain", "depth": 0}])
def test_no_search_for_a_width_of_what_does_not_exist(arguments):
    with pytest.raises(ValueError, match="there is no block 'nope'|depth must be"):
        width_for(max_parameters=100, **arguments)


def test_a_budget_that_no_width_keeps():
    with pytest.raises(ValueError, match="no network of plain blocks has at most 5 parameters"):
        width_for("plain", 5)


# -- blocks in a specification ---------------------------------------------------------------------------------

LAYERS = [
    ["conv", {"out_channels": 8, "padding": 1, "bias": False}], ["batch_norm"], ["relu"],
    ["separable", {"out_channels": 16, "stride": 2}],
    ["inverted_residual", {"out_channels": 16, "expansion": 2, "squeeze_excite": 0.25}],
    ["inverted_residual", {"out_channels": 16, "squeeze_excite": None}],
    ["shuffle_v2", {"out_channels": 16}],
    ["shuffle_v1", {"out_channels": 32, "stride": 2, "groups": 2}],
    ["fire", {"squeeze": 4, "expand1x1": 8, "expand3x3": 8, "batch_norm": True}],
    ["ghost", {"out_channels": 20}],
    ["global_pool"], ["linear", {"out_features": 10}],
]  # fmt: skip


def test_a_stack_may_hold_every_block(tmp_path):
    torch.manual_seed(0)
    model = from_spec({"input": [1, 28, 28], "layers": LAYERS}).eval()
    x = torch.randn(2, 1, 28, 28)
    save(model, tmp_path / "stack")
    assert model(x).shape == (2, 10) and torch.equal(load(tmp_path / "stack")(x), model(x))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (["separable", {"channels": 8}], r"layer 0 \(separable\): the options are out_channels, kernel_size, stride"),
        (["separable", {"out_channels": 8, "activation": "ReLU"}], "the options are"),
        (["inverted_residual", {"out_channels": 8, "stride": 3}], r"layer 0 \(inverted_residual\): stride must be"),
        (["ghost", {"out_channels": 10**9}], "out_channels must be a whole number from 0 to 16384"),
        (["shuffle_v1", {"out_channels": 8, "stride": 2, "groups": 3}], r"layer 0 \(shuffle_v1\): .*groups"),
        (["separable", {"out_channels": 8, "batch_norm": 0.5}], r"batch_norm must be true or false, got 0.5"),
        (["inverted_residual", {"out_channels": 8, "expansion": 1e15}], "expansion must be from 1 to 64"),
        (["separable"], r"layer 0 \(separable\): .*out_channels"),
        (["unknown"], "there is no layer 'unknown'; choose one of conv, linear, .*, ghost"),
    ],
)
def test_what_a_block_refuses_in_a_specification(layer, message):
    with pytest.raises(ValueError, match=message):
        from_spec({"input": [4, 8, 8], "layers": [layer]})
