"""Typical wrong answers to exercises 5.1, 5.2, 5.5 and 5.6: they diagnose a mistake, and they test the checks."""

from __future__ import annotations

import math

import torch


# -- 5.1 split_linear --------------------------------------------------------------------------------

def _refuse(weight, rank):
    if not 1 <= rank <= min(weight.shape):
        raise ValueError("no such rank")


def _parts(weight, rank):
    _refuse(weight, rank)
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    return U[:, :rank], S[:rank], Vh[:rank]


def values_forgotten(weight, rank):
    U, _, Vh = _parts(weight, rank)
    return U, Vh


def values_twice(weight, rank):
    U, S, Vh = _parts(weight, rank)
    return U * S, S[:, None] * Vh


def root_on_one_side(weight, rank):
    U, S, Vh = _parts(weight, rank)
    return U * S.sqrt(), Vh


def smallest_kept(weight, rank):
    _refuse(weight, rank)
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    return U[:, -rank:] * S[-rank:], Vh[-rank:]


def transposed_again(weight, rank):
    _refuse(weight, rank)
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    return U[:, :rank] * S[:rank], Vh.T[:rank]


def swapped(weight, rank):
    U, S, Vh = _parts(weight, rank)
    return Vh.T * S, U.T


def both_transposed(weight, rank):
    U, S, Vh = _parts(weight, rank)
    return (U * S).T, Vh.T


def order_swapped(weight, rank):
    U, S, Vh = _parts(weight, rank)
    return Vh, U * S


def zeroed_not_cut(weight, rank):
    _refuse(weight, rank)
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    S = torch.cat([S[:rank], torch.zeros(len(S) - rank)])
    return U * S, Vh


def rows_scaled(weight, rank):
    U, S, Vh = _parts(weight, rank)
    return torch.diag(torch.cat([S, torch.ones(len(U) - rank)])) @ U, Vh


def first_columns(weight, rank):
    _refuse(weight, rank)
    Q, R = torch.linalg.qr(weight)
    return Q[:, :rank], R[:rank]


def divided_by_nothing(weight, rank):
    _refuse(weight, rank)
    squares, U = torch.linalg.eigh(weight @ weight.T)
    U, S = U.flip(1)[:, :rank], squares.flip(0)[:rank].clamp(min=0).sqrt()
    return U * S, (U / S).T @ weight


def any_rank(weight, rank):
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    return U[:, :rank] * S[:rank], Vh[:rank]


def only_zero_refused(weight, rank):
    if rank < 1:
        raise ValueError("a rank is at least 1")
    return any_rank(weight, rank)


def only_large_refused(weight, rank):
    if rank > min(weight.shape):
        raise ValueError("rank too large")
    return any_rank(weight, rank)


def only_rows_counted(weight, rank):
    if not 1 <= rank <= len(weight):
        raise ValueError("no such rank")
    return any_rank(weight, rank)


def zero_slips_through(weight, rank):
    if not 0 <= rank <= min(weight.shape):
        raise ValueError("no such rank")
    return any_rank(weight, rank)


def asserted(weight, rank):
    assert 1 <= rank <= min(weight.shape)
    return any_rank(weight, rank)


# -- 5.2 break_even_rank -----------------------------------------------------------------------------

def not_strict(out_features, in_features):
    return out_features * in_features // (out_features + in_features)


def rounded(out_features, in_features):
    return round(out_features * in_features / (out_features + in_features))


def always_one_less(out_features, in_features):
    return out_features * in_features // (out_features + in_features) - 1


def first_that_costs(out_features, in_features):
    return math.ceil(out_features * in_features / (out_features + in_features))


def half_of_the_smaller(out_features, in_features):
    return min(out_features, in_features) // 2


def full_rank(out_features, in_features):
    return min(out_features, in_features)


def below_full_rank(out_features, in_features):
    return min(out_features, in_features) - 1


def at_least_one(out_features, in_features):
    return max(1, (out_features * in_features - 1) // (out_features + in_features))


def with_a_margin(out_features, in_features):
    return int(out_features * in_features / (out_features + in_features) - 1e-3)


def as_a_float(out_features, in_features):
    return float((out_features * in_features - 1) // (out_features + in_features))


def not_whole(out_features, in_features):
    return out_features * in_features / (out_features + in_features)


def values_stored_too(out_features, in_features):
    return (out_features * in_features - 1) // (out_features + in_features + 1)


# -- 5.5 energy_rank ---------------------------------------------------------------------------------

def _share(energy):
    if not 0 < energy <= 1:
        raise ValueError("a share of the energy is in (0, 1]")


def _first(kept, energy):
    return int((kept < energy * kept[-1]).sum()) + 1


def squares_forgotten(singular_values, energy):
    _share(energy)
    return _first(singular_values.double().cumsum(0), energy)


def squared_twice(singular_values, energy):
    _share(energy)
    return _first(singular_values.double().pow(4).cumsum(0), energy)


def one_refused(singular_values, energy):
    if not 0 < energy < 1:
        raise ValueError("a share of the energy is between 0 and 1")
    return _first(singular_values.double().square().cumsum(0), energy)


def index_for_rank(singular_values, energy):
    _share(energy)
    return max(1, _first(singular_values.double().square().cumsum(0), energy) - 1)


def index_from_zero(singular_values, energy):
    _share(energy)
    return _first(singular_values.double().square().cumsum(0), energy) - 1


def one_too_many(singular_values, energy):
    _share(energy)
    return min(len(singular_values), _first(singular_values.double().square().cumsum(0), energy) + 1)


def strictly_more(singular_values, energy):
    _share(energy)
    kept = singular_values.double().square().cumsum(0)
    return min(len(kept), int((kept <= energy * kept[-1]).sum()) + 1)


def what_is_lost(singular_values, energy):
    _share(energy)
    return _first(singular_values.double().square().cumsum(0), 1 - energy)


def share_of_ranks(singular_values, energy):
    _share(energy)
    return max(1, round(energy * len(singular_values)))


def share_of_length(singular_values, energy):
    _share(energy)
    return _first(singular_values.double().square().cumsum(0).sqrt(), energy)


def against_the_largest(singular_values, energy):
    _share(energy)
    return max(1, int((singular_values >= (1 - energy) * singular_values[0]).sum()))


def against_the_largest_square(singular_values, energy):
    _share(energy)
    squares = singular_values.double().square()
    return max(1, int((squares >= (1 - energy) * squares[0]).sum()))


def normalised_nothing(singular_values, energy):
    _share(energy)
    kept = singular_values.double().square().cumsum(0)
    return min(len(kept), int((kept < energy).sum()) + 1)


def searched_nothing(singular_values, energy):
    _share(energy)
    kept = singular_values.double().square().cumsum(0)
    return int((kept / kept[-1] >= energy).nonzero()[0]) + 1


def any_share(singular_values, energy):
    kept = singular_values.double().square().cumsum(0)
    return min(len(kept), _first(kept, energy))


def another_total(singular_values, energy):
    _share(energy)
    squares = singular_values.square()
    return int((squares.cumsum(0) / squares.sum() >= energy).int().argmax()) + 1


def share_of_ranks_cut(singular_values, energy):
    _share(energy)
    return max(1, int(energy * len(singular_values)))


def rank_as_a_tensor(singular_values, energy):
    _share(energy)
    kept = singular_values.double().square().cumsum(0)
    return (kept < energy * kept[-1]).sum() + 1


def nan_slips_through(singular_values, energy):
    if energy <= 0 or energy > 1:
        raise ValueError("a share of the energy is in (0, 1]")
    return _first(singular_values.double().square().cumsum(0), energy)


def zero_is_a_share(singular_values, energy):
    if not 0 <= energy <= 1:
        raise ValueError("a share of the energy is in [0, 1]")
    return _first(singular_values.double().square().cumsum(0), energy)


def share_asserted(singular_values, energy):
    assert 0 < energy <= 1
    return any_share(singular_values, energy)
