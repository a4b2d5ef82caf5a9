"""Typical wrong answers to exercises 10.6 and 10.7: each one is run, to recognise it in a learner's answer."""

from __future__ import annotations

import numpy as np

# -- 10.6 Hart's condensed set -----------------------------------------------------------------------


def _rounds(X, y, rounds=10_000, start=None, wrong=lambda guess, own: guess != own, power=2.0):
    """Hart's rule with its parts as arguments."""
    store = [0] if start is None else list(start)
    for _ in range(rounds):
        size = len(store)
        for i in range(len(X)):
            distances = (np.abs(X[store] - X[i]) ** power).sum(1)
            if i not in store and wrong(y[store[distances.argmin()]], y[i]):
                store.append(i)
        if len(store) == size:
            break
    return store


def one_round(X, y):
    return _rounds(X, y, rounds=1)


def keeps_the_right_ones(X, y):
    return _rounds(X, y, wrong=lambda guess, own: guess == own)


def one_of_each_class(X, y):
    return _rounds(X, y, start=[int(np.flatnonzero(y == label)[0]) for label in np.unique(y)])


def starts_at_the_last(X, y):
    return _rounds(X, y, start=[len(X) - 1])


def city_blocks(X, y):
    return _rounds(X, y, power=1.0)


def all_at_once(X, y):
    """What a round gets wrong enters at its end."""
    store = [0]
    while True:
        wrong = [i for i in range(len(X)) if y[store[int(((X[store] - X[i]) ** 2).sum(1).argmin())]] != y[i]]
        if not wrong:
            return store
        store += wrong


def starts_again(X, y):
    """After each new point the round begins anew."""
    store = [0]
    while True:
        for i in range(len(X)):
            if y[store[int(((X[store] - X[i]) ** 2).sum(1).argmin())]] != y[i]:
                store.append(i)
                break
        else:
            return store


def whole_set_asked(X, y):
    """A point stays where its nearest neighbour in the *whole* set is of another class: the border only."""
    table = ((X[:, None] - X) ** 2).sum(2) + np.diag(np.full(len(X), np.inf))
    return [0] + [i for i in range(1, len(X)) if y[table[i].argmin()] != y[i]]


def noise_removed(X, y):
    """Wilson's editing: what its neighbours contradict is thrown away."""
    table = ((X[:, None] - X) ** 2).sum(2) + np.diag(np.full(len(X), np.inf))
    return [i for i in range(len(X)) if y[table[i].argmin()] == y[i]] or [0]


def points_returned(X, y):
    return X[_rounds(X, y)]


def mask_returned(X, y):
    return np.isin(np.arange(len(X)), _rounds(X, y))


def sorted_rows(X, y):
    return sorted(_rounds(X, y))


# -- 10.7 one step for prototypes and scores ---------------------------------------------------------


def step(X, Y, B, Z, gamma, lr, *, kernel=None, factor=None, mean=True, gap_sign=1.0, target=1.0, new_Z_first=False, new_B_first=False, move=(1.0, 1.0), scores=True):
    """`prototype_step` with its parts as arguments."""

    def parts(B, Z):
        gap = X[:, None] - B
        K = np.exp(-gamma**2 * (gap**2).sum(2)) if kernel is None else kernel(gap, gamma)
        error = K @ Z - target * Y
        H = ((error @ Z.T) if scores else error.sum(1, keepdims=True)) * K
        n = len(X) if mean else 1
        scale = 2 * gamma**2 if factor is None else factor(gamma)
        return scale * gap_sign * (H[:, :, None] * gap).sum(0) / n, K.T @ error / n

    grad_B, grad_Z = parts(B, Z)
    if new_Z_first:
        grad_B = parts(B, Z - lr * grad_Z)[0]
    if new_B_first:
        grad_Z = parts(B - lr * grad_B, Z)[1]
    return B - move[0] * lr * grad_B, Z - move[1] * lr * grad_Z


def _with(**parts):
    def prototype_step(X, Y, B, Z, gamma, lr):
        return step(X, Y, B, Z, gamma, lr, **parts)

    return prototype_step


uphill = _with(move=(-1.0, -1.0))
prototypes_uphill = _with(gap_sign=-1.0)
gamma_not_squared = _with(kernel=lambda gap, gamma: np.exp(-gamma * (gap**2).sum(2)))
gamma_forgotten = _with(factor=lambda gamma: 2.0)
gamma_once = _with(factor=lambda gamma: 2 * gamma)
two_forgotten = _with(factor=lambda gamma: gamma**2)
not_squared = _with(kernel=lambda gap, gamma: np.exp(-gamma**2 * np.sqrt((gap**2).sum(2))))
summed = _with(mean=False)
scores_first = _with(new_Z_first=True)
prototypes_first = _with(new_B_first=True)
prototypes_fixed = _with(move=(0.0, 1.0))
scores_fixed = _with(move=(1.0, 0.0))
doubled = _with(move=(2.0, 2.0))
labels_forgotten = _with(target=0.0)
scores_not_asked = _with(scores=False)


def gradients_returned(X, Y, B, Z, gamma, lr):
    B_new, Z_new = step(X, Y, B, Z, gamma, 1.0)
    return B - B_new, Z - Z_new


def turned_round(X, Y, B, Z, gamma, lr):
    return step(X, Y, B, Z, gamma, lr)[::-1]
