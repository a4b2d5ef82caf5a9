"""Wrong answers to exercises 9.1 to 9.3, each of a kind of its own."""

from __future__ import annotations

import math

import torch

from compresslab.course.chapter09.references_recurrent import balanced_mask as balanced

# -- 9.1 bits per character --------------------------------------------------------------------------

def _nats(logits, targets):
    return -logits.double().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def in_nats(logits, targets):
    return float(_nats(logits, targets).mean())


def times_log_2(logits, targets):
    return float(_nats(logits, targets).mean() * math.log(2))


def perplexity(logits, targets):
    return float(_nats(logits, targets).mean().exp())


def shifted(logits, targets):
    return float(_nats(logits[:, :-1], targets[:, 1:]).mean() / math.log(2))


def other_axis(logits, targets):
    log_p = logits.double().log_softmax(dim=1)
    return float(-log_p.gather(-1, targets.unsqueeze(-1)).mean() / math.log(2))


def log_of_the_mean(logits, targets):
    return float(-(-_nats(logits, targets)).exp().mean().log2())


def its_own_doubt(logits, targets):
    log_p = logits.double().log_softmax(-1)
    return float(-(log_p.exp() * log_p).sum(-1).mean() / math.log(2))


def per_window(logits, targets):
    return float(_nats(logits, targets).sum(1).mean() / math.log(2))


def in_all(logits, targets):
    return float(_nats(logits, targets).sum() / math.log(2))


def likeliest(logits, targets):
    return float(-logits.double().log_softmax(-1).amax(-1).mean() / math.log(2))


def underflow(logits, targets):
    return float(-logits.softmax(-1).gather(-1, targets.unsqueeze(-1)).log2().mean())


def patched_underflow(logits, targets):
    p = logits.softmax(-1).gather(-1, targets.unsqueeze(-1))
    return float(-(p + 1e-9).log2().mean())


def raw_logits(logits, targets):
    return float(-logits.double().gather(-1, targets.unsqueeze(-1)).mean() / math.log(2))


def negative(logits, targets):
    return -float(_nats(logits, targets).mean() / math.log(2))


def last_only(logits, targets):
    return float(_nats(logits, targets)[:, -1].mean() / math.log(2))


# -- 9.2 load-balanced pruning -----------------------------------------------------------------------

def whole_matrix(weight, sparsity, blocks):
    return balanced(weight, sparsity, 1)


def each_row(weight, sparsity, blocks):
    return balanced(weight, sparsity, len(weight))


def rows_in_a_row(weight, sparsity, blocks):
    return torch.cat([balanced(part, sparsity, 1) for part in weight.chunk(blocks)])


def columns(weight, sparsity, blocks):
    return balanced(weight.T.contiguous(), sparsity, min(blocks, weight.shape[1])).T.contiguous()


def rows_each(weight, sparsity, blocks):
    return balanced(weight, sparsity, max(1, len(weight) // blocks))


def _by_share(weight, blocks, choose):
    mask = torch.ones_like(weight, dtype=torch.bool)
    for k in range(blocks):
        share = weight[k::blocks]
        mask[k::blocks] = choose(share.flatten()).view_as(share)
    return mask


def threshold(weight, sparsity, blocks):
    def choose(share):
        drop = round(sparsity * len(share))
        return share.abs() > share.abs().sort().values[drop - 1] if drop else torch.ones_like(share, dtype=torch.bool)
    return _by_share(weight, blocks, choose)


def of_the_largest(weight, sparsity, blocks):
    return _by_share(weight, blocks, lambda share: share.abs() >= sparsity * share.abs().max())


def _drop(count, descending=False, signed=False):
    def choose(share):
        order = (share if signed else share.abs()).argsort(stable=True, descending=descending)
        kept = torch.ones(len(share), dtype=torch.bool)
        kept[order[: count(len(share))]] = False
        return kept
    return choose


def smallest_stay(weight, sparsity, blocks):
    return _by_share(weight, blocks, _drop(lambda n: round(sparsity * n), descending=True))


def keeps_the_sparsity(weight, sparsity, blocks):
    return _by_share(weight, blocks, _drop(lambda n: n - round(sparsity * n)))


def signed(weight, sparsity, blocks):
    return _by_share(weight, blocks, _drop(lambda n: round(sparsity * n), signed=True))


def rounded_down(weight, sparsity, blocks):
    return _by_share(weight, blocks, _drop(lambda n: int(sparsity * n)))


def rounded_up(weight, sparsity, blocks):
    return _by_share(weight, blocks, _drop(lambda n: math.ceil(sparsity * n)))


def inverted(weight, sparsity, blocks):
    return ~balanced(weight, sparsity, blocks)


def pruned_weight(weight, sparsity, blocks):
    return weight * balanced(weight, sparsity, blocks)


def in_order_of_elements(weight, sparsity, blocks):
    return torch.cat([balanced(weight[k::blocks], sparsity, 1) for k in range(blocks)])


# -- 9.3 one projection for two readers --------------------------------------------------------------

def _directions(matrix, rank):
    return torch.linalg.svd(matrix, full_matrices=False)[2][:rank]


def recurrent_only(weight_hh, head, rank):
    P = _directions(weight_hh, rank)
    return P, weight_hh @ P.T, head @ P.T


def head_only(weight_hh, head, rank):
    P = torch.linalg.svd(head, full_matrices=True)[2][:rank]
    return P, weight_hh @ P.T, head @ P.T


def one_each(weight_hh, head, rank):
    P = _directions(weight_hh, rank)
    Q = torch.linalg.svd(head, full_matrices=True)[2][:rank]
    return P, weight_hh @ P.T, head @ Q.T


def mean_of_two(weight_hh, head, rank):
    P = (_directions(weight_hh, rank) + torch.linalg.svd(head, full_matrices=True)[2][:rank]) / 2
    return P, weight_hh @ P.T, head @ P.T


def last_directions(weight_hh, head, rank):
    P = torch.linalg.svd(torch.cat([weight_hh, head]), full_matrices=False)[2][-rank:]
    return P, weight_hh @ P.T, head @ P.T


def first_columns(weight_hh, head, rank):
    P = torch.eye(weight_hh.shape[1])[:rank]
    return P, weight_hh @ P.T, head @ P.T


def no_singular_values(weight_hh, head, rank):
    U, _, Vh = torch.linalg.svd(torch.cat([weight_hh, head]), full_matrices=False)
    return Vh[:rank], U[: len(weight_hh), :rank], U[len(weight_hh):, :rank]


def singular_values_twice(weight_hh, head, rank):
    U, S, Vh = torch.linalg.svd(torch.cat([weight_hh, head]), full_matrices=False)
    Z = U[:, :rank] * S[:rank]
    return S[:rank, None] * Vh[:rank], Z[: len(weight_hh)], Z[len(weight_hh):]


def not_transposed(weight_hh, head, rank):
    V = torch.linalg.svd(torch.cat([weight_hh, head]), full_matrices=False)[2].T
    P = V[:rank]
    return P, weight_hh @ P.T, head @ P.T


def centred(weight_hh, head, rank):
    stacked = torch.cat([weight_hh, head])
    P = _directions(stacked - stacked.mean(0), rank)
    return P, weight_hh @ P.T, head @ P.T


def unit_readers(weight_hh, head, rank):
    P = _directions(torch.cat([weight_hh / weight_hh.norm().clamp(min=1e-9), head / head.norm().clamp(min=1e-9)]), rank)
    return P, weight_hh @ P.T, head @ P.T


def rebuilt(weight_hh, head, rank):
    P = _directions(torch.cat([weight_hh, head]), rank)
    return P, weight_hh @ P.T @ P, head @ P.T @ P


def swapped(weight_hh, head, rank):
    P = _directions(torch.cat([weight_hh, head]), rank)
    return P, head @ P.T, weight_hh @ P.T


def transposed(weight_hh, head, rank):
    P = _directions(torch.cat([weight_hh, head]), rank)
    return P.T, weight_hh @ P.T, head @ P.T


def of_the_rows(weight_hh, head, rank):
    U, S, _ = torch.linalg.svd(torch.cat([weight_hh, head]), full_matrices=False)
    Z = U[:, :rank] * S[:rank]
    return U[:, :rank].T, Z[: len(weight_hh)], Z[len(weight_hh):]
