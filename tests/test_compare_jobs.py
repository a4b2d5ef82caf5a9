"""One job of the comparison: its name, its place in the plan, and a row that measures the file and nothing else."""

import json

import compare_toys as toys
import pytest
import torch
from compresslab.compare.jobs import Job, load_original, plan, run_job
from compresslab.compare.results import to_line, unpack_correct
from compresslab.core import (
    correct_answers, decompress, load, measure, named_layers, paired_difference, predict_labels, predict_logits,
)  # fmt: skip
from compresslab.core.macs import plain


def run(method, setting, folder, seed=0, methods=toys.METHODS, **options):
    return run_job(Job("tiny", method, setting, seed), folder, methods=methods, networks=toys.NETWORKS, **options)


# ---- names and plan ----------------------------------------------------------------------------------------


def test_a_key_is_a_path_of_four_parts_and_no_two_jobs_share_one():
    names = ("a", "a/b", "a b", "a_b", "a%2Fb", "2:4", "ä", "...", "prune>quantize")
    jobs = [Job(x, y, z, seed) for x in names for y in names for z in names for seed in (0, 1)]
    assert len({job.key for job in jobs}) == len(jobs)
    assert len({job.key.lower() for job in jobs}) == len(jobs)  # file systems that fold case
    assert all(len(job.key.split("/")) == 4 and not set(job.key) & set(' :\\*?"<>|') for job in jobs)


@pytest.mark.parametrize("names", [("", "m", "s"), ("n", ".", "s"), ("n", "m", ".."), ("n", "m", 4)])
def test_a_name_that_is_no_folder_is_refused(names):
    with pytest.raises(ValueError, match="of a job must be a name, got"):
        Job(*names, 0)


def test_a_seed_is_a_whole_number_from_zero():
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0, got -1"):
        Job("n", "m", "s", -1)


def test_dense_comes_first_and_once_and_seeds_are_outermost():
    jobs = plan(["tiny", "other"], toys.METHODS, 2)
    assert [job.key for job in jobs] == [
        "tiny/dense/float32/0", "other/dense/float32/0",
        "tiny/round/4/0", "tiny/round/2/0", "tiny/noise/0.1/0", "tiny/mask/0.5/0",
        "other/round/4/0", "other/round/2/0", "other/noise/0.1/0",  # mask suits tiny alone
        "tiny/round/4/1", "tiny/round/2/1", "tiny/noise/0.1/1", "tiny/mask/0.5/1",
        "other/round/4/1", "other/round/2/1", "other/noise/0.1/1",
    ]  # fmt: skip


def test_seeds_can_be_named():
    assert [job.seed for job in plan(["tiny"], {"noise": toys.METHODS["noise"]}, [3, 1])] == [3, 3, 1]


@pytest.mark.parametrize(("networks", "seeds"), [(["tiny", "tiny"], 1), (["tiny"], [0, 0])])
def test_a_job_that_is_planned_twice_is_named(networks, seeds):
    with pytest.raises(ValueError, match="the job 'tiny/.*' is planned twice"):
        plan(networks, toys.METHODS, seeds)


def test_no_seeds_are_refused():
    with pytest.raises(ValueError, match="at least one seed, got none"):
        plan(["tiny"], toys.METHODS, [])
    with pytest.raises(ValueError, match="seeds must be a whole number of at least 1, got 0"):
        plan(["tiny"], toys.METHODS, 0)


# ---- the row -----------------------------------------------------------------------------------------------


def test_the_row_agrees_with_the_ruler_of_the_course(tmp_path):
    row = run("round", "2", tmp_path)
    original = load_original("tiny", toys.NETWORKS)
    coded = toys.rounded("tiny", original.model, "2", None, 0)
    ruler = measure(coded, original.data.test, repeats=0, entropy=True)
    for name in ("accuracy", "n", "file_bytes", "weight_bits", "macs", "form"):
        assert row[name] == getattr(ruler, name), name
    dense = measure(original.model, original.data.test, repeats=0, entropy=True)
    assert row["ratio"] == pytest.approx(dense.file_bytes / ruler.file_bytes, rel=1e-5)
    assert (row["macs"], row["parameters"]) == (64 * 12 + 12 * 10, 64 * 12 + 12 + 12 * 10 + 10)
    layers = named_layers(decompress(coded)).values()
    nonzeros = [(array != 0).sum().item() for layer in layers for array in (layer.weight, layer.bias)]
    assert row["nonzeros"] == sum(nonzeros) < row["parameters"]


def test_what_is_said_of_the_answers_by_hand(tmp_path):
    row = run("round", "2", tmp_path)
    original = load_original("tiny", toys.NETWORKS)
    test, coded = original.data.test, plain(load(tmp_path / "files/tiny/round/2/0.safetensors"))
    before, after = predict_labels(original.model, test), predict_labels(coded, test)
    assert 0 < row["flips"] == pytest.approx((before != after).float().mean().item(), abs=1e-6)
    hits = [[sum(answer == label == c for answer, label in zip(answers.tolist(), test.y.tolist(), strict=True))
             for c in range(10)] for answers in (before, after)]  # fmt: skip
    images = [test.y.tolist().count(c) for c in range(10)]
    assert (row["correct"], row["class_images"]) == (hits[1], images)
    assert row["accuracy"] == sum(hits[1]) / len(test)
    worst = min((now - was) / n for was, now, n in zip(*hits, images, strict=True))
    assert row["worst_class_change"] == pytest.approx(worst, abs=1e-6)
    p, q = (predict_logits(model, test).double().log_softmax(1) for model in (original.model, coded))
    divergence = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean").item()
    assert row["kl"] == pytest.approx(divergence, rel=1e-5)
    assert 0 <= row["ece"] <= 1
    assert 0 < row["corrupted_accuracy"] < row["accuracy"]


def test_two_rows_can_be_compared_image_by_image(tmp_path):
    rows = [run("dense", "float32", tmp_path), run("round", "2", tmp_path)]
    test = load_original("tiny", toys.NETWORKS).data.test
    models = [load(tmp_path / f"files/{row['key']}.safetensors") for row in rows]
    expected = paired_difference(*(correct_answers(plain(model), test) for model in models))
    assert paired_difference(*map(unpack_correct, rows)) == expected
    assert expected.flips_ab > 0


def test_the_dense_row_is_where_all_ratios_start(tmp_path):
    row = run("dense", "float32", tmp_path)
    assert (row["family"], row["form"], row["ratio"], row["flips"]) == ("dense", "plain", 1.0, 0.0)
    assert (row["kl"], row["worst_class_change"]) == (0.0, 0.0)
    assert row["accuracy"] > 0.85
    assert (tmp_path / "files/tiny/dense/float32/0.safetensors").stat().st_size == row["file_bytes"]


def test_a_simulated_network_has_the_file_of_a_dense_one(tmp_path):
    row = run("mask", "0.5", tmp_path)
    assert row["form"] == "simulated"
    assert row["ratio"] == pytest.approx(1, abs=0.01)
    assert row["nonzeros"] < 0.6 * row["parameters"]


def test_a_row_goes_through_json_and_says_how_it_came_about(tmp_path):
    row = run("round", "4", tmp_path, threads=1)
    assert json.loads(to_line(row)) == row
    assert row["versions"]["torch"] == torch.__version__.split("+")[0]
    assert row["threads"] == 1
    assert row["latency_ms"] is row["speedup"] is None
    assert row["command"] == "python -m compresslab compare --networks tiny --methods round --seeds 1"


def test_no_job_leaves_a_trace_in_the_next(tmp_path):
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    first = run("noise", "0.1", tmp_path, threads=1)
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == threads
    second = run("noise", "0.1", tmp_path)
    other = run("noise", "0.1", tmp_path, seed=1)
    assert toys.lasting([first])[0] | {"threads": 0} == toys.lasting([second])[0] | {"threads": 0}
    assert first["kl"] != other["kl"]
    assert run("dense", "float32", tmp_path)["flips"] == 0  # the method changed its model in place


def test_names_that_nobody_knows(tmp_path):
    with pytest.raises(ValueError, match="there is no method 'magic'; choose one of dense, round, noise, mask"):
        run("magic", "1", tmp_path)
    with pytest.raises(ValueError, match="round has no setting '9'; choose one of 4, 2"):
        run("round", "9", tmp_path)
    with pytest.raises(ValueError, match="there is no network 'big'; choose one of tiny"):
        run_job(Job("big", "round", "4", 0), tmp_path, methods=toys.METHODS, networks=toys.NETWORKS)
    with pytest.raises(ValueError, match="there is no baseline 'big'"):
        run_job(Job("big", "round", "4", 0), tmp_path, methods=toys.METHODS)
