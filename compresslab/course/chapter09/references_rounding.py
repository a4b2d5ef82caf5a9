"""Right answers to exercises 9.4 to 9.6; the solution regions of the notebook hold the same lines."""

from __future__ import annotations

import torch


def obs_round(weight, H, quantize):
    """Round column by column; the columns to come make up for each error."""
    W = weight.double().clone()
    U = torch.linalg.cholesky(torch.linalg.inv(H.double()), upper=True)
    for j in range(W.shape[1]):
        rounded = quantize(W[:, j])
        error = (W[:, j] - rounded) / U[j, j]
        W[:, j + 1 :] -= torch.outer(error, U[j, j + 1 :])
        W[:, j] = rounded
    return W


def obs_prune(weight, H, n, m):
    """Keep n of every m columns in each row; the columns to come make up for what is dropped."""
    W = weight.double().clone()
    U = torch.linalg.cholesky(torch.linalg.inv(H.double()), upper=True)
    keep = torch.zeros_like(W)
    for j in range(W.shape[1]):
        if j % m == 0:
            saliency = (W[:, j : j + m] / U.diagonal()[j : j + m]).square()
            keep[:, j : j + m].scatter_(1, saliency.topk(n, dim=1).indices, 1.0)
        kept = W[:, j] * keep[:, j]
        error = (W[:, j] - kept) / U[j, j]
        W[:, j + 1 :] -= torch.outer(error, U[j, j + 1 :])
        W[:, j] = kept
    return W


def smooth(gamma, readers, absmax_x, alpha):
    """The norm's weight divided, the readers' columns multiplied by the same scales."""
    absmax_w = torch.stack([W.abs().amax(0) for W in readers]).amax(0)
    live = (absmax_x > 0) & (absmax_w > 0)
    s = torch.where(live, absmax_x**alpha / absmax_w ** (1 - alpha), 1.0)
    return gamma / s, [W * s for W in readers]
