"""What a right answer to exercises 6.7 to 6.12 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compresslab.course.trial import Trial

NAMESPACE = "aten::"
PRODUCTS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}  # name: which inputs are multiplied
ROWWISE = {"mv": 0, "addmv": 1, "dot": 0, "vdot": 0}  # one multiplication for each entry of this input


class Multiplications(TorchDispatchMode):
    """Counts the multiplications of numbers while it is on: matrix products, convolutions, elementwise products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.name().removeprefix(NAMESPACE).split(".")[0].rstrip("_")
        if name in PRODUCTS:
            left, right = (args[i] for i in PRODUCTS[name])
            self.count += left.numel() * right.shape[-1]
        elif name in ROWWISE:
            self.count += args[ROWWISE[name]].numel()
        elif name == "convolution":
            self.count += output.numel() * args[1].numel() // args[1].shape[0]
        elif name in ("mul", "addcmul", "pow", "square") and not _whole(output):
            self.count += output.numel()
        return output


def _whole(output: Any) -> bool:
    return not isinstance(output, Tensor) or not (output.is_floating_point() or output.is_complex())


def beyond(limit: int, function: Any, *inputs: Tensor) -> int:
    """The multiplications of a call; 0 where they keep the limit."""
    with Multiplications() as counter:
        function(*inputs)
    return counter.count if counter.count > limit else 0


# -- look-up -----------------------------------------------------------------------------------------

def verify_lookup_product(t: Trial) -> str:
    cases = [(torch.tensor([[1.0, 2.0]]), torch.tensor([[[3.0], [5.0]], [[7.0], [11.0]]]), torch.tensor([[1, 0]])),
             (torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]]), torch.tensor([[0, 1], [1, 1], [1, 0]]))]
    for b, s, k, d, m in ((2, 3, 2, 1, 4), (3, 2, 4, 3, 5), (4, 6, 5, 2, 9), (5, 1, 3, 4, 2), (1, 4, 16, 3, 3)):
        cases.append((t.randn(b, s * d), t.randn(s, k, d), t.integers(0, k - 1, (m, s))))
    for x, codebooks, indices in cases:
        got = t.tensor(t.call(x, codebooks, indices), shape=(len(x), len(indices)))
        weight = codebooks.double()[torch.arange(len(codebooks)), indices].flatten(1)
        t.close(got, x.double() @ weight.T, "the product with the decoded weight", rtol=1e-3, atol=1e-4)
    for b, s, k, d, m in ((3, 4, 3, 5, 40), (6, 8, 4, 4, 100)):
        inputs = t.randn(b, s * d), t.randn(s, k, d), t.integers(0, k - 1, (m, s))
        count = t.use(wasted_on_lookup, *inputs)
        t.expect(count >= 0, "your multiplications could not be counted: stay in torch (no numpy, no Python numbers)")
        t.expect(count == 0, f"the numbers are right, but you need {count:,} multiplications, the table alone needs {b * s * k * d:,} "
                             f"(decoded, with {m} outputs, it is {b * s * m * d:,})")
    return f"the product with the decoded weight for {len(cases)} code books, with no more multiplications than the table needs"


def wasted_on_lookup(function: Any, x: Tensor, codebooks: Tensor, indices: Tensor) -> int:
    """The multiplications, where they are more than the table's; -1 where they were made out of sight."""
    table = len(x) * codebooks.numel()
    seen = beyond(table - 1, function, x, codebooks, indices)
    return -1 if not seen else seen if seen > table + x.numel() else 0


# -- structured matrices -----------------------------------------------------------------------------

def matrix_and_gradient(function: Any, r: Tensor, weight: Tensor) -> tuple[Any, Tensor | None]:
    """The matrix that a function makes of r, and the gradient of its inner product with `weight`."""
    r = r.clone().requires_grad_()
    matrix = function(r)
    if isinstance(matrix, Tensor) and matrix.requires_grad and matrix.shape == weight.shape:
        (matrix * weight).sum().backward()
    return matrix.detach().clone() if isinstance(matrix, Tensor) else matrix, r.grad


def in_double(function: Any, r: Tensor) -> Any:
    """The matrix in float64: of whole numbers, whole or real entries are both right."""
    matrix = function(r)
    return matrix.double() if isinstance(matrix, Tensor) else matrix


def _check_turned(t: Trial, r: Tensor, matrix: Any) -> None:
    n = len(r)
    matrix = t.tensor(matrix, shape=(n, n)).double()
    t.close(matrix[:, 0], r.double(), "the first column must be r")
    wanted = torch.tensor([[float(r[(i - j) % n]) for j in range(n)] for i in range(n)], dtype=torch.float64)
    t.close(matrix, wanted, "entry (i, j) must be r[(i - j) mod n]")


def verify_circulant(t: Trial) -> str:
    columns = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0]), torch.tensor([5.0]), torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]), t.randn(6)]
    for r in columns:
        _check_turned(t, r, t.call(r))
    whole = torch.tensor([1, 0, 0, 2])
    _check_turned(t, whole, t.use(in_double, whole))
    for n in (3, 5):
        r, weight = t.randn(n), t.randn(n, n)
        _, gradient = t.use(matrix_and_gradient, r, weight)
        t.expect(gradient is not None, "no gradient reaches r: then a network with this matrix cannot learn")
        wanted = torch.stack([sum(weight[i, j] for i in range(n) for j in range(n) if (i - j) % n == k) for k in range(n)])
        t.close(gradient, wanted, "the gradient of r[k] is the sum over the k-th wrapped diagonal", rtol=1e-3, atol=1e-5)
    r = t.randn(7, dtype=torch.float64)                                      # last: what only mistakes the dtype lets gradients pass
    _check_turned(t, r, t.tensor(t.call(r), dtype=r.dtype))
    return f"{len(columns) + 2} columns from 1 to 7 entries; the gradient of each number is the sum over its n places"


def product_and_gradients(function: Any, r: Tensor, x: Tensor, weight: Tensor) -> tuple[Any, Tensor | None, Tensor | None]:
    """The product, and the gradients of its inner product with `weight`."""
    r, x = r.clone().requires_grad_(), x.clone().requires_grad_()
    y = function(r, x)
    if isinstance(y, Tensor) and y.requires_grad and y.shape == weight.shape:
        (y * weight).sum().backward()
    return y.detach().clone() if isinstance(y, Tensor) else y, r.grad, x.grad


def _dense(r: Tensor) -> Tensor:
    i = torch.arange(len(r))
    return r[(i[:, None] - i) % len(r)]


def verify_circulant_product(t: Trial) -> str:
    cases = [(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])), (torch.tensor([0.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])),
             (torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, -1.0])), (torch.tensor([2.0]), torch.tensor([3.0])),
             (torch.tensor([0.0, 1.0, 0.0, 0.0]), torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 0.0]]))]
    cases += [(t.randn(n), t.randn(*batch, n)) for n, batch in ((5, ()), (6, (3,)), (7, (4,)), (8, (2, 3)), (30, (5,)))]
    for r, x in cases:
        y = t.tensor(t.call(r, x), shape=x.shape)
        t.expect(not y.is_complex(), "a real matrix times a real vector is real: yours is complex; take the real part, or irfft")
        t.close(y.double(), x.double() @ _dense(r.double()).T, "circulant(r) times x, for every row of x", rtol=1e-3, atol=1e-4)
    for n, b in ((5, 2), (8, 3)):
        r, x, weight = t.randn(n), t.randn(b, n), t.randn(b, n)
        _, to_r, to_x = t.use(product_and_gradients, r, x, weight)
        t.expect(to_r is not None and to_x is not None, "the numbers are right, but no gradient reaches r and x: stay in torch, from input to output")
        _, wanted_r, wanted_x = product_and_gradients(lambda r, x: x @ _dense(r).T, r, x, weight)
        t.close(to_r, wanted_r, "the gradient of r", rtol=1e-3, atol=1e-4)
        t.close(to_x, wanted_x, "the gradient of x", rtol=1e-3, atol=1e-4)
    for n, b in ((64, 2), (200, 3)):
        count = t.use(wasted_on_product, t.randn(n), t.randn(b, n))
        t.expect(count == 0, f"the numbers are right, but you need {count:,} multiplications for {b} rows of {n}: transform instead")
    r, x = t.randn(6, dtype=torch.float64), t.randn(2, 6, dtype=torch.float64)
    y = t.tensor(t.call(r, x), shape=x.shape, dtype=torch.float64)
    t.close(y, x @ _dense(r).T, "circulant(r) times x, to the precision of float64", rtol=1e-9, atol=1e-9)
    cases.append((r, x))
    return f"{len(cases)} products, odd and even n, single vectors and batches, gradients, and no n^2 multiplications"


def wasted_on_product(function: Any, r: Tensor, x: Tensor) -> int:
    """The multiplications, where they grow like n^2."""
    return beyond(8 * (x.numel() + len(r)), function, r, x)


def verify_nearest_circulant(t: Trial) -> str:
    cases = [torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]]), torch.tensor([[1.0, 5.0], [3.0, 2.0]]), torch.tensor([[7.0]])]
    cases += [t.randn(n, n) for n in (4, 5)] + [t.randn(9, 9, dtype=torch.float64), 2 * _dense(t.randn(6)) + 0.1 * t.randn(6, 6)]
    for matrix in cases:
        n = len(matrix)
        r = t.tensor(t.call(matrix), shape=(n,))
        wanted = torch.tensor([sum(float(matrix[(j + k) % n, j]) for j in range(n)) / n for k in range(n)], dtype=torch.float64)
        off, least = ((matrix.double() - _dense(c.double())).norm().item() for c in (r, wanted))
        t.expect(off <= least * (1 + 1e-4) + 1e-4, f"circulant(r) is {off:.4g} away from the matrix (Frobenius norm), another circulant only {least:.4g}")
        t.close(r.double(), wanted, "the first column of the nearest circulant", rtol=1e-3, atol=1e-4)
    r = t.randn(8)
    t.close(t.call(_dense(r)), r, "a matrix that is circulant already must come back as it is", rtol=1e-3, atol=1e-5)
    return f"the nearest of all circulants for {len(cases)} matrices; a circulant is its own"


# -- across layers -----------------------------------------------------------------------------------

def stacked(function: Any, blocks: list[nn.Module], depth: int, x: Tensor) -> Any:
    """What a stack answers, the numbers it holds, the gradients of the given blocks, and the length of their list afterwards."""
    given, blocks = blocks, list(blocks)
    model = function(given, depth)
    if not isinstance(model, nn.Module):
        return model
    y = model(x)
    own = {id(p) for block in blocks for p in block.parameters()}
    unique = sum(p.numel() for p in model.parameters())
    foreign = sum(p.numel() for p in model.parameters() if id(p) not in own)
    y.square().sum().backward()
    return y.detach().clone(), unique, foreign, [p.grad for block in blocks for p in block.parameters()], len(given)


def _blocks(t: Trial, count: int, width: int) -> list[nn.Module]:
    blocks = []
    for _ in range(count):
        layer = nn.Linear(width, width)
        layer.weight.data, layer.bias.data = 0.7 * t.randn(width, width), 0.3 * t.randn(width)
        blocks.append(nn.Sequential(layer, nn.Tanh()))
    return blocks


def verify_cyclic_stack(t: Trial) -> str:
    settings = ((2, 4, 2), (1, 3, 2), (2, 5, 3), (3, 7, 4), (3, 3, 2), (4, 10, 3), (3, 2, 2))
    for count, depth, width in settings:
        blocks, x = _blocks(t, count, width), t.randn(3, width)
        output = t.use(stacked, blocks, depth, x, may_change=True)
        t.expect(isinstance(output, tuple) and len(output) == 5, "return a module that can be called, such as an nn.Sequential")
        y, unique, foreign, gradients, length = output
        t.expect(length == count, f"you changed the list of blocks that you were given, it has {length} now and had {count}: make one of your own")
        used = [blocks[layer % count] for layer in range(depth)]
        wanted = x
        for block in used:
            wanted = block(wanted)
        stored = sum(p.numel() for block in dict.fromkeys(used) for p in block.parameters())
        t.tensor(y, shape=wanted.shape)
        t.close(y, wanted, f"{count} blocks used in turn, {depth} layers deep: 0, 1, ... and again from 0", rtol=1e-3, atol=1e-5)
        t.expect(foreign == 0, f"{foreign} of the {unique} numbers in your stack are not those of the given blocks: a copy does not share")
        t.expect(depth < count or unique == stored, f"your stack holds {unique} numbers, the blocks have {stored}")
        wanted.square().sum().backward()
        for got, p in zip(gradients, (p for block in blocks for p in block.parameters())):
            t.close(got, p.grad, "the gradient of a block is the sum over all layers that use it", rtol=1e-3, atol=1e-5)
    return f"outputs, numbers and gradients of {len(settings)} stacks, whole turns and broken ones; no copies"


# -- a loop, repaired --------------------------------------------------------------------------------

def leaves_a_mark(function: Any, values: Tensor, *rest: Any) -> bool:
    """Whether the caller's tensor asks for gradients afterwards."""
    function(values, *rest)
    return values.requires_grad


def verify_train_shared(t: Trial) -> str:
    cases = [(3, [(2, 2)], 1, 1, (0.5, 0)), (4, [(2, 2), (2, 2)], 2, 2, (0.5, 0)), (4, [(3, 2), (2, 3)], 2, 3, (0.1, 0)), (5, [(4, 3), (3, 4)], 3, 4, (0.2, 7)),
             (40, [(6, 5), (5, 6), (4, 5)], 4, 6, (0.05, 123)), (7, [(8, 3), (3, 8)], 2, 5, (0.1, 1))]
    for size, shapes, steps, n, (lr, seed) in cases:
        values = t.randn(size)
        batches = [(t.randn(n, shapes[0][1]), t.integers(0, shapes[-1][0] - 1, (n,))) for _ in range(steps)]
        output = t.call(values, shapes, batches, lr, seed)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 2, "return (the values, the list of losses)")
        trained, losses = output
        trained = t.tensor(trained, shape=(size,))
        t.expect(isinstance(losses, (tuple, list)), "return the losses as a list")
        t.expect(len(losses) == steps, f"return one loss for each of the {steps} steps")
        wanted, right = t.reference(values, shapes, batches, lr, seed)
        first = t.number(losses[0])
        t.expect(math.isclose(first, right[0], rel_tol=1e-4), f"before any step the loss is {right[0]:.5g}, yours is {first:.5g}: "
                                                              "the weights are not those that hash_indices says")
        t.close([t.number(loss) for loss in losses], right, "the losses", rtol=1e-4, atol=1e-7)
        t.close(trained, wanted, "the trained values", rtol=1e-3, atol=1e-5)
    size, shapes, steps, n, (lr, seed) = cases[0]
    marked = t.use(leaves_a_mark, t.randn(size), shapes, [(t.randn(n, shapes[0][1]), t.integers(0, 1, (n,)))], lr, seed)
    t.expect(not marked, "you called requires_grad_() on the caller's tensor: work on a clone")
    return f"the loss of every step and the values at the end, {len(cases)} networks of 1 to 3 layers"
