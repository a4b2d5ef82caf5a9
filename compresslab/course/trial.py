"""A trial: one answer, put through one exercise's `verify`, with every call remembered.

`verify(t)` uses the learner's function through the trial only. So the trial knows all inputs and all
answers, and when a property fails it can ask of each known mistake: would you have answered the same?
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compresslab.course.compare import clone, describe, same
from compresslab.course.exercise import Exercise, Mistake, materialise
from compresslab.course.guard import OutOfTime, disturbed, settings

Use = Callable[..., Any]


class Wrong(Exception):
    """The answer is wrong. One line: the mistake and the smallest failing input."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: the message is all that helps here."""
        return [f"\N{BALLOT X} {self}"]


class ToDo(Exception):
    """The exercise still holds its stub."""

    def _render_traceback_(self) -> list[str]:
        return [f"\N{WHITE CIRCLE} {self}"]


@dataclass(frozen=True)
class Call:
    """One use of the learner's function: clean inputs, what came out, and which inputs and settings it changed."""

    use: Use
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None
    error: BaseException | None = None
    changed: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    disturbed: tuple[str, ...] = ()

    def describe_input(self) -> str:
        """`weight=tensor([1, 2]), sparsity=0.5`."""
        positional = [f"{name}={describe(arg)}" for name, arg in zip(self.names, self.args, strict=False)]
        positional += [describe(arg) for arg in self.args[len(self.names) :]]
        return ", ".join(positional + [f"{name}={describe(arg)}" for name, arg in self.kwargs.items()])

    def answered_like(self, other: Call) -> bool:
        """Same output or same kind of exception, and the same inputs and settings changed."""
        if (self.error is None) != (other.error is None) or (self.changed, self.disturbed) != (
            other.changed,
            other.disturbed,
        ):
            return False
        return same(self.error, other.error) if self.error else same(self.output, other.output)


def what_happened(error: BaseException) -> str:
    """What a learner's function did instead of returning: "raised ValueError: ..."."""
    if isinstance(error, OutOfTime):
        return f"did not come to an end within {error}; does one of your loops never stop?"
    if isinstance(error, SystemExit):
        return "called exit(), which would end the notebook; use `return`"
    if isinstance(error, RecursionError):
        return "calls itself without end (RecursionError)"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in describe(error):
        return "asked for more memory than a check may use; how large do your arrays become?"
    if isinstance(error, NameError):
        return f"raised {describe(error)}; run the cells above again, the imports first"
    return f"raised {describe(error)}"


def plain_use(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The ordinary use of a function: call it."""
    return function(*args, **kwargs)


def observe(
    function: Callable[..., Any], use: Use, args: tuple, kwargs: dict, names: tuple[str, ...] = ()
) -> Call:
    """Use `function` on clones of the inputs, with PyTorch's global seed fixed, and note what happened."""
    given_args, given_kwargs = clone((args, kwargs))
    output, error, before = None, None, settings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            output = use(function, *given_args, **given_kwargs)
        except KeyboardInterrupt:  # the stop button
            raise
        except BaseException as caught:  # exit() and the end of the time are none of `Exception`
            error = caught
    left = disturbed(before)
    labels = [names[i] if i < len(names) else f"input {i + 1}" for i in range(len(args))]
    changed = [
        label
        for label, now, before in zip(labels, given_args, args, strict=True)
        if not isinstance(before, torch.Generator) and not same(now, before, rtol=0, atol=0)
    ]
    changed += [
        key
        for key, before in kwargs.items()
        if not isinstance(before, torch.Generator) and not same(given_kwargs[key], before, rtol=0, atol=0)
    ]
    return Call(use, args, kwargs, output, error, tuple(changed), names, left)


class Trial:
    """What `verify(t)` gets.

    Attributes:
        function: the learner's function (do not call it directly: use `call`).
        value: the learner's value, in a value exercise.
        reference: the exercise's reference function, or its reference value.
        rng: a torch.Generator with a seed of its own.
    """

    def __init__(self, exercise: Exercise, answer: Any, seed: int = 0) -> None:
        self.exercise = exercise
        self.function = self.value = answer
        self.calls: list[Call] = []
        digest = hashlib.sha256(f"{exercise.id}/{seed}".encode()).digest()
        self.rng = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))

    @property
    def reference(self) -> Any:
        """The reference function, or the reference value."""
        return self.exercise.answer if self.exercise.value else self.exercise.reference

    # -- using the learner's function ------------------------------------------------------------

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The learner's answer on clones of these inputs.

        Raises:
            Wrong: the function raised an exception, or changed one of its inputs.
        """
        return self.use(plain_use, *args, **kwargs)

    def use(self, use: Use, *args: Any, may_change: bool = False, **kwargs: Any) -> Any:
        """`use(function, *args, **kwargs)` on clones, for anything but a plain call.

        For functions that work in place (`may_change=True`), that return functions, or that are
        called several times in a row. `use` returns all that matters; it must treat every function
        alike, because known mistakes are put through it too.
        """
        call = self._observe(use, args, kwargs)
        if call.error is not None:
            if not isinstance(call.error, Wrong):
                raise Wrong(f"your function {what_happened(call.error)}") from call.error
            raise call.error
        if call.disturbed:
            raise Wrong(
                f"your function changed {' and '.join(call.disturbed)} for everything that runs after it; "
                "set it back before you return, or use a `with` block"
            )
        if call.changed and not may_change:
            raise Wrong(f"your function changed its input {' and '.join(call.changed)}; work on a copy")
        return call.output

    def raises(self, kind: type[Exception], *args: Any, **kwargs: Any) -> Exception:
        """Expect that the learner's function refuses these inputs with this type of exception."""
        call = self._observe(plain_use, args, kwargs)
        if call.error is None:
            raise Wrong(f"your function must raise {kind.__name__} here")
        if not isinstance(call.error, kind):
            raise Wrong(
                f"your function {what_happened(call.error)}, but must raise {kind.__name__}"
            ) from call.error
        return call.error

    def _observe(self, use: Use, args: tuple, kwargs: dict) -> Call:
        names: tuple[str, ...] = ()
        if use is plain_use and callable(self.exercise.reference):
            names = tuple(inspect.signature(self.exercise.reference).parameters)[: len(args)]
        self.calls.append(observe(self.function, use, args, kwargs, names))
        return self.calls[-1]

    # -- expecting ---------------------------------------------------------------------------------

    def expect(self, condition: Any, message: str) -> None:
        """Go on if the condition holds (all elements of a tensor); else the answer is wrong.

        The input shown is that of the last call, so try small inputs first.
        """
        if not bool(condition.all() if isinstance(condition, Tensor) else condition):
            raise Wrong(message)

    def close(self, got: Any, wanted: Any, message: str, *, rtol: float = 1e-4, atol: float = 1e-6) -> None:
        """Expect equal numbers (tensors, nested lists, models), up to rounding."""
        if not same(got, wanted, rtol=rtol, atol=atol):
            raise Wrong(f"{message}: expected {describe(wanted)}, got {describe(got)}")

    def tensor(
        self, output: Any, shape: Sequence[int] | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Expect a tensor, of this shape and dtype if given."""
        if not isinstance(output, Tensor):
            raise Wrong(f"your function must return a tensor, it returned {describe(output)}")
        if shape is not None and tuple(output.shape) != tuple(shape):
            raise Wrong(f"the result must have shape {tuple(shape)}, yours has {tuple(output.shape)}")
        if dtype is not None and output.dtype != dtype:
            raise Wrong(f"the result must have dtype {dtype}, yours has {output.dtype}")
        return output

    def number(self, output: Any) -> float:
        """Expect one real number: a Python number or a tensor with one element."""
        try:
            return float(output)
        except (TypeError, ValueError, RuntimeError):
            raise Wrong(f"expected one number, got {describe(output)}") from None

    # -- drawing inputs ------------------------------------------------------------------------------

    def randn(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers from the trial's own generator."""
        return torch.randn(*shape, generator=self.rng).to(dtype)

    def integer(self, low: int, high: int) -> int:
        """A whole number, low <= n <= high."""
        return int(torch.randint(low, high + 1, (), generator=self.rng))

    def uniform(self, low: float, high: float) -> float:
        """A real number between low and high."""
        return low + (high - low) * float(torch.rand((), generator=self.rng))

    def integers(self, low: int, high: int, shape: Sequence[int]) -> Tensor:
        """A tensor of whole numbers, low <= n <= high: small ranges give ties."""
        return torch.randint(low, high + 1, tuple(shape), generator=self.rng)


GENERIC_MISTAKES = (
    Mistake(
        "returns nothing",
        lambda *args, **kwargs: None,
        "your function returns nothing; a `return` is missing",
    ),
    Mistake(
        "returns its input",
        lambda first=None, *args, **kwargs: first,
        "your function returns its input unchanged",
    ),
)


def diagnose(trial: Trial) -> Mistake | None:
    """The known mistake that would have answered every remembered call as the learner did.

    Several may agree on the few calls before the first failure. Then the one that agrees with the learner
    on most calls of a whole trial is the better explanation; of equals, the first listed.
    """
    if trial.exercise.value:
        return next((m for m in trial.exercise.mistakes if _recognises(m, trial.value)), None)
    for mistakes in (trial.exercise.mistakes, GENERIC_MISTAKES):
        matching = [m for m in mistakes if trial.calls and all(_agrees(m, call) for call in trial.calls)]
        if len(matching) > 1:
            calls = _whole_trial(trial)
            return max(matching, key=lambda m: sum(_agrees(m, call) for call in calls))
        if matching:
            return matching[0]
    return None


def _whole_trial(trial: Trial) -> list[Call]:
    """The learner's answers to every call that a right answer would meet."""
    right = Trial(trial.exercise, trial.exercise.reference)
    trial.exercise.verify(right)
    return [observe(trial.function, call.use, call.args, call.kwargs, call.names) for call in right.calls]


def _recognises(mistake: Mistake, value: Any) -> bool:
    try:
        return (
            bool(mistake.when(value)) if mistake.when is not None else same(materialise(mistake.wrong), value)
        )
    except Exception:  # a predicate that expects a number meets a list: not this mistake
        return False


def _agrees(mistake: Mistake, call: Call) -> bool:
    return observe(mistake.wrong, call.use, call.args, call.kwargs, call.names).answered_like(call)
