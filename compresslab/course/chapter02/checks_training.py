"""What a right answer to exercises 2.10 to 2.17 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.course.trial import Trial


# -- rounding together -------------------------------------------------------------------------------

def verify_best_rounding(t: Trial) -> str:
    cases = [(torch.tensor([0.4, 0.4]), 1.0, torch.tensor([[1.0, 0.9], [0.9, 1.0]])),
             (torch.tensor([1.3, -0.2, 0.9]), 0.5, torch.diag(torch.tensor([1.0, 2.0, 3.0])))]
    for n in (1, 3, 5, 6, *[8] * 8):
        shared = t.randn(40, 2) @ t.randn(2, n) + 0.3 * t.randn(40, n)      # correlated inputs
        cases.append((t.randn(n), t.uniform(0.2, 0.6), shared.T @ shared))
    for w, scale, H in cases:
        q = t.tensor(t.call(w, scale, H), shape=w.shape).double()
        t.expect(q == q.round(), "return the integers, not the weights that they stand for")
        low, H = torch.floor(w / scale).double(), H.double()
        t.expect((q == low) | (q == low + 1), "every integer must be w / scale, rounded down or up")
        choices = low + torch.cartesian_prod(*[torch.arange(2.0)] * len(w)).view(-1, len(w))
        d = scale * torch.cat([q[None], choices]) - w.double()
        error, *others = ((d @ H) * d).sum(1).tolist()
        least = min(others)
        t.expect(error <= least * (1 + 1e-3) + 1e-9, f"another choice has the output error {least:.4g}, yours has {error:.4g}")
    return f"the least output error of all 2^n choices, for {len(cases)} rows of 1 to 8 weights"


# -- training through a staircase --------------------------------------------------------------------

def value_and_gradient(function, w: Tensor, scale: float | Tensor, qmin: int, qmax: int, upstream: Tensor):
    """What `function` makes of w, and what reaches w when `upstream` comes from behind."""
    w = w.clone().requires_grad_()
    value = function(w, scale, qmin, qmax)
    if not isinstance(value, Tensor):
        return value, None
    if value.requires_grad:
        (value * upstream).sum().backward()
    return value.detach().clone(), torch.zeros_like(w) if w.grad is None else w.grad


def verify_fake_quantize(t: Trial) -> str:
    cases = [(torch.tensor([0.3, 0.6, -0.8, 5.0, -7.0]), 0.5, -2, 2, torch.ones(5)),
             (torch.tensor([1.1, 1.2, -1.2]), 0.5, -2, 2, torch.ones(3)),          # less than half a step beyond the range
             (torch.tensor([1.0, -1.0]), 0.5, -2, 2, torch.ones(2)),               # exactly on its edges
             (torch.tensor([0.0, 1.5, 1.6, -0.1]), 0.5, 0, 3, torch.tensor([1.0, 2.0, 3.0, 4.0])),
             (torch.tensor([0.2, 0.7, 1.2, 3.0, -1.0]), 0.5, 0, 3, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])),
             (torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5]), 1.0, -3, 3, torch.ones(5)),
             (torch.tensor([[0.4, 0.9], [4.4, 9.0]]), torch.tensor([[0.5], [5.0]]), -1, 1, torch.ones(2, 2))]
    for shape, bits in [((4, 6), 4), ((2, 3, 3, 3), 3), ((50,), 2)]:
        cases.append((t.randn(*shape), t.uniform(0.05, 0.4), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, t.randn(*shape)))
    for w, scale, qmin, qmax, upstream in cases:
        value, gradient = t.use(value_and_gradient, w, scale, qmin, qmax, upstream)
        value, v = t.tensor(value, shape=w.shape), w.double() / scale
        wanted = scale * v.round().clamp(qmin, qmax)
        off = (value.double() - wanted).abs() > 1e-5 * (scale + wanted.abs())
        t.expect(~off, f"the value at w={_first(w, off)} must be {_first(wanted, off)}, a point of the grid; yours is {_first(value, off)}")
        inside = (v >= qmin) & (v <= qmax)
        edge = torch.minimum((v - qmin).abs(), (v - qmax).abs())
        settled = (edge == 0) | (edge > 1e-5)                            # w / scale in single precision may fall on either side
        off = settled & ((gradient - upstream * inside).abs() > 1e-4 * (1 + upstream.abs()))
        t.expect(~off, f"at w={_first(w, off)} the gradient must be {_first(inside.float(), off)} times what comes from behind")
    return f"exact values of the grid, gradient 1 inside and 0 outside, its edges belonging to it, on {len(cases)} tensors, one scale or several"


def _first(values: Tensor, where: Tensor) -> str:
    return f"{float(values[where][0]):.4g}" if where.any() else "?"


def verify_lsq_gradient(t: Trial) -> str:
    cases = [(torch.tensor([0.3, 1.4]), 1.0, torch.ones(2), 4, 3), (torch.tensor([0.3, -2.2, 5.2]), 1.0, torch.ones(3), 2, 1),
             (torch.tensor([1.5, 0.2]), 0.5, torch.ones(2), 4, 3), (torch.tensor([-2.0, 0.2]), 0.5, torch.ones(2), 4, 3),  # w / step on an edge
             (torch.tensor([0.7, 9.0, -1.0]), 0.5, torch.tensor([1.0, -2.0, 3.0]), 0, 3)]
    for shape, bits in [((6, 5), 3), ((4, 2, 3, 3), 2), ((200,), 4)]:
        cases.append((t.randn(*shape), t.uniform(0.1, 0.6), t.randn(*shape), 2 ** (bits - 1), 2 ** (bits - 1) - 1))
    for w, step, upstream, qn, qp in cases:
        got = t.number(t.call(w, step, upstream, qn, qp))
        total = 0.0
        for x, g in zip(w.flatten().tolist(), upstream.flatten().tolist()):
            v = x / step
            total += g * (-qn if v <= -qn else qp if v >= qp else round(v) - v)
        t.close(got, total / math.sqrt(w.numel() * qp), "the gradient of the step is not that of the formula", rtol=1e-3, atol=1e-5)
    return f"weights inside, saturated and exactly on the edge, {len(cases)} tensors, signed and unsigned grids"


# -- two and three values ----------------------------------------------------------------------------

def verify_ternary(t: Trial) -> str:
    cases = [torch.tensor([-4.0, 3.0, 0.5, 0.1]), torch.tensor([1.0, 0.3]), torch.tensor([1.0, -1.0, 1.0]), torch.zeros(3), torch.tensor([-2.0])]
    cases += [t.randn(3, 5), t.randn(2, 3, 3, 3) ** 3, t.integers(-3, 3, (40,)).float(), t.randn(400) ** 5, t.uniform(1, 2) * t.randn(6, 4).T]
    for w in cases:
        output = t.call(w)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 2, "return two things: the pattern t and the scale alpha")
        pattern, alpha = t.tensor(output[0], shape=w.shape).double(), t.number(output[1])
        t.expect((pattern == 0) | (pattern.abs() == 1), "the pattern may hold -1, 0 and 1 only")
        t.expect(math.isfinite(alpha), "alpha must be a finite number, for a weight of zeros too")
        size = w.double().abs().flatten().sort(descending=True).values
        k = torch.arange(1, len(size) + 1)
        least = float((size**2).sum() - (size.cumsum(0) ** 2 / k).max())
        error = float(((w.double() - alpha * pattern) ** 2).sum())
        t.expect(error <= least + 1e-5 * float((size**2).sum()), f"another pattern and scale leave the error {least:.4g}, yours leave {error:.4g}")
    return f"the least error of all patterns and scales, for {len(cases)} weights, ties and zeros included"


def pack(signs: Tensor) -> np.ndarray:
    """Vectors of +1 and -1 along the last axis, 64 to a word, the padding zero: uint64."""
    n = signs.shape[-1]
    bits = np.zeros((*signs.shape[:-1], -(-n // 64) * 64), dtype=np.uint64)
    bits[..., :n] = signs.numpy() > 0
    return (bits.reshape(*bits.shape[:-1], -1, 64) << np.arange(64, dtype=np.uint64)).sum(-1, dtype=np.uint64)


def verify_xnor_dot(t: Trial) -> str:
    cases = [(torch.tensor([1, 1, -1]), torch.tensor([1, -1, -1])), (torch.ones(5), -torch.ones(5)), (torch.ones(2, 64), -torch.ones(64)),
             (torch.ones(256), -torch.ones(256))]
    for shape_a, shape_b in [((70,), (70,)), ((4, 300), (4, 300)), ((3, 1, 130), (1, 5, 130))]:
        cases.append((t.randn(*shape_a).sign(), t.randn(*shape_b).sign()))
    a = t.randn(2, 1000).sign()
    cases.append((a, torch.cat([a[:, :20], -a[:, 20:]], dim=1)))         # nearly opposite: 980 differences
    for a, b in cases:
        n = a.shape[-1]
        got = np.asarray(t.call(pack(a), pack(b), n))
        wanted = (a.double() * b.double()).sum(-1).numpy()
        t.expect(got.dtype.kind in "iu", f"a count of bits gives integers: return np.int64 (or int), yours are of type {got.dtype}")
        t.expect(got.shape == wanted.shape, f"one dot product for each pair of vectors: shape {wanted.shape}, yours has {got.shape}")
        off = got.astype(np.float64) != wanted
        if off.any():
            t.expect(False, f"the dot product of these {n} signs is {wanted[off].flat[0]:.0f}, yours is {got[off].flat[0]:.0f}")
        t.expect(got.dtype.kind == "i", f"a dot product can be negative: return signed integers, yours are of type {got.dtype}")
    return "dot products of 3 to 1000 signs, with and without padding, single and in batches"


# -- levels of your own ------------------------------------------------------------------------------

def verify_lloyd_step(t: Trial) -> str:
    cases = [(torch.tensor([0.0, 1.0, 3.0, 4.0, 8.0]), torch.tensor([0.2, 4.8, 20.0])),
             (torch.tensor([0.0, 0.2, 1.0, 1.2]), torch.tensor([0.0, 1.2]))]
    for n, k in [(30, 4), (200, 16), (9, 8)]:
        cases.append((t.randn(n) + 0.3, (3 * t.randn(k)).sort().values))
    for values, codebook in cases:
        output = t.call(values, codebook)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 2, "return (indices, new codebook)")
        indices, moved = t.tensor(output[0], shape=values.shape), t.tensor(output[1], shape=codebook.shape)
        t.expect(not indices.is_floating_point() and indices.min() >= 0 and indices.max() < len(codebook),
                 f"the indices must be whole numbers from 0 to {len(codebook) - 1}")
        indices = indices.long()
        distance = (values[:, None] - codebook).abs()
        t.expect(distance.gather(1, indices[:, None])[:, 0] <= distance.min(1).values + 1e-6,
                 "a value is not given to the nearest level of the codebook that came in")
        for j in range(len(codebook)):
            members = values[indices == j].double()
            if len(members):
                t.close(moved[j], members.mean(), f"level {j} must move to the mean of its {len(members)} values", rtol=1e-4, atol=1e-5)
            else:
                t.expect(moved[j] == codebook[j], f"no value is nearest to level {j}: it must stay at {float(codebook[j]):.4g}, "
                                                  f"yours moved to {float(moved[j]):.4g}")
    return f"{len(cases)} steps: nearest levels, means, levels without values left alone"


def verify_allocate_bits(t: Trial) -> str:
    cases = [({"a": 10, "b": 10}, {"a": {2: 1.0, 4: 0.9}, "b": {2: 5.0, 4: 1.0}}, 60),          # two ways to spend 60
             ({"big": 100, "small": 60}, {"big": {2: 1.0, 4: 0.1}, "small": {2: 1.5, 4: 0.2}}, 520),
             ({"a": 10, "b": 9, "c": 2}, {"a": {1: 2.0, 2: 1.0}, "b": {1: 11.0, 2: 1.0}, "c": {1: 4.0, 2: 1.0}}, 31),
             ({"a": 4, "b": 3, "c": 3}, {"a": {1: 5.0, 2: 0.6}, "b": {1: 4.0, 2: 1.0}, "c": {1: 4.0, 2: 1.0}}, 16),
             ({"a": 100, "b": 10}, {"a": {2: 3.0, 4: 1.0}, "b": {2: 2.0, 4: 0.5}}, 250)]
    early = {f"layer{i}": {b: (1 + 0.1 * i) * 2.0 ** (-b) for b in (1, 2, 3, 4)} for i in range(5)}
    cases.append((dict.fromkeys(early, 10) | {"last": 60}, early | {"last": {1: 100.0, 2: 50.0, 3: 25.0, 4: 10.0}}, 300))    # all for the last
    equal = {f"layer{i}": {b: t.uniform(0.3, 3.0) * 2.0 ** (-b) for b in (2, 3, 4, 8)} for i in range(4)}
    cases.append((dict.fromkeys(equal, 20), equal, 20 * 13))                 # equal sizes: many choices with the same cost
    large = {f"layer{i}": {b: t.uniform(1.0, 2.0) * 2.0 ** (-b) for b in (2, 4, 8)} for i in range(4)}
    large["layer1"] = {b: 0.2 * error for b, error in large["layer1"].items()}
    cases.append(({"layer0": 30, "layer1": 200, "layer2": 25, "layer3": 40}, large, 850))    # a large layer with small errors
    for layers, options in [(3, (2, 4, 8)), (4, (2, 3, 4, 6)), (5, (1, 2, 4)), (3, (1, 2, 4, 8, 16))]:
        sizes = {f"layer{i}": t.integer(5, 60) for i in range(layers)}
        errors = {name: {b: t.uniform(0.3, 3.0) * 2.0 ** (-b) * size for b in options} for name, size in sizes.items()}
        cases.append((sizes, errors, int(t.uniform(1.2, 1.8) * min(options) * sum(sizes.values()))))
    for sizes, errors, budget in cases:
        chosen = t.call(errors, sizes, budget)
        t.expect(isinstance(chosen, dict) and set(chosen) == set(sizes), "return {layer: bits} with every layer in it")
        t.expect(all(chosen[layer] in errors[layer] for layer in sizes), "choose among the numbers of bits that the layer's errors name")
        cost = sum(sizes[layer] * chosen[layer] for layer in sizes)
        t.expect(cost <= budget, f"your choice takes {cost} bits, {budget} are there")
        wanted = t.reference(errors, sizes, budget)
        least, error = (sum(errors[layer][bits] for layer, bits in choice.items()) for choice in (wanted, chosen))
        t.expect(error <= least + 1e-6, f"another choice fits as well and has the error {least:.4g}, yours has {error:.4g}")
    t.raises(ValueError, {"a": {2: 1.0}, "b": {2: 1.0, 4: 0.5}}, {"a": 10, "b": 10}, 39)
    return f"the least error that fits, in {len(cases)} networks; a budget that nothing fits is refused"


# -- a pipeline, repaired ----------------------------------------------------------------------------

def _network(t: Trial, *layers: nn.Module) -> nn.Sequential:
    """Random weights, and running statistics that differ from those of any small batch."""
    model = nn.Sequential(*layers)
    for layer in model:
        for parameter in layer.parameters():
            parameter.data = t.randn(*parameter.shape)
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.weight.data = 0.5 + t.randn(*layer.weight.shape).abs()
            layer.running_mean, layer.running_var = t.randn(*layer.weight.shape), 0.2 + 0.1 * t.randn(*layer.weight.shape).abs()
    return model


def report_and_modes(function, model: nn.Module, *args):
    """What `function` reports, and the mode (train or eval) in which it leaves every module."""
    output = function(model, *args)
    return output, [module.training for module in model.modules()]


def verify_quantize_and_report(t: Trial) -> str:
    cases = [(_network(t, nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6)), (3,), 8),
             (_network(t, nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 7)), (2, 4, 4), 8),
             (_network(t, nn.Linear(5, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 5)), (5,), 4)]
    for number, (model, shape, bits) in enumerate(cases):
        calibration_x, test_x = t.randn(30, *shape), t.randn(300, *shape)
        test_x[::2] *= 4                                      # brighter than anything seen in calibration
        with torch.no_grad():
            test_y = model.eval()(test_x).argmax(1)
        model.train(number != 1)                              # as a training loop leaves it
        if number == 2:
            model[1].eval()                                   # a frozen batch norm in a network that trains
        modes = [module.training for module in model.modules()]
        output, left = t.use(report_and_modes, model, calibration_x, test_x, test_y, bits)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 2 and isinstance(output[1], dict),
                 "return (accuracy, {layer: range})")
        accuracy, ranges = t.number(output[0]), output[1]
        right, wanted = t.reference(model, calibration_x, test_x, test_y, bits)
        t.expect(set(ranges) == set(wanted), f"return a range for each of the layers {', '.join(wanted)}")
        for name in wanted:
            t.close(t.number(ranges[name]), wanted[name], f"the range of layer '{name}' is not that of the calibration images "
                                                          "through the network as it will run", rtol=1e-3)
        t.expect(abs(accuracy - right) <= 1.5 / len(test_y), f"the accuracy must be {right:.4f}, yours is {accuracy:.4f}")
        t.expect(left == modes, "the caller's model comes back in another mode (train or eval) than it went in; work on a copy")
    return "ranges of the calibration images, in eval mode; what lies beyond saturates; the model comes back as it was; in 3 networks"
