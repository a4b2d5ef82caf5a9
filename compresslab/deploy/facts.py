"""What one forward pass really does: multiplications, bytes, operations. Facts for why it is not faster.

A network is run once, and every operation that reaches PyTorch's dispatcher is noted. Nothing is timed, so
the counts are the same on every machine; what the counts promise and the clock denies is lost in the kernels:

    hoped = 1 / share left        work = MACs before / after        rate = speed-up / work

`work` is how many times fewer multiplications are carried out, `rate` how many times faster each of them is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compresslab.core.train import evaluating


CONVOLUTIONS = ("convolution", "mkldnn_convolution", "_convolution")
PRODUCTS = {  # which arguments are multiplied
    "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "addmv": (1, 2),
}  # fmt: skip
FREE = ("detach", "empty", "empty_like", "_unsafe_view", "alias", "lift_fresh")  # name or allocate memory


@dataclass(frozen=True)
class RunFacts:
    """One forward pass: what it multiplies, what it moves, and how many calls it takes.

    Attributes:
        macs: multiply-accumulates that the kernels carry out (zeros in a dense tensor included).
        bytes: read and written by all operations, had each to fetch its inputs from memory.
        operations: kernels called; views that move no number are free.
        zeros: share of numbers that are 0 among the weights that dense kernels read, in [0, 1].
        dtypes: the number formats of the multiplied weights, sorted, as "float32".
        sparse: whether any product took a sparse matrix.
    """

    macs: int
    bytes: int
    operations: int
    zeros: float
    dtypes: tuple[str, ...]
    sparse: bool

    @property
    def intensity(self) -> float:
        """MACs per byte, all operations together."""
        return self.macs / self.bytes if self.bytes else 0.0


def run_facts(model: nn.Module, x: Tensor) -> RunFacts:
    """Run the network once in eval mode, without gradients, and count.

    Args:
        model: a module that runs in PyTorch itself (the operations of an `OnnxModel` are not seen).
        x: one batch; the counts are those of the whole batch.
    Returns:
        the `RunFacts`.
    Differs: bytes are an upper limit, as if no cache kept what one operation leaves for the next.
    Example:
        >>> facts = run_facts(nn.Linear(4, 3, bias=False), torch.zeros(2, 4))
        >>> facts.macs, facts.bytes, facts.operations           # bytes: 12 weights, 8 inputs, 6 outputs
        (24, 104, 1)
    """
    counter = _Counter()
    with evaluating(model), torch.no_grad(), counter:
        model(x)
    weights = list({id(w): w for w in counter.weights}.values())
    size = sum(w.numel() for w in weights if not is_sparse(w))
    zeros = sum(int((w == 0).sum()) for w in weights if not is_sparse(w))
    dtypes = tuple(sorted({str(w.dtype).removeprefix("torch.") for w in weights}))
    sparse = any(map(is_sparse, weights))
    share = zeros / size if size else 0.0
    return RunFacts(counter.macs, counter.bytes, counter.operations, share, dtypes, sparse)


def is_sparse(tensor: Tensor) -> bool:
    """Whether a tensor stores only some of its numbers."""
    return tensor.layout is not torch.strided


def tensor_bytes(tensor: Tensor) -> int:
    """The bytes that a kernel has to read or write for a tensor, indices of a sparse one included."""
    if tensor.layout is torch.sparse_csr:
        return sum(map(tensor_bytes, (tensor.values(), tensor.crow_indices(), tensor.col_indices())))
    return tensor.numel() * tensor.element_size() if tensor.layout is torch.strided else 0


class _Counter(TorchDispatchMode):
    """Adds up every operation below it."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.bytes = self.operations = 0
        self.weights: list[Tensor] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = operation(*args, **(kwargs or {}))
        outputs, name = _tensors(result), operation.overloadpacket.__name__
        if outputs and not operation.is_view and name not in FREE:
            self.operations += 1
            self.bytes += sum(map(tensor_bytes, _tensors(args))) + sum(map(tensor_bytes, outputs))
            self._multiply(name, args, outputs[0])
        return result

    def _multiply(self, name: str, args: tuple, output: Tensor) -> None:
        if name in CONVOLUTIONS:
            weight = args[1]
            self.weights.append(weight)
            self.macs += output.numel() * weight[0].numel()
        elif name in PRODUCTS:
            left, right = (args[i] for i in PRODUCTS[name])
            self.weights.append(left if is_sparse(left) else right)
            self.macs += _product_macs(left, right, output)


def _product_macs(left: Tensor, right: Tensor, output: Tensor) -> int:
    """Stored numbers of a sparse factor times the rows or columns that they meet; else all pairs."""
    if is_sparse(left):
        return left.values().numel() * (output.numel() // left.shape[0])
    if is_sparse(right):
        return right.values().numel() * (output.numel() // right.shape[-1])
    return output.numel() * left.shape[-1]


def _tensors(args: object) -> list[Tensor]:
    if isinstance(args, Tensor):
        return [args]
    return [t for part in args for t in _tensors(part)] if isinstance(args, tuple | list) else []
