"""What the README and the chapters say of the shipped measurements, held against the measurements."""

from statistics import mean

import pytest

from compresslab.course.evidence import load_evidence

ROWS = [row for row in load_evidence("01").values() if row.get("experiment") == "lenet300"]
SEEDS = {0, 1, 2}


def rows_of(method: str, sparsity: float) -> list[dict]:
    found = [row for row in ROWS if row["method"] == method and row["sparsity"] == sparsity]
    assert {row["seed"] for row in found} == SEEDS
    return found


def test_lenet_300_100_loses_nothing_at_twenty_times_fewer_weights_and_a_small_file():
    for row in rows_of("magnitude", 0.95):
        assert row["weights_ratio"] >= 13
        assert row["file_ratio"] >= 9
        assert row["loss_high"] <= 0.003  # the upper end of the 95 % interval of the paired loss, 50,000 images


@pytest.mark.parametrize("sparsity", [0.9, 0.95, 0.98])
def test_pruning_beats_a_random_mask_and_the_dense_network_of_the_same_bytes(sparsity):
    pruned = mean(row["accuracy"] for row in rows_of("magnitude", sparsity))
    for control in ("random mask", "small dense network"):
        assert pruned > mean(row["accuracy"] for row in rows_of(control, sparsity)) + 0.005


@pytest.mark.parametrize("sparsity", [0.9, 0.95, 0.98])
def test_the_dense_control_has_about_the_same_bytes(sparsity):
    pairs = zip(rows_of("magnitude", sparsity), rows_of("small dense network", sparsity), strict=True)
    for pruned, dense in pairs:
        assert dense["file_bytes"] == pytest.approx(pruned["file_bytes"], rel=0.1)
