"""Early exit: who leaves where, what it costs on average, and that later stages see only those who are left."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.compact.early_exit import EarlyExit, early_exit_loss, exit_head, exit_macs, exit_report
from compresslab.core.macs import count_macs
from compresslab.core.train import train
from compresslab.data import Split


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(threshold=0.5, classes=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stages = [nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU()), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 8, 1)]
        heads = [exit_head(channels, classes) for channels in (4, 6, 8)]
        for head in heads:
            nn.init.normal_(head[2].weight, 0, 3)
        return EarlyExit(stages, heads, threshold).eval()


def split(n=40, size=8):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=generator)
    images[::2] //= 8  # dark ones and bright ones
    return Split(images, torch.arange(n) % 3, mean=(0.3,), std=(0.3,))


class TestRouting:
    def test_against_all_logits(self):
        """Each image has the logits of the first exit whose likeliest class is above the threshold."""
        x = rand(60, 1, 8, 8)
        model = network()
        everything = torch.stack(model.all_logits(x))
        confidence = everything.softmax(2).amax(2)
        model.threshold = threshold = confidence[:2].flatten().median().item()
        logits, exits = model.route(x)
        sure = confidence > threshold
        sure[-1] = True
        expected = sure.double().argmax(0)
        assert torch.equal(exits, expected) and len(expected.unique()) == 3
        torch.testing.assert_close(logits, everything[expected, torch.arange(60)])
        assert torch.equal(model(x), logits)

    def test_later_stages_compute_only_who_is_left(self):
        model, seen = network(), []
        for number, stage in enumerate(model.stages):
            stage.register_forward_hook(lambda layer, inputs, output, number=number: seen.append((number, len(output))))
        x = rand(50, 1, 8, 8)
        model.threshold = 0.8
        _, exits = model.route(x)
        assert seen == [(0, 50), (1, int((exits > 0).sum())), (2, int((exits > 1).sum()))]
        assert seen[1][1] < 50

    def test_extreme_thresholds(self):
        x, model = rand(7, 1, 8, 8), network()
        model.threshold = 0.0
        assert model.route(x)[1].tolist() == [0] * 7
        model.threshold = 1.0  # nobody is surer than sure, not even with saturated probabilities
        nn.init.normal_(model.exits[0][2].weight, 0, 1e4)
        logits, exits = model.route(x)
        assert exits.tolist() == [2] * 7
        torch.testing.assert_close(logits, model.all_logits(x)[-1])

    def test_in_training_everyone_goes_through(self):
        model, x = network(0.0).train(), rand(4, 1, 8, 8)
        assert torch.equal(model(x), model.all_logits(x)[-1])

    def test_one_image_one_stage_and_copies(self):
        model, x = network(), rand(1, 1, 8, 8)
        assert model(x).shape == (1, 3) and torch.equal(copy.deepcopy(model)(x), model(x))
        alone = EarlyExit([nn.Identity()], [nn.Flatten()], 0.5).eval()
        assert torch.equal(alone(x), x.flatten(1))


def test_loss_is_the_mean_over_exits():
    model, x, y = network().train(), rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    losses = [F.cross_entropy(logits, y) for logits in model.all_logits(x)]
    torch.testing.assert_close(early_exit_loss(model, x, y), sum(losses) / 3)
    early_exit_loss(model, x, y).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_training_teaches_every_exit():
    images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    labels = torch.arange(64) % 2
    images[labels == 1] = 200
    data = Split(images, labels, (0.0,), (1.0,))
    trained = train(network(classes=2), data, epochs=6, batch_size=16, loss=early_exit_loss, progress=False)
    for logits in trained.all_logits(data.x()):
        assert torch.equal(logits.argmax(1), labels)


class TestCost:
    def test_macs_by_exit(self):
        """By hand: 8x8 -> 4x4 -> 2x2; an image pays for every stage and every exit it has passed."""
        stages, heads = (16 * 4 * 9, 4 * 6 * 4 * 9, 4 * 8 * 6), (4 * 3, 6 * 3, 8 * 3)
        expected = [sum(stages[: e + 1]) + sum(heads[: e + 1]) for e in range(3)]
        model = network(1.0)
        assert list(exit_macs(model, (1, 8, 8))) == expected
        assert count_macs(model, (1, 8, 8)).total == expected[-1]

    @pytest.mark.parametrize("threshold", [0.0, 0.7, 1.0])
    def test_report(self, threshold):
        model, data = network(threshold), split()
        model.train()
        report = exit_report(model, data, batch_size=7)
        assert model.training
        logits, exits = model.eval().route(data.x())
        right = logits.argmax(1) == data.y
        assert report.macs == exit_macs(model, (1, 8, 8)) and math.fsum(report.fractions) == pytest.approx(1)
        for e in range(3):
            here = exits == e
            assert report.fractions[e] == here.double().mean().item()
            expected = right[here].double().mean().item()
            assert report.accuracy[e] == expected or (math.isnan(expected) and math.isnan(report.accuracy[e]))
        assert report.mean_accuracy == right.double().mean().item()
        assert report.mean_macs == pytest.approx(sum(f * m for f, m in zip(report.fractions, report.macs, strict=True)))

    def test_a_lower_threshold_is_never_dearer(self):
        data, model, costs = split(), network(), []
        for model.threshold in (0.0, 0.4, 0.6, 0.8, 0.95, 1.0):
            costs.append(exit_report(model, data).mean_macs)
        macs = exit_macs(model, (1, 8, 8))
        assert costs == sorted(costs) and costs[0] == macs[0] and costs[-1] == macs[-1] and len(set(costs)) > 3


def test_refusals():
    with pytest.raises(ValueError, match="got 2 stages and 1 exits"):
        EarlyExit([nn.Identity()] * 2, [nn.Identity()])
    with pytest.raises(ValueError, match="got 0 stages"):
        EarlyExit([], [])
    with pytest.raises(ValueError, match="did you mean 0.9"):
        EarlyExit([nn.Identity()], [nn.Identity()], threshold=90)
    with pytest.raises(ValueError, match="channels must be"):
        exit_head(0, 3)
    with pytest.raises(TypeError, match="num_classes must be"):
        exit_head(3, 2.0)
    empty = Split(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), (0.0,), (1.0,))
    with pytest.raises(ValueError, match="the split is empty"):
        exit_report(network(), empty)
