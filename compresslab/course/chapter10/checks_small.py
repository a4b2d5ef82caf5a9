"""What a right answer to exercises 10.6 to 10.10 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier

from compresslab.course.trial import Trial, Wrong


def draw(t: Trial, *shape: int) -> np.ndarray:
    """Standard normal numbers, float64, without ties."""
    return t.randn(*shape).double().numpy()


def array(t: Trial, output: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The output as an array of reals of this shape."""
    try:
        found = np.asarray(output, dtype=np.float64)
    except (TypeError, ValueError):
        raise Wrong(f"{what} must be an array of shape {shape}") from None
    t.expect(found.shape == shape, f"{what} must have shape {shape}, yours has {found.shape}")
    return found


def pair(t: Trial, output: Any, words: str) -> tuple[Any, Any]:
    t.expect(isinstance(output, tuple | list) and len(output) == 2, f"return two things: {words}")
    return output[0], output[1]


# -- 10.6 Hart's condensed set -----------------------------------------------------------------------


def verify_condense(t: Trial) -> str:
    line = np.array([[0.0], [1.0], [2.1], [3.3], [4.6], [6.0]])
    cases = [(line, np.array([0, 0, 0, 1, 1, 1])), (line, np.array([1, 1, 1, 1, 1, 1])), (line, np.array([0, 1, 0, 0, 1, 1])),
             (line[[3, 0, 4, 1, 5, 2]], np.array([1, 0, 1, 0, 1, 0]))]
    for n, d, classes in [(7, 1, 2), (12, 2, 2), (25, 2, 3), (40, 3, 3), (60, 2, 4)]:
        for spread in (1.0, 3.0):
            y = np.array([t.integer(0, classes - 1) for _ in range(n)])
            X = draw(t, n, d)
            X[:, 0] += spread * y
            cases.append((X, y))
    for X, y in cases:
        output = t.call(X, y)
        t.expect(isinstance(output, tuple | list | np.ndarray), "return a list of row numbers")
        store = np.asarray(output)
        whole = store.ndim == 1 and len(store) > 0 and store.dtype.kind in "iu" and store.min() >= 0 and store.max() < len(X)
        t.expect(whole, f"return row numbers of X, whole numbers from 0 to {len(X) - 1}")
        t.expect(len(set(store.tolist())) == len(store), "a point stands in the store twice")
        judge = KNeighborsClassifier(1).fit(X[store], y[store])
        wrong = int((judge.predict(X) != y).sum())
        t.expect(wrong == 0, f"your store has {wrong} of its own {len(X)} training points wrong: it is not consistent")
        wanted = hart(X, y)
        t.expect(store.tolist() == wanted, f"Hart's rule ends with the rows {wanted[:12]} here, in this order; yours are {store.tolist()[:12]}")
    return f"{len(cases)} training sets, each consistent and row for row Hart's"


def hart(X: np.ndarray, y: np.ndarray) -> list[int]:
    """By scikit-learn's neighbours, fitted anew for each visit."""
    store = [0]
    while True:
        before = len(store)
        for i in range(len(X)):
            gap = np.linalg.norm(X[store] - X[i], axis=1)
            if y[store[int(gap.argmin())]] != y[i]:
                store.append(i)
        if len(store) == before:
            return store


# -- 10.7 one step for prototypes and scores ---------------------------------------------------------


def prototype_loss(X: np.ndarray, Y: np.ndarray, B: np.ndarray, Z: np.ndarray, gamma: float) -> float:
    """1 / (2 n) times the sum of squared errors."""
    squared = np.array([[sum((x - b) ** 2) for b in B] for x in X])
    return float(((np.exp(-(gamma**2) * squared) @ Z - Y) ** 2).sum() / (2 * len(X)))


def slopes(X, Y, B, Z, gamma, which: str) -> np.ndarray:
    """The gradient by central differences."""
    at = {"B": B, "Z": Z}
    found = np.zeros_like(at[which])
    for place in np.ndindex(found.shape):
        losses = []
        for sign in (1, -1):
            moved = at[which].copy()
            moved[place] += sign * 1e-5
            losses.append(prototype_loss(X, Y, **{**at, which: moved}, gamma=gamma))
        found[place] = (losses[0] - losses[1]) / 2e-5
    return found


def verify_prototype_step(t: Trial) -> str:
    cases = [(np.array([[0.0]]), np.array([[1.0]]), np.array([[1.0]]), np.array([[0.5]]), 0.7, 0.1)]
    for n, D, m, L in [(2, 1, 2, 2), (3, 2, 2, 2), (5, 3, 2, 3), (4, 2, 6, 3)]:
        Y = np.eye(L)[[t.integer(0, L - 1) for _ in range(n)]]
        cases.append((draw(t, n, D), Y, draw(t, m, D), draw(t, m, L), t.uniform(0.2, 0.9), t.uniform(0.05, 2)))
    for X, Y, B, Z, gamma, lr in cases:
        new_B, new_Z = pair(t, t.call(X, Y, B, Z, gamma, lr), "the new B and the new Z")
        new_B, new_Z = array(t, new_B, B.shape, "the new B"), array(t, new_Z, Z.shape, "the new Z")
        for name, old, new in (("Z", Z, new_Z), ("B", B, new_B)):
            wanted = -lr * slopes(X, Y, B, Z, gamma, name)
            t.close((new - old).ravel()[:6], wanted.ravel()[:6], f"the step of {name}, against the slope of the loss measured by small moves", atol=1e-7)
            t.close(new - old, wanted, f"the step of {name}", atol=1e-7)
    return f"{len(cases)} steps, each along the slope measured by small moves of every single number"


# -- 10.8 tables of distances ------------------------------------------------------------------------


def verify_look_up(t: Trial) -> str:
    cases = [(np.array([1.0, 5.0]), np.array([[[0.0], [3.0]], [[5.0], [7.0]]]), np.array([[0, 0], [1, 0], [0, 1], [1, 1]]))]
    for M, k, width, N in [(1, 3, 2, 4), (2, 2, 1, 5), (2, 4, 3, 6), (4, 3, 2, 1), (3, 3, 3, 3), (8, 16, 4, 50)]:
        codes = np.array([[t.integer(0, k - 1) for _ in range(M)] for _ in range(N)])
        cases.append((draw(t, M * width), draw(t, M, k, width), codes))
    cases.append((cases[3][0], cases[3][1], cases[3][2].astype(np.uint8)))
    for query, books, codes in cases:
        tables, distances = pair(t, t.call(query, books, codes), "the tables and the distances")
        tables = array(t, tables, books.shape[:2], "the tables")
        distances = array(t, distances, (len(codes),), "the distances")
        width = books.shape[2]
        for m, book in enumerate(books):
            for v, word in enumerate(book):
                wanted = math.fsum((a - b) ** 2 for a, b in zip(query[m * width : (m + 1) * width], word))
                t.close(tables[m, v], wanted, f"entry ({m}, {v}) of the tables")
        for j, code in enumerate(codes):
            decoded = np.concatenate([books[m][v] for m, v in enumerate(code)])
            t.close(distances[j], float(((query - decoded) ** 2).sum()), f"the squared distance to the decoded point {j}")
    return f"{len(cases)} indexes: every table entry, and every distance as if the point had been decoded"


# -- 10.9 a reduced set ------------------------------------------------------------------------------


def verify_reduce_expansion(t: Trial) -> str:
    X = np.array([[0.0], [1.0], [3.0]])
    cases = [(X, np.array([1.0, -2.0, 0.5]), X[[0]], 0.5), (X, np.array([1.0, -2.0, 0.5]), np.array([[0.4], [2.0]]), 0.5), (X, np.array([2.0, 1.0, -1.0]), X, 0.5)]
    for n, D, m in [(5, 2, 1), (6, 2, 3), (12, 3, 4), (15, 5, 6), (4, 3, 6)]:
        cases.append((draw(t, n, D), draw(t, n), 1.5 * draw(t, m, D), t.uniform(0.3, 1.0)))
    for X, alpha, Z, gamma in cases:
        beta, error = pair(t, t.call(X, alpha, Z, gamma), "the coefficients beta and the error")
        beta, error = array(t, beta, (len(Z),), "beta"), t.number(error)
        slope = rbf_kernel(Z, gamma=gamma) @ beta - rbf_kernel(Z, X, gamma=gamma) @ alpha
        t.close(slope, np.zeros(len(Z)), "beta is not the best: the error's slope along each coefficient, which must be 0", atol=1e-6)
        both, signs = np.concatenate([X, Z]), np.concatenate([alpha, -beta])
        wanted = float(signs @ rbf_kernel(both, gamma=gamma) @ signs)
        t.close(error, wanted, "the squared distance between the long and the short sum", atol=1e-7)
    return f"{len(cases)} expansions: no coefficient can be bettered, and the error is the squared distance of the two sums"


# -- 10.10 a table in C ------------------------------------------------------------------------------

LINE = re.compile(r"\s*static\s+const\s+(\w+)\s+(\w+)\s*\[\s*(\d+)\s*\]\s*=\s*\{(.*)\}\s*;\s*", re.DOTALL)
TYPES = {f"{sign}int{bits}_t": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32)} | {"float": np.dtype(np.float32), "double": np.dtype(np.float64)}
WHOLE = re.compile(r"[+-]?\d+")
REAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?[fF]?")


def read_c(text: Any) -> tuple[str, str, int, np.ndarray]:
    """(type, name, size, values) as a C compiler would understand one line."""
    found = LINE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise Wrong("return one line, static const <type> <name>[<size>] = {<numbers>};")
    kind, name, size, inside = found.groups()
    if kind not in TYPES:
        raise Wrong(f"there is no type {kind!r} in this header; there are {', '.join(TYPES)}")
    words = [word.strip() for word in inside.split(",")]
    words = words[:-1] if words and not words[-1] else words
    return kind, name, int(size), np.array([_number(word, TYPES[kind]) for word in words])


def _number(word: str, kind: np.dtype) -> float:
    if WHOLE.fullmatch(word):
        value = int(word)
    elif REAL.fullmatch(word):
        value = float(word.rstrip("fF"))
    elif word.lower().lstrip("+-").startswith("0x") and "p" in word.lower():
        value = float.fromhex(word.rstrip("fF"))
    else:
        raise Wrong(f"{word!r} is no number of C" + (": an f needs a point or an exponent before it" if re.fullmatch(r"[+-]?\d+[fF]", word) else ""))
    if kind.kind in "iu":  # C drops the bits that do not fit, and says nothing
        span = 2 ** (8 * kind.itemsize)
        value = int(value) % span
        return float(value - span if kind.kind == "i" and value >= span // 2 else value)
    return float(np.array(value, kind))


def use_c(function: Any, name: str, values: np.ndarray) -> tuple[Any, ...]:
    """What C reads, the numbers in nine digits: as texts, because answers are compared with a tolerance otherwise."""
    output = function(name, values)
    if not isinstance(output, str):
        return (f"return one line of C, a text, not {type(output).__name__}", "")
    try:
        kind, name, size, read = read_c(output)
    except Wrong as reason:
        return (str(reason), output[:80])
    return kind, name, size, [f"{number:.9g}" for number in read]


def verify_c_table(t: Trial) -> str:
    whole = [np.array([1, -2]), np.array([0, 130]), np.array([-1, 130]), np.array([127, -128]), np.array([-129]), np.array([255, 0]), np.array([256]), np.array([32768]),
             np.array([-1, 32768]), np.array([70000, 5]), np.arange(-3, 3).reshape(2, 3), np.array([[1, 2], [3, 4], [5, 6]]), np.array([3, 200], np.uint8)]
    reals = [np.array([0.5, -2.0]), np.array([1.0, 100.0]), np.array([[0.25, 0.75], [1.5, -3.0]]), np.float32([3.1e-7, 0.1]), np.array([1 + 2**-23, 2 - 2**-23, 0.125]),
             np.float32([2.5e9, -1e-12]), np.arange(6.0).reshape(3, 2), np.float32(draw(t, 3, 4)), draw(t, 5), np.float32(1e-5 * draw(t, 2, 2, 2))]
    for i, values in enumerate(whole + reals):
        output = t.use(use_c, f"a{i}", values)
        t.expect(len(output) == 4, output[0])
        kind, name, size, words = output
        read = np.array(words, np.float64)
        t.expect(name == f"a{i}", f"the array must be called {f'a{i}'!r}, yours is {name!r}")
        t.expect(size == values.size, f"C would make room for {size} numbers, there are {values.size}")
        t.expect(len(read) == size, f"the braces hold {len(read)} numbers, there are {size}")
        wanted = values.flatten().astype(np.float64 if values.dtype.kind in "iu" else np.float32)
        t.expect((TYPES[kind].kind == "f") == (values.dtype.kind == "f"), f"whole numbers stay whole numbers, reals are float: not {kind}")
        off = np.flatnonzero(read.astype(wanted.dtype) != wanted)
        if len(off):
            raise Wrong(f"C reads {read[off[0]]:.9g} for number {off[0]}, it must be {wanted[off[0]]:.9g}")
        least = 4 if values.dtype.kind == "f" else min(np.iinfo(d).bits // 8 for d in TYPES.values() if d.kind in "iu" and np.iinfo(d).min <= values.min() and values.max() <= np.iinfo(d).max)
        t.expect(TYPES[kind].itemsize == least, f"{kind} takes {TYPES[kind].itemsize} bytes a number, {least} {'is' if least == 1 else 'are'} enough")
    return f"{len(whole + reals)} arrays, read back as C would, bit for bit, in the smallest type"
