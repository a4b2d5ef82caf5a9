"""Right answers to exercises 9.4 to 9.6 that look different: every check must accept them."""

from __future__ import annotations

import torch

# -- 9.4 obs_round -----------------------------------------------------------------------------------


def by_submatrices(weight, H, quantize):
    """Invert what is left of H before every column."""
    W = weight.double().clone()
    for j in range(W.shape[1]):
        C = torch.linalg.inv(H[j:, j:].double())
        rounded = quantize(W[:, j])
        W[:, j:] -= ((W[:, j] - rounded) / C[0, 0])[:, None] * C[0]
        W[:, j] = rounded
    return W


def by_elimination(weight, H, quantize):
    """One inverse, one step of Gaussian elimination after every column; a new result matrix."""
    W, C = weight.clone().double(), torch.linalg.inv(H.double())
    out = torch.empty_like(W)
    for j in range(W.shape[1]):
        out[:, j] = quantize(W[:, j])
        W = W - torch.outer(W[:, j] - out[:, j], C[j]) / C[j, j]
        C = C - torch.outer(C[:, j], C[j]) / C[j, j]
    return out


def by_lazy_blocks(weight, H, quantize):
    """The paper's blocks: inside at once, the rest of the matrix at the end of each block."""
    W = weight.double().clone()
    L = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H.double())))
    for start in range(0, W.shape[1], 3):
        stop = min(start + 3, W.shape[1])
        errors = torch.zeros(len(W), stop - start, dtype=torch.float64)
        for j in range(start, stop):
            rounded = quantize(W[:, j])
            errors[:, j - start] = (W[:, j] - rounded) / L[j, j]
            W[:, j + 1 : stop] -= torch.outer(errors[:, j - start], L[j + 1 : stop, j])
            W[:, j] = rounded
        W[:, stop:] -= errors @ L[stop:, start:stop].T
    return W.float()


# -- 9.5 obs_prune -----------------------------------------------------------------------------------


def prune_by_submatrices(weight, H, n, m):
    """Invert what is left of H; the saliency of a column is w^2 over the first entry of the inverse from there on."""
    W = weight.double().clone()
    columns = W.shape[1]
    C = [torch.linalg.inv(H[j:, j:].double()) for j in range(columns)]
    for start in range(0, columns, m):
        group = range(start, start + m)
        price = torch.stack([W[:, j].square() / (2 * C[j][0, 0]) for j in group], 1)
        drop = price.argsort(1)[:, : m - n]
        for j in group:
            gone = (drop == j - start).any(1)
            W[:, j:] -= torch.outer(torch.where(gone, W[:, j], 0.0) / C[j][0, 0], C[j][0])
            W[gone, j] = 0.0
    return W


def prune_row_by_row(weight, H, n, m):
    """Every row alone."""
    U = torch.linalg.cholesky(torch.linalg.inv(H.double()), upper=True)
    rows = []
    for row in weight.double():
        row, dropped = row.clone(), []
        for j in range(len(row)):
            if j % m == 0:
                order = sorted(range(j, j + m), key=lambda k: abs(float(row[k] / U[k, k])))
                dropped = order[: m - n]
            if j in dropped:
                row[j:] = row[j:] - row[j] / U[j, j] * U[j, j:]
                row[j] = 0.0
        rows.append(row)
    return torch.stack(rows).float()


# -- 9.6 smooth --------------------------------------------------------------------------------------


def smooth_by_loop(gamma, readers, absmax_x, alpha):
    """Channel by channel."""
    gamma, readers = gamma.clone(), [W.clone() for W in readers]
    for j in range(len(gamma)):
        w = max(float(W[:, j].abs().max()) for W in readers)
        x = float(absmax_x[j])
        s = x**alpha / w ** (1 - alpha) if x > 0 and w > 0 else 1.0
        gamma[j] /= s
        for W in readers:
            W[:, j] *= s
    return gamma, readers


def smooth_by_logarithms(gamma, readers, absmax_x, alpha):
    """The readers stacked into one matrix, the scales as a weighted mean of logarithms."""
    stacked = torch.cat(list(readers)).double()
    w, x = stacked.abs().max(0).values, absmax_x.double()
    s = (alpha * x.log() - (1 - alpha) * w.log()).exp()
    s = torch.where((w == 0) | (x == 0), torch.ones_like(s), s).float()
    return gamma / s, tuple(W @ torch.diag(s) for W in readers)
