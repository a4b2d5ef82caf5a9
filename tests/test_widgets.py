"""Widgets and plots: the static figure shows what the slider would; every family looks different in grey."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from toy_chapter import toy  # noqa: F401

from compresslab.course import plots, widgets

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def compute(value):
    return [value, 2 * value]


def draw(axes, data):
    axes.plot(data)
    axes.set_title(f"slope {data[1] - data[0]:g}")


SPARSITY = widgets.Slider("sparsity")
THREE = (widgets.Slider("bits", 2, 8, 1, start=4), widgets.Slider("range", 0.1, 1, 0.1, start=1), widgets.Switch("symmetric", "affine"))


def test_static_figure_has_one_panel_per_value():
    figure = widgets.static_figure(compute, draw, SPARSITY, settings=[(0.0,), (0.5,), (0.9,)])
    assert [a.get_title() for a in figure.axes] == [
        "sparsity = 0\nslope 0",
        "sparsity = 0.5\nslope 0.5",
        "sparsity = 0.9\nslope 0.9",
    ]


def test_static_figure_with_several_panels_per_value():
    figure = widgets.static_figure(
        compute, lambda axes, data: draw(axes[1], data), widgets.Slider("bits", 1, 8, 1, 4), settings=[(2,), (4,)], panels=2
    )
    assert len(figure.axes) == 4 and figure.axes[0].get_title() == "bits = 2"


def test_static_figure_says_the_value_of_every_control():
    figure = widgets.static_figure(
        lambda *values: values, lambda axes, data: None, *THREE, settings=[(3, 0.5, True), (8, 1.0, False)]
    )
    assert [a.get_title() for a in figure.axes] == ["bits = 3, range = 0.5, symmetric", "bits = 8, range = 1, affine"]


@pytest.mark.parametrize("setting", [(3, 0.5), (3, 0.5, True, 1)])
def test_a_setting_has_one_value_for_each_control(setting):
    with pytest.raises(ValueError, match="zip"):
        widgets.static_figure(lambda *values: values, lambda axes, data: None, *THREE, settings=[setting])


def shown(monkeypatch):
    import IPython.display

    objects = []
    monkeypatch.setattr(IPython.display, "display", objects.append)
    return objects


@pytest.mark.parametrize("variable", ["COMPRESSLAB_STATIC", "CI", "NBGRADER_EXECUTION"])
def test_only_the_figure_where_nobody_can_move_a_slider(monkeypatch, variable):
    monkeypatch.setenv(variable, "autograde" if variable.startswith("NB") else "1")
    objects = shown(monkeypatch)
    assert widgets.slider(compute, draw, name="sparsity", static=(0.1, 0.2)) is None
    assert widgets.controls(lambda *values: values, lambda axes, data: None, *THREE, static=[(2, 1, True)]) is None
    assert [type(o).__name__ for o in objects] == ["Figure", "Figure"] and plt.get_fignums() == []


@pytest.fixture
def nobody_else(monkeypatch):
    for variable in ("COMPRESSLAB_STATIC", "CI", "NBGRADER_EXECUTION"):
        monkeypatch.delenv(variable, raising=False)


def test_a_live_notebook_gets_both(monkeypatch, nobody_else):
    objects = shown(monkeypatch)
    widgets.slider(compute, draw, name="sparsity", static=(0.1, 0.2))
    assert {type(o).__name__ for o in objects} == {"VBox", "Figure"}


def test_the_slider_calls_compute_with_its_value(monkeypatch):
    shown(monkeypatch)
    seen = []
    box = widgets.live(lambda v: seen.append(v) or [v], lambda axes, data: None, widgets.Slider("bits", 1, 8, 1, 4))
    box.children[0].value = 7
    assert seen == [4, 7] and plt.get_fignums() == []


def test_slider_hands_over_floats(monkeypatch, nobody_else):
    shown(monkeypatch)
    seen = []
    widgets.slider(lambda v: seen.append(v) or [v], lambda axes, data: None, name="x", low=0, high=10, step=1, start=3, static=(2.0,))
    assert [type(value) for value in seen] == [float, float]


def test_several_controls_hand_over_their_values_in_order(monkeypatch):
    shown(monkeypatch)
    seen = []
    box = widgets.live(lambda *values: seen.append(values), lambda axes, data: None, *THREE, panels=2)
    bits, share, symmetric = box.children[0].children
    bits.value, share.value, symmetric.value = 8, 0.5, False
    assert seen == [(4, 1, True), (8, 1, True), (8, 0.5, True), (8, 0.5, False)]
    assert [type(value) for value in seen[-1]] == [int, float, bool] and plt.get_fignums() == []


def test_start_outside_the_range():
    with pytest.raises(ValueError, match="x: start must be between 0 and 1, got 2"):
        widgets.Slider("x", low=0, high=1, step=0.1, start=2)


# -- plots ---------------------------------------------------------------------------------------------


def grey(color):
    return float(
        sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), matplotlib.colors.to_rgb(color), strict=True))
    )


def test_families_differ_by_colour_marker_and_line():
    looks = [plots.family(name) for name in plots.FAMILIES]
    for key in ("color", "marker", "linestyle"):
        assert len({str(look[key]) for look in looks}) == len(looks)
    assert all(grey(look["color"]) < 0.65 for look in looks)  # all are seen on white paper
    with pytest.raises(ValueError, match="there is no family 'magic'"):
        plots.family("magic")


def test_style_sets_the_same_figure_everywhere():
    with matplotlib.rc_context():
        plots.style()
        assert plt.rcParams["axes.spines.top"] is False and plt.rcParams["image.cmap"] == "cividis"


def test_tensor_drawing_hatches_zeros_only():
    axes = plots.tensor(plt.subplots()[1], torch.tensor([[1.0, 0.0], [-2.0, float("nan")]]), "W")
    assert [p.get_hatch() for p in axes.patches] == [None, "///", None, None]
    assert [t.get_text() for t in axes.texts] == ["1", "0", "-2", "nan"]
    assert len(plots.tensor(plt.subplots()[1], [1, 2, 3]).patches) == 3


def test_block_diagram():
    with pytest.raises(ValueError, match="2 boxes have 3 wires, got 1"):
        plots.flow(plt.subplots()[1], [("a", ""), ("b", "")], ["x"])
    flow = plots.flow(plt.subplots()[1], [("a", ""), ("b", "#E69F00")], ["x", "y", "z"])
    assert [text.get_text() for text in flow.texts if text.get_text()] == ["a", "b", "x", "y", "z"] and len(flow.patches) == 2
    axes = plots.blocks(plt.subplots()[1], [plots.Block("conv", 16, 32), plots.Block("linear", 10)])
    assert len(axes.patches) >= 2 and [t.get_text() for t in axes.texts if t.get_text()] == [
        "conv\n16×32×32",
        "linear\n10",
    ]
    assert axes.patches[0].get_width() > axes.patches[1].get_width()


def test_pareto_takes_measurements_and_rows():
    class Measured:
        def __init__(self):
            self.name, self.accuracy, self.n, self.file_bytes, self.family = "a", 0.9, 100, 10, "hybrid"

    axes = plots.pareto([Measured(), {"name": "b", "accuracy": 0.8, "file_bytes": 5}])
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "accuracy (fraction)"
