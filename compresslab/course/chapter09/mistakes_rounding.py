"""Typical wrong answers to exercises 9.4 to 9.6. They diagnose a learner's mistake, and they test the checks."""

from __future__ import annotations

import torch


def _factor(H):
    return torch.linalg.cholesky(torch.linalg.inv(H.double()), upper=True)


# -- 9.4 obs_round -----------------------------------------------------------------------------------


def _round(weight, H, quantize, U=None, pass_on=None):
    """The loop, with the factor or what is passed on exchanged."""
    W = weight.double().clone()
    U = _factor(H) if U is None else U
    for j in range(W.shape[1]):
        rounded = quantize(W[:, j])
        W[:, j + 1 :] -= (pass_on or _right)(W[:, j] - rounded, U, j)
        W[:, j] = rounded
    return W


def _right(error, U, j):
    return torch.outer(error / U[j, j], U[j, j + 1 :])


def nearest(weight, H, quantize):
    return torch.stack([quantize(column) for column in weight.double().T], 1)


def wrong_sign(weight, H, quantize):
    return _round(weight, H, quantize, pass_on=lambda error, U, j: -_right(error, U, j))


def not_divided(weight, H, quantize):
    return _round(weight, H, quantize, pass_on=lambda error, U, j: torch.outer(error, U[j, j + 1 :]))


def divided_twice(weight, H, quantize):
    return _round(weight, H, quantize, pass_on=lambda error, U, j: torch.outer(error / U[j, j] ** 2, U[j, j + 1 :]))


def factor_of_H(weight, H, quantize):
    return _round(weight, H, quantize, U=torch.linalg.cholesky(H.double(), upper=True))


def inverse_of_the_factor(weight, H, quantize):
    return _round(weight, H, quantize, U=torch.linalg.inv(torch.linalg.cholesky(H.double())).T)


def not_eliminated(weight, H, quantize):
    return _round(weight, H, quantize, U=torch.linalg.inv(H.double()))


def along_H(weight, H, quantize):
    return _round(weight, H, quantize, U=H.double())


def along_minus_H(weight, H, quantize):
    return _round(weight, H, quantize, U=H.double(), pass_on=lambda error, U, j: -_right(error, U, j))


def damped(weight, H, quantize):
    H = H.double()
    return _round(weight, H + 0.01 * H.diagonal().mean() * torch.eye(len(H)).double(), quantize)


def error_of_the_original(weight, H, quantize):
    W, U = weight.double().clone(), _factor(H)
    for j in range(W.shape[1]):
        rounded = quantize(W[:, j])
        W[:, j + 1 :] -= _right(weight[:, j].double() - rounded, U, j)
        W[:, j] = rounded
    return W


def next_column_only(weight, H, quantize):
    W, U = weight.double().clone(), _factor(H)
    for j in range(W.shape[1]):
        rounded = quantize(W[:, j])
        W[:, j + 1 : j + 2] -= _right(W[:, j] - rounded, U, j)[:, :1]
        W[:, j] = rounded
    return W


def never_rounded(weight, H, quantize):
    W, U = weight.double().clone(), _factor(H)
    for j in range(W.shape[1]):
        W[:, j + 1 :] -= _right(W[:, j] - quantize(W[:, j]), U, j)
    return W


def earlier_ones_too(weight, H, quantize):
    W, C = weight.double().clone(), torch.linalg.inv(H.double())
    for j in range(W.shape[1]):
        W -= torch.outer((W[:, j] - quantize(W[:, j])) / C[j, j], C[j])
    return W


def from_the_right(weight, H, quantize):
    return _round(weight.flip(1), H.flip(0, 1), quantize).flip(1)


# -- 9.5 obs_prune -----------------------------------------------------------------------------------


def _saliency(W, U, group):
    return (W[:, group] / U.diagonal()[group]).square()


def _top(saliency, n):
    return torch.zeros_like(saliency).scatter(1, saliency.topk(n, dim=1).indices, 1.0)


def _prune(weight, H, n, m, saliency=None, choose=_top, sign=1.0, divide=True):
    """The loop, with the saliency, the choice or the compensation exchanged."""
    W, U = weight.double().clone(), _factor(H)
    keep = torch.zeros_like(W)
    for j in range(W.shape[1]):
        if j % m == 0:
            group = slice(j, j + m)
            keep[:, group] = choose((saliency or _saliency)(W, U, group), n)
        kept = W[:, j] * keep[:, j]
        error = sign * (W[:, j] - kept) / (U[j, j] if divide else 1.0)
        W[:, j + 1 :] -= torch.outer(error, U[j, j + 1 :])
        W[:, j] = kept
    return W


def by_magnitude(weight, H, n, m):
    return _prune(weight, H, n, m, lambda W, U, group: W[:, group].abs())


def by_input_norm(weight, H, n, m):
    return _prune(weight, H, n, m, lambda W, U, group: W[:, group].square() * H.double().diagonal()[group])


def times_the_diagonal(weight, H, n, m):
    return _prune(weight, H, n, m, lambda W, U, group: (W[:, group] * U.diagonal()[group]).square())


def diagonal_not_squared(weight, H, n, m):
    return _prune(weight, H, n, m, lambda W, U, group: W[:, group].square() / U.diagonal()[group])


def whole_inverse(weight, H, n, m):
    diagonal = torch.linalg.inv(H.double()).diagonal()
    return _prune(weight, H, n, m, lambda W, U, group: W[:, group].square() / diagonal[group])


def signed(weight, H, n, m):
    return _prune(weight, H, n, m, lambda W, U, group: W[:, group] / U.diagonal()[group])


def masks_at_the_start(weight, H, n, m):
    return _prune(weight, H, n, m, lambda W, U, group: _saliency(weight.double(), U, group))


def keeps_the_cheapest(weight, H, n, m):
    return _prune(weight, H, n, m, choose=lambda saliency, n: _top(-saliency, n))


def drops_n(weight, H, n, m):
    return _prune(weight, H, n, m, choose=lambda saliency, n: _top(saliency, m - n))


def over_all_rows(weight, H, n, m):
    def choose(saliency, n):
        flat = saliency.flatten()
        return torch.zeros_like(flat).scatter(0, flat.topk(n * len(saliency)).indices, 1.0).view_as(saliency)

    return _prune(weight, H, n, m, choose=choose)


def over_the_whole_row(weight, H, n, m):
    W, U = weight.double().clone(), _factor(H)
    keep = _top((W / U.diagonal()).square(), n * (W.shape[1] // m))
    for j in range(W.shape[1]):
        kept = W[:, j] * keep[:, j]
        W[:, j + 1 :] -= torch.outer((W[:, j] - kept) / U[j, j], U[j, j + 1 :])
        W[:, j] = kept
    return W


def nothing_passed_on(weight, H, n, m):
    return _prune(weight, H, n, m, sign=0.0)


def prune_wrong_sign(weight, H, n, m):
    return _prune(weight, H, n, m, sign=-1.0)


def prune_not_divided(weight, H, n, m):
    return _prune(weight, H, n, m, divide=False)


def old_weights(weight, H, n, m):
    return weight.double() * (_prune(weight, H, n, m) != 0)


def behind_the_group_only(weight, H, n, m):
    W, U = weight.double().clone(), _factor(H)
    for start in range(0, W.shape[1], m):
        group = slice(start, start + m)
        keep = _top(_saliency(W, U, group), n)
        errors = W[:, group] * (1 - keep) / U.diagonal()[group]
        W[:, start + m :] -= errors @ U[group, start + m :]
        W[:, group] *= keep
    return W


def chosen_at_every_column(weight, H, n, m):
    W, U = weight.double().clone(), _factor(H)
    for j in range(W.shape[1]):
        start = j - j % m
        keep = _top(_saliency(W, U, slice(start, start + m)), n)[:, j - start]
        kept = W[:, j] * keep
        W[:, j + 1 :] -= torch.outer((W[:, j] - kept) / U[j, j], U[j, j + 1 :])
        W[:, j] = kept
    return W


# -- 9.6 smooth --------------------------------------------------------------------------------------


def _absmax(readers):
    return torch.stack([W.abs().amax(0) for W in readers])


def _scales(x, w, alpha):
    return torch.where((x > 0) & (w > 0), x**alpha / w ** (1 - alpha), 1.0)


def _apply(gamma, readers, s):
    return gamma / s, [W * s for W in readers]


def a_scale_for_each(gamma, readers, absmax_x, alpha):
    scales = [_scales(absmax_x, W.abs().amax(0), alpha) for W in readers]
    return gamma / scales[0], [W * s for W, s in zip(readers, scales)]


def first_reader_only(gamma, readers, absmax_x, alpha):
    return _apply(gamma, readers, _scales(absmax_x, readers[0].abs().amax(0), alpha))


def last_reader_only(gamma, readers, absmax_x, alpha):
    return _apply(gamma, readers, _scales(absmax_x, readers[-1].abs().amax(0), alpha))


def smallest_reader(gamma, readers, absmax_x, alpha):
    return _apply(gamma, readers, _scales(absmax_x, _absmax(readers).amin(0), alpha))


def mean_reader(gamma, readers, absmax_x, alpha):
    return _apply(gamma, readers, _scales(absmax_x, _absmax(readers).mean(0), alpha))


def mean_weight(gamma, readers, absmax_x, alpha):
    return _apply(gamma, readers, _scales(absmax_x, torch.cat(list(readers)).abs().mean(0), alpha))


def exponents_swapped(gamma, readers, absmax_x, alpha):
    return _apply(gamma, readers, _scales(absmax_x, _absmax(readers).amax(0), 1 - alpha))


def product(gamma, readers, absmax_x, alpha):
    w = _absmax(readers).amax(0)
    live = (absmax_x > 0) & (w > 0)
    return _apply(gamma, readers, torch.where(live, absmax_x**alpha * w ** (1 - alpha), 1.0))


def always_half(gamma, readers, absmax_x, alpha):
    return _apply(gamma, readers, _scales(absmax_x, _absmax(readers).amax(0), 0.5))


def other_way_round(gamma, readers, absmax_x, alpha):
    return _apply(gamma, readers, 1 / _scales(absmax_x, _absmax(readers).amax(0), alpha))


def both_multiplied(gamma, readers, absmax_x, alpha):
    s = _scales(absmax_x, _absmax(readers).amax(0), alpha)
    return gamma * s, [W * s for W in readers]


def gamma_forgotten(gamma, readers, absmax_x, alpha):
    return gamma.clone(), _apply(gamma, readers, _scales(absmax_x, _absmax(readers).amax(0), alpha))[1]


def readers_forgotten(gamma, readers, absmax_x, alpha):
    return gamma / _scales(absmax_x, _absmax(readers).amax(0), alpha), [W.clone() for W in readers]


def returns_the_scales(gamma, readers, absmax_x, alpha):
    s = _scales(absmax_x, _absmax(readers).amax(0), alpha)
    return s, [W * s for W in readers]


def scales_replace_gamma(gamma, readers, absmax_x, alpha):
    s = _scales(absmax_x, _absmax(readers).amax(0), alpha)
    return 1 / s, [W * s for W in readers]


def signed_maximum(gamma, readers, absmax_x, alpha):
    w = torch.stack([W.amax(0) for W in readers]).amax(0)
    return _apply(gamma, readers, _scales(absmax_x, w, alpha))


def by_outputs(gamma, readers, absmax_x, alpha):
    w = torch.stack([W.abs().amax(1) for W in readers]).amax(0)
    return _apply(gamma, readers, _scales(absmax_x, w, alpha))


def rows_multiplied(gamma, readers, absmax_x, alpha):
    s = _scales(absmax_x, _absmax(readers).amax(0), alpha)
    return gamma / s, [W * s[:, None] for W in readers]


def silent_channels(gamma, readers, absmax_x, alpha):
    return _apply(gamma, readers, absmax_x**alpha / _absmax(readers).amax(0) ** (1 - alpha))


def clamped(gamma, readers, absmax_x, alpha):
    w = _absmax(readers).amax(0).clamp(min=1e-5)
    return _apply(gamma, readers, (absmax_x**alpha / w ** (1 - alpha)).clamp(min=1e-5))
