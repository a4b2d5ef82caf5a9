"""Magnitude pruning against torch.nn.utils.prune."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compresslab.core.modules import get_mask
from compresslab.pruning.magnitude import magnitude_mask, magnitudes, prune_magnitude
from compresslab.pruning.masks import layer_sparsity, sparsity_of


def small_net(dtype=torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3, bias=False), nn.Conv1d(3, 6, 1, groups=3), nn.Linear(7, 5), nn.Linear(5, 3)
    return nn.Sequential(*layers).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.77, 0.9, 1.0])
def test_layer_masks_equal_torch(sparsity, dtype):
    model = small_net(dtype)
    pruned = prune_magnitude(model, sparsity)
    for ours, theirs in zip(pruned, copy.deepcopy(model), strict=True):
        prune.l1_unstructured(theirs, "weight", amount=sparsity)
        assert torch.equal(get_mask(ours), theirs.weight_mask.bool())
        assert torch.equal(ours.weight, theirs.weight) and ours.weight.dtype == dtype


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.77, 0.9, 1.0])
def test_global_masks_equal_torch(sparsity):
    model = small_net()
    pruned, peer = prune_magnitude(model, sparsity, scope="global"), copy.deepcopy(model)
    prune.global_unstructured([(layer, "weight") for layer in peer], prune.L1Unstructured, amount=sparsity)
    for ours, theirs in zip(pruned, peer, strict=True):
        assert torch.equal(get_mask(ours), theirs.weight_mask.bool())
    total = sum(layer.weight.numel() for layer in model)
    assert sparsity_of(pruned) == round(sparsity * total) / total


def test_by_hand():
    weight = torch.tensor([[0.5, -2.0, 0.0], [0.1, 1.0, -0.5]])
    assert magnitude_mask(weight, 0.5).tolist() == [[False, True, False], [False, True, True]]


@pytest.mark.parametrize(
    "weight", [torch.zeros(5, 5), torch.ones(5, 5), torch.tensor([[1.0, -1.0, 1.0], [2.0, -1.0, 1.0]])]
)
def test_ties_give_exact_counts(weight):
    """The threshold form ``|w| > sorted[k]`` would drop all of them."""
    for k in range(weight.numel() + 1):
        assert int((~magnitude_mask(weight, k / weight.numel())).sum()) == k


def test_pruning_more_only_removes():
    model = small_net()
    gradually = model
    for sparsity in (0.2, 0.5, 0.4, 0.8):
        gradually = prune_magnitude(gradually, sparsity)
        assert sparsity_of(gradually) == pytest.approx(max(sparsity, sparsity_of(gradually)), abs=0.02)
    assert all(
        torch.equal(a.weight, b.weight) for a, b in zip(gradually, prune_magnitude(model, 0.8), strict=True)
    )


def test_only_and_skip():
    model = small_net()
    assert layer_sparsity(prune_magnitude(model, 1.0, only=["2"])) == {"0": 0, "1": 0, "2": 1, "3": 0}
    assert layer_sparsity(prune_magnitude(model, 1.0, skip=["0", "3"])) == {"0": 0, "1": 1, "2": 1, "3": 0}
    assert list(magnitudes(model, skip=["0"])) == ["1", "2", "3"]


def test_shared_layer_is_pruned_once_and_stays_shared():
    layer = nn.Linear(4, 4)
    pruned = prune_magnitude(nn.Sequential(layer, nn.ReLU(), layer), 0.5)
    assert pruned[0] is pruned[2]
    assert int(get_mask(pruned[0]).sum()) == 8


def test_bad_arguments():
    model = small_net()
    with pytest.raises(ValueError, match="did you mean 0.8"):
        prune_magnitude(model, 80)
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="sparsity must be in"):
            prune_magnitude(model, bad)
    with pytest.raises(ValueError, match="scope"):
        prune_magnitude(model, 0.5, scope="everywhere")
    with pytest.raises(ValueError, match="no such layer"):
        prune_magnitude(model, 0.5, only=["fc1"])
    with pytest.raises(ValueError, match="nothing to prune"):
        prune_magnitude(nn.Sequential(nn.ReLU()), 0.5)
    model[2].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match="nan"):
        prune_magnitude(model, 0.5)
