r"""Speculative decoding: a small model writes ahead, the large one reads all of it at once and keeps what it would
have written itself. The text has exactly the distribution of the large model.

The draft draws tokens from its distribution q, the target has p. A token x is accepted with probability
:math:`\min(1, p(x) / q(x))`; else the token is drawn from what is left of p:

.. math:: p'(x) = \frac{(p(x) - q(x))_+}{\sum_y (p(y) - q(y))_+}

Then x comes out with probability :math:`\min(q(x), p(x)) + (p(x) - q(x))_+ = p(x)`. What a better draft buys is
time: a token is accepted with probability

.. math:: \alpha = \sum_x \min(p(x), q(x)), \qquad
          E[\text{tokens per call of the target}] = \frac{1 - \alpha^{k+1}}{1 - \alpha}

where k tokens are drafted at a time and every token has the same :math:`\alpha`.

Source: Y. Leviathan, M. Kalman, Y. Matias, "Fast Inference from Transformers via Speculative Decoding", ICML 2023;
C. Chen et al., "Accelerating Large Language Model Decoding with Speculative Sampling", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.core.errors import check_fraction, check_int
from compresslab.core.train import evaluating
from compresslab.sequence.gpt import KVCache


def accept_or_resample(p: Tensor, q: Tensor, token: int, u: float, v: float) -> tuple[int, bool]:
    r"""Keep a token that was drawn from q with probability min(1, p / q), or draw one from (p - q)+.

    Args:
        p, q: (V,), the probabilities of the target and of the draft; q[token] > 0.
        token: drawn from q. u, v: two numbers drawn evenly from [0, 1), u to accept, v to draw again.

    Returns:
        (token, accepted).

    Raises:
        ValueError: different shapes, or a token that the draft cannot have drawn.

    Example:
        >>> p, q = torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5])
        >>> accept_or_resample(p, q, 0, u=0.4, v=0.0), accept_or_resample(p, q, 0, u=0.6, v=0.0)
        ((0, True), (1, False))
    """
    if p.ndim != 1 or p.shape != q.shape:
        raise ValueError(f"p and q must be (V,) of one V, got {tuple(p.shape)} and {tuple(q.shape)}")
    check_int("token", token, 0, len(q) - 1)
    if not q[token] > 0:
        raise ValueError(f"the draft cannot have drawn token {token}: its probability there is {q[token]:g}")
    if u * q[token] < p[token]:
        return token, True
    left = (p - q).clamp(min=0)
    return (_pick(left, v), False) if left.any() else (token, True)  # p = q up to rounding: nothing to draw from


def _pick(weights: Tensor, v: float) -> int:
    """The token at v of the way through weights (V,) that are not all zero; never one of weight zero."""
    cumulative = weights.double().cumsum(0)
    place = torch.searchsorted(cumulative, v * cumulative[-1], right=True)
    return int(place.clamp(max=int(weights.nonzero()[-1])))


def acceptance_rate(p: Tensor, q: Tensor) -> Tensor:
    r"""How often a token drawn from q is accepted: :math:`\alpha = \sum_x \min(p(x), q(x))`, (...,) from (..., V).

    One minus the total variation distance of p and q.

    Example:
        >>> acceptance_rate(torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5])).item()
        0.75
    """
    return torch.minimum(p, q).sum(-1)


def tokens_per_call(alpha: float, k: int) -> float:
    r"""Expected tokens per call of the target: :math:`1 + \alpha + \dots + \alpha^k`.

    Args:
        alpha: acceptance rate, the same for every token. k: tokens drafted at a time, at least 0.

    Raises:
        TypeError, ValueError: alpha outside [0, 1], k below 0.

    Example:
        >>> tokens_per_call(0.5, 2), tokens_per_call(1.0, 4)
        (1.75, 5.0)
    """
    check_fraction("alpha", alpha)
    return float(sum(alpha**n for n in range(check_int("k", k, 0) + 1)))


def speculative_speedup(alpha: float, k: int, cost: float) -> float:
    r"""How many times faster than the target alone: tokens per call divided by :math:`1 + k c`.

    Args:
        alpha, k: as in `tokens_per_call`. cost: c, the time of a step of the draft in steps of the target. A call of
            the target is taken to last as long for k + 1 tokens as for one, which is so while its bytes decide.

    Raises:
        TypeError, ValueError: as in `tokens_per_call`; a negative cost.

    Example:
        >>> speculative_speedup(0.5, 2, cost=0.25), speculative_speedup(1.0, 4, cost=0.0)
        (1.1666666666666667, 5.0)
    """
    if not cost >= 0:
        raise ValueError(f"cost must be 0 or more, got {cost}")
    return tokens_per_call(alpha, k) / (1 + k * cost)


@dataclass(frozen=True, eq=False)
class Speculation:
    """What `generate_speculative` wrote, and how.

    Args:
        tokens: int64, (n,). drafted: whether the draft wrote it, bool, (n,).
        tested: tokens of the draft that were judged; those behind a rejected one are not. accepted: of these.
        target_calls, draft_calls: how often the models were called.
    """

    tokens: Tensor
    drafted: Tensor
    tested: int
    accepted: int
    target_calls: int
    draft_calls: int

    @property
    def acceptance(self) -> float:
        """The share of the judged tokens that were accepted: an estimate of alpha; 0 where none was judged."""
        return self.accepted / self.tested if self.tested else 0.0

    @property
    def tokens_per_call(self) -> float:
        """Tokens written per call of the target."""
        return len(self.tokens) / self.target_calls if self.target_calls else 0.0


def generate_speculative(
    target: nn.Module,
    draft: nn.Module,
    prompt: Tensor,
    n: int,
    *,
    k: int = 4,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    memory: type[KVCache] = KVCache,
) -> Speculation:
    """Let a draft write ahead and a target decide; the text is distributed as if the target had written it.

    At temperature 0 it is the text of `generate(target, prompt, n, temperature=0)`, unless two logits are equal up to
    rounding.

    Args:
        target, draft: have `step(tokens, memory) -> (logits, memory)` over one vocabulary: GPT or LSTM, in any mixture.
            A model with a `context` forgets its past when that is full, as in `generate`.
        prompt: int64 (tokens,), at least one.
        n: tokens to write. k: tokens drafted at a time, at least 0.
        temperature, generator: as in `generate`; both models draw at this temperature.
        memory: what makes an empty cache for a model with a `context`, such as `KVCache` or
            `partial(QuantizedKVCache, 4)`.

    Returns:
        a `Speculation`.

    Raises:
        TypeError, ValueError: an empty prompt, n or k below 0, a negative temperature, two vocabularies.
    """
    check_int("n", n, 0)
    check_int("k", k, 0)
    if prompt.ndim != 1 or not len(prompt):
        raise ValueError(f"prompt must be (tokens,) with at least one, got {tuple(prompt.shape)}")
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    generator = generator or torch.Generator().manual_seed(0)
    text, drafted, tested, accepted = prompt.tolist(), [], 0, 0
    with evaluating(target), evaluating(draft):
        judge, writer = _Reader(target, memory, len(text)), _Reader(draft, memory, len(text))
        while len(drafted) < n:
            ahead = min(k, n - len(drafted) - 1, judge.room(len(text)), writer.room(len(text)) + 1)
            new, q = [], []
            for _ in range(ahead):
                q.append(_distribution(writer.read(text + new)[-1], temperature))
                new.append(int(_draw(q[-1], generator)))
            p = _distribution(judge.read(text + new)[-(ahead + 1) :], temperature)
            kept, last = _judge(p, q, new, generator)
            tested, accepted = tested + min(kept + 1, ahead), accepted + kept
            judge.back(len(text) + kept)
            writer.back(len(text) + kept)
            drafted += [True] * kept + [False]
            text += [*new[:kept], last]
    written = torch.tensor(text[len(prompt) :], dtype=torch.int64)
    return Speculation(written, torch.tensor(drafted, dtype=torch.bool), tested, accepted, judge.calls, writer.calls)


def _judge(p: Tensor, q: list[Tensor], new: list[int], generator: torch.Generator) -> tuple[int, int]:
    """How many drafted tokens stay, and the token after them, from p (drafted + 1, V)."""
    for place, token in enumerate(new):
        u, v = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        chosen, stays = accept_or_resample(p[place], q[place], token, u, v)
        if not stays:
            return place, chosen
    return len(new), int(_draw(p[-1], generator))


def _distribution(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities (..., V) in float64; all on the most likely token at temperature 0."""
    if temperature == 0:
        return nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    return (logits.double() / temperature).softmax(-1)


def _draw(p: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(p, 1, generator=generator)[0]


class _Reader:
    """A model that has read the beginning of a growing text, and can take the last tokens back.

    A cache is cut. The state of a recurrent network cannot be: the state before the call is kept, and what still
    stands of the text since is read again, together with what is new.
    """

    def __init__(self, model: nn.Module, memory: Any, length: int) -> None:
        self.model, self.make = model, memory
        self.context = getattr(model, "context", None) or inf
        self.start = max(0, length - self.context) if self.context < inf else 0
        self.calls, self.done, self.memory = 0, self.start, None
        self.saved: list[tuple[int, Any]] = []  # (tokens read, memory), oldest first

    def room(self, length: int) -> int | float:
        """How many more tokens than the `length` ones there are can be read, after sliding the window if it is full."""
        if length - self.start > self.context:
            self.start = self.done = length - max(1, self.context // 2)
            self.memory, self.saved = None, []
        return self.context - (length - self.start)

    def read(self, text: list[int]) -> Tensor:
        """Read all of the text that was not read yet; logits (new, V)."""
        if self.memory is None and self.context < inf:
            self.memory = self.make()
        if not isinstance(self.memory, KVCache):
            self.saved.append((self.done, self.memory))
        logits, self.memory = self.model.step(torch.tensor([text[self.done :]]), self.memory)
        self.calls, self.done = self.calls + 1, len(text)
        return logits[0]

    def back(self, length: int) -> None:
        """Go back to where no more than the first `length` tokens were read, and are certain to stay."""
        if isinstance(self.memory, KVCache):
            self.done = min(self.done, length)
            self.memory.cut(self.done - self.start)
            return
        while self.done > length:
            self.done, self.memory = self.saved.pop()
        self.saved = []
