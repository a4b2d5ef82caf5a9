"""Chapter 08, first half: what its widget computes, what its tables say, and its answers against the library."""

import matplotlib.pyplot as plt
import pytest
import torch

from compresslab.compare import pareto
from compresslab.compare.published import CONFLICTS, published
from compresslab.core.statistics import mean_interval, proportion_interval
from compresslab.course.chapter08 import figures, ordering, record
from compresslab.course.chapter08 import references_record as references
from compresslab.course.chapter08.widgets import Choice, FrontLook, draw_front


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def row(network: str, family: str, method: str, seed: int, accuracy: float, size: float, **more) -> dict:
    return {"network": network, "family": family, "method": method, "setting": "1", "seed": seed, "accuracy": accuracy, "n": 1000, "file_bytes": size,
            "ratio": 1000 / size, "macs": 10 * size, "latency_ms": None, **more}


ROWS = [row("a", "dense", "dense", 0, 0.9, 1000), row("b", "dense", "dense", 0, 0.8, 1000)]
ROWS += [row("a", "pruning", "magnitude", seed, 0.895 + 0.001 * seed, 100) for seed in range(3)]
ROWS += [row("a", "pruning", "random", seed, 0.6, 50) for seed in range(3)]
ROWS += [row("b", "pruning", "magnitude", seed, 0.7, 100) for seed in range(3)]


# -- the table ---------------------------------------------------------------------------------------


def test_a_setting_is_the_mean_of_its_seeds_in_the_envelope_of_their_intervals():
    lines = ordering.by_setting(ROWS, "a")
    assert [line["method"] for line in lines] == ["dense", "magnitude", "random"]
    line = lines[1]
    assert line["accuracy"] == pytest.approx(0.896)
    assert line["low"] == proportion_interval(895, 1000)[0] and line["high"] == proportion_interval(897, 1000)[1]
    assert line["latency_ms"] is None and line["macs"] == 1000


def test_a_family_is_as_small_as_its_smallest_file_that_loses_little():
    ratios = ordering.best_ratios(ROWS, "pruning")
    assert {ratios["a", seed] for seed in range(3)} == {10.0}  # the file of 50 bytes lost 30 points
    assert {ratios["b", seed] for seed in range(3)} == {1.0}  # nothing was good enough: the dense network stays


def test_methods_are_compared_seed_by_seed_where_a_network_has_both():
    found = ordering.side_by_side(ROWS, ("magnitude", "1"), ("random", "1"))
    assert list(found) == ["a"]
    mean, low, high = mean_interval([29.5, 29.6, 29.7])
    assert [found["a"][key] for key in ("difference", "low", "high")] == pytest.approx([mean, low, high])
    assert ordering.verdict(found) == "ahead on 1 of 1"
    assert ordering.verdict(ordering.side_by_side(ROWS, ("random", "1"), ("magnitude", "1"))) == "behind on 1 of 1"
    assert ordering.verdict({}) == "not measured"


# -- the record --------------------------------------------------------------------------------------


def test_the_audit_finds_what_the_text_says_and_nothing_else():
    rows = record.plain_rows(published()) + record.planted_rows()
    broken = references.impossible_rows(rows)
    found = {(row["method"], row["model"], *sorted(rules)) for row, rules in zip(rows, broken, strict=True) if rules}
    assert found == {
        ("INT8 affine (torchvision)", "Inception-v3", "bits"), ("BWN (W1A32)", "AlexNet", "conflict"), ("HRank", "ResNet-110", "conflict"),
        ("FSP", "wrn-40-2 -> wrn-40-1", "range"), ("made up", "nobody's network", "sum"),
    }
    report = record.audit_report(rows, broken)
    assert report.count("source:") == sum(map(bool, broken)) == 7
    assert record.audit_report(rows[:2], [set(), set()]) == "nothing found"


def test_what_the_audit_finds_in_the_record_is_known_to_the_library():
    rows = published()
    known = {name for conflict in CONFLICTS for name in conflict.names}
    broken = references.impossible_rows(record.plain_rows(rows))
    assert {row.name for row, rules in zip(rows, broken, strict=True) if rules} <= known


def test_stated_bits_are_read_from_the_names_of_the_record():
    bits = {row.method: record.stated_bits(row.method) for row in published() if row.family == "quantization"}
    assert bits["DoReFa W1A2G6"] == bits["BWN (W1A32)"] == 1 and bits["GPTQ 3 bit"] == 3 and bits["AWQ 4-bit"] == 4
    assert bits["SmoothQuant W8A8"] == 8 and bits["QLoRA NF4 + double quant"] == 4 and bits["HAQ k-means mixed precision"] is None
    assert {record.stated_bits(row.method) for row in published() if row.family != "quantization"} == {None}


def test_published_ratios_need_a_size_and_a_small_loss():
    rows = [{"family": "pruning", "compression": c, "change": a, "change_top5": b}
            for c, a, b in ((2.0, -0.5, None), (3.0, None, -1.0), (9.0, None, None), (8.0, -1.1, 0.0), (None, 0.0, None))]  # fmt: skip
    assert record.published_ratios(rows, "pruning") == [2.0, 3.0]


# -- the widget and the figures ----------------------------------------------------------------------


def test_the_look_computes_the_learners_fronts():
    look = FrontLook(ROWS, references.pareto_front, references.possible_front)
    data = look("a", "bytes", "pruning", "all")
    assert [line["chosen"] for line in data.lines] == [False, True, True]
    assert data.front == data.band == [0, 1, 2]
    assert look("a", "MACs", "all", "random").lines[0]["chosen"] is False
    assert look("a", "latency", "all", "all").lines == []  # nothing was timed
    assert [part.start for part in look.controls()] == ["a", "bytes", "all", "all"]


def test_the_front_is_drawn_with_the_names_of_its_band():
    look = FrontLook(ROWS, references.pareto_front, references.possible_front)
    _, axes = plt.subplots(1, 2)
    draw_front(axes, look("a", "bytes", "all", "all"))
    assert [text.get_text() for text in axes[1].get_yticklabels()] == ["random 1", "magnitude 1", "dense 1"]
    draw_front(axes, look("a", "latency", "all", "all"))


def test_a_choice_starts_with_one_of_its_options():
    assert Choice("cost", ("x", "y"), "y").control().value == "y"
    with pytest.raises(ValueError, match="cost: start must be one of x, y, got 'z'"):
        Choice("cost", ("x", "y"), "z")


def test_names_are_spread_and_stay_inside():
    places = figures.spread([0.9, 0.9, 0.95], 0.1)
    assert places == pytest.approx([0.8, 0.9, 1.0])


def test_what_lies_far_below_is_listed():
    figure = figures.one_network(ROWS, "a")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert any("random 1: 60 %" in text for text in texts) and "magnitude 1" in texts


def test_every_famous_network_has_its_panel():
    figure = figures.published_record(record.plain_rows(published()))
    assert [ax.get_title().split(",")[0] for ax in figure.axes] == ["AlexNet", "VGG-16", "ResNet-50", "ResNet-56"]
    assert all(int(ax.get_title().split()[-2]) >= 9 for ax in figure.axes)


# -- the answers against the library -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_answers_are_the_librarys(seed):
    dice = torch.Generator().manual_seed(seed)
    points = [(x, y / 10) for x, y in torch.randint(1, 7, (25, 2), generator=dice).tolist()]
    assert references.pareto_front(points) == pareto.pareto_front(points)
    rows = [(x, min(y, z), max(y, z)) for x, y, z in torch.randint(1, 9, (25, 3), generator=dice).tolist()]
    beaten = pareto.surely_dominated(*zip(*rows, strict=True))
    assert references.possible_front(rows) == [i for i, out in enumerate(beaten) if not out]
    ratios = torch.rand(6, generator=dice).exp().tolist()
    assert references.mean_ratio(ratios, 0.9) == pytest.approx(pareto.geometric_mean_ratio(ratios, 0.9))
    correct = int(torch.randint(51, (), generator=dice))
    assert references.accuracy_interval(correct, 50, 0.8) == pytest.approx(proportion_interval(correct, 50, 0.8))
