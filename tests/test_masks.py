"""Scores to masks: exact counts, ties, nesting, and masks that hold."""

import copy
import math

import pytest
import torch
from torch import nn

from compresslab.core.modules import bake, get_mask
from compresslab.pruning.masks import (
    keep_mask,
    layer_sparsity,
    mask_layers,
    masks_of,
    prune_by_score,
    random_masks,
    sparsity_of,
    trainable_weight,
    weight_layers,
)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, groups=2), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(54, 5)
    )


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("sparsity", [0, 0.0, 0.1, 1 / 3, 0.5, 0.999, 1.0, 1])
@pytest.mark.parametrize("values", ["random", "all equal", "few levels"])
def test_keep_mask_drops_an_exact_count_of_lowest(n, sparsity, values):
    g = torch.Generator().manual_seed(n)
    scores = {
        "random": torch.rand(n, generator=g),
        "all equal": torch.ones(n),
        "few levels": torch.randint(0, 3, (n,), generator=g).float(),
    }[values]
    mask = keep_mask(scores, sparsity)
    assert mask.dtype == torch.bool and mask.shape == scores.shape
    assert int((~mask).sum()) == round(sparsity * n)
    if mask.any() and not mask.all():
        assert scores[~mask].max() <= scores[mask].min()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64])
@pytest.mark.parametrize("shape", [(1,), (7,), (5, 4), (3, 4, 2), (0, 4), (400,)])
@pytest.mark.parametrize("ties", [False, True])
def test_keep_mask_is_the_stable_sort_that_it_does_without(dtype, shape, ties):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-2, 3, shape, generator=generator) if ties else 30 * torch.randn(shape, generator=generator)
    scores = scores.to(dtype)
    if dtype.is_floating_point and scores.numel() > 4:
        scores.view(-1)[1:5] = torch.tensor([-torch.inf, -0.0, torch.inf, -torch.inf]).to(dtype)
    for sparsity in (0.0, 0.1, 0.25, 0.5, 0.77, 1.0):
        for per_row in (False, True)[: len(shape)]:
            rows = scores.flatten(1) if per_row else scores.reshape(1, -1)
            lowest = rows.argsort(dim=1, stable=True)[:, : round(sparsity * rows.shape[1])]
            expected = torch.ones_like(rows, dtype=torch.bool).scatter(1, lowest, False).view(shape)
            assert torch.equal(keep_mask(scores, sparsity, per_row=per_row), expected)
    if len(shape) == 2:  # a view that is not contiguous
        assert torch.equal(keep_mask(scores.T, 0.5), keep_mask(scores.T.contiguous(), 0.5))


def test_keep_mask_is_nested_even_with_ties():
    scores = torch.randint(0, 4, (6, 11), generator=torch.Generator().manual_seed(1)).float()
    for per_row in (False, True):
        masks = [keep_mask(scores, s / 20, per_row=per_row) for s in range(21)]
        assert all((later <= earlier).all() for earlier, later in zip(masks, masks[1:], strict=False))


def test_keep_mask_per_row_is_each_row_by_itself():
    scores = torch.randint(0, 5, (4, 3, 5), generator=torch.Generator().manual_seed(2)).double()
    together = keep_mask(scores, 0.4, per_row=True)
    assert torch.equal(together, torch.stack([keep_mask(row, 0.4) for row in scores]))


@pytest.mark.parametrize(
    "bad, message", [(80, "did you mean 0.8"), (-0.1, "in \\[0, 1\\]"), (math.nan, "nan"), (1.01, "got")]
)
def test_bad_sparsity(bad, message):
    with pytest.raises(ValueError, match=message):
        keep_mask(torch.ones(3), bad)


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="nan"):
        keep_mask(torch.tensor([1.0, math.nan]), 0.5)


def test_global_scope_compares_across_layers_and_layer_scope_does_not():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    scores = {"0": torch.ones(4, 4), "1": torch.full((4, 4), 2.0)}
    assert layer_sparsity(prune_by_score(model, scores, 0.5, scope="global")) == {"0": 1.0, "1": 0.0}
    assert layer_sparsity(prune_by_score(model, scores, 0.5, scope="layer")) == {"0": 0.5, "1": 0.5}
    with pytest.raises(ValueError, match="scope"):
        prune_by_score(model, scores, 0.5, scope="Global")
    with pytest.raises(ValueError, match="no such layer"):
        prune_by_score(model, {"2": torch.ones(4, 4)}, 0.5)


def test_masked_weights_count_first_and_never_return():
    layer = nn.Linear(10, 1)
    first = torch.arange(10).view(1, 10) >= 4  # 4 dropped
    model = mask_layers(nn.Sequential(layer), {"0": first})
    lucky = {"0": (~first).float()}  # scores that would love the masked ones back
    for sparsity, zeros in [(0.2, 4), (0.4, 4), (0.6, 6), (1.0, 10)]:
        pruned = prune_by_score(model, lucky, sparsity)
        assert not (pruned[0].weight[~first]).any()
        assert int((~get_mask(pruned[0])).sum()) == zeros
    negative = {"0": torch.where(first, -1.0, 0.0)}  # saliencies may be negative
    assert int((~get_mask(prune_by_score(model, negative, 0.6)[0])).sum()) == 6


def test_mask_layers_checks_everything_before_it_starts():
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(3, 2\) in layer '0'"):
        mask_layers(model, {"0": torch.ones(3, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="no such layer"):
        mask_layers(model, {"fc": torch.ones(2, 3, dtype=torch.bool)})


def test_input_model_stays_and_copies_are_free():
    model = small_net()
    before = copy.deepcopy(model.state_dict())
    pruned = prune_by_score(model, {"3": model[3].weight.detach().abs()}, 0.5)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and masks_of(model) == {}
    twin = copy.deepcopy(pruned)
    twin[3].parametrizations.weight.original.data.zero_()
    assert pruned[3].weight.any()
    assert torch.equal(bake(pruned)[3].weight, pruned[3].weight)


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1), torch.optim.Adam]
)
def test_masks_hold_through_the_optimizer(make):
    model = small_net()
    optimizer = make(model.parameters())
    x = torch.randn(4, 2, 7, 7, generator=torch.Generator().manual_seed(0))

    def step(net):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    step(model)  # momentum is under way
    from compresslab.pruning.masks import prune_by_score_

    prune_by_score_(
        model, {n: la.weight.detach().abs() for n, la in weight_layers(model, None, ()).items()}, 0.7
    )
    start = [trainable_weight(layer).clone() for layer in (model[0], model[1], model[3])]
    for _ in range(5):
        step(model)
        step(copy.deepcopy(model))
    for layer, old in zip((model[0], model[1], model[3]), start, strict=True):
        mask = get_mask(layer)
        assert int((~mask).sum()) == round(0.7 * mask.numel())
        assert not layer.weight[~mask].any()
        assert (layer.weight[mask] != old[mask]).any()  # the optimizer still holds the right parameter


def test_sparsity_counts_zeros_that_the_forward_pass_sees():
    model = small_net()
    assert sparsity_of(model) == 0
    pruned = prune_by_score(model, {"3": model[3].weight.detach().abs()}, 1.0)
    total = 6 * 9 + 6 * 9 + 54 * 5
    assert sparsity_of(pruned) == pytest.approx(54 * 5 / total)
    assert sparsity_of(bake(pruned)) == sparsity_of(pruned)
    assert layer_sparsity(pruned) == {"0": 0.0, "1": 0.0, "3": 1.0}
    with pytest.raises(ValueError, match="no Linear"):
        sparsity_of(nn.ReLU())
    with pytest.raises(ValueError, match="nothing to prune"):
        weight_layers(nn.ReLU(), None, ())


def test_random_masks_keep_the_ratios_and_differ_in_places():
    model = small_net()
    like = prune_by_score(
        model,
        {n: la.weight.detach().abs() for n, la in weight_layers(model, None, ()).items()},
        0.6,
        scope="global",
    )
    control = random_masks(model, like=like, seed=3)
    assert layer_sparsity(control) == layer_sparsity(like)
    assert not torch.equal(control[3].weight == 0, like[3].weight == 0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            masks_of(control).values(),
            masks_of(random_masks(model, like=bake(like), seed=3)).values(),
            strict=True,
        )
    )
    assert not torch.equal(masks_of(control)["3"], masks_of(random_masks(model, like=like, seed=4))["3"])
    state = torch.get_rng_state()
    random_masks(model, like=like)
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="same layers"):
        random_masks(model, like=nn.Linear(2, 2))


def test_random_masks_hit_every_place_equally():
    layer = nn.Linear(10, 1)
    like = mask_layers(nn.Sequential(layer), {"0": torch.arange(10).view(1, 10) >= 3})
    kept = sum(masks_of(random_masks(nn.Sequential(layer), like=like, seed=s))["0"].int() for s in range(500))
    assert (kept - 350).abs().max() < 60  # six standard deviations
