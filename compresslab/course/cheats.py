"""Answers that look at the check instead of the task: every check must reject them.

For a function: one output for every input; right on the first shape only; nothing; zeros; its input.
For a value: nothing, nan, empty things, a number far off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.course.compare import same
from compresslab.course.exercise import Exercise
from compresslab.course.trial import Trial, observe

Function = Callable[..., Any]


def constant(reference: Function) -> Function:
    """Whatever was right for the first input."""
    memory: list[Any] = []

    def cheat(*args: Any, **kwargs: Any) -> Any:
        if not memory:
            memory.append(reference(*args, **kwargs))
        return memory[0]

    return cheat


def first_shape_only(reference: Function) -> Function:
    """Right for inputs like the first one, its old output for all others."""
    always = constant(reference)
    known: list[Any] = []

    def cheat(*args: Any, **kwargs: Any) -> Any:
        known.append(shapes((args, kwargs)))
        old = always(*args, **kwargs)
        return reference(*args, **kwargs) if known[-1] == known[0] else old

    return cheat


def nothing(*args: Any, **kwargs: Any) -> None:
    """A forgotten `return`."""


def its_input(first: Any = None, *args: Any, **kwargs: Any) -> Any:
    """The first input, as it came."""
    return first


def function_cheats(exercise: Exercise, reference: Function) -> dict[str, Function]:
    """{name: cheat}. The simple ones are left out where they happen to be right."""

    def zeros_like(*args: Any, **kwargs: Any) -> Any:
        return zeros(reference(*args, **kwargs))

    trial = Trial(exercise, reference)
    exercise.verify(trial)
    simple = {"returns nothing": nothing, "zeros": zeros_like, "returns its input": its_input}
    wrong = {
        name: cheat
        for name, cheat in simple.items()
        if not all(
            observe(cheat, call.use, call.args, call.kwargs, call.names).answered_like(call)
            for call in trial.calls
        )
    }
    return {
        "one output for every input": constant(reference),
        "right on the first shape only": first_shape_only(reference),
        **wrong,
    }


def value_cheats(exercise: Exercise) -> dict[str, Any]:
    """{name: value}."""
    values = {
        "nothing": None,
        "nan": math.nan,
        "an empty list": [],
        "an empty text": "",
        "a dict": {},
        "-1e6": -1e6,
        "a text": "I do not know",
    }
    return {name: value for name, value in values.items() if not same(value, exercise.answer)}


def shapes(value: Any) -> Any:
    """The shapes of all tensors and arrays; other values as they are."""
    if isinstance(value, Tensor | np.ndarray):
        return tuple(value.shape)
    if isinstance(value, nn.Module):
        return shapes(dict(value.state_dict()))
    if isinstance(value, tuple | list):
        return tuple(map(shapes, value))
    if isinstance(value, dict):
        return tuple((key, shapes(item)) for key, item in value.items())
    return repr(value) if isinstance(value, bool | int | float | str) else type(value).__name__


@torch.no_grad()
def zeros(value: Any) -> Any:
    """The same structure with every number zero."""
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    if isinstance(value, np.ndarray):
        return np.zeros_like(value) if value.dtype.kind in "biufc" else value
    if isinstance(value, nn.Module):
        for tensor in (*value.parameters(), *value.buffers()):
            tensor.zero_()
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(zeros, value))
    if isinstance(value, tuple | list):
        return type(value)(map(zeros, value))
    if isinstance(value, dict):
        return {key: zeros(item) for key, item in value.items()}
    return type(value)(0) if isinstance(value, bool | int | float) else value
