"""The file of results: cut at every byte, broken, doubled; and the tables that are made of it."""

import csv
import json
import math
import statistics

import pytest
import torch
from compresslab.compare.jobs import Job
from compresslab.compare import results
from compresslab.compare.results import (
    append_result, format_summary, pack_correct, read_results, shipped_results, summarize, tidy, to_line,
    unpack_correct, write_csv, write_results,
)  # fmt: skip
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

THREE = [{"key": "a/1", "accuracy": 0.5}, {"key": "b/2", "note": "größer"}, {"key": "c/3", "correct": [1, 2]}]


def row(method, seed, accuracy, family="pruning", network="lenet5", **more):
    return {"key": f"{network}/{method}/x/{seed}", "network": network, "family": family, "method": method, "setting": "x",
            "seed": seed, "accuracy": accuracy, "file_bytes": 1000, "ratio": 4.0, "flips": 0.01} | more  # fmt: skip


# ---- reading and appending ---------------------------------------------------------------------------------


def test_rows_come_back_in_order(tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    assert read_results(path) == []
    for one in THREE:
        append_result(path, one)
    assert read_results(path) == THREE
    assert path.read_bytes() == b"".join(map(to_line, THREE))


def test_a_file_cut_anywhere_keeps_its_whole_rows_and_goes_on(tmp_path, capsys):
    path, content = tmp_path / "results.jsonl", b"".join(map(to_line, THREE))
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = THREE[: sum(end - 1 <= cut for end in ends)]  # a row without its end of line is whole
        assert read_results(path) == whole, cut
        assert ("is cut in the middle" in capsys.readouterr().out) == (cut + 1 not in ends and cut not in [0, *ends]), cut
        append_result(path, {"key": "new"})
        assert read_results(path) == [*whole, {"key": "new"}], cut
        assert capsys.readouterr().out == "", cut


def test_the_note_says_which_line_and_what_happens(tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    path.write_bytes(to_line(THREE[0]) + b'{"key":"b/2","acc')
    read_results(path)
    assert capsys.readouterr().out == "results.jsonl: line 2 is cut in the middle; it is left out, and its job runs again\n"


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\xff\xfe", b'"text"', b"[1]"])
def test_a_torn_end_may_hold_anything(tmp_path, tail, capsys):
    path = tmp_path / "results.jsonl"
    path.write_bytes(to_line(THREE[0]) + tail)
    assert read_results(path) == THREE[:1]
    append_result(path, THREE[1])
    assert path.read_bytes() == b"".join(map(to_line, THREE[:2]))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [(b'{"key":"b/2","acc', "line 2 of .* is no JSON"), (b"\xff", "line 2 of .* is no JSON"),
     (b'{"accuracy":1}', 'line 2 of .* is no row of results: a row is a JSON object with a "key"'),
     (b"[1]", "line 2 of .* is no row"), (b'{"key":3}', "line 2 of .* is no row")],
)  # fmt: skip
def test_a_broken_line_in_the_middle_is_named(tmp_path, line, complaint):
    path = tmp_path / "results.jsonl"
    path.write_bytes(to_line(THREE[0]) + line + b"\n" + to_line(THREE[2]))
    with pytest.raises(ValueError, match=complaint):
        read_results(path)


def test_the_last_row_of_a_key_counts_and_stands_where_the_first_stood(tmp_path):
    path = tmp_path / "results.jsonl"
    for one in (*THREE, {"key": "a/1", "accuracy": 0.75}):
        append_result(path, one)
    assert read_results(path) == [{"key": "a/1", "accuracy": 0.75}, *THREE[1:]]


@pytest.mark.parametrize(
    ("bad", "error", "complaint"),
    [({"key": "d", "accuracy": math.nan}, ValueError, "row d: .*use None"), ({"key": "d", "x": torch.ones(1)}, TypeError, "JSON"),
     ({"accuracy": 1}, ValueError, 'a dictionary with a "key", got'), ([1], ValueError, "a dictionary")],
)  # fmt: skip
def test_a_row_that_json_cannot_hold_never_touches_the_file(tmp_path, bad, error, complaint):
    path = tmp_path / "results.jsonl"
    append_result(path, THREE[0])
    for write in (append_result, lambda path, one: write_results(path, [THREE[1], one])):
        with pytest.raises(error, match=complaint):
            write(path, bad)
        assert path.read_bytes() == to_line(THREE[0])


def test_a_disk_that_takes_half_a_row_is_an_error(tmp_path, capsys):
    resource = pytest.importorskip("resource")
    path = tmp_path / "results.jsonl"
    append_result(path, THREE[0])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, before[1]))
        with pytest.raises(OSError, match="took only a part of row b/2"):
            append_result(path, THREE[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_results(path) == THREE[:1]
    append_result(path, THREE[1])
    assert read_results(path) == THREE[:2]


def test_a_whole_file_is_replaced(tmp_path):
    path = tmp_path / "folder" / "results.jsonl"
    write_results(path, THREE)
    write_results(path, THREE[1:])
    assert read_results(path) == THREE[1:]
    assert [file.name for file in path.parent.iterdir()] == ["results.jsonl"]


# ---- the answers -------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_answers_come_back(right):
    packed = {"n": len(right), "answers": pack_correct(torch.tensor(right))}
    assert unpack_correct(json.loads(json.dumps(packed))).tolist() == right


def test_ten_thousand_answers_take_a_kilobyte_at_most():
    right = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) < 0.97
    assert len(pack_correct(right)) < 1_100


@pytest.mark.parametrize("change", [{"n": 20}, {"answers": "!"}, {"answers": "AAAA"}, {"answers": None}])
def test_answers_that_are_not_those_of_the_row(change):
    packed = {"key": "a", "n": 5, "answers": pack_correct(torch.ones(5, dtype=torch.bool))} | change
    packed = {key: value for key, value in packed.items() if value is not None}
    with pytest.raises(ValueError, match="row a does not say which images were right"):
        unpack_correct(packed)


# ---- tables ------------------------------------------------------------------------------------------------


def test_a_table_for_a_spreadsheet(tmp_path):
    rows = [row("a", 0, 0.9, correct=[9, 9], answers="xx", versions={"torch": "2.13"}, latency_ms=None), {"key": "b", "error": "no"},
            row("a", 1, 0.8, extra=3)]  # fmt: skip
    write_csv(rows, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [line["accuracy"] for line in read] == ["0.9", "0.8"]
    assert [line["extra"] for line in read] == ["", "3"]
    assert [line["version_torch"] for line in read] == ["2.13", ""]
    assert not {"correct", "answers", "versions"} & set(read[0])
    assert tidy([]) == []


def test_the_summary_is_a_mean_with_students_interval():
    accuracies = [0.91, 0.93, 0.98]
    rows = [row("dense", 0, 0.97, "dense"), {"key": "x", "error": "no"}]
    rows += [row("prune", seed, accuracy, speedup=2.0 + seed) for seed, accuracy in enumerate(accuracies)]
    dense, pruned = summarize(rows)
    low, high = stats.t.interval(0.95, 2, statistics.mean(accuracies), stats.sem(accuracies))
    assert (pruned["seeds"], pruned["accuracy"]) == (3, pytest.approx(statistics.mean(accuracies)))
    assert (pruned["accuracy_low"], pruned["accuracy_high"]) == (pytest.approx(low), pytest.approx(high))
    assert pruned["change"] == pytest.approx(statistics.mean(accuracies) - 0.97)
    assert pruned["speedup"] == 3.0
    assert (dense["seeds"], dense["change"], dense["accuracy_low"]) == (1, 0.0, None)


def test_interleaved_rows_are_grouped_by_all_four_names():
    rows = [row(method, seed, 0.9, network=network) for seed in (0, 1) for network in ("b", "a") for method in ("y", "x")]
    lines = summarize(rows)
    assert [(line["network"], line["method"], line["seeds"]) for line in lines] == [("b", "y", 2), ("b", "x", 2), ("a", "y", 2), ("a", "x", 2)]
    assert "change" not in lines[0]  # no dense row, nothing to subtract
    assert "speedup" not in lines[0]  # never timed


def test_the_printed_summary():
    rows = [row("dense", 0, 0.97, "dense", file_bytes=4000, ratio=1.0, flips=0.0), *(row("prune", seed, 0.96) for seed in (0, 1))]
    lines = format_summary(summarize(rows)).splitlines()
    assert [line.split()[0] for line in lines] == ["lenet5", "dense", "prune"]
    assert lines[2].split() == ["prune", "x", "2", "96.00%", "±0.00", "-1.00", "1.0", "kB", "4.0x", "1.00%"]
    assert format_summary([]) == ""


# ---- what ships --------------------------------------------------------------------------------------------


def test_missing_results_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "SHIPPED", tmp_path / "results.jsonl")
    with pytest.raises(FileNotFoundError, match="run `python -m compresslab compare --time`"):
        shipped_results()
    write_results(tmp_path / "results.jsonl", [THREE[0], {"key": "b", "error": "no"}])
    assert shipped_results() == THREE[:1]


@pytest.mark.skipif(not results.SHIPPED.exists(), reason="the comparison has not been computed")
def test_the_shipped_rows_are_whole_small_and_consistent():
    assert results.SHIPPED.stat().st_size < 1_000_000
    rows = read_results(results.SHIPPED)
    assert rows == shipped_results()
    dense = {one["network"]: one for one in rows if one["family"] == "dense"}
    for one in rows:
        assert one["key"] == Job(one["network"], one["method"], one["setting"], one["seed"]).key
        right = unpack_correct(one)
        assert sum(one["correct"]) == int(right.sum()) == round(one["accuracy"] * one["n"]), one["key"]
        assert one["ratio"] == pytest.approx(dense[one["network"]]["file_bytes"] / one["file_bytes"], rel=1e-4), one["key"]
        changed = int((right != unpack_correct(dense[one["network"]])).sum()) / one["n"]
        assert changed <= one["flips"] + 1e-6, one["key"]
