"""What a right answer to exercises 11.3 and 11.4 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compresslab.course.chapter11.graphs import Node, count_operations, random_constants, run_graph
from compresslab.course.trial import Trial

# -- 11.3 fold batch norms in a graph ----------------------------------------------------------------

Graph = tuple[list[Node], dict[str, Tensor], tuple[str, ...]]
Fold = Callable[[list[Node], dict[str, Tensor], tuple[str, ...]], Any]


def conv(x: str, w: str, out: str, bias: str = "", **attributes: int) -> Node:
    """A convolution, with a bias if one is named."""
    return Node("Conv", (x, w, bias) if bias else (x, w), out, attributes)


def norm(x: str, number: int, out: str, epsilon: float = 1e-5) -> Node:
    """A batch norm with the constants gamma1, beta1, ..."""
    return Node("BatchNormalization", (x, *(f"{name}{number}" for name in ("gamma", "beta", "mean", "var"))), out, {"epsilon": epsilon})


def relu(x: str, out: str) -> Node:
    """A ReLU."""
    return Node("Relu", (x,), out, {})


def add(x: str, y: str, out: str) -> Node:
    """A sum."""
    return Node("Add", (x, y), out, {})


def graphs(rng: torch.Generator) -> list[tuple[str, Graph, int]]:
    """What is special about a graph, the graph, and how many norms must be left."""

    def constants(channels: int, norms: int, **more: tuple[int, ...]) -> dict[str, Tensor]:
        shapes = {f"{name}{k}": (channels,) for k in range(1, norms + 1) for name in ("gamma", "beta", "mean", "var")}
        return random_constants(rng, **more, **shapes)

    out = ("y",)
    w, square, deep = (3, 2, 3, 3), (2, 2, 3, 3), (2, 1, 3, 3)
    return [
        ("a convolution and its norm", ([conv("x", "w", "c"), norm("c", 1, "y")], constants(3, 1, w=w), out), 0),
        ("a convolution with a bias", ([conv("x", "w", "c", "b"), norm("c", 1, "y")], constants(3, 1, w=w, b=(3,)), out), 0),
        ("a large epsilon", ([conv("x", "w", "c"), norm("c", 1, "y", 0.5)], constants(3, 1, w=w), out), 0),
        ("a ReLU behind the norm", ([conv("x", "w", "c"), norm("c", 1, "n"), relu("n", "y")], constants(3, 1, w=w), out), 0),
        ("as many inputs as outputs", ([conv("x", "w", "c", "b"), norm("c", 1, "y")], constants(2, 1, w=square, b=(2,)), out), 0),
        ("one kernel per channel", ([conv("x", "w", "c", groups=2, padding=1), norm("c", 1, "y")], constants(2, 1, w=deep), out), 0),
        ("two norms in two layers",
         ([conv("x", "w", "c", padding=1), norm("c", 1, "n"), relu("n", "r"), conv("r", "v", "d", "b"), norm("d", 2, "y")],
          constants(2, 2, w=square, v=square, b=(2,)), out), 0),
        ("two convolutions that share their weight",
         ([conv("x", "w", "c", padding=1), norm("c", 1, "n"), conv("n", "w", "d", padding=1), norm("d", 2, "y")], constants(2, 2, w=square), out), 0),
        ("two convolutions that share their bias, one without a norm",
         ([conv("x", "w", "c", "b", padding=1), norm("c", 1, "n"), conv("n", "v", "y", "b", padding=1)], constants(2, 1, w=square, v=square, b=(2,)), out), 0),
        ("a shortcut that reads the convolution as well",
         ([conv("x", "w", "c", padding=1), norm("c", 1, "n"), add("n", "c", "y")], constants(2, 1, w=square), out), 1),
        ("two norms that read one convolution",
         ([conv("x", "w", "c"), norm("c", 1, "n"), norm("c", 2, "m"), add("n", "m", "y")], constants(3, 2, w=w), out), 2),
        ("a convolution that is an output of the graph", ([conv("x", "w", "c"), norm("c", 1, "y")], constants(3, 1, w=w), ("y", "c")), 1),
        ("a norm behind a ReLU", ([conv("x", "w", "c"), relu("c", "r"), norm("r", 1, "y")], constants(3, 1, w=w), out), 1),
        ("a norm of the input", ([norm("x", 1, "n"), conv("n", "w", "c"), norm("c", 2, "y")], constants(2, 2, w=square), out), 1),
        ("a residual block, with nodes of both branches in turn",
         ([conv("x", "w", "c", padding=1), conv("x", "v", "s", "b", padding=1), norm("c", 1, "n"), norm("s", 2, "t"), add("n", "t", "a"), norm("a", 3, "y")],
          constants(2, 3, w=square, v=square, b=(2,)), out), 1),
    ]


def behaviour(fold: Fold, nodes: list[Node], constants: dict[str, Tensor], outputs: tuple[str, ...], x: Tensor) -> dict[str, Any]:
    """What the folded graph consists of and computes, whatever its tensors are called."""
    answer = fold(nodes, constants, outputs)
    if not isinstance(answer, tuple | list) or len(answer) != 2 or not isinstance(answer[1], dict):
        words = f"return two things, the list of nodes and the dict of constants, not a {type(answer).__name__}"
        return {"broken": words, "length": len(answer) if hasattr(answer, "__len__") else 0}
    new, known = answer
    if not all(isinstance(node, tuple) and len(node) == 4 for node in new):
        return {"broken": "return a list of nodes, each as node._replace(...) gives it"}
    new = [Node(*node) for node in new]
    left = dict(sorted(count_operations(new).items()))
    try:
        return {"left": left, "y": run_graph(new, known, outputs, x), "broken": ""}
    except (ValueError, RuntimeError, TypeError) as error:
        return {"left": left, "y": [], "broken": f"your graph does not run, {error}"}


def verify_fold_norms(t: Trial) -> str:
    cases = graphs(t.rng)
    for what, (nodes, constants, outputs), left in cases:
        x = t.randn(2, 2, 5, 5)
        got = t.use(behaviour, nodes, constants, outputs, x)
        before = count_operations(nodes)
        t.expect(not got["broken"], f"{what}: {got['broken']}")
        wanted = run_graph(nodes, constants, outputs, x)
        for y, z in zip(got["y"], wanted, strict=True):
            t.expect(y.shape == z.shape and torch.allclose(y, z, rtol=1e-3, atol=1e-4), f"{what}: your graph computes something else, off by up to "
                     f"{(y - z).abs().max():.3g}" if y.shape == z.shape else f"{what}: your graph's output has another shape")
        norms = got["left"].get("BatchNormalization", 0)
        t.expect(norms <= left, f"{what}: {norms} batch norm{'s' * (norms != 1)} left, {left} must stay")
        others = {op: n for op, n in got["left"].items() if op != "BatchNormalization"}
        t.expect(others == {op: n for op, n in sorted(before.items()) if op != "BatchNormalization"},
                 f"{what}: besides batch norms nothing may come or go, you have {others}")
    return f"{len(cases)} graphs: the same outputs, and no norm left but those that must stay"


# -- 11.4 read a 4-bit initializer -------------------------------------------------------------------

CASES = (  # shape, axis, block
    ((2,), 0, 1), ((4,), 0, 2), ((4,), 0, 3), ((3,), 0, 3), ((2, 4), 1, 2), ((4, 2), 0, 2), ((4, 4), 0, 2), ((4, 4), 1, 2), ((2, 3), 1, 3),
    ((3, 3), 1, 1), ((5,), 0, 2), ((2, 5), 1, 2), ((7, 3), 0, 4), ((2, 4, 3), 1, 2), ((3, 2, 3, 3), 0, 1), ((6, 8), 1, 4), ((8, 6), 0, 4), ((3, 5, 3), 1, 3),
)  # fmt: skip


def packed(q: Tensor) -> Tensor:
    """Two's complement nibbles, the first of a pair in the low half."""
    numbers = q.flatten().tolist()
    numbers += [0] * (len(numbers) % 2)
    return torch.tensor([(low & 15) + 16 * (high & 15) for low, high in zip(numbers[::2], numbers[1::2], strict=True)], dtype=torch.uint8)


def wanted_weight(q: Tensor, scale: Tensor, axis: int, block: int) -> Tensor:
    """Every integer times the scale of its block, one slice at a time."""
    weight = torch.empty(q.shape)
    for i in range(q.shape[axis]):
        weight.select(axis, i).copy_(q.select(axis, i) * scale.select(axis, i // block))
    return weight


def verify_read_int4(t: Trial) -> str:
    for shape, axis, block in (*CASES, *CASES[4:]):
        q = t.integers(-8, 7, shape)
        grid = list(shape)
        grid[axis] = -(-shape[axis] // block)
        scale = (0.1 + t.randn(*grid).abs()).round(decimals=2)
        got = t.tensor(t.call(packed(q), shape, scale, axis, block), shape=shape)
        wanted = wanted_weight(q, scale, axis, block)
        worst = int((got.double() - wanted).abs().argmax())
        t.expect(torch.allclose(got.float(), wanted, rtol=1e-4, atol=1e-6),
                 f"weight number {worst} is {wanted.flatten()[worst]:.4g}, you have {got.double().flatten()[worst]:.4g}")
    return f"{len(CASES)} shapes: odd numbers of weights, blocks along every axis, blocks that are not full"
