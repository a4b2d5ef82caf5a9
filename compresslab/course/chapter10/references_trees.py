"""Reference functions of exercises 10.1 to 10.5: their bodies are the notebook's solution regions."""

from __future__ import annotations

import numpy as np


def link_strength(left, right, risk, node):
    """g(node), a float: the risk that the branch below this inner node saves, for each leaf that it costs more than one."""
    leaves, below = [], [node]
    while below:
        t = below.pop()
        if left[t] < 0:
            leaves.append(t)
        else:
            below += [left[t], right[t]]
    return (risk[node] - risk[leaves].sum()) / (len(leaves) - 1)


def pruning_path(left, right, risk):
    """A list of (alpha, leaves that are left): (0.0, all leaves), then one pair for each weakest link that collapses, down to the root."""
    left = left.copy()

    def inner(t):
        return [] if left[t] < 0 else [t, *inner(left[t]), *inner(right[t])]

    path = [(0.0, len(inner(0)) + 1)]
    while nodes := inner(0):
        strengths = [link_strength(left, right, risk, t) for t in nodes]
        weakest = int(np.argmin(strengths))
        left[nodes[weakest]] = -1
        path.append((strengths[weakest], len(inner(0)) + 1))
    return path


def refine_forest(leaves, node_counts, Y, l2):
    """(Phi, W): the indicators (N, m) and what every node should say (m, L), with m = sum(node_counts)."""
    offsets = np.cumsum([0, *node_counts[:-1]])
    Phi = np.zeros((len(leaves), sum(node_counts)))
    np.put_along_axis(Phi, leaves + offsets, 1.0, axis=1)
    W = np.linalg.solve(Phi.T @ Phi + l2 * np.eye(Phi.shape[1]), Phi.T @ Y)
    return Phi, W


def draw_queries(X, near, count, swap, seed):
    """(count, D): random real points, each of whose features comes with probability `swap` from one of the point's neighbours."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(X), size=count)
    second = near[first, rng.integers(near.shape[1], size=count)]
    swapped = rng.random((count, X.shape[1])) < swap
    return np.where(swapped, X[second], X[first])


def pack_tree(feature, level, label, widths):
    """The tree as bytes (uint8): nodes in preorder, `widths` = bits of a feature, of a level, of a class."""
    f, t, c = widths
    bits = ""
    for node in range(len(feature)):
        if feature[node] < 0:
            bits += "1" + format(label[node], f"0{c}b")
        else:
            bits += "0" + format(feature[node], f"0{f}b") + format(level[node], f"0{t}b")
    return np.packbits([int(bit) for bit in bits])
