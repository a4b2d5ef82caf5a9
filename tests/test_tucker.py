"""Tucker: unfoldings and mode products, HOSVD and its bound, HOOI, the three convolutions, every error."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import compresslab.lowrank
from compresslab.lowrank.tucker import fold, hooi, hosvd, leading_vectors, mode_product, tucker_conv, unfold

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorly
    from tensorly.decomposition import partial_tucker, tucker
    from tensorly.tenalg import mode_dot, multi_mode_dot


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative(tensor, approximation):
    return ((tensor - approximation).norm() / tensor.norm()).item()


def planted(shape, ranks, seed=0):
    """A kernel of exactly these ranks in modes 0 and 1."""
    core = randn(*ranks, *shape[2:], seed=seed)
    u, v = randn(shape[0], ranks[0], seed=seed + 1), randn(shape[1], ranks[1], seed=seed + 2)
    return torch.einsum("pqij,np,cq->ncij", core, u, v)


def conv_of(kernel, **options):
    conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], tuple(kernel.shape[2:]), **options).double()
    conv.weight.data.copy_(kernel)
    return conv


class TestUnfolding:
    @pytest.mark.parametrize("mode", range(4))
    def test_by_tensorly(self, mode):
        x = randn(2, 3, 4, 5)
        np.testing.assert_array_equal(unfold(x, mode).numpy(), tensorly.unfold(x.numpy(), mode))
        assert torch.equal(fold(unfold(x, mode), mode, x.shape), x)
        m = randn(6, x.shape[mode])
        np.testing.assert_allclose(mode_product(x, m, mode).numpy(), mode_dot(x.numpy(), m.numpy(), mode))

    def test_products_in_different_modes_commute_and_in_one_mode_compose(self):
        x, m, n = randn(2, 3, 4), randn(5, 2), randn(6, 4)
        torch.testing.assert_close(
            mode_product(mode_product(x, m, 0), n, 2), mode_product(mode_product(x, n, 2), m, 0)
        )
        k = randn(3, 5)
        torch.testing.assert_close(mode_product(mode_product(x, m, 0), k, 0), mode_product(x, k @ m, 0))

    def test_errors(self):
        x = randn(2, 3)
        for call in (lambda: unfold(x, 2), lambda: fold(x, -1, (2, 3)), lambda: mode_product(x, x, 5)):
            with pytest.raises(ValueError, match="mode must be a whole number from 0 to 1"):
                call()
        with pytest.raises(ValueError, match=r"shape \(2, 3\) is not mode 0 of a tensor of \(3, 2\)"):
            fold(x, 0, (3, 2))
        with pytest.raises(ValueError, match="mode 0 has 2 entries"):
            mode_product(x, randn(4, 3), 0)


class TestLeadingVectors:
    @pytest.mark.parametrize("shape, count", [((6, 20), 4), ((20, 6), 4), ((20, 6), 9), ((6, 6), 6)])
    def test_span_the_leading_left_singular_vectors(self, shape, count):
        x = randn(*shape)
        u = leading_vectors(x, count)
        torch.testing.assert_close(u.T @ u, torch.eye(count, dtype=u.dtype))
        expected = torch.linalg.svd(x)[0][:, : min(count, *shape)]
        cosines = (expected * u[:, : expected.shape[1]]).sum(0).abs()
        torch.testing.assert_close(cosines, torch.ones_like(cosines))


class TestHOSVD:
    @pytest.mark.parametrize("modes, ranks", [((0, 1), (3, 2)), ((0, 1, 2, 3), (3, 3, 2, 2)), ((2,), (1,))])
    def test_by_singular_vectors_and_within_the_bound(self, modes, ranks):
        x = randn(7, 6, 3, 4)
        found = hosvd(x, ranks, modes)
        tails = best = 0.0
        projected = x
        for mode, rank, factor in zip(modes, ranks, found.factors, strict=True):
            u, s, _ = torch.linalg.svd(unfold(x, mode), full_matrices=False)
            torch.testing.assert_close(factor @ factor.T, u[:, :rank] @ u[:, :rank].T)
            projected = mode_product(projected, u[:, :rank] @ u[:, :rank].T, mode)
            tail = s[rank:].square().sum().item()
            tails, best = tails + tail, max(best, tail)
        torch.testing.assert_close(found.to_tensor(), projected)
        squared = (x - projected).square().sum().item()
        assert best <= squared * (1 + 1e-12) and squared <= tails * (1 + 1e-12)

    def test_to_tensor_by_tensorly(self):
        found = hosvd(randn(7, 6, 3, 3), (3, 2))
        expected = multi_mode_dot(found.core.numpy(), [f.numpy() for f in found.factors], modes=[0, 1])
        np.testing.assert_allclose(found.to_tensor().numpy(), expected, atol=1e-12)
        assert found.parameters == 3 * 2 * 9 + 7 * 3 + 6 * 2

    def test_planted_ranks_are_exact(self):
        x = planted((12, 10, 3, 3), (4, 3))
        assert relative(x, hosvd(x, (4, 3)).to_tensor()) < 1e-7
        assert relative(x, hosvd(x, (3, 3)).to_tensor()) > 0.05

    def test_errors(self):
        x = randn(6, 5, 3, 3)
        with pytest.raises(ValueError, match="the rank of mode 0 must be a whole number from 1 to 6, got 0"):
            hosvd(x, (0, 1))
        with pytest.raises(ValueError, match="the rank of mode 1 must be a whole number from 1 to 5, got 6"):
            hosvd(x, (1, 6))
        with pytest.raises(ValueError, match="the rank of mode 0 must be .* from 1 to 4, got 5"):
            hosvd(randn(6, 2, 2), (5, 1))  # the unfolding is 6 x 4
        with pytest.raises(TypeError, match="the rank of mode 0"):
            hosvd(x, (0.5, 1))
        with pytest.raises(ValueError, match="a mode must be"):
            hosvd(x, (1, 1), (0, 4))
        for ranks, modes in (((1,), (0, 1)), ((1, 1), (0, 0)), ((), ())):
            with pytest.raises(ValueError, match="one entry for each of at least one distinct mode"):
                hosvd(x, ranks, modes)
        with pytest.raises(TypeError, match="must be floating-point, got torch.int64"):
            hosvd(torch.ones(2, 2, dtype=torch.int64), (1, 1))
        with pytest.raises(TypeError, match="must be floating-point, got list"):
            hosvd([[1.0]], (1, 1))
        with pytest.raises(ValueError, match="nan or inf"):
            hosvd(x / 0, (1, 1))
        with pytest.raises(ValueError, match="must have modes and entries"):
            hosvd(torch.zeros(0, 2), (1, 1))


class TestHOOI:
    @pytest.mark.parametrize("seed", range(3))
    def test_never_above_hosvd_and_never_rising(self, seed):
        x = randn(8, 7, 3, 3, seed=seed)
        errors = [relative(x, hooi(x, (3, 2), iterations=n, tolerance=0).to_tensor()) for n in range(6)]
        assert errors[0] == pytest.approx(relative(x, hosvd(x, (3, 2)).to_tensor()), rel=1e-12)
        assert all(b <= a * (1 + 1e-12) for a, b in zip(errors, errors[1:], strict=False))
        assert errors[-1] < errors[0] - 1e-4

    @pytest.mark.parametrize("seed", range(3))
    def test_partial_tucker_of_tensorly_is_not_better(self, seed):
        x = randn(8, 7, 3, 3, seed=seed)
        (core, factors), _ = partial_tucker(x.numpy(), [3, 2], modes=[0, 1], n_iter_max=200, tol=1e-10)
        theirs = torch.from_numpy(multi_mode_dot(core, factors, modes=[0, 1]))
        ours = hooi(x, (3, 2), iterations=200, tolerance=1e-12).to_tensor()
        assert relative(x, ours) <= relative(x, theirs) + 1e-6

    def test_all_modes_by_tensorly(self):
        x = randn(6, 5, 4)
        theirs = tucker(x.numpy(), [2, 3, 2], n_iter_max=200, tol=1e-10)
        theirs = torch.from_numpy(tensorly.tucker_to_tensor(theirs))
        ours = hooi(x, (2, 3, 2), (0, 1, 2), iterations=200, tolerance=1e-12).to_tensor()
        assert relative(x, ours) == pytest.approx(relative(x, theirs), abs=1e-5)

    def test_one_mode_is_the_truncated_svd(self):
        x = randn(6, 5, 3)
        u, s, vh = torch.linalg.svd(unfold(x, 0), full_matrices=False)
        expected = fold(u[:, :2] * s[:2] @ vh[:2], 0, x.shape)
        torch.testing.assert_close(hooi(x, (2,), (0,)).to_tensor(), expected)

    def test_a_start_is_taken_up(self):
        x = randn(8, 7, 3, 3)
        more = hooi(x, (3, 2), iterations=3, tolerance=0)
        again = hooi(x, (3, 2), iterations=3, tolerance=0, start=more).to_tensor()
        torch.testing.assert_close(again, hooi(x, (3, 2), iterations=6, tolerance=0).to_tensor())

    def test_errors(self):
        with pytest.raises(ValueError, match="iterations must be a whole number of at least 0, got -1"):
            hooi(randn(3, 3), (1, 1), iterations=-1)


WINDOWS = [
    {},
    dict(stride=2, padding=1, bias=False),
    dict(stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    dict(padding="same", dilation=2),
    dict(padding=(1, 2), padding_mode="circular"),
]


class TestConvolution:
    @pytest.mark.parametrize("options", WINDOWS)
    @pytest.mark.parametrize("iterations", [0, 3])
    def test_equals_the_convolution_with_the_rebuilt_kernel(self, options, iterations):
        conv = conv_of(randn(6, 5, 3, 3), **options)
        rebuilt = copy.deepcopy(conv)
        rebuilt.weight.data.copy_(hooi(conv.weight, (3, 2), iterations=iterations).to_tensor())
        x = randn(2, 5, 9, 8, seed=3)
        net = tucker_conv(conv, (3, 2), iterations)
        torch.testing.assert_close(net(x), rebuilt(x))
        assert not torch.allclose(net(x), conv(x), atol=0.01)

    @pytest.mark.parametrize("options", WINDOWS)
    def test_full_ranks_change_nothing(self, options):
        conv = conv_of(randn(6, 5, 3, 2), **options)
        x = randn(2, 5, 9, 8, seed=3)
        torch.testing.assert_close(tucker_conv(conv, (6, 5))(x), conv(x))

    def test_ordinary_layers_of_the_right_size(self):
        conv = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        net = tucker_conv(conv.eval(), (4, 3))
        assert [type(layer) for layer in net] == [nn.Conv2d] * 3
        assert sum(p.numel() for p in net.parameters()) == 8 * 3 + 4 * 3 * 9 + 4 * 16 + 16
        assert {p.dtype for p in net.parameters()} == {torch.float32} and not net[0].training
        assert all(p.requires_grad for p in net.parameters())

    def test_conv_is_not_modified_and_nothing_is_shared(self):
        conv = nn.Conv2d(4, 6, 3)
        before = copy.deepcopy(conv.state_dict())
        for p in tucker_conv(conv, (6, 4)).parameters():
            p.data.zero_()
        assert all(torch.equal(before[name], value) for name, value in conv.state_dict().items())

    def test_errors(self):
        with pytest.raises(ValueError, match="groups=2 cannot be decomposed"):
            tucker_conv(nn.Conv2d(4, 6, 3, groups=2), (1, 1))
        with pytest.raises(TypeError, match="expected an nn.Conv2d, got Linear"):
            tucker_conv(nn.Linear(4, 6), (1, 1))
        with pytest.raises(ValueError, match="the rank of mode 0 must be a whole number from 1 to 6, got 7"):
            tucker_conv(nn.Conv2d(4, 6, 3), (7, 1))
        with pytest.raises(ValueError, match="the rank of mode 1 must be a whole number from 1 to 4, got 0"):
            tucker_conv(nn.Conv2d(4, 6, 3), (1, 0))


def test_no_docstring_of_the_family_holds_a_tab():
    folder = Path(compresslab.lowrank.__file__).parent
    assert not [path.name for path in folder.glob("*.py") if "\t" in path.read_text()]
