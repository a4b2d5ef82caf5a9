"""Typical wrong answers to exercises 5.7 to 5.10: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_tensors`.
"""

from __future__ import annotations

import torch
from torch import nn

from compresslab.course.chapter05.references_tensors import als_step, tt_product, tucker2


# -- 5.7 tucker2 -------------------------------------------------------------------------------------

def _left(matrix, rank):
    return torch.linalg.svd(matrix, full_matrices=False).U[:, :rank]


def _seen(kernel, U_out, U_in):
    return torch.einsum("nchw,nr,cs->rshw", kernel, U_out, U_in), U_out, U_in


def first_channels(kernel, rank_out, rank_in):
    n, c = kernel.shape[:2]
    return _seen(kernel, torch.eye(n)[:, :rank_out], torch.eye(c)[:, :rank_in])


def reshaped_inputs(kernel, rank_out, rank_in):
    return _seen(kernel, _left(kernel.flatten(1), rank_out), _left(kernel.reshape(kernel.shape[1], -1), rank_in))


def averaged_positions(kernel, rank_out, rank_in):
    plane = kernel.mean((2, 3))
    return _seen(kernel, torch.linalg.svd(plane).U[:, :rank_out], torch.linalg.svd(plane.T).U[:, :rank_in])


def weakest_directions(kernel, rank_out, rank_in):
    """eigh sorts upwards."""
    outer, inner = kernel.flatten(1), kernel.transpose(0, 1).flatten(1)
    return _seen(kernel, torch.linalg.eigh(outer @ outer.T).eigenvectors[:, :rank_out], torch.linalg.eigh(inner @ inner.T).eigenvectors[:, :rank_in])


def ranks_swapped(kernel, rank_out, rank_in):
    return tucker2(kernel, rank_in, rank_out)


def core_cut_out(kernel, rank_out, rank_in):
    _, U_out, U_in = tucker2(kernel, rank_out, rank_in)
    return kernel[:rank_out, :rank_in].clone(), U_out, U_in


def kernel_for_core(kernel, rank_out, rank_in):
    core, U_out, U_in = tucker2(kernel, rank_out, rank_in)
    return torch.einsum("rshw,nr,cs->nchw", core, U_out, U_in), U_out, U_in


def bases_scaled(kernel, rank_out, rank_in):
    core, U_out, U_in = tucker2(kernel, rank_out, rank_in)
    return core, U_out * torch.linalg.svdvals(kernel.flatten(1))[:rank_out], U_in * torch.linalg.svdvals(kernel.transpose(0, 1).flatten(1))[:rank_in]


def bases_transposed(kernel, rank_out, rank_in):
    core, U_out, U_in = tucker2(kernel, rank_out, rank_in)
    return core, U_out.T.clone(), U_in.T.clone()


def core_in_the_middle(kernel, rank_out, rank_in):
    core, U_out, U_in = tucker2(kernel, rank_out, rank_in)
    return U_out, core, U_in


def bases_in_the_other_order(kernel, rank_out, rank_in):
    core, U_out, U_in = tucker2(kernel, rank_out, rank_in)
    return core, U_in, U_out


def outputs_only(kernel, rank_out, rank_in):
    """The input side keeps its first channels."""
    return _seen(kernel, _left(kernel.flatten(1), rank_out), torch.eye(kernel.shape[1])[:, :rank_in])


def right_vectors(kernel, rank_out, rank_in):
    Vh = torch.linalg.svd(kernel.flatten(1), full_matrices=False).Vh
    return _seen(kernel, Vh[:rank_out].T, _left(kernel.transpose(0, 1).flatten(1), rank_in))


# -- 5.8 tucker_conv ---------------------------------------------------------------------------------

def _chain(conv, rank_out, rank_in, *, strides=(0, 1, 0), paddings=(0, 1, 0), biases=(0, 0, 1), mixed=False, share=False, cut=False):
    """A chain with stride, padding and bias in some of its three layers."""
    core, U_out, U_in = tucker2(conv.weight.detach(), rank_out, rank_in)
    channels, kernels = (conv.in_channels, rank_in, rank_out, conv.out_channels), (1, conv.kernel_size, 1)
    layers = []
    for k in range(3):
        has_bias = conv.bias is not None and bool(biases[k])
        layer = nn.Conv2d(channels[k], channels[k + 1], kernels[k], conv.stride if strides[k] else 1, conv.padding if paddings[k] else 0, bias=has_bias)
        if has_bias:
            layer.bias.data = conv.bias.detach()[: channels[k + 1]].clone() if channels[k + 1] <= conv.out_channels else torch.zeros(channels[k + 1])
        layers.append(layer)
    layers[0].weight.data = (U_in.reshape(rank_in, -1) if mixed else U_in.T)[:, :, None, None].clone()
    layers[1].weight.data = core.clone()
    layers[2].weight.data = U_out[:, :, None, None].clone()
    if share and conv.bias is not None:
        layers[2].bias = conv.bias
    return nn.Sequential(*layers)


def stride_in_the_first(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, strides=(1, 0, 0))


def stride_in_the_last(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, strides=(0, 0, 1))


def stride_forgotten(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, strides=(0, 0, 0))


def stride_everywhere(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, strides=(1, 1, 1))


def padding_in_the_first(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, paddings=(1, 0, 0))


def padding_everywhere(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, paddings=(1, 1, 1))


def padding_forgotten(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, paddings=(0, 0, 0))


def bias_forgotten(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, biases=(0, 0, 0))


def bias_everywhere(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, biases=(1, 1, 1))


def bias_in_the_middle(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, biases=(0, 1, 0))


def own_biases_left(conv, rank_out, rank_in):
    """Biases as PyTorch draws them."""
    chain = _chain(conv, rank_out, rank_in)
    layers = [nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding) for layer in chain]
    for layer, right in zip(layers, chain):
        layer.weight.data = right.weight.data
    return nn.Sequential(*layers)


def input_basis_reshaped(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, mixed=True)


def bases_exchanged(conv, rank_out, rank_in):
    """U_out goes in first, U_in comes out last."""
    core, U_out, U_in = tucker2(conv.weight.detach(), rank_out, rank_in)
    layers = [nn.Conv2d(conv.out_channels, rank_out, 1, bias=False),
              nn.Conv2d(rank_out, rank_in, conv.kernel_size, conv.stride, conv.padding, bias=False), nn.Conv2d(rank_in, conv.in_channels, 1, bias=False)]
    for layer, weight in zip(layers, (U_out.T[:, :, None, None], core.transpose(0, 1), U_in[:, :, None, None])):
        layer.weight.data = weight.clone()
    return nn.Sequential(*layers)


def chain_ranks_swapped(conv, rank_out, rank_in):
    return _chain(conv, rank_in, rank_out)


def bias_shared(conv, rank_out, rank_in):
    return _chain(conv, rank_out, rank_in, share=True)


def weights_not_set(conv, rank_out, rank_in):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(conv.in_channels, rank_in, 1, bias=False),
                         nn.Conv2d(rank_in, rank_out, conv.kernel_size, conv.stride, conv.padding, bias=False),
                         nn.Conv2d(rank_out, conv.out_channels, 1, bias=conv.bias is not None))


# -- 5.9 als_step ------------------------------------------------------------------------------------

def _product(factors):
    result = factors[0]
    for factor in factors[1:]:
        result = (result[:, None] * factor).flatten(0, 1)
    return result


def _others(factors, mode):
    return [factor for m, factor in enumerate(factors) if m != mode]


def _unfolded(tensor, mode):
    return tensor.movedim(mode, 0).flatten(1)


def _solved(product, unfolded):
    return torch.linalg.lstsq(product, unfolded.T, driver="gelsd").solution.T


def backwards(tensor, factors, mode):
    """The Khatri-Rao product with the first axis fastest, as in texts that unfold column by column."""
    return _solved(_product(_others(factors, mode)[::-1]), _unfolded(tensor, mode))


def reshaped(tensor, factors, mode):
    return _solved(_product(_others(factors, mode)), tensor.reshape(tensor.shape[mode], -1))


def not_solved(tensor, factors, mode):
    return _unfolded(tensor, mode) @ _product(_others(factors, mode))


def inverse_of_gram(tensor, factors, mode):
    product = _product(_others(factors, mode))
    return _unfolded(tensor, mode) @ product @ torch.linalg.inv(product.T @ product)


def default_driver(tensor, factors, mode):
    """gelsy in torch: wrong where a column of zeros stands before another."""
    return torch.linalg.lstsq(_product(_others(factors, mode)), _unfolded(tensor, mode).T).solution.T


def grams_multiplied(tensor, factors, mode):
    others = _others(factors, mode)
    gram = others[0].T @ others[0]
    for factor in others[1:]:
        gram = gram @ (factor.T @ factor)
    return _unfolded(tensor, mode) @ _product(others) @ torch.linalg.pinv(gram)


def grams_added(tensor, factors, mode):
    others = _others(factors, mode)
    return _unfolded(tensor, mode) @ _product(others) @ torch.linalg.pinv(sum(factor.T @ factor for factor in others))


def kronecker(tensor, factors, mode):
    product = _others(factors, mode)[0]
    for factor in _others(factors, mode)[1:]:
        product = torch.kron(product, factor)
    return _solved(product, _unfolded(tensor, mode))


def itself_included(tensor, factors, mode):
    return _solved(_product(factors), _unfolded(tensor, mode))


def first_factor_always(tensor, factors, mode):
    return als_step(tensor, factors, 0)


def solution_transposed(tensor, factors, mode):
    return als_step(tensor, factors, mode).T.clone()


def columns_normalised(tensor, factors, mode):
    return torch.nn.functional.normalize(als_step(tensor, factors, mode), dim=0)


def gradient_step(tensor, factors, mode):
    product, factor = _product(_others(factors, mode)), factors[mode]
    return factor - 0.01 * (factor @ product.T - _unfolded(tensor, mode)) @ product


def changed_in_place(tensor, factors, mode):
    factors[mode] = als_step(tensor, factors, mode)
    return factors[mode]


def whole_list(tensor, factors, mode):
    return [als_step(tensor, factors, m) if m == mode else factor for m, factor in enumerate(factors)]


# -- 5.10 tt_product ---------------------------------------------------------------------------------

def _matrix(cores):
    built = torch.ones(1, 1, 1)
    for core in cores:
        built = torch.einsum("abr,rmns->ambns", built, core)
        built = built.reshape(built.shape[0] * core.shape[1], -1, core.shape[3])
    return built[:, :, 0]


def matrix_built(cores, x):
    return x @ _matrix(cores).T


def rows_and_columns(cores, x):
    return tt_product([core.transpose(1, 2) for core in cores], x)


def outputs_reversed(cores, x):
    y, rows = tt_product(cores, x), [core.shape[1] for core in cores]
    return y.reshape(len(x), *rows).permute(0, *range(len(rows), 0, -1)).reshape(len(x), -1)


def inputs_reversed(cores, x):
    columns = [core.shape[2] for core in cores]
    x = x.reshape(len(x), *columns[::-1]).permute(0, *range(len(columns), 0, -1))
    return tt_product(cores, x.reshape(len(x), -1))


def ranks_not_linked(cores, x):
    return tt_product([core.sum((0, 3), keepdim=True) for core in cores], x)


def first_rank_only(cores, x):
    return tt_product([core[:1, :, :, :1] for core in cores], x)


def one_row(cores, x):
    return tt_product(cores, x[:1])


def not_flattened(cores, x):
    return tt_product(cores, x).reshape(len(x), *(core.shape[1] for core in cores))


def laid_together(cores, x):
    return tt_product(cores, x).flatten()


def cores_backwards(cores, x):
    """From the last core to the first, without turning the order of the modes."""
    return tt_product([core.transpose(0, 3) for core in cores[::-1]], x)
