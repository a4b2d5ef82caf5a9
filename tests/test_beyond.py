"""Beyond accuracy: flips, divergence, damage per class, calibration, corrupted inputs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import entropy
from sklearn.calibration import calibration_curve
from torch import nn

from compresslab.compare.beyond import (
    calibration_error,
    changed_answers,
    class_damage,
    flips,
    kl_to_original,
    reliability,
    worst_class,
)
from compresslab.compare.corruptions import (
    CORRUPTIONS,
    accuracy_by_corruption,
    corrupt,
    corrupted_accuracy,
    corrupted_split,
)
from compresslab.core.statistics import paired_difference
from compresslab.core.train import accuracy
from compresslab.data import Split

ANSWERS = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30).map(torch.tensor)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 12, channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=generator())


def a_split(n: int = 40) -> Split:
    pixels = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator())
    return Split(pixels, torch.randint(3, (n,), generator=generator(1)), (0.5,), (0.5,))


# ---- answers -----------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(ANSWERS)
def test_accuracy_moves_by_mended_minus_broken(table):
    labels, before, after = table.T
    changes = changed_answers(labels, before, after)
    moved = (after == labels).double().mean() - (before == labels).double().mean()
    assert changes.mended - changes.broken == pytest.approx(moved.item(), abs=1e-12)


@settings(max_examples=40)
@given(ANSWERS)
def test_flips_count_every_kind_of_change(table):
    labels, before, after = (column.tolist() for column in table.T)
    counts = {"broken": 0, "mended": 0, "wrong either way": 0}
    for label, b, a in zip(labels, before, after, strict=True):
        if a != b:
            counts["broken" if b == label else "mended" if a == label else "wrong either way"] += 1
    changes = changed_answers(*table.T)
    assert changes.changed == flips(*table.T[1:]) == pytest.approx(sum(counts.values()) / len(labels))
    assert changes.broken == pytest.approx(counts["broken"] / len(labels))
    assert changes.mended == pytest.approx(counts["mended"] / len(labels))


def test_equal_accuracy_hides_flips():
    truth = torch.tensor([0, 0, 1, 1])
    before, after = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0, 0, 1])
    assert (before == truth).sum() == (after == truth).sum()
    assert flips(before, after) == 1.0


@pytest.mark.parametrize("wrong", [torch.zeros(3), torch.zeros(0), torch.zeros(2, 2)])
def test_answers_of_other_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match="one class number per image"):
        flips(torch.zeros(2) if wrong.numel() == 3 else wrong, wrong)
    with pytest.raises(ValueError, match="one class number per image"):
        changed_answers(torch.zeros(5), torch.zeros(5), wrong)


# ---- divergence --------------------------------------------------------------------------------------------


def test_divergence_is_scipys():
    p, q = torch.randn(50, 7, generator=generator()), torch.randn(50, 7, generator=generator(1))
    expected = entropy(p.double().softmax(1), q.double().softmax(1), axis=1).mean()
    assert kl_to_original(p, q) == pytest.approx(expected, rel=1e-9)


def test_divergence_is_zero_for_shifted_logits_and_never_negative():
    p = torch.randn(20, 5, generator=generator())
    assert kl_to_original(p, p + 1000) == pytest.approx(0, abs=1e-5)
    assert kl_to_original(p, p) == 0
    assert kl_to_original(p, p + 1e-9) >= 0


def test_divergence_has_a_direction():
    certain, unsure = torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert kl_to_original(certain, unsure) == pytest.approx(math.log(2))
    assert kl_to_original(unsure, certain) == pytest.approx(25 - math.log(2))


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), "same shape"),
        (torch.zeros(3), torch.zeros(3), "same shape"),
        (torch.zeros(0, 3), torch.zeros(0, 3), "same shape"),
        (torch.zeros(2, 3), torch.full((2, 3), math.nan), "finite"),
    ],
)
def test_divergence_refuses_other_logits(p, q, message):
    with pytest.raises(ValueError, match=message):
        kl_to_original(p, q)


# ---- damage per class --------------------------------------------------------------------------------------


def test_class_damage_sums_to_the_change_of_accuracy_and_has_paired_intervals():
    labels, before, after = torch.randint(4, (3, 500), generator=generator())
    damage = class_damage(labels, before, after)
    assert list(damage) == [0, 1, 2, 3]
    total = sum(change.difference * change.n for change in damage.values()) / 500
    whole = paired_difference(after == labels, before == labels).difference
    assert total == pytest.approx(whole)
    of_two = labels == 2
    assert damage[2] == paired_difference((after == labels)[of_two], (before == labels)[of_two])


def test_worst_class_is_the_one_that_lost_most_and_the_smaller_of_two():
    labels = torch.tensor([0, 0, 3, 3, 5, 5])
    damage = class_damage(labels, labels, torch.tensor([0, 0, 3, 0, 5, 0]))
    label, change = worst_class(damage)
    assert (label, change.difference) == (3, -0.5)
    assert 1 not in damage  # no image of that class


# ---- calibration -------------------------------------------------------------------------------------------


def by_hand(probabilities, labels, bins):
    """The definition, image by image."""
    groups = [[] for _ in range(bins)]
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        place = next(k for k in range(bins) if confidence <= (k + 1) / bins)
        groups[place].append((confidence, row.index(confidence) == label))
    n = len(labels)
    return sum(abs(sum(r for _, r in g) - sum(c for c, _ in g)) / n for g in groups if g)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_is_the_definition(bins):
    probabilities = torch.randn(300, 4, generator=generator()).double().softmax(1)
    labels = torch.randint(4, (300,), generator=generator(1))
    expected = by_hand(probabilities, labels, bins)
    assert calibration_error(probabilities, labels, bins) == pytest.approx(expected)


def test_reliability_is_scikit_learns_curve_for_two_classes():
    scores = 0.5 + 0.5 * torch.rand(400, generator=generator(), dtype=torch.float64)
    probabilities = torch.stack([scores, 1 - scores], 1)
    labels = torch.randint(2, (400,), generator=generator(1))
    bars = reliability(probabilities, labels, 10)
    right, sure = calibration_curve(labels == 0, scores, n_bins=10)
    assert [bar.accuracy for bar in bars] == pytest.approx(right.tolist())
    assert [bar.confidence for bar in bars] == pytest.approx(sure.tolist())


@pytest.mark.parametrize("equal_mass", [False, True])
def test_confidence_on_a_bound_belongs_to_the_bin_below(equal_mass):
    on_bounds = torch.tensor([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]])
    bars = reliability(on_bounds, torch.tensor([0, 0, 0]), 3 if equal_mass else 4, equal_mass=equal_mass)
    assert [(bar.high, bar.n) for bar in bars] == [(0.5, 1), (0.75, 1), (1.0, 1)]


def test_equal_mass_bins_hold_equally_many_and_keep_ties_together():
    probabilities = torch.randn(103, 5, generator=generator()).double().softmax(1)
    labels = torch.zeros(103, dtype=torch.int64)
    sizes = [bar.n for bar in reliability(probabilities, labels, 10, equal_mass=True)]
    assert len(sizes) == 10 and sum(sizes) == 103 and max(sizes) - min(sizes) <= 1
    tied = torch.tensor([[0.8, 0.2]] * 7 + [[0.6, 0.4]] * 3)
    assert [bar.n for bar in reliability(tied, labels[:10], 4, equal_mass=True)] == [3, 7]


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 12), st.booleans())
def test_bins_hold_every_image_once_in_any_order(n, bins, equal_mass):
    probabilities = torch.randn(n, 3, generator=generator(n)).softmax(1)
    labels = torch.randint(3, (n,), generator=generator(bins))
    order = torch.randperm(n, generator=generator(2))
    bars = reliability(probabilities, labels, bins, equal_mass=equal_mass)
    assert sum(bar.n for bar in bars) == n and len(bars) <= bins
    assert all(bar.low < bar.confidence + 1e-9 and bar.confidence <= bar.high + 1e-9 for bar in bars)
    error = calibration_error(probabilities, labels, bins, equal_mass=equal_mass)
    mixed = calibration_error(probabilities[order], labels[order], bins, equal_mass=equal_mass)
    assert 0 <= error <= 1 and error == pytest.approx(mixed)


def test_a_perfectly_calibrated_network_has_no_error():
    probabilities = torch.tensor([[0.75, 0.25]] * 4)
    assert calibration_error(probabilities, torch.tensor([0, 0, 0, 1])) == 0


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "error", "message"),
    [
        (torch.full((2, 2), 0.5), torch.zeros(2), 0, ValueError, "bins"),
        (torch.full((2, 2), 0.5), torch.zeros(2), 1.5, TypeError, "bins"),
        (torch.full((2, 2), 0.5), torch.zeros(3), 5, ValueError, "labels"),
        (torch.zeros(0, 2), torch.zeros(0), 5, ValueError, "n >= 1"),
        (torch.tensor([[2.0, 3.0]]), torch.zeros(1), 5, ValueError, "softmax"),
        (torch.tensor([[1.5, -0.5]]), torch.zeros(1), 5, ValueError, "softmax"),
    ],
)
def test_calibration_refuses_what_is_no_probability(probabilities, labels, bins, error, message):
    with pytest.raises(error, match=message):
        calibration_error(probabilities, labels, bins)


# ---- corrupted images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruption_gets_worse_with_severity_and_leaves_the_input(kind):
    pixel = torch.arange(32.0) / 10
    x = (0.5 + 0.4 * pixel.sin()[:, None] * pixel.cos()).expand(4, 1, 32, 32)  # smooth: far is more different
    before = x.clone()
    changes = [(corrupt(x, kind, s, generator()) - x).square().mean().item() for s in range(6)]
    assert changes[0] == 0 and changes[1] > 0 and changes[5] > changes[1]
    assert torch.equal(x, before)
    worst = corrupt(x, kind, 5, generator())
    assert worst.shape == x.shape and worst.min() >= 0 and worst.max() <= 1


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruption_is_repeated_by_the_same_seed_and_leaves_the_global_generator(kind):
    state = torch.random.get_rng_state()
    assert torch.equal(corrupt(images(), kind, 3, generator()), corrupt(images(), kind, 3, generator()))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_blur_is_scipys_gaussian_with_repeated_edges():
    x = images(2, 3, 12)
    expected = gaussian_filter(x.double().numpy(), (0, 0, 1.5, 1.5), mode="nearest", radius=3)
    assert np.allclose(corrupt(x, "blur", 5, generator()), expected, atol=1e-6)


def test_blur_keeps_a_plain_image_plain():
    assert torch.allclose(corrupt(torch.full((1, 2, 5, 9), 0.3), "blur", 4, generator()), torch.tensor(0.3))


def test_contrast_keeps_the_mean_and_scales_the_rest():
    x = images() * 0.5 + 0.25  # far from the ends: nothing is cut
    pale = corrupt(x, "contrast", 4, generator())
    mean = x.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(pale - mean, (x - mean) * 0.4, atol=1e-6)


def test_shift_moves_every_image_by_whole_pixels_in_one_of_four_directions():
    x = images(60, 1, 32)
    moved = corrupt(x, "shift", 2, generator())  # two pixels of 32
    inner = moved[..., 2:-2, 2:-2]
    shifts = {(0, 2), (0, -2), (2, 0), (-2, 0)}
    used = set()
    for image, original in zip(inner, x, strict=True):
        fits = {s for s in shifts if torch.equal(torch.roll(original, s, (1, 2))[..., 2:-2, 2:-2], image)}
        assert len(fits) == 1
        used |= fits
    assert used == shifts


@pytest.mark.parametrize(
    ("x", "kind", "severity", "error"),
    [
        (images(), "fog", 3, ValueError),
        (images(), "noise", 6, ValueError),
        (images(), "noise", 2.5, TypeError),
        (images()[0], "noise", 2, ValueError),
        (images().byte(), "noise", 2, ValueError),
    ],
)
def test_corrupt_refuses_bad_arguments(x, kind, severity, error):
    with pytest.raises(error):
        corrupt(x, kind, severity, generator())


def test_corrupted_accuracy_is_the_accuracy_on_corrupted_splits():
    split, model = a_split(), nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    by_kind = accuracy_by_corruption(model, split, severity=5, seed=3)
    for kind in CORRUPTIONS:
        assert by_kind[kind] == accuracy(model, corrupted_split(split, kind, 5, seed=3))
    assert corrupted_accuracy(model, split, severity=5, seed=3) == pytest.approx(sum(by_kind.values()) / 5)
    clean = corrupted_accuracy(model, split, severity=0)
    assert clean == pytest.approx(accuracy(model, split))
    with pytest.raises(ValueError, match="at least one"):
        corrupted_accuracy(model, split, kinds=())


def test_corrupted_split_keeps_everything_but_the_pixels():
    split = a_split(1001)  # more than one chunk
    worse = corrupted_split(split, "noise", 5)
    assert worse.images.dtype == torch.uint8 and worse.images.shape == split.images.shape
    assert torch.equal(worse.labels, split.labels) and worse.mean == split.mean
    assert torch.equal(corrupted_split(split, "brightness", 0).images, split.images)
    assert len(corrupted_split(split.take(0), "noise", 1)) == 0
