"""What a right answer to exercises 5.1 to 5.6 must do. Small inputs first: the last one tried is shown.

Factors are never compared, only their shapes, their products and their errors: signs of singular vectors, and who
gets the singular values, are free.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.course.chapter05.checks_tensors import same_state
from compresslab.course.trial import Trial

KEYS = ("output", "input", "spatial", "pixel")


def factors(function: Any, **inputs: Any) -> Any:
    """What two factors amount to: their shapes and their product. Anything else as it comes."""
    made = function(**inputs)
    if not isinstance(made, tuple | list) or len(made) != 2 or not all(isinstance(m, Tensor) and m.ndim == 2 for m in made):
        return made
    B, A = (m.detach() for m in made)
    product = B.double() @ A.double() if B.shape[1] == A.shape[0] else "B A does not exist"
    return {"B": tuple(B.shape), "A": tuple(A.shape), "dtypes": (str(B.dtype), str(A.dtype)), "B A": product}


def _product(t: Trial, rank: int, weight: Tensor, **inputs: Tensor) -> Tensor:
    """B A of the learner's factors, in double precision, with their shapes checked."""
    made = t.use(factors, weight=weight, rank=rank, **inputs)
    t.expect(isinstance(made, dict), "return two matrices, B and A")
    (m, n), wanted = weight.shape, ((weight.shape[0], rank), (rank, weight.shape[1]))
    if (made["B"], made["A"]) == wanted[::-1] and m != n:
        t.expect(False, "the factors come in the other order: B first, then A")
    t.expect((made["B"], made["A"]) == wanted, f"for rank {rank}, B must be ({m}, {rank}) and A ({rank}, {n}), yours are {made['B']} and {made['A']}")
    t.expect(set(made["dtypes"]) == {str(weight.dtype)}, f"B and A must have the weight's dtype, {weight.dtype}, or the layers made of them will not run")
    t.expect(torch.isfinite(made["B A"]), "there is nan or inf in your factors")
    return made["B A"].double()


# -- one matrix into two -----------------------------------------------------------------------------

def _planted(t: Trial, m: int, n: int, rank: int) -> Tensor:
    return t.randn(m, rank) @ t.randn(rank, n)


def verify_split_linear(t: Trial) -> str:
    cases = [(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), 1), (torch.tensor([[0.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), 1),
             (torch.tensor([[3.0, 0.0], [0.0, 2.0]]), 2), (t.randn(2, 3), 2), (t.randn(4, 3), 2), (t.randn(5, 5), 3), (0.05 * t.randn(6, 20), 4),
             (10 * t.randn(12, 7), t.integer(2, 6)), (_planted(t, 8, 9, 3), 5), (torch.zeros(3, 4), 2), (t.randn(4, 6).double(), 2)]
    for weight, rank in cases:
        product = _product(t, rank, weight)
        S = torch.linalg.svdvals(weight.double())
        least = S[rank:].norm().item()                        # Eckart and Young: nothing of this rank is nearer
        error = (weight.double() - product).norm().item()
        t.expect(error <= 1.001 * least + 1e-5 * (S[0].item() + 1e-3),
                 f"B A is {error:.4g} away from the weight, the closest matrix of rank {rank} is {least:.4g} away")
    for shape, rank in [((3, 5), 0), ((3, 5), -1), ((3, 5), 4), ((5, 3), 4), ((3, 5), 7)]:
        t.raises(ValueError, t.randn(*shape), rank)
    return f"the closest matrix of its rank in {len(cases)} cases, square or not; ranks that do not exist are refused"


def verify_break_even_rank(t: Trial) -> str:
    shapes = [(2, 2), (3, 6), (4, 4), (5, 5), (1, 7), (100, 300), (300, 784), (10, 1000), (64, 576), (1000, 10), (512, 905)]
    shapes += [(t.integer(2, 400), t.integer(2, 400)) for _ in range(12)] + [(d * (d + 1), d + 1) for d in (2, 5, 9)]
    plain = True
    for m, n in shapes:
        output = t.call(m, n)
        got, plain = t.number(output), plain and type(output) is int
        t.expect(got == int(got), f"a rank is a whole number, yours is {got:g}")
        k, dense = int(got), m * n
        t.expect(k >= 0, f"a rank is not negative, yours is {k}")
        t.expect(k * (m + n) < dense, f"at rank {k} the factors hold {k * (m + n):,} numbers, the matrix {dense:,}: nothing is saved")
        t.expect((k + 1) * (m + n) >= dense, f"rank {k + 1} would still save: {(k + 1) * (m + n):,} numbers against {dense:,}")
    t.expect(plain, "the numbers are right, but not plain ints, and no layer takes another kind: return an int")
    return f"{len(shapes)} shapes: this rank saves, the next does not"


# -- a kernel has many ranks -------------------------------------------------------------------------

def verify_flattenings(t: Trial) -> str:
    shapes = [(2, 3, 1, 1), (2, 1, 1, 3), (2, 3, 2, 2), (3, 2, 3, 1), (4, 2, 3, 5), (3, 3, 3, 3), (5, 4, 2, 3)]
    for n, c, kh, kw in shapes:
        kernel = torch.arange(n * c * kh * kw, dtype=torch.float32).view(n, c, kh, kw) + t.integer(0, 9)
        made = t.call(kernel)
        t.expect(isinstance(made, dict) and set(made) == set(KEYS), f"return a dict with the keys {', '.join(KEYS)}")
        rows = {"output": (n, c * kh * kw), "input": (c, n * kh * kw), "spatial": (c * kh, n * kw), "pixel": (kh * kw, n * c)}
        for key, shape in rows.items():
            got = t.tensor(made[key])
            t.expect(tuple(got.shape) == shape, f"{key!r} must be {shape} for a kernel {(n, c, kh, kw)}, yours is {tuple(got.shape)}")
        axes = {"output": (0, 1, 2, 3), "input": (1, 0, 2, 3), "spatial": (1, 2, 0, 3), "pixel": (2, 3, 0, 1)}
        for key, order in axes.items():
            if not torch.equal(made[key], kernel.permute(order).reshape(rows[key])):
                _explain_flattening(t, key, made[key], kernel, order)
    return f"{len(shapes)} kernels, square or not, every number in its place"


def _explain_flattening(t: Trial, key: str, got: Tensor, kernel: Tensor, order: tuple[int, ...]) -> None:
    """Say whether a row mixes what it should hold apart, or only the order is another one."""
    wanted = kernel.permute(order).reshape(got.shape)
    rows = {tuple(sorted(row)) for row in wanted.tolist()}
    if {tuple(sorted(row)) for row in got.tolist()} != rows:
        t.expect(False, f"a row of {key!r} mixes numbers that belong to different rows: permute the axes before you reshape")
    t.expect(False, f"every row of {key!r} holds the right numbers, but rows or columns come in another order: the first axis named runs slowest")


# -- two small convolutions --------------------------------------------------------------------------

def chain(function: Any, conv: nn.Conv2d, rank: int, x: Tensor) -> Any:
    """What a chain of two convolutions amounts to: its layers, its kernel, its answer."""
    before, then = copy.deepcopy(conv.state_dict()), (conv.stride, conv.padding, [p.requires_grad for p in conv.parameters()])
    made = function(conv, rank)
    layers = [m for m in made.modules() if isinstance(m, nn.Conv2d)] if isinstance(made, nn.Module) else []
    facts = {"layers": [(m.in_channels, m.out_channels, *m.kernel_size) for m in layers]}
    if not isinstance(made, nn.Module):
        return made
    with torch.no_grad():
        try:
            facts["output"] = made(x)
        except RuntimeError as error:
            facts["output"] = str(error).splitlines()[0][:90]
        if len(layers) == 2 and layers[0].kernel_size[1] == layers[1].kernel_size[0] == 1 and layers[0].out_channels == layers[1].in_channels:
            facts["first bias"] = layers[0].bias is not None
            facts["kernel"] = torch.einsum("nrj,rci->ncij", layers[1].weight[:, :, 0], layers[0].weight[..., 0])
            facts["middle"] = tuple(layers[0](x).shape[2:]) if layers[0].in_channels == x.shape[1] else None
        facts["last bias"] = bool(layers) and layers[-1].bias is not None
        facts["changed"] = then != (conv.stride, conv.padding, [p.requires_grad for p in conv.parameters()]) or not same_state(before, conv.state_dict())
        facts["trains"] = all(p.requires_grad for p in made.parameters())
        for parameter in made.parameters():
            parameter.add_(1.0)
    facts["shared"] = not facts["changed"] and not same_state(before, conv.state_dict())
    return facts


def _conv(t: Trial, c: int, n: int, kernel: tuple[int, int], bias: bool, **where: Any) -> nn.Conv2d:
    conv = nn.Conv2d(c, n, kernel, bias=bias, **where)
    for parameter in conv.parameters():
        parameter.data = t.randn(*parameter.shape)
    return conv


def verify_separable_conv(t: Trial) -> str:
    plain = [(1, 1, (2, 2), False, {}, 1), (1, 2, (3, 2), True, {}, 2), (2, 3, (3, 3), True, {"padding": 1}, 2),
             (3, 2, (3, 3), False, {"stride": 2, "padding": 1}, 6), (2, 4, (5, 3), True, {"padding": (2, 1)}, 10), (3, 5, (3, 5), True, {"stride": (2, 1), "padding": (0, 2)}, 4),
             (4, 4, (3, 3), True, {"stride": (1, 3), "padding": (1, 0)}, 5), (2, 6, (1, 3), True, {"stride": 2}, 2)]
    for c, n, kernel, bias, where, rank in plain:
        conv, x = _conv(t, c, n, kernel, bias, **where), t.randn(2, c, 9, 11)
        made = t.use(chain, conv, rank, x, may_change=True)
        t.expect(isinstance(made, dict), "return an nn.Sequential of two convolutions")
        t.expect(not made["changed"], "your function changed the layer that came in")
        (kh, kw), layers = kernel, made["layers"]
        wanted = [(c, rank, kh, 1), (rank, n, 1, kw)]
        t.expect(len(layers) == 2, f"two convolutions are asked for, {layers and len(layers) or 'none'} found")
        t.expect(layers == wanted, f"the convolutions (in, out, height, width) must be {wanted}, yours are {layers}")
        t.expect(not made["first bias"], "the first convolution has a bias: it is added once, at the end")
        K, matrix = conv.weight.detach().double(), conv.weight.detach().double().permute(1, 2, 0, 3).reshape(c * kh, n * kw)
        S = torch.linalg.svdvals(matrix)
        error, least = (K - made["kernel"].double()).norm().item(), S[rank:].norm().item()
        t.expect(error <= 1.001 * least + 1e-4 * S[0].item(),
                 f"multiplied out, your two kernels are {error:.3g} away from the layer's; with rank {rank} they can come as near as {least:.3g}")
        with torch.no_grad():
            right = F.conv2d(x, made["kernel"], conv.bias, conv.stride, conv.padding)
        got = made["output"]
        t.expect(isinstance(got, Tensor), f"the chain does not run: {got}")
        t.expect(got.shape == right.shape, f"the layer makes {tuple(right.shape)} of {tuple(x.shape)}, your chain {tuple(got.shape)}: look at stride and padding")
        t.close(got, right, "the kernels are right, but stride, padding or bias are not: the chain answers otherwise than one convolution with its kernel", rtol=1e-3, atol=1e-3)
        rows, columns = made["middle"]
        t.expect(rows == right.shape[2], f"the first convolution computes {rows} rows, of which the second uses {right.shape[2]}: the vertical stride belongs to it")
        t.expect(columns == x.shape[3], f"the first convolution computes {columns} columns of a picture that has {x.shape[3]}: the horizontal padding belongs to the second")
        t.expect(made["last bias"] == (conv.bias is not None), "the second convolution has a bias where the layer had one, and else none")
        t.expect(not made["shared"], "your convolutions share memory with the layer that came in: training them changes it, too; clone()")
        t.expect(made["trains"], "a parameter of your chain does not require a gradient: it could not be trained")
    t.raises(ValueError, nn.Conv2d(4, 4, 3, groups=2), 2)
    return f"{len(plain)} convolutions, with stride, padding and bias where they belong; groups are refused"


# -- how much to keep --------------------------------------------------------------------------------

def verify_energy_rank(t: Trial) -> str:
    cases = [([2.0, 1.0, 1.0, 1.0, 1.0], 0.5), ([2.0, 1.0], 0.9), ([3.0, 2.0, 1.0], 0.9), ([3.0, 2.0, 1.0], 1.0), ([1.0, 1.0, 1.0, 1.0], 0.75), ([4.0, 2.0, 2.0, 0.0, 0.0], 1.0),
             ([10.0, 1.0, 1.0], 0.01), ([5.0], 0.3), ([0.0, 0.0, 0.0], 0.9), ([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 0.6)]
    for _ in range(6):
        S = t.randn(t.integer(4, 30)).abs().sort(descending=True).values + 0.05
        kept = S.double().square().cumsum(0) / S.double().square().sum()
        k = t.integer(1, len(S) - 1)
        cases.append((S.tolist(), float(kept[k - 1] + kept[k]) / 2))       # well between two ranks
    many = torch.rand(60, generator=torch.Generator().manual_seed(1)).sort(descending=True).values
    cases.append((many.tolist(), 1.0))                                     # in single precision the shares of many values need not end at 1
    plain = True
    for values, energy in cases:
        S = torch.tensor(values)
        output = t.call(S, energy)
        got, plain = t.number(output), plain and type(output) is int
        t.expect(got == int(got), f"a rank is a whole number, yours is {got:g}")
        t.expect(1 <= got <= len(S), f"a rank must be from 1 to {len(S)}, yours is {got:g}")
        k, squares = int(got), S.double().square()
        total = max(squares.sum().item(), 1e-30)
        t.expect(squares[:k].sum() >= energy * squares.sum() * (1 - 1e-9), f"rank {k} keeps {squares[:k].sum() / total:.1%} of the energy, {energy:.1%} was asked for")
        t.expect(k == 1 or squares[:k - 1].sum() < energy * squares.sum(), f"rank {k - 1} keeps {squares[:k - 1].sum() / total:.1%} already, {energy:.1%} was asked for")
    t.expect(plain, "the ranks are right, but not plain ints, and no layer takes another kind: return int(...)")
    for energy in (0.0, -0.5, 1.5, 90, math.nan):
        t.raises(ValueError, torch.tensor([2.0, 1.0]), energy)
    return f"{len(cases)} spectra: this rank keeps enough, the one below does not; shares outside (0, 1] are refused"


# -- the closest output ------------------------------------------------------------------------------

def _response_error(W: Tensor, product: Tensor, H: Tensor) -> float:
    D = W.double() - product
    return (D @ H.double() * D).sum().item()


def verify_response_svd(t: Trial) -> str:
    tilted = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    cases = [(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 100.0]]), 1), (torch.tensor([[1.0, -1.0], [0.5, 0.5]]), tilted, 1)]
    for m, n, inputs, rank in [(3, 3, 20, 2), (4, 6, 50, 2), (6, 4, 50, 3), (5, 5, 40, 1), (10, 8, 100, 4), (5, 12, 300, 5)]:
        X = t.randn(n, n) @ torch.diag(torch.logspace(0, -1.5, n)) @ t.randn(n, inputs)
        cases.append((t.randn(m, n), X @ X.T, rank))
    cases.append((t.randn(4, 5), torch.eye(5), 2))
    dead = t.randn(6, 30)
    dead[[1, 4]] = 0                                          # two inputs that are always zero
    flat = t.randn(7, 2) @ t.randn(2, 40)                      # inputs that fill two dimensions of seven
    cases += [(t.randn(5, 6), dead @ dead.T, 2), (t.randn(6, 7), flat @ flat.T, 2), (t.randn(6, 7), 1e-4 * flat @ flat.T, 1)]
    for weight, moments, rank in cases:
        product = _product(t, rank, weight, moments=moments)
        W, H = weight.double(), moments.double()
        outputs = torch.linalg.eigvalsh(W @ H @ W.T).flip(0).clamp(min=0)
        error, least, total = _response_error(weight, product, moments), outputs[rank:].sum().item(), outputs.sum().item()
        t.expect(error <= 1.002 * least + 1e-5 * total, f"the output is off by {math.sqrt(max(error, 0) / total):.1%}; with rank {rank} {math.sqrt(least / total):.1%} is possible")
    for m, n, rank in [(3, 5, 0), (3, 5, 4), (5, 3, 4)]:
        t.raises(ValueError, t.randn(m, n), torch.eye(n), rank)
    return f"the smallest error of the output in {len(cases)} cases, inputs that are always zero included"
