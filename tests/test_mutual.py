"""Deep mutual learning: the losses, where their gradients go, and the loop for several networks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.core.train import train
from compresslab.data import Split
from compresslab.distillation.distill import adamw
from compresslab.distillation.mutual import mutual_losses, train_mutually


def logits(*shape, seed=0, size=3.0):
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def states_equal(a, b):
    one, two = a.state_dict(), b.state_dict()
    return list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


LABELS = torch.arange(12) * 5 % 4


@pytest.fixture
def split():
    images = torch.randint(0, 256, (48, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, (images.float().mean((1, 2, 3)) > 127).long(), (0.5,), (0.25,))


@pytest.fixture
def peers():
    torch.manual_seed(0)
    convolutional = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    return [nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)), convolutional]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_loss_is_the_labels_and_the_mean_divergence_from_the_others(count):
    zs = [logits(12, 4, seed=seed) for seed in range(count)]
    losses = mutual_losses(zs, LABELS)
    p = [F.softmax(z, 1) for z in zs]
    for i, loss in enumerate(losses):
        others = [(p[j] * (p[j] / p[i]).log()).sum(1).mean() for j in range(count) if j != i]
        torch.testing.assert_close(loss, F.cross_entropy(zs[i], LABELS) + sum(others) / (count - 1))


def test_two_peers_are_symmetric():
    a, b = logits(12, 4), logits(12, 4, seed=1)
    first, second = mutual_losses([a, b], LABELS)
    assert mutual_losses([b, a], LABELS) == [second, first]
    assert not first.isclose(second)


@pytest.mark.parametrize("count", [2, 4])
def test_equal_peers_give_cross_entropy_only(count):
    zs = [logits(12, 4).requires_grad_() for _ in range(count)]
    losses, plain = mutual_losses(zs, LABELS), F.cross_entropy(zs[0], LABELS)
    assert len(losses) == count
    torch.testing.assert_close(torch.stack(losses), plain.expand(count), rtol=0, atol=1e-12)
    gradient = torch.autograd.grad(plain, zs[0])[0]
    for ours in torch.autograd.grad(sum(losses), zs):
        torch.testing.assert_close(ours, gradient, rtol=0, atol=1e-12)


def test_no_gradient_reaches_a_peer_that_teaches():
    zs = [logits(12, 4, seed=seed).requires_grad_() for seed in range(3)]
    losses = mutual_losses(zs, LABELS)
    together = torch.autograd.grad(sum(losses), zs, retain_graph=True)
    for i, loss in enumerate(losses):
        alone = torch.autograd.grad(loss, zs, retain_graph=True, allow_unused=True)
        assert [gradient is None for gradient in alone] == [j != i for j in range(3)]
        assert together[i].equal(alone[i])
        # d/dz_i = p_i - onehot + mean_j (p_i - p_j), over the batch
        p = [F.softmax(z.detach(), 1) for z in zs]
        others = sum(p[j] for j in range(3) if j != i) / 2
        torch.testing.assert_close(alone[i], (2 * p[i] - F.one_hot(LABELS, 4) - others) / 12)


def test_a_step_of_the_cohort_is_a_step_of_each_peer_alone(split, peers):
    # SGD, since Adam blows the rounding error in a gradient of zero (a bias before batch norm) up to a whole step
    options = {"epochs": 1, "batch_size": len(split), "lr": 0.1, "optimizer": torch.optim.SGD}
    trained = train_mutually(peers, split, seed=3, progress=False, **options)
    by_hand = [copy.deepcopy(peer).train() for peer in peers]
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(3))
    zs = [peer(split.x(order)) for peer in by_hand]
    for loss, peer, other in zip(mutual_losses(zs, split.y[order]), by_hand, trained, strict=True):
        updates = torch.optim.SGD(peer.parameters(), 0.1)
        loss.backward()
        updates.step()
        for ours, theirs in zip(other.state_dict().values(), peer.state_dict().values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_twins_that_begin_equal_learn_from_the_labels_alone(split, peers):
    options = {"epochs": 2, "lr": 0.01, "batch_size": 16, "progress": False}
    first, second = train_mutually([peers[0], peers[0]], split, **options)
    alone = train(peers[0], split, optimizer=adamw, **options)
    assert states_equal(first, second) and first[1].weight is not second[1].weight
    for ours, theirs in zip(first.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_peers_change_what_the_others_learn_and_are_left_as_they_were(split, peers):
    before = copy.deepcopy(peers)
    options = {"epochs": 3, "lr": 0.01, "batch_size": 16, "progress": False}
    history = []
    trained = train_mutually(peers, split, seed=1, history=history, **options)
    assert all(states_equal(peer, old) and peer.training for peer, old in zip(peers, before, strict=True))
    assert [type(model) for model in trained] == [type(peer) for peer in peers]
    assert not any(model.training for model in trained)
    assert [row["epoch"] for row in history] == [1, 2, 3] and history[-1]["loss"] < history[0]["loss"]
    again = train_mutually(peers, split, seed=1, **options)
    other = train_mutually(peers, split, seed=2, **options)
    assert all(states_equal(a, b) for a, b in zip(trained, again, strict=True))
    assert not any(states_equal(a, b) for a, b in zip(trained, other, strict=True))
    alone = train(peers[0], split, optimizer=adamw, seed=1, **options)
    assert not all(torch.allclose(a, b) for a, b in zip(trained[0].parameters(), alone.parameters(), strict=True))


def test_no_epochs_and_augmentation(split, peers):
    assert all(states_equal(a, b) for a, b in zip(train_mutually(peers, split, epochs=0), peers, strict=True))
    seen = []
    train_mutually(
        peers, split, epochs=1, batch_size=30, augment=lambda x, generator: seen.append(len(x)) or -x, progress=False
    )
    assert seen == [30, 18]


def test_bad_input_is_refused(split, peers):
    z = logits(12, 4)
    for zs in ([], [z]):
        with pytest.raises(ValueError, match=f"two networks or more, got {len(zs)}"):
            mutual_losses(zs, LABELS)
        with pytest.raises(ValueError, match=f"two networks or more, got {len(zs)}"):
            train_mutually(peers[: len(zs)], split, epochs=1)
    with pytest.raises(ValueError, match=r"\(12, 4\) and \(12, 5\)"):
        mutual_losses([z, z, logits(12, 5)], LABELS)
    with pytest.raises(ValueError, match="one per row"):
        mutual_losses([z, z], LABELS[:5])
    with pytest.raises(TypeError, match="a peer is a network, got str"):
        train_mutually([peers[0], "resnet"], split, epochs=1)
    with pytest.raises(ValueError, match=r"\(48, 2\) and \(48, 3\)"):
        train_mutually([peers[0], nn.Sequential(nn.Flatten(), nn.Linear(16, 3))], split, epochs=1, progress=False)
    with pytest.raises(ValueError, match="epochs"):
        train_mutually(peers, split, epochs=-1)
