"""The form of the benchmarks: tables, the page, `python -m benchmarks`; and that every module keeps to it."""

import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import benchmarks
from benchmarks import __main__ as command
from benchmarks import report
from compresslab.core.timing import Speedup, Timing

ROOT = Path(__file__).resolve().parents[1]
FAST = Timing(1.0, 0.9, 1.1, (0.9, 1.0, 1.1))
SLOW = Timing(2.0, 1.8, 2.2, (1.8, 2.0, 2.2))


def table(verdict="slower"):
    rows = [["first", 12.5, "0.50 [0.40, 0.60]", verdict], ["sec|ond", "3", "2.00 [1.90, 2.10]", "faster"]]
    return report.Table("Title", "A note.", ["what", "ours (ms)", report.RATIO, report.VERDICT], rows)


def test_a_table_refuses_rows_of_another_length():
    with pytest.raises(ValueError, match="Title: 2 columns, but the row"):
        report.Table("Title", "", ["a", "b"], [["1"]])


def test_text_is_aligned_and_numbers_stand_right():
    title, note, head, first, second = str(table()).splitlines()
    assert (title, note) == ("Title", "A note.")
    assert head.index("ours (ms)") + len("ours (ms)") == first.index("12.5") + len("12.5")
    assert first.startswith("first ") and second.startswith("sec|ond ")


def test_markdown_has_a_rule_and_escapes_bars():
    lines = table().markdown().splitlines()
    assert lines[0] == "### Title" and lines[2] == "A note."
    assert lines[5] == "| --- | ---: | ---: | --- |"
    assert lines[7].startswith("| sec\\|ond |")


def test_an_empty_table_can_be_shown():
    empty = report.Table("None", "", ["a", "b"], [])
    assert str(empty).splitlines() == ["None", "a  b"]
    assert "| a | b |" in empty.markdown()


def test_only_rows_with_the_verdict_slower_are_slower():
    assert table().slower() == ["first, 0.50 [0.40, 0.60]"]
    assert table("not distinguishable").slower() == []
    assert report.Table("t", "", ["a"], [["slower"]]).slower() == []


def test_json_round_trip_keeps_the_text():
    again = report.tables_from_json(json.loads(json.dumps(report.tables_to_json([table()]))))
    assert str(again[0]) == str(table())


def test_the_ratio_is_above_one_when_we_are_faster():
    ours, peer, ratio, verdict = report.against(SLOW, FAST)
    assert (ours, peer, verdict) == ("1.00 (0.2)", "2.00 (0.4)", "faster") and ratio.startswith("2.00 [")
    assert report.against(FAST, SLOW)[3] == "slower"


@pytest.mark.parametrize("value, shown", [(0.0123456, "0.0123"), (1.5, "1.50"), (15.25, "15.2"), (234.5, "234"), (9.999, "10.00")])
def test_numbers_have_three_digits(value, shown):
    assert report.show_ratio(Speedup(value, value, value)) == f"{shown} [{shown}, {shown}]"


def test_summarize_takes_the_median_and_the_quartiles():
    assert report.summarize([5.0, 1.0, 3.0, 2.0, 4.0]) == Timing(3.0, 2.0, 4.0, (5.0, 1.0, 3.0, 2.0, 4.0))


def test_time_within_runs_all_calls_equally_often_and_stops_at_the_most():
    counts = {"a": 0, "b": 0}

    def count(name):
        counts[name] += 1
        sum(range(200_000))  # longer than the shortest sample, so that one call is one sample

    timings = report.time_within({name: lambda name=name: count(name) for name in counts}, 1e9, most=7)
    assert [len(timing.samples) for timing in timings.values()] == [7, 7]
    assert min(counts.values()) >= 9  # one to judge, one to warm up, seven rounds
    few = report.time_within({"a": lambda: count("a")}, 0.0, least=3)
    assert len(few["a"].samples) == 3


def test_the_page_says_what_failed_what_is_slower_and_how_long_it_took():
    results = [
        report.Result("good", "Good things.", 30, 12.0, "2026-01-02", [table()], picture="good.svg"),
        report.Result("bad", "Bad things.", 10, 48.0, "2026-01-03", failure="ValueError: no"),
    ]
    text = report.page(results, {"cpu": "Toy", "gpu": None, "instructions": ["a", "b"]}, "make bench")
    assert "Made by `make bench` in 1.0 minutes" in text and "(12 s, 2026-01-02.)" in text
    assert "- cpu: Toy" in text and "gpu" not in text and "- instructions: a, b" in text
    assert "- failed: bad" in text and "**Failed:** ValueError: no" in text
    assert "- slower than the peer: good, Title: first, 0.50 [0.40, 0.60]" in text
    assert "good 12 (30), bad 48 (10)" in text
    assert "![Good things.](good.svg)" in text


def test_the_page_says_when_nothing_is_slower():
    assert report.summary([report.Result("a", "A.", 1, 1, "2026-01-02", [table("faster")])])[0] == "- slower than the peer: nowhere"


MODULES = command.names()


def test_the_folder_is_listed_without_what_is_no_benchmark():
    assert {"huffman", "latency", "kmeans", "magnitude_masks"} <= set(MODULES)
    assert not {"__main__", "report", "_memory"} & set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_run_and_states_its_budget(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert callable(module.run)
    stated = re.search(r"^Budget: ([\d.]+) (seconds|minutes?)\b", inspect.getdoc(module), re.MULTILINE)
    assert stated, "no line 'Budget: ...' in the docstring"
    seconds = float(stated[1]) * (1 if stated[2] == "seconds" else 60)
    assert seconds == pytest.approx(module.BUDGET, rel=0.1)
    required = [p for p in inspect.signature(module.run).parameters.values() if p.default is p.empty]
    assert not required


def test_all_budgets_together_are_at_most_twenty_minutes():
    assert sum(importlib.import_module(f"benchmarks.{name}").BUDGET for name in MODULES) <= 20 * 60


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Three modules in a folder of their own: one that works, one that fails, one that never ends."""
    head = '"""What {0} does.\n\nBudget: 1 second.\n"""\nfrom benchmarks.report import Table\nBUDGET = {1}\n'
    body = {
        "good": "def run(words=()):\n    return [Table('T', '', ['a'], [[w] for w in words or ['x']])]\n",
        "bad": "def run():\n    raise ValueError('broken on purpose')\n",
        "endless": "import time\ndef run():\n    time.sleep(600)\n",
    }
    package = tmp_path / "benchmarks"
    package.mkdir()
    for name, text in body.items():
        (package / f"{name}.py").write_text(head.format(name, 60 if name != "endless" else 0.5) + text)
    for name in ("__init__", "__main__", "report"):
        source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
        (package / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(command, "PAGE", package / "RESULTS.md")
    monkeypatch.setattr(benchmarks, "__path__", [str(package)])
    yield package
    for name in body:
        sys.modules.pop(f"benchmarks.{name}", None)
        vars(benchmarks).pop(name, None)


def test_one_failure_is_told_and_the_others_go_on(toys, capfd):
    assert command.main([]) == 1
    page = (toys / "RESULTS.md").read_text(encoding="utf-8")
    assert "**Failed:** ValueError: broken on purpose" in page and "**Failed:** stopped after" in page
    assert "What good does." in page and "| x |" in page
    assert page.index("## endless") < page.index("## bad") < page.index("## good")  # the short ones first
    assert not list(toys.glob(".*part"))
    assert "failed: ValueError: broken on purpose" in capfd.readouterr().out


def test_one_can_be_measured_again_and_the_page_keeps_the_others(toys):
    command.main([])
    before = (toys / "RESULTS.md").read_text(encoding="utf-8")
    source = toys / "bad.py"
    source.write_text(source.read_text().replace("raise ValueError('broken on purpose')", "return [Table('Mended', '', ['a'], [['y']])]"))
    assert command.main(["--again", "bad"]) == 1  # "endless" still stands there as failed
    after = (toys / "RESULTS.md").read_text(encoding="utf-8")
    assert "broken on purpose" in before and "broken on purpose" not in after and "### Mended" in after
    assert before[before.index("## good"):] == after[after.index("## good"):]
    assert command.main(["--again", "godo"]) == 2


def test_results_as_data_come_back_as_they_were():
    results = [report.Result("good", "Good things.", 30, 12.0, "2026-01-02", [table()], picture="good.svg")]
    data = json.loads(json.dumps(report.results_to_json(results, {"cpu": "Toy"})))
    assert report.page(report.results_from_json(data), data["machine"], "make bench") == report.page(results, {"cpu": "Toy"}, "make bench")


def test_one_benchmark_prints_and_writes_no_page(toys, capsys):
    assert command.main(["good", "one", "two"]) == 0
    assert capsys.readouterr().out.splitlines() == ["T", "a", "one", "two", ""]
    assert not (toys / "RESULTS.md").exists()


def test_an_unknown_name_lists_those_there_are(toys, capsys):
    assert command.main(["godo"]) == 2
    assert "there is no benchmark 'godo'; there are bad, endless, good" in capsys.readouterr().err


def test_entropy_of_a_fair_coin_is_one_bit():
    from benchmarks.huffman import entropy_bytes

    assert entropy_bytes(torch.tensor([0, 1] * 400)) == pytest.approx(100)
    assert entropy_bytes(torch.zeros(80, dtype=torch.uint8)) == pytest.approx(0)


def test_inertia_by_hand():
    from benchmarks.kmeans import inertia

    assert inertia(torch.tensor([0.0, 1.0, 9.0]), torch.tensor([10.0, 0.0])) == pytest.approx(2.0)


def test_output_error_is_the_error_of_the_outputs():
    from benchmarks.weight_quantization import output_error

    generator = torch.Generator().manual_seed(0)
    W, X = torch.randn(3, 5, generator=generator), torch.randn(5, 40, generator=generator)
    rounded = W.round()
    expected = ((W - rounded) @ X).norm() / (W @ X).norm()
    assert output_error(W, rounded, X @ X.T) == pytest.approx(float(expected), rel=1e-5)


def test_a_kernel_is_cut_into_factors_of_its_channels():
    from benchmarks.tensor_decompositions import factored

    assert factored((512, 128, 3, 3)) == (16, 32, 8, 16, 9)
