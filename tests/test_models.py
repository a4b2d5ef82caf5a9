"""The networks of the course: published parameter counts, tracing, and networks described as data."""

import copy
import json

import pytest
import torch
from torch import fx

from compresslab.models import MODELS, LeNet5, LeNet300, MobileNetLike, ResNet, VGGLike, build_model, from_spec


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("depth", "count"), [(20, 278_324), (32, 472_756), (56, 861_620), (110, 1_736_564)])
def test_the_resnet_family_has_the_published_numbers_of_parameters(depth, count):
    assert parameters(ResNet(depth, num_classes=100)) == count


def test_the_lenets_have_the_published_numbers_of_parameters():
    assert parameters(LeNet300()) == 266_610
    assert parameters(LeNet5()) == 431_080


def test_the_vgg_is_large_and_the_default_resnet_small():
    assert parameters(VGGLike()) >= 1_000_000
    assert parameters(ResNet()) < 100_000


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"gpt", "char_lstm"}))  # those read tokens: test_language_models.py
def test_every_network_is_traced_by_fx_and_rebuilt_from_its_spec(name):
    torch.manual_seed(0)
    model = build_model(name).eval()
    x = torch.randn(2, *((1, 28, 28) if name.startswith("lenet") else (3, 32, 32)))
    expected = model(x)
    assert expected.shape == (2, 10)
    torch.testing.assert_close(fx.symbolic_trace(model)(x), expected)
    rebuilt = from_spec(json.dumps(model.spec)).eval()
    rebuilt.load_state_dict(model.state_dict())
    torch.testing.assert_close(rebuilt(x), expected, rtol=0, atol=0)
    assert rebuilt.spec == model.spec == copy.deepcopy(model).spec


def test_arguments_reach_the_network():
    model = build_model("resnet", depth=14, width=4, num_classes=7, in_channels=1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert model.spec == {"model": "resnet", "depth": 14, "width": 4, "num_classes": 7, "in_channels": 1}
    assert parameters(MobileNetLike(width_mult=0.5)) < parameters(MobileNetLike()) / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "alexnet"}, "there is no network 'alexnet'"),
        ({"name": "resnet", "depht": 20}, "resnet has no argument 'depht'; it has depth, width"),
        ({"name": "resnet", "depth": 18}, "depth must be 6 n \\+ 2"),
        ({"name": "resnet", "width": 0}, "width must be a whole number, at least 1, got 0"),
        ({"name": "vgg", "num_classes": 2.5}, "num_classes must be a whole number"),
        ({"name": "mobilenet", "width_mult": float("nan")}, "width_mult must be a number in"),
        ({"name": "mobilenet", "width_mult": 0}, "width_mult must be a number in"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(arguments.pop("name"), **arguments)


STACK = {
    "input": [3, 16, 16],
    "layers": [
        ["conv", {"out_channels": 8, "padding": 1, "bias": False}],
        ["batch_norm"],
        ["relu"],
        ["max_pool", {"kernel_size": 2}],
        ["residual", {"layers": [["conv", {"out_channels": 8, "padding": 1, "groups": 4}], ["relu", {}]]}],
        ["avg_pool"],
        ["dropout", {"p": 0.1}],
        ["flatten"],
        ["linear", {"out_features": 12}],
        ["batch_norm"],
        ["linear", {"out_features": 5, "bias": False}],
    ],
}


def test_a_stack_of_layers_is_a_network_with_shapes_inferred():
    model = from_spec(STACK)
    assert model.training
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
    assert model[8].in_features == 8 * 4 * 4
    assert parameters(model) == 3 * 8 * 9 + 16 + (8 * 2 * 9 + 8) + (128 * 12 + 12) + 24 + 60
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(fx.symbolic_trace(model.eval())(x), model(x))
    rebuilt = from_spec(json.dumps(model.spec)).eval()
    rebuilt.load_state_dict(model.state_dict())
    torch.testing.assert_close(rebuilt(x), model(x), rtol=0, atol=0)


def test_a_residual_adds_its_input():
    model = from_spec({"input": [1, 2, 2], "layers": [["residual", {"layers": [["relu"]]}]]})
    assert model(torch.full((1, 1, 2, 2), 3.0)).eq(6).all()


def test_building_a_stack_leaves_the_caller_s_list_and_its_spec_apart():
    spec = copy.deepcopy(STACK)
    model = from_spec(spec)
    spec["layers"].clear()
    assert len(model.spec["layers"]) == len(STACK["layers"])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "the layers must be a list"),
        ("conv", "the layers must be a list"),
        ([["convolution", {}]], "layer 0: there is no layer 'convolution'; choose one of conv"),
        ([["relu"], ["conv"]], "layer 1 \\(conv\\): .*out_channels"),
        ([["conv", {"out_channels": 4, "filters": 3}]], "layer 0 \\(conv\\): the options are out_channels"),
        ([["conv", {"out_channels": -4}]], "out_channels must be a whole number from 1"),
        ([["conv", {"out_channels": True}]], "out_channels must be a whole number"),
        ([["conv", {"out_channels": 10**9}]], "out_channels must be a whole number"),
        ([["conv", {"out_channels": 4, "groups": 2}]], "groups 2 must divide the 3 input and 4 output"),
        ([["conv", {"out_channels": 4, "kernel_size": 19}]], "layer 0 \\(conv\\): .*its input has shape \\(3, 16, 16\\)"),
        ([["linear", {"out_features": 4}]], "needs an input of shape \\(features,\\), got \\(3, 16, 16\\)"),
        ([["flatten"], ["max_pool"]], "layer 1 \\(max_pool\\) needs an input of shape \\(channels"),
        ([["dropout", {"p": 1.5}]], "p must be in \\[0, 1\\), got 1.5"),
        ([["flatten"], ["linear", {"out_features": 4, "bias": 1}]], "bias must be true or false"),
        ([["residual", {"layers": [["conv", {"out_channels": 8}]]}]], "must keep the shape"),
        ([["residual", {"layers": [["nonsense"]]}]], "layer 0 \\(residual\\), layer 0: there is no layer"),
        ([["relu", {}, {}]], "a layer is a pair"),
        ([[{}, "relu"]], "a layer is a pair"),
    ],
)
def test_a_mistake_in_a_stack_is_named_with_its_layer(layers, message):
    with pytest.raises(ValueError, match=message):
        from_spec({"input": [3, 16, 16], "layers": layers})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", 'has the key "model"'),
        ({"input": [3], "layer": []}, "got \\['input', 'layer'\\]"),
        ({"input": [], "layers": [["relu"]]}, '"input" must be the shape'),
        ({"input": [3, 0, 5], "layers": [["relu"]]}, "input must be a whole number"),
        ({"model": ["resnet"]}, "there is no network"),
        ({"model": "resnet", "name": "vgg"}, "resnet has no argument 'name'"),
    ],
)
def test_a_specification_in_neither_form_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        from_spec(spec)
