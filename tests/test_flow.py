"""Flow of solution procedure: the matrix by loops, its properties, and the term with and without regressors."""

import pytest
import torch
from torch.nn import functional as F

from compresslab.distillation.distill import Seen
from compresslab.distillation.feature_maps import channel_regressor
from compresslab.distillation.flow import Flow, flow_loss, flow_matrix


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(student, teacher):
    nothing = torch.empty(0)
    return Seen(nothing, nothing, nothing, nothing, nothing, student, teacher)


def test_matrix_by_loops():
    first, second = randn(2, 3, 2, 4), randn(2, 5, 2, 4, seed=1)
    G = flow_matrix(first, second)
    assert G.shape == (2, 3, 5)
    for n in range(2):
        for i in range(3):
            for j in range(5):
                products = [(first[n, i, s, t] * second[n, j, s, t]).item() for s in range(2) for t in range(4)]
                assert G[n, i, j].item() == pytest.approx(sum(products) / 8)


def test_of_one_layer_it_is_a_gram_matrix():
    """Symmetric and positive semidefinite, of a rank that the number of positions bounds."""
    F1 = randn(3, 6, 2, 2)
    G = flow_matrix(F1, F1)
    assert torch.equal(G, G.transpose(1, 2))
    values = torch.linalg.eigvalsh(G)
    assert values.min() > -1e-12 and (values > 1e-9).sum(1).tolist() == [4, 4, 4]
    torch.testing.assert_close(G.diagonal(dim1=1, dim2=2), F1.square().mean((2, 3)))


def test_swapping_the_layers_transposes_it():
    first, second = randn(2, 3, 4, 4), randn(2, 5, 4, 4, seed=1)
    torch.testing.assert_close(flow_matrix(second, first), flow_matrix(first, second).transpose(1, 2))


def test_where_in_the_image_does_not_matter_but_together_does():
    first, second = randn(2, 3, 4, 4), randn(2, 5, 4, 4, seed=1)
    G = flow_matrix(first, second)
    torch.testing.assert_close(flow_matrix(first.flip(3), second.flip(3)), G)
    assert not torch.allclose(flow_matrix(first.flip(3), second), G)


def test_a_smaller_second_layer():
    first, second = randn(2, 3, 8, 8), randn(2, 5, 4, 4, seed=1)
    torch.testing.assert_close(flow_matrix(first, second), flow_matrix(F.avg_pool2d(first, 2), second))


def test_loss():
    student, teacher = randn(3, 2, 4).requires_grad_(), randn(3, 2, 4, seed=1).requires_grad_()
    squares = [(teacher[n] - student[n]).norm() ** 2 for n in range(3)]
    loss = flow_loss(student, teacher)
    torch.testing.assert_close(loss, sum(squares) / 3 / 8)
    loss.backward()
    assert student.grad.any() and teacher.grad is None
    assert flow_loss(student, student.detach()) == 0


class TestTerm:
    student = {"a": randn(2, 3, 8, 8), "b": randn(2, 4, 4, 4, seed=1)}

    def test_equal_channels(self):
        teacher = {"c": randn(2, 3, 8, 8, seed=2), "d": randn(2, 4, 8, 8, seed=3)}
        term = Flow(("a", "b"), ("c", "d"))
        assert not list(term.parameters())
        expected = flow_loss(flow_matrix(*self.student.values()), flow_matrix(*teacher.values()))
        torch.testing.assert_close(term(seen(self.student, teacher)), expected)
        copied = {"c": self.student["a"], "d": self.student["b"]}
        assert term(seen(self.student, copied)) == 0

    def test_regressors_map_the_matrix_from_both_sides(self):
        """Without bias, G of the regressed layers is W1 G W2^T."""
        teacher = {"c": randn(2, 5, 8, 8, seed=2), "d": randn(2, 6, 4, 4, seed=3)}
        one, two = channel_regressor(3, 5).double(), channel_regressor(4, 6).double()
        with torch.no_grad():
            one.bias.zero_(), two.bias.zero_()
        W1, W2 = one.weight[:, :, 0, 0], two.weight[:, :, 0, 0]
        G = W1 @ flow_matrix(*self.student.values()) @ W2.T
        term = Flow(("a", "b"), ("c", "d"), (one, two))
        loss = term(seen(self.student, teacher))
        torch.testing.assert_close(loss, flow_loss(G, flow_matrix(*teacher.values())))
        loss.backward()
        assert len(list(term.parameters())) == 4 and all(p.grad.any() for p in term.parameters())

    def test_other_channels_need_regressors(self):
        teacher = {"c": randn(2, 5, 8, 8), "d": randn(2, 4, 4, 4)}
        with pytest.raises(ValueError, match=r"got \(2, 3, 4\) and \(2, 5, 4\); regressors can make"):
            Flow(("a", "b"), ("c", "d"))(seen(self.student, teacher))


def test_refusals():
    with pytest.raises(ValueError, match="feature maps must be"):
        flow_matrix(randn(2, 3), randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match="got 2 and 3 rows"):
        flow_matrix(randn(2, 3, 4, 4), randn(3, 3, 4, 4))
    with pytest.raises(ValueError, match="flow matrices"):
        flow_loss(randn(3, 4), randn(3, 4))
    for bad in ("ab", ("a",), ("a", "b", "c")):
        with pytest.raises(ValueError, match="give two student_layers"):
            Flow(bad, ("c", "d"))
        with pytest.raises(ValueError, match="give two teacher_layers"):
            Flow(("a", "b"), bad)
    with pytest.raises(ValueError, match="give two regressors"):
        Flow(("a", "b"), ("c", "d"), (torch.nn.Identity(),))
