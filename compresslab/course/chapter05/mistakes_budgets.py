"""Typical wrong answers to exercises 5.11 to 5.13: ranks under a budget, adapters, and the decomposer to repair."""

from __future__ import annotations

import math

import torch
from torch import nn

from compresslab.course.chapter05.references_tensors import choose_ranks, merge_adapter


# -- 5.11 choose_ranks -------------------------------------------------------------------------------

def _greedy(spectra, costs, budget, *, power=2, relative=True, per_cost=True, least=1, strict=False, refuse=True, price=None):
    """The greedy rule with some of its details changed."""
    if refuse and sum(costs) > budget:
        raise ValueError("too small a budget")
    energies = [values.double() ** power for values in spectra]
    shares = [energy / energy.sum() if relative else energy for energy in energies]
    ranks = [len(values) for values in spectra]

    def spent():
        return sum(rank * cost for rank, cost in zip(ranks, costs))

    while spent() >= budget if strict else spent() > budget:
        prices = [math.inf if rank <= least else price(share, rank, cost) if price else share[rank - 1].item() / (cost if per_cost else 1)
                  for share, rank, cost in zip(shares, ranks, costs)]
        if min(prices) == math.inf:
            break
        ranks[prices.index(min(prices))] -= 1
    return ranks


def not_squared(spectra, costs, budget):
    return _greedy(spectra, costs, budget, power=1)


def energy_not_relative(spectra, costs, budget):
    return _greedy(spectra, costs, budget, relative=False)


def cost_ignored(spectra, costs, budget):
    return _greedy(spectra, costs, budget, per_cost=False)


def times_the_cost(spectra, costs, budget):
    return _greedy(spectra, costs, budget, price=lambda share, rank, cost: share[rank - 1].item() * cost)


def one_too_many(spectra, costs, budget):
    return _greedy(spectra, costs, budget, strict=True)


def down_to_zero(spectra, costs, budget):
    return _greedy(spectra, costs, budget, least=0)


def not_refused(spectra, costs, budget):
    return _greedy(spectra, costs, budget, refuse=False)


def whole_tail(spectra, costs, budget):
    """All that is lost so far, not what the next step loses."""
    return _greedy(spectra, costs, budget, price=lambda share, rank, cost: share[rank - 1 :].sum().item() / cost)


def of_what_is_left(spectra, costs, budget):
    return _greedy(spectra, costs, budget, price=lambda share, rank, cost: (share[rank - 1] / share[:rank].sum()).item() / cost)


def most_first(spectra, costs, budget):
    return _greedy(spectra, costs, budget, price=lambda share, rank, cost: -share[rank - 1].item() / cost)


def dearest_first(spectra, costs, budget):
    return _greedy(spectra, costs, budget, price=lambda share, rank, cost: -cost)


def last_of_equals(spectra, costs, budget):
    return choose_ranks(spectra[::-1], costs[::-1], budget)[::-1]


def filled_up(spectra, costs, budget):
    """Upwards, and past what does not fit."""
    if sum(costs) > budget:
        raise ValueError("too small a budget")
    ranks, spent = [1] * len(spectra), sum(costs)
    shares = [values.double() ** 2 / (values.double() ** 2).sum() for values in spectra]
    offers = sorted(((-share[k].item() / cost, -layer, k) for layer, (share, cost) in enumerate(zip(shares, costs)) for k in range(1, len(share))))
    closed = set()
    for _, layer, _ in offers:
        layer = -layer
        if layer in closed or spent + costs[layer] > budget:
            closed.add(layer)
            continue
        ranks[layer], spent = ranks[layer] + 1, spent + costs[layer]
    return ranks


def index_one_off(spectra, costs, budget):
    return _greedy(spectra, costs, budget, price=lambda share, rank, cost: share[rank - 2].item() / cost)


def same_fraction(spectra, costs, budget):
    if sum(costs) > budget:
        raise ValueError("too small a budget")
    full = sum(len(values) * cost for values, cost in zip(spectra, costs))
    return [max(1, int(len(values) * min(1.0, budget / full))) for values in spectra]


def one_energy(spectra, costs, budget):
    """The same share of energy for all layers, as large as the budget allows."""
    if sum(costs) > budget:
        raise ValueError("too small a budget")
    kept = [(values.double() ** 2).cumsum(0) / (values.double() ** 2).sum() for values in spectra]
    for percent in range(100, -1, -1):
        ranks = [min(int((share < percent / 100).sum()) + 1, len(share)) for share in kept]
        if sum(rank * cost for rank, cost in zip(ranks, costs)) <= budget:
            return ranks
    return [1] * len(spectra)


def by_the_largest(spectra, costs, budget):
    return _greedy([values / values.max() for values in spectra], costs, budget, relative=False)


# -- 5.12 merge_adapter ------------------------------------------------------------------------------

def not_scaled(weight, A, B, alpha):
    return weight + B @ A


def not_divided_by_rank(weight, A, B, alpha):
    return weight + alpha * B @ A


def divided_by_root(weight, A, B, alpha):
    return weight + alpha / math.sqrt(len(A)) * B @ A


def divided_by_inputs(weight, A, B, alpha):
    return weight + alpha / A.shape[1] * B @ A


def divided_by_outputs(weight, A, B, alpha):
    return weight + alpha / len(B) * B @ A


def wrong_order(weight, A, B, alpha):
    return weight + alpha / len(A) * A @ B


def delta_only(weight, A, B, alpha):
    return alpha / len(A) * B @ A


def in_place(weight, A, B, alpha):
    weight += alpha / len(A) * B @ A
    return weight


def taken_away(weight, A, B, alpha):
    return 2 * weight - merge_adapter(weight, A, B, alpha)


def factors_transposed(weight, A, B, alpha):
    return weight + alpha / len(A) * A.T @ B.T


def divided_to_whole(weight, A, B, alpha):
    return weight + alpha // len(A) * B @ A


def upside_down(weight, A, B, alpha):
    return weight + len(A) / alpha * B @ A


def all_scaled(weight, A, B, alpha):
    return alpha / len(A) * (weight + B @ A)


# -- 5.13 decompose_repaired -------------------------------------------------------------------------

def _decomposer(conv, fraction, *, by_outputs=False, scale="kept", stride_last=False, stride_both=False, biases=(0, 1), nearest=False, ceil=False,
                half=False, least=True, share=False, padding_last=False, strict=False, square=False, with_bias=False):
    """The decomposer with some of its bugs."""
    n, columns = conv.weight.flatten(1).shape
    exact = fraction * conv.weight.numel() / (n + columns)
    if by_outputs:
        exact = fraction * n
    elif half:
        exact = fraction * min(n, columns)
    elif square:
        area = conv.kernel_size[0] ** 2
        exact = fraction * n * conv.in_channels * area / (n + conv.in_channels * area)
    elif with_bias and conv.bias is not None:
        exact = (fraction * (conv.weight.numel() + n) - n) / (n + columns)
    elif strict:
        exact = math.ceil(exact) - 1
    rank = round(exact) if nearest else math.ceil(exact) if ceil else int(exact)
    rank = min(max(1, rank) if least else rank, n, columns)
    U, S, Vh = torch.linalg.svd(conv.weight.detach().flatten(1), full_matrices=False)
    left, right = {"kept": (U, S[:, None] * Vh), "lost": (U, Vh), "twice": (U * S, S[:, None] * Vh), "root": (U, S.sqrt()[:, None] * Vh)}[scale]
    first = nn.Conv2d(conv.in_channels, rank, conv.kernel_size, 1 if stride_last else conv.stride, 0 if padding_last else conv.padding,
                      bias=conv.bias is not None and bool(biases[0]))
    second = nn.Conv2d(rank, n, 1, conv.stride if stride_last or stride_both else 1, conv.padding if padding_last else 0, bias=conv.bias is not None and bool(biases[1]))
    first.weight.data, second.weight.data = right[:rank].reshape(first.weight.shape).clone(), left[:, :rank, None, None].clone()
    for layer in (first, second):
        if layer.bias is not None:
            layer.bias.data = conv.bias.detach()[: layer.out_channels].clone()
    if share and second.bias is not None:
        second.bias = conv.bias
    return nn.Sequential(first, second)


def all_bugs(conv, fraction):
    return _decomposer(conv, fraction, by_outputs=True, scale="lost", stride_last=True, biases=(1, 1))


def rank_from_outputs(conv, fraction):
    return _decomposer(conv, fraction, by_outputs=True)


def rank_of_full(conv, fraction):
    return _decomposer(conv, fraction, half=True)


def scale_lost(conv, fraction):
    return _decomposer(conv, fraction, scale="lost")


def scale_twice(conv, fraction):
    return _decomposer(conv, fraction, scale="twice")


def half_the_scale(conv, fraction):
    return _decomposer(conv, fraction, scale="root")


def stride_in_the_wrong_factor(conv, fraction):
    return _decomposer(conv, fraction, stride_last=True)


def stride_twice(conv, fraction):
    return _decomposer(conv, fraction, stride_both=True)


def bias_twice(conv, fraction):
    return _decomposer(conv, fraction, biases=(1, 1))


def bias_in_the_first(conv, fraction):
    return _decomposer(conv, fraction, biases=(1, 0))


def no_bias(conv, fraction):
    return _decomposer(conv, fraction, biases=(0, 0))


def rank_rounded(conv, fraction):
    return _decomposer(conv, fraction, nearest=True)


def rank_rounded_up(conv, fraction):
    return _decomposer(conv, fraction, ceil=True)


def rank_strict(conv, fraction):
    return _decomposer(conv, fraction, strict=True)


def square_windows(conv, fraction):
    return _decomposer(conv, fraction, square=True)


def bias_counted(conv, fraction):
    return _decomposer(conv, fraction, with_bias=True)


def rank_may_be_zero(conv, fraction):
    return _decomposer(conv, fraction, least=False)


def memory_shared(conv, fraction):
    return _decomposer(conv, fraction, share=True)
