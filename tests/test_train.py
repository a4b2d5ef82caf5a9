"""The training loop against a hand-written one, its promises to the caller, and prediction."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.core.modules import apply_mask_, get_mask
from compresslab.core.train import accuracy, cosine_lr, predict_labels, predict_logits, train
from compresslab.data import Split, load_data


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data("digits", train=300).train


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 10)
    )


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_another_optimizer_follows_the_same_schedule(digits):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))  # no bias in front of a batch norm: Adam divides by its noise
    trained = train(network, digits, epochs=1, lr=0.01, seed=3, progress=False,
                    optimizer=lambda parameters, lr: torch.optim.AdamW(parameters, lr, weight_decay=0.1))  # fmt: skip
    expected = copy.deepcopy(network).train()
    optimizer = torch.optim.AdamW(expected.parameters(), 0.01, weight_decay=0.1)
    for step, (x, y) in enumerate(digits.batches(128, shuffle=True, generator=torch.Generator().manual_seed(3))):
        optimizer.param_groups[0]["lr"] = cosine_lr(0.01, step, 3, warmup=0.1)
        optimizer.zero_grad()
        F.cross_entropy(expected(x), y).backward()
        optimizer.step()
    for found, wanted in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_training_equals_a_loop_written_out(digits, network):
    trained = train(network, digits, epochs=2, lr=0.1, warmup=0, batch_size=128, seed=3, progress=False)
    expected = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2 * 3)
    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        for x, y in digits.batches(128, shuffle=True, generator=generator):
            optimizer.zero_grad()
            F.cross_entropy(expected(x), y).backward()
            optimizer.step()
            scheduler.step()
    for ours, theirs in zip(trained.state_dict().values(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_training_learns_and_leaves_its_input_alone(digits, network):
    before, random_state = copy.deepcopy(network), torch.get_rng_state()
    history = []
    trained = train(network.train(), digits, epochs=8, batch_size=32, history=history, progress=False)
    assert states_equal(network, before)
    assert network.training
    assert not trained.training
    assert torch.get_rng_state().equal(random_state)
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert history[-1]["loss"] < 0.2 < history[0]["loss"]
    assert history[-1]["lr"] < history[1]["lr"] < 0.05
    assert accuracy(trained, digits) > 0.95
    assert all(parameter.is_contiguous() for parameter in trained.parameters())


def test_the_same_seed_trains_the_same_network_dropout_included(digits):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))
    first, again, other = (train(network, digits, epochs=1, seed=seed, progress=False) for seed in (1, 1, 2))
    assert states_equal(first, again)
    assert not states_equal(first, other)


def test_frozen_parameters_and_no_epochs_change_nothing(digits, network):
    network[0].requires_grad_(False)
    trained = train(network, digits, epochs=1, progress=False)
    assert trained[0].weight.equal(network[0].weight)
    assert not trained[5].weight.equal(network[5].weight)
    assert states_equal(train(network, digits, epochs=0), network)
    assert states_equal(train(copy.deepcopy(network).requires_grad_(False), digits, epochs=1), network)


def test_masked_weights_stay_zero_through_training(digits, network):
    mask = torch.rand(network[5].weight.shape) < 0.3
    apply_mask_(network[5], mask)
    trained = train(network, digits, epochs=2, progress=False)
    assert get_mask(trained[5]).equal(mask)
    assert trained[5].weight[~mask].eq(0).all()
    assert not trained[5].weight[mask].equal(network[5].weight[mask])


def test_the_hooks_are_called_with_what_they_are_promised(digits, network):
    steps, batches, losses = [], [], []

    def augment(x, generator):
        batches.append(x.shape)
        return x + torch.randn(x.shape, generator=generator)

    def loss(model, x, y):
        losses.append((model.training, len(x), len(y)))
        return F.cross_entropy(model(x), y) + 0 * x.sum()

    def after_step(model, step):
        steps.append(step)
        with torch.no_grad():
            model[5].bias.zero_()

    trained = train(
        network, digits, epochs=2, batch_size=200, loss=loss, after_step=after_step, augment=augment, progress=False
    )
    assert steps == [0, 1, 2, 3]
    assert batches == [(200, 1, 8, 8), (100, 1, 8, 8)] * 2
    assert losses == [(True, 200, 200), (True, 100, 100)] * 2
    assert trained[5].bias.eq(0).all()
    plain = train(network, digits, epochs=2, batch_size=200, after_step=after_step, progress=False)
    assert not states_equal(trained, plain)


def test_the_learning_rate_rises_along_a_line_and_falls_along_a_cosine(digits, network):
    rates = [cosine_lr(0.2, step, 10, warmup=0.25) for step in range(10)]
    assert rates[:2] == [0.1, 0.2]
    assert rates[2:] == [cosine_lr(0.2, step, 8) for step in range(8)]
    history = []
    train(network, digits, epochs=2, lr=0.2, warmup=0.5, batch_size=100, history=history, progress=False)
    assert [row["lr"] for row in history] == pytest.approx([0.2, cosine_lr(0.2, 2, 3)])


def test_the_learning_rate_falls_along_a_cosine_without_a_warm_up():
    rates = [cosine_lr(0.2, step, 10) for step in range(10)]
    assert rates[0] == 0.2
    assert rates[5] == pytest.approx(0.1)
    assert all(a > b > 0 for a, b in zip(rates, rates[1:], strict=False))


def test_a_sequence_of_tokens_trains_as_well():
    class Tokens(Split):
        def x(self, indices=None):
            return super().x(indices).flatten(1).ge(0.5).long()

    data = load_data("digits", train=100).train
    tokens = Tokens(data.images, data.labels, (0.0,), (1.0,))
    model = nn.Sequential(nn.Embedding(2, 4), nn.Flatten(), nn.Linear(256, 10))
    assert predict_logits(train(model, tokens, epochs=1, progress=False), tokens).shape == (100, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": -1}, "epochs must be 0 or more, got -1"),
        ({"epochs": 1, "lr": 0}, "lr must be positive, got 0"),
        ({"epochs": 1, "lr": float("nan")}, "lr must be positive, got nan"),
        ({"epochs": 1, "warmup": 1}, "warmup must be in \\[0, 1\\), got 1"),
        ({"epochs": 1, "warmup": float("nan")}, "warmup must be in \\[0, 1\\), got nan"),
        ({"epochs": 1, "batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": 3, "lr": 1e20}, "the loss became (nan|inf) in step"),
    ],
)
def test_training_refuses_what_cannot_work(digits, network, arguments, message):
    with pytest.raises(ValueError, match=message):
        train(network, digits, progress=False, **arguments)


def test_an_empty_split_is_refused(digits, network):
    with pytest.raises(ValueError, match="nothing to train on"):
        train(network, digits.take(0), epochs=1)
    with pytest.raises(ValueError, match="nothing to predict"):
        predict_logits(network, digits.take(0))


def test_prediction_restores_the_mode_of_every_module(digits, network):
    network.train()
    network[1].eval()
    logits = predict_logits(network, digits, batch_size=70)
    assert [module.training for module in network] == [True, False, True, True, True, True]
    assert not logits.requires_grad
    reference = copy.deepcopy(network).eval()
    torch.testing.assert_close(logits, reference(digits.x()).detach(), rtol=1e-4, atol=1e-5)
    assert predict_labels(network, digits).equal(logits.argmax(1))
    right = logits.argmax(1) == digits.y
    assert accuracy(network, digits) == pytest.approx(right.sum().item() / len(digits))
    assert not math.isnan(accuracy(network, digits))
