r"""How the matrices of a small model are stored: nonzeros only, few bits each, one scale per matrix.

.. math:: \hat a = s\,q, \qquad q = \mathrm{clip}\big(\mathrm{round}(a / s), -q_{max}, q_{max}\big), \qquad
          q_{max} = 2^{\,bits-1} - 1, \quad s = \frac{\max |a|}{q_{max}}

A model of two kilobytes has a handful of matrices, and a name in a file's header takes as much as twenty of
its weights. So all scales stand in one array, and all shapes in another.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from compresslab.core.bits import pack_bits, packed_size, unpack_bits
from compresslab.core.errors import check_int

Matrix = NDArray[np.float32]
FLOAT = 32


def check_bits(bits: int) -> int:
    """Return ``bits`` if a weight can have so many: 2 to 8, or 32 for float32.

    Raises:
        TypeError, ValueError: anything else.
    """
    return bits if bits == FLOAT and not isinstance(bits, bool) else check_int("bits", bits, 2, 8)


def codes_of(matrix: NDArray, bits: int) -> tuple[NDArray[np.int8], np.float32]:
    """Whole numbers q and the scale s of a matrix.

    Args:
        matrix: any shape, finite.
        bits: 2 to 8.

    Returns:
        q, int8, the matrix's shape, in [-q_max, q_max]; s, float32, the real value of one step (1 if all are 0).
        s is rounded up to 16 significant bits, so that every s q is exact in float32: a model in memory, in a
        file and in C then has the same weights, bit for bit.

    Example:
        >>> codes_of(np.array([0.5, -1.5, 0.76]), bits=3)
        (array([ 1, -3,  2], dtype=int8), np.float32(0.5))
    """
    top = 2 ** (bits - 1) - 1
    largest = float(np.abs(matrix).max()) if matrix.size else 0.0
    mantissa, exponent = np.frexp(largest / top)
    scale = np.float32(np.ldexp(np.ceil(mantissa * 2**16), exponent - 16)) if largest > 0 else np.float32(1)
    return np.clip(np.rint(matrix / scale), -top, top).astype(np.int8), scale


def rounded(matrix: NDArray, bits: int) -> Matrix:
    """The matrix as it comes back from storage: s q, or its float32 values for 32 bits."""
    if bits == FLOAT:
        return matrix.astype(np.float32)
    codes, scale = codes_of(matrix, bits)
    return codes * scale


def pack_matrices(matrices: dict[str, NDArray], bits: int, sparse: Iterable[str] = ()) -> dict[str, NDArray]:
    """The arrays that store some matrices.

    Args:
        matrices: {name: (rows, columns)}.
        bits: 2 to 8, or 32 for float32 values.
        sparse: names of the matrices of which only nonzeros are stored, beside one bit for every place.

    Returns:
        per matrix its values (float32, or codes q + q_max packed without gaps, uint8) and, if sparse, its
        ``*_mask``; for all of them ``layout`` (bits, rows, columns, rows, columns, ...) and ``scales``.

    Raises:
        TypeError, ValueError: ``bits`` out of range, or a matrix that has not two axes.
    """
    check_bits(bits)
    arrays, layout, scales = {}, [bits], []
    for name, matrix in matrices.items():
        if matrix.ndim != 2:
            raise ValueError(f"{name} must be a matrix, got shape {matrix.shape}")
        layout += matrix.shape
        values = matrix.astype(np.float32).ravel()
        if name in sparse:
            arrays[f"{name}_mask"] = np.packbits(values != 0)
            values = values[values != 0]
        if bits < FLOAT:
            codes, scale = codes_of(values, bits)
            values = pack_bits(torch.from_numpy(codes.astype(np.int16) + 2 ** (bits - 1) - 1), bits).numpy()
            scales.append(scale)
        arrays[name] = values
    if scales:
        arrays["scales"] = np.array(scales, np.float32)
    return arrays | {"layout": np.array(layout, np.uint16)}


def unpack_matrices(arrays: dict[str, NDArray], names: Iterable[str]) -> dict[str, Matrix]:
    """Undo ``pack_matrices``.

    Args:
        arrays: what ``pack_matrices`` returned, and perhaps more.
        names: of the matrices, in the order in which they were packed.

    Returns:
        {name: (rows, columns), float32}.

    Raises:
        KeyError, ValueError: an array is missing, or does not fit the others.

    Example:
        >>> stored = pack_matrices({"W": np.array([[0.0, 3.0], [-1.0, 0.0]])}, bits=3, sparse=["W"])
        >>> unpack_matrices(stored, ["W"])["W"].tolist()
        [[0.0, 3.0], [-1.0, 0.0]]
    """
    bits, *sides = (int(number) for number in arrays["layout"])
    matrices = {}
    for i, name in enumerate(names):
        rows, columns = sides[2 * i], sides[2 * i + 1]
        full = np.zeros(rows * columns, np.float32)
        mask = np.ones(len(full), bool)
        if f"{name}_mask" in arrays:
            mask = np.unpackbits(arrays[f"{name}_mask"])[: len(full)].astype(bool)
        values, count = arrays[name], int(mask.sum())
        if bits < FLOAT:
            if len(values) != packed_size(count, bits):
                raise ValueError(f"{name}: {count} codes of {bits} bits do not fill {len(values)} bytes")
            codes = unpack_bits(torch.from_numpy(values.copy()), bits, count).numpy() - 2 ** (bits - 1) + 1
            values = codes * arrays["scales"][i]
        full[mask] = values
        matrices[name] = full.reshape(rows, columns)
    return matrices


def keep_largest(matrix: NDArray, density: float) -> NDArray:
    r"""Iterative hard thresholding's projection: the nearest matrix with so few nonzeros.

    .. math:: \Pi(A) = \arg\min_{\|B\|_0 \le \mathrm{round}(density \cdot n)} \|A - B\|^2

    Args:
        matrix: any shape.
        density: fraction of the entries that may stay, in [0, 1]. Of equal magnitudes the first ones stay.

    Returns:
        a new matrix; the entries that stay keep their values.

    Example:
        >>> keep_largest(np.array([[1.0, -3.0], [2.0, 0.5]]), 0.5).tolist()
        [[0.0, -3.0], [2.0, 0.0]]
    """
    flat = matrix.ravel()
    kept = np.argsort(-np.abs(flat), kind="stable")[: round(density * flat.size)]
    result = np.zeros_like(flat)
    result[kept] = flat[kept]
    return result.reshape(matrix.shape)
