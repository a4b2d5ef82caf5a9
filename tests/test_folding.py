"""Batch norm folded into the layer before it: torch's own fusion as the oracle, and what must be left alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from compresslab.core.modules import apply_mask_, get_mask
from compresslab.core.store import load, save
from compresslab.models import build_model, load_baseline
from compresslab.quantization.folding import fold, fold_batch_norm

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def norms_of(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, NORMS)]


def stir_(model: nn.Module) -> nn.Module:
    """Random statistics and parameters for every batch norm."""
    for seed, module in enumerate(model.modules()):
        if isinstance(module, NORMS):
            for tensor, base in ((module.running_mean, 0.0), (module.running_var, 2.0), (module.weight, 1.0),
                                 (module.bias, 0.0)):  # fmt: skip
                if tensor is not None:
                    tensor.data = base + 0.5 * randn(*tensor.shape, seed=seed).clamp(-2, 2)
    return model


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 1, 5, 5), (6, 4)])
@pytest.mark.parametrize("bias", [None, randn(6, seed=9)])
def test_formula_agrees_with_torch(shape, bias):
    weight, gamma, beta, mean, var = randn(*shape), *(randn(6, seed=s) for s in (1, 2, 3)), randn(6, seed=4).square()
    want = fuse_conv_bn_weights(weight, bias, mean, var, 1e-3, gamma, beta)
    for got, expected in zip(fold(weight, bias, gamma, beta, mean, var, 1e-3), want, strict=True):
        torch.testing.assert_close(got, expected.detach())


def test_vectors_of_the_wrong_length_are_refused():
    for name in ("bias", "gamma", "beta", "mean", "var"):
        vectors = {key: torch.ones(3) for key in ("bias", "gamma", "beta", "mean", "var")}
        with pytest.raises(ValueError, match=rf"{name} must have shape \(3,\)"):
            fold(torch.ones(3, 2), **(vectors | {name: torch.ones(2)}))


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "vgg", "mobilenet"])
def test_trained_networks_keep_their_outputs(name):
    model = load_baseline(name)
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model)
    x = randn(2, *((1, 28, 28) if name == "lenet5" else (3, 32, 32)))
    assert not norms_of(folded) and not folded.training
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_torchvision_resnet18():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = stir_(resnet18(num_classes=5)).double()  # float64: its 18 layers at random amplify rounding
    folded = fold_batch_norm(model)
    assert not norms_of(folded) and folded.training
    x = randn(1, 3, 64, 64).double()
    with torch.no_grad():
        torch.testing.assert_close(folded.eval()(x), model.eval()(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", ["resnet", "vgg", "mobilenet"])
def test_file_is_smaller_and_loads_into_the_skeleton(tmp_path, network):
    model = stir_(build_model(network)).eval()
    folded = fold_batch_norm(model)
    path, whole = tmp_path / "folded", tmp_path / "whole"
    save(folded, path)
    save(model, whole)
    assert path.stat().st_size < whole.stat().st_size
    loaded = load(path, build_model(network)).eval()
    x = randn(2, 3, 32, 32)
    assert not norms_of(loaded) and torch.equal(loaded(x), folded(x))


def test_kinds_of_layers():
    for layer, norm, shape in [
        (nn.Linear(4, 6), nn.BatchNorm1d(6), (3, 4)),
        (nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm1d(6, eps=0.1), (3, 4, 7)),
        (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False), (3, 4, 7, 7)),
    ]:
        model = stir_(nn.Sequential(layer, norm)).eval()
        folded = fold_batch_norm(model)
        assert isinstance(folded[1], nn.Identity)
        torch.testing.assert_close(folded(randn(*shape)), model(randn(*shape)))


class Net(nn.Module):
    """One conv, one batch norm, and a forward given as a function."""

    def __init__(self, run):
        super().__init__()
        self.conv, self.bn, self.other = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


@pytest.mark.parametrize(
    "run",
    [
        lambda net, x: net.bn(net.conv(net.conv(x))),  # the conv is called twice
        lambda net, x: net.bn(net.conv(x)) + net.bn(net.other(x)),  # the batch norm is
        lambda net, x: (lambda y: net.bn(y) + y)(net.conv(x)),  # the conv's output goes elsewhere too
        lambda net, x: net.bn(F.relu(net.conv(x))),  # something between
        lambda net, x: net.conv(net.bn(x)),  # no conv before
    ],
)
def test_left_alone(run):
    model = stir_(Net(run)).eval()
    folded = fold_batch_norm(model)
    assert norms_of(folded) == ["bn"]
    torch.testing.assert_close(folded(randn(2, 2, 3, 3)), model(randn(2, 2, 3, 3)))


def test_a_weight_that_two_layers_share_is_left_alone():
    model = Net(lambda net, x: net.other(net.bn(net.conv(x)))).eval()
    model.other.weight = model.conv.weight
    folded = fold_batch_norm(stir_(model))
    assert norms_of(folded) == ["bn"] and folded.other.weight is folded.conv.weight


def test_masks_stay():
    model = stir_(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))).eval()
    mask = randn(3, 2, 3, 3) > 0
    apply_mask_(model[0], mask)
    folded = fold_batch_norm(model)
    assert torch.equal(get_mask(folded[0]), mask)
    torch.testing.assert_close(folded(randn(2, 2, 5, 5)), model(randn(2, 2, 5, 5)))


def test_errors():
    with pytest.raises(ValueError, match="batch norm '1' keeps no running statistics"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)))
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    nn.utils.parametrize.register_parametrization(model[0], "weight", nn.Tanh())
    with pytest.raises(ValueError, match="layer '0' has a parametrized weight"):
        fold_batch_norm(model)
    with pytest.raises(ValueError, match="cannot be traced"):
        fold_batch_norm(Net(lambda net, x: net.conv(x) if x.sum() > 0 else x))
