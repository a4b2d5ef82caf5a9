"""What a right answer to exercises 7.1 to 7.6 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from compresslab.core.codes import CodebookCode
from compresslab.core.huffman import code_lengths
from compresslab.core.sparse import GapSparseCode
from compresslab.course.trial import Trial

# -- 7.1 the bits of a pruned and clustered weight ---------------------------------------------------


def sparse(t: Trial, shape: tuple[int, ...], left: int, levels: int | None = None) -> Tensor:
    """A weight with `left` nonzero numbers at random places, of at most `levels` different values."""
    n = math.prod(shape)
    weight = torch.zeros(n)
    values = t.randn(left) if levels is None else t.integers(1, levels, (left,)).float() * (2 * t.integers(0, 1, (left,)) - 1)
    weight[torch.randperm(n, generator=t.rng)[:left]] = torch.where(values == 0, 1.0, values)
    return weight.view(shape)


def stored_bits(weight: Tensor, index_bits: int, bits: int) -> tuple[int, int, int]:
    """The arrays of the library's code: gaps, indices, code book."""
    code = GapSparseCode.from_dense(weight, partial(CodebookCode.from_dense, bits=bits, iterations=1), index_bits=index_bits)
    return 8 * code.gaps.nbytes, 8 * code.values.packed.nbytes, 8 * code.values.codebook.nbytes


def verify_coded_bits(t: Trial) -> str:
    last = torch.zeros(12)
    last[[1, 11]] = torch.tensor([-2.0, 3.0])
    cases = [(torch.tensor([0, 5.0, 0, 0, 0, 0, -7.0, 0]), 2, 1), (last, 2, 3), (torch.zeros(3, 4), 3, 2), (torch.ones(9), 4, 8)]
    for g in (6, 7, 8, 14, 15, 16):                                         # gaps around a multiple of G = 7
        weight = torch.zeros(g + 3)
        weight[0], weight[g + 1] = 1.0, -1.0
        cases.append((weight, 3, 4))
    for shape, left in [((4, 10), 3), ((20, 30), 40), ((8, 3, 3, 3), 30), ((50, 40), 700), ((64, 64), 9), ((6, 50), 300)]:
        cases.append((sparse(t, shape, left), t.integer(2, 8), t.integer(1, 8)))
        cases.append((sparse(t, shape, left, levels=3), t.integer(2, 5), t.integer(3, 6)))
    cases.append((sparse(t, (40, 30), 100).T, 4, 3))                         # not contiguous: counted row by row all the same
    kinds: set[str] = set()                                                  # complained of last: until then a wrong count is the better diagnosis
    for weight, index_bits, bits in cases:
        output = t.call(weight, index_bits, bits)
        t.expect(isinstance(output, tuple | list) and len(output) == 3, "return three numbers: the bits of gaps, indices and code book")
        for what, got, wanted in zip(("gaps", "indices", "code book"), output, stored_bits(weight, index_bits, bits)):
            t.expect(t.number(got) == wanted, f"the {what} take {wanted} bits here, you count {t.number(got):g}")
        kinds |= {type(got).__name__ for got in output if not isinstance(got, Integral)}
    t.call(*cases[0])                                                        # a small one to show
    t.expect(not kinds, f"the counts are right, but must be ints; yours: {', '.join(sorted(kinds))}")
    return f"{len(cases)} weights, array for array what the library's code stores"


# -- 7.2 entropy -------------------------------------------------------------------------------------


def information(symbols: Tensor) -> float:
    """Bits per symbol by summing -log2 of its own share over every symbol."""
    counts = Counter(symbols.flatten().tolist())
    n = symbols.numel()
    return math.fsum(-count * math.log2(count / n) for count in counts.values()) / n if n else 0.0


def verify_entropy(t: Trial) -> str:
    cases = [torch.tensor([0, 1]), torch.tensor([0, 0, 1, 7]), torch.tensor([3, 3, 3]), torch.tensor([2, 2, 2, 5]), torch.tensor([[1, 2], [3, 4]]),
             torch.tensor([-1, 0, 1, -1]), torch.tensor([10**12, 0, 0]), torch.zeros(0, dtype=torch.int64), torch.tensor([4])]
    for shape, high in [((50,), 1), ((30, 7), 4), ((4, 3, 3, 3), 9), ((500,), 30), ((200,), 10**6)]:
        symbols = t.integers(-high, high, shape)
        cases += [symbols, torch.minimum(symbols.abs(), t.integers(0, high, shape)), symbols.clamp(max=0)]
    cases += [t.integers(0, 255, (300,)).to(torch.uint8), t.integers(0, 5, (20, 9)).T]
    for symbols in cases:
        got = t.number(t.call(symbols))
        wanted = information(symbols)
        t.expect(not math.isnan(got), "the entropy is nan: 0 log 0 counts as 0, and no symbols at all need 0 bits")
        t.expect(abs(got - wanted) <= 1e-4 * (1 + wanted), f"the entropy is {wanted:.6g} bits per symbol, you return {got:.6g}")
    return f"{len(cases)} sequences: no symbol, a single one, negative and huge ones among them"


# -- 7.3 an optimal prefix code ----------------------------------------------------------------------


def least_cost(counts: list[int]) -> int:
    """The total length of Huffman's code: every merge adds its sum once."""
    row, total = sorted(count for count in counts if count > 0), 0
    if len(row) == 1:
        return row[0]
    while len(row) > 1:
        merged = row[0] + row[1]
        total += merged
        row = sorted([merged, *row[2:]])
    return total


def some_counts(t: Trial) -> list[list[int]]:
    """Two and three symbols first; absent ones, ties, steep and flat distributions."""
    cases = [[3, 1], [1, 1, 1], [4, 2, 1, 1], [5, 0, 2, 1], [7], [0, 9, 0], [], [0, 0], [1, 1, 1, 1], [6, 5, 4, 4], [1, 2, 3, 4, 5], [10, 1, 1, 1, 1]]
    fibonacci = [1, 1]
    while len(fibonacci) < 24:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    cases += [fibonacci, [100, 1], [15, 7, 6, 6, 5], [4, 4, 4, 3, 3, 3, 2], [1] * 8, [1] * 11]
    for size, high in [(5, 9), (6, 3), (12, 100), (40, 7), (40, 10**6), (256, 50)]:
        cases.append(t.integers(0, high, (size,)).tolist())
    return cases


def verify_huffman_lengths(t: Trial) -> str:
    cases = some_counts(t)
    for counts in cases:
        output = t.call(counts)
        lengths = np.array(output.tolist() if isinstance(output, Tensor | np.ndarray) else list(output), dtype=float)
        t.expect(lengths.shape == (len(counts),), f"there are {len(counts)} symbols, so as many lengths; yours: {lengths.size}")
        present = np.array(counts) > 0 if counts else np.zeros(0, dtype=bool)
        t.expect((lengths == np.round(lengths)).all() and (lengths >= 0).all(), "a length is a whole number of bits, 0 or more")
        t.expect((lengths[~present] == 0).all(), "a symbol that never occurs gets length 0")
        t.expect((lengths[present] >= 1).all(), "every symbol that occurs needs at least 1 bit, also one that is alone")
        kraft = math.fsum(2.0 ** -lengths[present])
        t.expect(kraft <= 1, f"no prefix code has these lengths: the sum of 2^-length is {kraft:g}, and must not exceed 1")
        cost, best = int(sum(n * l for n, l in zip(counts, lengths))), least_cost(counts)
        t.expect(cost == best, f"all symbols together take {cost} bits with these lengths; {best} are enough")
        if present.sum() > 1:
            t.expect(kraft == 1, f"the code is not full: the sum of 2^-length is {kraft:g}, and 1 in an optimal code of two symbols or more")
            n = sum(counts)
            bound = math.fsum(-c * math.log2(c / n) for c in counts if c) / n
            t.expect(bound <= cost / n + 1e-9 and cost / n < bound + 1, "the mean length is not between H and H + 1")
    small = [counts for counts in cases if 0 < sum(c > 0 for c in counts) <= 60 and sum(counts) < 2**14]
    for counts in small:                                                      # a second opinion, by another algorithm
        t.expect(least_cost(counts) == int((np.array(counts) * code_lengths(np.array(counts))).sum()), "the two oracles disagree")
    return f"{len(cases)} tables of counts: a full prefix code with the least total length, H <= L < H + 1"


# -- 7.4 rate and error of a uniform grid ------------------------------------------------------------


def verify_uniform_rate(t: Trial) -> str:
    cases = [(torch.tensor([0.2, 0.9, -1.1, 3.0]), 1.0), (torch.tensor([0.0, 0.0]), 0.5), (torch.tensor([-0.7, 0.7, 0.7, 2.2]), 0.5)]
    for shape, step in [((50,), 0.5), ((20, 30), 0.1), ((400,), 2.0), ((8, 4, 3, 3), 0.03), ((500,), 0.004), ((300,), 30.0)]:
        cases.append((t.randn(*shape), step))
        cases.append((3 + 0.1 * t.randn(*shape), step))
    for weights, step in cases:
        output = t.call(weights, step)
        t.expect(isinstance(output, tuple | list) and len(output) == 2, "return two numbers: bits per weight and the mean squared error")
        bits, error = t.number(output[0]), t.number(output[1])
        w = weights.double()
        near = torch.floor(w / step)
        near = torch.where((w - step * near).abs() <= (w - step * (near + 1)).abs(), near, near + 1)
        wanted_error = float((w - step * near).square().mean())
        t.expect(abs(error - wanted_error) <= 1e-3 * wanted_error + 1e-9, f"the mean squared error is {wanted_error:.5g}, you return {error:.5g}")
        wanted = information(near.long())
        t.expect(abs(bits - wanted) <= 1e-3 * (1 + wanted), f"the whole numbers have an entropy of {wanted:.5g} bits per weight, you return {bits:.5g}")
    return f"{len(cases)} weights and steps, from a few levels to more than a thousand"


# -- 7.5 clip and partition --------------------------------------------------------------------------


def partitioned(weight: Tensor, fraction: float, bits: int) -> tuple[Tensor, Tensor, bool]:
    """What is clipped, the values shown, and whether both are beyond doubt (no ties at the limit, nothing near an edge)."""
    w = weight.flatten().double()
    order = w.abs().argsort(stable=True)
    count = round(fraction * len(w))
    kept = torch.ones(len(w), dtype=torch.bool)
    kept[order[:count]] = False
    sure = count in (0, len(w)) or bool(w.abs()[order[count - 1]] < w.abs()[order[count]])
    shown, left = torch.zeros_like(w), w[kept]
    if len(left):
        low, high = left.min(), left.max()
        place = (left - low) / (high - low) * (2**bits - 1) if high > low else torch.zeros_like(left)
        inner = (place > 0.5) & (place < 2**bits - 1.5)
        sure &= not bool((inner & ((place - place.round()).abs() < 1e-4)).any())
        interval = place.floor().clamp(max=2**bits - 2)
        for j in interval.unique():
            shown[kept.nonzero().flatten()[interval == j]] = left[interval == j].mean()
    return ~kept.view(weight.shape), shown.view(weight.shape), sure


def verify_clip_partition(t: Trial) -> str:
    cases = [(torch.tensor([0.1, -0.2, 1.0, 1.2, 3.0]), 0.4, 1), (torch.tensor([0.1, -0.2, 1.0, 1.2, 3.0]), 0.4, 2),
             (torch.tensor([[-4.0, 0.5], [0.2, -3.7], [2.0, 1.1]]), 1 / 3, 2), (torch.tensor([2.0, -1.0]), 1.0, 3),
             (torch.tensor([0.3, 0.7, 0.7, 0.7]), 0.25, 2), (torch.tensor([5.0]), 0.0, 4)]
    for shape in [(7,), (4, 5), (3, 2, 3, 3), (20, 30), (6, 1)]:
        for fraction, sided in ((0.0, False), (0.5, False), (0.5, True), (t.uniform(0.6, 0.95), False), (1.0, False)):
            case = None
            while case is None or not partitioned(*case)[2]:                   # a weight on an edge may go either way: draw again
                draw = t.randn(*shape)
                draw = draw.abs() + 0.2 if sided else draw + t.uniform(-0.3, 0.3)
                case = draw, fraction, t.integer(1, 5)
            cases.append(case)
    for weight, fraction, bits in cases:
        shown = t.tensor(t.call(weight, fraction, bits), shape=weight.shape).detach()
        clipped, wanted, _ = partitioned(weight, fraction, bits)
        t.expect((shown[clipped] == 0).all(), f"{int(clipped.sum())} weights, the smallest in size, must be 0 in this step; "
                                              f"{int((shown[clipped] != 0).sum())} of them are not")
        levels = shown[~clipped].unique()
        t.expect(len(levels) <= 2**bits - 1, f"{2**bits - 1} intervals give at most as many values beside 0; yours has {len(levels)}")
        t.close(shown.double(), wanted, "a weight that is left is not shown as the mean of its interval", rtol=1e-4, atol=1e-5)
    tied = torch.tensor([1.0, -1.0, 1.0, 1.0, 2.0, -2.0])                      # ties: any three of the four, but exactly three
    shown = t.tensor(t.call(tied, 0.5, 2), shape=tied.shape)
    t.expect((shown == 0).sum() == 3, "with ties, too, exactly round(fraction * n) weights are clipped")
    return f"{len(cases)} weights: what is clipped, the intervals of what is left, and their means; nothing clipped at 0, all at 1"


# -- 7.6 the gradient of a level ---------------------------------------------------------------------


def verify_point_gradient(t: Trial) -> str:
    cases = [(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]), torch.tensor([3.0]), 2),
             (torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0, 0, 1, 1]), torch.tensor([10.0, 1.0]), 3)]
    for buckets, size, points in [(1, 5, 4), (4, 1, 3), (3, 4, 2), (5, 6, 8), (2, 50, 16), (16, 16, 4), (7, 3, 1)]:
        cases.append((t.randn(buckets * size), t.integers(0, max(points - 2, 0), (buckets * size,)), 0.2 + 3 * torch.rand(buckets, generator=t.rng), points))
    for gradient, indices, scales, points in cases:
        got = t.tensor(t.call(gradient, indices, scales, points)).detach()
        t.expect(got.shape == (points,), f"there are {points} levels, so {points} gradients, also of a level that no weight takes; yours has shape "
                                         f"{tuple(got.shape)}")
        p = torch.zeros(points, dtype=torch.float64, requires_grad=True)
        shown = scales.double()[:, None] * p[indices].view(len(scales), -1)
        wanted = torch.autograd.grad(shown.flatten(), p, gradient.double())[0]
        t.close(got.double(), wanted, "that is not what autograd finds for the levels", rtol=1e-3, atol=1e-5)
    return f"what autograd finds, for {len(cases)} weights in 1 to 16 buckets; 0 for a level that no weight takes"
