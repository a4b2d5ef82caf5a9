"""Typical wrong answers to exercises 6.4 to 6.6. They diagnose a learner's mistake, and they test the checks."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


# -- 6.4 hashed_linear -------------------------------------------------------------------------------

def unsigned(x, values, indices, signs, bias):
    return F.linear(x, values[indices], bias)


def not_transposed(x, values, indices, signs, bias):
    return x @ (values[indices] * signs) + bias


def bias_forgotten(x, values, indices, signs, bias):
    return F.linear(x, values[indices] * signs)


def bias_hashed(x, values, indices, signs, bias):
    return F.linear(x, values[indices] * signs + bias[:, None])


def values_copied(x, values, indices, signs, bias):
    """A new parameter for every call: its gradient never comes back to the values."""
    return F.linear(x, torch.nn.Parameter(values[indices] * signs), bias)


def everything_detached(x, values, indices, signs, bias):
    with torch.no_grad():
        return F.linear(x, values[indices] * signs, bias)


def gradient_averaged(x, values, indices, signs, bias):
    uses = torch.bincount(indices.flatten(), minlength=len(values)).clamp(min=1)
    scaled = values / uses
    shared = scaled + (values - scaled).detach()
    return F.linear(x, shared[indices] * signs, bias)


def value_averaged(x, values, indices, signs, bias):
    uses = torch.bincount(indices.flatten(), minlength=len(values)).clamp(min=1)
    return F.linear(x, (values / uses)[indices] * signs, bias)


def first_use_only(x, values, indices, signs, bias):
    seen, mask = set(), []
    for k in indices.flatten().tolist():
        mask.append(float(k not in seen))
        seen.add(k)
    return F.linear(x, values[indices] * signs * torch.tensor(mask).view(indices.shape), bias)


def sign_of_the_value(x, values, indices, signs, bias):
    return F.linear(x, values[indices].abs() * signs, bias)


def signs_of_first_column(x, values, indices, signs, bias):
    return F.linear(x, values[indices], torch.zeros_like(bias)) * signs[:, 0] + bias


def signs_added(x, values, indices, signs, bias):
    return F.linear(x, values[indices] + signs, bias)


def relu_included(x, values, indices, signs, bias):
    return F.linear(x, values[indices] * signs, bias).relu()


# -- 6.5 same_size_width -----------------------------------------------------------------------------

def _or_refuse(width):
    if width < 1:
        raise ValueError("too few numbers for one unit")
    return width


def no_biases(inputs, classes, stored):
    return _or_refuse(stored // (inputs + classes))


def hidden_biases_forgotten(inputs, classes, stored):
    return _or_refuse((stored - classes) // (inputs + classes))


def output_biases_forgotten(inputs, classes, stored):
    return _or_refuse(stored // (inputs + 1 + classes))


def first_layer_only(inputs, classes, stored):
    return _or_refuse(stored // (inputs + 1))


def first_weights_only(inputs, classes, stored):
    return _or_refuse(stored // inputs)


def rounded(inputs, classes, stored):
    return _or_refuse(round((stored - classes) / (inputs + 1 + classes)))


def rounded_up(inputs, classes, stored):
    return _or_refuse(-(-(stored - classes) // (inputs + 1 + classes)))


def with_a_fraction(inputs, classes, stored):
    return _or_refuse((stored - classes) / (inputs + 1 + classes))


def strictly_fewer(inputs, classes, stored):
    return _or_refuse((stored - classes - 1) // (inputs + 1 + classes))


def a_square_layer(inputs, classes, stored):
    return _or_refuse(math.isqrt(max(stored, 0)))


def width_zero(inputs, classes, stored):
    return max((stored - classes) // (inputs + 1 + classes), 0)


def at_least_one(inputs, classes, stored):
    return max((stored - classes) // (inputs + 1 + classes), 1)


def never_refused(inputs, classes, stored):
    return (stored - classes) // (inputs + 1 + classes)


def as_a_float(inputs, classes, stored):
    return float(_or_refuse((stored - classes) // (inputs + 1 + classes)))


# -- 6.6 encode_subvectors ---------------------------------------------------------------------------

def _encoded(weight, codebooks, choose=None, parts=None):
    """Nearest centroids, with another choice or other sub-vectors where given."""
    s, _, d = codebooks.shape
    parts = weight.reshape(len(weight), s, d) if parts is None else parts
    distances = (parts[:, :, None] - codebooks).square().sum(-1)
    indices = distances.argmin(-1) if choose is None else choose(parts, codebooks, distances)
    return indices, codebooks[torch.arange(s), indices]


def farthest(weight, codebooks):
    indices, decoded = _encoded(weight, codebooks, lambda parts, books, distances: distances.argmax(-1))
    return indices, decoded.flatten(1)


def largest_product(weight, codebooks):
    indices, decoded = _encoded(weight, codebooks, lambda parts, books, distances: torch.einsum("msd,skd->msk", parts, books).argmax(-1))
    return indices, decoded.flatten(1)


def largest_cosine(weight, codebooks):
    def cosine(parts, books, distances):
        return F.cosine_similarity(parts[:, :, None], books, dim=-1).argmax(-1)

    indices, decoded = _encoded(weight, codebooks, cosine)
    return indices, decoded.flatten(1)


def differences_summed(weight, codebooks):
    def summed(parts, books, distances):
        return (parts[:, :, None] - books).sum(-1).abs().argmin(-1)

    indices, decoded = _encoded(weight, codebooks, summed)
    return indices, decoded.flatten(1)


def absolute_distance(weight, codebooks):
    def absolute(parts, books, distances):
        return (parts[:, :, None] - books).abs().sum(-1).argmin(-1)

    indices, decoded = _encoded(weight, codebooks, absolute)
    return indices, decoded.flatten(1)


def first_codebook_for_all(weight, codebooks):
    indices, decoded = _encoded(weight, codebooks[:1].expand_as(codebooks))
    return indices, decoded.flatten(1)


def every_other_column(weight, codebooks):
    s, _, d = codebooks.shape
    indices, decoded = _encoded(weight, codebooks, parts=weight.reshape(len(weight), d, s).transpose(1, 2))
    return indices, decoded.transpose(1, 2).flatten(1)


def two_forgotten(weight, codebooks):
    """|c|^2 - <p, c>: the inner product counts once."""
    def expanded(parts, books, distances):
        return (books.square().sum(-1) - torch.einsum("msd,skd->msk", parts, books)).argmin(-1)

    indices, decoded = _encoded(weight, codebooks, expanded)
    return indices, decoded.flatten(1)


def one_for_the_row(weight, codebooks):
    def whole(parts, books, distances):
        return distances.sum(1, keepdim=True).argmin(-1).expand(-1, len(books))

    indices, decoded = _encoded(weight, codebooks, whole)
    return indices, decoded.flatten(1)


def one_for_all_rows(weight, codebooks):
    def column(parts, books, distances):
        return distances.sum(0, keepdim=True).argmin(-1).expand(len(parts), -1)

    indices, decoded = _encoded(weight, codebooks, column)
    return indices, decoded.flatten(1)


def indices_transposed(weight, codebooks):
    indices, decoded = _encoded(weight, codebooks)
    return indices.T, decoded.flatten(1)


def not_decoded(weight, codebooks):
    return _encoded(weight, codebooks)[0], weight


def left_in_parts(weight, codebooks):
    return _encoded(weight, codebooks)


def decoded_in_wrong_order(weight, codebooks):
    indices, decoded = _encoded(weight, codebooks)
    return indices, decoded.transpose(1, 2).reshape(weight.shape)


def decoded_row_first(weight, codebooks):
    indices, decoded = _encoded(weight, codebooks)
    return indices, decoded.transpose(0, 1).reshape(weight.shape)
