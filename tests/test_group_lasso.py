"""Group lasso: the prox against a numerical minimizer, and groups that become exactly zero."""

import copy
import math

import numpy as np
import pytest
import scipy.optimize
import torch
import torch.nn.functional as F
from torch import nn

from compresslab.core.modules import get_mask
from compresslab.pruning.group_lasso import (
    GroupLasso,
    group_norms,
    group_penalty,
    group_sparsity,
    prox_group_lasso,
)
from compresslab.pruning.magnitude import prune_magnitude

KINDS = ("filter", "channel", "shape")


def slices(weight: torch.Tensor, groups: str) -> list[tuple]:
    """Index of every group, written out one by one."""
    outputs, inputs, *kernel = weight.shape
    every = slice(None)
    if groups == "filter":
        return [(o,) for o in range(outputs)]
    if groups == "channel":
        return [(every, i) for i in range(inputs)]
    return [(every, i, *position) for i in range(inputs) for position in np.ndindex(*kernel)]


@pytest.mark.parametrize("groups", KINDS)
@pytest.mark.parametrize("shape", [(3, 4), (4, 2, 3), (3, 2, 2, 3), (4, 1, 3, 3)])
def test_norms_of_written_out_groups(groups, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack([weight[index].norm() for index in slices(weight, groups)])
    torch.testing.assert_close(group_norms(weight, groups).flatten(), expected)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0, 2.5])
def test_prox_against_scipy(lam):
    g = torch.Generator().manual_seed(1)
    for _ in range(5):
        w = torch.randn(1, 3, generator=g, dtype=torch.float64)
        target = w.numpy().ravel()
        objective = lambda v: 0.5 * ((v - target) ** 2).sum() + lam * np.linalg.norm(v)  # noqa: E731, B023
        ours = prox_group_lasso(w, lam).numpy().ravel()
        found = scipy.optimize.minimize(
            objective, target, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
        )
        np.testing.assert_allclose(ours, found.x, atol=1e-4)
        assert objective(ours) <= objective(found.x) + 1e-12


@pytest.mark.parametrize("groups", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_group_is_zero_iff_its_norm_is_at_most_the_threshold(groups, dtype):
    weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(2), dtype=dtype)
    norms = group_norms(weight, groups)
    for threshold in [*norms.flatten()[:4].tolist(), *(norms.flatten()[:4] * (1 - 1e-6)).tolist(), 0.0, 1e9]:
        shrunk = prox_group_lasso(weight, threshold, groups)
        dead = group_norms(shrunk, groups) == 0
        assert torch.equal(dead, norms <= torch.tensor(threshold, dtype=dtype))
        torch.testing.assert_close(
            group_norms(shrunk, groups), (norms - threshold).clamp_min(0), rtol=1e-4, atol=1e-6
        )


def test_prox_edges():
    weight = torch.randn(3, 4)
    assert torch.equal(prox_group_lasso(weight, 0.0), weight)
    assert (
        not prox_group_lasso(torch.zeros(2, 2), 0.0).any()
        and not prox_group_lasso(torch.zeros(2, 2), 1.0).any()
    )
    assert not prox_group_lasso(weight, math.inf).any()
    one = torch.tensor([[0.7], [-0.2]])  # groups of one: soft thresholding
    torch.testing.assert_close(prox_group_lasso(one, 0.3), torch.tensor([[0.4], [0.0]]))


def test_zero_columns_of_im2col_can_be_left_out():
    g = torch.Generator().manual_seed(3)
    weight, x = (
        torch.randn(6, 3, 3, 3, generator=g, dtype=torch.float64),
        torch.randn(2, 3, 7, 7, generator=g).double(),
    )
    sparse = prox_group_lasso(weight, group_norms(weight, "shape").median().item(), "shape")
    keep = group_norms(sparse, "shape").flatten() > 0
    assert 0 < keep.sum() < len(keep)
    patches = F.unfold(x, 3)[:, keep]  # fewer rows to multiply
    small = (sparse.flatten(1)[:, keep] @ patches).view(2, 6, 5, 5)
    torch.testing.assert_close(small, F.conv2d(x, sparse))


def test_penalty_value_and_gradient():
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(4, 3)).double()
    with torch.no_grad():
        model[1].weight[1] = 0
    value = group_penalty(model, 0.5)
    by_hand = 0.5 * sum(row.norm() for layer in model for row in layer.weight.flatten(1))
    torch.testing.assert_close(value, by_hand)
    value.backward()
    w = model[0].weight
    torch.testing.assert_close(w.grad, 0.5 * w / group_norms(w))
    assert not model[1].weight.grad[1].any()  # and not nan
    assert group_penalty(model, 0.5, groups="channel", only=["1"]).item() == pytest.approx(
        0.5 * model[1].weight.norm(dim=0).sum().item()
    )


def test_training_reaches_the_exact_group_lasso_solution():
    """Orthogonal inputs: the minimizer is the prox of the least-squares solution. Plain subgradients never
    hit zero.
    """
    torch.manual_seed(0)
    X, _ = torch.linalg.qr(torch.randn(50, 6).double())
    target = torch.randn(4, 6).double() * torch.tensor([1.0, 0.1, 1.0, 0.05]).double()[:, None]
    lam, lr = 0.5, 0.2

    def fit(use_prox):
        model = nn.Sequential(nn.Linear(6, 4, bias=False)).double()
        step_ = GroupLasso(lr * lam)
        optimizer = torch.optim.SGD(model.parameters(), lr)
        for step in range(300):
            optimizer.zero_grad()
            loss = 0.5 * (model(X) - X @ target.T).square().sum()
            (loss if use_prox else loss + group_penalty(model, lam)).backward()
            optimizer.step()
            if use_prox:
                step_(model, step)
        return model

    torch.testing.assert_close(fit(True)[0].weight.data, prox_group_lasso(target, lam), atol=1e-10, rtol=0)
    assert group_sparsity(fit(True)) == {"0": 0.5}
    assert group_sparsity(fit(False)) == {"0": 0.0}


def test_callback_on_masked_skipped_and_grouped_layers():
    torch.manual_seed(0)
    model = prune_magnitude(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Linear(5, 3)), 0.5)
    before = copy.deepcopy(model)
    GroupLasso(0.05, skip=["1"])(model, 0)
    torch.testing.assert_close(model[0].weight, prox_group_lasso(before[0].weight, 0.05))
    assert torch.equal(model[1].weight, before[1].weight)
    assert torch.equal(get_mask(model[0]), get_mask(before[0]))
    GroupLasso(100.0)(model, 1)
    assert group_sparsity(model) == {"0": 1.0, "1": 1.0}


def test_errors():
    model = nn.Sequential(nn.Linear(2, 2))
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="threshold must be at least 0"):
            prox_group_lasso(torch.ones(2, 2), bad)
        with pytest.raises(ValueError, match="threshold must be at least 0"):
            GroupLasso(bad)
        with pytest.raises(ValueError, match="strength must be at least 0"):
            group_penalty(model, bad)
    with pytest.raises(ValueError, match="groups must be one of 'filter'"):
        prox_group_lasso(torch.ones(2, 2), 0.1, "row")
    with pytest.raises(ValueError, match="two axes"):
        group_norms(torch.ones(3))
    with pytest.raises(ValueError, match="no such layer"):
        GroupLasso(0.1, only=["fc"])(model, 0)
