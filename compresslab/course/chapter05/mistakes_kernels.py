"""Typical wrong answers to exercises 5.3 and 5.4: they diagnose a mistake, and they test the checks."""

from __future__ import annotations

import torch
from torch import nn

from compresslab.course.chapter05 import references_matrices as right


# -- 5.3 flattenings ---------------------------------------------------------------------------------

def _with(kernel, **other):
    return {**right.flattenings(kernel), **other}


def only_reshaped(kernel):
    n, c, kh, kw = kernel.shape
    return {"output": kernel.reshape(n, -1), "input": kernel.reshape(c, -1), "spatial": kernel.reshape(c * kh, n * kw), "pixel": kernel.reshape(kh * kw, n * c)}


def input_reshaped(kernel):
    return _with(kernel, input=kernel.reshape(kernel.shape[1], -1))


def spatial_reshaped(kernel):
    n, c, kh, kw = kernel.shape
    return _with(kernel, spatial=kernel.reshape(c * kh, n * kw))


def pixel_reshaped(kernel):
    n, c, kh, kw = kernel.shape
    return _with(kernel, pixel=kernel.reshape(kh * kw, n * c))


def height_with_outputs(kernel):
    n, c, kh, kw = kernel.shape
    return _with(kernel, spatial=kernel.permute(0, 2, 1, 3).reshape(n * kh, c * kw))


def width_first(kernel):
    n, c, kh, kw = kernel.shape
    return _with(kernel, spatial=kernel.permute(1, 3, 0, 2).reshape(c * kw, n * kh))


def spatial_rows_turned(kernel):
    n, c, kh, kw = kernel.shape
    return _with(kernel, spatial=kernel.permute(2, 1, 0, 3).reshape(c * kh, n * kw))


def spatial_columns_turned(kernel):
    n, c, kh, kw = kernel.shape
    return _with(kernel, spatial=kernel.permute(1, 2, 3, 0).reshape(c * kh, n * kw))


def pixels_as_columns(kernel):
    n, c, kh, kw = kernel.shape
    return _with(kernel, pixel=kernel.reshape(n * c, kh * kw))


def transposed(kernel):
    return {name: matrix.T for name, matrix in right.flattenings(kernel).items()}


def input_transposed(kernel):
    return _with(kernel, input=kernel.permute(1, 0, 2, 3).flatten(1).T)


def square_only(kernel):
    n, c, k, _ = kernel.shape
    return {"output": kernel.reshape(n, c * k * k), "input": kernel.permute(1, 0, 2, 3).reshape(c, n * k * k),
            "spatial": kernel.permute(1, 2, 0, 3).reshape(c * k, n * k), "pixel": kernel.permute(2, 3, 0, 1).reshape(k * k, n * c)}


def channels_swapped(kernel):
    n, c, kh, kw = kernel.shape
    return {"output": kernel.permute(1, 0, 2, 3).reshape(c, n * kh * kw), "input": kernel.reshape(n, c * kh * kw),
            "spatial": kernel.permute(0, 2, 1, 3).reshape(n * kh, c * kw), "pixel": kernel.permute(2, 3, 1, 0).reshape(kh * kw, n * c)}


def as_a_list(kernel):
    return list(right.flattenings(kernel).values())


# -- 5.4 separable_conv ------------------------------------------------------------------------------

def _separable(conv, rank, *, strides=None, paddings=None, first_bias=False, second_bias=None, scale=None, scrambled=()):
    """The reference, with one thing another way."""
    if conv.groups != 1:
        raise ValueError("groups must be 1")
    n, c, kh, kw = conv.weight.shape
    (sh, sw), (ph, pw) = conv.stride, conv.padding
    strides = strides or ((sh, 1), (1, sw))
    paddings = paddings or ((ph, 0), (0, pw))
    B, A = right.split_linear(right.flattenings(conv.weight.detach())["spatial"], rank)
    bias = conv.bias is not None if second_bias is None else second_bias
    first = nn.Conv2d(c, rank, (kh, 1), stride=strides[0], padding=paddings[0], bias=first_bias)
    second = nn.Conv2d(rank, n, (1, kw), stride=strides[1], padding=paddings[1], bias=bias)
    with torch.no_grad():
        first.weight.copy_(B.reshape(rank, c, kh, 1) if "first" in scrambled else B.T.reshape(rank, c, kh, 1))
        second.weight.copy_(A.reshape(n, rank, 1, kw) if "second" in scrambled else A.reshape(rank, n, 1, kw).transpose(0, 1))
        if conv.bias is not None and second.bias is not None:
            second.bias.copy_(conv.bias)
        if scale == "shared" and conv.bias is not None:
            second.bias = conv.bias
        if scale == "bias":
            first.bias.copy_(conv.bias[:1].expand(rank)) if conv.bias is not None else first.bias.zero_()
    return nn.Sequential(first, second)


def stride_twice(conv, rank):
    return _separable(conv, rank, strides=(conv.stride, conv.stride))


def stride_all_first(conv, rank):
    return _separable(conv, rank, strides=(conv.stride, (1, 1)))


def stride_all_last(conv, rank):
    return _separable(conv, rank, strides=((1, 1), conv.stride))


def stride_crossed(conv, rank):
    return _separable(conv, rank, strides=((conv.stride[1], 1), (1, conv.stride[0])))


def stride_forgotten(conv, rank):
    return _separable(conv, rank, strides=((1, 1), (1, 1)))


def stride_of_the_other_axis(conv, rank):
    return _separable(conv, rank, strides=((1, conv.stride[1]), (conv.stride[0], 1)))


def padding_twice(conv, rank):
    return _separable(conv, rank, paddings=(conv.padding, conv.padding))


def padding_all_last(conv, rank):
    return _separable(conv, rank, paddings=((0, 0), conv.padding))


def padding_all_first(conv, rank):
    return _separable(conv, rank, paddings=(conv.padding, (0, 0)))


def padding_forgotten(conv, rank):
    return _separable(conv, rank, paddings=((0, 0), (0, 0)))


def bias_in_both(conv, rank):
    return _separable(conv, rank, first_bias=True)


def bias_copied_to_both(conv, rank):
    return _separable(conv, rank, first_bias=True, scale="bias")


def bias_shared(conv, rank):
    return _separable(conv, rank, scale="shared")


def padding_crossed(conv, rank):
    return _separable(conv, rank, paddings=((conv.padding[1], 0), (0, conv.padding[0])))


def bias_lost(conv, rank):
    return _separable(conv, rank, second_bias=False)


def bias_by_chance(conv, rank):
    return _separable(conv, rank, second_bias=True)


def first_scrambled(conv, rank):
    return _separable(conv, rank, scrambled=("first",))


def second_scrambled(conv, rank):
    return _separable(conv, rank, scrambled=("second",))


def both_scrambled(conv, rank):
    return _separable(conv, rank, scrambled=("first", "second"))


def weights_not_copied(conv, rank):
    if conv.groups != 1:
        raise ValueError("groups must be 1")
    n, c, kh, kw = conv.weight.shape
    (sh, sw), (ph, pw) = conv.stride, conv.padding
    return nn.Sequential(nn.Conv2d(c, rank, (kh, 1), stride=(sh, 1), padding=(ph, 0), bias=False),
                         nn.Conv2d(rank, n, (1, kw), stride=(1, sw), padding=(0, pw), bias=conv.bias is not None))


def rebuilt(conv, rank):
    if conv.groups != 1:
        raise ValueError("groups must be 1")
    n, c, kh, kw = conv.weight.shape
    B, A = right.split_linear(right.flattenings(conv.weight.detach())["spatial"], rank)
    whole = nn.Conv2d(c, n, (kh, kw), stride=conv.stride, padding=conv.padding, bias=conv.bias is not None)
    with torch.no_grad():
        whole.weight.copy_((B @ A).reshape(c, kh, n, kw).permute(2, 0, 1, 3))
        if conv.bias is not None:
            whole.bias.copy_(conv.bias)
    return nn.Sequential(whole)


def horizontal_first(conv, rank):
    if conv.groups != 1:
        raise ValueError("groups must be 1")
    n, c, kh, kw = conv.weight.shape
    (sh, sw), (ph, pw) = conv.stride, conv.padding
    B, A = right.split_linear(conv.weight.detach().permute(1, 3, 0, 2).reshape(c * kw, n * kh), rank)
    first = nn.Conv2d(c, rank, (1, kw), stride=(1, sw), padding=(0, pw), bias=False)
    second = nn.Conv2d(rank, n, (kh, 1), stride=(sh, 1), padding=(ph, 0), bias=conv.bias is not None)
    with torch.no_grad():
        first.weight.copy_(B.T.reshape(rank, c, 1, kw))
        second.weight.copy_(A.reshape(rank, n, kh, 1).transpose(0, 1))
        if conv.bias is not None:
            second.bias.copy_(conv.bias)
    return nn.Sequential(first, second)


def another_flattening(conv, rank):
    if conv.groups != 1:
        raise ValueError("groups must be 1")
    n, c, kh, kw = conv.weight.shape
    B, A = right.split_linear(conv.weight.detach().flatten(1), rank)
    first = nn.Conv2d(c, rank, (kh, kw), stride=conv.stride, padding=conv.padding, bias=False)
    second = nn.Conv2d(rank, n, 1, bias=conv.bias is not None)
    with torch.no_grad():
        first.weight.copy_(A.reshape(rank, c, kh, kw))
        second.weight.copy_(B[:, :, None, None])
        if conv.bias is not None:
            second.bias.copy_(conv.bias)
    return nn.Sequential(first, second)


def groups_not_refused(conv, rank):
    if conv.groups == 1:
        return right.separable_conv(conv, rank)
    return nn.Sequential(nn.Conv2d(conv.in_channels, rank, (conv.kernel_size[0], 1)), nn.Conv2d(rank, conv.out_channels, (1, conv.kernel_size[1])))
