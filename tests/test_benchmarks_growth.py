"""What is pure in the benchmark of growth: slopes, refusals, the form of the tables; and one real small run."""

import math

import numpy as np
import pytest

from benchmarks import _memory, growth
from benchmarks.growth import OPERATIONS, Point, draw, fit_slope, measure, measure_apart, refusal, tables


def point(n, seconds, peak=0):
    return Point(n, seconds, seconds, seconds, 3, 4 * n, peak)


@pytest.mark.parametrize("power", [0.5, 1, 1.5, 2])
def test_the_slope_of_a_power_is_its_exponent(power):
    sizes = [10, 30, 100, 1000]
    slope = fit_slope(sizes, [7 * n**power for n in sizes])
    assert slope.slope == pytest.approx(power) and slope.last == pytest.approx(power)
    assert slope.error == pytest.approx(0, abs=1e-6)


def test_slope_and_error_are_those_of_a_regression():
    from scipy.stats import linregress

    generator = np.random.default_rng(0)
    x = np.arange(1, 9)
    y = 1.3 * x + generator.normal(size=8)
    slope = fit_slope(10.0**x, 10.0**y)
    oracle = linregress(x, y)
    assert slope.slope == pytest.approx(oracle.slope, abs=1e-8) and slope.error == pytest.approx(oracle.stderr, abs=1e-8)
    assert slope.last == pytest.approx(y[-1] - y[-2], abs=1e-8)


def test_two_points_have_a_slope_and_no_error():
    slope = fit_slope([1, 100], [1, 10])
    assert slope.slope == pytest.approx(0.5) and math.isnan(slope.error)


@pytest.mark.parametrize(("sizes", "costs", "message"), [
    ([1], [1], "two points"), ([1, 2], [1], "two points"), ([1, 2], [0, 1], "positive"), ([0, 2], [1, 1], "positive"),
])  # fmt: skip
def test_slopes_that_do_not_exist(sizes, costs, message):
    with pytest.raises(ValueError, match=message):
        fit_slope(sizes, costs)


def test_a_size_is_refused_for_its_time_or_its_memory():
    assert refusal([], 10**9, 1, 1, 0) is None  # nothing is known yet
    assert refusal([], 10, 1, 0, 1e9) == "the budget is used up"
    known = [point(100, 1.0, peak=600)]  # and 400 bytes of input
    assert refusal(known, 1000, 1, 10, 1e9) is None
    assert refusal(known, 1000, 1.5, 31, 1e9) == "about 32 s, more than 31 s"
    assert refusal(known, 1000, 1, 10, 12_600) is None
    assert "of the free" in refusal(known, 1000, 1, 10, 12_400)


def test_tables_have_a_row_for_each_curve_and_say_what_was_left_out():
    curves = {"copy": [point(10**4, 1e-5, 1), point(10**6, 1e-3, 10), point(10**7, 1e-2, 10**7)], "GPTQ, square": [point(10**4, 2.0)]}
    times, slopes, memory = tables(curves, {"GPTQ, square": "10^6: too long"}, (10**4, 10**6, 10**7))
    assert times.cells == [["copy", "0.01 ms", "1 ms", "10 ms"], ["GPTQ, square", "2.00 s", "", ""]]
    assert slopes.cells[0] == ["copy", "1.00", "1.00", "1", OPERATIONS["copy"].why, "1.00", "1.0", ""]
    assert slopes.cells[1][1:4] == ["", "", "1.5"] and slopes.cells[1][-1] == "10^6: too long"
    assert memory.cells[0] == ["copy", "0.0", "0.0", "10.0"]


def test_an_unknown_operation_is_refused():
    with pytest.raises(ValueError, match="no operation 'sort'; there are copy, pruning mask"):
        growth.run(["sort"])


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_runs(name):
    OPERATIONS[name].prepare(2_000)()


def test_what_is_decoded_and_unpacked_is_what_was_made():
    symbols = growth._symbols(3_000)
    assert growth.prepare_decode(3_000)().equal(symbols.int())
    assert growth.prepare_unpack(3_000)().equal(symbols.int() // 2)
    assert 0 <= int(symbols.min()) < int(symbols.max()) <= 15


def test_the_picture_is_an_svg_that_does_not_change(tmp_path):
    curves = {name: [point(10**4, 1e-4, 10**5), point(10**6, 1e-2, 10**7)] for name in OPERATIONS}
    for name in ("one.svg", "two.svg"):
        draw(curves, tmp_path / name)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8") and "<svg" in text


def test_a_process_of_its_own_measures_its_own_memory():
    found = measure_apart("copy", 2_000_000, 120)
    assert isinstance(found, Point), found
    assert found.n == 2_000_000 and 0 < found.q1 <= found.seconds <= found.q3
    assert 4e6 < found.peak_bytes < 3e7  # a copy is 8 MB
    assert measure_apart("sort", 10, 120).startswith("the process ended with code 1: KeyError")


def test_memory_is_what_the_system_says():
    before = _memory.resident_bytes()
    block = np.ones(8_000_000)
    assert _memory.resident_bytes() - before > 5e7
    assert _memory.high_water_bytes() >= _memory.resident_bytes() - 2**20
    del block
    assert 1e7 < _memory.available_bytes()


def test_without_proc_the_high_water_mark_comes_from_resource(tmp_path, monkeypatch):
    monkeypatch.setattr(_memory, "STATUS", tmp_path / "missing")
    monkeypatch.setattr(_memory, "MEMINFO", tmp_path / "missing")
    assert 1e7 < _memory.high_water_bytes() == _memory.resident_bytes()
    assert _memory.available_bytes() == math.inf
    (tmp_path / "status").write_text("Name:\tx\nVmRSS:\t  12 kB\n", encoding="utf-8")
    monkeypatch.setattr(_memory, "STATUS", tmp_path / "status")
    assert _memory.resident_bytes() == 12 * 1024


def test_measuring_here_warms_up_first(monkeypatch):
    calls = []
    operation = growth.Operation(lambda n: lambda: calls.append(n), 1, "nothing")
    monkeypatch.setitem(OPERATIONS, "nothing", operation)
    found = measure("nothing", 50)
    assert calls[0] == growth.SIZES[0] and calls[1:] == [50] * (found.rounds + 1) and found.rounds == 15
    assert found.n == 50
