"""Typical wrong answers to exercises 2.10 to 2.13: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_training`.
"""

from __future__ import annotations

import torch


# -- 2.10 best_rounding ------------------------------------------------------------------------------

def _choices(w, scale):
    n = len(w)
    q = torch.floor(w / scale) + ((torch.arange(2**n)[:, None] >> torch.arange(n)) & 1)
    return q, scale * q - w


def nearest(w, scale, H):
    return torch.round(w / scale).int()


def signed_sum(w, scale, H):
    q, d = _choices(w, scale)
    return q[(d @ H).sum(1).argmin()].int()


def absolute_sum(w, scale, H):
    q, d = _choices(w, scale)
    return q[d.sum(1).abs().argmin()].int()


def one_flip(w, scale, H):
    best = torch.round(w / scale)
    nearest, least = best.clone(), float((scale * best - w) @ H @ (scale * best - w))
    for j in range(len(w)):
        q = nearest.clone()
        q[j] = 2 * torch.floor(w[j] / scale) + 1 - q[j]
        error = float((scale * q - w) @ H @ (scale * q - w))
        if error < least:
            best, least = q, error
    return best.int()


def one_after_the_other(w, scale, H):
    d = torch.zeros_like(w)
    for j in range(len(w)):
        low = torch.floor(w[j] / scale)
        errors = []
        for q in (low, low + 1):
            d[j] = scale * q - w[j]
            errors.append(float(d @ H @ d))
        d[j] = scale * (low + (errors[1] < errors[0])) - w[j]
    return torch.round((d + w) / scale).int()


def largest_error(w, scale, H):
    q, d = _choices(w, scale)
    return q[((d @ H) * d).sum(1).argmax()].int()


def real_numbers(w, scale, H):
    q, d = _choices(w, scale)
    return scale * q[((d @ H) * d).sum(1).argmin()]


def choices_returned(w, scale, H):
    q, d = _choices(w, scale)
    return (q[((d @ H) * d).sum(1).argmin()] - torch.floor(w / scale)).int()


# -- 2.11 fake_quantize ------------------------------------------------------------------------------

def _grid(w, scale, qmin, qmax):
    return scale * torch.round(w / scale).clamp(qmin, qmax)


def no_gradient(w, scale, qmin, qmax):
    return _grid(w, scale, qmin, qmax)


def no_clip_mask(w, scale, qmin, qmax):
    return w + (_grid(w, scale, qmin, qmax) - w).detach()


def detached_the_weight(w, scale, qmin, qmax):
    q = _grid(w, scale, qmin, qmax)
    return q + (w - q.detach())


def rounded_before_the_clamp(w, scale, qmin, qmax):
    v = w / scale
    return scale * (v + (v.round() - v).detach()).clamp(qmin, qmax)


def edge_left_out(w, scale, qmin, qmax):
    v = w / scale
    inside = (v > qmin) & (v < qmax)
    return _grid(w, scale, qmin, qmax).detach() + (w - w.detach()) * inside


def not_clamped(w, scale, qmin, qmax):
    return w + (scale * torch.round(w / scale) - w).detach()


def integers_returned(w, scale, qmin, qmax):
    v = (w / scale).clamp(qmin, qmax)
    return v + (v.round() - v).detach()


def clamped_the_real_weight(w, scale, qmin, qmax):
    v = w.clamp(qmin, qmax) / scale
    return scale * (v + (v.round() - v).detach())


# -- 2.12 lsq_gradient -------------------------------------------------------------------------------

def _slope(w, step, qn, qp):
    v = w / step
    return torch.where((v > -qn) & (v < qp), v.round() - v, v.clamp(-qn, qp))


def forgot_qp(w, step, upstream, qn, qp):
    return (_slope(w, step, qn, qp) * upstream).sum() / w.numel() ** 0.5


def mean_of_the_slopes(w, step, upstream, qn, qp):
    return (_slope(w, step, qn, qp) * upstream).mean()


def mean_and_g(w, step, upstream, qn, qp):
    return (_slope(w, step, qn, qp) * upstream).mean() / (w.numel() * qp) ** 0.5


def plus_qn_below(w, step, upstream, qn, qp):
    v = w / step
    slope = torch.where(v <= -qn, torch.tensor(float(qn)), _slope(w, step, qn, qp))
    return (slope * upstream).sum() / (w.numel() * qp) ** 0.5


def edge_inside(w, step, upstream, qn, qp):
    v = w / step
    slope = torch.where((v >= -qn) & (v <= qp), v.round() - v, v.clamp(-qn, qp))
    return (slope * upstream).sum() / (w.numel() * qp) ** 0.5


def forgot_g(w, step, upstream, qn, qp):
    return (_slope(w, step, qn, qp) * upstream).sum()


def forgot_the_saturated(w, step, upstream, qn, qp):
    v = w / step
    inside = (v > -qn) & (v < qp)
    return ((v.round() - v) * inside * upstream).sum() / (w.numel() * qp) ** 0.5


def never_saturated(w, step, upstream, qn, qp):
    v = w / step
    return ((v.round() - v) * upstream).sum() / (w.numel() * qp) ** 0.5


def wrong_sign(w, step, upstream, qn, qp):
    v = w / step
    slope = torch.where((v > -qn) & (v < qp), v - v.round(), v.clamp(-qn, qp))
    return (slope * upstream).sum() / (w.numel() * qp) ** 0.5


def rounding_held_fixed(w, step, upstream, qn, qp):
    return ((w / step).round().clamp(-qn, qp) * upstream).sum() / (w.numel() * qp) ** 0.5


def upstream_ignored(w, step, upstream, qn, qp):
    return _slope(w, step, qn, qp).sum() / (w.numel() * qp) ** 0.5


def no_root(w, step, upstream, qn, qp):
    return (_slope(w, step, qn, qp) * upstream).sum() / (w.numel() * qp)


# -- 2.13 ternary ------------------------------------------------------------------------------------

def _by_threshold(w, threshold):
    kept = w.abs() > threshold
    alpha = w.abs()[kept].mean() if kept.any() else torch.tensor(0.0)
    return w.sign() * kept, float(alpha)


def rule_of_thumb(w):
    return _by_threshold(w, 0.7 * w.abs().mean())


def threshold_at_the_mean(w):
    return _by_threshold(w, w.abs().mean())


def _by_score(w, score):
    size = w.abs().flatten().sort(descending=True).values
    sums, k = size.cumsum(0), torch.arange(1, len(size) + 1)
    best = int(score(sums, k).argmax())
    t = w.sign() * (w.abs() >= size[best])
    return t, float(sums[best] / (best + 1))


def _by_order(w, sort_by, score, kept_more=0, alpha_of=lambda size, best: size[:best + 1].mean()):
    """Sorted by what `sort_by` makes of w; best + 1 weights kept, or `kept_more` more."""
    size, order = sort_by(w).flatten().sort(descending=True)
    sums, k = size.cumsum(0), torch.arange(1, len(size) + 1)
    best = int(score(sums, k).argmax())
    kept, t = order[:best + 1 + kept_more], torch.zeros(len(size))
    t[kept] = w.flatten()[kept].sign()
    return t.view(w.shape), float(alpha_of(size, best))


def _right_score(sums, k):
    return sums**2 / k


def mean_as_score(w):
    return _by_order(w, torch.abs, lambda sums, k: sums / k)


def mean_as_score_with_ties(w):
    return _by_score(w, lambda sums, k: sums / k)


def sorted_with_signs(w):
    return _by_order(w, lambda w: w, _right_score)


def k_one_too_large(w):
    return _by_order(w, torch.abs, lambda sums, k: sums**2 / (k + 1))


def one_kept_less(w):
    return _by_order(w, torch.abs, _right_score, kept_more=-1)


def divided_by_the_index(w):
    return _by_order(w, torch.abs, _right_score, alpha_of=lambda size, best: size[:best + 1].sum() / best)


def alpha_is_the_largest(w):
    return _by_order(w, torch.abs, _right_score, alpha_of=lambda size, best: size[0])


def alpha_is_the_threshold(w):
    return _by_order(w, torch.abs, _right_score, alpha_of=lambda size, best: size[best])


def nothing_is_zero(w):
    return _by_score(w, lambda sums, k: sums)


def scale_of_all(w):
    t, _ = _by_score(w, lambda sums, k: sums**2 / k)
    return t, float(w.abs().mean())


def pattern_without_signs(w):
    t, alpha = _by_score(w, lambda sums, k: sums**2 / k)
    return t.abs(), alpha


def product_returned(w):
    t, alpha = _by_score(w, lambda sums, k: sums**2 / k)
    return alpha * t, alpha
