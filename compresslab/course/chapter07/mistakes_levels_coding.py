"""Typical wrong answers to exercises 7.4 to 7.6. They diagnose a learner's mistake, and they test the checks."""

from __future__ import annotations

import math

import torch

# -- 7.4 uniform_rate --------------------------------------------------------------------------------


def _entropy(symbols):
    counts = symbols.flatten().unique(return_counts=True)[1].double()
    share = counts / counts.sum()
    return float((share * (1 / share).log2()).sum())


def _rate(weights, step, q=None, symbols=None, error=None, bits=None):
    q = torch.round(weights / step) if q is None else q
    error = (weights - step * q).square().mean() if error is None else error
    bits = _entropy(q if symbols is None else symbols) if bits is None else bits
    return bits, float(error)


def log_of_levels(weights, step):
    return _rate(weights, step, bits=math.log2(len(torch.round(weights / step).unique())))


def log_of_range(weights, step):
    q = torch.round(weights / step)
    return _rate(weights, step, bits=math.log2(float(q.max() - q.min()) + 1))


def whole_bits(weights, step):
    q = torch.round(weights / step)
    return _rate(weights, step, bits=math.ceil(math.log2(len(q.unique()))))


def floored(weights, step):
    return _rate(weights, step, q=torch.floor(weights / step))


def truncated(weights, step):
    return _rate(weights, step, q=torch.trunc(weights / step))


def cell_centres(weights, step):
    return _rate(weights, step, q=torch.floor(weights / step) + 0.5)


def from_the_minimum(weights, step):
    low = weights.min()
    q = torch.round((weights - low) / step)
    return _rate(weights, step, q=q, error=(weights - low - step * q).square().mean())


def root_of_the_error(weights, step):
    return _rate(weights, step, error=(weights - step * torch.round(weights / step)).square().mean().sqrt())


def summed_error(weights, step):
    return _rate(weights, step, error=(weights - step * torch.round(weights / step)).square().sum())


def absolute_error(weights, step):
    return _rate(weights, step, error=(weights - step * torch.round(weights / step)).abs().mean())


def error_in_steps(weights, step):
    return _rate(weights, step, error=(weights / step - torch.round(weights / step)).square().mean())


def not_scaled_back(weights, step):
    return _rate(weights, step, error=(weights - torch.round(weights / step)).square().mean())


def by_the_rule(weights, step):
    return _rate(weights, step, error=step**2 / 12)


def signs_lost(weights, step):
    return _rate(weights, step, symbols=torch.round(weights / step).abs())


def in_8_bits(weights, step):
    q = torch.round(weights / step).long()
    return _rate(weights, step, symbols=(q + 128) % 256 - 128)


def clamped_to_8_bits(weights, step):
    return _rate(weights, step, q=torch.round(weights / step).clamp(-128, 127))


def clamped_to_4_bits(weights, step):
    return _rate(weights, step, q=torch.round(weights / step).clamp(-8, 7))


def of_the_weights(weights, step):
    return _rate(weights, step, symbols=weights)


def all_bits(weights, step):
    return _rate(weights, step, bits=_entropy(torch.round(weights / step)) * weights.numel())


def in_nats(weights, step):
    return _rate(weights, step, bits=_entropy(torch.round(weights / step)) * math.log(2))


def other_way_round(weights, step):
    return _rate(weights, step)[::-1]


# -- 7.5 clip_partition ------------------------------------------------------------------------------


def _clipped(w, fraction):
    kept = torch.ones(len(w), dtype=torch.bool)
    kept[w.abs().argsort(stable=True)[:round(fraction * len(w))]] = False
    return kept


def _shown(weight, kept, intervals, low=None, high=None, of=None, value=None):
    """The members `kept` of a flat weight, each as the mean (or another `value`) of its interval."""
    w = weight.flatten()
    shown = torch.zeros_like(w)
    left = w[kept]
    if len(left):
        edges = torch.linspace(float(left.min() if low is None else low), float(left.max() if high is None else high), intervals + 1)
        interval = torch.bucketize(left, edges[1:-1])
        source, where = (left, interval) if of is None else (w[of], torch.bucketize(w[of], edges[1:-1]))
        for j in range(intervals):
            if (interval == j).any():
                mean = source[where == j].mean() if value is None else value(left[interval == j], edges[j], edges[j + 1])
                shown[kept.nonzero().flatten()[interval == j]] = mean
    return shown.view_as(weight)


def clips_the_largest(weight, fraction, bits):
    w = weight.flatten()
    kept = torch.ones(len(w), dtype=torch.bool)
    kept[w.abs().argsort(descending=True, stable=True)[:round(fraction * len(w))]] = False
    return _shown(weight, kept, 2**bits - 1)


def clips_the_lowest(weight, fraction, bits):
    w = weight.flatten()
    kept = torch.ones(len(w), dtype=torch.bool)
    kept[w.argsort(stable=True)[:round(fraction * len(w))]] = False
    return _shown(weight, kept, 2**bits - 1)


def keeps_the_fraction(weight, fraction, bits):
    return _shown(weight, _clipped(weight.flatten(), 1 - fraction), 2**bits - 1)


def by_threshold(weight, fraction, bits):
    w = weight.flatten()
    count = round(fraction * len(w))
    limit = w.abs().sort().values[count - 1] if count else -1.0
    return _shown(weight, w.abs() > limit, 2**bits - 1)


def fraction_of_the_range(weight, fraction, bits):
    w = weight.flatten()
    return _shown(weight, w.abs() > fraction * w.abs().max(), 2**bits - 1)


def clipped_only(weight, fraction, bits):
    return torch.where(_clipped(weight.flatten(), fraction).view_as(weight), weight, 0.0)


def nothing_clipped(weight, fraction, bits):
    return _shown(weight, torch.ones(weight.numel(), dtype=torch.bool), 2**bits - 1)


def one_interval_more(weight, fraction, bits):
    return _shown(weight, _clipped(weight.flatten(), fraction), 2**bits)


def one_interval_fewer(weight, fraction, bits):
    return _shown(weight, _clipped(weight.flatten(), fraction), max(2**bits - 2, 1))


def zeros_in_the_means(weight, fraction, bits):
    everyone = torch.ones(weight.numel(), dtype=torch.bool)
    return _shown(weight, _clipped(weight.flatten(), fraction), 2**bits - 1, of=everyone)


def range_of_all(weight, fraction, bits):
    w = weight.flatten()
    return _shown(weight, _clipped(w, fraction), 2**bits - 1, low=w.min(), high=w.max())


def symmetric_range(weight, fraction, bits):
    top = weight.abs().max()
    return _shown(weight, _clipped(weight.flatten(), fraction), 2**bits - 1, low=-top, high=top)


def middles(weight, fraction, bits):
    return _shown(weight, _clipped(weight.flatten(), fraction), 2**bits - 1, value=lambda members, low, high: (low + high) / 2)


def medians(weight, fraction, bits):
    return _shown(weight, _clipped(weight.flatten(), fraction), 2**bits - 1, value=lambda members, low, high: members.median())


def equal_numbers(weight, fraction, bits):
    w = weight.flatten()
    shown, places = torch.zeros_like(w), _clipped(w, fraction).nonzero().flatten()
    for part in places[w[places].argsort()].tensor_split(2**bits - 1):
        if len(part):
            shown[part] = w[part].mean()
    return shown.view_as(weight)


def by_size(weight, fraction, bits):
    w = weight.flatten()
    return _shown(w.abs(), _clipped(w, fraction), 2**bits - 1).mul(w.sign()).view_as(weight)


def in_place(weight, fraction, bits):
    weight.copy_(_shown(weight, _clipped(weight.flatten(), fraction), 2**bits - 1))
    return weight


def by_row(weight, fraction, bits):
    if weight.dim() < 2:
        return _shown(weight, _clipped(weight, fraction), 2**bits - 1)
    return torch.stack([_shown(row, _clipped(row.flatten(), fraction), 2**bits - 1) for row in weight])


# -- 7.6 point_gradient ------------------------------------------------------------------------------


def _alpha(gradient, scales):
    return scales.repeat_interleave(len(gradient) // len(scales))


def _sum(values, indices, points):
    return torch.zeros(points).index_add(0, indices, values)


def scales_forgotten(gradient, indices, scales, points):
    return _sum(gradient, indices, points)


def scales_divide(gradient, indices, scales, points):
    return _sum(gradient / _alpha(gradient, scales), indices, points)


def scales_squared(gradient, indices, scales, points):
    return _sum(gradient * _alpha(gradient, scales).square(), indices, points)


def scales_tiled(gradient, indices, scales, points):
    return _sum(gradient * scales.repeat(len(gradient) // len(scales)), indices, points)


def mean_scale(gradient, indices, scales, points):
    return _sum(gradient * scales.mean(), indices, points)


def first_scale(gradient, indices, scales, points):
    return _sum(gradient * scales[0], indices, points)


def averaged(gradient, indices, scales, points):
    return _sum(gradient * _alpha(gradient, scales), indices, points) / torch.bincount(indices, minlength=points).clamp(min=1)


def averaged_over_all(gradient, indices, scales, points):
    return _sum(gradient * _alpha(gradient, scales), indices, points) / len(gradient)


def averaged_over_buckets(gradient, indices, scales, points):
    return _sum(gradient * _alpha(gradient, scales), indices, points) / len(scales)


def weighted_mean(gradient, indices, scales, points):
    alpha = _alpha(gradient, scales)
    weights = _sum(alpha, indices, points)
    return _sum(gradient * alpha, indices, points) / torch.where(weights > 0, weights, 1.0)


def last_one_counts(gradient, indices, scales, points):
    total = torch.zeros(points)
    total[indices] += gradient * _alpha(gradient, scales)
    return total


def only_the_used(gradient, indices, scales, points):
    used, place = indices.unique(return_inverse=True)
    return _sum(gradient * _alpha(gradient, scales), place, len(used))


def too_short(gradient, indices, scales, points):
    return _sum(gradient * _alpha(gradient, scales), indices, int(indices.max()) + 1)


def one_for_each_bucket(gradient, indices, scales, points):
    place = torch.arange(len(scales)).repeat_interleave(len(gradient) // len(scales)) * points + indices
    return _sum(gradient * _alpha(gradient, scales), place, points * len(scales)).view(len(scales), points)


def one_for_each_weight(gradient, indices, scales, points):
    return _sum(gradient * _alpha(gradient, scales), indices, points)[indices]


def straight_through(gradient, indices, scales, points):
    return gradient


def downhill(gradient, indices, scales, points):
    return -_sum(gradient * _alpha(gradient, scales), indices, points)


def sizes_summed(gradient, indices, scales, points):
    return _sum((gradient * _alpha(gradient, scales)).abs(), indices, points)


def scales_alone(gradient, indices, scales, points):
    return _sum(_alpha(gradient, scales), indices, points)
