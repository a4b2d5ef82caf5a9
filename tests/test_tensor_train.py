"""Tensor train: the error is what the working matrices lose; the layer never builds its matrix; files."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from compresslab.core.macs import count_macs
from compresslab.core.store import load, save
from compresslab.lowrank.tensor_train import TTLinear, tt_parameters, tt_svd, tt_to_tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorly
    from tensorly.decomposition import tensor_train


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ranks_of(cores):
    return [core.shape[-1] for core in cores[:-1]]


def working_tails(x, cores):
    """The squared norm that each step cut off: of C_k, and what its core leaves of it."""
    work, tails = x, []
    for core in cores[:-1]:
        matrix = work.reshape(core.shape[0] * core.shape[1], -1)
        s = torch.linalg.svdvals(matrix)
        tails.append(s[core.shape[2] :].square().sum().item())
        work = core.flatten(0, 1).T @ matrix
    return tails


class TestSVD:
    @pytest.mark.parametrize("ranks", [(2, 3, 2), (1, 1, 1), (3, 2, 5), 2])
    def test_squared_error_is_the_sum_of_the_tails_of_the_working_matrices(self, ranks):
        x = randn(4, 5, 3, 6)
        cores = tt_svd(x, ranks)
        squared = (x - tt_to_tensor(cores)).square().sum().item()
        assert squared == pytest.approx(sum(working_tails(x, cores)), rel=1e-10)
        bounds = [
            torch.linalg.svdvals(x.reshape(math.prod(x.shape[:k]), -1))[rank:].square().sum().item()
            for k, rank in enumerate(ranks_of(cores), start=1)
        ]
        assert max(bounds) <= squared <= sum(bounds)  # the unfoldings of x only bound it
        assert squared < sum(bounds) * 0.99

    @pytest.mark.parametrize("ranks", [(2, 3, 2), (3, 2, 5)])
    def test_by_tensorly(self, ranks):
        x = randn(4, 5, 3, 6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = tensor_train(x.numpy(), rank=[1, *ranks, 1])
        ours = tt_svd(x, ranks)
        np.testing.assert_allclose(tt_to_tensor(ours).numpy(), tensorly.tt_to_tensor(theirs), atol=1e-10)
        assert [c.shape for c in ours] == [c.shape for c in theirs]
        np.testing.assert_allclose(
            tt_to_tensor(ours).numpy(), tensorly.tt_to_tensor([c.numpy() for c in ours]), atol=1e-12
        )

    def test_exact_at_full_ranks_and_at_planted_ones(self):
        x = randn(4, 5, 3)
        torch.testing.assert_close(tt_to_tensor(tt_svd(x, (4, 3))), x)
        torch.testing.assert_close(tt_to_tensor(tt_svd(x, 4)), x)
        cores = [randn(1, 6, 2), randn(2, 5, 3, seed=1), randn(3, 7, 1, seed=2)]
        planted = tt_to_tensor(cores)
        torch.testing.assert_close(tt_to_tensor(tt_svd(planted, (2, 3))), planted)
        assert ranks_of(tt_svd(planted, error=1e-10)) == [2, 3]

    def test_two_modes_are_the_truncated_svd_and_cores_are_orthonormal(self):
        x = randn(6, 5)
        s = torch.linalg.svdvals(x)
        assert (x - tt_to_tensor(tt_svd(x, 2))).norm().item() == pytest.approx(s[2:].norm().item(), rel=1e-12)
        for core in tt_svd(randn(4, 5, 6), (3, 4))[:-1]:
            q = core.flatten(0, 1)
            torch.testing.assert_close(q.T @ q, torch.eye(q.shape[1], dtype=q.dtype))

    @pytest.mark.parametrize("error", [0.0, 0.1, 0.5, 1.0])
    def test_keeps_the_error_asked_for(self, error):
        x = randn(4, 5, 3, 6)
        cores = tt_svd(x, error=error)
        assert (x - tt_to_tensor(cores)).norm() <= error * x.norm() + 1e-10
        allowed = (error * x.norm().item()) ** 2 / 3
        work = x
        for core in cores[:-1]:  # one rank less would have cut off too much
            matrix = work.reshape(core.shape[0] * core.shape[1], -1)
            s = torch.linalg.svdvals(matrix)
            assert core.shape[2] == 1 or s[core.shape[2] - 1 :].square().sum() > allowed
            work = core.flatten(0, 1).T @ matrix

    def test_errors(self):
        x = randn(4, 5, 3)
        for arguments in ({}, dict(ranks=2, error=0.1)):
            with pytest.raises(ValueError, match="either ranks or error"):
                tt_svd(x, **arguments)
        with pytest.raises(ValueError, match=r"error must be in \[0, 1\], got 10; did you mean 0.1"):
            tt_svd(x, error=10)
        with pytest.raises(ValueError, match="rank 2 of the train must be a whole number from 1 to 3, got 4"):
            tt_svd(x, (4, 4))
        with pytest.raises(ValueError, match="rank 1 of the train must be a whole number from 1 to 4, got 0"):
            tt_svd(x, (0, 1))
        for rank in (0, 5):
            with pytest.raises(ValueError, match=f"the rank must be a whole number from 1 to 4, got {rank}"):
                tt_svd(x, rank)
        with pytest.raises(ValueError, match="3 modes need 2 ranks"):
            tt_svd(x, (2,))
        with pytest.raises(ValueError, match="at least two modes"):
            tt_svd(x[0, 0], 1)
        with pytest.raises(TypeError, match="must be floating-point"):
            tt_svd(x.long(), 1)

    @pytest.mark.parametrize(
        "cores, message",
        [
            ([], "must have shapes"),
            ([torch.ones(2, 2)], "must have shapes"),
            ([torch.ones(1, 2, 2), torch.ones(3, 2, 1)], "must meet"),
            ([torch.ones(2, 2, 1)], "1 at both ends"),
            ([torch.ones(1, 2, 2)], "1 at both ends"),
        ],
    )
    def test_errors_of_the_way_back(self, cores, message):
        with pytest.raises(ValueError, match=message):
            tt_to_tensor(cores)


def dense(in_features, out_features, **options):
    layer = nn.Linear(in_features, out_features, **options).double()
    layer.weight.data.copy_(randn(out_features, in_features))
    return layer


class TestParameters:
    def test_fc6_of_vgg(self):
        """25088 x 4096 at rank 2: the published 200,000 to 1 is 194,622."""
        count = tt_parameters((2, 7, 8, 8, 7, 4), (4,) * 6, 2)
        assert count == 528 and 25088 * 4096 // count == 194622
        layer = TTLinear((2, 7, 8, 8, 7, 4), (4,) * 6, 2)
        assert (layer.in_features, layer.out_features) == (25088, 4096)
        assert sum(p.numel() for p in layer.parameters()) == 528

    @pytest.mark.parametrize("ranks", [3, (2, 4)])
    def test_by_the_layer(self, ranks):
        layer = TTLinear((4, 3, 2), (2, 5, 3), ranks)
        assert tt_parameters((4, 3, 2), (2, 5, 3), ranks) == sum(p.numel() for p in layer.parameters())


class TestTTLinear:
    def test_is_the_matrix_by_its_definition(self):
        """W(i, j) = G1[i1, j1] G2[i2, j2] G3[i3, j3], digit by digit."""
        layer = TTLinear((4, 3, 2), (2, 5, 3), (2, 4), bias=True).double()
        layer.bias.data.copy_(randn(30))
        g1, g2, g3 = (core.detach() for core in layer.cores)
        weight = torch.zeros(30, 24, dtype=torch.float64)
        for i in range(30):
            for j in range(24):
                i1, i2, i3 = np.unravel_index(i, (2, 5, 3))
                j1, j2, j3 = np.unravel_index(j, (4, 3, 2))
                weight[i, j] = g1[:, i1, j1] @ g2[:, i2, j2] @ g3[:, i3, j3]
        x = randn(7, 24)
        torch.testing.assert_close(layer(x), x @ weight.T + layer.bias)
        torch.testing.assert_close(layer.to_dense().weight, weight)

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize(
        "in_modes, out_modes, full", [((4, 3, 2), (2, 5, 3), 8), ((6, 4), (5, 6), 24), ((24,), (30,), 1)]
    )
    def test_full_rank_is_the_dense_layer(self, in_modes, out_modes, full, bias):
        layer = dense(24, 30, bias=bias)
        train = TTLinear.from_dense(layer, in_modes, out_modes, full)
        x = randn(3, 5, 24)
        torch.testing.assert_close(train(x), layer(x))
        back = train.to_dense()
        torch.testing.assert_close(back.weight, layer.weight)
        assert (back.bias is None) == (not bias) and train(x[0, 0]).shape == (30,)

    def test_error_is_that_of_the_train_of_digit_pairs(self):
        layer = dense(24, 30)
        digits = layer.weight.detach().reshape(2, 5, 3, 4, 3, 2).permute(0, 3, 1, 4, 2, 5).reshape(8, 15, 6)
        expected = (digits - tt_to_tensor(tt_svd(digits, (3, 2)))).norm()
        train = TTLinear.from_dense(layer, (4, 3, 2), (2, 5, 3), (3, 2))
        torch.testing.assert_close((train.to_dense().weight - layer.weight).norm(), expected)
        x = randn(4, 24)
        torch.testing.assert_close(train(x), train.to_dense()(x))

    def test_forward_never_builds_the_matrix(self):
        """fc6 of VGG would be 100 million numbers; what autograd keeps is far less."""
        layer, kept = TTLinear((2, 7, 8, 8, 7, 4), (4,) * 6, 2), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            y = layer(torch.ones(1, 25088))
        assert y.shape == (1, 4096) and max(kept) < 25088 * 4096 / 1000

    def test_macs(self):
        """Each core, as a matrix, meets a matrix: the products of the sizes, summed, for any batch."""
        layer = TTLinear((4, 3, 2), (2, 5, 3), (2, 4))
        first, second, third = (2 * 2) * 4 * (3 * 2), (5 * 4) * (2 * 3) * (2 * 2), 3 * (4 * 2) * (2 * 5)
        assert count_macs(nn.Sequential(layer), (24,)).total == first + second + third
        batch = layer.count_macs((torch.ones(7, 5, 24),), torch.ones(7, 5, 30))
        assert batch == 35 * (first + second + third)

    def test_starts_like_a_linear_layer_and_trains(self):
        layer = TTLinear((8, 8, 8), (8, 8, 8), 8, bias=True, seed=3)
        std = layer.to_dense().weight.std().item()
        assert 0.5 < std / (1 / (3 * 512)) ** 0.5 < 2
        layer(torch.ones(2, 512)).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in layer.parameters())
        again, other = TTLinear((8, 8), (8, 8), 8, seed=1), TTLinear((8, 8), (8, 8), 8, seed=2)
        assert torch.equal(again.core_0, TTLinear((8, 8), (8, 8), 8, seed=1).core_0)
        assert not torch.equal(again.core_0, other.core_0)

    @pytest.mark.parametrize("bias", [True, False])
    def test_saved_and_loaded(self, bias, tmp_path):
        net = nn.Sequential(nn.Linear(24, 30, bias=bias), nn.ReLU(), nn.Linear(30, 4))
        small = nn.Sequential(TTLinear.from_dense(net[0], (4, 3, 2), (2, 5, 3), (3, 2)), *net[1:])
        x = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
        save(small, tmp_path / "net.safetensors")
        loaded = load(tmp_path / "net.safetensors", net)
        assert torch.equal(loaded(x), small(x)) and loaded[0].ranks == (3, 2)
        assert torch.equal(copy.deepcopy(small)(x), small(x))

    def test_layer_is_not_modified_and_nothing_is_shared(self):
        layer = nn.Linear(6, 4)
        before = copy.deepcopy(layer.state_dict())
        train = TTLinear.from_dense(layer, (3, 2), (2, 2), 4)
        assert {p.dtype for p in train.parameters()} == {torch.float32}
        for p in train.parameters():
            p.data.zero_()
        assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())

    def test_errors(self):
        layer = nn.Linear(24, 30)
        with pytest.raises(ValueError, match=r"in_modes \(4, 3\) multiply to 12, .* in_features=24"):
            TTLinear.from_dense(layer, (4, 3), (5, 6), 1)
        with pytest.raises(ValueError, match="out_modes .* out_features=30"):
            TTLinear.from_dense(layer, (4, 6), (5, 5), 1)
        with pytest.raises(TypeError, match="expected an nn.Linear, got Conv2d"):
            TTLinear.from_dense(nn.Conv2d(1, 1, 1), (4, 6), (5, 6), 1)
        for call in (TTLinear, tt_parameters):
            with pytest.raises(ValueError, match="must be as many"):
                call((4, 6), (30,), 1)
            with pytest.raises(ValueError, match="must be as many"):
                call((), (), 1)
            with pytest.raises(ValueError, match="a mode must be a whole number of at least 1, got 0"):
                call((4, 0), (5, 6), 1)
            with pytest.raises(ValueError, match="the rank must be a whole number from 1 to 20, got 21"):
                call((4, 6), (5, 6), 21)
            with pytest.raises(ValueError, match="the rank must be a whole number from 1 to 20, got 0"):
                call((4, 6), (5, 6), 0)
            with pytest.raises(ValueError, match="rank 1 of the train must be .* from 1 to 20, got 21"):
                call((4, 6), (5, 6), (21,))
        with pytest.raises(ValueError, match="the cores must have the shapes"):
            TTLinear((2, 2), (2, 2), 1, core_0=torch.ones(1, 2, 2, 1))
        with pytest.raises(ValueError, match=r"bias must have shape \(4,\), got \(3,\)"):
            TTLinear((2, 2), (2, 2), 1, torch.ones(3))
        with pytest.raises(ValueError, match="the input must have 4 features, got 5"):
            TTLinear((2, 2), (2, 2), 1)(torch.ones(1, 5))


def test_what_is_frozen_stays_frozen():
    layer = nn.Linear(6, 4)
    layer.weight.requires_grad_(False)
    train = TTLinear.from_dense(layer, (2, 3), (2, 2), 2)
    assert [name for name, p in train.named_parameters() if p.requires_grad] == ["bias"]
