"""Wanda: scores, rows of equal sparsity, and its place beside OBS."""

import copy
import math

import pytest
import torch
from torch import nn

from compresslab.core.calibrate import collect_inputs, input_norms
from compresslab.core.modules import get_mask
from compresslab.pruning.magnitude import magnitude_mask, prune_magnitude
from compresslab.pruning.masks import layer_sparsity, masks_of
from compresslab.pruning.second_order import obs_saliency
from compresslab.pruning.wanda import prune_wanda, wanda_mask, wanda_scores


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_half_its_square_is_the_obs_saliency_for_uncorrelated_inputs():
    weight, norms = randn(4, 6), randn(6, seed=1).abs() + 0.1
    H_inv = torch.diag(1 / norms.square())
    for row, score in zip(weight, wanda_scores(weight, norms), strict=True):
        torch.testing.assert_close(score.square() / 2, obs_saliency(row, H_inv))


def test_score_is_the_change_of_the_output():
    """|W_ij| ||X_j|| is the norm of what output i loses when weight ij goes."""
    X, W = randn(6, 20), randn(3, 6, seed=1)
    scores = wanda_scores(W, X.norm(dim=1))
    for i in range(3):
        for j in range(6):
            cut = W.clone()
            cut[i, j] = 0
            torch.testing.assert_close(((cut - W) @ X).norm(), scores[i, j])


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3), (3, 2, 5)])
def test_every_row_loses_exactly_its_share(sparsity, shape):
    inputs = math.prod(shape[1:])
    for weight in (randn(*shape), torch.ones(shape, dtype=torch.float64)):  # the second: nothing but ties
        mask = wanda_mask(weight, torch.ones(inputs), sparsity=sparsity)
        assert mask.shape == weight.shape
        assert (~mask).flatten(1).sum(1).eq(round(sparsity * inputs)).all()


def test_equal_norms_give_magnitude_by_row_and_loud_inputs_win():
    weight = randn(4, 9)
    mask = wanda_mask(weight, torch.full((9,), 3.0), sparsity=0.4)
    assert all(torch.equal(m, magnitude_mask(w, 0.4)) for m, w in zip(mask, weight, strict=True))
    loud = torch.tensor([1e6] + [1.0] * 8)
    assert wanda_mask(weight, loud, sparsity=8 / 9)[:, 0].all()


@pytest.mark.parametrize("n, m", [(2, 4), (1, 3)])
def test_n_of_m(n, m):
    weight, norms = randn(3, 12), randn(12, seed=2).abs()
    mask, scores = wanda_mask(weight, norms, nm=(n, m)), wanda_scores(weight, norms)
    for kept, group in zip(mask.view(-1, m), scores.view(-1, m), strict=True):
        assert int(kept.sum()) == n and group[~kept].max() <= group[kept].min()


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 3)
    ).double()


def test_layers_are_calibrated_behind_pruned_ones_and_weights_do_not_move():
    model, x = net(), randn(30, 2, 5, 5)
    pruned = prune_wanda(
        model, iter([x[:10], (x[10:], torch.zeros(20))]), sparsity=0.5
    )  # an iterator is enough
    X = collect_inputs(pruned, ["3"], [x])["3"]  # what layer 3 sees with layer 0 pruned
    assert torch.equal(get_mask(pruned[3]), wanda_mask(model[3].weight, X.norm(dim=0), sparsity=0.5))
    for name, layer in (("0", 0), ("3", 3), ("5", 5)):
        assert torch.equal(pruned[layer].weight, model[layer].weight * masks_of(pruned)[name])
    assert layer_sparsity(pruned) == {"0": 0.5, "3": 0.5, "5": 0.5} and masks_of(model) == {}


def test_keeps_the_output_better_than_magnitude_on_unequal_inputs():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(64, 32, bias=False)).double()
    x = randn(200, 64) * torch.logspace(-1, 1, 64).double()
    lost = lambda m: (m(x) - layer(x)).square().sum()  # noqa: E731
    assert lost(prune_wanda(layer, [x], sparsity=0.5)) < 0.5 * lost(prune_magnitude(layer, 0.5))


def test_masks_are_respected_and_dead_inputs_are_fine():
    model, x = net(), randn(10, 2, 5, 5)
    first = prune_magnitude(model, 0.3)
    second = prune_wanda(first, [x], sparsity=0.5, only=["3"])
    assert not second[3].weight[~get_mask(first[3])].any()
    dead = torch.zeros_like(x)
    assert layer_sparsity(prune_wanda(model, [dead], sparsity=0.25, only=["0"]))["0"] == pytest.approx(4 / 18)
    nm = prune_wanda(copy.deepcopy(model), [x], nm=(2, 4), only=["3"])
    assert layer_sparsity(nm)["3"] == 0.5
    assert torch.equal(input_norms(model, ["3"], [x])["3"], input_norms(net(), ["3"], [x])["3"])


def test_errors():
    model, x = net(), randn(3, 2, 5, 5)
    for bad in (80, -0.1, math.nan):
        with pytest.raises(ValueError, match="sparsity must be in"):
            prune_wanda(model, [x], sparsity=bad)
    for arguments in ({}, {"sparsity": 0.5, "nm": (2, 4)}):
        with pytest.raises(ValueError, match="exactly one of sparsity and nm"):
            prune_wanda(model, [x], **arguments)
    with pytest.raises(ValueError, match="must be a whole number"):
        prune_wanda(model, [x], nm=(5, 4))
    with pytest.raises(ValueError, match=r"norms must have shape \(7,\)"):
        wanda_scores(torch.ones(2, 7), torch.ones(6))
    with pytest.raises(ValueError, match="no calibration data"):
        prune_wanda(model, [], sparsity=0.5)
    with pytest.raises(ValueError, match="grouped convolution"):
        prune_wanda(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), [x], sparsity=0.5)
    with pytest.raises(ValueError, match="no such layer"):
        prune_wanda(model, [x], sparsity=0.5, skip=["1"])
