"""What a right answer to exercises 10.1 to 10.5 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from compresslab.course.trial import Trial, Wrong

# -- trees to try ------------------------------------------------------------------------------------

Tree = tuple[np.ndarray, np.ndarray, np.ndarray]


def grown(t: Trial, leaves: int) -> Tree:
    """(left, right, risk) of a random tree: its nodes are numbered as they were made, a split always lowers the risk."""
    left, right, risk, open_leaves = [-1], [-1], [1.0], [0]
    while len(open_leaves) < leaves:
        node = open_leaves.pop(t.integer(0, len(open_leaves) - 1))
        shares = [t.uniform(0.05, 0.6), t.uniform(0.02, 0.39)]
        if t.integer(0, 1):
            shares.reverse()
        left[node], right[node] = len(left), len(left) + 1
        for share in shares:
            open_leaves.append(len(left))
            left.append(-1)
            right.append(-1)
            risk.append(risk[node] * share)
    return np.array(left), np.array(right), np.array(risk)


def preorder(tree: Tree) -> Tree:
    """The same tree, numbered as scikit-learn numbers a tree that it grew depth first."""
    left, right, risk = tree
    order, stack = [], [0]
    while stack:
        node = stack.pop()
        order.append(node)
        if left[node] >= 0:
            stack += [right[node], left[node]]
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    return tuple(np.where(side[order] < 0, -1, place[side[order]]) for side in (left, right)) + (risk[order],)  # type: ignore[return-value]


def leaves_below(left: np.ndarray, right: np.ndarray, node: int) -> list[int]:
    return [node] if left[node] < 0 else leaves_below(left, right, left[node]) + leaves_below(left, right, right[node])


def strength(left: np.ndarray, right: np.ndarray, risk: np.ndarray, node: int) -> float:
    leaves = leaves_below(left, right, node)
    return float((risk[node] - risk[leaves].sum()) / (len(leaves) - 1))


SMALL: Tree = (np.array([1, -1, 3, -1, -1]), np.array([2, -1, 4, -1, -1]), np.array([0.5, 0.1, 0.3, 0.05, 0.0]))


def some_trees(t: Trial) -> list[Tree]:
    stump = (np.array([1, -1, -1]), np.array([2, -1, -1]), np.array([0.4, 0.1, 0.05]))
    return [stump, SMALL, *(kind(grown(t, leaves)) for leaves in (4, 6, 9, 14) for kind in (preorder, tuple))]


# -- 10.1 ----------------------------------------------------------------------------------------------


def verify_link_strength(t: Trial) -> str:
    count = 0
    for left, right, risk in some_trees(t):
        for node in np.flatnonzero(left >= 0)[::-1].tolist():             # small branches first
            got = t.number(t.call(left, right, risk, node))
            wanted = strength(left, right, risk, node)
            t.expect(np.isfinite(got) and abs(got - wanted) <= 1e-6 + 1e-5 * abs(wanted), f"g({node}) is {wanted:.5g} here, you return {got:.5g}")
            count += 1
    return f"{count} inner nodes of ten trees, numbered in two ways"


# -- 10.2 ----------------------------------------------------------------------------------------------


def whole_path(left: np.ndarray, right: np.ndarray, risk: np.ndarray) -> list[tuple[float, int]]:
    left = left.copy()

    def inner(node: int) -> list[int]:
        return [] if left[node] < 0 else [node, *inner(left[node]), *inner(right[node])]

    path = [(0.0, len(inner(0)) + 1)]
    while nodes := inner(0):
        least = min(nodes, key=lambda node: strength(left, right, risk, node))
        price = strength(left, right, risk, least)
        left[least] = -1
        path.append((price, len(inner(0)) + 1))
    return path


def verify_pruning_path(t: Trial) -> str:
    trees = some_trees(t) + [(np.array([-1]), np.array([-1]), np.array([0.3]))]
    for left, right, risk in trees:
        output, wanted = t.call(left, right, risk), whole_path(left, right, risk)
        try:
            path = [(float(alpha), float(leaves)) for alpha, leaves in output]
        except (TypeError, ValueError):
            raise Wrong("return a list of pairs: (alpha, leaves that are left)") from None
        t.expect(len(path) > 0 and path[0] == wanted[0], f"the path starts with the full tree, {wanted[0]}; yours with {path[0] if path else 'nothing'}")
        for step, (mine, right_one) in enumerate(zip(path, wanted)):
            same = abs(mine[0] - right_one[0]) <= 1e-9 + 1e-6 * right_one[0] and mine[1] == right_one[1]
            t.expect(same, f"step {step} is (alpha {right_one[0]:.5g}, {right_one[1]} leaves) here, yours ({mine[0]:.5g}, {mine[1]:g})")
        t.expect(len(path) == len(wanted), f"the path has {len(wanted)} entries, down to the root alone; yours has {len(path)}")
    return f"{len(trees)} trees, from a lone root to 14 leaves: every price and every number of leaves"


# -- 10.3 ----------------------------------------------------------------------------------------------


def verify_refine_forest(t: Trial) -> str:
    cases = [([1], 2, 1, 1.0), ([3], 4, 2, 2.0), ([3, 3], 5, 2, 0.5), ([3, 5], 6, 2, 0.1), ([5, 1, 3], 4, 3, 2.0), ([7, 3, 5, 9], 12, 3, 0.3), ([5, 9, 5], 40, 4, 10.0)]
    for counts, points, classes, l2 in cases:
        leaves = np.stack([t.integers(0, count - 1, (points,)).numpy() for count in counts], axis=1)
        Y = t.randn(points, classes).double().numpy()
        output = t.call(leaves, counts, Y, l2)
        t.expect(isinstance(output, tuple | list) and len(output) == 2, "return two things: the indicators Phi and the weights W")
        Phi, W = (_array(part) for part in output)
        m = sum(counts)
        t.expect(Phi.shape == (points, m), f"Phi has a row for each point and a column for each node of each tree, ({points}, {m}); yours has shape {Phi.shape}")
        wanted = np.hstack([np.eye(count)[leaves[:, tree]] for tree, count in enumerate(counts)])
        t.expect(np.allclose(Phi, wanted), f"in Phi row 0 has its ones in columns {wanted[0].nonzero()[0].tolist()} here, the nodes of a tree behind those of the trees before it")
        t.expect(W.shape == (m, classes), f"W has a row for each node, ({m}, {classes}); yours has shape {W.shape}")
        slope = Phi.T @ (Phi @ W - Y) + l2 * W                              # of the ridge loss: 0 at its only minimum
        t.expect(np.abs(slope).max() <= 1e-6 * (1 + np.abs(Y).sum()), "W is not the minimum of |Y - Phi W|^2 + l2 |W|^2: the gradient there is not 0")
    return f"{len(cases)} forests: a block of columns for each tree, and the gradient of the ridge loss is 0"


def _array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value.toarray() if hasattr(value, "toarray") else value, dtype=np.float64)
    except (TypeError, ValueError):
        raise Wrong("Phi and W must be arrays of numbers") from None


# -- 10.4 ----------------------------------------------------------------------------------------------


def named_points(t: Trial, n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Points whose numbers tell where they come from: X[i, j] = i + j / 100. And k < n / 2 neighbours each, nobody being his neighbour's neighbour."""
    X = np.arange(n)[:, None] + np.arange(d) / 100
    names, near = torch.randperm(n, generator=t.rng).numpy(), np.empty((n, k), int)
    for place in range(n):
        near[names[place]] = names[(place + 1 + torch.randperm(k, generator=t.rng).numpy()) % n]
    return X, near


def verify_draw_queries(t: Trial) -> str:
    for n, d, k, count, swap in [(3, 2, 1, 4, 0.5), (5, 3, 2, 1, 0.5), (5, 8, 2, 400, 0.3), (7, 12, 3, 600, 0.7), (7, 6, 3, 300, 0.0), (8, 5, 2, 300, 1.0), (9, 10, 2, 700, 0.5)]:
        X, near = named_points(t, n, d, k)
        seed = t.integer(1, 10**6)
        queries = _drawn(t, X, near, count, swap, seed)
        t.expect(np.array_equal(queries, _drawn(t, X, near, count, swap, seed)), "with the same seed your function must draw the same queries")
        source = np.rint(queries - np.arange(d) / 100).astype(int)
        t.expect(np.allclose(queries, source + np.arange(d) / 100, atol=1e-6) and (0 <= source).all() and (source < n).all(),
                 "each feature of a query is that of a real point, copied from the same column")
        _mixes(t, source, near, swap)
        if count >= 300:
            other = _drawn(t, X, near, count, swap, seed + 1)
            t.expect(not np.array_equal(queries, other), "another seed must draw other queries")
            _shares(t, source, near, swap)
    return "where every feature comes from, how often, and independently; the same seed draws the same"


def _drawn(t: Trial, X: np.ndarray, near: np.ndarray, count: int, swap: float, seed: int) -> np.ndarray:
    queries = _array(t.call(X, near, count, swap, seed))
    t.expect(queries.shape == (count, X.shape[1]), f"there must be {count} queries of {X.shape[1]} features; yours have shape {queries.shape}")
    return queries


def _pairs(row: np.ndarray, near: np.ndarray) -> list[tuple[int, int]]:
    """All (point, neighbour) that explain a query."""
    used = set(row.tolist())
    return [(i, j) for i in range(len(near)) for j in near[i].tolist() if used <= {i, j}]


def _mixes(t: Trial, source: np.ndarray, near: np.ndarray, swap: float) -> None:
    for row in source:
        used = sorted(set(row.tolist()))
        t.expect(bool(_pairs(row, near)), f"a query mixes the points {used}, which are no point and one of its neighbours")


def _shares(t: Trial, source: np.ndarray, near: np.ndarray, swap: float) -> None:
    """Frequencies, where point and neighbour cannot be confused; six standard errors wide."""
    count, d = source.shape
    explained = [(row, _pairs(row, near)) for row in source]
    known = [(row, pairs[0]) for row, pairs in explained if len(pairs) == 1]
    if 0 < swap < 1:
        mixed = np.mean([len(set(row.tolist())) == 2 for row in source])
        wanted = 1 - swap**d - (1 - swap) ** d
        t.expect(mixed >= wanted - 6 * np.sqrt(0.25 / count), "too few queries mix a point with a neighbour: draw for every feature anew")
        swapped = np.array([row == j for row, (i, j) in known]) if known else np.zeros((0, d))
        if len(swapped) > 50:
            share, width = swapped.mean(), 6 * np.sqrt(0.25 / swapped.size)
            t.expect(abs(share - swap) <= width + 0.03, f"of all features {share:.2f} come from the neighbour; with probability {swap:.2f} each should")
            patterns = {tuple(row) for row in swapped.tolist()}
            t.expect(len(patterns) > 3, "all queries swap the same features: draw them for each query anew")
            t.expect(len(set(swapped.sum(1).tolist())) > 2, "all queries swap equally many features: toss a coin for each feature")
    else:
        t.expect(all(len(set(row.tolist())) == 1 for row in source), f"with swap {swap:g} a query is a whole point")
    _uses(t, source, near, swap, known)


def _uses(t: Trial, source: np.ndarray, near: np.ndarray, swap: float, known: list[tuple[np.ndarray, tuple[int, int]]]) -> None:
    n = len(near)
    if swap == 0:
        counts = np.bincount(source[:, 0], minlength=n)
        t.expect(counts.min() >= 0.4 * len(source) / n, "some points are hardly ever used: draw among all of them")
    elif swap == 1:
        wanted = np.bincount(near.ravel(), minlength=n) / near.size        # every point as often as it is a neighbour
        share = np.bincount(source[:, 0], minlength=n) / len(source)
        t.expect(np.abs(share - wanted).max() <= 6 * np.sqrt(0.25 / len(source)), "with swap 1 each query is a neighbour, any one of the point's neighbours, of any point")
    elif len(known) > 100:
        firsts = np.bincount([i for _, (i, _) in known], minlength=n)
        t.expect(firsts.min() >= 0.3 * len(known) / n, "some points are never used: draw among all of them")
        slots = {near[i].tolist().index(j) for _, (i, j) in known}
        t.expect(len(slots) == near.shape[1], "some neighbours are never used: draw among all columns of `near`")


# -- 10.5 ----------------------------------------------------------------------------------------------


def random_nodes(t: Trial, leaves: int, widths: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(feature, level, label) of a tree in preorder; what does not count is 0."""
    left = preorder(grown(t, leaves))[0]
    f, b, c = widths
    leaf = left < 0
    feature = np.where(leaf, -1, t.integers(0, 2**f - 1, left.shape).numpy())
    level = np.where(leaf, 0, t.integers(0, 2**b - 1, left.shape).numpy())
    return feature, level, np.where(leaf, t.integers(0, 2**c - 1, left.shape).numpy(), 0)


def unpacked(data: np.ndarray, widths: tuple[int, int, int]) -> tuple[list[tuple[int, ...]], int]:
    """The nodes that some bytes hold, and how many bits they took; the shape of the tree says where it ends."""
    f, b, c = widths
    bits, at, open_nodes, nodes = "".join(map(str, np.unpackbits(data))), 0, 1, []
    while open_nodes:
        fields = (c,) if bits[at] == "1" else (f, b)
        leaf, at = bits[at] == "1", at + 1
        values = []
        for width in fields:
            values.append(int(bits[at : at + width], 2))
            at += width
        nodes.append((-1, *values) if leaf else tuple(values))
        open_nodes += -1 if leaf else 1
    return nodes, at


def verify_pack_tree(t: Trial) -> str:
    count = 0
    for leaves, widths in [(1, (3, 2, 4)), (2, (3, 4, 2)), (2, (6, 4, 4)), (3, (5, 8, 1)), (6, (6, 4, 4)), (11, (4, 6, 3)), (30, (7, 5, 4)), (17, (1, 1, 1))]:
        for _ in range(2):
            feature, level, label = random_nodes(t, leaves, widths)
            output = t.call(feature, level, label, widths)
            data = np.frombuffer(output, np.uint8) if isinstance(output, bytes | bytearray) else output
            t.expect(isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 1, "return bytes: an array of type uint8, as np.packbits makes it")
            bits = (leaves - 1) * (1 + widths[0] + widths[1]) + leaves * (1 + widths[2])
            wanted = [(-1, int(k)) if a < 0 else (int(a), int(b)) for a, b, k in zip(feature, level, label)]
            t.expect(len(data) == -(-bits // 8), f"{leaves} leaves and {leaves - 1} inner nodes take {bits} bits with these widths, {-(-bits // 8)} bytes; yours are {len(data)}")
            try:
                nodes = unpacked(data, widths)[0]
            except (ValueError, IndexError):
                nodes = None
            t.expect(nodes == wanted, "read again node by node (flag, then the fields, the high bit of each first), your bytes are another tree")
            count += 1
    return f"{count} trees: as many bytes as counted, and read again they are the same nodes"
