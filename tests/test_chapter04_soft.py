"""Chapter 04, first half: what its widget computes, what its figures draw, and its answers against the library and torch."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
from scipy.stats import ttest_rel
from torch.nn import functional as F

from compresslab.course.chapter04 import figures, references_soft
from compresslab.course.chapter04.references_soft import soft_gradient, soften
from compresslab.course.chapter04.widgets import TemperatureLook, draw_softened
from compresslab.distillation.soft_targets import soft_target_loss


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def logits():
    generator = torch.Generator().manual_seed(0)
    return tuple(3 * torch.randn(4, 10, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.fixture(scope="module")
def look(logits):
    return TemperatureLook(*logits, soften, soft_gradient)


# -- the widget --------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [0, 3])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_look_shows_the_softmax_and_what_autograd_finds(logits, look, image, temperature):
    student, teacher = (z[image : image + 1] for z in logits)
    data = look(image, temperature, True)
    assert data.teacher == pytest.approx((teacher / temperature).softmax(1)[0].tolist())
    assert data.student == pytest.approx((student / temperature).softmax(1)[0].tolist())
    z = student.clone().requires_grad_()
    wanted = torch.autograd.grad(soft_target_loss(z, teacher, temperature), z)[0][0]
    assert data.gradient == pytest.approx(wanted.tolist(), abs=1e-9)
    alone = look(image, temperature, False).gradient
    assert [slope * temperature**2 for slope in alone] == pytest.approx(data.gradient)


def test_the_gradient_tends_to_the_limit_and_entropy_to_its_largest(look):
    hot, hotter = look(1, 1e3, True), look(1, 1e5, True)
    assert hotter.gradient == pytest.approx(hotter.limit, abs=1e-4)
    assert hot.entropy < hotter.entropy <= math.log2(10) + 1e-9
    assert sum(hotter.limit) == pytest.approx(0, abs=1e-9)


def test_the_widget_draws_both_distributions(look):
    figure, axes = plt.subplots(1, 2)
    draw_softened(axes, look(2, 4.0, True))
    assert [len(ax.patches) for ax in axes] == [10, 10]


# -- the figures -------------------------------------------------------------------------------------


def rows(**methods):
    return [{"method": name, "seed": seed, "accuracy": value} for name, runs in methods.items() for seed, value in enumerate(runs)]


def test_gains_are_paired_t_intervals():
    labels, soft = [0.80, 0.84, 0.82, 0.81], [0.85, 0.86, 0.88, 0.84]
    gain, low, high, n = figures.gains(rows(labels=labels, soft=soft))["soft"]
    expected = ttest_rel(soft, labels).confidence_interval(0.95)
    assert (gain, n) == (pytest.approx(4.0), 4)
    assert (low / 100, high / 100) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_gains_leave_out_what_cannot_be_paired():
    some = rows(labels=[0.8, 0.9, 0.7], soft=[0.9])
    assert figures.gains(some) == {}
    assert figures.gains(rows(soft=[0.9, 0.8])) == {}


def test_transfer_draws_a_row_for_each_method_in_a_fixed_order():
    figure = figures.transfer(rows(hint=[0.8, 0.9], labels=[0.7, 0.8], odd=[0.5, 0.5]))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["labels", "hint", "odd"]
    assert figures.transfer([]).axes


def test_softened_digits_and_resemblance_draw_every_class():
    p = soften(torch.eye(10)[:3], 2.0)
    figure = figures.softened_digits(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), [0, 1, 2], {1.0: p, 4.0: p})
    assert len(figure.axes) == 9
    assert len(figures.who_resembles_whom({"one": torch.rand(10, 10)}).axes) == 2
    ax = figures.gradient_lengths([1, 2, 4], {"KL": [1.0, 0.4, 0.1]}, 0.5)
    assert ax.lines[1].get_ydata().tolist() == pytest.approx([1, 1 / 4, 1 / 16])
    assert figures.map_of_distillation().axes


# -- the answers against torch -----------------------------------------------------------------------


def test_the_loss_is_the_librarys(logits):
    labels = torch.tensor([1, 2, 3, 4])
    mine = references_soft.distillation_loss(*logits, labels, 3.0, 0.7)
    assert mine.item() == pytest.approx((0.3 * F.cross_entropy(logits[0], labels) + 0.7 * soft_target_loss(*logits, 3.0)).item())


def test_a_teacher_of_zeros_smooths_the_labels(logits):
    z, labels = logits[0].clone().requires_grad_(), torch.tensor([0, 5, 9, 5])
    targets = references_soft.smooth_labels(labels, 10, 0.1).double()
    losses = (F.cross_entropy(z, targets), F.cross_entropy(z, labels, label_smoothing=0.1),
              references_soft.distillation_loss(z, torch.zeros(4, 10, dtype=torch.float64), labels, 1.0, 0.1))  # fmt: skip
    first, *others = (torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses)
    for other in others:
        torch.testing.assert_close(first, other, atol=1e-7, rtol=1e-6)
