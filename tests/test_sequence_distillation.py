"""Distillation of language models: two divergences, four kinds of lessons."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.distillation.soft_targets import reverse_kl_loss, soft_target_loss
from compresslab.sequence.gpt import GPT
from compresslab.sequence.language import train_language
from compresslab.sequence.sequence_distillation import KINDS, bell, distill_language, fit_bell, teacher_text, write_on
from compresslab.sequence.text import TextSplit

SPLIT = TextSplit(torch.randint(5, (12 * 16 + 1,), generator=torch.Generator().manual_seed(3)), context=12)


def forward(student, teacher):
    return soft_target_loss(student, teacher, 1.0)


def reverse(student, teacher):
    return reverse_kl_loss(student, teacher, 1.0)


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    model = GPT(vocabulary=5, width=8, layers=1, context=12).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    return model


@pytest.fixture
def student():
    torch.manual_seed(1)
    return GPT(vocabulary=5, width=4, layers=1, context=12).eval()


@pytest.fixture
def two_peaks():
    v = torch.arange(31.0)
    p = 0.6 * (-((v - 8) ** 2) / 8).exp() + 0.4 * (-((v - 22) ** 2) / 8).exp() + 1e-6
    return p / p.sum()


def grid_best(p, divergence):
    """The best bell of a fine grid: brute force. (divergence, mean, width)"""
    means, widths = torch.arange(6, 25, 0.5).tolist(), torch.arange(1.0, 9.5, 0.25).tolist()
    values = ((divergence(bell(torch.tensor(m), torch.tensor(math.log(w)), len(p))[None], p.log()[None]).item(), m, w)
              for m, w in itertools.product(means, widths))  # fmt: skip
    return min(values)


def moments(q):
    v = torch.arange(float(len(q)))
    mean = (q * v).sum().item()
    return mean, (q * (v - mean) ** 2).sum().sqrt().item()


def test_forward_covers_both_peaks_and_reverse_picks_one(two_peaks):
    covers = fit_bell(two_peaks, forward, start=12)
    best, mean, width = grid_best(two_peaks, forward)
    assert forward(covers.log()[None], two_peaks.log()[None]).item() == pytest.approx(best, abs=0.01)
    assert moments(covers)[0] == pytest.approx(moments(two_peaks)[0], abs=0.3)
    assert moments(covers)[1] > 5
    picks = fit_bell(two_peaks, reverse, start=10)
    best, mean, width = grid_best(two_peaks, reverse)
    assert reverse(picks.log()[None], two_peaks.log()[None]).item() == pytest.approx(best, abs=0.01)
    assert moments(picks) == pytest.approx((8, 2), abs=0.3) and (mean, width) == pytest.approx((8, 2), abs=0.3)
    other = fit_bell(two_peaks, reverse, start=24)
    assert moments(other) == pytest.approx((22, 2), abs=0.3)
    between = slice(13, 18)
    assert covers[between].sum() > 0.15 > 0.02 > picks[between].sum() and two_peaks[between].sum() < 0.02


def test_a_student_that_can_be_equal_is_equal_by_both():
    p = bell(torch.tensor(11.0), torch.tensor(0.8), 25).exp() + 1e-12
    for divergence in (forward, reverse):
        assert torch.allclose(fit_bell(p, divergence, start=9), p, atol=2e-3)


@pytest.mark.parametrize("kind, loss", [("forward", soft_target_loss), ("reverse", reverse_kl_loss)])
def test_a_given_text_is_marked_at_every_place(student, teacher, kind, loss):
    def by_hand(model, x, y):
        with torch.no_grad():
            taught = teacher(x)
        return loss(model(x).reshape(-1, 5), taught.reshape(-1, 5), 2.0)

    options = {"epochs": 2, "lr": 0.01, "batch_size": 4, "seed": 3, "progress": False}
    got = distill_language(student, teacher, SPLIT, kind, temperature=2.0, **options)
    wanted = train_language(student, SPLIT, loss=by_hand, **options)
    assert all(torch.equal(a, b) for a, b in zip(got.state_dict().values(), wanted.state_dict().values()))


def distance(student, teacher):
    x = torch.cat(list(SPLIT.batches(labels=False)))
    with torch.no_grad():
        return F.kl_div(student(x).log_softmax(2).flatten(0, 1), teacher(x).softmax(2).flatten(0, 1), reduction="batchmean").item()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_brings_the_student_nearer(student, teacher, kind):
    before, state = distance(student, teacher), torch.random.get_rng_state()
    old = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    options = {"epochs": 5, "lr": 0.06, "batch_size": 8, "prompt": 4, "progress": False}
    trained = distill_language(student, teacher, SPLIT, kind, **options)
    assert distance(trained, teacher) < 0.8 * before and not trained.training and not student.training
    assert all(torch.equal(tensor, old[name]) for name, tensor in student.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["sequence", "on_policy"])
def test_the_seed_decides_what_is_written(student, teacher, kind):
    options = {"epochs": 1, "prompt": 9, "batch_size": 8, "progress": False}
    one, again, other = (distill_language(student, teacher, SPLIT, kind, seed=seed, **options).head.weight for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_the_teacher_writes_on_from_the_prompt(teacher):
    text = teacher_text(teacher, SPLIT, 3, generator=torch.Generator().manual_seed(0))
    (x,), (old,) = text.batches(100, labels=False), SPLIT.batches(100, labels=False)
    assert len(text) == len(SPLIT) and text.context == 12
    assert torch.equal(x[:, :3], old[:, :3]) and not torch.equal(x, old)


def test_what_is_written_follows_the_model(teacher):
    prompts = torch.tensor([[1, 2]]).expand(4000, 2)
    written = write_on(teacher, prompts, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = teacher(prompts[:1])[0, -1].softmax(0)
        second = teacher(torch.cat([prompts[:5], torch.arange(5)[:, None]], 1))[:, -1].softmax(1)
    joint = (first[:, None] * second).flatten()
    counts = torch.bincount(5 * written[:, 0] + written[:, 1], minlength=25)
    statistic = ((counts - 4000 * joint) ** 2 / (4000 * joint)).sum().item()
    assert statistic < 52  # chi-squared with 24 degrees of freedom: p = 0.0008
    assert not teacher.training


def test_refusals(student, teacher):
    with pytest.raises(ValueError, match="kind must be one of forward, reverse, sequence, on_policy, got 'both'"):
        distill_language(student, teacher, SPLIT, "both", epochs=1)
    for kind in ("sequence", "on_policy"):
        with pytest.raises(ValueError, match="prompt must be a whole number from 1 to 11, got 12"):
            distill_language(student, teacher, SPLIT, kind, epochs=1, prompt=12)
    with pytest.raises(ValueError, match="temperature must be positive"):
        distill_language(student, teacher, SPLIT, epochs=1, temperature=0, progress=False)
    with pytest.raises(ValueError, match="sum to 1"):
        fit_bell(torch.ones(4), forward, start=1)
    with pytest.raises(ValueError, match="above 0"):
        fit_bell(torch.tensor([1.0, 0.0]), forward, start=1)
    with pytest.raises(ValueError, match="width must be positive"):
        fit_bell(torch.tensor([0.5, 0.5]), forward, start=1, width=0)
