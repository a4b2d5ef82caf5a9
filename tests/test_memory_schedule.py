"""Peaks of orders, the best order, and addresses: against all orders, by hand, and drawn graphs."""

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compresslab.core import UniformCode, encode
from compresslab.deploy import schedule
from compresslab.deploy.microcontroller import Budget, fit
from compresslab.deploy.schedule import (
    Lifetime,
    Operation,
    best_order,
    graph_of,
    lifetimes,
    live_bytes,
    peak_bytes,
    plan_arena,
)
from compresslab.models import from_spec

BRANCHES = [
    Operation("x", (), 2), Operation("a", ("x",), 20), Operation("b", ("x",), 16), Operation("p", ("a",), 3), Operation("q", ("b",), 2),
    Operation("y", ("p", "q"), 5),
]  # fmt: skip


@st.composite
def graphs(draw, most=6):
    graph = []
    for number in range(draw(st.integers(1, most))):
        inputs = draw(st.sets(st.sampled_from(range(number)), max_size=2)) if number else ()
        graph.append(Operation(f"o{number}", tuple(f"o{i}" for i in sorted(inputs)), draw(st.integers(0, 9)), draw(st.booleans())))
    return graph


def all_orders(graph):
    needs = {op.name: set(op.inputs) for op in graph}
    for order in permutations(needs):
        if all(needs[name] <= set(order[:i]) for i, name in enumerate(order)):
            yield order


def test_branches_by_hand():
    assert live_bytes(BRANCHES) == [2, 22, 38, 39, 21, 10]  # x; x a; x a b; a b p; b p q; p q y
    assert live_bytes(BRANCHES, ["x", "a", "p", "b", "q", "y"]) == [2, 22, 25, 21, 21, 10]
    assert live_bytes(BRANCHES, ["x", "b", "q", "a", "p", "y"]) == [2, 18, 20, 24, 25, 10]


@given(graphs())
def test_the_best_order_is_the_best_of_all(graph):
    assert peak_bytes(graph, best_order(graph)) == min(peak_bytes(graph, order) for order in all_orders(graph))


@given(graphs(most=12), st.integers(1, 5))
def test_a_narrow_search_finds_an_order_no_better_than_the_best(graph, width):
    found = best_order(graph, width=width)
    assert sorted(found) == sorted(op.name for op in graph)
    assert peak_bytes(graph, found) >= peak_bytes(graph, best_order(graph))


@given(graphs(most=12))
def test_no_two_tensors_overlap_and_the_arena_is_no_shorter_than_the_peak(graph):
    spans = lifetimes(graph)
    arena = plan_arena(spans)
    assert set(arena.offsets) == {s.name for s in spans}
    for i, s in enumerate(spans):
        assert 0 <= arena.offsets[s.name] <= arena.size - s.size
        for other in spans[:i]:
            together = s.first <= other.last and other.first <= s.last
            apart = arena.offsets[s.name] >= arena.offsets[other.name] + other.size or arena.offsets[other.name] >= arena.offsets[s.name] + s.size
            assert apart or not together
    assert peak_bytes(graph) <= arena.size <= sum(s.size for s in spans)


def test_in_place_only_where_nobody_reads_the_input_later():
    graph = [Operation("x", (), 4), Operation("r", ("x",), 4, True), Operation("y", ("r",), 1)]
    assert live_bytes(graph) == [4, 4, 5]
    graph[2] = Operation("y", ("r", "x"), 1)  # x is read again: r needs a place of its own
    assert live_bytes(graph) == [4, 8, 9]
    for size in (3, 5):
        assert live_bytes([Operation("x", (), 4), Operation("r", ("x",), size, True)]) == [4, 4 + size]


@pytest.mark.parametrize("order, words", [
    (["x", "a", "b", "p", "q"], "leaves out 'y'"), (["x", "x", "a", "b", "p", "q", "y"], "runs 'x' twice"),
    (["a", "x", "b", "p", "q", "y"], "runs 'a' before 'x'"), (["x", "z"], "runs 'z'; the graph has x, a"),
])  # fmt: skip
def test_what_is_no_order(order, words):
    with pytest.raises(ValueError, match=words):
        live_bytes(BRANCHES, order)


def test_what_is_no_graph(monkeypatch):
    with pytest.raises(ValueError, match="two operations are called 'x'"):
        best_order([Operation("x", (), 1), Operation("x", (), 1)])
    with pytest.raises(ValueError, match="'x' has an output of -1 bytes"):
        peak_bytes([Operation("x", (), -1)])
    with pytest.raises(ValueError, match="'y' reads 'x', which the graph does not list before it"):
        peak_bytes([Operation("y", ("x",), 1)])
    with pytest.raises(ValueError, match="width"):
        best_order(BRANCHES, width=0)
    with pytest.raises(ValueError, match="same name"):
        plan_arena([Lifetime("a", 1, 0, 0)] * 2)
    with pytest.raises(ValueError, match="'a' has 1 bytes from step 2 to step 1"):
        plan_arena([Lifetime("a", 1, 2, 1)])
    monkeypatch.setattr(schedule, "STATES", 3)
    with pytest.raises(ValueError, match="more than 3 sets for|more than 3 sets; "):
        best_order(BRANCHES)
    assert len(best_order(BRANCHES, width=1)) == 6


def test_a_residual_network_in_integers():
    """By hand: the first stage of ResNet-8 holds its input, and input and output of the second convolution."""
    graph = graph_of(from_spec({"model": "resnet", "depth": 8, "width": 16, "num_classes": 10, "in_channels": 3}), (3, 32, 32))
    assert peak_bytes(graph) == 3 * 16 * 32 * 32
    assert not any("bn" in op.name or "relu" in op.name for op in graph)
    assert peak_bytes(graph_of(nn.Conv2d(1, 3, 1), (1, 3, 3), bits=4, batch=2)) == 9 + 27


def test_a_function_before_a_shortcut_has_memory_of_its_own():
    class Block(nn.Module):
        def forward(self, x):
            return torch.relu(x) + x

    assert [(op.inputs, op.output_bytes) for op in graph_of(Block(), (6,))] == [((), 6), (("input",), 6), (("relu", "input"), 6)]


def test_fit_counts_flash_and_ram_apart():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    dense = fit(network, (1, 8, 8), Budget(9000, 164))
    coded = fit(encode(network, lambda w: UniformCode.from_dense(w, bits=8)), (1, 8, 8), Budget(9000, 164))
    assert dense.ram_bytes == coded.ram_bytes == coded.own_order_bytes == 64 + 100
    assert dense.flash_bytes > 4 * 7400 and not dense.fits
    assert coded.flash_bytes < 9000 and coded.fits and coded.macs == 7400
    assert str(coded).endswith("RAM 164 of 164 bytes: fits")
    assert not fit(network, (1, 8, 8), Budget(10**6, 163)).fits
    with pytest.raises(ValueError, match="ram_bytes"):
        fit(network, (1, 8, 8), Budget(1, -1))
