"""The checks, checked: known mistakes, cheats and right answers, judged as a learner's would be.

Known mistakes are executable, so they test the check that they diagnose: each one must be rejected, under
every seed, with its own diagnosis. Cheats must be rejected; the reference, rewritten by a learner, and
every alternative must pass; the reference as such must count as "to do".
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal

from compresslab.course.chapters import find_exercise
from compresslab.course.cheats import function_cheats, value_cheats
from compresslab.course.checking import Verdict, judge
from compresslab.course.compare import describe
from compresslab.course.exercise import Chapter, Exercise, GivenFloat, GivenInt, GivenStr, materialise

SEEDS = (0, 1, 2)
Group = Literal["mistake", "cheat", "right"]


@dataclass(frozen=True)
class Row:
    """One answer put through one check. `ok`: the check did right; else `detail` says what it did."""

    id: str
    group: Group
    answer: str
    ok: bool
    detail: str = ""


def kill_table(chapter: Chapter, seeds: tuple[int, ...] = SEEDS) -> list[Row]:
    """All answers to all exercises of a chapter."""
    return [row for exercise in chapter.exercises for row in try_exercise(exercise, chapter, seeds)]


def try_exercise(
    exercise: Exercise, chapter: Chapter, seeds: tuple[int, ...] = SEEDS, *, one_seed: bool = False
) -> list[Row]:
    """All answers to one exercise: its mistakes, the cheats, the right answers.

    Args:
        one_seed: judge each mistake under one of the seeds, the next mistake under the next: a third of the time.
    """
    return [
        *_mistakes(exercise, chapter, seeds, one_seed),
        *_cheats(exercise, chapter),
        *_right_answers(exercise, chapter, seeds),
    ]


def _mistakes(exercise: Exercise, chapter: Chapter, seeds: tuple[int, ...], one_seed: bool) -> Iterator[Row]:
    for number, mistake in enumerate(exercise.mistakes):
        try:
            answer = as_learner(exercise, mistake.wrong)
        except Exception as error:  # a value that cannot be computed
            yield Row(exercise.id, "mistake", mistake.name, False, describe(error))
            continue
        used = (seeds[number % len(seeds)],) if one_seed else seeds
        verdicts = (judge(exercise, answer, chapter, seed=seed) for seed in used)
        bad = next((v for v in verdicts if v.state != "wrong" or v.mistake is not mistake), None)
        yield Row(exercise.id, "mistake", mistake.name, bad is None, _complaint(bad))


def _complaint(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    named = f" (diagnosed as {verdict.mistake.name!r})" if verdict.mistake else ""
    return f"{verdict.state}{named}: {verdict.message}"


def _cheats(exercise: Exercise, chapter: Chapter) -> Iterator[Row]:
    try:
        if exercise.value:
            cheats = value_cheats(exercise)
        else:
            cheats = function_cheats(exercise, as_learner(exercise, exercise.reference))
    except Exception as error:  # the check rejects the reference, so it says nothing about cheats
        yield Row(exercise.id, "cheat", "all of them", False, describe(error))
        return
    for name, cheat in cheats.items():
        verdict = judge(exercise, cheat if exercise.value else learner_copy(cheat), chapter)
        yield Row(exercise.id, "cheat", name, verdict.state == "wrong", verdict.message)


def _right_answers(exercise: Exercise, chapter: Chapter, seeds: tuple[int, ...]) -> Iterator[Row]:
    right = {"the reference, written by a learner": exercise.reference}
    for number, alternative in enumerate(exercise.alternatives, 1):
        right[f"alternative {number}: {getattr(alternative, '__name__', 'value')}"] = alternative
    for name, answer in right.items():
        mine = as_learner(exercise, answer)
        verdicts = (judge(exercise, mine, chapter, seed=seed) for seed in seeds)
        bad = next((v for v in verdicts if v.state != "passed"), None)
        yield Row(exercise.id, "right", name, bad is None, _complaint(bad))
    untouched = judge(exercise, exercise.answer, chapter)
    yield Row(
        exercise.id, "right", "the reference as such is to do", untouched.state == "to do", untouched.message
    )


# -- answers in a learner's hands --------------------------------------------------------------------


def as_learner(exercise: Exercise, answer: Any) -> Any:
    """The same answer as if written in a notebook, not recognisable as the course's own."""
    if not exercise.value:
        return learner_copy(answer)
    value = exercise.answer if answer is exercise.reference else materialise(answer)
    plain = {GivenInt: int, GivenFloat: float, GivenStr: str}.get(type(value))
    return plain(value) if plain else copy.deepcopy(value)


def learner_copy(function: Any, names: dict[str, Any] | None = None) -> Any:
    """A function (or class) with the same code, with global names of its own, in the module `__main__`."""
    if isinstance(function, functools.partial):
        return functools.partial(learner_copy(function.func, names), *function.args, **function.keywords)
    if isinstance(function, type):
        names = {}
        members = {
            name: learner_copy(member, names)
            for name, member in vars(function).items()
            if isinstance(member, FunctionType)
        }
        return type(function)(function.__name__, (function,), {**members, "__module__": "__main__"})
    function = inspect.unwrap(function)
    names = {} if names is None else names
    names.update({**function.__globals__, **names, "__name__": "__main__"})
    mine = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    mine.__kwdefaults__, mine.__module__, mine.__doc__ = function.__kwdefaults__, "__main__", function.__doc__
    return mine


def mistake_for_notebook(id: str, index: int = 0) -> Any:
    """A known mistake as a learner's answer, for the test that puts one into an untouched notebook."""
    exercise = find_exercise(id)
    return as_learner(exercise, exercise.mistakes[index].wrong)


# -- the table -----------------------------------------------------------------------------------------


def render(rows: list[Row], chapter: Chapter) -> str:
    """Per exercise its mistakes and how many were killed; below, what the checks got wrong."""
    lines = [
        f"{'exercise':40}{'mistakes':>9}{'killed':>7}{'cheats':>8}{'killed':>7}{'right':>7}{'passed':>7}"
    ]
    for exercise in chapter.exercises:
        lines.append(
            f"{(exercise.id + ' ' + exercise.name)[:39]:40}"
            + _counts([r for r in rows if r.id == exercise.id])
        )
    lines.append(f"{f'chapter {chapter.number}: {len(chapter.exercises)} exercises':40}" + _counts(rows))
    lines += [f"NOT SO: {row.id} {row.group} {row.answer!r}: {row.detail}" for row in rows if not row.ok]
    return "\n".join(lines)


def _counts(rows: list[Row]) -> str:
    cells = []
    for group, widths in (("mistake", (9, 7)), ("cheat", (8, 7)), ("right", (7, 7))):
        own = [row for row in rows if row.group == group]
        cells += [f"{len(own):>{widths[0]}}", f"{sum(row.ok for row in own):>{widths[1]}}"]
    return "".join(cells)
