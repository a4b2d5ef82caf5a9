"""What a right answer to exercises 1.1 to 1.8 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math

import torch
from torch import nn

from compresslab.course.trial import Trial


def verify_magnitude_mask(t: Trial) -> str:
    inputs = [(torch.tensor([0.5, -2.0, 0.1, 1.0]), 0.5), (torch.ones(4), 0.5), (torch.arange(1.0, 8), 0.25)]
    for shape in [(5,), (3, 5), (4, 2, 3, 3), (0, 4)]:
        inputs += [(t.integers(-3, 3, shape).float(), s) for s in (0.0, t.uniform(0.1, 0.9), 1.0)]
    inputs.append((t.randn(6, 4).T, 0.4))  # not contiguous
    for weight, sparsity in inputs:
        mask = t.tensor(t.call(weight, sparsity), shape=weight.shape)
        t.expect(mask.dtype == torch.bool, f"the mask must be a bool tensor, yours is {mask.dtype}")
        wanted = round(sparsity * weight.numel())
        pruned = int((~mask).sum())
        t.expect(pruned == wanted, f"{wanted} weights must go (round(sparsity * n)), you prune {pruned}")
        size = weight.abs()
        if 0 < wanted < weight.numel():
            t.expect(size[~mask].max() <= size[mask].min(), "you prune a weight that is larger than one you keep")
    for bad in (80, -0.1, math.nan):
        t.raises(ValueError, torch.ones(4), bad)
    return f"exact counts on {len(inputs)} tensors, with ties, empty, transposed; bad sparsities refused"


def verify_global_masks(t: Trial) -> str:
    small = {"a": torch.tensor([[1.0, -2.0], [3.0, 4.0]]), "b": torch.tensor([10.0, -35.0, 36.0, 40.0])}
    inputs = [(small, 0.375), (small, 0.0), (small, 1.0), ({"a": torch.ones(3), "b": torch.ones(2, 2)}, 0.5)]
    for sparsity in (0.3, t.uniform(0.5, 0.95)):
        inputs.append(({"x": t.randn(7, 3), "y": 5 * t.randn(4, 2, 3, 3), "z": t.randn(10)}, sparsity))
    for weights, sparsity in inputs:
        masks = t.call(weights, sparsity)
        t.expect(isinstance(masks, dict) and set(masks) == set(weights), "return one mask per layer, under its name")
        for name, weight in weights.items():
            t.tensor(masks[name], shape=weight.shape, dtype=torch.bool)
        n = sum(weight.numel() for weight in weights.values())
        pruned = sum(int((~mask).sum()) for mask in masks.values())
        kept = [weight[masks[name]].abs() for name, weight in weights.items()]
        gone = [weight[~masks[name]].abs() for name, weight in weights.items()]
        if 0 < pruned < n:
            t.expect(torch.cat(gone).max() <= torch.cat(kept).min(),
                     "a weight of one layer goes although a smaller one of another layer stays")
        wanted = round(sparsity * n)
        t.expect(pruned == wanted, f"{wanted} of all {n} weights must go, you prune {pruned}")
    return f"one ranking over all layers, exact counts, on {len(inputs)} sets of layers"


def _numbered(seed: int, *layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model.eval()


def verify_sensitivity(t: Trial) -> str:
    seed = t.integer(0, 10**6)
    cases = [(_numbered(seed, nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), t.randn(5, 3), (0.5, 0.0)),
             (_numbered(seed + 1, nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 3)), t.randn(4, 2, 4, 4),
              (0.25, 0.75, 0.5))]
    for model, x, sparsities in cases:
        def evaluate(network: nn.Module, x: torch.Tensor = x) -> float:
            with torch.no_grad():
                return float(network(x).sin().sum())
        curves = t.call(model, evaluate, sparsities)
        wanted = t.reference(model, evaluate, sparsities)
        t.expect(isinstance(curves, dict) and list(curves) == list(wanted),
                 f"return one curve for each of the layers {', '.join(wanted)}")
        for name in wanted:
            t.close(list(curves[name]), wanted[name], f"the curve of layer '{name}' is not that of pruning this layer alone")
    return "one layer at a time, the network itself untouched, with linear and convolutional layers"


def verify_cubic_sparsity(t: Trial) -> str:
    for args in [(5, 0, 10, 0.8), (15, 10, 20, 0.8), (12, 10, 20, 0.9, 0.5), (25, 10, 20, 0.8), (5, 10, 20, 0.9, 0.2)]:
        step, begin, end, final, initial = (*args, 0.0)[:5]
        got = t.number(t.call(*args))
        left = 1 - (min(max(step, begin), end) - begin) / (end - begin)
        t.close(got, final + (initial - final) * left**3, "s_t is not that of the formula", atol=1e-9)
    begin, end = t.integer(3, 30), t.integer(50, 90)
    path = [t.number(t.call(step, begin, end, 0.95, 0.1)) for step in range(0, 100, 3)]
    t.expect(all(a <= b + 1e-12 for a, b in zip(path, path[1:])), "the sparsity falls somewhere on the way")
    t.close([path[0], path[-1]], [0.1, 0.95], "the schedule must start at initial and end at final")
    return "held before begin and after end, fast at first, never falling"


def _batches(t: Trial, steps: int, features: int, classes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(t.randn(8, features), t.integers(0, classes - 1, (8,))) for _ in range(steps)]


def verify_prune_in_training(t: Trial) -> str:
    cases = [(_numbered(1, nn.Linear(4, 3)), _batches(t, 8, 4, 3), 3, 0.5),
             (_numbered(2, nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)), _batches(t, 9, 5, 2), 2, 0.8),
             (_numbered(3, nn.Linear(4, 4)), _batches(t, 4, 4, 4), 0, 0.25)]
    for model, batches, prune_at, sparsity in cases:
        got = t.call(model, batches, prune_at, sparsity, lr=0.5, momentum=0.9)
        t.expect(isinstance(got, nn.Module), "return the trained model")
        wanted = t.reference(model, batches, prune_at, sparsity, lr=0.5, momentum=0.9)
        for (name, weight), right in zip(got.named_parameters(), wanted.parameters()):
            zeros, should = int((weight == 0).sum()), int((right == 0).sum())
            t.expect(zeros == should, f"'{name}' must end with exactly {should} zeros, it has {zeros}")
            t.expect(torch.equal(weight == 0, right == 0), f"the zeros of '{name}' are not those chosen at step {prune_at}")
            t.close(weight, right, f"the surviving weights of '{name}' took another path")
    return "masked weights end at exactly zero, surviving ones keep their momentum, in 3 networks"


def verify_control_starts(t: Trial) -> str:
    for shapes, share in [({"a": (2, 3), "b": (4,)}, 0.5), ({"fc": (40, 30), "head": (10, 40)}, 0.1)]:
        trained = {name: t.randn(*shape) for name, shape in shapes.items()}
        fresh = {name: t.randn(*shape) for name, shape in shapes.items()}
        masks = {name: torch.rand(shape, generator=t.rng) < share * (1 + 2 * k) for k, (name, shape) in enumerate(shapes.items())}
        for mask in masks.values():
            mask.flatten()[0], mask.flatten()[1] = True, False
        seeds = [torch.Generator().manual_seed(t.integer(0, 10**6)) for _ in range(2)]
        first, again, other = (t.call(trained, fresh, masks, seed) for seed in (seeds[0], seeds[0], seeds[1]))
        t.expect(isinstance(first, dict) and set(first) == {"inherited", "random mask", "from scratch"},
                 "return a dict with the keys 'inherited', 'random mask' and 'from scratch'")
        for name, mask in masks.items():
            t.close(first["inherited"][name], trained[name] * mask, f"'inherited' of layer '{name}': trained weights, given mask")
            t.close(first["from scratch"][name], fresh[name] * mask, f"'from scratch' of layer '{name}': fresh weights, given mask")
            found = first["random mask"][name]
            kept, should = int((found != 0).sum()), int(mask.sum())
            t.expect(kept == should, f"the random mask of layer '{name}' must keep exactly {should} weights, it keeps {kept}")
            t.close(found, trained[name] * (found != 0), f"'random mask' of layer '{name}' must hold trained weights, at their places")
            t.close(again["random mask"][name], found, "the same generator must give the same random mask")
        if sum(mask.numel() for mask in masks.values()) > 100:
            t.expect(any((other["random mask"][n] != first["random mask"][n]).any() for n in masks),
                     "another generator must give another random mask: draw from `generator`")
    return "one change at a time, exact ratios per layer, drawn from the generator"


def _decode(codes: list[int], escape: int) -> list[int]:
    position, places = -1, []
    for code in codes:
        position += code if code == escape else code + 1
        if code != escape:
            places.append(position)
    return places


def verify_gap_encode(t: Trial) -> str:
    inputs = [([0, 5.0, 0, 0, 0, 0, 7.0], 2), ([0, 0, 0, 5.0], 2), ([1.0, 0, 0, 0, 0], 2), ([0, 0, 0], 3), ([2.0], 4)]
    cases = [(torch.tensor(values, dtype=torch.float32), bits) for values, bits in inputs]
    cases += [(t.randn(9, 11) * (torch.rand(9, 11, generator=t.rng) < d), bits) for d, bits in [(0.5, 2), (0.1, 3), (0.03, 4)]]
    for weight, bits in cases:
        codes = t.tensor(t.call(weight, bits))
        escape = 2**bits - 1
        t.expect(codes.dim() == 1 and not codes.is_floating_point(), "return a flat tensor of whole numbers")
        listed = codes.tolist()
        t.expect(all(0 <= code <= escape for code in listed), f"every code must fit in {bits} bits: 0 to {escape}")
        places = weight.flatten().nonzero().flatten().tolist()
        t.expect(_decode(listed, escape) == places, f"decoded, your codes lead to {_decode(listed, escape)[:8]}, "
                                                    f"the weights are at {places[:8]}")
        gaps = [b - a - 1 for a, b in zip([-1, *places], places)]
        fewest = len(gaps) + sum(gap // escape for gap in gaps)
        t.expect(len(listed) == fewest, f"{fewest} codes are enough, you write {len(listed)}")
    return f"{len(cases)} tensors decode to the same places, no code too many"


def verify_obs_remove(t: Trial) -> str:
    cases = [(torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 1.0], [1.0, 2.0]]), 0)]
    for n in (3, 6):
        root = t.randn(n, 2 * n)
        cases.append((t.randn(n), root @ root.T / n + 0.1 * torch.eye(n), t.integer(0, n - 1)))
    cases.append((t.randn(4), torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])), 2))
    for w, H, q in cases:
        output = t.call(w, H, q)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 2, "return (new weights, rise of the loss)")
        v, rise = t.tensor(output[0], shape=w.shape), t.number(output[1])
        t.expect(v[q] == 0, f"w[{q}] must become exactly 0")
        d = (v - w).double()
        others = torch.arange(len(w)) != q
        pull = (H.double() @ d)[others]
        t.expect((pull.abs() < 1e-3 * H.abs().max() * w.abs().max()), "the other weights can still move and lower the loss")
        t.close(rise, float(d @ H.double() @ d / 2), "the rise is not 1/2 dw' H dw of your own step", rtol=1e-3)
    return "the constrained minimiser of 4 quadratics, and its exact cost"
