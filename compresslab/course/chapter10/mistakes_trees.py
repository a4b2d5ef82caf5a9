"""Wrong answers to exercises 10.1 and 10.2, each a mistake that somebody makes."""

from __future__ import annotations

import numpy as np


def _below(left, right, node):
    """(leaves, inner nodes) of a branch."""
    leaves, inner, stack = [], [], [node]
    while stack:
        t = stack.pop()
        if left[t] < 0:
            leaves.append(t)
        else:
            inner.append(t)
            stack += [left[t], right[t]]
    return leaves, inner


# -- 10.1 --------------------------------------------------------------------------------------------


def per_leaf(left, right, risk, node):
    leaves, _ = _below(left, right, node)
    return (risk[node] - risk[leaves].sum()) / len(leaves)


def not_divided(left, right, risk, node):
    leaves, _ = _below(left, right, node)
    return risk[node] - risk[leaves].sum()


def children_only(left, right, risk, node):
    return risk[node] - risk[left[node]] - risk[right[node]]


def all_nodes_below(left, right, risk, node):
    leaves, inner = _below(left, right, node)
    return (risk[node] - risk[leaves + inner[1:]].sum()) / (len(leaves) - 1)


def with_itself(left, right, risk, node):
    leaves, inner = _below(left, right, node)
    return (risk[node] - risk[leaves + inner].sum()) / (len(leaves) - 1)


def divided_by_nodes(left, right, risk, node):
    leaves, inner = _below(left, right, node)
    return (risk[node] - risk[leaves].sum()) / (len(leaves) + len(inner) - 1)


def turned(left, right, risk, node):
    leaves, _ = _below(left, right, node)
    return (risk[leaves].sum() - risk[node]) / (len(leaves) - 1)


def mean_of_leaves(left, right, risk, node):
    leaves, _ = _below(left, right, node)
    return (risk[node] - risk[leaves].mean()) / (len(leaves) - 1)


def of_the_tree(left, right, risk, node):
    leaves, _ = _below(left, right, 0)
    return (risk[0] - risk[leaves].sum()) / (len(leaves) - 1)


def leaves_by_number(left, right, risk, node):
    leaves = np.flatnonzero(left < 0)
    leaves = leaves[leaves > node]
    return (risk[node] - risk[leaves].sum()) / max(len(leaves) - 1, 1)


def left_side_only(left, right, risk, node):
    leaves, _ = _below(left, right, left[node])
    others, _ = _below(left, right, node)
    return (risk[node] - risk[leaves].sum()) / (len(others) - 1)


# -- 10.2 --------------------------------------------------------------------------------------------


def _strength(left, right, risk, t):
    leaves, _ = _below(left, right, t)
    return (risk[t] - risk[leaves].sum()) / (len(leaves) - 1)


def _path(left, right, risk, score=_strength, choose=np.argmin, count=lambda leaves, inner: len(leaves), start=True, alpha=None, last=0):
    """The reference, with one thing of it exchanged."""
    left = left.copy()
    path = [(0.0, count(*_below(left, right, 0)))] if start else []
    while (nodes := sorted(_below(left, right, 0)[1])) and len(nodes) > last:
        strengths = [score(left, right, risk, t) for t in nodes]
        weakest = nodes[int(choose(strengths))]
        price = strengths[nodes.index(weakest)] if alpha is None else alpha(left, right, risk, weakest)
        left[weakest] = -1
        path.append((price, count(*_below(left, right, 0))))
    return path


def computed_once(left, right, risk):
    strength = {t: _strength(left, right, risk, t) for t in _below(left, right, 0)[1]}
    return _path(left, right, risk, score=lambda *tree_and_node: strength[tree_and_node[3]])


def strongest_first(left, right, risk):
    return _path(left, right, risk, choose=np.argmax)


def smallest_loss(left, right, risk):
    return _path(left, right, risk, score=not_divided, alpha=_strength)


def counts_nodes(left, right, risk):
    return _path(left, right, risk, count=lambda leaves, inner: len(leaves) + len(inner))


def counts_inner_nodes(left, right, risk):
    return _path(left, right, risk, count=lambda leaves, inner: len(inner))


def starts_late(left, right, risk):
    return _path(left, right, risk, start=False)


def stops_early(left, right, risk):
    return _path(left, right, risk, last=1)


def orphans(left, right, risk):
    """Does not see that nodes below a collapsed one are gone."""
    left, path = left.copy(), [(0.0, int((left < 0).sum()))]
    while len(nodes := np.flatnonzero(left >= 0)):
        strengths = [_strength(left, right, risk, t) for t in nodes]
        weakest = int(np.argmin(strengths))
        left[nodes[weakest]] = -1
        path.append((strengths[weakest], len(_below(left, right, 0)[0])))
    return path


def by_depth(left, right, risk):
    """Cuts the deepest nodes first, as a depth limit does."""
    depth, stack = {0: 0}, [0]
    while stack:
        t = stack.pop()
        if left[t] >= 0:
            depth[left[t]] = depth[right[t]] = depth[t] + 1
            stack += [left[t], right[t]]
    return _path(left, right, risk, score=lambda l, r, k, t: -depth[t], alpha=_strength)


def risk_added(left, right, risk):
    """The risk of the tree in place of the price."""
    left = left.copy()
    path = [(float(risk[_below(left, right, 0)[0]].sum()), len(_below(left, right, 0)[0]))]
    while nodes := _below(left, right, 0)[1]:
        left[nodes[int(np.argmin([_strength(left, right, risk, t) for t in nodes]))]] = -1
        leaves = _below(left, right, 0)[0]
        path.append((float(risk[leaves].sum()), len(leaves)))
    return path


def in_place(left, right, risk):
    path = _path(left, right, risk)
    left[0] = -1
    return path
