"""What a right answer to exercises 3.1 to 3.6 must do. Small inputs first: the last one tried is shown.

Blocks are judged by what they compute, not by how their parts are called or ordered: `settle` gives every parameter
numbers that depend on its shape alone, so the right output is known whatever the learner's names are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.macs import count_macs
from compresslab.course.compare import describe
from compresslab.course.trial import Trial
from compresslab.models.spec import Residual


def settled(*shape: int) -> Tensor:
    """Random numbers that are always the same for one shape."""
    seed = sum((place + 1) * 1009 * size for place, size in enumerate(shape)) % 100_003
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def settle(block: nn.Module) -> nn.Module:
    """Fill every parameter with the numbers of its shape; eval mode."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(settled(*parameter.shape))
    return block.eval()


def _try_block(make: Callable[..., Any], x: Tensor, **sizes: int) -> tuple[int, int, Tensor | str]:
    """(parameters, MACs, output at x) of the block of these sizes, its parameters settled."""
    block = make(*sizes.values())
    if not isinstance(block, nn.Module):
        return 0, 0, f"no module, but {describe(block)}"
    settle(block)
    parameters = sum(parameter.numel() for parameter in block.parameters())
    with torch.no_grad():
        output = block(x)
    return parameters, count_macs(block, x[:1]).total, output


def _block(t: Trial, x: Tensor, **sizes: int) -> tuple[int, int, Tensor]:
    parameters, macs, output = t.use(_try_block, x, may_change=True, **sizes)
    t.expect(not t.calls[-1].changed, "your block overwrites its input (an in-place operation on x); leave x as it is")
    t.expect(isinstance(output, Tensor), f"it must give a torch module (an nn.Sequential, or an nn.Module of your own) that "
                                         f"answers with a tensor; this is {output if isinstance(output, str) else describe(output)}")
    return parameters, macs, output


def _conv_sizes(t: Trial) -> list[dict[str, Any]]:
    fixed = [(1, 1, 1, 2, 2, 1, 1, False), (3, 4, 3, 4, 5, 1, 1, False), (4, 6, 3, 5, 4, 2, 1, False),
             (4, 6, 1, 4, 4, 1, 2, False), (2, 3, 3, 4, 4, 1, 1, True), (6, 6, 3, 7, 5, 2, 6, True), (8, 4, 5, 9, 8, 3, 4, True)]
    for _ in range(6):
        groups = t.integer(1, 4)
        fixed.append((groups * t.integer(1, 4), groups * t.integer(1, 4), 2 * t.integer(0, 2) + 1, t.integer(5, 12),
                      t.integer(5, 12), t.integer(1, 3), groups, bool(t.integer(0, 1))))
    names = ("in_channels", "out_channels", "kernel_size", "height", "width", "stride", "groups", "bias")
    return [dict(zip(names, sizes)) for sizes in fixed]


def _kinds(function: Callable[..., Any], *sizes: Any) -> list[str]:
    """Whether each answer is a whole number by its type, too."""
    return ["float" if isinstance(n, float) or (isinstance(n, Tensor) and n.is_floating_point()) else "whole" for n in function(*sizes)]


def verify_conv_cost(t: Trial) -> str:
    cases = _conv_sizes(t)
    for case in cases:
        sizes = tuple(case.values())
        inputs, outputs, kernel, height, width, stride, groups, bias = sizes
        arguments = sizes[:5] if sizes[5:] == (1, 1, False) else sizes
        cost = t.call(*arguments)
        t.expect(isinstance(cost, (tuple, list)) and len(cost) == 3, "return three numbers: (parameters, macs, moved)")
        with torch.device("meta"):
            layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
            x = torch.zeros(1, inputs, height, width)
            y = layer(x)
        parameters = sum(p.numel() for p in layer.parameters())
        right = {"parameters": parameters, "multiply-accumulates": y.numel() * layer.weight[0].numel(),
                 "numbers moved": x.numel() + parameters + y.numel()}
        for (what, wanted), got in zip(right.items(), cost):
            t.expect(t.number(got) == wanted, f"this convolution has {wanted} {what}, you count {t.number(got):g}; "
                                              f"its output is {tuple(y.shape[1:])}")
    t.expect("float" not in t.use(_kinds, *cases[5].values()), "the numbers are right, but return whole numbers, not floats: divide with //")
    t.raises(ValueError, 4, 6, 3, 8, 8, 1, 3)
    t.raises(ValueError, 6, 4, 3, 8, 8, 1, 3)
    return f"{len(cases)} convolutions counted as PyTorch builds them: strides, odd sizes, groups, biases; bad groups refused"


def verify_fire(t: Trial) -> str:
    cases = [((2, 1, 3, 3), 2), ((4, 2, 3, 5), 4), ((5, 3, 4, 2), 6), ((9, 4, 6, 7), 5)]
    for (inputs, squeeze, one, three), size in cases:
        x = t.randn(2, inputs, size, size + 1)
        parameters, _, output = _block(t, x, in_channels=inputs, squeeze=squeeze, expand1x1=one, expand3x3=three)
        output = t.tensor(output, shape=(2, one + three, size, size + 1))
        wanted = squeeze * (inputs + 1) + one * (squeeze + 1) + three * (9 * squeeze + 1)
        t.expect(parameters == wanted, f"a Fire module of these sizes has {wanted} parameters, biases included; yours has {parameters}")
        thin = F.relu(F.conv2d(x, settled(squeeze, inputs, 1, 1), settled(squeeze)))
        parts = (F.conv2d(thin, settled(one, squeeze, 1, 1), settled(one)),
                 F.conv2d(thin, settled(three, squeeze, 3, 3), settled(three), padding=1))
        t.close(output, F.relu(torch.cat(parts, 1)),
                "the numbers are not relu([1x1, 3x3] of relu(squeeze)): look at the two relus (plain ones), the padding (zeros) and the order",
                rtol=1e-3, atol=1e-4)
    return f"{len(cases)} modules: exact parameters, shapes, and numbers, whatever you called the parts"


def verify_separable_conv(t: Trial) -> str:
    cases = [((2, 3, 3, 1), 3), ((3, 2, 3, 2), 5), ((4, 8, 3, 1), 4), ((3, 5, 5, 2), 8), ((6, 12, 3, 2), 6), ((5, 4, 7, 3), 9)]
    for (inputs, outputs, kernel, stride), size in cases:
        x = t.randn(1, inputs, size, size + 1)
        parameters, macs, output = _block(t, x, in_channels=inputs, out_channels=outputs, kernel_size=kernel, stride=stride)
        shape = (1, outputs, -(-size // stride), -(-(size + 1) // stride))
        output = t.tensor(output, shape=shape)
        each = inputs * kernel**2 + inputs * outputs
        t.expect(parameters == each, f"one {kernel}x{kernel} kernel per input channel and {outputs} x {inputs} numbers to mix them "
                                     f"make {each} parameters; yours has {parameters}")
        positions = shape[2] * shape[3]
        t.expect(macs == each * positions, f"{each} multiply-accumulates at each of {positions} positions make {each * positions}; "
                                           f"yours needs {macs}; look where the stride is taken")
        thin = F.conv2d(x, settled(inputs, 1, kernel, kernel), stride=stride, padding=kernel // 2, groups=inputs)
        t.close(output, F.conv2d(thin, settled(outputs, inputs, 1, 1)),
                "the output is not pointwise(depthwise(x)), with nothing between the two", rtol=1e-3, atol=1e-4)
    return f"{len(cases)} modules: exact parameters and multiply-accumulates, kernels of 3, 5 and 7, strides of 1, 2 and 3"


def _rank_one(t: Trial, outputs: int, inputs: int, height: int, width: int) -> Tensor:
    return t.randn(outputs, inputs, 1, 1) * t.randn(1, inputs, height, width)


def verify_project_separable(t: Trial) -> str:
    weights = [torch.tensor([[1.0, 2.0], [2.0, 4.0]]).reshape(2, 1, 1, 2), torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]]]).reshape(2, 1, 1, 2),
               -_rank_one(t, 3, 2, 3, 3), t.randn(4, 2, 3, 3), t.randn(3, 5, 3, 3), t.randn(16, 4, 3, 3), t.randn(6, 3, 3, 5),
               t.randn(5, 3, 1, 1), 100 * t.randn(8, 8, 5, 5), t.randn(4, 3, 3, 3).transpose(0, 1)]
    for weight in weights:
        outputs, inputs, height, width = weight.shape
        answer = t.call(weight)
        t.expect(isinstance(answer, (tuple, list)) and len(answer) == 2, "return two tensors: (depthwise, pointwise)")
        depthwise = t.tensor(answer[0], shape=(inputs, 1, height, width)).detach().double()
        pointwise = t.tensor(answer[1], shape=(outputs, inputs, 1, 1)).detach().double()
        missed = float((weight.double() - pointwise * depthwise.transpose(0, 1)).square().sum())
        singular = torch.linalg.svdvals(weight.double().transpose(0, 1).reshape(inputs, outputs, -1))
        least, whole = float(singular[:, 1:].square().sum()), float(singular.square().sum())
        t.expect(missed <= least + 1e-5 * whole, f"your product misses the kernel by {missed / whole:.1%} of its squared norm; "
                                                 f"{least / whole:.1%} is possible: the discarded singular values")
    return f"{len(weights)} kernels: no separable one is nearer; those of rank one come back exactly"


def _chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).eval()


def _product(t: Trial, *convs: nn.Conv2d) -> Tensor:
    """Which inputs reach which outputs of convolutions in a row, from their weights and groups."""
    reach = torch.eye(convs[0].in_channels)
    for conv in convs:
        out, per_group = conv.out_channels, conv.in_channels // conv.groups
        own = torch.zeros(out, conv.in_channels)
        for o in range(out):
            start = o // (out // conv.groups) * per_group
            own[o, start : start + per_group] = (conv.weight[o].detach() != 0).flatten(1).any(1).float()
        reach = own @ reach
    return reach > 0


def _conv(t: Trial, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    conv.weight.data, conv.bias.data = t.randn(*conv.weight.shape), t.randn(outputs)
    return conv


class _Centred(nn.Module):
    """x minus the mean of each channel: the sum over the positions is always 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=(2, 3), keepdim=True)


def _laplace(t: Trial) -> nn.Conv2d:
    """Four times a pixel minus its neighbours, round the border: the gradients of a sum cancel exactly."""
    conv = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False, padding_mode="circular")
    conv.weight.data[:] = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
    return conv


def _lit(t: Trial) -> tuple[nn.Module, Tensor, Tensor]:
    """(block, x, which reach): behind the relu each group of inputs is alive at a single position, and each at another one."""
    narrow, mix = _conv(t, 6, 6, 1, 3), _conv(t, 6, 4)
    narrow.weight.data, narrow.bias.data = narrow.weight.data.abs() + 0.1, torch.zeros(6)
    mix.weight.data[0, :2], mix.weight.data[2, 4:] = 0, 0
    x = -t.randn(1, 6, 5, 6).abs() - 0.1
    for group, (row, column) in enumerate([(0, 4), (3, 1), (4, 3)]):
        x[:, 2 * group : 2 * group + 2, row, column] *= -1
    return _chain(narrow, nn.ReLU(), mix), x, _product(t, narrow, mix)


def _traces(function: Callable[..., Any], block: nn.Module, x: Tensor) -> tuple[Any, bool, bool]:
    """(the table, whether x is left marked, whether gradients are left in the parameters)."""
    table = function(block, x)
    return table, x.requires_grad or x.grad is not None, any(p.grad is not None for p in block.parameters())


def verify_reaches(t: Trial) -> str:
    sparse, faint, negative = _conv(t, 3, 2), _conv(t, 2, 3), _conv(t, 3, 4, 3)
    sparse.weight.data = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])[:, :, None, None]
    faint.weight.data = torch.tensor([[1e-4, 0.0], [0.0, -1e-4], [-1.0, 1e-5]])[:, :, None, None]
    negative.weight.data = -negative.weight.data.abs()
    grouped, other, deep = _conv(t, 6, 6, 1, 2), _conv(t, 6, 9, 1, 3), _conv(t, 6, 6, 3, 6)
    strided, mixed = _conv(t, 4, 8, 3, 4, 2), _conv(t, 8, 3)
    positive = _conv(t, 4, 6, 3, 2)
    positive.weight.data, positive.bias.data = positive.weight.data.abs(), positive.bias.data.abs()
    beside = _conv(t, 4, 4, 3, 2)
    rare = _conv(t, 4, 6, 1, 2, 3)                              # reads every third pixel; the next one cuts the border off
    order = torch.tensor([0, 3, 1, 4, 2, 5])
    eye = torch.eye(3, dtype=torch.bool)
    cases = [(_chain(sparse), _product(t, sparse)), (_chain(faint), _product(t, faint)), (_chain(negative), _product(t, negative)),
             (_chain(grouped), _product(t, grouped)), (_chain(deep, grouped), _product(t, deep, grouped)),
             (_chain(grouped, other), _product(t, grouped, other)), (_chain(strided, mixed), _product(t, strided, mixed)),
             (_chain(positive, nn.BatchNorm2d(6), nn.ReLU()), _product(t, positive)),
             (_chain(Residual(beside)), _product(t, beside) | torch.eye(4, dtype=torch.bool)),
             (_chain(nn.ChannelShuffle(2)), torch.eye(6, dtype=torch.bool)[order]),
             (_chain(rare), _product(t, rare)), (_chain(nn.ZeroPad2d(-1), sparse), _product(t, sparse)),
             (_chain(_Centred()), eye), (_chain(_laplace(t)), eye)]
    lit, special, reached = _lit(t)
    for block, wanted in [*cases, (lit, reached)]:
        exact = isinstance(block[0], _Centred) or getattr(block[0], "padding_mode", "") == "circular"
        x = t.randn(1, wanted.shape[1], *((4, 4) if exact else (5, 6)))       # 16 positions: a mean cancels to exactly 0
        x = special if block is lit else x.abs() if isinstance(block[-1], nn.ReLU) else x
        got = t.tensor(t.call(block, x), shape=wanted.shape)
        t.expect(got.dtype == torch.bool, f"return True and False (dtype torch.bool), yours is {got.dtype}")
        odd = (got != wanted).nonzero()
        t.expect(not len(odd), "" if not len(odd) else
                 f"output {int(odd[0, 0])} {'depends' if wanted[tuple(odd[0])] else 'does not depend'} on input {int(odd[0, 1])}; "
                 f"you say {'it does' if got[tuple(odd[0])] else 'it does not'}")
    _, marked, left = t.use(_traces, _chain(sparse), t.randn(1, 3, 4, 4))
    t.expect(not marked, "your function leaves its mark on x (requires_grad or a gradient): work on x.clone()")
    t.expect(not left, "your function leaves gradients in the block's parameters")
    return f"{len(cases) + 1} blocks: groups, chains, strides, a residual, a shuffle, a crop, faint and negative weights, sums that cancel"


def verify_channel_shuffle(t: Trial) -> str:
    inputs = [(torch.arange(6.0).reshape(1, 6, 1, 1), 2), (torch.arange(12.0).reshape(1, 12, 1, 1), 3), (t.randn(2, 8, 3, 2), 4),
              (t.randn(3, 6, 2, 5), 3), (t.randn(1, 5, 2, 2), 1), (t.randn(2, 4, 3, 3), 4), (t.randn(0, 6, 2, 2), 2),
              (t.randn(2, 4, 5, 6).permute(0, 3, 1, 2), 3), (t.randn(4, 12, 3, 3), 6)]
    for x, groups in inputs:
        y = t.tensor(t.call(x, groups), shape=x.shape)
        n = x.shape[1] // groups
        source = [(place % groups) * n + place // groups for place in range(x.shape[1])]
        odd = next((place for place in range(x.shape[1]) if not torch.equal(y[:, place], x[:, source[place]])), None)
        t.expect(odd is None, "" if odd is None else
                 f"with {groups} groups of {n}, place {odd} must hold the old channel {source[odd]}: the groups take turns")
    t.raises(ValueError, t.randn(1, 6, 2, 2), 4)
    return f"{len(inputs)} tensors: the groups take turns, images and positions stay; groups that do not divide are refused"
