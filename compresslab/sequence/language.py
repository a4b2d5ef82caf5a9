"""Training a language model, measuring it in bits per character, and letting it write."""

from __future__ import annotations

from functools import partial
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.errors import check_int
from compresslab.core.statistics import mean_interval
from compresslab.core.train import evaluating, train
from compresslab.sequence.text import TextSplit

WEIGHT_DECAY = 0.05


def token_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """-log p(y_t | x_1 ... x_t), averaged over all tokens of the batch, in nats: a scalar."""
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def train_language(
    model: nn.Module, split: TextSplit, *, epochs: int, lr: float = 0.003, batch_size: int = 32, **options: Any
) -> nn.Module:
    """Train a copy of a language model with AdamW, and return it in eval mode.

    Args:
        model: tokens (B, L) -> logits (B, L, vocabulary).
        split: the training text. epochs: passes over it. lr: the largest learning rate.
        batch_size: windows per step.
        options: of `core.train`, such as `seed`, `after_step`, `loss` (of `token_loss`'s form) or `progress`.

    Raises:
        ValueError: as `core.train`.
    """
    options = {"loss": token_loss, "optimizer": partial(torch.optim.AdamW, weight_decay=WEIGHT_DECAY)} | options
    return train(model, split, epochs=epochs, lr=lr, batch_size=batch_size, **options)


def window_bits(model: nn.Module, split: TextSplit, *, batch_size: int = 64) -> Tensor:
    """Bits per character of each window: -log2 p of what came next, averaged over the window; (windows,).

    Every window starts without a past, so a longer context gives lower numbers. Lower is better; guessing
    among V tokens costs log2 V bits.

    Example:
        >>> split = TextSplit(torch.zeros(9, dtype=torch.int64), context=4)
        >>> bits = window_bits(nn.Embedding.from_pretrained(torch.zeros(1, 8)), split)  # guesses among 8
        >>> bits.round(decimals=4).tolist()
        [3.0, 3.0]
    """
    rows = []
    with evaluating(model):
        for x, y in split.batches(batch_size):
            nats = F.cross_entropy(model(x).flatten(0, 1).float(), y.flatten(), reduction="none")
            rows.append(nats.view(y.shape).double().mean(1) / log(2))
    return torch.cat(rows)


def bits_per_character(model: nn.Module, split: TextSplit) -> float:
    """The mean of `window_bits`."""
    return window_bits(model, split).mean().item()


def relative_bits(before: Tensor, after: Tensor, confidence: float = 0.95) -> tuple[float, float, float]:
    """How many times more bits per character `after` needs, minus 1, paired window by window.

    .. math:: (mean(after) - mean(before)) / mean(before)

    Args:
        before, after: `window_bits` of two models on the same text, (windows,).

    Returns:
        (value, low, high); the mean of `before` is taken as exact.

    Raises:
        ValueError: different numbers of windows.

    Example:
        >>> round(relative_bits(torch.tensor([1.0, 3.0]), torch.tensor([1.1, 3.1]))[0], 4)
        0.05
    """
    if before.shape != after.shape:
        raise ValueError(f"both must be bits of the same windows, got {tuple(before.shape)} and {tuple(after.shape)}")
    scale = before.double().mean().item()
    return mean_interval(((after - before).double() / scale).tolist(), confidence)


def generate(
    model: nn.Module, prompt: Tensor, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Let a model write: n tokens drawn one after the other; (n,), int64.

    Args:
        model: has `step(tokens, memory) -> (logits, memory)`; with a `context`, it forgets its past when that is
            full and reads the last half of it again.
        prompt: int64 (tokens,), at least one.
        n: how many to write, at least 0.
        temperature: the logits are divided by it; 0 takes the most likely token.
        generator: of the draws; a fresh one with seed 0 where None.

    Raises:
        ValueError: an empty prompt, a negative temperature, n below 0.
    """
    check_int("n", n, 0, None)
    if prompt.ndim != 1 or not len(prompt):
        raise ValueError(f"prompt must be (tokens,) with at least one, got {tuple(prompt.shape)}")
    generator = generator or torch.Generator().manual_seed(0)
    context = getattr(model, "context", None)
    text, new, memory = prompt.tolist(), prompt if context is None else prompt[-context:], None
    with evaluating(model):
        while len(text) < len(prompt) + n:
            if context is not None and memory is not None and memory.length + len(new) > context:
                memory, new = None, torch.tensor(text[-max(1, context // 2) :])
            logits, memory = model.step(new[None], memory)
            new = draw(logits[0, -1], temperature, generator)[None]
            text.append(new.item())
    return torch.tensor(text[len(prompt) :], dtype=torch.int64)


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One token from logits (V,): a scalar int64; the most likely one at temperature 0."""
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    if temperature == 0:
        return logits.argmax()
    return torch.multinomial((logits / temperature).softmax(0), 1, generator=generator)[0]
