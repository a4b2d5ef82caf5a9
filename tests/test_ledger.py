"""The learner's own results."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import pytest
import torch
from toy_chapter import toy  # noqa: F401

from compresslab.course import ledger, plots


@dataclass(frozen=True)
class Row:
    name: str
    accuracy: float = 0.9
    n: int = 1000
    file_bytes: int = 1000
    latency_ms: float | None = None
    note: str = "packed"


def test_rows_come_back_as_they_were_and_the_latest_of_a_name_counts():
    ledger.add(Row("a"), chapter="01", family="pruning")
    ledger.add(Row("b", accuracy=torch.tensor(0.8)), chapter="01", note="mine")
    ledger.add(Row("a", accuracy=0.95), chapter="01")
    ledger.add(Row("a"), chapter="02")
    assert [(r["chapter"], r["name"], r["note"]) for r in ledger.rows()] == [
        ("01", "b", "mine"),
        ("01", "a", "packed"),
        ("02", "a", "packed"),
    ]
    assert ledger.rows("01")[0]["accuracy"] == pytest.approx(0.8) and ledger.rows("01")[1]["accuracy"] == 0.95


def test_odd_numbers_become_json(toy):
    row = ledger.add(
        {"name": "x", "accuracy": float("nan"), "macs": {"a": (1, float("inf"))}, "shape": torch.Size([2])}
    )
    assert row["accuracy"] is None and row["macs"] == {"a": [1, None]} and ledger.rows() == [row]


def test_add_refuses():
    with pytest.raises(TypeError, match="takes a Measurement or a dict, got int"):
        ledger.add(3)
    with pytest.raises(TypeError, match="got type"):
        ledger.add(Row)
    with pytest.raises(ValueError, match="needs a name"):
        ledger.add({"accuracy": 1.0})


def test_a_row_that_cannot_be_saved_is_said(toy, capsys):
    toy.write_text("in the way")
    ledger.add(Row("a"))
    assert "The row is not saved" in capsys.readouterr().out


def test_show_prints_numbers_with_units(capsys):
    ledger.add(Row("a", file_bytes=12345), chapter="01")
    ledger.show()
    out = capsys.readouterr().out
    assert "12,345" in out and "90.00%" in out


def test_pareto_figure_skips_rows_without_a_size(capsys):
    assert ledger.pareto() is None and "empty" in capsys.readouterr().out
    ledger.add(Row("small", accuracy=0.9, file_bytes=10), family="pruning")
    ledger.add(Row("big", accuracy=0.95, file_bytes=1000))
    ledger.add({"name": "unsized", "accuracy": 0.5})
    figure = ledger.pareto()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["small", "big"] and figure.axes[0].get_xlabel() == "file size (bytes)"
    plt.close("all")


def test_the_front_by_brute_force():
    points = torch.randint(0, 6, (40, 2), generator=torch.Generator().manual_seed(0)).tolist()
    front = plots.pareto_front(points)
    beaten = [any((q[0] <= p[0] and q[1] >= p[1] and q != p) for q in points) for p in points]
    assert {tuple(points[i]) for i in front} == {
        tuple(p) for p, b in zip(points, beaten, strict=True) if not b
    }
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
