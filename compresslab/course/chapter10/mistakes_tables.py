"""Typical wrong answers to exercises 10.8 to 10.10: each one is run, to recognise it in a learner's answer."""

from __future__ import annotations

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel

# -- 10.8 tables of distances ------------------------------------------------------------------------


def _look_up(query, codebooks, codes, *, pieces=None, table=None, total=None):
    """`look_up` with its parts as arguments."""
    M = len(codebooks)
    pieces = query.reshape(M, 1, -1) if pieces is None else pieces(query, codebooks)
    tables = ((pieces - codebooks) ** 2).sum(2) if table is None else table(pieces, codebooks)
    picked = tables[np.arange(M), codes]
    return tables, picked.sum(1) if total is None else total(picked)


def quantized_query(query, codebooks, codes):
    """Symmetric: the query becomes code words first."""
    def nearest(query, codebooks):
        pieces = query.reshape(len(codebooks), 1, -1)
        best = ((pieces - codebooks) ** 2).sum(2).argmin(1)
        return codebooks[np.arange(len(codebooks)), best][:, None]

    return _look_up(query, codebooks, codes, pieces=nearest)


def roots_in_tables(query, codebooks, codes):
    return _look_up(query, codebooks, codes, table=lambda pieces, books: np.sqrt(((pieces - books) ** 2).sum(2)))


def root_of_the_sum(query, codebooks, codes):
    return _look_up(query, codebooks, codes, total=lambda picked: np.sqrt(picked.sum(1)))


def every_mth(query, codebooks, codes):
    """Piece m takes every M-th number."""
    return _look_up(query, codebooks, codes, pieces=lambda query, books: query.reshape(-1, len(books)).T[:, None])


def mean_of_pieces(query, codebooks, codes):
    return _look_up(query, codebooks, codes, total=lambda picked: picked.mean(1))


def first_piece_only(query, codebooks, codes):
    return _look_up(query, codebooks, codes, total=lambda picked: picked[:, 0])


def largest_piece(query, codebooks, codes):
    return _look_up(query, codebooks, codes, total=lambda picked: picked.max(1))


def inner_products(query, codebooks, codes):
    return _look_up(query, codebooks, codes, table=lambda pieces, books: (pieces * books).sum(2))


def absolute_gaps(query, codebooks, codes):
    return _look_up(query, codebooks, codes, table=lambda pieces, books: np.abs(pieces - books).sum(2))


def first_table_for_all(query, codebooks, codes):
    tables, _ = _look_up(query, codebooks, codes)
    return tables, tables[0][codes].sum(1)


def distances_only(query, codebooks, codes):
    return _look_up(query, codebooks, codes)[1]


# -- 10.9 a reduced set ------------------------------------------------------------------------------


def _error(X, alpha, Z, beta, gamma, mixed=2.0):
    long = alpha @ rbf_kernel(X, gamma=gamma) @ alpha
    return long - mixed * beta @ rbf_kernel(Z, X, gamma=gamma) @ alpha + beta @ rbf_kernel(Z, gamma=gamma) @ beta


def _best(X, alpha, Z, gamma):
    return np.linalg.solve(rbf_kernel(Z, gamma=gamma), rbf_kernel(Z, X, gamma=gamma) @ alpha)


def nearest_keeps_its_own(X, alpha, Z, gamma):
    """Each z takes the coefficient of the support vector that is nearest to it."""
    beta = alpha[rbf_kernel(Z, X, gamma=gamma).argmax(1)]
    return beta, _error(X, alpha, Z, beta, gamma)


def nearest_collects(X, alpha, Z, gamma):
    """Each support vector hands its coefficient to the nearest z."""
    beta = np.zeros(len(Z))
    np.add.at(beta, rbf_kernel(Z, X, gamma=gamma).argmax(0), alpha)
    return beta, _error(X, alpha, Z, beta, gamma)


def not_inverted(X, alpha, Z, gamma):
    beta = rbf_kernel(Z, X, gamma=gamma) @ alpha
    return beta, _error(X, alpha, Z, beta, gamma)


def multiplied(X, alpha, Z, gamma):
    beta = rbf_kernel(Z, gamma=gamma) @ rbf_kernel(Z, X, gamma=gamma) @ alpha
    return beta, _error(X, alpha, Z, beta, gamma)


def fits_at_the_vectors(X, alpha, Z, gamma):
    """Least squares of the function's values at the support vectors."""
    beta = np.linalg.lstsq(rbf_kernel(X, Z, gamma=gamma), rbf_kernel(X, gamma=gamma) @ alpha, rcond=None)[0]
    return beta, _error(X, alpha, Z, beta, gamma)


def in_the_plane(X, alpha, Z, gamma):
    """Least squares of the points themselves, without a kernel."""
    beta = np.linalg.lstsq(Z.T, X.T @ alpha, rcond=None)[0]
    return beta, _error(X, alpha, Z, beta, gamma)


def gamma_squared(X, alpha, Z, gamma):
    beta = _best(X, alpha, Z, gamma**2)
    return beta, _error(X, alpha, Z, beta, gamma**2)


def root_returned(X, alpha, Z, gamma):
    beta = _best(X, alpha, Z, gamma)
    return beta, np.sqrt(max(_error(X, alpha, Z, beta, gamma), 0.0))


def mixed_term_once(X, alpha, Z, gamma):
    beta = _best(X, alpha, Z, gamma)
    return beta, _error(X, alpha, Z, beta, gamma, mixed=1.0)


def lengths_subtracted(X, alpha, Z, gamma):
    """The difference of the two norms, not the norm of the difference."""
    beta = _best(X, alpha, Z, gamma)
    long, short = alpha @ rbf_kernel(X, gamma=gamma) @ alpha, beta @ rbf_kernel(Z, gamma=gamma) @ beta
    return beta, (np.sqrt(long) - np.sqrt(short)) ** 2


def relative_error(X, alpha, Z, gamma):
    beta = _best(X, alpha, Z, gamma)
    return beta, _error(X, alpha, Z, beta, gamma) / (alpha @ rbf_kernel(X, gamma=gamma) @ alpha)


def coefficients_only(X, alpha, Z, gamma):
    return _best(X, alpha, Z, gamma)


# -- 10.10 a table in C: half-repaired ---------------------------------------------------------------

SMALLEST = ("int8", "uint8", "int16", "uint16", "int32")


def smallest_type(values):
    return next(k for k in SMALLEST if np.iinfo(k).min <= values.min() and values.max() <= np.iinfo(k).max)


def smallest_signed(values):
    return next(k for k in ("int8", "int16", "int32") if np.iinfo(k).min <= values.min() and values.max() <= np.iinfo(k).max)


def exact(number):
    return f"{number:.8e}f"


def _table(name, values, *, whole=smallest_type, real=exact, size=lambda values: values.size, order="C", kind="float"):
    """`c_table` with its parts as arguments."""
    flat = values.flatten(order).tolist()
    if values.dtype.kind in "iu":
        kind, words = whole(values) + "_t", [str(number) for number in flat]
    else:
        words = [real(number) for number in flat]
    return f"static const {kind} {name}[{size(values)}] = {{{', '.join(words)}}};"


def _broken(**parts):
    def c_table(name, values):
        return _table(name, values, **parts)

    return c_table


def _nine_digits(number):
    return f"{number:.9g}f"


always_int8 = _broken(whole=lambda values: "int8")
always_int32 = _broken(whole=lambda values: "int32")
numpys_own = _broken(whole=lambda values: values.dtype.name if values.dtype.itemsize < 8 else "int32")
signed_only = _broken(whole=smallest_signed)
unsigned_low = _broken(whole=lambda values: next(k for k in SMALLEST if values.max() <= np.iinfo(k).max))
largest_only = _broken(whole=lambda values: next(k for k in SMALLEST if np.abs(values).max() <= np.iinfo(k).max and (values.min() >= 0 or k[0] == "i")))
four_digits = _broken(real=lambda number: f"{number:.4f}f")
six_digits = _broken(real=lambda number: f"{number:.6g}" + ("f" if set(".e") & set(f"{number:.6g}") else ".0f"))
fixed_point = _broken(real=lambda number: f"{number:.9f}f")
seven_digits = _broken(real=lambda number: f"{number:.6e}f")
no_point = _broken(real=_nine_digits)
rows_counted = _broken(size=len)
columns_first = _broken(order="F")
doubles = _broken(kind="double", real=lambda number: repr(float(number)))
buggy = _broken(whole=lambda values: "int8", real=lambda number: f"{number:.4f}f", size=len, order="F")
