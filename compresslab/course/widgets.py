"""A slider over a pure function, and the same thing as a static figure.

`compute(value)` is a plain, tested function that takes less than 100 ms; `draw(axes, data)` only draws.
The static figure is always shown, so that PDF, GitHub and a test see what the fingers see; the slider is
added where somebody can move it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from compresslab.course import mode

Compute = Callable[[float], Any]
Draw = Callable[[Any, Any], None]


def slider(
    compute: Compute,
    draw: Draw,
    *,
    name: str,
    low: float = 0.0,
    high: float = 1.0,
    step: float = 0.01,
    start: float = 0.5,
    static: Sequence[float],
    panels: int = 1,
) -> None:
    """Show the static figure and, in a live notebook, a slider above it.

    Args:
        compute: value -> data. Pure, under 100 ms.
        draw: `draw(axes, data)` draws on one Axes, or on a list of them if `panels` > 1.
        name: the label of the slider, with its unit.
        low, high, step, start: the slider's range and first value.
        static: the values of the static figure, one row (or column) of panels each.
        panels: Axes per value, side by side.
    """
    from IPython.display import display

    if not mode.static():
        display(live(compute, draw, name=name, low=low, high=high, step=step, start=start, panels=panels))
    figure = static_figure(compute, draw, name=name, values=static, panels=panels)
    display(figure)
    plt.close(figure)


def static_figure(
    compute: Compute, draw: Draw, *, name: str, values: Sequence[float], panels: int = 1
) -> Figure:
    """The figure that stands in for the slider: one group of panels for each value."""
    rows, columns = (1, len(values)) if panels == 1 else (len(values), panels)
    figure, grid = plt.subplots(rows, columns, figsize=(3.3 * columns, 2.7 * rows), squeeze=False)
    for index, value in enumerate(values):
        axes = [grid[0][index]] if panels == 1 else list(grid[index])
        draw(axes[0] if panels == 1 else axes, compute(value))
        title = axes[0].get_title()
        axes[0].set_title(f"{name} = {value:g}" + (f"\n{title}" if title else ""))
    return figure


def live(
    compute: Compute,
    draw: Draw,
    *,
    name: str,
    low: float,
    high: float,
    step: float,
    start: float,
    panels: int = 1,
) -> Any:
    """The slider itself: an ipywidgets box that redraws on every move.

    Raises:
        ValueError: `start` is outside the range.
    """
    import ipywidgets
    from IPython.display import display

    if not low <= start <= high:
        raise ValueError(f"start must be between {low} and {high}, got {start}")
    control = ipywidgets.FloatSlider(
        value=start,
        min=low,
        max=high,
        step=step,
        description=name,
        continuous_update=True,
        style={"description_width": "initial"},
    )
    screen = ipywidgets.Output()

    def redraw(change: dict[str, Any] | None = None) -> None:
        figure, grid = plt.subplots(1, panels, figsize=(3.6 * panels, 2.9), squeeze=False)
        draw(grid[0][0] if panels == 1 else list(grid[0]), compute(control.value))
        with screen:
            screen.clear_output(wait=True)
            display(figure)
        plt.close(figure)

    control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([control, screen])
