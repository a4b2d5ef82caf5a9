"""Filter importance, from weights and from data, against scipy, autograd and cases worked by hand."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from torch import nn
from torch.nn.utils import prune

from compresslab.core.modules import apply_mask_
from compresslab.pruning.channels import prune_channels
from compresslab.pruning.criteria import (
    bn_scale_importance,
    filters,
    geometric_median_importance,
    norm_importance,
    random_importance,
)
from compresslab.pruning.data_criteria import apoz_importance, taylor_importance
from compresslab.pruning.slimming import absorb_constants, shrink_scales_, slimming_penalty, soft_threshold


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).double().eval()  # fmt: skip
    for tensor in model[1].buffers():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    nn.init.uniform_(model[1].weight, 0.5, 1.5)
    nn.init.normal_(model[1].bias)
    return model


def batch(n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 8, 8, generator=generator).double(), torch.randint(3, (n,), generator=generator)


@pytest.mark.parametrize("p", [1, 2])
def test_norms_rank_as_torch_ln_structured(net, p):
    scores = norm_importance(net, p)["3"]
    mask = prune.ln_structured(copy.deepcopy(net[3]), "weight", 2, n=p, dim=0).weight_mask
    assert set(scores.argsort()[:2].tolist()) == set((mask.sum((1, 2, 3)) == 0).nonzero().flatten().tolist())


def test_norms_score_every_layer_and_respect_masks(net):
    assert {name: len(score) for name, score in norm_importance(net).items()} == {"0": 6, "3": 4, "7": 3}
    mask = torch.ones_like(net[0].weight, dtype=torch.bool)
    mask[2] = False
    apply_mask_(net[0], mask)
    assert norm_importance(net)["0"][2] == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_filters_of_a_transposed_convolution_make_its_output_channels(groups):
    layer = nn.ConvTranspose2d(4, 6, 2, groups=groups, bias=False)
    rows = filters(layer)
    assert rows.shape == (6, 4 // groups * 4)
    for channel in range(6):
        silent = copy.deepcopy(layer)
        start = channel // (6 // groups) * (4 // groups)  # its group's inputs
        silent.weight.data[start : start + 4 // groups, channel % (6 // groups)] = 0
        assert (filters(silent)[channel] == 0).all() and (filters(silent) == 0).all(1).sum() == 1
        assert (silent(torch.randn(1, 4, 3, 3))[:, channel] == 0).all()


def test_geometric_median_equals_scipy(net):
    for name, score in geometric_median_importance(net).items():
        rows = filters(net.get_submodule(name)).numpy()
        np.testing.assert_allclose(score, cdist(rows, rows).sum(1), rtol=1e-12)


def test_geometric_median_ignores_a_shift_and_the_norm_does_not(net):
    before, norm = geometric_median_importance(net)["3"], norm_importance(net)["3"]
    net[3].weight.data += torch.randn(1, *net[3].weight.shape[1:]).double()
    torch.testing.assert_close(geometric_median_importance(net)["3"], before, rtol=1e-12, atol=0)
    assert not torch.allclose(norm_importance(net)["3"], norm)


def test_least_important_by_median_is_near_the_weiszfeld_point():
    """g is the objective of the geometric median: no filter does better than the median itself."""
    layer = nn.Linear(5, 40, dtype=torch.float64)
    rows = layer.weight.detach()
    median = rows.mean(0)
    for _ in range(500):  # Weiszfeld: a fixed point of the mean weighted by inverse distances
        weights = 1 / (rows - median).norm(dim=1)
        median = (weights[:, None] * rows).sum(0) / weights.sum()
    score = geometric_median_importance(layer)[""]
    at_median = (rows - median).norm(dim=1).sum()
    assert at_median <= score.min()
    nearest = (rows - median).norm(dim=1).argsort()[:5].tolist()
    assert int(score.argmin()) in nearest


def test_random_scores_repeat_under_a_seed_and_leave_the_global_state_alone(net):
    state = torch.get_rng_state()
    first = random_importance(net, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first["0"], random_importance(net, seed=1)["0"])
    assert not torch.equal(first["0"], random_importance(net, seed=2)["0"])


def test_bn_scale_with_one_threshold_for_all_layers():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 6, 1),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 5, 1),
        nn.Conv2d(5, 2, 1),
    )
    model[1].weight.data = torch.tensor([0.9, -0.8, 0.7, 0.6])
    model[3].weight.data = torch.tensor([0.1, 1.0, -0.05, 0.2, 1.1, 0.65])
    scores = bn_scale_importance(model)
    threshold = torch.cat(list(scores.values())).quantile(0.5)
    small = prune_channels(model, torch.zeros(1, 3, 4, 4), 0.5, importance="bn_scale", scope="global")
    kept = [int((score > threshold).sum()) for score in scores.values()]
    assert [small[1].num_features, small[3].num_features] == kept == [3, 2]
    assert small[4].out_channels == 5  # no batch norm: not scored, stays whole
    torch.testing.assert_close(small[1].weight, torch.tensor([0.9, -0.8, 0.7]))


def test_bn_scale_needs_batch_norm():
    with pytest.raises(ValueError, match="needs batch norm with a scale, and Linear has none"):
        bn_scale_importance(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="needs batch norm with a scale, and Linear has none"):
        slimming_penalty(nn.Linear(2, 2), 0.1)


def test_slimming_penalty_has_the_sign_as_gradient(net):
    net[1].weight.data[0] = 0.0
    net[1].weight.data[1] *= -1
    slimming_penalty(net, 0.25).backward()
    assert net[1].weight.grad.tolist() == [0.0, -0.25, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize("value", [-2.0, -0.3, 0.0, 0.7, 5.0])
def test_soft_threshold_minimizes_the_proximal_objective(value):
    found = minimize_scalar(
        lambda z: 0.5 * (z - value) ** 2 + 0.6 * abs(z), bounds=(-6, 6), method="bounded"
    ).x
    assert soft_threshold(torch.tensor(value), 0.6).item() == pytest.approx(found, abs=1e-4)


def test_shrinking_reaches_exact_zero(net):
    for _ in range(4):
        shrink_scales_(net, 0.3)
    assert (net[1].weight == torch.clamp(net[1].weight, min=0)).all() and (net[1].weight == 0).any()
    with pytest.raises(ValueError, match="threshold must be at least 0, got -1"):
        soft_threshold(torch.ones(1), -1)


@pytest.mark.parametrize("padding", [0, 1])
def test_absorbing_a_constant_channel_is_exact_without_padding_only(padding):
    torch.manual_seed(0)
    norm, layer = nn.BatchNorm2d(4).double().eval(), nn.Conv2d(4, 3, 3, padding=padding).double()
    nn.init.normal_(norm.bias)
    norm.weight.data[1] = 0.0
    norm.bias.data[1] = 0.8
    x = torch.randn(2, 4, 7, 7).double()
    constants = torch.tensor([0.0, 0.8, 0.0, 0.0]).double()
    repaired = copy.deepcopy(layer)
    repaired.bias.data = absorb_constants(layer, constants)
    repaired.weight.data[:, 1] = 0
    expected, got = layer(norm(x).relu()), repaired(norm(x).relu())
    torch.testing.assert_close(got[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])
    assert torch.allclose(got, expected) == (padding == 0)


def test_absorbing_in_a_linear_layer_and_bad_constants():
    layer = nn.Linear(3, 2, bias=False)
    torch.testing.assert_close(
        absorb_constants(layer, torch.tensor([0.0, 2.0, 0.0])), 2 * layer.weight.detach()[:, 1]
    )
    with pytest.raises(ValueError, match=r"constants must be one per input channel .* got shape \(2,\)"):
        absorb_constants(layer, torch.zeros(2))


def test_taylor_equals_the_gradient_of_a_gate(net):
    x, y = batch()
    scores = taylor_importance(net, [(x, y)])
    for name in ("1", "3"):  # after the batch norm; a layer with a bias
        gate = torch.ones(len(scores[name]), dtype=torch.float64, requires_grad=True)
        hook = net.get_submodule(name).register_forward_hook(
            lambda _, __, out, gate=gate: out * gate.view(1, -1, 1, 1)
        )
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y), gate)
        hook.remove()
        torch.testing.assert_close(scores[name], gradient.square(), rtol=1e-10, atol=1e-14)


def test_taylor_is_exact_for_a_linear_loss():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1)).double()
    x = torch.randn(7, 3).double()
    total = lambda net, x, y: net(x).sum()  # noqa: E731
    scores = taylor_importance(model, [(x, x)], loss=total)["0"]
    for unit in range(5):
        without = copy.deepcopy(model)
        without[1].weight.data[:, unit] = 0
        assert scores[unit].item() == pytest.approx((total(model, x, x) - total(without, x, x)).item() ** 2)


def test_taylor_before_batch_norm_in_train_mode_is_zero(net):
    """A filter's length does not matter to a batch norm that normalizes by the batch: g and w are
    orthogonal."""
    x, y = batch()
    net.train()
    net[1].eps = 1e-13
    F.cross_entropy(net(x), y).backward()
    effect = (net[0].weight.grad * net[0].weight).sum((1, 2, 3))
    assert effect.abs().max() < 1e-10 * net[0].weight.grad.abs().max()


def test_taylor_agrees_with_ablation(net):
    batches = [batch(16, seed) for seed in range(4)]
    net[1].weight.data *= 0.3  # small effects, so that first order is a good guess
    net[1].bias.data *= 0.3
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    scores = taylor_importance(net, [(x, y)])["1"]
    true = []
    for channel in range(6):
        without = copy.deepcopy(net)
        without[1].weight.data[channel] = without[1].bias.data[channel] = 0
        true.append((F.cross_entropy(without(x), y) - F.cross_entropy(net(x), y)).item() ** 2)
    assert np.corrcoef(scores.sqrt(), np.sqrt(true))[0, 1] > 0.9


def test_taylor_averages_batches_and_leaves_the_network_alone(net):
    net.train()
    net[3].requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    both = taylor_importance(net, [batch(seed=0), batch(seed=1)])["3"]
    single = [taylor_importance(net, [batch(seed=seed)])["3"] for seed in (0, 1)]
    torch.testing.assert_close(both, (single[0] + single[1]) / 2)
    assert net.training and not net[3].weight.requires_grad and net[0].weight.grad is None
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_taylor_sees_masked_weights(net):
    mask = torch.ones_like(net[3].weight, dtype=torch.bool)
    mask[1] = False
    plain = copy.deepcopy(net)
    plain[3].weight.data[1] = 0
    apply_mask_(net[3], mask)
    torch.testing.assert_close(
        taylor_importance(net, [batch()])["3"], taylor_importance(plain, [batch()])["3"]
    )


def test_apoz_counts_zeros_after_relu(net):
    x, y = batch()
    scores = apoz_importance(net, [(x[:4], y[:4]), x[4:]])
    after = net[:3](x)
    torch.testing.assert_close(1 - scores["1"], (after == 0).double().mean((0, 2, 3)))
    assert set(scores) == {"0", "1", "3", "7"} and scores["7"].shape == (3,)


@pytest.mark.parametrize("criterion", [taylor_importance, apoz_importance])
def test_no_data(net, criterion):
    with pytest.raises(ValueError, match="no data: batches is empty"):
        criterion(net, [])


def test_data_criteria_prune_a_network(net):
    x, y = batch()
    for scores in (taylor_importance(net, [(x, y)]), apoz_importance(net, [x])):
        small = prune_channels(net, x, 0.5, importance=scores)
        assert small[0].out_channels == 3
        kept = scores["1"].argsort()[3:].sort().values  # the batch norm's score decides
        assert torch.equal(small[0].weight, net[0].weight[kept])
        assert math.isfinite(small(x).sum().item())
