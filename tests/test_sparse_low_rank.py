"""Low rank plus sparse: the error never rises, planted parts are found, and the layer is what it stands for."""

from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core import GapSparseCode, UniformCode, count_macs, decompress, encode, get_mask, load, save
from compresslab.hybrid.sparse_low_rank import LowRankSparse, low_rank_plus_sparse, split_layers
from compresslab.lowrank.svd import truncated_svd


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def generator(seed):
    return torch.Generator().manual_seed(seed)


def planted(seed, m=40, n=30, rank=3, nonzeros=50, size=5.0):
    g = generator(seed)
    L = torch.randn(m, rank, generator=g).double() @ torch.randn(rank, n, generator=g).double()
    S = torch.zeros(m * n).double()
    places = torch.randperm(m * n, generator=g)[:nonzeros]
    S[places] = size * torch.randn(nonzeros, generator=g).double().sign()
    return L, S.view(m, n)


@pytest.mark.parametrize("size", [0.5, 5.0, 100.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_sum_is_found(seed, size):
    L, S = planted(seed, size=size)
    B, A, found, errors = low_rank_plus_sparse(L + S, rank=3, nonzeros=50, iterations=60, tolerance=1e-12)
    assert B.shape == (40, 3) and A.shape == (3, 30) and int((found != 0).sum()) <= 50
    torch.testing.assert_close(B @ A, L, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, S, atol=1e-4, rtol=1e-4)
    assert errors[-1] < 1e-5


@pytest.mark.parametrize("start", ["low rank", "sparse"])
@pytest.mark.parametrize("seed", range(4))
def test_the_error_never_rises_and_is_that_of_the_parts(seed, start):
    W = torch.randn(20, 25, generator=generator(seed)).double()
    B, A, S, errors = low_rank_plus_sparse(W, 4, 60, start=start, tolerance=0.0)
    assert len(errors) > 5 and all(b <= a * (1 + 1e-12) for a, b in zip(errors, errors[1:], strict=False))
    assert errors[-1] == pytest.approx(((W - B @ A - S).norm() / W.norm()).item(), abs=1e-12)
    assert low_rank_plus_sparse(W, 4, 60, tolerance=0.0)[3][-1] <= errors[-1]  # both starts: the better


def test_alone_each_part_is_its_projection():
    W = torch.randn(6, 8, generator=generator(0))
    B, A, S, _ = low_rank_plus_sparse(W, 2, 0)
    one, other = truncated_svd(W, 2)
    torch.testing.assert_close(B @ A, one @ other)
    assert not S.any() and B.dtype == torch.float32
    B, A, S, errors = low_rank_plus_sparse(W, 0, 48)
    assert B.shape == (6, 0) and torch.equal(S, W) and errors[-1] == 0


def test_together_they_beat_either_part_of_the_same_size():
    """A planted sum: 30 * 70 + 50 numbers against as many in one part alone."""
    L, S = planted(0)
    W = L + S
    both = low_rank_plus_sparse(W, 3, 50)[3][-1]
    low = low_rank_plus_sparse(W, 4, 0)[3][-1]
    sparse = low_rank_plus_sparse(W, 0, 3 * 70 + 50)[3][-1]
    assert both < 1e-3 < 0.05 < min(low, sparse)


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_computes_what_its_dense_form_computes(bias):
    layer = nn.Linear(12, 9, bias=bias)
    parts = LowRankSparse.from_dense(layer, rank=3, nonzeros=10)
    x = torch.randn(2, 5, 12, generator=generator(1))
    dense = parts.to_dense()
    torch.testing.assert_close(parts(x), dense(x))
    B, A, S, _ = low_rank_plus_sparse(layer.weight, 3, 10)
    torch.testing.assert_close(dense.weight, B @ A + S)
    assert parts.nonzeros == 10 and (parts.bias is None) == (dense.bias is None) == (not bias)
    full = LowRankSparse.from_dense(layer, rank=9, nonzeros=0)
    torch.testing.assert_close(full(x), layer(x), atol=1e-5, rtol=1e-5)


def test_the_zeros_of_the_sparse_part_hold_in_training():
    model = split_layers(nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4)), {"0": (2, 10)})
    before, mask = model[0].weight.detach().clone(), get_mask(model[0].sparse)
    updates = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        updates.zero_grad()
        model(torch.randn(8, 12)).square().sum().backward()
        updates.step()
    assert int(mask.sum()) == 10 and not model[0].sparse.weight[~mask].any()
    assert not torch.equal(model[0].weight, before) and model[0].reduce.out_features == 2


@pytest.mark.parametrize("coded", [False, True])
def test_the_stored_layer_comes_back(tmp_path, coded):
    skeleton = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 4))
    model = split_layers(skeleton, {"0": (3, 50)})
    if coded:
        eight = partial(UniformCode.from_dense, bits=8, axis=0)
        model = encode(model, {"0.sparse": GapSparseCode.from_dense, "0.reduce": eight, "0.expand": eight})
    size = save(model, tmp_path / "net.safetensors", entropy=True)
    back = load(tmp_path / "net.safetensors", skeleton)
    x = torch.randn(5, 40, generator=generator(2))
    assert type(back[0]) is LowRankSparse and torch.equal(back(x), model(x)) and back[0].nonzeros == 50
    torch.testing.assert_close(decompress(back)(x), model(x))
    assert not coded or size < 4 * 40 * 30


def test_macs_are_those_of_the_three_parts():
    """Zeros are multiplied: the split layer takes more than the dense one, which is its own dense form."""
    model = split_layers(nn.Sequential(nn.Linear(40, 30)), {"0": (3, 50)})
    assert count_macs(model, (40,)).total == 3 * (40 + 30) + 40 * 30
    assert count_macs(nn.Sequential(model[0].to_dense()), (40,)).total == 40 * 30


def test_splitting_leaves_the_model_alone():
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parts = split_layers(model, {"2": (1, 3)}, start="sparse")
    assert type(model[2]) is nn.Linear and type(parts[0]) is nn.Linear and type(parts[2]) is LowRankSparse
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: low_rank_plus_sparse(torch.ones(3, 4), 4, 0), ValueError, "rank must be .* from 0 to 3"),
        (lambda: low_rank_plus_sparse(torch.ones(3, 4), 1, 13), ValueError, "nonzeros must be .* from 0 to 12"),
        (lambda: low_rank_plus_sparse(torch.ones(3, 4), 1, 1, iterations=0), ValueError, "iterations must be"),
        (lambda: low_rank_plus_sparse(torch.ones(3, 4), 1, 1, start="S"), ValueError, "start must be one of low rank"),
        (lambda: low_rank_plus_sparse(torch.ones(3), 1, 1), ValueError, "matrix"),
        (lambda: LowRankSparse.from_dense(nn.ReLU(), 1, 1), TypeError, "expected an nn.Linear"),
        (lambda: LowRankSparse.from_dense(nn.Linear(3, 4), 0, 1), ValueError, "rank must be .* from 1 to 3"),
        (lambda: LowRankSparse(nn.ReLU(), nn.Linear(2, 3), nn.Linear(4, 3)), TypeError, "reduce must be"),
        (lambda: LowRankSparse(nn.Linear(4, 2), nn.Linear(2, 3), nn.Linear(4, 4)), ValueError, "do not match"),
        (lambda: split_layers(nn.Sequential(nn.Linear(3, 4)), {}), ValueError, "at least one layer"),
        (lambda: split_layers(nn.Sequential(nn.Linear(3, 4)), {"1": (1, 1)}), ValueError, "no such layer"),
        (lambda: split_layers(nn.Sequential(nn.Linear(3, 4)), {"0": (9, 1)}), ValueError, "in layer '0'"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
