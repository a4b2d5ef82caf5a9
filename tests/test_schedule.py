"""The cubic schedule, and gradual pruning inside a training loop."""

import math

import pytest
import torch
from torch import nn

from compresslab.core.modules import get_mask
from compresslab.pruning.masks import masks_of, sparsity_of
from compresslab.pruning.schedule import GradualPruning, cubic_sparsity


def test_ends_and_outside():
    ask = lambda t: cubic_sparsity(t, begin=10, end=50, initial=0.2, final=0.9)  # noqa: E731
    assert ask(10) == 0.2 and ask(50) == 0.9
    assert ask(0) == 0.2 and ask(1000) == 0.9
    values = [ask(t) for t in range(10, 51)]
    steps = [b - a for a, b in zip(values, values[1:], strict=False)]
    assert all(s > 0 for s in steps) and steps == sorted(steps, reverse=True)  # fast first, slow later


def test_equals_the_papers_formula():
    s_i, s_f, t0, n, dt = 0.1, 0.95, 7, 9, 4
    for t in range(t0, t0 + n * dt + 1, dt):
        paper = s_f + (s_i - s_f) * (1 - (t - t0) / (n * dt)) ** 3
        assert cubic_sparsity(t, begin=t0, end=t0 + n * dt, final=s_f, initial=s_i) == pytest.approx(
            paper, abs=1e-15
        )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"final": 80}, "did you mean 0.8"),
        ({"final": math.nan}, "nan"),
        ({"initial": -0.1}, "initial"),
        ({"initial": 0.95}, "must not exceed"),
        ({"end": 0}, "end must come after begin"),
        ({"every": 0}, "every"),
    ],
)
def test_bad_arguments_fire_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        GradualPruning(**{"final": 0.9, "begin": 0, "end": 10, **change})


def test_prunes_on_its_steps_only_and_ends_at_final():
    model = nn.Sequential(nn.Linear(40, 25))
    prune = GradualPruning(final=0.9, begin=3, end=14, every=4)
    seen = []
    for step in range(20):
        with torch.no_grad():
            model[0].bias += 1  # training goes on
        prune(model, step)
        seen.append(sparsity_of(model))
    changes = [t for t in range(1, 20) if seen[t] != seen[t - 1]]
    assert changes == [7, 11, 14]  # step 3 asks for sparsity 0, and 14 is the end although not on the grid
    assert seen[-1] == 0.9
    assert seen[7] == pytest.approx(prune.sparsity(7), abs=1e-3)


def test_masks_nest_and_hold_under_momentum_and_weight_decay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    x, y = torch.randn(64, 20), torch.randint(0, 4, (64,))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    prune = GradualPruning(final=0.8, begin=5, end=25, every=5, scope="global", skip=["2"])
    before = {}
    for step in range(35):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        prune(model, step)
        masks = {name: mask.clone() for name, mask in masks_of(model).items()}
        assert all((masks[name] <= mask).all() for name, mask in before.items())
        before = masks
    assert int((model[0].weight == 0).sum()) == 480 and get_mask(model[2]) is None
    assert not model[0].weight[~get_mask(model[0])].any()


def test_is_an_after_step_callback_of_train():
    from compresslab.core.train import train
    from compresslab.data import Split

    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 8, 8), generator=g, dtype=torch.uint8)
    split = Split(images, torch.randint(0, 10, (60,), generator=g), (0.5,), (0.25,))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    prune = GradualPruning(final=0.75, begin=0, end=6, every=2)
    trained = train(model, split, epochs=3, batch_size=20, after_step=prune, progress=False)
    assert sparsity_of(model) == 0 and sparsity_of(trained) == pytest.approx(0.75, abs=0.01)
