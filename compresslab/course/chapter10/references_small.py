"""Reference functions of exercises 10.6 to 10.10: their bodies are the notebook's solution regions."""

from __future__ import annotations

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel


def condense(X, y):
    """A list of row numbers of X, in the order in which they entered: Hart's condensed set, visited row by row."""
    store, size = [0], 0
    while size < len(store):
        size = len(store)
        for i in range(len(X)):
            distances = ((X[store] - X[i]) ** 2).sum(1)
            if y[store[distances.argmin()]] != y[i]:
                store.append(i)
    return store


def prototype_step(X, Y, B, Z, gamma, lr):
    """(B, Z) after one step of gradient descent on the squared loss; X (n, D), Y (n, L), B (m, D), Z (m, L)."""
    gap = X[:, None] - B
    K = np.exp(-gamma**2 * (gap**2).sum(2))
    error = K @ Z - Y
    H = (error @ Z.T) * K
    grad_B = 2 * gamma**2 * (H[:, :, None] * gap).sum(0) / len(X)
    grad_Z = K.T @ error / len(X)
    return B - lr * grad_B, Z - lr * grad_Z


def look_up(query, codebooks, codes):
    """(tables, distances): (M, k) and (N,), squared; query (D,), codebooks (M, k, D / M), codes (N, M)."""
    M = len(codebooks)
    tables = ((query.reshape(M, 1, -1) - codebooks) ** 2).sum(2)
    distances = tables[np.arange(M), codes].sum(1)
    return tables, distances


def reduce_expansion(X, alpha, Z, gamma):
    """(beta, error): the best coefficients (m,) of the vectors Z, and the squared distance in feature space that is left."""
    K_zx = rbf_kernel(Z, X, gamma=gamma)
    beta = np.linalg.solve(rbf_kernel(Z, Z, gamma=gamma), K_zx @ alpha)
    error = alpha @ rbf_kernel(X, X, gamma=gamma) @ alpha - beta @ K_zx @ alpha
    return beta, error


def c_table(name, values):
    """As above, repaired: one line of C that holds the array, row after row."""
    if values.dtype.kind in "iu":
        kinds = ("int8", "uint8", "int16", "uint16", "int32")
        kind = next(k for k in kinds if np.iinfo(k).min <= values.min() and values.max() <= np.iinfo(k).max) + "_t"
        words = [str(number) for number in values.flatten().tolist()]
    else:
        kind = "float"
        words = [f"{number:.8e}f" for number in values.flatten().tolist()]
    return f"static const {kind} {name}[{values.size}] = {{{', '.join(words)}}};"
