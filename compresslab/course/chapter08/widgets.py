"""The widget of chapter 08: pick a network, a cost, a family and a method, and see the front and its doubt. Tested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import NullFormatter

from compresslab.course import plots
from compresslab.course.chapter08.ordering import by_setting

ALL = "all"
COST_NAMES = {"bytes": "file_bytes", "MACs": "macs", "latency": "latency_ms"}
LABELS = {"file_bytes": "file size (bytes)", "macs": "multiply-accumulates per image", "latency_ms": "latency (ms)"}


@dataclass(frozen=True)
class Choice:
    """One of several words, picked from a list; a control for `widgets.controls`.

    Args:
        name: the label. options: the words. start: the first one.
    Raises:
        ValueError: `start` is not among the options.
    """

    name: str
    options: tuple[str, ...]
    start: str

    def __post_init__(self) -> None:
        if self.start not in self.options:
            raise ValueError(f"{self.name}: start must be one of {', '.join(self.options)}, got {self.start!r}")

    def say(self, value: str) -> str:
        """The word itself."""
        return value

    def control(self) -> Any:
        """The ipywidgets list."""
        import ipywidgets

        return ipywidgets.Dropdown(options=self.options, value=self.start, description=self.name, style={"description_width": "initial"})


@dataclass(frozen=True)
class Front:
    """One position of the controls.

    Attributes:
        cost: its name. lines: one dict per setting, as `by_setting` gives them, with `chosen`. front, band: indices into `lines`.
    """

    cost: str
    lines: Sequence[Mapping[str, Any]]
    front: Sequence[int]
    band: Sequence[int]


class FrontLook:
    """`look(network, cost, family, method)`: the points of one network, with the learner's own fronts.

    Args:
        rows: of the comparison.
        pareto_front, possible_front: the learner's functions (exercises 8.3 and 8.4).
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], pareto_front: Callable[..., Sequence[int]],
                 possible_front: Callable[..., Sequence[int]]) -> None:
        rows = list(rows)
        self.lines = {network: by_setting(rows, network) for network in dict.fromkeys(row["network"] for row in rows)}
        self.pareto_front, self.possible_front = pareto_front, possible_front

    def controls(self) -> tuple[Choice, ...]:
        """The four lists."""
        lines = [line for network in self.lines.values() for line in network]
        families = (ALL, *dict.fromkeys(line["family"] for line in lines))
        methods = (ALL, *dict.fromkeys(line["method"] for line in lines))
        first = "resnet8" if "resnet8" in self.lines else next(iter(self.lines))
        return (Choice("network", tuple(self.lines), first), Choice("cost", tuple(COST_NAMES), "bytes"), Choice("family", families, ALL),
                Choice("method", methods, ALL))

    def __call__(self, network: str, cost: str, family: str, method: str) -> Front:
        """The fronts are those of all methods, whatever is picked out; a setting without that cost is left out.

        Args:
            network: of the rows. cost: "bytes", "MACs" or "latency". family, method: a name, or "all".
        """
        cost = COST_NAMES[cost]
        lines = [{**line, "chosen": family in (ALL, line["family"]) and method in (ALL, line["method"])}
                 for line in self.lines[network] if line[cost] is not None]
        front = self.pareto_front([(line[cost], line["accuracy"]) for line in lines])
        band = self.possible_front([(line[cost], line["low"], line["high"]) for line in lines])
        return Front(cost, lines, list(front), list(band))


def draw_front(axes: Sequence[Any], data: Front) -> None:
    """Left all settings, the picked ones in their family's look, the band ringed, the front a line of steps; right the band by name."""
    left, right = axes
    for i, line in enumerate(data.lines):
        look = plots.family(line["family"]) if line["chosen"] else {"color": "#BBBBBB", "marker": "."}
        x, y = line[data.cost], 100 * line["accuracy"]
        left.errorbar(x, y, yerr=[[y - 100 * line["low"]], [100 * line["high"] - y]], markersize=6, elinewidth=0.8, **{**look, "linestyle": "none"})
        if i in data.band:
            left.plot(x, y, marker="o", markersize=12, fillstyle="none", color="black", markeredgewidth=0.8)
    best = sorted((data.lines[i][data.cost], 100 * data.lines[i]["accuracy"]) for i in data.front)
    left.step([x for x, _ in best], [y for _, y in best], where="post", color="black", linewidth=1.0)
    left.set(xscale="log", xlabel=LABELS[data.cost], ylabel="accuracy (%)")
    left.xaxis.set_minor_formatter(NullFormatter())
    if data.lines:
        top = 100 * max(line["high"] for line in data.lines)
        left.set_ylim(top - 16, top + 0.5)
    _draw_band(right, data)


def _draw_band(ax: Any, data: Front) -> None:
    """The settings that may be on the front, cheap ones below: interval and name."""
    band = sorted(data.band, key=lambda i: data.lines[i][data.cost])
    for place, i in enumerate(band):
        line = data.lines[i]
        look = plots.family(line["family"]) if line["chosen"] else {"color": "#BBBBBB", "marker": "."}
        y = 100 * line["accuracy"]
        ax.errorbar(y, place, xerr=[[y - 100 * line["low"]], [100 * line["high"] - y]], **{**look, "linestyle": "none"},
                    fillstyle="full" if i in data.front else "none")
    ax.set_yticks(range(len(band)), [f"{data.lines[i]['method']} {data.lines[i]['setting']}" for i in band], fontsize=7)
    ax.set(xlabel="accuracy (%)")
    ax.set_title(f"{len(band)} of {len(data.lines)} may be on the front;\nfilled: {len(data.front)} dots are", fontsize=9)
