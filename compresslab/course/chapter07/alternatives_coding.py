"""Right answers to exercises 7.1 to 7.6 that look different from the references: every check must let them pass."""

from __future__ import annotations

import math
from collections import Counter

import torch

# -- 7.1 coded_bits ----------------------------------------------------------------------------------


def bits_by_walking(weight, index_bits, bits):
    escape, zeros, entries, left = 2**index_bits - 1, 0, 0, 0
    for w in weight.reshape(-1).tolist():
        if w == 0:
            zeros += 1
            continue
        entries += zeros // escape + 1
        left, zeros = left + 1, 0
    return -(-entries * index_bits // 8) * 8, -(-left * bits // 8) * 8, 32 * min(left, 1 << bits)


def bits_by_entries(weight, index_bits, bits):
    """As in exercise 1.7: write the codes out, then count them."""
    escape, codes, last = 2**index_bits - 1, [], -1
    positions = (weight.flatten() != 0).nonzero().flatten().tolist()
    for position in positions:
        gap = position - last - 1
        codes += [escape] * (gap // escape) + [gap % escape]
        last = position
    book = len(positions) if len(positions) < 2**bits else 2**bits
    return [(len(codes) * index_bits + 7) // 8 * 8, (len(positions) * bits + 7) // 8 * 8, book * 32]


# -- 7.2 entropy -------------------------------------------------------------------------------------


def entropy_by_counter(symbols):
    n = symbols.numel()
    return sum(count / n * math.log2(n / count) for count in Counter(symbols.flatten().tolist()).values())


def entropy_by_logs(symbols):
    """log n - (1 / n) sum c log c, a tensor of float64."""
    if symbols.numel() == 0:
        return torch.tensor(0.0)
    counts = torch.unique(symbols, return_counts=True)[1].double()
    return (counts.sum().log() - (counts * counts.log()).sum() / counts.sum()) / math.log(2)


def entropy_in_single_precision(symbols):
    p = symbols.reshape(-1).unique(return_counts=True)[1] / max(symbols.numel(), 1)
    return torch.special.entr(p).sum().item() / math.log(2)


# -- 7.3 huffman_lengths -----------------------------------------------------------------------------


def lengths_by_sorting(counts):
    """No heap: sort again after each merge; of equal counts the larger group comes first."""
    lengths = [0] * len(counts)
    row = [(count, [symbol]) for symbol, count in enumerate(counts) if count]
    if len(row) == 1:
        lengths[row[0][1][0]] = 1
    while len(row) > 1:
        row.sort(key=lambda group: (group[0], -len(group[1])))
        (a, left), (b, right), *row = row
        for symbol in left + right:
            lengths[symbol] += 1
        row.append((a + b, right + left))
    return lengths


def lengths_by_tree(counts):
    """Parents first, depths afterwards; a tensor."""
    nodes = {symbol: count for symbol, count in enumerate(counts) if count > 0}
    parent, alive, new = {}, dict(nodes), len(counts)
    while len(alive) > 1:
        a = min(alive, key=lambda node: (alive[node], -node))
        weight = alive.pop(a)
        b = min(alive, key=lambda node: (alive[node], -node))
        alive[new] = weight + alive.pop(b)
        parent[a] = parent[b] = new
        new += 1
    lengths = torch.zeros(len(counts), dtype=torch.int64)
    for symbol in nodes:
        depth, node = 0, symbol
        while node in parent:
            depth, node = depth + 1, parent[node]
        lengths[symbol] = max(depth, 1)
    return lengths


# -- 7.4 uniform_rate --------------------------------------------------------------------------------


def rate_by_counter(weights, step):
    q = (weights.flatten().double() / step).round()
    n, counts = len(q), Counter(q.tolist())
    bits = sum(count / n * math.log2(n / count) for count in counts.values())
    return bits, (weights.flatten().double() - q * step).pow(2).mean()


def rate_by_floor(weights, step):
    q = torch.floor(weights / step + 0.5)
    counts = (q - q.min()).flatten().long().bincount().double()
    share = counts[counts > 0] / weights.numel()
    return -(share * share.log2()).sum(), torch.nn.functional.mse_loss(step * q, weights)


# -- 7.5 clip_partition ------------------------------------------------------------------------------


def partition_by_loop(weight, fraction, bits):
    flat = weight.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: abs(flat[i]))
    left = order[round(fraction * len(flat)):]
    shown = torch.zeros(len(flat))
    if left:
        low, high = min(flat[i] for i in left), max(flat[i] for i in left)
        groups = {}
        for i in left:
            place = int((flat[i] - low) / (high - low) * (2**bits - 1)) if high > low else 0
            groups.setdefault(min(place, 2**bits - 2), []).append(i)
        for members in groups.values():
            shown[members] = sum(flat[i] for i in members) / len(members)
    return shown.view(weight.shape)


def partition_by_one_hot(weight, fraction, bits):
    """The largest of the other end kept, ties from behind; memberships as a matrix."""
    w = weight.reshape(-1)
    left = w.abs().topk(len(w) - round(fraction * len(w))).indices
    if len(left) == 0:
        return torch.zeros_like(weight)
    values, k = w[left], 2**bits - 1
    width = (values.max() - values.min()).clamp(min=1e-30) / k
    member = torch.nn.functional.one_hot(((values - values.min()) / width).long().clamp(0, k - 1), k).to(w.dtype)
    means = (member.T @ values) / member.sum(0).clamp(min=1)
    return torch.zeros_like(w).index_put((left,), member @ means).reshape(weight.shape)


# -- 7.6 point_gradient ------------------------------------------------------------------------------


def gradient_by_autograd(gradient, indices, scales, points):
    p = torch.zeros(points, requires_grad=True)
    shown = p[indices].view(len(scales), -1) * scales.view(-1, 1)
    return torch.autograd.grad(shown, p, gradient.view_as(shown))[0]


def gradient_by_levels(gradient, indices, scales, points):
    bucket = len(gradient) // len(scales)
    scaled = (gradient.view(-1, bucket) * scales[:, None]).flatten()
    return torch.stack([scaled[indices == j].sum() for j in range(points)])


def gradient_by_loop(gradient, indices, scales, points):
    total, bucket = [0.0] * points, len(gradient) // len(scales)
    for i, (g, j) in enumerate(zip(gradient.tolist(), indices.tolist())):
        total[j] += g * float(scales[i // bucket])
    return torch.tensor(total)
