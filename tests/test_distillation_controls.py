"""Controls: each keeps exactly what it promises to keep, and destroys the rest."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.data import Split
from compresslab.distillation.controls import (
    agreement, confidence_teacher, flatten_non_targets, sharpness, shuffle_non_targets, shuffled_teacher,
    smoothed_label_loss, uniform_teacher, wrong_teacher,
)  # fmt: skip
from compresslab.distillation.decoupled import nckd, tckd
from compresslab.distillation.distill import TeacherOutputs, distill
from compresslab.distillation.soft_targets import Labels, SoftTargets, soft_target_loss


def logits(*shape, seed=0, size=3.0):
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.arange(40) * 7 % 10
TEACHER = TeacherOutputs(logits(40, 10), {"features": logits(40, 6, seed=9)})


def target_probability(z, temperature=1.0):
    return F.softmax(z / temperature, 1).gather(1, LABELS[:, None])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_label_smoothing_is_distillation_from_a_uniform_teacher(smoothing):
    student = logits(40, 10, seed=1).requires_grad_()
    torchs = F.cross_entropy(student, LABELS, label_smoothing=smoothing)
    ours = smoothed_label_loss(student, LABELS, smoothing)
    torch.testing.assert_close(torchs, ours + smoothing * math.log(10))
    soft = soft_target_loss(student, uniform_teacher(TEACHER).logits, temperature=1.0)
    torch.testing.assert_close(ours, (1 - smoothing) * F.cross_entropy(student, LABELS) + smoothing * soft)
    gradients = [torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (torchs, ours)]
    torch.testing.assert_close(*gradients)


def test_smoothed_labels_and_a_uniform_teacher_train_the_same_student():
    images = torch.randint(0, 256, (64, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(images, torch.arange(64) % 3, (0.0,), (1.0,))
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    teacher = uniform_teacher(TeacherOutputs(torch.randn(64, 3)))
    options = {"epochs": 3, "batch_size": 16, "progress": False}
    smoothed = distill(student, teacher, split, [(1.0, Labels(smoothing=0.2))], **options)
    taught = distill(student, teacher, split, [(0.8, Labels()), (0.2, SoftTargets(1.0))], **options)
    torch.testing.assert_close(smoothed[1].weight, taught[1].weight, rtol=1e-4, atol=1e-5)
    assert not smoothed[1].weight.allclose(student[1].weight, atol=1e-3)


def test_the_uniform_teacher_knows_nothing():
    z = uniform_teacher(TEACHER).logits
    assert z.shape == (40, 10) and z.dtype == torch.float64 and sharpness(z) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_flat_non_targets_keep_the_confidence_and_nothing_else(temperature):
    flat = flatten_non_targets(TEACHER.logits, LABELS, temperature)
    torch.testing.assert_close(target_probability(flat, temperature), target_probability(TEACHER.logits, temperature))
    rest = F.softmax(flat / temperature, 1).scatter(1, LABELS[:, None], 0)
    torch.testing.assert_close(rest, (rest.sum(1, keepdim=True) / 9).expand(-1, 10) * (rest > 0))
    student = logits(40, 10, seed=1)  # the target half is the teacher's, the other half a uniform teacher's
    torch.testing.assert_close(
        tckd(student, flat, LABELS, temperature), tckd(student, TEACHER.logits, LABELS, temperature)
    )
    torch.testing.assert_close(
        nckd(student, flat, LABELS, temperature), nckd(student, torch.zeros_like(flat), LABELS, temperature)
    )
    assert confidence_teacher(TEACHER, LABELS, temperature).logits.equal(flat)


def test_shuffling_keeps_every_number_and_the_target():
    shuffled = shuffle_non_targets(TEACHER.logits, LABELS, torch.Generator().manual_seed(3))
    target = LABELS[:, None]
    assert shuffled.gather(1, target).equal(TEACHER.logits.gather(1, target))
    assert shuffled.sort(1).values.equal(TEACHER.logits.sort(1).values)
    assert not shuffled.equal(TEACHER.logits)
    for temperature in (1.0, 4.0):
        assert sharpness(shuffled, temperature) == pytest.approx(sharpness(TEACHER.logits, temperature))
        torch.testing.assert_close(
            target_probability(shuffled, temperature), target_probability(TEACHER.logits, temperature)
        )


def test_every_order_of_the_wrong_classes_is_as_likely():
    z = torch.tensor([[9.0, 0.0, 1.0, 2.0]]).expand(6000, 4)
    shuffled = shuffle_non_targets(z, torch.zeros(6000, dtype=torch.int64), torch.Generator().manual_seed(0))
    counts = torch.bincount((shuffled[:, 1] * 9 + shuffled[:, 2] * 3 + shuffled[:, 3]).long())
    counts = counts[counts > 0]
    assert len(counts) == 6 and counts.min() > 850 and counts.max() < 1150  # 1000 expected, deviation 29


def test_shuffling_is_by_seed_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (shuffled_teacher(TEACHER, LABELS, seed=seed).logits for seed in (1, 1, 2))
    assert one.equal(same) and not one.equal(other)
    wrong_teacher(TEACHER)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_the_wrong_teacher_renames_every_class_to_another_always_the_same(classes, seed):
    right = torch.eye(classes).double() * 5 + logits(classes, classes, size=0.1)
    wrong = wrong_teacher(TeacherOutputs(torch.cat([right, right + 1])), seed=seed).logits
    names = wrong.argmax(1)
    assert names[:classes].equal(names[classes:])  # one permutation for all images
    assert sorted(names[:classes].tolist()) == list(range(classes))
    assert (names[:classes] != torch.arange(classes)).all()
    assert agreement(torch.cat([right, right]), wrong) == 0.0
    assert sharpness(wrong) == pytest.approx(sharpness(torch.cat([right, right])))


def test_the_teacher_given_and_its_features_stay_as_they_are():
    before = TEACHER.logits.clone()
    for control in (
        uniform_teacher(TEACHER), confidence_teacher(TEACHER, LABELS, 2.0), shuffled_teacher(TEACHER, LABELS),
        wrong_teacher(TEACHER),
    ):  # fmt: skip
        assert isinstance(control, TeacherOutputs) and len(control) == 40
        assert control.features["features"] is TEACHER.features["features"]
        assert not control.logits.equal(before)
    assert TEACHER.logits.equal(before)


def test_sharpness_is_one_minus_the_relative_entropy_and_falls_with_the_temperature():
    z = logits(20, 7)
    entropy = torch.distributions.Categorical(logits=z).entropy().mean().item()
    assert sharpness(z) == pytest.approx(1 - entropy / math.log(7))
    values = [sharpness(z, temperature) for temperature in (0.01, 0.5, 1.0, 4.0, 1000.0)]
    assert values == sorted(values, reverse=True) and values[0] > 0.95 and values[-1] < 1e-4


def test_agreement_counts_equal_first_choices():
    first, second = logits(50, 4), logits(50, 4, seed=1)
    by_hand = sum(int(a.argmax() == b.argmax()) for a, b in zip(first, second, strict=True)) / 50
    assert agreement(first, second) == by_hand and agreement(first, 3 * first + 1) == 1.0


def test_bad_input_is_refused():
    z, generator = TEACHER.logits, torch.Generator()
    for call in (
        lambda labels: shuffle_non_targets(z, labels, generator), lambda labels: flatten_non_targets(z, labels, 1.0),
        lambda labels: shuffled_teacher(TEACHER, labels), lambda labels: confidence_teacher(TEACHER, labels, 1.0),
        lambda labels: smoothed_label_loss(z, labels, 0.1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="one per row"):
            call(LABELS[:5])
        with pytest.raises(ValueError, match="from 0 to 9, got 10"):
            call(LABELS + 1)
        with pytest.raises(TypeError, match="int64"):
            call(LABELS.float())
    for temperature in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            flatten_non_targets(z, LABELS, temperature)
        with pytest.raises(ValueError, match="temperature"):
            sharpness(z, temperature)
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\], got 10; did you mean 0.1"):
        smoothed_label_loss(z, LABELS, 10)
    with pytest.raises(ValueError, match="2 or more, got 1"):
        wrong_teacher(TeacherOutputs(z[:, :1]))
    with pytest.raises(ValueError, match="2 classes or more, got 1"):
        sharpness(z[:, :1])
    with pytest.raises(ValueError, match=r"\(40, 10\) and \(39, 10\)"):
        agreement(z, z[1:])
    with pytest.raises(ValueError, match=r"\(N, classes\)"):
        shuffle_non_targets(z[0], LABELS, generator)
