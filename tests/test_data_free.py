"""Images out of batch-norm statistics: the distance is exact, the teacher is only read, the images are its kind."""

import copy
import math

import pytest
import torch
from torch import nn

from compresslab.core.train import train
from compresslab.data import Split
from compresslab.distillation.data_free import (
    as_split, batch_norms, invert, statistics_distance, total_variation, watch_batch_norms,
)  # fmt: skip


def teacher_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Flatten(), nn.Linear(72, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def split():
    """Three classes: bright above, bright below, dark."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 3
    images = torch.randint(0, 60, (96, 1, 8, 8), generator=generator)
    images[labels == 0, :, :4] += 150
    images[labels == 1, :, 4:] += 150
    return Split(images.to(torch.uint8), labels, (0.4,), (0.3,))


@pytest.fixture(scope="module")
def teacher(split):
    return train(teacher_network(), split, epochs=6, batch_size=32, progress=False)


@pytest.mark.parametrize("shape, kind", [((10, 4), nn.BatchNorm1d), ((5, 4, 3, 3), nn.BatchNorm2d)])
def test_the_batch_that_set_the_statistics_is_at_distance_zero(shape, kind):
    layer = kind(4, momentum=1.0).double()
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0)).double() + 1
    layer(x)  # momentum 1: the running statistics are this batch's
    assert statistics_distance(x, layer).item() < 1e-12
    shifted = statistics_distance(x + 2, layer).item()
    assert shifted == pytest.approx(2 * math.sqrt(4))  # four means are off by 2, no variance is
    stretched = statistics_distance((x - layer.running_mean.view(-1, *[1] * (x.ndim - 2))) * 2, layer)
    torch.testing.assert_close(stretched, layer.running_mean.norm() + 3 * layer.running_var.norm())


def test_total_variation_by_loops():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    down = [(x[n, c, i + 1, j] - x[n, c, i, j]) ** 2 for n in range(2) for c in range(3) for i in range(3) for j in range(5)]
    right = [(x[n, c, i, j + 1] - x[n, c, i, j]) ** 2 for n in range(2) for c in range(3) for i in range(4) for j in range(4)]
    torch.testing.assert_close(total_variation(x), sum(down) / len(down) + sum(right) / len(right))
    assert total_variation(torch.full((2, 1, 3, 3), 7.0)) == 0 == total_variation(torch.ones(2, 1, 1, 1))


def test_the_inputs_of_batch_norm_are_seen_and_the_hooks_go():
    model = teacher_network()
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    with watch_batch_norms(model) as inputs:
        model(x)
    assert list(inputs) == list(batch_norms(model)) == ["1", "4"]
    assert inputs["1"].equal(model[0](x)) and inputs["1"].requires_grad
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(RuntimeError), watch_batch_norms(model):
        model(torch.zeros(2, 5, 8, 8))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_inverted_images_have_the_labels_and_the_statistics(split, teacher):
    labels, history = torch.arange(24) % 3, []
    images = invert(teacher, labels, split.shape, steps=80, history=history, progress=False)
    assert images.shape == (24, 1, 8, 8) and images.dtype == torch.float32 and not images.requires_grad
    with torch.no_grad():
        assert (teacher(images).argmax(1) == labels).all()
    assert len(history) == 80 and list(history[0]) == ["step", "labels", "statistics"]
    assert history[-1]["statistics"] < 0.3 * history[0]["statistics"]
    # what was asked for nowhere: class 0 is brighter above, as in the data, class 1 below
    above, below = images[:, 0, :4].mean((1, 2)), images[:, 0, 4:].mean((1, 2))
    assert (above > below)[labels == 0].all() and (above < below)[labels == 1].all()


def test_each_weight_pulls_at_its_own_term(split, teacher):
    labels = torch.arange(24) % 3

    def ends(**weights):
        history = []
        images = invert(teacher, labels, split.shape, steps=15, history=history, progress=False, **weights)
        return history[-1]["statistics"], total_variation(images).item(), images.square().mean().item()

    nothing = {"statistics": 0.0, "smoothness": 0.0, "decay": 0.0}
    free = ends(**nothing)
    for which, name in enumerate(nothing):
        assert ends(**nothing | {name: 5.0})[which] < 0.8 * free[which]


def test_the_teacher_is_left_as_it_was_and_the_seed_decides(split, teacher):
    given = copy.deepcopy(teacher).train()
    given[4].eval()
    before = copy.deepcopy(given)
    labels, state = torch.tensor([0, 1, 2]), torch.get_rng_state()
    one, same, other = (
        invert(given, labels, split.shape, steps=3, seed=seed, progress=False) for seed in (1, 1, 2)
    )
    assert one.equal(same) and not one.equal(other) and torch.get_rng_state().equal(state)
    for (name, ours), theirs in zip(given.state_dict().items(), before.state_dict().values(), strict=True):
        assert ours.equal(theirs), name
    assert [m.training for m in given.modules()] == [m.training for m in before.modules()]
    assert all(p.grad is None and p.requires_grad for p in given.parameters())
    assert not any(module._forward_pre_hooks for module in given.modules())


def test_images_become_a_split_and_come_back(split):
    again = as_split(split.x(), split.y, split)
    assert again.images.equal(split.images) and again.y.equal(split.y) and (again.mean, again.std) == (split.mean, split.std)
    extreme = as_split(torch.tensor([-100.0, 100.0]).view(2, 1, 1, 1), torch.tensor([0, 1]), split)
    assert extreme.images.flatten().tolist() == [0, 255]


def test_bad_input_is_refused(teacher):
    labels, shape = torch.tensor([0, 1, 2]), (1, 8, 8)
    for model in (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), nn.BatchNorm2d(1, track_running_stats=False)):
        with pytest.raises(ValueError, match="no batch norm with running statistics"):
            invert(model, labels, shape)
    with pytest.raises(ValueError, match=r"2 numbers per channel or more, got shape \(1, 4\)"):
        statistics_distance(torch.zeros(1, 4), nn.BatchNorm1d(4))
    with pytest.raises(TypeError, match="int64"):
        invert(teacher, labels.float(), shape)
    with pytest.raises(ValueError, match="from 0 to 2, got 3"):
        invert(teacher, labels + 1, shape)
    for wrong in (labels[None], labels[:0], torch.tensor(1)):
        with pytest.raises(ValueError, match="one per image, N at least 1"):
            invert(teacher, wrong, shape)
    with pytest.raises(ValueError, match=r"shape must be \(C, H, W\), of one image, got \(8, 8\)"):
        invert(teacher, labels, (8, 8))
    with pytest.raises(ValueError, match="every size in shape must be a whole number of at least 1, got 0"):
        invert(teacher, labels, (1, 0, 8))
    with pytest.raises(ValueError, match="steps must be a whole number of at least 0, got -1"):
        invert(teacher, labels, shape, steps=-1)
    for lr in (0, -1, math.nan):
        with pytest.raises(ValueError, match="lr must be positive"):
            invert(teacher, labels, shape, lr=lr)
    for name in ("statistics", "smoothness", "decay"):
        with pytest.raises(ValueError, match=f"{name} must be finite and not negative, got -1"):
            invert(teacher, labels, shape, **{name: -1})
