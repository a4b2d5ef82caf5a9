"""`hint` helps one rung at a time; `solution` shows the reference."""

from __future__ import annotations

import inspect

from compresslab.course import progress
from compresslab.course.chapters import find_exercise
from compresslab.course.checking import last_failure
from compresslab.course.compare import describe
from compresslab.course.exercise import Exercise
from compresslab.course.trial import observe

RUNGS = ("The idea", "The formula", "A skeleton")


def hint(id: str) -> None:
    """Print the hints so far and one more: the idea; the formula on your own failing input; a skeleton."""
    exercise = find_exercise(id)
    rung = min(len(progress.events("hint", id)) + 1, len(RUNGS))
    progress.record("hint", id, rung=rung)
    for number, title in enumerate(RUNGS[:rung]):
        print(f"{title}: {_text(exercise, number)}\n")
    print(
        f'Run hint("{id}") again for {RUNGS[rung].lower()}.'
        if rung < len(RUNGS)
        else f'That was the last hint; solution("{id}") shows the reference.'
    )


def _text(exercise: Exercise, number: int) -> str:
    call = last_failure.get(exercise.id)
    text = exercise.hints[number]
    text = text(call) if callable(text) else text
    if RUNGS[number] == "A skeleton":
        return "\n" + text
    return text + _worked(exercise) if RUNGS[number] == "The formula" else text


def _worked(exercise: Exercise) -> str:
    """The learner's own failing input, with both answers."""
    call = last_failure.get(exercise.id)
    if exercise.value:
        return ""
    if call is None:
        return "\n  (After a failed check this hint works out the very input on which your function failed.)"
    right = observe(exercise.reference, call.use, call.args, call.kwargs)
    lines = [
        f"on your failing input {call.describe_input()}"
        if call.describe_input()
        else "on your failing input",
        f"your function gave   {describe(call.error or call.output)}",
        f"the right answer is  {describe(right.error or right.output)}",
    ]
    if call.changed and not right.changed:
        lines.append(f"and your function changed its input {' and '.join(call.changed)}")
    return "".join(f"\n  {line}" for line in lines)


def solution(id: str) -> None:
    """Print the reference solution. Look after you tried: what you found yourself, you keep."""
    exercise = find_exercise(id)
    progress.record("solution", id)
    if callable(exercise.reference):
        print(inspect.getsource(exercise.reference))
    else:
        print(f"{exercise.name} = {exercise.reference!r}")
