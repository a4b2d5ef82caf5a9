"""Reference answers to exercises 7.1 to 7.6. Their bodies are the notebook's solution regions, word for word."""

from __future__ import annotations

import heapq
import math

import torch


def coded_bits(weight, index_bits, bits):
    """(gaps, indices, code book): three ints, the bits that a pruned and clustered weight takes."""
    positions = weight.flatten().nonzero().flatten()
    zeros = positions.diff(prepend=torch.tensor([-1])) - 1
    entries = len(positions) + int((zeros // (2**index_bits - 1)).sum())
    gaps = 8 * math.ceil(entries * index_bits / 8)
    indices = 8 * math.ceil(len(positions) * bits / 8)
    return gaps, indices, 32 * min(2**bits, len(positions))


def entropy(symbols):
    """A float, in bits per symbol: what a code of one word per symbol needs at least; 0 if there are no symbols."""
    counts = symbols.flatten().unique(return_counts=True)[1].double()
    share = counts / counts.sum()
    return float((share * (1 / share).log2()).sum())


def huffman_lengths(counts):
    """A list of ints: the length of each symbol's code word in an optimal prefix code; 0 where the count is 0."""
    lengths = [0] * len(counts)
    heap = [(count, symbol, [symbol]) for symbol, count in enumerate(counts) if count > 0]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        members = first[2] + second[2]
        for symbol in members:
            lengths[symbol] += 1
        heapq.heappush(heap, (first[0] + second[0], first[1], members))
    return lengths


def uniform_rate(weights, step):
    """(bits, error): the entropy of the whole numbers, in bits per weight, and the mean squared error."""
    q = torch.round(weights / step)
    error = (weights - step * q).square().mean()
    return entropy(q.long()), float(error)


def clip_partition(weight, fraction, bits):
    """The weight as the network sees it in this step: a new tensor of the same shape."""
    w = weight.flatten()
    kept = torch.ones(len(w), dtype=torch.bool)
    kept[w.abs().argsort(stable=True)[:round(fraction * len(w))]] = False
    left, shown = w[kept], torch.zeros_like(w)
    if len(left):
        edges = torch.linspace(left.min(), left.max(), 2**bits)
        interval = torch.bucketize(left, edges[1:-1])
        sums = torch.zeros(2**bits - 1).index_add(0, interval, left)
        shown[kept] = (sums / interval.bincount(minlength=2**bits - 1))[interval]
    return shown.view_as(weight)


def point_gradient(gradient, indices, scales, points):
    """(points,): the gradient of each level; gradient and indices are flat, scales holds one number for each bucket."""
    alpha = scales.repeat_interleave(len(gradient) // len(scales))
    total = torch.zeros(points)
    return total.index_add(0, indices, alpha * gradient)
