"""CP: planted factors found, tensorly not better, errors told honestly, the instability, the four layers."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from compresslab.lowrank.cp import cp_als, cp_conv, cp_to_tensor, khatri_rao

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorly
    from tensorly.decomposition import parafac


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def planted(*shape, rank, seed=0):
    return cp_to_tensor([randn(n, rank, seed=seed + k) for k, n in enumerate(shape)])


def relative(tensor, approximation):
    return ((tensor - approximation).norm() / tensor.norm()).item()


def component_sizes(factors):
    return torch.stack([factor.norm(dim=0) for factor in factors]).prod(0)


def without_best_approximation(seed=0):
    """a a b + a b a + b a a: of rank 3, and huge components of rank 2 come as near as one likes."""
    a, b = torch.linalg.qr(randn(5, 2, seed=seed))[0].T
    return sum(torch.einsum("i,j,k->ijk", *v) for v in ((a, a, b), (a, b, a), (b, a, a)))


def test_cp_to_tensor_and_khatri_rao_by_tensorly():
    for shape in ((4,), (4, 3), (4, 3, 2, 5)):
        factors = [randn(n, 3, seed=n) for n in shape]
        expected = tensorly.cp_to_tensor((np.ones(3), [f.numpy() for f in factors]))
        np.testing.assert_allclose(cp_to_tensor(factors).numpy(), expected, atol=1e-12)
        if len(shape) > 1:
            expected = tensorly.tenalg.khatri_rao([f.numpy() for f in factors])
            np.testing.assert_allclose(khatri_rao(factors).numpy(), expected)


@pytest.mark.parametrize("factors", [[], [torch.ones(2, 3), torch.ones(2, 2)], [torch.ones(2)]])
def test_cp_to_tensor_errors(factors):
    with pytest.raises(ValueError, match="matrices with as many columns each"):
        cp_to_tensor(factors)


class TestFit:
    @pytest.mark.parametrize("shape, rank", [((8, 7, 3, 3), 4), ((8, 7, 6), 5), ((9, 5), 3)])
    def test_planted_factors_are_found(self, shape, rank):
        x = planted(*shape, rank=rank)
        found = cp_als(x, rank, iterations=1000, tolerance=1e-13)
        assert found.converged and found.error < 1e-8
        assert relative(x, cp_to_tensor(found.factors)) < 1e-8
        if len(shape) > 2:  # unique, up to order and scale: |cosine| 1 with one of the planted components
            for k, (n, factor) in enumerate(zip(shape, found.factors, strict=True)):
                true = randn(n, rank, seed=k)
                cosines = (true / true.norm(dim=0)).T @ (factor / factor.norm(dim=0))
                torch.testing.assert_close(cosines.abs().max(1).values, torch.ones(rank).double())

    @pytest.mark.parametrize("rank, allowed", [(3, 1.01), (12, 1.0)])
    def test_parafac_of_tensorly_is_not_better(self, rank, allowed):
        """Both find local optima: the mean counts. 12 is above the sizes of three modes of four."""
        ours, theirs = [], []
        for seed in range(4):
            x = randn(12, 8, 3, 3, seed=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer = parafac(x.numpy(), rank, n_iter_max=30, tol=0, random_state=seed)
            theirs.append(relative(x, torch.from_numpy(tensorly.cp_to_tensor(peer))))
            ours.append(cp_als(x, rank, iterations=30, tolerance=0).error)
            assert ours[-1] < theirs[-1] * 1.05
        assert np.mean(ours) < np.mean(theirs) * allowed

    def test_a_matrix_is_fitted_as_well_as_by_the_svd(self):
        x = randn(9, 6)
        tail = torch.linalg.svdvals(x)[2:].norm() / x.norm()
        found = cp_als(x, 2, iterations=1000, tolerance=1e-12)
        assert found.error == pytest.approx(tail.item(), rel=1e-6)

    def test_the_first_sweep_solves_the_normal_equations(self):
        """The last factor of a sweep is the least-squares one for the others."""
        x = randn(6, 5, 4)
        found = cp_als(x, 3, iterations=1)
        design = khatri_rao(found.factors[:2])  # (30, 3)
        expected = torch.linalg.lstsq(design, x.reshape(30, 4)).solution.T
        torch.testing.assert_close(found.factors[2], expected, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("x, rank", [(randn(8, 7, 3, 3), 6), (planted(8, 7, 3, 3, rank=3), 3)])
    def test_errors_are_measured_and_never_rise(self, x, rank):
        found = cp_als(x, rank, iterations=60, tolerance=0)
        assert not found.converged or found.error < 1e-9  # an exact fit stands still
        assert all(b <= a + 1e-9 for a, b in zip(found.errors, found.errors[1:], strict=False))
        measured = relative(x, cp_to_tensor(found.factors))
        assert found.error == found.errors[-1] == pytest.approx(measured, abs=1e-14)
        for n in (1, 2, 5):  # a shorter run is the beginning of a longer one
            short = cp_als(x, rank, iterations=n, tolerance=0)
            assert relative(x, cp_to_tensor(short.factors)) == pytest.approx(found.errors[n - 1], rel=1e-6)

    def test_exact_at_the_most_rank_there_is(self):
        x = randn(4, 3, 2)
        assert cp_als(x, 6, iterations=500, tolerance=1e-10).error < 1e-3

    def test_scale_and_dtype_do_not_matter(self):
        x = randn(6, 5, 4)
        found, large = cp_als(x, 3), cp_als((x * 1e12).float(), 3)
        assert large.error == pytest.approx(found.error, rel=1e-5)
        assert large.factors[0].dtype == torch.float64
        norms = torch.stack([factor.norm(dim=0) for factor in large.factors])
        torch.testing.assert_close(norms, norms[:1].expand(3, -1))  # a component is spread evenly

    def test_zeros(self):
        found = cp_als(torch.zeros(4, 3, 2), 2)
        assert (found.error, found.converged) == (0, True) and not cp_to_tensor(found.factors).any()

    def test_same_seed_same_factors_and_the_global_state_stays(self):
        x, state = randn(5, 3, 3), torch.get_rng_state()
        one, two, other = (cp_als(x, 5, iterations=3, seed=seed).factors[0] for seed in (1, 1, 2))
        assert torch.equal(one, two) and not torch.allclose(one, other)
        assert torch.equal(torch.get_rng_state(), state)

    def test_errors(self):
        x = randn(6, 5, 3, 3)
        with pytest.raises(ValueError, match="rank must be a whole number from 1 to 45, got 46"):
            cp_als(x, 46)
        with pytest.raises(ValueError, match="rank must be a whole number from 1 to 45, got 0"):
            cp_als(x, 0)
        with pytest.raises(TypeError, match="rank must be a whole number"):
            cp_als(x, 2.5)
        with pytest.raises(ValueError, match="iterations must be"):
            cp_als(x, 2, iterations=0)
        with pytest.raises(ValueError, match="tolerance must be a finite number of at least 0, got -1"):
            cp_als(x, 2, tolerance=-1)
        with pytest.raises(ValueError, match="ridge must be a finite number of at least 0, got nan"):
            cp_als(x, 2, ridge=float("nan"))
        with pytest.raises(ValueError, match="at least two modes"):
            cp_als(x[0, 0, 0], 1)
        with pytest.raises(TypeError, match="must be floating-point"):
            cp_als(x.int(), 1)
        with pytest.raises(ValueError, match="nan or inf"):
            cp_als(x * float("nan"), 1)


class TestInstability:
    def test_components_explode_while_they_cancel(self):
        """The border case: the longer it runs, the smaller the error and the larger what cancels."""
        x = without_best_approximation()
        few, many = (cp_als(x, 2, iterations=n, tolerance=0) for n in (5, 60))
        assert many.error < 0.01 < 0.1 < few.error < 0.6
        assert many.cancellation > 5 * few.cancellation

    def test_a_ridge_keeps_them_small_and_converges(self):
        x = without_best_approximation()
        free = cp_als(x, 2, iterations=100, tolerance=1e-7)
        calm = cp_als(x, 2, iterations=100, tolerance=1e-7, ridge=1e-2)
        assert calm.converged and calm.cancellation < free.cancellation / 3
        assert free.error < calm.error < 0.5

    def test_cancellation_by_its_definition(self):
        found = cp_als(randn(5, 4, 3), 4, iterations=10)
        size = component_sizes(found.factors).norm() / cp_to_tensor(found.factors).norm()
        assert found.cancellation == pytest.approx(size.item(), rel=1e-9)

    def test_what_the_ridge_adds_is_the_sum_of_the_squared_components(self):
        """The penalised sum never rises, and the answer is better there than the answer without a ridge."""
        x, ridge = randn(6, 5, 4), 0.05

        def objective(factors):
            misfit = (x - cp_to_tensor(factors)).square().sum()
            return (misfit + ridge * component_sizes(factors).square().sum()).item()

        runs = [cp_als(x, 4, iterations=n, tolerance=0, ridge=ridge) for n in range(1, 20)]
        values = [objective(run.factors) for run in runs]
        assert all(b <= a * (1 + 1e-9) for a, b in zip(values, values[1:], strict=False))
        assert values[-1] < objective(cp_als(x, 4, iterations=100).factors)

    def test_more_components_than_there_are(self):
        """The equations are all but singular: the answer is finite, and fits."""
        x = planted(6, 5, 4, rank=1)
        found = cp_als(x, 3, iterations=100)
        assert found.error < 1e-5 and all(factor.isfinite().all() for factor in found.factors)

    def test_not_converged_is_said(self):
        x = randn(8, 7, 3, 3)
        assert not cp_als(x, 6, iterations=3).converged
        found = cp_als(x, 6, iterations=1000, tolerance=1e-4)
        assert found.converged and found.errors[-2] - found.error < 1e-4 and len(found.errors) < 1000


WINDOWS = [
    {},
    dict(stride=2, padding=1, bias=False),
    dict(stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    dict(padding="same", dilation=2),
    dict(padding=(1, 2), padding_mode="circular"),
]


class TestConvolution:
    @pytest.mark.parametrize("options", WINDOWS)
    def test_equals_the_convolution_with_the_rebuilt_kernel(self, options):
        conv = nn.Conv2d(5, 6, (3, 2), **options).double()
        conv.weight.data.copy_(randn(6, 5, 3, 2))
        rebuilt = copy.deepcopy(conv)
        found = cp_als(conv.weight, 4, iterations=200, tolerance=1e-4, ridge=1e-3)
        rebuilt.weight.data.copy_(cp_to_tensor(found.factors))
        x = randn(2, 5, 9, 8, seed=3)
        net = cp_conv(conv, 4)
        torch.testing.assert_close(net(x), rebuilt(x))
        assert not torch.allclose(net(x), conv(x), atol=0.01)

    def test_planted_rank_changes_nothing(self):
        conv = nn.Conv2d(7, 8, 3, stride=2, padding=1).double()
        conv.weight.data.copy_(planted(8, 7, 3, 3, rank=3))
        x = randn(2, 7, 9, 8, seed=3)
        net = cp_conv(conv, 3, iterations=1000, tolerance=1e-12, ridge=0.0)
        torch.testing.assert_close(net(x), conv(x), rtol=1e-5, atol=1e-5)

    def test_four_ordinary_layers_the_middle_two_depthwise(self):
        net = cp_conv(nn.Conv2d(8, 16, 3, stride=2, padding=1).eval(), 5)
        assert [type(layer) for layer in net] == [nn.Conv2d] * 4
        assert [layer.groups for layer in net] == [1, 5, 5, 1]
        assert [layer.kernel_size for layer in net] == [(1, 1), (3, 1), (1, 3), (1, 1)]
        assert [layer.stride for layer in net] == [(1, 1), (2, 1), (1, 2), (1, 1)]
        assert sum(p.numel() for p in net.parameters()) == 5 * (8 + 3 + 3 + 16) + 16
        assert {p.dtype for p in net.parameters()} == {torch.float32} and not net[1].training

    def test_no_convergence_is_an_error(self):
        conv = nn.Conv2d(8, 16, 3)
        message = "CP of rank 12 did not converge in 3 iterations: relative error 0.* larger ridge"
        with pytest.raises(ValueError, match=message):
            cp_conv(conv, 12, iterations=3, tolerance=1e-9)
        with pytest.raises(ValueError, match="did not converge in 1 iterations"):
            cp_conv(conv, 12, iterations=1)

    def test_errors(self):
        with pytest.raises(ValueError, match="groups=2 cannot be decomposed"):
            cp_conv(nn.Conv2d(4, 6, 3, groups=2), 1)
        with pytest.raises(TypeError, match="expected an nn.Conv2d, got Conv1d"):
            cp_conv(nn.Conv1d(4, 6, 3), 1)
        with pytest.raises(ValueError, match="rank must be a whole number from 1 to 36, got 37"):
            cp_conv(nn.Conv2d(4, 6, 3), 37)


@pytest.mark.parametrize("argument", ["ridge", "tolerance"])
def test_ridge_and_tolerance_must_be_finite_numbers(argument):
    with pytest.raises(ValueError, match=f"{argument} must be a finite number of at least 0, got inf"):
        cp_als(randn(3, 3, 3), 2, **{argument: float("inf")})
    with pytest.raises(TypeError, match=f"{argument} must be a finite number of at least 0, got 'a'"):
        cp_als(randn(3, 3, 3), 2, **{argument: "a"})


def test_aligned_components_have_the_least_cancellation():
    """R equal components: the root of R over R."""
    assert cp_als(torch.ones(3, 3, 3), 4).cancellation == pytest.approx(0.5, abs=1e-4)
