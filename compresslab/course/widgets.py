"""Controls over a pure function, and the same thing as a static figure.

`compute(*values)` is a plain, tested function that takes less than 100 ms; `draw(axes, data)` only draws.
The static figure is always shown, so that PDF, GitHub and a test see what the fingers see; the controls are
added where somebody can move them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from compresslab.course import mode

Compute = Callable[..., Any]
Draw = Callable[[Any, Any], None]


@dataclass(frozen=True)
class Slider:
    """A number that a slider moves: real, or whole if `low`, `high`, `step` and `start` are all `int`.

    Args:
        name: the label, with its unit.
        low, high: the ends, both included. step: the distance of two positions.
        start: the first value.
    Raises:
        ValueError: `start` is outside the range.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    step: float = 0.01
    start: float = 0.5

    def __post_init__(self) -> None:
        if not self.low <= self.start <= self.high:
            raise ValueError(f"{self.name}: start must be between {self.low:g} and {self.high:g}, got {self.start:g}")

    def say(self, value: float) -> str:
        """`bits = 4`."""
        return f"{self.name} = {value:g}"

    def control(self) -> Any:
        """The ipywidgets slider."""
        import ipywidgets

        whole = all(isinstance(number, int) for number in (self.low, self.high, self.step, self.start))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        return kind(value=self.start, min=self.low, max=self.high, step=self.step, description=self.name,
                    continuous_update=True, style={"description_width": "initial"}, layout={"width": f"{20 + len(self.name) / 2:g}em"})


@dataclass(frozen=True)
class Switch:
    """Yes or no. `on` and `off` are what the static figure calls them ("symmetric", "affine")."""

    on: str
    off: str
    start: bool = True

    def say(self, value: bool) -> str:
        """`symmetric`."""
        return self.on if value else self.off

    def control(self) -> Any:
        """The ipywidgets checkbox."""
        import ipywidgets

        return ipywidgets.Checkbox(value=self.start, description=self.on, indent=False)


Control = Slider | Switch


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
    """`controls` with one slider: `compute(value)`; `static` holds its values in the static figure.

    Args:
        compute: value -> data. Pure, under 100 ms.
        draw: `draw(axes, data)` draws on one Axes, or on a list of them if `panels` > 1.
        name, low, high, step, start: as in `Slider`; a slider made here always hands over a float.
        static: the values of the static figure, one row (or column) of panels each.
        panels: Axes per value, side by side.
    """
    one = Slider(name, float(low), high, step, start)
    controls(compute, draw, one, static=[(value,) for value in static], panels=panels)


def controls(
    compute: Compute, draw: Draw, *parts: Control, static: Sequence[Sequence[Any]], panels: int = 1, height: float = 2.8
) -> None:
    """Show the static figure and, in a live notebook, the controls above it.

    Args:
        compute: one value for each of the parts -> data. Pure, under 100 ms.
        draw: `draw(axes, data)` draws on one Axes, or on a list of them if `panels` > 1.
        parts: a `Slider` or `Switch` for each argument of `compute`, in their order.
        static: the settings of the static figure: one value for each part, one row (or column) of panels each.
        panels: Axes per setting, side by side. height: of one, in inches.
    """
    from IPython.display import display

    if not mode.static():
        display(live(compute, draw, *parts, panels=panels, height=height))
    figure = static_figure(compute, draw, *parts, settings=static, panels=panels, height=height)
    display(figure)
    plt.close(figure)


def static_figure(
    compute: Compute, draw: Draw, *parts: Control, settings: Sequence[Sequence[Any]], panels: int = 1, height: float = 2.8
) -> Figure:
    """The figure that stands in for the controls: one group of panels for each setting.

    Raises:
        ValueError: a setting has not one value for each part.
    """
    rows, columns = (1, len(settings)) if panels == 1 else (len(settings), panels)
    figure, grid = plt.subplots(rows, columns, figsize=(3.3 * columns, height * rows), squeeze=False)
    for index, values in enumerate(settings):
        axes = [grid[0][index]] if panels == 1 else list(grid[index])
        said = ", ".join(part.say(value) for part, value in zip(parts, values, strict=True))
        draw(axes[0] if panels == 1 else axes, compute(*values))
        title = axes[0].get_title()
        axes[0].set_title(said + (f"\n{title}" if title else ""))
    return figure


def live(compute: Compute, draw: Draw, *parts: Control, panels: int = 1, height: float = 2.8) -> Any:
    """The controls themselves: an ipywidgets box that redraws whenever one of them moves."""
    import ipywidgets
    from IPython.display import display

    handles = [part.control() for part in parts]
    screen = ipywidgets.Output()

    def redraw(change: dict[str, Any] | None = None) -> None:
        figure, grid = plt.subplots(1, panels, figsize=(3.6 * panels, height), squeeze=False)
        draw(grid[0][0] if panels == 1 else list(grid[0]), compute(*(handle.value for handle in handles)))
        with screen:
            screen.clear_output(wait=True)
            display(figure)
        plt.close(figure)

    for handle in handles:
        handle.observe(redraw, names="value")
    redraw()
    row = ipywidgets.HBox(handles, layout={"flex_flow": "row wrap"}) if len(handles) > 1 else handles[0]
    return ipywidgets.VBox([row, screen])
