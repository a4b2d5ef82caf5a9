"""Running a comparison: several jobs at once, here or on a cluster, resumable, nothing lost.

    folder/results.jsonl        one row per job, appended the moment the job is done
    folder/files/KEY.safetensors    the compressed networks

Two passes. `compare` compresses and measures what no busy machine can change: bytes, answers, MACs. Jobs run
side by side there, so their clocks would be worth nothing. `time_results` then takes the stored files one by
one, in one process, and times each network interleaved with its original.

A job that raises becomes a row with an "error" and is tried again by the next run; a job that is done is
never done again. Only the process that called `compare` writes into the folder, so that workers on other
machines need no common disk.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compresslab.compare.jobs import Job, LoadNetwork, Methods, Row, load_original, run_job
from compresslab.compare.results import append_result, read_results, succeeded, to_line, write_results
from compresslab.core.errors import check_int
from compresslab.core.files import write_atomic
from compresslab.core.macs import plain
from compresslab.core.progress import progress_bar
from compresslab.core.store import load
from compresslab.core.timing import speedup, time_models

if TYPE_CHECKING:
    from distributed import Client

RESULTS = "results.jsonl"
CONNECT = "10s"  # how long a scheduler may take to answer
_ONE_AT_A_TIME = threading.Lock()  # torch's generator and number of threads belong to the process

Attempt = tuple[Row, bytes]  # a row, and the file it was measured on; no bytes where the job failed


def compare(
    jobs: Sequence[Job],
    folder: str | os.PathLike[str],
    *,
    n_jobs: int = 2,
    scheduler: str | Client | None = None,
    threads: int = 1,
    progress: bool = True,
    methods: Methods | None = None,
    networks: Mapping[str, LoadNetwork] | None = None,
) -> list[Row]:
    """Run the jobs that have not run yet.

    Args:
        jobs: as `plan` lists them.
        folder: of the comparison, made where it is missing; a run that was stopped goes on there.
        n_jobs: processes on this machine, >= 1; 1 stays in this process.
        scheduler: the address of a Dask scheduler such as "tcp://10.0.0.1:8786", or a Dask client: the jobs
            then run on its workers, as many at once as it has, and `n_jobs` is not used. A worker does one
            job at a time, so give it one thread.
        threads: of torch in each job. It is part of the result: another number adds floats in another order.
        progress: show a bar, and at the end what failed.
        methods, networks: as in `run_job`.
    Returns:
        one row per job, in the order of the jobs; a failed one has "error" instead of measurements.
    Raises:
        ValueError: n_jobs or threads below 1, a results file broken in the middle, or no scheduler at the
            address.
        ImportError: a scheduler, but no Dask; says what to install.
    """
    check_int("n_jobs", n_jobs, 1)
    check_int("threads", threads, 1)
    folder = Path(folder)
    done = {row["key"] for row in succeeded(read_results(folder / RESULTS))}
    todo = [job for job in jobs if job.key not in done]
    attempt = partial(_attempt, methods=methods, networks=networks, threads=threads)
    attempts = _run_here(attempt, todo, n_jobs) if scheduler is None else _run_on(scheduler, attempt, todo)
    bar = progress_bar(attempts, "comparing", total=len(todo), unit="job", show=progress)
    with closing(attempts), bar:
        for row, content in bar:
            _keep(folder, row, content)
            bar.set_postfix_str(row["key"])
    rows = {row["key"]: row for row in read_results(folder / RESULTS)}
    rows = [rows[job.key] for job in jobs]
    if progress and (failures := format_failures(rows)):
        print(failures)
    return rows


def format_failures(rows: Iterable[Row]) -> str:
    """The jobs that failed and why, one line each; nothing where none did."""
    failed = [row for row in rows if "error" in row]
    if not failed:
        return ""
    many = "1 job failed; the next run tries it again:" if len(failed) == 1 else (
        f"{len(failed)} jobs failed; the next run tries them again:")  # fmt: skip
    return "\n".join([many, *(f"  {row['key']}: {row['error']}" for row in failed)])


def _keep(folder: Path, row: Row, content: bytes) -> None:
    """First the file, then the row: a row in the results always has its file."""
    if content:
        path = file_of(folder, row)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    append_result(folder / RESULTS, row)


def file_of(folder: Path, row: Row) -> Path:
    """The stored network of a row."""
    return _job(row).file_in(folder)


def _job(row: Row) -> Job:
    return Job(row["network"], row["method"], row["setting"], row["seed"])


# ---- where the jobs run ------------------------------------------------------------------------------------


def _attempt(job: Job, methods: Methods | None, networks: Mapping | None, threads: int) -> Attempt:
    """Run one job in a folder of its own, whatever happens; also what the workers of a cluster run."""
    with _ONE_AT_A_TIME, tempfile.TemporaryDirectory() as folder:
        try:
            row = run_job(job, folder, methods=methods, networks=networks, threads=threads)
            to_line(row)  # a number that JSON cannot hold is this job's failure, not that of the whole run
            return row, job.file_in(Path(folder)).read_bytes()
        except Exception as error:  # any method can fail in any way; the other jobs go on
            return failed_row(job, error), b""


def failed_row(job: Job, error: BaseException) -> Row:
    """The row of a job that did not come through: its names, and what was raised."""
    first, *_ = [*str(error).splitlines(), ""]
    return {
        "key": job.key, "network": job.network, "method": job.method, "setting": job.setting, "seed": job.seed,
        "error": f"{type(error).__name__}: {first}",
    }  # fmt: skip


def _run_here(attempt: Callable[[Job], Attempt], jobs: Sequence[Job], n_jobs: int) -> Iterator[Attempt]:
    """The attempts in the order in which they end, on processes of this machine.

    A process that dies, for want of memory say, takes the others with it. What was left then starts again;
    where nothing came through in between, the first jobs, which were those at work, have failed.
    """
    if n_jobs == 1:
        yield from map(attempt, jobs)
        return
    from joblib import Parallel, delayed

    left = {job.key: job for job in jobs}
    while left:
        before = len(left)
        try:
            parallel = Parallel(n_jobs, return_as="generator_unordered", batch_size=1)
            for row, content in parallel(delayed(attempt)(job) for job in list(left.values())):
                del left[row["key"]]
                yield row, content
        except BrokenProcessPool as error:
            if len(left) == before:
                for job in list(left.values())[:n_jobs]:
                    del left[job.key]
                    yield failed_row(job, error), b""


def _run_on(
    scheduler: str | Client, attempt: Callable[[Job], Attempt], jobs: Sequence[Job]
) -> Iterator[Attempt]:
    """The attempts in the order in which they end, on the workers of a Dask cluster."""
    with _connected(scheduler) as client:
        from distributed import as_completed

        futures = {client.submit(attempt, job, pure=False): job for job in jobs}
        try:
            for future in as_completed(futures, loop=client.loop):
                error = future.exception()  # not the job's own, which is in its row: a worker that died, say
                yield future.result() if error is None else (failed_row(futures[future], error), b"")
        finally:
            client.cancel(list(futures))


@contextmanager
def _connected(scheduler: str | Client) -> Iterator[Client]:
    """A client of the scheduler, closed at the end if it was opened here."""
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ImportError("a scheduler needs Dask: run `python -m pip install distributed`") from error
    if isinstance(scheduler, Client):
        yield scheduler
        return
    try:
        client = Client(scheduler, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"there is no Dask scheduler at {scheduler!r}: {error}") from error
    with client:
        yield client


# ---- the second pass: the clock ----------------------------------------------------------------------------


def time_results(
    folder: str | os.PathLike[str],
    *,
    repeats: int = 30,
    batch: int = 1,
    threads: int = 2,
    again: bool = False,
    progress: bool = True,
    networks: Mapping[str, LoadNetwork] | None = None,
) -> list[Row]:
    """Time every stored network, decompressed, interleaved with its dense original, and add it to its row.

    Nothing else should run meanwhile. A row that has its latency is skipped, so this is resumable, too.

    Args:
        folder: of the comparison.
        repeats, batch, threads: of the clock: rounds, images per call, and torch's threads, each >= 1.
        again: time every row anew.
        progress: show a bar.
        networks: as in `run_job`.
    Returns:
        all rows. The timed ones have `latency_ms` and `dense_latency_ms` (medians), `speedup` with its 95 %
        interval `speedup_low` to `speedup_high`, above 1 is faster, `latency_threads` and `batch`.
    Raises:
        FileNotFoundError: no results there.
        ValueError: repeats, batch or threads below 1.
    """
    folder = Path(folder)
    clock = {"repeats": check_int("repeats", repeats, 1), "threads": check_int("threads", threads, 1)}
    check_int("batch", batch, 1)
    path = folder / RESULTS
    rows = read_results(path)
    if not rows:
        first = "run `python -m compresslab compare` first"
        raise FileNotFoundError(f"there are no results in {folder}: {first}")
    todo = [row for row in succeeded(rows) if again or row.get("latency_ms") is None]
    networks_in_order = list(dict.fromkeys(row["network"] for row in todo))
    todo.sort(key=lambda row: networks_in_order.index(row["network"]))  # one original after the other
    for row in progress_bar(todo, "timing", unit="network", show=progress):
        append_result(path, row | _timed(file_of(folder, row), row["network"], networks, batch, clock))
    rows = read_results(path)
    write_results(path, rows)  # without the lines that were only there until the clock had run
    return rows


def _timed(
    path: Path, network: str, networks: Mapping[str, LoadNetwork] | None, batch: int, clock: Mapping[str, Any]
) -> Row:
    original = load_original(network, networks)
    models = {"dense": original.model, "model": plain(load(path))}
    times = time_models(models, original.data.test.x(slice(batch)), **clock)
    faster = speedup(times["dense"], times["model"])
    measured = {
        "latency_ms": times["model"].median, "dense_latency_ms": times["dense"].median,
        "speedup": faster.ratio, "speedup_low": faster.low, "speedup_high": faster.high,
    }  # fmt: skip
    return {name: round(value, 5) for name, value in measured.items()} | {
        "latency_threads": clock["threads"], "batch": batch,
    }  # fmt: skip
