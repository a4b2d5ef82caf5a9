"""The results of a comparison: one tidy file, one row a line, that survives whatever happens to the run.

Every line is the JSON of one row, and a row has a "key" that no other experiment has. Rows are only ever
appended, whole: a run that is killed leaves at worst half of the last line, which the next reading drops and
the next run computes again. A row that is computed twice stands there twice, and the last one counts.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import os
import zlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compresslab.core.files import write_atomic
from compresslab.core.statistics import mean_interval

SHIPPED = Path(__file__).resolve().parent / "results.jsonl"
GROUP = ("network", "family", "method", "setting")
SUMMARISED = ("accuracy", "change", "file_bytes", "ratio", "macs", "flips", "kl", "seconds", "speedup")

Row = dict[str, Any]


def read_results(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a file, one per key.

    Args:
        path: a file of `append_result`; one that is not there has no rows.
    Returns:
        the rows in the order in which their keys first came; of several rows of one key the last.
    Raises:
        ValueError: a line in the middle that is no row; names the line. The last line may be cut: a note is
            printed, and its row is missing.
    """
    path = Path(path)
    content = path.read_bytes() if path.exists() else b""
    *lines, tail = content.split(b"\n")
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _parse(line, f"line {number} of {path}")
            rows[row["key"]] = row
    if tail.strip():
        try:
            row = _parse(tail, "the last line")
            rows[row["key"]] = row
        except ValueError:
            place = f"{path.name}: line {len(lines) + 1}"
            print(f"{place} is cut in the middle; it is left out, and its job runs again")
    return list(rows.values())


def _parse(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:  # neither JSON nor even text
        raise ValueError(f"{place} is no JSON: {error}; delete it, and its job runs again") from error
    if not isinstance(row, dict) or not isinstance(row.get("key"), str):
        raise ValueError(f'{place} is no row of results: a row is a JSON object with a "key"')
    return row


def append_result(path: str | os.PathLike[str], row: Row) -> None:
    """Add one row at the end of the file, in a single write that is on the disk when this returns.

    A last line that was cut is taken away first, so that the new row does not melt into it.

    Args:
        path: the file; it and its folder are made where they are missing.
        row: what JSON can hold, with a "key".
    Raises:
        TypeError, ValueError: a row that JSON cannot hold, such as one with a tensor or a nan, or one without
            a key; the file is as it was.
        OSError: the disk is full; the half of the row that is there is dropped by the next reading.
    """
    line, path = to_line(row), Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        line = _mend_(file) + line
        if file.write(line) != len(line):  # a full disk takes a part and says no more than how much
            raise OSError(f"{path} took only a part of row {row['key']}: is the disk full?")
        os.fsync(file.fileno())


def _mend_(file: Any) -> bytes:
    """Cut off what follows the last end of line, or return the end of line that a whole last row lacks."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if size == 0 or file.read(1) == b"\n":
        return b""
    file.seek(0)
    content = file.read()
    tail = content[content.rfind(b"\n") + 1 :]
    try:
        _parse(tail, "the last line")
    except ValueError:
        file.truncate(size - len(tail))
        return b""
    return b"\n"


def to_line(row: Row) -> bytes:
    """The line of a row, checked: what is written here can be read again.

    Example:
        >>> to_line({"key": "a/b", "accuracy": 0.5})
        b'{"key":"a/b","accuracy":0.5}\\n'
    """
    if not isinstance(row, dict) or not isinstance(row.get("key"), str):
        raise ValueError(f'a row of results is a dictionary with a "key", got {row!r}')
    try:
        return json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except ValueError as error:
        raise ValueError(f"row {row['key']}: {error}; JSON has no nan and no infinity, use None") from error


def write_results(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Replace the whole file by these rows; it holds the old rows or the new ones, never some of each."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, b"".join(map(to_line, rows)))


def shipped_results() -> list[Row]:
    """The comparison that ships with the course, without rows that failed.

    Raises:
        FileNotFoundError: it is not there; says which command computes it.
    """
    if not SHIPPED.exists():
        raise FileNotFoundError("no results are shipped: run `python -m compresslab compare --time`")
    return succeeded(read_results(SHIPPED))


def succeeded(rows: Iterable[Row]) -> list[Row]:
    """The rows without an "error".

    Example:
        >>> succeeded([{"key": "a", "accuracy": 0.9}, {"key": "b", "error": "ValueError: no"}])
        [{'key': 'a', 'accuracy': 0.9}]
    """
    return [row for row in rows if "error" not in row]


# ---- which images were right -------------------------------------------------------------------------------


def pack_correct(correct: Tensor) -> str:
    """Which images a network had right, as text: one bit each, compressed, in base64.

    A network that is right on 98 % of 10,000 images has an entropy of 0.14 bits per image, so this takes some
    hundred characters instead of 10,000.

    Args:
        correct: bool, (n,).
    Example:
        >>> unpack_correct({"n": 3, "answers": pack_correct(torch.tensor([True, False, True]))})
        tensor([ True, False,  True])
    """
    packed = np.packbits(correct.cpu().numpy()).tobytes()
    return base64.b64encode(zlib.compress(packed, 9)).decode("ascii")


def unpack_correct(row: Row) -> Tensor:
    """Which of the test images the network of a row had right: bool, (n,), for `paired_difference`.

    Raises:
        ValueError: the row has no answers, or not those of n images.
    """
    try:
        packed = np.frombuffer(zlib.decompress(base64.b64decode(row["answers"], validate=True)), np.uint8)
        if len(packed) != -(-row["n"] // 8):
            raise ValueError(f"{8 * len(packed)} bits for {row['n']} images")
    except (KeyError, ValueError, zlib.error) as error:
        raise ValueError(f"row {row.get('key', '')} does not say which images were right: {error}") from error
    return torch.from_numpy(np.unpackbits(packed, count=row["n"]).astype(bool))


# ---- tables ------------------------------------------------------------------------------------------------


def tidy(rows: Iterable[Row]) -> list[Row]:
    """The rows for a table: those that succeeded, all with the same columns, without lists and answers.

    `versions` becomes one column per package, and a column that a row lacks is None there.

    Example:
        >>> tidy([{"key": "a", "n": 3, "correct": [1, 2]}, {"key": "b", "versions": {"torch": "2.13"}}])
        [{'key': 'a', 'n': 3, 'version_torch': None}, {'key': 'b', 'n': None, 'version_torch': '2.13'}]
    """
    flat = []
    for row in succeeded(rows):
        versions = {f"version_{name}": version for name, version in row.get("versions", {}).items()}
        plain = {key: value for key, value in row.items() if not isinstance(value, (list, dict))}
        plain.pop("answers", None)
        flat.append(plain | versions)
    columns = list(dict.fromkeys(column for row in flat for column in row))
    return [{column: row.get(column) for column in columns} for row in flat]


def write_csv(rows: Iterable[Row], path: str | os.PathLike[str]) -> None:
    """Write the tidy rows as a table with commas, for a spreadsheet; None is an empty cell."""
    table = tidy(rows)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]) if table else ["key"])
        writer.writeheader()
        writer.writerows(table)


def summarize(rows: Iterable[Row], confidence: float = 0.95) -> list[Row]:
    """One line per network, method and setting: means over the seeds, and the interval that the seeds allow.

    `change` is the accuracy minus that of the network's dense row.

    Args:
        rows: as `read_results` gives them.
        confidence: of the intervals, in (0, 1).
    Returns:
        dictionaries with the names, `seeds` (how many), the mean of every number of `SUMMARISED` that all
        seeds have, and `accuracy_low`, `accuracy_high`: Student's interval over the seeds, None for a single
        one. It says where another seed might have come out, and not where other test images might.
    """
    rows = succeeded(rows)
    dense = {row["network"]: row["accuracy"] for row in rows if row["family"] == "dense"}
    rows = [
        row | {"change": row["accuracy"] - dense[row["network"]]} if row["network"] in dense else row for row in rows
    ]
    place = {name: number for number, name in enumerate(dict.fromkeys(_name(row) for row in rows))}
    groups = groupby(sorted(rows, key=lambda row: place[_name(row)]), _name)
    return [_summary(name, list(group), confidence) for name, group in groups]


def _name(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in GROUP)


def _summary(name: Sequence[str], rows: list[Row], confidence: float) -> Row:
    values = {column: [row.get(column) for row in rows] for column in SUMMARISED}
    means = {column: math.fsum(each) / len(rows) for column, each in values.items() if None not in each}
    low = high = None
    if len(rows) > 1:
        _, low, high = mean_interval(values["accuracy"], confidence)
    interval = {"accuracy_low": low, "accuracy_high": high}
    return dict(zip(GROUP, name, strict=True)) | {"seeds": len(rows)} | means | interval


def format_summary(summaries: Sequence[Row]) -> str:
    """The summary as a table of plain text, one block per network, the smallest files last."""
    lines = []
    for network in dict.fromkeys(row["network"] for row in summaries):
        lines.append([network, "setting", "seeds", "accuracy", "change", "file", "smaller", "flips"])
        block = [row for row in summaries if row["network"] == network]
        lines += [_cells(row) for row in sorted(block, key=lambda row: -row["file_bytes"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _cells(row: Row) -> list[str]:
    """One line of the printed summary; behind ± half of the interval over the seeds, in points."""
    low, high = row["accuracy_low"], row["accuracy_high"]
    return [
        f"  {row['method']}",
        row["setting"],
        str(row["seeds"]),
        f"{row['accuracy']:.2%}" + ("" if low is None else f" ±{50 * (high - low):.2f}"),
        f"{100 * row['change']:+.2f}" if "change" in row else "-",
        f"{row['file_bytes'] / 1e3:,.1f} kB",
        f"{row['ratio']:.1f}x",
        f"{row['flips']:.2%}",
    ]
