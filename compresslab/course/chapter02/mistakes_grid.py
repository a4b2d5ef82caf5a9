"""Typical wrong answers to exercises 2.1 to 2.9: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_grid.py`.
"""

from __future__ import annotations

import math

import torch

from compresslab.course.chapter02.references_grid import choose_scale as right_scale
from compresslab.course.chapter02.references_grid import quantize as right_quantize


# -- 2.1 choose_scale --------------------------------------------------------------------------------

def _grid(low, high, bits, *, steps=None, place=lambda x, top: min(max(round(x), 0), top)):
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 1.0, 0
    top = 2**bits - 1
    scale = (high - low) / (steps or top)
    return scale, place(-low / scale, top)


def zero_forgotten(low, high, bits):
    if low == high:
        return 1.0, 0
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


def zero_clamped_only(low, high, bits):
    if low == high:
        return 1.0, 0
    top = 2**bits - 1
    scale = (high - low) / top
    return scale, min(max(round(-low / scale), 0), top)


def one_step_too_many(low, high, bits):
    return _grid(low, high, bits, steps=2**bits)


def zero_point_not_rounded(low, high, bits):
    return _grid(low, high, bits, place=lambda x, top: x)


def zero_point_truncated(low, high, bits):
    return _grid(low, high, bits, place=lambda x, top: int(x))


def zero_point_negative(low, high, bits):
    return _grid(low, high, bits, place=lambda x, top: round(-x))


def zero_point_from_the_top(low, high, bits):
    return _grid(low, high, bits, place=lambda x, top: top - min(max(round(x), 0), top))


def always_symmetric(low, high, bits):
    peak = max(abs(low), abs(high))
    return (2 * peak / (2**bits - 1) or 1.0), (2 ** (bits - 1) if peak else 0)


def divided_by_nothing(low, high, bits):
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, min(max(round(-low / scale), 0), 2**bits - 1)


# -- 2.2 quantize ------------------------------------------------------------------------------------

def cast_before_clamp(x, scale, zero_point, bits):
    q = (torch.round(x / scale) + zero_point).to(torch.int64).to(torch.uint8)
    return q.clamp(0, 2**bits - 1)


def never_clamped(x, scale, zero_point, bits):
    return (torch.round(x / scale) + zero_point).to(torch.int64).to(torch.uint8)


def half_up(x, scale, zero_point, bits):
    return (torch.floor(x / scale + 0.5) + zero_point).clamp(0, 2**bits - 1).to(torch.uint8)


def truncated(x, scale, zero_point, bits):
    return (torch.trunc(x / scale) + zero_point).clamp(0, 2**bits - 1).to(torch.uint8)


def cast_without_rounding(x, scale, zero_point, bits):
    return (x / scale + zero_point).clamp(0, 2**bits - 1).to(torch.uint8)


def clamped_too_early(x, scale, zero_point, bits):
    q = torch.round(x / scale).clamp(0, 2**bits - 1) + zero_point
    return q.to(torch.int64).to(torch.uint8)


def clamped_twice_too_early(x, scale, zero_point, bits):
    q = torch.round(x / scale).clamp(0, 2**bits - 1) + zero_point
    return q.clamp(0, 2**bits - 1).to(torch.uint8)


def rounded_after_the_zero_point(x, scale, zero_point, bits):
    return torch.round(x / scale + zero_point).clamp(0, 2**bits - 1).to(torch.uint8)


def zero_point_subtracted(x, scale, zero_point, bits):
    return (torch.round(x / scale) - zero_point).clamp(0, 2**bits - 1).to(torch.uint8)


def always_eight_bits(x, scale, zero_point, bits):
    return (torch.round(x / scale) + zero_point).clamp(0, 255).to(torch.uint8)


def one_level_too_many(x, scale, zero_point, bits):
    return (torch.round(x / scale) + zero_point).clamp(0, 2**bits).to(torch.int64).to(torch.uint8)


# -- 2.3 snr_db --------------------------------------------------------------------------------------

def _power(x):
    return float(x.double().square().sum())


def twenty_times_power(x, x_hat):
    return 20 * math.log10(_power(x) / _power(x - x_hat))


def ten_times_amplitude(x, x_hat):
    return 10 * math.log10(float(x.norm() / (x - x_hat).norm()))


def noise_over_signal(x, x_hat):
    return 10 * math.log10(_power(x - x_hat) / _power(x))


def natural_logarithm(x, x_hat):
    return 10 * math.log(_power(x) / _power(x - x_hat))


def variance_for_power(x, x_hat):
    return float(10 * torch.log10(x.var(correction=0) / (x - x_hat).square().mean()))


def variances(x, x_hat):
    return float(10 * torch.log10(x.var(correction=0) / (x - x_hat).var(correction=0)))


def power_of_the_answer(x, x_hat):
    return 10 * math.log10(_power(x_hat) / _power(x - x_hat))


def magnitudes(x, x_hat):
    return float(10 * torch.log10(x.abs().sum() / (x - x_hat).abs().sum()))


# -- 2.4 quantize_per_channel ------------------------------------------------------------------------

def _symmetric(weight, scale, low, high):
    q = torch.round(weight / scale.view(-1, *[1] * (weight.dim() - 1)))
    return q.nan_to_num(0).clamp(low, high).to(torch.int64).to(torch.int8), scale


def _peaks(weight):
    return weight.flatten(1).abs().amax(1)


def one_scale_for_all(weight, bits):
    qmax = 2 ** (bits - 1) - 1
    return _symmetric(weight, (weight.abs().max() / qmax).expand(weight.shape[0]).clone(), -qmax, qmax)


def scale_of_the_inputs(weight, bits):
    qmax = 2 ** (bits - 1) - 1
    peak = weight.transpose(0, 1).flatten(1).abs().amax(1)
    scale = torch.where(peak > 0, peak / qmax, 1.0)
    q = torch.round(weight / scale.view(1, -1, *[1] * (weight.dim() - 2)))
    return q.clamp(-qmax, qmax).to(torch.int8), scale


def one_level_more(weight, bits):
    qmax = 2 ** (bits - 1)
    peak = _peaks(weight)
    return _symmetric(weight, torch.where(peak > 0, peak / qmax, 1.0), -qmax, qmax)


def unsigned_levels(weight, bits):
    qmax = 2**bits - 1
    peak = _peaks(weight)
    return _symmetric(weight, torch.where(peak > 0, peak / qmax, 1.0), -qmax, qmax)


def scale_of_zero(weight, bits):
    qmax = 2 ** (bits - 1) - 1
    return _symmetric(weight, _peaks(weight) / qmax, -qmax, qmax)


def signed_peak(weight, bits):
    qmax = 2 ** (bits - 1) - 1
    peak = weight.flatten(1).amax(1)
    return _symmetric(weight, torch.where(peak != 0, peak / qmax, 1.0), -qmax, qmax)


def range_over_levels(weight, bits):
    qmax = 2 ** (bits - 1) - 1
    peak = weight.flatten(1).amax(1) - weight.flatten(1).amin(1)
    return _symmetric(weight, torch.where(peak > 0, peak / (2**bits - 1), 1.0), -qmax, qmax)


def scale_upside_down(weight, bits):
    qmax = 2 ** (bits - 1) - 1
    peak = _peaks(weight)
    scale = torch.where(peak > 0, peak / qmax, 1.0)
    return _symmetric(weight, scale, -qmax, qmax)[0], 1 / scale


def channels_truncated(weight, bits):
    qmax = 2 ** (bits - 1) - 1
    peak = _peaks(weight)
    scale = torch.where(peak > 0, peak / qmax, 1.0)
    q = torch.trunc(weight / scale.view(-1, *[1] * (weight.dim() - 1)))
    return q.to(torch.int8), scale


# -- 2.5 quantize_blocks -----------------------------------------------------------------------------

def _blocks(row, block, bits, *, power=torch.ceil, peak=lambda blocks: blocks.abs().amax(1), top=None, split=None,
            clamp=True, refuse=True):
    if refuse and len(row) % block:
        raise ValueError
    qmax = 2 ** (bits - 1) - 1
    blocks = row.reshape(-1, block) if split is None else split(row)
    largest = peak(blocks)
    exponent = torch.where(largest > 0, power(torch.log2(largest / (top or qmax))), 0.0)
    q = torch.round(blocks / 2.0 ** exponent[:, None])
    q = q.clamp(-qmax, qmax) if clamp else q.to(torch.int64)
    return q.flatten().to(torch.int8), exponent.to(torch.int8)


def scale_too_small(row, block, bits):
    return _blocks(row, block, bits, power=torch.floor)


def scale_too_small_and_wrapped(row, block, bits):
    return _blocks(row, block, bits, power=torch.floor, clamp=False)


def nearest_power(row, block, bits):
    return _blocks(row, block, bits, power=torch.round)


def one_power_for_all(row, block, bits):
    return _blocks(row, block, bits, peak=lambda blocks: blocks.abs().max().expand(len(blocks)))


def one_step_for_all_levels(row, block, bits):
    return _blocks(row, block, bits, top=1)


def levels_of_both_signs(row, block, bits):
    return _blocks(row, block, bits, top=2 ** (bits - 1))


def number_of_blocks(row, block, bits):
    return _blocks(row, block, bits, split=lambda row: row.reshape(block, -1))


def every_so_many(row, block, bits):
    if len(row) % block:
        raise ValueError
    q, exponent = _blocks(row.reshape(block, -1).T.reshape(-1), block, bits)
    return q.view(-1, block).T.reshape(-1), exponent


def signed_block_peak(row, block, bits):
    return _blocks(row, block, bits, peak=lambda blocks: blocks.amax(1))


def not_refused(row, block, bits):
    whole = len(row) // block * block
    q, exponent = _blocks(row[:whole], block, bits)
    return (torch.cat([q, torch.zeros(len(row) - whole, dtype=torch.int8)]), exponent)


def log_of_zero(row, block, bits):
    if len(row) % block:
        raise ValueError
    qmax = 2 ** (bits - 1) - 1
    blocks = row.reshape(-1, block)
    exponent = torch.ceil(torch.log2(blocks.abs().amax(1) / qmax)).clamp(min=-128)
    q = torch.round(blocks / 2.0 ** exponent[:, None])
    return q.nan_to_num(0).clamp(-qmax, qmax).flatten().to(torch.int8), exponent.to(torch.int8)


# -- 2.6 best_clip -----------------------------------------------------------------------------------

def _search(x, bits, loss, low=None, high=None):
    low, high = x.min().item() if low is None else low, x.max().item() if high is None else high

    def cost(share):
        scale, zero_point = right_scale(share * low, share * high, bits)
        x_hat = scale * (right_quantize(x, scale, zero_point, bits).float() - zero_point)
        return float(loss(x, x_hat, scale * (0 - zero_point), scale * (2**bits - 1 - zero_point)))
    share = min([k / 100 for k in range(1, 101)], key=cost)
    return share * low, share * high


def _squared(x, x_hat, low, high):
    return (x - x_hat).square().mean()


def full_range(x, bits):
    return x.min().item(), x.max().item()


def clipping_forgotten(x, bits):
    def inside_only(x, x_hat, low, high):
        inside = (x >= low) & (x <= high)
        return (x - x_hat)[inside].square().mean()
    return _search(x, bits, inside_only)


def absolute_error(x, bits):
    return _search(x, bits, lambda x, x_hat, low, high: (x - x_hat).abs().mean())


def largest_error(x, bits):
    return _search(x, bits, lambda x, x_hat, low, high: (x - x_hat).abs().max())


def mean_error(x, bits):
    return _search(x, bits, lambda x, x_hat, low, high: (x - x_hat).mean().abs())


def symmetric_range(x, bits):
    peak = x.abs().max().item()
    return _search(x, bits, _squared, -peak, peak)


def from_zero_up(x, bits):
    return _search(x, bits, _squared, 0.0, x.max().item())


def always_for_eight_bits(x, bits):
    return _search(x, 8, _squared)


def percentile(x, bits):
    low, high = x.quantile(torch.tensor([0.01, 0.99])).tolist()
    return min(low, 0.0), max(high, 0.0)


# -- 2.7 fold_batch_norm -----------------------------------------------------------------------------

def _fold(weight, bias, gamma, beta, mean, var, eps, *, factor=None, shift=None, axis=0):
    factor = gamma / torch.sqrt(var + eps) if factor is None else factor
    bias = torch.zeros_like(mean) if bias is None else bias
    shape = [1] * weight.dim()
    shape[axis] = -1
    return weight * factor.view(shape), (bias - mean) * factor + beta if shift is None else shift(bias, factor)


def eps_forgotten(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, 0.0)


def eps_outside_the_root(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, factor=gamma / (torch.sqrt(var) + eps))


def root_forgotten(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, factor=gamma / (var + eps))


def bias_dropped(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, None, gamma, beta, mean, var, eps)


def bias_not_scaled(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, shift=lambda b, factor: b - mean * factor + beta)


def mean_not_scaled(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, shift=lambda b, factor: b * factor - mean + beta)


def mean_forgotten(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, shift=lambda b, factor: b * factor + beta)


def beta_scaled(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, shift=lambda b, factor: (b - mean + beta) * factor)


def inputs_scaled(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, axis=1)


def last_axis_scaled(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, axis=-1)


def beta_forgotten(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, shift=lambda b, factor: (b - mean) * factor)


def mean_added(weight, bias, gamma, beta, mean, var, eps):
    return _fold(weight, bias, gamma, beta, mean, var, eps, shift=lambda b, factor: (b + mean) * factor + beta)


# -- 2.8 fixed_point ---------------------------------------------------------------------------------

def _normalised(multiplier, width=31, number=round):
    mantissa, exponent = math.frexp(multiplier)
    m0 = number(mantissa * 2**width)
    return (2 ** (width - 1), 1 + exponent) if m0 == 2**width else (m0, exponent)


def not_normalised(multiplier):
    return round(multiplier * 2**31), 0


def rounded_up_to_one(multiplier):
    mantissa, exponent = math.frexp(multiplier)
    return round(mantissa * 2**31), -exponent


def clamped_below_one(multiplier):
    mantissa, exponent = math.frexp(multiplier)
    return min(round(mantissa * 2**31), 2**31 - 1), -exponent


def shift_upside_down(multiplier):
    m0, exponent = _normalised(multiplier)
    return m0, exponent


def m0_truncated(multiplier):
    m0, exponent = _normalised(multiplier, number=int)
    return m0, -exponent


def total_shift(multiplier):
    m0, exponent = _normalised(multiplier)
    return m0, 31 - exponent


def thirty_two_bits(multiplier):
    m0, exponent = _normalised(multiplier, width=32)
    return m0, -exponent


def between_one_and_two(multiplier):
    m0, exponent = _normalised(multiplier)
    return m0, 1 - exponent


def left_a_fraction(multiplier):
    mantissa, exponent = math.frexp(multiplier)
    return mantissa, -exponent


# -- 2.9 integer_linear ------------------------------------------------------------------------------

def _sums(q_x, z_x, q_w, bias_q):
    return (q_x.to(torch.int64) - z_x) @ q_w.to(torch.int64).T + bias_q


def _rescale(a, m0, shift):
    return (a * m0 + (1 << (30 + shift))) >> (31 + shift)


def _byte(q):
    return q.clamp(0, 255).to(torch.uint8)


def left_in_int64(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return (_rescale(_sums(q_x, z_x, q_w, bias_q), m0, shift) + z_y).clamp(0, 255)


def bias_forgotten(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return _byte(_rescale(_sums(q_x, z_x, q_w, bias_q * 0), m0, shift) + z_y)


def summed_in_floats(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    a = torch.nn.functional.linear(q_x.float() - z_x, q_w.float(), bias_q.float()).long()
    return _byte(_rescale(a, m0, shift) + z_y)


def zero_point_of_x_forgotten(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return _byte(_rescale(_sums(q_x, 0, q_w, bias_q), m0, shift) + z_y)


def subtracted_in_uint8(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return _byte(_rescale(_sums((q_x.to(torch.int64) - z_x) % 256, 0, q_w, bias_q), m0, shift) + z_y)


def rescaled_in_floats(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    y = torch.round(_sums(q_x, z_x, q_w, bias_q) * (m0 * 2.0 ** -(31 + shift)))
    return _byte(y + z_y)


def cast_the_output_first(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return (_rescale(_sums(q_x, z_x, q_w, bias_q), m0, shift) + z_y).to(torch.uint8).clamp(0, 255)


def shifted_without_the_half(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return _byte(((_sums(q_x, z_x, q_w, bias_q) * m0) >> (31 + shift)) + z_y)


def half_away_from_zero(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    a = _sums(q_x, z_x, q_w, bias_q)
    return _byte(a.sign() * _rescale(a.abs(), m0, shift) + z_y)


def bias_after_the_rescale(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return _byte(_rescale(_sums(q_x, z_x, q_w, 0), m0, shift) + bias_q + z_y)


def zero_point_of_y_forgotten(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return _byte(_rescale(_sums(q_x, z_x, q_w, bias_q), m0, shift))


def zero_point_of_y_before_the_rescale(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return _byte(_rescale(_sums(q_x, z_x, q_w, bias_q) + z_y, m0, shift))


def clamped_before_the_zero_point(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return (_rescale(_sums(q_x, z_x, q_w, bias_q), m0, shift).clamp(0, 255) + z_y).to(torch.uint8)


def product_in_32_bits(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    product = (_sums(q_x, z_x, q_w, bias_q) * m0 + (1 << (30 + shift))).to(torch.int32).to(torch.int64)
    return _byte((product >> (31 + shift)) + z_y)


def shift_31_forgotten(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    return _byte(((_sums(q_x, z_x, q_w, bias_q) * m0) >> shift) + z_y)
