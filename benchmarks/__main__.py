"""Run the benchmarks: `make bench`, or `python -m benchmarks`, which writes `benchmarks/RESULTS.md`.

    python -m benchmarks                       all, each in a process of its own, then the page
    python -m benchmarks --again NAME ...      some of them again, on the same kind of machine; the page keeps the others
    python -m benchmarks NAME [ARGUMENT ...]   one of them, here; what it finds is printed, nothing is written

Nothing here is a test: times differ from machine to machine and from hour to hour. Every ratio is one of things
that were run in turn in the same minute. A module that fails is told, and the others go on; the exit code is 1 then.
"""

from __future__ import annotations

import datetime
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import benchmarks
from benchmarks.report import Result, page, results_from_json, results_to_json, tables_from_json, tables_to_json
from compresslab.core.files import write_atomic

PAGE = Path(__file__).with_name("RESULTS.md")  # and beside it, as .json, the data that it was made from
JSON, AGAIN = "--json", "--again"
PATIENCE = 3  # times the budget, after which a module is stopped
APART = ("__main__", "report")  # no benchmarks


def names() -> list[str]:
    """The benchmarks of this folder, in alphabetical order."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in found if name not in APART and not name.startswith("_"))


def run_here(name: str, arguments: Sequence[str] = ()) -> list:
    """Import a benchmark, run it in this process and print its tables as text."""
    module = importlib.import_module(f"benchmarks.{name}")
    tables = module.run(arguments) if arguments else module.run()
    for table in tables:
        print(table, flush=True)
    return tables


def run_apart(name: str) -> Result:
    """`run_here` in a fresh process: clean threads, memory of its own, a failure that stops nothing else."""
    module = importlib.import_module(f"benchmarks.{name}")
    headline = inspect.getdoc(module).splitlines()[0]
    print(f"\n== {name}: {headline}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file, said = Path(folder, "tables.json"), Path(folder, "stderr")
        command = [sys.executable, "-m", "benchmarks", JSON, str(file), name]
        with said.open("wb") as errors:
            try:
                limit = PATIENCE * module.BUDGET
                code = subprocess.run(command, stderr=errors, timeout=limit, check=False, cwd=PAGE.parents[1]).returncode
                failure = "" if code == 0 else _last_line(said) or f"the process ended with code {code}"
            except subprocess.TimeoutExpired:
                failure = f"stopped after {limit:.0f} s"
        tables = [] if failure else tables_from_json(json.loads(file.read_text(encoding="utf-8")))
    if failure:
        print(f"failed: {failure}", flush=True)
    picture = f"{name}.svg" if not failure and PAGE.with_name(f"{name}.svg").exists() else ""
    day = datetime.date.today().isoformat()
    return Result(name, headline, module.BUDGET, time.monotonic() - start, day, tables, failure, picture)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0, or 1 where a benchmark failed, or 2 where there is none of that name."""
    if arguments[:1] == [JSON]:
        tables = run_here(arguments[2])
        write_atomic(Path(arguments[1]), json.dumps(tables_to_json(tables)).encode())
        return 0
    again = arguments[1:] if arguments[:1] == [AGAIN] else []
    unknown = [name for name in again or arguments[:1] if name not in names()]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    if arguments and not again:
        run_here(arguments[0], arguments[1:])
        return 0
    order = sorted(names(), key=lambda name: importlib.import_module(f"benchmarks.{name}").BUDGET)
    return measure_page([name for name in order if name in again] or order, order)


def measure_page(chosen: Sequence[str], order: Sequence[str]) -> int:
    """Run the chosen ones, the short ones first, and write the page after each: what is measured stays."""
    from compresslab.deploy.machine import describe_machine

    machine, data = describe_machine(), PAGE.with_suffix(".json")
    results = {}
    if len(chosen) < len(order) and data.exists():
        results = {result.name: result for result in results_from_json(json.loads(data.read_text(encoding="utf-8")))}
    for name in chosen:
        results[name] = run_apart(name)
        shown = [results[name] for name in order if name in results]
        write_atomic(data, (json.dumps(results_to_json(shown, machine), indent=1, ensure_ascii=False) + "\n").encode())
        write_atomic(PAGE, page(shown, machine, "make bench").encode())
    print(f"\nwritten: {PAGE.parent.name}/{PAGE.name}")
    return int(any(result.failure for result in results.values()))


def _last_line(file: Path) -> str:
    """What a failed process said last: the line of its exception."""
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
