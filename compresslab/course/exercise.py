"""What a chapter is made of: exercises, questions and predictions, as plain data.

A chapter is one static table, `CHAPTER = Chapter(...)`, in `compresslab/course/chapterNN/__init__.py`.
Everything the machinery does (checking, hints, diagnosis, building the notebooks, the tests of the
checks themselves) reads this table; nothing registers itself by being imported.

A *function exercise* asks for a function. A *value exercise* (`value=True`) asks for a number, a list
or the path of a file; there `reference`, `Mistake.wrong` and `alternatives` are values, or functions
without arguments that compute them when needed.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from compresslab.course.trial import Call, Trial

_ID = re.compile(r"(0|[1-9]\d?)\.[pq]?[1-9]\d?")


def chapter_number(id: str) -> str:
    """The two-digit chapter of an exercise, question or prediction id.

    Raises:
        ValueError: the id does not look like "1.2", "1.q1" or "1.p1".
    Example:
        >>> chapter_number("1.q3")
        '01'
    """
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise ValueError(f'an id looks like "1.2", "1.q1" or "1.p1", got {id!r}')
    return id.split(".")[0].zfill(2)


def materialise(value: Any) -> Any:
    """A value of a value exercise: itself, or the result of the function that computes it."""
    return value() if callable(value) else value


@dataclass(frozen=True)
class Mistake:
    """One typical wrong answer, executable, with what a good teacher would say about it.

    Args:
        name: a few words for the kill table ("kept the smallest").
        wrong: the wrong function; in a value exercise the wrong value, or a function that computes it.
        diagnosis: one sentence in the second person; it names the mistake, not the cure.
        when: value exercises only: `when(value) -> bool` recognises every value of this kind
            (default: the value equals `wrong`).
    """

    name: str
    wrong: Any
    diagnosis: str
    when: Callable[[Any], bool] | None = None


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One checked exercise.

    Args:
        id: "1.2": chapter, dot, number.
        name: the name that the learner binds: the function's, or the variable's.
        title: a few words for headings and tables.
        misconception: the wrong belief that it cures, in the learner's words ("zeros are free").
        reference: the correct function (or value); its body is the notebook's solution region.
        verify: `verify(t) -> str` tests properties through the `Trial` and says what was verified.
        mistakes: known wrong answers, the more specific first; at least three.
        hints: (idea, formula, skeleton). The formula may be a function `(call | None) -> str` of the
            learner's own failing call.
        alternatives: other correct answers; every one must pass.
        value: the answer is a value, not a function.
        dots: difficulty, 1 to 5. minutes: expected time. points: for nbgrader.
        track: "core" or "stretch". workshop: part of the half-day path.
    """

    id: str
    name: str
    title: str
    misconception: str
    reference: Any
    verify: Callable[[Trial], str]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str | Callable[[Call | None], str], ...]
    alternatives: tuple[Any, ...] = ()
    value: bool = False
    dots: int = 2
    minutes: int = 10
    points: int = 2
    track: Literal["core", "stretch"] = "core"
    workshop: bool = False

    def __post_init__(self) -> None:
        chapter_number(self.id)
        if not self.name.isidentifier():
            raise ValueError(f"exercise {self.id}: name must be a Python name, got {self.name!r}")
        if not 1 <= self.dots <= 5:
            raise ValueError(f"exercise {self.id}: dots must be 1 to 5, got {self.dots}")
        if len(self.mistakes) < 3:
            raise ValueError(
                f"exercise {self.id} needs at least three known mistakes, got {len(self.mistakes)}"
            )
        if len(self.hints) != 3:
            raise ValueError(
                f"exercise {self.id} needs three hints (idea, formula, skeleton), got {len(self.hints)}"
            )
        if self.track not in ("core", "stretch"):
            raise ValueError(f"exercise {self.id}: track must be core or stretch, got {self.track!r}")

    @cached_property
    def answer(self) -> Any:
        """What an unsolved exercise hands to the rest of the notebook: the reference, computed once."""
        return mark_given(materialise(self.reference)) if self.value else self.reference


class GivenInt(int):
    """An integer handed out by `check` for an exercise that is still to do."""


class GivenFloat(float):
    """A number handed out by `check` for an exercise that is still to do."""


class GivenStr(str):
    """A text (often a path) handed out by `check` for an exercise that is still to do."""


def mark_given(value: Any) -> Any:
    """Make a reference value recognisable later, although equal numbers may be one object in Python.

    Raises:
        TypeError: for True, False and None, which cannot be marked: make them a question.
    """
    if value is None or isinstance(value, bool):
        raise TypeError(f"the reference of a value exercise cannot be {value}: ask a question instead")
    for plain, given in ((int, GivenInt), (float, GivenFloat), (str, GivenStr)):
        if isinstance(value, plain):
            return given(value)
    return value


@dataclass(frozen=True)
class Option:
    """One option of a question. A wrong one is a misconception and has its own reply."""

    key: str
    text: str
    reply: str
    correct: bool = False


@dataclass(frozen=True)
class Question:
    """A multiple-choice question about a surprising number.

    `options` stand in the table in any order; the learner sees them shuffled, the same for everyone,
    under the letters a, b, c, ... `letter` is the right one.
    """

    id: str
    prompt: str
    options: tuple[Option, ...]
    points: int = 1
    workshop: bool = False

    def __post_init__(self) -> None:
        chapter_number(self.id)
        if sum(option.correct for option in self.options) != 1:
            raise ValueError(f"question {self.id} needs exactly one correct option")
        if len({option.key for option in self.options}) != len(self.options):
            raise ValueError(f"question {self.id} has two options with one key")

    @cached_property
    def shuffled(self) -> dict[str, Option]:
        """{letter: option}, in an order that depends on the id alone."""
        seed = int.from_bytes(hashlib.sha256(self.id.encode()).digest()[:8], "big")
        order = random.Random(seed).sample(self.options, len(self.options))
        return dict(zip("abcdefgh", order, strict=False))

    @property
    def letter(self) -> str:
        """The letter under which the learner sees the correct option."""
        return next(letter for letter, option in self.shuffled.items() if option.correct)


@dataclass(frozen=True)
class Prediction:
    """A number to predict, as an 80 % interval, before it is measured.

    `log=True` for ratios and other positive quantities: there, twice too high and half too low weigh
    the same.
    """

    id: str
    prompt: str
    unit: str = ""
    log: bool = False
    workshop: bool = False

    def __post_init__(self) -> None:
        chapter_number(self.id)


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One chapter: `solutions/NN_slug.py` is its text, this is its table."""

    number: str
    slug: str
    title: str
    exercises: tuple[Exercise, ...]
    questions: tuple[Question, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    _by_id: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for item in (*self.exercises, *self.questions, *self.predictions):
            if chapter_number(item.id) != self.number:
                raise ValueError(f"{item.id} does not belong to chapter {self.number}")
            if item.id in self._by_id:
                raise ValueError(f"chapter {self.number} has two entries {item.id}")
            self._by_id[item.id] = item

    @property
    def name(self) -> str:
        """The stem of the chapter's files, "01_pruning"."""
        return f"{self.number}_{self.slug}"

    def find(self, id: str, kind: type) -> Any:
        """The exercise, question or prediction with this id.

        Raises:
            KeyError: the chapter has none; the message lists what it has.
        """
        item = self._by_id.get(id)
        if not isinstance(item, kind):
            known = ", ".join(key for key, value in self._by_id.items() if isinstance(value, kind))
            raise KeyError(f"chapter {self.number} has no {kind.__name__.lower()} {id!r}; it has {known}")
        return item
