"""Other right answers to exercises 10.6 to 10.10: each of them must pass."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import rbf_kernel


def condense_by_memory(X, y):
    """Every point remembers its nearest in the store."""
    store, nearest, label = [], np.full(len(X), np.inf), np.zeros(len(X), int)

    def enter(i):
        store.append(i)
        distance = np.linalg.norm(X - X[i], axis=1)
        label[distance < nearest] = i
        np.minimum(nearest, distance, out=nearest)

    enter(0)
    added = True
    while added:
        added = False
        for i in range(len(X)):
            if y[label[i]] != y[i]:
                enter(i)
                added = True
    return store


def condense_by_table(X, y):
    """All distances at once; stops after a full round without a new one, wherever it began."""
    table, store, i, quiet = cdist(X, X), [0], 0, 0
    while quiet <= len(X):
        if y[store[table[i, store].argmin()]] == y[i]:
            quiet += 1
        else:
            store, quiet = [*store, i], 0
        i = (i + 1) % len(X)
    return np.array(store)


def step_by_autograd(X, Y, B, Z, gamma, lr):
    X, Y = torch.from_numpy(X), torch.from_numpy(Y)
    B, Z = (torch.from_numpy(p.copy()).requires_grad_() for p in (B, Z))
    K = torch.exp(-(gamma**2) * (X[:, None] - B).square().sum(2))
    loss = (K @ Z - Y).square().sum() / (2 * len(X))
    grad_B, grad_Z = torch.autograd.grad(loss, (B, Z))
    return (B - lr * grad_B).detach().numpy(), (Z - lr * grad_Z).detach().numpy()


def step_by_matrices(X, Y, B, Z, gamma, lr):
    K = rbf_kernel(X, B, gamma=gamma**2)
    error = (K @ Z - Y) / len(X)
    H = (error @ Z.T) * K
    return B - lr * 2 * gamma**2 * (H.T @ X - H.sum(0)[:, None] * B), Z - lr * K.T @ error


def step_in_a_loop(X, Y, B, Z, gamma, lr):
    new_B, new_Z = B.copy(), Z.copy()
    for x, y in zip(X, Y):
        k = np.array([np.exp(-(gamma**2) * ((x - b) ** 2).sum()) for b in B])
        error = k @ Z - y
        for j in range(len(B)):
            new_Z[j] -= lr / len(X) * k[j] * error
            new_B[j] -= lr / len(X) * (error @ Z[j]) * k[j] * 2 * gamma**2 * (x - B[j])
    return new_B, new_Z


def look_up_in_a_loop(query, codebooks, codes):
    pieces = np.split(query, len(codebooks))
    tables = np.array([[((piece - word) ** 2).sum() for word in book] for piece, book in zip(pieces, codebooks)])
    return tables, [sum(tables[m, v] for m, v in enumerate(code)) for code in codes]


def look_up_by_piece(query, codebooks, codes):
    tables = np.concatenate([cdist(piece[None], book, "sqeuclidean") for piece, book in zip(np.split(query, len(codebooks)), codebooks)])
    return tables, sum(tables[m][codes[:, m]] for m in range(len(codebooks)))


def reduce_by_three_terms(X, alpha, Z, gamma):
    kernel = lambda A, B: np.exp(-gamma * cdist(A, B, "sqeuclidean"))  # noqa: E731
    beta = np.linalg.inv(kernel(Z, Z)) @ kernel(Z, X) @ alpha
    return beta, alpha @ kernel(X, X) @ alpha - 2 * beta @ kernel(Z, X) @ alpha + beta @ kernel(Z, Z) @ beta


def reduce_by_least_squares(X, alpha, Z, gamma):
    beta = np.linalg.lstsq(rbf_kernel(Z, Z, gamma=gamma), rbf_kernel(Z, X, gamma=gamma) @ alpha, rcond=None)[0]
    points, signs = np.vstack([X, Z]), np.concatenate([alpha, -beta])
    return beta, signs @ rbf_kernel(points, points, gamma=gamma) @ signs


def table_by_repr(name, values):
    """numpy's shortest words that give the same float32 back."""
    flat = np.ravel(values)
    if flat.dtype.kind == "f":
        words = [np.format_float_scientific(number, unique=True) + "f" for number in flat.astype(np.float32)]
        return f"static const float {name}[{len(flat)}] = {{" + ",".join(words) + "};"
    low, high = int(flat.min()), int(flat.max())
    bits = next(b for b in (8, 16, 32) if -(2 ** (b - 1)) <= low and high < 2 ** (b - 1) or 0 <= low and high < 2**b)
    sign = "u" if low >= 0 else ""
    return f"static const {sign}int{bits}_t {name}[{len(flat)}] = {{" + ",".join(str(int(v)) for v in flat) + "};"


def table_in_hex(name, values):
    """Reals as hexadecimal floats, which C99 reads exactly."""
    if values.dtype.kind != "f":
        return table_by_repr(name, values)
    words = [float(np.float32(number)).hex() + "f" for number in values.reshape(-1)]
    return f"static const float {name}[{values.size}] = {{{', '.join(words)}}};"
