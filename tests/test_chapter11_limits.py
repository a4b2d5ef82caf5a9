"""Section 4 of chapter 11: the slider, the figures, and the rows of the record, on toys."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from compresslab.course.chapter11 import evidence_limits, figures_limits
from compresslab.course.chapter11.references_limits import on_the_roof, predict_gain
from compresslab.course.chapter11.widgets_limits import BatchOnTheRoof
from compresslab.deploy.roofline import LayerCost, Roofline, layer_costs, predict_milliseconds

SHAPES = [("conv", (4, 2, 3, 3), (2, 6, 6), (4, 4, 4)), ("fc", (3, 64), (64,), (3,))]


@pytest.mark.parametrize("batch, bits", [(1, 32), (7, 8)])
def test_the_learners_formula_is_the_librarys(batch, bits):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.Flatten(), nn.Linear(64, 3, bias=False))
    roof = Roofline(peak=90.0, bandwidth=10.0)
    costs = layer_costs(model, (2, 6, 6), batch=batch, weight_bits=bits, activation_bits=bits)
    for cost, (_, *shapes) in zip(costs, SHAPES, strict=True):
        got = on_the_roof(*shapes, batch, bits, roof.peak, roof.bandwidth)
        assert got == pytest.approx((cost.intensity, roof.attainable(cost.intensity)))


def test_a_gain_is_the_quotient_of_two_predicted_times():
    costs = [LayerCost("a", "Conv2d", 900, 10, 10), LayerCost("b", "Linear", 100, 60, 10)]
    small, large = Roofline(100.0, 10.0), Roofline(400.0, 10.0)
    rows = {roof: [(cost.macs, cost.moved, roof.peak) for cost in costs] for roof in (small, large)}
    wanted = predict_milliseconds(costs, small) / predict_milliseconds(costs, large)
    assert predict_gain(rows[small], rows[large], 10.0, 0.0) == pytest.approx(wanted)
    assert predict_gain(rows[small], rows[large], 10.0, 1e9) == pytest.approx(1)


def test_the_slider_moves_every_layer():
    moving = BatchOnTheRoof(on_the_roof, SHAPES, {32: 100.0, 8: 400.0}, bandwidth=10.0)
    one, many = moving(1), moving(64)
    assert (one["batch"], many["batch"]) == (1, 64)
    for bits in (32, 8):
        for (name, low, _), (again, high, _) in zip(one["series"][bits]["points"], many["series"][bits]["points"], strict=True):
            assert name == again and high > low
    for floats, integers in zip(one["series"][32]["points"], one["series"][8]["points"], strict=True):
        assert integers[1] == pytest.approx(4 * floats[1])
    assert one["series"][32]["waiting"] == 2  # 1152 MACs for 808 bytes, 192 for 1036; the ridge is at 10


def rows():
    row = {"network": "toy", "careful": 2.0, "bold": 1.5, "gain": 1.8, "gain_low": 1.7, "gain_high": 1.9}
    return [row | {"batch": batch, "change": "int8"} for batch in (1, 32)]


def test_the_figures_show_what_they_are_given():
    panels = {"batch 1": {"resnet8": [("conv", 1.0, 2e9), ("", 9.0, 4e9)]}, "batch 8": {"other": [("", 2.0, 2e9)]}}
    figure = figures_limits.layers_on_the_roof(panels, 5e10, 1e10, 3e10)
    assert [ax.get_title() for ax in figure.axes] == ["batch 1", "batch 8"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["conv"]
    (ax,) = figures_limits.promises(rows()).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["toy, batch 1: int8", "toy, batch 32: int8"]
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(1.5, 0.5)] * 2
    ax = plt.figure().add_subplot()
    figures_limits.moving_points(ax, BatchOnTheRoof(on_the_roof, SHAPES, {32: 1e9, 8: 4e9}, 1e9)(4))
    assert "of 2 layers wait for bytes" in ax.texts[0].get_text()
    plt.close("all")


def test_the_rows_of_the_record(tmp_path, monkeypatch):
    """Every row holds times, spread, ratio with interval, threads and batch; predictions are those of the exercise."""
    monkeypatch.setattr(evidence_limits, "REPEATS", 3)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3072, 2], np.ones((3072, 2), np.float32).tobytes(), raw=True)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32]), helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "toy", ends[:1], ends[1:], [weight])
    path = tmp_path / "toy.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString())
    forms = ("float32", "int8")
    networks, files = dict.fromkeys(forms, nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))), dict.fromkeys(forms, path)
    roofs = {32: Roofline(1e9, 1e9), 8: Roofline(4e9, 1e9)}
    x = torch.ones(2, 3, 32, 32)
    plain, int8 = evidence_limits._gains("toy", networks, files, x, roofs)
    assert (plain["change"], int8["change"], int8["batch"], int8["threads"]) == ("float32", "int8", 2, 1)
    assert plain["gain"] == plain["careful"] == plain["bold"] == 1
    assert int8["bold"] == pytest.approx(4) and 1 <= int8["careful"] <= 4  # all of it waits for bytes
    assert int8["gain_low"] <= int8["gain"] <= int8["gain_high"] and int8["median_ms"] > 0 <= int8["iqr_ms"]
    nodes = evidence_limits._nodes(files, x)
    assert {row["form"] for row in nodes} == set(forms)
    for form in forms:
        assert sum(row["share"] for row in nodes if row["form"] == form) == pytest.approx(1)
