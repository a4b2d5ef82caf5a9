"""Typical wrong answers to exercise 5.6: they diagnose a mistake, and they test the checks."""

from __future__ import annotations

import torch

from compresslab.course.chapter05 import references_matrices as right


# -- 5.6 response_svd --------------------------------------------------------------------------------

def _refuse(weight, rank):
    if not 1 <= rank <= min(weight.shape):
        raise ValueError("no such rank")
    return weight.double()


def _best(matrix, rank):
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank], S[:rank], Vh[:rank]


def _root(moments):
    """A lower triangular L with L L^T = H, damped just enough."""
    H = moments.double()
    return torch.linalg.cholesky(H + 1e-9 * H.diagonal().mean() * torch.eye(len(H), dtype=torch.float64))


def _float(B, A):
    return B.float(), A.float()


def moments_ignored(weight, moments, rank):
    U, S, Vh = _best(_refuse(weight, rank), rank)
    return _float(U * S, Vh)


def only_the_diagonal(weight, moments, rank):
    W, size = _refuse(weight, rank), moments.double().diagonal().sqrt()
    U, S, Vh = _best(W * size, rank)
    return _float(U, U.T @ W)


def whitening_left_in(weight, moments, rank):
    U, S, Vh = _best(_refuse(weight, rank) @ _root(moments), rank)
    return _float(U * S, Vh)


def whitened_again(weight, moments, rank):
    L = _root(moments)
    U, S, Vh = _best(_refuse(weight, rank) @ L, rank)
    return _float(U * S, Vh @ L)


def damped_too_much(weight, moments, rank):
    W, H = _refuse(weight, rank), moments.double()
    L = torch.linalg.cholesky(H + 0.01 * H.diagonal().mean() * torch.eye(len(H), dtype=torch.float64))
    U, _, _ = _best(W @ L, rank)
    return _float(U, U.T @ W)


def moments_for_their_root(weight, moments, rank):
    W = _refuse(weight, rank)
    U, _, _ = _best(W @ moments.double(), rank)
    return _float(U, U.T @ W)


def root_transposed(weight, moments, rank):
    W = _refuse(weight, rank)
    U, _, _ = _best(W @ _root(moments).T, rank)
    return _float(U, U.T @ W)


def smallest_directions(weight, moments, rank):
    W = _refuse(weight, rank)
    U = torch.linalg.eigh(W @ moments.double() @ W.T).eigenvectors[:, :rank]
    return _float(U, U.T @ W)


def inputs_that_vary_most(weight, moments, rank):
    W = _refuse(weight, rank)
    V = torch.linalg.eigh(moments.double()).eigenvectors[:, -rank:]
    return _float(W @ V, V.T)


def singular_not_expected(weight, moments, rank):
    W = _refuse(weight, rank)
    L = torch.linalg.cholesky(moments.double())
    U, _, _ = _best(W @ L, rank)
    return _float(U, U.T @ W)


def eigenvalues_on_top(weight, moments, rank):
    W = _refuse(weight, rank)
    values, vectors = torch.linalg.eigh(W @ moments.double() @ W.T)
    return _float(vectors[:, -rank:] * values[-rank:], vectors[:, -rank:].T @ W)


def left_in_double(weight, moments, rank):
    W = _refuse(weight, rank)
    U = torch.linalg.eigh(W @ moments.double() @ W.T).eigenvectors[:, -rank:]
    return U, U.T @ W


def order_swapped(weight, moments, rank):
    return right.response_svd(weight, moments, rank)[::-1]


def too_little_added(weight, moments, rank):
    W = _refuse(weight, rank)
    U, _, _ = _best(W @ _root(moments), rank)
    return _float(U, U.T @ W)


def any_rank(weight, moments, rank):
    W = weight.double()
    U = torch.linalg.eigh(W @ moments.double() @ W.T).eigenvectors.flip(1)[:, : min(rank, min(W.shape))]
    return _float(U, U.T @ W)


def only_zero_refused(weight, moments, rank):
    if rank < 1:
        raise ValueError("a rank is at least 1")
    return any_rank(weight, moments, rank)


def only_large_refused(weight, moments, rank):
    if rank > min(weight.shape):
        raise ValueError("rank too large")
    return any_rank(weight, moments, rank)
