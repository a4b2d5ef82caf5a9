"""The figures and tables of the second half of chapter 08. They only draw and print; every number comes in as an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from compresslab.compare.results import unpack_correct
from compresslab.core.statistics import paired_difference
from compresslab.course import plots
from compresslab.course.chapter08.figures import BLUE, GREY, ORANGE

Row = Mapping[str, Any]
LOOKS = ((BLUE, "o"), (ORANGE, "s"), ("#009E73", "^"), ("#CC79A7", "v"), (GREY, "D"))
HATCHES = ("", "///", "...")


# -- beyond accuracy ---------------------------------------------------------------------------------

def like_the_original(rows: Iterable[Row]) -> list[Row]:
    """The rows whose accuracy cannot be told from that of the dense network, image by image (95 %)."""
    rows = list(rows)
    dense = {row["network"]: unpack_correct(row) for row in rows if row["family"] == "dense"}
    return [row for row in rows if row["family"] != "dense" and row["network"] in dense
            and paired_difference(dense[row["network"]], unpack_correct(row)).verdict == "not distinguishable"]


def changes_by_family(rows: Iterable[Row], dense: Mapping[str, Row]) -> str:
    """One line for each family: medians of what else changed.

    Args:
        rows: of the comparison, such as those of `like_the_original`. dense: {network: its dense row}.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["family"], []).append(row)
    lines = [f"{'':13}{'rows':>5}{'accuracy':>11}{'answers':>11}{'worst class':>13}{'KL':>9}{'calibration':>13}{'on corrupted':>14}"]
    for family in (name for name in plots.FAMILIES if name in groups):
        own = groups[family]

        def middle(value: Callable[[Row, Row], float], own: list[Row] = own) -> float:
            return median(value(row, dense[row["network"]]) for row in own)

        lines.append(f"{family:13}{len(own):5}{100 * middle(lambda row, was: row['accuracy'] - was['accuracy']):+9.2f} p"
                     f"{100 * middle(lambda row, was: row['flips']):9.2f} %{100 * middle(lambda row, was: row['worst_class_change']):+11.2f} p"
                     f"{middle(lambda row, was: row['kl']):9.4f}{100 * middle(lambda row, was: row['ece'] - was['ece']):+11.2f} p"
                     f"{100 * middle(lambda row, was: row['corrupted_accuracy'] - was['corrupted_accuracy']):+12.2f} p")
    return "\n".join(lines)


def changed_against_lost(rows: Iterable[Row], dense: Mapping[str, Row], limit: float = 3.0) -> Figure:
    """Changed answers against lost accuracy, a dot for each row, both in points; on the grey line nothing was mended."""
    figure, ax = plt.subplots(figsize=(7.4, 4.0))
    families, gained = set(), 0.0
    for row in rows:
        lost, changed = 100 * (dense[row["network"]]["accuracy"] - row["accuracy"]), 100 * row["flips"]
        if row["family"] != "dense" and abs(lost) <= limit and changed <= 3 * limit:
            families.add(row["family"])
            gained = max(gained, -lost)
            look = {**plots.family(row["family"]), "linestyle": "none"}
            ax.plot(lost, changed, markersize=5, alpha=0.8, **look)
    ax.plot([-limit, 0, limit], [limit, 0, limit], color=GREY, linewidth=1)
    ax.text(0.75 * limit, 0.75 * limit, "no more than\nit must be", fontsize=8, color=GREY, va="top", ha="left")
    ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set(xlabel="accuracy lost against the dense network (points)", ylabel="answers changed (% of the images)", xlim=(-gained - 0.2, limit + 0.2), ylim=(0, None))
    handles = [Line2D([], [], label=name, **{**plots.family(name), "linestyle": "none"}) for name in plots.FAMILIES if name in families]
    if handles:
        figure.legend(handles=handles, fontsize=8, ncol=len(handles), loc="outside lower center")
    return figure


def classes(changes: Mapping[str, Mapping[int, float]]) -> Axes:
    """The change of each class's accuracy in points, a group of bars for each network."""
    _, ax = plt.subplots(figsize=(7.6, 2.9))
    width = 0.8 / len(changes)
    for place, (name, by_class) in enumerate(changes.items()):
        offset = (place - (len(changes) - 1) / 2) * width
        ax.bar([label + offset for label in by_class], [100 * change for change in by_class.values()], width,
               color=LOOKS[place][0], hatch=HATCHES[place % 3], edgecolor="black", linewidth=0.5, label=name)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel="class", ylabel="change (points)", xticks=sorted({label for by_class in changes.values() for label in by_class}))
    ax.legend(fontsize=8)
    return ax


def reliability(groups: Mapping[str, Sequence[Any]]) -> Figure:
    """Accuracy against confidence, a panel for each network; the size of a dot shows how many images it stands for.

    Args:
        groups: {name: bars with `confidence`, `accuracy` and `n`}, as `compare.beyond.reliability` gives them.
    """
    figure, axes = plt.subplots(1, len(groups), figsize=(3.0 * len(groups), 3.0), sharey=True, squeeze=False)
    for ax, (name, bars), (color, marker) in zip(axes[0], groups.items(), LOOKS):
        total = sum(bar.n for bar in bars)
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=1)
        ax.scatter([bar.confidence for bar in bars], [bar.accuracy for bar in bars], s=[12 + 400 * bar.n / total for bar in bars],
                   color=color, marker=marker, alpha=0.75)
        ax.set(xlim=(0, 1.05), ylim=(0, 1.05), xlabel="confidence", title=name)
    axes[0][0].set_ylabel("accuracy")
    return figure


# -- energy ------------------------------------------------------------------------------------------

def energy_bars(bills: Mapping[str, Mapping[str, float]]) -> Axes:
    """Stacked bars in microjoules: compute, weights, activations.

    Args:
        bills: {name: picojoules by part}.
    """
    _, ax = plt.subplots(figsize=(7.4, 0.7 + 0.36 * len(bills)))
    left = [0.0] * len(bills)
    for part, color, hatch in zip(("compute", "weights", "activations"), (ORANGE, BLUE, "#56B4E9"), HATCHES):
        values = [bill[part] / 1e6 for bill in bills.values()]
        ax.barh(list(bills), values, left=left, color=color, hatch=hatch, edgecolor="black", linewidth=0.5, label=part)
        left = [a + b for a, b in zip(left, values)]
    ax.invert_yaxis()
    ax.set(xlabel="energy of one image, by the model (microjoules)")
    ax.legend(fontsize=8)
    return ax


# -- break-even --------------------------------------------------------------------------------------

def uses_text(uses: float) -> str:
    """A number of uses to read: 12,345 or never."""
    return "never" if uses == float("inf") else f"{uses:,.0f}"


# -- public networks ---------------------------------------------------------------------------------

COLUMNS = (("file_bytes", 1e6, "file (MB)"), ("macs", 1e9, "GMACs"), ("latency_ms", 1.0, "latency (ms)"), ("peak_activation_bytes", 1e6, "activations (MB)"))


def public(rows: Sequence[Row]) -> Figure:
    """Four costs of the public networks, a panel each; a symbol for each form."""
    networks, forms = list(dict.fromkeys(row["network"] for row in rows)), list(dict.fromkeys(row["form"] for row in rows))
    figure, axes = plt.subplots(1, len(COLUMNS), figsize=(10.5, 0.9 + 0.34 * len(networks)), sharey=True)
    for ax, (column, unit, label) in zip(axes, COLUMNS):
        for form, (color, marker), size in zip(forms, LOOKS, (10, 8, 7, 5, 4)):
            own = [row for row in rows if row["form"] == form and row[column] is not None]
            ax.plot([row[column] / unit for row in own], [networks.index(row["network"]) for row in own], marker, color=color, markersize=size,
                    alpha=0.8, linestyle="none", label=form)
        ax.set(xscale="log", xlabel=label, yticks=range(len(networks)), yticklabels=networks, ylim=(len(networks) - 0.5, -0.5))
        ax.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncol=len(forms), loc="outside lower center")
    return figure


def public_table(rows: Iterable[Row]) -> str:
    """One line for each network and form; where a form is not possible, why."""
    lines = [f"{'':20}{'':16}{'parameters':>12}{'file MiB':>10}{'GMACs':>8}{'times faster':>14}{'activations MiB':>17}"]
    for row in rows:
        start = f"{row['network']:20}{row['form']:16}"
        if row["file_bytes"] is None:
            lines.append(start + "  " + row["note"])
            continue
        faster = f"{row['speedup']:.2f}" + (" (?)" if row["speedup_low"] <= 1 <= row["speedup_high"] else "    ") if row["speedup"] is not None else "-"
        lines.append(f"{start}{row['parameters']:12,}{row['file_bytes'] / 2**20:10.1f}{row['macs'] / 1e9:8.2f}{faster:>14}{row['peak_activation_bytes'] / 2**20:17.1f}")
    return "\n".join(lines)


# -- a comparison, repaired --------------------------------------------------------------------------

def harness_report(tables: Mapping[str, Mapping[str, Mapping[str, Any] | None]]) -> str:
    """Two comparisons side by side: the gain of each method in points."""
    methods = list(dict.fromkeys(method for table in tables.values() for method in table))
    lines = [f"{'':12}" + "".join(f"{name + ': gain':>22}{'file':>10}" for name in tables)]
    for method in methods:
        cells = ""
        for table in tables.values():
            row = table.get(method)
            gone = "failed" if method in table else "not in it"
            cells += f"{gone:>22}{'':10}" if row is None else f"{-100 * row['loss']:+15.2f} points{row['file_bytes']:10,.0f}"
        lines.append(f"{method:12}{cells}")
    return "\n".join(lines)
