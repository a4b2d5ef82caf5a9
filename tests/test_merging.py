"""Neuron merging: exact for equal neurons, and the formula of the paper otherwise."""

import copy

import pytest
import torch
from torch import nn

from compresslab.pruning.channels import prune_channels
from compresslab.pruning.merging import incoming_weights, merge_neurons, merge_similar


def twins(model, reader, norm=None):
    """Make neuron 4 of the first layer a copy of neuron 1; the reader weighs them differently."""
    with torch.no_grad():
        for tensor in [
            model[0].weight,
            model[0].bias,
            *([] if norm is None else list(norm.state_dict().values())[:4]),
        ]:
            tensor[4] = tensor[1]
    return model.double().eval()


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.GELU()])
def test_equal_neurons_merge_exactly(activation):
    model = twins(nn.Sequential(nn.Linear(5, 6), activation, nn.Linear(6, 3)), 2)
    small = merge_neurons(model, torch.zeros(1, 5), 1 / 6)
    x = torch.randn(50, 5).double()
    assert small[0].out_features == 5
    torch.testing.assert_close(small(x), model(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(small[2].weight[:, 1], model[2].weight[:, 1] + model[2].weight[:, 4])


@pytest.mark.parametrize("flatten", [True, False])
def test_equal_filters_with_batch_norm_merge_exactly(flatten):
    norm = nn.BatchNorm2d(6)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    tail = [nn.Flatten(), nn.Linear(6 * 16, 3)] if flatten else [nn.Conv2d(6, 3, 3)]
    model = twins(nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), *tail), 3, norm)
    small = merge_neurons(model, torch.zeros(1, 3, 6, 6), 1 / 6)
    x = torch.randn(4, 3, 6, 6).double()
    torch.testing.assert_close(small(x), model(x), rtol=1e-12, atol=1e-12)
    assert small[1].num_features == 5


def test_filters_equal_only_after_batch_norm_merge_exactly():
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    with torch.no_grad():
        model[0].weight[4], model[0].bias[4] = 2 * model[0].weight[1], 2 * model[0].bias[1] + 1
        model[1].running_mean[4] = 1.0
        model[1].weight[4] = 0.5
    rows = incoming_weights(model[0], model[1])
    torch.testing.assert_close(rows[4], rows[1])
    x = torch.randn(20, 5).double()
    torch.testing.assert_close(merge_neurons(model, x, 1 / 6)(x), model(x), rtol=1e-12, atol=1e-12)


def test_cheapest_pair_by_the_paper():
    torch.manual_seed(0)
    incoming, outgoing = torch.randn(7, 4).double(), torch.randn(7, 3).double()
    saliency = {
        (i, j): (outgoing[j] ** 2).mean() * ((incoming[i] - incoming[j]) ** 2).sum()
        for i in range(7) for j in range(7) if i != j
    }  # fmt: skip
    i, j = min(saliency, key=saliency.get)
    kept, new = merge_similar(incoming, outgoing, 1)
    assert set(kept.tolist()) == set(range(7)) - {j}
    torch.testing.assert_close(new[kept.tolist().index(i)], outgoing[i] + outgoing[j])


def test_total_outgoing_weight_is_kept():
    incoming, outgoing = torch.randn(20, 4), torch.randn(20, 3).double()
    for count in (0, 5, 19):
        kept, new = merge_similar(incoming, outgoing, count)
        assert len(kept) == len(new) == 20 - count
        torch.testing.assert_close(new.sum(0), outgoing.sum(0))


def test_silent_neurons_go_first():
    outgoing = torch.ones(5, 2)
    outgoing[3] = 0
    assert 3 not in merge_similar(torch.randn(5, 4), outgoing, 1)[0]


def test_merging_beats_dropping_when_neurons_are_redundant():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).double()
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[:16].repeat(2, 1) + 0.01 * torch.randn(32, 8))
        model[0].bias.copy_(model[0].bias[:16].repeat(2))
    x = torch.randn(100, 8).double()
    merged, dropped = merge_neurons(model, x, 0.5), prune_channels(model, x, 0.5)
    error = [((net(x) - model(x)) ** 2).mean().item() for net in (merged, dropped)]
    assert error[0] < 0.05 * error[1]


def test_course_network_and_input_unchanged():
    from compresslab.models import LeNet5

    model = LeNet5()
    before = copy.deepcopy(model.state_dict())
    small = merge_neurons(model, torch.zeros(1, 1, 28, 28), 0.5)
    assert (small.conv1.out_channels, small.conv2.out_channels, small.fc1.out_features) == (10, 25, 250)
    assert small(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_strengths_and_errors():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(3, 5)
    assert torch.equal(merge_neurons(model, x, 0.0)(x), model(x))
    assert merge_neurons(model, x, 1.0)[0].out_features == 1
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\], got 50"):
        merge_neurons(model, x, 50)
    with pytest.raises(ValueError, match="nothing to merge: no layer of Sequential"):
        merge_neurons(nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 2)), x)
    with pytest.raises(ValueError, match="count must be a whole number from 0 to 4, got 5"):
        merge_similar(torch.ones(5, 2), torch.ones(5, 2), 5)
