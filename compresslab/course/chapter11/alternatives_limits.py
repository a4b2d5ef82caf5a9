"""Other right answers to exercises 11.7 and 11.8."""

from __future__ import annotations

import numpy as np
import torch

# -- 11.7 a layer on the roof ------------------------------------------------------------------------

def by_two_clocks(weight, image, out, batch, bits, peak, bandwidth):
    macs = batch * weight[0]
    for size in (*out[1:], *weight[1:]):
        macs *= size
    count = np.prod(weight) + batch * np.prod(image) + batch * np.prod(out)
    moved = count * bits / 8
    seconds = max(macs / peak, moved / bandwidth)
    return macs / moved, macs / seconds


def per_image(weight, image, out, batch, bits, peak, bandwidth):
    weights = torch.Size(weight).numel()
    macs = torch.Size(out).numel() * weights / weight[0]
    moved = bits / 8 * (weights / batch + torch.Size(image).numel() + torch.Size(out).numel())
    intensity = macs / moved
    return [intensity, peak if intensity > peak / bandwidth else intensity * bandwidth]


# -- 11.8 the gain of a network ----------------------------------------------------------------------

def with_arrays(before, after, bandwidth, rest):
    def seconds(layers):
        macs, moved, peak = np.array(layers, dtype=float).T
        return rest + np.maximum(macs / peak, moved / bandwidth).sum()
    return seconds(before) / seconds(after)


def one_over(before, after, bandwidth, rest):
    def seconds(layer):
        macs, moved, peak = layer
        slow = min(peak, bandwidth * macs / moved)
        return macs / slow
    return 1 / ((rest + sum(map(seconds, after))) / (rest + sum(map(seconds, before))))
