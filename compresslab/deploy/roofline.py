"""The roofline of a machine: what it can do at best with a layer, from two measured numbers.

A layer of F multiply-accumulates (MACs) moves B bytes. The **peak** P is how many MACs the processor does per
second, the **bandwidth** beta how many bytes reach it per second. Both clocks run side by side, and the
slower one decides:

    t >= max(F / P, B / beta)          MACs per second <= min(P, beta * F / B)

F / B is the layer's arithmetic intensity; P / beta, where the two limits meet, the ridge. Left of it a layer
waits for bytes, and fewer bits help; right of it for the multiplier, and fewer MACs help, or a multiplier of
narrower numbers.

It is a bound. What an operation costs to be called, a layout that has to be changed, a kernel that does not
fit the shape: all of that lies between the bound and the clock.

Source: S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual Performance Model for
    Multicore Architectures", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compresslab.core.errors import check_int
from compresslab.core.macs import layer_macs, plain
from compresslab.core.timing import torch_threads
from compresslab.core.train import device_of, evaluating

PEAK_DTYPES = ("float32", "bfloat16", "float16", "int8")


@dataclass(frozen=True)
class Roofline:
    """The two limits of one machine, for one kind of number and one number of threads.

    Args:
        peak: MACs per second, > 0.
        bandwidth: bytes per second, > 0.
    Raises:
        ValueError: a number that is not positive and finite.
    Example:
        >>> roof = Roofline(peak=1000.0, bandwidth=100.0)
        >>> roof.ridge, roof.attainable(5.0), roof.attainable(50.0), roof.seconds(macs=2000, moved=400)
        (10.0, 500.0, 1000.0, 4.0)
    """

    peak: float
    bandwidth: float

    def __post_init__(self) -> None:
        for name in ("peak", "bandwidth"):
            _positive(name, getattr(self, name))

    @property
    def ridge(self) -> float:
        """The intensity, in MACs per byte, above which the multiplier decides."""
        return self.peak / self.bandwidth

    def attainable(self, intensity: float) -> float:
        """The most MACs per second at an intensity (MACs per byte, >= 0): min(P, beta * intensity).

        Raises:
            ValueError: a negative intensity.
        """
        if not intensity >= 0:
            raise ValueError(f"intensity must be 0 or more, got {intensity:g}")
        return min(self.peak, self.bandwidth * intensity)

    def seconds(self, macs: float, moved: float) -> float:
        """The least seconds for as many MACs and `moved` bytes: max(F / P, B / beta).

        Raises:
            ValueError: a negative number.
        """
        if not (macs >= 0 and moved >= 0):
            raise ValueError(f"macs and moved bytes must be 0 or more, got {macs:g} and {moved:g}")
        return max(macs / self.peak, moved / self.bandwidth)


@dataclass(frozen=True)
class LayerCost:
    """What one layer has to compute and to move, for a whole batch.

    Args:
        name: of the layer in the network. kind: its class, such as "Conv2d".
        macs: multiply-accumulates of all images of the batch.
        weight_bytes: weight and bias, read once for the whole batch.
        activation_bytes: inputs that are read and outputs that are written, of all images.
    """

    name: str
    kind: str
    macs: int
    weight_bytes: float
    activation_bytes: float

    @property
    def moved(self) -> float:
        """All bytes, of weights and of activations."""
        return self.weight_bytes + self.activation_bytes

    @property
    def intensity(self) -> float:
        """MACs per byte."""
        return self.macs / self.moved


def layer_costs(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    batch: int = 1,
    weight_bits: float = 32,
    activation_bits: float = 32,
) -> list[LayerCost]:
    """MACs and bytes of every layer that multiplies, in the order in which the layers run.

    Args:
        model: any network. Removed channels and split layers count as what is left; a masked or coded network
            as the dense one that runs in its place, so say in `weight_bits` in what form the kernel reads the
            weights.
        input_shape: of one image, such as (3, 32, 32).
        batch: images at once, >= 1. Weights are read once for all of them, activations for each.
        weight_bits, activation_bits: of one number as the kernel reads or writes it, > 0.
    Returns:
        a `LayerCost` per call of a layer.
    Raises:
        TypeError, ValueError: a batch that is no whole number above 0, bits that are not positive.
    Differs: norms, activation functions, additions and pooling are taken to be fused with the layer before
        them, and move nothing; every byte is moved exactly once, as if the cache held whatever is needed
        again.
    Example:
        >>> (cost,) = layer_costs(nn.Linear(100, 10, bias=False), (100,), batch=5, weight_bits=8)
        >>> cost.macs, cost.weight_bytes, cost.activation_bytes
        (5000, 1000.0, 2200.0)
    """
    check_int("batch", batch, 1)
    _positive("weight_bits", weight_bits)
    _positive("activation_bits", activation_bits)
    network, costs = plain(model), []
    names = {layer: name for name, layer in reversed(list(network.named_modules()))}

    def hook(layer: nn.Module, inputs: tuple, named: dict, output: object) -> None:
        if macs := layer_macs(layer, (*inputs, *named.values()), output):
            ends = pytree.tree_leaves((inputs, named, output))
            numbers = sum(value.numel() for value in ends if isinstance(value, Tensor))
            weights = sum(parameter.numel() for parameter in layer.parameters())
            cost = (batch * macs, weights * weight_bits / 8, batch * numbers * activation_bits / 8)
            costs.append(LayerCost(names[layer], type(layer).__name__, *cost))

    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer in names]
    try:
        with evaluating(network):
            network(torch.zeros(1, *input_shape, device=device_of(network)))
    finally:
        for handle in handles:
            handle.remove()
    return costs


def predict_milliseconds(costs: Iterable[LayerCost], roofline: Roofline) -> float:
    """The least time of a network, layer after layer: the sum of max(F / P, B / beta), in milliseconds.

    The sum of the layers' bounds is larger than the bound of the sums: one layer's spare bandwidth does not
    help another.

    Example:
        >>> layers = [LayerCost("a", "Linear", 1000, 100, 0), LayerCost("b", "Linear", 1000, 300, 0)]
        >>> predict_milliseconds(layers, Roofline(peak=1000.0, bandwidth=100.0))  # 1 s and 3 s
        4000.0
    """
    return 1e3 * sum(roofline.seconds(cost.macs, cost.moved) for cost in costs)


def measure_roofline(
    dtype: str = "float32", *, threads: int | None = None, megabytes: float = 256, repeats: int = 5
) -> Roofline:
    """The roofline of this machine: `measure_peak` and `measure_bandwidth` together.

    Args, Raises: as these two.
    """
    peak = measure_peak(dtype, threads=threads, repeats=repeats)
    return Roofline(peak, measure_bandwidth(megabytes, threads=threads, repeats=repeats))


def measure_bandwidth(megabytes: float = 256, *, threads: int | None = None, repeats: int = 5) -> float:
    """Bytes per second of a copy, read and written bytes together; the fastest of several runs.

    Args:
        megabytes: size of the array (10^6 bytes), > 0. It needs twice as much memory. Much larger than the
            last cache measures the main memory; 1 MB measures a cache, in which the activations of a small
            network stay.
        threads: of torch; None leaves the number as it is.
        repeats: runs, >= 1, after one that is not counted.
    Raises:
        TypeError, ValueError: a size that is not positive, repeats or threads below 1.
    Differs: a processor that reads a line of memory before it overwrites it moves up to half as much again.
    """
    _positive("megabytes", megabytes)
    source = torch.ones(max(1, round(megabytes * 1e6 / 4)))
    target = torch.empty_like(source)
    with _threads(threads):
        return 2 * source.nbytes / fastest(lambda: target.copy_(source), repeats)


def measure_peak(
    dtype: str = "float32",
    *,
    threads: int | None = None,
    sizes: Sequence[int] = (256, 512, 1024),
    repeats: int = 5,
) -> float:
    """The most MACs per second in products of square matrices: the best size, the fastest run.

    Args:
        dtype: "float32", "bfloat16" or "float16" (torch), or "int8" (ONNX Runtime: uint8 times int8, added in
            int32).
        threads: None takes torch's present number. repeats: runs, >= 1.
        sizes: sides of the matrices, each >= 1.
    Raises:
        TypeError, ValueError: an unknown dtype, no size, sizes, repeats or threads below 1.
        ImportError: "int8" without onnxruntime.
    Differs: what a good library reaches with these sizes, which is less than the data sheet promises.
    """
    if dtype not in PEAK_DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(PEAK_DTYPES)}, got {dtype!r}")
    if not sizes:
        raise ValueError("sizes must name at least one size of a matrix, got none")
    for size in sizes:
        check_int("a size in sizes", size, 1)
    with _threads(threads):
        make = _integer_product if dtype == "int8" else _float_product
        return max(size**3 / fastest(make(size, dtype), repeats) for size in sizes)


def fastest(
    call: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of the fastest of several runs, after one that is not counted: a bound is about the possible.

    A call that is too short for the clock is made several times per run.

    Args:
        call: what to time. repeats: runs, >= 1. clock: returns seconds.
    """
    check_int("repeats", repeats, 1)
    start = clock()
    call()
    calls = max(1, math.ceil(1e-3 / max(clock() - start, 1e-7)))
    best = math.inf
    for _ in range(repeats):
        start = clock()
        for _ in range(calls):
            call()
        best = min(best, (clock() - start) / calls)
    return max(best, 1e-12)


def _float_product(size: int, dtype: str) -> Callable[[], object]:
    matrix = torch.ones(size, size, dtype=getattr(torch, dtype))
    return lambda: matrix @ matrix


def _integer_product(size: int, dtype: str) -> Callable[[], object]:
    """An ONNX file of one MatMulInteger, with the weight in it, so that the engine can rearrange it once."""
    from compresslab.deploy.engine import open_session, session_options

    options = session_options(torch.get_num_threads())
    from onnx import TensorProto, helper

    ones = np.ones((size, size), np.int8).tobytes()
    weight = helper.make_tensor("w", TensorProto.INT8, [size, size], ones, raw=True)
    ends = [
        helper.make_tensor_value_info(name, kind, [size, size])
        for name, kind in (("x", TensorProto.UINT8), ("y", TensorProto.INT32))
    ]
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], [weight])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session, x = open_session(file, options), np.ones((size, size), np.uint8)
    return lambda: session.run(["y"], {"x": x})


def _threads(count: int | None) -> object:
    """As many threads of torch inside."""
    return torch_threads(None if count is None else check_int("threads", count, 1))


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number above 0, got {value:g}")
