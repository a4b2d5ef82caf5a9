r"""Distillation of a language model: which distance, and on whose text.

A language model predicts the next token at every place of a text, so each place is a lesson. Two choices make
the methods apart. The *distance*: with p of the teacher and q of the student,

.. math:: KL(p\|q) = \sum_v p_v \log \frac{p_v}{q_v} \quad\text{(forward)}, \qquad
          KL(q\|p) = \sum_v q_v \log \frac{q_v}{p_v} \quad\text{(reverse)}

The forward one is infinite where the student misses something that the teacher says; a small student spreads
out to cover it all. The reverse one is infinite where the student says what the teacher never would; a small
student keeps to what it can say. And the *text*: a given one, what the teacher writes, or what the student
writes itself, as it will have to later.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.errors import check_int
from compresslab.core.train import Loss, evaluating
from compresslab.distillation.soft_targets import reverse_kl_loss, soft_target_loss
from compresslab.sequence.language import train_language
from compresslab.sequence.text import TextSplit

KINDS = ("forward", "reverse", "sequence", "on_policy")


def distill_language(
    student: nn.Module,
    teacher: nn.Module,
    split: TextSplit,
    kind: str = "forward",
    *,
    epochs: int,
    temperature: float = 1.0,
    prompt: int = 32,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """Train a copy of a student under a teacher, and return it in eval mode.

    ===========  ========================================================================================
    "forward"    KL(p || q) at every place of the given text
    "reverse"    KL(q || p) at every place of the given text
    "sequence"   the teacher writes every window on from its first tokens; the student learns that text
    "on_policy"  the *student* writes on; the teacher marks each of its steps with KL(q || p)
    ===========  ========================================================================================

    Args:
        student, teacher: models tokens (B, L) -> logits (B, L, V); for the last two kinds whoever writes has
            `step`.
        split: the text, or the source of the prompts.
        kind: see above. epochs: passes over the windows.
        temperature: of the softmax in both networks, for "forward" and "reverse".
        prompt: tokens of each window that are given, where somebody writes on; 1 to one less than the
            context.
        seed: of the order of the windows and of what is written.
        options: of `train_language`, such as `lr`.

    Raises:
        ValueError: another kind, a prompt or temperature out of range; and as `train_language`.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015; Y. Kim, A.
        Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016; Y. Gu, L. Dong, F. Wei, M. Huang,
        "MiniLLM", ICLR 2024; R. Agarwal et al., "On-Policy Distillation of Language Models", ICLR 2024 (GKD).
    Differs: the teacher's texts are drawn, not found by beam search, and once for all epochs; the gradient
        does not pass through the student's drawing of its text, as in GKD.

    Example:
        >>> split = TextSplit(torch.arange(9) % 5, context=4)
        >>> student, teacher = nn.Embedding(5, 5), nn.Embedding(5, 5)
        >>> distill_language(student, teacher, split, "reverse", epochs=1, progress=False)
        Embedding(5, 5)
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    options = {"epochs": epochs, "seed": seed} | options
    if kind in ("forward", "reverse"):
        return train_language(student, split, loss=_marked(teacher, kind, temperature), **options)
    check_int("prompt", prompt, 1, split.context - 1)
    generator = torch.Generator().manual_seed(seed)
    if kind == "sequence":
        return train_language(student, teacher_text(teacher, split, prompt, generator=generator), **options)
    return train_language(student, split, loss=_own_text(teacher, prompt, generator), **options)


def write_on(
    model: nn.Module, prompts: Tensor, n: int, *, temperature: float = 1.0, generator: torch.Generator
) -> Tensor:
    """Let a model continue a batch of texts: (B, P) -> the n tokens that it writes after each, (B, n).

    Args:
        model: with `step(tokens, memory) -> (logits, memory)`. prompts: int64, at least one token each; P + n
            - 1 tokens must fit the model's context. n: how many, at least 1. temperature: above 0. generator:
            of the draws.
    """
    new, memory, written = prompts, None, []
    with evaluating(model):
        for _ in range(n):
            logits, memory = model.step(new, memory)
            new = torch.multinomial((logits[:, -1] / temperature).softmax(1), 1, generator=generator)
            written.append(new)
    return torch.cat(written, 1)


def teacher_text(
    teacher: nn.Module, split: TextSplit, prompt: int, *, generator: torch.Generator
) -> TextSplit:
    """As many windows as in a split: the first `prompt` tokens of each, and what the teacher writes after
    them.

    The windows stand one behind the other, so the very last token to predict in each begins the next one.

    Raises:
        ValueError: a prompt that leaves nothing to write.
    """
    check_int("prompt", prompt, 1, split.context - 1)
    windows = []
    for x in split.batches(64, labels=False):
        written = write_on(teacher, x[:, :prompt], split.context - prompt, generator=generator)
        windows.append(torch.cat([x[:, :prompt], written], 1))
    tokens = torch.cat(windows).flatten()
    return TextSplit(torch.cat([tokens, tokens[:1]]), split.context)  # the last window has a next token, too


def bell(mean: Tensor, log_width: Tensor, n: int) -> Tensor:
    r"""A normal distribution over the tokens 0 ... n - 1, as log-probabilities (n,): the simplest of
    students.

    .. math:: \log q_v = -\frac{(v - \mu)^2}{2 e^{2s}} - \log Z

    Example:
        >>> bell(torch.tensor(1.0), torch.tensor(0.0), 3).exp()
        tensor([0.2741, 0.4519, 0.2741])
    """
    places = torch.arange(n, dtype=mean.dtype)
    return F.log_softmax(-((places - mean) ** 2) / (2 * (2 * log_width).exp()), 0)


def fit_bell(
    p: Tensor,
    divergence: Callable[[Tensor, Tensor], Tensor],
    *,
    start: float,
    width: float = 3.0,
    steps: int = 300,
    lr: float = 0.1,
) -> Tensor:
    """Fit a `bell` to a distribution by gradient descent (Adam) on a divergence.

    Args:
        p: (n,), the teacher's probabilities, all above 0, n at least 2.
        divergence: (student's logits (1, n), teacher's logits (1, n)) -> a scalar, such as a loss of this
            course.
        start, width: mean and width of the bell at first. steps, lr: of Adam.

    Returns:
        q, (n,), the probabilities of the fitted bell.

    Raises:
        ValueError: p is no distribution with all its probabilities above 0, or the width is not positive.
    """
    if p.ndim != 1 or len(p) < 2 or not (p > 0).all() or abs(p.sum().item() - 1) > 1e-4:
        got = f"shape {tuple(p.shape)}, smallest {p.min():g}, sum {p.sum():g}"
        raise ValueError(f"p must be (n,), probabilities above 0 that sum to 1, got {got}")
    if not width > 0:
        raise ValueError(f"width must be positive, got {width:g}")
    mean = torch.tensor(float(start), requires_grad=True)
    log_width = torch.tensor(log(width), requires_grad=True)
    updates = torch.optim.Adam([mean, log_width], lr)
    for _ in range(steps):
        loss = divergence(bell(mean, log_width, len(p))[None], p.log()[None])
        updates.zero_grad()
        loss.backward()
        updates.step()
    return bell(mean, log_width, len(p)).exp().detach()


def _marked(teacher: nn.Module, kind: str, temperature: float) -> Loss:
    """The loss of a given text: the teacher's distribution at every place."""
    distance = soft_target_loss if kind == "forward" else reverse_kl_loss

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return distance(model(x).flatten(0, 1), _teach(teacher, x).flatten(0, 1), temperature)

    return loss


def _own_text(teacher: nn.Module, prompt: int, generator: torch.Generator) -> Loss:
    """The loss of what the student writes itself after the first `prompt` tokens of each window."""

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        given = x[:, :prompt]
        text = torch.cat([given, write_on(model, given, x.shape[1] - prompt, generator=generator)], 1)
        written = slice(prompt - 1, -1)  # the places whose next token the student chose
        student, taught = model(text)[:, written], _teach(teacher, text)[:, written]
        return reverse_kl_loss(student.flatten(0, 1), taught.flatten(0, 1), 1.0)

    return loss


def _teach(teacher: nn.Module, x: Tensor) -> Tensor:
    with evaluating(teacher):
        return teacher(x)
