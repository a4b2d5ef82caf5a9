"""Typical wrong answers to exercises 3.4 to 3.6: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_blocks.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compresslab.course.chapter03 import references_blocks as right

# -- 3.4 project_separable ---------------------------------------------------------------------------


def _matrices(weight: Tensor) -> Tensor:
    outputs, inputs, height, width = weight.shape
    return weight.transpose(0, 1).reshape(inputs, outputs, height * width)


def _pair(weight: Tensor, kernels: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    """kernels (C, k * k), mix (C, N)."""
    outputs, inputs, height, width = weight.shape
    return kernels.reshape(inputs, 1, height, width), mix.T.reshape(outputs, inputs, 1, 1)


def singular_values_forgotten(weight):
    u, _, vh = torch.linalg.svd(_matrices(weight), full_matrices=False)
    return _pair(weight, vh[:, 0], u[:, :, 0])


def singular_values_twice(weight):
    u, s, vh = torch.linalg.svd(_matrices(weight), full_matrices=False)
    return _pair(weight, vh[:, 0] * s[:, :1], u[:, :, 0] * s[:, :1])


def columns_of_vh(weight):
    u, s, vh = torch.linalg.svd(_matrices(weight), full_matrices=True)
    return _pair(weight, vh[:, :, 0], u[:, :, 0] * s[:, :1])


def rows_of_u(weight):
    u, s, vh = torch.linalg.svd(_matrices(weight), full_matrices=True)
    return _pair(weight, vh[:, 0], u[:, 0] * s[:, :1])


def smallest_singular_value(weight):
    u, s, vh = torch.linalg.svd(_matrices(weight), full_matrices=False)
    return _pair(weight, vh[:, -1], u[:, :, -1] * s[:, -1:])


def reshaped_not_transposed(weight):
    outputs, inputs, height, width = weight.shape
    u, s, vh = torch.linalg.svd(weight.reshape(inputs, outputs, height * width), full_matrices=False)
    return _pair(weight, vh[:, 0], u[:, :, 0] * s[:, :1])


def mixture_not_transposed(weight):
    outputs, inputs, height, width = weight.shape
    u, s, vh = torch.linalg.svd(_matrices(weight), full_matrices=False)
    return vh[:, 0].reshape(inputs, 1, height, width), (u[:, :, 0] * s[:, :1]).reshape(outputs, inputs, 1, 1)


def mean_kernel(weight):
    kernels = _matrices(weight).mean(1)
    mix = (_matrices(weight) * kernels[:, None]).sum(2) / kernels.square().sum(1, keepdim=True).clamp(min=1e-12)
    return _pair(weight, kernels, mix)


def mean_and_sum(weight):
    return _pair(weight, _matrices(weight).mean(1), _matrices(weight).sum(2))


def per_output_channel(weight):
    outputs, inputs, height, width = weight.shape
    u, s, vh = torch.linalg.svd(weight.reshape(outputs, inputs, height * width), full_matrices=False)
    return vh[:, 0].reshape(outputs, 1, height, width), (u[:, :, 0] * s[:, :1]).reshape(outputs, inputs, 1, 1)


def one_for_all(weight):
    """One kernel for all channels: the whole weight as an (N C) x k^2 matrix."""
    outputs, inputs, height, width = weight.shape
    u, s, vh = torch.linalg.svd(weight.reshape(outputs * inputs, height * width), full_matrices=False)
    kernels = vh[0].expand(inputs, -1)
    return kernels.reshape(inputs, 1, height, width), (u[:, 0] * s[0]).reshape(outputs, inputs, 1, 1)


def turned_round(weight):
    depthwise, pointwise = right.project_separable(weight)
    return pointwise, depthwise


# -- 3.5 reaches -------------------------------------------------------------------------------------


def _gradients(block, x):
    x = x.clone().requires_grad_()
    return torch.stack([torch.autograd.grad(y.sum(), x, retain_graph=True)[0][0] for y in block(x)[0]])


def signed_gradient(block, x):
    return _gradients(block, x).sum((2, 3)) > 0


def reach_transposed(block, x):
    return (_gradients(block, x).abs().sum((2, 3)) > 0).T


def gradients_add_up(block, x):
    x = x.clone().requires_grad_()
    rows = []
    for channel in block(x)[0]:
        channel.sum().backward(retain_graph=True)
        rows.append(x.grad[0].abs().sum(dim=(1, 2)) > 0)
    return torch.stack(rows)


def all_outputs_together(block, x):
    x = x.clone().requires_grad_()
    y = block(x)
    gradient, = torch.autograd.grad(y.sum(), x)
    return (gradient[0].abs().sum((1, 2)) > 0).expand(y.shape[1], -1)


def with_a_threshold(block, x):
    return _gradients(block, x).abs().amax((2, 3)) > 1e-3


def middle_pixel(block, x):
    return _gradients(block, x)[:, :, x.shape[2] // 2, x.shape[3] // 2] != 0


def first_pixel(block, x):
    return _gradients(block, x)[:, :, 0, 0] != 0


def plain_sum(block, x):
    return _gradients(block, x).ne(0).flatten(2).any(2)


def _at_output(block, x, place):
    x = x.clone().requires_grad_()
    return torch.stack([torch.autograd.grad(place(y), x, retain_graph=True)[0][0] for y in block(x)[0]]).ne(0).flatten(2).any(2)


def one_output_position(block, x):
    return _at_output(block, x, lambda y: y[y.shape[0] // 2, y.shape[1] // 2])


def largest_output(block, x):
    return _at_output(block, x, torch.max)


def _weighted(block, x):
    return [(y * torch.randn_like(y)).sum() for y in block(x)[0]]


def on_the_callers_x(block, x):
    x.requires_grad_()
    return torch.stack([torch.autograd.grad(y, x, retain_graph=True)[0][0].ne(0).flatten(1).any(1) for y in _weighted(block, x)])


def gradients_left_behind(block, x):
    x, rows = x.detach().clone().requires_grad_(), []
    for y in _weighted(block, x):
        x.grad = None
        y.backward(retain_graph=True)
        rows.append(x.grad[0].ne(0).flatten(1).any(1))
    return torch.stack(rows)


def not_a_truth_value(block, x):
    return _gradients(block, x).abs().sum((2, 3))


def one_input_on(block, x):
    """Switch all inputs off but one: a bias makes the output other than zero all the same."""
    with torch.no_grad():
        columns = []
        for i in range(x.shape[1]):
            alone = torch.zeros_like(x)
            alone[:, i] = x[:, i]
            columns.append(block(alone)[0].abs().sum((1, 2)) > 0)
    return torch.stack(columns, 1)


def first_weight_only(block, x):
    conv = next(layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
    return conv.weight.detach().abs().sum((2, 3)) > 0


# -- 3.6 channel_shuffle -----------------------------------------------------------------------------


def _checked(x, groups):
    if x.shape[1] % groups:
        raise ValueError("groups")
    return x.shape


def groups_transposed(x, groups):
    b, c, h, w = _checked(x, groups)
    return x.reshape(b, c // groups, groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def never_transposed(x, groups):
    b, c, h, w = _checked(x, groups)
    return x.reshape(b, groups, c // groups, h, w).reshape(b, c, h, w)


def view_of_a_transpose(x, groups):
    b, c, h, w = _checked(x, groups)
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).view(b, c, h, w)


def axes_mixed(x, groups):
    b, c, h, w = _checked(x, groups)
    return x.reshape(b, groups, c // groups, h, w).transpose(0, 1).reshape(b, c, h, w)


def at_random(x, groups):
    _checked(x, groups)
    return x[:, torch.randperm(x.shape[1])]


def rolled(x, groups):
    _checked(x, groups)
    return x.roll(x.shape[1] // groups, 1)


def groups_reversed(x, groups):
    b, c, h, w = _checked(x, groups)
    return x.reshape(b, groups, c // groups, h, w).flip(1).reshape(b, c, h, w)


def shuffled_within(x, groups):
    b, c, h, w = _checked(x, groups)
    return x.reshape(b, groups, c // groups, h, w).flip(2).reshape(b, c, h, w)


def left_to_reshape(x, groups):
    b, c, h, w = x.shape
    return x.reshape(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def remainder_left_alone(x, groups):
    b, c, h, w = x.shape
    whole = c // groups * groups
    dealt = x[:, :whole].reshape(b, groups, whole // groups, h, w).transpose(1, 2).reshape(b, whole, h, w)
    return torch.cat([dealt, x[:, whole:]], 1)
