"""Right answers to exercises 10.1 to 10.5 that look different. All of them must pass."""

from __future__ import annotations

import numpy as np

# -- 10.1 --------------------------------------------------------------------------------------------


def strength_recursive(left, right, risk, node):
    """(risk, leaves) of a branch from those of its children."""

    def branch(t):
        if left[t] == -1:
            return float(risk[t]), 1
        (a, m), (b, n) = branch(left[t]), branch(right[t])
        return a + b, m + n

    saved, leaves = branch(node)
    return (float(risk[node]) - saved) / (leaves - 1)


def strength_by_parents(left, right, risk, node):
    """Every leaf climbs to see whether the node stands above it."""
    parent = {int(child): t for t in range(len(left)) for child in (left[t], right[t]) if child >= 0}
    total, count = 0.0, 0
    for t in range(len(left)):
        up = t
        while up != node and up in parent:
            up = parent[up]
        if left[t] < 0 and up == node:
            total, count = total + risk[t], count + 1
    return np.float64((risk[node] - total) / (count - 1))


# -- 10.2 --------------------------------------------------------------------------------------------


def path_with_sets(left, right, risk):
    """The leaves below every node, as sets; a collapse replaces them by the node."""
    below = {}

    def fill(t):
        below[t] = {t} if left[t] < 0 else fill(int(left[t])) | fill(int(right[t]))
        return below[t]

    fill(0)
    path = [(0.0, len(below[0]))]
    while len(below[0]) > 1:
        g = {t: (risk[t] - sum(risk[i] for i in own)) / (len(own) - 1) for t, own in below.items() if len(own) > 1}
        weakest = min(g, key=g.get)
        gone = below[weakest]
        for t, own in list(below.items()):
            if gone <= own:
                below[t] = (own - gone) | {weakest}
            elif own < gone:
                del below[t]
        path.append((g[weakest], len(below[0])))
    return path


def path_incremental(left, right, risk):
    """Branch totals once, then updated along the way up; a tuple of arrays, zipped at the end."""
    n = len(left)
    parent = -np.ones(n, int)
    for t in range(n):
        if left[t] >= 0:
            parent[left[t]] = parent[right[t]] = t
    total, leaves, order, stack = np.zeros(n), np.zeros(n, int), [], [0]
    while stack:
        t = stack.pop()
        order.append(t)
        if left[t] >= 0:
            stack += [left[t], right[t]]
    for t in reversed(order):
        if left[t] < 0:
            total[t], leaves[t] = risk[t], 1
        if parent[t] >= 0:
            total[parent[t]] += total[t]
            leaves[parent[t]] += leaves[t]
    dead, alphas, counts = left < 0, [0.0], [int(leaves[0])]
    while not dead[0]:
        g = np.where(dead, np.inf, (risk - total) / np.maximum(leaves - 1, 1))
        w = int(g.argmin())
        stack = [w]
        while stack:
            t = stack.pop()
            dead[t] = True
            if left[t] >= 0:
                stack += [left[t], right[t]]
        more, fewer, up = risk[w] - total[w], leaves[w] - 1, w
        while up >= 0:
            total[up] += more
            leaves[up] -= fewer
            up = parent[up]
        alphas.append(float(g[w]))
        counts.append(int(leaves[0]))
    return list(zip(alphas, counts))


# -- 10.3 --------------------------------------------------------------------------------------------


def refine_by_loops(leaves, node_counts, Y, l2):
    """One block of columns for each tree."""
    blocks = [np.eye(count)[leaves[:, tree]] for tree, count in enumerate(node_counts)]
    Phi = np.hstack(blocks)
    return Phi, np.linalg.inv(Phi.T @ Phi + np.diag(np.full(Phi.shape[1], float(l2)))) @ Phi.T @ Y


def refine_by_least_squares(leaves, node_counts, Y, l2):
    """Ridge regression as least squares with rows sqrt(l2) I below; or from the N x N system."""
    Phi = np.zeros((len(leaves), sum(node_counts)))
    start = 0
    for tree, count in enumerate(node_counts):
        Phi[np.arange(len(leaves)), start + leaves[:, tree]] = 1
        start += count
    return Phi, Phi.T @ np.linalg.solve(Phi @ Phi.T + l2 * np.eye(len(Phi)), Y)


# -- 10.4 --------------------------------------------------------------------------------------------


def queries_by_loop(X, near, count, swap, seed):
    """One query after the other."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(count):
        i = rng.integers(len(X))
        other = X[rng.choice(near[i])]
        rows.append([other[d] if rng.random() < swap else X[i, d] for d in range(X.shape[1])])
    return np.array(rows).reshape(count, X.shape[1])


def queries_by_mask(X, near, count, swap, seed):
    """Start as copies; a mask drawn by choice overwrites; points in turn, so that each is used equally often."""
    rng = np.random.RandomState(seed)
    first = rng.permutation(np.arange(count) % len(X))
    slot = rng.randint(near.shape[1], size=count)
    queries = X[first].copy()
    mask = rng.binomial(1, swap, size=queries.shape).astype(bool)
    queries[mask] = X[near[first, slot]][mask]
    return queries


# -- 10.5 --------------------------------------------------------------------------------------------


def pack_with_shifts(feature, level, label, widths):
    """One long whole number, shifted left by each field; written big-endian with zeros behind it."""
    f, t, c = (int(width) for width in widths)
    number, length = 0, 0
    for a, b, k in zip(feature.tolist(), level.tolist(), label.tolist()):
        fields = [(1, 1), (k, c)] if a < 0 else [(0, 1), (a, f), (b, t)]
        for value, width in fields:
            number, length = (number << width) | value, length + width
    size = -(-length // 8)
    return np.frombuffer((number << (8 * size - length)).to_bytes(size, "big"), np.uint8)


def pack_with_arrays(feature, level, label, widths):
    """Bits of every field by shifting, joined, then packed."""
    f, t, c = widths

    def digits(value, width):
        return [(int(value) >> place) & 1 for place in range(width - 1, -1, -1)]

    row = []
    for node, a in enumerate(feature):
        row += [1, *digits(label[node], c)] if a == -1 else [0, *digits(a, f), *digits(level[node], t)]
    return np.packbits(np.array(row, dtype=np.uint8))
