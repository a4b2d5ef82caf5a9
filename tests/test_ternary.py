"""Ternary weights: the exact optimum, the rule of thumb beside it, and two scales that are trained."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core.codes import CodebookCode, UniformCode
from compresslab.core.layers import encode
from compresslab.core.modules import bake
from compresslab.core.prepare import convert, prepare
from compresslab.core.size import storage_bits
from compresslab.core.uniform import dequantize, from_rows
from compresslab.quantization.ternary import (
    TTQ,
    Ternary,
    exact_threshold,
    rule_threshold,
    ternarize,
    ternary_code,
)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def error(weight, **arguments):
    q, grid = ternarize(weight, **arguments)
    return float((dequantize(q, grid).double() - weight.double().view_as(q)).square().sum())


def best_of_all(weight: torch.Tensor) -> float:
    """The least squared error over all 3^n assignments, each with its best scale."""
    w = weight.double()
    t = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0]).double()] * len(w)).view(-1, len(w))
    gain = torch.nan_to_num((t @ w).square() / t.square().sum(1))  # 0 / 0: all zero, nothing gained
    return float(w.square().sum() - gain.max())


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("seed", range(4))
def test_exact_rule_is_the_best_of_all_assignments(n, seed):
    for weight in (randn(n, seed=seed), randn(n, seed=seed) ** 3, randn(n, seed=seed).round(), randn(n).abs()):
        assert error(weight) == pytest.approx(best_of_all(weight), abs=1e-5)
        assert error(weight) <= error(weight, rule="0.7") + 1e-6


@pytest.mark.parametrize(
    "weight, signs, scale",
    [
        ([4.0, -3.0, 0.5, 0.1], [1, -1, 0, 0], 3.5),
        ([2.0, -2.0, 2.0, -2.0], [1, -1, 1, -1], 2.0),  # nothing but ties: all are kept
        ([5.0, 1.0, -1.0, 1.0, -1.0], [1, 0, 0, 0, 0], 5.0),  # 25 against (5 + k)^2 / (1 + k): ties are dropped
        ([3.0, 2.0, -2.0, 0.0], [1, 1, -1, 0], 7 / 3),
        ([-1.0], [-1], 1.0),
    ],
)
def test_cases_worked_by_hand(weight, signs, scale):
    q, grid = ternarize(torch.tensor(weight))
    assert q.tolist() == [signs] and grid.scale.item() == pytest.approx(scale)
    assert (grid.qmin, grid.qmax) == (-1, 1) and grid.zero_point.tolist() == [[0]]


def test_limits_of_the_exact_threshold():
    """Uniform weights: 2/3 E|w|. Normal weights: 0.612 sigma = 0.767 E|w|. From their quantiles, not a sample."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    for weight, share in ((2 * u - 1, 2 / 3), (torch.special.ndtri(u), 0.767)):
        assert exact_threshold(weight[None]) / weight.abs().mean() == pytest.approx(share, abs=1e-3)
        assert rule_threshold(weight[None]) / weight.abs().mean() == pytest.approx(0.7)
    assert exact_threshold(torch.special.ndtri(u)[None]).item() == pytest.approx(0.612, abs=1e-3)


def test_exact_is_better_than_the_rule_on_normal_weights_by_little():
    weight = randn(20_000)
    assert 0.98 * error(weight, rule="0.7") < error(weight) < error(weight, rule="0.7")


@pytest.mark.parametrize("rule", ["exact", "0.7"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_rows_are_tensors_of_their_own(rule, axis):
    weight = randn(4, 6, 3)
    q, grid = ternarize(weight, axis=axis, rule=rule)
    pieces = [weight] if axis is None else weight.unbind(axis)
    for row, scale, piece in zip(q, grid.scale, pieces, strict=True):
        alone, its_grid = ternarize(piece, rule=rule)
        assert torch.equal(row, alone[0]) and torch.equal(scale, its_grid.scale[0])
    assert len(ternarize(weight, group_size=9)[0]) == 8


def test_stored_as_two_bits_and_a_scale():
    weight = randn(7, 10)
    for axis, rows in ((None, 1), (0, 7)):
        code = ternary_code(weight, axis)
        q, grid = ternarize(weight, axis)
        assert isinstance(code, UniformCode) and code.bits == 2 and code.zero_point is None
        assert torch.equal(code.decode(), from_rows(dequantize(q, grid), weight.shape, axis))
        assert storage_bits(code) == 8 * math.ceil(70 * 2 / 8) + 32 * rows
        assert storage_bits(TTQ(weight).to_code(weight)) == 8 * math.ceil(70 * 2 / 8) + 32 * 3


@pytest.mark.parametrize("rule", ["exact", "0.7"])
def test_zero_constant_one_sided_and_empty_weights(rule):
    code = partial(ternary_code, axis=0, rule=rule)
    assert torch.equal(code(torch.zeros(2, 3)).decode(), torch.zeros(2, 3))
    for value in (0.75, -0.75):
        assert torch.equal(code(torch.full((2, 3), value)).decode(), torch.full((2, 3), value))
        assert torch.equal(code(torch.full((3, 1), value)).decode(), torch.full((3, 1), value))
    assert (code(randn(2, 9).abs()).decode() >= 0).all()
    assert code(torch.zeros(0, 3)).decode().shape == (0, 3)
    mixed = torch.cat([torch.zeros(1, 5), randn(1, 5)])
    assert (code(mixed).decode()[0] == 0).all() and (code(mixed).decode()[1] != 0).any()


def test_gradient_passes_straight_through():
    w, g = randn(3, 5).requires_grad_(), randn(3, 5, seed=1)
    Ternary(axis=0)(w).backward(g)
    assert torch.equal(w.grad, g)


def test_trained_ternary_gradients():
    w = torch.tensor([1.0, 0.6, 0.04, 0.05, -0.05, -0.3, -0.8]).requires_grad_()  # the threshold is 0.05
    ttq = TTQ(w.detach())
    assert ttq.positive.item() == pytest.approx(0.8) and ttq.negative.item() == pytest.approx(0.55)
    with torch.no_grad():
        ttq.positive.fill_(2.0), ttq.negative.fill_(3.0)
    out = ttq(w)
    assert out.tolist() == [2, 2, 0, 0, 0, -3, -3]
    g = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    out.backward(g)
    assert ttq.positive.grad == 3 and ttq.negative.grad == -96
    assert w.grad.tolist() == [2, 4, 4, 8, 16, 96, 192]


def test_trained_scales_have_the_gradients_of_a_difference_quotient():
    w, x = randn(4, 6, dtype=torch.float64), randn(5, 6, seed=1, dtype=torch.float64)
    ttq = TTQ(w, threshold=0.3).double()
    loss = lambda: (x @ ttq(w).T).square().mean()  # noqa: E731
    loss().backward()
    for scale in (ttq.positive, ttq.negative):
        with torch.no_grad():
            scale += 1e-6
            above = loss()
            scale -= 2e-6
            quotient = (above - loss()) / 2e-6
            scale += 1e-6
        assert scale.grad.item() == pytest.approx(quotient.item(), rel=1e-5)


@pytest.mark.parametrize("weight", [torch.zeros(2, 3), torch.full((2, 3), -0.5), randn(2, 3).abs(), torch.zeros(0, 3)])
def test_trained_ternary_of_one_sided_and_zero_weights(weight):
    ttq = TTQ(weight)
    assert torch.equal(ttq(weight), ttq.to_code(weight).decode())
    if weight.numel() and weight.max() <= 0:  # zero or constant: exact
        assert torch.equal(ttq(weight), weight)


MAKE = {
    "exact": lambda weight: Ternary(),
    "0.7, per channel": lambda weight: Ternary(axis=0, rule="0.7"),
    "groups": lambda weight: Ternary(group_size=3),
    "trained": TTQ,
    "trained, half": partial(TTQ, threshold=0.5),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_simulated_equals_stored_bit_for_bit_before_and_after_training(make):
    model = net()
    prepared = prepare(model, make)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    x, target = randn(16, 2, 5, 5), torch.arange(16) % 3
    losses = []
    for step in range(9):
        if step % 8 == 0:
            coded, plain = convert(prepared), bake(prepared)
            for layer in (0, 3):
                assert torch.equal(coded[layer].coded.decode(), plain[layer].weight)
        loss = nn.functional.cross_entropy(prepared(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[4:]) < losses[0]
    assert isinstance(coded[0].coded, (UniformCode, CodebookCode))


def test_bad_input_is_refused():
    for make in (ternary_code, TTQ, lambda w: Ternary()(w)):
        with pytest.raises(ValueError, match="finite"):
            make(torch.tensor([1.0, math.nan]))
        with pytest.raises(TypeError, match="floating-point"):
            make(torch.tensor([1, 2]))
    for make in (Ternary, partial(ternarize, torch.ones(3))):
        with pytest.raises(ValueError, match="rule must be one of 'exact', '0.7', got '0.5'"):
            make(rule="0.5")
    with pytest.raises(ValueError, match="threshold must be in"):
        TTQ(torch.ones(3), threshold=5)
    with pytest.raises(TypeError, match="threshold must be"):
        TTQ(torch.ones(3), threshold="0.7")
    with pytest.raises(ValueError, match="group_size 4 does not divide"):
        ternary_code(torch.ones(2, 6), group_size=4)
    with pytest.raises(ValueError, match="in layer '0'"):
        encode(nn.Sequential(nn.Linear(3, 2)), partial(ternary_code, group_size=2))
