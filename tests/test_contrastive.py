"""Contrastive distillation: the optimal critic on a known distribution, the bounds, and the losses on a batch."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from compresslab.distillation.contrastive import (
    Contrastive,
    contrastive_loss,
    critic_objective,
    info_nce_loss,
    information_bound,
    optimal_critic,
    similarity_scores,
)
from compresslab.distillation.distill import Seen

JOINT = torch.tensor([[0.3, 0.1, 0.0], [0.05, 0.15, 0.4]], dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def information(joint):
    """I(T; S) in nats, by the definition."""
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (torch.xlogy(joint, joint) - torch.xlogy(joint, independent)).sum()


class TestOptimalCritic:
    @pytest.mark.parametrize("negatives", [1, 4, 1000])
    def test_by_hand(self, negatives):
        h = optimal_critic(JOINT, negatives)
        t, s = [0.4, 0.6], [0.35, 0.25, 0.4]
        for i in range(2):
            for j in range(3):
                p = JOINT[i, j].item()
                assert h[i, j].item() == pytest.approx(p / (p + negatives * t[i] * s[j]))

    def test_it_is_bayes_rule(self):
        """One pair in 1 + N belongs together: h* is the probability that it is this one."""
        N = 3
        together, apart = JOINT / (1 + N), N * JOINT.sum(1, keepdim=True) * JOINT.sum(0, keepdim=True) / (1 + N)
        torch.testing.assert_close(optimal_critic(JOINT, N), together / (together + apart))

    @pytest.mark.parametrize("negatives", [1, 5])
    def test_no_critic_does_better(self, negatives):
        best = critic_objective(JOINT, optimal_critic(JOINT, negatives), negatives)
        for seed in range(20):
            h = torch.sigmoid(optimal_critic(JOINT, negatives).logit(1e-9) + 0.3 * randn(2, 3, seed=seed))
            assert critic_objective(JOINT, h, negatives) < best

    def test_gradient_ascent_arrives_there(self):
        logits = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([logits], 0.1)
        for _ in range(300):
            optimizer.zero_grad()
            (-critic_objective(JOINT, logits.sigmoid(), 4)).backward()
            optimizer.step()
        torch.testing.assert_close(logits.sigmoid().detach(), optimal_critic(JOINT, 4), atol=1e-2, rtol=0)

    def test_independent_variables_leave_a_guess(self):
        joint = torch.outer(torch.tensor([0.4, 0.6]), torch.tensor([0.5, 0.5]))
        torch.testing.assert_close(optimal_critic(joint, 7), torch.full((2, 2), 1 / 8))

    def test_values_that_never_happen(self):
        h = optimal_critic(torch.tensor([[0.5, 0.5], [0.0, 0.0]]), 1)
        assert h[1].tolist() == [0, 0] and h.isfinite().all()


class TestBound:
    @pytest.mark.parametrize("negatives", [1, 2, 10, 100, 10_000])
    def test_the_optimal_critic_never_proves_too_much(self, negatives):
        h = optimal_critic(JOINT, negatives)
        bound = math.log(negatives) + torch.xlogy(JOINT, h).sum()
        assert bound <= information(JOINT)
        assert bound <= math.log(negatives)

    def test_it_is_tight_for_many_negatives(self):
        bound = [math.log(N) + torch.xlogy(JOINT, optimal_critic(JOINT, N)).sum() for N in (1, 10, 1000, 100_000)]
        assert bound == sorted(bound)
        assert bound[-1].item() == pytest.approx(information(JOINT).item(), abs=1e-4)

    @pytest.mark.parametrize("negatives", [1, 10, 1000])
    def test_the_objective_bounds_it_for_any_critic(self, negatives):
        for seed in range(20):
            h = torch.sigmoid(3 * randn(2, 3, seed=seed))
            assert math.log(negatives) + critic_objective(JOINT, h, negatives) <= information(JOINT)

    def test_function(self):
        h = torch.tensor([0.5, 0.25])
        assert information_bound(h, 8).item() == pytest.approx(math.log(8) + (math.log(0.5) + math.log(0.25)) / 2)
        guess = torch.full((3,), 1 / 9)
        assert information_bound(guess, 8).item() == pytest.approx(math.log(8 / 9))  # below 0
        assert information_bound(torch.ones(3), 8).item() == pytest.approx(math.log(8))


class TestInfoNCE:
    @pytest.mark.parametrize("negatives", [0, 1, 15])
    def test_the_uniform_critic_pays_log_of_the_candidates(self, negatives):
        for value in (0.0, -3.0):
            scores = torch.full((1 + negatives, 1 + negatives), value)
            assert info_nce_loss(scores).item() == pytest.approx(math.log(negatives + 1), abs=1e-6)

    def test_by_its_formula(self):
        scores = randn(5, 5)
        expected = -sum(math.log(scores[i, i].exp() / scores[i].exp().sum()) for i in range(5)) / 5
        assert info_nce_loss(scores).item() == pytest.approx(expected)

    def test_a_shift_per_row_changes_nothing(self):
        scores = randn(5, 5)
        torch.testing.assert_close(info_nce_loss(scores + randn(5, 1, seed=1)), info_nce_loss(scores))

    def test_a_perfect_critic_pays_nothing(self):
        assert info_nce_loss(100 * torch.eye(6)) < 1e-30


class TestLoss:
    def test_by_loops(self):
        scores, N, c = randn(5, 5), 4, 0.3
        h = scores.exp() / (scores.exp() + N * c)
        expected = -sum(math.log(h[i, i]) for i in range(5)) / 5
        expected -= sum(math.log(1 - h[i, j]) for i in range(5) for j in range(5) if i != j) / 5
        assert contrastive_loss(scores, math.log(c)).item() == pytest.approx(expected)

    def test_only_the_given_negatives_count(self):
        classes = torch.tensor([0, 0, 1, 1, 1])
        negatives = classes[:, None] != classes[None]
        scores = randn(5, 5).requires_grad_()
        contrastive_loss(scores, 0.0, negatives).backward()
        assert torch.equal(scores.grad != 0, negatives | torch.eye(5, dtype=torch.bool))
        assert (scores.grad.diagonal() < 0).all() and (scores.grad[negatives] > 0).all()
        h = scores.detach().exp() / (scores.detach().exp() + 12 / 5)  # 2 * 3 + 3 * 2 negatives for 5 images
        expected = -(h.diagonal().log().sum() + (1 - h)[negatives].log().sum()) / 5
        torch.testing.assert_close(contrastive_loss(scores.detach(), 0.0, negatives), expected)

    def test_its_best_scores_are_log_density_ratios(self):
        """A batch of 20 with just the joint's frequencies: the loss is flat at s = log ratio, and only there."""
        counts = (20 * JOINT).round()
        cells = torch.repeat_interleave(torch.arange(6), counts.flatten().long())
        t, s = cells // 3, cells % 3
        apart = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) - counts  # pairs of two images
        best = (19 * counts / apart).clamp(min=1e-300).log()  # p(t, s) / q(t, s), over the 20 * 19 negatives

        def slope(table):
            table = table.clone().requires_grad_()
            contrastive_loss(table[t][:, s]).backward()
            return table.grad[counts > 0].abs()

        assert slope(best).max() < 1e-12
        assert slope(best + 0.1).min() > 1e-3 and slope(torch.zeros_like(best)).max() > 1e-2

    def test_one_image_and_no_negatives(self):
        assert contrastive_loss(torch.zeros(1, 1)).item() == pytest.approx(math.log(2))
        none = torch.zeros(3, 3, dtype=torch.bool)
        assert contrastive_loss(torch.zeros(3, 3), 0.0, none).item() == pytest.approx(math.log(2))

    def test_extreme_scores_stay_finite(self):
        scores = (1e4 * randn(4, 4)).requires_grad_()
        contrastive_loss(scores).backward()
        assert scores.grad.isfinite().all()


def test_scores_are_cosines():
    student, teacher = randn(4, 3), randn(4, 3, seed=1)
    expected = F.cosine_similarity(student[:, None], teacher[None], dim=2) / 0.07
    torch.testing.assert_close(similarity_scores(student, teacher, 0.07), expected)


class TestTerm:
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])

    def seen(self, student, teacher):
        nothing = torch.empty(0)
        return Seen(nothing, self.y, nothing, nothing, nothing, {"s": student}, {"t": teacher})

    @pytest.mark.parametrize("loss", ["crd", "infonce"])
    def test_trained_embeddings_recognise_pairs(self, loss):
        """The teacher is a turned, noisy student: a linear critic can learn to tell the pairs."""
        student = randn(8, 6).float()
        teacher = student @ torch.linalg.qr(randn(6, 6, seed=1).float())[0] + 0.1 * randn(8, 6, seed=2).float()
        term = Contrastive("s", "t", 6, 6, dimension=8, loss=loss, other_classes=False)
        optimizer, seen = torch.optim.Adam(term.parameters(), 0.02), self.seen(student, teacher)
        losses = []
        for _ in range(80):
            optimizer.zero_grad()
            value = term(seen)
            value.backward()
            optimizer.step()
            losses.append(value.item())
        assert losses[-1] < 0.3 * losses[0]
        assert torch.equal(term.scores(seen).argmax(1), torch.arange(8))

    def test_what_it_computes(self):
        maps, teacher = randn(8, 3, 4, 4).float(), randn(8, 5, seed=1).float().requires_grad_()
        term = Contrastive("s", "t", 3, 5, dimension=7, temperature=0.2)
        embeddings = term.embed_student(maps.mean((2, 3))), term.embed_teacher(teacher)
        scores = similarity_scores(*embeddings, 0.2)
        value = term(self.seen(maps, teacher))
        torch.testing.assert_close(value, contrastive_loss(scores, 0.0, self.y[:, None] != self.y[None]))
        value.backward()
        assert teacher.grad is None and all(p.grad.any() for p in term.parameters())
        relaxed = Contrastive("s", "t", 3, 5, dimension=7, temperature=0.2, other_classes=False)
        torch.testing.assert_close(relaxed(self.seen(maps, teacher)), contrastive_loss(scores))

    def test_seeds_and_copies(self):
        before = torch.get_rng_state()
        first, second, third = (Contrastive("s", "t", 3, 5, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(first.embed_teacher.weight, second.embed_teacher.weight)
        assert not torch.equal(first.embed_teacher.weight, third.embed_teacher.weight)
        seen = self.seen(randn(8, 3).float(), randn(8, 5).float())
        assert torch.equal(copy.deepcopy(first)(seen), first(seen))

    def test_refusals(self):
        with pytest.raises(ValueError, match="loss must be 'crd' or 'infonce', got 'nce'"):
            Contrastive("s", "t", 3, 5, loss="nce")
        with pytest.raises(ValueError, match="temperature must be positive"):
            Contrastive("s", "t", 3, 5, temperature=0)
        for name in ("student_features", "teacher_features", "dimension"):
            sizes = {"student_features": 3, "teacher_features": 5, "dimension": 4, name: 0}
            with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got 0"):
                Contrastive("s", "t", **sizes)
            with pytest.raises(TypeError, match=f"{name} must be"):
                Contrastive("s", "t", **{**sizes, name: 2.5})
        with pytest.raises(ValueError, match="teacher_features is 5, but the teacher's layer gives 6 per image"):
            Contrastive("s", "t", 3, 5)(self.seen(randn(8, 3).float(), randn(8, 6).float()))


def test_refusals():
    for bad in (torch.zeros(3, 4), torch.zeros(3), torch.zeros(0, 0)):
        with pytest.raises(ValueError, match="scores must be square"):
            contrastive_loss(bad)
        with pytest.raises(ValueError, match="scores must be square"):
            info_nce_loss(bad)
    for bad in (torch.ones(3, 3, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"negatives must be \(B, B\) without the diagonal"):
            contrastive_loss(torch.zeros(3, 3), 0.0, bad)
    for bad in (0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be positive"):
            similarity_scores(randn(3, 2), randn(3, 2), bad)
    with pytest.raises(ValueError, match=r"embeddings must have one shape, \(B, D\), got \(3, 2\) and \(4, 2\)"):
        similarity_scores(randn(3, 2), randn(4, 2))
    for bad in ([[1.0, 1.0]], [0.5, 0.5], [[1.5, -0.5]], [[math.nan, 1.0]]):
        with pytest.raises(ValueError, match="joint must be a table of probabilities"):
            optimal_critic(torch.tensor(bad), 1)
    for function in (lambda n: optimal_critic(JOINT, n), lambda n: information_bound(torch.ones(2), n)):
        with pytest.raises(ValueError, match="negatives must be a whole number of at least 1"):
            function(0)
        with pytest.raises(TypeError, match="negatives must be"):
            function(1.5)
    with pytest.raises(ValueError, match="there are none"):
        information_bound(torch.empty(0), 2)
