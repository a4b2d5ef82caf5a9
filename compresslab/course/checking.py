"""`check`: to do, wrong or passed.

    NAME = check("1.2", NAME)

*To do*: the stub is still there; `check` says so and returns the reference, so that the rest of the
notebook works. *Wrong*: one line that names the mistake and the smallest failing input is raised in the
kernel's main thread, so that the cell fails. *Passed*: says what was verified, returns the answer.
"""

from __future__ import annotations

import dis
import functools
import inspect
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, Literal

from compresslab.course import mode, progress
from compresslab.course.chapters import load_chapter
from compresslab.course.compare import describe
from compresslab.course.exercise import (
    Chapter,
    Exercise,
    GivenFloat,
    GivenInt,
    GivenStr,
    Mistake,
    chapter_number,
)
from compresslab.course.guard import OutOfTime, fresh_settings, memory_limit, replaced, time_limit
from compresslab.course.trial import Call, ToDo, Trial, Wrong, diagnose

TRAINED_SHORTLY = "\nCOMPRESSLAB_QUICK is set, so the trainings of this notebook were short: start Jupyter without it for this task"
State = Literal["to do", "wrong", "passed"]

last_failure: dict[str, Call] = {}
"""The call on which each exercise last failed in this session: `hint` works it out."""


@dataclass(frozen=True)
class Verdict:
    """What a check found. `mistake` is the known mistake that explains a wrong answer, if one does."""

    state: State
    message: str
    mistake: Mistake | None = None
    call: Call | None = None


def check(id: str, answer: Any) -> Any:
    """Check the learner's answer to one exercise; see the module's first lines.

    Args:
        id: the exercise, "1.2".
        answer: the learner's function or value.
    Returns:
        the answer if it passed, the reference if it is still to do.
    Raises:
        Wrong: the answer is wrong.
        ToDo: the answer is still to do, in strict mode or under nbgrader.
    """
    chapter = load_chapter(chapter_number(id))
    exercise = chapter.find(id, Exercise)
    verdict = judge(exercise, answer, chapter)
    progress.record(
        "check",
        id,
        state=verdict.state,
        message=verdict.message.splitlines()[0],
        mistake=verdict.mistake.name if verdict.mistake else None,
    )
    if verdict.state == "wrong":
        if verdict.call is not None:
            last_failure[id] = verdict.call
        raise Wrong(verdict.message + (TRAINED_SHORTLY if exercise.value and mode.quick() else ""))
    last_failure.pop(id, None)
    if verdict.state == "passed":
        print(f"\N{CHECK MARK} {verdict.message}")
        return answer
    if mode.strict():
        raise ToDo(verdict.message)
    print(f"\N{WHITE CIRCLE} {verdict.message} The notebook goes on with the reference.")
    return exercise.answer


def judge(exercise: Exercise, answer: Any, chapter: Chapter | None = None, *, seed: int = 0) -> Verdict:
    """The verdict on one answer: `check` without recording, printing or raising.

    Args:
        chapter: its other exercises' names are bound to their references meanwhile.
        seed: seed of the trial's random inputs.
    """
    label = f"{exercise.id} {exercise.name}"
    if is_reference(exercise, answer):
        return Verdict("to do", f"{label} is still to do.")
    if not exercise.value and not callable(answer):
        return Verdict(
            "wrong", f"{label}: define a function (or class) of this name, this is {describe(answer)}"
        )
    if others := replaced():
        return Verdict(
            "wrong",
            f"{label}: {' and '.join(others[:3])} was replaced by something else in this notebook, so nothing can be checked; "
            "take that line out, restart the kernel and run the cells again",
        )
    trial = Trial(exercise, answer, seed)
    mistake = None
    with quiet() as printed, references_bound(exercise, answer, chapter), ExitStack() as limits:
        limits.enter_context(fresh_settings())
        if not exercise.value:
            limits.enter_context(memory_limit())
        problem = _problem(trial)
        others = replaced(put_back=True)
        if isinstance(problem, str) and not others:
            return Verdict("passed", f"{label} passed: {problem}")
        if any(is_stub(call.error, answer) for call in trial.calls):
            return Verdict("to do", f"{label} is still to do.")
        if others:
            problem = Wrong(f"your function replaced {' and '.join(others[:3])} for everything that runs after it")
        else:
            mistake = _in_time(exercise, lambda: diagnose(trial))
        message = _in_time(exercise, lambda: _explain(label, trial, problem, mistake, printed.getvalue()))
    return Verdict(
        "wrong", message or f"{label}: {problem}", mistake, trial.calls[-1] if trial.calls else None
    )


def _in_time(exercise: Exercise, work: Callable[[], Any]) -> Any:
    """What `work` returns, or None if a learner's function or object never comes to an end in it."""
    try:
        with nullcontext() if exercise.value else time_limit():
            return work()
    except OutOfTime:
        return None


def _problem(trial: Trial) -> str | Exception:
    """What `verify` says was verified, or what went wrong."""
    try:
        with nullcontext() if trial.exercise.value else time_limit():
            return trial.exercise.verify(trial)
    except Wrong as wrong:
        return wrong
    except OutOfTime as slow:  # not in the learner's function, but in what it returned
        return Wrong(f"the check did not come to an end within {slow}; what does your function return?")
    except Exception as error:  # verify tripped over an answer of an unexpected kind
        got = trial.value if trial.exercise.value else trial.calls[-1].output if trial.calls else None
        problem = Wrong(f"the check cannot use {describe(got)} ({describe(error)})")
        problem.__cause__ = error
        return problem


def _explain(label: str, trial: Trial, problem: Exception, mistake: Mistake | None, printed: str) -> str:
    message = f"{label}: {mistake.diagnosis if mistake else problem}"
    if trial.calls:
        call = trial.calls[-1]
        shown = call.describe_input()
        message += f". Smallest failing input: {shown}" if shown else ""
        if call.error is None:
            message += f"; your function returned {describe(call.output)}"
    elif mistake and trial.exercise.value:
        message += f". You gave {describe(trial.value)}"
    lines = [line[:500] for line in printed.strip().splitlines()]
    if lines:
        message += "\nYour function printed:\n" + "\n".join(lines[-10:])
    return message


# -- what the answer is ----------------------------------------------------------------------------


def is_reference(exercise: Exercise, answer: Any) -> bool:
    """Whether the answer is the placeholder `...`, the reference, or the library's own code."""
    if answer is ...:
        return True
    if exercise.value:
        given = vars(exercise).get("answer", ...)  # cached only after it was handed out
        return isinstance(answer, GivenInt | GivenFloat | GivenStr) or answer is given
    while isinstance(answer, functools.partial):
        answer = answer.func
    home = getattr(answer, "__module__", None) or ""
    return answer is exercise.reference or home.partition(".")[0] == "compresslab"


def is_stub(error: Exception | None, answer: Any) -> bool:
    """Whether this exception is the stub's own `raise NotImplementedError()`.

    PyTorch raises NotImplementedError too, for ill-typed calls (`float << 4`). So: exactly that type,
    the last frame is the learner's own code, and its instruction is a `raise`.
    """
    if type(error) is not NotImplementedError or error.__traceback__ is None:
        return False
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    operation = dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]]
    return operation == "RAISE_VARARGS" and last.tb_frame.f_globals is namespace(answer)


def namespace(answer: Any) -> dict[str, Any] | None:
    """The global names that the learner's function (or class) sees: the notebook's."""
    if isinstance(answer, functools.partial):
        return namespace(answer.func)
    if isinstance(answer, type):
        functions = (
            namespace(member) for member in vars(answer).values() if isinstance(member, FunctionType)
        )
        return next(functions, getattr(sys.modules.get(answer.__module__), "__dict__", None))
    if isinstance(answer, MethodType):
        return namespace(answer.__func__)
    if callable(answer):
        answer = inspect.unwrap(answer)
        return answer.__globals__ if isinstance(answer, FunctionType) else namespace(type(answer))
    return None


# -- the surroundings of a check ---------------------------------------------------------------------


@contextmanager
def references_bound(exercise: Exercise, answer: Any, chapter: Chapter | None) -> Iterator[None]:
    """Bind the names of the chapter's other functions to their references, and restore them.

    So a right answer that calls the learner's wrong, earlier function is not blamed for it.
    """
    names = namespace(answer) if chapter is not None and not exercise.value else None
    if names is None:
        yield
        return
    others: dict[str, Callable] = {
        other.name: other.reference
        for other in chapter.exercises
        if not other.value and other.name != exercise.name
    }
    saved = {name: names[name] for name in others if name in names}
    names.update(others)
    try:
        yield
    finally:
        for name in others:
            names.pop(name, None)
        names.update(saved)


class Tail(io.StringIO):
    """Text of which only the end is kept, so that a loop that prints does not fill the memory."""

    KEPT = 20_000

    def write(self, text: str) -> int:
        if self.tell() > 2 * self.KEPT:
            end = self.getvalue()[-self.KEPT :]
            self.seek(0)
            self.truncate()
            super().write(end)
        return super().write(text[-self.KEPT :])

    def close(self) -> None:
        """Stay open: a learner's `sys.stdout.close()` closes nothing of ours."""


@contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep everything off the screen, file descriptor 2 included; yields what Python code printed.

    nbgrader takes all points of a cell that writes anything to stderr.
    """
    printed = Tail()
    sys.stderr.flush()
    descriptor = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        with redirect_stdout(printed), redirect_stderr(Tail()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield printed
    finally:
        os.dup2(descriptor, 2)
        os.close(descriptor)
