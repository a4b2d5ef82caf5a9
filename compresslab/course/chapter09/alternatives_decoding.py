"""Other right answers to exercises 9.7 to 9.9: they must pass."""

from __future__ import annotations

import torch
from torch import Tensor

# -- 9.7 ---------------------------------------------------------------------------------------------

def per_token(weights, bits, cache_bytes, batch, bandwidth, macs_per_second):
    """The slower of two rates, per token."""
    by_memory = bandwidth / (weights * bits / (8 * batch) + cache_bytes)
    by_arithmetic = macs_per_second / weights
    return min(by_memory, by_arithmetic)


def as_tensor(weights, bits, cache_bytes, batch, bandwidth, macs_per_second):
    """Both times in one tensor."""
    work = torch.tensor([weights * bits / 8 + batch * cache_bytes, batch * weights], dtype=torch.float64)
    return batch / (work / torch.tensor([bandwidth, macs_per_second], dtype=torch.float64)).max()


# -- 9.8 ---------------------------------------------------------------------------------------------

def by_slices(keys: Tensor, bits: int, group: int) -> Tensor:
    """Group by group, written into a copy."""
    out = keys.clone()
    for start in range(0, keys.shape[2] - group + 1, group):
        x = keys[:, :, start : start + group].double()
        low, high = x.amin(2, keepdim=True), x.amax(2, keepdim=True)
        levels = 2**bits - 1
        share = torch.nan_to_num((x - low) / (high - low))
        out[:, :, start : start + group] = low + torch.round(share * levels) / levels * (high - low)
    return out


def channels_first(keys: Tensor, bits: int, group: int) -> Tensor:
    """With the tokens last."""
    x = keys.transpose(2, 3)
    groups = list(x.split(group, dim=3))
    for i, part in enumerate(groups):
        if part.shape[3] == group:
            low, high = part.aminmax(dim=3, keepdim=True)
            step = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
            groups[i] = torch.floor((part - low) / step + 0.5) * step + low
    return torch.cat(groups, dim=3).transpose(2, 3)


# -- 9.9 ---------------------------------------------------------------------------------------------

def by_quotient(p: Tensor, q: Tensor, token: int, u: float, v: float) -> tuple[int, bool]:
    """min(1, p / q) written as it stands; the next token found by searchsorted."""
    if u < min(1.0, float(p[token] / q[token])):
        return token, True
    left = torch.relu(p - q).double()
    place = torch.searchsorted(left.cumsum(0), v * left.sum(), right=True)
    return int(place.clamp(max=len(p) - 1)), False


def by_loop(p: Tensor, q: Tensor, token: int, u: float, v: float) -> tuple[int, bool]:
    """In plain Python, the vocabulary from its end."""
    p, q = p.tolist(), q.tolist()
    if p[token] >= q[token] or u < p[token] / q[token]:
        return token, True
    left = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
    way = v * sum(left)
    for x in reversed(range(len(left))):
        way -= left[x]
        if way < 0:
            return x, False
    return left.index(max(left)), False


def as_tensors(p: Tensor, q: Tensor, token: int, u: float, v: float) -> tuple[Tensor, Tensor]:
    """Returns tensors."""
    left = p - torch.minimum(p, q)
    stays = torch.tensor(u) <= p[token] / q[token]
    again = (left.cumsum(0) > v * left.sum()).int().argmax()
    return torch.where(stays, torch.tensor(token), again), stays
