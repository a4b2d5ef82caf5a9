"""What a right answer to exercises 2.1 to 2.9 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.course.trial import Trial

ROOM = 1 + 1e-5  # what float32 may add to half a step


def _pair(t: Trial, output: Any, what: str) -> tuple[Any, Any]:
    t.expect(isinstance(output, (tuple, list)) and len(output) == 2, f"return two things: {what}")
    return output[0], output[1]


def _whole(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_floating_point() and value.dtype != torch.bool
    return hasattr(value, "__index__") and not isinstance(value, bool)


def verify_choose_scale(t: Trial) -> str:
    ranges = [(-1.0, 2.0, 2), (0.0, 0.0, 8), (-3.0, 1.0, 3), (-1.0, 1.1, 8), (0.0, 6.0, 8), (-4.0, 0.0, 4), (2.0, 6.0, 4),
              (-9.0, -3.0, 5), (2.0, 2.0, 8), (-3.0, -3.0, 4)]
    ranges += [(-t.uniform(0.1, 2), t.uniform(0.1, 30), bits) for bits in (2, 4, 8, 8)]
    ranges += [(t.uniform(1, 2), t.uniform(3, 4), 8), (-0.7 * t.uniform(1, 2), -0.1, 8)]
    for low, high, bits in ranges:
        scale, zero_point = _pair(t, t.call(low, high, bits), "(scale, zero_point)")
        scale = t.number(scale)
        t.expect(_whole(zero_point), f"zero_point is an integer on the grid; yours is {zero_point!r}")
        zero_point, top = int(zero_point), 2**bits - 1
        t.expect(math.isfinite(scale) and scale > 0, f"the scale must be a positive number, yours is {scale:g}")
        t.expect(0 <= zero_point <= top, f"with {bits} bits q goes from 0 to {top}; your zero_point is {zero_point}")
        low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            t.expect(scale == 1 and zero_point == 0, "a range of nothing but 0 must give scale 1 and zero_point 0")
            continue
        t.close(scale, (high - low) / top, f"the scale of {low:g} ... {high:g} with {bits} bits is not the range over the steps")
        for end, q in ((low, 0), (high, top)):
            here = scale * (q - zero_point)
            t.expect(abs(here - end) <= scale / 2 * ROOM + 1e-12,
                     f"q = {q} stands for {here:.4g}, more than half a step from the end {end:.4g}")
    return f"{len(ranges)} ranges: zero on the grid, both ends within half a step, all 2^bits levels used"


def verify_quantize(t: Trial) -> str:
    inputs = [(torch.tensor([-1.0, 0.0, 0.5, 1.5, 2.0]), 1.0, 1, 2), (torch.tensor([0.5, 1.5, 2.5, -0.5]), 1.0, 3, 4),
              (torch.tensor([-2.0, 44.0, 300.0, 1000.0, -260.0]), 1.0, 0, 8), (torch.tensor([1.7, -2.6]), 0.5, 20, 6)]
    inputs += [(3 * t.randn(4, 5), t.uniform(0.01, 0.03), t.integer(90, 160), 8), (t.randn(2, 3, 2, 2), 0.25, 7, 4),
               (4 * t.randn(5, 3).T, 0.125, t.integer(0, 31), 5), (t.randn(0, 3), 0.1, 8, 4),
               (t.integers(-300, 600, (60,)) / 8.0, 0.25, 65, 8)]
    for x, scale, zero_point, bits in inputs:
        q = t.tensor(t.call(x, scale, zero_point, bits), shape=x.shape, dtype=torch.uint8)
        wanted = [min(max(round(value / scale) + zero_point, 0), 2**bits - 1) for value in x.double().flatten().tolist()]
        got = q.flatten().tolist()
        odd = next((i for i in range(len(got)) if got[i] != wanted[i]), None)
        t.expect(odd is None, "" if odd is None else
                 f"x = {x.flatten()[odd]:.6g} with scale {scale:.4g}, zero_point {zero_point}, {bits} bits must become "
                 f"{wanted[odd]}, yours becomes {got[odd]}")
    return f"{len(inputs)} tensors: ties to even, saturation on both sides, empty and transposed"


def verify_snr_db(t: Trial) -> str:
    pairs = [(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])), (torch.tensor([1.0, -1.0]), torch.tensor([0.9, -0.9]))]
    for shape in [(6,), (3, 4), (2, 3, 2, 2)]:
        x = t.randn(*shape) + 3
        pairs += [(x, x + 0.01 * t.randn(*shape)), (x, x + 0.2), (x, 0.7 * x)]
    for x, x_hat in pairs:
        got = t.number(t.call(x, x_hat))
        signal, noise = float(x.double().square().sum()), float((x.double() - x_hat.double()).square().sum())
        t.close(got, 10 * math.log10(signal / noise), "that is not 10 log10(signal power / noise power)", rtol=1e-3, atol=1e-3)
    for shape in [(4,), (2, 3)]:
        x = t.randn(*shape)
        t.expect(t.number(t.call(x, x.clone())) == math.inf, "a perfect copy has no noise: its ratio is inf")
    return f"{len(pairs)} pairs, with offsets, constant errors and any shape; inf for a perfect copy"


def verify_quantize_per_channel(t: Trial) -> str:
    weights = [(torch.tensor([[1.0, -2.0], [10.0, 5.0], [0.0, 0.0]]), 4), (torch.tensor([[-8.0, 3.0, 1.0], [0.5, 0.25, 0.1]]), 8)]
    spread = torch.logspace(-3, 1, 6)
    weights += [(t.randn(6, 4) * spread[:, None], bits) for bits in (2, 4, 8)]
    weights += [(t.randn(6, 3, 3, 3) * spread.view(-1, 1, 1, 1), 8), (t.randn(4, 4), 5), (t.randn(5, 1), 8)]
    for weight, bits in weights:
        q, scale = _pair(t, t.call(weight, bits), "(q, scale)")
        q, scale = t.tensor(q, shape=weight.shape, dtype=torch.int8), t.tensor(scale, shape=weight.shape[:1])
        qmax, flat = 2 ** (bits - 1) - 1, q.flatten(1).double()
        t.expect(torch.isfinite(scale) & (scale > 0), f"every scale must be a positive number, yours are {scale.tolist()}")
        t.expect(flat.abs() <= qmax, f"with {bits} bits q stays in -{qmax} ... {qmax}; yours reaches {int(flat.abs().max())}")
        rows, steps = weight.flatten(1).double(), scale.double()[:, None]
        live = rows.abs().amax(1) > 0
        t.close(scale[live].double(), rows[live].abs().amax(1) / qmax, "a scale is not the channel's largest magnitude over qmax")
        miss = ((rows - steps * flat).abs() / steps).amax(1)
        t.expect(miss <= 0.5 * ROOM, f"in channel {int(miss.argmax())} a weight is {float(miss.max()):.2f} steps off; half a step is the most")
    return f"{len(weights)} weights, linear and convolutional: every weight within half of its channel's step, zero channels too"


def verify_quantize_blocks(t: Trial) -> str:
    rows = [(torch.tensor([1.0, -3.0, 0.5, 20.0]), 2, 3), (torch.tensor([0.0, 0.0, 5.0, -0.3]), 2, 4),
            (torch.tensor([0.3, 0.4, -0.5]), 3, 8), (t.randn(4, 6).T.reshape(-1)[:24] * 9, 4, 4)]
    for n, block, bits in [(64, 16, 4), (96, 32, 8), (60, 5, 5), (12, 1, 3)]:
        rows.append((t.randn(n) * torch.logspace(-4, 3, n), block, bits))
    for row, block, bits in rows:
        q, exponent = _pair(t, t.call(row, block, bits), "(q, exponent)")
        q, exponent = t.tensor(q, shape=row.shape, dtype=torch.int8), t.tensor(exponent, shape=(len(row) // block,), dtype=torch.int8)
        qmax, levels = 2 ** (bits - 1) - 1, q.view(-1, block).double()
        blocks, scale = row.double().view(-1, block), 2.0 ** exponent.double()
        peak = blocks.abs().amax(1)
        live = peak > 0
        t.expect((exponent == 0) | live, "a block of zeros must get the exponent 0")
        t.expect(levels.abs() <= qmax, f"with {bits} bits q stays in -{qmax} ... {qmax}; yours reaches {int(levels.abs().max())}")
        t.expect(peak <= qmax * scale * ROOM, f"a block does not fit: its largest number is beyond {qmax} steps of 2^e; take the next power")
        t.expect((peak > qmax * scale / 2 / ROOM) & (peak != qmax * scale / 2) | ~live, "a block's scale is larger than it must be: half of it would do")
        miss = ((blocks - scale[:, None] * levels).abs() / scale[:, None]).amax(1)
        t.expect(miss <= 0.5 * ROOM, f"in block {int(miss.argmax())} a number is {float(miss.max()):.2f} steps off; half a step is the most")
    t.raises(ValueError, torch.ones(10), 4, 4)
    return f"{len(rows)} rows: the least power of two that fits each block, no number more than half a step off"


def _mean_squared_errors(x: Tensor, ranges: Tensor, bits: int) -> Tensor:
    """Of rounding and clipping to the affine grid over each of the ranges (R, 2), in float64: (R,)."""
    top, x = 2**bits - 1, x.double()
    low, high = ranges.double().clamp(max=0)[:, :1], ranges.double().clamp(min=0)[:, 1:]
    scale = (high - low).clamp(min=1e-30) / top
    zero_point = torch.round(-low / scale)
    q = (torch.round(x / scale) + zero_point).clamp(0, top)
    return (x - scale * (q - zero_point)).square().mean(1)


def verify_best_clip(t: Trial) -> str:
    tail = torch.cat([torch.linspace(0, 1, 60), torch.tensor([3.0])])
    inputs = [(tail, 3), (torch.tensor([0.0, 1.0, 2.0, 3.0]), 2), (t.randn(400) ** 3, 4),
              (torch.cat([torch.linspace(-1, 0.5, 5000), torch.tensor([-3.0])]), 4), (-t.randn(200).exp(), 4)]
    for x, bits in inputs:
        low, high = (t.number(end) for end in _pair(t, t.call(x, bits), "(low, high)"))
        t.expect(low <= high, f"low must not be above high, yours are {low:g} and {high:g}")
        errors = _mean_squared_errors(x, torch.arange(1, 101)[:, None] / 100 * torch.stack(x.aminmax()), bits)
        mine = float(_mean_squared_errors(x, torch.tensor([[low, high]]), bits))
        t.expect(mine <= float(errors.min()) * 1.001 + 1e-12,
                 f"with {bits} bits your range {low:.3g} ... {high:.3g} has a mean squared error of {mine:.3g}; "
                 f"{int(errors.argmin()) + 1} % of the full range has {float(errors.min()):.3g}")
    return f"the best of 100 ranges on {len(inputs)} samples: one-sided, two-sided, heavy tails"


def verify_fold_batch_norm(t: Trial) -> str:
    cases = [((2, 3), True, 0.5), ((3, 3), False, 1e-5), ((4, 2, 3, 3), False, 0.1), ((5, 5, 1, 1), True, 1e-3)]
    for shape, with_bias, eps in cases:
        out = shape[0]
        weight, bias = t.randn(*shape), t.randn(out) if with_bias else None
        gamma, beta, mean = t.randn(out), t.randn(out), t.randn(out)
        var = torch.rand(out, generator=t.rng) + 0.05
        folded, new_bias = _pair(t, t.call(weight, bias, gamma, beta, mean, var, eps), "(weight, bias)")
        folded, new_bias = t.tensor(folded, shape=shape), t.tensor(new_bias, shape=(out,))
        x = t.randn(6, shape[1], *[5] * (len(shape) - 2))
        layer = F.linear if len(shape) == 2 else F.conv2d
        wanted = F.batch_norm(layer(x, weight, bias), mean, var, gamma, beta, eps=eps)
        t.close(layer(x, folded, new_bias), wanted, "the folded layer does not do what layer and batch norm did", rtol=1e-3, atol=1e-4)
    return f"{len(cases)} layers, linear and convolutional, with and without bias, answer as before"


def _exactly(function: Any, multiplier: float) -> tuple[Any, str]:
    """The answer, and its digits: answers that differ in the last of 31 bits are different answers."""
    output = function(multiplier)
    m0, shift = output
    return output, f"{m0} {shift}"


def verify_fixed_point(t: Trial) -> str:
    multipliers = [0.5, 0.25, 0.3, 0.75, 1e-4, 1 - 2.0**-40, (1 - 2.0**-34) / 8, 0.00123, 3.7]
    multipliers += [t.uniform(0.5, 1) * 2.0 ** -t.integer(0, 12) for _ in range(12)]
    for multiplier in multipliers:
        m0, shift = _pair(t, t.use(_exactly, multiplier)[0], "(m0, shift)")
        t.expect(_whole(m0) and _whole(shift), f"m0 and shift are integers, yours are {m0!r} and {shift!r}")
        m0, shift = int(m0), int(shift)
        t.expect(2**30 <= m0 < 2**31, f"m0 must lie in 2^30 ... 2^31 - 1, so that all 31 bits work; yours is {m0}")
        written = math.ldexp(m0, -31 - shift)
        t.close(written, multiplier, "m0 * 2^-(31 + shift) is not the multiplier", rtol=1e-6, atol=0)
        t.expect(abs(written - multiplier) <= math.ldexp(0.5, -31 - shift),
                 f"m0 is not rounded to nearest: m0 * 2^-(31 + shift) is off by {abs(written - multiplier) * 2.0 ** (31 + shift):.2f} units of m0")
    return f"{len(multipliers)} multipliers to half a unit in 31 bits, the one that rounds up to 1 included"


def golden(q_x: Tensor, z_x: int, q_w: Tensor, bias_q: Tensor, m0: int, shift: int, z_y: int) -> list[list[int]]:
    """The layer in Python's own integers, which have no width that could overflow."""
    rows, bias, outputs = q_w.tolist(), bias_q.tolist(), []
    for x in q_x.tolist():
        sums = [b + sum((x_i - z_x) * w_i for x_i, w_i in zip(x, w)) for w, b in zip(rows, bias)]
        outputs.append([min(max(((a * m0 + 2 ** (30 + shift)) >> (31 + shift)) + z_y, 0), 255) for a in sums])
    return outputs


def verify_integer_linear(t: Trial) -> str:
    def case(n: int, inputs: int, outputs: int, z_x: int, bias: int, shift: int, z_y: int) -> tuple:
        return (t.integers(0, 255, (n, inputs)).to(torch.uint8), z_x, t.integers(-127, 127, (outputs, inputs)).to(torch.int8),
                t.integers(-bias, bias, (outputs,)).to(torch.int32), t.integer(2**30, 2**31 - 1), shift, z_y)

    small = torch.tensor([[1, 2]], dtype=torch.uint8), 3, torch.tensor([[1, 0], [2, -5]], dtype=torch.int8)
    cases = [(*small, torch.tensor([7, -6], dtype=torch.int32), 2**30, 0, 10),           # 5 / 2 and -5 / 2: ties
             (torch.tensor([[250, 3], [0, 1]], dtype=torch.uint8), 0, torch.tensor([[1, 1], [-1, -9], [2, 2]], dtype=torch.int8),
              torch.tensor([0, 0, 1], dtype=torch.int32), 2**31 - 1, 0, 5),              # saturates on both sides
             (torch.full((1, 4), 7, dtype=torch.uint8), 7, torch.ones(1, 4, dtype=torch.int8),       # float32 has 24 bits
              torch.tensor([3 * 2**23 - 1], dtype=torch.int32), 2**30, 23, 0),
             case(3, 4, 2, 120, 2000, 9, 128), case(4, 16, 5, 0, 5000, 10, 0), case(5, 64, 3, 131, 20000, 11, 100),
             case(2, 300, 4, 255, 10**6, 14, 77), case(6, 9, 8, 128, 50, 1, 128)]
    for arguments in cases:
        outputs = t.tensor(t.call(*arguments), shape=(len(arguments[0]), len(arguments[2])), dtype=torch.uint8)
        got, wanted = outputs.tolist(), golden(*arguments)
        odd = next(((n, o) for n, row in enumerate(wanted) for o in range(len(row)) if got[n][o] != row[o]), None)
        t.expect(odd is None, "" if odd is None else
                 f"output {odd} must be {wanted[odd[0]][odd[1]]}, yours is {got[odd[0]][odd[1]]}: not one bit may differ")
    return f"{len(cases)} layers equal Python's own integers bit for bit, saturation, ties and large sums included"
