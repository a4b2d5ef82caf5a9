"""Attention transfer: what the map keeps, what it forgets, and the loss."""

import math

import pytest
import torch
from torch.nn import functional as F

from compresslab.distillation.attention import AttentionTransfer, attention_loss, attention_map
from compresslab.distillation.distill import Seen


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("power", [1, 2, 4.0])
def test_map_by_loops(power):
    features = randn(2, 3, 2, 4)
    for n, got in enumerate(attention_map(features, power)):
        q = [sum(abs(features[n, c, i, j].item()) ** power for c in range(3)) for i in range(2) for j in range(4)]
        length = math.sqrt(sum(value**2 for value in q))
        assert got.tolist() == pytest.approx([value / length for value in q])


@pytest.mark.parametrize("power", [1, 2, 4.0])
def test_invariant_to_scale_sign_and_order_of_channels(power):
    features = randn(2, 5, 3, 3)
    expected = attention_map(features, power)
    scale = torch.tensor([3.0, 0.001]).view(2, 1, 1, 1)  # one for each image
    torch.testing.assert_close(attention_map(features * scale, power), expected)
    torch.testing.assert_close(attention_map(features[:, [3, 0, 4, 1, 2]], power), expected)
    torch.testing.assert_close(attention_map(-features, power), expected)
    assert not torch.allclose(attention_map(features.flip(3), power), expected)


def test_invariant_to_rotations_of_the_channels():
    """With squares, only the length of each position's vector counts."""
    turn = torch.linalg.qr(randn(4, 4, seed=1))[0]
    features = randn(2, 4, 3, 3)
    torch.testing.assert_close(attention_map(torch.einsum("dc,nchw->ndhw", turn, features)), attention_map(features))


def test_loss_is_zero_for_proportional_maps():
    student = randn(2, 3, 4, 4)
    teacher = torch.cat([student * 7, -student * 7], dim=1)  # twice the channels, every |A|^2 98 times as large
    assert attention_loss(student, teacher) < 1e-15
    assert attention_loss(student, teacher.flip(3)) > 0.1


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_loss_is_the_mean_distance(p):
    student, teacher = randn(3, 2, 4, 4), randn(3, 6, 4, 4, seed=1)
    a, b = (F.normalize(x.square().sum(1).flatten(1), dim=1) for x in (student, teacher))
    expected = sum(torch.dist(a[n], b[n], p) for n in range(3)) / 3
    torch.testing.assert_close(attention_loss(student, teacher, p=p), expected)


def test_largest_loss_by_hand():
    left, right = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    left[..., 0], right[..., 1] = 2.0, 0.5
    assert attention_loss(left, right).item() == pytest.approx(math.sqrt(2))


def test_sizes_are_made_alike():
    student, teacher = randn(2, 3, 8, 8), randn(2, 5, 4, 4, seed=1)
    torch.testing.assert_close(attention_loss(student, teacher), attention_loss(F.avg_pool2d(student, 2), teacher))


def test_silent_images_and_equal_maps_have_a_finite_gradient():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    with torch.no_grad():
        student[1] = 1
    teacher = torch.ones(2, 3, 4, 4, requires_grad=True)
    attention_loss(student, teacher).backward()
    assert student.grad.isfinite().all() and teacher.grad is None
    assert attention_loss(student, torch.zeros_like(student)).isfinite()


def test_gradient():
    teacher = randn(2, 3, 4, 4, seed=1)
    assert torch.autograd.gradcheck(lambda s: attention_loss(s, teacher), (randn(2, 2, 2, 2).requires_grad_(),))


def test_term_sums_over_its_pairs():
    student = {"a": randn(2, 3, 4, 4), "b": randn(2, 5, 2, 2)}
    teacher = {"c": randn(2, 2, 4, 4, seed=1), "d": randn(2, 9, 8, 8)}
    term = AttentionTransfer([("a", "c"), ("b", "d")], power=1, p=1)
    assert term.student_layers == ("a", "b") and term.teacher_layers == ("c", "d") and not list(term.parameters())
    nothing = torch.empty(0)
    value = term(Seen(nothing, nothing, nothing, nothing, nothing, student, teacher))
    parts = [attention_loss(student[s], teacher[t], power=1, p=1) for s, t in (("a", "c"), ("b", "d"))]
    torch.testing.assert_close(value, parts[0] + parts[1])


def test_refusals():
    maps = randn(2, 3, 4, 4)
    for bad in (0, -1, 0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="power must be a finite number of at least 1"):
            attention_map(maps, bad)
        with pytest.raises(ValueError, match="p must be a finite number of at least 1"):
            attention_loss(maps, maps, p=bad)
        with pytest.raises(ValueError, match="at least 1"):
            AttentionTransfer([("a", "b")], p=bad)
    for bad in ("2", True):
        with pytest.raises(TypeError, match="power must be a number"):
            attention_map(maps, bad)
    with pytest.raises(ValueError, match=r"attention needs feature maps \(N, C, H, W\), got shape \(2, 3\)"):
        attention_map(randn(2, 3))
    with pytest.raises(ValueError, match=r"teacher's feature maps must be \(N, C, H, W\), got \(2, 3\)"):
        attention_loss(maps, randn(2, 3))
    with pytest.raises(ValueError, match="got 2 and 1 rows"):
        attention_loss(maps, maps[:1])
    with pytest.raises(ValueError, match="at least one pair"):
        AttentionTransfer([])
    for bad in ("ab", ("a",), ("a", 1)):
        with pytest.raises(TypeError, match="student layer, teacher layer"):
            AttentionTransfer([bad])
