"""What a right answer to exercises 5.7 to 5.13 must do. Small inputs first: the last one tried is shown.

Factors are never compared: singular vectors have a free sign, a scale may stand on either side. What is compared
are products, errors, outputs and operations.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from compresslab.course.trial import Trial


# -- one layer into three ----------------------------------------------------------------------------

def tails(kernel: Tensor, rank_out: int, rank_in: int) -> tuple[float, float]:
    """The squared energy that each of the two truncations alone leaves out."""
    kernel = kernel.double()
    outputs, inputs = (torch.linalg.svdvals(matrix) for matrix in (kernel.flatten(1), kernel.transpose(0, 1).flatten(1)))
    return outputs[rank_out:].square().sum().item(), inputs[rank_in:].square().sum().item()


def verify_tucker2(t: Trial) -> str:
    cases = [(torch.tensor([[3.0, 4.0], [0.0, 0.0]]).view(2, 2, 1, 1), 1, 1), (t.randn(3, 2, 1, 2), 2, 1), (t.randn(3, 4, 2, 2), 3, 4)]
    cases += [(t.randn(n, c, h, w), r, s) for n, c, h, w, r, s in ((4, 6, 3, 3, 2, 3), (6, 4, 3, 3, 1, 4), (5, 5, 3, 1, 4, 2), (2, 8, 1, 1, 2, 2))]
    planted = torch.einsum("rshw,nr,cs->nchw", t.randn(2, 3, 3, 3), t.randn(8, 2), t.randn(7, 3))
    cases.append((planted, 2, 3))
    for kernel, rank_out, rank_in in cases:
        output = t.call(kernel, rank_out, rank_in)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 3 and all(isinstance(part, Tensor) for part in output),
                 "return three tensors: (core, U_out, U_in)")
        core, outer, inner = output
        n, c, h, w = kernel.shape
        for name, got, wanted in (("core", core, (rank_out, rank_in, h, w)), ("U_out", outer, (n, rank_out)), ("U_in", inner, (c, rank_in))):
            t.expect(tuple(got.shape) == wanted, f"{name} must have shape {wanted}, yours has {tuple(got.shape)}")
        core, outer, inner, exact = core.double(), outer.double(), inner.double(), kernel.double()
        for name, basis in (("U_out", outer), ("U_in", inner)):
            t.expect((basis.T @ basis - torch.eye(basis.shape[1]).double()).abs() < 1e-4, f"the columns of {name} are not orthonormal")
        seen = torch.einsum("nchw,nr,cs->rshw", exact, outer, inner)
        t.expect((core - seen).abs() < 1e-4, "the core is not the kernel seen through your two bases: sum over n and c of K[n, c] U_out[n, r] U_in[c, s]")
        error = (torch.einsum("rshw,nr,cs->nchw", core, outer, inner) - exact).square().sum().item()
        lost, size = sum(tails(kernel, rank_out, rank_in)), exact.square().sum().item()
        t.expect(error <= lost + 1e-5 * size, f"your rebuilt kernel has a squared error of {error:.4g}; the discarded singular values allow {max(lost, 0.0):.4g}")
    return f"orthonormal bases, the core their projection, the error within the discarded energy, {len(cases)} kernels; full ranks exact"


def built_chain(function, conv: nn.Conv2d, x: Tensor, *settings: Any) -> dict[str, Any] | Any:
    """What matters of a chain of convolutions: its layers, its output, its operations, and whether it shares memory with the old layer."""
    before, then = copy.deepcopy(conv.state_dict()), _settings(conv)
    chain = function(conv, *settings)
    if not isinstance(chain, nn.Sequential) or not all(isinstance(layer, nn.Conv2d) for layer in chain):
        return chain
    with torch.no_grad():
        macs, y = 0, x
        for layer in chain:
            y = layer(y)
            macs += layer.weight.numel() * y[0, 0].numel()
        answer = {"changed": _settings(conv) != then or not same_state(before, conv.state_dict()), "biases": [layer.bias is not None for layer in chain],
                  "output": y, "macs": macs, "shapes": [tuple(layer.weight.shape) for layer in chain],
                  "weights": [layer.weight.clone() for layer in chain], "trains": all(p.requires_grad for p in chain.parameters())}
        for parameter in chain.parameters():
            parameter.add_(1.0)
    answer["shared"] = not answer["changed"] and not same_state(before, conv.state_dict())
    return answer


def _settings(conv: nn.Conv2d) -> tuple[Any, ...]:
    return conv.stride, conv.padding, conv.dilation, conv.groups, conv.kernel_size, [p.requires_grad for p in conv.parameters()]


def same_state(before: dict[str, Tensor], now: dict[str, Tensor]) -> bool:
    """The same names, and the same numbers under them."""
    return before.keys() == now.keys() and all(torch.equal(before[key], now[key]) for key in now)


def _convolutions(t: Trial) -> list[tuple[nn.Conv2d, Tensor]]:
    """Small and larger convolutions, with and without stride, padding and bias, each with an input."""
    made = []
    for c, n, kernel, stride, padding, bias, size in ((2, 2, 1, 1, 0, False, 2), (2, 2, 3, 1, 0, False, 4), (2, 3, 3, 1, 1, True, 5), (4, 6, 3, 2, 1, False, 8), (1, 12, 3, 1, 0, True, 5),
                                                      (6, 4, (3, 5), (2, 1), (1, 2), True, 9), (5, 8, 5, 3, 2, True, 11), (1, 18, 3, 1, 1, True, 5), (1, 20, 3, 1, 0, True, 5), (8, 8, (1, 5), 1, (0, 2), True, 6)):
        conv = nn.Conv2d(c, n, kernel, stride, padding, bias=bias)
        for parameter in conv.parameters():
            parameter.data = t.randn(*parameter.shape)
        made.append((conv, t.randn(2, c, size, size + 1)))
    return made


def _chain_is_sound(t: Trial, conv: nn.Conv2d, x: Tensor, built: Any, shapes: list[tuple[int, ...]], names: list[str], rebuilt) -> Tensor:
    """Layers of these shapes; the output is that of one convolution with the kernel they make; no operation too many. Returns that kernel."""
    t.expect(isinstance(built, dict), f"return an nn.Sequential of {len(shapes)} nn.Conv2d layers")
    t.expect(not built["changed"], "your function changed the layer that came in")
    t.expect(built["shapes"] == shapes, f"the layers must have weights of shapes {', '.join(map(str, shapes))} ({', '.join(names)}), yours have "
             + ", ".join(map(str, built["shapes"])))
    kernel = rebuilt(*(weight.double() for weight in built["weights"]))
    bias = None if conv.bias is None else conv.bias.detach().double()
    wanted = F.conv2d(x.double(), kernel, bias, conv.stride, conv.padding)
    got = built["output"].double()
    t.expect(got.shape == wanted.shape, f"the output must have shape {tuple(wanted.shape)}, yours has {tuple(got.shape)}")
    t.expect((got - wanted).abs() < 1e-3 * (1 + wanted.abs().max()), "the chain is not the convolution with the kernel that its weights make: look at stride, padding and bias")
    return kernel


def _operations(t: Trial, conv: nn.Conv2d, x: Tensor, built: dict, sizes: list[tuple[int, int]], shapes: list[tuple[int, ...]]) -> None:
    macs = sum(math.prod(shape) * h * w for shape, (h, w) in zip(shapes, sizes))
    t.expect(built["macs"] <= macs, f"the output is right, but it takes {built['macs']:,} MACs where {macs:,} do: stride and padding stand in the wrong layer")
    t.expect(built["biases"] == [False] * (len(shapes) - 1) + [conv.bias is not None], "the last layer has a bias where the old one had one, no other layer has any")
    t.expect(not built["shared"], "your layers share memory with the old one: training them changes it, too; clone()")
    t.expect(built["trains"], "a parameter of your chain does not require a gradient: it could not be fine-tuned")


def verify_tucker_conv(t: Trial) -> str:
    def rebuilt(first, middle, last):
        return torch.einsum("rshw,nr,sc->nchw", middle, last[:, :, 0, 0], first[:, :, 0, 0])

    tried = 0
    for conv, x in _convolutions(t):
        n, c, h, w = conv.weight.shape
        for rank_out, rank_in in ((min(max(1, n // 2), c * h * w), max(1, c - 1)), (min(n, c * h * w), c)):
            built = t.use(built_chain, conv, x, rank_out, rank_in, may_change=True)
            shapes = [(rank_in, c, 1, 1), (rank_out, rank_in, h, w), (n, rank_out, 1, 1)]
            kernel = _chain_is_sound(t, conv, x, built, shapes, ["1x1, the kernel, 1x1"], rebuilt)
            exact = conv.weight.detach().double()
            error, lost = (kernel - exact).square().sum().item(), sum(tails(exact, rank_out, rank_in))
            t.expect(error <= lost + 1e-5 * exact.square().sum().item(), f"the squared error of the rebuilt kernel is {error:.4g}, that of tucker2 at most {lost:.4g}")
            end = tuple(built["output"].shape[2:])
            _operations(t, conv, x, built, [tuple(x.shape[2:]), end, end], shapes)
            tried += 1
    return f"the chain equals the rebuilt convolution, {tried} times, with stride, padding and bias; full ranks give the layer back; no MAC too many"


# -- many small factors ------------------------------------------------------------------------------

def cp(factors: list[Tensor]) -> Tensor:
    """The tensor sum_r a_r o b_r o c_r ..."""
    result = factors[0]
    for factor in factors[1:]:
        result = result.unsqueeze(-2) * factor
    return result.sum(-1)


TOLERANCE = 1e-6                                          # of the squared size: float32 keeps it, a ridge of a thousandth does not


def verify_als_step(t: Trial) -> str:
    two = [torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [-1.0]]), torch.tensor([[2.0], [1.0]])]
    cases = [(torch.tensor([[[2.0, 1.0], [-2.0, -1.0]], [[4.0, 2.0], [-4.0, 0.0]]]), two, mode) for mode in (0, 1, 2)]
    for shape, rank in (((3, 2, 4), 2), ((2, 5, 3), 3), ((6, 4, 3, 3), 4), ((3, 8, 2, 2), 2)):
        factors = [t.randn(size, rank) for size in shape]
        cases += [(t.randn(*shape), factors, mode) for mode in range(len(shape))]
    planted = [t.randn(size, 3) for size in (5, 4, 3)]
    cases.append((cp(planted), [t.randn(5, 3), *planted[1:]], 0))                   # the others are right: exact
    cases.append((cp([0.1 * factor for factor in planted]), [0.1 * t.randn(5, 3), *(0.1 * factor for factor in planted[1:])], 0))      # small numbers
    dead = [t.randn(size, 3) * torch.tensor([1.0, 0.0, 1.0]) for size in (4, 3, 5)]
    cases.append((t.randn(4, 3, 5), dead, 1))                                       # a component that has died
    for tensor, factors, mode in cases:
        before = [factor.clone() for factor in factors]
        got = t.tensor(t.call(tensor, factors, mode), shape=factors[mode].shape).double()
        t.expect(got.isfinite(), "a number of your factor is not finite; with a dead component Z^T Z has no inverse: pinv, or lstsq with driver='gelsd', does without")
        exact = tensor.double()
        updated, others = [factor.double() for factor in before], [factor.double() for m, factor in enumerate(before) if m != mode]
        updated[mode] = got
        error, old = (cp(updated) - exact).square().sum().item(), (cp([f.double() for f in before]) - exact).square().sum().item()
        product = torch.stack([cp([f[:, r : r + 1] for f in others]).flatten() for r in range(got.shape[1])], 1)
        unfolded = exact.movedim(mode, 0).flatten(1)
        least = (unfolded - unfolded @ torch.linalg.pinv(product.T, rtol=1e-9) @ product.T).square().sum().item()
        scale = exact.square().sum().item()
        t.expect(error <= old + TOLERANCE * scale, f"the squared error rose from {old:.4g} to {error:.4g}: a least-squares step never raises it")
        t.expect(error <= least + TOLERANCE * scale, f"the squared error is {error:.8g}; with the other factors held fixed, {max(least, 0.0):.8g} can be had")
    return f"the least squared error of {len(cases)} steps, every mode of tensors with 3 and 4 axes, one with a dead component"


class _Largest(TorchFunctionMode):
    """The number of elements of the largest tensor that a function or method of torch has returned."""

    def __init__(self) -> None:
        super().__init__()
        self.size: float = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (Tensor.numpy, Tensor.__array__, Tensor.tolist):               # what is done outside torch cannot be seen
            self.size = math.inf
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, Tensor):
                self.size = max(self.size, made.numel())
        return result


def watched_product(function, cores: list[Tensor], x: Tensor) -> tuple[Any, bool]:
    """The product, and whether something as large as the matrix (at least half of it) was made on the way."""
    with _Largest() as largest:
        y = function(cores, x)
    return y, 2 * largest.size >= math.prod(core.shape[1] * core.shape[2] for core in cores)


def tt_matrix(cores: list[Tensor]) -> Tensor:
    """The matrix (m_1 ... m_d, n_1 ... n_d) of a tensor train."""
    built = torch.ones(1, 1, 1, dtype=torch.float64)                                # (rows, columns, rank)
    for core in cores:
        built = torch.einsum("abr,rmns->ambns", built, core.double())
        built = built.reshape(built.shape[0] * built.shape[1], -1, core.shape[3])
    return built[:, :, 0]


def verify_tt_product(t: Trial) -> str:
    cases = [([t.integers(-2, 2, (1, 2, 2, 1)).float()], torch.tensor([[1.0, 2.0]])),
             ([t.integers(-2, 2, (1, 2, 1, 2)).float(), t.integers(-2, 2, (2, 1, 2, 1)).float()], torch.tensor([[1.0, 2.0]]))]
    for rows, columns, ranks, batch in (((2, 2), (2, 2), (2,), 2), ((2, 3), (3, 2), (1,), 1), ((3, 2), (2, 4), (3,), 4), ((2, 1, 3), (3, 4, 2), (2, 4), 3),
                                        ((4, 4, 4, 4), (4, 4, 4, 4), (2, 3, 2), 2), ((3, 5, 4, 3), (4, 3, 5, 4), (2, 2, 2), 3)):
        ends = (1, *ranks, 1)
        cores = [t.randn(ends[k], rows[k], columns[k], ends[k + 1]) for k in range(len(rows))]
        cases.append((cores, t.randn(batch, math.prod(columns))))
    for cores, x in cases:
        got, as_large = t.use(watched_product, cores=cores, x=x)
        matrix = tt_matrix(cores)
        got = t.tensor(got, shape=(len(x), len(matrix))).double()
        wanted = x.double() @ matrix.T
        t.close(got, wanted, "the product of each row of x with the matrix", rtol=1e-3, atol=1e-3)
        t.expect(not as_large or matrix.numel() < 10_000, f"right, but you made a tensor as large as the matrix ({matrix.numel():,} numbers), or left torch: contract x with one core after the other")
    return f"W x for {len(cases)} trains of 1 to 4 cores, batches of 1 to 4, and nothing as large as W was made"


# -- a budget ----------------------------------------------------------------------------------------

def verify_choose_ranks(t: Trial) -> str:
    equal = torch.tensor([2.0, 1.0])
    cases = [([torch.tensor([2.0, 1.0, 0.5])], [1], 2), ([torch.tensor([3.0, 1.0, 1.0]), torch.tensor([3.0, 2.0, 0.5])], [1, 1], 5),
             ([equal, equal], [1, 1], 3), ([equal, torch.tensor([20.0, 5.0])], [1, 1], 3),
             ([torch.tensor([3.0, 2.0]), torch.tensor([3.0, 1.0])], [10, 1], 12), ([torch.tensor([5.0, 0.1, 0.1]), torch.tensor([3.0, 2.0, 2.0])], [1, 1], 4),
             ([equal, equal], [2, 2], 8), ([torch.tensor([4.0, 1.0]), torch.tensor([1.0])], [3, 5], 8),
             ([torch.tensor([1.0, 0.0, 0.0]), torch.tensor([4.0, 3.0])], [2, 2], 8), ([torch.tensor([3.0, 1.0]), torch.tensor([3.0, 2.0])], [5, 1], 7),
             ([torch.tensor([1.0]), torch.tensor([4.0, 3.0, 2.0, 1.0])], [50, 1], 53), ([torch.tensor([3.0, 2.0, 2.0]), torch.tensor([2.83, 1.73])], [1, 1], 3)]
    for layers in (2, 3, 6):
        for part in (0.3, 0.6, 0.9):
            spectra = [t.randn(t.integer(3, 12)).abs().sort(descending=True).values * 10 ** t.uniform(-1, 1) for _ in range(layers)]
            costs = [t.integer(1, 40) for _ in range(layers)]
            full, least = sum(len(values) * cost for values, cost in zip(spectra, costs)), sum(costs)
            cases.append((spectra, costs, int(least + part * (full - least))))
    plain = True
    for spectra, costs, budget in cases:
        output = t.call(spectra, costs, budget)
        t.expect(isinstance(output, (list, tuple, Tensor)) and len(output) == len(spectra), "return a list with one rank for each layer")
        ranks = [int(t.number(rank)) for rank in output]
        t.expect(all(1 <= rank <= len(values) for rank, values in zip(ranks, spectra)), f"a rank lies between 1 and the number of singular values, yours are {ranks}")
        spent, wanted = sum(rank * cost for rank, cost in zip(ranks, costs)), t.reference(spectra, costs, budget)
        t.expect(spent <= budget, f"your ranks {ranks} cost {spent}, the budget is {budget}")
        t.expect(ranks == wanted, f"the ranks must be {wanted}, yours are {ranks}")
        plain = plain and all(type(rank) is int for rank in output)
    t.expect(plain, "the ranks are right, but not all plain ints, and `decompose` takes no others: return a list of ints")
    t.raises(ValueError, [equal, equal], [3, 3], 5)
    return f"the greedy ranks of {len(cases)} networks, ties and dead directions included; a budget below rank 1 everywhere is refused"


# -- adapters ----------------------------------------------------------------------------------------

def verify_merge_adapter(t: Trial) -> str:
    cases = [(torch.tensor([[1.0, 0.0], [5.0, 1.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]), 1.0)]
    for m, n, rank, alpha in ((2, 3, 1, 2.0), (3, 3, 2, 1.0), (4, 6, 3, 6.0), (5, 5, 5, 16.0), (8, 4, 2, 0.5)):
        cases.append((t.randn(m, n), t.randn(rank, n), t.randn(m, rank), alpha))
    for weight, A, B, alpha in cases:
        got = t.tensor(t.call(weight, A, B, alpha), shape=weight.shape).double()
        x = t.randn(7, weight.shape[1]).double()
        wanted = x @ weight.T.double() + alpha / len(A) * (x @ A.T.double()) @ B.T.double()
        t.close(x @ got.T, wanted, "the merged layer's output for 7 inputs", rtol=1e-3, atol=1e-4)
    zero = t.randn(3, 4)
    t.close(t.call(zero, t.randn(2, 4), torch.zeros(3, 2), 8.0), zero, "B = 0, as at the start of the training: the weight must come out as it was")
    return f"the output of {len(cases)} layers with their adapters, and W itself while B is 0"


# -- a decomposer, repaired --------------------------------------------------------------------------

def verify_decompose_repaired(t: Trial) -> str:
    def rebuilt(first, second):
        return torch.einsum("nr,rchw->nchw", second[:, :, 0, 0], first)

    tried = 0
    for conv, x in _convolutions(t):
        n, c, h, w = conv.weight.shape
        for fraction in (0.5, 0.9):
            rank = max(1, int(fraction * conv.weight.numel() / (n + c * h * w)))
            built = t.use(built_chain, conv, x, fraction, may_change=True)
            if isinstance(built, dict) and len(built["weights"]) == 2 and built["shapes"][0][0] == built["shapes"][1][1]:
                mine = built["shapes"][0][0]
                t.expect(mine == rank, f"rank {rank} is the largest with at most {fraction:g} of the {conv.weight.numel()} weights (never below 1), yours is {mine}")
            shapes = [(rank, c, h, w), (n, rank, 1, 1)]
            kernel = _chain_is_sound(t, conv, x, built, shapes, ["the kernel, 1x1"], rebuilt)
            exact = conv.weight.detach().double()
            error = (kernel - exact).square().sum().item()
            lost = torch.linalg.svdvals(exact.flatten(1))[rank:].square().sum().item()
            t.expect(error <= lost + 1e-5 * exact.square().sum().item(), f"the squared error of the rebuilt kernel is {error:.4g}; rank {rank} can have {lost:.4g}")
            end = tuple(built["output"].shape[2:])
            _operations(t, conv, x, built, [end, end], shapes)
            tried += 1
    return f"the right rank, the least error, the output and the MACs of {tried} chains, with stride, padding and bias"
