"""What a right answer to exercises 3.7 to 3.12 must do. Small inputs first: the last one tried is shown.

Blocks are judged without naming their parts: weights are filled in by their shapes, the same for everybody, and then only
shapes, counts and outputs are looked at.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.macs import count_macs
from compresslab.course.trial import Trial


def settle(block: nn.Module) -> nn.Module:
    """Fill every parameter with numbers that depend on its shape only (and on how many of that shape came before)."""
    seen: Counter[tuple[int, ...]] = Counter()
    for parameter in block.parameters():
        shape = tuple(parameter.shape)
        generator = torch.Generator().manual_seed(hash((*shape, seen[shape])) % 2**31)
        seen[shape] += 1
        if len(shape) > 1:
            parameter.data = torch.randn(shape, generator=generator) * 2 / parameter[0].numel() ** 0.5
    return block


def norm_numbers(channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, variance, weight and bias of every batch norm of so many channels: far from 0, 1, 1, 0, so that its place matters."""
    generator = torch.Generator().manual_seed(channels)
    mean, bias = torch.randn(2, channels, generator=generator) / 2
    variance, weight = torch.rand(2, channels, generator=generator) + 0.5
    return mean, variance, weight, bias


def lived_in(block: nn.Module) -> nn.Module:
    """Give each batch norm the numbers of its width, as if it had been trained."""
    for m in block.modules():
        if isinstance(m, nn.BatchNorm2d) and m.affine and m.track_running_stats:
            for own, value in zip((m.running_mean, m.running_var, m.weight, m.bias), norm_numbers(m.num_features), strict=True):
                own.data.copy_(value)
    return block


def tracked(block: nn.Module) -> list[tuple[int, int]]:
    """(channels, times used) of each batch norm after one pass in train mode, in order of channels."""
    return sorted((m.num_features, int(m.num_batches_tracked)) for m in block.modules() if isinstance(m, nn.BatchNorm2d))


@torch.no_grad()
def probe(cls, x: Tensor, *args):
    """What can be seen of a block from outside: parameters, output, output with all parameters zero, batch norms used."""
    block = settle(cls(*args))
    if not isinstance(block, nn.Module):
        return type(block).__name__
    parameters = sorted(tuple(p.shape) for p in block.parameters())
    try:
        output = lived_in(block).eval()(x)
        macs = count_macs(block, x[:1]).total
        block.train()(torch.cat([x, 1 - x]))
    except RuntimeError as error:
        if type(error) is not RuntimeError:      # the stub's NotImplementedError is one
            raise
        return {"parameters": parameters, "crash": str(error).splitlines()[0]}
    norms = tracked(block)
    for parameter in block.parameters():
        parameter.zero_()
    return {"parameters": parameters, "output": output, "silent": block.eval()(x), "norms": norms, "macs": macs}


def running(t: Trial, seen, name: str) -> dict:
    """What `probe` saw, if there was something to see."""
    t.expect(isinstance(seen, dict), f"{name}(...) must be an nn.Module, it is {seen}")
    return seen


def count(shapes) -> int:
    """The parameters that tensors of these shapes hold."""
    return sum(torch.Size(shape).numel() for shape in shapes)


# -- wide inside, thin outside -----------------------------------------------------------------------

def _inverted_shapes(in_channels: int, out_channels: int, expansion: int) -> list[tuple[int, ...]]:
    hidden = expansion * in_channels
    return sorted([(hidden, in_channels, 1, 1), (hidden, 1, 3, 3), (out_channels, hidden, 1, 1),
                   *[(hidden,)] * 4, *[(out_channels,)] * 2])


def _inverted_output(x: Tensor, in_channels: int, out_channels: int, stride: int, expansion: int, last=lambda y: y) -> Tensor:
    """The block's formula, with the weights of `settle` and the batch norms of `lived_in`."""
    hidden = expansion * in_channels

    def norm(y: Tensor) -> Tensor:
        return F.batch_norm(y, *norm_numbers(y.shape[1]))

    shapes = [(hidden, in_channels, 1, 1), (hidden, 1, 3, 3), (out_channels, hidden, 1, 1)]
    weights = settle(nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes]))
    with torch.no_grad():
        y = F.relu6(norm(F.conv2d(x, weights[0])))
        y = F.relu6(norm(F.conv2d(y, weights[1], stride=stride, padding=1, groups=hidden)))
        y = last(norm(F.conv2d(y, weights[2])))
        return x + y if stride == 1 and in_channels == out_channels else y


def _check_branch_output(t: Trial, seen: dict, x: Tensor, *args: int) -> None:
    """The output of one inverted residual; a wrong one is told what it looks like."""
    got = t.tensor(seen["output"])
    wanted = _inverted_output(x, *args)
    t.tensor(got, shape=wanted.shape)
    for activation, name in ((F.relu6, "ReLU6"), (F.relu, "ReLU")):
        bent = _inverted_output(x, *args, last=activation)
        t.expect(not torch.allclose(got, bent, 1e-3, 1e-4) or torch.allclose(wanted, bent, 1e-3, 1e-4),
                 f"there is a {name} behind the last convolution: the bottleneck must stay linear")
    t.expect(not (got >= 0).all() or (wanted >= 0).all(), "your outputs are never negative: something bends them at the end")
    t.close(got, wanted, "the output is not that of 1x1, ReLU6, depthwise 3x3, ReLU6, 1x1 (a batch norm right behind each)", rtol=1e-3, atol=1e-4)
    in_channels, out_channels, _, expansion = args
    fine, coarse, hidden = x[0, 0].numel(), wanted[0, 0].numel(), expansion * in_channels
    macs = hidden * in_channels * fine + hidden * (9 + out_channels) * coarse
    t.expect(seen["macs"] == macs, f"the output is right, but an image of {x.shape[2]}x{x.shape[3]} must cost {macs:,} multiplications, "
                                   f"yours costs {seen['macs']:,}: which convolution has the stride?")


def verify_inverted_residual(t: Trial) -> str:
    cases = [(2, 2, 1, 3, 4), (2, 3, 1, 2, 4), (2, 2, 2, 3, 4), (3, 5, 2, 4, 7), (8, 8, 1, 6, 5), (6, 4, 1, 6, 6), (3, 5, 1, 1, 4)]
    for in_channels, out_channels, stride, expansion, size in cases:
        args, x = (in_channels, out_channels, stride, expansion), 2 * t.randn(2, in_channels, size, size)
        seen = t.use(probe, x, *args)
        running(t, seen, "InvertedResidual")
        wanted = _inverted_shapes(in_channels, out_channels, expansion)
        got = seen["parameters"]
        biases = count(got) - count(wanted)
        t.expect(got == wanted or biases != 2 * expansion * in_channels + out_channels,
                 "a batch norm stands behind each convolution and subtracts its bias again: bias=False")
        t.expect(got == wanted, f"InvertedResidual{args} must have {count(wanted):,} parameters in {len(wanted)} tensors: three convolutions "
                                f"without bias, three batch norms; yours has {count(got):,} in {len(got)}")
        t.expect("crash" not in seen, f"the block of {args} cannot run: {seen.get('crash')}")
        joined = stride == 1 and in_channels == out_channels
        t.tensor(seen["silent"], shape=(2, out_channels, -(-size // stride), -(-size // stride)))
        t.close(seen["silent"], x if joined else torch.zeros_like(seen["silent"]),
                f"with all weights zero the block must give {'its input' if joined else 'zeros: here no shortcut is possible'}")
        t.expect(all(times == 1 for _, times in seen["norms"]), "each convolution needs a batch norm of its own, used once")
        _check_branch_output(t, seen, x, *args)
    default = t.use(lambda cls, x: sum(p.numel() for p in cls(4, 4).parameters()), torch.zeros(1, 4, 2, 2))
    t.expect(default == count(_inverted_shapes(4, 4, 6)), "stride and expansion must be 1 and 6 where nothing is said")
    return f"exact parameters and outputs of {len(cases)} blocks, with and without shortcut, stride 1 and 2"


def _linear(t: Trial, inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    layer.weight.data, layer.bias.data = t.randn(outputs, inputs), t.randn(outputs)
    return layer


def verify_squeeze_excite(t: Trial) -> str:
    cases = [(1, 2, 1, 2, 2), (2, 3, 1, 2, 2), (2, 4, 2, 3, 5), (3, 16, 4, 4, 1), (1, 8, 2, 7, 7)]
    for batch, channels, small, height, width in cases:
        x = 5 * t.randn(batch, channels, height, width) + 5 * t.randn(batch, channels, 1, 1)
        down, up = _linear(t, channels, small), _linear(t, small, channels)
        up.weight.data *= 0.25                                            # some hidden numbers above 6, few gates at their ends
        got = t.tensor(t.call(x, down, up), shape=x.shape)
        with torch.no_grad():
            z = F.linear(F.relu(F.linear(x.mean((2, 3)), down.weight, down.bias)), up.weight, up.bias)
        gate = (z + 3).clamp(0, 6) / 6
        factor = got.detach() / x
        flat = (factor - factor.mean((2, 3), keepdim=True)).abs().amax() < 1e-2 * (1 + factor.abs().amax())
        t.expect(flat, "each channel of each image must be multiplied by one number, the same at all its pixels")
        t.close(factor.mean((2, 3)), gate, "the gates are not hard_sigmoid(up(relu(down(mean over the pixels))))", rtol=1e-2, atol=1e-3)
        t.close(got, x * gate[:, :, None, None], "the output is not x times its gates", rtol=1e-3, atol=1e-5)
    return f"the gates and the outputs of {len(cases)} batches, one gate for each channel of each image"


# -- ghosts ------------------------------------------------------------------------------------------

@torch.no_grad()
def ghost_probe(cls, x: Tensor, *args):
    """Parameters and output of a ghost module; no batch norm is expected."""
    module = settle(cls(*args))
    if not isinstance(module, nn.Module):
        return type(module).__name__
    return {"parameters": sorted(tuple(p.shape) for p in module.parameters()), "output": module.eval()(x)}


def verify_ghost_module(t: Trial) -> str:
    cases = [(2, 4, 1, 2, 3), (3, 4, 3, 2, 4), (2, 6, 1, 3, 4), (3, 8, 3, 4, 5), (2, 4, 5, 2, 6), (16, 8, 1, 2, 6)]
    for in_channels, out_channels, kernel_size, ratio, size in cases:
        args, x = (in_channels, out_channels, kernel_size, ratio), t.randn(2, in_channels, size, size)
        seen = t.use(ghost_probe, x, *args)
        t.expect(isinstance(seen, dict), f"GhostModule(...) must be an nn.Module, it is {seen}")
        real = out_channels // ratio
        shapes = [(real, in_channels, kernel_size, kernel_size), ((ratio - 1) * real, 1, 3, 3)]
        got = seen["parameters"]
        t.expect(got == sorted(shapes), f"GhostModule{args} has {real} real maps and {(ratio - 1) * real} ghosts: weights of shapes {shapes[0]} and "
                                        f"{shapes[1]}, {count(shapes):,} parameters; yours are {got}, {count(got):,}")
        output = t.tensor(seen["output"], shape=(2, out_channels, size, size))
        primary, cheap = settle(nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes]))
        with torch.no_grad():
            maps = F.conv2d(x, primary, padding=kernel_size // 2)
            ghosts = F.conv2d(maps, cheap, padding=1, groups=real)
        t.close(output[:, :real], maps, f"the first {real} channels must be the real maps, passed on unchanged", rtol=1e-3, atol=1e-4)
        t.close(output[:, real:], ghosts, "the other channels must be 3x3 depthwise filters of the real maps", rtol=1e-3, atol=1e-4)
    t.raises(ValueError, 3, 5, 1, 2)
    default = t.use(lambda cls, x: sum(p.numel() for p in cls(4, 6).parameters()), torch.zeros(1, 4, 2, 2))
    t.expect(default == 3 * 4 + 3 * 9, "kernel_size and ratio must be 1 and 2 where nothing is said")
    return f"exact weights, real maps unchanged and ghosts of {len(cases)} modules; a ratio that does not divide is refused"


# -- depth that comes and goes -----------------------------------------------------------------------

def dropping(function, count: int, last: float, times: int = 500):
    """What `function` does in training, over many calls: how often each branch was added and computed, rounded."""
    added, computed, patterns = torch.zeros(count), torch.zeros(count), set()
    ones = torch.eye(count)
    for _ in range(times):
        log = []
        branches = [lambda x, l=l: log.append(l) or ones[l].expand(x.shape) for l in range(count)]
        y = function(torch.zeros(1, count), branches, last, True)
        if not isinstance(y, Tensor) or y.shape != (1, count):
            return y
        added += y[0].detach()
        computed[log] += 1
        patterns.add(tuple(y[0].tolist()))
    runs = []
    for _ in range(2):                                                    # the same seed, the same coins
        torch.manual_seed(1)
        branches = [lambda x, l=l: ones[l].expand(x.shape) for l in range(count)]
        runs.append([function(torch.zeros(1, count), branches, last, True).tolist() for _ in range(40)])
    values = sorted({round(v, 3) for pattern in patterns for v in pattern})
    return {"added": (added / times * 5).round() / 5, "computed": (computed / times * 5).round() / 5,
            "coins": len(patterns) > count + 1, "values": values, "repeats": runs[0] == runs[1]}


def verify_stochastic_depth(t: Trial) -> str:
    for count, last in [(1, 0.5), (2, 0.5), (4, 0.2), (5, 1.0), (3, 0.0)]:
        x = t.randn(2, 3).relu()
        branches = [nn.Linear(3, 3) for _ in range(count)]
        for branch in branches:
            branch.weight.data, branch.bias.data = t.randn(3, 3), t.randn(3)
        got = t.tensor(t.call(x, branches, last, False), shape=x.shape)
        wanted = x
        with torch.no_grad():
            for l, branch in enumerate(branches, 1):
                wanted = F.relu((1 - l / count * (1 - last)) * branch(wanted) + wanted)
        t.close(got, wanted, "at test every branch is used, times its p_l, and the relu comes after the addition", rtol=1e-3, atol=1e-5)
    for count, last in [(2, 0.2), (4, 0.2), (3, 1.0), (5, 0.0)]:
        seen = t.use(dropping, count, last)
        t.expect(isinstance(seen, dict), "in training, too, return a tensor of the shape of x")
        p = torch.tensor([1 - l / count * (1 - last) for l in range(1, count + 1)])
        t.expect(set(seen["values"]) <= {0.0, 1.0}, f"in training a branch is added as it is, or not at all: here it counted {seen['values']} times")
        rates = [round(v, 2) for v in seen["added"].tolist()]
        t.expect((seen["added"] - p).abs() <= 0.06, f"with {count} blocks and p_L = {last:g} the branches must survive with probabilities "
                 f"{[round(v, 2) for v in p.tolist()]}; yours were added in about these shares of 500 calls: {rates}")
        t.expect(bool((seen["computed"] - seen["added"]).abs().max() < 0.04), "a branch that is dropped must not be computed at all: "
                 "otherwise no time is saved")
        t.expect(seen["coins"] or (count, last) != (4, 0.2), "each block has a coin of its own: yours come and go together")
        t.expect(seen["repeats"], "after the same torch.manual_seed the same branches must survive: toss with torch.rand, not with Python's random")
    return "the formula at test; in training the right survival rates, one coin for each block, nothing computed in vain"


# -- search ------------------------------------------------------------------------------------------

def _best_of_all(gains: list[list[float]], costs: list[list[int]], budget: int) -> float:
    """The best sum of gains whose costs fit, by going through all sums of costs."""
    best = {0: 0.0}
    for gain, cost in zip(gains, costs, strict=True):
        longer: dict[int, float] = {}
        for spent, total in best.items():
            for g, c in zip(gain, cost, strict=True):
                if spent + c <= budget:
                    longer[spent + c] = max(longer.get(spent + c, -1.0), total + g)
        best = longer
    return max(best.values())


def searching(function, landscapes: list, budgets: list, rounds: int, children: int, least: float):
    """Searches in several landscapes, from outside: what was returned, what was looked at. Each fact is about all of them."""
    facts = {"fits": True, "wasted": False, "many": False, "few": False, "lost": False, "stuck": False, "timid": False}
    shares = []
    for (choices, gains, costs), budget in zip(landscapes, budgets, strict=True):
        scored: dict[tuple, float] = {}

        def total(candidate, tables):
            return sum(table[options.index(choice)] for table, options, choice in zip(tables, choices, candidate, strict=True))

        def score(candidate):
            scored[tuple(candidate)] = total(candidate, gains)
            return scored[tuple(candidate)]

        found = function(choices, score, lambda candidate: total(candidate, costs), budget, rounds, children)
        if not isinstance(found, tuple) or len(found) != len(choices) or any(c not in o for c, o in zip(found, choices)):
            return found
        first = tuple(options[0] for options in choices)
        steps = [[place for place, c in enumerate(one) if c != first[place]] for one in scored]
        facts["fits"] &= total(found, costs) <= budget
        facts["wasted"] |= any(total(one, costs) > budget for one in scored)
        facts["many"] |= len(scored) > 1 + rounds * children
        facts["few"] |= len(scored) < 2
        facts["lost"] |= total(found, gains) < max(scored.values(), default=0.0) - 1e-9
        facts["stuck"] |= len({place for step in steps for place in step}) < min(2, len(first))
        facts["timid"] |= max(map(len, steps), default=0) < min(2, len(first))
        start, best = total(first, gains), _best_of_all(gains, costs, budget)
        shares.append((total(found, gains) - start) / max(best - start, 1e-9))
    runs: list[list[tuple]] = [[], []]
    for run in runs if len(landscapes) > 1 else ():                       # the same seed, the same candidates
        torch.manual_seed(1)
        function(choices, lambda one, run=run: run.append(tuple(one)) or total(one, gains), lambda one: total(one, costs), budget, 2, children)
    return facts | {"repeats": runs[0] == runs[1], "near": sum(shares) >= least * len(shares)}


def _landscape(t: Trial, places: int, options: int) -> tuple[list, list, list]:
    """Names of choices, what each is worth (more is better, less and less) and what it costs: no two places have the same list."""
    lists = [[100 * place + 8 * (k + 1) for k in range(options)] for place in range(places)]
    choices = [names[::-1] if place % 2 else names[:max(2, options - place % 3)] for place, names in enumerate(lists)]
    weights = [10 ** t.uniform(-1.5, 0.5) for _ in range(places)]
    gains = [[w * (k + 1) ** 0.5 for k in range(len(names))] for w, names in zip(weights, choices, strict=True)]
    costs = [[t.integer(1, 4) * (k + 1) for k in range(len(names))] for names in choices]
    costs = [sorted(cost) for cost in costs]
    return choices, gains, costs


def verify_evolve(t: Trial) -> str:
    cases = [(1, 1, 2, 1.0, 8, 6), (1, 2, 3, 0.7, 12, 8), (1, 4, 6, 0.6, 15, 12), (4, 30, 6, 0.4, 80, 20)]
    for number, places, options, share, rounds, children in cases:
        landscapes = [_landscape(t, places, options) for _ in range(number)]
        budgets = []
        for _, _, costs in landscapes:
            least, most = (sum(cost[k] for cost in costs) for k in (0, -1))
            budgets.append(int(least + share * (most - least)))
        wanted = 0.9 if number > 1 else 0.5
        seen = t.use(searching, landscapes, budgets, rounds, children, wanted)
        t.expect(isinstance(seen, dict), "return a tuple with one of choices[i] at place i")
        t.expect(seen["fits"], "the candidate that you return costs more than the budget")
        t.expect(not seen["wasted"], "you score candidates that do not fit: a score is a training, a cost is a count; look at the cost first")
        t.expect(not seen["many"], f"{rounds} rounds of {children} children are at most {1 + rounds * children} candidates to score; you score more")
        t.expect(not seen["lost"], "a better candidate was seen and then lost: the parents must stay in the race with their children")
        t.expect(not seen["few"], "you score no candidate but the first")
        t.expect(not seen["stuck"], "your candidates differ at one place only: every place may change")
        t.expect(not seen["timid"], "all your candidates are one step away from the first: children of children go further")
        t.expect(seen["repeats"], "after the same torch.manual_seed your search must score the same candidates: draw with torch.randint, "
                 "not with Python's random")
        t.expect(seen["near"], f"{rounds} rounds of {children} children must come near the best of all candidates; "
                               f"your search goes less than {wanted:.0%} of the way from the first score to the best")
    return f"near the best candidate of {sum(case[0] for case in cases)} spaces, of up to 30 places; nothing over the budget scored, nothing good lost"


# -- a stage, repaired -------------------------------------------------------------------------------

def verify_stage(t: Trial) -> str:
    cases = [(2, 2, 1, 1, 2, 4), (2, 3, 1, 1, 2, 4), (2, 2, 1, 2, 3, 4), (2, 3, 2, 2, 3, 4), (3, 3, 3, 1, 2, 5), (4, 6, 4, 2, 4, 8), (4, 4, 2, 2, 4, 6)]
    for in_channels, out_channels, blocks, stride, expansion, size in cases:
        args, x = (in_channels, out_channels, blocks, stride, expansion), 2 * t.randn(2, in_channels, size, size)
        seen = t.use(probe, x, *args)
        running(t, seen, "Stage")
        t.expect("crash" not in seen, f"Stage{args} cannot run: {seen.get('crash')}")
        t.tensor(seen["output"], shape=(2, out_channels, -(-size // stride), -(-size // stride)))
        joined = stride == 1 and in_channels == out_channels
        off = (seen["silent"] - (x if joined else torch.zeros_like(seen["silent"]))).abs().max() > 1e-6
        t.expect(not off, f"Stage{args} with all weights zero must give {'its input' if joined else 'zeros'}: the shortcut belongs where channels "
                          "AND size stay the same, and only there")
        wanted = _inverted_shapes(in_channels, out_channels, expansion) + (blocks - 1) * _inverted_shapes(out_channels, out_channels, expansion)
        most = max((times for _, times in seen["norms"]), default=0)
        t.expect(most <= 1, f"in one pass one batch norm normalises {most} different tensors: is a layer, or a block, used in several places?")
        got = seen["parameters"]
        t.expect(got == sorted(wanted), f"Stage{args} must have {count(wanted):,} parameters in {len(wanted)} tensors, yours has {count(got):,} in {len(got)}")
        if blocks == 1:
            _check_branch_output(t, seen, x, in_channels, out_channels, stride, expansion)
        else:
            t.close(seen["output"], probe(t.reference, x, *args)["output"], "the output is not that of the blocks in a row", rtol=1e-2, atol=1e-3)
    return f"{len(cases)} stages: shortcuts, parameters, batch norms and outputs"

