"""The reference functions of exercises 9.7 to 9.9: what writing costs, a cache in few bits, a draft that is judged."""

from __future__ import annotations

import torch
from torch import Tensor


def tokens_per_second(weights: float, bits: float, cache_bytes: float, batch: int, bandwidth: float, macs_per_second: float) -> float:
    """The most tokens per second, of all texts together, that the memory and the processor allow."""
    bytes_read = weights * bits / 8 + batch * cache_bytes
    reading = bytes_read / bandwidth
    computing = batch * weights / macs_per_second
    return batch / max(reading, computing)


def quantize_keys(keys: Tensor, bits: int, group: int) -> Tensor:
    """Round each channel to 2^bits levels from its minimum to its maximum, `group` tokens at a time; the rest waits."""
    B, H, L, d = keys.shape
    whole = L // group * group
    x = keys[:, :, :whole].reshape(B, H, L // group, group, d)
    low = x.amin(dim=3, keepdim=True)
    high = x.amax(dim=3, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    rounded = ((x - low) / scale).round() * scale + low
    return torch.cat([rounded.reshape(B, H, whole, d), keys[:, :, whole:]], dim=2)


def accept_or_resample(p: Tensor, q: Tensor, token: int, u: float, v: float) -> tuple[int, bool]:
    """(token, True) with probability min(1, p/q), else a token drawn from (p - q)+ by v, and False."""
    if u * q[token] < p[token]:
        return token, True
    left = (p - q).clamp(min=0)
    cumulative = (left / left.sum()).cumsum(0)
    return int((cumulative <= v).sum().clamp(max=len(p) - 1)), False
