"""Connection sensitivity against explicit switches, and SNIP's masks."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from compresslab.pruning.magnitude import prune_magnitude
from compresslab.pruning.masks import masks_of, sparsity_of
from compresslab.pruning.snip import connection_sensitivity, prune_snip


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    ).double()


def batch():
    g = torch.Generator().manual_seed(1)
    return torch.randn(12, 2, 5, 5, generator=g, dtype=torch.float64), torch.randint(0, 3, (12,), generator=g)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_equals_the_derivative_with_respect_to_switches(mode):
    model, (x, y) = getattr(net(), mode)(), batch()
    names = ["0.weight", "4.weight"]
    weights = {n: model.get_parameter(n).detach() for n in names}
    switches = {n: torch.ones_like(w, requires_grad=True) for n, w in weights.items()}
    loss = F.cross_entropy(
        functional_call(copy.deepcopy(model), {n: weights[n] * switches[n] for n in names}, (x,)), y
    )
    grads = [g.abs() for g in torch.autograd.grad(loss, list(switches.values()))]
    total = sum(g.sum() for g in grads)
    scores = connection_sensitivity(model, x, y)
    for g, score in zip(grads, scores.values(), strict=True):
        torch.testing.assert_close(score, g / total, rtol=1e-10, atol=0)
    assert sum(s.sum() for s in scores.values()).item() == pytest.approx(1)


def test_model_is_left_as_it_was():
    model, (x, y) = net().train(), batch()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    connection_sensitivity(model, x, y)
    with torch.no_grad():
        prune_snip(model, 0.5, x, y)  # works without gradient mode, too
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert (
        all(p.grad is None for p in model.parameters())
        and not model[0].weight.requires_grad
        and model.training
    )


def test_mask_is_global_and_exact_and_scales_to_the_end():
    model, (x, y) = net(), batch()
    scores = connection_sensitivity(model, x, y)
    for sparsity in (0, 0.5, 0.9, 1):
        pruned = prune_snip(model, sparsity, x, y)
        assert sparsity_of(pruned) == round(sparsity * 144) / 144
    masks = masks_of(prune_snip(model, 0.5, x, y))
    kept = torch.cat([scores[n][masks[n]] for n in scores])
    dropped = torch.cat([scores[n][~masks[n]] for n in scores])
    assert dropped.max() <= kept.min()


def test_masked_weights_score_zero():
    model, (x, y) = prune_magnitude(net(), 0.5), batch()
    scores = connection_sensitivity(model, x, y)
    assert all(not scores[name][~mask].any() for name, mask in masks_of(model).items())


def test_vanishing_gradient_gives_zero_scores():
    layer = nn.Linear(3, 2)
    scores = connection_sensitivity(layer, torch.ones(4, 3), torch.zeros(4), loss=lambda z, y: 0 * z.sum())
    assert not scores[""].any()


def test_bad_arguments():
    model, (x, y) = net(), batch()
    for sparsity in (80, -0.1, math.nan):
        with pytest.raises(ValueError, match="sparsity must be in"):
            prune_snip(model, sparsity, x, y)
    with pytest.raises(ValueError, match="no such layer"):
        prune_snip(model, 0.5, x, y, only=["fc"])
    with pytest.raises(ValueError, match="nothing to prune"):
        prune_snip(model, 0.5, x, y, only=[])

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match="does not depend on layer 'spare'"):
        connection_sensitivity(Unused(), torch.ones(1, 2), torch.zeros(1, dtype=torch.long))
