"""Typical wrong answers to exercises 2.14 to 2.17: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_training`.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch

from compresslab.course.chapter02.references_training import run_with


# -- 2.14 xnor_dot -----------------------------------------------------------------------------------

def _different(a, b):
    return np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.int64)


def counted_matches(a, b, n):
    return n - _different(a, b)


def counted_differences(a, b, n):
    return _different(a, b)


def padding_counted(a, b, n):
    return 64 * a.shape[-1] - 2 * _different(a, b)


def padding_agrees(a, b, n):
    return 2 * np.bitwise_count(~(a ^ b)).sum(axis=-1, dtype=np.int64) - n


def anded(a, b, n):
    return n - 2 * np.bitwise_count(a & b).sum(axis=-1, dtype=np.int64)


def stayed_unsigned(a, b, n):
    return np.uint64(n) - np.uint64(2) * np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.uint64)


def summed_in_bytes(a, b, n):
    return n - 2 * np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.uint8).astype(np.int64)


def floats_returned(a, b, n):
    return (n - 2 * _different(a, b)).astype(np.float64)


def summed_everything(a, b, n):
    return n - 2 * int(np.bitwise_count(a ^ b).sum(dtype=np.int64))


# -- 2.15 lloyd_step ---------------------------------------------------------------------------------

def _nearest(values, codebook):
    return (values[:, None] - codebook).abs().argmin(1)


def _centres(values, codebook, indices, centre):
    moved = codebook.clone()
    for k in range(len(codebook)):
        if (indices == k).any():
            moved[k] = centre(values[indices == k])
    return moved


def mean_of_nothing(values, codebook):
    indices = _nearest(values, codebook)
    return indices, torch.stack([values[indices == k].mean() for k in range(len(codebook))])


def empty_goes_to_zero(values, codebook):
    indices = _nearest(values, codebook)
    return indices, _centres(values, torch.zeros_like(codebook), indices, torch.mean)


def sums(values, codebook):
    indices = _nearest(values, codebook)
    return indices, _centres(values, codebook, indices, torch.sum)


def medians(values, codebook):
    indices = _nearest(values, codebook)
    return indices, _centres(values, codebook, indices, lambda members: members.sort().values[(len(members) - 1) // 2])


def level_below(values, codebook):
    indices = (torch.searchsorted(codebook, values, right=True) - 1).clamp(min=0)
    return indices, _centres(values, codebook, indices, torch.mean)


def assigned_afterwards(values, codebook):
    moved = _centres(values, codebook, _nearest(values, codebook), torch.mean)
    return _nearest(values, moved), moved


def levels_stay(values, codebook):
    return _nearest(values, codebook), codebook.clone()


# -- 2.16 allocate_bits ------------------------------------------------------------------------------

def _all_choices(errors, sizes):
    return [dict(zip(sizes, bits)) for bits in itertools.product(*(errors[layer] for layer in sizes))]


def _error(errors, chosen):
    return sum(errors[layer][bits] for layer, bits in chosen.items())


def _cost(sizes, chosen):
    return sum(sizes[layer] * bits for layer, bits in chosen.items())


def _best_under(errors, sizes, fits):
    choices = [chosen for chosen in _all_choices(errors, sizes) if fits(chosen)]
    if not choices:
        raise ValueError("no choice fits")
    return min(choices, key=lambda chosen: _error(errors, chosen))


def same_everywhere(errors, sizes, budget):
    return _best_under(errors, sizes, lambda chosen: len(set(chosen.values())) == 1 and _cost(sizes, chosen) <= budget)


def _greedy(errors, sizes, budget, gain):
    """From the fewest bits upwards: the upgrade with the largest gain that still fits, until none does."""
    chosen = {layer: min(errors[layer]) for layer in sizes}
    if _cost(sizes, chosen) > budget:
        raise ValueError("no choice fits")
    while True:
        upgrades = []
        for layer, bits in chosen.items():
            for more in (b for b in errors[layer] if b > bits):
                price = sizes[layer] * (more - bits)
                saved = errors[layer][bits] - errors[layer][more]
                if _cost(sizes, chosen) + price <= budget and saved > 0:
                    upgrades.append((gain(saved, price), layer, more))
        if not upgrades:
            return chosen
        _, layer, more = max(upgrades)
        chosen[layer] = more


def greedy_by_error(errors, sizes, budget):
    return _greedy(errors, sizes, budget, lambda saved, price: saved)


def greedy_by_rate(errors, sizes, budget):
    return _greedy(errors, sizes, budget, lambda saved, price: saved / price)


def sizes_ignored(errors, sizes, budget):
    mean_bits = budget / sum(sizes.values())
    return _best_under(errors, sizes, lambda chosen: sum(chosen.values()) <= mean_bits * len(sizes))


def budget_in_bytes(errors, sizes, budget):
    return _best_under(errors, sizes, lambda chosen: _cost(sizes, chosen) <= 8 * budget)


def strictly_below(errors, sizes, budget):
    return _best_under(errors, sizes, lambda chosen: _cost(sizes, chosen) < budget)


def errors_times_sizes(errors, sizes, budget):
    weighted = {layer: {bits: sizes[layer] * e for bits, e in errors[layer].items()} for layer in sizes}
    return _best_under(weighted, sizes, lambda chosen: _cost(sizes, chosen) <= budget)


def _step_by_step(errors, sizes, budget, shorten):
    """Layer by layer, all that fits so far as (bits spent, error, choice); `shorten` says what is kept."""
    found = [(0, 0.0, {})]
    for layer, size in sizes.items():
        found = shorten([(spent + size * bits, total + error, {**chosen, layer: bits}) for spent, total, chosen in found
                         for bits, error in errors[layer].items() if spent + size * bits <= budget])
    if not found:
        raise ValueError("no choice fits")
    return min(found, key=lambda one: one[1])[2]


def overwritten(errors, sizes, budget):
    return _step_by_step(errors, sizes, budget, lambda found: list({one[0]: one for one in found}.values()))


def twenty_best(errors, sizes, budget):
    return _step_by_step(errors, sizes, budget, lambda found: sorted(found, key=lambda one: one[1])[:20])


def budget_ignored(errors, sizes, budget):
    return _best_under(errors, sizes, lambda chosen: True)


def most_bits(errors, sizes, budget):
    choices = [chosen for chosen in _all_choices(errors, sizes) if _cost(sizes, chosen) <= budget]
    if not choices:
        raise ValueError("no choice fits")
    return max(choices, key=lambda chosen: _cost(sizes, chosen))


# -- 2.17 quantize_and_report ------------------------------------------------------------------------

def _report(model, calibration_x, test_x, test_y, bits, *, cast_first=False, on_test=False, late_eval=False,
            no_clamp=False, no_copy=False):
    """The pipeline of the notebook with any of its bugs."""
    model, qmax, ranges = model if no_copy else copy.deepcopy(model), 2 ** (bits - 1) - 1, {}
    if not late_eval:
        model.eval()

    def watch(name, x):
        ranges[name] = x.abs().max().item()

    def to_grid(name, x):
        scale = ranges[name] / qmax
        q = torch.round(x / scale)
        if no_clamp:
            return scale * q
        q = q.int().to(torch.int8).clamp(-qmax, qmax) if cast_first else q.clamp(-qmax, qmax).to(torch.int8)
        return scale * q

    run_with(model, test_x if on_test else calibration_x, watch)
    right = run_with(model.eval(), test_x, to_grid).argmax(1) == test_y
    return right.double().mean().item(), ranges


def as_it_was(model, calibration_x, test_x, test_y, bits=8):
    return _report(model, calibration_x, test_x, test_y, bits, cast_first=True, on_test=True, late_eval=True)


def casts_first(model, calibration_x, test_x, test_y, bits=8):
    return _report(model, calibration_x, test_x, test_y, bits, cast_first=True)


def calibrates_on_test(model, calibration_x, test_x, test_y, bits=8):
    return _report(model, calibration_x, test_x, test_y, bits, on_test=True)


def calibrates_in_train_mode(model, calibration_x, test_x, test_y, bits=8):
    return _report(model, calibration_x, test_x, test_y, bits, late_eval=True)


def calibrates_the_original_in_train_mode(model, calibration_x, test_x, test_y, bits=8):
    return _report(model, calibration_x, test_x, test_y, bits, late_eval=True, no_copy=True)


def only_the_cast_repaired(model, calibration_x, test_x, test_y, bits=8):
    return _report(model, calibration_x, test_x, test_y, bits, on_test=True, late_eval=True)


def only_the_data_repaired(model, calibration_x, test_x, test_y, bits=8):
    return _report(model, calibration_x, test_x, test_y, bits, cast_first=True, late_eval=True)


def only_the_mode_repaired(model, calibration_x, test_x, test_y, bits=8):
    return _report(model, calibration_x, test_x, test_y, bits, cast_first=True, on_test=True)


def model_left_in_eval(model, calibration_x, test_x, test_y, bits=8):
    return _report(model.eval(), calibration_x, test_x, test_y, bits)


def mode_of_the_whole(model, calibration_x, test_x, test_y, bits=8):
    was = model.training
    found = _report(model.eval(), calibration_x, test_x, test_y, bits)
    model.train(was)
    return found


def clamp_lost(model, calibration_x, test_x, test_y, bits=8):
    return _report(model, calibration_x, test_x, test_y, bits, no_clamp=True)
