"""Numbers that need seeds or long training: computed by one command, shipped as JSON, spot-checked by tests.

    python -m compresslab evidence 01            every entry of chapter 01
    python -m compresslab evidence 01 NAME ...   some of them

`compresslab.course.chapterNN.evidence` holds `ENTRIES = {name: function() -> JSON data}`. An entry is
small (one setting, one seed: under a minute), so that a test can recompute any one of them.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "evidence"


def load_evidence(number: str) -> dict[str, Any]:
    """{name: data} of one chapter's shipped evidence.

    Raises:
        FileNotFoundError: nothing was shipped for this chapter; says which command writes it.
    """
    return _read(str(number).zfill(2))["entries"]


def quick_entries(number: str, seconds: float) -> list[str]:
    """The shipped entries that took at most so long to compute: what a test can afford to compute again.

    Without those named in the module's `TIMED`: they hold milliseconds, which no other machine would give. And without
    those in its `TRAINED`: they were quick because entries before them had trained their networks.
    """
    left_out = {*getattr(_module(number), "TIMED", ()), *getattr(_module(number), "TRAINED", ())}
    return sorted(name for name, took in _read(number)["seconds"].items() if took <= seconds and name not in left_out)


def _read(number: str) -> dict[str, Any]:
    path = FOLDER / f"{number}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no evidence for chapter {number}: run `python -m compresslab evidence {number}`"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def entries(number: str) -> dict[str, Callable[[], Any]]:
    """The functions that compute the evidence of one chapter.

    Raises:
        ValueError: the chapter has none.
    """
    return _module(number).ENTRIES


def _module(number: str) -> ModuleType:
    module = f"compresslab.course.chapter{number}.evidence"
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise ValueError(f"chapter {number} has no evidence to compute") from None
        raise


def write_evidence(number: str, names: Iterable[str] = ()) -> Path:
    """Compute entries (all, or these) and store them; each is written as soon as it is known.

    Raises:
        ValueError: the chapter has no such entry.
    """
    functions = entries(number)
    names = list(names) or list(functions)
    if unknown := sorted(set(names) - set(functions)):
        raise ValueError(
            f"chapter {number} has no evidence {', '.join(unknown)}; it has {', '.join(functions)}"
        )
    path = FOLDER / f"{number}.json"
    for position, name in enumerate(names, 1):
        began = time.perf_counter()
        data = json.loads(json.dumps(functions[name](), allow_nan=False))
        took = time.perf_counter() - began
        document = _read(number) if path.exists() else {"entries": {}, "seconds": {}}
        document["entries"][name], document["seconds"][name] = data, round(took, 1)
        _write(path, number, {part: {key: document[part][key] for key in functions if key in document[part]}
                              for part in ("entries", "seconds")})
        print(f"[{position}/{len(names)}] {name}: {took:.1f} s", flush=True)
    return path


def _write(path: Path, number: str, parts: dict[str, dict[str, Any]]) -> None:
    import torch

    from compresslab.core.files import write_atomic

    document = {
        "command": f"python -m compresslab evidence {number}",
        "torch": torch.__version__.split("+")[0],
        "machine": platform.machine(),
        **parts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(document, indent=1) + "\n").encode("utf-8"))
