"""Right answers to exercises 2.1 to 2.9 that look different from the references: every check must let them pass."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from compresslab.course.chapter02.references_grid import choose_scale, quantize


def scale_by_cases(low, high, bits):
    if low >= 0:
        return (high / (2**bits - 1) if high > 0 else 1.0), 0
    if high <= 0:
        return -low / (2**bits - 1), 2**bits - 1
    scale = (high - low) / (2**bits - 1)
    return scale, math.floor(0.5 - low / scale)


def scale_in_torch(low, high, bits):
    ends = torch.tensor([low, high, 0.0], dtype=torch.float64)
    scale = (ends.max() - ends.min()) / (2**bits - 1)
    scale = scale if scale > 0 else torch.ones_like(scale)
    return scale, torch.round(-ends.min() / scale).int()


def quantize_in_a_loop(x, scale, zero_point, bits):
    q = [min(max(round(value / scale) + zero_point, 0), 2**bits - 1) for value in x.double().flatten().tolist()]
    return torch.tensor(q, dtype=torch.uint8).view(x.shape)


def quantize_by_clipping_first(x, scale, zero_point, bits):
    x = x.clamp(-zero_point * scale, (2**bits - 1 - zero_point) * scale)
    return (x.div(scale).round().to(torch.int32) + zero_point).to(torch.uint8)


def snr_of_norms(x, x_hat):
    return 20 * torch.log10(torch.linalg.vector_norm(x) / torch.linalg.vector_norm(x_hat - x))


def snr_as_a_difference(x, x_hat):
    return 10 * float((x * x).mean().log10() - ((x_hat - x) ** 2).mean().log10())


def channels_one_by_one(weight, bits):
    qmax, scales, rows = 2 ** (bits - 1) - 1, [], []
    for channel in weight:
        peak = channel.abs().max().item()
        scales.append(peak / qmax if peak else 1.0)
        rows.append((channel / scales[-1]).round().clamp(-qmax, qmax))
    return torch.stack(rows).to(torch.int8), torch.tensor(scales)


def channels_with_a_floor(weight, bits):
    qmax = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True).clamp(min=1e-20) / qmax
    return torch.round(weight / scale).to(torch.int8), scale.flatten()


def blocks_by_doubling(row, block, bits):
    if len(row) % block != 0:
        raise ValueError("block")
    qmax, codes, exponents = 2 ** (bits - 1) - 1, [], []
    for part in row.split(block):
        peak, exponent = part.abs().max().item(), -126 if part.any() else 0
        while peak > qmax * 2.0**exponent:
            exponent += 1
        exponents.append(exponent)
        codes.append((part / 2.0**exponent).round())
    return torch.cat(codes).to(torch.int8), torch.tensor(exponents, dtype=torch.int8)


def blocks_with_frexp(row, block, bits):
    if len(row) % block:
        raise ValueError("block")
    qmax = 2 ** (bits - 1) - 1
    blocks = row.view(-1, block).double()
    peak = blocks.abs().amax(1)
    mantissa, exponent = torch.frexp(peak / qmax)
    exponent = torch.where(peak > 0, exponent - (mantissa == 0.5).int(), 0)
    q = torch.ldexp(blocks, -exponent[:, None]).round()
    return q.flatten().to(torch.int8), exponent.to(torch.int8)


def clip_in_a_loop(x, bits):
    best, found = math.inf, None
    for k in range(100, 0, -1):
        low, high = float(x.min()) * k / 100, float(x.max()) * k / 100
        scale, zero_point = choose_scale(low, high, bits)
        levels = (torch.round(x.double() / scale) + zero_point).clamp(0, 2**bits - 1)
        error = float(((levels - zero_point) * scale - x).square().sum())
        if error < best:
            best, found = error, (low, high)
    return found


def clip_more_finely(x, bits):
    shares = torch.linspace(0.005, 1, 200).tolist()
    errors = []
    for share in shares:
        scale, zero_point = choose_scale(share * x.min().item(), share * x.max().item(), bits)
        errors.append(F.mse_loss((quantize(x, scale, zero_point, bits).float() - zero_point) * scale, x).item())
    share = shares[errors.index(min(errors))]
    return torch.tensor([share]) * x.min(), torch.tensor([share]) * x.max()


def fold_by_probing(weight, bias, gamma, beta, mean, var, eps):
    """Batch norm is affine in each channel: two points of it are enough."""
    at_zero = F.batch_norm(torch.zeros(1, len(mean)), mean, var, gamma, beta, eps=eps)[0]
    slope = F.batch_norm(torch.ones(1, len(mean)), mean, var, gamma, beta, eps=eps)[0] - at_zero
    folded = torch.einsum("o...,o->o...", weight, slope)
    return folded, at_zero if bias is None else at_zero + slope * bias


def fold_in_a_loop(weight, bias, gamma, beta, mean, var, eps):
    folded, new_bias = weight.clone(), beta.clone()
    for o in range(len(gamma)):
        deviation = math.sqrt(var[o] + eps)
        folded[o] *= gamma[o] / deviation
        new_bias[o] += ((0.0 if bias is None else bias[o]) - mean[o]) * gamma[o] / deviation
    return folded, new_bias


def fixed_point_by_doubling(multiplier):
    shift = 0
    while multiplier < 0.5:
        multiplier, shift = multiplier * 2, shift + 1
    while multiplier >= 1:
        multiplier, shift = multiplier / 2, shift - 1
    m0 = math.floor(multiplier * 2**31 + 0.5)
    return (m0 // 2, shift - 1) if m0 == 2**31 else (m0, shift)


def fixed_point_by_logarithm(multiplier):
    shift = -math.floor(math.log2(multiplier)) - 1
    m0 = round(math.ldexp(multiplier, 31 + shift))
    while m0 >= 2**31:
        shift -= 1
        m0 = round(math.ldexp(multiplier, 31 + shift))
    return torch.tensor(m0), shift


def linear_with_cross_term(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    """The zero point enters through the sums of the weights, which are known before any x arrives."""
    x, w = q_x.long(), q_w.long()
    accumulator = (x[:, None, :] * w[None]).sum(-1) - z_x * w.sum(1) + bias_q.long()
    total = 31 + shift
    return (torch.div(accumulator * m0 + 2 ** (total - 1), 2**total, rounding_mode="floor") + z_y).clamp(0, 255).byte()


def linear_in_python(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    outputs = []
    for x in q_x.tolist():
        row = []
        for w, b in zip(q_w.tolist(), bias_q.tolist()):
            a = b + sum((x_i - z_x) * w_i for x_i, w_i in zip(x, w))
            row.append(max(0, min(255, z_y + (a * m0 // 2 ** (30 + shift) + 1) // 2)))
        outputs.append(row)
    return torch.tensor(outputs, dtype=torch.uint8)
