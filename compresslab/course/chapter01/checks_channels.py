"""What a right answer to exercises 1.9 to 1.13 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.course.trial import Trial


def _lively(t: Trial, *layers: nn.Module) -> tuple[nn.Module, ...]:
    """Random weights and random batch-norm statistics, in eval mode, from the trial's own generator."""
    for layer in layers:
        for parameter in layer.parameters():
            parameter.data = t.randn(*parameter.shape)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = t.randn(layer.num_features)
            layer.running_var = torch.rand(layer.num_features, generator=t.rng) + 0.5
        layer.eval()
    return layers


def _run(conv: nn.Module, bn: nn.Module, following: nn.Module, x: Tensor, keep: Tensor | None = None) -> Tensor:
    """The three layers in a row, removed channels silenced where they are read: the masked twin."""
    with torch.no_grad():
        y = F.relu(bn(conv(x)))
        if keep is not None:
            silent = torch.ones(y.shape[1], dtype=torch.bool)
            silent[keep] = False
            y[:, silent] = 0
        return following(y.flatten(1) if isinstance(following, nn.Linear) else y)


def _use_remove(function, conv, bn, following, keep):
    layers = function(conv, bn, following, keep)
    numbers = [getattr(layer, name) for layer in layers for name in
               ("in_channels", "out_channels", "num_features", "in_features") if hasattr(layer, name)]
    return layers, numbers


def verify_remove_channels(t: Trial) -> str:
    cases = [(nn.Conv2d(1, 3, 1, bias=False), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1, bias=False), (0, 2), (2, 1, 4, 4)),
             (nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Linear(16, 3), (1, 3), (2, 2, 2, 2)),
             (nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3, padding=1), (0, 1, 4), (2, 3, 6, 6)),
             (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(96, 2), (2,), (1, 3, 6, 6))]
    for conv, bn, following, kept, shape in cases:
        _lively(t, conv, bn, following)
        keep, x = torch.tensor(kept), t.randn(*shape)
        (small, small_bn, cut), _ = t.use(_use_remove, conv, bn, following, keep)
        for what, tensor, length in (("the filters", small.weight, len(small.weight)),
                                     ("batch norm's weight", small_bn.weight, len(small_bn.weight)),
                                     ("batch norm's running mean", small_bn.running_mean, len(small_bn.running_mean))):
            t.expect(length == len(kept), f"{what}: {len(kept)} channels must stay, {length} do")
        columns = len(kept) * following.weight[0].numel() // len(conv.weight)
        got = cut.weight[0].numel()
        t.expect(got == columns, f"the next layer must read {columns} numbers per output, it reads {got}")
        t.expect(isinstance(small.weight, nn.Parameter) and isinstance(cut.weight, nn.Parameter),
                 "weights must be nn.Parameter again, or no optimizer sees them")
        t.close(_run(small, small_bn, cut, x), _run(conv, bn, following, x, keep),
                "the small chain does not compute what the silenced large one does", rtol=1e-3, atol=1e-4)
        numbers = (small.out_channels, small_bn.num_features, getattr(cut, "in_channels", None) or cut.in_features)
        right = (len(kept), len(kept), len(kept) if isinstance(cut, nn.Conv2d) else columns)
        t.expect(numbers == right, f"out_channels, num_features and the next layer's inputs must say {right}, they say {numbers}")
    return "physical = masked on 4 chains, convolution or linear layer behind, with and without bias"


def verify_silence_channels(t: Trial) -> str:
    for channels, silent in [(3, (1,)), (8, (0, 3, 4, 7))]:
        conv, bn = _lively(t, nn.Conv2d(2, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        bn.bias.data = bn.bias.data.abs() + 0.3
        if channels > 3:
            bn.running_mean[silent[0]], bn.weight.data[silent[0]], bn.bias.data[silent[0]] = 2.0, 1.5, 0.5  # negative: no leak
        index, x = torch.tensor(silent), t.randn(2, 2, 5, 5)
        output = t.call(conv, bn, index)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 3, "return (conv, bn, leak)")
        quiet, quiet_bn, leak = output
        with torch.no_grad():
            before, after = F.relu(bn(conv(x))), F.relu(quiet_bn(quiet(x)))
            zero = torch.zeros_like(conv.weight).index_copy(0, index, torch.ones_like(conv.weight[index]))
            leaking = F.relu(bn(F.conv2d(x, conv.weight * (1 - zero), padding=1)))
        t.expect(after[:, index].abs().max() == 0, f"channel {silent[0]} still emits "
                                                   f"{float(after[:, index].abs().max()):.3g} after batch norm and relu")
        others = [c for c in range(channels) if c not in silent]
        t.close(after[:, others], before[:, others], "a channel that should stay has changed")
        t.tensor(leak, shape=(len(silent),))
        t.close(leak, leaking[0, index, 2, 2], "the leak is what relu(bn(0)) gives", rtol=1e-3, atol=1e-5)
    return "silent after batch norm and relu, the others unchanged, and the leak as measured"


def verify_coupled_layers(t: Trial) -> str:
    cases = [(["a", "b", "c"], [("a", "b")], [["a", "b"], ["c"]]),
             (["a", "b", "c"], [("a", "b"), ("b", "c")], [["a", "b", "c"]]),
             (["a", "b", "c", "d"], [("a", "b"), ("c", "d")], [["a", "b"], ["c", "d"]]),
             (["a", "b", "c", "d"], [("a", "b"), ("c", "d"), ("d", "a")], [["a", "b", "c", "d"]]),
             (["x"], [], [["x"]])]
    names = [f"conv{k}" for k in range(12)]
    adds = [(names[t.integer(0, 11)], names[t.integer(0, 11)]) for _ in range(7)]
    cases.append((names, adds, t.reference(names, adds)))
    for layers, pairs, wanted in cases:
        groups = t.call(layers, pairs)
        try:
            found = sorted(sorted(group) for group in groups)
        except TypeError:
            found = None
        t.close(found, wanted, "the groups are not those that the additions tie together")
    return f"{len(cases)} networks, with chains, separate groups that meet late, and layers alone"


def verify_taylor_importance(t: Trial) -> str:
    for shape in [(1, 2, 1, 2), (3, 4, 2, 2), (5, 3, 4, 1)]:
        y, g = t.randn(*shape), t.randn(*shape)
        got = t.tensor(t.call(y, g), shape=(shape[1],))
        gate = torch.ones(shape[1], dtype=torch.float64, requires_grad=True)
        loss = (g.double() * y.double() * gate.view(1, -1, 1, 1)).sum()  # linear: its change is known exactly
        slope, = torch.autograd.grad(loss, gate)
        t.close(got, slope.square(), "I_c is not the squared change of a linear loss without channel c", rtol=1e-3)
    return "the exact squared change of a linear loss, on 3 feature maps"


def verify_nm_mask(t: Trial) -> str:
    cases = [(torch.tensor([[1.0, -4.0, 2.0, 3.0]]), 1, 4),
             (torch.tensor([[1.0, 2.0, 30.0, -40.0], [5.0, 6.0, 0.7, -0.8], [1.0, 9.0, 9.0, 1.0], [2.0, 3.0, 4.0, 5.0]]), 2, 4),
             (torch.ones(2, 8), 2, 4), (t.randn(4, 12), 3, 4), (t.randn(8, 6), 1, 2), (t.randn(12, 4).T, 2, 4)]
    for weight, n, m in cases:
        mask = t.tensor(t.call(weight, n, m), shape=weight.shape, dtype=torch.bool)
        kept = mask.reshape(-1, m).sum(1)
        t.expect(kept == n, f"every {m} neighbours in a row must keep exactly {n}; one of your blocks keeps {int(kept[kept != n][0]) if (kept != n).any() else n}")
        size = weight.abs().reshape(-1, m)
        lost = size.masked_fill(mask.reshape(-1, m), 0).amax(1)
        least = size.masked_fill(~mask.reshape(-1, m), torch.inf).amin(1)
        t.expect(lost <= least, "in one block a larger weight goes and a smaller one stays")
    t.raises(ValueError, torch.ones(4, 6), 2, 4)
    return f"exactly n of every m, the largest ones, on {len(cases)} weights; widths that m does not divide are refused"
