"""What has been published: a record of results, each with the place where its numbers were read.

The numbers stand here as they were printed: accuracies in per cent, ratios above 1 smaller or faster,
differences compressed minus baseline. They come from different networks, training recipes, baselines and years,
some of them contradict each other (`CONFLICTS`), and none was measured by this course. What was measured is in
`results`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RECORD = Path(__file__).resolve().parent / "published.csv"
FAMILIES = (
    "pruning", "quantization", "compact", "distillation", "lowrank", "sharing", "hybrid",
    "recurrent", "classical",
)  # fmt: skip
TOP1 = "top-1 accuracy in %"


@dataclass(frozen=True)
class Published:
    """One published result; None where a number or a name was not reported.

    Args:
        family: one of `FAMILIES`. method, paper, year: what, by whom, when.
        model, dataset: of the experiment; "a -> b" is a teacher and its student, "vs a" a comparison with a.
        compression: parameters or bytes of the original over those of the compressed network.
        speedup: multiply-accumulates, or time where the notes say so, of the original over the compressed.
        baseline, compressed, delta: in the unit of `metric`, and their difference as reported or computed.
        delta_top5: difference of the top-5 accuracies, in points.
        metric: `TOP1`, "perplexity" (smaller is better), or what else was measured, in words.
        notes: what the numbers alone would hide. source: where they were read.
        core: whether the row belongs to a short list of the field.
    """

    family: str
    method: str
    paper: str
    year: int
    model: str
    dataset: str | None
    compression: float | None
    speedup: float | None
    baseline: float | None
    compressed: float | None
    delta: float | None
    delta_top5: float | None
    metric: str
    notes: str
    source: str
    core: bool

    @property
    def name(self) -> str:
        """Method, model and year: what `CONFLICTS` calls the row by."""
        return f"{self.method} | {self.model} | {self.year}"

    @property
    def payload_only(self) -> bool:
        """Whether `compression` counts the compressed layers alone, without what was left as it is."""
        return "payload" in self.notes


NUMBERS = ("compression", "speedup", "baseline", "compressed", "delta", "delta_top5")


def published(path: Path = RECORD) -> list[Published]:
    """The record, in the order of the families.

    Args:
        path: another file of the same columns.
    Raises:
        ValueError: a line that does not fit the columns; names it.
    Example:
        >>> row = published()[0]
        >>> row.method, row.year, row.model, row.compression, row.speedup
        ('Magnitude pruning + retrain', 2015, 'AlexNet', 9.0, None)
    """
    return list(_read(path))


@cache
def _read(path: Path) -> tuple[Published, ...]:
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(Published.__dataclass_fields__)
        if reader.fieldnames != columns:
            wanted = ", ".join(columns)
            raise ValueError(f"{path.name} must have the columns {wanted}, got {reader.fieldnames}")
        return tuple(_row(cells, f"line {reader.line_num} of {path.name}") for cells in reader)


def _row(cells: dict[str, str | None], place: str) -> Published:
    if None in cells or None in cells.values():
        raise ValueError(f"{place} must have {len(Published.__dataclass_fields__)} cells")
    if cells["family"] not in FAMILIES:
        raise ValueError(f"{place}: family must be one of {', '.join(FAMILIES)}, got {cells['family']!r}")
    if cells["core"] not in ("0", "1"):
        raise ValueError(f"{place}: core must be 0 or 1, got {cells['core']!r}")
    try:
        numbers = {name: float(cells[name]) if cells[name] else None for name in NUMBERS}
        year = int(cells["year"])
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    typed = {"year": year, "dataset": cells["dataset"] or None, "core": cells["core"] == "1"}
    return Published(**cells | numbers | typed)


def sources(rows: Iterable[Published] | None = None) -> dict[str, int]:
    """The places that the numbers were read in, and how many rows come from each, most first.

    Args:
        rows: of the record; None is all of it.
    """
    counts: dict[str, int] = {}
    for row in published() if rows is None else rows:
        counts[row.source] = counts.get(row.source, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Conflict:
    """Numbers that do not go together: what is wrong, and the names of the rows."""

    what: str
    names: tuple[str, ...]

    def rows(self) -> list[Published]:
        """The rows themselves."""
        return [row for row in published() if row.name in self.names]


CONFLICTS = (
    Conflict(
        "The same paper, twice: 2.9 points lost in the version of 2016, nothing in that of 2020. Run again by "
        "the authors of DoReFa-Net it loses 2.9.",
        ("BWN (W1A32) | AlexNet | 2016", "BWN (W1A32) | AlexNet | 2020",
         "DoReFa W1A32G32 (BWN) | AlexNet (BN variant) | 2016"),
    ),
    Conflict(
        "Better than floats in its paper, worse than floats when others ran it again beside floats of their "
        "own: the baseline decides the sign.",
        ("TTQ | AlexNet | 2017", "TTQ (re-run in DoReFa code) | AlexNet (BN variant) | 2017"),
    ),
    Conflict(
        "More than four times smaller with 8 bits for 32: the float file holds an auxiliary head that the other "
        "lacks. Like with like it is about 3.93.",
        ("INT8 affine (torchvision) | Inception-v3 | 2023",),
    ),
    Conflict(
        "50 times fewer parameters as printed, 48.9 when counted; and more multiply-accumulates than AlexNet.",
        ("SqueezeNet | vs AlexNet | 2016", "SqueezeNet 1.0 | vs AlexNet (torchvision) | 2016"),
    ),
    Conflict(
        "148.70 M operations in the paper, 156.90 M in the authors' later correction, which is what stands here.",
        ("HRank | ResNet-110 | 2020",),
    ),
    Conflict(
        "200,000 times as printed; 528 numbers instead of 25088 x 4096 are 194,622 times.",
        ("Tensor-Train FC layer | VGG fc6 25088x4096 | 2015",),
    ),
    Conflict(
        "The first version of the abstract says 6.7 points, the second 7.8.",
        ("ShuffleNetV1 | vs MobileNet at 40 MFLOPs | 2018",),
    ),
    Conflict(
        "The first version of the abstract compares with two other kernels and reports 1.45 and 1.85 times, "
        "the later one 3 times over yet another.",
        ("AWQ 4-bit | Llama-2 family | 2024",),
    ),
)  # fmt: skip
