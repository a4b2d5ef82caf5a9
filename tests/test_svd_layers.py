"""Truncated SVD: Eckart-Young, the break-even rank, two linear layers for one, every error."""

import copy

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from compresslab.core.macs import count_macs
from compresslab.lowrank.ranks import energy_rank
from compresslab.lowrank.svd import break_even_rank, linear_pair, svd_linear, truncated_svd, truncation_error


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TestTruncatedSvd:
    @pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (1, 4), (4, 1)])
    def test_error_is_that_of_eckart_and_young(self, shape):
        matrix = randn(*shape)
        sigma = scipy.linalg.svdvals(matrix.numpy())
        for rank in range(1, min(shape) + 1):
            B, A = truncated_svd(matrix, rank)
            assert B.shape == (shape[0], rank) and A.shape == (rank, shape[1])
            left_out = np.sqrt((sigma[rank:] ** 2).sum())
            assert (matrix - B @ A).norm().item() == pytest.approx(left_out, abs=1e-12)
            assert truncation_error(torch.from_numpy(sigma), rank) == pytest.approx(left_out, abs=1e-12)
        torch.testing.assert_close(B @ A, matrix)

    def test_no_other_matrix_of_that_rank_is_nearer(self):
        """Alternating least squares from other starts ends no lower."""
        matrix = randn(7, 9)
        least = truncation_error(torch.linalg.svdvals(matrix), 3)
        for seed in range(3):
            A = randn(3, 9, seed=seed + 1)
            for _ in range(50):
                B = torch.linalg.lstsq(A.T, matrix.T).solution.T
                A = torch.linalg.lstsq(B, matrix).solution
            assert (matrix - B @ A).norm() >= least - 1e-12

    def test_the_scale_is_split_evenly(self):
        B, A = truncated_svd(randn(6, 9), 4)
        torch.testing.assert_close(B.T @ B, A @ A.T)  # both are diag(sigma)
        torch.testing.assert_close(B.T @ B, torch.diag((B.T @ B).diagonal()))

    def test_dtype_stays_and_the_arithmetic_is_double(self):
        B, A = truncated_svd(randn(6, 9).bfloat16(), 4)
        assert B.dtype == A.dtype == torch.bfloat16
        matrix = randn(30, 40).float()
        B, A = truncated_svd(matrix, 30)
        torch.testing.assert_close(B @ A, matrix, rtol=0, atol=1e-5)

    def test_a_matrix_of_zeros(self):
        B, A = truncated_svd(torch.zeros(3, 4), 2)
        assert not (B @ A).any()

    @pytest.mark.parametrize(
        "matrix, rank, error, message",
        [
            (torch.ones(3, 4), 0, ValueError, "rank must be a whole number from 1 to 3, got 0"),
            (torch.ones(3, 4), 4, ValueError, "rank must be a whole number from 1 to 3, got 4"),
            (torch.ones(3, 4), 0.5, TypeError, "rank must be a whole number"),
            (torch.ones(3, 4, 2), 1, ValueError, r"rows and columns, got shape \(3, 4, 2\)"),
            (torch.ones(0, 4), 1, ValueError, r"entries, got shape \(0, 4\)"),
            (torch.ones(3, 4, dtype=torch.int64), 1, TypeError, "matrix must be floating-point, got torch.int64"),
            ([[1.0]], 1, TypeError, "matrix must be floating-point, got list"),
            (torch.tensor([[1.0, float("nan")]]), 1, ValueError, "finite, got nan or inf"),
        ],
    )
    def test_errors(self, matrix, rank, error, message):
        with pytest.raises(error, match=message):
            truncated_svd(matrix, rank)


class TestTruncationError:
    def test_all_and_none(self):
        sigma = torch.tensor([4.0, 3.0])
        assert truncation_error(sigma, 0) == 5 and truncation_error(sigma, 2) == 0

    def test_errors(self):
        with pytest.raises(ValueError, match="rank must be a whole number from 0 to 2, got 3"):
            truncation_error(torch.ones(2), 3)


class TestBreakEvenRank:
    def test_by_the_definition(self):
        """The largest k with k (m + n) < m n, found by trying."""
        for m in range(1, 20):
            for n in range(1, 20):
                saving = [k for k in range(1, m * n + 1) if k * (m + n) < m * n]
                assert break_even_rank(m, n) == max(saving, default=0)

    def test_the_pair_at_break_even_is_smaller_and_one_rank_more_is_not(self):
        layer = nn.Linear(60, 20, bias=False)
        rank = break_even_rank(20, 60)
        numbers = [sum(p.numel() for p in svd_linear(layer, k).parameters()) for k in (rank, rank + 1)]
        assert numbers[0] < 1200 <= numbers[1]

    def test_errors(self):
        with pytest.raises(ValueError, match="m must be a whole number of at least 1, got 0"):
            break_even_rank(0, 3)
        with pytest.raises(TypeError, match="n must be"):
            break_even_rank(3, 2.0)


class TestSvdLinear:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("rank", [1, 3, 5])
    def test_two_layers_equal_the_nearest_weight_and_the_bias_once(self, bias, rank):
        layer = nn.Linear(8, 5, bias=bias).double()
        u, s, vh = torch.linalg.svd(layer.weight.detach())
        nearest = u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]
        x = randn(3, 2, 8)  # more than one leading axis
        pair = svd_linear(layer, rank)
        torch.testing.assert_close(pair(x), nn.functional.linear(x, nearest, layer.bias))
        assert pair.reduce.bias is None and (pair.expand.bias is not None) == bias
        if rank == 5:
            torch.testing.assert_close(pair(x), layer(x))

    def test_cost(self):
        pair = svd_linear(nn.Linear(30, 20), 4)
        assert count_macs(pair, (30,)).total == 4 * 50
        assert sum(p.numel() for p in pair.parameters()) == 4 * 50 + 20

    def test_layer_is_not_modified_nor_shared_nor_is_the_random_state(self):
        layer = nn.Linear(6, 4).half()
        before, state = copy.deepcopy(layer.state_dict()), torch.get_rng_state()
        pair = svd_linear(layer, 2)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(p.dtype == torch.float16 for p in pair.parameters())
        for p in pair.parameters():
            p.data.zero_()
        assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())

    def test_given_factors_and_bias(self):
        layer = nn.Linear(6, 4).double()
        B, A, bias = randn(4, 2), randn(2, 6), randn(4)
        x = randn(3, 6)
        torch.testing.assert_close(linear_pair(layer, B, A, bias)(x), x @ A.T @ B.T + bias)

    def test_errors(self):
        with pytest.raises(TypeError, match="expected an nn.Linear, got Conv2d"):
            svd_linear(nn.Conv2d(3, 4, 1), 1)
        with pytest.raises(ValueError, match="rank must be a whole number from 1 to 4, got 5"):
            svd_linear(nn.Linear(6, 4), 5)


@pytest.mark.parametrize(
    "values, error, message",
    [
        (torch.ones(2, 2), ValueError, r"must be \(r,\), r >= 1, got shape \(2, 2\)"),
        (torch.tensor([1.0, float("nan")]), ValueError, "finite"),
        (torch.tensor([1.0, 2.0]), ValueError, "descending"),
        (torch.tensor([1.0, -2.0]), ValueError, "at least 0"),
        ([2.0, 1.0], TypeError, "floating-point, got list"),
    ],
)
def test_what_is_no_row_of_singular_values_is_refused(values, error, message):
    for ask in (lambda: truncation_error(values, 1), lambda: energy_rank(values, 0.9)):
        with pytest.raises(error, match=message):
            ask()


def test_the_pair_keeps_the_mode_and_what_is_frozen():
    layer = nn.Linear(6, 4).eval()
    layer.weight.requires_grad_(False)
    pair = svd_linear(layer, 2)
    assert not any(module.training for module in pair.modules())
    assert [name for name, p in pair.named_parameters() if p.requires_grad] == ["expand.bias"]
