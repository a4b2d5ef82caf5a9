"""Typical wrong answers to exercises 6.7 to 6.11: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_structures`.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F


# -- 6.7 lookup_product ------------------------------------------------------------------------------

def _table(x, codebooks):
    subspaces, _, length = codebooks.shape
    return torch.einsum("bsd,skd->bsk", x.reshape(len(x), subspaces, length), codebooks)


def _pick(table, indices):
    return table[:, torch.arange(table.shape[1]), indices]


def decoded_first(x, codebooks, indices):
    weight = codebooks[torch.arange(len(codebooks)), indices].flatten(1)
    return x @ weight.T


def one_hot_product(x, codebooks, indices):
    """A right table, looked up by multiplying with zeros and ones."""
    chosen = F.one_hot(indices, codebooks.shape[1]).to(x.dtype)
    return torch.einsum("bsk,msk->bm", _table(x, codebooks), chosen)


def first_codebook_only(x, codebooks, indices):
    return _pick(_table(x, codebooks[:1].expand_as(codebooks)), indices).sum(-1)


def interleaved_parts(x, codebooks, indices):
    subspaces, _, length = codebooks.shape
    parts = x.reshape(len(x), length, subspaces).transpose(1, 2)
    return _pick(torch.einsum("bsd,skd->bsk", parts, codebooks), indices).sum(-1)


def mean_of_parts(x, codebooks, indices):
    return _pick(_table(x, codebooks), indices).mean(-1)


def not_summed(x, codebooks, indices):
    return _pick(_table(x, codebooks), indices)


def summed_over_rows(x, codebooks, indices):
    return _pick(_table(x, codebooks), indices).sum(1)


def indices_reshaped(x, codebooks, indices):
    """(s, m) by `view`, which is no transpose."""
    picked = _table(x, codebooks).gather(2, indices.reshape(indices.shape[1], -1).expand(len(x), -1, -1))
    return picked.sum(1)


def one_input_for_all(x, codebooks, indices):
    return _pick(_table(x[:1].expand_as(x), codebooks), indices).sum(-1)


def distances_looked_up(x, codebooks, indices):
    subspaces, _, length = codebooks.shape
    parts = x.reshape(len(x), subspaces, 1, length)
    return _pick((parts - codebooks).pow(2).sum(-1), indices).sum(-1)


def last_part_missing(x, codebooks, indices):
    return _pick(_table(x, codebooks), indices)[..., :-1].sum(-1)


def transposed_result(x, codebooks, indices):
    return _pick(_table(x, codebooks), indices).sum(-1).T


# -- 6.8 circulant -----------------------------------------------------------------------------------

def _steps(r):
    i = torch.arange(len(r))
    return i[:, None], i[None], len(r)


def first_row(r):
    i, j, n = _steps(r)
    return r[(j - i) % n]


def turned_the_other_way(r):
    i, j, n = _steps(r)
    return r[(i + j) % n]


def toeplitz_lower(r):
    i, j, n = _steps(r)
    return torch.where(i >= j, r[(i - j) % n], torch.zeros_like(r[0]))


def symmetric_toeplitz(r):
    i, j, _ = _steps(r)
    return r[(i - j).abs()]


def one_turn_too_many(r):
    i, j, n = _steps(r)
    return r[(i - j - 1) % n]


def one_turn_too_few(r):
    i, j, n = _steps(r)
    return r[(i - j + 1) % n]


def copies_of_the_column(r):
    return r[:, None].expand(-1, len(r)).clone()


def rolled_by_one(r):
    """Every column but the first is turned by one place."""
    return torch.stack([r.roll(1) if k else r for k in range(len(r))], dim=1)


def diagonal_matrix(r):
    return torch.diag(r)


def cut_off_from_r(r):
    from scipy.linalg import circulant
    return torch.from_numpy(circulant(r.detach().numpy()).copy()).to(r.dtype)


# -- 6.9 circulant_product ---------------------------------------------------------------------------

def transposed_product(r, x):
    return torch.fft.irfft(torch.fft.rfft(r).conj() * torch.fft.rfft(x), n=len(r))


def even_sizes_only(r, x):
    return torch.fft.irfft(torch.fft.rfft(r) * torch.fft.rfft(x))


def not_wrapped(r, x):
    n = len(r)
    return torch.fft.irfft(torch.fft.rfft(r, 2 * n) * torch.fft.rfft(x, 2 * n), n=2 * n)[..., :n]


def left_in_frequencies(r, x):
    return torch.fft.rfft(r) * torch.fft.rfft(x)


def complex_result(r, x):
    return torch.fft.ifft(torch.fft.fft(r) * torch.fft.fft(x))


def absolute_result(r, x):
    return torch.fft.ifft(torch.fft.fft(r) * torch.fft.fft(x)).abs()


def orthonormal_three_times(r, x):
    return torch.fft.irfft(torch.fft.rfft(r, norm="ortho") * torch.fft.rfft(x, norm="ortho"), n=len(r), norm="ortho")


def r_not_transformed(r, x):
    return torch.fft.ifft(r * torch.fft.fft(x)).real


def transformed_over_the_batch(r, x):
    """`rfft2` transforms the last two axes, the batch among them."""
    if x.ndim < 2:
        return torch.fft.irfft(torch.fft.rfft(r) * torch.fft.rfft(x), n=len(r))
    return torch.fft.irfft(torch.fft.rfft(r) * torch.fft.rfft2(x), n=len(r))


def forward_twice(r, x):
    """`fft` in the place of its inverse: the result runs backwards and is n times too large."""
    return torch.fft.fft(torch.fft.fft(r) * torch.fft.fft(x)).real


def elementwise(r, x):
    return r * x


def matrix_built(r, x):
    i, j, n = _steps(r)
    return x @ r[(i - j) % n].T


def gradient_lost(r, x):
    import numpy as np
    a, b = np.fft.rfft(r.detach().numpy()), np.fft.rfft(x.detach().numpy())
    return torch.from_numpy(np.fft.irfft(a * b, n=len(r))).to(x.dtype)


# -- 6.10 nearest_circulant --------------------------------------------------------------------------

def _summed_along(matrix, diagonal):
    n = len(matrix)
    return torch.zeros(n, dtype=matrix.dtype).index_add(0, (diagonal % n).flatten(), matrix.flatten())


def first_column(matrix):
    return matrix[:, 0].clone()


def sums_not_means(matrix):
    i, j, _ = _steps(matrix)
    return _summed_along(matrix, i - j)


def upper_diagonals(matrix):
    i, j, n = _steps(matrix)
    return _summed_along(matrix, j - i) / n


def anti_diagonals(matrix):
    i, j, n = _steps(matrix)
    return _summed_along(matrix, i + j) / n


def unwrapped_diagonals(matrix):
    return torch.stack([matrix.diagonal(-k).mean() for k in range(len(matrix))])


def unwrapped_sums(matrix):
    return torch.stack([matrix.diagonal(-k).sum() for k in range(len(matrix))]) / len(matrix)


def unwrapped_over_all(matrix):
    """Sums over the whole wrapped diagonal, divided by the length of its lower part."""
    i, j, n = _steps(matrix)
    return _summed_along(matrix, i - j) / torch.arange(n, 0, -1)


def both_sides(matrix):
    """Diagonals k and -k together: the nearest *symmetric* circulant."""
    i, j, n = _steps(matrix)
    return (_summed_along(matrix, i - j) + _summed_along(matrix, j - i)) / (2 * n)


def means_of_rows(matrix):
    return matrix.mean(1)


def medians(matrix):
    return torch.stack([matrix[:, j].roll(-j) for j in range(len(matrix))], dim=1).median(1).values


def whole_matrix(matrix):
    i, j, n = _steps(matrix)
    return (_summed_along(matrix, i - j) / n)[(i - j) % n]


def scale_kept(matrix):
    """Rescaled until the circulant is as large as the matrix: no longer the nearest."""
    i, j, n = _steps(matrix)
    r = _summed_along(matrix, i - j) / n
    return r * matrix.norm() / (n**0.5 * r.norm()).clamp_min(1e-12)


# -- 6.11 cyclic_stack -------------------------------------------------------------------------------

def a_copy_per_layer(blocks, depth):
    return nn.Sequential(*[copy.deepcopy(blocks[layer % len(blocks)]) for layer in range(depth)])


def copies_that_are_shared(blocks, depth):
    """The sharing holds inside, but these are not the caller's blocks."""
    mine = copy.deepcopy(blocks)
    return nn.Sequential(*[mine[layer % len(mine)] for layer in range(depth)])


def copies_after_the_first_turn(blocks, depth):
    return nn.Sequential(*[blocks[layer] if layer < len(blocks) else copy.deepcopy(blocks[layer % len(blocks)]) for layer in range(depth)])


def each_block_in_a_row(blocks, depth):
    return nn.Sequential(*[blocks[layer * len(blocks) // depth] for layer in range(depth)])


def back_and_forth(blocks, depth):
    turn = [*blocks, *blocks[::-1]]
    return nn.Sequential(*[turn[layer % len(turn)] for layer in range(depth)])


def once_through(blocks, depth):
    return nn.Sequential(*blocks)


def depth_turns(blocks, depth):
    return nn.Sequential(*(list(blocks) * depth))


def whole_turns_only(blocks, depth):
    return nn.Sequential(*(list(blocks) * (depth // len(blocks))))


def turns_rounded_up(blocks, depth):
    return nn.Sequential(*(list(blocks) * -(-depth // len(blocks))))


def last_block_repeated(blocks, depth):
    return nn.Sequential(*[blocks[min(layer, len(blocks) - 1)] for layer in range(depth)])


def first_block_only(blocks, depth):
    return nn.Sequential(*[blocks[0] for _ in range(depth)])


def starts_with_the_last(blocks, depth):
    return nn.Sequential(*[blocks[(layer - 1) % len(blocks)] for layer in range(depth)])


def callers_list_longer(blocks, depth):
    """Works, but the caller's list is `depth` long afterwards."""
    count = len(blocks)
    for layer in range(count, depth):
        blocks.append(blocks[layer % count])
    return nn.Sequential(*blocks[:depth])


def a_list_of_blocks(blocks, depth):
    return [blocks[layer % len(blocks)] for layer in range(depth)]
