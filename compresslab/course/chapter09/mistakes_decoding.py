"""Wrong answers to exercises 9.7 to 9.9, each of a kind of its own."""

from __future__ import annotations

import torch

from compresslab.course.chapter09.references_decoding import accept_or_resample as right_rule
from compresslab.course.chapter09.references_decoding import quantize_keys as right_keys
from compresslab.course.chapter09.references_decoding import tokens_per_second as right_speed

# -- 9.7 tokens per second ---------------------------------------------------------------------------

def _times(weights, bits, cache_bytes, batch, bandwidth, macs_per_second):
    return (weights * bits / 8 + batch * cache_bytes) / bandwidth, batch * weights / macs_per_second


def cheap_arithmetic(weights, bits, cache_bytes, batch, bandwidth, macs_per_second):
    return right_speed(weights, bits, cache_bytes, batch, bandwidth, macs_per_second * 16 / bits)


def bits_as_bytes(weights, bits, cache_bytes, batch, bandwidth, macs_per_second):
    return right_speed(weights, 8 * bits, cache_bytes, batch, bandwidth, macs_per_second)


def weights_for_each(weights, bits, cache_bytes, batch, bandwidth, macs_per_second):
    return right_speed(weights, bits * batch, cache_bytes, batch, bandwidth, macs_per_second)


def cache_once(weights, bits, cache_bytes, batch, bandwidth, macs_per_second):
    return right_speed(weights, bits, cache_bytes / batch, batch, bandwidth, macs_per_second)


def cache_forgotten(weights, bits, cache_bytes, batch, bandwidth, macs_per_second):
    return right_speed(weights, bits, 0, batch, bandwidth, macs_per_second)


def cache_rounded(weights, bits, cache_bytes, batch, bandwidth, macs_per_second):
    return right_speed(weights, bits, cache_bytes * bits / 16, batch, bandwidth, macs_per_second)


def added(*arguments):
    return arguments[3] / sum(_times(*arguments))


def the_faster(*arguments):
    return arguments[3] / min(_times(*arguments))


def reading_only(*arguments):
    return arguments[3] / _times(*arguments)[0]


def computing_only(*arguments):
    return arguments[3] / _times(*arguments)[1]


def computed_once(*arguments):
    reading, computing = _times(*arguments)
    return arguments[3] / max(reading, computing / arguments[3])


def steps_per_second(*arguments):
    return 1 / max(_times(*arguments))


def seconds(*arguments):
    return max(_times(*arguments)) / arguments[3]


# -- 9.8 keys in few bits ----------------------------------------------------------------------------

def _on_grid(x, bits, dim, *, steps=None, rounding=torch.round, guard=True, low=None):
    low = x.amin(dim, keepdim=True) if low is None else low
    scale = (x.amax(dim, keepdim=True) - low) / (2**bits - 1 if steps is None else steps)
    if guard:
        scale = torch.where(scale > 0, scale, 1.0)
    return rounding((x - low) / scale) * scale + low


def _by_group(keys, group, change):
    whole = keys.shape[2] // group * group
    x = keys[:, :, :whole].unflatten(2, (whole // group, group))
    return torch.cat([change(x).flatten(2, 3), keys[:, :, whole:]], dim=2)


def by_token(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, 4))


def one_grid_per_group(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, (3, 4)))


def all_tokens(keys, bits, group):
    whole = keys.shape[2] // group * group
    return right_keys(keys, bits, whole) if whole else keys.clone()


def one_grid(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, (0, 1, 2, 3, 4)) if x.numel() else x)


def over_heads(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, (1, 3)))


def over_texts(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, (0, 3)))


def interleaved(keys, bits, group):
    whole = keys.shape[2] // group * group
    x = keys[:, :, :whole].unflatten(2, (group, whole // group))
    return torch.cat([_on_grid(x, bits, 2).flatten(2, 3), keys[:, :, whole:]], dim=2)


def rest_rounded(keys, bits, group):
    out = right_keys(keys, bits, group)
    rest = keys.shape[2] % group
    return torch.cat([out[:, :, : keys.shape[2] - rest], _on_grid(keys[:, :, -rest:], bits, 2)], dim=2) if rest else out


def rest_dropped(keys, bits, group):
    return right_keys(keys, bits, group)[:, :, : keys.shape[2] // group * group]


def symmetric(keys, bits, group):
    def change(x):
        top = 2 ** (bits - 1) - 1 or 1
        scale = x.abs().amax(3, keepdim=True) / top
        return (x / torch.where(scale > 0, scale, 1.0)).round().clamp(-top, top) * torch.where(scale > 0, scale, 1.0)
    return _by_group(keys, group, change)


def from_zero(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, 3, low=torch.zeros_like(x[:, :, :, :1])))


def a_step_too_many(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, 3, steps=2**bits))


def a_step_too_few(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, 3, steps=max(1, 2**bits - 2)))


def cut_off(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, 3, rounding=torch.floor))


def not_shifted_back(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, 3) - x.amin(3, keepdim=True))


def integers(keys, bits, group):
    def change(x):
        low = x.amin(3, keepdim=True)
        scale = (x.amax(3, keepdim=True) - low) / (2**bits - 1)
        return ((x - low) / torch.where(scale > 0, scale, 1.0)).round()
    return _by_group(keys, group, change)


def no_guard(keys, bits, group):
    return _by_group(keys, group, lambda x: _on_grid(x, bits, 3, guard=False))


# -- 9.9 accept or draw again ------------------------------------------------------------------------

def _pick(weights, v):
    cumulative = (weights / weights.sum()).cumsum(0)
    return min(int((cumulative <= v).sum()), len(weights) - 1)


def _reject(p, q, token, u, draw):
    return (token, True) if u * q[token] < p[token] else (draw(), False)


def always_accepts(p, q, token, u, v):
    return token, True


def only_if_likelier(p, q, token, u, v):
    return (token, True) if p[token] >= q[token] else (_pick((p - q).clamp(min=0), v), False)


def with_probability_p(p, q, token, u, v):
    if u < p[token]:
        return token, True
    left = (p - q).clamp(min=0)
    return (_pick(left, v) if left.any() else token), False


def inverted(p, q, token, u, v):
    if u * p[token] < q[token]:
        return token, True
    left = (p - q).clamp(min=0)
    return (_pick(left, v) if left.any() else token), False


def draws_from_p(p, q, token, u, v):
    return _reject(p, q, token, u, lambda: _pick(p, v))


def draws_from_q(p, q, token, u, v):
    return _reject(p, q, token, u, lambda: _pick(q, v))


def absolute_difference(p, q, token, u, v):
    return _reject(p, q, token, u, lambda: _pick((p - q).abs(), v))


def other_difference(p, q, token, u, v):
    return _reject(p, q, token, u, lambda: _pick((q - p).clamp(min=0), v))


def not_normalised(p, q, token, u, v):
    return _reject(p, q, token, u, lambda: min(int(((p - q).clamp(min=0).cumsum(0) <= v).sum()), len(p) - 1))


def likeliest_left(p, q, token, u, v):
    return _reject(p, q, token, u, lambda: int((p - q).argmax()))


def likeliest(p, q, token, u, v):
    return _reject(p, q, token, u, lambda: int(p.argmax()))


def all_but_the_token(p, q, token, u, v):
    def draw():
        others = p.clone()
        others[token] = 0
        return _pick(others, v)
    return _reject(p, q, token, u, draw)


def same_number_twice(p, q, token, u, v):
    return _reject(p, q, token, u, lambda: _pick((p - q).clamp(min=0), u))


def flag_inverted(p, q, token, u, v):
    new, accepted = right_rule(p, q, token, u, v)
    return new, not accepted


def flag_always(p, q, token, u, v):
    return right_rule(p, q, token, u, v)[0], True


def u_on_the_wrong_side(p, q, token, u, v):
    if u * q[token] >= p[token]:
        return token, True
    left = (p - q).clamp(min=0)
    return (_pick(left, v) if left.any() else token), False
