"""Relational distillation: distances, angles and similarities, and what does not change them."""

import itertools
import math

import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from torch.nn import functional as F

from compresslab.distillation.distill import Seen
from compresslab.distillation.relational import (
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
    angle_potential,
    distance_potential,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_loss,
    similarity_matrix,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(size, seed=5):
    return torch.linalg.qr(randn(size, size, seed=seed))[0]


def moved(vectors):
    """Turned (and mirrored), scaled, shifted, and put into two dimensions more."""
    wider = F.pad(vectors, (0, 2))
    return 3.7 * wider @ orthogonal(wider.shape[1]) + randn(wider.shape[1], seed=9)


def test_distances_against_cdist_and_scipy():
    vectors = randn(7, 3)
    distances = torch.cdist(vectors, vectors)
    mean = distances[~torch.eye(7, dtype=torch.bool)].mean()
    torch.testing.assert_close(distance_potential(vectors), distances / mean)
    between = pdist(vectors.numpy())
    torch.testing.assert_close(distance_potential(vectors), torch.from_numpy(squareform(between / between.mean())))


def test_angles_by_loops():
    vectors = randn(5, 3)
    angles = angle_potential(vectors)
    for i, j, k in itertools.product(range(5), repeat=3):
        if len({i, j, k}) < 3:
            assert angles[j, i, k] == 0
        else:
            expected = F.cosine_similarity(vectors[i] - vectors[j], vectors[k] - vectors[j], dim=0)
            torch.testing.assert_close(angles[j, i, k], expected)


def test_the_angles_of_a_triangle_sum_to_half_a_turn():
    angles = angle_potential(randn(3, 4)).clamp(-1, 1).acos()
    total = angles[0, 1, 2] + angles[1, 0, 2] + angles[2, 0, 1]
    assert total.item() == pytest.approx(math.pi)


def test_both_are_invariant_to_rotation_translation_and_scale():
    vectors = randn(6, 3)
    torch.testing.assert_close(distance_potential(moved(vectors)), distance_potential(vectors))
    torch.testing.assert_close(angle_potential(moved(vectors)), angle_potential(vectors))
    assert rkd_distance_loss(vectors, moved(vectors)) < 1e-28 and rkd_angle_loss(vectors, moved(vectors)) < 1e-28
    stretched = vectors * torch.tensor([1.0, 1.0, 4.0])
    assert rkd_distance_loss(stretched, vectors) > 1e-3 and rkd_angle_loss(stretched, vectors) > 1e-3


def test_similarity_is_invariant_to_orthogonal_maps_and_scale_only():
    features = randn(5, 4)
    G = similarity_matrix(features)
    torch.testing.assert_close(similarity_matrix(features @ orthogonal(4)), G)
    torch.testing.assert_close(similarity_matrix(-2.5 * features), G)
    torch.testing.assert_close(similarity_matrix(F.pad(features, (0, 3)) @ orthogonal(7)), G)
    assert not torch.allclose(similarity_matrix(features + 1), G)  # a shift counts here: RKD's would not
    assert similarity_loss(features, features @ orthogonal(4)) < 1e-28


def test_losses_are_huber_means_over_distinct_images():
    student, teacher = randn(6, 3), randn(6, 5, seed=1)
    student[0] *= 20  # so that both branches of the Huber loss are met
    psi = distance_potential(student), distance_potential(teacher)
    assert (psi[0] - psi[1]).abs().max() > 1
    pairs = list(itertools.permutations(range(6), 2))
    expected = sum(F.huber_loss(psi[0][i, j], psi[1][i, j]) for i, j in pairs) / len(pairs)
    torch.testing.assert_close(rkd_distance_loss(student, teacher), expected)
    psi = angle_potential(student), angle_potential(teacher)
    triples = list(itertools.permutations(range(6), 3))
    expected = sum(F.huber_loss(psi[0][j, i, k], psi[1][j, i, k]) for i, j, k in triples) / len(triples)
    torch.testing.assert_close(rkd_angle_loss(student, teacher), expected)


def test_similarity_loss_by_its_formula():
    student, teacher = randn(5, 2, 3, 3), randn(5, 7, 2, 2, seed=1)
    G = []
    for features in (student, teacher):
        gram = torch.einsum("ichw,jchw->ij", features, features)
        G.append(gram / gram.norm(dim=1, keepdim=True))
    torch.testing.assert_close(similarity_loss(student, teacher), (G[1] - G[0]).norm("fro") ** 2 / 25)


@pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss, similarity_loss])
def test_gradients(loss):
    teacher = randn(5, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda student: loss(student, teacher.detach()), (randn(5, 3).requires_grad_(),))
    student = randn(5, 3).requires_grad_()
    loss(student, teacher).backward()
    assert student.grad.any() and teacher.grad is None


@pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss, similarity_loss])
def test_degenerate_batches_stay_finite(loss):
    for student in (randn(1, 3), torch.ones(4, 3), torch.zeros(4, 3), torch.cat([randn(2, 3), randn(2, 3)])):
        student = student.clone().requires_grad_()
        value = loss(student, randn(len(student), 5, seed=1))
        value.backward()
        assert value.isfinite() and student.grad.abs().max() < 10  # not 1e12 where two vectors coincide
        if len(student) == 1:
            assert value == 0
    assert rkd_angle_loss(randn(2, 3), randn(2, 3, seed=1)) == 0  # two images make no angle


def test_terms_pool_maps_or_read_them_whole():
    student, teacher = randn(4, 3, 8, 8), randn(4, 6, 5, 5, seed=1)
    nothing = torch.empty(0)
    seen = Seen(nothing, nothing, nothing, nothing, nothing, {"s": student}, {"t": teacher})
    pooled = student.mean((2, 3)), teacher.mean((2, 3))
    torch.testing.assert_close(RelationalDistance("s", "t")(seen), rkd_distance_loss(*pooled))
    torch.testing.assert_close(RelationalAngle("s", "t")(seen), rkd_angle_loss(*pooled))
    torch.testing.assert_close(SimilarityPreserving("s", "t")(seen), similarity_loss(student, teacher))
    for term in (RelationalDistance("s", "t"), RelationalAngle("s", "t"), SimilarityPreserving("s", "t")):
        assert term.student_layers == ("s",) and term.teacher_layers == ("t",)
        flat = Seen(nothing, nothing, nothing, nothing, nothing, {"s": pooled[0]}, {"t": 2 * pooled[0]})
        assert term(flat) < 1e-28


def test_refusals():
    for loss in (rkd_distance_loss, rkd_angle_loss, similarity_loss):
        with pytest.raises(ValueError, match="got 4 and 5 rows"):
            loss(randn(4, 3), randn(5, 3))
        with pytest.raises(ValueError, match=r"must have shape \(N, \.\.\.\), got \(4,\)"):
            loss(randn(4), randn(4))
    for relation in (distance_potential, angle_potential):
        with pytest.raises(ValueError, match=r"one per image: \(N, D\), got shape \(4, 3, 2, 2\)"):
            relation(randn(4, 3, 2, 2))
