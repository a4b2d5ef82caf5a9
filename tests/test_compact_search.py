"""Scaling rules, the cost formula of a search space, evolution against enumeration, and the supernet's shared weights."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import compresslab  # noqa: F401  (before torchvision)

from torchvision.models._utils import _make_divisible

from compresslab.compact.scaling import (
    Scale,
    check_multiplier,
    compound_grid,
    compound_scale,
    make_divisible,
    scale_channels,
    scaled_cost,
    search_compound,
)
from compresslab.compact.search import Architecture, SearchSpace, enumerate_space, evolve
from compresslab.compact.separable import SeparableConv
from compresslab.compact.slimmable import SlimmableConv2d
from compresslab.compact.supernet import SlimmableInvertedResidual, Supernet, recalibrate, sandwich_loss
from compresslab.core.macs import count_macs
from compresslab.core.train import accuracy, train
from compresslab.data import Split

TINY = SearchSpace(widths=((4, 8), (8, 12, 16)), depths=((1, 2), (1, 2, 3)), stem=4, image=8, num_classes=3)


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


class TestScaling:
    def test_make_divisible_is_torchvisions(self):
        for divisor in (4, 8):
            for channels in [*range(1, 200), 0.3, 11.2, 17.5, 99.9]:
                assert make_divisible(channels, divisor) == _make_divisible(channels, divisor), channels

    @pytest.mark.parametrize("channels, alpha", [(32, 0.75), (320, 1.4), (16, 0.1)])
    def test_scale_channels(self, channels, alpha):
        assert scale_channels(channels, alpha) == _make_divisible(channels * alpha, 8)

    @pytest.mark.parametrize("alpha, rho", [(0.5, 1.0), (1.0, 0.5), (0.25, 0.5), (1.5, 2.0)])
    def test_scaled_cost_is_what_the_scaled_layer_costs(self, alpha, rho):
        def parts(alpha, side):
            layer = SeparableConv(round(16 * alpha), round(32 * alpha))
            by_layer = count_macs(layer, (round(16 * alpha), side, side)).by_layer
            return by_layer["depthwise.conv"], by_layer["pointwise.conv"]

        full, scaled = parts(1, 8), parts(alpha, round(8 * rho))
        assert scaled_cost(*full, alpha, rho) == sum(scaled)

    def test_compound_scaling_of_the_paper(self):
        """alpha beta^2 gamma^2 = 1.92 for the shares of EfficientNet: about 2, by the definition of cost."""
        scale = compound_scale(1)
        assert (scale.depth, scale.width, scale.resolution) == (1.2, 1.1, 1.15)
        assert scale.cost == pytest.approx(1.2 * 1.1**2 * 1.15**2, rel=1e-12)
        assert abs(scale.cost - 2) < 0.1
        for phi in (-1, 0, 0.5, 3):
            assert compound_scale(phi).cost == pytest.approx(scale.cost**phi, rel=1e-12)

    def test_grid_is_complete_and_correct(self):
        grid = compound_grid(2.0, step=0.1, tolerance=0.1)
        axis = [1 + i / 10 for i in range(31)]
        everything = {
            (round(a, 6), round(b, 6), round(c, 6))
            for a, b, c in itertools.product(axis, axis, axis) if abs(a * b * b * c * c - 2) <= 0.2 + 1e-12
        }  # fmt: skip
        found = [tuple(round(x, 6) for x in (s.depth, s.width, s.resolution)) for s in grid]
        assert set(found) == everything and len(found) == len(everything)

    def test_search_finds_the_best_of_the_grid(self):
        target = Scale(1.2, 1.1, 1.15)
        calls = []

        def closeness(scale):
            calls.append(scale)
            return -abs(scale.depth - 1.2) - abs(scale.width - 1.1) - abs(scale.resolution - 1.15)

        assert search_compound(closeness) == target and len(calls) == len(set(calls)) == len(compound_grid())

    @pytest.mark.parametrize(
        "call, error, message",
        [
            (lambda: make_divisible(0), ValueError, "channels must be positive"),
            (lambda: make_divisible(math.nan), ValueError, "channels must be positive"),
            (lambda: make_divisible(8, 0), ValueError, "divisor must be"),
            (lambda: scale_channels(8.5, 1.0), TypeError, "channels must be"),
            (lambda: scale_channels(8, -1), ValueError, "width_mult must be in"),
            (lambda: check_multiplier("depth_mult", True), TypeError, "depth_mult must be a number"),
            (lambda: scaled_cost(-1, 1, 0.5), ValueError, "must not be negative"),
            (lambda: scaled_cost(1, 1, 0.5, 0), ValueError, "resolution_mult must be in"),
            (lambda: compound_scale(1, alpha=0.9), ValueError, "alpha must be at least 1"),
            (lambda: compound_scale(1, gamma=math.inf), ValueError, "gamma must be"),
            (lambda: compound_scale(math.nan), ValueError, "phi must be finite"),
            (lambda: compound_grid(0.5), ValueError, "target must be at least 1"),
            (lambda: compound_grid(step=0), ValueError, "step positive"),
            (lambda: compound_grid(tolerance=1), ValueError, "tolerance in"),
            (lambda: search_compound(lambda s: 0, step=0.6, tolerance=0.001), ValueError, "no triple on a grid"),
        ],
    )
    def test_refusals(self, call, error, message):
        with pytest.raises(error, match=message):
            call()


class TestSpace:
    def test_size_and_order(self):
        everything = enumerate_space(TINY)
        assert len(everything) == len(set(everything)) == len(TINY) == 2 * 3 * 2 * 3
        assert everything[0] == TINY.smallest() and everything[-1] == TINY.largest()

    @pytest.mark.parametrize("space", [TINY, SearchSpace(expansion=1, image=9, in_channels=1), SearchSpace(image=15)])
    def test_cost_formula_counts_the_network(self, space):
        middle = space.decode(tuple(choices[len(choices) // 2] for choices in space.genes))
        for architecture in (space.smallest(), middle, space.largest()):
            model = space.build(architecture).eval()
            report = count_macs(model, (space.in_channels, space.image, space.image))
            assert report.total == space.macs(architecture)
            assert model(rand(1, space.in_channels, 9, 9)).shape == (1, space.num_classes)

    def test_every_gene_costs(self):
        """The cost grows with each choice, which is why lowering one of them always helps to keep a budget."""
        for values in itertools.product(*TINY.genes):
            for i, choices in enumerate(TINY.genes):
                for larger in choices[choices.index(values[i]) + 1 :]:
                    more = (*values[:i], larger, *values[i + 1 :])
                    assert TINY.macs(TINY.decode(more)) > TINY.macs(TINY.decode(values))

    def test_budget(self):
        budget = sorted(TINY.macs(a) for a in enumerate_space(TINY))[10]
        inside = enumerate_space(TINY, budget)
        assert len(inside) == 11 and all(TINY.macs(a) <= budget for a in inside)

    @pytest.mark.parametrize(
        "call, error, message",
        [
            (lambda: SearchSpace(((8,),), ((1,), (1,))), ValueError, "one tuple per stage, got 1 and 2"),
            (lambda: SearchSpace((), ()), ValueError, "got 0 and 0"),
            (lambda: SearchSpace(((8, 4),), ((1,),)), ValueError, r"widths\[0\] must list different numbers, ascending"),
            (lambda: SearchSpace(((8,),), ((1, 1),)), ValueError, r"depths\[0\] must list"),
            (lambda: SearchSpace(((8,),), ((),)), ValueError, r"depths\[0\] must list"),
            (lambda: SearchSpace(((8,),), ((0, 1),)), ValueError, r"depths\[0\] must be"),
            (lambda: SearchSpace(((8.0,),), ((1,),)), TypeError, r"widths\[0\] must be"),
            (lambda: SearchSpace(stem=0), ValueError, "stem must be"),
            (lambda: TINY.macs(Architecture((4, 9), (1, 1))), ValueError, r"widths\[1\] must be one of \(8, 12, 16\)"),
            (lambda: TINY.build(Architecture((4, 8), (1, 4))), ValueError, r"depths\[1\] must be one of"),
            (lambda: TINY.build(Architecture((4,), (1,))), ValueError, "widths must name 2 stages"),
            (lambda: enumerate_space(SearchSpace(((8, 9),) * 12, ((1, 2),) * 12)), ValueError, "too large to list"),
        ],
    )
    def test_refusals(self, call, error, message):
        with pytest.raises(error, match=message):
            call()


def bumpy(architecture):
    """A score with local optima: what a width is worth depends on the depth of its stage."""
    pairs = zip(architecture.widths, architecture.depths, strict=True)
    return sum(math.log(width * depth) + math.sin(3 * width + 5 * depth) for width, depth in pairs)


class TestEvolution:
    @pytest.mark.parametrize("quantile", [0.1, 0.4, 1.0])
    @pytest.mark.parametrize("seed", range(3))
    def test_finds_what_enumeration_finds(self, quantile, seed):
        costs = sorted(TINY.macs(a) for a in enumerate_space(TINY))
        budget = costs[int(quantile * (len(costs) - 1))]
        best = max(enumerate_space(TINY, budget), key=bumpy)
        found = evolve(TINY, bumpy, budget, seed=seed)
        assert found.best == best and found.score == bumpy(best)

    def test_on_a_larger_space_it_scores_less_than_half(self):
        space = SearchSpace()
        budget = 0.4 * space.macs(space.largest())
        inside = sorted((bumpy(a) for a in enumerate_space(space, budget)), reverse=True)
        found = evolve(space, bumpy, budget)
        assert len(space) == 729 and len(found.scores) < 0.5 * len(inside)
        assert found.score == inside[0]

    def test_the_budget_holds_and_nothing_is_scored_twice(self):
        budget, calls = 0.5 * TINY.macs(TINY.largest()), []

        def score(architecture):
            calls.append(architecture)
            return bumpy(architecture)

        found = evolve(TINY, score, budget)
        assert len(calls) == len(set(calls)) == len(found.scores) and found.scores == {a: bumpy(a) for a in calls}
        assert all(TINY.macs(a) <= budget for a in calls)
        assert found.history == sorted(found.history) and found.history[-1] == found.score == max(found.scores.values())

    def test_same_seed_same_search_and_the_global_generator_rests(self):
        state = torch.random.get_rng_state()
        budget = 0.5 * TINY.macs(TINY.largest())
        one, two, three = (evolve(TINY, bumpy, budget, generations=2, population=6, parents=2, seed=s) for s in (3, 3, 4))
        assert torch.equal(state, torch.random.get_rng_state())
        assert list(one.scores) == list(two.scores) != list(three.scores)

    def test_a_budget_for_one(self):
        found = evolve(TINY, bumpy, TINY.macs(TINY.smallest()))
        assert list(found.scores) == [TINY.smallest()]

    @pytest.mark.parametrize(
        "arguments, error, message",
        [
            ({"max_macs": 1}, ValueError, "max_macs must be at least [0-9]+, the cheapest"),
            ({"max_macs": math.nan}, ValueError, "max_macs must be"),
            ({"population": 1}, ValueError, "population must be"),
            ({"parents": 0}, ValueError, "parents must be"),
            ({"parents": 25}, ValueError, "parents must be a whole number from 1 to 24"),
            ({"generations": 0}, ValueError, "generations must be"),
            ({"mutation": 20}, ValueError, "did you mean 0.2"),
            ({"population": 2.5}, TypeError, "population must be"),
            ({"score": lambda a: math.nan}, ValueError, "the score of Architecture.* is nan"),
        ],
    )
    def test_refusals(self, arguments, error, message):
        with pytest.raises(error, match=message):
            evolve(**({"space": TINY, "score": bumpy, "max_macs": 1e9} | arguments))


def supernet(space=TINY):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Supernet(space)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for tensor in (layer.weight, layer.running_var):
                    nn.init.uniform_(tensor, 0.5, 2)
                for tensor in (layer.bias, layer.running_mean):
                    nn.init.normal_(tensor, 0, 0.3)
    return model.eval()


class TestSupernet:
    @pytest.mark.parametrize("space", [TINY, SearchSpace(((4, 6),), ((1, 2),), stem=6, expansion=1, image=8)])
    def test_subnets_have_the_supernets_outputs(self, space):
        model, x, outputs = supernet(space), rand(2, 3, 8, 8), []
        chosen = [*enumerate_space(space)[::7], space.largest()]
        for architecture in chosen:
            model.activate_(architecture)
            y = model(x)
            plain = model.subnet(architecture)
            torch.testing.assert_close(plain(x), y, rtol=1e-5, atol=1e-5)
            assert count(plain) == count(space.build(architecture)) and not plain.training
            outputs.append(y)
        assert len({tuple(y.flatten().tolist()) for y in outputs}) == len(set(chosen))

    def test_weights_are_shared(self):
        """Training the smallest moves the largest: the first channels and blocks are the same numbers."""
        model = supernet()
        model.activate_(TINY.smallest())
        model(rand(2, 3, 8, 8)).sum().backward()
        for conv in (layer for layer in model.modules() if isinstance(layer, SlimmableConv2d)):
            used = conv.conv.weight.grad is not None
            if used:
                inputs, outputs = conv.active
                assert conv.conv.weight.grad[:outputs, :inputs].any()
                assert not conv.conv.weight.grad[outputs:].any()
        assert model.stages[0][1].branch[0].conv.weight.grad is None  # beyond the active depth
        largest = sum(p.numel() for p in Supernet(TINY).parameters())
        separately = sum(count(TINY.build(a)) for a in enumerate_space(TINY))
        assert largest < separately / 10

    def test_subnets_cost_what_the_formula_says(self):
        model = supernet()
        for architecture in (TINY.smallest(), TINY.largest()):
            model.activate_(architecture)
            assert count_macs(model, (3, 8, 8)).total == TINY.macs(architecture)

    def test_a_subnet_is_a_copy_and_leaves_the_supernet_alone(self):
        model, x = supernet(), rand(1, 3, 8, 8)
        before, y = copy.deepcopy(model.state_dict()), model(x)
        plain = model.subnet(TINY.smallest())
        for parameter in plain.parameters():
            nn.init.zeros_(parameter)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert model.architecture == TINY.largest() and torch.equal(model(x), y)
        assert torch.equal(copy.deepcopy(model)(x), y)

    def test_sandwich_loss(self):
        model, x, y = supernet(), rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
        ends = [F.cross_entropy(model.subnet(a)(x), y) for a in (TINY.smallest(), TINY.largest())]
        torch.testing.assert_close(sandwich_loss(TINY, samples=0)(model, x, y), sum(ends) / 2)
        assert model.architecture == TINY.largest()
        state = torch.random.get_rng_state()
        one, two = (sandwich_loss(TINY, 3, seed=1)(model, x, y).item() for _ in range(2))
        assert one == two and torch.equal(state, torch.random.get_rng_state())

    def test_train_recalibrate_search(self):
        """The whole way on images that one channel tells apart: all subnets learn, and the search ranks them."""
        images = torch.zeros(96, 3, 8, 8, dtype=torch.uint8)
        labels = torch.arange(96) % 3
        for label in range(3):
            images[labels == label, label] = 180
        data = Split(images, labels, (0.1,) * 3, (0.3,) * 3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Supernet(TINY)
        trained = train(model, data, epochs=5, batch_size=24, loss=sandwich_loss(TINY, samples=0), progress=False)

        def score(architecture):
            return accuracy(recalibrate(trained.subnet(architecture), [data.x()]), data)

        assert score(TINY.smallest()) > 0.9 and score(TINY.largest()) > 0.9
        found = evolve(TINY, score, TINY.macs(TINY.smallest()) * 2, population=3, parents=1, generations=1)
        assert found.score == score(found.best) > 0.9

    @pytest.mark.parametrize("inputs, outputs, stride", [(4, 4, 1), (4, 8, 1), (8, 8, 2)])
    def test_block(self, inputs, outputs, stride):
        block = SlimmableInvertedResidual((4, 8), (4, 8), stride, 3).eval()
        block.resize_(inputs, outputs)
        y = block(rand(1, inputs, 7, 7))
        assert y.shape == (1, outputs, -(-7 // stride), -(-7 // stride))
        assert block.residual == (stride == 1 and inputs == outputs)

    @pytest.mark.parametrize(
        "call, error, message",
        [
            (lambda: supernet().activate_(Architecture((5, 8), (1, 1))), ValueError, r"widths\[0\] must be one of"),
            (lambda: supernet().subnet(Architecture((4, 8), (9, 1))), ValueError, r"depths\[0\] must be one of"),
            (lambda: sandwich_loss(TINY, -1), ValueError, "samples must be"),
            (lambda: sandwich_loss(TINY, 0.5), TypeError, "samples must be"),
            (lambda: SlimmableInvertedResidual((4,), (4,), 3, 2), ValueError, "stride must be"),
            (lambda: SlimmableInvertedResidual((4,), (4,), 1, 0), ValueError, "expansion must be"),
            (lambda: recalibrate(nn.BatchNorm2d(2), []), ValueError, "at least one batch"),
        ],
    )
    def test_refusals(self, call, error, message):
        with pytest.raises(error, match=message):
            call()


def test_recalibration_against_the_statistics_themselves():
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), norm, nn.Dropout(0.9)).train()
    before = copy.deepcopy(model.state_dict())
    batches = [rand(4, 2, 5, 5, seed=seed) for seed in range(3)]
    fresh = recalibrate(model, batches)
    maps = [model[0](x) for x in batches]
    torch.testing.assert_close(fresh[1].running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0))
    torch.testing.assert_close(fresh[1].running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0))
    assert not fresh.training and fresh[1].momentum == norm.momentum and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
