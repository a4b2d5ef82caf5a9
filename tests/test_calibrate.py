"""Collected inputs reproduce the layer's output; moments and norms are sums over those inputs."""

import pytest
import torch
from torch import nn

from compresslab.core.calibrate import collect_inputs, find_layers, input_moments, input_norms, watch


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False), nn.Dropout(0.5), nn.Flatten(), nn.Linear(27, 4))


@pytest.mark.parametrize(
    "layer, x",
    [(nn.Linear(5, 3), torch.randn(2, 4, 5)),
     (nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(1, 2)), torch.randn(2, 3, 7, 8)),
     (nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"), torch.randn(2, 3, 6, 6)),
     (nn.Conv2d(3, 4, 1, bias=False), torch.randn(2, 3, 5, 5)),
     (nn.Conv1d(3, 4, 3, padding=1, stride=2), torch.randn(2, 3, 9))],
)
def test_rows_times_weight_is_the_output(layer, x):
    layer, x = layer.double(), x.double()
    rows = collect_inputs(nn.Sequential(layer), ["0"], [x])["0"]
    bias = 0 if layer.bias is None else layer.bias
    out = layer(x)
    expected = out if isinstance(layer, nn.Linear) else out.flatten(2).transpose(1, 2)
    torch.testing.assert_close(rows @ layer.weight.flatten(1).T + bias, expected.reshape(len(rows), -1))


def test_moments_and_norms_are_sums_over_batches_and_modes_are_restored():
    model = small_net().train()
    batches = [torch.randn(3, 2, 6, 6), (torch.randn(2, 2, 6, 6), torch.zeros(2))]
    rows = collect_inputs(model, ["0", "3"], batches)
    H, norms = input_moments(model, ["0", "3"], batches), input_norms(model, ["0", "3"], batches)
    for name, part in rows.items():
        torch.testing.assert_close(H[name], part.double().T @ part.double())
        torch.testing.assert_close(norms[name], H[name].diagonal().sqrt())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_max_rows_draws_the_same_rows_for_the_same_seed():
    model, x = small_net(), torch.randn(4, 2, 6, 6)
    one, two = (collect_inputs(model, ["0"], [x], max_rows=5, seed=1)["0"] for _ in range(2))
    assert one.shape == (5, 18) and torch.equal(one, two)


@pytest.mark.parametrize(
    "layers, batches, error, message",
    [(["nope"], [torch.randn(1, 2, 6, 6)], ValueError, "no layer 'nope'"),
     (["1"], [torch.randn(1, 2, 6, 6)], TypeError, "got Dropout in layer '1'"),
     (["0"], [], ValueError, "no calibration data")],
)
def test_errors(layers, batches, error, message):
    with pytest.raises(error, match=message):
        collect_inputs(small_net(), layers, batches)


def test_grouped_convolution_is_refused():
    with pytest.raises(ValueError, match="groups=2 in layer '0'"):
        input_norms(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), ["0"], [torch.randn(1, 2, 3, 3)])


def test_batches_without_an_example_are_no_data():
    model = nn.Sequential(nn.Linear(3, 2))
    for collect in (collect_inputs, input_moments, input_norms):
        with pytest.raises(ValueError, match="no calibration data"):
            collect(model, ["0"], [torch.zeros(0, 3)])
    assert input_moments(model, ["0"], [torch.zeros(0, 3), torch.ones(2, 3)])["0"].eq(2).all()


def test_watched_layers_keep_their_latest_output_with_its_gradient_and_lose_their_hooks():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    with watch(model, ["1", "0"]) as outputs:
        assert outputs == {}
        model(torch.zeros(1, 3))
        y = model(x)
        assert list(outputs) == ["0", "1"] and outputs["1"].shape == (5, 4)  # in the order in which they ran
        assert torch.equal(model[2](outputs["1"]), y)
        outputs["0"].sum().backward()
    assert model[0].weight.grad is not None and not any(layer._forward_hooks for layer in model)
    model(x)
    assert len(outputs["0"]) == 5


def test_hooks_go_when_the_model_fails():
    model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(RuntimeError), watch(model, ["0"]):
        model(torch.zeros(1, 7))
    assert not model[0]._forward_hooks


def test_an_unknown_layer_is_named_with_those_that_exist():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    for name in ("2", "fc"):
        with pytest.raises(ValueError, match=f"the model has no layer '{name}'; it has 0, 1$"):
            find_layers(model, ["0", name])
    with pytest.raises(ValueError, match=r"got the string '01'; write \['01'\]"):
        find_layers(model, "01")
    assert find_layers(model, ["1", ""]) == {"1": model[1], "": model}
    with pytest.raises(ValueError, match="it has none"), watch(nn.Linear(1, 1), ["x"]):
        pass
