"""HashedNets: the hash bit for bit, gradients that are sums, values that are means, and what collisions cost."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from compresslab.core import decompress, encode, load, save, storage_bits, storage_report
from compresslab.sharing.hashing import HashedCode, bucket_loads, collisions, hash_indices, splitmix64


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- the hash ------------------------------------------------------------------------------------------------


def test_known_answers():
    """The first outputs of splitmix64 as they are published for these seeds."""
    assert splitmix64(3).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(5, seed=1234567).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_the_hash_is_whole_number_arithmetic_modulo_2_to_the_64(seed):
    def mix(i):
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    assert splitmix64(50, seed).tolist() == [mix(i) for i in range(50)]


def test_buckets_and_signs_follow_from_the_hash():
    indices, signs = hash_indices((4, 5), 7, seed=3)
    hashes = splitmix64(20, 3).tolist()
    assert indices.flatten().tolist() == [(h >> 1) % 7 for h in hashes]
    assert signs.flatten().tolist() == [-1.0 if h & 1 else 1.0 for h in hashes]
    assert indices.shape == signs.shape == (4, 5)
    assert indices.dtype == torch.int64 and signs.dtype == torch.float32


def test_the_same_seed_gives_the_same_table_and_another_one_another():
    first, again, other = (hash_indices((30, 30), 90, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert (first[0] == other[0]).float().mean() < 0.05 and 0.4 < (first[1] == other[1]).float().mean() < 0.6


def test_the_global_generators_are_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    HashedCode.from_dense(randn(6, 6), 4, keep_scale=True)
    assert torch.equal(states[0], torch.get_rng_state()) and (states[1] == np.random.get_state()[1]).all()


def test_loads_are_even_signs_are_balanced_and_independent_of_the_bucket():
    n, K = 100_000, 100
    indices, signs = hash_indices((n,), K)
    loads = bucket_loads(indices, K)
    assert loads.sum() == n
    chi2 = ((loads - n / K).square() / (n / K)).sum()
    assert 60 < chi2 < 150  # 99 degrees of freedom: 99 +- 14
    sums = torch.zeros(K).index_add_(0, indices, signs)
    assert sums.abs().max() < 4.5 * (n / K) ** 0.5 and abs(signs.sum()) < 4 * n**0.5


@pytest.mark.parametrize("K", [1000, 10_000, 30_000])
def test_as_many_collisions_as_chance_has(K):
    n = 10_000
    loads = bucket_loads(hash_indices((n,), K, seed=1)[0], K)
    expected = n * (1 - (1 - 1 / K) ** (n - 1))
    assert collisions(loads) == pytest.approx(expected, rel=0.05)
    counts = np.bincount(hash_indices((n,), K, seed=1)[0].numpy(), minlength=K)
    assert collisions(loads) == n - (counts == 1).sum()
    assert int((loads == 0).sum()) == pytest.approx(K * (1 - 1 / K) ** n, rel=0.05, abs=3)


def test_injective():
    indices, _ = hash_indices((6, 5), 30, injective=True)
    assert sorted(indices.flatten().tolist()) == list(range(30))
    assert indices.flatten().tolist() == np.argsort(np.argsort(splitmix64(30))).tolist()
    assert collisions(bucket_loads(indices, 30)) == 0
    assert collisions(bucket_loads(hash_indices((6, 5), 30)[0], 30)) > 0


# -- the code ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (0,), (7, 5), (4, 3, 3, 2)])
def test_decode_looks_up_and_signs(shape):
    numel = int(np.prod(shape))
    code = HashedCode(randn(max(1, numel // 2)), shape, seed=2)
    indices, signs = hash_indices(shape, len(code.values), 2)
    assert torch.equal(code.decode(), signs * code.values[indices])
    assert torch.equal(code.indices, indices) and torch.equal(code.signs, signs)
    assert code.decode().dtype == torch.float32 and code.decode().shape == shape


def test_the_gradient_of_a_value_is_the_signed_sum_over_its_uses():
    """For a linear layer the paper's sum of xi a_j delta_i, and not their mean."""
    code = HashedCode(randn(9).requires_grad_(), (6, 8), seed=4)
    x, y = randn(5, 8, seed=1), randn(5, 6, seed=2)
    error = x @ code.decode().T - y
    (error.square().sum() / 2).backward()
    delta = error.detach().T @ x  # dL / dV
    expected = torch.zeros(9)
    for i in range(6):
        for j in range(8):
            expected[code.indices[i, j]] += code.signs[i, j] * delta[i, j]
    torch.testing.assert_close(code.values.grad, expected, rtol=1e-5, atol=1e-4)


def test_with_an_injective_table_it_is_a_dense_layer():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    coded = encode(plain, partial(HashedCode.from_dense, fraction=1.0, injective=True))
    x, y = randn(20, 6), torch.arange(20) % 3
    for model in (plain, coded):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    torch.testing.assert_close(coded(x), plain(x), rtol=1e-4, atol=1e-5)
    assert storage_bits(coded) == storage_bits(plain)


def test_from_dense_is_the_least_squares_solution():
    weight = randn(9, 11)
    code = HashedCode.from_dense(weight, 20, seed=1)
    design = torch.zeros(99, 20, dtype=torch.float64)
    design[torch.arange(99), code.indices.flatten()] = code.signs.flatten().double()
    best = np.linalg.lstsq(design.numpy(), weight.flatten().double().numpy(), rcond=None)[0]
    np.testing.assert_allclose(code.values.detach().numpy(), best, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(HashedCode.from_dense(code.decode().detach(), 20, seed=1).decode(), code.decode())


def test_keep_scale_gives_a_random_weight_back_its_size():
    weight = randn(60, 70)
    code, kept = (HashedCode.from_dense(weight, 42, keep_scale=keep) for keep in (False, True))
    rms = lambda w: float(w.detach().square().mean().sqrt())  # noqa: E731
    assert rms(code.decode()) < 0.2 * rms(weight)  # a mean of 100 is a tenth as large
    assert rms(kept.decode()) == pytest.approx(rms(weight), rel=1e-5)
    torch.testing.assert_close(kept.values / kept.values.norm(), code.values / code.values.norm())
    assert not HashedCode.from_dense(torch.zeros(4, 4), 3, keep_scale=True).decode().any()


def test_fraction_is_of_each_layer():
    model = encode(nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 2)), partial(HashedCode.from_dense, fraction=0.1))
    assert [len(layer.coded.values) for layer in model] == [60, 6]
    assert len(HashedCode.from_dense(randn(3, 3), fraction=1e-6).values) == 1


def test_only_the_values_are_stored_and_a_file_brings_them_back(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    x = randn(2, 3, 8, 8)
    coded = encode(model, partial(HashedCode.from_dense, fraction=0.05, seed=7, keep_scale=True)).eval()
    values, biases = round(0.05 * 216) + round(0.05 * 1152), 12
    assert storage_bits(coded) == 32 * (values + biases)
    assert storage_report(coded).by_role == {"values": 32 * values, "bias": 32 * biases}
    save(coded, tmp_path / "hashed.cl")
    for other in (load(tmp_path / "hashed.cl", model), copy.deepcopy(coded), decompress(coded)):
        assert torch.equal(other(x), coded(x))
    assert [name for name, _ in load(tmp_path / "hashed.cl", model).named_parameters()] == [
        name for name, _ in coded.named_parameters()
    ]


def test_a_copy_trains_alone():
    code = HashedCode(randn(5), (4, 4))
    other = copy.deepcopy(code)
    with torch.no_grad():
        other.values.zero_()
    assert code.decode().any() and not other.decode().any()


def test_the_weight_is_not_changed():
    weight = randn(5, 5)
    before = weight.clone()
    code = HashedCode.from_dense(weight, 25, injective=True)
    with torch.no_grad():
        code.values.zero_()
    assert torch.equal(weight, before)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: HashedCode.from_dense(randn(3, 4)), ValueError, "buckets or fraction, one of the two"),
        (lambda: HashedCode.from_dense(randn(3, 4), 3, fraction=0.5), ValueError, "one of the two, got 3 and 0.5"),
        (lambda: HashedCode.from_dense(randn(3, 4), 0), ValueError, "from 1 to 12, got 0"),
        (lambda: HashedCode.from_dense(randn(3, 4), 13), ValueError, "from 1 to 12, got 13"),
        (lambda: HashedCode.from_dense(randn(3, 4), 2.5), TypeError, "whole number"),
        (lambda: HashedCode.from_dense(randn(3, 4), fraction=10), ValueError, "did you mean 0.1?"),
        (lambda: HashedCode.from_dense(randn(3, 4), fraction=0.0), ValueError, "fraction must be above 0, got 0"),
        (lambda: HashedCode.from_dense(randn(3, 4), 5, injective=True), ValueError, "12 weights needs as many buckets"),
        (lambda: HashedCode.from_dense(randn(3, 4), 5, seed=-1), ValueError, "seed must be"),
        (lambda: HashedCode.from_dense(torch.ones(3, dtype=torch.int64), 2), TypeError, "floating-point"),
        (lambda: HashedCode(torch.ones(3, dtype=torch.int64), (2, 3)), TypeError, "values must be floating-point"),
        (lambda: HashedCode(randn(7), (2, 3)), ValueError, "K from 1 to 6"),
        (lambda: HashedCode(randn(1, 3), (2, 3)), ValueError, "K from 1 to 6"),
        (lambda: HashedCode(randn(3), (2, 3), injective=True), ValueError, "needs as many buckets, got 3"),
        (lambda: hash_indices((3,), 2, injective=True), ValueError, "an injective table of 3 weights"),
        (lambda: hash_indices((3,), 0), ValueError, "buckets must be"),
        (lambda: splitmix64(3, 2**63), ValueError, "seed must be"),
        (lambda: splitmix64(-1), ValueError, "n must be"),
        (lambda: bucket_loads(torch.tensor([0, 3]), 3), ValueError, "between 0 and 2, got 0 to 3"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_error_names_the_layer():
    with pytest.raises(ValueError, match="got 100 in layer '1'"):
        encode(nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 2)), partial(HashedCode.from_dense, buckets=100))
