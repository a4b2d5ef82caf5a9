"""Wrong answers to exercises 10.3 to 10.5, each a mistake that somebody makes."""

from __future__ import annotations

import numpy as np

# -- 10.3 --------------------------------------------------------------------------------------------


def _indicators(columns, width):
    Phi = np.zeros((len(columns), width))
    np.put_along_axis(Phi, columns, 1.0, axis=1)
    return Phi


def _ridge(Phi, Y, l2):
    return np.linalg.solve(Phi.T @ Phi + l2 * np.eye(Phi.shape[1]), Phi.T @ Y)


def _phi(leaves, node_counts):
    return _indicators(leaves + np.cumsum([0, *node_counts[:-1]]), sum(node_counts))


def no_offsets(leaves, node_counts, Y, l2):
    Phi = _indicators(leaves, sum(node_counts))
    return Phi, _ridge(Phi, Y, l2)


def shifted_offsets(leaves, node_counts, Y, l2):
    Phi = _indicators((leaves + np.cumsum(node_counts)) % sum(node_counts), sum(node_counts))
    return Phi, _ridge(Phi, Y, l2)


def equal_offsets(leaves, node_counts, Y, l2):
    widest = max(node_counts)
    Phi = _indicators(leaves + widest * np.arange(len(node_counts)), widest * len(node_counts))
    return Phi, _ridge(Phi, Y, l2)


def numbers_themselves(leaves, node_counts, Y, l2):
    Phi = leaves.astype(float)
    return Phi, _ridge(Phi, Y, l2)


def averaged(leaves, node_counts, Y, l2):
    Phi = _phi(leaves, node_counts) / len(node_counts)
    return Phi, _ridge(Phi, Y, l2)


def no_ridge(leaves, node_counts, Y, l2):
    Phi = _phi(leaves, node_counts)
    return Phi, np.linalg.pinv(Phi) @ Y


def ridge_everywhere(leaves, node_counts, Y, l2):
    Phi = _phi(leaves, node_counts)
    gram = Phi.T @ Phi
    return Phi, np.linalg.lstsq(gram + l2, Phi.T @ Y, rcond=None)[0]


def ridge_times_points(leaves, node_counts, Y, l2):
    Phi = _phi(leaves, node_counts)
    return Phi, _ridge(Phi, Y, l2 * len(Phi))


def ridge_squared(leaves, node_counts, Y, l2):
    Phi = _phi(leaves, node_counts)
    return Phi, _ridge(Phi, Y, l2**2)


def each_leaf_alone(leaves, node_counts, Y, l2):
    Phi = _phi(leaves, node_counts)
    return Phi, (Phi.T @ Y) / (Phi.sum(0) + l2)[:, None]


def each_tree_alone(leaves, node_counts, Y, l2):
    Phi, start = _phi(leaves, node_counts), 0
    W = np.zeros((Phi.shape[1], Y.shape[1]))
    for count in node_counts:
        block = slice(start, start + count)
        W[block] = _ridge(Phi[:, block], Y, l2) / len(node_counts)
        start += count
    return Phi, W


def weights_only(leaves, node_counts, Y, l2):
    return _ridge(_phi(leaves, node_counts), Y, l2)


def transposed(leaves, node_counts, Y, l2):
    Phi = _phi(leaves, node_counts)
    return Phi, _ridge(Phi, Y, l2).T


# -- 10.4 --------------------------------------------------------------------------------------------


def _start(X, near, count, seed):
    rng = np.random.default_rng(seed)
    first = rng.integers(len(X), size=count)
    return rng, first, near[first, rng.integers(near.shape[1], size=count)]


def whole_rows(X, near, count, swap, seed):
    rng, first, second = _start(X, near, count, seed)
    return np.where(rng.random((count, 1)) < swap, X[second], X[first])


def one_mask(X, near, count, swap, seed):
    rng, first, second = _start(X, near, count, seed)
    return np.where(rng.random(X.shape[1]) < swap, X[second], X[first])


def between(X, near, count, swap, seed):
    rng, first, second = _start(X, near, count, seed)
    return X[first] + swap * (X[second] - X[first])


def random_between(X, near, count, swap, seed):
    rng, first, second = _start(X, near, count, seed)
    return X[first] + rng.random((count, 1)) * (X[second] - X[first])


def any_other(X, near, count, swap, seed):
    rng, first, _ = _start(X, near, count, seed)
    second = rng.integers(len(X), size=count)
    return np.where(rng.random((count, X.shape[1])) < swap, X[second], X[first])


def features_alone(X, near, count, swap, seed):
    rng = np.random.default_rng(seed)
    return X[rng.integers(len(X), size=(count, X.shape[1])), np.arange(X.shape[1])]


def keeps_with_swap(X, near, count, swap, seed):
    rng, first, second = _start(X, near, count, seed)
    return np.where(rng.random((count, X.shape[1])) < swap, X[first], X[second])


def nearest_only(X, near, count, swap, seed):
    rng, first, _ = _start(X, near, count, seed)
    return np.where(rng.random((count, X.shape[1])) < swap, X[near[first, 0]], X[first])


def neighbour_per_feature(X, near, count, swap, seed):
    rng, first, _ = _start(X, near, count, seed)
    slot = rng.integers(near.shape[1], size=(count, X.shape[1]))
    second = X[near[first[:, None], slot], np.arange(X.shape[1])]
    return np.where(rng.random((count, X.shape[1])) < swap, second, X[first])


def seed_ignored(X, near, count, swap, seed):
    return _swapped(X, near, count, swap, 0)


def _swapped(X, near, count, swap, seed):
    rng, first, second = _start(X, near, count, seed)
    return np.where(rng.random((count, X.shape[1])) < swap, X[second], X[first])


def noise(X, near, count, swap, seed):
    queries = _swapped(X, near, count, swap, seed)
    return queries + np.random.default_rng(seed).normal(0, 0.1, queries.shape)


def first_points(X, near, count, swap, seed):
    rng = np.random.default_rng(seed)
    first = np.minimum(np.arange(count), len(X) - 1)
    second = near[first, rng.integers(near.shape[1], size=count)]
    return np.where(rng.random((count, X.shape[1])) < swap, X[second], X[first])


def half_always(X, near, count, swap, seed):
    return _swapped(X, near, count, 0.5, seed)


def one_for_each(X, near, count, swap, seed):
    return _swapped(X, near, len(X), swap, seed)


# -- 10.5 --------------------------------------------------------------------------------------------


def _bits(feature, level, label, leaf_fields, inner_fields):
    """Node by node, the fields that these functions name."""
    return "".join(leaf_fields(node) if feature[node] < 0 else inner_fields(node) for node in range(len(feature)))


def _bytes(bits):
    return np.packbits([int(bit) for bit in bits])


def flag_turned(feature, level, label, widths):
    f, t, c = widths
    return _bytes(_bits(feature, level, label, lambda n: "0" + format(label[n], f"0{c}b"),
                        lambda n: "1" + format(feature[n], f"0{f}b") + format(level[n], f"0{t}b")))


def no_flag(feature, level, label, widths):
    f, t, c = widths
    return _bytes(_bits(feature, level, label, lambda n: format(label[n], f"0{c}b"),
                        lambda n: format(feature[n], f"0{f}b") + format(level[n], f"0{t}b")))


def variable_width(feature, level, label, widths):
    return _bytes(_bits(feature, level, label, lambda n: "1" + format(label[n], "b"),
                        lambda n: "0" + format(feature[n], "b") + format(level[n], "b")))


def leaf_as_node(feature, level, label, widths):
    f, t, c = widths
    return _bytes(_bits(feature, level, label, lambda n: "1" + "0" * (f + t) + format(label[n], f"0{c}b"),
                        lambda n: "0" + format(feature[n], f"0{f}b") + format(level[n], f"0{t}b") + "0" * c))


def class_in_every_node(feature, level, label, widths):
    f, t, c = widths
    return _bytes(_bits(feature, level, label, lambda n: "1" + format(label[n], f"0{c}b"),
                        lambda n: "0" + format(feature[n], f"0{f}b") + format(level[n], f"0{t}b") + format(label[n], f"0{c}b")))


def whole_bytes(feature, level, label, widths):
    f, t, c = widths
    rows = [("1" + format(label[n], f"0{c}b")) if feature[n] < 0 else "0" + format(feature[n], f"0{f}b") + format(level[n], f"0{t}b")
            for n in range(len(feature))]
    return _bytes("".join(row + "0" * (-len(row) % 8) for row in rows))


def level_first(feature, level, label, widths):
    f, t, c = widths
    return _bytes(_bits(feature, level, label, lambda n: "1" + format(label[n], f"0{c}b"),
                        lambda n: "0" + format(level[n], f"0{t}b") + format(feature[n], f"0{f}b")))


def low_bits_first(feature, level, label, widths):
    f, t, c = widths
    return _bytes(_bits(feature, level, label, lambda n: "1" + format(label[n], f"0{c}b")[::-1],
                        lambda n: "0" + format(feature[n], f"0{f}b")[::-1] + format(level[n], f"0{t}b")[::-1]))


def little_endian(feature, level, label, widths):
    f, t, c = widths
    bits = _bits(feature, level, label, lambda n: "1" + format(label[n], f"0{c}b"),
                 lambda n: "0" + format(feature[n], f"0{f}b") + format(level[n], f"0{t}b"))
    return np.packbits([int(bit) for bit in bits], bitorder="little")


def zeros_in_front(feature, level, label, widths):
    f, t, c = widths
    bits = _bits(feature, level, label, lambda n: "1" + format(label[n], f"0{c}b"),
                 lambda n: "0" + format(feature[n], f"0{f}b") + format(level[n], f"0{t}b"))
    return _bytes("0" * (-len(bits) % 8) + bits)


def not_packed(feature, level, label, widths):
    f, t, c = widths
    bits = _bits(feature, level, label, lambda n: "1" + format(label[n], f"0{c}b"),
                 lambda n: "0" + format(feature[n], f"0{f}b") + format(level[n], f"0{t}b"))
    return np.array([int(bit) for bit in bits], np.uint8)


def by_kind(feature, level, label, widths):
    f, t, c = widths
    leaf, inner = np.flatnonzero(feature < 0), np.flatnonzero(feature >= 0)
    flags = "".join("1" if a < 0 else "0" for a in feature)
    bits = flags + "".join(format(feature[n], f"0{f}b") for n in inner) + "".join(format(level[n], f"0{t}b") for n in inner)
    return _bytes(bits + "".join(format(label[n], f"0{c}b") for n in leaf))
