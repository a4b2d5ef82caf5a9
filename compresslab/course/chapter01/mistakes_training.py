"""Typical wrong answers to exercises 1.5 to 1.8: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_weights.py`.
"""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F

from compresslab.course.chapter01.references import magnitude_mask


# -- 1.5 prune_in_training ---------------------------------------------------------------------------

def _train(model, batches, prune_at, sparsity, lr, momentum, *, before=False, gradient=False, after=False,
           anew=False, restart=False, only_at_the_end=False):
    """One loop with every way to hold, or to lose, a mask."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    masks, matrices = {}, {name: p for name, p in model.named_parameters() if p.dim() > 1}

    def apply():
        for name in masks:
            matrices[name].data *= masks[name]

    for step, (x, y) in enumerate(batches):
        if step == prune_at or (anew and step > prune_at):
            masks = {name: magnitude_mask(p.detach(), sparsity) for name, p in matrices.items()}
            if not only_at_the_end:
                apply()
            if restart:
                optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        if before:
            apply()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if gradient:
            for name in masks:
                matrices[name].grad *= masks[name]
        optimizer.step()
        if after:
            apply()
    if only_at_the_end:
        apply()
    return model


def gradient_masked(model, batches, prune_at, sparsity, lr=0.1, momentum=0.9):
    return _train(model, batches, prune_at, sparsity, lr, momentum, gradient=True)


def masked_before_the_step(model, batches, prune_at, sparsity, lr=0.1, momentum=0.9):
    return _train(model, batches, prune_at, sparsity, lr, momentum, before=True)


def masked_at_the_end(model, batches, prune_at, sparsity, lr=0.1, momentum=0.9):
    return _train(model, batches, prune_at, sparsity, lr, momentum, only_at_the_end=True)


def mask_chosen_anew(model, batches, prune_at, sparsity, lr=0.1, momentum=0.9):
    model = _train(model, batches, prune_at, sparsity, lr, momentum, anew=True)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= magnitude_mask(parameter.detach(), sparsity)
    return model


def optimizer_restarted(model, batches, prune_at, sparsity, lr=0.1, momentum=0.9):
    return _train(model, batches, prune_at, sparsity, lr, momentum, restart=True, after=True)


def pruned_once(model, batches, prune_at, sparsity, lr=0.1, momentum=0.9):
    return _train(model, batches, prune_at, sparsity, lr, momentum)


# -- 1.6 control_starts ------------------------------------------------------------------------------

def _starts(trained, fresh, masks, shuffled, **changed):
    starts = {"inherited": {name: trained[name] * masks[name] for name in masks},
              "random mask": {name: trained[name] * shuffled[name] for name in masks},
              "from scratch": {name: fresh[name] * masks[name] for name in masks}}
    return {name: changed.get(name.replace(" ", "_"), start) for name, start in starts.items()}


def _shuffle(mask, generator):
    return mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view(mask.shape)


def one_ratio_for_all(trained, fresh, masks, generator):
    together = _shuffle(torch.cat([mask.flatten() for mask in masks.values()]), generator)
    parts = together.split([mask.numel() for mask in masks.values()])
    return _starts(trained, fresh, masks, {n: part.view(masks[n].shape) for n, part in zip(masks, parts)})


def drawn_by_a_coin(trained, fresh, masks, generator):
    coins = {name: torch.rand(mask.shape, generator=generator) < mask.float().mean() for name, mask in masks.items()}
    return _starts(trained, fresh, masks, coins)


def random_mask_on_fresh(trained, fresh, masks, generator):
    shuffled = {name: _shuffle(mask, generator) for name, mask in masks.items()}
    return _starts(trained, fresh, masks, shuffled,
                   random_mask={name: fresh[name] * shuffled[name] for name in masks})


def scratch_without_mask(trained, fresh, masks, generator):
    shuffled = {name: _shuffle(mask, generator) for name, mask in masks.items()}
    return _starts(trained, fresh, masks, shuffled, from_scratch={name: fresh[name].clone() for name in masks})


def shuffled_the_weights(trained, fresh, masks, generator):
    moved = {name: _shuffle(trained[name] * mask, generator) for name, mask in masks.items()}
    return _starts(trained, fresh, masks, masks, random_mask=moved)


def ignored_the_generator(trained, fresh, masks, generator):
    return _starts(trained, fresh, masks, {name: _shuffle(mask, None) for name, mask in masks.items()})


# -- 1.7 gap_encode ----------------------------------------------------------------------------------

def _encode(weight, write):
    codes, last = [], -1
    for position in weight.flatten().nonzero().flatten().tolist():
        codes += write(position - last - 1, position)
        last = position
    return torch.tensor(codes, dtype=torch.int64)


def never_escaped(weight, index_bits):
    return _encode(weight, lambda zeros, position: [zeros])


def wrapped(weight, index_bits):
    return _encode(weight, lambda zeros, position: [zeros % 2**index_bits])


def absolute_positions(weight, index_bits):
    return _encode(weight, lambda zeros, position: [position])


def distances(weight, index_bits):
    escape = 2**index_bits - 1
    return _encode(weight, lambda zeros, position: [escape] * ((zeros + 1) // escape) + [(zeros + 1) % escape])


def paper_padding(weight, index_bits):
    escape = 2**index_bits - 1
    return _encode(weight, lambda zeros, p: [escape] * (zeros // (escape + 1)) + [zeros % (escape + 1)])


def escape_left_open(weight, index_bits):
    escape = 2**index_bits - 1

    def write(zeros, position):
        skips = max(0, -(-zeros // escape) - 1)
        return [escape] * skips + [zeros - skips * escape]
    return _encode(weight, write)


def coded_the_tail(weight, index_bits):
    escape = 2**index_bits - 1
    flat = weight.flatten()
    codes = _encode(weight, lambda zeros, position: [escape] * (zeros // escape) + [zeros % escape])
    positions = flat.nonzero().flatten()
    tail = len(flat) - 1 - (int(positions[-1]) if len(positions) else -1)
    return torch.cat([codes, torch.full((tail // escape,), escape)])


# -- 1.8 obs_remove ----------------------------------------------------------------------------------

def _zeroed(w, q):
    w = w.clone()
    w[q] = 0
    return w


def nobody_moves(w, H, q):
    return _zeroed(w, q), float(H[q, q] * w[q] ** 2 / 2)


def only_the_saliency(w, H, q):
    return _zeroed(w, q), float(w[q] ** 2 / (2 * torch.linalg.inv(H)[q, q]))


def hessian_not_inverted(w, H, q):
    return _zeroed(w - w[q] / H[q, q] * H[:, q], q), float(w[q] ** 2 / (2 * H[q, q]))


def wrong_sign(w, H, q):
    H_inv = torch.linalg.inv(H)
    return _zeroed(w + w[q] / H_inv[q, q] * H_inv[:, q], q), float(w[q] ** 2 / (2 * H_inv[q, q]))


def not_divided(w, H, q):
    H_inv = torch.linalg.inv(H)
    return _zeroed(w - w[q] * H_inv[:, q], q), float(w[q] ** 2 / (2 * H_inv[q, q]))


def forgot_the_half(w, H, q):
    H_inv = torch.linalg.inv(H)
    return _zeroed(w - w[q] / H_inv[q, q] * H_inv[:, q], q), float(w[q] ** 2 / H_inv[q, q])
