"""What a right answer to exercises 6.1 to 6.6 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor, nn

from compresslab.course.trial import Trial

# -- 6.1 one number, many places ---------------------------------------------------------------------

def shared_network(what: str, n: int) -> tuple[nn.Module, int]:
    """A small network that shares numbers in one of several ways, and how many it stores."""
    if what == "two layers that share nothing":
        return nn.Sequential(nn.Linear(n, n + 1), nn.Linear(n + 1, 2)), n * (n + 1) + (n + 1) + 2 * (n + 1) + 2
    if what == "one layer used three times":
        layer = nn.Linear(n, n)
        return nn.Sequential(layer, nn.ReLU(), layer, layer), n * n + n
    if what == "two layers with one weight and a bias each":
        first, second = nn.Linear(n, n), nn.Linear(n, n)
        second.weight = first.weight
        return nn.Sequential(first, second), n * n + 2 * n
    base = torch.ones(2 * n, n)
    model = nn.Module()
    if what == "a matrix and its transpose, two parameters around one tensor":
        model.encoder, model.decoder = nn.Parameter(base), nn.Parameter(base.t())
        return model, 2 * n * n
    if what == "a matrix and its last rows, two parameters around one tensor":
        model.all, model.last = nn.Parameter(base), nn.Parameter(base[n:])
        return model, 2 * n * n
    if what == "the last rows of a matrix and the matrix, two parameters around one tensor":
        model.last, model.all = nn.Parameter(base[n:]), nn.Parameter(base)
        return model, 2 * n * n
    if what == "one number that fills a matrix":
        model.weight = nn.Parameter(torch.ones(1).expand(n, n))
        return model, 1
    if what == "two halves of one tensor":
        model.upper, model.lower = nn.Parameter(base[:n]), nn.Parameter(base[n:])
        return model, 2 * n * n
    if what == "equal copies":
        layers = [nn.Linear(n, n, bias=False) for _ in range(3)]
        for layer in layers:
            layer.weight.data = torch.eye(n)
        return nn.Sequential(*layers), 3 * n * n
    if what == "numbers of 16 and of 64 bits":
        layer = nn.Linear(n, n, dtype=torch.float16)
        return nn.Sequential(layer, layer, nn.Linear(n, 3, dtype=torch.float64)), n * n + n + 3 * n + 3
    if what == "a frozen layer, and batch norm with its statistics":
        frozen = nn.Linear(n, n).requires_grad_(False)
        return nn.Sequential(frozen, nn.BatchNorm1d(n)), n * n + n + 2 * n
    return nn.Sequential(nn.ReLU()), 0                                       # "nothing to store"


KINDS = ("two layers that share nothing", "one layer used three times", "two layers with one weight and a bias each",
         "a frozen layer, and batch norm with its statistics", "equal copies", "numbers of 16 and of 64 bits",
         "a matrix and its transpose, two parameters around one tensor", "a matrix and its last rows, two parameters around one tensor",
         "the last rows of a matrix and the matrix, two parameters around one tensor", "two halves of one tensor",
         "one number that fills a matrix", "nothing to store")


def counted(function, what: str, n: int):
    """The network is built here: `copy.deepcopy` of one whose parameters are views would lose their sharing."""
    return function(shared_network(what, n)[0])


def verify_unique_parameters(t: Trial) -> str:
    for what in KINDS:
        for n in (2, t.integer(3, 6)):
            got = t.use(counted, what, n)
            wanted = shared_network(what, n)[1]
            t.expect(t.number(got) == wanted, f"{what}: {wanted} numbers are stored, you count {got}")
            t.expect(isinstance(got, Integral), f"the count is right, but it must be an int; yours is a {type(got).__name__}")
    return f"{len(KINDS)} ways to share, views that begin in the middle of another tensor among them"


# -- 6.2 the gradient --------------------------------------------------------------------------------

def verify_shared_gradient(t: Trial) -> str:
    cases = [(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]), torch.tensor([1.0, 1.0, 1.0]), 2),
             (torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 1, 0]), torch.tensor([1.0, -1.0, -1.0]), 3)]
    for shape, size in [((2, 3), 1), ((4, 5), 3), ((3, 2, 2, 2), 7), ((6, 4), 40), ((30, 20), 9), ((0, 3), 2)]:
        signs = 2.0 * t.integers(0, 1, shape) - 1
        cases.append((t.randn(*shape), t.integers(0, max(size - 2, 0), shape), signs, size))
    cases.append((t.randn(4, 5), t.integers(0, 5, (5, 4)).T, (2.0 * t.integers(0, 1, (5, 4)) - 1).T, 6))      # not contiguous
    for gradient, indices, signs, size in cases:
        got = t.call(gradient, indices, signs, size)
        got = t.tensor(got).detach()
        t.expect(got.shape == (size,), f"there are {size} stored numbers, so {size} gradients, also where a number is not used; yours has shape "
                                       f"{tuple(got.shape)}")
        values = torch.zeros(size, dtype=torch.float64, requires_grad=True)
        wanted = torch.autograd.grad(values[indices] * signs.double(), values, gradient.double())[0]
        t.close(got.double(), wanted, "that is not what autograd finds for the stored numbers", rtol=1e-3, atol=1e-5)
    return f"what autograd finds, for {len(cases)} tables: a sum over the uses, 0 for a number that is never used"


# -- 6.3 the hash ------------------------------------------------------------------------------------

MASK = (1 << 64) - 1


def split_mix(number: int, seed: int) -> int:
    """SplitMix64 of place `number`, in Python's whole numbers."""
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def kinds(function, *inputs) -> list[str]:
    """Of what kind the outputs are: the dtype of a tensor, else the name of its class."""
    output = function(*inputs)
    parts = output if isinstance(output, tuple | list) else [output]
    return [str(part.dtype).removeprefix("torch.") if isinstance(part, Tensor) else type(part).__name__ for part in parts]


def verify_hash_indices(t: Trial) -> str:
    found = t.use(kinds, (4,), 5, 3)
    t.expect(len(found) == 2, "return two tensors: indices and signs")
    t.expect(found[0] == "int64", f"indices must be a tensor of int64; yours: {found[0]}")
    t.expect(found[1] == "float32", f"signs must be a tensor of float32, as weights are; yours: {found[1]}")
    cases = [((4,), 5, 3), ((2, 3), 2, 0), ((2, 3), 8, 1), ((5, 7), 10, t.integer(2, 9)), ((3, 2, 2, 2), 3, t.integer(10, 99)), ((1,), 1, 7),
             ((16, 12), 1000, t.integer(100, 10**6)), ((3, 5), 10**9, 2**62 + t.integer(0, 99)), ((0, 4), 3, 0), ((40, 30), 64, t.integer(0, 99))]
    for shape, buckets, seed in cases:
        output = t.call(shape, buckets, seed)
        t.expect(isinstance(output, tuple | list) and len(output) == 2, "return two tensors: indices and signs")
        indices = t.tensor(output[0], shape=shape, dtype=torch.int64)
        signs = t.tensor(output[1], shape=shape, dtype=torch.float32)
        z = [split_mix(number, seed) for number in range(math.prod(shape))]
        wanted = torch.tensor([h // 2 % buckets for h in z], dtype=torch.int64).view(shape)
        t.expect(((indices >= 0) & (indices < buckets)).all(), f"an index must be at least 0 and below the {buckets} buckets")
        t.expect((indices == wanted).all(), f"these are not the buckets of the formula: expected {_first(wanted)} ..., got {_first(indices)} ...")
        wanted = torch.tensor([1.0 - 2 * (h % 2) for h in z]).view(shape)
        t.expect((signs == wanted).all(), f"the signs are not those of the formula: expected {_first(wanted)} ..., got {_first(signs)} ...")
    return f"{len(cases)} tables, bit for bit those of the formula, with seeds of up to 62 bits"


def _first(values: Tensor) -> list:
    return values.flatten()[:6].tolist()


# -- 6.4 the hashed layer ----------------------------------------------------------------------------

def outputs_and_gradients(function, x: Tensor, values: Tensor, indices: Tensor, signs: Tensor, bias: Tensor, weights: Tensor):
    """The output, and how the sum of weights * output changes with x, the values and the bias (a word where it cannot)."""
    leaves = [tensor.clone().requires_grad_() for tensor in (x, values, bias)]
    output = function(leaves[0], leaves[1], indices, signs, leaves[2])
    if not isinstance(output, Tensor) or output.shape != weights.shape or not output.requires_grad:
        return [output.detach() if isinstance(output, Tensor) else output] + ["no gradient"] * 3
    found = torch.autograd.grad((weights * output).sum(), leaves, allow_unused=True)
    return [output.detach(), *("no gradient" if slope is None else slope for slope in found)]


def verify_hashed_linear(t: Trial) -> str:
    one = (torch.tensor([[1.0, 2.0]]), torch.tensor([3.0, 5.0]), torch.tensor([[0, 1], [1, 1], [0, 0]]),
           torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]), torch.tensor([0.5, 0.0, -1.0]))
    cases = [one]
    for n, m, k, rows in [(2, 3, 1, 1), (3, 3, 4, 2), (5, 2, 3, 4), (4, 6, 30, 3), (8, 8, 5, 6), (7, 12, 20, 5)]:
        signs = 2.0 * t.integers(0, 1, (m, n)) - 1
        cases.append((t.randn(rows, n), t.randn(k), t.integers(0, k - 1, (m, n)), signs, t.randn(m)))
    cases.append((t.randn(3, 4), t.randn(20), torch.randperm(20, generator=t.rng).view(5, 4), torch.ones(5, 4), t.randn(5)))   # nothing is shared
    for x, values, indices, signs, bias in cases:
        shape = len(x), len(bias)
        got = t.tensor(t.call(x, values, indices, signs, bias), shape=shape).detach()
        dense = torch.empty(indices.shape, dtype=torch.float64)
        for i, (row, sign) in enumerate(zip(indices.tolist(), signs.tolist())):
            dense[i] = torch.tensor([s * float(values[k]) for k, s in zip(row, sign)], dtype=torch.float64)
        t.close(got, x.double() @ dense.T + bias.double(), "that is not x V^T + b with V_ij = sign_ij values[index_ij]", rtol=1e-3, atol=1e-4)
        weights = t.randn(*shape)
        _, by_x, by_values, by_bias = t.use(outputs_and_gradients, x, values, indices, signs, bias, weights)
        t.expect(isinstance(by_values, Tensor), "no gradient reaches the stored values: they would never learn")
        t.expect(isinstance(by_x, Tensor) and isinstance(by_bias, Tensor), "no gradient reaches the input or the bias")
        slope = weights.double().T @ x.double() * signs.double()
        wanted = torch.zeros(len(values), dtype=torch.float64).index_add(0, indices.flatten(), slope.flatten())
        t.close(by_values, wanted, "the output is right, but the gradient of a value is not the sum over its uses", rtol=1e-3, atol=1e-4)
        t.close(by_x, weights.double() @ dense, "the output is right, but its gradient for x is not", rtol=1e-3, atol=1e-4)
        t.close(by_bias, weights.double().sum(0), "the output is right, but its gradient for the bias is not", rtol=1e-3, atol=1e-4)
    return f"{len(cases)} layers, outputs and gradients; with as many values as weights, each used once, a dense layer"


# -- 6.5 the control ---------------------------------------------------------------------------------

def verify_same_size_width(t: Trial) -> str:
    cases = [(2, 2, 8), (9, 1, 21), (1, 5, 14), (2, 2, 12), (2, 2, 11), (3, 2, 14), (4, 3, 27), (4, 3, 26), (10, 10, 31)]
    for _ in range(8):
        inputs, classes, width = t.integer(1, 900), t.integer(1, 50), t.integer(1, 300)
        exact = width * (inputs + 1 + classes) + classes
        cases += [(inputs, classes, exact), (inputs, classes, exact - 1 if width > 1 else exact), (inputs, classes, exact + t.integer(1, inputs))]
    for inputs, classes, stored in cases:
        got = t.call(inputs, classes, stored)
        width = t.number(got)
        t.expect(width == int(width), f"a width is a whole number, you return {width:g}")
        size = _size(inputs, int(width), classes)
        t.expect(width >= 1 and size <= stored, f"a network of width {int(width)} stores {size} numbers, and {stored} were allowed")
        size = _size(inputs, int(width) + 1, classes)
        t.expect(size > stored, f"one unit more stores {size} numbers, which {stored} still allow: yours is not the widest")
        t.expect(isinstance(got, Integral), f"the width is right, but it must be an int, or no layer can be built; yours is a {type(got).__name__}")
    for inputs, classes, stored in [(2, 2, 6), (784, 10, 804), (784, 10, 0), (5, 3, -4)]:
        t.raises(ValueError, inputs, classes, stored)
    return f"{len(cases)} budgets, each used up to the last whole unit; too small ones are refused"


def _size(inputs: int, width: int, classes: int) -> int:
    """The numbers in two linear layers, each a matrix and a bias for every row."""
    return sum(rows * columns + rows for rows, columns in ((width, inputs), (classes, width)))


# -- 6.6 product quantization ------------------------------------------------------------------------

def verify_encode_subvectors(t: Trial) -> str:
    small = (torch.tensor([[1.0, 0.0, 5.0, 5.0]]), torch.tensor([[[0.0, 0.0], [2.0, 0.0], [1.0, 1.0]], [[4.0, 4.0], [9.0, 9.0], [0.0, 0.0]]]) + 0.25)
    found = t.use(kinds, *small)
    t.expect(len(found) == 2, "return two tensors: the indices and the decoded weight")
    t.expect(found[0] in ("int32", "int64"), f"indices must be a tensor of int64 (or int32), with which PyTorch looks up; uint8 is taken for a mask. "
                                             f"Yours: {found[0]}")
    cases = [small]
    for m, s, k, d in [(2, 1, 3, 2), (3, 2, 2, 3), (4, 3, 5, 2), (5, 2, 4, 1), (6, 4, 8, 4), (9, 2, 16, 6), (1, 5, 2, 2)]:
        scale = 0.5 + 2 * torch.rand(s, k, 1, generator=t.rng)               # long and short centroids
        cases.append((t.randn(m, s * d), scale * t.randn(s, k, d)))
    for weight, codebooks in cases:
        (m, n), (s, k, d) = weight.shape, codebooks.shape
        output = t.call(weight, codebooks)
        t.expect(isinstance(output, tuple | list) and len(output) == 2, "return two tensors: the indices and the decoded weight")
        indices, decoded = t.tensor(output[0], shape=(m, s)), t.tensor(output[1], shape=(m, n)).detach()
        t.expect(not indices.is_floating_point() and ((indices >= 0) & (indices < k)).all(), f"an index is a whole number from 0 to {k - 1}")
        chosen = torch.cat([codebooks[part][indices[:, part].long()] for part in range(s)], dim=1)
        parts = weight.double().view(m, s, 1, d)
        distances = (parts - codebooks.double()).square().sum(3)
        own = distances.gather(2, indices.long()[:, :, None])[:, :, 0]
        t.expect((own <= distances.amin(2) * (1 + 1e-4) + 1e-5).all(),
                 "not every sub-vector has the nearest centroid of its own sub-space's code book")
        t.close(decoded, chosen, "the decoded weight is not made of the centroids that the indices name, side by side in their sub-spaces")
    return f"{len(cases)} weights: every sub-vector has the centroid at the least distance, and decodes to it"
