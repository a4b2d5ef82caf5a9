"""Lottery tickets: what the mask is, and what the weights are."""

import copy
import math

import pytest
import torch
from torch import nn

from compresslab.core.modules import get_mask
from compresslab.pruning.lottery import find_ticket, rewind
from compresslab.pruning.magnitude import magnitude_mask, prune_magnitude
from compresslab.pruning.masks import masks_of, sparsity_of, trainable_weight


def net(seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Linear(8, 5))


class Trainer:
    """A stand-in for training that adds known numbers to the weights, and remembers what it was given."""

    def __init__(self):
        self.seen = []

    def __call__(self, model):
        self.seen.append(copy.deepcopy(model))
        model = copy.deepcopy(model)
        g = torch.Generator().manual_seed(len(self.seen))
        with torch.no_grad():
            for layer in (model[0], model[2]):
                trainable_weight(layer).add_(torch.randn(layer.weight.shape, generator=g))
            model[1].running_mean += 1
        return model


def test_one_round_is_the_trained_mask_on_the_initial_weights():
    model, trainer = net(), Trainer()
    ticket = find_ticket(model, trainer, sparsity=0.6, rounds=1, scope="layer")
    trained = Trainer()(model)
    for i in (0, 2):
        mask = magnitude_mask(trained[i].weight, 0.6)
        assert torch.equal(get_mask(ticket[i]), mask)
        assert torch.equal(ticket[i].weight, model[i].weight * mask)
    assert torch.equal(ticket[1].running_mean, model[1].running_mean)  # everything else is rewound as well


def test_rounds_prune_equal_shares_of_what_is_left_and_nest():
    model, trainer = net(), Trainer()
    ticket = find_ticket(model, trainer, sparsity=0.784, rounds=3)  # 1 - 0.6**3
    given = [sparsity_of(m) for m in trainer.seen] + [sparsity_of(ticket)]
    assert given == pytest.approx([0, 0.4, 0.64, 0.784], abs=0.005)
    masks = [masks_of(m) for m in trainer.seen[1:]] + [masks_of(ticket)]
    for earlier, later in zip(masks, masks[1:], strict=False):
        assert all((later[name] <= earlier[name]).all() for name in earlier)
    for m in trainer.seen:  # each round starts from the initial weights
        assert all(torch.equal(trainable_weight(m[i]), model[i].weight) for i in (0, 2))
    assert masks_of(model) == {}


def test_late_rewinding():
    model, early = net(0), net(1)
    ticket = find_ticket(model, Trainer(), sparsity=0.5, rounds=2, rewind_to=early, skip=["2"])
    assert torch.equal(trainable_weight(ticket[0]), early[0].weight)
    assert get_mask(ticket[2]) is None and torch.equal(ticket[2].weight, early[2].weight)


def test_rewind_by_itself():
    model, other = net(0), net(1)
    pruned = prune_magnitude(model, 0.5)
    back = rewind(pruned, other)
    assert torch.equal(back[0].weight, other[0].weight * get_mask(pruned[0])) and masks_of(other) == {}
    with pytest.raises(ValueError):
        rewind(pruned, nn.Sequential(nn.Linear(3, 3)))


def test_bad_arguments():
    for sparsity in (80, -0.1, math.nan):
        with pytest.raises(ValueError, match="sparsity must be in"):
            find_ticket(net(), Trainer(), sparsity=sparsity)
    with pytest.raises(ValueError, match="rounds"):
        find_ticket(net(), Trainer(), sparsity=0.5, rounds=0)
    assert sparsity_of(find_ticket(net(), Trainer(), sparsity=0.0)) == 0
    assert sparsity_of(find_ticket(net(), Trainer(), sparsity=1.0)) == 1
