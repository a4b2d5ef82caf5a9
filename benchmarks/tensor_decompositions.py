"""Tucker, CP and tensor trains beside tensorly's: time and error on kernels of the shapes of VGG-16 and ResNet-18.

    python -m benchmarks tensor_decompositions

tensorly makes a number of sweeps; ours makes as many, or stops where its error is no worse. A tensor train has no
sweeps: one pass of SVDs on both sides, of the kernel as a tensor of five or six axes. Random kernels have nothing
to find; planted ones are of the rank asked for, with a tenth of noise. The errors are relative, and measured on
the kernel that comes out. tensorly computes in float32, ours in float64.

Budget: 40 seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import PEER, Table, against, threads_note, time_within
from compresslab.lowrank.cp import cp_als, cp_to_tensor
from compresslab.lowrank.tensor_train import tt_svd, tt_to_tensor
from compresslab.lowrank.tucker import hooi

BUDGET = 40  # seconds
ROUNDS_SECONDS = 0.5  # for each row
LAYERS = {  # name: (shape, CP rank, sweeps of CP)
    "VGG-16 conv1_2": ((64, 64, 3, 3), 32, 20),
    "ResNet-18 conv1": ((64, 3, 7, 7), 16, 20),
    "ResNet-18 layer2": ((128, 128, 3, 3), 32, 10),
    "VGG-16 conv3_2": ((256, 256, 3, 3), 32, 5),
}
TUCKER_SWEEPS = 3
TRAIN_RANK = 16

# A decomposition: the kernel and a number of sweeps in, the function that rebuilds the kernel out.
Decompose = Callable[[Tensor, int], Callable[[], Tensor | np.ndarray]]


def run(layers: Sequence[str] = tuple(LAYERS), seconds: float = ROUNDS_SECONDS) -> list[Table]:
    """All three decompositions of both kernels of each layer."""
    rows = []
    for name in layers:
        shape, rank, sweeps = LAYERS[name]
        ranks = (shape[0] // 4, max(1, shape[1] // 4))
        for kind in ("random", "planted"):
            tucker, cp = make_kernel(shape, ranks, kind), make_kernel(shape, rank, kind)
            cases = [
                ("Tucker", tucker, TUCKER_SWEEPS, ours_tucker(ranks), theirs_tucker(ranks)),
                ("CP", cp, sweeps, ours_cp(rank), theirs_cp(rank)),
                ("train", cp.reshape(factored(shape)), 1, ours_train, theirs_train),
            ]
            rows += [[f"{name}, {what} {kind}", *compare(*case, seconds)] for what, *case in cases]
    note = f"Errors relative to the kernel; {threads_note()}. Tensor trains of rank {TRAIN_RANK}."
    columns = ["kernel", *PEER, "sweeps: ours, peer's", "our error", "peer's error"]
    return [Table("Tensor decompositions, against tensorly", note, columns, rows)]


def compare(kernel: Tensor, sweeps: int, ours: Decompose, theirs: Decompose, seconds: float) -> list[str]:
    """The cells of one row: we take the fewest sweeps whose error is no worse than the peer's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensorly: its own deprecations, an SVD of more values than there are
        goal, needed = error_of(theirs(kernel, sweeps), kernel), 1
        while (error := error_of(ours(kernel, needed), kernel)) > goal * (1 + 1e-6) and needed < sweeps:
            needed += 1
        calls = {"ours": lambda: ours(kernel, needed), "theirs": lambda: theirs(kernel, sweeps)}
        times = time_within(calls, seconds, least=3)
    return [*against(times["theirs"], times["ours"]), f"{needed}, {sweeps}", f"{error:.4f}", f"{goal:.4f}"]


def error_of(rebuild: Callable[[], Tensor | np.ndarray], kernel: Tensor) -> float:
    """The norm of what is lost over the norm of the kernel."""
    dense = kernel.double().numpy()
    return float(np.linalg.norm(np.asarray(rebuild()) - dense) / np.linalg.norm(dense))


def factored(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as more and smaller axes: channels in two factors each, the window as one axis.

    Example:
        >>> factored((64, 3, 7, 7))
        (8, 8, 3, 49)
    """
    axes: list[int] = []
    for size in shape[:2]:
        small = next(divisor for divisor in range(int(size**0.5), 0, -1) if size % divisor == 0)
        axes += [small, size // small] if small > 1 else [size]
    return (*axes, int(np.prod(shape[2:])))


def make_kernel(shape: tuple[int, ...], rank: int | tuple[int, int], kind: str) -> Tensor:
    """A float32 kernel: noise, or of CP rank or Tucker ranks ``rank`` with a tenth of noise added."""
    generator = torch.Generator().manual_seed(0)

    def randn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    noise = randn(*shape)
    if kind == "random":
        return noise
    if isinstance(rank, int):
        planted = cp_to_tensor([randn(size, rank) for size in shape])
    else:
        core, u, v = randn(*rank, *shape[2:]), randn(shape[0], rank[0]), randn(shape[1], rank[1])
        planted = torch.einsum("pqij,np,cq->ncij", core, u, v)
    return planted + 0.1 * noise * planted.norm() / noise.norm()


def ours_tucker(ranks: tuple[int, int]) -> Decompose:
    return lambda kernel, sweeps: hooi(kernel, ranks, iterations=sweeps, tolerance=0).to_tensor


def theirs_tucker(ranks: tuple[int, int]) -> Decompose:
    from tensorly.decomposition import partial_tucker
    from tensorly.tenalg import multi_mode_dot

    def decompose(kernel: Tensor, sweeps: int) -> Callable[[], np.ndarray]:
        (core, factors), _ = partial_tucker(kernel.numpy(), list(ranks), modes=[0, 1], n_iter_max=sweeps, tol=0)
        return lambda: multi_mode_dot(core, factors, modes=[0, 1])

    return decompose


def ours_cp(rank: int) -> Decompose:
    def decompose(kernel: Tensor, sweeps: int) -> Callable[[], Tensor]:
        factors = cp_als(kernel, rank, iterations=sweeps, tolerance=0).factors
        return lambda: cp_to_tensor(factors)

    return decompose


def theirs_cp(rank: int) -> Decompose:
    from tensorly import cp_to_tensor as rebuild
    from tensorly.decomposition import parafac

    def decompose(kernel: Tensor, sweeps: int) -> Callable[[], np.ndarray]:
        found = parafac(kernel.numpy(), rank, n_iter_max=sweeps, tol=0, random_state=0)
        return lambda: rebuild(found)

    return decompose


def ours_train(kernel: Tensor, sweeps: int) -> Callable[[], Tensor]:
    cores = tt_svd(kernel, TRAIN_RANK)
    return lambda: tt_to_tensor(cores)


def theirs_train(kernel: Tensor, sweeps: int) -> Callable[[], np.ndarray]:
    from tensorly import tt_to_tensor as rebuild
    from tensorly.decomposition import tensor_train

    found = tensor_train(kernel.numpy(), [1, *[TRAIN_RANK] * (kernel.ndim - 1), 1])
    return lambda: rebuild(found)


if __name__ == "__main__":
    for table in run():
        print(table)
