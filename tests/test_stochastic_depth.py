"""Stochastic depth, LayerDrop and blocks removed: closed forms, torchvision's convention, a really smaller network."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import compresslab  # noqa: F401  (before torchvision)

from torchvision.ops import StochasticDepth as TheirStochasticDepth
from torchvision.ops import stochastic_depth

from compresslab.compact.depth import (
    LayerDrop,
    StochasticDepth,
    add_stochastic_depth,
    every_other,
    expected_depth,
    layer_drop,
    prune_depth,
    removable_blocks,
    residual_branches,
    survival_probabilities,
)
from compresslab.compact.ghost import GhostBottleneck
from compresslab.compact.inverted import InvertedResidual
from compresslab.core.macs import count_macs
from compresslab.core.store import load, save
from compresslab.models import MobileNetLike, ResNet, VGGLike


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed, function, *args):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return function(*args)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


class TestProbabilities:
    def test_expected_depth_of_the_paper(self):
        """54 blocks with p_L = 0.5: 40.25 exactly, in closed form and as the sum."""
        assert expected_depth(54, 0.5) == 40.25
        assert math.fsum(survival_probabilities(54, 0.5)) == pytest.approx(40.25, rel=1e-12)

    @pytest.mark.parametrize("blocks, last", [(1, 0.3), (5, 0.0), (9, 1.0), (18, 0.8)])
    def test_closed_form_and_line(self, blocks, last):
        line = survival_probabilities(blocks, last)
        assert expected_depth(blocks, last) == pytest.approx(sum(line), rel=1e-12)
        assert line[-1] == pytest.approx(last) and len(line) == blocks
        for number, p in enumerate(line, 1):
            assert p == pytest.approx(1 - number / blocks * (1 - last))

    def test_expected_depth_is_what_coins_show(self):
        generator = torch.Generator().manual_seed(0)
        p = torch.tensor(survival_probabilities(54, 0.5))
        depth = (torch.rand(4000, 54, generator=generator) < p).sum(1).double()
        assert depth.mean().item() == pytest.approx(40.25, abs=4 * depth.std().item() / math.sqrt(4000))


class TestStochasticDepth:
    @pytest.mark.parametrize("survival", [0.2, 0.5, 0.8, 1.0])
    @pytest.mark.parametrize("mode", ["batch", "row"])
    @pytest.mark.parametrize("shape", [(6, 3, 2, 2), (6, 5)])
    def test_torchvision_in_its_own_convention(self, survival, mode, shape):
        """The probability to drop instead of to survive, divided in training; the same coins from the same seed."""
        x = rand(*shape)
        ours = StochasticDepth(survival, mode, inverted=True)
        theirs = TheirStochasticDepth(1 - survival, mode)
        for seed in range(8):
            torch.testing.assert_close(seeded(seed, ours.train(), x), seeded(seed, theirs.train(), x))
        assert torch.equal(ours.eval()(x), theirs.eval()(x))

    @pytest.mark.parametrize("mode", ["batch", "row"])
    def test_the_papers_convention_is_p_times_torchvisions(self, mode):
        x, p = rand(6, 3, 2, 2), 0.75
        ours = StochasticDepth(p, mode)
        for seed in range(8):
            theirs = seeded(seed, stochastic_depth, x, 1 - p, mode, True)
            torch.testing.assert_close(seeded(seed, ours.train(), x), p * theirs)
        assert torch.equal(ours.eval()(x), p * stochastic_depth(x, 1 - p, mode, False))

    def test_the_mistake_of_passing_survival_for_drop_shows(self):
        x = torch.ones(2000, 1)
        kept = seeded(0, StochasticDepth(0.9, "row"), x).mean().item()
        wrong = seeded(0, lambda: (stochastic_depth(x, 0.9, "row", True) > 0).float().mean()).item()
        assert kept == pytest.approx(0.9, abs=0.03) and wrong == pytest.approx(0.1, abs=0.03)

    def test_training_is_a_coin_and_test_is_its_mean(self):
        x, layer = rand(4, 3), StochasticDepth(0.7)
        outputs = seeded(0, lambda: torch.stack([layer(x) for _ in range(3000)]))
        kept = (outputs != 0).all((1, 2))
        assert torch.equal(outputs[kept], x.expand(int(kept.sum()), 4, 3)) and not outputs[~kept].any()
        mean = outputs.mean(0)
        torch.testing.assert_close(mean, layer.eval()(x), rtol=0.05, atol=0.02)

    def test_one_coin_for_the_batch_or_one_for_each_row(self):
        x = torch.ones(64, 2, 2)
        batch = {seeded(s, StochasticDepth(0.5), x).unique().numel() for s in range(20)}
        rows = seeded(0, StochasticDepth(0.5, "row"), x).flatten(1)
        assert batch == {1} and rows.unique().numel() == 2 and torch.equal(rows.amin(1), rows.amax(1))

    def test_certain_coins(self):
        x = rand(3, 2)
        assert torch.equal(StochasticDepth(1.0)(x), x) and not StochasticDepth(0.0)(x).any()

    def test_a_residual_block_of_the_paper(self):
        """H = ReLU(b f + H) in training, ReLU(p f + H) at test; H is not negative, so that b = 0 passes it on."""
        h, f, layer = rand(5, 4).relu(), rand(5, 4, seed=1), StochasticDepth(0.6)
        seen = {tuple(seeded(s, lambda: F.relu(layer(f) + h)).flatten().tolist()) for s in range(20)}
        assert seen == {tuple(h.flatten().tolist()), tuple(F.relu(f + h).flatten().tolist())}
        assert torch.equal(F.relu(layer.eval()(f) + h), F.relu(0.6 * f + h))


class TestWholeNetworks:
    def test_probabilities_fall_along_the_network(self):
        model = add_stochastic_depth(ResNet(depth=20), last=0.5)
        found = [layer.survival for layer in model.modules() if isinstance(layer, StochasticDepth)]
        assert found == survival_probabilities(9, 0.5)

    def test_at_test_it_is_the_same_size_and_scaled(self):
        """No smaller network at test time: the branch is scaled by p, which batch norm could take over."""
        model = ResNet(depth=8).eval()
        random, x = add_stochastic_depth(model, last=0.4), rand(2, 3, 32, 32)
        scaled = copy.deepcopy(model)
        for block, p in zip((scaled.stage1[0], scaled.stage2[0], scaled.stage3[0]), (0.8, 0.6, 0.4), strict=True):
            with torch.no_grad():
                block.bn2.weight.mul_(p)
                block.bn2.bias.mul_(p)
        torch.testing.assert_close(random(x), scaled(x), rtol=1e-4, atol=1e-5)
        assert count(random) == count(model)
        assert count_macs(random, (3, 32, 32)).total == count_macs(model, (3, 32, 32)).total
        assert torch.equal(add_stochastic_depth(model, 0.4, inverted=True)(x), model(x))

    def test_a_dropped_block_gets_no_gradient(self):
        model = add_stochastic_depth(ResNet(depth=14), last=0.0).train()  # the last block is never there
        model(rand(2, 3, 32, 32)).sum().backward()
        assert not model.stage3[1].conv1.weight.grad.any() and model.stage1[0].conv2.weight.grad.any()

    def test_branches_and_blocks_of_every_kind(self):
        model = nn.Sequential(InvertedResidual(4, 4), InvertedResidual(4, 6), GhostBottleneck(6, 6), GhostBottleneck(6, 8))
        assert residual_branches(model) == ["0.branch", "2.narrow", "3.narrow"]
        assert removable_blocks(model) == ["0", "2"]
        mobile = MobileNetLike()
        assert residual_branches(mobile) == [f"blocks.{i}.bn3" for i in (0, 2, 4)]
        with torch.no_grad():
            x = rand(2, 4, 6, 6)
            changed = add_stochastic_depth(model, last=0.0).eval()(x)
        assert changed.shape == (2, 8, 6, 6) and not torch.equal(changed, model.eval()(x))

    def test_removable_blocks_can_go_and_the_others_cannot(self):
        model = ResNet(depth=20).eval()
        assert removable_blocks(model) == [f"stage{s}.{b}" for s in (1, 2, 3) for b in range(3) if s == 1 or b]
        for name in ("stage1.0", "stage3.2"):
            assert prune_depth(model, [name])(rand(1, 3, 32, 32)).shape == (1, 10)


class TestLayerDrop:
    def test_blocks_are_skipped_in_training_and_never_at_test(self):
        calls = []

        class Block(nn.Module):
            def forward(self, x):
                calls.append(1)
                return 2 * x

        layer, x = LayerDrop(Block(), 0.3), rand(2, 3)
        outputs = seeded(0, lambda: [layer(x) for _ in range(400)])
        kept = sum(torch.equal(y, 2 * x) for y in outputs)
        assert kept == len(calls) and all(torch.equal(y, 2 * x) or torch.equal(y, x) for y in outputs)
        assert kept / 400 == pytest.approx(0.7, abs=0.08)
        assert all(torch.equal(seeded(seed, layer.eval(), x), 2 * x) for seed in range(20))

    def test_wrapping_changes_nothing_at_test_and_is_undone(self):
        model, x = ResNet(depth=14).eval(), rand(2, 3, 32, 32)
        before = copy.deepcopy(model.state_dict())
        dropped = layer_drop(model, 0.5)
        assert sum(isinstance(layer, LayerDrop) for layer in dropped.modules()) == 4
        assert torch.equal(dropped(x), model(x)) and removable_blocks(dropped) == removable_blocks(model)
        plain = prune_depth(dropped)
        assert list(plain.state_dict()) == list(before) and torch.equal(plain(x), model(x))
        assert not any(isinstance(layer, LayerDrop) for layer in model.modules())

    def test_always_dropped_is_the_pruned_network(self):
        model, x = ResNet(depth=14), rand(4, 3, 32, 32)
        model = model.eval()
        dropped = layer_drop(model, 1.0, layers=["stage2.1"])
        dropped.stage2[1].train()
        assert torch.equal(dropped(x), prune_depth(model, ["stage2.1"])(x))

    def test_prune_depth_gives_a_really_smaller_network(self, tmp_path):
        model = ResNet(depth=20).eval()
        remove = every_other(removable_blocks(model), 0.5)
        small = prune_depth(layer_drop(model, 0.5), remove)
        gone = sum(count(model.get_submodule(name)) for name in remove)
        assert len(remove) == 3 and count(small) == count(model) - gone
        macs = count_macs(model, (3, 32, 32)), count_macs(small, (3, 32, 32))
        missing = sum(value for name, value in macs[0].by_layer.items() if name.startswith(tuple(remove)))
        assert macs[1].total == macs[0].total - missing
        assert set(small.state_dict()) < set(model.state_dict())
        save(small, tmp_path / "small.cl")
        again, x = load(tmp_path / "small.cl"), rand(1, 3, 32, 32)
        assert count(again) == count(small) and torch.equal(again(x), small(x))

    def test_trains(self):
        model = layer_drop(ResNet(depth=14), 0.5).train()
        gradients = set()
        for seed in range(6):
            model.zero_grad()
            seeded(seed, model, rand(2, 3, 32, 32)).sum().backward()
            gradients.add(tuple(p.grad is None or not p.grad.any() for p in model.parameters()))
        assert len(gradients) > 1  # other blocks in other steps


@pytest.mark.parametrize("drop, expected", [(0, []), (0.5, [2, 4, 6, 8, 10]), (1 / 3, [3, 6, 9]), (0.2, [5, 10]),
                                            (0.7, [2, 3, 5, 6, 8, 9, 10]), (1.0, list(range(1, 11)))])  # fmt: skip
def test_every_other(drop, expected):
    assert every_other([str(i) for i in range(1, 11)], drop) == [str(i) for i in expected]


@pytest.mark.parametrize("parts", range(2, 12))
def test_every_other_is_the_rule_of_the_paper(parts):
    names = list(range(1, 41))
    assert every_other(names, 1 / parts) == [d for d in names if d % parts == 0]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: survival_probabilities(0), ValueError, "blocks must be"),
        (lambda: survival_probabilities(3, 50), ValueError, "did you mean 0.5"),
        (lambda: expected_depth(2.5), TypeError, "blocks must be"),
        (lambda: StochasticDepth(1.2), ValueError, "survival must be in"),
        (lambda: StochasticDepth(math.nan), ValueError, "survival must be in"),
        (lambda: StochasticDepth(0.5, "image"), ValueError, "mode must be 'batch' or 'row', got 'image'"),
        (lambda: StochasticDepth(0.0, inverted=True), ValueError, "survival must be positive"),
        (lambda: LayerDrop(nn.Identity(), -0.1), ValueError, "drop must be in"),
        (lambda: layer_drop(ResNet(), "0.5"), TypeError, "drop must be"),
        (lambda: add_stochastic_depth(VGGLike()), ValueError, "VGGLike has no residual block"),
        (lambda: prune_depth(ResNet(), ["stage2.0"]), ValueError, "no removable block: 'stage2.0'; such are stage1.0"),
        (lambda: prune_depth(VGGLike(), ["features.0"]), ValueError, "such are none"),
        (lambda: layer_drop(ResNet(), 0.5, ["nowhere"]), ValueError, "layers names no removable block: 'nowhere'"),
        (lambda: prune_depth(ResNet(), "stage1.0"), ValueError, r"write \['stage1.0'\]"),
        (lambda: every_other(["a"], 2), ValueError, "drop must be in"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
