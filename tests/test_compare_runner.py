"""Running the comparison: at once, resumed, killed, on a cluster, with methods that fail; then the clock."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import compare_toys as toys
import pytest
from compresslab.compare import command, runner
from compresslab.compare.jobs import Job, plan
from compresslab.compare.results import append_result, read_results, to_line, write_results
from compresslab.compare.runner import compare, format_failures, time_results

TESTS = Path(__file__).parent
JOBS = plan(["tiny"], toys.METHODS, 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A comparison that has run in this process, and its rows."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, compare(JOBS, folder, n_jobs=1, progress=False, methods=toys.METHODS, networks=toys.NETWORKS)


@pytest.fixture
def marks(tmp_path, monkeypatch):
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("COMPARE_MARKS", str(folder))
    return folder


def run(jobs, folder, methods=toys.METHODS, **options):
    options = {"n_jobs": 1, "progress": False, "networks": toys.NETWORKS} | options
    return compare(jobs, folder, methods=methods, **options)


def test_every_job_has_its_row_and_its_file(finished):
    folder, rows = finished
    assert [row["key"] for row in rows] == [job.key for job in JOBS]
    assert read_results(folder / "results.jsonl") == rows
    files = {path.relative_to(folder / "files").as_posix(): path.stat().st_size for path in folder.rglob("*.safetensors")}
    assert files == {f"{row['key']}.safetensors": row["file_bytes"] for row in rows}


def test_what_is_done_is_not_done_again_and_what_failed_is(tmp_path, marks, capsys):
    jobs = plan(["tiny"], toys.FAILING, 1)
    rows = run(jobs, tmp_path, toys.FAILING, progress=True)
    assert rows[-1] == {"key": "tiny/fail/1/0", "network": "tiny", "method": "fail", "setting": "1", "seed": 0,
                        "error": "RuntimeError: this method never works"}  # fmt: skip
    assert not any("error" in row for row in rows[:-1])
    assert "1 job failed; the next run tries it again:\n  tiny/fail/1/0: RuntimeError: this method" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert run(jobs, tmp_path, toys.FAILING) == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before
    assert (toys.marks(marks, "round"), toys.marks(marks, "fail")) == (2, 2)
    repaired = toys.FAILING | {"fail": toys.method("pruning", ("1",), toys.masked)}
    assert run(jobs, tmp_path, repaired)[-1]["accuracy"] < 0.5  # all weights masked: a row like any other
    assert len(read_results(tmp_path / "results.jsonl")) == len(jobs)


def test_a_row_that_json_cannot_hold_is_a_failed_job(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "run_job", lambda job, folder, **_: {"key": job.key, "kl": float("inf")})
    (row,) = run(JOBS[:1], tmp_path)
    assert row["error"].startswith("ValueError: row tiny/dense/float32/0")


def test_two_processes_find_what_one_finds(finished, tmp_path):
    rows = run(JOBS, tmp_path, n_jobs=2)
    assert toys.lasting(rows) == toys.lasting(finished[1])


@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs:UserWarning")
def test_a_process_that_dies_stops_nobody_but_those_beside_it():
    def attempt(job):  # light, so that the many processes of this test start at once
        if job.method == "die":
            os._exit(1)  # as a process does that the operating system takes away
        return {"key": job.key}, b"file"

    names = {"network": "n", "setting": "s", "seed": 0}
    jobs = [SimpleNamespace(key=str(i), method="die" if i == 4 else "live", **names) for i in range(8)]
    attempts = list(runner._run_here(attempt, jobs, 2))
    assert sorted(row["key"] for row, _ in attempts) == [job.key for job in jobs]
    failed = {row["key"]: row["error"] for row, content in attempts if not content}
    assert "4" in failed and len(failed) <= 2
    assert all(error.startswith("TerminatedWorkerError") for error in failed.values())


def test_a_cluster_of_two_workers_finds_the_same(finished, tmp_path):
    distributed = pytest.importorskip("distributed")
    # Two workers that talk over the network, as on two machines; as threads they start without importing torch again.
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "protocol": "tcp", "dashboard_address": "127.0.0.1:0"}
    jobs = [*JOBS, Job("tiny", "fail", "1", 0)]
    with distributed.LocalCluster(**options, memory_limit=None) as cluster:
        rows = run(jobs, tmp_path, toys.METHODS | toys.FAILING, scheduler=cluster.scheduler_address)
        with distributed.Client(cluster, set_as_default=False) as client:
            again = run(jobs, tmp_path, toys.METHODS | toys.FAILING, scheduler=client)
            assert client.status == "running"  # a client that was handed in stays open
    assert toys.lasting(rows[:-1]) == toys.lasting(finished[1])
    assert "this method never works" in rows[-1]["error"]
    assert again == rows
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(JOBS)


def test_a_cluster_without_dask_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match="a scheduler needs Dask: run `python -m pip install distributed`"):
        run(JOBS, tmp_path, scheduler="tcp://127.0.0.1:1")


def test_an_address_without_a_scheduler(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(runner, "CONNECT", "0.3s")
    with pytest.raises(ValueError, match="there is no Dask scheduler at 'tcp://127.0.0.1:1'"):
        run(JOBS, tmp_path, scheduler="tcp://127.0.0.1:1")


KILLED = """
import sys
import compare_toys as toys
from compresslab.compare.jobs import plan
from compresslab.compare.runner import compare
if __name__ == "__main__":
    compare(plan(["tiny"], toys.SLOW, 1), sys.argv[1], n_jobs=1, progress=False, methods=toys.SLOW, networks=toys.NETWORKS)
"""


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path, marks):
    path, jobs = tmp_path / "out" / "results.jsonl", plan(["tiny"], toys.SLOW, 1)
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "out"], env=os.environ | {"PYTHONPATH": str(TESTS)})
    try:
        while not path.exists() or path.read_bytes().count(b"\n") < 3:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = read_results(path)
    assert 3 <= len(before) < len(jobs)
    begun = toys.marks(marks)
    with open(path, "ab") as file:
        file.write(to_line(before[-1] | {"key": "tiny/slow/h/0"})[:60])  # the row that was being written
    rows = run(jobs, tmp_path / "out", toys.SLOW)
    assert rows[: len(before)] == before
    assert [row["key"] for row in rows] == [job.key for job in jobs]
    assert not any("error" in row for row in rows)
    assert toys.marks(marks) - begun == len(jobs) - len(before)


@pytest.mark.parametrize("options", [{"n_jobs": 0}, {"threads": 0}])
def test_numbers_out_of_range(tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be a whole number of at least 1, got 0"):
        run(JOBS, tmp_path, **options)


def test_a_broken_file_stops_the_run_before_it_begins(tmp_path, marks):
    (tmp_path / "results.jsonl").write_bytes(b"{\n")
    with pytest.raises(ValueError, match="line 1 of"):
        run(JOBS, tmp_path)
    assert toys.marks(marks) == 0


def test_failures_in_words():
    assert format_failures([{"key": "a"}]) == ""
    two = [{"key": "a", "error": "x"}, {"key": "b"}, {"key": "c", "error": "y"}]
    assert format_failures(two) == "2 jobs failed; the next run tries them again:\n  a: x\n  c: y"


# ---- the clock ---------------------------------------------------------------------------------------------


@pytest.fixture
def untimed(finished, tmp_path):
    """The finished comparison with a failed job, in a folder of its own."""
    (tmp_path / "files").symlink_to(finished[0] / "files")
    write_results(tmp_path / "results.jsonl", [*finished[1], {"key": "tiny/fail/1/0", "error": "no"}])
    return tmp_path


def clock(folder, **options):
    return time_results(folder, repeats=3, threads=1, progress=False, networks=toys.NETWORKS, **options)


def test_the_clock_fills_every_row_and_changes_nothing_else(untimed, finished):
    rows = clock(untimed)
    assert rows == read_results(untimed / "results.jsonl")
    assert rows[-1] == {"key": "tiny/fail/1/0", "error": "no"}
    for row, before in zip(rows[:-1], finished[1], strict=True):
        assert row["latency_ms"] > 0 and row["dense_latency_ms"] > 0
        assert row["speedup"] == pytest.approx(row["dense_latency_ms"] / row["latency_ms"], rel=0.02, abs=1e-3)
        assert 0 < row["speedup_low"] <= row["speedup_high"]
        assert (row["latency_threads"], row["batch"]) == (1, 1)
        timed = {*toys.CHANGING, "latency_threads", "batch"}
        assert {k: v for k, v in row.items() if k not in timed} == {k: v for k, v in before.items() if k not in timed}
    assert (untimed / "results.jsonl").read_bytes().count(b"\n") == len(rows)  # one line a row is left


def test_a_row_that_has_its_time_keeps_it_until_asked_again(untimed, monkeypatch):
    calls = []
    real = runner.time_models
    monkeypatch.setattr(runner, "time_models", lambda models, x, **o: calls.append(len(x)) or real(models, x, **o))
    first = clock(untimed)
    assert clock(untimed) == first
    assert calls == [1] * len(JOBS)
    clock(untimed, again=True, batch=2)
    assert calls[len(JOBS) :] == [2] * len(JOBS)


def test_a_clock_that_is_stopped_goes_on(untimed, monkeypatch):
    real, calls = runner.time_models, []

    def interrupted(models, x, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(models, x, **options)

    monkeypatch.setattr(runner, "time_models", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clock(untimed)
    done = [row for row in read_results(untimed / "results.jsonl") if row.get("latency_ms")]
    assert len(done) == 2
    rows = clock(untimed)
    assert [row for row in rows if row["key"] in {one["key"] for one in done}] == done
    assert len(calls) == 1 + len(JOBS)


def test_a_clock_without_results_or_out_of_range(tmp_path, untimed):
    with pytest.raises(FileNotFoundError, match="run `python -m compresslab compare` first"):
        time_results(tmp_path / "nowhere")
    for name in ("repeats", "batch", "threads"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got 0"):
            time_results(untimed, **{name: 0})


# ---- the command -------------------------------------------------------------------------------------------


def parse(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(list(map(str, words)))


def test_the_list_says_what_is_done(tmp_path, capsys):
    append_result(tmp_path / "results.jsonl", {"key": "lenet5/dense/float32/0"})
    append_result(tmp_path / "results.jsonl", {"key": "lenet300/dense/float32/0", "error": "no"})
    assert command.run(parse("--list", "--networks", "lenet5", "lenet300", "--methods", "rounding", "--seeds", 1, "--results", tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("rounding  quantization   8, 4, 3")
    assert lines[1] == f"on lenet5, lenet300: 8 jobs, 1 done, 7 left in {tmp_path}"


def test_the_command_runs_times_and_says_whether_all_came_through(tmp_path, monkeypatch, capsys, finished):
    asked = {}
    monkeypatch.setattr(runner, "compare", lambda jobs, folder, **options: asked.update(options, jobs=jobs) or finished[1])
    monkeypatch.setattr(runner, "time_results", lambda folder: [row | {"speedup": 2.0} for row in finished[1]])
    words = ("--networks", "lenet300", "--methods", "rounding", "lowrank", "--seeds", 2, "--results", tmp_path, "--jobs", 3)
    assert command.run(parse(*words, "--time", "--scheduler", "tcp://x:1"))
    assert {job.method for job in asked["jobs"]} == {"dense", "rounding", "svd", "response"}
    assert (asked["n_jobs"], asked["scheduler"]) == (3, "tcp://x:1")
    assert "5 of 5 jobs are in" in capsys.readouterr().out
    finished[1].append({"key": "x", "error": "no"})
    assert not command.run(parse(*words))
    assert "5 of 6 jobs are in" in capsys.readouterr().out
    finished[1].pop()


def test_the_public_networks_go_into_a_file_of_their_own(tmp_path, monkeypatch):
    from compresslab.compare import public

    calls = []
    monkeypatch.setattr(public, "public_table", lambda path, **options: calls.append((path, options)) or [])
    assert command.run(parse("--public", "--results", tmp_path, "--networks", "alexnet"))
    assert command.run(parse("--public", "--weights", "--images", tmp_path, "--results", tmp_path, "--networks", "alexnet"))
    assert calls == [(tmp_path / "public.jsonl", {"networks": ["alexnet"], "weights": False, "images": None}),
                     (tmp_path / "public-weights.jsonl", {"networks": ["alexnet"], "weights": True, "images": tmp_path})]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--networks", "alexnet"], "there is no network 'alexnet'; choose from lenet300"),
     (["--methods", "magic"], "there is no method or family 'magic'; choose from dense, pruning"),
     (["--seeds", "0"], "seeds must be a whole number of at least 1, got 0"),
     (["--weights"], "--weights and --images belong to --public"),
     (["--public", "--networks", "lenet5"], "there is no network 'lenet5'; choose from alexnet")],
)  # fmt: skip
def test_what_the_command_does_not_know(words, complaint):
    with pytest.raises(ValueError, match=complaint):
        command.run(parse(*words))


def test_dense_alone_asks_for_no_method():
    assert command.choose_methods(["dense"], toys.METHODS) == {}
    assert list(command.choose_methods(["quantization", "mask"], toys.METHODS)) == ["round", "mask"]
