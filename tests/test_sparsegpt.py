"""SparseGPT against OBS restricted to the columns that are left, and against masked least squares."""

import math

import pytest
import torch
from torch import nn

from compresslab.core.calibrate import collect_inputs
from compresslab.core.modules import get_mask
from compresslab.pruning.magnitude import prune_magnitude
from compresslab.pruning.masks import layer_sparsity, masks_of
from compresslab.pruning.nm import NMCode, nm_mask, to_matrix
from compresslab.pruning.second_order import obs_remove, obs_saliency
from compresslab.pruning.sparsegpt import prune_sparsegpt, sparsegpt_prune
from compresslab.pruning.wanda import wanda_scores


def problem(outputs=6, inputs=24, rows=80, seed=0):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(inputs, inputs, generator=g).double() @ torch.randn(inputs, rows, generator=g).double()
    return torch.randn(outputs, inputs, generator=g).double(), X


def error(W, V, X):
    return ((V - W) @ X).square().sum()


def test_equals_obs_restricted_to_the_columns_to_come():
    """Column j of row i: an OBS step with the Hessian of columns j and later, nothing to the left may
    move.
    """
    W, X = problem(inputs=10)
    H = X @ X.T
    ours, keep = sparsegpt_prune(W, H, sparsity=0.5, damp=0.0, mask_block=10)
    V = W.clone()
    for i in range(len(W)):
        for j in range(10):
            if not keep[i, j]:
                V[i, j:], _ = obs_remove(V[i, j:], torch.linalg.inv(H[j:, j:]), 0)
    torch.testing.assert_close(ours, V, rtol=1e-8, atol=1e-9)
    assert torch.equal(ours == 0, ~keep)


def test_mask_is_chosen_by_the_obs_saliency_of_updated_weights():
    W, X = problem(inputs=12)
    H = X @ X.T
    _, keep = sparsegpt_prune(W, H, sparsity=0.5, damp=0.0, mask_block=4)
    V = W.clone()
    for start in range(0, 12, 4):
        saliency = torch.stack(
            [
                torch.stack(
                    [obs_saliency(row[j:], torch.linalg.inv(H[j:, j:]))[0] for j in range(start, start + 4)]
                )
                for row in V
            ]
        )
        lowest = saliency.flatten().argsort()[: saliency.numel() // 2]
        expected = torch.ones(saliency.numel(), dtype=torch.bool)
        expected[lowest] = False
        assert torch.equal(keep[:, start : start + 4], expected.view_as(saliency))
        for j in range(start, start + 4):
            for i in range(len(V)):
                if not keep[i, j]:
                    V[i, j:], _ = obs_remove(V[i, j:], torch.linalg.inv(H[j:, j:]), 0)


@pytest.mark.parametrize("choice", [{"sparsity": 0.6}, {"nm": (2, 4)}, {"nm": (1, 3)}])
def test_lazy_blocks_change_nothing(choice):
    W, X = problem(inputs=25)  # an odd size: the last block is cut off
    H = X @ X.T
    wide, keep = sparsegpt_prune(W, H, mask_block=4, block=1000, **choice)
    for block in (1, 4, 7, 8, 12, 16):
        lazy, same = sparsegpt_prune(W, H, mask_block=4, block=block, **choice)
        assert torch.equal(keep, same)
        torch.testing.assert_close(lazy, wide, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("damp", [0.0, 0.01])
def test_error_is_between_masked_least_squares_and_no_compensation(sparsity, damp):
    W, X = problem(outputs=12)
    V, keep = sparsegpt_prune(W, X @ X.T, sparsity=sparsity, damp=damp, mask_block=8)
    best = torch.zeros_like(W)
    for row, kept, b in zip(W, keep, best, strict=True):
        if kept.any():
            b[kept] = torch.linalg.lstsq(X[kept].T, (row @ X).unsqueeze(1), driver="gelsd").solution.flatten()
    slack = 1e-9 * error(W, torch.zeros_like(W), X)
    assert error(W, best, X) <= error(W, V, X) + slack
    if 0 < sparsity < 1:
        assert error(W, V, X) < error(W, W * keep, X)


def test_diagonal_hessian_is_wandas_ranking_and_moves_nothing():
    W, _ = problem(outputs=5, inputs=16)
    norms = torch.linspace(0.2, 3, 16).double()
    for block in (4, 16):
        V, keep = sparsegpt_prune(W, torch.diag(norms.square()), sparsity=0.5, damp=0.0, mask_block=block)
        torch.testing.assert_close(V, W * keep)
        for kept, scores in zip(keep.split(block, 1), wanda_scores(W, norms).split(block, 1), strict=True):
            assert scores[~kept].max() <= scores[kept].min()
    groups, _ = sparsegpt_prune(
        W, torch.diag(norms.square()), nm=(2, 4), damp=0.0
    )  # the same comparison group: the same mask
    torch.testing.assert_close(groups, W * nm_mask(wanda_scores(W, norms)))


def test_exact_counts_with_ties():
    H = torch.eye(10).double()
    for weight in (torch.ones(3, 10), torch.zeros(3, 10)):
        for sparsity in (0.0, 0.1, 0.5, 1.0):
            _, keep = sparsegpt_prune(weight, H, sparsity=sparsity, mask_block=4)
            assert [int((~part).sum()) for part in keep.split(4, 1)] == [
                round(sparsity * n) for n in (12, 12, 6)
            ]
    _, keep = sparsegpt_prune(torch.ones(3, 10), H, nm=(2, 4))
    assert [part.sum(1).tolist() for part in keep.split(4, 1)] == [[2, 2, 2]] * 3


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, 3)
    )


def images(n=120):
    x = torch.randn(n, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    return x + x.roll(1, -1) + x.roll(1, -2)  # neighbours are correlated


def test_prune_model_layer_by_layer():
    model, x = net(), images()
    pruned = prune_sparsegpt(model, iter([x[:60], (x[60:], torch.zeros(60))]), sparsity=0.5)
    assert layer_sparsity(pruned) == {"0": 0.5, "3": 0.5, "5": 0.5} and masks_of(model) == {}
    X = collect_inputs(pruned, ["3"], [x])["3"].double()  # behind the pruned convolution
    expected, keep = sparsegpt_prune(model[3].weight, X.T @ X, sparsity=0.5)
    assert torch.equal(get_mask(pruned[3]), keep)
    torch.testing.assert_close(pruned[3].weight, expected.float())
    magnitude = prune_magnitude(model, 0.5)
    with torch.no_grad():
        assert (pruned(x) - model(x)).square().sum() < 0.8 * (magnitude(x) - model(x)).square().sum()


def test_convolution_columns_have_channels_innermost():
    model, x = net(), images()
    pruned = prune_sparsegpt(model, [x], nm=(2, 4), only=["0"])
    groups = (to_matrix(pruned[0].weight) != 0)[:, :16].reshape(-1, 4)
    assert groups.sum(1).eq(2).all()
    torch.testing.assert_close(NMCode.from_dense(pruned[0].weight).decode(), pruned[0].weight.detach())
    X = collect_inputs(model, ["0"], [x])["0"].double()
    order = to_matrix(torch.arange(18).view(1, 2, 3, 3))[0]
    expected, _ = sparsegpt_prune(to_matrix(model[0].weight), (X.T @ X)[order][:, order], nm=(2, 4))
    torch.testing.assert_close(to_matrix(pruned[0].weight), expected.float())


def test_mask_holds_in_training_and_old_masks_stay():
    model, x = prune_magnitude(net(), 0.3), images()
    pruned = prune_sparsegpt(model, [x], sparsity=0.6)
    assert all((mask <= masks_of(model)[name]).all() for name, mask in masks_of(pruned).items())
    optimizer = torch.optim.SGD(pruned.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        pruned(x).square().mean().backward()
        optimizer.step()
    assert all(not pruned.get_submodule(name).weight[~mask].any() for name, mask in masks_of(pruned).items())


def test_errors():
    W, X = problem(inputs=8)
    H = X @ X.T
    for bad in (80, -0.1, math.nan):
        with pytest.raises(ValueError, match="sparsity must be in"):
            sparsegpt_prune(W, H, sparsity=bad)
    for arguments in ({}, {"sparsity": 0.5, "nm": (2, 4)}):
        with pytest.raises(ValueError, match="exactly one of sparsity and nm"):
            sparsegpt_prune(W, H, **arguments)
    with pytest.raises(ValueError, match="must be a whole number"):
        sparsegpt_prune(W, H, nm=(5, 4))
    for sizes in ({"mask_block": 0}, {"block": 0}):
        with pytest.raises(ValueError, match="block must be a whole number"):
            sparsegpt_prune(W, H, sparsity=0.5, **sizes)
    with pytest.raises(ValueError, match=r"needs H \(I, I\)"):
        sparsegpt_prune(W, H[:4, :4], sparsity=0.5)
    with pytest.raises(ValueError, match="positive definite"):
        sparsegpt_prune(W, torch.zeros(8, 8), sparsity=0.5)
    with pytest.raises(ValueError, match="grouped convolution"):
        prune_sparsegpt(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), [torch.ones(1, 2, 1, 1)], sparsity=0.5)
    with pytest.raises(ValueError, match="no calibration data"):
        prune_sparsegpt(net(), [], sparsity=0.5)
