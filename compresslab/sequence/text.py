"""English text that ships with Python, as numbers: what the language models of the course read.

The text is the Python language reference, which `help("for")` prints: `pydoc_data.topics`, about 0.4 million
characters after every paragraph that occurs twice is kept once. A **token** is one character. The vocabulary
is fixed: line feed, the 95 printable characters of ASCII, and one token for any other character.

Which part a paragraph belongs to follows from a hash of the paragraph itself. So no paragraph that a shipped
model was trained on is ever in the test text, although other versions of Python have a slightly other text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pydoc_data.topics import topics

import torch
from torch import Tensor

from compresslab.core.errors import check_int

VOCABULARY = "\n" + "".join(map(chr, range(32, 127))) + "\N{REPLACEMENT CHARACTER}"
UNKNOWN = len(VOCABULARY) - 1
NUMBERS = {character: number for number, character in enumerate(VOCABULARY)}
PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "..."})
PARTS = {"test": range(0, 2), "validation": range(2, 3), "train": range(3, 20)}  # twentieths of the paragraphs


def encode_text(text: str) -> Tensor:
    """The tokens of a text: int64, (characters,). Typographic quotes and dashes become plain ones.

    Example:
        >>> encode_text("a\\n b").tolist()
        [66, 0, 1, 67]
    """
    text = text.translate(PLAIN)
    return torch.tensor([NUMBERS.get(character, UNKNOWN) for character in text], dtype=torch.int64)


def decode_text(tokens: Tensor) -> str:
    """The text of tokens (characters,): the other way.

    Raises:
        ValueError: a number outside the vocabulary.

    Example:
        >>> decode_text(encode_text("for x in y:"))
        'for x in y:'
    """
    numbers = tokens.flatten().tolist()
    for number in numbers:
        if not 0 <= number < len(VOCABULARY):
            raise ValueError(f"tokens are numbers from 0 to {len(VOCABULARY) - 1}, got {number}")
    return "".join(VOCABULARY[number] for number in numbers)


@dataclass(frozen=True, eq=False)
class TextSplit:
    """One part of the text, cut into windows: `context` tokens to read, and the next token of each to predict.

    It goes through `train` like a split of images.

    Args:
        tokens: int64, (characters,), at least `context` + 1 of them.
        context: tokens per window, at least 1; a rest that fills no window is left out.

    Raises:
        TypeError: tokens that are not int64.
        ValueError: tokens that fill no window.

    Example:
        >>> split = TextSplit(torch.arange(7), context=3)
        >>> [(x.tolist(), y.tolist()) for x, y in split.batches(8)]
        [([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])]
    """

    tokens: Tensor
    context: int = 128

    def __post_init__(self) -> None:
        check_int("context", self.context, 1, None)
        if self.tokens.dtype != torch.int64:
            raise TypeError(f"tokens must be int64, got {self.tokens.dtype}")
        if self.tokens.ndim != 1 or len(self.tokens) <= self.context:
            raise ValueError(
                f"tokens must be (characters,) with at least {self.context + 1} of them for one window of "
                f"{self.context}, got {tuple(self.tokens.shape)}"
            )

    def __len__(self) -> int:
        """The number of windows."""
        return (len(self.tokens) - 1) // self.context

    def __repr__(self) -> str:
        return f"TextSplit({len(self.tokens)} characters, {len(self)} windows of {self.context})"

    def batches(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        labels: bool = True,
    ) -> Iterator[tuple[Tensor, Tensor]] | Iterator[Tensor]:
        """Go through the windows once; the last batch may be smaller.

        Args:
            batch_size: windows per batch, at least 1.
            shuffle: in random order, the cuts between windows moved by a random offset, both drawn from
                `generator` (a fresh one with seed 0 where None).
            labels: yield pairs (x, y); False yields x alone, which is what calibration needs.

        Returns:
            an iterator over (x, y), both int64 (B, context), y one token ahead of x.
        """
        check_int("batch_size", batch_size, 1, None)
        generator = generator or torch.Generator().manual_seed(0)
        free = len(self.tokens) - 1 - len(self) * self.context
        offset = int(torch.randint(free + 1, (), generator=generator)) if shuffle else 0
        order = torch.randperm(len(self), generator=generator) if shuffle else torch.arange(len(self))
        x, y = (self._windows(offset + ahead) for ahead in (0, 1))
        for chunk in order.split(batch_size):
            yield (x[chunk], y[chunk]) if labels else x[chunk]

    def _windows(self, start: int) -> Tensor:
        return self.tokens[start : start + len(self) * self.context].view(len(self), self.context)

    def take(self, n: int) -> TextSplit:
        """The first `n` windows; ValueError where there are fewer."""
        check_int("n", n, 1, len(self))
        return TextSplit(self.tokens[: n * self.context + 1], self.context)

    def drawn(self, n: int, *, seed: int = 0) -> TextSplit:
        """`n` windows in a row from a random place: other calibration text for every seed."""
        check_int("n", n, 1, len(self))
        span = n * self.context + 1
        start = int(torch.randint(len(self.tokens) - span + 1, (), generator=torch.Generator().manual_seed(seed)))
        return TextSplit(self.tokens[start : start + span], self.context)


@dataclass(frozen=True, eq=False)
class Text:
    """The three parts of the text: `train`, `validation`, `test`, each a `TextSplit`."""

    train: TextSplit
    validation: TextSplit
    test: TextSplit


def load_text(context: int = 128) -> Text:
    """The Python language reference that ships with this Python, in its three parts.

    Paragraphs are in the order of their topics; about 85 % of them are for training, 5 % for validation, 10 %
    for the test. Needs no network.

    Args:
        context: tokens per window.

    Example:
        >>> text = load_text()
        >>> text.train.context, len(text.train) > 2000, len(text.test) > 250
        (128, True, True)
    """
    return Text(**{part: TextSplit(encode_text(text), context) for part, text in _parts().items()})


@cache
def _parts() -> dict[str, str]:
    """Part -> its text: the paragraphs of all topics, each one once."""
    paragraphs = dict.fromkeys(
        paragraph.strip("\n") for name in sorted(topics) for paragraph in topics[name].split("\n\n")
    )
    chosen: dict[str, list[str]] = {part: [] for part in PARTS}
    for paragraph in filter(str.strip, paragraphs):
        twentieth = hashlib.sha256(paragraph.encode()).digest()[0] % 20
        part = next(part for part, numbers in PARTS.items() if twentieth in numbers)
        chosen[part].append(paragraph)
    return {part: "\n\n".join(chosen[part]) for part in ("train", "validation", "test")}
