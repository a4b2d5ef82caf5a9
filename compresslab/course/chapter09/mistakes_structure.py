"""Typical wrong answers to exercises 9.10 to 9.12: each one is run, to recognise it in a learner's answer."""

from __future__ import annotations

import math

from torch.nn import functional as F

# -- 9.10 head_scores ----------------------------------------------------------------------------------------


def every_number(output, gradient, heads):
    return (output * gradient).abs().unflatten(2, (heads, -1)).sum((1, 3)).mean(0)


def every_place(output, gradient, heads):
    return (output * gradient).unflatten(2, (heads, -1)).sum(3).abs().sum(1).mean(0)


def after_the_mean(output, gradient, heads):
    return (output * gradient).unflatten(2, (heads, -1)).sum((1, 3)).mean(0).abs()


def signed(output, gradient, heads):
    return (output * gradient).unflatten(2, (heads, -1)).sum((1, 3)).mean(0)


def interleaved(output, gradient, heads):
    return (output * gradient).unflatten(2, (-1, heads)).sum((1, 2)).abs().mean(0)


def gradient_only(output, gradient, heads):
    return gradient.unflatten(2, (heads, -1)).sum((1, 3)).abs().mean(0)


def gradient_size(output, gradient, heads):
    return gradient.abs().unflatten(2, (heads, -1)).sum((1, 3)).mean(0)


def output_size(output, gradient, heads):
    return output.abs().unflatten(2, (heads, -1)).sum((1, 3)).mean(0)


def mean_over_places(output, gradient, heads):
    return (output * gradient).unflatten(2, (heads, -1)).mean((1, 3)).abs().mean(0)


def mean_over_tokens(output, gradient, heads):
    return (output * gradient).unflatten(2, (heads, -1)).sum(3).mean(1).abs().mean(0)


def sum_over_texts(output, gradient, heads):
    return (output * gradient).unflatten(2, (heads, -1)).sum((1, 3)).abs().sum(0)


def per_text(output, gradient, heads):
    return (output * gradient).unflatten(2, (heads, -1)).sum((1, 3)).abs()


def squared(output, gradient, heads):
    return (output * gradient).unflatten(2, (heads, -1)).sum((1, 3)).square().mean(0)


# -- 9.11 reverse_kl -----------------------------------------------------------------------------------------


def forward(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def sign_flipped(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_q.exp() * (log_p - log_q)).sum(-1).mean()


def teacher_weights(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_p.exp() * (log_q - log_p)).sum(-1).mean()


def mean_over_vocabulary(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).mean()


def sum_over_everything(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum()


def mean_over_batch_only(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum() / len(log_q)


def detached(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_q.exp().detach() * (log_q - log_p)).sum(-1).mean()


def without_entropy(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return -(log_q.exp() * log_p).sum(-1).mean()


def log_of_softmax(student_logits, teacher_logits):
    q, p = student_logits.softmax(-1), teacher_logits.softmax(-1)
    return (q * (q.log() - p.log())).sum(-1).mean()


def wrong_axis(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(1), teacher_logits.log_softmax(1)
    return (log_q.exp() * (log_q - log_p)).sum(1).mean()


def in_bits(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1).mean() / math.log(2)


def both_ways(student_logits, teacher_logits):
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return ((log_q.exp() - log_p.exp()) * (log_q - log_p)).sum(-1).mean() / 2


def of_logits(student_logits, teacher_logits):
    return (student_logits.softmax(-1) * (student_logits - teacher_logits)).sum(-1).mean()


# -- 9.12 quantize_layer -------------------------------------------------------------------------------------


def bits_of(weight, x, y):
    return F.cross_entropy(x @ weight.T, y).item() / math.log(2)


def absolute(rows, clip):
    return clip * rows.abs().amax(1, keepdim=True) / 7


def one_sided(rows, clip):
    return clip * rows.amax(1, keepdim=True) / 7


def eight_levels(rows, clip):
    return clip * rows.abs().amax(1, keepdim=True) / 8


def one_clip(rows, clip):
    return rows.abs().amax(1, keepdim=True) / 7


def run(weight, group, clips, calibration, test, *, scale_of=absolute, across=False, whole_rows=False, half=True, levels=(-7, 7),
        chosen_on="calibration", reported_on="test", counted=16, last=False, worst=False):
    """`quantize_layer`, with its parts as arguments."""
    texts, candidates = {"calibration": calibration, "test": test}, []
    for clip in clips:
        source = weight.T if across else weight
        rows = source.reshape(-1, source.shape[1] if whole_rows else group)
        scale = scale_of(rows, clip)
        scale = scale.half().float() if half else scale
        stored = ((rows / scale).round().clamp(*levels) * scale).view(source.shape)
        stored = stored.T.contiguous() if across else stored
        candidates.append((bits_of(stored, *texts[chosen_on]), stored))
    pick = max if worst else min
    found = candidates[-1][1] if last else pick(candidates, key=lambda item: item[0])[1]
    return found, bits_of(found, *texts[reported_on]), 4 + counted / group if counted else 4.0


def _with(**parts):
    def quantize_layer(weight, group, clips, calibration, test):
        return run(weight, group, clips, calibration, test, **parts)

    return quantize_layer


all_bugs = _with(across=True, scale_of=one_sided, chosen_on="test", counted=0)
groups_across = _with(across=True)
largest_signed = _with(scale_of=one_sided)
chosen_on_test = _with(chosen_on="test")
scales_free = _with(counted=0)
scales_of_32 = _with(counted=32)
whole_rows = _with(whole_rows=True)
floats_kept = _with(half=False)
sixteen_levels = _with(scale_of=eight_levels, levels=(-8, 7))
never_clipped = _with(scale_of=one_clip)
last_clip = _with(last=True)
worst_clip = _with(worst=True)
told_calibration = _with(reported_on="calibration")
only_groups_repaired = _with(scale_of=one_sided, chosen_on="test", counted=0)
only_groups_and_sign_repaired = _with(chosen_on="test", counted=0)
bytes_and_choice_left = _with(across=True, scale_of=one_sided)
