"""A pipeline: steps applied one after the other, a measured row after each.

A step is any function from a model to a new model: `partial(prune_magnitude, sparsity=0.9)`, a fine-tuning,
`partial(encode, make_code=...)`. So Deep Compression is a list of three steps, and what each of them bought,
and what it cost, stands in the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from compresslab.core.measure import Measurement, measure

if TYPE_CHECKING:
    from compresslab.data import Split

Step = Callable[[nn.Module], nn.Module]


def pipeline(
    model: nn.Module, steps: Sequence[Step], split: Split, **measure_options: object
) -> tuple[nn.Module, list[Measurement]]:
    """Apply steps in order and measure the model before the first and after each.

    Args:
        model: the network to begin with; it is not changed, and it is the baseline of every latency.
        steps: functions model -> new model.
        split: the images every row is measured on. Validation images choose, test images report.
        measure_options: handed on to `measure`, such as `repeats=0` or `batch=8`.
    Returns:
        the last model, and len(steps) + 1 rows: "start", then one named after each step's function.
    Raises:
        TypeError: a step that is not callable, before anything runs, or one that returns no network.
    Example:
        >>> from compresslab.data import load_data
        >>> digits = load_data("digits").test
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> def halve(model):
        ...     return model.half().float()
        >>> _, rows = pipeline(network, [halve], digits, repeats=0)
        >>> [row.name for row in rows]
        ['start', 'halve']
    """
    for step in steps:
        if not callable(step):
            raise TypeError(f"a step is a function from a model to a new model, got {step!r}")
    current, rows = model, [measure(model, split, name="start", **measure_options)]
    for step in steps:
        name = step_name(step)
        current = step(current)
        if not isinstance(current, nn.Module):
            raise TypeError(f"step {name!r} must return a network, got {type(current).__name__}")
        rows.append(measure(current, split, baseline=model, name=name, **measure_options))
    return current, rows


def step_name(step: Step) -> str:
    """The name of a step's function, through any `functools.partial`; the class of other callables.

    Example:
        >>> step_name(partial(partial(max, 1), 2))
        'max'
    """
    while isinstance(step, partial):
        step = step.func
    return getattr(step, "__name__", type(step).__name__)
