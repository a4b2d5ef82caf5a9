"""ADMM and learning-compression: the known point for convex sets, near the best for few nonzeros, on networks."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import lsq_linear, nnls
from torch import nn

from compresslab.core import accuracy, bake, train
from compresslab.data import load_data
from compresslab.hybrid.admm import admm, alternate, learning_compression, project_weights
from compresslab.hybrid.projections import project_low_rank, project_nm, project_ternary, project_top_k
from compresslab.pruning.magnitude import prune_magnitude
from compresslab.pruning.masks import mask_layers


def quadratic(seed, n=8, rows=30):
    """||M w - b||^2 / 2, and its W step in closed form: (M'M + rho) W = M'b + rho (Z - U)."""
    g = torch.Generator().manual_seed(seed)
    M, b = torch.randn(rows, n, generator=g).double(), torch.randn(rows, generator=g).double()

    def step(weights, targets, rho):
        left = M.T @ M + rho * torch.eye(n).double()
        return {"w": torch.linalg.solve(left, M.T @ b + rho * targets["w"])}

    return M, b, step, {"w": torch.linalg.lstsq(M, b[:, None]).solution[:, 0]}


def loss(M, b, w):
    return (M @ w - b).square().sum().item() / 2


# ---- the iteration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [3.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_convex_set_gives_the_known_point(seed, rho):
    M, b, step, start = quadratic(seed)
    cases = {
        "positive": (lambda w: w.clamp(min=0), nnls(M.numpy(), b.numpy())[0]),
        "box": (lambda w: w.clamp(-0.1, 0.1), lsq_linear(M.numpy(), b.numpy(), (-0.1, 0.1), tol=1e-14).x),
    }
    for project, exact in cases.values():
        W, Z, _ = alternate(step, {"w": project}, start, [rho] * 300)
        np.testing.assert_allclose(Z["w"], exact, atol=1e-6)
        np.testing.assert_allclose(W["w"], exact, atol=1e-6)


def test_without_the_dual_step_it_ends_somewhere_else_and_never_agrees():
    M, b, step, start = quadratic(0)
    exact = nnls(M.numpy(), b.numpy())[0]
    history = []
    W, Z, U = alternate(step, {"w": lambda w: w.clamp(min=0)}, start, [3.0] * 300, dual=False, history=history)
    assert not U["w"].any() and history[-1]["residual"] > 1e-3
    assert np.abs(Z["w"].numpy() - exact).max() > 1e-3


def test_the_dual_is_the_slope_of_the_loss():
    M, b, step, start = quadratic(1)
    W, Z, U = alternate(step, {"w": lambda w: w.clamp(-0.1, 0.1)}, start, [5.0] * 300)
    torch.testing.assert_close(5.0 * U["w"], M.T @ (b - M @ W["w"]), atol=1e-6, rtol=0)


def test_a_growing_pull_keeps_the_dual_variable():
    """rho U, not U, is what converges: a jump of rho at the end changes nothing but the scale of U."""
    M, b, step, start = quadratic(1)
    project = {"w": lambda w: w.clamp(-0.1, 0.1)}
    one = alternate(step, project, start, [5.0] * 300)
    two = alternate(step, project, start, [5.0] * 300 + [50.0])
    for a, c, factor in zip(one, two, (1, 1, 0.1), strict=True):
        torch.testing.assert_close(factor * a["w"], c["w"], atol=1e-7, rtol=0)


def test_one_iteration_by_hand():
    history = []
    step = lambda weights, targets, rho: {"w": (3 + rho * targets["w"]) / (1 + rho)}  # noqa: E731
    project = {"w": lambda w: w.clamp(max=1)}
    W, Z, U = alternate(step, project, {"w": torch.tensor([2.0])}, [1.0], history=history)  # Z = 1, U = 0
    assert (W["w"].item(), Z["w"].item(), U["w"].item()) == (2.0, 1.0, 1.0)
    assert history == [{"outer": 1, "rho": 1.0, "residual": 0.5}]
    W, Z, U = alternate(step, project, {"w": torch.tensor([2.0])}, [1.0, 1.0])  # Z - U = 0
    assert (W["w"].item(), Z["w"].item(), U["w"].item()) == (1.5, 1.0, 1.5)


def test_top_k_against_every_support():
    """Not convex: not always the best, never below it, and better than pruning the least-squares solution."""
    gaps, one_shot = [], []
    for seed in range(8):
        M, b, step, start = quadratic(seed)
        supports = [list(kept) for kept in itertools.combinations(range(8), 3)]
        fits = [torch.linalg.lstsq(M[:, kept], b[:, None]).solution[:, 0] for kept in supports]
        best = min(loss(M[:, kept], b, w) for kept, w in zip(supports, fits, strict=True))

        def refit(w):
            kept = w.nonzero().flatten()
            return loss(M[:, kept], b, torch.linalg.lstsq(M[:, kept], b[:, None]).solution[:, 0])

        _, Z, _ = alternate(step, {"w": partial(project_top_k, k=3)}, start, [20.0] * 200)
        assert int((Z["w"] != 0).sum()) == 3
        gaps.append(refit(Z["w"]) / best - 1)
        one_shot.append(refit(project_top_k(start["w"], 3)) / best - 1)
    assert min(gaps) >= -1e-9 and sum(gap < 1e-9 for gap in gaps) >= 5
    assert np.mean(gaps) < np.mean(one_shot) and np.mean(gaps) < 0.02


# ---- networks ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def network(digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return train(model, digits.train, epochs=15, lr=0.1, progress=False)


SHORT = {"outer": 3, "epochs": 1, "lr": 0.05, "progress": False}


@pytest.mark.parametrize("method", [admm, learning_compression])
def test_the_weights_end_in_their_sets(network, digits, method):
    projections = {"1": partial(project_top_k, k=200), "3": project_ternary}
    before = {key: value.clone() for key, value in network.state_dict().items()}
    history = []
    found = method(network, digits.train, projections, history=history, **SHORT)
    assert int((found[1].weight != 0).sum()) == 200 and len(found[3].weight.abs().unique()) == 2
    assert [row["outer"] for row in history] == [1, 2, 3] and not found.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    held = mask_layers(found, {"1": found[1].weight != 0})
    assert torch.equal(bake(held)[1].weight, found[1].weight)


@pytest.mark.parametrize(
    "project",
    [partial(project_top_k, k=160), partial(project_nm, n=1), project_ternary, partial(project_low_rank, rank=3)],
)
def test_training_towards_the_set_beats_projecting_at_once(network, digits, project):
    projections = {"1": project}
    pulled = admm(network, digits.train, projections, rho=1.0, outer=8, lr=0.05, progress=False)
    once = project_weights(network, projections)
    x, y = digits.train.x(), digits.train.y
    with torch.no_grad():
        assert F.cross_entropy(pulled(x), y) < 0.8 * F.cross_entropy(once(x), y)
    assert torch.equal(once[1].weight, project(network[1].weight))
    assert accuracy(pulled, digits.test) >= accuracy(once, digits.test)


def test_a_pull_too_weak_for_its_training_is_worse_than_none(network, digits):
    """W does not follow, U piles up, and Z = Pi(W + U) has little to do with W any more."""
    projections, x, y = {"1": partial(project_low_rank, rank=3)}, digits.train.x(), digits.train.y
    history = []
    weak = admm(network, digits.train, projections, rho=0.03, outer=8, lr=0.05, progress=False, history=history)
    with torch.no_grad():
        once = F.cross_entropy(project_weights(network, projections)(x), y)
        assert F.cross_entropy(weak(x), y) > once and history[-1]["residual"] > 0.5


def test_a_growing_pull_closes_the_gap(network, digits):
    weak, strong = [], []
    projections = {"1": partial(project_top_k, k=160)}
    learning_compression(network, digits.train, projections, mu=0.01, growth=1.0, history=weak, **SHORT)
    learning_compression(network, digits.train, projections, mu=0.01, growth=10.0, history=strong, **SHORT)
    assert [row["rho"] for row in strong] == pytest.approx([0.01, 0.1, 1.0])
    assert weak[0] == strong[0] and strong[-1]["residual"] < 0.3 * weak[-1]["residual"]


def test_growth_one_is_admm(network, digits):
    projections = {"1": partial(project_top_k, k=160)}
    one = admm(network, digits.train, projections, rho=0.03, **SHORT)
    other = learning_compression(network, digits.train, projections, mu=0.03, growth=1.0, **SHORT)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    third = admm(network, digits.train, projections, rho=0.03, seed=9, **SHORT)
    assert not torch.equal(one[3].weight, third[3].weight)


def test_the_global_generator_rests_and_a_loss_is_used(network, digits):
    state, seen = torch.get_rng_state(), []

    def half(model, x, y):
        seen.append(len(x))
        return F.cross_entropy(model(x), y) / 2

    admm(network, digits.train, {"1": project_ternary}, loss=half, **(SHORT | {"outer": 1}))
    assert sum(seen) == len(digits.train) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"projections": {}}, ValueError, "at least one layer"),
        ({"projections": {"9": project_ternary}}, ValueError, "no such layer: '9'"),
        ({"projections": {"1": partial(project_top_k, k=9999)}}, ValueError, "k must be .* in layer '1'"),
        ({"projections": {"1": torch.flatten}}, ValueError, "must keep the shape .* in layer '1'"),
        ({"rho": 0.0}, ValueError, "rho must be above 0"),
        ({"rho": float("nan")}, ValueError, "rho must be above 0"),
        ({"outer": 0}, ValueError, "outer must be"),
        ({"lr": -1.0}, ValueError, "lr must be positive"),
    ],
)
def test_refusals(network, digits, arguments, error, message):
    options = {"model": network, "split": digits.train, "projections": {"1": project_ternary}, "progress": False}
    with pytest.raises(error, match=message):
        admm(**(options | arguments))


def test_masks_must_be_baked_and_the_pull_must_not_shrink(network, digits):
    with pytest.raises(ValueError, match="bake the model first in layer '1'"):
        admm(prune_magnitude(network, 0.5), digits.train, {"1": project_ternary})
    with pytest.raises(ValueError, match="mu must be above 0"):
        learning_compression(network, digits.train, {"1": project_ternary}, mu=-1.0)
    with pytest.raises(ValueError, match="growth must be at least 1"):
        learning_compression(network, digits.train, {"1": project_ternary}, growth=0.5)


def test_tied_layers_cannot_have_two_projections():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    both = {"0": partial(project_top_k, k=3), "1": partial(project_top_k, k=60)}
    with pytest.raises(ValueError, match="the weight is that of layer '0', too.*'1'"):
        project_weights(model, both)
    assert int((project_weights(model, {"0": both["0"]})[1].weight != 0).sum()) == 3
