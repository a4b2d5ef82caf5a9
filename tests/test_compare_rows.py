"""The shipped table of the comparison: complete, paired, and any quick row of it comes out again."""

import datetime
import itertools

import pytest

from compresslab.compare.jobs import DENSE, plan, run_job
from compresslab.compare.methods import METHODS
from compresslab.compare.results import shipped_results, succeeded, unpack_correct

ROWS = shipped_results()
QUICK = 12  # seconds that a job may have taken for a test to do it again


def test_every_job_of_the_plan_is_there_once_and_came_through():
    networks = dict.fromkeys(row["network"] for row in ROWS)
    for network in networks:
        seeds = sorted({row["seed"] for row in ROWS if row["network"] == network})
        planned = {job.key for job in plan([network], METHODS, seeds)}
        assert planned == {row["key"] for row in ROWS if row["network"] == network}
    assert len(succeeded(ROWS)) == len(ROWS) == len({row["key"] for row in ROWS})
    assert len(networks) >= 3 and {row["family"] for row in ROWS} >= {method.family for method in METHODS.values()}


def test_rows_agree_with_themselves():
    for row in ROWS:
        correct = unpack_correct(row)
        assert len(correct) == row["n"] == sum(row["class_images"]) == 10_000
        assert int(correct.sum()) == sum(row["correct"]) == round(row["accuracy"] * row["n"])
        assert row["weight_bits"] > 0 and 8 * row["file_bytes"] > 0 and row["versions"] and row["machine"] and row["threads"]


def test_the_dense_rows_are_the_originals():
    for row in ROWS:
        if row["method"] == DENSE:
            assert row["flips"] == row["worst_class_change"] == 0 and row["kl"] == 0 and row["ratio"] == 1


def test_a_row_comes_out_again(tmp_path):
    """Another one every day. Adding floats in another order may flip a few answers of 10,000, and move a few bytes."""
    quick = [row for row in ROWS if row["seconds"] <= QUICK and row["network"].startswith("lenet") and row["method"] != DENSE]
    assert len(quick) > 20
    row = quick[datetime.date.today().toordinal() % len(quick)]
    job = next(job for job in plan([row["network"]], METHODS, [row["seed"]]) if job.key == row["key"])
    again = run_job(job, tmp_path, threads=row["threads"])
    assert again["accuracy"] == pytest.approx(row["accuracy"], abs=0.006), row["key"]
    assert again["file_bytes"] == pytest.approx(row["file_bytes"], rel=0.02), row["key"]
    assert (again["macs"], again["parameters"], again["form"]) == (row["macs"], row["parameters"], row["form"])


def test_seeds_differ_where_a_method_trains():
    trained = [row for row in ROWS if row["method"] == "magnitude"]
    for _, rows in itertools.groupby(trained, key=lambda row: (row["network"], row["setting"])):
        answers = [row["answers"] for row in rows]
        assert len(set(answers)) == len(answers)
