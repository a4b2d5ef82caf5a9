r"""An LSTM cell in integers alone: fixed-point weights and states, tables for the curved functions.

A **fixed-point** number with f fraction bits is a whole number q that stands for :math:`q\,2^{-f}`. Products add
fraction bits; a shift to the right takes them away again. The sigmoid and tanh are looked up: the argument is
itself a 16-bit whole number, and its leading bits are the place in the table.

.. math:: a = (W_q x_q + U_q h_q + b_q) \gg f_w, \qquad i = \sigma_T[a_i], \dots, \qquad
          c_q \leftarrow (f_q c_q + i_q g_q) \gg F, \qquad h_q = (o_q \tanh_T[c_q]) \gg F

Source: S. Han et al., "ESE", FPGA 2017 (12-bit weights, 16-bit activations, look-up tables); S. Shin, K. Hwang,
W. Sung, "Fixed-point Performance Analysis of Recurrent Neural Networks", ICASSP 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from compresslab.core.errors import check_int
from compresslab.quantization.fixed_point import rounding_shift

FRACTION = 12  # of a 16-bit state: from -8 to 8 in steps of 1 / 4096
STATE_BITS = 16
State = tuple[Tensor, Tensor]


def to_fixed(x: Tensor, fraction: int, bits: int = STATE_BITS) -> Tensor:
    r"""Whole numbers that stand for x: :math:`q = \mathrm{clamp}(\mathrm{round}(2^f x))`; what does not fit saturates.

    Args:
        x: floating-point, any shape. fraction: f, 0 to 30. bits: of q, with its sign, 2 to 32.

    Returns:
        int64, the shape of x, from :math:`-2^{bits - 1}` to :math:`2^{bits - 1} - 1`. The error is at most
        :math:`2^{-f - 1}` where nothing saturates.

    Raises:
        TypeError, ValueError: numbers out of range; nan in x.

    Example:
        >>> to_fixed(torch.tensor([0.5, -1.26, 100.0]), fraction=2, bits=8)
        tensor([  2,  -5, 127])
    """
    check_int("fraction", fraction, 0, 30)
    check_int("bits", bits, 2, 32)
    if torch.isnan(x).any():
        raise ValueError("x must be numbers, got nan")
    return saturate(torch.round(x.double() * 2.0**fraction).clamp(-(2.0**62), 2.0**62).long(), bits)


def from_fixed(q: Tensor, fraction: int) -> Tensor:
    """The numbers that whole numbers stand for: q / 2**fraction, float32."""
    return (q.double() / 2.0**fraction).float()


def saturate(q: Tensor, bits: int = STATE_BITS) -> Tensor:
    """Whole numbers clamped to what `bits` bits with a sign can hold."""
    return q.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def lookup_table(function: Callable[[Tensor], Tensor], table_bits: int, fraction: int = FRACTION) -> Tensor:
    r"""A table of a function over all 16-bit arguments: each entry is the value in the middle of its cell.

    Args:
        function: elementwise, such as `torch.tanh`.
        table_bits: k, 1 to 16; the table has :math:`2^k` entries, for cells of :math:`2^{16 - k}` whole numbers.
        fraction: of argument and value.

    Returns:
        int64, (2**k,); entry 0 is for the most negative arguments.

    Raises:
        TypeError, ValueError: `table_bits` out of range.

    Example:
        >>> lookup_table(torch.sign, table_bits=1).tolist()  # negative, positive
        [-4096, 4096]
    """
    check_int("table_bits", table_bits, 1, STATE_BITS)
    cell = 2 ** (STATE_BITS - table_bits)
    middle = torch.arange(2**table_bits).double() * cell - 2 ** (STATE_BITS - 1) + (cell - 1) / 2
    return to_fixed(function(middle / 2.0**fraction), fraction)


def look_up(table: Tensor, q: Tensor) -> Tensor:
    """The entries of a table of 2**k for 16-bit whole numbers q: their k leading bits are the place."""
    cell_bits = STATE_BITS - (len(table).bit_length() - 1)
    return table[(q + 2 ** (STATE_BITS - 1)) >> cell_bits]


class FixedPointCell:
    """One step of an LSTM in whole numbers: multiplications, sums, shifts and look-ups.

    Args:
        weight_ih: (4 hidden, inputs), weight_hh: (4 hidden, hidden), bias: (4 hidden,), the sum of both biases; as
            of `sequence.lstm_cell`, floating-point.
        weight_bits: of a weight with its sign, 2 to 16. Both matrices have the same fraction bits: as many as the
            largest weight leaves.
        table_bits: k; the tables of sigmoid and tanh have 2**k entries.

    Raises:
        TypeError, ValueError: bits out of range, shapes that do not fit, weights of 2**15 or more.

    Source: see the module's text.
    Differs: sums are taken in 64 bits, rounded once, and then saturate to 16.

    Example:
        >>> zero, one = torch.zeros(4, 1), torch.full((1, 1), 4096)  # 1.0 with 12 fraction bits
        >>> cell = FixedPointCell(zero, zero, torch.zeros(4), table_bits=16)
        >>> h, c = cell.step(one, (one, one))
        >>> from_fixed(c, FRACTION).item()  # the gates are half open
        0.5
    """

    def __init__(
        self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, *, weight_bits: int = 12, table_bits: int = 11
    ) -> None:
        check_int("weight_bits", weight_bits, 2, STATE_BITS)
        rows, hidden = weight_hh.shape
        if rows != 4 * hidden or weight_ih.shape[:1] != (rows,) or bias.shape != (rows,):
            got = f"{tuple(weight_ih.shape)}, {tuple(weight_hh.shape)} and {tuple(bias.shape)}"
            raise ValueError(f"weights and bias must be (4 H, E), (4 H, H) and (4 H,), got {got}")
        largest = max(weight_ih.abs().max().item(), weight_hh.abs().max().item())
        whole_bits = math.floor(math.log2(largest)) + 1 if largest > 0 else 0  # largest < 2**whole_bits
        if whole_bits > STATE_BITS - 1:
            raise ValueError(f"weights must be below 2**{STATE_BITS - 1}, got {largest:g}")
        self.fraction = min(weight_bits - 1 - whole_bits, 30 - FRACTION)
        if self.fraction < 1:
            raise ValueError(f"weights up to {largest:g} leave no fraction bits of {weight_bits}: more weight_bits")
        self.weight_ih, self.weight_hh = (to_fixed(w, self.fraction, weight_bits) for w in (weight_ih, weight_hh))
        self.bias = to_fixed(bias, self.fraction + FRACTION, 32)
        self.sigmoid, self.tanh = (lookup_table(f, table_bits) for f in (torch.sigmoid, torch.tanh))

    def step(self, x: Tensor, state: State) -> State:
        """Whole numbers in, whole numbers out: x (B, inputs), h and c (B, hidden), int64 with 12 fraction bits."""
        h, c = state
        a = x @ self.weight_ih.T + h @ self.weight_hh.T + self.bias  # fraction + FRACTION fraction bits
        a = saturate(rounding_shift(a, self.fraction))
        i, f, g, o = a.chunk(4, dim=1)
        i, f, o, g = *(look_up(self.sigmoid, gate) for gate in (i, f, o)), look_up(self.tanh, g)
        c = saturate(rounding_shift(f * c + i * g, FRACTION))
        h = saturate(rounding_shift(o * look_up(self.tanh, c), FRACTION))
        return h, c

    def run(self, x: Tensor) -> Tensor:
        """The states h of a whole sequence: floating-point (B, L, inputs) -> (B, L, hidden), from state 0.

        Only here are numbers turned into whole ones, and back.
        """
        hidden = self.weight_hh.shape[1]
        zero = torch.zeros(len(x), hidden, dtype=torch.int64)
        state, out = (zero, zero), []
        for column in to_fixed(x, FRACTION).unbind(1):
            state = self.step(column, state)
            out.append(state[0])
        return from_fixed(torch.stack(out, dim=1), FRACTION)
