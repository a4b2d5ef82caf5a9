"""What the README and the chapters say of the shipped measurements, held against the measurements."""

from functools import partial
from statistics import mean

import pytest

from compresslab.compact import CompactNet
from compresslab.compact.small import BLOCKS
from compresslab.core import UniformCode, count_macs, encode, mean_interval
from compresslab.core.measure import file_size
from compresslab.course.chapter10.evidence_trees import forest_rows
from compresslab.course.evidence import load_evidence
from compresslab.models import load_baseline

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


# -- chapter 02 ----------------------------------------------------------------------------------------------

QUANTIZED = [row for row in load_evidence("02").values() if row["experiment"] == "claims"]
NETWORKS = {"lenet300", "lenet5", "resnet8_narrow", "resnet8", "mobilenet", "vgg"}
MOST_LOST = {"8 bits": 0.001, "8 bits, activations too": 0.002, "4 bits, QAT": 0.005, "ternary, trained": 0.02}


@pytest.mark.parametrize("method", MOST_LOST)
def test_every_network_was_quantized_and_lost_no_more_than_said(method):
    """The upper end of the 95 % interval of the paired loss, 50,000 images, in every one of three seeds."""
    rows = [row for row in QUANTIZED if row["method"] == method]
    assert {row["network"] for row in rows} == NETWORKS
    for network in NETWORKS:
        found = [row for row in rows if row["network"] == network]
        untrained_and_slow = method.startswith("8 bits,") and network in ("mobilenet", "vgg")
        assert {row["seed"] for row in found} == ({0} if method == "8 bits" or untrained_and_slow else SEEDS)
        for row in found:
            assert row["loss_high"] <= MOST_LOST[method], row


def test_a_4_bit_file_of_the_vgg_like_network_is_seven_and_a_half_times_smaller():
    vgg = load_baseline("vgg")
    ratio = file_size(vgg) / file_size(encode(vgg, partial(UniformCode.from_dense, bits=4, axis=0)))
    assert ratio >= 7.5
    stored = {row["file_ratio"] for row in QUANTIZED if (row["network"], row["method"]) == ("vgg", "4 bits, QAT")}
    assert max(abs(ratio - other) for other in stored) < 0.02


def figure_rows(method: str, bits: int) -> list[float]:
    found = [row["accuracy"] for row in load_evidence("02").values()
             if row["experiment"] == "resnet8" and (row["method"], row["bits"]) == (method, bits)]
    assert found
    return found


def test_the_opening_figure_shows_the_collapse_and_its_cures():
    float32 = mean(figure_rows("float", 32))
    assert mean(figure_rows("per tensor", 8)) > float32 - 0.005
    assert mean(figure_rows("per channel", 2)) < 0.5
    assert mean(figure_rows("per channel", 4)) > mean(figure_rows("per tensor", 4))
    assert min(figure_rows("AdaRound", 3)) > mean(figure_rows("per channel", 3))
    assert min(figure_rows("QAT", 2)) > max(figure_rows("AdaRound", 2)) + 0.05


# -- chapter 03 ----------------------------------------------------------------------------------------------

COMPACT = list(load_evidence("03").values())


def test_every_block_keeps_the_same_budget_and_differs_in_what_it_buys():
    rows = [row for row in COMPACT if row["experiment"] == "blocks"]
    assert {(row["block"], row["seed"]) for row in rows} == {(block, seed) for block in BLOCKS for seed in (0, 1)}
    for row in rows:
        model = CompactNet(row["block"], row["width"])
        assert row["parameters"] == sum(p.numel() for p in model.parameters())
        assert 15_000 < row["parameters"] <= 20_000 and row["macs"] == count_macs(model, (3, 32, 32)).total
        assert row["accuracy"] > 0.85


def test_equal_parameters_and_operations_are_not_equal_time():
    for batch in (1, 64):
        (rows,) = (row["rows"] for row in COMPACT if row["experiment"] == "latency" and row["batch"] == batch)
        by_block = {row["block"]: row for row in rows}
        assert set(by_block) == set(BLOCKS)
        macs = [row["macs"] for row in rows]
        assert max(macs) < 1.7 * min(macs)
        slowest = max(rows, key=lambda row: row["milliseconds"])
        assert slowest["milliseconds"] > 2.5 * by_block["plain"]["milliseconds"]


# -- chapter 04 ----------------------------------------------------------------------------------------------

TAUGHT = list(load_evidence("04").values())


def gains(method: str, experiment: str = "transfer", **settings: int) -> list[float]:
    """Accuracy minus that of the student of the same seed that learned from labels alone."""
    def runs(name: str) -> dict[int, float]:
        return {row["seed"]: row["accuracy"] for row in TAUGHT if row["experiment"] == experiment
                and row["method"] == name and all(row[key] == value for key, value in settings.items())}

    alone, taught = runs("labels"), runs(method)
    assert taught and set(taught) <= set(alone)
    return [taught[seed] - alone[seed] for seed in sorted(taught)]


def test_soft_targets_gain_two_points_over_five_paired_seeds():
    found = gains("soft targets")
    mean_gain, low, _ = mean_interval(found)
    assert len(found) == 5 and mean_gain >= 0.02 and low > 0.01


def test_with_all_the_data_and_long_training_the_gain_all_but_vanishes():
    few, full = mean(gains("soft targets")), mean(gains("soft targets", "regime", images=20_000))
    assert full < few / 2 and abs(full) < 0.01


def test_stopped_early_plain_distillation_loses():
    _, _, high = mean_interval(found := gains("soft targets", "regime", images=4_000))
    assert len(found) == 5 and max(found) < 0 and high < 0


def test_controls_fall_short_of_the_teacher():
    taught = mean(gains("soft targets"))
    for control in ("label smoothing", "wrong teacher"):
        assert len(gains(control)) == 3 and mean(gains(control)) < taught - 0.005


# -- chapter 05 ----------------------------------------------------------------------------------------------

DECOMPOSED = list(load_evidence("05").values())


def test_half_the_operations_cost_no_more_than_half_a_point_after_fine_tuning():
    """The upper end of the 95 % interval of the paired loss, 50,000 images, in every one of three seeds."""
    tuned = [row for row in DECOMPOSED if row["experiment"] == "half" and row.get("tuned")]
    assert {row["seed"] for row in tuned} == SEEDS
    for row in tuned:
        assert row["macs_ratio"] <= 0.5 and row["loss_high"] <= 0.005


def test_half_the_operations_run_at_least_1_3_times_as_fast():
    rows = [row for row in DECOMPOSED if row["experiment"] == "speed"]
    assert {row["batch"] for row in rows} == {1, 16, 64}
    for row in rows:
        if row["batch"] > 1:
            assert row["speedup"] >= 1.3 and row["low"] > 1.2


def test_the_break_even_rank_of_the_clock_lies_below_that_of_the_formula():
    curves = [row["rows"] for row in DECOMPOSED if row["experiment"] == "break-even"]
    assert len(curves) == 4
    for rows in curves:
        assert rows[0]["macs_ratio"] == pytest.approx(1.0, abs=0.05)
        assert rows[0]["speedup"] < 1
    assert sum(rows[0]["high"] < 1 for rows in curves) >= 2  # as many operations, and slower beyond doubt
    (thin,) = (row["rows"] for row in DECOMPOSED if row["experiment"] == "break-even" and row["channels"] == 16)
    assert any(row["macs_ratio"] <= 0.5 and row["high"] < 1 for row in thin)  # half the operations, and still slower


def without_training(method: str, fraction: float) -> float:
    (row,) = [row for row in DECOMPOSED if row["experiment"] == "methods" and row["method"] == method
              and row["fraction"] == fraction and not row["tuned"]]
    return row["accuracy"]


def test_looking_at_the_responses_saves_much_of_what_the_closest_weights_lose():
    for fraction in (0.5, 0.25):
        assert without_training("response-aware", fraction) > without_training("SVD", fraction) + 0.05


def test_fine_tuning_helps_every_decomposition():
    tuned = [row for row in DECOMPOSED if row["experiment"] == "methods" and row["tuned"] and "dense" not in row["method"]]
    assert {row["seed"] for row in tuned} == {0, 1}
    for row in tuned:
        assert row["accuracy"] > without_training(row["method"], row["fraction"]) - 0.002, row


# -- chapter 06 ----------------------------------------------------------------------------------------------

SHARED = [row for row in load_evidence("06").values() if row["experiment"] == "sharers"]


def shared(method: str, setting: str = "") -> dict[int, dict]:
    found = {row["seed"]: row for row in SHARED if (row["method"], row["setting"]) == (method, setting)}
    assert set(found) == SEEDS
    return found


@pytest.mark.parametrize(("buckets", "width"), [(38416, 59), (9604, 22), (2401, 13)])
def test_a_hashed_network_beats_the_small_dense_one_and_not_the_large_one(buckets, width):
    hashed, small, large = shared("hashed", f"{buckets} buckets"), shared("small dense", f"{width} hidden units"), shared("dense")
    for seed in SEEDS:
        assert hashed[seed]["unique"] == pytest.approx(small[seed]["unique"], rel=0.1)
        assert small[seed]["accuracy"] < hashed[seed]["accuracy"] < large[seed]["accuracy"]
        assert hashed[seed]["macs"] == large[seed]["macs"] > 10 * small[seed]["macs"]  # virtual weights are not free


def test_one_learned_number_is_a_control_that_is_hard_to_beat():
    one, small = shared("hashed", "1 bucket"), shared("small dense", "10 hidden units")
    assert all(one[seed]["accuracy"] > small[seed]["accuracy"] - 0.01 for seed in SEEDS)


def test_circulant_blocks_of_16_match_the_dense_layer_with_a_sixteenth_of_its_weights():
    blocks, dense = shared("block-circulant", "blocks of 16"), shared("dense")
    assert all(blocks[seed]["accuracy"] > dense[seed]["accuracy"] - 0.005 for seed in SEEDS)


def test_the_fft_is_slower_for_small_layers_and_faster_for_large_ones():
    curves = {row["batch"]: row["rows"] for row in load_evidence("06").values() if row["experiment"] == "crossover"}
    assert set(curves) == {1, 64}
    for rows in curves.values():
        assert [row["n"] for row in rows] == [256, 512, 1024, 2048, 4096, 8192]
        assert rows[-1]["low"] > 1
    assert curves[1][0]["high"] < 1


# -- chapter 07 ----------------------------------------------------------------------------------------------

HYBRID = [row for entry in load_evidence("07").values() for row in (entry if isinstance(entry, list) else [entry])]
MUST_REACH = {"lenet300": (40, 0.002), "lenet5": (39, 0.002), "vgg": (40, 0.005)}  # times smaller, most that is lost
MOONSHOTS = {"lenet300": (100, 0.01), "lenet5": (100, 0.01)}


def hybrid_rows(**wanted) -> list[dict]:
    found = [row for row in HYBRID if all(row.get(key) == value for key, value in wanted.items())]
    assert found, wanted
    return found


@pytest.mark.parametrize("experiment, bars", [("deep compression", MUST_REACH), ("moonshot", MOONSHOTS)])
def test_the_coded_files_are_as_small_as_said_and_lose_no_more(experiment, bars):
    """The whole file, and the upper end of the 95 % interval of the paired loss on 50,000 images, in every run."""
    for network, (ratio, loss) in bars.items():
        for row in hybrid_rows(experiment=experiment, network=network, stage="coded"):
            assert row["ratio"] >= ratio and row["loss_high"] <= loss and row["images"] == 50_000, row


@pytest.mark.parametrize("network", ["lenet300", "lenet5", "resnet8", "vgg"])
def test_deep_compression_beats_the_dense_network_of_the_same_bytes(network):
    coded = hybrid_rows(experiment="deep compression", network=network, stage="coded")
    small = hybrid_rows(experiment="small dense", network=network)
    assert max(row["file_bytes"] for row in small) <= 1.02 * max(row["file_bytes"] for row in coded)
    assert min(row["accuracy"] for row in coded) > max(row["accuracy"] for row in small)


def test_each_stage_makes_the_file_smaller():
    for network in ("lenet300", "lenet5", "resnet8", "vgg"):
        rows = hybrid_rows(experiment="deep compression", network=network, seed=0)
        sizes = [row["file_bytes"] for row in rows]
        assert sizes == sorted(sizes, reverse=True) and rows[-1]["stage"] == "coded"


def test_all_orders_were_run_and_decomposing_last_costs_the_file():
    rows = hybrid_rows(experiment="order")
    orders = {tuple(row["order"]) for row in rows}
    assert len(orders) == 24 and all({row["seed"] for row in rows if tuple(row["order"]) == order} == SEEDS for order in orders)
    last = [row["file_bytes"] for row in rows if row["order"][-1] == "decompose"]
    first = [row["file_bytes"] for row in rows if row["order"][0] == "decompose"]
    assert min(last) > 3 * max(first)


def test_settings_for_every_layer_beat_one_for_all_under_the_same_budget():
    for budget in {row["budget_bytes"] for row in hybrid_rows(experiment="search")}:
        rows = {method: hybrid_rows(experiment="search", method=method, budget_bytes=budget) for method in ("uniform", "integer program", "evolution")}
        assert all(row["file_bytes"] <= budget for found in rows.values() for row in found)
        uniform = rows["uniform"][0]["accuracy"]
        assert min(row["accuracy"] for method in ("integer program", "evolution") for row in rows[method]) > uniform + 0.02


# -- chapter 09 ----------------------------------------------------------------------------------------------

SEQUENCE = load_evidence("09")


def test_the_gpt_at_four_bits_is_six_and_a_half_times_smaller_at_one_percent_more_bits():
    assert {row["model_seed"] for row in SEQUENCE["goal"]} == SEEDS
    for row in SEQUENCE["goal"]:
        assert row["ratio"] >= 6.5 and row["high"] <= 0.01


def test_the_lstm_is_eight_times_smaller_at_three_percent_more_bits():
    dense = SEQUENCE["lstm"][0]["file_bytes"]
    rows = [*SEQUENCE["lstm"], *SEQUENCE["lstm deep compression"]]
    assert sum(dense / row["file_bytes"] >= 8 and row["high"] <= 0.03 for row in rows) >= 2


@pytest.mark.parametrize("model_seed", sorted(SEEDS))
def test_gptq_beats_rounding_and_sparsegpt_beats_magnitude_and_wanda_on_every_network(model_seed):
    def worst_and_best(rows, **wanted):
        found = [row["relative"] for row in rows if wanted.items() <= row.items()]
        return max(found), min(found)

    rounding, pruning = SEQUENCE[f"rounding {model_seed}"], SEQUENCE[f"pruning {model_seed}"]
    for bits in (4, 3):
        assert worst_and_best(rounding, method="gptq", bits=bits)[0] < worst_and_best(rounding, method="rtn", bits=bits)[1]
    for pattern in ("0.50", "0.60", "0.70", "2:4"):
        sparsegpt, _ = worst_and_best(pruning, method="sparsegpt", pattern=pattern)
        for other in ("magnitude", "wanda"):
            assert sparsegpt < worst_and_best(pruning, method=other, pattern=pattern)[1]


# -- chapter 10 ----------------------------------------------------------------------------------------------


def smaller_and_sure(rows: list[dict], baseline: str) -> set[str]:
    """The models at a twentieth of the baseline's bytes whose loss is surely below a point; ten times five folds."""
    whole = next(row["bytes"] for row in rows if row["name"] == baseline)
    assert {row["trainings"] for row in rows} == {50}
    return {row["name"] for row in rows if whole / row["bytes"] >= 20 and row["high"] <= 0.01}


def test_a_forest_and_its_neighbours_fit_into_a_twentieth_at_no_more_than_a_point():
    classical = load_evidence("10")
    assert "network, 5 bits" in smaller_and_sure(forest_rows(classical), "forest of 100 trees")
    assert {"product codes", "ProtoNN, 16 x 80"} <= smaller_and_sure(classical["neighbours"], "1 nearest neighbour")


# -- chapter 11 ----------------------------------------------------------------------------------------------

DEPLOYED = {name: load_evidence("11")[f"int8 {name}"] for name in ("lenet5", "resnet8", "mobilenet", "vgg", "resnet18")}


def test_half_of_resnet18_in_int8_is_five_times_faster_than_eager_pytorch():
    rows = [row for row in DEPLOYED["resnet18"]["times"] if row["form"] == "pruned, int8"]
    assert {row["batch"] for row in rows} == {1, 8}
    assert all(row["gain_low"] >= 5 for row in rows)


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "mobilenet", "vgg"])
def test_pruned_int8_networks_lose_at_most_a_point(name):
    forms = {form["form"]: form for form in DEPLOYED[name]["forms"]}
    assert forms["int8"]["lost_high"] <= 0.003 and forms["pruned, int8"]["lost_high"] <= 0.01
    assert forms["pruned, int8"]["macs"] <= 0.51 * forms["float32"]["macs"]
    assert forms["float32"]["bytes"] > 2.5 * forms["int8"]["bytes"]
    assert DEPLOYED[name]["float32_difference"] <= 1e-4  # engine against PyTorch, 1,000 images


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "mobilenet", "vgg"])
def test_the_engine_computes_what_the_networks_compute(name):
    row = load_evidence("11")[f"faithful {name}"]
    assert row["n"] == 1000 and row["float_difference"] <= 1e-4 and row["steps"] <= 1.001
