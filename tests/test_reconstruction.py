"""ThiNet and LASSO channel pruning against scikit-learn, lstsq and enumeration."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Lasso
from torch import nn

from compresslab.core.calibrate import collect_inputs, input_moments
from compresslab.pruning.channels import prune_channels
from compresslab.pruning.reconstruction import (
    contribution_gram,
    prune_reconstructed,
    reconstruct_weight,
    rescale_channels,
    select_lasso,
    select_thinet,
    solve_lasso,
)


@pytest.fixture
def problem():
    """A convolution with 8 correlated input channels: inputs X, weight W, contributions Z (rows,
    channels), Gram."""
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 5, 3, bias=False).double()
    mixed = torch.einsum("cd,ndhw->nchw", torch.randn(8, 4).double(), torch.randn(6, 4, 7, 7).double())
    images = mixed + 0.3 * torch.randn(6, 8, 7, 7).double()
    x = collect_inputs(nn.Sequential(layer), ["0"], [images])["0"]
    weight = layer.weight.detach().flatten(1)
    columns = torch.arange(72).view(8, 9)
    z = torch.stack([(x[:, own] @ weight[:, own].T).flatten() for own in columns], 1)
    return x, weight, columns, z, contribution_gram(weight, x.T @ x, columns)


def test_gram_of_contributions(problem):
    x, weight, _, z, gram = problem
    torch.testing.assert_close(gram, z.T @ z)
    torch.testing.assert_close(gram.sum(1), z.T @ (x @ weight.T).flatten())  # with the whole output


@pytest.mark.parametrize("strength", [0.01, 0.3, 2.0])
def test_lasso_equals_scikit_learn(problem, strength):
    _, _, _, z, gram = problem
    y, n = z.sum(1), len(z)
    oracle = Lasso(alpha=strength, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(z.numpy(), y.numpy())
    np.testing.assert_allclose(solve_lasso(gram / n, z.T @ y / n, strength), oracle.coef_, atol=1e-7)


def test_lasso_with_a_dead_channel_and_at_full_strength():
    gram = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    assert solve_lasso(gram, torch.tensor([2.0, 0.0]), 0.5).tolist() == [0.75, 0.0]
    assert solve_lasso(gram, torch.tensor([2.0, 0.0]), 2.0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("select", [select_lasso, select_thinet])
def test_selection_keeps_exactly_so_many(problem, select):
    gram = problem[-1]
    for kept in range(1, 9):
        chosen = select(gram, kept).tolist()
        assert len(set(chosen)) == kept and chosen == sorted(chosen)
    for kept in (0, 9):
        with pytest.raises(ValueError, match=f"kept must be a whole number from 1 to 8, got {kept}"):
            select(gram, kept)


@pytest.mark.parametrize("select", [select_lasso, select_thinet])
def test_useless_channels_go_first(problem, select):
    x, weight, columns, _, _ = problem
    weight = weight.clone()
    weight[:, columns[[2, 5]].flatten()] = 0
    gram = contribution_gram(weight, x.T @ x, columns)
    assert not {2, 5} & set(select(gram, 6).tolist())


def test_greedy_steps_are_optimal_and_bounded_by_enumeration(problem):
    gram = problem[-1]
    cost = lambda removed: gram[list(removed)][:, list(removed)].sum().item()  # noqa: E731
    removed: set[int] = set()
    for size in range(1, 8):
        kept = set(select_thinet(gram, 8 - size).tolist())
        step = set(range(8)) - kept
        assert removed < step  # one more than before
        assert cost(step) == pytest.approx(min(cost(removed | {j}) for j in set(range(8)) - removed))
        best = min(cost(chosen) for chosen in itertools.combinations(range(8), size))
        assert best <= cost(step) + 1e-9
        removed = step
    first = set(range(8)) - set(select_thinet(gram, 7).tolist())
    assert cost(first) == pytest.approx(min(gram.diagonal()).item())


def test_rescaling_equals_lstsq(problem):
    _, _, _, z, gram = problem
    kept = select_thinet(gram, 4)
    oracle = np.linalg.lstsq(z[:, kept].numpy(), z.sum(1).numpy(), rcond=None)[0]
    np.testing.assert_allclose(rescale_channels(gram, kept), oracle, rtol=1e-8)


def test_reconstructed_weight_equals_lstsq_and_the_error_falls_with_nested_sets(problem):
    x, weight, columns, _, gram = problem
    y, everything = x @ weight.T, torch.arange(72)
    errors = []
    for kept in range(1, 9):
        own = columns[select_thinet(gram, kept)].flatten()  # greedy sets are nested
        new = reconstruct_weight(weight, x.T @ x, own, everything)
        oracle = torch.linalg.lstsq(x[:, own], y).solution.T
        torch.testing.assert_close(new, oracle, rtol=1e-6, atol=1e-8)
        errors.append((y - x[:, own] @ new.T).norm().item())
        assert errors[-1] <= (y - x[:, own] @ weight[:, own].T).norm().item() + 1e-9
    assert all(after <= before + 1e-9 for before, after in zip(errors, errors[1:]))
    assert errors[-1] < 1e-9


def small_network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 10, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(90, 16), nn.ReLU(), nn.Linear(16, 4),
    ).eval()  # fmt: skip


def images(n, seed):
    return F.interpolate(
        torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed)), size=8, mode="bilinear"
    )


@pytest.mark.parametrize("method", ["lasso", "thinet"])
def test_network_keeps_its_outputs_better_than_by_norm_alone(method):
    model, x = small_network(), images(128, 0)
    before = copy.deepcopy(model.state_dict())
    small = prune_reconstructed(model, x[:1], [x[:64], x[64:]], 0.5, method=method)
    by_norm = prune_channels(model, x[:1], 0.5)
    assert [tuple(p.shape) for p in small.parameters()] == [tuple(p.shape) for p in by_norm.parameters()]
    assert (small[0].out_channels, small[3].out_channels, small[7].in_features, small[7].out_features) == (
        6,
        5,
        45,
        8,
    )
    fresh = images(64, 1)
    with torch.no_grad():
        error, reference = (((net(fresh) - model(fresh)) ** 2).mean().item() for net in (small, by_norm))
    assert error < 0.7 * reference
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_duplicated_channel_costs_nothing():
    """Two equal channels: one goes, the other takes over its weights. Keeping both is no trouble either."""
    x = torch.randn(200, 6).double()
    x[:, 5] = x[:, 2]
    weight, everything = torch.randn(3, 6).double(), torch.arange(6)
    new = reconstruct_weight(weight, x.T @ x, everything[:5], everything)
    expected = weight[:, :5].clone()
    expected[:, 2] += weight[:, 5]
    torch.testing.assert_close(new, expected)
    both = reconstruct_weight(weight, x.T @ x, everything, everything)  # singular moments
    torch.testing.assert_close(x @ both.T, x @ weight.T)


def test_concatenated_groups_and_residual_streams():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(10, 8, 1)
            self.d, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.c(torch.cat([self.a(x), self.b(x)], 1).relu())
            return self.head(x + self.d(x))

    x = images(16, 0)
    small = prune_reconstructed(Net(), x, [x], 0.5)
    assert (small.a.out_channels, small.b.out_channels, small.c.in_channels) == (2, 3, 5)
    assert small.c.out_channels == 8  # d and head both read it: whole
    assert small(x).shape == (16, 2, 8, 8)


def test_bad_arguments():
    model, x = small_network(), images(2, 0)
    with pytest.raises(ValueError, match="method must be one of lasso, thinet, got 'ridge'"):
        prune_reconstructed(model, x, [x], method="ridge")
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\], got 50; did you mean 0.5\?"):
        prune_reconstructed(model, x, [x], 50)
    with pytest.raises(ValueError, match="no calibration data"):
        prune_reconstructed(model, x, [])
    with pytest.raises(ValueError, match="nothing to reconstruct"):
        prune_reconstructed(nn.Sequential(nn.Linear(3, 2)), torch.zeros(1, 3), [torch.zeros(1, 3)])


def test_moments_are_enough(problem):
    """The Gram matrix from input_moments equals the one from the collected inputs."""
    x, weight, columns, _, gram = problem
    layer = nn.Linear(72, 5, bias=False).double()
    layer.weight.data = weight
    moments = input_moments(nn.Sequential(layer), ["0"], [x[:100], x[100:]])["0"]
    torch.testing.assert_close(contribution_gram(weight, moments, columns), gram)
