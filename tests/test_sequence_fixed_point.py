"""The fixed-point LSTM cell against a reference in Python's own integers, and against the float cell."""

import math

import pytest
import torch

from compresslab.sequence.fixed_point import (
    FRACTION,
    FixedPointCell,
    from_fixed,
    look_up,
    lookup_table,
    saturate,
    to_fixed,
)
from compresslab.sequence.lstm import lstm_cell


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights(hidden=5, inputs=3, size=0.6):
    return size * randn(4 * hidden, inputs), size * randn(4 * hidden, hidden, seed=1), size * randn(4 * hidden, seed=2)


def divide(number, places):
    """number / 2**places to the nearest integer, halves away from zero, with Python's integers."""
    size = (abs(number) + 2 ** (places - 1)) // 2**places
    return size if number >= 0 else -size


def clamp(number, bits=16):
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, number))


def integer_step(cell, x, h, c):
    """One text, one step, number by number."""
    W, U, b, hidden = cell.weight_ih.tolist(), cell.weight_hh.tolist(), cell.bias.tolist(), len(h)
    sigmoid, tanh = cell.sigmoid.tolist(), cell.tanh.tolist()
    width = 2**16 // len(sigmoid)
    a = [clamp(divide(sum(w * v for w, v in zip(W[j], x)) + sum(u * v for u, v in zip(U[j], h)) + b[j], cell.fraction))
         for j in range(4 * hidden)]  # fmt: skip
    new_h, new_c = [], []
    for j in range(hidden):
        i, f, o = (sigmoid[(a[j + k * hidden] + 2**15) // width] for k in (0, 1, 3))
        g = tanh[(a[j + 2 * hidden] + 2**15) // width]
        new_c.append(clamp(divide(f * c[j] + i * g, 12)))
        new_h.append(clamp(divide(o * tanh[(new_c[j] + 2**15) // width], 12)))
    return new_h, new_c


@pytest.mark.parametrize("weight_bits, table_bits, size", [(12, 11, 0.6), (4, 6, 0.3), (16, 16, 3.0), (8, 1, 0.6)])
def test_equals_python_integers(weight_bits, table_bits, size):
    cell = FixedPointCell(*weights(size=size), weight_bits=weight_bits, table_bits=table_bits)
    x = to_fixed(3 * randn(2, 6, 3, seed=5), FRACTION)
    h = c = torch.zeros(2, 5, dtype=torch.int64)
    wanted = [([0] * 5, [0] * 5) for _ in range(2)]
    for step in range(6):
        h, c = cell.step(x[:, step], (h, c))
        wanted = [integer_step(cell, x[n, step].tolist(), *wanted[n]) for n in range(2)]
        assert h.tolist() == [w[0] for w in wanted] and c.tolist() == [w[1] for w in wanted]


def float_states(x, W, U, b):
    h, c, out = torch.zeros(len(x), U.shape[1]), torch.zeros(len(x), U.shape[1]), []
    for column in x.unbind(1):
        h, c = lstm_cell(column, (h, c), W, U, b)
        out.append(h)
    return torch.stack(out, 1)


def test_comes_near_the_float_cell_and_nearer_with_more_bits():
    parts, x = weights(), randn(4, 20, 3, seed=7)
    wanted = float_states(x, *parts)
    errors = [(FixedPointCell(*parts, weight_bits=bits, table_bits=table).run(x) - wanted).abs().max().item()
              for bits, table in ((4, 16), (8, 16), (12, 16), (16, 6), (16, 16))]  # fmt: skip
    assert errors[0] > errors[1] > errors[2] and errors[3] > errors[4]
    assert errors[4] < 0.003


def test_fixed_point_numbers():
    x = 20 * randn(200)
    q = to_fixed(x, 8, 16)
    inside = x.abs() < 127
    assert ((from_fixed(q, 8) - x).abs() <= 2**-9 + 1e-7)[inside].all()
    assert to_fixed(torch.tensor([1e30, -1e30]), 12).tolist() == [32767, -32768]
    assert saturate(torch.tensor([200, -200]), 8).tolist() == [127, -128]


@pytest.mark.parametrize("table_bits", [3, 11, 16])
def test_a_table_is_the_function_in_the_middle_of_each_cell(table_bits):
    table, every = lookup_table(torch.tanh, table_bits), torch.arange(-(2**15), 2**15)
    width = 2 ** (16 - table_bits)
    got = look_up(table, every)
    cells = (every + 2**15) // width
    middle = (cells.double() * width - 2**15 + (width - 1) / 2) / 4096
    assert (got - torch.tanh(middle) * 4096).abs().max() <= 0.5
    assert (got[1:] >= got[:-1]).all()
    assert (got / 4096 - torch.tanh(every / 4096)).abs().max() <= width / 4096 / 2 + 2**-13
    assert math.isclose(look_up(lookup_table(torch.sigmoid, 16), torch.tensor([0])).item(), 2048)


@pytest.mark.parametrize("call, message", [
    (lambda: FixedPointCell(*weights(), weight_bits=17), "weight_bits must be"),
    (lambda: FixedPointCell(*weights(), table_bits=17), "table_bits must be"),
    (lambda: FixedPointCell(torch.ones(4, 2), torch.ones(4, 2), torch.ones(4)), r"must be \(4 H, E\)"),
    (lambda: FixedPointCell(torch.full((4, 2), 40000.0), torch.ones(4, 1), torch.ones(4)), "below 2"),
    (lambda: FixedPointCell(torch.full((4, 2), 9.0), torch.ones(4, 1), torch.ones(4), weight_bits=4), "no fraction bits"),
    (lambda: to_fixed(torch.tensor([torch.nan]), 4), "nan"),
    (lambda: to_fixed(torch.zeros(1), 31), "fraction must be"),
    (lambda: to_fixed(torch.zeros(1), 4, bits=1), "bits must be"),
    (lambda: lookup_table(torch.tanh, 0), "table_bits must be"),
])  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
